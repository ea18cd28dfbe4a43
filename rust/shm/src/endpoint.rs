//! One side of a flow: reading, writing, waiting, going down. Safe to use from any number of threads.

use core::mem::ManuallyDrop;
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
use crate::ring::{Consumer, Corrupt, Producer};
use crate::spin::{Pauses, Spinner};

mod access;
mod bell;
mod guard;
mod news;
mod packet;
mod rest;
mod room;

pub use self::access::{Reader, Writer};
pub use self::guard::Guard;

/// How often in a row a call may try again at once because something seemed to be there. A peer whose words flicker can make
/// it seem so for ever; after that a call lets others go on, and reads the clock.
pub const GLANCES: u32 = 8;

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
