//! The part of Python's pickle format that a file of weights uses, read without running anything.
//!
//! A pickle is a program for a stack machine that may name any Python function and have it called. This machine knows the operations that
//! `torch.save` writes for a dictionary of tensors and the few names in them; any other is refused by name. Source: Python's `pickletools`.
//!
//! Containers live in one arena and refer to each other by index: a hostile file can nest them without end, but not make a reader recurse.
//! Every operation adds at most a few values, so memory stays proportional to the length of the pickle.

use super::Element;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A tensor as the pickle describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    /// The name of the storage, a file of the archive.
    pub storage: String,
    /// What the storage holds.
    pub element: Element,
    /// How many elements the storage is said to hold.
    pub n_stored: usize,
    /// The first element of the tensor in its storage.
    pub offset: usize,
    /// The extent of each axis.
    pub shape: Vec<usize>,
    /// How many elements lie between neighbours along each axis.
    pub strides: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Value {
    Mark,
    None,
    Bool,
    Int(i64),
    Float,
    Text(Rc<str>),
    /// A name of Python's that is known here.
    Name(Known),
    /// A tuple, a list, or keys and values of a dictionary: which container of the arena.
    Tuple(usize),
    List(usize),
    Dict(usize),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
}

#[derive(Debug)]
struct Storage {
    element: Element,
    key: Rc<str>,
    n_stored: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Known {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

impl Known {
    fn of(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", storage) => Self::Storage(match storage.strip_suffix("Storage")? {
                "Float" => Element::F32,
                "Half" => Element::F16,
                "BFloat16" => Element::Bf16,
                "Double" => Element::F64,
                other @ ("Long" | "Int" | "Short" | "Char" | "Byte" | "Bool") => Element::Other(other.to_owned()),
                _ => return None,
            }),
            _ => return None,
        })
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    arena: Vec<Vec<Value>>,
    memo: BTreeMap<u32, Value>,
}

type Outcome<T> = Result<T, String>;

/// The tensors of the dictionary that `bytes` describe, by name.
///
/// # Errors
/// What the pickle holds that a dictionary of tensors does not.
pub(super) fn state_dict(bytes: &[u8]) -> Outcome<Vec<(String, Tensor)>> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), arena: Vec::new(), memo: BTreeMap::new() };
    let Value::Dict(index) = machine.run()? else {
        return Err("holds no dictionary of tensors; save the model's state_dict() alone, or convert it to safetensors".into());
    };
    let pairs = machine.arena[index].chunks_exact(2).map(|pair| match pair {
        [Value::Text(name), Value::Tensor(tensor)] => Ok((name.to_string(), Tensor::clone(tensor))),
        [Value::Text(name), _] => {
            Err(format!("{name:?} is no tensor: not a plain state dict; save the model's state_dict() alone, or convert it to safetensors"))
        }
        _ => Err("a tensor's name is no text".to_owned()),
    });
    pairs.collect()
}

