//! The method of `plugins/nearest-mean` as a binary plugin:
//! `cilbench run --plugin target/release/libnearest_mean_binary.so --method nearest-mean-binary`.

cilbench::export_method!(nearest_mean::NearestMean as "nearest-mean-binary");

// A library has an allocator of its own. Batches and activations are large and short-lived, which
// the system's allocator handles slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
