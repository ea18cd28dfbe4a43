//! One side of a flow: reading, writing, waiting, going down. Safe to use from any number of threads.

use core::mem::{ManuallyDrop, MaybeUninit};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, dup2};
use rustix::net::sockopt::set_socket_oobinline;
use rustix::net::{Shutdown, shutdown};

use self::bell::BellSocket;
use self::guard::{Guarded, Held};
use self::news::News;
use crate::channel::{MappedRing, Mapping, wake_writers};
use crate::layout::{MAX_PACKET, state};
use crate::ring::{Arm, Consumer, Corrupt, Memory, Producer, StageError};
use crate::spin::{Pauses, Spinner};

mod bell;
mod guard;
mod news;
mod rest;
mod room;

pub use self::guard::Guard;

/// How often in a row a call may try again at once because something seemed to be there. A peer whose words flicker can make
/// it seem so for ever; after that a call lets others go on, and reads the clock.
pub const GLANCES: u32 = 8;

/// After this many reads in a row the flow counts as a stream: the reader is not waiting for an answer.
const STREAM: u32 = 16;

static FORKS: AtomicU32 = AtomicU32::new(0);

/// To be called in the child of a fork: endpoints that it inherited belong to its parent and refuse to work.
pub fn note_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The thread that ends the program.
static LEAVER: OnceLock<ThreadId> = OnceLock::new();

/// To be called by the thread that ends the program, before it abandons its endpoints.
pub fn note_exit() {
    LEAVER.get_or_init(|| thread::current().id());
}

// States of an endpoint in its own process.
const OPEN: u8 = 0;
const ABANDONED: u8 = 1;
const CLOSED: u8 = 2;

/// Errors of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// This side deallocated the flow.
    Closed,
    /// This side is abandoned: nothing can be written any more, and nobody is to be told.
    Abandoned,
    /// The endpoint belongs to the process that forked this one.
    Forked,
    /// The peer deallocated the flow.
    PeerClosed,
    /// The peer's process died.
    PeerDead,
    /// The Down flag is set, by either side.
    Down,
    /// The peer is write-only.
    Refused,
    /// The peer wrote something impossible into the shared memory.
    Corrupt,
    /// The packet is longer than the flow carries, which is at most this many bytes.
    TooLong(usize),
    /// The packet cannot be encrypted.
    Unsealed,
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "flow: {self:?}")
    }
}

impl std::error::Error for Error {}

impl From<Corrupt> for Error {
    fn from(_: Corrupt) -> Self {
        Error::Corrupt
    }
}

/// Reasons to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A packet to read.
    Packet,
    /// Room for a packet of that length.
    Room(usize),
}

/// How a wait ended. `Ready` means: try again; whatever changed, the next try says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Something changed.
    Ready,
    /// The deadline passed.
    TimedOut,
    /// A signal arrived.
    Interrupted,
}

/// The descriptors that wake a sleeping reader.
#[derive(Debug)]
pub struct Sleep<'a> {
    /// The doorbell.
    pub bell: BorrowedFd<'a>,
    /// Readable when this process changed something about the flow.
    pub news: Option<Arc<OwnedFd>>,
}

#[derive(Debug)]
struct Receiver {
    consumer: Consumer<MappedRing>,
    held: Held,
}

