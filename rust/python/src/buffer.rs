//! Python buffers as byte slices, without a copy on the Python side.

use std::mem::MaybeUninit;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// The bytes of any C-contiguous buffer, valid for the length of a call that keeps the interpreter lock.
pub enum Source<'py> {
    /// A bytes object.
    Bytes(Bound<'py, PyBytes>),
    /// Anything else with the buffer protocol.
    Buffer(PyUntypedBuffer),
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
        let buffer = PyUntypedBuffer::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err("a packet must be a contiguous buffer: copy it with bytes()"));
        }
        Ok(Source::Buffer(buffer))
    }

    /// The bytes. The slice must not be kept while Python code can run.
    pub fn as_slice(&self, _py: Python<'_>) -> &[u8] {
        match self {
            Source::Bytes(bytes) => bytes.as_bytes(),
            Source::Buffer(buffer) if buffer.len_bytes() == 0 => &[],
            // SAFETY: the export keeps the memory in place and it is contiguous (checked in `new`); nobody writes to it
            // while we hold the interpreter lock and copy.
            Source::Buffer(buffer) => unsafe {
                std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes())
            },
        }
    }
}

/// A writable buffer for `readinto`.
pub struct Target(PyUntypedBuffer);

impl Target {
    /// Borrow the buffer of `object` for writing.
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if buffer.readonly() || !buffer.is_c_contiguous() {
            return Err(PyTypeError::new_err("readinto() needs a writable, contiguous buffer such as a bytearray"));
        }
        Ok(Target(buffer))
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.0.len_bytes()
    }

    /// Its first `length` bytes. The slice must not be kept while Python code can run.
    pub fn as_mut_slice(&mut self, _py: Python<'_>, length: usize) -> &mut [MaybeUninit<u8>] {
        assert!(length <= self.length());
        if length == 0 {
            return &mut [];
        }
        // SAFETY: as in `Source::as_slice`; writable was checked in `new`.
        unsafe { std::slice::from_raw_parts_mut(self.0.buf_ptr().cast(), length) }
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
