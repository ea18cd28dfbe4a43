//! The worker of an impaired layer as a Python object.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ouroboros_io::impair::{Chance, Counters, Settings};
use ouroboros_io::relay::Relay;
use ouroboros_shm::endpoint::Endpoint;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A thread that passes the packets of the flows of an impaired layer through a bad link.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct RelayWorker(Mutex<Relay>);

impl RelayWorker {
    fn lock(&self) -> MutexGuard<'_, Relay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl RelayWorker {
    /// Start the thread. Probabilities from 0.0 to 1.0, times in nanoseconds, bits in a second or 0 for no bound.
    #[new]
    #[pyo3(signature = (*, loss, duplicate, reorder, delay, jitter, rate, partition, seed))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        loss: f64,
        duplicate: f64,
        reorder: f64,
        delay: u64,
        jitter: u64,
        rate: u64,
        partition: bool,
        seed: u64,
    ) -> PyResult<Self> {
        let settings = settings([loss, duplicate, reorder], delay, jitter, rate, partition)?;
        Ok(RelayWorker(Mutex::new(Relay::start(settings, seed)?)))
    }

    /// Join the channels of a flow. Takes over all descriptors: memory and bell of side 1 of that of the allocator, memory
    /// and bell of side 0 of that of the acceptor.
    fn add(&self, flow_id: u64, memory_a: i32, bell_a: i32, memory_b: i32, bell_b: i32) -> PyResult<()> {
        let descriptors = [memory_a, bell_a, memory_b, bell_b];
        if descriptors.iter().any(|descriptor| *descriptor < 0) {
            return Err(PyValueError::new_err("not a descriptor"));
        }
        // SAFETY: the caller gives up all four descriptors.
        let [memory_a, bell_a, memory_b, bell_b] =
            descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) });
        let ends = [Endpoint::attach(memory_a, bell_a, 1)?, Endpoint::attach(memory_b, bell_b, 0)?];
        Ok(self.lock().add(flow_id, ends)?)
    }

    /// Forget a flow.
    fn remove(&self, flow_id: u64) {
        self.lock().remove(flow_id);
    }

    /// The process of a side (0 allocated the flow, 1 accepted it) died: tell the other when all has arrived.
    fn mark_dead(&self, flow_id: u64, side: usize) {
        self.lock().mark_dead(flow_id, side);
    }

    /// Change what happens to packets from now on; `seed` is that of flows which begin from now on.
    #[pyo3(signature = (*, loss, duplicate, reorder, delay, jitter, rate, partition, seed))]
    #[allow(clippy::too_many_arguments)]
    fn set_impairment(
        &self,
        loss: f64,
        duplicate: f64,
        reorder: f64,
        delay: u64,
        jitter: u64,
        rate: u64,
        partition: bool,
        seed: u64,
    ) -> PyResult<()> {
        self.lock().set(settings([loss, duplicate, reorder], delay, jitter, rate, partition)?, seed);
        Ok(())
    }

    /// Packets delivered, lost, duplicated and reordered so far.
    #[getter]
    fn counters(&self) -> (u64, u64, u64, u64) {
        let Counters { delivered, lost, duplicated, reordered } = self.lock().counters();
        (delivered, lost, duplicated, reordered)
    }

    /// End the thread and all flows of the layer.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.lock().stop());
    }
}

/// What the keywords of a worker mean.
pub(crate) fn settings(chances: [f64; 3], delay: u64, jitter: u64, rate: u64, partition: bool) -> PyResult<Settings> {
    let chance = |value| {
        Chance::new(value).ok_or_else(|| PyValueError::new_err(format!("a probability is from 0 to 1, not {value}")))
    };
    let [loss, duplicate, reorder] = chances;
    let (loss, duplicate, reorder) = (chance(loss)?, chance(duplicate)?, chance(reorder)?);
    Ok(Settings { loss, duplicate, reorder, delay, jitter, rate, partition })
}
