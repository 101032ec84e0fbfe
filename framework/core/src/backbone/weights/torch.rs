//! PyTorch's checkpoints, read as data: the zip files of PyTorch 1.6 and later, and the pickles in
//! a row before that. Nothing in them is executed; see [`crate::pickle`].

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::safetensors::unusable;
use super::{Contents, Stored};
use crate::pickle::{Node, Pickle, Value};
use crate::{Error, Result};

/// Top-level entries of a training checkpoint that are no network; their tensors are not read.
const TRAINING: &[&str] =
    &["optimizer", "optimizers", "optimizer_states", "optimizer_state_dict", "optim", "scaler"];

/// Dictionaries within each other are followed so deep.
const DEPTH: usize = 16;

/// More tensors than any network has.
const MAX_TENSORS: usize = 1 << 20;

/// A tensor that a pickle describes: a view into a storage.
struct View {
    storage: String,
    dtype: String,
    /// The number of elements of the storage.
    elements: usize,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

/// Where storages are, by their keys.
trait Storages {
    /// The bytes of a storage, at least `bytes` of them.
    fn read(&mut self, key: &str, bytes: usize) -> Result<Vec<u8>, String>;
}

/// Reads the zip form: `data.pkl` and one file per storage.
pub(super) fn read_zip(path: &Path, bytes: &[u8]) -> Result<Contents> {
    let fail = |what: String| Error::file(path, what);
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes))
        .map_err(|e| fail(format!("not a whole zip archive ({e}); get it anew")))?;
    let names = zip.file_names().map(|n| n.map(|n| n.into_owned())).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|e| fail(format!("not a whole zip archive ({e}); get it anew")))?;
    let Some(root) = names.iter().find_map(|n| n.strip_suffix("data.pkl")) else {
        let what = if names.iter().any(|n| n.ends_with(".npy")) {
            "it is a NumPy archive (.npz, as JAX's checkpoints are); get the safetensors or PyTorch \
             file of the same network"
        } else {
            "it is a zip archive without PyTorch's data.pkl; unpack it, or name another file"
        };
        return Err(fail(what.to_owned()));
    };
    if names.iter().any(|n| n.starts_with(&format!("{root}code/")) || n.ends_with("constants.pkl"))
    {
        let what = "it is a TorchScript archive, which holds code; save its tensors in Python: \
                    torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')";
        return Err(fail(what.to_owned()));
    }
    let root = root.to_owned();
    let mut storages = Zip { zip: &mut zip, root };
    let data = storages.entry("data.pkl").map_err(&fail)?;
    if storages.entry("byteorder").is_ok_and(|order| order.starts_with(b"big")) {
        return Err(fail(
            "its numbers are big-endian, which is not supported; save it anew".into(),
        ));
    }
    let pickle =
        Pickle::parse(&data).map_err(|e| fail(format!("not a readable checkpoint: {e}")))?;
    contents(path, &pickle, &mut storages)
}

struct Zip<'a, 'b> {
    zip: &'a mut zip::ZipArchive<Cursor<&'b [u8]>>,
    root: String,
}

impl Zip<'_, '_> {
    /// A file of the archive. Nothing is believed of its size: it is not compressed, and read up to
    /// its end.
    fn entry(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let whole = format!("{}{name}", self.root);
        let bad = |e: &dyn std::fmt::Display| {
            format!("its part {whole} cannot be read ({e}); get it anew")
        };
        let mut file = self.zip.by_name(&whole).map_err(|e| bad(&e))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| bad(&e))?;
        Ok(bytes)
    }
}

impl Storages for Zip<'_, '_> {
    fn read(&mut self, key: &str, bytes: usize) -> Result<Vec<u8>, String> {
        let data = self.entry(&format!("data/{key}"))?;
        if data.len() < bytes {
            return Err(format!(
                "its storage {key} has {} of {bytes} bytes; get it anew",
                data.len()
            ));
        }
        Ok(data)
    }
}

