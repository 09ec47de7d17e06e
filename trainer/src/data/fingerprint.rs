//! What a run is trained on, as numbers of images and a hash of their names: enough to notice that one came, went or
//! was renamed. Names are relative to the data set's folder, so that a data set may move.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Dataset, Splits};

/// The identity of a data set and of its split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    train: Part,
    validation: Part,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    /// Images of each class.
    images: BTreeMap<String, usize>,
    /// SHA-256 of labels and names, in order.
    names: String,
}

impl Fingerprint {
    /// Of the samples as they are now.
    pub fn of(data: &Splits) -> Self {
        Self { train: Part::of(&*data.train), validation: Part::of(&*data.validation) }
    }

    /// Training and validation in a few words that are others for other samples.
    pub(crate) fn described(&self) -> [(&'static str, String); 2] {
        [("training", self.train.described()), ("validation", self.validation.described())]
    }

    /// In words, how `now` is another data set than this, if it is.
    pub fn differences(&self, now: &Self) -> Option<String> {
        let parts =
            [("training", &self.train, &now.train), ("validation", &self.validation, &now.validation)];
        let texts: Vec<String> =
            parts.iter().filter_map(|(what, old, new)| old.differences(what, new)).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// Counted instead of a class where labels are known only with their images.
const UNKNOWN: &str = "the records";

impl Part {
    fn of(data: &dyn Dataset) -> Self {
        let mut images: BTreeMap<String, usize> =
            data.classes().iter().map(|class| (class.clone(), 0)).collect();
        let mut hash = Sha256::new();
        for index in 0..data.len() {
            let class = data.known_label(index).map_or(UNKNOWN, |label| &data.classes()[label as usize]);
            *images.entry(class.to_owned()).or_default() += 1;
            hash.update(format!("{class}\0{}\0", data.name(index)));
        }
        Self { images, names: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    fn described(&self) -> String {
        let images: usize = self.images.values().sum();
        let classes: Vec<&str> =
            self.images.keys().map(String::as_str).filter(|class| *class != UNKNOWN).collect();
        // Where labels are known only with their images, no name has a class.
        let digest = Sha256::digest(format!("{}\0{}", classes.join("\0"), self.names));
        let digest: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{images} images in {} classes with the digest {digest}", classes.len())
    }

    fn differences(&self, what: &str, now: &Self) -> Option<String> {
        if self == now {
            return None;
        }
        let count = |part: &Self, class: &str| part.images.get(class).copied().unwrap_or(0);
        let classes = self.images.keys().filter(|class| count(self, class) != count(now, class));
        let texts: Vec<String> = classes
            .take(5)
            .map(|class| {
                let of = if class == UNKNOWN { "records".into() } else { format!("of {class}") };
                format!("{} {of} for {what}, there were {}", count(now, class), count(self, class))
            })
            .collect();
        Some(match texts.is_empty() {
            true => format!("other files for {what}, as many as there were"),
            false => format!("now {}", texts.join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::digits::Digits;
    use crate::data::{Labelled, SplitOptions, Subset, stratified_split};

    fn digits(kept: impl Fn(usize) -> bool, seed: u64) -> Splits {
        let all: Arc<dyn Labelled> = Arc::new(Digits::new());
        let indices = (0..all.len()).filter(|&i| kept(i)).collect();
        stratified_split(
            Arc::new(Subset::new(all, indices)),
            SplitOptions { fraction: 0.2, seed, fold: None },
        )
        .unwrap()
    }

    #[test]
    fn a_sample_less_another_split_and_another_name_are_told() {
        let whole = Fingerprint::of(&digits(|_| true, 0));
        assert_eq!(whole.differences(&Fingerprint::of(&digits(|_| true, 0))), None);
        let less = whole.differences(&Fingerprint::of(&digits(|i| i != 0, 0))).unwrap();
        assert!(less.contains("now 35 of 0 for validation, there were 36"), "{less}");
        let other = whole.differences(&Fingerprint::of(&digits(|_| true, 1))).unwrap();
        assert!(other.contains("other files for training, as many as there were"), "{other}");
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), whole);
    }
}
