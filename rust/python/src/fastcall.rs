//! Methods as the interpreter calls them, without the wrappers of PyO3: those would cost a good part of a call that moves a
//! packet.

use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::slice;

use pyo3::exceptions::PyRuntimeError;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{Borrowed, PyTypeInfo, ffi};

/// A method that stands in the place of one that PyO3 made.
pub trait FastMethod {
    /// The class that has it.
    type Owner: PyTypeInfo;
    /// Its name.
    const NAME: &'static CStr;

    /// Where the method that PyO3 made is kept, for calls that `run` does not know.
    fn before() -> &'static PyOnceLock<Py<PyAny>>;

    /// The call, with arguments that have no names. None: those are not what it takes as a rule.
    fn run<'py>(
        owner: Borrowed<'_, 'py, Self::Owner>,
        given: Arguments<'_, 'py>,
    ) -> Option<PyResult<Bound<'py, PyAny>>>;
}

/// A `FastMethod` by its name, of a class: what it does with the object and the arguments.
macro_rules! fast_method {
    ($method:ident, $owner:ty, $name:literal, |$object:ident, $given:ident| $run:expr) => {
        struct $method;

        impl $crate::fastcall::FastMethod for $method {
            type Owner = $owner;
            const NAME: &'static std::ffi::CStr = $name;

            fn before() -> &'static pyo3::sync::PyOnceLock<Py<PyAny>> {
                static BEFORE: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
                &BEFORE
            }

            fn run<'py>(
                $object: pyo3::Borrowed<'_, 'py, $owner>,
                $given: $crate::fastcall::Arguments<'_, 'py>,
            ) -> Option<PyResult<Bound<'py, PyAny>>> {
                $run
            }
        }
    };
}
pub(crate) use fast_method;

/// The arguments of a call.
#[derive(Clone, Copy)]
pub struct Arguments<'a, 'py>(Python<'py>, &'a [*mut ffi::PyObject]);

impl<'a, 'py> Arguments<'a, 'py> {
    /// What was given behind the first `at`, which have to be there: a count, or nothing. None: something else was.
    pub fn count<T: for<'b> FromPyObject<'b, 'py>>(self, at: usize) -> Option<Option<T>> {
        match self.1.len().checked_sub(at)? {
            0 => Some(None),
            1 => self.get(at).extract().ok(),
            _ => None,
        }
    }

    /// One of them.
    pub fn get(self, at: usize) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: they are objects, which live as long as the call.
        unsafe { Borrowed::from_ptr(self.0, self.1[at]) }
    }
}

/// Put the method in its place.
pub fn install<M: FastMethod>(py: Python<'_>) -> PyResult<()> {
    let (owner, name) = (py.get_type::<M::Owner>(), M::NAME.to_string_lossy());
    let old = M::before().get_or_try_init(py, || owner.getattr(&*name).map(Bound::unbind))?.bind(py);
    let doc = format!("{name}{}\n--\n\n{}", old.getattr("__text_signature__")?, old.getattr("__doc__")?);
    // As long as the type, that is for ever.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: enter::<M> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: CString::new(doc)?.into_raw(),
    }));
    // SAFETY: the definition lives for ever, and its flags say what kind of function it has.
    let new = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(owner.as_type_ptr(), definition))? };
    owner.setattr(&*name, new)
}

unsafe extern "C" fn enter<M: FastMethod>(
    owner: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls methods under its lock, with an object of the type, `count` arguments, and after them
    // one for each of the names, which are none or a tuple. All of them live as long as the call.
    let (py, owner, given, names) = unsafe {
        let py = Python::assume_attached();
        let names = Bound::from_borrowed_ptr_or_opt(py, names).map(|names| names.cast_into_unchecked::<PyTuple>());
        let length = count as usize + names.as_ref().map_or(0, |names| names.len());
        let given: &[*mut ffi::PyObject] = if length == 0 { &[] } else { slice::from_raw_parts(arguments, length) };
        (py, Borrowed::from_ptr(py, owner).cast_unchecked::<M::Owner>(), Arguments(py, given), names)
    };
    let run = || {
        let result = if names.is_none() { M::run(owner, given) } else { None };
        result.unwrap_or_else(|| call_before::<M>(owner, given, count as usize, names.as_ref()))
    };
    // A panic must not get out of here: it would end the program.
    let failed = |_| Err(PanicException::new_err("the packet engine failed: please report this"));
    match catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(failed) {
        Ok(value) => value.into_ptr(),
        Err(error) => {
            error.restore(py);
            null_mut()
        }
    }
}

/// Call what PyO3 made of the method.
#[cold]
fn call_before<'py, M: FastMethod>(
    owner: Borrowed<'_, 'py, M::Owner>,
    given: Arguments<'_, 'py>,
    positional: usize,
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = owner.py();
    let mut all = vec![owner.to_owned().into_any()];
    all.extend((0..positional).map(|at| given.get(at).to_owned()));
    let keywords = PyDict::new(py);
    for (at, name) in names.into_iter().flatten().enumerate() {
        keywords.set_item(name, given.get(positional + at))?;
    }
    let method = M::before().get(py).ok_or_else(|| PyRuntimeError::new_err("the engine is not set up"))?;
    method.bind(py).call(PyTuple::new(py, all)?, Some(&keywords))
}
