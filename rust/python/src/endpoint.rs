//! One side of a flow as a Python object.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ouroboros_shm::endpoint::{self as shm, Error, Reader, Wait, Wish};
use ouroboros_shm::layout::{MAX_PACKET, state};
use pyo3::exceptions::{PyUnicodeDecodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::buffer::{Source, Target, new_bytes};
use crate::errors::{FlowException, flow_error, forbidden, timed_out, would_block, would_cut};
use crate::guard::new_guard;

const ACCESS: u32 = 0o3;
const READ_ONLY: u32 = 0o0;
const WRITE_ONLY: u32 = 0o1;
const DOWN: u32 = 0o4;
const NON_BLOCKING_READ: u32 = 0o1000;
const NON_BLOCKING_WRITE: u32 = 0o2000;
const NO_PARTIAL_READ: u32 = 0o10000;
/// ReadWrite and NoPartialWrite, the start of every flow (`flows.md` 6.2).
const DEFAULT_FLAGS: u32 = 0o20002;

/// One side of a flow. `docs/api.md` documents `ouroboros.dev.Flow`, its public face.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct Endpoint {
    inner: shm::Endpoint,
    flags: AtomicU32,
    receive_timeout: AtomicI64,
    send_timeout: AtomicI64,
}

/// The time limit of one call. A clock is read only when the call has to wait.
struct Limit {
    nanoseconds: i64,
    blocking: bool,
    deadline: Option<Instant>,
}

impl Limit {
    fn new(timeout: &AtomicI64, blocking: bool) -> Self {
        Limit { nanoseconds: timeout.load(Ordering::Relaxed), blocking, deadline: None }
    }

    fn deadline(&mut self) -> Option<Instant> {
        if self.deadline.is_none() && self.nanoseconds >= 0 {
            self.deadline = Some(Instant::now() + Duration::from_nanos(self.nanoseconds.unsigned_abs()));
        }
        self.deadline
    }
}

impl Endpoint {
    fn flag(&self, mask: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & mask != 0
    }

    fn access(&self) -> u32 {
        self.flags.load(Ordering::Relaxed) & ACCESS
    }

    fn check_readable(&self) -> PyResult<Limit> {
        if self.access() == WRITE_ONLY {
            return Err(forbidden("the flow is set write-only; set_flags() with FlowProperties.ReadWrite to read"));
        }
        Ok(Limit::new(&self.receive_timeout, !self.flag(NON_BLOCKING_READ)))
    }

    fn check_writable(&self) -> PyResult<Limit> {
        if self.access() == READ_ONLY {
            return Err(forbidden("the flow is set read-only; set_flags() with FlowProperties.ReadWrite to write"));
        }
        Ok(Limit::new(&self.send_timeout, !self.flag(NON_BLOCKING_WRITE)))
    }

    /// Wait for the wish, without the interpreter lock; raise when the limit is over.
    fn wait(&self, py: Python<'_>, wish: Wish, limit: &mut Limit) -> PyResult<()> {
        let what = if wish == Wish::Packet { "packet to read" } else { "room to write" };
        if !limit.blocking {
            return Err(would_block(what));
        }
        if self.inner.glance(wish) {
            return Ok(());
        }
        let deadline = limit.deadline();
        match py.detach(|| self.inner.wait(wish, deadline)) {
            Wait::Ready => py.check_signals(),
            Wait::Interrupted => py.check_signals(),
            Wait::TimedOut => Err(timed_out(what)),
        }
    }

    /// `use_it` with the right to read and the number of bytes that are there; None when there is nothing to read.
    fn receive_now<T>(&self, use_it: &mut impl FnMut(&mut Reader<'_>, usize) -> PyResult<T>) -> PyResult<Option<T>> {
        let mut reader = self.inner.reader().map_err(|error| flow_error(error, 0))?;
        let available = reader.available().map_err(|error| flow_error(error, 0))?;
        available.map(|length| use_it(&mut reader, length)).transpose()
    }

    /// As `receive_now`, after waiting for a packet.
    fn receive<T>(&self, py: Python<'_>, mut use_it: impl FnMut(&mut Reader<'_>, usize) -> PyResult<T>) -> PyResult<T> {
        let mut limit = self.check_readable()?;
        loop {
            if let Some(result) = self.receive_now(&mut use_it)? {
                return Ok(result);
            }
            self.wait(py, Wish::Packet, &mut limit)?;
        }
    }

