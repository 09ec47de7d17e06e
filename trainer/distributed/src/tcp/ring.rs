//! Collectives in a ring (Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms"): sums are scattered, each
//! rank adding its own part to what comes, then gathered. A sum is computed once and copied, so that all ranks have the
//! same bits.

use std::ops::Range;

use super::link::Link;
use crate::error::{Error, Result};

/// Up to so many bytes, each rank sends everything to all and adds for itself: half the messages.
const SMALL: usize = 16 * 1024;

/// A number that can be summed and sent.
pub(super) trait Number: Copy + std::ops::AddAssign {
    const SIZE: usize;
    fn put(self, bytes: &mut Vec<u8>);
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($float:ty),*) => {$(
        impl Number for $float {
            const SIZE: usize = size_of::<$float>();

            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn take(bytes: &[u8]) -> Self {
                Self::from_le_bytes(std::array::from_fn(|i| bytes[i]))
            }
        }
    )*};
}
number!(f32, f64);

/// A rank's place in the ring.
pub(super) struct Ring {
    pub rank: usize,
    pub world_size: usize,
    pub link: Link,
}

impl Ring {
    pub fn all_reduce<T: Number>(&mut self, values: &mut [T]) -> Result<()> {
        if values.len() * T::SIZE <= SMALL { self.add_all(values) } else { self.scatter_and_gather(values) }
    }

    /// Sums in the order of ranks, on every rank.
    fn add_all<T: Number>(&mut self, values: &mut [T]) -> Result<()> {
        let all = self.gather(&encode(values))?;
        for (peer, bytes) in all.iter().enumerate() {
            self.expect(peer, bytes.len(), values.len() * T::SIZE)?;
            for (value, number) in values.iter_mut().zip(decode::<T>(bytes)) {
                if peer == 0 {
                    *value = number;
                } else {
                    *value += number;
                }
            }
        }
        Ok(())
    }

    fn scatter_and_gather<T: Number>(&mut self, values: &mut [T]) -> Result<()> {
        let (rank, world_size, length) = (self.rank, self.world_size, values.len());
        let part = |part: usize| -> Range<usize> {
            let part = part % world_size;
            length * part / world_size..length * (part + 1) / world_size
        };
        for step in 0..world_size - 1 {
            // After step s, part r − s − 1 has been added up by the s + 2 ranks that end with this one.
            self.link.send(encode(&values[part(rank + world_size - step)]))?;
            let mine = part(rank + world_size - step - 1);
            let bytes = self.receive(mine.len() * T::SIZE)?;
            values[mine].iter_mut().zip(decode::<T>(&bytes)).for_each(|(value, sum)| *value += sum);
        }
        for step in 0..world_size - 1 {
            self.link.send(encode(&values[part(rank + 1 + world_size - step)]))?;
            let theirs = part(rank + world_size - step);
            let bytes = self.receive(theirs.len() * T::SIZE)?;
            values[theirs].iter_mut().zip(decode::<T>(&bytes)).for_each(|(value, sum)| *value = sum);
        }
        Ok(())
    }

    pub fn gather(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut all = vec![vec![]; self.world_size];
        all[self.rank] = bytes.to_vec();
        for step in 0..self.world_size - 1 {
            let of = |step: usize| (self.rank + self.world_size - step) % self.world_size;
            let (out, incoming) = (of(step), of(step + 1));
            self.link.send(all[out].clone())?;
            all[incoming] = self.link.receive()?;
        }
        Ok(all)
    }

    pub fn broadcast(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<()> {
        if self.rank != root {
            *bytes = self.link.receive()?;
        }
        if (self.rank + 1) % self.world_size != root {
            self.link.send(bytes.clone())?;
        }
        Ok(())
    }

    fn receive(&mut self, expected: usize) -> Result<Vec<u8>> {
        let bytes = self.link.receive()?;
        self.expect((self.rank + self.world_size - 1) % self.world_size, bytes.len(), expected)?;
        Ok(bytes)
    }

    fn expect(&self, peer: usize, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        let problem = format!("{found} bytes came instead of {expected}");
        Err(Error::OutOfStep { rank: self.rank, peer, problem })
    }
}

fn encode<T: Number>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * T::SIZE);
    values.iter().for_each(|value| value.put(&mut bytes));
    bytes
}

fn decode<T: Number>(bytes: &[u8]) -> impl Iterator<Item = T> {
    bytes.chunks_exact(T::SIZE).map(T::take)
}