/// One side of a flow.
#[derive(Debug)]
pub struct Endpoint {
    mapping: Arc<Mapping>,
    incoming: MappedRing,
    bell: BellSocket,
    side: usize,
    forks: u32,
    life: AtomicU8,
    corrupt: AtomicBool,
    guarded: Option<Guarded>,
    polled: AtomicBool,
    head: AtomicU64,
    reads_in_a_row: AtomicU32,
    receiver: Mutex<Receiver>,
    producer: Mutex<Producer<MappedRing>>,
    news: News,
    spin_read: Spinner,
    spin_write: Spinner,
    longest: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held leaves positions that are still consistent: they move only after the copy.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoint {
    /// Attach to a flow from the descriptors that the node gave. `side` is 0 or 1. The memory descriptor can be closed after.
    pub fn attach(memory: impl AsFd, bell: OwnedFd, side: usize) -> io::Result<Self> {
        if side > 1 {
            return Err(Errno::INVAL.into());
        }
        let mapping = Arc::new(Mapping::new(memory)?);
        // Else the peer could send an urgent byte, which makes the socket readable and which no plain read finds.
        set_socket_oobinline(&bell, true)?;
        let outgoing = MappedRing::new(Arc::clone(&mapping), side);
        let incoming = || MappedRing::new(Arc::clone(&mapping), 1 - side);
        let receiver = Receiver { consumer: Consumer::new(incoming()), held: Held::default() };
        Ok(Endpoint {
            incoming: incoming(),
            bell: BellSocket { socket: bell, hung_up: AtomicBool::new(false) },
            side,
            forks: FORKS.load(Ordering::Relaxed),
            life: AtomicU8::new(OPEN),
            corrupt: AtomicBool::new(false),
            guarded: None,
            polled: AtomicBool::new(false),
            head: AtomicU64::new(0),
            reads_in_a_row: AtomicU32::new(0),
            receiver: Mutex::new(receiver),
            producer: Mutex::new(Producer::new(outgoing)),
            news: News::default(),
            spin_read: Spinner::new(),
            spin_write: Spinner::new(),
            longest: MAX_PACKET,
            mapping,
        })
    }

    /// Write no packets longer than this, because the network behind the peer's side carries none.
    #[must_use]
    pub fn with_longest(mut self, longest: usize) -> Self {
        self.longest = longest.min(MAX_PACKET);
        self
    }

    /// Encrypt written packets, and decrypt packets that are read. The peer has to do the same, from the first packet on.
    #[must_use]
    pub fn with_guard(mut self, guard: Box<dyn Guard>) -> Self {
        self.longest = self.longest.min(MAX_PACKET - guard.overhead());
        self.guarded = Some(Guarded::new(guard));
        self
    }

    /// Packets that the guard did not let through.
    pub fn rejected(&self) -> u64 {
        self.guarded.as_ref().map_or(0, Guarded::rejected)
    }

    /// The right to read. Errors only for this side's own state; a peer that is gone shows when the queue is empty.
    pub fn reader(&self) -> Result<Reader<'_>, Error> {
        self.usable()?;
        Ok(Reader { endpoint: self, receiver: lock(&self.receiver) })
    }