/// Reads the old form: a magic number, a version, the writer's machine, the object, the keys of the
/// storages, and the storages.
pub(super) fn read_legacy(path: &Path, bytes: &[u8]) -> Result<Contents> {
    let fail = |what: String| Error::file(path, format!("not a readable checkpoint: {what}"));
    let mut at = 0;
    let mut next = || -> Result<Pickle> {
        let (pickle, length) = Pickle::parse_first(&bytes[at..]).map_err(fail)?;
        at += length;
        Ok(pickle)
    };
    // 0x1950a86a20f9469cfc6c, little-endian.
    const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let first = next()?;
    if !matches!(first.root().value, Value::Bytes(b) if **b == MAGIC) {
        let what = "it is a plain Python pickle and not one of PyTorch's; save it with torch.save";
        return Err(Error::file(path, what));
    }
    let (_version, _machine, object, keys) = (next()?, next()?, next()?, next()?);
    let keys = keys.root().texts().map_err(fail)?;
    let views = views(path, &object)?;
    let mut storages = Legacy { bytes, places: HashMap::new() };
    let widths: HashMap<&str, usize> = views
        .all
        .iter()
        .filter_map(|(_, v)| Some((v.storage.as_str(), width(&v.dtype)?)))
        .collect();
    for key in &keys {
        let count = bytes.get(at..at.saturating_add(8)).and_then(|b| b.try_into().ok());
        let count = count.map(i64::from_le_bytes).and_then(|n| usize::try_from(n).ok());
        at = at.saturating_add(8);
        // A storage that no tensor is in still takes its place.
        let width =
            widths.get(key.as_str()).copied().or_else(|| views.passed_over.get(key).copied());
        let bytes_of = count.zip(width).and_then(|(n, w)| n.checked_mul(w));
        let end = bytes_of.and_then(|n| at.checked_add(n)).filter(|end| *end <= bytes.len());
        let end =
            end.ok_or_else(|| fail(format!("its storage {key} ends too early; get it anew")))?;
        storages.places.insert(key.clone(), (at, end));
        at = end;
    }
    gather(path, views, &mut storages)
}

struct Legacy<'a> {
    bytes: &'a [u8],
    places: HashMap<String, (usize, usize)>,
}

impl Storages for Legacy<'_> {
    fn read(&mut self, key: &str, bytes: usize) -> Result<Vec<u8>, String> {
        let (begin, end) = self.places.get(key).ok_or(format!("its storage {key} is missing"))?;
        let data = &self.bytes[*begin..*end];
        if data.len() < bytes {
            return Err(format!(
                "its storage {key} has {} of {bytes} bytes; get it anew",
                data.len()
            ));
        }
        Ok(data.to_vec())
    }
}

/// The tensors of a pickle by their names.
#[derive(Default)]
struct Views {
    all: Vec<(String, View)>,
    /// Tensors that cannot be weights, and why.
    unusable: Vec<(String, Stored)>,
    /// Widths of the elements of storages that belong to an optimiser.
    passed_over: HashMap<String, usize>,
    notes: Vec<String>,
}

fn contents(path: &Path, pickle: &Pickle, storages: &mut dyn Storages) -> Result<Contents> {
    let views = views(path, pickle)?;
    gather(path, views, storages)
}

fn views(path: &Path, pickle: &Pickle) -> Result<Views> {
    let mut views = Views::default();
    let root = pickle.root();
    walk(&mut views, "", root, 0, false).map_err(|e| Error::file(path, e))?;
    if views.all.is_empty() && views.unusable.is_empty() {
        return Err(Error::file(path, "there is no tensor in it"));
    }
    Ok(views)
}

