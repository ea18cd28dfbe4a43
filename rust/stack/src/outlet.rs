//! The way of the packets of one flow: headers in front, checksums behind, and the carrier.
//!
//! A packet is written once, at the place from where it leaves. `open` writes the headers of all levels, the lowest first, and
//! chooses that place; the packet is appended; `close` seals and checks level by level, the highest first, and commits. `open`
//! only appends bytes, so `discard` takes everything back.

use std::net::SocketAddr;

use ouroboros_crypto::Session;
use ouroboros_wire::{
    crc,
    management::EID,
    pci::{PCI, Pci},
};

use crate::DEPTH;
use crate::counters::FlowCounters;
use crate::flow::Flow;
use crate::id::{FlowId, MemberId};
use crate::link::Impairment;
use crate::ring::Ring;
use crate::run::Run;
use crate::stack::{Stack, Where};
use crate::stage::Peer;
use crate::transfer::{Ecn, Hop};

/// The carrier of the packets of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A port, to a peer; the same as an address.
    Port(Peer, SocketAddr),
    /// A flow of a layer below.
    Transfer(FlowId),
    /// The lower flow that leads towards the member with that address, in that cube.
    Unicast(u32, u8),
    /// Within this stack, to the other end.
    Loop(FlowId),
    /// All other flows of the member.
    Broadcast,
    /// Nothing: it is a capture of the member.
    Tap,
}

/// Why a packet cannot be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocker {
    /// The port is full.
    Port(MemberId),
    /// A flow below is full, or the other end of a loop.
    Flow(FlowId),
    /// A member knows no way.
    Route(MemberId),
    /// A member of a broadcast layer has packets enough for all its neighbours.
    Neighbours(MemberId),
    /// It is too early, ns.
    Until(u64),
    /// The flow below is taken out: a packet is just coming up by it.
    Busy,
    /// There is nothing below any more.
    Down,
}

/// Where a packet that is being written stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sink {
    /// In the stage of a port.
    Stage(MemberId),
    /// In `Stack::frame`, for a flow below with FRCP.
    Queue,
    /// There, for the other end of a loop.
    Loop(FlowId),
    /// There, for the other flows of a member.
    Members(MemberId),
}

/// Where the packets go that have just arrived and leave as they are: the port, the peer there, and the header that says for
/// which flow they are.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) port: MemberId,
    pub(crate) peer: Peer,
    pub(crate) eid: [u8; EID],
}

/// A packet that is being written. There is only one at any time.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) sink: Sink,
    /// Where the header of each level starts, the lowest first.
    starts: [u16; DEPTH + 1],
    depth: usize,
}

impl Frame {
    pub(crate) fn new(sink: Sink) -> Self {
        Frame { sink, starts: [0; DEPTH + 1], depth: 0 }
    }

    /// One level more. False: there are too many.
    fn push(&mut self, start: usize) -> bool {
        let Some(place) = self.starts.get_mut(self.depth) else { return false };
        *place = start as u16;
        self.depth += 1;
        true
    }

    fn pop(&mut self) -> usize {
        let top = self.top();
        self.depth = self.depth.saturating_sub(1);
        top
    }

    /// Where the header of the highest level starts.
    fn top(&self) -> usize {
        self.starts.get(self.depth.saturating_sub(1)).copied().map_or(0, usize::from)
    }
}

/// How a packet is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// When there is room.
    Data,
    /// At once: room is found for it, up to a bound.
    Control,
    /// A keepalive: neither sealed nor checked at its own level, before all data. There is always room for it, or it is lost.
    Bare,
}

#[derive(Debug)]
pub(crate) struct Outlet {
    /// Carries the flow.
    pub(crate) member: MemberId,
    pub(crate) way: Way,
    /// Our endpoint id; and the peer's, which stands in front of each packet to it.
    pub(crate) eid: u64,
    pub(crate) peer_eid: u64,
    /// The next hop of `Way::Unicast`, and when it was found.
    pub(crate) hop: (u64, Option<Hop>),
    /// Congestion of the way, if the layer cares.
    pub(crate) ecn: Option<Box<Ecn>>,
    /// Seals our packets, and opens packets of the peer.
    pub(crate) session: Option<Session>,
    /// Each packet carries a CRC32 behind it.
    pub(crate) crc: bool,
    /// See `Setup::mtu`.
    pub(crate) mtu: usize,
    /// Messages of a program without FRCP that are longer do not leave: they cross no more than a part of the way.
    pub(crate) longest: usize,
    /// As in `Setup`; and the bad link of an impaired layer.
    pub(crate) lot: (u64, usize),
    pub(crate) link: Option<Impairment>,
    pub(crate) sent_at: u64,
    /// Room for a packet that is opened; kept, and not cleared, for the next.
    pub(crate) opened: Vec<u8>,
}

