//! What a process says to rank 0 as it comes.

use crate::identity::Identity;

const MAGIC: [u8; 8] = *b"TALLOWDP";
/// Of what processes say to each other; raised with every change.
pub(super) const VERSION: u32 = 2;
/// Bytes up to the version, which every version begins with.
const START: usize = 8 + 4;
/// Bytes up to the identity.
const HEADER: usize = START + 8 + 8 + 2 + 4;
/// The longest identity that is taken, many times what settings need.
const MOST: usize = 1 << 20;

/// Who comes to rank 0.
#[derive(Debug, PartialEq)]
pub(super) struct Hello {
    pub rank: usize,
    pub world_size: usize,
    /// Where it listens for the rank before it.
    pub port: u16,
    pub identity: Identity,
}

impl Hello {
    pub fn bytes(&self) -> Vec<u8> {
        let identity = self.identity.encode();
        let numbers = [self.world_size as u64, self.rank as u64].map(u64::to_le_bytes).concat();
        let length = (identity.len() as u32).to_le_bytes();
        [&MAGIC[..], &VERSION.to_le_bytes(), &numbers, &self.port.to_le_bytes(), &length, &identity].concat()
    }

    /// Its length, as far as its beginning tells; `None` for a stranger's words. One of another version ends with that.
    pub fn length(bytes: &[u8]) -> Option<usize> {
        if !bytes.iter().zip(&MAGIC).all(|(byte, magic)| byte == magic) {
            return None;
        }
        if bytes.len() < START || version(bytes) != VERSION {
            return Some(START);
        }
        if bytes.len() < HEADER {
            return Some(HEADER);
        }
        let identity = u32::from_le_bytes(std::array::from_fn(|i| bytes[HEADER - 4 + i])) as usize;
        (identity <= MOST).then_some(HEADER + identity)
    }

    /// What so many bytes say; the version where it is another one, `None` where they are no hello.
    pub fn read(bytes: &[u8]) -> Option<Result<Self, u32>> {
        if Self::length(bytes) != Some(bytes.len()) {
            return None;
        }
        if version(bytes) != VERSION {
            return Some(Err(version(bytes)));
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i])) as usize;
        let port = u16::from_le_bytes([bytes[START + 16], bytes[START + 17]]);
        let identity = Identity::decode(&bytes[HEADER..])?;
        Some(Ok(Self { world_size: number(START), rank: number(START + 8), port, identity }))
    }
}

fn version(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[MAGIC.len() + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_reads_back_from_any_beginning_and_strangers_are_told_at_once() {
        let identity = Identity::default().with("`seed`", "0");
        let hello = Hello { rank: 3, world_size: 4, port: 29_500, identity };
        let bytes = hello.bytes();
        for end in 0..bytes.len() {
            let length = Hello::length(&bytes[..end]).unwrap();
            assert!(end < length && length <= bytes.len(), "{end}: {length}");
            assert_eq!(Hello::read(&bytes[..end]), None);
        }
        assert_eq!(Hello::length(&bytes), Some(bytes.len()));
        assert_eq!(Hello::read(&bytes), Some(Ok(hello)));
        assert_eq!(Hello::length(b"GET "), None);
        assert_eq!(Hello::length(b"TALLOWXY"), None);

        let mut other = bytes.clone();
        other[8] = 9;
        assert_eq!(Hello::length(&other[..START]), Some(START));
        assert_eq!(Hello::read(&other[..START]), Some(Err(9)));
        let mut endless = bytes;
        endless[HEADER - 1] = 0xff;
        assert_eq!(Hello::length(&endless), None);
    }
}
