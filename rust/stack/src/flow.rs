//! One flow: a user above (a program, a member of a layer, the control side), a protocol, and a way to the peer below.

use std::collections::VecDeque;

use ouroboros_crypto::Session;
use ouroboros_frcp::{Config, Connection};
use ouroboros_wire::management::Report;

use crate::counters::{Counted, FlowCounters};
use crate::credit::{Credit, MOST, REPORT};
use crate::id::{FlowId, MemberId};
use crate::link::Impairment;
use crate::member::Member;
use crate::memory::Account;
use crate::outlet::{Blocker, Frame, Manner, Outlet, Sink, Way};
use crate::ring::{End, Flags, Read, Ring, Write};
use crate::run::Run;
use crate::stack::{Carrier, Event, Source, Stack, Where};
use crate::transfer::{Pacer, WAITING};

/// Packets that one flow may send or take in before the others get their turn, and bytes.
const TURN: usize = 128;
const QUANTUM: usize = 512 << 10;
/// Bytes that wait at an end of a loop, at the most, but for the last packet.
const INBOX: usize = 256 << 10;
/// Bytes that FRCP takes for flows above before they have to wait.
const UNSENT: usize = 64 << 10;
/// What a packet takes there beside its own bytes.
const PLACE: usize = 64;
/// Bytes of keepalives and of words of control that wait for room in FRCP below, at the most.
const URGENT: usize = 64 << 10;
/// Messages that are kept for a user that is not known yet.
const KEPT: usize = 32;
/// Nanoseconds until a long message for which there is no memory is tried again.
const RETRY: u64 = 250_000_000;
/// A program can make it seem so often in a turn that there is room.
const GLANCES: u32 = 8;

/// The user of a flow.
#[derive(Debug)]
pub enum User<R> {
    /// A program.
    Program(R),
    /// A member of a layer above: the packets are those of its flows.
    Transfer(MemberId),
    /// The control side, which takes so many messages more. Some that come after those are kept.
    Control(u32),
}

/// A flow that the stack is to carry.
#[derive(Debug)]
pub struct Setup<R> {
    /// Its name.
    pub id: FlowId,
    /// The member that carries it.
    pub member: MemberId,
    /// Ours: packets to us carry it. Nothing to flows within the node.
    pub eid: u64,
    /// The peer's: packets to it carry it.
    pub peer_eid: u64,
    /// The way to the peer.
    pub carrier: Carrier,
    /// What it is for.
    pub user: User<R>,
    /// FRCP on both ends; None: packets as they are.
    pub frcp: Option<Config>,
    /// Random; chooses the first sequence number.
    pub seed: u64,
    /// Chooses, with the seed of the layer, what a bad link does.
    pub lot: (u64, usize),
    /// Credit on a raw flow, with a peer that knows it.
    pub credit: bool,
    /// Encryption of all packets that are not empty.
    pub session: Option<Session>,
    /// A CRC32 on each packet.
    pub crc: bool,
    /// The longest datagram that crosses the path to the peer in one piece, bytes, without the headers of IP and UDP.
    pub mtu: usize,
    /// Milliseconds of silence after which the peer is dead; 0: never.
    pub timeout: u32,
    /// Likewise, until its first packet, of which the control side is told; 0: as ever.
    pub grace: u32,
    /// What pays for the memory of FRCP; none: it has as much as it needs.
    pub accounts: Vec<Account>,
}

impl<R> Setup<R> {
    /// The same, with another kind of ring for its program, if that can be.
    pub fn with_ring<Q, E>(self, make: impl FnOnce(R) -> Result<Q, E>) -> Result<Setup<Q>, E> {
        let user = match self.user {
            User::Program(ring) => User::Program(make(ring)?),
            User::Transfer(member) => User::Transfer(member),
            User::Control(take) => User::Control(take),
        };
        let Setup { id, member, eid, peer_eid, carrier, frcp, seed, lot, credit, session, crc, mtu, .. } = self;
        let (timeout, grace, accounts) = (self.timeout, self.grace, self.accounts);
        Ok(Setup {
            id,
            member,
            eid,
            peer_eid,
            carrier,
            user,
            frcp,
            seed,
            lot,
            credit,
            session,
            crc,
            mtu,
            timeout,
            grace,
            accounts,
        })
    }
}

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The user let go, and what it wrote was sent, or acknowledged on a reliable flow.
    Closed,
    /// Likewise, but the program died.
    Died,
    /// The peer deallocated or died.
    Gone,
    /// The peer was silent for longer than the timeout of the flow.
    Silent,
    /// What was sent was not acknowledged in time.
    Broken,
}

