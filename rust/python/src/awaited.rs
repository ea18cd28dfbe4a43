//! Calls of `ouroboros.aio` that need not wait, without a coroutine: `await` asks the ring and is done.
//!
//! `await` gets a `Call`. It asks the ring when it is driven, not before, so that a call that is cancelled or dropped has
//! done nothing. If there is nothing in the ring it becomes a coroutine of the Python half.

use std::ffi::CString;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};

use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{Borrowed, IntoPyObjectExt, PyTraverseError, PyVisit, intern};

use crate::buffer::Count;
use crate::endpoint::Endpoint;
use crate::slot::Slot;
use crate::stay;

/// After this many calls without a wait, the next one lets other tasks run: a fair share at little cost.
const TURN: u32 = 256;

/// Base of `ouroboros.aio.Flow`: its calls, as far as they need not wait. The subclass has a coroutine for each call that
/// has to wait (`_read_slowly` and so on).
#[pyclass(frozen, subclass, name = "Flow", module = "ouroboros.dataplane._engine")]
pub struct AwaitedFlow {
    endpoint: Slot<Endpoint>,
    calls: AtomicU32,
    /// A finished call, to be used again.
    spare: Slot<Call>,
}

impl AwaitedFlow {
    /// Count a call. True: this one has to let others run first.
    fn turn_is_over(&self) -> bool {
        let calls = self.calls.load(Relaxed);
        self.calls.store(if calls < TURN { calls + 1 } else { 1 }, Relaxed);
        calls >= TURN
    }
}

#[pymethods]
impl AwaitedFlow {
    // A subclass may take any arguments.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        AwaitedFlow { endpoint: Slot::new(), calls: AtomicU32::new(0), spare: Slot::new() }
    }

    #[getter(_endpoint)]
    fn endpoint<'py>(&self, py: Python<'py>) -> Option<Bound<'py, Endpoint>> {
        self.endpoint.get(py)
    }

    #[setter(_endpoint)]
    fn set_endpoint(&self, py: Python<'_>, endpoint: Option<Bound<'_, Endpoint>>) {
        self.endpoint.put(py, endpoint);
    }

    /// Return the next packet, or up to `count` bytes of it. As `ouroboros.dev.Flow.read`, without a time limit.
    #[pyo3(signature = (count=None))]
    fn read<'py>(slf: &Bound<'py, Self>, count: Option<Count>) -> PyResult<Bound<'py, Call>> {
        Call::prepare(slf.as_borrowed(), Verb::Read, count, None)
    }

    /// Return the next packet as text, or up to `count` characters of it. As `ouroboros.dev.Flow.readline`.
    #[pyo3(signature = (count=None))]
    fn readline<'py>(slf: &Bound<'py, Self>, count: Option<Count>) -> PyResult<Bound<'py, Call>> {
        Call::prepare(slf.as_borrowed(), Verb::ReadLine, count, None)
    }

    /// Write the buffer, or its first `count` bytes, as one packet, once there is room for it; return the number of bytes.
    /// As `ouroboros.dev.Flow.write`, without a time limit.
    #[pyo3(signature = (buf, count=None))]
    fn write<'py>(slf: &Bound<'py, Self>, buf: Bound<'py, PyAny>, count: Option<Count>) -> PyResult<Bound<'py, Call>> {
        Call::prepare(slf.as_borrowed(), Verb::Write, count, Some(buf))
    }

    /// The packets of the flow, until the peer deallocates it. Whatever else ends it is an error, not an end.
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Call>> {
        Call::prepare(slf.as_borrowed(), Verb::Next, None, None)
    }
}

/// Kinds of calls.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    Read,
    ReadLine,
    Write,
    Next,
}

impl Verb {
    const ALL: [Verb; 4] = [Verb::Read, Verb::ReadLine, Verb::Write, Verb::Next];

    fn name(self) -> &'static str {
        match self {
            Verb::Read => "read",
            Verb::ReadLine => "readline",
            Verb::Write => "write",
            Verb::Next => "__anext__",
        }
    }
}

/// Nobody has driven it yet.
const FRESH: u8 = 0;
/// It became a coroutine.
const SLOW: u8 = 1;
/// It is through.
const DONE: u8 = 2;

/// No count was given.
const ALL: usize = usize::MAX;