impl Machine<'_> {
    fn run(&mut self) -> Outcome<Value> {
        loop {
            let operation = self.byte()?;
            match operation {
                // PROTO, FRAME: nothing to do for them here.
                0x80 => drop(self.byte()?),
                0x95 => drop(self.take(8)?),
                b'(' => self.push(Value::Mark),
                b'.' => return self.pop(),
                b'0' => drop(self.pop()?),
                b'N' => self.push(Value::None),
                0x88 | 0x89 => self.push(Value::Bool),
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()));
                }
                b'K' => {
                    let value = self.byte()?;
                    self.push(Value::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()));
                }
                0x8a => {
                    let n_bytes = self.byte()?;
                    let value = integer(self.take(n_bytes.into())?)?;
                    self.push(Value::Int(value));
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Float);
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.array()?);
                    self.text(length as usize)?;
                }
                0x8c => {
                    let length = self.byte()?;
                    self.text(length.into())?;
                }
                b'c' => {
                    let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                    self.name(&module, &name)?;
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Text(name), Value::Text(module)) => self.name(&module, &name)?,
                    _ => return Err(self.damaged()),
                },
                b')' => self.tuple(0)?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.popped_to_mark()?;
                    let tuple = Value::Tuple(self.store(items));
                    self.push(tuple);
                }
                b']' => {
                    let list = Value::List(self.store(Vec::new()));
                    self.push(list);
                }
                b'}' => {
                    let dict = Value::Dict(self.store(Vec::new()));
                    self.push(dict);
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(vec![item])?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.extend(vec![key, value])?;
                }
                b'e' | b'u' => {
                    let items = self.popped_to_mark()?;
                    self.extend(items)?;
                }
                b'q' => {
                    let slot = self.byte()?;
                    self.memorize(slot.into())?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.memorize(slot)?;
                }
                0x94 => self.memorize(self.memo.len() as u32)?,
                b'h' => {
                    let slot = self.byte()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.recall(slot)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(&id)?;
                    self.push(storage);
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    let value = self.call(&function, &arguments)?;
                    self.push(value);
                }
                // BUILD sets attributes of the object under it; those of a state dict say which versions of modules it has.
                b'b' => match (self.pop()?, self.stack.last()) {
                    (_, Some(Value::Dict(_))) => {}
                    _ => return Err(self.damaged()),
                },
                other => {
                    return Err(format!(
                        "damaged, or not a plain state dict: operation 0x{other:02x} of its pickle, at byte {}",
                        self.at - 1
                    ));
                }
            }
        }
    }

    fn damaged(&self) -> String {
        format!("damaged: its pickle makes no sense before byte {}", self.at)
    }

    fn take(&mut self, n_bytes: usize) -> Outcome<&[u8]> {
        let end = self.at.checked_add(n_bytes).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { return Err("truncated: its pickle ends too early".into()) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many as were taken"))
    }

    /// The bytes up to the next line end.
    fn line(&mut self) -> Outcome<&str> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else { return Err(self.damaged()) };
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| "damaged: a name in its pickle is not UTF-8".to_owned())
    }

    fn text(&mut self, n_bytes: usize) -> Outcome<()> {
        let text: Rc<str> = String::from_utf8_lossy(self.take(n_bytes)?).into();
        self.push(Value::Text(text));
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn pop(&mut self) -> Outcome<Value> {
        let damaged = self.damaged();
        self.stack.pop().ok_or(damaged)
    }

    fn popped_to_mark(&mut self) -> Outcome<Vec<Value>> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark)).ok_or_else(|| self.damaged())?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn store(&mut self, items: Vec<Value>) -> usize {
        self.arena.push(items);
        self.arena.len() - 1
    }

    fn tuple(&mut self, n_items: usize) -> Outcome<()> {
        let start = self.stack.len().checked_sub(n_items).ok_or_else(|| self.damaged())?;
        let items = self.stack.split_off(start);
        let tuple = Value::Tuple(self.store(items));
        self.push(tuple);
        Ok(())
    }

    /// Adds to the container on top of the stack.
    fn extend(&mut self, items: Vec<Value>) -> Outcome<()> {
        match self.stack.last() {
            Some(&Value::List(index)) => self.arena[index].extend(items),
            Some(&Value::Dict(index)) if items.len().is_multiple_of(2) => self.arena[index].extend(items),
            _ => return Err(self.damaged()),
        }
        Ok(())
    }

    fn memorize(&mut self, slot: u32) -> Outcome<()> {
        let value = self.stack.last().cloned().ok_or_else(|| self.damaged())?;
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Outcome<()> {
        let value = self.memo.get(&slot).cloned().ok_or_else(|| self.damaged())?;
        self.push(value);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Outcome<()> {
        let known = Known::of(module, name).ok_or_else(|| {
            format!(
                "holds the Python object \"{}.{}\", and only tensors are read, for safety; save the model's state_dict() alone, or convert it to safetensors",
                module.escape_debug(),
                name.escape_debug()
            )
        })?;
        self.push(Value::Name(known));
        Ok(())
    }

    fn items(&self, tuple: &Value) -> Outcome<&[Value]> {
        match tuple {
            Value::Tuple(index) => Ok(&self.arena[*index]),
            _ => Err(self.damaged()),
        }
    }

    /// `("storage", type, key, device, number of elements)`.
    fn storage(&self, id: &Value) -> Outcome<Value> {
        match self.items(id)? {
            [Value::Text(kind), Value::Name(Known::Storage(element)), Value::Text(key), _, Value::Int(n_stored)]
                if &**kind == "storage" =>
            {
                let n_stored = usize::try_from(*n_stored).map_err(|_| self.damaged())?;
                Ok(Value::Storage(Rc::new(Storage { element: element.clone(), key: key.clone(), n_stored })))
            }
            _ => Err(self.damaged()),
        }
    }

    fn call(&mut self, function: &Value, arguments: &Value) -> Outcome<Value> {
        let arguments = self.items(arguments)?;
        match (function, arguments) {
            (Value::Name(Known::OrderedDict), []) => Ok(Value::Dict(self.store(Vec::new()))),
            (Value::Name(Known::RebuildParameter), [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
            (Value::Name(Known::RebuildTensor), [Value::Storage(storage), Value::Int(offset), shape, strides, ..]) => {
                let numbers = |tuple: &Value| -> Outcome<Vec<usize>> {
                    let number = |value: &Value| match value {
                        Value::Int(number) => usize::try_from(*number).map_err(|_| self.damaged()),
                        _ => Err(self.damaged()),
                    };
                    self.items(tuple)?.iter().map(number).collect()
                };
                let (shape, strides) = (numbers(shape)?, numbers(strides)?);
                if shape.len() != strides.len() {
                    return Err(self.damaged());
                }
                Ok(Value::Tensor(Rc::new(Tensor {
                    storage: storage.key.to_string(),
                    element: storage.element.clone(),
                    n_stored: storage.n_stored,
                    offset: usize::try_from(*offset).map_err(|_| self.damaged())?,
                    shape,
                    strides,
                })))
            }
            _ => Err(self.damaged()),
        }
    }
}

/// A little-endian number in two's complement.
fn integer(bytes: &[u8]) -> Outcome<i64> {
    if bytes.len() > 8 {
        return Err("damaged: a number in its pickle is too large".into());
    }
    let is_negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut all = [if is_negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Ok(i64::from_le_bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_any_length() {
        for (bytes, expected) in [(&[][..], 0), (&[5], 5), (&[0xff], -1), (&[0, 1], 256), (&[0xff, 0xff, 0xff, 0xff, 0], 4_294_967_295)] {
            assert_eq!(integer(bytes), Ok(expected));
        }
        assert!(integer(&[0; 9]).is_err());
    }

    #[test]
    fn names_outside_the_list_are_refused_by_name() {
        let message = state_dict(b"\x80\x02cos\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.").unwrap_err();
        assert!(message.starts_with("holds the Python object \"os.system\""), "{message}");
        let message = state_dict(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.").unwrap_err();
        assert!(message.starts_with("holds the Python object \"builtins.eval\""), "{message}");
    }

    /// A million nested tuples, which a recursive reader or destructor would not survive.
    #[test]
    fn depth_is_no_danger() {
        let mut bytes = b"\x80\x02N".to_vec();
        bytes.extend(std::iter::repeat_n(0x85, 1_000_000));
        bytes.push(b'.');
        assert!(state_dict(&bytes).unwrap_err().starts_with("holds no dictionary of tensors"));
    }

    #[test]
    fn what_is_no_tensor_is_named() {
        let message = state_dict(b"\x80\x02}q\x00X\x04\x00\x00\x00stepK\x05s.").unwrap_err();
        assert!(message.starts_with("\"step\" is no tensor"), "{message}");
        assert_eq!(state_dict(b"\x80\x02}q\x00."), Ok(Vec::new()));
        for bytes in [&b""[..], b".", b"\x80", b"(((", b"\x85.", b"}K\x05a.", b"h\x00."] {
            assert!(state_dict(bytes).is_err(), "{bytes:?}");
        }
    }
}
