//! One flow of a UDP layer: between the ring of a program and datagrams to one peer.

use std::mem::MaybeUninit;

use ouroboros_frcp::Connection;
use ouroboros_shm::endpoint::{Endpoint, Error, Reader};
use ouroboros_shm::layout::CAPACITY;

use super::credit::{Credit, REPORT, Report};
use super::outlet::{Line, Outlet, Unfit};
use super::timers::Slot;
use super::{FlowCounters, How, Setup};
use crate::impair::Impairment;

/// Packets that one flow may send or take in before the others get their turn.
const TURN: usize = 128;

/// What is between packets of the program and packets on the wire.
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
    /// None can be sent now.
    Held,
    /// There are none.
    Empty,
}

/// What a flow wants after its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// To be woken by its doorbell, its timer or a packet.
    Idle,
    /// Another turn.
    Again,
    /// It is over.
    Over(How),
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) endpoint: Endpoint,
    pub(super) outlet: Outlet,
    pub(super) timer: Slot,
    /// In the queue of flows that have something to do.
    pub(super) queued: bool,
    protocol: Protocol,
    counters: FlowCounters,
    /// Nanoseconds; 0: none.
    timeout: u64,
    heard_at: u64,
    /// How the program went, when all it wrote was taken in.
    program_gone: Option<How>,
    /// The peer's node said that it deallocated or died.
    peer_gone: bool,
    /// It died.
    peer_died: bool,
    /// The doorbell rings when there is room for the next message.
    awaits_room: bool,
    scratch: Vec<u8>,
}

impl Flow {
    pub(super) fn new(setup: Setup, link: Option<Impairment>, now: u64) -> Self {
        let protocol = match setup.frcp {
            Some(config) => Protocol::Frcp(Box::new(Connection::new(config, setup.seed, now))),
            None => Protocol::Raw { credit: setup.credit.then(Credit::new), reports: Reports::default() },
        };
        let outlet = Outlet {
            peer: setup.peer,
            peer_eid: setup.peer_eid,
            crypto: setup.crypto,
            crc: setup.crc,
            mtu: setup.mtu,
            link,
            sent_at: now,
            packets: 0,
            bytes: 0,
            opened: Vec::new(),
        };
        Flow {
            endpoint: setup.endpoint,
            outlet,
            timer: None,
            queued: false,
            protocol,
            counters: FlowCounters::default(),
            timeout: u64::from(setup.timeout) * 1_000_000,
            heard_at: now,
            program_gone: None,
            peer_gone: false,
            peer_died: false,
            awaits_room: false,
            scratch: Vec::new(),
        }
    }

    /// Do all that can be done now.
    pub(super) fn turn(&mut self, now: u64, line: &mut Line<'_>) -> Turn {
        self.forget_room();
        self.outlet.pass_on(now, line);
        let more = self.take_in(now, line);
        // Before anything is sent, because what the program takes opens the window that the peer is told.
        self.deliver(now);
        let more = self.transmit(now, line) || more;
        match self.over(now) {
            Some(how) => Turn::Over(how),
            None if more && !line.batch.blocked => Turn::Again,
            None => Turn::Idle,
        }
    }

