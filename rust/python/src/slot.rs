//! A place for a Python object in an object that is shared.

use std::cell::UnsafeCell;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, ffi};

/// Like `Mutex<Option<Py<T>>>`, but under the interpreter lock: the packet path has no time for a second lock.
pub struct Slot<T>(UnsafeCell<Option<Py<T>>>);

// SAFETY: the content is touched by the methods below only. Each of them is called under the interpreter lock (there are no
// builds of this module for interpreters without one) and lets go of the content before anything else can run.
unsafe impl<T> Sync for Slot<T> {}

impl<T> Slot<T> {
    /// An empty slot.
    pub fn new() -> Self {
        Slot(UnsafeCell::new(None))
    }

    /// The content.
    pub fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        // SAFETY: as above; a clone runs nothing.
        unsafe { (*self.0.get()).as_ref().map(|object| object.bind(py).clone()) }
    }

    /// Take the content out.
    pub fn take<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        // SAFETY: as above; a move runs nothing.
        unsafe { (*self.0.get()).take().map(|object| object.into_bound(py)) }
    }

    /// Take the content out, and return it if nothing else has a reference to it.
    pub fn take_unshared<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        // SAFETY: it is an object, and the interpreter lock is held.
        self.take(py).filter(|object| unsafe { ffi::Py_REFCNT(object.as_ptr()) } == 1)
    }

    /// Replace the content.
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
