//! One flow of the process.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use ouroboros_client::client::Grant;
use ouroboros_client::connection::Node;
use ouroboros_client::error::{EFLOWDOWN, EFLOWPEER, ENOTALLOC};
use ouroboros_client::message::Qos;
use ouroboros_shm::endpoint::{Endpoint, Error, Wait, Wish};
use ouroboros_shm::layout::state;

use crate::guard;
use crate::set::Set;
use crate::sleep::{Bells, park_flow};

const ACCESS: u32 = 0o3;
const READ_ONLY: u32 = 0o0;
const WRITE_ONLY: u32 = 0o1;
const DOWN: u32 = 0o4;
const NON_BLOCKING_READ: u32 = 0o1000;
const NON_BLOCKING_WRITE: u32 = 0o2000;
const NO_PARTIAL_READ: u32 = 0o10000;
/// Read and write, no partial writes: the start of every flow.
const DEFAULT_FLAGS: u32 = 0o20002;
/// Flags are a number of 16 bits.
const FLAGS: u32 = 0xffff;

const FRCT_RETRANSMIT: u16 = 0o1;
const FRCT_RESCNTL: u16 = 0o2;
const FRCT_LINGER: u16 = 0o4;
const FRCT_FLAGS: u16 = FRCT_RETRANSMIT | FRCT_RESCNTL | FRCT_LINGER;

/// The number of the newest flow.
static LAST: AtomicU64 = AtomicU64::new(0);

/// How one look at a flow or a set ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The call returns that.
    Done(isize),
    /// Sleep until a descriptor is readable, or the deadline is over; then look again.
    Sleep(Bells, Option<Instant>),
    /// Look again.
    Again,
}

impl Step {
    /// The call fails with that number.
    pub fn failed(error: c_int) -> Self {
        Step::Done(-(error as isize))
    }
}

impl From<c_int> for Step {
    fn from(result: c_int) -> Self {
        Step::Done(result as isize)
    }
}

/// What one call of `flow_read` or `flow_write` remembers from look to look.
#[derive(Debug, Default, Clone, Copy)]
pub struct Call {
    /// Its flow, 0 before the first look: while it waits the descriptor may become that of another one.
    flow: u64,
    /// A clock is read only when it has to wait.
    started: bool,
    deadline: Option<Instant>,
}

impl Call {
    /// Whether it was made for that flow.
    pub fn is_about(&mut self, flow: &Flow) -> bool {
        if self.flow == 0 {
            self.flow = flow.number;
        }
        self.flow == flow.number
    }