    /// The right to write. Errors when nothing can be written any more.
    pub fn writer(&self) -> Result<Writer<'_>, Error> {
        self.writable()?;
        let producer = lock(&self.producer);
        // Again, under the lock: `close` waits for it, so that no packet is accepted after the peer was told.
        if self.life.load(Ordering::Relaxed) != OPEN {
            self.usable()?;
            return Err(Error::Abandoned);
        }
        Ok(Writer { endpoint: self, producer })
    }

    /// Look for about a microsecond whether the wish came true.
    pub fn glance(&self, wish: Wish) -> bool {
        match wish {
            _ if self.is_abandoned() => false,
            Wish::Packet => !self.is_swamped() && self.spin_read.glance(self.pauses(), || self.packet_near()),
            Wish::Room(length) => self.spin_write.glance(Pauses::STREAM, || self.room_or_end(length)),
        }
    }

    /// Wait until the wish may have come true, the flow changed, the deadline passed or a signal arrived.
    pub fn wait(&self, wish: Wish, deadline: Option<Instant>) -> Wait {
        let wait = match wish {
            Wish::Packet => self.wait_packet(deadline),
            Wish::Room(length) => self.wait_room(length, deadline),
        };
        // The change is then that there is nothing to wait for any more.
        if wait == Wait::Ready && self.is_abandoned() { self.rest(deadline) } else { wait }
    }

    /// The descriptor that is readable when there may be something to read. From now on it is unreadable when not.
    pub fn pollable(&self) -> Result<BorrowedFd<'_>, Error> {
        self.usable()?;
        self.polled.store(true, Ordering::Relaxed);
        // Dropping a reader settles the doorbell of a polled flow.
        drop(self.reader()?);
        Ok(self.bell.socket.as_fd())
    }

    /// The same descriptor whatever the state of the flow, to take it out of a poller; None in a forked child.
    pub fn bell(&self) -> Option<BorrowedFd<'_>> {
        (self.usable() != Err(Error::Forked)).then(|| self.bell.socket.as_fd())
    }

    /// Spin for a short time, which depends on how that went before, until the wish comes true. Returns whether it did.
    pub fn spin(&self, wish: Wish) -> bool {
        match wish {
            Wish::Packet => self.spin_read.spin(self.pauses(), || self.packet_near()),
            Wish::Room(length) => self.spin_write.spin(Pauses::STREAM, || self.room_or_end(length)),
        }
    }

    /// The end of the flow, or `state::DOWN` of either side: bits of `state`, none while all is well.
    pub fn ended(&self) -> Result<u32, Error> {
        self.usable()?;
        self.bell.check_peer();
        self.known_end()
    }

    /// As `ended`, but without asking the system whether the peer's process is there.
    pub fn known_end(&self) -> Result<u32, Error> {
        self.usable()?;
        Ok(match self.peer_error() {
            Ok(()) => 0,
            Err(Error::PeerClosed) => state::CLOSED,
            Err(Error::Down) => state::DOWN,
            Err(_) => state::DEAD,
        })
    }

    /// Make `pollable` readable only for packets, or when `ended` differs from `seen`.
    pub fn watch(&self, seen: u32) -> Result<(), Error> {
        let mut reader = self.reader()?;
        if reader.receiver.held.is_empty() && reader.next()?.is_none() {
            // A peer that was killed is noticed here, or its reader would be woken again and again by nothing to read.
            let armed = reader.receiver.consumer.arm(&self.bell, || self.ended() != Ok(seen));
            self.note_corrupt(armed)?;
        }
        Ok(())
    }

    /// Packets that arrived and were not read.
    pub fn receive_queue(&self) -> Result<u64, Error> {
        self.usable()?;
        let receiver = lock(&self.receiver);
        Ok(receiver.consumer.queued() + u64::from(receiver.held.unread))
    }

    /// Packets that were written and that the peer did not read yet.
    pub fn transmit_queue(&self) -> Result<u64, Error> {
        self.usable()?;
        Ok(lock(&self.producer).queued())
    }

    /// Whether there is a packet, or an end, that the next reader finds. For a poller that is told of changes only: the
    /// doorbell does not change for a packet that came while the last reader was dropped.
    pub fn has_news(&self) -> bool {
        self.packet_near()
    }

    /// Whether a packet of `length` fits into the ring now.
    pub fn has_room(&self, length: usize) -> Result<bool, Error> {
        self.usable()?;
        let room = lock(&self.producer).has_room(length);
        Ok(self.note_corrupt(room)?)
    }

    /// Set or clear `state::DOWN` and `state::REFUSES` of this side, and wake those who wait at either side. A poller of this
    /// process sees it when it wakes up next.
    pub fn set_state(&self, bits: u32) -> Result<(), Error> {
        self.usable()?;
        let settable = state::DOWN | state::REFUSES;
        let word = &self.mapping.control().state[self.side];
        word.fetch_and(!settable, Ordering::AcqRel);
        word.fetch_or(bits & settable, Ordering::AcqRel);
        if bits & state::DOWN != 0 {
            self.news.tell();
        }
        self.wake_writers();
        let producer = lock(&self.producer);
        if producer.disarm() {
            self.bell.ring();
        }
        drop(producer);
        self.ring_writer(&lock(&self.receiver).consumer);
        Ok(())
    }

    /// Release this side: the peer reads what is queued and is then told; waiting threads of this process return at once.
    /// Does nothing the second time, nor in a forked child.
    pub fn close(&self) {
        self.leave(CLOSED, state::CLOSED);
    }

    /// As `close`, but the peer is told that the process of this side died: for a thread that passes on the packets of a
    /// process that did.
    pub fn close_as_dead(&self) {
        self.leave(CLOSED, state::DEAD);
    }

    fn leave(&self, life: u8, how: u32) {
        if self.forks != FORKS.load(Ordering::Relaxed) {
            return;
        }
        match self.life.fetch_max(life, Ordering::AcqRel) {
            OPEN => {}
            // The peer knows.
            ABANDONED => return self.news.tell(),
            _ => return,
        }
        // Writers of other threads publish the packets that they accepted before they let go of the lock.
        let producer = lock(&self.producer);
        // Pairs with the Acquire load in `state`: all packets are published before the peer can see this.
        self.mapping.control().state[self.side].fetch_or(how, Ordering::Release);
        drop(producer);
        self.wake_all();
    }

    /// In the child of a fork: let go of the socket, a copy of which would hide the parent's death from its peer.
    #[allow(unsafe_code)]
    pub fn disown(&self) -> io::Result<()> {
        if self.forks != FORKS.load(Ordering::Relaxed) {
            let nothing = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            // SAFETY: the descriptor is ours and stays open; it is not dropped twice.
            let mut socket = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.bell.socket.as_raw_fd()) });
            dup2(&nothing, &mut socket)?;
        }
        Ok(())
    }

    /// Whether `close` was called.
    pub fn is_closed(&self) -> bool {
        self.life.load(Ordering::Acquire) == CLOSED
    }

    fn usable(&self) -> Result<(), Error> {
        let life = self.life.load(Ordering::Relaxed);
        if life != OPEN && (life == CLOSED || LEAVER.get() == Some(&thread::current().id())) {
            return Err(Error::Closed);
        }
        if self.forks != FORKS.load(Ordering::Relaxed) {
            return Err(Error::Forked);
        }
        Ok(())
    }

    fn writable(&self) -> Result<(), Error> {
        self.usable()?;
        self.peer_error().map_err(|error| if self.is_abandoned() { Error::Abandoned } else { error })?;
        if self.state(1 - self.side) & state::REFUSES != 0 {
            return Err(Error::Refused);
        }
        Ok(())
    }

    fn state(&self, side: usize) -> u32 {
        self.mapping.control().state[side].load(Ordering::Acquire)
    }

    fn peer_error(&self) -> Result<(), Error> {
        let peer = self.state(1 - self.side);
        if self.corrupt.load(Ordering::Relaxed) {
            Err(Error::Corrupt)
        } else if peer & state::CLOSED != 0 {
            Err(Error::PeerClosed)
        } else if peer & state::DEAD != 0 || self.bell.hung_up.load(Ordering::Relaxed) {
            Err(Error::PeerDead)
        } else if (peer | self.state(self.side)) & state::DOWN != 0 {
            Err(Error::Down)
        } else {
            Ok(())
        }
    }

    /// Whether a try would not just find an empty ring again.
    fn packet_near(&self) -> bool {
        Consumer::peek(&self.incoming, self.head.load(Ordering::Relaxed)) || self.read_ended()
    }

    fn read_ended(&self) -> bool {
        self.usable().is_err() || self.peer_error().is_err()
    }

    fn is_swamped(&self) -> bool {
        self.guarded.as_ref().is_some_and(Guarded::is_swamped)
    }

    fn pauses(&self) -> Pauses {
        if self.reads_in_a_row.load(Ordering::Relaxed) < STREAM { Pauses::ANSWER } else { Pauses::STREAM }
    }

    /// The part of `wait` for a packet that comes before the sleep, for a thread that sleeps by other means: until one of
    /// the descriptors is readable, or the bell hangs up, which `note_hang_up` has to be told. None: try again now.
    pub fn before_sleep(&self) -> Option<Sleep<'_>> {
        if self.spin_read.spin(self.pauses(), || self.packet_near()) {
            return None;
        }
        let news = self.news.subscribe();
        match self.arm(&mut lock(&self.receiver)) {
            Ok(Arm::Armed) if !self.read_ended() => Some(Sleep { bell: self.bell.socket.as_fd(), news }),
            _ => None,
        }
    }

    /// The descriptor hung up, or reported an error.
    pub fn note_hang_up(&self) {
        self.bell.hung_up.store(true, Ordering::Relaxed);
    }

    fn wait_packet(&self, deadline: Option<Instant>) -> Wait {
        // A peer that writes packets faster than they are rejected must not keep the reader beyond its time.
        if self.is_swamped() && deadline.is_some_and(|end| end <= Instant::now()) {
            return Wait::TimedOut;
        }
        let Some(sleep) = self.before_sleep() else { return Wait::Ready };
        match self.bell.poll(sleep.news.as_deref(), deadline) {
            Ok(false) => Wait::TimedOut,
            // A false alarm is settled at the next arming; no number of them may outlast the deadline.
            Ok(_) if !self.packet_near() && deadline.is_some_and(|end| end <= Instant::now()) => Wait::TimedOut,
            Ok(_) => Wait::Ready,
            Err(_) => Wait::Interrupted,
        }
    }

    fn arm(&self, receiver: &mut Receiver) -> Result<Arm, Corrupt> {
        if !receiver.held.is_empty() {
            return Ok(Arm::Ready);
        }
        let armed = receiver.consumer.arm(&self.bell, || self.read_ended());
        self.note_corrupt(armed)
    }

    fn note_corrupt<T>(&self, result: Result<T, Corrupt>) -> Result<T, Corrupt> {
        if result.is_err() && !self.corrupt.swap(true, Ordering::AcqRel) {
            // Other threads may sleep, and the peer's: nothing will come that wakes them.
            self.wake_all();
        }
        result
    }

    /// Tell a writer of the peer that waits in a poller.
    fn ring_writer(&self, consumer: &Consumer<MappedRing>) {
        if consumer.disarm_writer() {
            self.bell.ring();
        }
    }

    /// Wake the readers of both sides (their sockets hang up) and the writers, for good.
    fn wake_all(&self) {
        // An error means that the peer is already gone.
        let _ = shutdown(&self.bell.socket, Shutdown::Both);
        self.wake_writers();
    }

    fn wake_writers(&self) {
        for ring in &self.mapping.control().rings {
            wake_writers(&ring.wait.space);
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // The packets may be half of a whole: the peer must not take this for an end in order.
        if std::thread::panicking() { self.close_as_dead() } else { self.close() }
    }
}

