//! Bytes on their way to a GPU while it computes: page-locked host memory, and copies on a stream of their own.

use candle_core::{Device, Result, Tensor};

/// Copies bytes to a device, two lots at a time: while one is read there, the next one is under way.
pub struct Uploader {
    device: Device,
    #[cfg(feature = "cuda")]
    slots: Option<gpu::Slots>,
}

/// Bytes that have been sent, to be received in the order of sending.
pub struct Sent(Place);

enum Place {
    /// There at once.
    Tensor(Tensor),
    /// In the slot of this number.
    #[cfg(feature = "cuda")]
    Slot(usize),
}

impl Uploader {
    /// For a device. Memory is taken when it is known how much.
    ///
    /// # Errors
    /// Where the driver gives no stream.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            device: device.clone(),
            #[cfg(feature = "cuda")]
            slots: match device {
                Device::Cuda(device) => Some(gpu::Slots::new(device)?),
                _ => None,
            },
        })
    }

    /// Starts to copy what the parts hold, one after the other. No more than two may be sent and not yet
    /// received; what was sent last may be dropped instead.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<Sent> {
        #[cfg(feature = "cuda")]
        if let Some(slots) = &mut self.slots {
            return slots.send(parts).map(|slot| Sent(Place::Slot(slot)));
        }
        let bytes = parts.concat();
        let length = bytes.len();
        Ok(Sent(Place::Tensor(Tensor::from_vec(bytes, length, &self.device)?)))
    }

    /// Has `launch` launch the kernels that read what was sent; they run once it has arrived. The tensor, which may be
    /// longer, is theirs alone.
    ///
    /// # Errors
    /// Those of `launch`, and where the driver fails.
    pub fn receive<R, E: From<candle_core::Error>>(
        &mut self,
        Sent(place): Sent,
        launch: impl FnOnce(&Tensor) -> std::result::Result<R, E>,
    ) -> std::result::Result<R, E> {
        match place {
            Place::Tensor(bytes) => launch(&bytes),
            #[cfg(feature = "cuda")]
            Place::Slot(slot) => match &mut self.slots {
                Some(slots) => slots.receive(slot, launch),
                None => unreachable!("slots are those of a GPU"),
            },
        }
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use std::sync::Arc;

    use candle_core::cuda_backend::WrapErr;
    use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, result};
    use candle_core::{CudaDevice, DType, Device, Result, Tensor};

    use crate::memory::{empty, pointer};

    const SLOTS: usize = 2;

    pub(super) struct Slots {
        slots: [Option<Slot>; SLOTS],
        next: usize,
        device: CudaDevice,
        copies: Arc<CudaStream>,
    }

    /// Memory for one lot, on both sides. candle tracks no events: what follows what is said here.
    struct Slot {
        host: PinnedHostSlice<u8>,
        /// From the pool of candle's stream.
        device: Tensor,
        /// On the stream of copies: the last copy is done.
        copied: CudaEvent,
        /// On candle's stream: the tensor is there, and what read it last is done.
        read: CudaEvent,
    }

    impl Slots {
        pub fn new(device: &CudaDevice) -> Result<Self> {
            let copies = device.cuda_stream().context().new_stream().w()?;
            Ok(Self { device: device.clone(), copies, slots: [const { None }; SLOTS], next: 0 })
        }

        pub fn send(&mut self, parts: &[&[u8]]) -> Result<usize> {
            let (index, length) = (self.next, parts.iter().map(|part| part.len()).sum());
            self.next = (index + 1) % SLOTS;
            let slot = match self.slots[index].take().filter(|slot| slot.host.len() >= length) {
                Some(slot) => slot,
                None => Slot::new(&self.device, length)?,
            };
            let slot = self.slots[index].insert(slot);
            // The host's memory is free again once the copy before is done.
            slot.copied.synchronize().w()?;
            let host = slot.host.as_mut_slice().w()?;
            let mut start = 0;
            for part in parts {
                host[start..start + part.len()].copy_from_slice(part);
                start += part.len();
            }
            self.copies.wait(&slot.read).w()?;
            let to = pointer(&slot.device)?;
            // SAFETY: both sides have as many bytes and live until the copy is done: a slot waits for that before it
            // is written again or dropped. `wait` has bound the context to this thread.
            unsafe { result::memcpy_htod_async(to, &host[..length], self.copies.cu_stream()) }.w()?;
            slot.copied.record(&self.copies).w()?;
            Ok(index)
        }

        pub fn receive<R, E: From<candle_core::Error>>(
            &mut self,
            index: usize,
            launch: impl FnOnce(&Tensor) -> std::result::Result<R, E>,
        ) -> std::result::Result<R, E> {
            let Some(slot) = &self.slots[index] else { unreachable!("what was sent has a slot") };
            let computing = self.device.cuda_stream();
            computing.wait(&slot.copied).w()?;
            let launched = launch(&slot.device);
            slot.read.record(&computing).w()?;
            launched
        }
    }

    impl Slot {
        fn new(device: &CudaDevice, length: usize) -> Result<Self> {
            let stream = device.cuda_stream();
            let context = stream.context();
            let length = length.max(1);
            // SAFETY: bytes of any value are bytes, and they are written before they are copied.
            let host = unsafe { context.alloc_pinned(length) }.w()?;
            let slot = Self {
                host,
                device: empty(length, DType::U8, &Device::Cuda(device.clone()))?,
                copied: context.new_event(None).w()?,
                read: context.new_event(None).w()?,
            };
            slot.read.record(&stream).w()?;
            Ok(slot)
        }
    }

    impl Drop for Slot {
        fn drop(&mut self) {
            // A copy that nobody received may be under way. A failure shows in the next call.
            self.copied.context().record_err(self.copied.synchronize());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_does_not_mix_up_what_is_sent_ahead() {
        let gpu = crate::testing::gpu("a_gpu_does_not_mix_up_what_is_sent_ahead");
        let device = gpu.unwrap_or(Device::Cpu);
        let mut uploader = Uploader::new(&device).unwrap();
        let lot = |i: u8| (vec![i; 1 + usize::from(i % 5) * 1000], vec![i ^ 255; 3]);
        let send = |uploader: &mut Uploader, i: u8| {
            let (a, b) = lot(i);
            uploader.send(&[&a, &b]).unwrap()
        };
        let mut sent = send(&mut uploader, 0);
        for i in 0..20 {
            let next = send(&mut uploader, i + 1);
            let found: Vec<u8> = uploader.receive(sent, |bytes| bytes.to_vec1()).unwrap();
            let (a, b) = lot(i);
            assert_eq!(found[..a.len() + b.len()], [a, b].concat(), "{i}");
            // Now and then an epoch ends early: what was sent ahead is dropped, and the next epoch begins.
            sent = match i % 7 {
                6 => {
                    drop(next);
                    send(&mut uploader, i + 1)
                }
                _ => next,
            };
        }
    }
}
