//! Calls of Python code that may take its time. An interpreter that finishes (before Python 3.14) ends the threads of daemons
//! where they ask for its lock, by unwinding them. Unwound through frames of ours, that would end the program with a
//! complaint; so a thread stays here instead, until the process is gone.

use std::mem::forget;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

// Functions that PyO3 itself does not call: it declares its own as ones that never unwind, and for one of the same name the
// compiler would believe that.
unsafe extern "C-unwind" {
    fn PyObject_CallObject(callable: *mut ffi::PyObject, arguments: *mut ffi::PyObject) -> *mut ffi::PyObject;
    #[cfg(feature = "handmade")]
    fn PyIter_Send(
        iterator: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
        result: *mut *mut ffi::PyObject,
    ) -> ffi::PySendResult;
}

/// Keeps the thread that drops it.
struct Stay;

impl Drop for Stay {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

/// Call an object.
pub fn call<'py>(callable: &Bound<'py, PyAny>, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let stay = Stay;
    // SAFETY: both are objects, and the interpreter lock is held.
    let result = unsafe { PyObject_CallObject(callable.as_ptr(), arguments.as_ptr()) };
    forget(stay);
    // SAFETY: what it returns is a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), result) }
}

/// Call a method of an object.
pub fn call_method<'py, A>(
    object: &Bound<'py, impl Sized>,
    name: &Bound<'py, PyString>,
    arguments: A,
) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>>,
{
    call(&object.as_any().getattr(name)?, &arguments.into_pyobject(object.py()).map_err(Into::into)?)
}

/// `PyIter_Send`.
///
/// # Safety
///
/// As there.
#[cfg(feature = "handmade")]
pub unsafe fn send(
    iterator: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let stay = Stay;
    // SAFETY: the caller sees to it.
    let sent = unsafe { PyIter_Send(iterator, value, result) };
    forget(stay);
    sent
}
