//! The ring between a flow and its program, in memory. It rings as a real doorbell does: for a packet that came after its
//! reader found nothing more, for room that was asked for, and for each change of the flags.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ouroboros_stack::FlowId;
use ouroboros_stack::ring::{End, Flags, Read, Ring, Write};

/// Bytes that the real one holds.
const CAPACITY: usize = 2 << 20;
/// Bytes that each packet takes there beside its own.
const HEADER: usize = 8;

/// Flows whose program did something, and the other way round.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    pub(crate) flows: Vec<FlowId>,
    pub(crate) programs: Vec<FlowId>,
}

/// Packets in one direction.
#[derive(Debug, Default)]
struct Half {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The reader is to be told of the next packet.
    awaited: bool,
    /// The writer is to be told when there is room for so many bytes, and half of it is free.
    wanted: Option<usize>,
}

impl Half {
    fn has_room(&self, length: usize) -> bool {
        self.packets.is_empty() || self.bytes + length + HEADER <= CAPACITY
    }

    /// False: no room. True, and whether the reader is to be told.
    fn push(&mut self, packet: &[u8]) -> (bool, bool) {
        if !self.has_room(packet.len()) {
            return (false, false);
        }
        self.bytes += packet.len() + HEADER;
        self.packets.push_back(packet.to_vec());
        (true, std::mem::take(&mut self.awaited))
    }

    /// The next packet, and whether the writer is to be told.
    fn pop(&mut self) -> Option<(Vec<u8>, bool)> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len() + HEADER;
        let room = if self.packets.is_empty() { CAPACITY } else { CAPACITY - self.bytes.min(CAPACITY) };
        let told = self.wanted.take_if(|length| *length + HEADER <= room && CAPACITY / 2 <= room);
        Some((packet, told.is_some()))
    }
}

/// State of one side.
#[derive(Debug, Default)]
struct Side {
    end: Option<End>,
    flags: Flags,
}

#[derive(Debug, Default)]
struct Inner {
    /// Packets of the program, and packets of the flow.
    down: Half,
    up: Half,
    program: Side,
    flow: Side,
    /// The flow wants room, and has not said since that it does not.
    wants_room: bool,
    /// The flow finds no room so many times though there is some.
    late: u32,
    bells: Option<(FlowId, Arc<Mutex<Bells>>)>,
}

impl Inner {
    fn ring(&self, choose: impl FnOnce(&mut Bells) -> &mut Vec<FlowId>) {
        if let Some((flow, bells)) = &self.bells {
            choose(&mut lock(bells)).push(*flow);
        }
    }

    fn ring_flow(&self) {
        self.ring(|bells| &mut bells.flows);
    }

    fn ring_program(&self) {
        self.ring(|bells| &mut bells.programs);
    }

    /// Why one side reads nothing more, when the other is `far`.
    fn ended(&self, far: &Side) -> Result<(), End> {
        match far.end {
            Some(end) => Err(end),
            None if self.program.flags.down || self.flow.flags.down => Err(End::Down),
            None => Ok(()),
        }
    }
}

/// See the module. Copies of it are the same ring.
#[derive(Debug, Clone, Default)]
pub struct Queue(Arc<Mutex<Inner>>);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The side of the program.
impl Queue {
    /// Write a packet. False: no room; the bell of the program rings when there is.
    pub fn write(&self, packet: &[u8]) -> Result<bool, End> {
        let mut inner = lock(&self.0);
        match inner.program.end {
            Some(_) => return Err(End::Closed),
            None => inner.ended(&inner.flow)?,
        }
        if inner.flow.flags.refuses {
            return Err(End::Refused);
        }
        let (written, told) = inner.down.push(packet);
        if told {
            inner.ring_flow();
        }
        if !written {
            inner.down.wanted = Some(packet.len());
        }
        Ok(written)
    }

    /// The next packet; None: there is none, and the bell of the program rings when there is.
    pub fn read(&self) -> Result<Option<Vec<u8>>, End> {
        let mut inner = lock(&self.0);
        if inner.program.end.is_some() {
            return Err(End::Closed);
        }
        if let Some((packet, told)) = inner.up.pop() {
            if told {
                inner.ring_flow();
            }
            return Ok(Some(packet));
        }
        inner.ended(&inner.flow)?;
        inner.up.awaited = true;
        Ok(None)
    }

    /// The program lets go, or `died`. Its packets are still sent.
    pub fn let_go(&self, died: bool) {
        let mut inner = lock(&self.0);
        if inner.program.end.is_none() {
            inner.program.end = Some(if died { End::Died } else { End::Closed });
            inner.ring_flow();
        }
    }