/// The right to read from an endpoint, held for the length of one call.
#[derive(Debug)]
pub struct Reader<'a> {
    endpoint: &'a Endpoint,
    receiver: MutexGuard<'a, Receiver>,
}

impl Reader<'_> {
    /// Bytes of the next packet, or of the rest of a partly read one; 0 for the mark that a packet ended; None: nothing there.
    pub fn available(&mut self) -> Result<Option<usize>, Error> {
        if !self.receiver.held.is_empty() {
            return Ok(Some(self.held_length()));
        }
        if let Some(length) = self.next()? {
            return Ok(Some(length));
        }
        match self.endpoint.peer_error() {
            Ok(()) => Ok(None),
            // The last packets may have come between our first try and the peer's end.
            Err(error) => match self.next()? {
                None if !self.endpoint.is_abandoned() => Err(error),
                next => Ok(next),
            },
        }
    }

    #[inline]
    fn next(&mut self) -> Result<Option<usize>, Error> {
        if self.endpoint.corrupt.load(Ordering::Relaxed) {
            return Err(Error::Corrupt);
        }
        let next = self.endpoint.note_corrupt(self.receiver.consumer.next_length())?;
        match &self.endpoint.guarded {
            Some(guarded) => {
                let receiver = &mut *self.receiver;
                let opened = guarded.open_next(&mut receiver.consumer, next, &mut receiver.held);
                Ok(self.endpoint.note_corrupt(opened)?.then(|| self.held_length()))
            }
            None => Ok(next),
        }
    }

    fn held_length(&self) -> usize {
        if self.receiver.held.end_mark { 0 } else { self.receiver.held.rest().len() }
    }

    /// Copy the first `target.len()` bytes of what is available; the rest stays for the next time.
    pub fn take(&mut self, length: usize, target: &mut [MaybeUninit<u8>]) {
        self.fill(length, target);
    }

    /// As `take`; returns how many bytes of `target` it wrote.
    fn fill(&mut self, length: usize, target: &mut [MaybeUninit<u8>]) -> usize {
        let reads = &self.endpoint.reads_in_a_row;
        reads.store(reads.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        let receiver = &mut *self.receiver;
        receiver.held.unread = false;
        if receiver.held.end_mark {
            receiver.held.end_mark = false;
            0
        } else if !receiver.held.is_empty() {
            let taken = copy(receiver.held.rest(), target);
            receiver.held.advance(taken, self.endpoint.guarded.is_some());
            taken
        } else if target.len() == length {
            receiver.consumer.take(target);
            length
        } else {
            self.hold(length);
            self.fill(length, target)
        }
    }

    /// Append all of what is available, which is `length` bytes.
    #[allow(unsafe_code)]
    pub fn append_to(&mut self, bytes: &mut Vec<u8>, length: usize) {
        bytes.reserve(length);
        let taken = self.fill(length, &mut bytes.spare_capacity_mut()[..length]);
        // SAFETY: `fill` wrote so many bytes of the spare capacity.
        unsafe { bytes.set_len(bytes.len() + taken) };
    }

    /// All of what is available, without taking it.
    pub fn peek(&mut self, length: usize) -> &[u8] {
        if self.receiver.held.is_empty() {
            self.hold(length);
        }
        if self.receiver.held.end_mark { &[] } else { self.receiver.held.rest() }
    }

    /// The next read finds the mark of the end of a packet.
    pub fn mark_end(&mut self) {
        self.receiver.held.end_mark = true;
    }

    fn hold(&mut self, length: usize) {
        let receiver = &mut *self.receiver;
        receiver.held.hold(|bytes| take_into(&mut receiver.consumer, length, bytes));
    }
}

