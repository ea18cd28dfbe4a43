//! One side of a flow as a Python object.

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::time::Duration;

use ouroboros_flow::{Limit, Properties, Timeout, Unfit, stage};
use ouroboros_shm::endpoint::{self as shm, Error, GLANCES, Reader, Wait, Wish};
use ouroboros_shm::layout::MAX_PACKET;
use pyo3::exceptions::{PyUnicodeDecodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::buffer::{Count, Source, Target, new_bytes};
use crate::descriptors::take_over;
use crate::errors::{FlowException, flow_error, forbidden, timed_out, would_block, would_cut};
use crate::guard::new_guard;

/// One side of a flow. `docs/api.md` documents `ouroboros.dev.Flow`, its public face.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct Endpoint {
    inner: shm::Endpoint,
    properties: Properties,
}

/// How long one call may wait.
struct Patience {
    limit: Limit,
    waits: bool,
    /// Waits in a row after which nothing was there.
    rounds: u32,
}

impl Patience {
    fn new(timeout: &Timeout, waits: bool) -> Self {
        Patience { limit: Limit::new(timeout), waits, rounds: 0 }
    }
}

impl Endpoint {
    fn check_readable(&self) -> PyResult<Patience> {
        if !self.properties.may_read() {
            return Err(forbidden("the flow is set write-only; set_flags() with FlowProperties.ReadWrite to read"));
        }
        Ok(Patience::new(&self.properties.receive_timeout, self.properties.read_waits()))
    }

    fn check_writable(&self) -> PyResult<Patience> {
        if !self.properties.may_write() {
            return Err(forbidden("the flow is set read-only; set_flags() with FlowProperties.ReadWrite to write"));
        }
        Ok(Patience::new(&self.properties.send_timeout, self.properties.write_waits()))
    }

    /// Wait for the wish, without the interpreter lock; raise when the limit is over.
    fn wait(&self, py: Python<'_>, wish: Wish, patience: &mut Patience) -> PyResult<()> {
        let what = if wish == Wish::Packet { "packet to read" } else { "room to write" };
        if !patience.waits {
            return Err(would_block(what));
        }
        patience.rounds = patience.rounds.saturating_add(1);
        let vain = patience.rounds > GLANCES;
        if !vain && self.inner.glance(wish) {
            return Ok(());
        }
        let deadline = patience.limit.deadline();
        if vain && patience.limit.is_over() {
            return Err(timed_out(what));
        }
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
        let mut patience = self.check_readable()?;
        loop {
            if let Some(result) = self.receive_now(&mut use_it)? {
                return Ok(result);
            }
            self.wait(py, Wish::Packet, &mut patience)?;
        }
    }

