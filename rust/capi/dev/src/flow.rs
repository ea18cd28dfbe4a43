//! One flow of the process.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use ouroboros_client::client::Grant;
use ouroboros_client::connection::Node;
use ouroboros_client::error::{EFLOWDOWN, EFLOWPEER, ENOTALLOC};
use ouroboros_client::message::Qos;
use ouroboros_crypto::{Replay, Suite};
use ouroboros_flow::{Limit, Properties, Timeout, Unfit, guard, session, stage};
use ouroboros_shm::endpoint::{Endpoint, Error, Wait, Wish};

use crate::sleep::{Bells, Sleeper, park, park_news};

/// Flags are a number of 16 bits.
const FLAGS: u32 = 0xffff;

const FRCT_RETRANSMIT: u16 = 0o1;
const FRCT_RESCNTL: u16 = 0o2;
const FRCT_LINGER: u16 = 0o4;
const FRCT_FLAGS: u16 = FRCT_RETRANSMIT | FRCT_RESCNTL | FRCT_LINGER;

/// The number of the newest flow.
static LAST: AtomicU64 = AtomicU64::new(0);

/// How one step of a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The call returns that.
    Done(isize),
    /// Sleep until a descriptor is readable, or the deadline is over; then take another step.
    Sleep(Bells, Option<Instant>),
    /// Take another step.
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

/// The state of one call of `flow_read` or `flow_write`, from step to step.
#[derive(Debug, Default, Clone, Copy)]
pub struct Call {
    /// Its flow, 0 before the first step: while it waits the descriptor may become that of another one.
    flow: u64,
    /// From the time on that it has to wait.
    limit: Option<Limit>,
}

impl Call {
    /// Whether it was made for that flow.
    pub fn is_about(&mut self, flow: &Flow) -> bool {
        if self.flow == 0 {
            self.flow = flow.number;
        }
        self.flow == flow.number
    }

    /// It has to wait: fails when it has done so for long enough.
    fn goes_on(&mut self, timeout: &Timeout) -> Result<(), c_int> {
        let limit = self.limit.get_or_insert_with(|| Limit::new(timeout));
        if limit.is_over() { Err(libc::ETIMEDOUT) } else { Ok(()) }
    }

    fn deadline(&mut self) -> Option<Instant> {
        self.limit.as_mut().and_then(Limit::deadline)
    }
}

/// An observer of the events of a flow.
pub trait Watcher: std::fmt::Debug + Send + Sync {
    /// The flow is given back: watch it no more.
    fn forget(&self, fd: c_int);
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
    pub properties: Properties,
    frct_flags: AtomicU16,
    watcher: Mutex<Option<Weak<dyn Watcher>>>,
}

impl Flow {
    /// Attach to a flow that the node gave out.
    pub fn new(grant: Grant) -> std::io::Result<Self> {
        let granted = grant.granted;
        let longest = usize::try_from(granted.max_packet).unwrap_or(usize::MAX);
        let side = usize::try_from(granted.side).unwrap_or(usize::MAX);
        let mut endpoint = Endpoint::attach(grant.memory, grant.bell, side)?.with_longest(longest);
        if let Some((suite, key)) = &granted.cipher {
            let suite = Suite::from_nid(*suite).ok_or_else(|| unknown(*suite))?;
            endpoint = endpoint.with_guard(guard(session(suite, &key.0, side, Replay::Reject)?));
        }
        Ok(Flow {
            number: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            endpoint,
            frct_flags: AtomicU16::new(first_frct_flags(granted.qos)),
            qos: granted.qos,
            flow_id: granted.flow_id,
            side: granted.side,
            node: grant.node,
            properties: Properties::default(),
            watcher: Mutex::default(),
        })
    }

