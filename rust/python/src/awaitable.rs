//! The entries of the interpreter into a `Call`, without the wrappers of PyO3: those would cost more than all the rest of an
//! awaited call (ARCHITECTURE.md has the numbers). Everything else is in `awaited`.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::null_mut;

use pyo3::ffi::PySendResult::{PYGEN_ERROR, PYGEN_NEXT, PYGEN_RETURN};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};
use pyo3::{Borrowed, ffi};

use crate::awaited::{AwaitedFlow, Call, NEW_CALL, Step, Verb};
use crate::fastcall::{self, fast_method};
use crate::stay;

/// Make calls of the type below, and put `read` and `write` in the place of the methods of that name.
pub fn install(py: Python<'_>) -> PyResult<()> {
    NEW_CALL.get_or_init(|| new_call);
    fastcall::install::<Read>(py)?;
    fastcall::install::<Write>(py)
}

// --- a subtype of `Call` with slots of its own for `await`

fn new_call(py: Python<'_>) -> PyResult<Bound<'_, Call>> {
    let made = call_type(py)?.call0()?;
    // SAFETY: the type is a subtype of `Call`.
    Ok(unsafe { made.cast_into_unchecked() })
}

fn call_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    TYPE.get_or_try_init(py, || make_type(py)).map(|made| made.bind(py))
}

fn make_type(py: Python<'_>) -> PyResult<Py<PyType>> {
    let slot = |slot: c_int, function: *mut c_void| ffi::PyType_Slot { slot, pfunc: function };
    let mut slots = [
        slot(ffi::Py_am_await, itself as *mut c_void),
        slot(ffi::Py_am_send, send as *mut c_void),
        slot(ffi::Py_tp_iternext, next as *mut c_void),
        slot(0, null_mut()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"ouroboros.dataplane._engine.AwaitedCall".as_ptr(),
        // 0 takes the size of the base.
        basicsize: 0,
        itemsize: 0,
        flags: ffi::Py_TPFLAGS_DEFAULT as c_uint,
        slots: slots.as_mut_ptr(),
    };
    let bases = PyTuple::new(py, [py.get_type::<Call>()])?;
    // SAFETY: name, slots and bases outlive the call, which copies what it needs; the functions have the types that their
    // slots want.
    unsafe {
        let made = ffi::PyType_FromSpecWithBases(&raw mut spec, bases.as_ptr());
        Ok(Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked::<PyType>().unbind())
    }
}

/// `am_await`.
unsafe extern "C" fn itself(call: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls slots with objects of the type.
    unsafe { ffi::Py_NewRef(call) }
}

/// `am_send`: what `await` calls on Python 3.11, and the tasks of asyncio on any. A result needs no exception around it.
unsafe extern "C" fn send(
    call: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: the interpreter calls slots under its lock, with an object of the type, a value, and a place for the result.
    unsafe {
        let py = Python::assume_attached();
        match Call::step(Borrowed::from_ptr(py, call).cast_unchecked()) {
            Ok(Step::Done(done)) => {
                *result = done.into_ptr();
                PYGEN_RETURN
            }
            Ok(Step::Wait(coroutine)) => stay::send(coroutine.as_ptr(), value, result),
            Err(error) => {
                error.restore(py);
                *result = null_mut();
                PYGEN_ERROR
            }
        }
    }
}

/// `tp_iternext`: what `await` calls on later versions.
unsafe extern "C" fn next(call: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let mut result = null_mut();
    // SAFETY: as in `send`; what it gives is ours. The results of calls are bytes, str and int: none that StopIteration would
    // take for its arguments or for an exception.
    unsafe {
        match send(call, ffi::Py_None(), &raw mut result) {
            PYGEN_NEXT => result,
            PYGEN_RETURN => {
                ffi::PyErr_SetObject(ffi::PyExc_StopIteration, result);
                ffi::Py_DECREF(result);
                null_mut()
            }
            PYGEN_ERROR => null_mut(),
        }
    }
}

// --- `read` and `write` of `AwaitedFlow`

fast_method!(Read, AwaitedFlow, c"read", |flow, given| {
    Some(Call::prepare(flow, Verb::Read, given.count(0)?, None).map(Bound::into_any))
});
fast_method!(Write, AwaitedFlow, c"write", |flow, given| {
    let count = given.count(1)?;
    Some(Call::prepare(flow, Verb::Write, count, Some(given.get(0).to_owned())).map(Bound::into_any))
});
