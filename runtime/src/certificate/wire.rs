//! A protocol buffer's top-level fields as they lie in its bytes, so that one can be taken out and all others kept to
//! the byte, whatever they are. Format: protobuf.dev/programming-guides/encoding.

use std::ops::Range;

/// A field with its key, and what is in it.
pub(super) struct Field {
    pub(super) number: u64,
    /// Key, length and content.
    pub(super) whole: Range<usize>,
    /// The content of a length-delimited field; empty for others.
    pub(super) content: Range<usize>,
}

/// All fields of a message in order; `None` where the bytes are no message.
pub(super) fn fields(bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = vec![];
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let key = varint(bytes, &mut at)?;
        let mut content = at..at;
        match key & 7 {
            0 => drop(varint(bytes, &mut at)?),
            1 => at += 8,
            2 => {
                let length = usize::try_from(varint(bytes, &mut at)?).ok()?;
                content = at..at.checked_add(length)?;
                at = content.end;
            }
            5 => at += 4,
            // Groups, which ONNX has none of.
            _ => return None,
        }
        if at > bytes.len() || key >> 3 == 0 {
            return None;
        }
        fields.push(Field { number: key >> 3, whole: start..at, content });
    }
    Some(fields)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_type_is_walked_over() {
        // 1: varint 300, 2: 64 bits, 3: "ab", 4: 32 bits, 1000: varint 1.
        let bytes = [
            &[0x08, 0xac, 0x02][..],
            &[0x11, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x1a, 2, b'a', b'b'],
            &[0x25, 1, 2, 3, 4],
            &[0xc0, 0x3e, 1],
        ]
        .concat();
        let fields = fields(&bytes).unwrap();
        let numbers: Vec<u64> = fields.iter().map(|field| field.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 1000]);
        assert_eq!(&bytes[fields[2].content.clone()], b"ab");
        let joined: Vec<u8> = fields.iter().flat_map(|field| bytes[field.whole.clone()].to_vec()).collect();
        assert_eq!(joined, bytes);
    }

    #[test]
    fn what_is_cut_or_no_message_is_none() {
        for bytes in
            [&[0x08][..], &[0x08, 0xff], &[0x11, 1], &[0x1a, 200, 1, 2], &[0x0b], &[0x00, 1], &[0xff; 11]]
        {
            assert!(fields(bytes).is_none(), "{bytes:?}");
        }
        assert!(fields(&[]).unwrap().is_empty());
    }
}