    /// As `receive_now`, after looking for a packet for as long as that pays.
    fn receive_soon<T>(&self, mut use_it: impl FnMut(&mut Reader<'_>, usize) -> PyResult<T>) -> PyResult<Option<T>> {
        self.check_readable()?;
        match self.receive_now(&mut use_it)? {
            None if self.inner.look(Wish::Packet) => self.receive_now(&mut use_it),
            result => Ok(result),
        }
    }

    /// Read bytes; the packet, or its first `count` bytes.
    fn take_bytes<'py>(
        &self,
        py: Python<'py>,
        reader: &mut Reader<'_>,
        length: usize,
        count: Option<usize>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let taken = count.map_or(Ok(length), |count| self.portion(length, count))?;
        let bytes = new_bytes(py, taken, |target| reader.take(length, target))?;
        if let Some(count) = count {
            self.mark_end(reader, length, count);
        }
        Ok(bytes)
    }

    /// Read text. A packet that is not UTF-8 stays.
    fn take_text<'py>(
        &self,
        py: Python<'py>,
        reader: &mut Reader<'_>,
        length: usize,
        count: Option<usize>,
    ) -> PyResult<Line<'py>> {
        let text = match std::str::from_utf8(reader.look(length)) {
            Ok(text) => text,
            // The exception is made after the lock is released: making one may run the garbage collector.
            Err(error) => return Ok(Err((reader.look(length).to_vec(), error))),
        };
        let taken = count.map_or(text.len(), |count| end_of_characters(text, count));
        let exactly = taken == length && count.is_some_and(|count| text.chars().count() == count);
        self.portion(length, taken)?;
        let line = PyString::new(py, &text[..taken]);
        reader.take(length, &mut vec![MaybeUninit::uninit(); taken]);
        if exactly {
            self.mark_end(reader, length, taken);
        }
        Ok(Ok(line))
    }

    /// Write a packet if there is room for it.
    fn send_packet(&self, py: Python<'_>, source: &Source<'_>, count: usize) -> PyResult<Option<usize>> {
        // Anew for each try: other threads may have changed the buffer while we waited.
        let bytes = source.as_slice(py);
        let packet = &bytes[..count.min(bytes.len())];
        let failed = |error| flow_error(error, packet.len());
        let mut writer = self.inner.writer().map_err(failed)?;
        let written = packet.is_empty() || writer.stage(packet).map_err(failed)?;
        Ok(written.then_some(packet.len()))
    }

    /// How many bytes a read of `count` takes of a packet of `length`.
    fn portion(&self, length: usize, count: usize) -> PyResult<usize> {
        if count < length && self.flag(NO_PARTIAL_READ) {
            return Err(would_cut(length, count));
        }
        Ok(length.min(count))
    }

    /// A read of exactly the packet's length is followed by an empty one, which tells that nothing is left of it.
    fn mark_end(&self, reader: &mut Reader<'_>, length: usize, count: usize) {
        if length == count && length > 0 && !self.flag(NO_PARTIAL_READ) {
            reader.mark_end();
        }
    }

    /// Write the packets until one does not fit; returns how many were written, and what ended it unless it was the room.
    fn send_now(&self, py: Python<'_>, packets: &[Source<'_>]) -> (usize, Option<Error>) {
        let mut writer = match self.inner.writer() {
            Ok(writer) => writer,
            Err(error) => return (0, Some(error)),
        };
        for (index, packet) in packets.iter().enumerate() {
            let bytes = packet.as_slice(py);
            match if bytes.is_empty() { Ok(true) } else { writer.stage(bytes) } {
                Ok(true) => {}
                Ok(false) => return (index, None),
                Err(error) => return (index, Some(error)),
            }
        }
        (packets.len(), None)
    }
}

fn to_count(count: Option<isize>) -> PyResult<Option<usize>> {
    count
        .map(|count| usize::try_from(count).map_err(|_| PyValueError::new_err("count must not be negative")))
        .transpose()
}

fn to_nanoseconds(seconds: Option<f64>) -> PyResult<i64> {
    match seconds {
        None => Ok(-1),
        Some(value) if value.is_nan() => Err(PyValueError::new_err("a timeout is a number of seconds, or None")),
        // About 290 years fit; more is "for ever" to any caller.
        Some(value) => Ok((value.max(0.0) * 1e9).min(9e18) as i64),
    }
}

fn to_seconds(timeout: &AtomicI64) -> Option<f64> {
    let nanoseconds = timeout.load(Ordering::Relaxed);
    (nanoseconds >= 0).then_some(nanoseconds as f64 / 1e9)
}

/// A line, or the packet that is none and why.
type Line<'py> = Result<Bound<'py, PyString>, (Vec<u8>, std::str::Utf8Error)>;