/// Collects the tensors of dictionaries, lists and modules, their names joined by dots.
fn walk(views: &mut Views, name: &str, node: Node, depth: usize, skip: bool) -> Result<(), String> {
    if depth > DEPTH {
        return Ok(());
    }
    if views.all.len() + views.unusable.len() + views.passed_over.len() > MAX_TENSORS {
        return Err(format!("there are more than {MAX_TENSORS} tensors in it"));
    }
    let join = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    if let Some(entries) = node.entries() {
        for (key, value) in entries {
            let Some(key) = key.text().or_else(|| key.size().map(|n| n.to_string())) else {
                continue;
            };
            let training = depth == 0 && TRAINING.contains(&key.as_str());
            let before = views.passed_over.len();
            walk(views, &join(&key), value, depth + 1, skip || training)?;
            if training && views.passed_over.len() > before {
                views.notes.push(format!("left out: {key} (the state of training)"));
            }
        }
    } else if let Some(items) = node.items() {
        for (i, item) in items.into_iter().enumerate() {
            walk(views, &join(&i.to_string()), item, depth + 1, skip)?;
        }
    } else if let Some(found) = tensor(node) {
        match found {
            Ok(view) if skip => {
                views.passed_over.insert(view.storage, width(&view.dtype).unwrap_or(1));
            }
            Ok(view) => views.all.push((name.to_owned(), view)),
            Err(why) => {
                views.unusable.push((name.to_owned(), Stored::Unusable { shape: vec![], why }))
            }
        }
    } else if let Some((_, Some(state))) = node.parts() {
        // A whole module: its parameters and buffers, then its modules.
        for part in ["_parameters", "_buffers", "_modules"] {
            if let Ok(part) = state.get(part) {
                walk(views, name, part, depth + 1, skip)?;
            }
        }
    }
    Ok(())
}

/// The view that a call of one of PyTorch's constructors of tensors describes.
fn tensor(node: Node) -> Option<Result<View, String>> {
    let name = &node.object()?.name;
    let (arguments, _) = node.parts()?;
    match &**name {
        "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
            tensor(*arguments.first()?)
        }
        "torch._tensor._rebuild_from_type_v2" => {
            match (arguments.first()?.value, arguments.get(2)?) {
                (Value::Name(name), inner) => view(name, &inner.items()?),
                _ => None,
            }
        }
        name => view(name, &arguments),
    }
}

fn view(name: &str, arguments: &[Node]) -> Option<Result<View, String>> {
    if !name.starts_with("torch._utils._rebuild_tensor") {
        return None;
    }
    let broken = || "has a description that is damaged".to_owned();
    let read = || -> Option<View> {
        let id = arguments.first()?.persistent()?.items()?;
        let Value::Name(class) = id.get(1)?.value else { return None };
        let mut dtype = class.strip_prefix("torch.").unwrap_or(class).to_owned();
        // Later versions keep bytes, and the tensor says of what type.
        if let Some(Value::Name(stated)) = arguments.get(6).map(|n| n.value)
            && name.ends_with("_v3")
        {
            dtype = stated.strip_prefix("torch.").unwrap_or(stated).to_owned();
        }
        let sizes = |n: &Node| n.items()?.iter().map(Node::size).collect::<Option<Vec<_>>>();
        // A view of a storage begins within it (only in files before PyTorch 0.4).
        if id.get(5).is_some_and(|v| *v.value != Value::None) {
            return None;
        }
        Some(View {
            storage: id.get(2)?.text()?,
            dtype,
            elements: id.get(4)?.size()?,
            offset: arguments.get(1)?.size()?,
            shape: sizes(arguments.get(2)?)?,
            stride: sizes(arguments.get(3)?)?,
        })
    };
    Some(read().ok_or_else(broken))
}

/// The type of a storage, or of a tensor, as candle calls it.
fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "FloatStorage" | "float32" => DType::F32,
        "DoubleStorage" | "float64" => DType::F64,
        "HalfStorage" | "float16" => DType::F16,
        "BFloat16Storage" | "bfloat16" => DType::BF16,
        "ByteStorage" | "uint8" => DType::U8,
        "ShortStorage" | "int16" => DType::I16,
        "IntStorage" | "int32" => DType::I32,
        "LongStorage" | "int64" => DType::I64,
        _ => return None,
    })
}

