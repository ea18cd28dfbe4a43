//! A UDP layer: the flows of one socket, served by one thread.
//!
//! ```text
//! program ══ ring ══ Flow: Protocol (raw or FRCP) ── Outlet (AEAD, CRC, bad link) ── Batch ── socket ──▶ peer
//!                       ◀───────────────────────────── dispatch by endpoint id ◀────── socket
//! control  ── commands ──▶ thread ── events (management datagrams, ends of flows) ──▶ control
//! ```
//!
//! The thread owns everything; the handle talks to it through two queues. It sleeps in epoll on the socket, the doorbells of
//! the flows and the next deadline, so an idle layer costs nothing. Each datagram begins with the endpoint id of the flow at
//! its receiver; 0 is for management. Whatever is not understood is counted and dropped.

mod batch;
mod credit;
mod flow;
mod outlet;
mod timers;
mod worker;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use ouroboros_shm::endpoint::Endpoint;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use rustix::net::{SendFlags, sendto};

use crate::impair::Settings;

/// Management datagrams that may wait for the control side; more are dropped.
const WAITING: usize = 4096;
/// The longest management datagram; more than that kills a peer that runs the C prototype.
pub const MANAGEMENT: usize = 2048;

/// A flow that the layer is to carry.
#[derive(Debug)]
pub struct Setup {
    /// Ours: packets to us carry it.
    pub eid: u32,
    /// The peer's: packets to it carry it.
    pub peer_eid: u32,
    /// Where the peer is; packets from elsewhere are dropped.
    pub peer: SocketAddr,
    /// The layer's side of the channel of the program.
    pub endpoint: Endpoint,
    /// FRCP on both ends; None: packets as they are.
    pub frcp: Option<ouroboros_frcp::Config>,
    /// Random; chooses the first sequence number.
    pub seed: u64,
    /// Credit on a raw flow, with a peer that knows it.
    pub credit: bool,
    /// Encryption of all packets that are not empty.
    pub crypto: Option<ouroboros_crypto::Session>,
    /// A CRC32 on each packet.
    pub crc: bool,
    /// The longest datagram that crosses the path to the peer in one piece, bytes, without the headers of IP and UDP.
    pub mtu: usize,
    /// Milliseconds of silence after which the peer is dead; 0: never.
    pub timeout: u32,
}

/// How a flow of the layer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The program let go, and what it wrote was sent, or acknowledged on a reliable flow.
    Closed,
    /// Likewise, but the program died.
    Died,
    /// The peer deallocated or died.
    Gone,
    /// The peer was silent for longer than the timeout of the flow.
    Peer,
    /// What was sent was not acknowledged in time.
    Down,
}

/// News for the control side.
#[derive(Debug)]
pub enum Event {
    /// A management datagram, endpoint id 0 included.
    Management(Vec<u8>, SocketAddr),
    /// A flow ended; its endpoint id is free.
    Ended(u32, How, Box<FlowCounters>),
}

/// What became of the packets of a flow.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlowCounters {
    /// Packets sent, keepalives and packets of FRCP among them, and bytes of them without endpoint ids.
    pub sent: u64,
    /// See `sent`.
    pub sent_bytes: u64,
    /// Packets received, likewise.
    pub received: u64,
    /// See `received`.
    pub received_bytes: u64,
    /// Messages that the program got.
    pub delivered: u64,
    /// Packets lost because the program reads too slowly.
    pub overrun: u64,
    /// Packets whose checksum was wrong.
    pub damaged: u64,
    /// Packets of an encrypted flow that the peer did not send as they came.
    pub rejected: u64,
    /// Packets of an encrypted flow that came before, or were sent back.
    pub replayed: u64,
    /// Messages of the program that were longer than the flow carries.
    pub too_long: u64,
    /// Of FRCP, if the flow has it.
    pub frcp: Option<ouroboros_frcp::Stats>,
}

/// What became of the datagrams of a layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct LayerCounters {
    /// Datagrams received.
    pub received: u64,
    /// Calls of the kernel that sent something.
    pub calls: u64,
    /// Calls of the kernel that failed.
    pub errors: u64,
    /// Datagrams for no flow of ours.
    pub unknown: u64,
    /// Datagrams from another address than that of the peer.
    pub wrong_source: u64,
    /// Datagrams shorter than their headers.
    pub short: u64,
    /// Management datagrams that were too long, or too many.
    pub refused: u64,
    /// Packets lost on the links of an impaired layer.
    pub lost: u64,
    /// Packets sent twice there.
    pub duplicated: u64,
    /// Packets overtaken there.
    pub reordered: u64,
}

/// The state of a layer at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Of the layer.
    pub layer: LayerCounters,
    /// Of its flows, by endpoint id.
    pub flows: Vec<(u32, FlowCounters)>,
}

