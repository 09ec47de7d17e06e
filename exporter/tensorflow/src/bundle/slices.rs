//! Partitioned tensors: every part has an entry of its own, whose key encodes the tensor's name and the part's place
//! in an order-preserving code (TensorFlow's `OrderedCode`).

use crate::proto::{TensorSlice, slice_extent};

/// A range of one dimension, or all of it.
pub(super) type Extent = Option<(u64, u64)>;

/// The ranges of a part; none where a number is negative.
pub(super) fn extents(slice: &TensorSlice) -> Option<Vec<Extent>> {
    slice
        .extent
        .iter()
        .map(|extent| match extent.length {
            None => Some(None),
            Some(slice_extent::Length::Indices(length)) => {
                Some(Some((u64::try_from(extent.start).ok()?, u64::try_from(length).ok()?)))
            }
        })
        .collect()
}

/// The key of a part of the tensor `name`.
pub(super) fn key(name: &str, extents: &[Extent]) -> Vec<u8> {
    let mut key = vec![];
    write_number(&mut key, 0);
    write_string(&mut key, name.as_bytes());
    write_number(&mut key, extents.len() as u64);
    for extent in extents {
        // A whole dimension counts as −1 long.
        let (start, length) = extent.map_or((0, -1), |(start, length)| (start as i64, length as i64));
        write_signed(&mut key, start);
        write_signed(&mut key, length);
    }
    key
}

/// How many bytes follow, then these, the highest first.
fn write_number(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_be_bytes();
    let used = &bytes[(number.leading_zeros() / 8) as usize..];
    out.push(used.len() as u8);
    out.extend(used);
}

/// 00 and ff are escaped; 00 01 ends the string.
fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            0 => out.extend([0, 0xff]),
            0xff => out.extend([0xff, 0]),
            byte => out.push(byte),
        }
    }
    out.extend([0, 1]);
}

/// As many leading ones as there are bytes, a zero, and the number in two's complement; inverted if negative.
fn write_signed(out: &mut Vec<u8>, number: i64) {
    let magnitude = if number < 0 { !number } else { number } as u64;
    let bits = (64 - magnitude.leading_zeros()) as usize;
    // Seven bits a byte, one of them the sign's.
    let length = bits / 7 + 1;
    let mut bytes = [if number < 0 { 0xff } else { 0 }; 10];
    bytes[2..].copy_from_slice(&number.to_be_bytes());
    let used = &mut bytes[10 - length..];
    let header = if length < 16 { !(0xffff_u16 >> length) } else { 0xffff };
    let [first, second] = header.to_be_bytes();
    used[0] ^= first;
    if let Some(byte) = used.get_mut(1) {
        *byte ^= second;
    }
    out.extend_from_slice(used);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(number: i64) -> Vec<u8> {
        let mut out = vec![];
        write_signed(&mut out, number);
        out
    }

    #[test]
    fn numbers_sort_as_their_codes_do() {
        let mut numbers: Vec<i64> = vec![0, 1, -1, 63, 64, -64, -65, 8191, 8192, i64::MAX, i64::MIN, 1 << 40];
        numbers.sort();
        assert!(numbers.windows(2).all(|pair| signed(pair[0]) < signed(pair[1])));
        assert_eq!(signed(0), [0x80]);
        assert_eq!(signed(-1), [0x7f]);
        assert_eq!(signed(63), [0xbf]);
        assert_eq!(signed(64), [0xc0, 0x40]);
    }

    #[test]
    fn a_key_begins_with_a_zero_and_the_name() {
        assert_eq!(key("w", &[Some((0, 5)), None]), [0, b'w', 0, 1, 1, 2, 0x80, 0x85, 0x80, 0x7f]);
    }
}