/// Between packets of the user and packets on the wire.
#[derive(Debug)]
enum Protocol {
    /// Nothing. With a peer of ours, credit on this side and reports for that of the peer.
    Raw {
        credit: Option<Credit>,
        reports: Reports,
    },
    Frcp(Box<Connection>),
}

/// What was told to the sender of a raw flow.
#[derive(Debug, Default)]
struct Reports {
    counted: u64,
    wait: bool,
    /// Bytes of packets since the queue of the program was seen empty.
    backlog: usize,
}

/// Why no more packets of the program are taken in.
#[derive(Debug)]
enum Pause {
    /// The others have their turn.
    Turn,
    /// None can be sent until the peer has said something, or time has passed.
    Held,
    /// None can be sent until there is room.
    Blocked(Blocker),
    /// There are none.
    Empty,
}

/// What a flow wants after its turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// To be woken by its program, its timer or a packet.
    Idle,
    /// Another turn.
    Again,
    /// To be woken when there is room, too.
    Blocked(Blocker),
    /// It is over.
    Over(How),
}

/// Where a flow waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Idle,
    Ready,
    Parked(Blocker),
}

#[derive(Debug)]
pub(crate) struct Flow<R> {
    pub(crate) id: FlowId,
    pub(crate) user: User<R>,
    pub(crate) outlet: Outlet,
    pub(crate) place: Place,
    /// The list in which it stands, perhaps though it is not parked any more.
    pub(crate) listed: Option<Blocker>,
    /// What waits above for this one.
    pub(crate) waiters: VecDeque<Source>,
    /// The neighbour at the other end says nothing of what it got.
    pub(crate) pacer: Option<Pacer>,
    protocol: Protocol,
    /// What pays for its memory, and how much it has of that, bytes. None of it is shared by raw flows.
    pub(crate) accounts: Vec<Account>,
    pub(crate) memory: usize,
    /// There is no memory for the next message of the program until then.
    retry_at: Option<u64>,
    counters: FlowCounters,
    /// Nanoseconds; 0: none. `grace` is 0 once the peer was heard.
    timeout: u64,
    grace: u64,
    heard_at: u64,
    /// The user knows that the peer is silent.
    silent: bool,
    /// How the user went, when all it wrote was taken in.
    user_gone: Option<How>,
    /// The program died though its ring does not show it. So many bytes of it are still taken in, at the most.
    doomed: Option<usize>,
    /// The peer's node said that it deallocated or died.
    peer_gone: bool,
    /// It died.
    peer_died: bool,
    /// The program tells when there is room for the next message.
    awaits_room: bool,
    /// What the other end of a loop sent, and the bytes of it.
    inbox: VecDeque<Vec<u8>>,
    inbox_bytes: usize,
    /// What flows above must not lose, and FRCP had no room for; and the bytes of it.
    urgent: VecDeque<Vec<u8>>,
    urgent_bytes: usize,
    /// For a user that is not known yet.
    kept: VecDeque<Vec<u8>>,
    /// The flags that its program sees as those of the peer.
    shown: Flags,
    /// Those that its program had set when all that it wrote before was taken in.
    said: Flags,
    scratch: Vec<u8>,
    /// It is in `Stack::changed`.
    pub(crate) changed: bool,
}

impl<R: Ring> Flow<R> {
    pub(crate) fn new(mut setup: Setup<R>, way: Way, now: u64) -> Self {
        if setup.frcp.is_none() {
            setup.accounts.clear();
        }
        let ring = matches!(setup.user, User::Program(_)).then_some(R::CAPACITY);
        let protocol = match setup.frcp {
            Some(config) => {
                // What is written early for flows above cannot be put in order any more.
                let unsent = if ring.is_some() { config.unsent } else { config.unsent.min(UNSENT) };
                Protocol::Frcp(Box::new(Connection::new(
                    Config { unsent, thrifty: !setup.accounts.is_empty(), ..config },
                    setup.seed,
                    now,
                )))
            }
            None => {
                // What members between the two nodes have room for.
                let most = if let Way::Unicast(..) = way { WAITING as u64 } else { MOST };
                let credit = setup.credit.then(|| Credit::new(ring, most));
                Protocol::Raw { credit, reports: Reports::default() }
            }
        };
        let outlet = Outlet {
            member: setup.member,
            way,
            eid: setup.eid,
            peer_eid: setup.peer_eid,
            hop: (0, None),
            ecn: None,
            session: setup.session,
            crc: setup.crc,
            mtu: setup.mtu,
            lot: setup.lot,
            link: None,
            sent_at: now,
            opened: Vec::new(),
        };
        Flow {
            id: setup.id,
            user: setup.user,
            outlet,
            place: Place::Idle,
            listed: None,
            waiters: VecDeque::new(),
            pacer: None,
            protocol,
            accounts: setup.accounts,
            memory: 0,
            retry_at: None,
            counters: FlowCounters::default(),
            timeout: u64::from(setup.timeout) * 1_000_000,
            grace: u64::from(setup.grace) * 1_000_000,
            heard_at: now,
            silent: false,
            user_gone: None,
            doomed: None,
            peer_gone: false,
            peer_died: false,
            awaits_room: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            urgent: VecDeque::new(),
            urgent_bytes: 0,
            kept: VecDeque::new(),
            shown: Flags::default(),
            said: Flags::default(),
            scratch: Vec::new(),
            changed: false,
        }
    }

