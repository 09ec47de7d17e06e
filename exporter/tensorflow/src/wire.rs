//! Protocol buffers on the wire, as far as examples need them: varints, fixed numbers and byte strings.

/// What is wrong with a message, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at its byte {at}")]
pub struct Malformed {
    /// Bytes from the message's start.
    pub at: usize,
    /// What is wrong there.
    pub problem: &'static str,
}

/// A field's value, still undecoded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Bytes(Message<'a>),
}

/// Bytes that may be a message, and where they start in the outermost one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Message<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn malformed(&self, problem: &'static str) -> Malformed {
        Malformed { at: self.at, problem }
    }

    /// The next field's number and value; `None` at the end.
    pub fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let at = self.at;
                Value::Bytes(Message { bytes: self.take(length)?, at })
            }
            5 => Value::Fixed32(self.take(4)?.try_into().expect("four bytes were taken")),
            _ => return Err(self.malformed("a wire type that is not in use")),
        };
        Ok(Some((tag >> 3, value)))
    }

    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (i, &byte) in self.bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.take(i + 1)?;
                return Ok(value);
            }
        }
        Err(self.malformed("a number without an end"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(self.malformed("a field that is longer than what holds it"));
        };
        self.bytes = rest;
        self.at += count;
        Ok(taken)
    }
}

/// Bytes of a varint.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a length-delimited field with a number below 16.
pub(crate) fn delimited_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

/// The tag and length of a length-delimited field with a number below 16.
pub(crate) fn put_delimited(out: &mut Vec<u8>, number: u8, length: usize) {
    out.push(number << 3 | 2);
    put_varint(out, length as u64);
}
