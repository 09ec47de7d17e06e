//! One part of several, for cross-validation: `2/5` is the second fifth.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The part that a run holds out where all samples are dealt out to a number of folds.
///
/// ```
/// use tallow_trainer::data::Fold;
///
/// let fold: Fold = "2/5".parse()?;
/// assert_eq!(fold.to_string(), "2/5");
/// assert!("0/5".parse::<Fold>().is_err() && "6/5".parse::<Fold>().is_err() && "1/1".parse::<Fold>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fold {
    /// From 0.
    number: usize,
    folds: usize,
}

impl Fold {
    /// How many folds there are.
    pub fn folds(self) -> usize {
        self.folds
    }

    /// Whether the sample at this place of a shuffled order belongs to the fold.
    pub(crate) fn holds(self, place: usize) -> bool {
        place % self.folds == self.number
    }
}

impl FromStr for Fold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((k, n)) if n >= 2 && (1..=n).contains(&k) => Ok(Self { number: k - 1, folds: n }),
            _ => Err("a fold is written K/N, with at least 2 folds and K from 1 to N, such as 1/5".into()),
        }
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number + 1, self.folds)
    }
}

impl TryFrom<String> for Fold {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Fold> for String {
    fn from(fold: Fold) -> Self {
        fold.to_string()
    }
}