    /// Do all that can be done now.
    pub(crate) fn turn(&mut self, now: u64, stack: &mut Stack<R>) -> Turn {
        self.forget_room();
        // What a side wrote after it took back a flag must not meet that flag.
        self.show_flags(stack, false);
        self.take_inbox(now, stack);
        let mut blocker = self.outlet.pass_on(now, stack);
        let more = self.take_in(now, stack, &mut blocker);
        let all = !more && blocker.is_none();
        // Before anything is sent, because what the user takes opens the window that the peer is told.
        let more = self.deliver(now, stack) || more;
        if !self.urgent.is_empty() {
            self.write_urgent(now);
        }
        let more = self.transmit(now, stack, &mut blocker) || more;
        if !self.urgent.is_empty() {
            self.write_urgent(now);
        }
        self.show_flags(stack, all);
        match (self.over(now, stack), blocker) {
            (Some(how), _) => Turn::Over(how),
            (None, _) if more || !self.inbox.is_empty() => Turn::Again,
            (None, Some(blocker)) => Turn::Blocked(blocker),
            (None, None) => Turn::Idle,
        }
    }

    // --- from below

    /// Packets of the peer, without their endpoint ids. `depth`: levels below.
    pub(crate) fn receive(&mut self, now: u64, run: Run<'_>, stack: &mut Stack<R>, depth: usize) {
        self.hear(now, stack);
        match self.user {
            User::Program(_) => self.receive_for_program(now, run),
            User::Transfer(member) if !self.outlet.seals() && matches!(self.protocol, Protocol::Raw { .. }) => {
                let filled = run.filled();
                self.count(run.count(), filled.bytes());
                self.counters.empty += run.count() - filled.count();
                if stack.dispatch(now, member, Where::Flow(self.id), filled, depth + 1) {
                    self.counters.delivered += filled.count();
                } else {
                    self.counters.unwanted += filled.count();
                }
            }
            _ => run.packets().for_each(|packet| self.receive_one(now, packet, stack, depth)),
        }
    }

    /// The peer lives.
    fn hear(&mut self, now: u64, stack: &mut Stack<R>) {
        self.heard_at = now;
        if std::mem::take(&mut self.silent) | (std::mem::take(&mut self.grace) > 0) {
            self.tell_state(stack, true);
        }
    }

    fn tell_state(&self, stack: &mut Stack<R>, up: bool) {
        if let User::Transfer(member) = self.user {
            stack.change_ways(member, |transfer| transfer.note_state(self.id, up));
        }
        stack.tell(Event::State(self.id, up));
    }

    /// Until when the peer may be silent; None: for ever.
    fn patience(&self) -> Option<u64> {
        let longest = [self.timeout, self.grace].into_iter().filter(|time| *time > 0).min();
        longest.map(|time| self.heard_at + time)
    }

    fn count(&mut self, packets: u64, bytes: u64) {
        self.counters.received += packets;
        self.counters.received_bytes += bytes;
    }

    fn receive_for_program(&mut self, now: u64, run: Run<'_>) {
        let Flow { user: User::Program(ring), outlet, protocol, counters, .. } = self else { return };
        let mut writer = ring.writer();
        for packet in run.packets() {
            let Some(packet) = outlet.unseal(packet, counters) else { continue };
            match protocol {
                Protocol::Frcp(connection) => connection.receive(now, packet),
                // It waits for nobody: what does not fit into the ring of a slow reader is lost.
                Protocol::Raw { reports, .. } => match writer.as_mut().map(|writer| writer.stage(packet)) {
                    Ok(Ok(true)) => {
                        counters.delivered += 1;
                        reports.backlog += packet.len() + 8;
                    }
                    Ok(Ok(false)) => counters.overrun += 1,
                    Ok(Err(_)) | Err(_) => counters.unwanted += 1,
                },
            }
        }
    }

