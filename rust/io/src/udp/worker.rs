//! The thread of a UDP layer.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::iter::{from_fn, once};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_udp::RecvMeta;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::batch::{Batch, Socket};
use super::credit::Report;
use super::flow::{Flow, Turn};
use super::outlet::{EID, Line};
use super::timers::Timers;
use super::{Command, Event, FlowCounters, How, LayerCounters, MANAGEMENT, Setup, Shared, Snapshot, hush};
use crate::impair::{Counters, Impairment, Settings, seed_of};

/// Buffers of one call of the kernel, each for a run of datagrams.
const BUFFERS: usize = 16;
const BUFFER: usize = 65_536;
/// Calls of the kernel until others get their turn.
const ROUNDS: usize = 4;
/// How long to look for something to do before sleeping: about what going to sleep and being woken costs on both sides.
const LOOK: Duration = Duration::from_micros(100);
const NOTHING: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// Failures in a row after which looking is tried only now and then.
const CREDIT: u32 = 8;
const PROBE: u32 = 64;
/// Packets that are kept for a flow whose other end was quicker.
const KEPT: usize = 32;
/// The epoll keys of the commands and of the socket; endpoint ids are smaller.
const COMMANDS: u64 = u64::MAX;
const SOCKET: u64 = u64::MAX - 1;

/// Bytes of the fixed part of a management datagram, and where what we read of it is.
const FIXED: usize = 47;
const CODE: usize = 44;
/// A report of the packets received on a raw flow, between peers of ours; see docs/protocol/udp.md.
const REPORT: u8 = 0x73;

