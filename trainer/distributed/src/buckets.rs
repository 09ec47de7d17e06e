//! Gradients in buckets (Li et al. 2020, "PyTorch Distributed", section 3.2.3): as soon as backward has made all of a
//! bucket, its sum over the ranks begins, and backward goes on meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{DType, Device, Shape, Tensor};

use crate::error::Result;
use crate::reduce::SumTensors;

/// Sums gradients over all ranks, bucket by bucket.
pub struct Buckets {
    sum: Box<dyn SumTensors>,
    /// Bytes after which a bucket is full.
    bytes: usize,
    device: Device,
    slots: Vec<Slot>,
    places: BTreeMap<String, usize>,
    /// Of the slots, in order.
    buckets: Vec<Range<usize>>,
    /// Buckets that are under way.
    started: usize,
}

/// A parameter's place.
struct Slot {
    name: String,
    shape: Shape,
    gradient: Option<Tensor>,
}

impl Buckets {
    /// With buckets of about so many bytes.
    pub fn new(sum: Box<dyn SumTensors>, bytes: usize) -> Self {
        let (slots, buckets, places) = (vec![], vec![], BTreeMap::new());
        Self { sum, bytes, device: Device::Cpu, slots, places, buckets, started: 0 }
    }

    /// Begins a backward pass that makes gradients of these parameters, in this order, on `device`. All ranks say the
    /// same.
    pub fn begin(&mut self, parameters: impl IntoIterator<Item = (String, Shape)>, device: &Device) {
        self.device = device.clone();
        let slot = |(name, shape)| Slot { name, shape, gradient: None };
        self.slots = parameters.into_iter().map(slot).collect();
        self.places = self.slots.iter().enumerate().map(|(place, slot)| (slot.name.clone(), place)).collect();
        self.buckets.clear();
        self.started = 0;
        let (mut start, mut filled) = (0, 0);
        for (place, slot) in self.slots.iter().enumerate() {
            filled += slot.shape.elem_count() * DType::F32.size_in_bytes();
            if filled >= self.bytes || place + 1 == self.slots.len() {
                self.buckets.push(start..place + 1);
                (start, filled) = (place + 1, 0);
            }
        }
    }

    /// Takes a gradient that is complete. One of a parameter that was not named is left out.
    ///
    /// # Errors
    /// Those of a [`SumTensors`].
    pub fn add(&mut self, name: &str, gradient: Tensor) -> Result<()> {
        let Some(&place) = self.places.get(name) else { return Ok(()) };
        self.slots[place].gradient = Some(gradient);
        self.start_full(false)
    }

    /// Begins with the buckets that are full, in order; with all of them where nothing more `comes`.
    fn start_full(&mut self, all: bool) -> Result<()> {
        while let Some(bucket) = self.buckets.get(self.started).cloned() {
            let slots = &mut self.slots[bucket];
            if !all && slots.iter().any(|slot| slot.gradient.is_none()) {
                return Ok(());
            }
            let mut flat = Vec::with_capacity(slots.len());
            for slot in slots {
                flat.push(match slot.gradient.take() {
                    Some(gradient) => gradient.flatten_all()?,
                    None => Tensor::zeros(slot.shape.elem_count(), DType::F32, &self.device)?,
                });
            }
            self.sum.start(Tensor::cat(&flat, 0)?)?;
            self.started += 1;
        }
        Ok(())
    }

    /// Waits for the sums. What never came counts as zeros on this rank: all of it where the rank had no image.
    ///
    /// # Errors
    /// Those of a [`SumTensors`].
    pub fn finish(&mut self) -> Result<BTreeMap<String, Tensor>> {
        self.start_full(true)?;
        let sums = self.sum.finish()?;
        let mut gradients = BTreeMap::new();
        for (bucket, sum) in self.buckets.iter().zip(sums) {
            let mut offset = 0;
            for slot in &self.slots[bucket.clone()] {
                let length = slot.shape.elem_count();
                // A copy, so that one gradient that is kept does not keep the whole bucket.
                let gradient = sum.narrow(0, offset, length)?.force_contiguous()?.reshape(&slot.shape)?;
                gradients.insert(slot.name.clone(), gradient);
                offset += length;
            }
        }
        Ok(gradients)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what it is given, and gives it back doubled: two ranks with the same gradients.
    #[derive(Clone, Default)]
    struct Twice(Arc<Mutex<Vec<Tensor>>>);

    impl SumTensors for Twice {
        fn start(&mut self, tensor: Tensor) -> Result<()> {
            self.0.lock().unwrap().push(tensor);
            Ok(())
        }

        fn finish(&mut self) -> Result<Vec<Tensor>> {
            let tensors = std::mem::take(&mut *self.0.lock().unwrap());
            tensors.into_iter().map(|tensor| Ok((tensor * 2.0)?)).collect()
        }
    }

    fn parameters() -> Vec<(String, Shape)> {
        [("fc.weight", vec![2, 3]), ("fc.bias", vec![2]), ("conv.weight", vec![4]), ("stem.weight", vec![1])]
            .map(|(name, shape)| (name.to_owned(), Shape::from(shape)))
            .into()
    }

    #[test]
    fn a_bucket_starts_when_its_last_gradient_comes_and_the_rest_is_zeros() {
        let sum = Twice::default();
        // 24 bytes, then 8 + 16, then the rest.
        let mut buckets = Buckets::new(Box::new(sum.clone()), 24);
        let lengths = || -> Vec<usize> { sum.0.lock().unwrap().iter().map(Tensor::elem_count).collect() };
        for _ in 0..2 {
            buckets.begin(parameters(), &Device::Cpu);
            let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
            // Out of order, a later bucket waits for the one before it.
            buckets.add("conv.weight", ones(&[4])).unwrap();
            buckets.add("fc.bias", ones(&[2])).unwrap();
            assert!(lengths().is_empty());
            buckets.add("fc.weight", ones(&[2, 3])).unwrap();
            assert_eq!(lengths(), [6, 6]);
            buckets.add("unknown", ones(&[9])).unwrap();
            let gradients = buckets.finish().unwrap();
            assert_eq!(gradients.len(), 4);
            assert_eq!(gradients["fc.weight"].to_vec2::<f32>().unwrap(), [[2.0; 3]; 2]);
            assert_eq!(gradients["fc.bias"].to_vec1::<f32>().unwrap(), [2.0; 2]);
            assert_eq!(gradients["stem.weight"].to_vec1::<f32>().unwrap(), [0.0]);
        }
    }
}
