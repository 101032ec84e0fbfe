//! A plain typed tensor: the form in which numbers cross every boundary (context messages, state,
//! files, plugins).

pub(crate) mod encoding;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The element type of an [`Array`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-bit brain float.
    BF16,
    /// 16-bit float.
    F16,
    /// 64-bit signed integer.
    I64,
    /// 8-bit unsigned integer.
    U8,
    /// 32-bit unsigned integer.
    U32,
}

impl Element {
    /// The element type of a tensor type.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if there is none.
    pub fn of(dtype: DType) -> Result<Self> {
        Ok(match dtype {
            DType::F32 => Self::F32,
            DType::F64 => Self::F64,
            DType::BF16 => Self::BF16,
            DType::F16 => Self::F16,
            DType::I64 => Self::I64,
            DType::U8 => Self::U8,
            DType::U32 => Self::U32,
            other => {
                return Err(crate::Error::Unsupported(format!(
                    "a tensor of type {other:?} in a message or a state"
                )));
            }
        })
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        self.dtype().size_in_bytes()
    }

    /// The candle type with the same name.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
            Self::BF16 => DType::BF16,
            Self::F16 => DType::F16,
            Self::I64 => DType::I64,
            Self::U8 => DType::U8,
            Self::U32 => DType::U32,
        }
    }
}

/// A typed tensor as plain data: little-endian bytes in row-major order.
#[derive(Clone, PartialEq, Eq)]
pub struct Array {
    /// The element type.
    pub element: Element,
    /// The shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape.product()` elements, little-endian, row-major.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array({:?} {:?})", self.element, self.shape)
    }
}

impl Array {
    /// An f32 array of this shape.
    pub fn from_f32(shape: impl Into<Vec<usize>>, values: &[f32]) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape and number of values");
        Self { element: Element::F32, shape, bytes: little_endian(values, f32::to_le_bytes) }
    }

    /// A one-dimensional i64 array.
    pub fn from_i64(values: &[i64]) -> Self {
        Self {
            element: Element::I64,
            shape: vec![values.len()],
            bytes: little_endian(values, i64::to_le_bytes),
        }
    }

    /// A copy of a tensor's values.
    ///
    /// # Errors
    /// If the tensor's type is none of [`Element`], or it cannot be read from its device.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        macro_rules! bytes {
            ($t:ty) => {
                little_endian(&tensor.flatten_all()?.to_vec1::<$t>()?, <$t>::to_le_bytes)
            };
        }
        let element = Element::of(tensor.dtype())?;
        let bytes = match element {
            Element::F32 => bytes!(f32),
            Element::F64 => bytes!(f64),
            Element::BF16 => bytes!(half::bf16),
            Element::F16 => bytes!(half::f16),
            Element::I64 => bytes!(i64),
            Element::U8 => bytes!(u8),
            Element::U32 => bytes!(u32),
        };
        Ok(Self { element, shape: tensor.dims().to_vec(), bytes })
    }

    /// The array as a tensor of its own element type.
    ///
    /// # Errors
    /// If the number of bytes does not fit the shape.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_raw_buffer(&self.bytes, self.element.dtype(), &self.shape, device)?)
    }

    /// The array as a tensor of type `dtype`.
    ///
    /// # Errors
    /// If the number of bytes does not fit the shape.
    pub fn to_dtype(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        Ok(self.to_tensor(&Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// The values as f64, whatever the element type.
    ///
    /// # Errors
    /// If the number of bytes does not fit the shape.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        Ok(self.to_dtype(DType::F64, &Device::Cpu)?.flatten_all()?.to_vec1()?)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The bytes of numbers, each as `bytes` has it. Writes into a buffer of the right length: a batch
/// of images is copied at the speed of memory.
fn little_endian<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut out = vec![0; values.len() * N];
    for (place, value) in out.chunks_exact_mut(N).zip(values) {
        place.copy_from_slice(&bytes(*value));
    }
    out
}
