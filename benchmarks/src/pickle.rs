//! Python pickles, read as data: nothing in them is called or imported. Enough of protocols 0 to 5
//! for dictionaries, lists, texts, bytes, integers and numpy arrays, which is what data sets are
//! distributed as.

use std::collections::HashMap;
use std::rc::Rc;

/// A value of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `None`, booleans and floating-point numbers.
    Other,
    Int(i64),
    /// A text or bytes: Python 2 does not tell them apart.
    Bytes(Rc<[u8]>),
    /// A list or a tuple.
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// The name of a class or function, `module.name`. It is not looked up.
    Name(Rc<str>),
    /// What calling a name would have made: the name, its arguments, and the state set on it.
    Object(Rc<(Value, Value, Option<Value>)>),
}

/// Open values a pickle may have at once: bounds the depth to which they nest.
const MAX_STACK: usize = 4096;

impl Value {
    /// The value of a dictionary's key.
    pub(crate) fn get(&self, key: &str) -> Result<&Value, String> {
        let Value::Dict(items) = self else { return Err("it holds no dictionary".into()) };
        let found = items.iter().find(|(k, _)| matches!(k, Value::Bytes(b) if &b[..] == key.as_bytes()));
        found.map(|(_, v)| v).ok_or_else(|| format!("there is no '{key}' in it"))
    }

    /// A list of integers.
    pub(crate) fn integers(&self) -> Result<Vec<i64>, String> {
        let Value::List(items) = self else { return Err("expected a list of integers".into()) };
        items.iter().map(|v| if let Value::Int(i) = v { Ok(*i) } else { Err("expected a list of integers".to_owned()) }).collect()
    }

    /// A list of texts.
    pub(crate) fn texts(&self) -> Result<Vec<String>, String> {
        let Value::List(items) = self else { return Err("expected a list of texts".into()) };
        let text =
            |v: &Value| if let Value::Bytes(b) = v { Ok(String::from_utf8_lossy(b).into_owned()) } else { Err("expected texts".into()) };
        items.iter().map(text).collect()
    }

    /// The shape and the values of a numpy array of unsigned bytes in C order.
    pub(crate) fn byte_array(&self) -> Result<(Vec<usize>, Rc<[u8]>), String> {
        let bad = || "expected a numpy array of unsigned bytes".to_owned();
        let Value::Object(object) = self else { return Err(bad()) };
        let Value::Name(name) = &object.0 else { return Err(bad()) };
        // numpy's two ways: an empty array whose state is set, or (protocol 5) one made of a
        // buffer.
        let (shape, dtype, bytes) = match (&object.1, &object.2) {
            (_, Some(Value::List(state))) if name.ends_with("._reconstruct") => match &state[..] {
                [_, Value::List(shape), Value::Object(dtype), _, Value::Bytes(bytes)] => (shape, dtype, bytes),
                _ => return Err(bad()),
            },
            (Value::List(args), None) if name.ends_with("._frombuffer") => match &args[..] {
                [Value::Bytes(bytes), Value::Object(dtype), Value::List(shape), Value::Bytes(order)] if &order[..] == b"C" => {
                    (shape, dtype, bytes)
                }
                _ => return Err(bad()),
            },
            _ => return Err(bad()),
        };
        if !matches!(&dtype.1, Value::List(args) if matches!(args.first(), Some(Value::Bytes(b)) if &b[..] == b"u1")) {
            return Err(bad());
        }
        let dim = |v: &Value| if let Value::Int(i) = v { usize::try_from(*i).map_err(|_| bad()) } else { Err(bad()) };
        let shape: Vec<usize> = shape.iter().map(dim).collect::<Result<_, _>>()?;
        if shape.iter().try_fold(1usize, |a, b| a.checked_mul(*b)) != Some(bytes.len()) {
            return Err(format!("an array of shape {shape:?} has {} bytes", bytes.len()));
        }
        Ok((shape, bytes.clone()))
    }
}