    /// Packets of the peer, without their endpoint ids.
    pub(super) fn receive<'a>(&mut self, now: u64, packets: impl Iterator<Item = &'a [u8]>) {
        self.heard_at = now;
        let Flow { endpoint, outlet, protocol, counters, .. } = self;
        let mut writer = endpoint.writer();
        for packet in packets {
            counters.received += 1;
            counters.received_bytes += packet.len() as u64;
            if packet.is_empty() {
                continue;
            }
            let packet = match outlet.open(packet) {
                Ok([]) | Err(Unfit::Rejected) => continue,
                Ok(packet) => packet,
                Err(Unfit::Damaged) => {
                    counters.damaged += 1;
                    continue;
                }
            };
            match protocol {
                Protocol::Frcp(connection) => connection.receive(now, packet),
                // It waits for nobody: what does not fit into the ring of a slow reader is lost.
                Protocol::Raw { reports, .. } => match writer.as_mut().map(|writer| writer.stage(packet)) {
                    Ok(Ok(true)) => {
                        counters.delivered += 1;
                        reports.backlog += packet.len() + 8;
                    }
                    Ok(Ok(false)) => counters.overrun += 1,
                    // A program that is gone or refuses packets loses nothing that it wanted.
                    Ok(Err(_)) | Err(_) => {}
                },
            }
        }
    }

    /// The peer reported what it received.
    pub(super) fn credit(&mut self, now: u64, report: Report) {
        self.heard_at = now;
        if let Protocol::Raw { credit: Some(credit), .. } = &mut self.protocol {
            credit.report(now, report);
        }
    }

    /// What is to be reported to the sender of a raw flow, when it is time to. `room`: of the kernel buffer.
    pub(super) fn report(&mut self, room: u32) -> Option<Report> {
        let Flow { endpoint, protocol: Protocol::Raw { credit: Some(_), reports }, counters, awaits_room, .. } = self
        else {
            return None;
        };
        let counted = counters.received;
        if counted - reports.counted < REPORT && !reports.wait {
            return None;
        }
        let mut wait = reports.is_slow(endpoint);
        if wait && !*awaits_room {
            // It rings when half of its ring is free; the packet is of no length in particular.
            *awaits_room = endpoint.want_room(0).is_ok();
            // It may have read everything just before.
            wait = reports.is_slow(endpoint);
        }
        (reports.counted != counted || reports.wait != wait).then(|| {
            (reports.counted, reports.wait) = (counted, wait);
            Report { counted, room, wait }
        })
    }

    /// The peer deallocated or died: what came before still reaches the program.
    pub(super) fn end_by_peer(&mut self, died: bool) {
        self.peer_gone = true;
        self.peer_died = died;
    }

    /// A deadline passed.
    pub(super) fn pass(&mut self, now: u64, line: &mut Line<'_>) {
        if let Protocol::Frcp(connection) = &mut self.protocol {
            connection.timeout(now);
        }
        if self.timeout > 0 && now >= self.outlet.sent_at + self.timeout / 4 {
            self.outlet.keep_alive(now, line);
        }
    }

    /// When `pass` is to be called.
    pub(super) fn deadline(&self) -> Option<u64> {
        let alive =
            (self.timeout > 0).then(|| (self.outlet.sent_at + self.timeout / 4).min(self.heard_at + self.timeout));
        let protocol = match &self.protocol {
            Protocol::Frcp(connection) => connection.deadline(),
            Protocol::Raw { credit, .. } => credit.as_ref().and_then(Credit::deadline),
        };
        [alive, protocol, self.outlet.deadline()].into_iter().flatten().min()
    }

    pub(super) fn counters(&self) -> FlowCounters {
        let frcp = match &self.protocol {
            Protocol::Frcp(connection) => Some(connection.stats()),
            Protocol::Raw { .. } => None,
        };
        let (rejected, replayed) = self.outlet.rejected();
        FlowCounters {
            sent: self.outlet.packets,
            sent_bytes: self.outlet.bytes,
            rejected,
            replayed,
            frcp,
            ..self.counters
        }
    }

    fn forget_room(&mut self) {
        if std::mem::take(&mut self.awaits_room) {
            // Fails when the flow is closed, which shows elsewhere.
            let _ = self.endpoint.forget_room();
        }
    }

    /// Take in packets of the program; whether there may be more of them that could be taken now.
    fn take_in(&mut self, now: u64, line: &mut Line<'_>) -> bool {
        if self.program_gone.is_some() {
            return false;
        }
        match self.take_turn(now, line) {
            Ok(Pause::Turn) => true,
            Ok(Pause::Held) => false,
            // We are told of changes only, and not of what came while the ring was looked at last.
            Ok(Pause::Empty) => self.endpoint.has_news(),
            Err(Error::Down) => {
                // A flow that is down is readable at once and for ever, and only a change is of interest.
                let seen = self.endpoint.ended();
                let _ = seen.and_then(|seen| self.endpoint.watch(seen));
                self.endpoint.ended() != seen
            }
            Err(error) => {
                // A program that breaks its ring did not let go in order, either.
                self.program_gone = Some(if error == Error::PeerClosed { How::Closed } else { How::Died });
                if let Protocol::Frcp(connection) = &mut self.protocol {
                    connection.close(now);
                }
                false
            }
        }
    }

    fn take_turn(&mut self, now: u64, line: &mut Line<'_>) -> Result<Pause, Error> {
        let Flow { endpoint, outlet, protocol, counters, scratch, .. } = self;
        let mut reader = endpoint.reader()?;
        for _ in 0..TURN {
            let may = match protocol {
                Protocol::Raw { credit, .. } => {
                    !line.batch.blocked && credit.as_mut().is_none_or(|it| it.may_send(now))
                }
                Protocol::Frcp(connection) => connection.can_write(),
            };
            if !may {
                return Ok(Pause::Held);
            }
            let Some(length) = reader.available()? else { return Ok(Pause::Empty) };
            match protocol {
                Protocol::Frcp(connection) => {
                    scratch.clear();
                    take(&mut reader, length, scratch);
                    // The program's side has checked the length; a program that got around that loses the packet.
                    if connection.write(now, scratch).is_err() {
                        counters.too_long += 1;
                    }
                }
                Protocol::Raw { credit, .. } => {
                    outlet.begin(line.batch);
                    take(&mut reader, length, &mut line.batch.bytes);
                    outlet.finish(now, line);
                    if let Some(credit) = credit {
                        credit.sent(now, length);
                    }
                }
            }
        }
        Ok(Pause::Turn)
    }

    /// Send what FRCP wants sent; whether there may be more.
    fn transmit(&mut self, now: u64, line: &mut Line<'_>) -> bool {
        let Protocol::Frcp(connection) = &mut self.protocol else { return false };
        for _ in 0..TURN {
            if line.batch.blocked {
                return false;
            }
            self.outlet.begin(line.batch);
            if !connection.poll_transmit(now, &mut line.batch.bytes) {
                line.batch.discard();
                return false;
            }
            self.outlet.finish(now, line);
        }
        true
    }

    /// Give the program the messages of FRCP that are next; what does not fit waits for room.
    fn deliver(&mut self, now: u64) {
        while let Some(length) = self.deliver_what_fits(now) {
            if self.endpoint.want_room(length) != Ok(true) {
                self.awaits_room = true;
                return;
            }
            // There is room by now, or nobody who wants it: both show at the next try.
            let _ = self.endpoint.forget_room();
        }
    }

    /// The length of the first message that does not fit.
    fn deliver_what_fits(&mut self, now: u64) -> Option<usize> {
        let Flow { endpoint, protocol: Protocol::Frcp(connection), counters, .. } = self else { return None };
        connection.message()?;
        let mut writer = endpoint.writer();
        while let Some(message) = connection.message() {
            match writer.as_mut().map(|writer| writer.stage(message)) {
                Ok(Ok(true)) => counters.delivered += 1,
                Ok(Ok(false)) => return Some(message.len()),
                // A program that is gone or refuses packets loses nothing that it wanted.
                Ok(Err(_)) | Err(_) => {}
            }
            connection.consume(now);
        }
        None
    }

    /// How the flow ended, if it did; tells the program.
    fn over(&mut self, now: u64) -> Option<How> {
        let (done, failed, delivered) = match &self.protocol {
            Protocol::Raw { .. } => (true, false, true),
            Protocol::Frcp(each) => (each.is_done(), each.failure().is_some(), each.message().is_none()),
        };
        if let Some(how) = self.program_gone
            && (done || failed || self.peer_gone)
            && self.outlet.deadline().is_none()
        {
            // What was not acknowledged may be missing at the peer, whatever the program did.
            return Some(if failed { How::Down } else { how });
        }
        if self.peer_gone && delivered {
            if self.peer_died {
                self.endpoint.close_as_dead();
            } else {
                self.endpoint.close();
            }
            return Some(How::Gone);
        }
        if failed || (self.timeout > 0 && now >= self.heard_at + self.timeout) {
            self.endpoint.close_as_dead();
            return Some(if failed { How::Down } else { How::Peer });
        }
        None
    }
}

impl Reports {
    /// Whether more than half of the ring of the program may be full.
    fn is_slow(&mut self, endpoint: &Endpoint) -> bool {
        if self.backlog > CAPACITY / 2 && endpoint.transmit_queue().is_ok_and(|queued| queued == 0) {
            self.backlog = 0;
        }
        self.backlog > CAPACITY / 2 && endpoint.has_room(CAPACITY / 2) == Ok(false)
    }
}

/// Append the packet that is next in the ring.
fn take(reader: &mut Reader<'_>, length: usize, into: &mut Vec<u8>) {
    let start = into.len();
    into.resize(start + length, 0);
    reader.take(length, as_uninit(&mut into[start..]));
}

fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: initialised bytes are valid uninitialised ones, and `Reader::take` only writes to them.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}
