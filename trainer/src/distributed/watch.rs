//! A communicator that counts what is asked of it, for tests.

use std::sync::{Arc, Mutex};

use tallow_distributed::{Communicator, Result};

use super::DataParallel;

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
    /// Counts from now on what this process says to the others, its gradients aside.
    pub fn watch(&mut self) -> Calls {
        let calls = Calls::default();
        self.control = Arc::new(Watched { inner: self.control.clone(), calls: calls.clone() });
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