/// Reads a pickle.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, String> {
    Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }.run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
}

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len()).ok_or("it ends too early")?;
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    /// A little-endian unsigned number of `n` bytes.
    fn number(&mut self, n: usize) -> Result<usize, String> {
        let value = self.take(n)?.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        usize::try_from(value).map_err(|_| "a length in it is too large".into())
    }

    fn line(&mut self) -> Result<&'a [u8], String> {
        let length = self.bytes[self.at..].iter().position(|b| *b == b'\n').ok_or("it ends too early")?;
        let line = self.take(length)?;
        self.at += 1;
        Ok(line)
    }

    fn pop(&mut self) -> Result<Value, String> {
        if self.marks.last().is_some_and(|m| *m >= self.stack.len()) {
            return Err("it is damaged".into());
        }
        self.stack.pop().ok_or_else(|| "it is damaged".into())
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.stack.len() >= MAX_STACK {
            return Err("it nests too deeply".into());
        }
        self.stack.push(value);
        Ok(())
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|m| *m <= self.stack.len()).ok_or("it is damaged")?;
        Ok(self.stack.split_off(mark))
    }

    fn push_bytes(&mut self, n: usize) -> Result<(), String> {
        let bytes = self.take(n)?.into();
        self.push(Value::Bytes(bytes))
    }

    /// Only what cannot change later may be referred to again: sharing of lists and dictionaries is
    /// not followed.
    fn memoize(&mut self, key: u64) {
        if let Some(value) = self.stack.last().filter(|v| !matches!(v, Value::List(_) | Value::Dict(_))) {
            self.memo.insert(key, value.clone());
        }
    }

    fn recall(&mut self, key: u64) -> Result<(), String> {
        let value = self.memo.get(&key).cloned().ok_or("it refers to a shared list or to nothing, which is not supported")?;
        self.push(value)
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last_mut() {
            Some(Value::List(list)) => list.extend(items),
            _ => return Err("it is damaged".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<(), String> {
        let Some(Value::Dict(dict)) = self.stack.last_mut() else { return Err("it is damaged".into()) };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            dict.push((key, value));
        }
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, name) = (self.pop()?, self.pop()?);
        // How Python 3 writes bytes in the old protocols: `_codecs.encode(text, 'latin1')`.
        if let (Value::Name(n), Value::List(args)) = (&name, &arguments)
            && &**n == "_codecs.encode"
        {
            let Some(Value::Bytes(text)) = args.first() else { return Err("it is damaged".into()) };
            let text = std::str::from_utf8(text).map_err(|_| "it is damaged")?;
            let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
            return self.push(Value::Bytes(bytes.ok_or("it is damaged")?.into()));
        }
        self.push(Value::Object(Rc::new((name, arguments, None))))
    }

    fn build(&mut self) -> Result<(), String> {
        let (state, object) = (self.pop()?, self.pop()?);
        let Value::Object(object) = object else { return Err("it is damaged".into()) };
        self.push(Value::Object(Rc::new((object.0.clone(), object.1.clone(), Some(state)))))
    }

    fn tuple(&mut self, n: usize) -> Result<(), String> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Value::List(items))
    }

    fn run(mut self) -> Result<Value, String> {
        loop {
            let code = self.take(1)?[0];
            match code {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b']' | b')' => self.push(Value::List(Vec::new()))?,
                b'l' | b't' => {
                    let items = self.since_mark()?;
                    self.push(Value::List(items))?;
                }
                b'd' => {
                    let items = self.since_mark()?;
                    self.push(Value::Dict(Vec::new()))?;
                    self.set_items(items)?;
                }
                0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
                b'N' | 0x88 | 0x89 => self.push(Value::Other)?,
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Other)?;
                }
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => {
                    let four = self.number(4)? as u32;
                    self.push(Value::Int(i64::from(four as i32)))?;
                }
                b'I' | b'L' => {
                    let text = String::from_utf8_lossy(self.line()?).trim_end_matches('L').to_owned();
                    self.push(Value::Int(text.parse().map_err(|_| "it is damaged")?))?;
                }
                0x8a => {
                    let n = self.number(1)?;
                    let bytes = self.take(n)?;
                    let filler = if bytes.last().is_some_and(|b| *b >= 0x80) { -1i64 } else { 0 };
                    if n > 8 {
                        return Err("an integer in it is too large".into());
                    }
                    self.push(Value::Int(bytes.iter().rev().fold(filler, |v, b| v << 8 | i64::from(*b))))?;
                }
                b'U' | b'C' | 0x8c => {
                    let n = self.number(1)?;
                    self.push_bytes(n)?;
                }
                b'T' | b'B' | b'X' => {
                    let n = self.number(4)?;
                    self.push_bytes(n)?;
                }
                0x8d | 0x8e | 0x96 => {
                    let n = self.number(8)?;
                    self.push_bytes(n)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set_items(items)?;
                }
                b'q' => {
                    let key = self.number(1)? as u64;
                    self.memoize(key);
                }
                b'r' => {
                    let key = self.number(4)? as u64;
                    self.memoize(key);
                }
                0x94 => {
                    let key = self.memo_size();
                    self.memoize(key);
                }
                b'h' => {
                    let key = self.number(1)? as u64;
                    self.recall(key)?;
                }
                b'j' => {
                    let key = self.number(4)? as u64;
                    self.recall(key)?;
                }
                b'c' => {
                    let module = String::from_utf8_lossy(self.line()?).into_owned();
                    let name = String::from_utf8_lossy(self.line()?).into_owned();
                    self.push(Value::Name(format!("{module}.{name}").into()))?;
                }
                0x93 => {
                    let (Value::Bytes(name), Value::Bytes(module)) = (self.pop()?, self.pop()?) else { return Err("it is damaged".into()) };
                    let text = format!("{}.{}", String::from_utf8_lossy(&module), String::from_utf8_lossy(&name));
                    self.push(Value::Name(text.into()))?;
                }
                b'R' => self.call()?,
                b'b' => self.build()?,
                other => return Err(format!("it uses the pickle instruction {other:#04x}, which is not supported")),
            }
        }
    }

    fn integer(&mut self, n: usize) -> Result<(), String> {
        let value = self.number(n)? as i64;
        self.push(Value::Int(value))
    }

    /// Protocol 4 numbers what it memoizes; values that are not kept must count too.
    fn memo_size(&mut self) -> u64 {
        let next = self.memo.len() as u64;
        if !self.stack.last().is_some_and(|v| !matches!(v, Value::List(_) | Value::Dict(_))) {
            self.memo.insert(next, Value::Other);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pickle.dumps({'data': numpy.arange(6, dtype='uint8').reshape(2, 3), 'fine_labels': [3, 300, -5], 'names': ['a', 'b']}, protocol=N)`
    const FILES: [&[u8]; 3] = [include_bytes!("../data/p2.pkl"), include_bytes!("../data/p4.pkl"), include_bytes!("../data/p5.pkl")];

    #[test]
    fn arrays_lists_and_texts_are_read() {
        for file in FILES {
            let value = parse(file).expect("pickle");
            let (shape, bytes) = value.get("data").expect("data").byte_array().expect("array");
            assert_eq!((shape, &bytes[..]), (vec![2, 3], &[0u8, 1, 2, 3, 4, 5][..]));
            assert_eq!(value.get("fine_labels").expect("labels").integers().expect("integers"), [3, 300, -5]);
            assert_eq!(value.get("names").expect("names").texts().expect("texts"), ["a", "b"]);
            assert!(value.get("other").expect_err("no such key").contains("'other'"));
        }
    }

    #[test]
    fn no_prefix_and_no_nonsense_brings_it_down() {
        for file in FILES {
            for end in 0..file.len() {
                assert!(parse(&file[..end]).is_err(), "{end}");
            }
        }
        assert!(parse(b"cos\nsystem\n(S'ls'\ntR.").is_err());
        assert!(parse(&[b"]".repeat(100_000), b"a".repeat(99_999), b".".to_vec()].concat()).expect_err("deep").contains("deep"));
        assert!(parse(b"T\xff\xff\xff\xff.").expect_err("short").contains("too early"));
    }
}
