//! Holding out a validation set: stratified, so that each class keeps its share, and decided by the seed alone.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallow_builder::Rng;

use super::{Dataset, Fold, Labelled, Sample, Splits, stream};
use crate::error::{Error, Result};

/// How to hold out a validation set where the data set has none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitOptions {
    /// One of several equal parts, for cross-validation; it is held out instead of `fraction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
    /// Share of each class that is held out, between 0 and 1.
    pub fraction: f64,
    /// Decides which samples are held out. Keep it when a run is resumed.
    pub seed: u64,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { fold: None, fraction: 0.2, seed: 0 }
    }
}

/// Some samples of a data set.
pub struct Subset {
    source: Arc<dyn Labelled>,
    indices: Vec<usize>,
}

impl Subset {
    /// The samples of `source` at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below `source.len()`.
    pub fn new(source: Arc<dyn Labelled>, indices: Vec<usize>) -> Self {
        assert!(indices.iter().all(|&index| index < source.len()), "a subset's indices lie in its source");
        Self { source, indices }
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn load(&self, index: usize) -> Result<Sample> {
        self.source.load(self.indices[index])
    }

    fn origin(&self, index: usize) -> String {
        self.source.origin(self.indices[index])
    }

    fn known_label(&self, index: usize) -> Option<u32> {
        Some(self.label(index))
    }

    fn name(&self, index: usize) -> String {
        self.source.name(self.indices[index])
    }
}

impl Labelled for Subset {
    fn label(&self, index: usize) -> u32 {
        self.source.label(self.indices[index])
    }
}

/// Splits `source` into training and validation, class by class.
///
/// Of a class with n samples, round(n · fraction) are held out, but at least one and at most n − 1; a class with a
/// single sample stays in training. Of N folds, each has n/N of a class's samples, rounded up or down, and over all folds
/// every sample is held out once. The split depends on the seed and on the number of samples in each class.
///
/// # Errors
/// [`Error::Fraction`] unless 0 < fraction < 1; [`Error::TooFewToSplit`] if no class has two samples.
pub fn stratified_split(source: Arc<dyn Labelled>, options: SplitOptions) -> Result<Splits> {
    let labels: Vec<u32> = (0..source.len()).map(|index| source.label(index)).collect();
    let [train, validation] = stratified(&labels, options)?;
    Ok(Splits {
        train: Arc::new(Subset::new(source.clone(), train)),
        validation: Arc::new(Subset::new(source, validation)),
        label_offset: None,
    })
}

/// The numbers of the samples to train on and of those that are held out, each sorted. See [`stratified_split`].
pub(crate) fn stratified(labels: &[u32], options: SplitOptions) -> Result<[Vec<usize>; 2]> {
    let SplitOptions { fold, fraction, seed } = options;
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::Fraction { fraction });
    }
    let classes = labels.iter().max().map_or(0, |&last| last as usize + 1);
    let mut by_class = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        by_class[label as usize].push(index);
    }
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    // Samples dealt out so far: folds go on where the last class ended, so that small classes fill all of them alike.
    let mut dealt = 0;
    for (class, mut members) in by_class.into_iter().enumerate() {
        Rng::stream(seed, &[stream::SPLIT, class as u64]).shuffle(&mut members);
        let n = members.len();
        let count = ((n as f64 * fraction).round() as usize).clamp(1, n.max(2) - 1);
        for (place, sample) in members.into_iter().enumerate() {
            let held_out = fold.map_or(place < count, |fold| fold.holds(dealt + place));
            if held_out && n > 1 { validation.push(sample) } else { train.push(sample) }
        }
        dealt += n;
    }
    if validation.is_empty() {
        return Err(Error::TooFewToSplit);
    }
    train.sort_unstable();
    validation.sort_unstable();
    Ok([train, validation])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digits::Digits;
    use std::collections::BTreeSet;

    fn origins(set: &dyn Dataset) -> BTreeSet<String> {
        (0..set.len()).map(|i| set.origin(i)).collect()
    }

    fn per_class(set: &dyn Dataset) -> Vec<usize> {
        let mut counts = vec![0; set.classes().len()];
        (0..set.len()).for_each(|i| counts[set.load(i).unwrap().label as usize] += 1);
        counts
    }

    #[test]
    fn every_class_keeps_its_share_and_no_sample_is_lost_or_doubled() {
        let digits: Arc<dyn Labelled> = Arc::new(Digits::new());
        let all = per_class(&*digits);
        let splits =
            stratified_split(digits.clone(), SplitOptions { fraction: 0.2, seed: 3, fold: None }).unwrap();
        for (held_out, n) in per_class(&*splits.validation).iter().zip(&all) {
            assert_eq!(*held_out, (*n as f64 * 0.2).round() as usize);
        }
        let (train, validation) = (origins(&*splits.train), origins(&*splits.validation));
        assert!(train.is_disjoint(&validation));
        assert_eq!(train.len() + validation.len(), digits.len());
    }

    #[test]
    fn over_all_folds_every_sample_is_held_out_once_and_classes_keep_their_share() {
        let digits: Arc<dyn Labelled> = Arc::new(Digits::new());
        let all = per_class(&*digits);
        let mut seen = BTreeSet::new();
        for text in ["1/5", "2/5", "3/5", "4/5", "5/5"] {
            let options =
                SplitOptions { fold: Some(text.parse().unwrap()), seed: 3, ..SplitOptions::default() };
            let splits = stratified_split(digits.clone(), options).unwrap();
            for (held_out, n) in per_class(&*splits.validation).iter().zip(&all) {
                assert!((n / 5..=n.div_ceil(5)).contains(held_out), "{held_out} of {n}");
            }
            assert!((digits.len() / 5..=digits.len().div_ceil(5)).contains(&splits.validation.len()));
            let validation = origins(&*splits.validation);
            assert!(origins(&*splits.train).is_disjoint(&validation));
            assert!(validation.is_disjoint(&seen), "{text}");
            seen.extend(validation);
        }
        assert_eq!(seen.len(), digits.len());
    }

    #[test]
    fn the_seed_alone_decides() {
        let split = |seed| {
            let splits =
                stratified_split(Arc::new(Digits::new()), SplitOptions { fraction: 0.1, seed, fold: None })
                    .unwrap();
            origins(&*splits.validation)
        };
        assert_eq!(split(1), split(1));
        assert_ne!(split(1), split(2));
    }

    #[test]
    fn small_classes_keep_a_training_sample_and_give_one_for_validation() {
        let digits: Arc<dyn Labelled> = Arc::new(Digits::new());
        // Two of class 0, one of class 1: indices 0, 10 and 1 in scikit-learn's order.
        let few = Arc::new(Subset::new(digits.clone(), vec![0, 10, 1]));
        for fraction in [0.01, 0.5, 0.99] {
            let splits =
                stratified_split(few.clone(), SplitOptions { fraction, seed: 0, fold: None }).unwrap();
            assert_eq!(per_class(&*splits.train)[..2], [1, 1]);
            assert_eq!(per_class(&*splits.validation)[..2], [1, 0]);
        }
        let single = Arc::new(Subset::new(digits, vec![0, 1]));
        assert!(matches!(stratified_split(single, SplitOptions::default()), Err(Error::TooFewToSplit)));
    }

    #[test]
    fn a_senseless_fraction_is_an_error() {
        for fraction in [0.0, 1.0, -0.1, f64::NAN] {
            let split =
                stratified_split(Arc::new(Digits::new()), SplitOptions { fraction, seed: 0, fold: None });
            assert!(matches!(split, Err(Error::Fraction { .. })), "{fraction}");
        }
    }
}
