//! The worker of a bad link between two descriptors as a Python object.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ouroboros_io::impair::Counters;
use ouroboros_io::link::Link;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::relay::settings;

/// A thread that passes packets between two descriptors through a bad link, in both directions.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct LinkWorker(Mutex<Link>);

impl LinkWorker {
    fn lock(&self) -> MutexGuard<'_, Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl LinkWorker {
    /// Start the thread, which takes over both descriptors. Settings are those of `RelayWorker`.
    #[new]
    #[pyo3(signature = (one, other, *, loss, duplicate, reorder, delay, jitter, rate, partition, seed))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        one: i32,
        other: i32,
        loss: f64,
        duplicate: f64,
        reorder: f64,
        delay: u64,
        jitter: u64,
        rate: u64,
        partition: bool,
        seed: u64,
    ) -> PyResult<Self> {
        if one < 0 || other < 0 || one == other {
            return Err(PyValueError::new_err("not two descriptors"));
        }
        // SAFETY: the caller gives up both descriptors.
        let ends = [one, other].map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) });
        let settings = settings([loss, duplicate, reorder], delay, jitter, rate, partition)?;
        Ok(LinkWorker(Mutex::new(Link::start(ends, settings, seed)?)))
    }

    /// Change what happens to packets from now on.
    #[pyo3(signature = (*, loss, duplicate, reorder, delay, jitter, rate, partition))]
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
    ) -> PyResult<()> {
        self.lock().set(settings([loss, duplicate, reorder], delay, jitter, rate, partition)?);
        Ok(())
    }

    /// Packets delivered, lost, duplicated and reordered so far, in both directions together.
    #[getter]
    fn counters(&self) -> (u64, u64, u64, u64) {
        let Counters { delivered, lost, duplicated, reordered } = self.lock().counters();
        (delivered, lost, duplicated, reordered)
    }

    /// End the thread and close the descriptors. What is under way is lost.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.lock().stop());
    }
}
