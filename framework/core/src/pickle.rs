//! Python pickles, read as data: nothing in them is called or imported.
//!
//! The reader knows protocols 0 to 5 as far as data sets (CIFAR-100) and PyTorch's checkpoints use
//! them. Lists, dictionaries and objects lie in tables and refer to each other by number, so that
//! shared ones cost nothing and neither depth nor cycles can exhaust the stack. A call of anything
//! but the constructors in `CONSTRUCTORS` is refused by its name.

use std::collections::HashMap;
use std::rc::Rc;

/// A value of a pickle; numbers stand for rows of the pickle's tables.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A text or bytes: Python 2 does not tell them apart.
    Bytes(Rc<[u8]>),
    /// A list, a tuple or a set.
    List(usize),
    /// A dictionary.
    Dict(usize),
    /// The name of a class or function, `module.name`. It is not looked up.
    Name(Rc<str>),
    /// What a constructor would have made.
    Object(usize),
    /// What the writer left to the reader to find by this id: a storage, in PyTorch's checkpoints.
    Persistent(Rc<Value>),
}

/// What a constructor would have made: its name, its arguments, and the state set afterwards.
#[derive(Debug, Clone)]
pub struct Object {
    /// `module.name`.
    pub name: Rc<str>,
    /// The arguments, a [`Value::List`].
    pub arguments: Value,
    /// What `__setstate__` would have been given.
    pub state: Option<Value>,
}

/// Calls that only hold data together. Everything else that a pickle calls is refused.
const CONSTRUCTORS: &[&str] = &[
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.dict",
    "builtins.frozenset",
    "builtins.list",
    "builtins.set",
    "builtins.slice",
    "builtins.tuple",
    "__builtin__.set",
    "__builtin__.slice",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.deque",
    "copy_reg._reconstructor",
    "copyreg._reconstructor",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "torch.Size",
    "torch.device",
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
];

/// Open values a pickle may have at once.
const MAX_STACK: usize = 1 << 20;

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle {
    root: Value,
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    objects: Vec<Object>,
}

/// A value of a pickle together with the pickle.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    pickle: &'a Pickle,
    /// The value.
    pub value: &'a Value,
}

impl Pickle {
    /// Reads a pickle that is all of these bytes.
    ///
    /// # Errors
    /// Says what is wrong with it, or which call in it is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::parse_first(bytes).map(|(pickle, _)| pickle)
    }

    /// Reads the pickle that these bytes begin with, and says how long it is.
    ///
    /// # Errors
    /// As [`Pickle::parse`].
    pub fn parse_first(bytes: &[u8]) -> Result<(Self, usize), String> {
        let empty =
            Self { root: Value::None, lists: Vec::new(), dicts: Vec::new(), objects: Vec::new() };
        let mut machine = Machine {
            bytes,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            made: empty,
        };
        machine.made.root = machine.run()?;
        Ok((machine.made, machine.at))
    }

    /// Its value.
    pub fn root(&self) -> Node<'_> {
        Node { pickle: self, value: &self.root }
    }
}

impl<'a> Node<'a> {
    fn of(&self, value: &'a Value) -> Self {
        Self { pickle: self.pickle, value }
    }

