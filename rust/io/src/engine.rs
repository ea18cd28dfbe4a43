//! The engine of a node: one thread that carries the packets of all layers, whatever they are, and its handle.
//!
//! ```text
//! control ── commands ──▶ Driver ── events (management datagrams, ends of flows) ──▶ control
//! programs ══ rings ══▶   Stack   ◀══ sockets
//! ```
//!
//! The thread owns everything; the handle talks to it through two queues. If the thread dies, all flows end as died, and the
//! handle says why.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;

use ouroboros_shm::descriptors::above_standard;
use ouroboros_stack::link::Settings;
use ouroboros_stack::ring::Ring;
use ouroboros_stack::{Event, FlowId, Kind, MemberId, Names, Setup, Snapshot, Table, TransferSettings, User, Where};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

use crate::board::Board;
use crate::driver::Driver;
use crate::ether::Segment;
use crate::program::Program;
use crate::socket::Socket;
use crate::thread::Thread;

/// Management datagrams of one port that may wait for the control side, and datagrams and packets that came by one flow below;
/// more are dropped. Messages of a flow that control has are those of one neighbour, which may have much to say at once.
const FROM_PORT: usize = 4096;
const FROM_FLOW: usize = 128;
const MESSAGES: usize = 1024;

pub(crate) enum Command {
    OpenPort(MemberId, Box<Socket>, mpsc::Sender<io::Result<()>>),
    OpenMember(MemberId, Kind),
    OpenUnicast(MemberId, TransferSettings),
    ChangeUnicast(MemberId, TransferSettings),
    Route(MemberId, Box<Table>),
    HandOver(MemberId, FlowId, u32, (usize, bool)),
    Resize(FlowId, usize, usize, usize),
    TakeBack(MemberId, FlowId),
    SendPdu(MemberId, u32, u64, u8, Vec<u8>),
    SendMessage(FlowId, Vec<u8>),
    Close(MemberId, bool, mpsc::Sender<()>),
    Add(Vec<Setup<Program>>, Option<mpsc::Sender<()>>),
    Reserve(MemberId, u64, Option<Where>),
    Unreserve(MemberId, u64),
    PeerGone(MemberId, u64, bool),
    NoteDevice(MemberId, bool, bool),
    End(FlowId),
    Doom(FlowId),
    Drop(FlowId),
    Hand(FlowId, Box<User<Program>>),
    Say(MemberId, Where, Vec<u8>),
    Guard(MemberId, Box<[u8; 32]>),
    Impair(MemberId, Settings, u64, mpsc::Sender<()>),
    Snapshot(MemberId, mpsc::Sender<Snapshot>),
    Held(mpsc::Sender<Vec<(i64, usize)>>),
    Stop,
    Panic,
}

/// Orders to the thread.
#[derive(Default)]
struct Commands {
    waiting: Vec<Command>,
    /// The thread is gone.
    abandoned: bool,
}

impl Commands {
    /// No order will be carried out any more, waiting or new: flows that were to be carried end as died.
    fn abandon(&mut self) {
        self.abandoned = true;
        for command in self.waiting.drain(..) {
            if let Command::Add(setups, _) = command {
                for setup in setups {
                    if let User::Program(ring) = setup.user {
                        ring.close(true);
                    }
                }
            }
        }
    }
}

/// Where news come from: a flow below, or else a port of a member.
type Source = (Option<FlowId>, Option<MemberId>);

/// News for control: from each source in order, from all sources in turn, and news without a source first.
#[derive(Debug, Default)]
struct News {
    others: VecDeque<Event<Program>>,
    lanes: BTreeMap<Source, VecDeque<Event<Program>>>,
    /// Lanes that are not empty.
    order: VecDeque<Source>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.others.is_empty() && self.order.is_empty()
    }

    /// False: there is no room for a datagram, a message or a packet. All else always finds room.
    fn push(&mut self, event: Event<Program>) -> bool {
        let (source, most) = match &event {
            Event::Datagram(member, Where::Address(_), _) => ((None, Some(*member)), FROM_PORT),
            Event::Datagram(_, Where::Flow(flow), _) | Event::Heard(_, _, Some(flow), _) => {
                ((Some(*flow), None), FROM_FLOW)
            }
            Event::Message(flow, _) => ((Some(*flow), None), MESSAGES),
            // Behind what came over it.
            Event::Ended(flow, ..) if self.lanes.contains_key(&(Some(*flow), None)) => {
                ((Some(*flow), None), usize::MAX)
            }
            _ => {
                self.others.push_back(event);
                return true;
            }
        };
        let lane = self.lanes.entry(source).or_default();
        if lane.len() >= most {
            return false;
        }
        if lane.is_empty() {
            self.order.push_back(source);
        }
        lane.push_back(event);
        true
    }

    fn pop(&mut self) -> Option<Event<Program>> {
        if let Some(other) = self.others.pop_front() {
            return Some(other);
        }
        let source = self.order.pop_front()?;
        let lane = self.lanes.get_mut(&source)?;
        let event = lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&source);
        } else {
            self.order.push_back(source);
        }
        event
    }
}

