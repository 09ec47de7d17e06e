//! Pickles as data (protocols 0 to 5, what `torch.save` writes of them). Values refer to each other by index, so that no
//! nesting, however deep, costs stack.

use std::collections::HashMap;

/// A value's place in [`Pickle::nodes`].
pub(super) type Ref = usize;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Ref>),
    Tuple(Vec<Ref>),
    Dict(Vec<(Ref, Ref)>),
    /// A class or function: module and name.
    Global(String, String),
    /// A class or function called; never executed.
    Call {
        callable: Ref,
        arguments: Ref,
    },
    /// Something that lies outside of the pickle, such as a tensor's storage.
    Persistent(Ref),
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    /// Its value.
    pub root: Ref,
    /// Bytes it took.
    pub length: usize,
}

impl Pickle {
    /// Reads the pickle at the start of `bytes`.
    ///
    /// # Errors
    /// The text says where it cannot go on.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine =
            Machine { bytes, place: 0, nodes: vec![], stack: vec![], marks: vec![], memo: HashMap::new() };
        loop {
            let place = machine.place;
            let root = machine.step().map_err(|problem| format!("byte {place} of the pickle: {problem}"))?;
            if let Some(root) = root {
                return Ok(Self { nodes: machine.nodes, root, length: machine.place });
            }
        }
    }

    pub(super) fn node(&self, value: Ref) -> &Node {
        &self.nodes[value]
    }

    pub(super) fn text(&self, value: Ref) -> Option<&str> {
        match self.node(value) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, value: Ref) -> Option<i64> {
        match self.node(value) {
            Node::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, value: Ref) -> Option<&[Ref]> {
        match self.node(value) {
            Node::Tuple(values) | Node::List(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn dict(&self, value: Ref) -> Option<&[(Ref, Ref)]> {
        match self.node(value) {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// What the pickle says of each thing that lies outside of it.
    pub(super) fn persistent_ids(&self) -> impl Iterator<Item = Ref> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Persistent(id) => Some(*id),
            _ => None,
        })
    }

    /// The module, the name and the arguments of a call.
    pub(super) fn call(&self, value: Ref) -> Option<(&str, &str, &[Ref])> {
        let Node::Call { callable, arguments } = self.node(value) else { return None };
        let Node::Global(module, name) = self.node(*callable) else { return None };
        Some((module, name, self.tuple(*arguments)?))
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    place: usize,
    nodes: Vec<Node>,
    stack: Vec<Ref>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Ref>,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// Executes one instruction of the pickle machine; gives the value at the last.
    fn step(&mut self) -> Step<Option<Ref>> {
        match self.take(1)?[0] {
            // PROTO, FRAME: nothing to do.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'.' => return Ok(Some(self.pop()?)),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or("the stack is empty")?;
                self.stack.push(top);
            }

            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'K' => self.push_number::<1>()?,
            b'M' => self.push_number::<2>()?,
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(number.into()));
            }
            0x8a => {
                let length = self.take(1)?[0].into();
                let bytes = self.take(length)?;
                self.push(long(bytes));
            }
            0x8b => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                let bytes = self.take(length)?;
                self.push(long(bytes));
            }
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(number));
            }

            b'X' => self.push_text::<4>()?,
            0x8c => self.push_text::<1>()?,
            0x8d => self.push_text::<8>()?,
            b'T' => self.push_text::<4>()?,
            b'U' => self.push_text::<1>()?,
            b'B' => self.push_bytes::<4>()?,
            b'C' => self.push_bytes::<1>()?,
            0x8e | 0x96 => self.push_bytes::<8>()?,

            b')' => self.push(Node::Tuple(vec![])),
            0x85 => self.push_tuple(1)?,
            0x86 => self.push_tuple(2)?,
            0x87 => self.push_tuple(3)?,
            b't' => {
                let values = self.pop_mark()?;
                self.push(Node::Tuple(values));
            }
            b']' | 0x8f => self.push(Node::List(vec![])),
            b'l' | 0x91 => {
                let values = self.pop_mark()?;
                self.push(Node::List(values));
            }
            b'}' => self.push(Node::Dict(vec![])),
            b'd' => {
                let values = self.pop_mark()?;
                self.push(Node::Dict(pairs(&values)?));
            }
            b'a' => {
                let value = self.pop()?;
                self.append(&[value])?;
            }
            b'e' | 0x90 => {
                let values = self.pop_mark()?;
                self.append(&values)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let values = self.pop_mark()?;
                self.set(&values)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop_text()?, self.pop_text()?);
                self.push(Node::Global(module, name));
            }
            // REDUCE and NEWOBJ: a call, which is kept as one.
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.push_call(callable, arguments);
            }
            // BUILD: the state of an object; a state dict's is its metadata.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id));
            }

            b'q' => self.put::<1>()?,
            b'r' => self.put::<4>()?,
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => self.get::<1>()?,
            b'j' => self.get::<4>()?,
            other => return Err(format!("instruction {other:#04x}, which no weights need")),
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let end = self.place.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("the file is cut short")?;
        let taken = &self.bytes[self.place..end];
        self.place = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    /// An unsigned number of N bytes.
    fn number<const N: usize>(&mut self) -> Step<u64> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(self.take(N)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// Bytes behind their number.
    fn counted<const N: usize>(&mut self) -> Step<&'a [u8]> {
        let length = usize::try_from(self.number::<N>()?).map_err(|e| e.to_string())?;
        self.take(length)
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.place..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("the file is cut short")?;
        let line = self.take(length + 1)?;
        Ok(String::from_utf8_lossy(&line[..length]).into_owned())
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    fn push_number<const N: usize>(&mut self) -> Step<()> {
        let number = self.number::<N>()? as i64;
        self.push(Node::Int(number));
        Ok(())
    }

    fn push_text<const N: usize>(&mut self) -> Step<()> {
        let text = String::from_utf8_lossy(self.counted::<N>()?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn push_bytes<const N: usize>(&mut self) -> Step<()> {
        let bytes = self.counted::<N>()?.to_vec();
        self.push(Node::Bytes(bytes));
        Ok(())
    }

    fn push_tuple(&mut self, length: usize) -> Step<()> {
        let start = self.stack.len().checked_sub(length).ok_or("the stack is too short")?;
        let values = self.stack.split_off(start);
        self.push(Node::Tuple(values));
        Ok(())
    }

    fn push_call(&mut self, callable: Ref, arguments: Ref) {
        let ordered = Node::Global("collections".into(), "OrderedDict".into());
        let node = match self.nodes[callable] == ordered {
            true => Node::Dict(vec![]),
            false => Node::Call { callable, arguments },
        };
        self.push(node);
    }

    fn pop(&mut self) -> Step<Ref> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err("a mark is in the way".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn pop_text(&mut self) -> Step<String> {
        let value = self.pop()?;
        match &self.nodes[value] {
            Node::Text(text) => Ok(text.clone()),
            other => Err(format!("{other:?} where a name belongs")),
        }
    }

    fn pop_mark(&mut self) -> Step<Vec<Ref>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or("there is no mark")?))
    }

    /// Adds to the list on top. Objects that pretend to be lists are passed over.
    fn append(&mut self, values: &[Ref]) -> Step<()> {
        let top = *self.stack.last().ok_or("the stack is empty")?;
        if let Node::List(list) = &mut self.nodes[top] {
            list.extend(values);
        }
        Ok(())
    }

    /// Adds to the dictionary on top. Objects that pretend to be dictionaries are passed over.
    fn set(&mut self, values: &[Ref]) -> Step<()> {
        let top = *self.stack.last().ok_or("the stack is empty")?;
        let pairs = pairs(values)?;
        if let Node::Dict(entries) = &mut self.nodes[top] {
            entries.extend(pairs);
        }
        Ok(())
    }

    fn put<const N: usize>(&mut self) -> Step<()> {
        let key = self.number::<N>()?;
        self.remember(key)
    }

    fn remember(&mut self, key: u64) -> Step<()> {
        let top = *self.stack.last().ok_or("the stack is empty")?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get<const N: usize>(&mut self) -> Step<()> {
        let key = self.number::<N>()?;
        let value = *self.memo.get(&key).ok_or_else(|| format!("nothing is remembered as {key}"))?;
        self.stack.push(value);
        Ok(())
    }
}

/// A little-endian integer in two's complement; none of the weights' needs more than 64 bits.
fn long(bytes: &[u8]) -> Node {
    if bytes.len() > 8 {
        return Node::Bytes(bytes.to_vec());
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut number = [if negative { 0xff } else { 0 }; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(number))
}

fn pairs(values: &[Ref]) -> Step<Vec<(Ref, Ref)>> {
    match values.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a key without a value".into()),
    }
}

#[cfg(test)]
mod tests;
