//! The one place where engine errors become Python exceptions.

use std::io;

use ouroboros_shm::endpoint::Error;
use pyo3::exceptions::{PyOSError, PyTypeError};
use pyo3::import_exception;
use pyo3::prelude::*;
use pyo3::{Borrowed, PyTypeInfo};

import_exception!(ouroboros.errors, FlowDownException);
import_exception!(ouroboros.errors, FlowException);
import_exception!(ouroboros.errors, FlowNotAllocatedException);
import_exception!(ouroboros.errors, FlowPeerException);
import_exception!(ouroboros.errors, FlowPermissionException);
import_exception!(ouroboros.errors, FlowSizeException);
import_exception!(ouroboros.errors, FlowTimeoutException);
import_exception!(ouroboros.errors, FlowWouldBlockException);

/// Find the exceptions, to be called at the start: an interpreter that ends imports nothing any more, but may still run code
/// that gets one.
pub fn find(py: Python<'_>) {
    for find in [
        FlowDownException::type_object,
        FlowException::type_object,
        FlowNotAllocatedException::type_object,
        FlowPeerException::type_object,
        FlowPermissionException::type_object,
        FlowSizeException::type_object,
        FlowTimeoutException::type_object,
        FlowWouldBlockException::type_object,
    ] {
        find(py);
    }
}

/// The exception for an error of an endpoint. `length` is that of the packet that was to be written.
pub fn flow_error(error: Error, length: usize) -> PyErr {
    match error {
        Error::Closed | Error::Abandoned => {
            FlowNotAllocatedException::new_err("this flow is deallocated; allocate a new one")
        }
        Error::Forked => FlowException::new_err(
            "this flow belongs to the process that forked this one; allocate or accept a flow of its own here",
        ),
        Error::PeerClosed => FlowDownException::new_err("the peer deallocated the flow; allocate a new one"),
        Error::PeerDead => FlowPeerException::new_err(
            "the peer's process died, or does not answer any more, or the layer between ended; allocate a new flow",
        ),
        Error::Down => FlowDownException::new_err("the flow is set down by FlowProperties.Down, here or at the peer"),
        Error::Refused => FlowPermissionException::new_err("the peer has set the flow write-only and takes no packets"),
        Error::Corrupt => {
            FlowDownException::new_err("the peer broke the flow by writing garbage into its memory; allocate a new one")
        }
        Error::Unsealed => FlowException::new_err("the packet cannot be encrypted any more; allocate a new flow"),
        Error::TooLong(longest) => FlowSizeException::new_err(format!(
            "a packet of {length} bytes is too long: this flow carries at most {longest} bytes in one packet"
        )),
    }
}

/// What is wrong with an object that was given as a count, for which the interpreter has an `error`.
#[cold]
pub fn no_count(given: Borrowed<'_, '_, PyAny>, error: PyErr) -> PyErr {
    match given.repr() {
        Ok(shown) if error.is_instance_of::<PyTypeError>(given.py()) => {
            PyTypeError::new_err(format!("count is a whole number or None, not {shown}"))
        }
        _ => error,
    }
}

/// The exception for a call of the kernel that failed, with its number: which limit it was can be told by that only.
pub fn os_error(error: io::Error) -> PyErr {
    let Some(number) = error.raw_os_error() else { return error.into() };
    let text = error.to_string();
    PyOSError::new_err((number, text.split(" (os error").next().unwrap_or_default().to_owned()))
}

/// The exception for a call of a flow object that holds none.
#[cold]
pub fn not_allocated() -> PyErr {
    FlowNotAllocatedException::new_err("this Flow holds no flow: use alloc(), accept() or join() first")
}

/// The exception for a time limit that ran out while `doing` something.
pub fn timed_out(doing: &str) -> PyErr {
    FlowTimeoutException::new_err(format!("no {doing} within the time limit of the flow"))
}

/// The exception for a non-blocking flow that would have to wait.
pub fn would_block(lacking: &str) -> PyErr {
    FlowWouldBlockException::new_err(format!("non-blocking flow: no {lacking} now"))
}

/// The exception for an operation that the flags of the flow forbid.
pub fn forbidden(text: &'static str) -> PyErr {
    FlowPermissionException::new_err(text)
}

/// The exception for a read that would cut a packet though partial reads are off.
pub fn would_cut(length: usize, count: usize) -> PyErr {
    FlowSizeException::new_err(format!(
        "the next packet has {length} bytes, the read asks for {count}, and NoPartialRead is set; the packet is still there"
    ))
}