    /// Set the flags of the program.
    pub fn set(&self, flags: Flags) {
        let mut inner = lock(&self.0);
        inner.program.flags = flags;
        inner.ring_flow();
    }

    /// So many times the flow finds no room, and then there is some: the program read in between.
    pub fn be_late(&self, times: u32) {
        lock(&self.0).late = times;
    }

    /// Packets that the program wrote and the flow did not take, and the other way round.
    pub fn waiting(&self) -> (u64, u64) {
        let inner = lock(&self.0);
        (inner.down.packets.len() as u64, inner.up.packets.len() as u64)
    }

    /// It belongs to this flow from now on.
    pub(crate) fn join(&self, flow: FlowId, bells: &Arc<Mutex<Bells>>) {
        let mut inner = lock(&self.0);
        inner.bells = Some((flow, Arc::clone(bells)));
        inner.up.awaited = true;
        inner.ring_program();
    }
}

/// The right to read what the program wrote.
#[derive(Debug)]
pub struct From<'a>(MutexGuard<'a, Inner>);

/// The right to write to the program.
#[derive(Debug)]
pub struct To<'a>(MutexGuard<'a, Inner>);

impl Ring for Queue {
    type Reader<'a> = From<'a>;
    type Writer<'a> = To<'a>;
    const CAPACITY: usize = CAPACITY;

    fn reader(&self) -> Result<From<'_>, End> {
        let inner = lock(&self.0);
        if inner.flow.end.is_some() { Err(End::Closed) } else { Ok(From(inner)) }
    }

    fn writer(&self) -> Result<To<'_>, End> {
        let inner = lock(&self.0);
        if inner.flow.end.is_some() {
            return Err(End::Closed);
        }
        inner.ended(&inner.program)?;
        if inner.program.flags.refuses { Err(End::Refused) } else { Ok(To(inner)) }
    }

    fn has_news(&self) -> bool {
        let inner = lock(&self.0);
        !inner.down.packets.is_empty() || inner.ended(&inner.program).is_err()
    }

    fn rest(&self) -> bool {
        // Each change of the flags rings anyway.
        lock(&self.0).down.awaited = true;
        false
    }

    fn want_room(&self, length: usize) -> bool {
        let mut inner = lock(&self.0);
        // A real doorbell gets a token for each call, which `forget_room` takes out, and is full some day.
        debug_assert!(!inner.wants_room, "room is asked for again, and was not given back");
        inner.wants_room = true;
        inner.up.wanted = Some(length);
        inner.flow.end.is_some() || inner.ended(&inner.program).is_err() || inner.up.has_room(length)
    }

    fn forget_room(&self) {
        let mut inner = lock(&self.0);
        inner.wants_room = false;
        inner.up.wanted = None;
    }

    fn has_room(&self, length: usize) -> bool {
        let inner = lock(&self.0);
        inner.flow.end.is_some() || inner.ended(&inner.program).is_err() || inner.up.has_room(length)
    }

    fn is_read(&self) -> bool {
        lock(&self.0).up.packets.is_empty()
    }

    fn close(&self, died: bool) {
        let mut inner = lock(&self.0);
        if inner.flow.end.is_none() {
            inner.flow.end = Some(if died { End::Died } else { End::Closed });
            inner.ring_program();
        }
    }

    fn flags(&self) -> Flags {
        let Inner { program, flow, .. } = &*lock(&self.0);
        // A real ring does not tell whose it is, either.
        Flags { down: program.flags.down || flow.flags.down, refuses: program.flags.refuses }
    }

    fn show(&self, flags: Flags) {
        let mut inner = lock(&self.0);
        inner.flow.flags = flags;
        inner.ring_program();
    }
}

impl Read for From<'_> {
    fn available(&mut self) -> Result<Option<usize>, End> {
        if let Some(packet) = self.0.down.packets.front() {
            return Ok(Some(packet.len()));
        }
        self.0.ended(&self.0.program)?;
        self.0.down.awaited = true;
        Ok(None)
    }

    fn append_to(&mut self, bytes: &mut Vec<u8>, _: usize) {
        if let Some((packet, told)) = self.0.down.pop() {
            bytes.extend_from_slice(&packet);
            if told {
                self.0.ring_program();
            }
        }
    }
}

impl Write for To<'_> {
    fn stage(&mut self, packet: &[u8]) -> Result<bool, End> {
        if let Some(left) = self.0.late.checked_sub(1) {
            self.0.late = left;
            return Ok(false);
        }
        let (staged, told) = self.0.up.push(packet);
        if told {
            self.0.ring_program();
        }
        Ok(staged)
    }
}