    /// A packet for a user that is no program.
    fn receive_one(&mut self, now: u64, packet: &[u8], stack: &mut Stack<R>, depth: usize) {
        let Flow { id, user, outlet, protocol, counters, kept, .. } = self;
        let Some(packet) = outlet.unseal(packet, counters) else { return };
        match (protocol, user) {
            (Protocol::Frcp(connection), _) => connection.receive(now, packet),
            (_, User::Transfer(member)) => {
                let taken = stack.dispatch(now, *member, Where::Flow(*id), Run::of(packet, 0), depth + 1);
                *if taken { &mut counters.delivered } else { &mut counters.unwanted } += 1;
            }
            (_, User::Control(take @ 1..)) => {
                *take -= 1;
                counters.delivered += 1;
                stack.tell(Event::Message(*id, packet.to_vec()));
            }
            (_, User::Control(_)) if kept.len() < KEPT => kept.push_back(packet.to_vec()),
            _ => counters.overrun += 1,
        }
    }

    /// The other end of a loop sent something.
    pub(crate) fn bring(&mut self, packet: Vec<u8>) {
        self.inbox_bytes += packet.len() + PLACE;
        self.inbox.push_back(packet);
    }

    /// Whether the other end of a loop may send one more packet.
    pub(crate) fn has_room(&self) -> bool {
        self.inbox_bytes < INBOX
    }

    /// Whether a link, which waits for nobody, may bring one more: as much as a ring holds.
    pub(crate) fn has_any_room(&self) -> bool {
        self.inbox_bytes < R::CAPACITY
    }

    fn take_inbox(&mut self, now: u64, stack: &mut Stack<R>) {
        if self.inbox.is_empty() {
            return;
        }
        let before = (self.counters.received, self.counters.delivered, self.counters.overrun);
        for _ in 0..TURN {
            let Some(packet) = self.inbox.pop_front() else { break };
            self.inbox_bytes -= packet.len() + PLACE;
            if packet.is_empty() {
                self.hear(now, stack);
                self.count(1, 0);
                self.counters.empty += 1;
            } else {
                self.receive(now, Run::of(&packet, 0), stack, 0);
            }
        }
        let Some(Member { shaken, slow, .. }) = stack.members.get_mut(self.outlet.member) else { return };
        shaken.delivered += match self.protocol {
            Protocol::Raw { .. } => self.counters.delivered - before.1,
            Protocol::Frcp(_) => self.counters.received - before.0,
        };
        shaken.lost += self.counters.overrun - before.2;
        *slow += self.counters.overrun - before.2;
    }

    /// The peer reported what it received.
    pub(crate) fn credit(&mut self, now: u64, report: Report, stack: &mut Stack<R>) {
        self.hear(now, stack);
        if let Protocol::Raw { credit: Some(credit), .. } = &mut self.protocol {
            credit.report(now, report);
        }
    }

    /// What is to be reported to the sender of a raw flow, when it is time to. `room`: of the kernel buffer.
    pub(crate) fn report(&mut self, room: u32) -> Option<Report> {
        let Flow { user, protocol: Protocol::Raw { credit: Some(_), reports }, counters, awaits_room, outlet, .. } =
            self
        else {
            return None;
        };
        // For keepalives the sender has no credit.
        let counted = counters.received - counters.empty;
        if counted - reports.counted < REPORT && !reports.wait {
            return None;
        }
        let mut wait = false;
        if let User::Program(ring) = user {
            wait = reports.is_slow(ring);
            if wait && !*awaits_room {
                // It tells when half of its ring is free; the packet is of no length in particular.
                ring.want_room(0);
                // `forget_room` has to follow, also if there is room for something.
                *awaits_room = true;
                // It may have read everything just before.
                wait = reports.is_slow(ring);
            }
        }
        (reports.counted != counted || reports.wait != wait).then(|| {
            (reports.counted, reports.wait) = (counted, wait);
            Report { source: outlet.eid, destination: outlet.peer_eid, counted, room, wait }
        })
    }

    // --- ends

    /// The peer deallocated or died: what came before still reaches the user.
    pub(crate) fn end_by_peer(&mut self, died: bool) {
        self.peer_gone = true;
        self.peer_died = died;
    }