pub(crate) struct Shared {
    start: Instant,
    commands: Mutex<Commands>,
    /// Readable while there are commands that cannot wait.
    pub(crate) wake: OwnedFd,
    events: Mutex<News>,
    /// Readable while there are events, or the thread failed.
    news: Arc<OwnedFd>,
    flows: Mutex<Names>,
    members: Mutex<Names>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Nanoseconds since the engine began.
    pub(crate) fn now(&self) -> u64 {
        // Enough for 584 years.
        self.start.elapsed().as_nanos() as u64
    }

    fn command(&self, command: Command) {
        self.command_later(command);
        ring(&self.wake);
    }

    /// A command that the thread need not know before it looks at a datagram that arrives from now on.
    fn command_later(&self, command: Command) {
        let mut commands = lock(&self.commands);
        commands.waiting.push(command);
        if commands.abandoned {
            commands.abandon();
        }
    }

    pub(crate) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut lock(&self.commands).waiting)
    }

    /// False: it is lost, because there are too many already.
    pub(crate) fn tell(&self, event: Event<Program>) -> bool {
        let mut events = lock(&self.events);
        let first = events.is_empty();
        let told = events.push(event);
        // Whoever is woken up takes them, and must not find them locked.
        drop(events);
        if first && told {
            ring(&self.news);
        }
        told
    }
}

fn ring(descriptor: &OwnedFd) {
    // An eventfd takes a 1 unless it is full, and then it is readable anyway.
    let _ = write(descriptor, &1u64.to_ne_bytes());
}

pub(crate) fn hush(descriptor: &OwnedFd) {
    // That it is not readable any more is no error.
    let _ = read(descriptor, &mut [0u8; 8]);
}

