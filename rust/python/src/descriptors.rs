//! Descriptors that Python hands over.

use std::os::fd::{FromRawFd, OwnedFd};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Take over descriptors, which the caller gives up. If one of them is none, all stay the caller's.
pub(crate) fn take_over<const COUNT: usize>(descriptors: [i32; COUNT]) -> PyResult<[OwnedFd; COUNT]> {
    check(&descriptors)?;
    // SAFETY: the caller gives them up.
    Ok(descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

/// Each is one, and no two are the same.
pub(crate) fn check(descriptors: &[i32]) -> PyResult<()> {
    let twice = descriptors.iter().enumerate().any(|(at, one)| descriptors[..at].contains(one));
    if twice || descriptors.iter().any(|descriptor| *descriptor < 0) {
        let what = match descriptors.len() {
            1 => "not a descriptor",
            2 => "not two descriptors",
            _ => "not descriptors that differ",
        };
        return Err(PyValueError::new_err(format!("{what}: {descriptors:?}")));
    }
    Ok(())
}