    /// The user lets go, which only its ring says for a program.
    pub(crate) fn end_by_user(&mut self, now: u64) {
        if !matches!(self.user, User::Program(_)) {
            self.user_is_gone(now, How::Closed);
        }
    }

    /// The program died, whatever its ring says.
    pub(crate) fn doom(&mut self) {
        self.doomed.get_or_insert(R::CAPACITY);
    }

    /// The flow is over at once, with what is under way. `died`: for the program.
    pub(crate) fn abort(&mut self, died: bool) {
        if let User::Program(ring) = &self.user {
            ring.close(died);
        }
    }

    fn user_is_gone(&mut self, now: u64, how: How) {
        self.user_gone.get_or_insert(how);
        self.write_urgent(now);
    }

    // --- time

    /// A deadline passed.
    pub(crate) fn pass(&mut self, now: u64, stack: &mut Stack<R>) {
        match &mut self.protocol {
            Protocol::Frcp(connection) => connection.timeout(now),
            Protocol::Raw { credit, .. } => {
                if let Some(credit) = credit {
                    credit.pass(now);
                }
            }
        }
        if self.timeout > 0 && now >= self.outlet.sent_at + self.timeout / 4 {
            // One that finds no way is lost, as anywhere.
            self.outlet.sent_at = now;
            if let Ok(frame) = self.outlet.open(now, stack, Manner::Bare) {
                self.outlet.close(now, frame, &mut self.counters, stack, Manner::Bare);
            }
        }
    }

    /// When `pass` is to be called; `sends_at`: what is to be sent cannot be before.
    pub(crate) fn deadline(&self, sends_at: u64) -> Option<u64> {
        let alive = (self.timeout > 0).then(|| self.outlet.sent_at + self.timeout / 4);
        let silence = self.patience().filter(|_| !self.silent);
        let protocol = match &self.protocol {
            Protocol::Frcp(connection) => connection.deadline(),
            Protocol::Raw { credit, .. } => credit.as_ref().and_then(Credit::deadline),
        };
        let sends = protocol.into_iter().chain(self.outlet.deadline()).min().map(|at| at.max(sends_at));
        alive.into_iter().chain(silence).chain(sends).chain(self.retry_at).min()
    }

    pub(crate) fn counted(&self) -> Counted {
        let frcp = match &self.protocol {
            Protocol::Frcp(connection) => Some(connection.stats()),
            Protocol::Raw { .. } => None,
        };
        let (rejected, replayed) = self.outlet.rejected();
        (FlowCounters { rejected, replayed, ..self.counters }, frcp)
    }

    /// What it holds of shared memory has changed: tell the accounts, and hear how short it is.
    pub(crate) fn settle(&mut self, stack: &mut Stack<R>) {
        if self.accounts.is_empty() {
            return;
        }
        let Protocol::Frcp(connection) = &mut self.protocol else { return };
        let memory = connection.memory();
        connection.press(stack.accounts.settle(&self.accounts, self.memory, memory));
        self.memory = memory;
    }

    // --- for flows above

    /// Begin a packet of a flow above.
    pub(crate) fn open_below(&mut self, now: u64, stack: &mut Stack<R>, manner: Manner) -> Result<Frame, Blocker> {
        if self.user_gone.is_some() || self.peer_gone {
            return Err(Blocker::Down);
        }
        match &mut self.protocol {
            Protocol::Frcp(connection) if self.urgent.is_empty() && connection.can_write() => {
                Ok(stack.begin(Sink::Queue))
            }
            Protocol::Frcp(_) if manner != Manner::Data && self.urgent_bytes < URGENT => Ok(stack.begin(Sink::Queue)),
            Protocol::Frcp(_) => Err(Blocker::Flow(self.id)),
            Protocol::Raw { credit, .. } => {
                if manner != Manner::Data {
                    return self.outlet.open(now, stack, Manner::Control);
                }
                if credit.as_mut().is_some_and(|credit| !credit.may_send(now)) {
                    return Err(Blocker::Flow(self.id));
                }
                let opened = match self.pacer.as_ref().and_then(|pacer| pacer.waits_until(now)) {
                    Some(at) => Err(Blocker::Until(at)),
                    None => self.outlet.open(now, stack, Manner::Data),
                };
                if let Err(Blocker::Until(at)) = opened {
                    stack.look_after(self.id, at);
                    return Err(Blocker::Flow(self.id));
                }
                opened
            }
        }
    }