impl Outlet {
    /// Bytes in front of each packet that say for which flow it is.
    pub(crate) fn header(&self) -> usize {
        match self.way {
            Way::Port(..) | Way::Transfer(_) => EID,
            Way::Unicast(..) => PCI,
            Way::Loop(_) | Way::Broadcast | Way::Tap => 0,
        }
    }

    /// Whether packets of the peer may come from there.
    pub(crate) fn comes_from(&self, from: Where) -> bool {
        match self.way {
            Way::Port(_, address) => from == Where::Address(address),
            Way::Transfer(lower) => from == Where::Flow(lower),
            Way::Unicast(..) => true,
            Way::Loop(_) | Way::Broadcast | Way::Tap => false,
        }
    }

    /// Where a packet of a flow above begins in what is written, behind what is in front of it here.
    pub(crate) fn inside(&self, frame: &Frame) -> usize {
        let iv = self.session.as_ref().map_or(0, |session| session.settings().suite.iv_length());
        frame.top() + self.header() + iv
    }

    /// When a packet may be sent, as far as congestion goes; None: now.
    pub(crate) fn waits_until(&self, now: u64) -> Option<u64> {
        self.ecn.as_ref().and_then(|ecn| ecn.sender.waits_until(now))
    }

    /// The flow below, if there is one.
    pub(crate) fn lower(&self) -> Option<FlowId> {
        match self.way {
            Way::Transfer(lower) => Some(lower),
            Way::Unicast(..) => self.hop.1.map(|hop| hop.lower),
            _ => None,
        }
    }

    /// Begin a packet, which is to be appended to `Stack::bytes`.
    pub(crate) fn open<R: Ring>(&mut self, now: u64, stack: &mut Stack<R>, manner: Manner) -> Result<Frame, Blocker> {
        let mut frame = match self.way {
            Way::Port(peer, _) => {
                let stage = stack.stage(self.member).ok_or(Blocker::Down)?;
                if match manner {
                    Manner::Data => !stage.has_room(),
                    Manner::Control => stage.is_crowded(),
                    Manner::Bare => false,
                } {
                    return Err(Blocker::Port(self.member));
                }
                self.put_header(stage.begin(peer), None, manner);
                return Ok(Frame { sink: Sink::Stage(self.member), starts: [0; DEPTH + 1], depth: 1 });
            }
            Way::Transfer(lower) => stack.with(lower, |below, stack| below.open_below(now, stack, manner))?,
            Way::Unicast(destination, _) => {
                if let Some(at) = self.waits_until(now).filter(|_| manner == Manner::Data) {
                    return Err(Blocker::Until(at));
                }
                let to = (destination, self.peer_eid);
                let hop = stack.hop(self.member, &mut self.hop, to).ok_or(Blocker::Route(self.member))?;
                let opened = stack.with(hop.lower, |below, stack| below.open_below(now, stack, manner));
                // It is about to end, and then there is another way or none.
                opened.map_err(|why| if why == Blocker::Down { Blocker::Route(self.member) } else { why })?
            }
            Way::Loop(other) => {
                // A link loses packets that are too many for it.
                if self.link.is_none() && !stack.flow(other).ok_or(Blocker::Down)?.has_room() {
                    return Err(Blocker::Flow(other));
                }
                stack.begin(Sink::Loop(other))
            }
            Way::Broadcast => match stack.spread_blocker(now, self.member) {
                Some(blocker) => return Err(blocker),
                None => stack.begin(Sink::Members(self.member)),
            },
            Way::Tap => return Err(Blocker::Down),
        };
        let start = if self.lower().is_some() { stack.written(&frame).len() } else { 0 };
        if !frame.push(start) {
            stack.discard(&frame);
            return Err(Blocker::Down);
        }
        let pci = match self.way {
            Way::Unicast(destination, cube) => stack.transfer(self.member).map(|transfer| {
                let pci = transfer.pci(destination, cube, self.peer_eid);
                Pci { ecn: transfer.mark(self.hop.1), ..pci }.write()
            }),
            _ => None,
        };
        self.put_header(stack.bytes(&frame), pci, manner);
        Ok(frame)
    }

    /// `pci`: of members of unicast layers; the others have four bytes, or none.
    #[inline]
    fn put_header(&self, bytes: &mut Vec<u8>, pci: Option<[u8; PCI]>, manner: Manner) {
        match pci {
            Some(pci) => bytes.extend_from_slice(&pci),
            None if self.header() > 0 => bytes.extend_from_slice(&(self.peer_eid as u32).to_be_bytes()),
            None => {}
        }
        if let Some(session) = self.session.as_ref().filter(|_| manner != Manner::Bare) {
            // It is sealed where it stands.
            bytes.resize(bytes.len() + session.settings().suite.iv_length(), 0);
        }
    }

