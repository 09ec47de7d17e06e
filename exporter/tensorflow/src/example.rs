//! `tf.train.Example`: named features, each a list of byte strings, of floats or of integers.
//!
//! Field numbers: tensorflow/core/example/{example,feature}.proto. Keys are written in sorted order and numbers packed,
//! which is what TensorFlow's writer gives where it serialises deterministically.

use std::collections::BTreeMap;

use crate::wire::{Malformed, Message, Value, delimited_len, put_delimited, put_varint, varint_len};

/// The values under one key.
#[derive(Clone, Debug, PartialEq)]
pub enum Feature<'a> {
    /// Byte strings: encoded images, texts.
    Bytes(Vec<&'a [u8]>),
    /// Floats.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// A feature that says nothing, not even of what kind it is.
    Unset,
}

impl<'a> Feature<'a> {
    /// One byte string.
    pub fn bytes(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self::Bytes(vec![value.as_ref()])
    }

    /// One integer.
    pub fn int(value: i64) -> Self {
        Self::Ints(vec![value])
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Bytes(_) => 1,
            Self::Floats(_) => 2,
            Self::Ints(_) => 3,
            Self::Unset => 0,
        }
    }

    /// Bytes of the list's message.
    fn list_len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.iter().map(|value| delimited_len(value.len())).sum(),
            Self::Floats(values) if !values.is_empty() => delimited_len(4 * values.len()),
            Self::Ints(values) if !values.is_empty() => delimited_len(packed_len(values)),
            _ => 0,
        }
    }

    /// Bytes of the feature's message.
    fn encoded_len(&self) -> usize {
        if *self == Self::Unset { 0 } else { delimited_len(self.list_len()) }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if *self == Self::Unset {
            return;
        }
        put_delimited(out, self.kind(), self.list_len());
        match self {
            Self::Bytes(values) => {
                for value in values {
                    put_delimited(out, 1, value.len());
                    out.extend_from_slice(value);
                }
            }
            Self::Floats(values) if !values.is_empty() => {
                put_delimited(out, 1, 4 * values.len());
                values.iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::Ints(values) if !values.is_empty() => {
                put_delimited(out, 1, packed_len(values));
                values.iter().for_each(|&value| put_varint(out, value as u64));
            }
            _ => {}
        }
    }

    fn parse(message: Message<'a>) -> Result<Self, Malformed> {
        let mut feature = Self::Unset;
        let mut fields = message;
        while let Some((number, value)) = fields.field()? {
            let Value::Bytes(list) = value else { continue };
            match number {
                1 => feature.extend_bytes(list)?,
                2 => feature.extend_floats(list)?,
                3 => feature.extend_ints(list)?,
                _ => {}
            }
        }
        Ok(feature)
    }

    fn extend_bytes(&mut self, mut list: Message<'a>) -> Result<(), Malformed> {
        if !matches!(self, Self::Bytes(_)) {
            *self = Self::Bytes(vec![]);
        }
        let Self::Bytes(values) = self else { unreachable!("it was just made so") };
        while let Some((number, value)) = list.field()? {
            if let (1, Value::Bytes(value)) = (number, value) {
                values.push(value.bytes);
            }
        }
        Ok(())
    }

    /// Packed or one by one: a reader has to take both.
    fn extend_floats(&mut self, mut list: Message<'a>) -> Result<(), Malformed> {
        if !matches!(self, Self::Floats(_)) {
            *self = Self::Floats(vec![]);
        }
        let Self::Floats(values) = self else { unreachable!("it was just made so") };
        while let Some((number, value)) = list.field()? {
            match (number, value) {
                (1, Value::Fixed32(bytes)) => values.push(f32::from_le_bytes(bytes)),
                (1, Value::Bytes(packed)) => {
                    let (floats, rest) = packed.bytes.as_chunks::<4>();
                    if !rest.is_empty() {
                        return Err(packed.malformed("a list of floats with a part of a float"));
                    }
                    values.extend(floats.iter().map(|&bytes| f32::from_le_bytes(bytes)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn extend_ints(&mut self, mut list: Message<'a>) -> Result<(), Malformed> {
        if !matches!(self, Self::Ints(_)) {
            *self = Self::Ints(vec![]);
        }
        let Self::Ints(values) = self else { unreachable!("it was just made so") };
        while let Some((number, value)) = list.field()? {
            match (number, value) {
                (1, Value::Varint(value)) => values.push(value as i64),
                (1, Value::Bytes(mut packed)) => {
                    while !packed.bytes.is_empty() {
                        values.push(packed.varint()? as i64);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn packed_len(values: &[i64]) -> usize {
    values.iter().map(|&value| varint_len(value as u64)).sum()
}

/// Features by name. Byte strings are borrowed: parsing copies no image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example<'a> {
    /// The features.
    pub features: BTreeMap<&'a str, Feature<'a>>,
}

impl<'a> Example<'a> {
    /// Reads a serialised example. As everywhere in protocol buffers, unknown fields are skipped, and of features
    /// with the same key the last is taken.
    ///
    /// # Errors
    /// Where the bytes are no such message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut example = Self::default();
        let mut fields = Message::new(bytes);
        while let Some((number, value)) = fields.field()? {
            if let (1, Value::Bytes(mut entries)) = (number, value) {
                while let Some((number, value)) = entries.field()? {
                    if let (1, Value::Bytes(entry)) = (number, value) {
                        let (key, feature) = parse_entry(entry)?;
                        example.features.insert(key, feature);
                    }
                }
            }
        }
        Ok(example)
    }

    /// Reads the features that lie whole in the first bytes of a serialised example; none where these are damaged.
    pub fn parse_start(bytes: &'a [u8]) -> Self {
        let mut example = Self::default();
        let mut entries = Message::new(bytes);
        if entries.varint() != Ok(1 << 3 | 2) || entries.varint().is_err() {
            return example;
        }
        while let Ok(Some((number, value))) = entries.field() {
            if let (1, Value::Bytes(entry)) = (number, value)
                && let Ok((key, feature)) = parse_entry(entry)
            {
                example.features.insert(key, feature);
            }
        }
        example
    }

    /// The serialised example, keys in sorted order.
    pub fn encode(&self) -> Vec<u8> {
        let entry_len = |(key, feature): (&&str, &Feature<'_>)| {
            delimited_len(key.len()) + delimited_len(feature.encoded_len())
        };
        let length: usize = self.features.iter().map(|entry| delimited_len(entry_len(entry))).sum();
        let mut out = Vec::with_capacity(delimited_len(length));
        put_delimited(&mut out, 1, length);
        for (key, feature) in &self.features {
            put_delimited(&mut out, 1, entry_len((key, feature)));
            put_delimited(&mut out, 1, key.len());
            out.extend_from_slice(key.as_bytes());
            put_delimited(&mut out, 2, feature.encoded_len());
            feature.encode(&mut out);
        }
        out
    }

    /// The first byte string under `key`.
    pub fn bytes(&self, key: &str) -> Option<&'a [u8]> {
        match self.features.get(key)? {
            Feature::Bytes(values) => values.first().copied(),
            _ => None,
        }
    }

    /// The first byte string under `key`, if it is UTF-8.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(key)?).ok()
    }

    /// The first integer under `key`.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.features.get(key)? {
            Feature::Ints(values) => values.first().copied(),
            _ => None,
        }
    }
}

impl<'a> FromIterator<(&'a str, Feature<'a>)> for Example<'a> {
    fn from_iter<T: IntoIterator<Item = (&'a str, Feature<'a>)>>(features: T) -> Self {
        Self { features: features.into_iter().collect() }
    }
}

fn parse_entry(mut entry: Message<'_>) -> Result<(&str, Feature<'_>), Malformed> {
    let (mut key, mut feature) = ("", Feature::Unset);
    while let Some((number, value)) = entry.field()? {
        match (number, value) {
            (1, Value::Bytes(text)) => {
                key =
                    std::str::from_utf8(text.bytes).map_err(|_| text.malformed("a key that is not UTF-8"))?;
            }
            (2, Value::Bytes(message)) => feature = Feature::parse(message)?,
            _ => {}
        }
    }
    Ok((key, feature))
}

#[cfg(test)]
mod tests;