    /// The entries of a dictionary.
    pub fn entries(&self) -> Option<impl Iterator<Item = (Node<'a>, Node<'a>)> + use<'a>> {
        let Value::Dict(index) = self.value else { return None };
        let node = *self;
        let entries = self.pickle.dicts.get(*index)?;
        Some(entries.iter().map(move |(key, value)| (node.of(key), node.of(value))))
    }

    /// The items of a list or tuple.
    pub fn items(&self) -> Option<Vec<Node<'a>>> {
        let Value::List(index) = self.value else { return None };
        Some(self.pickle.lists.get(*index)?.iter().map(|v| self.of(v)).collect())
    }

    /// The object.
    pub fn object(&self) -> Option<&'a Object> {
        let Value::Object(index) = self.value else { return None };
        self.pickle.objects.get(*index)
    }

    /// The arguments and the state of an object.
    pub fn parts(&self) -> Option<(Vec<Node<'a>>, Option<Node<'a>>)> {
        let object = self.object()?;
        let arguments = self.of(&object.arguments).items()?;
        Some((arguments, object.state.as_ref().map(|s| self.of(s))))
    }

    /// The id of a value that the reader has to find.
    pub fn persistent(&self) -> Option<Node<'a>> {
        let Value::Persistent(id) = self.value else { return None };
        Some(self.of(id))
    }

    /// The text.
    pub fn text(&self) -> Option<String> {
        let Value::Bytes(bytes) = self.value else { return None };
        String::from_utf8(bytes.to_vec()).ok()
    }

    /// The integer, if it is not negative.
    pub fn size(&self) -> Option<usize> {
        let Value::Int(value) = self.value else { return None };
        usize::try_from(*value).ok()
    }

    /// The value of a dictionary's key.
    ///
    /// # Errors
    /// If this is no dictionary, or has no such key.
    pub fn get(&self, key: &str) -> Result<Node<'a>, String> {
        let mut entries = self.entries().ok_or("it holds no dictionary")?;
        let is_key = |k: &Node| matches!(k.value, Value::Bytes(b) if &b[..] == key.as_bytes());
        let found = entries.find(|(k, _)| is_key(k));
        found.map(|(_, v)| v).ok_or_else(|| format!("there is no '{key}' in it"))
    }

    /// A list of integers.
    ///
    /// # Errors
    /// If it is something else.
    pub fn integers(&self) -> Result<Vec<i64>, String> {
        let expected = || "expected a list of integers".to_owned();
        let items = self.items().ok_or_else(expected)?;
        let integer = |v: &Node| if let Value::Int(i) = v.value { Ok(*i) } else { Err(expected()) };
        items.iter().map(integer).collect()
    }

    /// A list of texts.
    ///
    /// # Errors
    /// If it is something else.
    pub fn texts(&self) -> Result<Vec<String>, String> {
        let expected = || "expected a list of texts".to_owned();
        let items = self.items().ok_or_else(expected)?;
        let text = |v: &Node| match v.value {
            Value::Bytes(b) => Ok(String::from_utf8_lossy(b).into_owned()),
            _ => Err(expected()),
        };
        items.iter().map(text).collect()
    }

    /// The shape and the values of a numpy array of unsigned bytes in C order.
    ///
    /// # Errors
    /// If it is something else, or its bytes are more or fewer than its shape says.
    pub fn byte_array(&self) -> Result<(Vec<usize>, Rc<[u8]>), String> {
        let bad = || "expected a numpy array of unsigned bytes".to_owned();
        let name = &self.object().ok_or_else(bad)?.name;
        let (arguments, state) = self.parts().ok_or_else(bad)?;
        // numpy's two ways: an empty array whose state is set, or (protocol 5) one made of a
        // buffer.
        let (shape, dtype, bytes) = if name.ends_with("._reconstruct") {
            match state.and_then(|s| s.items()).as_deref() {
                Some([_, shape, dtype, _, bytes]) => (*shape, *dtype, *bytes),
                _ => return Err(bad()),
            }
        } else {
            match &arguments[..] {
                [bytes, dtype, shape, order]
                    if name.ends_with("._frombuffer") && order.text().as_deref() == Some("C") =>
                {
                    (*shape, *dtype, *bytes)
                }
                _ => return Err(bad()),
            }
        };
        let kind = dtype.parts().and_then(|(arguments, _)| arguments.first()?.text());
        let (Some("u1"), Value::Bytes(bytes)) = (kind.as_deref(), bytes.value) else {
            return Err(bad());
        };
        let dim = |v: i64| usize::try_from(v).map_err(|_| bad());
        let shape = shape.integers()?.into_iter().map(dim).collect::<Result<Vec<_>, _>>()?;
        if shape.iter().try_fold(1usize, |a, b| a.checked_mul(*b)) != Some(bytes.len()) {
            return Err(format!("an array of shape {shape:?} has {} bytes", bytes.len()));
        }
        Ok((shape, bytes.clone()))
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    made: Pickle,
}

