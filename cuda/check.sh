#!/usr/bin/env bash
# For whoever has a GPU: does the CUDA build compute what the CPU computes, and how fast? Writes results/cuda-<GPU>.md and .json.
#
#   cuda/check.sh [PROGRAM]     PROGRAM defaults to target/x86_64-unknown-linux-gnu/release/cilbench
#
# Environment: DEVICE=cuda:1 another GPU; SIZES="tiny base", DTYPES="f32 f64", BATCHES="32 128" what bench step measures; OUT=DIR where the record goes.
# cuBLAS and cuRAND are taken from LD_LIBRARY_PATH, else from the wheels of python3's site-packages (nvidia/cu13/lib) where there are some.
# Ends with 0 if everything agrees, 1 if something differs or fails; the record is written either way.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=${1:-$root/target/x86_64-unknown-linux-gnu/release/cilbench}
device=${DEVICE:-cuda}
out=${OUT:-$root/results}
[ -x "$program" ] || { echo "error: $program is not there: build it as cuda/README.md says" >&2; exit 2; }
wheels=$(python3 -c 'import nvidia, os; print(":".join(os.path.join(p, "cu13", "lib") for p in nvidia.__path__))' 2>/dev/null || true)
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$wheels
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

# try NAME COMMAND...: runs it, shows what it prints, keeps that and its exit code.
try() {
  local name=$1
  shift
  echo "== $name: cilbench $*"
  "$program" "$@" >"$work/$name.txt" 2>&1
  echo $? >"$work/$name.rc"
  tail -n 6 "$work/$name.txt"
}

# Opening the device says what is missing.
try opened bench step --device "$device" --size tiny --batch-size 1 --steps 1
[ "$(cat "$work/opened.rc")" = 0 ] || { echo "error: nothing was checked" >&2; exit 2; }

for dtype in f64 f32; do
  try "verify-$dtype" verify --device "$device" --dtype $dtype
done
for size in ${SIZES:-tiny small base}; do
  for dtype in ${DTYPES:-f32 f64}; do
    for batch in ${BATCHES:-32 128}; do
      name=bench-$size-$dtype-$batch
      try "$name-cuda" bench step --device "$device" --size $size --dtype $dtype --batch-size $batch --json "$work/$name-cuda.json"
      # As many steps on the CPU to compare with: the same images and draws, so the same losses.
      [ "$batch" != 32 ] || try "$name-cpu" bench step --device cpu --size $size --dtype $dtype --batch-size $batch --json "$work/$name-cpu.json"
    done
  done
done
try run-cuda run --device "$device" --out "$work/run-cuda"
try run-cpu run --device cpu --out "$work/run-cpu"
try audit-cuda run --device "$device" --audit --seed 1 --out "$work/audit-cuda"
for method in lora-ca inflora pm l2p er der++ icarl simplecil slda ranpac aper-adapter finetune joint linear-probe; do
  for place in "$device" cpu; do
    try "method-$method-${place%%:*}" run --method $method --device "$place" --train-per-class 20 --test-per-class 10 --epochs 1 --out "$work/method-$method-${place%%:*}"
  done
done
mkdir -p "$out" && python3 "$root/cuda/record.py" "$work" "$out" "$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)"