    /// Send packets that are in a buffer already, with room for our header in front of each, by changing nothing but the
    /// headers, and that only where packets are sent as they are. `stride`: bytes of each, header included. None: they are to
    /// be written one by one.
    pub(crate) fn pass<R: Ring>(
        &mut self,
        now: u64,
        run: Run<'_>,
        stride: usize,
        counters: &mut FlowCounters,
        stack: &mut Stack<R>,
    ) -> Option<Passing> {
        let Way::Port(peer, _) = self.way else { return None };
        if self.seals() || self.link.is_some() || stride > self.mtu || !stack.taps.is_empty() {
            return None;
        }
        let (count, bytes) = (run.count(), run.bytes() + run.count() * PCI as u64);
        if !stack.stage(self.member)?.adopts(bytes as usize + count as usize * EID, stride, count) {
            return None;
        }
        self.sent_at = now;
        counters.sent += count;
        counters.sent_bytes += bytes;
        Some(Passing { port: self.member, peer, eid: (self.peer_eid as u32).to_be_bytes() })
    }

    /// The packet is complete. One that cannot be sealed is not sent.
    pub(crate) fn close<R: Ring>(
        &mut self,
        now: u64,
        mut frame: Frame,
        counters: &mut FlowCounters,
        stack: &mut Stack<R>,
        manner: Manner,
    ) {
        let body = frame.pop() + self.header();
        if manner != Manner::Bare && !self.seal(body, &frame, stack) {
            // After 2^63 packets, or in the child of a fork.
            counters.unsealed += 1;
            return stack.discard(&frame);
        }
        if let (Way::Unicast(..), Some(hop)) = (self.way, self.hop.1)
            && stack.written(&frame).len() + self.header() > hop.most + body
        {
            // The way leads over another lower flow now, or that carries less.
            counters.too_long += 1;
            return stack.discard(&frame);
        }
        self.sent_at = now;
        counters.sent += 1;
        if let (Way::Port(..), None, Manner::Data) = (self.way, &self.link, manner) {
            // Nearly all packets go this way, so the stage is looked up once.
            let length = stack.stage(self.member).map_or(body, |stage| stage.commit(self.mtu));
            counters.sent_bytes += (length - body) as u64;
            return;
        }
        if !stack.taps.is_empty() {
            stack.tap_closed(now, self, &frame, body - self.header());
        }
        let length = stack.written(&frame).len() - body;
        counters.sent_bytes += length as u64;
        if let Some(ecn) = &mut self.ecn {
            ecn.sender.sent(now, length);
        }
        if let Some(lower) = self.lower() {
            let closed = stack.with(lower, |below, stack| {
                below.close_below(now, frame, stack);
                Ok(())
            });
            return closed.unwrap_or_default();
        }
        match &mut self.link {
            None => stack.commit(now, &frame, self.mtu, manner),
            Some(link) => {
                let datagram = stack.take_out(&frame);
                link.offer(now, datagram, stack.shaken(self.member));
                self.pass_on(now, stack);
            }
        }
    }

    /// Encrypt the packet that begins at `body`, and put a CRC behind it, as the flow has it.
    fn seal<R: Ring>(&mut self, body: usize, frame: &Frame, stack: &mut Stack<R>) -> bool {
        if let Some(session) = &mut self.session {
            let room = session.settings().suite.tag_length();
            let bytes = stack.bytes(frame);
            bytes.resize(bytes.len() + room, 0);
            if session.seal_in_place(&mut stack.written(frame)[body..]).is_err() {
                return false;
            }
        }
        if self.crc {
            let crc = crc::of(&stack.written(frame)[body..]);
            stack.bytes(frame).extend_from_slice(&crc);
        }
        true
    }

    /// Send the packets that a bad link lets through by now. Returns the blocker, if there is one.
    pub(crate) fn pass_on<R: Ring>(&mut self, now: u64, stack: &mut Stack<R>) -> Option<Blocker> {
        let link = self.link.as_mut()?;
        match self.way {
            Way::Port(peer, _) => {
                while let Some(stage) = stack.stage(self.member).filter(|stage| stage.has_room())
                    && let Some(datagram) = link.due(now)
                {
                    stage.begin(peer).extend_from_slice(&datagram);
                    stage.commit(self.mtu);
                }
            }
            Way::Loop(other) => {
                while let Some(datagram) = link.due(now) {
                    // It waits for nobody.
                    let room = stack.flow(other).is_some_and(|other| other.has_any_room());
                    if !room || !stack.bring(other, datagram) {
                        stack.shaken(self.member).lost += 1;
                    }
                }
            }
            Way::Transfer(_) | Way::Unicast(..) | Way::Broadcast | Way::Tap => {}
        }
        self.deadline().filter(|at| *at <= now).map(|_| Blocker::Port(self.member))
    }