/// The handle of the engine. Stops it when dropped.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Engine {
    /// Start the thread, without members and flows.
    pub fn start() -> io::Result<Self> {
        Self::start_with(None)
    }

    /// Likewise; counters are shown on the board.
    pub fn start_with(board: Option<Board>) -> io::Result<Self> {
        let descriptor = || above_standard(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let shared = Arc::new(Shared {
            start: Instant::now(),
            commands: Mutex::default(),
            wake: descriptor()?,
            events: Mutex::default(),
            news: Arc::new(descriptor()?),
            flows: Mutex::default(),
            members: Mutex::default(),
        });
        let driver = Driver::new(Arc::clone(&shared), board)?;
        let (left, news) = (Arc::clone(&shared), Arc::clone(&shared.news));
        let thread = Thread::start("engine", Some(news), move || driver.run(), move || lock(&left.commands).abandon())?;
        Ok(Engine { shared, thread })
    }

    // --- members

    /// A member with a port: a bound socket of UDP, which does not block, or one of packets, with what it is bound to.
    pub fn open_port(&self, socket: OwnedFd, segment: Option<Segment>) -> io::Result<MemberId> {
        let socket = Box::new(Socket::new(socket, segment)?);
        let member = lock(&self.shared.members).draw();
        match self.ask(|answer| Command::OpenPort(member, socket, answer)) {
            Some(Err(error)) => {
                lock(&self.shared.members).give_back(member);
                Err(error)
            }
            // One that has failed says so by itself.
            Some(Ok(())) | None => Ok(member),
        }
    }

    /// Let strangers prove their address at a port, and bound what they cause. `secret`: random.
    pub fn guard(&self, member: MemberId, secret: &[u8; 32]) {
        self.shared.command(Command::Guard(member, Box::new(*secret)));
    }

    /// A member without one.
    pub fn open_member(&self, kind: Kind) -> MemberId {
        let member = lock(&self.shared.members).draw();
        self.shared.command(Command::OpenMember(member, kind));
        member
    }

    /// A member of a unicast layer.
    pub fn open_unicast(&self, settings: TransferSettings) -> MemberId {
        let member = lock(&self.shared.members).draw();
        self.shared.command(Command::OpenUnicast(member, settings));
        member
    }

    /// It is told something else from now on.
    pub fn change_unicast(&self, member: MemberId, settings: TransferSettings) {
        self.shared.command(Command::ChangeUnicast(member, settings));
    }

    /// Its ways from now on.
    pub fn route(&self, member: MemberId, table: Table) {
        self.shared.command(Command::Route(member, Box::new(table)));
    }

    /// A lower flow, which was the control side's, leads to a neighbour from now on. `most`: the longest packet that it
    /// carries. `ours`: the neighbour is a node of ours, which is not paced.
    pub fn hand_over(&self, member: MemberId, lower: FlowId, neighbour: u32, (most, ours): (usize, bool)) {
        self.shared.command(Command::HandOver(member, lower, neighbour, (most, ours)));
    }

    /// What is below a flow carries packets of other lengths from now on, see `Stack::resize`.
    pub fn resize(&self, flow: FlowId, packet: usize, mtu: usize, most: usize) {
        self.shared.command(Command::Resize(flow, packet, mtu, most));
    }

    /// Nothing is sent by a lower flow any more.
    pub fn take_back(&self, member: MemberId, lower: FlowId) {
        self.shared.command(Command::TakeBack(member, lower));
    }

    /// Send a packet of a component of a member. `ttl`: 0 for that of the layer.
    pub fn send_pdu(&self, member: MemberId, destination: u32, eid: u64, ttl: u8, data: &[u8]) {
        self.shared.command(Command::SendPdu(member, destination, eid, ttl, data.to_vec()));
    }

    /// Send a packet by a lower flow that the control side has.
    pub fn send_message(&self, lower: FlowId, data: &[u8]) {
        self.shared.command(Command::SendMessage(lower, data.to_vec()));
    }

    /// End a member and its flows, and wait until its socket is closed. Staged datagrams have left, as far as the kernel
    /// takes it now. `died`: its programs see it as a death of their peers.
    pub fn close(&self, member: MemberId, died: bool) {
        self.ask(|done| Command::Close(member, died, done));
    }

    /// Let this happen to all that a member sends, and programs write, once this has returned.
    pub fn impair(&self, member: MemberId, settings: Settings, seed: u64) {
        self.ask(|done| Command::Impair(member, settings, seed, done));
    }

    /// Send a management datagram, behind the packets of all flows whose ends were told.
    pub fn say(&self, member: MemberId, to: Where, data: &[u8]) {
        self.shared.command(Command::Say(member, to, data.to_vec()));
    }

    /// How a member and its flows do; empty when the engine has stopped.
    pub fn snapshot(&self, member: MemberId) -> Snapshot {
        self.ask(|answer| Command::Snapshot(member, answer)).unwrap_or_default()
    }

    /// Memory that flows share, by the key of the account, bytes.
    pub fn held(&self) -> Vec<(i64, usize)> {
        self.ask(Command::Held).unwrap_or_default()
    }

    /// The answer of the thread, if it lives.
    fn ask<T>(&self, command: impl FnOnce(mpsc::Sender<T>) -> Command) -> Option<T> {
        let (to, from) = mpsc::channel();
        self.shared.command(command(to));
        if self.thread.has_ended() {
            return None;
        }
        from.recv().ok()
    }

    /// Nanoseconds since the engine began.
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    // --- flows

    /// A name for a flow that is to be carried.
    pub fn name(&self) -> FlowId {
        lock(&self.shared.flows).draw()
    }

    /// The name of a flow that will not be carried.
    pub fn unname(&self, flow: FlowId) {
        lock(&self.shared.flows).give_back(flow);
    }

    /// Carry flows, of which the two ends of a loop have to come together.
    pub fn add(&self, setups: Vec<Setup<Program>>) {
        self.shared.command(Command::Add(setups, None));
    }

    /// Carry a flow of a broadcast member, and wait until it is there: it gets all that others write from then on.
    pub fn join(&self, setup: Setup<Program>) {
        self.ask(|done| Command::Add(vec![setup], Some(done)));
    }

    /// Keep the first packets for an endpoint id that come from a peer, or for None from any, until `add` or `unreserve`.
    pub fn reserve(&self, member: MemberId, eid: u64, from: Option<Where>) {
        self.shared.command_later(Command::Reserve(member, eid, from));
    }

    /// Forget what `reserve` kept. No error when there is nothing.
    pub fn unreserve(&self, member: MemberId, eid: u64) {
        self.shared.command_later(Command::Unreserve(member, eid));
    }

    /// The peer of a flow deallocated, or `died`: its user gets what has arrived, then the end. No error when there is none.
    pub fn peer_gone(&self, member: MemberId, eid: u64, died: bool) {
        self.shared.command(Command::PeerGone(member, eid, died));
    }

    /// The device of a port is on, and carries frames, or not; see `Stack::note_device`.
    pub fn note_device(&self, member: MemberId, on: bool, carries: bool) {
        self.shared.command(Command::NoteDevice(member, on, carries));
    }

    /// The user of a flow, which is no program, lets go: what it sent is still delivered.
    pub fn end(&self, flow: FlowId) {
        self.shared.command(Command::End(flow));
    }

    /// The program of a flow died, which its doorbell need not show. What it wrote before still arrives.
    pub fn doom(&self, flow: FlowId) {
        self.shared.command(Command::Doom(flow));
    }

    /// A flow is over at once. No error when it is not there.
    pub fn drop_flow(&self, flow: FlowId) {
        self.shared.command(Command::Drop(flow));
    }

    /// A flow that was the control side's belongs to another user from now on.
    pub fn hand(&self, flow: FlowId, user: User<Program>) {
        self.shared.command(Command::Hand(flow, Box::new(user)));
    }

    // --- news

    /// The descriptor that is readable while `take_events` has something, and when the engine has failed.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.shared.news.as_fd()
    }

    /// What has happened since the last time, so many events at the most; then `news` stays readable. Those whose flows and
    /// members ended have given up their names.
    pub fn take_events(&self, most: usize) -> Vec<Event<Program>> {
        let mut news = lock(&self.shared.events);
        let events: Vec<_> = std::iter::from_fn(|| news.pop()).take(most).collect();
        if news.is_empty() {
            hush(&self.shared.news);
        }
        drop(news);
        for event in &events {
            match event {
                Event::Ended(flow, ..) => lock(&self.shared.flows).give_back(*flow),
                Event::Closed(member, _) => lock(&self.shared.members).give_back(*member),
                _ => {}
            }
        }
        events
    }

    /// Why the engine ended by itself, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.thread.failure()
    }

    /// Let the thread panic, for tests.
    pub fn panic(&self) {
        self.shared.command(Command::Panic);
    }

    /// End the engine: all its flows end as died.
    pub fn stop(&mut self) {
        self.thread.end(|| self.shared.command(Command::Stop));
        lock(&self.shared.commands).abandon();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(flow: FlowId) -> Event<Program> {
        Event::Ended(flow, ouroboros_stack::How::Closed, Box::default(), None)
    }

    #[test]
    fn sources_are_served_in_turn_and_an_end_comes_behind_what_was_said_before() {
        let (member, busy, quiet) = (MemberId::from(1), FlowId::from(1), FlowId::from(2));
        let said = |flow, word: u8| Event::Datagram(member, Where::Flow(flow), vec![word]);
        let mut news = News::default();
        for word in 0..200 {
            assert_eq!(news.push(said(busy, word)), usize::from(word) < FROM_FLOW);
        }
        assert!(news.push(said(quiet, 7)) && news.push(ended(quiet)) && news.push(ended(FlowId::from(3))));
        let order: Vec<_> = std::iter::from_fn(|| news.pop())
            .map(|event| match event {
                Event::Datagram(_, Where::Flow(flow), data) => (u64::from(flow), data.first().copied()),
                Event::Ended(flow, ..) => (flow.into(), None),
                _ => (0, None),
            })
            .collect();
        assert_eq!(order[..5], [(3, None), (1, Some(0)), (2, Some(7)), (1, Some(1)), (2, None)]);
        assert_eq!(order.len(), FROM_FLOW + 3);
        assert!(news.is_empty() && news.lanes.is_empty());
    }
}