    /// That packet is complete.
    pub(crate) fn close_below(&mut self, now: u64, frame: Frame, stack: &mut Stack<R>) {
        match &mut self.protocol {
            Protocol::Frcp(connection) => {
                if !self.urgent.is_empty() || !connection.can_write() {
                    self.urgent_bytes += stack.frame.len();
                    self.urgent.push_back(stack.frame.clone());
                } else if let Err(why) = connection.write(now, &stack.frame) {
                    self.counters.count_refused(why);
                }
                stack.ready_taken(self.id, &mut self.place);
            }
            Protocol::Raw { credit, .. } => {
                if let Some(credit) = credit {
                    credit.sent(now, stack.written(&frame).len());
                }
                if let Some(pacer) = &mut self.pacer {
                    pacer.sent(now);
                }
                self.outlet.close(now, frame, &mut self.counters, stack, Manner::Data);
            }
        }
    }

    /// Give FRCP what is urgent, and let it close when that was all.
    fn write_urgent(&mut self, now: u64) {
        let Protocol::Frcp(connection) = &mut self.protocol else { return };
        while connection.can_write()
            && let Some(message) = self.urgent.pop_front()
        {
            self.urgent_bytes -= message.len();
            if let Err(why) = connection.write(now, &message) {
                self.counters.count_refused(why);
            }
        }
        if self.user_gone.is_some() && self.urgent.is_empty() {
            connection.close(now);
        }
    }

    /// Packets lost because the user reads too slowly.
    pub(crate) fn overrun(&self) -> u64 {
        self.counters.overrun
    }

    /// Whether what waits for this flow may try again: flows above, or the other end of a loop.
    pub(crate) fn can_take(&mut self, now: u64) -> bool {
        let from_above = match &mut self.protocol {
            Protocol::Frcp(connection) => self.urgent.is_empty() && connection.can_write(),
            Protocol::Raw { credit, .. } => {
                credit.as_mut().is_none_or(|credit| credit.may_send(now))
                    && self.outlet.waits_until(now).is_none()
                    && self.pacer.as_ref().is_none_or(|pacer| pacer.waits_until(now).is_none())
            }
        };
        from_above || (matches!(self.outlet.way, Way::Loop(_)) && self.has_room())
    }

    /// Take in messages for a user that took none.
    pub(crate) fn hand(&mut self, now: u64, user: User<R>, stack: &mut Stack<R>) {
        self.user = user;
        for packet in std::mem::take(&mut self.kept) {
            match &mut self.user {
                User::Transfer(member) => {
                    let taken = stack.dispatch(now, *member, Where::Flow(self.id), Run::of(&packet, 0), 1);
                    *if taken { &mut self.counters.delivered } else { &mut self.counters.unwanted } += 1;
                }
                User::Control(take @ 1..) => {
                    *take -= 1;
                    self.counters.delivered += 1;
                    stack.tell(Event::Message(self.id, packet));
                }
                User::Control(_) => self.kept.push_back(packet),
                User::Program(ring) => match ring.writer().and_then(|mut writer| writer.stage(&packet)) {
                    Ok(true) => self.counters.delivered += 1,
                    Ok(false) => self.counters.overrun += 1,
                    Err(_) => self.counters.unwanted += 1,
                },
            }
        }
    }

    /// What came and nobody took is lost with the flow, and what is under way on its link.
    pub(crate) fn abandon(&mut self, stack: &mut Stack<R>) {
        for packet in std::mem::take(&mut self.inbox) {
            self.count(1, packet.len() as u64);
            self.counters.unwanted += 1;
        }
        self.counters.unwanted += std::mem::take(&mut self.kept).len() as u64;
        self.counters.unsent += std::mem::take(&mut self.urgent).len() as u64;
        if let Some(link) = self.outlet.link.take() {
            stack.shaken(self.outlet.member).lost += link.under_way();
        }
        if let Some(mut past) = stack.members.get_mut(self.outlet.member).map(|member| std::mem::take(&mut member.past))
        {
            self.balance(&mut past);
            if let Some(member) = stack.members.get_mut(self.outlet.member) {
                member.past = past;
            }
        }
    }