    /// As `receive_now`, after spinning for a packet for as long as that pays.
    fn receive_soon<T>(&self, mut use_it: impl FnMut(&mut Reader<'_>, usize) -> PyResult<T>) -> PyResult<Option<T>> {
        self.check_readable()?;
        match self.receive_now(&mut use_it)? {
            None if self.inner.spin(Wish::Packet) => self.receive_now(&mut use_it),
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
            self.properties.mark_end(reader, length, count);
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
        let text = match std::str::from_utf8(reader.peek(length)) {
            Ok(text) => text,
            // The exception is made after the lock is released: making one may run the garbage collector.
            Err(error) => return Ok(Err((reader.peek(length).to_vec(), error))),
        };
        let taken = count.map_or(text.len(), |count| end_of_characters(text, count));
        let exactly = taken == length && count.is_some_and(|count| text.chars().count() == count);
        self.portion(length, taken)?;
        let line = PyString::new(py, &text[..taken]);
        reader.take(length, &mut vec![MaybeUninit::uninit(); taken]);
        if exactly {
            self.properties.mark_end(reader, length, taken);
        }
        Ok(Ok(line))
    }

    /// Write a packet if there is room for it.
    fn send_packet(&self, py: Python<'_>, source: &Source<'_>, count: usize) -> PyResult<Option<usize>> {
        // Anew for each try: other threads may have changed the buffer while we waited.
        let bytes = source.as_slice(py);
        let packet = &bytes[..count.min(bytes.len())];
        let failed = |error| flow_error(error, packet.len());
        let mut writer = match self.inner.writer() {
            Err(Error::Abandoned) => return Ok(None),
            writer => writer.map_err(failed)?,
        };
        let written = stage(&mut writer, packet).map_err(failed)?;
        Ok(written.then_some(packet.len()))
    }

    /// How many bytes a read of `count` takes of a packet of `length`.
    fn portion(&self, length: usize, count: usize) -> PyResult<usize> {
        self.properties.portion(length, count).ok_or_else(|| would_cut(length, count))
    }

    /// Write the packets until one does not fit; returns how many were written, and what ended it unless it was the room.
    fn send_now(&self, py: Python<'_>, packets: &[Source<'_>]) -> (usize, Option<Error>) {
        let mut writer = match self.inner.writer() {
            Ok(writer) => writer,
            Err(Error::Abandoned) => return (0, None),
            Err(error) => return (0, Some(error)),
        };
        for (index, packet) in packets.iter().enumerate() {
            let bytes = packet.as_slice(py);
            match stage(&mut writer, bytes) {
                Ok(true) => {}
                Ok(false) => return (index, None),
                Err(error) => return (index, Some(error)),
            }
        }
        (packets.len(), None)
    }
}

fn to_time(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        None => Ok(None),
        // About 290 years fit; more is "for ever" to any caller.
        Some(value) if value >= 0.0 => Ok(Some(Duration::from_nanos((value * 1e9).min(9e18) as u64))),
        Some(_) => Err(PyValueError::new_err("a timeout is a number of seconds from 0, or None")),
    }
}

