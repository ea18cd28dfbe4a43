//! What a bad link does, as a Python object.

use ouroboros_io::impair::{Chance, Settings};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Probabilities from 0.0 to 1.0, times in nanoseconds, bits in a second or 0 for no bound. `seed`: of the random numbers.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct LinkSettings {
    pub(crate) settings: Settings,
    pub(crate) seed: u64,
}

#[pymethods]
impl LinkSettings {
    #[new]
    #[pyo3(signature = (*, loss, duplicate, reorder, delay, jitter, rate, partition, seed=0))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords")]
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
        let chance = |value| {
            Chance::new(value)
                .ok_or_else(|| PyValueError::new_err(format!("a probability is from 0 to 1, not {value}")))
        };
        let (loss, duplicate, reorder) = (chance(loss)?, chance(duplicate)?, chance(reorder)?);
        let settings = Settings { loss, duplicate, reorder, delay, jitter, rate, partition };
        Ok(LinkSettings { settings, seed })
    }
}
