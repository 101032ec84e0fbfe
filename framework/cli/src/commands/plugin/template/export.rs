cilbench::export_method!(MyMethod);

// A library has an allocator of its own. Batches and activations are large and short-lived, which
// the system's allocator handles slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