    /// Packets of the flow that wait, to be sent or to be taken.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let link = self.outlet.link.as_ref().map_or(0, Impairment::under_way);
        (link + self.inbox.len() as u64, self.kept.len() as u64)
    }

    // --- from above

    fn forget_room(&mut self) {
        if let User::Program(ring) = &self.user
            && std::mem::take(&mut self.awaits_room)
        {
            ring.forget_room();
        }
    }

    /// Let the program at the other end of a loop see the flags that this one set, behind all that it wrote before, and the
    /// other way round. `all`: everything that the program wrote was taken in.
    fn show_flags(&mut self, stack: &mut Stack<R>, all: bool) {
        let (User::Program(ring), Way::Loop(other), Protocol::Raw { .. }) =
            (&self.user, self.outlet.way, &self.protocol)
        else {
            return;
        };
        // A Down flag does not tell whose it is: one that is shown here hides whether this program has set its own. So once
        // more, after one was taken back.
        for _ in 0..2 {
            let mut flags = if self.user_gone.is_some() { Flags::default() } else { ring.flags() };
            flags.down &= !self.shown.down;
            if !all {
                flags.keep(self.said);
            }
            self.said = flags;
            let Some(far) = stack.flow(other) else { return };
            let User::Program(far_ring) = &far.user else { return };
            let told = show(far_ring, &mut far.shown, flags, far.inbox.is_empty());
            show(ring, &mut self.shown, far.said, self.inbox.is_empty());
            if told {
                // It may see its own now.
                stack.rang(other);
            }
        }
    }

    /// Take in packets of the program; whether there may be more of them that could be taken now.
    fn take_in(&mut self, now: u64, stack: &mut Stack<R>, blocker: &mut Option<Blocker>) -> bool {
        if self.user_gone.is_some() || !matches!(self.user, User::Program(_)) {
            return false;
        }
        let outcome = self.take_turn(now, stack);
        if self.doomed == Some(0) || (self.doomed.is_some() && matches!(outcome, Ok(Pause::Empty) | Err(End::Down))) {
            self.user_is_gone(now, How::Died);
            return false;
        }
        let User::Program(ring) = &self.user else { return false };
        match outcome {
            Ok(Pause::Turn) => true,
            Ok(Pause::Held) => false,
            Ok(Pause::Blocked(why)) => {
                *blocker = Some(why);
                false
            }
            // We are told of changes only, and not of what came while the ring was looked at last.
            Ok(Pause::Empty) => ring.has_news(),
            // A flow that is down is readable at once and for ever, and only a change is of interest.
            Err(End::Down) => ring.rest(),
            Err(end) => {
                self.user_is_gone(now, if end == End::Closed { How::Closed } else { How::Died });
                false
            }
        }
    }

    fn take_turn(&mut self, now: u64, stack: &mut Stack<R>) -> Result<Pause, End> {
        let Flow { user: User::Program(ring), outlet, protocol, counters, scratch, doomed, retry_at, .. } = self else {
            return Ok(Pause::Empty);
        };
        *retry_at = None;
        let mut reader = ring.reader()?;
        let mut quantum = QUANTUM;
        for _ in 0..TURN {
            let may = match protocol {
                Protocol::Raw { credit, .. } => credit.as_mut().is_none_or(|it| it.may_send(now)),
                Protocol::Frcp(connection) => connection.can_write(),
            };
            if !may {
                return Ok(Pause::Held);
            }
            let Some(length) = reader.available()? else { return Ok(Pause::Empty) };
            match protocol {
                Protocol::Frcp(connection) if !connection.admits(length) => {
                    *retry_at = Some(now + RETRY);
                    return Ok(Pause::Held);
                }
                Protocol::Frcp(connection) => {
                    scratch.clear();
                    reader.append_to(scratch, length);
                    // The program's side has checked the length; a program that got around that loses the packet.
                    if let Err(why) = connection.write(now, scratch) {
                        counters.count_refused(why);
                    }
                }
                Protocol::Raw { credit, .. } => {
                    let frame = match outlet.open(now, stack, Manner::Data) {
                        Ok(frame) => frame,
                        Err(Blocker::Down | Blocker::Busy) => return Ok(Pause::Held),
                        Err(blocker) => return Ok(Pause::Blocked(blocker)),
                    };
                    reader.append_to(stack.bytes(&frame), length);
                    if let Some(credit) = credit {
                        credit.sent(now, length);
                    }
                    outlet.close(now, frame, counters, stack, Manner::Data);
                }
            }
            if let Some(left) = doomed {
                *left = left.saturating_sub(length.max(1));
            }
            quantum = quantum.saturating_sub(length);
            if quantum == 0 || *doomed == Some(0) {
                break;
            }
        }
        Ok(Pause::Turn)
    }

    /// Send what FRCP wants sent; whether there may be more.
    fn transmit(&mut self, now: u64, stack: &mut Stack<R>, blocker: &mut Option<Blocker>) -> bool {
        let Flow { protocol: Protocol::Frcp(connection), outlet, counters, .. } = self else { return false };
        for _ in 0..TURN {
            let frame = match outlet.open(now, stack, Manner::Data) {
                Ok(frame) => frame,
                Err(why) => {
                    *blocker = Some(why);
                    return false;
                }
            };
            if !connection.poll_transmit(now, stack.bytes(&frame)) {
                stack.discard(&frame);
                return false;
            }
            outlet.close(now, frame, counters, stack, Manner::Data);
        }
        true
    }

    /// Give the user the messages of FRCP that are next; what does not fit waits for room. True: try again soon.
    fn deliver(&mut self, now: u64, stack: &mut Stack<R>) -> bool {
        if !matches!(self.user, User::Program(_)) {
            self.deliver_to_others(now, stack);
            return false;
        }
        // A program that changes its mind all the time must not keep us here.
        for _ in 0..GLANCES {
            let Some(length) = self.deliver_what_fits() else { return false };
            let User::Program(ring) = &self.user else { return false };
            if !ring.want_room(length) {
                self.awaits_room = true;
                return false;
            }
            // There is room by now, or nobody who wants it: both show at the next try.
            ring.forget_room();
        }
        true
    }

    /// The length of the first message that does not fit.
    fn deliver_what_fits(&mut self) -> Option<usize> {
        let Flow { user: User::Program(ring), protocol: Protocol::Frcp(connection), counters, .. } = self else {
            return None;
        };
        connection.message()?;
        let mut writer = ring.writer();
        while let Some(message) = connection.message() {
            match writer.as_mut().map(|writer| writer.stage(message)) {
                Ok(Ok(true)) => counters.delivered += 1,
                Ok(Ok(false)) => return Some(message.len()),
                Ok(Err(_)) | Err(_) => counters.undelivered += 1,
            }
            connection.consume();
        }
        None
    }

    fn deliver_to_others(&mut self, now: u64, stack: &mut Stack<R>) {
        let Flow { id, user, protocol: Protocol::Frcp(connection), counters, .. } = self else { return };
        while let Some(message) = connection.message() {
            let taken = match user {
                User::Transfer(member) => stack.dispatch(now, *member, Where::Flow(*id), Run::of(message, 0), 1),
                User::Control(take @ 1..) => {
                    *take -= 1;
                    stack.tell(Event::Message(*id, message.to_vec()));
                    true
                }
                // Its window closes.
                User::Control(_) | User::Program(_) => return,
            };
            *if taken { &mut counters.delivered } else { &mut counters.undelivered } += 1;
            connection.consume();
        }
    }

    /// How the flow ended, if it did; tells the program.
    fn over(&mut self, now: u64, stack: &mut Stack<R>) -> Option<How> {
        let (done, failed, delivered) = match &self.protocol {
            Protocol::Raw { .. } => (true, false, true),
            Protocol::Frcp(each) => (each.is_done(), each.failure().is_some(), each.message().is_none()),
        };
        if let Some(how) = self.user_gone
            && (self.peer_gone || ((done || failed) && self.outlet.deadline().is_none()))
        {
            // What was not acknowledged may be missing at the peer, whatever the program did.
            return Some(if failed { How::Broken } else { how });
        }
        if self.peer_gone && delivered && self.inbox.is_empty() {
            self.abort(self.peer_died);
            return Some(How::Gone);
        }
        if failed {
            self.abort(true);
            return Some(How::Broken);
        }
        let patience = self.patience().filter(|patience| !self.silent && *patience <= now)?;
        if !stack.is_drained(&self.outlet, patience) {
            // What would prove the peer alive may have arrived.
            return None;
        }
        if matches!(self.user, User::Program(_)) {
            self.abort(true);
            return Some(How::Silent);
        }
        self.silent = true;
        self.tell_state(stack, false);
        None
    }
}

/// Show a program the flags of its peer, behind all packets: `idle`: it has those. Whether that changed something.
fn show<R: Ring>(ring: &R, shown: &mut Flags, mut flags: Flags, idle: bool) -> bool {
    if !idle {
        flags.keep(*shown);
    }
    let changed = flags != *shown;
    if changed {
        ring.show(flags);
        *shown = flags;
    }
    changed
}

impl Reports {
    /// Whether more than half of the ring of the program may be full.
    fn is_slow<R: Ring>(&mut self, ring: &R) -> bool {
        if self.backlog > R::CAPACITY / 2 && ring.is_read() {
            self.backlog = 0;
        }
        self.backlog > R::CAPACITY / 2 && !ring.has_room(R::CAPACITY / 2)
    }
}