/// Take the next packet, which has `length` bytes, in the place of what is in `bytes`.
#[allow(unsafe_code)]
fn take_into(consumer: &mut Consumer<MappedRing>, length: usize, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.reserve(length);
    consumer.take(&mut bytes.spare_capacity_mut()[..length]);
    // SAFETY: `take` wrote all `length` bytes of the spare capacity.
    unsafe { bytes.set_len(length) };
}

/// Copy as much as both have; returns how much.
fn copy(source: &[u8], target: &mut [MaybeUninit<u8>]) -> usize {
    for (to, from) in target.iter_mut().zip(source) {
        to.write(*from);
    }
    source.len().min(target.len())
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let endpoint = self.endpoint;
        let receiver = &mut *self.receiver;
        if receiver.consumer.release() {
            wake_writers(&endpoint.incoming.control().wait.space);
            endpoint.ring_writer(&receiver.consumer);
        }
        endpoint.head.store(receiver.consumer.head(), Ordering::Relaxed);
        if endpoint.polled.load(Ordering::Relaxed)
            && receiver.consumer.next_length() == Ok(None)
            && endpoint.peer_error().is_ok()
        {
            // A peer that broke the protocol shows at the next call.
            let _ = endpoint.arm(receiver);
        }
    }
}

/// The right to write to an endpoint, held for the length of one call. Staged packets are published when it is dropped.
#[derive(Debug)]
pub struct Writer<'a> {
    endpoint: &'a Endpoint,
    producer: MutexGuard<'a, Producer<MappedRing>>,
}

impl Writer<'_> {
    /// Copy a packet into the ring. False: no room now.
    pub fn stage(&mut self, packet: &[u8]) -> Result<bool, Error> {
        let longest = self.endpoint.longest;
        if packet.len() > longest {
            return Err(Error::TooLong(longest));
        }
        self.endpoint.reads_in_a_row.store(0, Ordering::Relaxed);
        let staged = match &self.endpoint.guarded {
            Some(guarded) => guarded.stage(&mut self.producer, packet).ok_or(Error::Unsealed)?,
            None => self.producer.stage(packet),
        };
        match staged {
            Ok(()) => Ok(true),
            Err(StageError::Full) => Ok(false),
            Err(StageError::TooLong) => Err(Error::TooLong(longest)),
            Err(StageError::Corrupt) => Ok(self.endpoint.note_corrupt(Err(Corrupt))?),
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if self.producer.publish() {
            self.endpoint.bell.ring();
        }
    }
}