    /// When `pass_on` has something to send.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.link.as_ref().and_then(Impairment::next_deadline)
    }

    /// Packets of the peer are to be opened.
    pub(crate) fn seals(&self) -> bool {
        self.session.is_some() || self.crc
    }

    /// The payload of a packet of the peer, which is counted; None: nobody wants it.
    pub(crate) fn unseal<'a>(&'a mut self, packet: &'a [u8], counters: &mut FlowCounters) -> Option<&'a [u8]> {
        counters.received += 1;
        counters.received_bytes += packet.len() as u64;
        if packet.is_empty() {
            counters.empty += 1;
            return None;
        }
        let packet = if self.crc {
            let Some(body) = crc::check(packet) else {
                counters.damaged += 1;
                return None;
            };
            body
        } else {
            packet
        };
        let plain = match &mut self.session {
            None => packet,
            Some(session) => {
                let length = session.plain_length(packet.len()).unwrap_or(0);
                if self.opened.len() < length {
                    self.opened.resize(length, 0);
                }
                let plain = &mut self.opened[..length];
                // The session counts rejected packets.
                session.open_into(packet, plain).ok()?;
                plain
            }
        };
        counters.unwanted += u64::from(plain.is_empty());
        (!plain.is_empty()).then_some(plain)
    }

    /// Packets that were rejected as none of the peer's, and as repeated or sent back.
    pub(crate) fn rejected(&self) -> (u64, u64) {
        let counters = self.session.as_ref().map(Session::counters).unwrap_or_default();
        (counters.forged, counters.replayed + counters.reflected)
    }
}

impl<R: Ring> Stack<R> {
    /// Do something with a flow below, which meanwhile nobody else finds.
    pub(crate) fn with<T>(
        &mut self,
        flow: FlowId,
        call: impl FnOnce(&mut Flow<R>, &mut Self) -> Result<T, Blocker>,
    ) -> Result<T, Blocker> {
        let Some(mut taken) = self.flows.take(flow) else {
            return Err(if self.flows.has_place(flow) { Blocker::Busy } else { Blocker::Down });
        };
        let result = call(&mut taken, self);
        self.flows.put(flow, taken);
        result
    }

    /// Begin a packet that does not leave by a port at once.
    pub(crate) fn begin(&mut self, sink: Sink) -> Frame {
        self.frame.clear();
        Frame::new(sink)
    }

    /// The buffer to which a packet that is being written is appended.
    pub(crate) fn bytes(&mut self, frame: &Frame) -> &mut Vec<u8> {
        if let Sink::Stage(port) = frame.sink
            && let Some(stage) = self.members.get_mut(port).and_then(|member| member.stage())
        {
            return stage.bytes();
        }
        &mut self.frame
    }

    /// All of a packet that is being written, headers included.
    pub(crate) fn written(&mut self, frame: &Frame) -> &mut [u8] {
        if let Sink::Stage(port) = frame.sink
            && let Some(stage) = self.members.get_mut(port).and_then(|member| member.stage())
        {
            return stage.written();
        }
        &mut self.frame
    }

    /// The packet is not to be sent.
    pub(crate) fn discard(&mut self, frame: &Frame) {
        match frame.sink {
            Sink::Stage(port) => {
                if let Some(stage) = self.stage(port) {
                    stage.discard();
                }
            }
            _ => self.frame.clear(),
        }
    }

    /// The packet, which is then not sent from here.
    fn take_out(&mut self, frame: &Frame) -> Vec<u8> {
        match frame.sink {
            Sink::Stage(port) => self.stage(port).map(|stage| stage.take()).unwrap_or_default(),
            _ => std::mem::take(&mut self.frame),
        }
    }

    fn commit(&mut self, now: u64, frame: &Frame, mtu: usize, manner: Manner) {
        match frame.sink {
            Sink::Stage(port) => {
                let Some(stage) = self.stage(port) else { return };
                if manner != Manner::Bare {
                    stage.commit(mtu);
                } else if !stage.commit_urgent() {
                    self.count_crowded(port);
                }
            }
            Sink::Loop(other) => {
                let packet = std::mem::take(&mut self.frame);
                // It was there when the packet was begun.
                self.bring(other, packet);
            }
            Sink::Members(member) => self.spread(now, member),
            Sink::Queue => {}
        }
    }
}