fn to_text<'py>(py: Python<'py>, line: Line<'py>) -> PyResult<Bound<'py, PyString>> {
    line.or_else(|(packet, error)| {
        Err(PyErr::from_value(PyUnicodeDecodeError::new_utf8(py, &packet, error)?.into_any()))
    })
}

/// Where the first `count` characters of `text` end.
fn end_of_characters(text: &str, count: usize) -> usize {
    text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
}

#[pymethods]
impl Endpoint {
    /// Attach to a flow. Takes over both descriptors, also when it fails. With a suite, its number in the handshake, the
    /// packets are encrypted between the two ends, by a key of 32 bytes that no other flow has.
    #[new]
    #[pyo3(signature = (memory, bell, side, max_packet=MAX_PACKET, suite=0, key=None))]
    fn new(memory: i32, bell: i32, side: usize, max_packet: usize, suite: u16, key: Option<&[u8]>) -> PyResult<Self> {
        if memory < 0 || bell < 0 {
            return Err(PyValueError::new_err("not a descriptor"));
        }
        // SAFETY: the caller gives up both descriptors.
        let (memory, bell) = unsafe { (OwnedFd::from_raw_fd(memory), OwnedFd::from_raw_fd(bell)) };
        let mut inner = shm::Endpoint::attach(memory, bell, side)?.with_longest(max_packet);
        if suite != 0 || key.is_some() {
            inner = inner.with_guard(new_guard(suite, key.unwrap_or_default(), side)?);
        }
        Ok(Endpoint {
            inner,
            flags: AtomicU32::new(DEFAULT_FLAGS),
            receive_timeout: AtomicI64::new(-1),
            send_timeout: AtomicI64::new(-1),
        })
    }