/// The bytes of an element.
fn width(name: &str) -> Option<usize> {
    match name {
        "BoolStorage" | "CharStorage" | "bool" | "int8" => Some(1),
        "ComplexFloatStorage" => Some(8),
        "ComplexDoubleStorage" => Some(16),
        name if name.starts_with("float8") => Some(1),
        name => dtype(name).map(|d| d.size_in_bytes()),
    }
}

/// Reads the views, one storage after the other.
fn gather(path: &Path, views: Views, storages: &mut dyn Storages) -> Result<Contents> {
    let mut contents = Contents { notes: views.notes, ..Contents::default() };
    contents.tensors.extend(views.unusable);
    let mut by_storage: BTreeMap<String, Vec<(String, View)>> = BTreeMap::new();
    for (name, view) in views.all {
        by_storage.entry(view.storage.clone()).or_default().push((name, view));
    }
    for (key, views) in by_storage {
        let mut data = None;
        for (name, view) in views {
            let Some(dtype) = dtype(&view.dtype) else {
                let why = unusable(view.dtype.trim_end_matches("Storage"));
                contents.tensors.insert(name, Stored::Unusable { shape: view.shape, why });
                continue;
            };
            let bytes = match data.take() {
                Some(bytes) => bytes,
                None => {
                    let size = view.elements.saturating_mul(dtype.size_in_bytes());
                    storages.read(&key, size).map_err(|e| Error::file(path, e))?
                }
            };
            let stored = view.read(dtype, &bytes)?;
            contents.tensors.insert(name, stored);
            data = Some(bytes);
        }
    }
    Ok(contents)
}

impl View {
    /// Whether its elements lie one after the other.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.stride).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected *= size;
            fits
        })
    }

    /// The tensor: its elements in order, whatever order they have in the storage.
    fn read(&self, dtype: DType, storage: &[u8]) -> Result<Stored> {
        let (shape, width) = (self.shape.clone(), dtype.size_in_bytes());
        let unusable = |why: &str| Stored::Unusable { shape: shape.clone(), why: why.to_owned() };
        let count = shape.iter().try_fold(1usize, |n, s| n.checked_mul(*s));
        let available = storage.len() / width;
        let Some(count) = count.filter(|n| *n <= available && shape.len() == self.stride.len())
        else {
            return Ok(unusable("is larger than its storage, or damaged"));
        };
        if count == 0 {
            return Ok(Stored::Tensor(Tensor::zeros(shape, dtype, &Device::Cpu)?));
        }
        let last = shape.iter().zip(&self.stride).try_fold(self.offset, |at, (size, stride)| {
            at.checked_add((size - 1).checked_mul(*stride)?)
        });
        if last.is_none_or(|last| last >= available) {
            return Ok(unusable("reaches beyond its storage"));
        }
        if self.is_contiguous() {
            let bytes = &storage[self.offset * width..(self.offset + count) * width];
            return Ok(Stored::Tensor(Tensor::from_raw_buffer(
                bytes,
                dtype,
                &shape,
                &Device::Cpu,
            )?));
        }
        let mut bytes = Vec::with_capacity(count * width);
        let mut index = vec![0; shape.len()];
        for _ in 0..count {
            let at =
                index.iter().zip(&self.stride).map(|(i, s)| i * s).sum::<usize>() + self.offset;
            bytes.extend_from_slice(&storage[at * width..(at + 1) * width]);
            for (i, size) in index.iter_mut().zip(&shape).rev() {
                *i += 1;
                if *i < *size {
                    break;
                }
                *i = 0;
            }
        }
        Ok(Stored::Tensor(Tensor::from_raw_buffer(&bytes, dtype, &shape, &Device::Cpu)?))
    }
}