/// A call that can be awaited: a coroutine, but for the frame.
#[pyclass(frozen, subclass, module = "ouroboros.dataplane._engine")]
pub struct Call {
    state: AtomicU8,
    verb: AtomicU8,
    count: AtomicUsize,
    /// None when it is through.
    flow: Slot<AwaitedFlow>,
    buffer: Slot<PyAny>,
    coroutine: Slot<PyAny>,
}

/// Makes a finished call, for `prepare`.
pub type NewCall = for<'py> fn(Python<'py>) -> PyResult<Bound<'py, Call>>;

/// Set when the engine is loaded; without it PyO3 makes the calls.
pub static NEW_CALL: OnceLock<NewCall> = OnceLock::new();

/// A step of a call.
pub enum Step<'py> {
    /// It is through, with this result.
    Done(Bound<'py, PyAny>),
    /// It takes a coroutine.
    Wait(Bound<'py, PyAny>),
}

impl Call {
    #[inline]
    pub fn prepare<'py>(
        flow: Borrowed<'_, 'py, AwaitedFlow>,
        verb: Verb,
        count: Option<Count>,
        buffer: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = flow.py();
        // A call with other references must not come to life again.
        let spare = flow.get().spare.take_unshared(py);
        let bound = spare.map_or_else(|| new_call(py), Ok)?;
        let call = bound.get();
        call.verb.store(verb as u8, Relaxed);
        call.count.store(count.map_or(ALL, |count| count.0), Relaxed);
        call.flow.put(py, Some(flow.to_owned()));
        if buffer.is_some() {
            call.buffer.put(py, buffer);
        }
        call.state.store(FRESH, Relaxed);
        Ok(bound)
    }

    fn verb(&self) -> Verb {
        Verb::ALL[usize::from(self.verb.load(Relaxed))]
    }

    fn count(&self) -> Option<Count> {
        let count = self.count.load(Relaxed);
        (count != ALL).then_some(Count(count))
    }

    /// The count for the Python half.
    fn plain_count(&self) -> Option<usize> {
        self.count().map(|count| count.0)
    }

    fn is_fresh(&self) -> bool {
        self.state.load(Relaxed) == FRESH
    }

    /// Finish the call if it need not wait, else make its coroutine.
    #[inline]
    pub fn step<'py>(slf: Borrowed<'_, 'py, Self>) -> PyResult<Step<'py>> {
        let (py, call) = (slf.py(), slf.get());
        if !call.is_fresh() {
            return call.coroutine.get(py).map(Step::Wait).ok_or_else(used_up);
        }
        let flow = call.flow.take(py).ok_or_else(used_up)?;
        let buffer = call.buffer.take(py);
        call.state.store(DONE, Relaxed);
        let turn_is_over = flow.get().turn_is_over();
        let endpoint = if turn_is_over { None } else { flow.get().endpoint.get(py) };
        if let Some(endpoint) = endpoint
            && let Some(result) = call.try_now(py, endpoint.get(), buffer.as_ref())?
        {
            flow.get().spare.put(py, Some(slf.to_owned()));
            return Ok(Step::Done(result));
        }
        call.begin(flow, buffer, turn_is_over).map(Step::Wait)
    }

    /// The result of the call, unless it has to wait.
    fn try_now<'py>(
        &self,
        py: Python<'py>,
        endpoint: &Endpoint,
        buffer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(match (self.verb(), buffer) {
            (Verb::Write, Some(buffer)) => {
                let written = endpoint.write_soon(py, buffer, self.count())?;
                written.map(|count| count.into_bound_py_any(py)).transpose()?
            }
            (Verb::ReadLine, _) => endpoint.read_text_soon(py, self.count())?.map(Bound::into_any),
            // The end of a flow takes no packet: the coroutine finds it again, and knows its meaning.
            (Verb::Next, _) => endpoint.read_soon(py, None).unwrap_or(None).map(Bound::into_any),
            _ => endpoint.read_soon(py, self.count())?.map(Bound::into_any),
        })
    }

    /// Become a coroutine.
    fn begin<'py>(
        &self,
        flow: Bound<'py, AwaitedFlow>,
        buffer: Option<Bound<'py, PyAny>>,
        turn_is_over: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = flow.py();
        let coroutine = match self.verb() {
            Verb::Read => stay::call_method(&flow, intern!(py, "_read_slowly"), (turn_is_over, self.plain_count())),
            Verb::ReadLine => {
                stay::call_method(&flow, intern!(py, "_readline_slowly"), (turn_is_over, self.plain_count()))
            }
            Verb::Write => {
                stay::call_method(&flow, intern!(py, "_write_slowly"), (turn_is_over, buffer, self.plain_count()))
            }
            Verb::Next => stay::call_method(&flow, intern!(py, "_next_slowly"), (turn_is_over,)),
        }?;
        self.coroutine.put(py, Some(coroutine.clone()));
        self.state.store(SLOW, Relaxed);
        Ok(coroutine)
    }

    /// The coroutine that this is or becomes; none when the call is through.
    fn coroutine<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.flow.take(py) {
            Some(flow) if self.is_fresh() => {
                self.state.store(DONE, Relaxed);
                let turn_is_over = flow.get().turn_is_over();
                self.begin(flow, self.buffer.take(py), turn_is_over).map(Some)
            }
            _ => Ok(self.coroutine.get(py)),
        }
    }
}

