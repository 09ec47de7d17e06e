//! Messages on a stream: a header that says what follows, then the bytes.

use std::io::{Read, Result, Write};

/// The largest message, so that a stray peer's bytes are not taken for a length.
const MOST: u64 = 1 << 40;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Part of a collective.
    Data,
    /// The sender ends: the rank that failed first, then its reason.
    Abort,
}

/// A message.
#[derive(Debug)]
pub(super) struct Frame {
    pub kind: Kind,
    /// Its place among the sender's messages, which shows where two ranks are out of step.
    pub number: u64,
    pub bytes: Vec<u8>,
}

impl Frame {
    pub fn write(&self, stream: &mut impl Write) -> Result<()> {
        let mut header = [0; 17];
        header[0] = match self.kind {
            Kind::Data => 1,
            Kind::Abort => 2,
        };
        header[1..9].copy_from_slice(&self.number.to_le_bytes());
        header[9..].copy_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        stream.write_all(&header)?;
        stream.write_all(&self.bytes)?;
        stream.flush()
    }

    pub fn read(stream: &mut impl Read) -> Result<Self> {
        let mut header = [0; 17];
        stream.read_exact(&mut header)?;
        let invalid = |problem| std::io::Error::new(std::io::ErrorKind::InvalidData, problem);
        let kind = match header[0] {
            1 => Kind::Data,
            2 => Kind::Abort,
            _ => return Err(invalid("what came is no message of Tallow's")),
        };
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let length = number(9);
        if length > MOST {
            return Err(invalid("what came is no message of Tallow's"));
        }
        // Grows with what comes, so that a wrong length takes no memory.
        let mut bytes = Vec::new();
        if stream.take(length).read_to_end(&mut bytes)? as u64 != length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { kind, number: number(1), bytes })
    }

    /// The end of a rank.
    pub fn abort(origin: usize, reason: &str) -> Self {
        let bytes = [&(origin as u64).to_le_bytes(), reason.as_bytes()].concat();
        Self { kind: Kind::Abort, number: 0, bytes }
    }

    /// The rank that failed, and its reason.
    pub fn reason(&self) -> (usize, String) {
        let (origin, reason) = self.bytes.split_at(self.bytes.len().min(8));
        let origin = origin.try_into().map_or(0, u64::from_le_bytes) as usize;
        (origin, String::from_utf8_lossy(reason).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_back_and_damage_is_an_error() {
        let mut bytes = vec![];
        Frame { kind: Kind::Data, number: 7, bytes: vec![1, 2, 3] }.write(&mut bytes).unwrap();
        Frame::abort(3, "no room").write(&mut bytes).unwrap();
        let mut rest = &bytes[..];
        let first = Frame::read(&mut rest).unwrap();
        assert_eq!((first.kind, first.number, &first.bytes[..]), (Kind::Data, 7, &[1, 2, 3][..]));
        let abort = Frame::read(&mut rest).unwrap();
        assert_eq!((abort.kind, abort.reason()), (Kind::Abort, (3, "no room".to_owned())));
        assert!(Frame::read(&mut &bytes[..19]).is_err());
        assert!(Frame::read(&mut &b"GET / HTTP/1.1\r\nHost: x"[..]).is_err());
        bytes[16] = 0xff;
        assert!(Frame::read(&mut &bytes[..]).is_err());
    }
}
