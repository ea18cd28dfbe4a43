//! Python buffers as byte slices, without a copy on the Python side.

use std::mem::MaybeUninit;

use pyo3::Borrowed;
use pyo3::exceptions::{PyBufferError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::errors::no_count;

/// The memory of an object with the buffer protocol, as plain bytes: it is contiguous, whatever its format and shape.
pub struct Export(Box<ffi::Py_buffer>);

impl Export {
    /// Ask for it. `flags`: `PyBUF_SIMPLE`, or `PyBUF_WRITABLE`.
    fn new(object: &Bound<'_, PyAny>, flags: i32) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: the structure is empty, and is released when this is dropped.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } == 0 {
            return Ok(Export(view));
        }
        Err(PyErr::fetch(object.py()))
    }

    fn length(&self) -> usize {
        usize::try_from(self.0.len).unwrap_or(0)
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        // SAFETY: it was filled by the interpreter, whose lock is held: no export is given to another thread. Nothing asks
        // for the lock here, which an interpreter that ends refuses while it still writes what files have buffered.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.0) };
    }
}

/// The bytes of any C-contiguous buffer, valid for the length of a call that keeps the interpreter lock.
pub enum Source<'py> {
    /// A bytes object.
    Bytes(Bound<'py, PyBytes>),
    /// Anything else with the buffer protocol.
    Buffer(Export),
}

impl<'py> Source<'py> {
    /// Borrow the buffer of `object`.
    pub fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Source::Bytes(bytes.clone()));
        }
        if object.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("a packet is bytes, not str: use writeline() for text, or encode it"));
        }
        Export::new(object, ffi::PyBUF_SIMPLE).map(Source::Buffer).map_err(|error| {
            scattered(object.py(), error, "a packet must be a contiguous buffer: copy it with bytes()")
        })
    }

    /// The bytes. The slice must not be kept while Python code can run.
    pub fn as_slice(&self, _py: Python<'_>) -> &[u8] {
        match self {
            Source::Bytes(bytes) => bytes.as_bytes(),
            Source::Buffer(export) if export.length() == 0 => &[],
            // SAFETY: the export keeps the memory in place, and it is contiguous, as all that is given for `PyBUF_SIMPLE`;
            // nobody writes to it while we hold the interpreter lock and copy.
            Source::Buffer(export) => unsafe { std::slice::from_raw_parts(export.0.buf.cast(), export.length()) },
        }
    }
}

/// What an object says that has a buffer but not of that kind, in our words. Numpy says it by a ValueError.
fn scattered(py: Python<'_>, error: PyErr, text: &'static str) -> PyErr {
    if !error.is_instance_of::<PyBufferError>(py) && !error.is_instance_of::<PyValueError>(py) {
        return error;
    }
    let ours = PyBufferError::new_err(text);
    ours.set_cause(py, Some(error));
    ours
}

/// A writable buffer for `readinto`.
pub struct Target(Export);

impl Target {
    /// Borrow the buffer of `object` for writing.
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let needs = "readinto() needs a writable, contiguous buffer such as a bytearray";
        match Export::new(object, ffi::PyBUF_WRITABLE) {
            Ok(export) => Ok(Target(export)),
            // That is what the interpreter itself raises, of whatever is read into.
            Err(_) => Err(PyTypeError::new_err(format!("{needs}, not {}", object.get_type().name()?))),
        }
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.0.length()
    }

    /// Its first `length` bytes. The slice must not be kept while Python code can run.
    pub fn as_mut_slice(&mut self, _py: Python<'_>, length: usize) -> &mut [MaybeUninit<u8>] {
        assert!(length <= self.length());
        if length == 0 {
            return &mut [];
        }
        // SAFETY: as in `Source::as_slice`; the buffer was asked for as a writable one.
        unsafe { std::slice::from_raw_parts_mut(self.0.0.buf.cast(), length) }
    }
}

/// How many bytes, characters or packets a call is given at most: any whole number from 0. More than there can be is all.
#[derive(Clone, Copy)]
pub struct Count(pub usize);

impl<'a, 'py> FromPyObject<'a, 'py> for Count {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let count = match object.extract::<isize>() {
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => {
                if object.lt(0)? {
                    -1
                } else {
                    isize::MAX
                }
            }
            Err(error) => return Err(no_count(object, error)),
            Ok(count) => count,
        };
        usize::try_from(count).map(Count).map_err(|_| PyValueError::new_err("count must not be negative"))
    }
}

/// A new bytes object of `length` bytes, all of which `fill` writes. (`PyBytes::new_with` clears it first.)
pub fn new_bytes<'py>(
    py: Python<'py>,
    length: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]),
) -> PyResult<Bound<'py, PyBytes>> {
    let size = isize::try_from(length)?;
    // SAFETY: a null source makes an uninitialised object of that size, which nobody else can see yet; `fill` writes all.
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), size);
        let bytes = Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>();
        let start = ffi::PyBytes_AsString(bytes.as_ptr());
        fill(std::slice::from_raw_parts_mut(start.cast(), length));
        Ok(bytes)
    }
}