const DAMAGED: &str = "it is damaged";

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let part = &self.bytes[self.at..end.ok_or("it ends too early")?];
        self.at += n;
        Ok(part)
    }

    /// A little-endian unsigned number of `n` bytes.
    fn number(&mut self, n: usize) -> Result<usize, String> {
        let value = self.take(n)?.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        usize::try_from(value).map_err(|_| "a length in it is too large".into())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|b| *b == b'\n').ok_or("it ends too early")?;
        let line = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    fn pop(&mut self) -> Result<Value, String> {
        if self.marks.last().is_some_and(|m| *m >= self.stack.len()) {
            return Err(DAMAGED.into());
        }
        self.stack.pop().ok_or_else(|| DAMAGED.into())
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.stack.len() >= MAX_STACK {
            return Err("it has too many open values".into());
        }
        self.stack.push(value);
        Ok(())
    }

    fn push_list(&mut self, items: Vec<Value>) -> Result<(), String> {
        self.made.lists.push(items);
        self.push(Value::List(self.made.lists.len() - 1))
    }

    fn push_dict(&mut self) -> Result<(), String> {
        self.made.dicts.push(Vec::new());
        self.push(Value::Dict(self.made.dicts.len() - 1))
    }

    fn push_object(&mut self, name: Rc<str>, arguments: Value) -> Result<(), String> {
        self.made.objects.push(Object { name, arguments, state: None });
        self.push(Value::Object(self.made.objects.len() - 1))
    }

    fn push_bytes(&mut self, n: usize) -> Result<(), String> {
        let bytes = self.take(n)?.into();
        self.push(Value::Bytes(bytes))
    }

    fn push_mark(&mut self) -> Result<(), String> {
        if self.marks.len() >= MAX_STACK {
            return Err("it has too many open values".into());
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|m| *m <= self.stack.len()).ok_or(DAMAGED)?;
        Ok(self.stack.split_off(mark))
    }

    fn memoize(&mut self, key: u64) -> Result<(), String> {
        let value = self.stack.last().ok_or(DAMAGED)?.clone();
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), String> {
        let value = self.memo.get(&key).cloned().ok_or("it refers to nothing")?;
        self.push(value)
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::List(index)) => self.made.lists[*index].extend(items),
            // A set or a class made from a list: nobody asks for its items.
            Some(Value::Object(_)) => {}
            _ => return Err(DAMAGED.into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<(), String> {
        // A class made from a dictionary (Lightning's hyper-parameters) is one from now on.
        if let Some(Value::Object(_)) = self.stack.last() {
            self.stack.pop();
            self.push_dict()?;
        }
        let Some(Value::Dict(index)) = self.stack.last() else { return Err(DAMAGED.into()) };
        let dict = &mut self.made.dicts[*index];
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            dict.push((key, value));
        }
        Ok(())
    }

    fn name(&mut self) -> Result<Rc<str>, String> {
        match self.pop()? {
            Value::Name(name) => Ok(name),
            _ => Err(DAMAGED.into()),
        }
    }

    /// A call, of a constructor only.
    fn call(&mut self) -> Result<(), String> {
        let arguments = self.pop()?;
        let name = self.name()?;
        self.allow(&name)?;
        match (&*name, &arguments) {
            ("collections.OrderedDict" | "collections.defaultdict", _) => self.push_dict(),
            // How Python 3 writes bytes in the old protocols: `_codecs.encode(text, 'latin1')`.
            ("_codecs.encode", Value::List(index)) => {
                let Some(Value::Bytes(text)) = self.made.lists[*index].first() else {
                    return Err(DAMAGED.into());
                };
                let text = std::str::from_utf8(text).map_err(|_| DAMAGED)?;
                let bytes: Option<Vec<u8>> =
                    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                let bytes = bytes.ok_or(DAMAGED)?;
                self.push(Value::Bytes(bytes.into()))
            }
            _ => self.push_object(name, arguments),
        }
    }

    fn allow(&self, name: &str) -> Result<(), String> {
        if CONSTRUCTORS.contains(&name) {
            return Ok(());
        }
        Err(format!(
            "it calls {name}, and code in a weights or data file is never run; save plain tensors \
             (in PyTorch: torch.save(model.state_dict(), FILE), or safetensors)"
        ))
    }

    /// An instance of a class. Without arguments that is data; with some it is a call.
    fn instance(&mut self, keywords: bool) -> Result<(), String> {
        let keywords = if keywords { Some(self.pop()?) } else { None };
        let arguments = self.pop()?;
        let name = self.name()?;
        let given = |v: &Value| match v {
            Value::List(index) => !self.made.lists[*index].is_empty(),
            Value::Dict(index) => !self.made.dicts[*index].is_empty(),
            _ => true,
        };
        if given(&arguments) || keywords.as_ref().is_some_and(given) {
            self.allow(&name)?;
        }
        if &*name == "collections.OrderedDict" {
            self.push_dict()
        } else {
            self.push_object(name, arguments)
        }
    }

    fn build(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        match self.stack.last() {
            Some(Value::Object(index)) => self.made.objects[*index].state = Some(state),
            // Attributes of a dictionary (PyTorch's `_metadata`) say nothing of its entries.
            Some(Value::Dict(_)) => {}
            _ => return Err(DAMAGED.into()),
        }
        Ok(())
    }

    fn tuple(&mut self, n: usize) -> Result<(), String> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push_list(items)
    }

    /// Runs to the end, and gives the value that is left.
    fn run(&mut self) -> Result<Value, String> {
        loop {
            let code = self.take(1)?[0];
            match code {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'0' => drop(self.pop()?),
                b'2' => self.push(self.stack.last().ok_or(DAMAGED)?.clone())?,
                b'(' => self.push_mark()?,
                b'}' => self.push_dict()?,
                b']' | b')' | 0x8f => self.push_list(Vec::new())?,
                0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
                b'R' => self.call()?,
                0x81 => self.instance(false)?,
                0x92 => self.instance(true)?,
                b'b' => self.build()?,
                b'G' | b'F' | b'K' | b'M' | b'J' | b'I' | b'L' | 0x8a => self.scalar(code)?,
                b'U' | b'C' | 0x8c | b'T' | b'B' | b'X' | 0x8d | 0x8e | 0x96 | b'S' | b'V' => {
                    self.string(code)?;
                }
                b'c' | 0x93 | b'P' | b'Q' => self.reference(code)?,
                b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memory(code)?,
                b'1' | b'l' | b't' | b'd' | b'e' | b'u' | b'a' | b's' | 0x90 | 0x91 => {
                    self.collect(code)?;
                }
                b'i' | b'o' => return Err(self.old_call(code)),
                other => {
                    let what = "which is not supported";
                    return Err(format!("it uses the pickle instruction {other:#04x}, {what}"));
                }
            }
        }
    }

    /// Numbers.
    fn scalar(&mut self, code: u8) -> Result<(), String> {
        let value = match code {
            b'G' => {
                let bytes = self.take(8)?.try_into().map_err(|_| DAMAGED)?;
                Value::Float(f64::from_be_bytes(bytes))
            }
            b'F' => Value::Float(self.line()?.trim().parse().map_err(|_| DAMAGED)?),
            b'K' => Value::Int(self.number(1)? as i64),
            b'M' => Value::Int(self.number(2)? as i64),
            b'J' => Value::Int(i64::from(self.number(4)? as u32 as i32)),
            b'I' | b'L' => match self.line()?.trim_end_matches('L') {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => Value::Int(text.parse().map_err(|_| DAMAGED)?),
            },
            _ => {
                let n = self.number(1)?;
                let bytes = self.take(n)?;
                // Larger ones are seeds and magic numbers; no size is one of them.
                let filler = if bytes.last().is_some_and(|b| *b >= 0x80) { -1i64 } else { 0 };
                match n {
                    0..=8 => {
                        Value::Int(bytes.iter().rev().fold(filler, |v, b| v << 8 | i64::from(*b)))
                    }
                    _ => Value::Bytes(bytes.into()),
                }
            }
        };
        self.push(value)
    }

    /// Texts and bytes.
    fn string(&mut self, code: u8) -> Result<(), String> {
        let length = match code {
            b'S' | b'V' => {
                let line = self.line()?;
                let text = line.trim().trim_matches(['\'', '"']);
                return self.push(Value::Bytes(text.as_bytes().into()));
            }
            b'U' | b'C' | 0x8c => 1,
            b'T' | b'B' | b'X' => 4,
            _ => 8,
        };
        let n = self.number(length)?;
        self.push_bytes(n)
    }

    /// Names of classes and functions, and ids of what lies elsewhere.
    fn reference(&mut self, code: u8) -> Result<(), String> {
        let value = match code {
            b'c' => Value::Name(format!("{}.{}", self.line()?, self.line()?).into()),
            0x93 => {
                let (Value::Bytes(name), Value::Bytes(module)) = (self.pop()?, self.pop()?) else {
                    return Err(DAMAGED.into());
                };
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Value::Name(format!("{}.{}", text(&module), text(&name)).into())
            }
            b'P' => Value::Persistent(Rc::new(Value::Bytes(self.line()?.as_bytes().into()))),
            _ => Value::Persistent(Rc::new(self.pop()?)),
        };
        self.push(value)
    }

    /// What is kept to be referred to again.
    fn memory(&mut self, code: u8) -> Result<(), String> {
        let key = match code {
            b'p' | b'g' => self.line()?.trim().parse().map_err(|_| DAMAGED)?,
            b'q' | b'h' => self.number(1)? as u64,
            b'r' | b'j' => self.number(4)? as u64,
            _ => self.memo.len() as u64,
        };
        if matches!(code, b'g' | b'h' | b'j') { self.recall(key) } else { self.memoize(key) }
    }

    /// Lists, dictionaries and their items.
    fn collect(&mut self, code: u8) -> Result<(), String> {
        match code {
            b'a' => {
                let item = self.pop()?;
                return self.append(vec![item]);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                return self.set_items(vec![key, value]);
            }
            _ => {}
        }
        let items = self.since_mark()?;
        match code {
            b'1' => Ok(()),
            b'l' | b't' | 0x91 => self.push_list(items),
            b'd' => {
                self.push_dict()?;
                self.set_items(items)
            }
            b'u' => self.set_items(items),
            _ => self.append(items),
        }
    }

    /// Protocol 0's calls; what they call is named.
    fn old_call(&mut self, code: u8) -> String {
        let name = match code {
            b'i' => self.line().and_then(|module| Ok(format!("{module}.{}", self.line()?))).ok(),
            _ => self.since_mark().ok().and_then(|items| match items.first() {
                Some(Value::Name(name)) => Some(name.to_string()),
                _ => None,
            }),
        };
        name.and_then(|name| self.allow(&name).err()).unwrap_or_else(|| DAMAGED.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pickle.dumps({'data': numpy.arange(6, dtype='uint8').reshape(2, 3), 'fine_labels':
    /// [3, 300, -5], 'names': ['a', 'b']}, protocol=N)`
    const FILES: [&[u8]; 3] = [
        include_bytes!("../tests/pickles/p2.pkl"),
        include_bytes!("../tests/pickles/p4.pkl"),
        include_bytes!("../tests/pickles/p5.pkl"),
    ];

    #[test]
    fn arrays_lists_and_texts_are_read() {
        for file in FILES {
            let pickle = Pickle::parse(file).expect("pickle");
            let get = |key: &str| pickle.root().get(key).expect("key");
            let (shape, bytes) = get("data").byte_array().expect("array");
            assert_eq!((shape, &bytes[..]), (vec![2, 3], &[0u8, 1, 2, 3, 4, 5][..]));
            assert_eq!(get("fine_labels").integers().expect("integers"), [3, 300, -5]);
            assert_eq!(get("names").texts().expect("texts"), ["a", "b"]);
            assert!(pickle.root().get("other").expect_err("no such key").contains("'other'"));
            for end in 0..file.len() {
                assert!(Pickle::parse(&file[..end]).is_err(), "{end}");
            }
        }
    }

    #[test]
    fn calls_are_refused_by_name_and_instances_without_arguments_are_data() {
        let refused = |bytes: &[u8]| Pickle::parse(bytes).expect_err("refused");
        assert!(refused(b"cos\nsystem\n(S'ls'\ntR.").contains("it calls os.system"));
        assert!(refused(b"(S'ls'\nios\nsystem\n.").contains("it calls os.system"));
        assert!(refused(b"(cos\nsystem\nS'ls'\no.").contains("it calls os.system"));
        assert!(
            refused(b"csubprocess\nPopen\nS'ls'\n\x85\x81.").contains("it calls subprocess.Popen")
        );
        let pickle =
            Pickle::parse(b"cargparse\nNamespace\n)\x81}S'arch'\nS'vit'\nsb.").expect("data");
        let (_, state) = pickle.root().parts().expect("object");
        assert_eq!(state.expect("state").get("arch").expect("arch").text().as_deref(), Some("vit"));
    }

    #[test]
    fn shared_and_circular_lists_are_followed_by_number() {
        // a = []; [a, a], and a list that holds itself.
        let pickle = Pickle::parse(b"]q\x00]q\x01(h\x00h\x00e.").expect("shared");
        assert_eq!(pickle.root().items().expect("list").len(), 2);
        assert!(Pickle::parse(b"]q\x00h\x00a.").expect("circular").root().items().is_some());
        let deep = [b"]".repeat(100_000), b"a".repeat(99_999), b".".to_vec()].concat();
        assert!(Pickle::parse(&deep).is_ok());
        assert!(
            Pickle::parse(&b"(".repeat(2_000_000)).expect_err("marks").contains("too many open")
        );
    }

    #[test]
    fn no_length_is_believed_before_it_is_there() {
        let refused = |bytes: &[u8]| Pickle::parse(bytes).expect_err("refused");
        assert!(refused(b"T\xff\xff\xff\xff.").contains("too early"));
        assert!(refused(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.").contains("too early"));
        assert!(refused(b"\x8a\xff.").contains("too early"));
        assert!(refused(b"a.").contains("damaged"));
        assert!(refused(b"").contains("too early"));
    }
}
