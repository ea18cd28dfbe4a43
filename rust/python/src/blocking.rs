//! What `ouroboros.dev.Flow` is made of: the calls that move one packet, as methods of its type. So a call holds its flow,
//! as does a method that was taken off it, and there is no Python method in between, which would double the cost.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit, intern};

use crate::buffer::Count;
use crate::endpoint::Endpoint;
use crate::errors::not_allocated;
use crate::fastcall::{fast_method, install};
use crate::slot::Slot;
use crate::stay;

/// What `ouroboros.dev.Flow` is made of: its calls that move one packet.
#[pyclass(frozen, subclass, name = "Flow", module = "ouroboros.dataplane._engine")]
pub struct BlockingFlow {
    /// An `Endpoint`, or the end of another stack, which has the same methods.
    end: Slot<PyAny>,
}

/// A count for an end that is not the engine's.
fn plain(count: Option<Count>) -> Option<usize> {
    count.map(|count| count.0)
}

#[pymethods]
impl BlockingFlow {
    // A subclass may take any arguments.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        BlockingFlow { end: Slot::new() }
    }

    #[getter(_endpoint)]
    fn end<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.end.get(py)
    }

    #[setter(_endpoint)]
    fn set_end(&self, py: Python<'_>, end: Option<Bound<'_, PyAny>>) {
        self.end.put(py, end);
    }

    /// The end of the flow that is held.
    fn _held<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.end.get(py).ok_or_else(not_allocated)
    }

    /// Return the next packet, or up to `count` bytes of it; the rest stays for the next read.
    ///
    /// A read of exactly the packet's length is followed by one that returns `b""`, which marks the packet's end; reads
    /// without a count, and flows with `NoPartialRead`, have no such mark. Waits up to the receive timeout.
    ///
    /// Raises `FlowTimeoutException`, `FlowWouldBlockException` (non-blocking and nothing there), `FlowDownException`
    /// (nothing queued, and the peer deallocated; `FlowPeerException`: it died), `FlowSizeException` (`NoPartialRead`, and
    /// the packet is longer than `count`; it stays), `FlowPermissionException` (write-only), `FlowNotAllocatedException`.
    #[pyo3(signature = (count=None))]
    fn read<'py>(&self, py: Python<'py>, count: Option<Count>) -> PyResult<Bound<'py, PyAny>> {
        let end = self._held(py)?;
        match end.cast::<Endpoint>() {
            Ok(end) => end.get().read(py, count).map(Bound::into_any),
            Err(_) => stay::call_method(&end, intern!(py, "read"), (plain(count),)),
        }
    }

    /// Return the next packet as text (UTF-8), or up to `count` characters of it. Otherwise like `read`.
    ///
    /// A packet is a line: newlines are neither looked for nor removed. Raises `UnicodeDecodeError` when the packet is no
    /// UTF-8; it can still be had with `read`.
    #[pyo3(signature = (count=None))]
    fn readline<'py>(&self, py: Python<'py>, count: Option<Count>) -> PyResult<Bound<'py, PyAny>> {
        let end = self._held(py)?;
        match end.cast::<Endpoint>() {
            Ok(end) => end.get().read_text(py, count).map(Bound::into_any),
            Err(_) => stay::call_method(&end, intern!(py, "read_text"), (plain(count),)),
        }
    }

    /// Read up to `len(buffer)` bytes of the next packet into a writable buffer and return how many. Like `read`.
    fn readinto<'py>(&self, buffer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = buffer.py();
        let end = self._held(py)?;
        match end.cast::<Endpoint>() {
            Ok(end) => end.get().read_into(py, buffer)?.into_bound_py_any(py),
            Err(_) => stay::call_method(&end, intern!(py, "read_into"), (buffer,)),
        }
    }

    /// Write the buffer, or its first `count` bytes, as one packet; return the number of bytes.
    ///
    /// Any contiguous buffer will do; it is free for reuse when the call returns. A full queue makes the call wait, up to
    /// the send timeout. Nothing is ever sent in part or dropped. An empty buffer sends nothing.
    ///
    /// Raises `FlowTimeoutException`, `FlowWouldBlockException` (non-blocking and no room), `FlowDownException`,
    /// `FlowSizeException` (more than `max_packet` bytes), `FlowPermissionException` (read-only, or the peer is
    /// write-only), `FlowNotAllocatedException`.
    #[pyo3(signature = (buf, count=None))]
    fn write<'py>(&self, buf: &Bound<'py, PyAny>, count: Option<Count>) -> PyResult<Bound<'py, PyAny>> {
        let py = buf.py();
        let end = self._held(py)?;
        match end.cast::<Endpoint>() {
            Ok(end) => end.get().write(py, buf, count)?.into_bound_py_any(py),
            Err(_) => stay::call_method(&end, intern!(py, "write"), (buf, plain(count))),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.end.visit(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.end.put(py, None);
    }
}

/// Put the methods that are called most in the place of those above.
pub fn replace_methods(py: Python<'_>) -> PyResult<()> {
    install::<Read>(py)?;
    install::<ReadLine>(py)?;
    install::<Write>(py)
}

fast_method!(Read, BlockingFlow, c"read", |flow, given| Some(flow.get().read(flow.py(), given.count(0)?)));
fast_method!(ReadLine, BlockingFlow, c"readline", |flow, given| Some(flow.get().readline(flow.py(), given.count(0)?)));
fast_method!(Write, BlockingFlow, c"write", |flow, given| {
    let count = given.count(1)?;
    Some(flow.get().write(&given.get(0), count))
});