    #[pyo3(signature = (count=None, /))]
    fn read<'py>(&self, py: Python<'py>, count: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let count = to_count(count)?;
        self.receive(py, |reader, length| self.take_bytes(py, reader, length, count))
    }

    #[pyo3(signature = (count=None, /))]
    pub(crate) fn read_soon<'py>(
        &self,
        py: Python<'py>,
        count: Option<isize>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let count = to_count(count)?;
        self.receive_soon(|reader, length| self.take_bytes(py, reader, length, count))
    }

    #[pyo3(signature = (count=None, /))]
    pub(crate) fn read_text_soon<'py>(
        &self,
        py: Python<'py>,
        count: Option<isize>,
    ) -> PyResult<Option<Bound<'py, PyString>>> {
        let count = to_count(count)?;
        let line = self.receive_soon(|reader, length| self.take_text(py, reader, length, count))?;
        line.map(|line| to_text(py, line)).transpose()
    }

    #[pyo3(signature = (buffer, count=None, /))]
    pub(crate) fn write_soon(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        count: Option<isize>,
    ) -> PyResult<Option<usize>> {
        let source = Source::new(buffer)?;
        let count = to_count(count)?.unwrap_or(usize::MAX);
        self.check_writable()?;
        match self.send_packet(py, &source, count)? {
            None if self.inner.look(Wish::Room(source.as_slice(py).len().min(count))) => {
                self.send_packet(py, &source, count)
            }
            written => Ok(written),
        }
    }

    fn want_room(&self, length: usize) -> PyResult<bool> {
        self.inner.want_room(length).map_err(|error| flow_error(error, 0))
    }

    fn forget_room(&self) -> PyResult<()> {
        self.inner.forget_room().map_err(|error| flow_error(error, 0))
    }

    fn read_into(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let mut target = Target::new(buffer)?;
        let count = target.length();
        self.receive(py, |reader, length| {
            let taken = self.portion(length, count)?;
            reader.take(length, target.as_mut_slice(py, taken));
            self.mark_end(reader, length, count);
            Ok(taken)
        })
    }

    #[pyo3(signature = (count=None, /))]
    fn read_text<'py>(&self, py: Python<'py>, count: Option<isize>) -> PyResult<Bound<'py, PyString>> {
        let count = to_count(count)?;
        let line = self.receive(py, |reader, length| self.take_text(py, reader, length, count))?;
        to_text(py, line)
    }

    fn read_many<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyList>> {
        if limit == 0 {
            return Err(PyValueError::new_err("read_many: the limit must be at least 1 packet"));
        }
        // Made before the lock is taken: a new list may run the garbage collector, and with it anybody's code.
        let packets = PyList::empty(py);
        self.receive(py, |reader, length| {
            let mut next = Some(length);
            while let Some(length) = next {
                packets.append(new_bytes(py, length, |target| reader.take(length, target))?)?;
                // What ends the flow shows at the next call: the packets before it are not lost.
                next = if packets.len() < limit { reader.available().unwrap_or(None) } else { None };
            }
            Ok(())
        })?;
        Ok(packets)
    }

    #[pyo3(signature = (buffer, count=None, /))]
    fn write(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>, count: Option<isize>) -> PyResult<usize> {
        let source = Source::new(buffer)?;
        let count = to_count(count)?.unwrap_or(usize::MAX);
        let mut limit = self.check_writable()?;
        loop {
            if let Some(written) = self.send_packet(py, &source, count)? {
                return Ok(written);
            }
            let room = Wish::Room(source.as_slice(py).len().min(count));
            self.wait(py, room, &mut limit)?;
        }
    }

    fn write_many(&self, py: Python<'_>, packets: Vec<Bound<'_, PyAny>>) -> PyResult<usize> {
        let sources = packets.iter().map(Source::new).collect::<PyResult<Vec<_>>>()?;
        let mut limit = self.check_writable()?;
        let mut written = 0;
        loop {
            let (count, end) = self.send_now(py, &sources[written..]);
            written += count;
            if let Some(error) = end.filter(|_| written == 0) {
                return Err(flow_error(error, sources[0].as_slice(py).len()));
            }
            if end.is_some() || written == sources.len() {
                return Ok(written);
            }
            let room = Wish::Room(sources[written].as_slice(py).len());
            match self.wait(py, room, &mut limit) {
                Err(error) if written > 0 && error.is_instance_of::<FlowException>(py) => return Ok(written),
                result => result?,
            }
        }
    }

    fn fileno(&self) -> PyResult<i32> {
        Ok(self.inner.pollable().map_err(|error| flow_error(error, 0))?.as_raw_fd())
    }

    fn watch(&self, seen: u32) -> PyResult<()> {
        self.inner.watch(seen).map_err(|error| flow_error(error, 0))
    }

    #[getter]
    fn descriptor(&self) -> PyResult<i32> {
        let bell = self.inner.bell().ok_or(Error::Forked).map_err(|error| flow_error(error, 0))?;
        Ok(bell.as_raw_fd())
    }

    #[getter]
    fn ended(&self) -> PyResult<u32> {
        self.inner.ended().map_err(|error| flow_error(error, 0))
    }

    #[getter]
    fn readable(&self) -> PyResult<bool> {
        let mut reader = self.inner.reader().map_err(|error| flow_error(error, 0))?;
        Ok(reader.available().is_ok_and(|length| length.is_some()))
    }

    fn close(&self) {
        self.inner.close();
    }

    fn disown(&self) -> PyResult<()> {
        Ok(self.inner.disown()?)
    }

    #[getter]
    fn closed(&self) -> bool {
        self.inner.is_closed()
    }

    #[getter]
    fn receive_queue(&self) -> PyResult<u64> {
        self.inner.receive_queue().map_err(|error| flow_error(error, 0))
    }

    #[getter]
    fn transmit_queue(&self) -> PyResult<u64> {
        self.inner.transmit_queue().map_err(|error| flow_error(error, 0))
    }

    #[getter]
    fn rejected(&self) -> u64 {
        self.inner.rejected()
    }

    #[getter]
    fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_flags(&self, flags: u32) -> PyResult<()> {
        if flags & ACCESS == ACCESS {
            return Err(PyValueError::new_err("flags: WriteOnly and ReadWrite exclude each other"));
        }
        let mut bits = 0;
        if flags & DOWN != 0 {
            bits |= state::DOWN;
        }
        if flags & ACCESS == WRITE_ONLY {
            bits |= state::REFUSES;
        }
        self.inner.set_state(bits).map_err(|error| flow_error(error, 0))?;
        self.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    #[getter]
    fn receive_timeout(&self) -> Option<f64> {
        to_seconds(&self.receive_timeout)
    }

    #[setter]
    fn set_receive_timeout(&self, seconds: Option<f64>) -> PyResult<()> {
        self.receive_timeout.store(to_nanoseconds(seconds)?, Ordering::Relaxed);
        Ok(())
    }

    #[getter]
    fn send_timeout(&self) -> Option<f64> {
        to_seconds(&self.send_timeout)
    }

    #[setter]
    fn set_send_timeout(&self, seconds: Option<f64>) -> PyResult<()> {
        self.send_timeout.store(to_nanoseconds(seconds)?, Ordering::Relaxed);
        Ok(())
    }
}
