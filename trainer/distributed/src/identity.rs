//! What processes that train together must have in common, value by value, so that the one that differs can be named.

/// Between names and values as they are sent; nothing that is written down has it.
const SEPARATOR: char = '\0';
/// Longer values are not shown.
const SHOWN: usize = 100;

/// Values that must be the same in all processes, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity(Vec<(String, String)>);

impl Identity {
    /// With one more value. Of several that differ the first is named, so causes go before what follows from them.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// As it is sent.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let fields: Vec<&str> = self.0.iter().flat_map(|(name, value)| [&**name, &**value]).collect();
        fields.join(&SEPARATOR.to_string()).into_bytes()
    }

    /// What [`Self::encode`] gave; `None` where it is something else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let fields: Vec<&str> = std::str::from_utf8(bytes).ok()?.split(SEPARATOR).collect();
        let (pairs, rest) = fields.as_chunks();
        let pairs = pairs.iter().map(|[name, value]| ((*name).to_owned(), (*value).to_owned()));
        rest.is_empty().then(|| Self(pairs.collect()))
    }

    /// In words, where that of another rank first differs from this, which is rank 0's.
    pub fn difference(&self, other: &Self, rank: usize) -> Option<String> {
        let differs = self.0.iter().find(|(name, value)| other.get(name) != Some(value));
        let (name, _) = differs.or_else(|| other.0.iter().find(|(name, _)| self.get(name).is_none()))?;
        let (own, others) = (self.get(name), other.get(name));
        let shown = |value: Option<&str>| value.unwrap_or("not set").to_owned();
        Some(match [own, others].into_iter().flatten().all(|value| value.len() <= SHOWN) {
            true => format!("{name} is {} on rank 0 and {} on rank {rank}", shown(own), shown(others)),
            false => format!("{name} is not the same on rank 0 and rank {rank}"),
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Identity {
        pairs.iter().fold(Identity::default(), |all, (name, value)| all.with(*name, *value))
    }

    #[test]
    fn it_reads_back_and_anything_else_does_not() {
        for identity in [of(&[]), of(&[("a", "1")]), of(&[("a", ""), ("b", "x y\n"), ("ü", "[1, 2]")])] {
            assert_eq!(Identity::decode(&identity.encode()), Some(identity));
        }
        for bytes in [&b"a"[..], b"a\0b\0c", &[0xff, 0, 0xfe]] {
            assert_eq!(Identity::decode(bytes), None);
        }
    }

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let own = of(&[("`epochs`", "3"), ("`seed`", "0"), ("`clip_norm`", "1.0")]);
        let difference = |pairs| own.difference(&of(pairs), 2);
        assert_eq!(difference(&[("`seed`", "0"), ("`clip_norm`", "1.0"), ("`epochs`", "3")]), None);
        let other = difference(&[("`epochs`", "3"), ("`seed`", "1"), ("`clip_norm`", "2.0")]);
        assert_eq!(other.unwrap(), "`seed` is 0 on rank 0 and 1 on rank 2");
        let less = difference(&[("`epochs`", "3"), ("`seed`", "0")]);
        assert_eq!(less.unwrap(), "`clip_norm` is 1.0 on rank 0 and not set on rank 2");
        let more =
            difference(&[("`epochs`", "3"), ("`seed`", "0"), ("`clip_norm`", "1.0"), ("`ema`", "0.9")]);
        assert_eq!(more.unwrap(), "`ema` is not set on rank 0 and 0.9 on rank 2");
        let long = "x".repeat(SHOWN + 1);
        let long = difference(&[("`epochs`", &long)]);
        assert_eq!(long.unwrap(), "`epochs` is not the same on rank 0 and rank 2");
    }
}
