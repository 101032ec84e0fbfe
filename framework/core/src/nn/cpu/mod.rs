//! Kernels for the CPU: functions over slices of f32 or f64, without tensors and without a graph.
//!
//! Most kernels run on the thread that calls them, and their callers split the work. Only
//! [`cholesky`] uses all threads by itself. No sum depends on the number of threads, so the bits of
//! every result are the same at any number of them.

pub(crate) mod aligned;
pub(crate) mod attention;
pub(crate) mod cholesky;
pub(crate) mod eigen;
pub(crate) mod panels;
pub(crate) mod product;
pub(crate) mod rowwise;
pub(crate) mod simd;
pub(crate) mod speed;
pub(crate) mod storage;
