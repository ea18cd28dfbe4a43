//! The thread of the engine: one loop around the stack. It sleeps in epoll on the sockets, the doorbells of the programs, the
//! commands and the next deadline, so an idle node costs nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ouroboros_shm::descriptors::{Backlog, above_standard};
use ouroboros_stack::{Event, FlowId, How, MemberId, Setup, Stack, User, publish_flow, publish_member};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::board::Board;
use crate::engine::{Command, Shared, hush};
use crate::program::Program;
use crate::socket::{Arrivals, Socket};
use crate::thread::{PROVOKED, give_up};

/// Calls of the kernel that receive from one socket, until others get their turn.
const ROUNDS: usize = 4;
/// Packets of others that are passed on, while flows of this node have something to do, until those get their turn.
const TRANSIT: u64 = 256;
/// Turns of flows until sockets are looked at again.
const TURNS: usize = 256;
/// How long to spin before sleeping: about the cost of a sleep and a wake-up on both sides.
const SPIN: Duration = Duration::from_micros(100);
/// A yield that takes longer has let others run.
const SHARED: Duration = Duration::from_micros(5);
const NOTHING: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// After so many spins in vain, spin only every `PROBE`th time.
const PATIENCE: u32 = 8;
const PROBE: u32 = 64;
/// Counters are shown when there is nothing more to do, and at the latest after so many nanoseconds.
const SHOW: u64 = 100_000_000;
/// The epoll keys: of the commands, and of a port. Those of flows are smaller.
const COMMANDS: u64 = u64::MAX;
const PORT: u64 = 1 << 63;

