//! The ways by which the interpreter comes to a `Call`, without the wrappers of PyO3: they would cost as much as all the
//! rest of an awaited call. Everything else is in `awaited`.

use std::ffi::{CStr, CString, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::slice;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::PySendResult::{PYGEN_ERROR, PYGEN_NEXT, PYGEN_RETURN};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{Borrowed, ffi};

use crate::awaited::{AwaitedFlow, Call, Step, Verb};

// --- a subtype of `Call` with slots of its own for `await`

/// A call that is through, to be prepared for what it is to do.
pub fn new_call(py: Python<'_>) -> PyResult<Bound<'_, Call>> {
    let made = call_type(py)?.call0()?;
    // SAFETY: the type is a subtype of `Call`.
    Ok(unsafe { made.cast_into_unchecked() })
}

/// Whether nobody else has a reference to it.
pub fn is_only_ours(call: &Bound<'_, Call>) -> bool {
    // SAFETY: it is an object, and the interpreter lock is held.
    unsafe { ffi::Py_REFCNT(call.as_ptr()) == 1 }
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
        // That of the base.
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
            Ok(Step::Wait(coroutine)) => ffi::PyIter_Send(coroutine.as_ptr(), value, result),
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

/// What PyO3 made of the methods, for calls with names.
static READ: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static WRITE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Put `read` and `write` in the place of the methods of that name.
pub fn replace_methods(py: Python<'_>) -> PyResult<()> {
    replace(py, c"read", "read", &READ, method::<false>)?;
    replace(py, c"write", "write", &WRITE, method::<true>)
}

fn replace(
    py: Python<'_>,
    c_name: &'static CStr,
    name: &str,
    before: &PyOnceLock<Py<PyAny>>,
    function: ffi::PyCFunctionFastWithKeywords,
) -> PyResult<()> {
    let flow = py.get_type::<AwaitedFlow>();
    let old = before.get_or_try_init(py, || flow.getattr(name).map(Bound::unbind))?.bind(py);
    let doc = format!("{name}{}\n--\n\n{}", old.getattr("__text_signature__")?, old.getattr("__doc__")?);
    // As long as the type, that is for ever.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: c_name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: CString::new(doc)?.into_raw(),
    }));
    // SAFETY: the definition lives for ever, and its flags say what kind of function it has.
    let new = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(flow.as_type_ptr(), definition))? };
    flow.setattr(name, new)
}

unsafe extern "C" fn method<const IS_WRITE: bool>(
    flow: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls methods under its lock, with an object of the type, `count` arguments, and after them
    // one for each of the names, which are none or a tuple.
    let (py, flow, given, names) = unsafe {
        let py = Python::assume_attached();
        let names = Bound::from_borrowed_ptr_or_opt(py, names).map(|names| names.cast_into_unchecked::<PyTuple>());
        let given = count as usize + names.as_ref().map_or(0, |names| names.len());
        let arguments: &[*mut ffi::PyObject] = if given == 0 { &[] } else { slice::from_raw_parts(arguments, given) };
        (py, Borrowed::from_ptr(py, flow).cast_unchecked::<AwaitedFlow>(), arguments, names)
    };
    // SAFETY: as above; they live as long as this call.
    let argument = |at: usize| unsafe { Borrowed::<PyAny>::from_ptr(py, given[at]) };
    let made = match (IS_WRITE, given.len(), &names) {
        (false, 0, None) => Call::prepare(flow, Verb::Read, None, None),
        (false, 1, None) => argument(0).extract().and_then(|count| Call::prepare(flow, Verb::Read, count, None)),
        (true, 1, None) => Call::prepare(flow, Verb::Write, None, Some(argument(0).to_owned())),
        (true, 2, None) => argument(1)
            .extract()
            .and_then(|count| Call::prepare(flow, Verb::Write, count, Some(argument(0).to_owned()))),
        _ => {
            let given: Vec<_> = (0..given.len()).map(argument).collect();
            call_with_names(if IS_WRITE { &WRITE } else { &READ }, flow, &given, count as usize, names)
        }
    };
    match made {
        Ok(call) => call.into_ptr(),
        Err(error) => {
            error.restore(py);
            null_mut()
        }
    }
}

fn call_with_names<'py>(
    method: &PyOnceLock<Py<PyAny>>,
    flow: Borrowed<'_, 'py, AwaitedFlow>,
    given: &[Borrowed<'_, 'py, PyAny>],
    count: usize,
    names: Option<Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, Call>> {
    let py = flow.py();
    let (positional, named) = given.split_at(count);
    let mut all = vec![flow.to_owned().into_any()];
    all.extend(positional.iter().map(|each| (*each).to_owned()));
    let keywords = PyDict::new(py);
    for (name, value) in names.iter().flatten().zip(named) {
        keywords.set_item(name, value)?;
    }
    let method = method.get(py).ok_or_else(|| PyRuntimeError::new_err("the engine is not set up"))?;
    Ok(method.bind(py).call(PyTuple::new(py, all)?, Some(&keywords))?.cast_into()?)
}
