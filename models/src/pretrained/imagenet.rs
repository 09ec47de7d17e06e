//! The classes of ImageNet-1k, which most published weights know.

/// One a line, in the order of the networks' outputs: each synset's first word in WordNet, told apart where two share it.
const LABELS: &str = include_str!("imagenet1k.txt");

/// The 1000 class names of ILSVRC 2012 (Russakovsky et al. 2015), in the order of the networks' outputs.
pub fn imagenet_labels() -> Vec<String> {
    LABELS.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_a_thousand_different_classes() {
        let labels = imagenet_labels();
        assert_eq!(labels.len(), 1000);
        assert_eq!(labels.iter().collect::<std::collections::BTreeSet<_>>().len(), 1000);
        for (class, label) in [(0, "tench"), (282, "tiger cat"), (967, "espresso"), (985, "daisy")] {
            assert_eq!(labels[class], label);
        }
    }
}
