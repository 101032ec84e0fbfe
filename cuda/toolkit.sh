#!/usr/bin/env bash
# Fetches nvcc 13.0 from PyPI, so that the feature `cuda` builds on a machine with no GPU, no driver and no CUDA toolkit; prints the command that builds it.
#
#   cuda/toolkit.sh [DIR]       DIR defaults to target/cuda-toolkit; about 100 MB are downloaded, 270 MB kept
#
# Needs Linux on x86_64, python3 with pip, and gcc/g++ 12 or newer. No root. The program is for GPUs of compute capability 8.0 (A100, RTX 30) and newer, whose
# driver knows CUDA 13.0 (580 or newer); CUDA_COMPUTE_CAP=75 before this command makes it 7.5.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-$root/target/cuda-toolkit}
target=x86_64-unknown-linux-gnu
if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
  echo "error: this is $(uname -s) on $(uname -m), the toolkit is for Linux on x86_64" >&2
  exit 2
fi
for tool in python3 g++; do
  command -v $tool >/dev/null || { echo "error: $tool is not found: install it first" >&2; exit 2; }
done
mkdir -p "$dir" && dir=$(cd "$dir" && pwd)
home=$dir/tk/nvidia/cu13
if [ ! -x "$home/bin/nvcc" ] || ! "$home/bin/nvcc" --version >/dev/null 2>&1; then
  python3 -m pip download -q --no-deps --only-binary=:all: --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 -d "$dir/wheels" \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
  for wheel in "$dir"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$dir/tk"; done
  chmod +x "$home"/bin/* "$home"/nvvm/bin/*        # zipfile drops the run bits
  rm -r "$dir/wheels"
fi
ln -sfn lib "$home/lib64"
# What the linker gets for the -l flags of cudarc and candle-kernels: empty archives for what is opened at run time, the static runtime for cudart.
mkdir -p "$home/lib/stubs"
ln -sf ../libcudart_static.a "$home/lib/stubs/libcudart.a"
for lib in cuda nvrtc curand cublas cublasLt cudnn; do printf '!<arch>\n' >"$home/lib/stubs/lib$lib.a"; done
# The rustflag turns on cudarc's run-time loading in its sources only: with --target given, build scripts do not see it, so cudarc's
# build.rs does not panic over two linking modes at once. A set RUSTFLAGS would replace it, hence the unset.
cat >"$dir/env.sh" <<EOF
export CUDA_HOME=$home NVCC=$home/bin/nvcc CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-${CUDA_COMPUTE_CAP:-80}} CUDAFORGE_THREADS=\${CUDAFORGE_THREADS:-2}
export PATH=$home/bin:\$PATH
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS='--cfg feature="dynamic-loading"'
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
EOF
echo "the toolkit is ready. Build, from $root, with"
echo
echo "  (. '$dir/env.sh' && cargo build --release --target $target --features cuda)"
echo
echo "The program is then target/$target/release/cilbench."
