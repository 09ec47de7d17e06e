//! Which part of each batch a process has, where several train together.

use std::ops::Range;

/// A process's place among those that share each batch. Alone, it has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its number, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
}

impl Default for Share {
    fn default() -> Self {
        Self { rank: 0, world_size: 1 }
    }
}

impl Share {
    /// Its part of a batch: shares follow each other by rank, and differ by at most one sample.
    pub(super) fn of(self, batch: Range<usize>) -> Range<usize> {
        let (start, length) = (batch.start, batch.len());
        let at = |rank: usize| start + length * rank / self.world_size;
        at(self.rank)..at(self.rank + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_a_batch_once_and_evenly() {
        for world_size in 1..7 {
            for length in 0..20 {
                let shares: Vec<_> =
                    (0..world_size).map(|rank| Share { rank, world_size }.of(100..100 + length)).collect();
                let all: Vec<usize> = shares.iter().cloned().flatten().collect();
                assert_eq!(all, (100..100 + length).collect::<Vec<_>>());
                let lengths = shares.iter().map(ExactSizeIterator::len);
                assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
            }
        }
    }
}