fn to_seconds(timeout: &Timeout) -> Option<f64> {
    timeout.get().map(|time| time.as_nanos() as f64 / 1e9)
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
    fn new(
        memory: i32,
        bell: i32,
        side: usize,
        max_packet: usize,
        suite: u16,
        key: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let [memory, bell] = take_over([memory, bell])?;
        let mut inner = shm::Endpoint::attach(memory, bell, side)?.with_longest(max_packet);
        if let Some(key) = key {
            inner = inner.with_guard(new_guard(suite, key, side)?);
        } else if suite != 0 {
            return Err(PyValueError::new_err("a suite needs a key of 32 bytes"));
        }
        Ok(Endpoint { inner, properties: Properties::default() })
    }

    #[pyo3(signature = (count=None, /))]
    pub(crate) fn read<'py>(&self, py: Python<'py>, count: Option<Count>) -> PyResult<Bound<'py, PyBytes>> {
        let count = count.map(|count| count.0);
        self.receive(py, |reader, length| self.take_bytes(py, reader, length, count))
    }

    #[pyo3(signature = (count=None, /))]
    pub(crate) fn read_soon<'py>(
        &self,
        py: Python<'py>,
        count: Option<Count>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let count = count.map(|count| count.0);
        self.receive_soon(|reader, length| self.take_bytes(py, reader, length, count))
    }

    #[pyo3(signature = (count=None, /))]
    pub(crate) fn read_text_soon<'py>(
        &self,
        py: Python<'py>,
        count: Option<Count>,
    ) -> PyResult<Option<Bound<'py, PyString>>> {
        let count = count.map(|count| count.0);
        let line = self.receive_soon(|reader, length| self.take_text(py, reader, length, count))?;
        line.map(|line| to_text(py, line)).transpose()
    }

    #[pyo3(signature = (buffer, count=None, /))]
    pub(crate) fn write_soon(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        count: Option<Count>,
    ) -> PyResult<Option<usize>> {
        let source = Source::new(buffer)?;
        let count = count.map_or(usize::MAX, |count| count.0);
        self.check_writable()?;
        match self.send_packet(py, &source, count)? {
            None if self.inner.spin(Wish::Room(source.as_slice(py).len().min(count))) => {
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

    pub(crate) fn read_into(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let mut target = Target::new(buffer)?;
        let count = target.length();
        self.receive(py, |reader, length| {
            let taken = self.portion(length, count)?;
            reader.take(length, target.as_mut_slice(py, taken));
            self.properties.mark_end(reader, length, count);
            Ok(taken)
        })
    }

    #[pyo3(signature = (count=None, /))]
    pub(crate) fn read_text<'py>(&self, py: Python<'py>, count: Option<Count>) -> PyResult<Bound<'py, PyString>> {
        let count = count.map(|count| count.0);
        let line = self.receive(py, |reader, length| self.take_text(py, reader, length, count))?;
        to_text(py, line)
    }

    fn read_many<'py>(&self, py: Python<'py>, limit: Count) -> PyResult<Bound<'py, PyList>> {
        let limit = limit.0;
        if limit == 0 {
            return Err(PyValueError::new_err("read_many: the limit must be at least 1 packet"));
        }
        // Made before the lock is taken: a new list may run the garbage collector, and with it anybody's code.
        let packets = PyList::empty(py);
        self.receive(py, |reader, length| {
            let mut next = Some(length);
            while let Some(length) = next {
                packets.append(new_bytes(py, length, |target| reader.take(length, target))?)?;
                // The end of the flow shows at the next call: the packets before it are not lost.
                next = if packets.len() < limit { reader.available().unwrap_or(None) } else { None };
            }
            Ok(())
        })?;
        Ok(packets)
    }

    #[pyo3(signature = (buffer, count=None, /))]
    pub(crate) fn write(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>, count: Option<Count>) -> PyResult<usize> {
        let source = Source::new(buffer)?;
        let count = count.map_or(usize::MAX, |count| count.0);
        let mut patience = self.check_writable()?;
        loop {
            if let Some(written) = self.send_packet(py, &source, count)? {
                return Ok(written);
            }
            let room = Wish::Room(source.as_slice(py).len().min(count));
            self.wait(py, room, &mut patience)?;
        }
    }

    fn write_many(&self, py: Python<'_>, packets: Vec<Bound<'_, PyAny>>) -> PyResult<usize> {
        let sources = packets.iter().map(Source::new).collect::<PyResult<Vec<_>>>()?;
        let mut patience = self.check_writable()?;
        let mut written = 0;
        loop {
            let (count, end) = self.send_now(py, &sources[written..]);
            written += count;
            if count > 0 {
                patience.rounds = 0;
            }
            if let Some(error) = end.filter(|_| written == 0) {
                return Err(flow_error(error, sources[0].as_slice(py).len()));
            }
            if end.is_some() || written == sources.len() {
                return Ok(written);
            }
            let room = Wish::Room(sources[written].as_slice(py).len());
            match self.wait(py, room, &mut patience) {
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

    fn abandon(&self) {
        self.inner.abandon();
    }

    #[getter]
    fn abandoned(&self) -> bool {
        self.inner.is_abandoned()
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
        self.properties.flags()
    }

    #[setter]
    fn set_flags(&self, flags: u32) -> PyResult<()> {
        self.properties.set_flags(flags, &self.inner).map_err(|unfit| match unfit {
            Unfit::Access => PyValueError::new_err("flags: WriteOnly and ReadWrite exclude each other"),
            Unfit::Flow(error) => flow_error(error, 0),
        })
    }

    #[getter]
    fn receive_timeout(&self) -> Option<f64> {
        to_seconds(&self.properties.receive_timeout)
    }

    #[setter]
    fn set_receive_timeout(&self, seconds: Option<f64>) -> PyResult<()> {
        self.properties.receive_timeout.set(to_time(seconds)?);
        Ok(())
    }

    #[getter]
    fn send_timeout(&self) -> Option<f64> {
        to_seconds(&self.properties.send_timeout)
    }

    #[setter]
    fn set_send_timeout(&self, seconds: Option<f64>) -> PyResult<()> {
        self.properties.send_timeout.set(to_time(seconds)?);
        Ok(())
    }
}
