//! A place for a Python object in an object that is shared.

use std::cell::UnsafeCell;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

/// Like `Mutex<Option<Py<T>>>`, but what locks is the interpreter lock: the packet path has no time for two locks.
pub struct Slot<T>(UnsafeCell<Option<Py<T>>>);

// SAFETY: the content is touched by the methods below only. Each of them is called under the interpreter lock (there are no
// builds of this module for interpreters without one) and lets go of the content before anything else can run.
unsafe impl<T> Sync for Slot<T> {}

impl<T> Slot<T> {
    /// An empty slot.
    pub fn new() -> Self {
        Slot(UnsafeCell::new(None))
    }

    /// What is in it.
    pub fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        // SAFETY: as above; a clone runs nothing.
        unsafe { (*self.0.get()).as_ref().map(|object| object.bind(py).clone()) }
    }

    /// Take out what is in it.
    pub fn take<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        // SAFETY: as above; a move runs nothing.
        unsafe { (*self.0.get()).take().map(|object| object.into_bound(py)) }
    }

    /// Put that in, or nothing.
    pub fn put(&self, py: Python<'_>, object: Option<Bound<'_, T>>) {
        let before = self.take(py);
        // SAFETY: as above; it replaces nothing that would have to be released.
        unsafe { *self.0.get() = object.map(Bound::unbind) };
        // Now that the slot is whole again: this may run anything.
        drop(before);
    }

    /// For the garbage collector, which holds the interpreter lock.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: as above; a visit runs nothing.
        unsafe { visit.call((*self.0.get()).as_ref()) }
    }
}
