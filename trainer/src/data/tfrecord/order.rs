//! The order of an epoch: shards in random order, several read in turn, and a bounded shuffle buffer behind them, as
//! `tf.data` does it with `shuffle`, `interleave` and `shuffle`. Here only numbers are shuffled, ahead of any reading:
//! the order is known as a whole, so a resumed run finds its place by the batch's number. What is read at about the
//! same time lies close together in a few files.

use std::collections::VecDeque;
use std::ops::Range;

use tallow_builder::Rng;

/// How far records are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixing {
    /// Shards that are read in turn, a record at a time.
    pub cycle: usize,
    /// Records among which the next one is drawn.
    pub buffer: usize,
}

/// Every record of `shards`, given as ranges of record numbers, once, in random order.
pub fn mixed(shards: impl Iterator<Item = Range<usize>>, mixing: Mixing, rng: &mut Rng) -> Vec<usize> {
    let mut waiting: Vec<Range<usize>> = shards.filter(|records| !records.is_empty()).collect();
    rng.shuffle(&mut waiting);
    let mut waiting = waiting.into_iter();
    let mut open: VecDeque<Range<usize>> = waiting.by_ref().take(mixing.cycle.max(1)).collect();
    let mut buffer = Vec::with_capacity(mixing.buffer.max(1));
    let mut order = vec![];
    while let Some(mut shard) = open.pop_front() {
        let Some(record) = shard.next() else {
            // Another takes the place of a shard that is through.
            open.extend(waiting.next());
            continue;
        };
        open.push_back(shard);
        if buffer.len() < mixing.buffer.max(1) {
            buffer.push(record);
        } else {
            let drawn = rng.below(buffer.len());
            order.push(std::mem::replace(&mut buffer[drawn], record));
        }
    }
    rng.shuffle(&mut buffer);
    order.append(&mut buffer);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(lengths: &[usize], mixing: Mixing, seed: u64) -> Vec<usize> {
        let mut start = 0;
        let shards = lengths.iter().map(|&n| {
            start += n;
            start - n..start
        });
        mixed(shards, mixing, &mut Rng::new(seed))
    }

    #[test]
    fn every_record_comes_once_and_the_seed_decides_the_order() {
        let lengths = [5, 0, 17, 1, 30, 12, 7];
        for (cycle, buffer) in [(1, 1), (2, 3), (16, 10), (3, 1000), (0, 0)] {
            let mixing = Mixing { cycle, buffer };
            let found = order(&lengths, mixing, 3);
            assert_eq!(found, order(&lengths, mixing, 3));
            assert_ne!(found, order(&lengths, mixing, 4));
            let mut sorted = found;
            sorted.sort_unstable();
            assert_eq!(sorted, (0..72).collect::<Vec<_>>());
        }
        assert!(order(&[], Mixing { cycle: 2, buffer: 2 }, 0).is_empty());
    }

    #[test]
    fn neighbours_in_the_order_are_neighbours_on_the_disk() {
        let (cycle, buffer) = (4, 100);
        let found = order(&[1000; 20], Mixing { cycle, buffer }, 1);
        for window in found.windows(50) {
            let mut shards: Vec<usize> = window.iter().map(|record| record / 1000).collect();
            shards.sort_unstable();
            shards.dedup();
            assert!(shards.len() <= 2 * cycle, "{shards:?}");
        }
        // A single pass through the buffer carries no record forward by more than the buffer's length.
        let unmixed = order(&[1000; 20], Mixing { cycle, buffer: 1 }, 1);
        let place = |record| unmixed.iter().position(|&other| other == record).unwrap();
        for (at, &record) in found.iter().enumerate().step_by(97) {
            assert!(place(record) <= at + buffer, "record {record}");
        }
    }
}