    fn start(&mut self, timeout: &Timeout) -> Option<Instant> {
        if !self.started {
            self.started = true;
            self.deadline = timeout.get().and_then(|time| Instant::now().checked_add(time));
        }
        self.deadline
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// A time limit that a program sets: nanoseconds, negative for none.
#[derive(Debug)]
pub struct Timeout(AtomicI64);

impl Timeout {
    fn new() -> Self {
        Timeout(AtomicI64::new(-1))
    }

    pub fn set(&self, time: Option<Duration>) {
        let nanoseconds = time.map_or(-1, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
        self.0.store(nanoseconds, Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<Duration> {
        u64::try_from(self.0.load(Ordering::Relaxed)).ok().map(Duration::from_nanos)
    }
}

/// A flow and what is set about it.
#[derive(Debug)]
pub struct Flow {
    /// Of this process, and never given out twice.
    number: u64,
    pub endpoint: Endpoint,
    pub qos: Qos,
    pub flow_id: u64,
    pub side: u64,
    pub node: Arc<Node>,
    pub receive_timeout: Timeout,
    pub send_timeout: Timeout,
    flags: AtomicU32,
    frct_flags: AtomicU16,
    set: Mutex<Weak<Set>>,
}

impl Flow {
    /// Attach to a flow that the node gave out.
    pub fn new(grant: Grant) -> std::io::Result<Self> {
        let granted = grant.granted;
        let longest = usize::try_from(granted.max_packet).unwrap_or(usize::MAX);
        let side = usize::try_from(granted.side).unwrap_or(usize::MAX);
        let mut endpoint = Endpoint::attach(grant.memory, grant.bell, side)?.with_longest(longest);
        if let Some((suite, key)) = &granted.cipher {
            endpoint = endpoint.with_guard(guard::new(*suite, key, side)?);
        }
        Ok(Flow {
            number: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            endpoint,
            frct_flags: AtomicU16::new(first_frct_flags(granted.qos)),
            qos: granted.qos,
            flow_id: granted.flow_id,
            side: granted.side,
            node: grant.node,
            receive_timeout: Timeout::new(),
            send_timeout: Timeout::new(),
            flags: AtomicU32::new(DEFAULT_FLAGS),
            set: Mutex::default(),
        })
    }

    /// The set that it is in.
    pub fn set(&self) -> MutexGuard<'_, Weak<Set>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flag(&self, mask: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & mask != 0
    }

    fn access(&self) -> u32 {
        self.flags.load(Ordering::Relaxed) & ACCESS
    }

    // --- reading

    /// Read what is there; None when there is nothing.
    pub fn try_read(&self, target: &mut [MaybeUninit<u8>]) -> Result<Option<usize>, c_int> {
        if self.access() == WRITE_ONLY {
            return Err(libc::EPERM);
        }
        let mut reader = self.endpoint.reader().map_err(number)?;
        let Some(length) = reader.available().map_err(number)? else { return Ok(None) };
        let partial = !self.flag(NO_PARTIAL_READ);
        if target.len() < length && !partial {
            return Err(libc::EMSGSIZE);
        }
        let taken = length.min(target.len());
        reader.take(length, &mut target[..taken]);
        if partial && taken == length && length > 0 && target.len() == length {
            // The next read is empty, and tells by that that nothing is left of the packet.
            reader.mark_end();
        }
        Ok(Some(taken))
    }

    /// Whether the next read finds something.
    pub fn is_readable(&self) -> bool {
        self.endpoint.reader().is_ok_and(|mut reader| reader.available().is_ok_and(|length| length.is_some()))
    }

    /// There is nothing to read: go on waiting, if the call may. `Again` after a short look that found something.
    pub fn glance_for_packet(&self, call: &mut Call) -> Result<bool, c_int> {
        if self.flag(NON_BLOCKING_READ) {
            return Err(libc::EAGAIN);
        }
        call.start(&self.receive_timeout);
        if call.is_over() {
            return Err(libc::ETIMEDOUT);
        }
        Ok(self.endpoint.glance(Wish::Packet))
    }

    /// Get ready to sleep until there is a packet.
    pub fn before_sleep(self: Arc<Self>, call: &Call) -> Step {
        let Some(sleep) = self.endpoint.before_sleep() else { return Step::Again };
        let news = sleep.news.as_ref().map_or(-1, |news| news.as_raw_fd());
        let bells = Bells { first: sleep.bell.as_raw_fd(), second: news };
        if park_flow(Arc::clone(&self), sleep.news) {
            return Step::Sleep(bells, call.deadline);
        }
        // This thread is ending, and nobody cancels it any more.
        self.endpoint.wait(Wish::Packet, call.deadline);
        Step::Again
    }

    // --- writing

    /// Write a packet if there is room for it.
    pub fn try_write(&self, packet: &[u8]) -> Result<bool, c_int> {
        if self.access() == READ_ONLY {
            return Err(libc::EPERM);
        }
        let mut writer = self.endpoint.writer().map_err(number)?;
        // An empty packet is a keepalive on every layer.
        if packet.is_empty() { Ok(true) } else { writer.stage(packet).map_err(number) }
    }

    /// There is no room: as `glance_for_packet`.
    pub fn glance_for_room(&self, length: usize, call: &mut Call) -> Result<bool, c_int> {
        if self.flag(NON_BLOCKING_WRITE) {
            return Err(libc::EAGAIN);
        }
        call.start(&self.send_timeout);
        if call.is_over() {
            return Err(libc::ETIMEDOUT);
        }
        Ok(self.endpoint.glance(Wish::Room(length)))
    }

    /// Sleep until there is room, or for a moment.
    pub fn wait_for_room(&self, length: usize, call: &Call) {
        // What came of it is for the next try to see; one that is over finds that, too.
        let (Wait::Ready | Wait::Interrupted | Wait::TimedOut) = self.endpoint.wait(Wish::Room(length), call.deadline);
    }

    // --- settings

    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    pub fn set_flags(&self, flags: u32) -> Result<(), c_int> {
        let flags = flags & FLAGS;
        if flags & ACCESS == ACCESS {
            return Err(libc::EINVAL);
        }
        let down = if flags & DOWN != 0 { state::DOWN } else { 0 };
        let refuses = if flags & ACCESS == WRITE_ONLY { state::REFUSES } else { 0 };
        self.endpoint.set_state(down | refuses).map_err(number)?;
        self.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    pub fn receive_queue(&self) -> Result<usize, c_int> {
        self.endpoint.receive_queue().map(|length| length as usize).map_err(number)
    }

    pub fn transmit_queue(&self) -> Result<usize, c_int> {
        self.endpoint.transmit_queue().map(|length| length as usize).map_err(number)
    }

    pub fn frct_flags(&self) -> Result<u16, c_int> {
        if first_frct_flags(self.qos) == 0 {
            return Err(libc::EPERM);
        }
        Ok(self.frct_flags.load(Ordering::Relaxed))
    }

    /// Whether what is lost is sent again was fixed by the QoS.
    pub fn set_frct_flags(&self, flags: u16) -> Result<(), c_int> {
        let fixed = self.frct_flags()? & FRCT_RETRANSMIT;
        if flags & !FRCT_FLAGS != 0 {
            return Err(libc::EINVAL);
        }
        self.frct_flags.store(flags & !FRCT_RETRANSMIT | fixed, Ordering::Relaxed);
        Ok(())
    }
}

fn first_frct_flags(qos: Qos) -> u16 {
    match (qos.loss, qos.in_order) {
        (0, _) => FRCT_FLAGS,
        (_, 0) => 0,
        _ => FRCT_RESCNTL,
    }
}

/// The number that C programs know for what an endpoint says.
pub fn number(error: Error) -> c_int {
    match error {
        Error::Closed | Error::Forked => ENOTALLOC,
        Error::PeerClosed | Error::Down | Error::Corrupt => EFLOWDOWN,
        Error::PeerDead => EFLOWPEER,
        Error::Refused => libc::EPERM,
        Error::TooLong(_) => libc::EMSGSIZE,
        Error::Unsealed => ouroboros_client::error::ECRYPT,
    }
}
