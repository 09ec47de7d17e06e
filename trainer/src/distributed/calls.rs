//! A communicator that counts what is asked of it, for tests.

use std::sync::{Arc, Mutex};

use tallow_distributed::{Buckets, Communicator, InBackground, Result};

use super::{DataParallel, DistributedConfig};

/// The names of the calls so far.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<&'static str>>>);

impl Calls {
    /// How often `call` was made.
    pub fn count(&self, call: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|name| **name == call).count()
    }

    fn add(&self, call: &'static str) {
        self.0.lock().unwrap().push(call);
    }
}

impl DataParallel {
    /// Counts from now on what this process says to the others: `all_reduce` is a bucket of gradients.
    pub fn watch(&mut self) -> Calls {
        let calls = Calls::default();
        let watched = |inner: &Arc<dyn Communicator>| -> Arc<dyn Communicator> {
            Arc::new(Watched { inner: inner.clone(), calls: calls.clone() })
        };
        (self.control, self.gradients) = (watched(&self.control), watched(&self.gradients));
        let sum = InBackground::new(self.gradients.clone()).unwrap();
        self.buckets = Buckets::new(Box::new(sum), DistributedConfig::default().bucket_bytes());
        calls
    }
}

struct Watched {
    inner: Arc<dyn Communicator>,
    calls: Calls,
}

impl Communicator for Watched {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world_size(&self) -> usize {
        self.inner.world_size()
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        self.calls.add("all_reduce");
        self.inner.all_reduce(values)
    }

    fn all_reduce_f64(&self, values: &mut [f64]) -> Result<()> {
        self.calls.add("all_reduce_f64");
        self.inner.all_reduce_f64(values)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>, root: usize) -> Result<()> {
        self.calls.add("broadcast");
        self.inner.broadcast(bytes, root)
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.calls.add("gather");
        self.inner.gather(bytes)
    }

    fn abort(&self, origin: usize, reason: &str) {
        self.inner.abort(origin, reason);
    }
}
