//! The worker of a broadcast layer as a Python object.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ouroboros_io::broadcast::Broadcast;
use ouroboros_shm::endpoint::Endpoint;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A thread that copies what a member of a broadcast layer writes to all other members.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct BroadcastWorker(Mutex<Broadcast>);

impl BroadcastWorker {
    fn lock(&self) -> MutexGuard<'_, Broadcast> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl BroadcastWorker {
    /// Start the thread.
    #[new]
    fn new() -> PyResult<Self> {
        Ok(BroadcastWorker(Mutex::new(Broadcast::start()?)))
    }

    /// Take a member in. Takes over both descriptors, of which the bell is that of side 1.
    fn add(&self, memory: i32, bell: i32) -> PyResult<()> {
        if memory < 0 || bell < 0 {
            return Err(PyValueError::new_err("not a descriptor"));
        }
        // SAFETY: the caller gives up both descriptors.
        let (memory, bell) = unsafe { (OwnedFd::from_raw_fd(memory), OwnedFd::from_raw_fd(bell)) };
        Ok(self.lock().add(Endpoint::attach(memory, bell, 1)?)?)
    }

    /// Packets lost by members that read too slowly.
    #[getter]
    fn lost(&self) -> u64 {
        self.lock().lost()
    }

    /// End the thread and all flows of the layer.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.lock().stop());
    }
}