#[derive(Debug)]
enum Command {
    Add(Box<Setup>),
    Reserve(u32, SocketAddr),
    Unreserve(u32),
    PeerGone(u32, bool),
    Send(Vec<u8>, SocketAddr),
    Impair(Settings, u64),
    Snapshot(mpsc::Sender<Snapshot>),
    Stop,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// For datagrams that control sends itself.
    socket: OwnedFd,
    /// Management datagrams go through a bad link.
    impaired: AtomicBool,
    commands: Mutex<Vec<Command>>,
    /// Readable while there are commands that cannot wait.
    wake: OwnedFd,
    events: Mutex<VecDeque<Event>>,
    /// Readable while there are events.
    news: OwnedFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn now(&self) -> u64 {
        // Enough for 584 years.
        self.start.elapsed().as_nanos() as u64
    }

    fn command(&self, command: Command) {
        lock(&self.commands).push(command);
        ring(&self.wake);
    }

    /// A command that the thread need not know before it looks at a datagram that arrives from now on.
    fn command_later(&self, command: Command) {
        lock(&self.commands).push(command);
    }

    fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut *lock(&self.commands))
    }

    /// False: there are too many already. Ends of flows always find room.
    fn tell(&self, event: Event) -> bool {
        let mut events = lock(&self.events);
        if events.len() >= WAITING && matches!(event, Event::Management(..)) {
            return false;
        }
        events.push_back(event);
        if events.len() == 1 {
            ring(&self.news);
        }
        true
    }
}

fn ring(descriptor: &OwnedFd) {
    // An eventfd takes a 1 unless it is full, and then it is readable anyway.
    let _ = write(descriptor, &1u64.to_ne_bytes());
}

fn hush(descriptor: &OwnedFd) {
    // That it is not readable any more is no error.
    let _ = read(descriptor, &mut [0u8; 8]);
}

/// The handle of one UDP layer. Stops when dropped.
#[derive(Debug)]
pub struct UdpLayer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl UdpLayer {
    /// Serve a bound socket, without flows.
    pub fn start(socket: OwnedFd) -> io::Result<Self> {
        let descriptor = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            start: Instant::now(),
            socket: socket.try_clone()?,
            impaired: AtomicBool::new(false),
            commands: Mutex::default(),
            wake: descriptor()?,
            events: Mutex::default(),
            news: descriptor()?,
        });
        let worker = worker::Worker::new(Arc::clone(&shared), socket)?;
        let thread = std::thread::Builder::new().name("udp".into()).spawn(move || worker.run())?;
        Ok(UdpLayer { shared, thread: Some(thread) })
    }

    /// Carry a flow.
    pub fn add(&self, setup: Setup) {
        self.shared.command(Command::Add(Box::new(setup)));
    }

    /// Keep the first packets for an endpoint id that come from an address until `add` or `unreserve`.
    pub fn reserve(&self, eid: u32, peer: SocketAddr) {
        self.shared.command_later(Command::Reserve(eid, peer));
    }

    /// Forget what `reserve` kept. No error when there is nothing.
    pub fn unreserve(&self, eid: u32) {
        self.shared.command_later(Command::Unreserve(eid));
    }

    /// The peer of a flow deallocated, or `died`: its program gets what has arrived, then the end. No error when there is
    /// none.
    pub fn peer_gone(&self, eid: u32, died: bool) {
        self.shared.command(Command::PeerGone(eid, died));
    }

    /// Send a management datagram.
    pub fn send(&self, datagram: &[u8], to: SocketAddr) {
        if self.shared.impaired.load(Ordering::Relaxed) {
            self.shared.command(Command::Send(datagram.to_vec(), to));
        } else {
            // A full socket or a way that is not there: lost, as anywhere on the way.
            let _ = sendto(&self.shared.socket, datagram, SendFlags::DONTWAIT, &to);
        }
    }

    /// Let this happen to all that is sent from now on.
    pub fn impair(&self, settings: Settings, seed: u64) {
        self.shared.impaired.store(true, Ordering::Relaxed);
        self.shared.command(Command::Impair(settings, seed));
    }

    /// The descriptor that is readable while `take_events` has something.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.shared.news.as_fd()
    }

    /// All that has happened since the last time.
    pub fn take_events(&self) -> VecDeque<Event> {
        let mut events = lock(&self.shared.events);
        hush(&self.shared.news);
        std::mem::take(&mut *events)
    }

    /// How the layer and its flows do; empty when it has stopped.
    pub fn snapshot(&self) -> Snapshot {
        let (to, from) = mpsc::channel();
        self.shared.command(Command::Snapshot(to));
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Snapshot::default();
        }
        from.recv().unwrap_or_default()
    }

    /// End the layer: all its flows go down.
    pub fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.command(Command::Stop);
            // A panic of the thread was printed already; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Drop for UdpLayer {
    fn drop(&mut self) {
        self.stop();
    }
}