    /// Its observer.
    pub fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.lock_watcher().as_ref()?.upgrade()
    }

    /// Give it a watcher; false when it has one.
    pub fn begin_watch(&self, by: Weak<dyn Watcher>) -> bool {
        let mut watcher = self.lock_watcher();
        let free = watcher.as_ref().is_none_or(|other| other.strong_count() == 0);
        if free {
            *watcher = Some(by);
        }
        free
    }

    pub fn end_watch(&self) {
        *self.lock_watcher() = None;
    }

    fn lock_watcher(&self) -> MutexGuard<'_, Option<Weak<dyn Watcher>>> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- reading

    /// Read what is there; None when there is nothing.
    pub fn try_read(&self, target: &mut [MaybeUninit<u8>]) -> Result<Option<usize>, c_int> {
        if !self.properties.may_read() {
            return Err(libc::EPERM);
        }
        let mut reader = self.endpoint.reader().map_err(number)?;
        let Some(length) = reader.available().map_err(number)? else { return Ok(None) };
        let taken = self.properties.portion(length, target.len()).ok_or(libc::EMSGSIZE)?;
        reader.take(length, &mut target[..taken]);
        self.properties.mark_end(&mut reader, length, target.len());
        Ok(Some(taken))
    }

    /// Whether the next read finds something.
    pub fn is_readable(&self) -> bool {
        self.endpoint.reader().is_ok_and(|mut reader| reader.available().is_ok_and(|length| length.is_some()))
    }

    /// There is nothing to read: go on waiting, if the call may. Returns whether a packet came within about a microsecond.
    pub fn glance_for_packet(&self, call: &mut Call) -> Result<bool, c_int> {
        if !self.properties.read_waits() {
            return Err(libc::EAGAIN);
        }
        call.goes_on(&self.properties.receive_timeout)?;
        Ok(self.endpoint.glance(Wish::Packet))
    }

    /// Get ready to sleep until there is a packet.
    pub fn before_sleep(self: Arc<Self>, call: &mut Call) -> Step {
        let Some(sleep) = self.endpoint.before_sleep() else { return Step::Again };
        let news = sleep.news.as_ref().map_or(-1, |news| news.as_raw_fd());
        let bells = Bells { first: sleep.bell.as_raw_fd(), second: news };
        if park_news(sleep.news) && park(Arc::clone(&self) as Arc<dyn Sleeper>) {
            return Step::Sleep(bells, call.deadline());
        }
        // This thread is ending, and nobody cancels it any more.
        self.endpoint.wait(Wish::Packet, call.deadline());
        Step::Again
    }

    // --- writing

    /// Write a packet if there is room for it.
    pub fn try_write(&self, packet: &[u8]) -> Result<bool, c_int> {
        if !self.properties.may_write() {
            return Err(libc::EPERM);
        }
        let mut writer = self.endpoint.writer().map_err(number)?;
        stage(&mut writer, packet).map_err(number)
    }

    /// There is no room: as `glance_for_packet`.
    pub fn glance_for_room(&self, length: usize, call: &mut Call) -> Result<bool, c_int> {
        if !self.properties.write_waits() {
            return Err(libc::EAGAIN);
        }
        call.goes_on(&self.properties.send_timeout)?;
        Ok(self.endpoint.glance(Wish::Room(length)))
    }

    /// Sleep until there is room, or for a moment.
    pub fn wait_for_room(&self, length: usize, call: &mut Call) {
        // The next try sees the result, also if the flow is over.
        let (Wait::Ready | Wait::Interrupted | Wait::TimedOut) =
            self.endpoint.wait(Wish::Room(length), call.deadline());
    }

    // --- settings

    pub fn set_flags(&self, flags: u32) -> Result<(), c_int> {
        self.properties.set_flags(flags & FLAGS, &self.endpoint).map_err(|unfit| match unfit {
            Unfit::Access => libc::EINVAL,
            Unfit::Flow(error) => number(error),
        })
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

impl Sleeper for Flow {
    fn on_hang_up(&self) {
        self.endpoint.note_hang_up();
    }
}

fn unknown(suite: u16) -> std::io::Error {
    std::io::Error::other(format!("it is encrypted with cipher {suite}, which this library does not know"))
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
        Error::Closed | Error::Abandoned | Error::Forked => ENOTALLOC,
        Error::PeerClosed | Error::Down | Error::Corrupt => EFLOWDOWN,
        Error::PeerDead => EFLOWPEER,
        Error::Refused => libc::EPERM,
        Error::TooLong(_) => libc::EMSGSIZE,
        Error::Unsealed => ouroboros_client::error::ECRYPT,
    }
}