/// Packets for a flow that is not there yet.
#[derive(Debug)]
struct Reserved {
    peer: SocketAddr,
    packets: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    socket: Socket,
    batch: Batch,
    flows: HashMap<u32, Flow>,
    reserved: HashMap<u32, Reserved>,
    timers: Timers,
    ready: VecDeque<u32>,
    /// Flows that ended since the last packets left.
    ended: Vec<(u32, How, Box<FlowCounters>)>,
    counters: LayerCounters,
    impaired: Option<(Settings, u64)>,
    /// The bad link of management datagrams, which carry their destination in front there.
    link: Option<Impairment>,
    shaken: Counters,
    buffer: Vec<u8>,
    /// There may be something to receive.
    readable: bool,
    stopped: bool,
    /// How often looking before sleeping has paid lately, and how often there was a choice.
    credit: u32,
    looks: u32,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, socket: OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let socket = Socket::new(socket)?;
        epoll::add(&epoll, &shared.wake, epoll::EventData::new_u64(COMMANDS), epoll::EventFlags::IN)?;
        let both = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&epoll, &socket.descriptor, epoll::EventData::new_u64(SOCKET), both)?;
        Ok(Worker {
            shared,
            epoll,
            socket,
            batch: Batch::new(),
            flows: HashMap::new(),
            reserved: HashMap::new(),
            timers: Timers::default(),
            ready: VecDeque::new(),
            ended: Vec::new(),
            counters: LayerCounters::default(),
            impaired: None,
            link: None,
            shaken: Counters::default(),
            buffer: vec![0; BUFFERS * BUFFER],
            readable: true,
            stopped: false,
            credit: CREDIT,
            looks: 0,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            let timeout = self.patience();
            if !self.look(&mut events, timeout.as_ref()) {
                match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                    Ok(_) | Err(Errno::INTR) => {}
                    // Only a programming error can bring us here; without a thread the layer is dead, and says so by silence.
                    Err(_) => return,
                }
            }
            for event in &events {
                match event.data.u64() {
                    COMMANDS => {
                        hush(&self.shared.wake);
                        self.obey();
                    }
                    SOCKET => self.look_at_socket(event.flags),
                    eid => self.look_at_program(eid as u32, event.flags),
                }
            }
            self.receive();
            if self.stopped {
                return;
            }
            self.look_at_clock();
            self.serve();
            self.batch.flush(&self.socket);
            self.tell_ends();
        }
    }

    /// Tell of flows that ended, once their last packets have left: what control says to the peer then must not be faster.
    fn tell_ends(&mut self) {
        if !self.batch.blocked {
            for (eid, how, counters) in self.ended.drain(..) {
                self.shared.tell(Event::Ended(eid, how, counters));
            }
        }
    }

    /// Look for events for a moment before sleeping, and let others run meanwhile: an answer that comes soon then finds the
    /// processor awake. Whether that pays is learned from the last times.
    fn look(&mut self, events: &mut Vec<epoll::Event>, timeout: Option<&Timespec>) -> bool {
        if timeout.is_some_and(|left| left.tv_sec == 0 && left.tv_nsec < LOOK.as_nanos() as i64) {
            return false;
        }
        self.looks = self.looks.wrapping_add(1);
        if self.credit == 0 && self.looks % PROBE != 0 {
            return false;
        }
        let start = Instant::now();
        while start.elapsed() < LOOK {
            let found = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&NOTHING));
            if found.is_ok_and(|count| count > 0) {
                self.credit = (self.credit + 1).min(CREDIT);
                return true;
            }
            std::thread::yield_now();
        }
        self.credit = self.credit.saturating_sub(1);
        false
    }

    /// How long to sleep.
    fn patience(&self) -> Option<Timespec> {
        let work = self.readable || (!self.ready.is_empty() && !self.batch.blocked);
        let deadline = if work { Some(0) } else { self.next_deadline() };
        deadline.map(|at| {
            let left = Duration::from_nanos(at.saturating_sub(if at == 0 { 0 } else { self.shared.now() }));
            // The longest time is bounded by u64 nanoseconds, far below 2^63 s.
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        })
    }

    fn next_deadline(&self) -> Option<u64> {
        let link = self.link.as_ref().and_then(Impairment::next_deadline);
        [self.timers.next(), link].into_iter().flatten().min()
    }

    // --- commands

    fn obey(&mut self) {
        for command in self.shared.take_commands() {
            match command {
                Command::Add(setup) => self.add(*setup),
                Command::Reserve(eid, peer) => {
                    self.reserved.insert(eid, Reserved { peer, packets: Vec::new() });
                }
                Command::Unreserve(eid) => {
                    self.reserved.remove(&eid);
                }
                Command::PeerGone(eid, died) => {
                    if let Some(flow) = self.flows.get_mut(&eid) {
                        flow.end_by_peer(died);
                        self.queue(eid);
                    }
                }
                Command::Send(datagram, to) => self.send_management(&datagram, to),
                Command::Impair(settings, seed) => self.impair(settings, seed),
                Command::Snapshot(answer) => {
                    // Whoever asked may have stopped waiting.
                    let _ = answer.send(self.snapshot());
                }
                Command::Stop => self.stopped = true,
            }
        }
    }

    fn add(&mut self, setup: Setup) {
        let now = self.shared.now();
        let eid = setup.eid;
        let link = self.impaired.map(|(settings, seed)| Impairment::new(settings, seed_of(seed, u64::from(eid), 0)));
        let mut flow = Flow::new(setup, link, now);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let watched = flow
            .endpoint
            .pollable()
            .is_ok_and(|bell| epoll::add(&self.epoll, bell, epoll::EventData::new_u64(u64::from(eid)), flags).is_ok());
        if !watched {
            // Out of memory for epoll: the program sees its flow end.
            self.shared.tell(Event::Ended(eid, How::Closed, Box::default()));
            return;
        }
        if let Some(Reserved { packets, .. }) = self.reserved.remove(&eid) {
            flow.receive(now, packets.iter().map(Vec::as_slice));
        }
        self.flows.insert(eid, flow);
        self.queue(eid);
    }

    fn impair(&mut self, settings: Settings, seed: u64) {
        self.impaired = Some((settings, seed));
        let links = self.flows.iter_mut().map(|(eid, flow)| (u64::from(*eid), &mut flow.outlet.link));
        for (key, link) in links.chain(once((0, &mut self.link))) {
            match link {
                Some(link) => link.set(settings),
                None => *link = Some(Impairment::new(settings, seed_of(seed, key, 0))),
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let layer = LayerCounters {
            calls: self.batch.calls,
            errors: self.batch.errors,
            lost: self.shaken.lost,
            duplicated: self.shaken.duplicated,
            reordered: self.shaken.reordered,
            ..self.counters
        };
        Snapshot { layer, flows: self.flows.iter().map(|(eid, flow)| (*eid, flow.counters())).collect() }
    }

    // --- the socket

    fn look_at_socket(&mut self, flags: epoll::EventFlags) {
        self.readable |= flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::ERR);
        if flags.contains(epoll::EventFlags::OUT) {
            self.batch.blocked = false;
        }
    }

    fn receive(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut metas = [RecvMeta::default(); BUFFERS];
        for _ in 0..ROUNDS {
            if !self.readable {
                break;
            }
            let mut chunks = buffer.chunks_exact_mut(BUFFER);
            let mut slices: [IoSliceMut<'_>; BUFFERS] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let socket = (&self.socket.descriptor).into();
            match self.socket.state.recv(socket, &mut slices, &mut metas) {
                Ok(count) => {
                    // What was reserved before these datagrams were caused must be known.
                    self.obey();
                    let now = self.shared.now();
                    for (bytes, meta) in buffer.chunks_exact(BUFFER).zip(&metas[..count]) {
                        self.dispatch(now, &bytes[..meta.len.min(BUFFER)], meta.stride, meta.addr);
                    }
                }
                Err(error) => self.readable = error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        self.buffer = buffer;
    }

    /// Take a run of datagrams apart.
    fn dispatch(&mut self, now: u64, bytes: &[u8], stride: usize, from: SocketAddr) {
        let mut datagrams = bytes.chunks(stride.max(1)).peekable();
        if bytes.is_empty() {
            self.counters.short += 1;
        }
        while let Some(datagram) = datagrams.next() {
            self.counters.received += 1;
            let Some((id, packet)) = datagram.split_first_chunk::<EID>() else {
                self.counters.short += 1;
                continue;
            };
            if *id == [0; EID] {
                self.manage(now, datagram, from);
                continue;
            }
            let mut count = 0;
            let more = from_fn(|| datagrams.next_if(|next| next.starts_with(id)));
            let run = once(packet).chain(more.map(|next| &next[EID..])).inspect(|_| count += 1);
            self.hand_over(now, u32::from_be_bytes(*id), from, run);
            self.counters.received += count - 1;
        }
    }

    /// Packets for one flow.
    fn hand_over<'a>(&mut self, now: u64, eid: u32, from: SocketAddr, packets: impl Iterator<Item = &'a [u8]>) {
        if let Some(flow) = self.flows.get_mut(&eid) {
            if !same(flow.outlet.peer, from) {
                self.counters.wrong_source += packets.count() as u64;
                return;
            }
            flow.receive(now, packets);
            self.report(eid);
            self.queue(eid);
        } else if let Some(reserved) = self.reserved.get_mut(&eid).filter(|reserved| same(reserved.peer, from)) {
            let room = KEPT - reserved.packets.len().min(KEPT);
            let mut rest = packets;
            reserved.packets.extend(rest.by_ref().take(room).map(<[u8]>::to_vec));
            self.counters.unknown += rest.count() as u64;
        } else {
            self.counters.unknown += packets.count() as u64;
        }
    }

    /// Tell the sender of a raw flow what came, when it is time to.
    fn report(&mut self, eid: u32) {
        if let Some(flow) = self.flows.get_mut(&eid)
            && let Some(report) = flow.report(self.socket.room)
        {
            let (datagram, peer) = (encode_report(eid, flow.outlet.peer_eid, report), flow.outlet.peer);
            self.send_management(&datagram, peer);
        }
    }

    fn manage(&mut self, now: u64, datagram: &[u8], from: SocketAddr) {
        if datagram.len() < FIXED {
            self.counters.short += 1;
        } else if datagram[CODE] == REPORT {
            self.take_report(now, datagram, from);
        } else if datagram.len() > MANAGEMENT || !self.shared.tell(Event::Management(datagram.to_vec(), from)) {
            self.counters.refused += 1;
        }
    }

    fn take_report(&mut self, now: u64, datagram: &[u8], from: SocketAddr) {
        let (peer_eid, eid) = (number(datagram, 4), number(datagram, 8));
        let counted = u64::from(number(datagram, 16)) << 32 | u64::from(number(datagram, 20));
        let report = Report { counted, room: number(datagram, 24), wait: number(datagram, 12) != 0 };
        match self.flows.get_mut(&eid) {
            Some(flow) if flow.outlet.peer_eid == peer_eid && same(flow.outlet.peer, from) => {
                flow.credit(now, report);
                self.queue(eid);
            }
            Some(_) => self.counters.wrong_source += 1,
            None => self.counters.unknown += 1,
        }
    }

    fn send_management(&mut self, datagram: &[u8], to: SocketAddr) {
        match &mut self.link {
            None => {
                self.batch.bytes.extend_from_slice(datagram);
                self.batch.commit(&self.socket, to, 0);
            }
            Some(link) => {
                let mut packet = address_bytes(to).to_vec();
                packet.extend_from_slice(datagram);
                link.offer(self.shared.now(), packet, &mut self.shaken);
                self.pass_on(self.shared.now());
            }
        }
    }

    /// Send the management datagrams that a bad link lets through by now.
    fn pass_on(&mut self, now: u64) {
        let Some(link) = &mut self.link else { return };
        while let Some(packet) = link.due(now) {
            if let Some((address, datagram)) = packet.split_first_chunk() {
                self.batch.bytes.extend_from_slice(datagram);
                self.batch.commit(&self.socket, address_of(address), 0);
            }
        }
    }

    // --- flows

    fn look_at_program(&mut self, eid: u32, flags: epoll::EventFlags) {
        if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::RDHUP | epoll::EventFlags::ERR)
            && let Some(flow) = self.flows.get(&eid)
        {
            // Notes the hang-up of a process that died without a word.
            let _ = flow.endpoint.ended();
        }
        self.queue(eid);
    }

    fn queue(&mut self, eid: u32) {
        if let Some(flow) = self.flows.get_mut(&eid)
            && !std::mem::replace(&mut flow.queued, true)
        {
            self.ready.push_back(eid);
        }
    }

    fn look_at_clock(&mut self) {
        if self.next_deadline().is_none() {
            return;
        }
        let now = self.shared.now();
        self.pass_on(now);
        while let Some((at, eid)) = self.timers.due(now) {
            let Some(flow) = self.flows.get_mut(&eid).filter(|flow| flow.timer == Some(at)) else { continue };
            flow.timer = None;
            let mut line = Line { batch: &mut self.batch, socket: &self.socket, shaken: &mut self.shaken };
            if flow.deadline().is_some_and(|deadline| deadline <= now) {
                flow.pass(now, &mut line);
            }
            self.queue(eid);
        }
    }

    /// Give each flow that has something to do its turn.
    fn serve(&mut self) {
        for _ in 0..self.ready.len() {
            if self.batch.blocked {
                return;
            }
            let Some(eid) = self.ready.pop_front() else { return };
            let Entry::Occupied(mut entry) = self.flows.entry(eid) else { continue };
            let flow = entry.get_mut();
            flow.queued = false;
            let now = self.shared.now();
            let mut line = Line { batch: &mut self.batch, socket: &self.socket, shaken: &mut self.shaken };
            let turn = flow.turn(now, &mut line);
            if let Turn::Over(how) = turn {
                let flow = entry.remove();
                if let Some(bell) = flow.endpoint.bell() {
                    // It can only fail for want of the socket.
                    let _ = epoll::delete(&self.epoll, bell);
                }
                self.ended.push((eid, how, Box::new(flow.counters())));
                continue;
            }
            let deadline = flow.deadline();
            self.timers.set(eid, &mut flow.timer, deadline);
            if turn == Turn::Again || self.batch.blocked {
                flow.queued = true;
                self.ready.push_back(eid);
            }
            // The program may have read what it was waited for.
            self.report(eid);
        }
    }
}

fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip() && one.port() == other.port()
}

fn number(datagram: &[u8], at: usize) -> u32 {
    datagram.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn encode_report(eid: u32, peer_eid: u32, report: Report) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    bytes[4..8].copy_from_slice(&eid.to_be_bytes());
    bytes[8..12].copy_from_slice(&peer_eid.to_be_bytes());
    bytes[15] = u8::from(report.wait);
    bytes[16..24].copy_from_slice(&report.counted.to_be_bytes());
    bytes[24..28].copy_from_slice(&report.room.to_be_bytes());
    bytes[CODE] = REPORT;
    bytes
}

const ADDRESS: usize = 18;

fn address_bytes(address: SocketAddr) -> [u8; ADDRESS] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ADDRESS];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

fn address_of(bytes: &[u8; ADDRESS]) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[..16]);
    SocketAddr::new(IpAddr::from(ip).to_canonical(), u16::from_be_bytes([bytes[16], bytes[17]]))
}