#[derive(Debug)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    stack: Stack<Program>,
    ports: Vec<(MemberId, Socket)>,
    arrivals: Option<Box<Arrivals>>,
    /// When it looked for events last: all earlier arrivals are known.
    looked_at: u64,
    /// All of that was told: there was room for more events.
    saw_all: bool,
    stopped: bool,
    board: Option<Board>,
    /// When counters were shown last.
    shown_at: u64,
    /// How often spinning has paid lately, and how often there was a choice.
    patience: u32,
    spins: u32,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, board: Option<Board>) -> io::Result<Self> {
        let epoll = above_standard(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        epoll::add(&epoll, &shared.wake, epoll::EventData::new_u64(COMMANDS), epoll::EventFlags::IN)?;
        let mut stack = Stack::default();
        if board.is_some() {
            stack.show();
        }
        Ok(Driver {
            shared,
            epoll,
            stack,
            ports: Vec::new(),
            arrivals: None,
            looked_at: 0,
            saw_all: false,
            stopped: false,
            board,
            shown_at: 0,
            patience: PATIENCE,
            spins: 0,
        })
    }

    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        while !self.stopped {
            self.wait(&mut events);
            self.saw_all = events.len() < events.capacity();
            for event in &events {
                match event.data.u64() {
                    COMMANDS => {
                        hush(&self.shared.wake);
                        self.obey();
                    }
                    key if key & PORT != 0 => self.handle_port((key & !PORT).into(), event.flags),
                    key => self.handle_program(key.into(), event.flags),
                }
            }
            self.receive();
            self.pass_time();
            self.serve();
            self.drain();
            self.tell();
            self.show();
        }
    }

    /// Show what was counted.
    fn show(&mut self) {
        let Some(board) = &mut self.board else { return };
        let is_busy = self.stack.has_work() || self.ports.iter().any(|(_, socket)| socket.readable);
        if is_busy && self.shared.now() < self.shown_at + SHOW {
            return;
        }
        self.shown_at = self.looked_at;
        if self.stack.publish(board) {
            board.note_time();
        }
    }

    // --- sleep

    fn wait(&mut self, events: &mut Vec<epoll::Event>) {
        events.clear();
        let timeout = self.time_left();
        self.looked_at = self.shared.now();
        if timeout == Some(NOTHING) || !self.spin(events, timeout.as_ref()) {
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => give_up(format_args!("waiting failed: {error}")),
            }
        }
    }

    /// Look for events for a moment before sleeping, and let others run meanwhile: an answer that comes soon then finds the
    /// processor awake. Whether that pays is learned from the last times.
    fn spin(&mut self, events: &mut Vec<epoll::Event>, timeout: Option<&Timespec>) -> bool {
        if timeout.is_some_and(|left| left.tv_sec == 0 && left.tv_nsec < SPIN.as_nanos() as i64) {
            return false;
        }
        self.spins = self.spins.wrapping_add(1);
        if self.patience == 0 && !self.spins.is_multiple_of(PROBE) {
            return false;
        }
        let start = Instant::now();
        while start.elapsed() < SPIN {
            self.looked_at = self.shared.now();
            let found = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&NOTHING));
            if found.is_ok_and(|count| count > 0) {
                self.patience = (self.patience + 1).min(PATIENCE);
                return true;
            }
            let before = Instant::now();
            std::thread::yield_now();
            if before.elapsed() > SHARED {
                // Others want this processor, so it stays awake without us, and each further turn would be at their cost.
                return false;
            }
        }
        self.patience = self.patience.saturating_sub(1);
        false
    }

    /// How long to sleep; None: until something happens.
    fn time_left(&self) -> Option<Timespec> {
        if self.stack.has_work() || self.ports.iter().any(|(_, socket)| socket.readable) {
            return Some(NOTHING);
        }
        self.stack.deadline().map(|at| {
            let left = Duration::from_nanos(at.saturating_sub(self.shared.now()));
            // The longest time is bounded by u64 nanoseconds, far below 2^63 s.
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        })
    }

    // --- commands

    fn obey(&mut self) {
        for command in self.shared.take_commands() {
            let now = self.shared.now();
            match command {
                Command::OpenPort(member, socket, answer) => {
                    let _ = answer.send(self.open_port(member, *socket));
                }
                Command::OpenMember(member, kind) => self.stack.open_member(member, kind),
                Command::OpenUnicast(member, settings) => self.stack.open_unicast(member, settings),
                Command::ChangeUnicast(member, settings) => self.stack.change_unicast(member, settings),
                Command::Route(member, table) => self.stack.route(member, *table),
                Command::HandOver(member, lower, neighbour, about) => {
                    self.stack.hand_over(now, member, lower, neighbour, about);
                }
                Command::Resize(flow, packet, mtu, most) => self.stack.resize(flow, packet, mtu, most),
                Command::TakeBack(member, lower) => self.stack.take_back(member, lower),
                Command::SendPdu(member, destination, eid, ttl, data) => {
                    self.relieve();
                    self.stack.send_pdu(now, member, destination, eid, ttl, &data);
                }
                Command::SendMessage(lower, data) => {
                    self.relieve();
                    self.stack.send_message(now, lower, &data);
                }
                Command::Close(member, died, done) => {
                    self.close(member, died);
                    // The caller may have stopped waiting.
                    let _ = done.send(());
                }
                Command::Add(setups, done) => {
                    self.add_all(now, setups);
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }
                Command::Reserve(member, eid, from) => self.stack.reserve(member, eid, from),
                Command::Unreserve(member, eid) => self.stack.unreserve(member, eid),
                Command::PeerGone(member, eid, died) => self.stack.peer_gone(member, eid, died),
                Command::NoteDevice(member, on, carries) => self.stack.note_device(now, member, on, carries),
                Command::End(flow) => self.stack.end(now, flow),
                Command::Doom(flow) => self.stack.doom(flow),
                Command::Drop(flow) => self.stack.drop_flow(flow),
                Command::Hand(flow, user) => self.stack.hand(now, flow, *user),
                Command::Say(member, to, data) => {
                    self.relieve();
                    self.stack.say(now, member, to, &data);
                }
                Command::Guard(member, secret) => self.stack.guard(member, &secret),
                Command::Impair(member, settings, seed, done) => {
                    self.stack.impair(member, settings, seed);
                    let _ = done.send(());
                }
                Command::Snapshot(member, answer) => {
                    let _ = answer.send(self.stack.snapshot(member));
                }
                Command::Held(answer) => {
                    let _ = answer.send(self.stack.held());
                }
                Command::Stop => self.stop(),
                Command::Panic => give_up(PROVOKED),
            }
        }
    }

    fn open_port(&mut self, member: MemberId, socket: Socket) -> io::Result<()> {
        let both = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let key = epoll::EventData::new_u64(u64::from(member) | PORT);
        epoll::add(&self.epoll, &socket.descriptor, key, both)?;
        self.stack.open_port(member, socket.segments(), socket.room);
        if socket.is_foreign() {
            self.stack.leave_management(member);
        }
        self.ports.push((member, socket));
        Ok(())
    }

    fn close(&mut self, member: MemberId, died: bool) {
        self.drain();
        self.stack.close_member(member, died);
        self.tell();
        self.ports.retain(|(port, _)| *port != member);
    }

    /// Carry all of them, or none: one end of a loop is nothing without the other.
    fn add_all(&mut self, now: u64, setups: Vec<Setup<Program>>) {
        let flows: Vec<_> = setups.iter().map(|setup| setup.id).collect();
        let added: Vec<_> = setups.into_iter().map(|setup| self.add(now, setup)).collect();
        if added.contains(&false) {
            flows.into_iter().for_each(|flow| self.stack.drop_flow(flow));
        }
    }

    fn add(&mut self, now: u64, setup: Setup<Program>) -> bool {
        let id = setup.id;
        let watched = match &setup.user {
            User::Program(ring) => watch(&self.epoll, ring, id),
            _ => true,
        };
        let added = watched && self.stack.add(now, setup);
        if !added {
            // Out of memory for epoll, or its layer has ended: the program sees its flow end.
            self.shared.tell(Event::Ended(id, How::Closed, Box::default(), None));
        }
        added
    }

    fn stop(&mut self) {
        self.drain();
        self.stopped = true;
        for member in self.stack.members() {
            self.stack.close_member(member, true);
        }
    }

    // --- what happened

    fn handle_port(&mut self, port: MemberId, flags: epoll::EventFlags) {
        if let Some((_, socket)) = self.ports.iter_mut().find(|(member, _)| *member == port) {
            socket.readable |= flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::ERR);
        }
        if flags.contains(epoll::EventFlags::OUT) {
            self.stack.unblocked(port);
        }
    }

    fn handle_program(&mut self, flow: FlowId, flags: epoll::EventFlags) {
        if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::RDHUP | epoll::EventFlags::ERR)
            && let Some(ring) = self.stack.ring(flow)
        {
            ring.note_hang_up();
        }
        self.stack.rang(flow);
    }

    fn receive(&mut self) {
        if self.ports.is_empty() {
            return;
        }
        let mut arrivals = self.arrivals.take().unwrap_or_else(|| Box::new(Arrivals::new()));
        for at in 0..self.ports.len() {
            for round in 0..ROUNDS {
                let Some((port, socket)) = self.ports.get_mut(at).filter(|(_, socket)| socket.readable) else { break };
                let port = *port;
                if socket.receive(&mut arrivals) {
                    if round == 0
                        && (arrivals.many || self.stack.is_marked(port))
                        && let Some(Backlog { held, room, dropped }) = socket.backlog()
                    {
                        self.stack.note_backlog(port, held, room, dropped);
                    }
                    // Reservations that were made before these datagrams were caused must be known.
                    self.obey();
                    let now = self.shared.now();
                    while arrivals.hand(now, port, &mut self.stack) {
                        // What others send through this node must not fill it.
                        self.relieve();
                    }
                }
                if self.stack.transit() > TRANSIT && self.stack.has_work() {
                    // Others have their turn.
                    break;
                }
            }
        }
        self.arrivals = Some(arrivals);
    }

    fn pass_time(&mut self) {
        if self.stack.deadline().is_none() {
            return;
        }
        for (port, socket) in &self.ports {
            if self.saw_all && !socket.readable {
                self.stack.drained(self.looked_at, *port);
            }
        }
        self.stack.timeout(self.shared.now());
    }

    /// Give each flow that has something to do its turn.
    fn serve(&mut self) {
        self.stack.forget_transit();
        for _ in 0..self.stack.turns().min(TURNS) {
            self.stack.serve(self.shared.now());
            self.relieve();
        }
    }

    /// Send the staged datagrams of ports that are full, or may be so soon.
    fn relieve(&mut self) {
        for (port, socket) in &self.ports {
            if self.stack.is_nearly_full(*port) {
                socket.drain(*port, &mut self.stack);
            }
        }
    }

    fn drain(&mut self) {
        for (port, socket) in &self.ports {
            socket.drain(*port, &mut self.stack);
        }
    }

    fn tell(&mut self) {
        while let Some(event) = self.stack.event() {
            match (&event, &mut self.board) {
                (Event::Ended(flow, _, counted, _), Some(board)) => publish_flow(board, *flow, true, counted),
                (Event::Closed(member, counted), Some(board)) => publish_member(board, *member, true, counted),
                _ => {}
            }
            if let Event::Ended(_, _, _, Some(ring)) = &event
                && let Some(bell) = ring.bell()
            {
                // It can only fail for want of the descriptor.
                let _ = epoll::delete(&self.epoll, bell);
            }
            let member = match event {
                Event::Datagram(member, ..) | Event::Heard(member, ..) => Some(member),
                Event::Message(flow, _) => self.stack.carrier_of(flow),
                _ => None,
            };
            if !self.shared.tell(event)
                && let Some(member) = member
            {
                self.stack.count_refused(member);
            }
        }
    }
}

fn watch(epoll: &OwnedFd, ring: &Program, flow: FlowId) -> bool {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    let key = epoll::EventData::new_u64(flow.into());
    ring.pollable().is_ok_and(|bell| epoll::add(epoll, bell, key, flags).is_ok())
}