fn new_call(py: Python<'_>) -> PyResult<Bound<'_, Call>> {
    NEW_CALL.get().map_or_else(|| Bound::new(py, Call::new()), |new_call| new_call(py))
}

fn used_up() -> PyErr {
    PyRuntimeError::new_err("cannot reuse already awaited coroutine")
}

#[pymethods]
impl Call {
    #[new]
    fn new() -> Self {
        Call {
            state: AtomicU8::new(DONE),
            verb: AtomicU8::new(Verb::Read as u8),
            count: AtomicUsize::new(ALL),
            flow: Slot::new(),
            buffer: Slot::new(),
            coroutine: Slot::new(),
        }
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        match Self::step(slf.as_borrowed())? {
            Step::Done(result) => Err(PyStopIteration::new_err(result.unbind())),
            Step::Wait(coroutine) => stay::call_method(&coroutine, intern!(slf.py(), "send"), (slf.py().None(),)),
        }
    }

    #[pyo3(signature = (value, /))]
    fn send<'py>(slf: &Bound<'py, Self>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if value.is_none() {
            return Self::__next__(slf);
        }
        if slf.get().is_fresh() {
            return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine"));
        }
        let coroutine = slf.get().coroutine.get(slf.py()).ok_or_else(used_up)?;
        stay::call_method(&coroutine, intern!(slf.py(), "send"), (value,))
    }

    #[pyo3(signature = (*exception))]
    fn throw<'py>(&self, py: Python<'py>, exception: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = self.coroutine(py)?.ok_or_else(used_up)?;
        stay::call(&coroutine.getattr(intern!(py, "throw"))?, exception)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_fresh() {
            self.state.store(DONE, Relaxed);
            self.flow.put(py, None);
            self.buffer.put(py, None);
        }
        if let Some(coroutine) = self.coroutine.get(py) {
            stay::call_method(&coroutine, intern!(py, "close"), ())?;
        }
        Ok(())
    }

    /// Attributes of coroutines that event loops read: `cr_frame`, `cr_running` and so on, and its name.
    fn __getattr__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        match name.to_str()? {
            "__name__" => self.verb().name().into_bound_py_any(py),
            "__qualname__" => format!("Flow.{}", self.verb().name()).into_bound_py_any(py),
            attribute if attribute.starts_with("cr_") => match self.coroutine(py)? {
                Some(coroutine) => coroutine.getattr(name),
                None if matches!(attribute, "cr_running" | "cr_suspended") => false.into_bound_py_any(py),
                None => Ok(py.None().into_bound(py)),
            },
            attribute => Err(PyAttributeError::new_err(format!("a call of a flow has no attribute '{attribute}'"))),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.flow.visit(&visit)?;
        self.buffer.visit(&visit)?;
        self.coroutine.visit(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.coroutine.put(py, None);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.is_fresh() {
            // An interpreter that ends takes no warning any more.
            Python::try_attach(|py| warn_never_awaited(py, self.verb()));
        }
    }
}

fn warn_never_awaited(py: Python<'_>, verb: Verb) {
    let text = CString::new(format!("coroutine 'Flow.{}' was never awaited", verb.name())).unwrap_or_default();
    if let Err(error) = PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1) {
        error.write_unraisable(py, None);
    }
}
