//! The worker of a bad link between two descriptors as a Python object.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ouroboros_io::impair::Counters;
use ouroboros_io::link::Link;
use pyo3::prelude::*;

use crate::descriptors::take_over;
use crate::impairment::LinkSettings;

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
    /// Start the thread, which takes over both descriptors. `forth`, `back`: of packets from the first, and from the second.
    #[new]
    fn new(one: i32, other: i32, forth: &LinkSettings, back: &LinkSettings) -> PyResult<Self> {
        let ways = [forth, back].map(|way| (way.settings, way.seed));
        Ok(LinkWorker(Mutex::new(Link::start(take_over([one, other])?, ways)?)))
    }

    /// Change what happens to packets from now on. The seeds stay.
    fn impair(&self, forth: &LinkSettings, back: &LinkSettings) {
        self.lock().set([forth.settings, back.settings]);
    }

    /// Packets delivered, lost, duplicated and reordered so far, in both directions together.
    #[getter]
    fn counters(&self) -> (u64, u64, u64, u64) {
        let Counters { delivered, lost, duplicated, reordered } = self.lock().counters();
        (delivered, lost, duplicated, reordered)
    }

    /// Why the thread ended by itself, None while all is well.
    #[getter]
    fn failure(&self) -> Option<String> {
        self.lock().failure().map(str::to_owned)
    }

    /// Let the thread panic, for tests.
    fn _panic(&self) {
        self.lock().panic();
    }

    /// End the thread and close the descriptors. What is under way is lost.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.lock().stop());
    }
}
