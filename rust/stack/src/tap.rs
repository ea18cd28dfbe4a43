//! Captures: copies of what a member sends and gets, in the ring of a flow that carries nothing else, for whoever reads there.
//!
//! A port is captured where datagrams come in and once they have left. A layer over others is captured where its packets come up
//! from flows below and go down to them; one within the node, where a packet is committed. Each packet is as the members of
//! that layer exchange it, so what the flows of the layer encrypt stays encrypted, and no key is ever near.
//!
//! A record is `HEAD` and as much of the packet as the capture wants, big-endian:
//!
//! ```text
//! time | flags | via | port | address | below | flow | ours | theirs | lost | length | packet
//! 0      8       9     10     12        28      36     44     52       60     68       72
//! ```
//!
//! `time`: nanoseconds since 1970. `flags`: see `OUTWARD` and those below. `via`: a `Via`, of which `port` and `address` (in
//! the form of IPv6) or `below` are. `flow`, `ours`, `theirs`: of the flow of the layer that the packet belongs to, and its
//! endpoint ids, if that is `KNOWN`. `lost`: records before this one for which there was no room. `length`: of the packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ouroboros_wire::management::EID;
use ouroboros_wire::pci::{FLOWS, PCI, Pci};

use crate::flow::User;
use crate::id::{FlowId, Map, MemberId};
use crate::member::Carries;
use crate::outlet::{Frame, Outlet, Way};
use crate::ring::Ring;
use crate::run::Run;
use crate::stack::{Stack, Where};

/// Bytes of a record in front of the packet.
pub const HEAD: usize = 72;
/// The member sent it; else it got it.
const OUTWARD: u8 = 1;
/// The flow encrypts what follows the header of the layer.
const SEALED: u8 = 2;
/// It is known to which flow it belongs.
const KNOWN: u8 = 4;
/// It is a word between the control sides of members: none of the headers of the layer is in front.
const CONTROL: u8 = 8;
/// Peers of ports whose flows were looked for, at the most.
const SOUGHT: usize = 4096;

/// What others call a flow, and whose it is. Nothing of the stack depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct About {
    /// The number by which the control side knows it.
    pub label: u64,
    /// The member whose packets it carries, also while the control side has it.
    pub above: Option<MemberId>,
}

impl About {
    /// The same, with the member that uses it, if one does.
    pub(crate) fn of_user<R>(self, user: &User<R>) -> Self {
        if let User::Transfer(member) = user { About { above: Some(*member), ..self } } else { self }
    }
}

/// By what a packet came or goes.
#[derive(Debug, Clone, Copy)]
enum Via {
    /// A port, from or to an address.
    Address(SocketAddr),
    /// A flow below, by its label.
    Flow(u64),
    /// Nothing: it stays in the node.
    Within,
}

/// The flow of a packet, as the control side knows it, and its endpoint ids.
#[derive(Debug, Clone, Copy)]
struct Whose {
    label: u64,
    ours: u64,
    theirs: u64,
    sealed: bool,
}

#[derive(Debug)]
struct Tap {
    /// Its ring takes the records.
    flow: FlowId,
    member: MemberId,
    /// Bytes of each packet that are wanted.
    snap: u32,
    /// Nanoseconds since 1970 when the time of the stack was 0.
    epoch: u64,
    lost: u64,
}

/// All captures of a stack.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    list: Vec<Tap>,
    /// Of all flows.
    about: Map<u64, About>,
    /// The time of what happens now.
    pub(crate) now: u64,
    /// The flow of the packet that goes to a flow below next.
    sender: Option<Whose>,
    /// Flows of a member by the address of their peer and its endpoint id, as far as they were looked for.
    sought: BTreeMap<(MemberId, SocketAddr, u32), Option<Whose>>,
    scratch: Vec<u8>,
}

impl Taps {
    /// Nobody captures anything.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// A flow is there. `tap`: it is a capture of that member, of so many bytes of each packet, with the epoch of its times.
    pub(crate) fn add(&mut self, flow: FlowId, about: About, tap: Option<(MemberId, u32, u64)>) {
        self.about.insert(flow.into(), about);
        self.sought.clear();
        if let Some((member, snap, epoch)) = tap {
            self.list.push(Tap { flow, member, snap, epoch, lost: 0 });
        }
    }

    /// A flow is over.
    pub(crate) fn remove(&mut self, flow: FlowId) {
        self.about.remove(&flow.into());
        self.sought.clear();
        self.list.retain(|tap| tap.flow != flow);
    }

    /// The member above a flow.
    pub(crate) fn set_above(&mut self, flow: FlowId, above: MemberId) {
        if let Some(about) = self.about.get_mut(&flow.into()) {
            about.above = Some(above);
        }
    }

    /// Captures of a member.
    pub(crate) fn of(&self, member: MemberId) -> Vec<FlowId> {
        self.list.iter().filter(|tap| tap.member == member).map(|tap| tap.flow).collect()
    }

    fn has(&self, member: MemberId) -> bool {
        self.list.iter().any(|tap| tap.member == member)
    }

    fn about(&self, flow: FlowId) -> About {
        self.about.get(&flow.into()).copied().unwrap_or_default()
    }
}

/// Where packets are captured. All of it is called only while there are captures.
impl<R: Ring> Stack<R> {
    /// A run of packets came to a member.
    #[cold]
    pub(crate) fn tap_arrived(&mut self, now: u64, member: MemberId, from: Where, run: Run<'_>) {
        if !self.taps.has(member) {
            return;
        }
        let via = match from {
            Where::Address(address) => Via::Address(address),
            Where::Flow(lower) => Via::Flow(self.taps.about(lower).label),
        };
        for packet in run.packets() {
            let whose = self.whose_for(member, packet);
            self.tap(now, member, (0, via, whose), |_, bytes| bytes.extend_from_slice(packet));
        }
    }

    /// A packet came to the control side of the member above a flow.
    #[cold]
    pub(crate) fn tap_message(&mut self, now: u64, flow: FlowId, packet: &[u8]) {
        let About { label, above } = self.taps.about(flow);
        if let Some(above) = above {
            self.tap(now, above, (CONTROL, Via::Flow(label), None), |_, bytes| bytes.extend_from_slice(packet));
        }
    }

    /// A packet of the member above a flow goes down to it, or (`control`) of its control side. `start`: where it begins in
    /// what is written.
    #[cold]
    pub(crate) fn tap_lowered(&mut self, now: u64, (flow, control): (FlowId, bool), frame: &Frame, start: usize) {
        let About { label, above } = self.taps.about(flow);
        let sender = self.taps.sender.take();
        if let Some(above) = above {
            let flags = if control { OUTWARD | CONTROL } else { OUTWARD };
            self.tap(now, above, (flags, Via::Flow(label), sender), |stack, bytes| {
                bytes.extend_from_slice(stack.written(frame).get(start..).unwrap_or_default());
            });
        }
    }

    /// A packet of a flow over others, or within the node, is complete. `start`: where it begins in what is written.
    #[cold]
    pub(crate) fn tap_closed(&mut self, now: u64, outlet: &Outlet, frame: &Frame, start: usize) {
        let id = match outlet.way {
            // What leaves a port is captured there.
            Way::Port(..) | Way::Tap => return,
            Way::Loop(other) => Some(other),
            Way::Broadcast => None,
            Way::Transfer(_) | Way::Unicast(..) => {
                self.members.get(outlet.member).and_then(|member| member.by_eid.get(&outlet.eid)).copied()
            }
        };
        let whose = id.map(|id| self.whose(id, outlet));
        if outlet.lower().is_some() {
            self.taps.sender = whose;
            return;
        }
        self.tap(now, outlet.member, (OUTWARD, Via::Within, whose), |stack, bytes| {
            bytes.extend_from_slice(stack.written(frame).get(start..).unwrap_or_default());
        });
    }

    /// What `transmit` returned has left a port.
    #[cold]
    pub(crate) fn tap_sent(&mut self, port: MemberId) {
        if !self.taps.has(port) {
            return;
        }
        let Some((to, bytes, segment)) = self.transmit(port).map(|out| (out.to, out.bytes.to_vec(), out.segment))
        else {
            return;
        };
        for packet in bytes.chunks(segment.unwrap_or(bytes.len()).max(1)) {
            let whose = self.whose_to(port, to, packet);
            self.tap(self.taps.now, port, (OUTWARD, Via::Address(to), whose), |_, bytes| {
                bytes.extend_from_slice(packet);
            });
        }
    }

    fn whose(&self, flow: FlowId, outlet: &Outlet) -> Whose {
        let label = self.taps.about(flow).label;
        Whose { label, ours: outlet.eid, theirs: outlet.peer_eid, sealed: outlet.session.is_some() }
    }

    /// The flow that a packet is for which came.
    fn whose_for(&self, member: MemberId, packet: &[u8]) -> Option<Whose> {
        let at = self.members.get(member)?;
        let eid = match &at.carries {
            Carries::Unicast(transfer) => {
                let pci = Pci::read(packet.first_chunk::<PCI>()?);
                Some(pci.eid).filter(|eid| *eid >= FLOWS && pci.destination == transfer.settings().address)?
            }
            _ => u32::from_be_bytes(*packet.first_chunk::<EID>()?).into(),
        };
        let id = *at.by_eid.get(&eid)?;
        Some(self.whose(id, &self.flows.get(id)?.outlet))
    }

    /// The flow that a datagram is of which went to an address.
    fn whose_to(&mut self, member: MemberId, to: SocketAddr, packet: &[u8]) -> Option<Whose> {
        let eid = u32::from_be_bytes(*packet.first_chunk::<EID>()?);
        if eid == 0 {
            return None;
        }
        let key = (member, to, eid);
        if let Some(known) = self.taps.sought.get(&key) {
            return *known;
        }
        let mut ids = self.members.get(member)?.flows.iter();
        let found = ids.find_map(|id| {
            let outlet = &self.flows.get(*id)?.outlet;
            let its = outlet.peer_eid == u64::from(eid) && outlet.comes_from(Where::Address(to));
            its.then(|| self.whose(*id, outlet))
        });
        if self.taps.sought.len() >= SOUGHT {
            self.taps.sought.clear();
        }
        self.taps.sought.insert(key, found);
        found
    }

    /// Give a packet of a member, which `append` writes, to those that capture it.
    fn tap(
        &mut self,
        now: u64,
        member: MemberId,
        about: (u8, Via, Option<Whose>),
        append: impl FnOnce(&mut Self, &mut Vec<u8>),
    ) {
        if !self.taps.has(member) {
            return;
        }
        let mut record = std::mem::take(&mut self.taps.scratch);
        record.clear();
        record.resize(HEAD, 0);
        append(self, &mut record);
        let length = record.len().saturating_sub(HEAD);
        let mut list = std::mem::take(&mut self.taps.list);
        for tap in list.iter_mut().filter(|tap| tap.member == member) {
            // It is not there while it has its own turn, in which no packet comes or goes.
            let Some(mut flow) = self.flows.take(tap.flow) else { continue };
            if let Some(head) = record.first_chunk_mut() {
                *head = head_of(tap.epoch.saturating_add(now), about, tap.lost, length);
            }
            let wanted = HEAD.saturating_add(length.min(tap.snap as usize));
            tap.lost += u64::from(!flow.give(record.get(..wanted).unwrap_or(&record)));
            self.note_changed(&mut flow);
            self.flows.put(tap.flow, flow);
        }
        self.taps.list = list;
        self.taps.scratch = record;
    }
}

fn head_of(time: u64, (flags, via, whose): (u8, Via, Option<Whose>), lost: u64, length: usize) -> [u8; HEAD] {
    let (kind, address, below) = match via {
        Via::Address(address) => (0, address, 0),
        Via::Flow(label) => (1, SocketAddr::from(([0, 0, 0, 0], 0)), label),
        Via::Within => (2, SocketAddr::from(([0, 0, 0, 0], 0)), 0),
    };
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let flags = flags | whose.map_or(0, |whose| KNOWN | if whose.sealed { SEALED } else { 0 });
    let Whose { label, ours, theirs, .. } = whose.unwrap_or(Whose { label: 0, ours: 0, theirs: 0, sealed: false });
    let mut head = [0; HEAD];
    let mut rest = &mut head[..];
    let fields: [&[u8]; 11] = [
        &time.to_be_bytes(),
        &[flags],
        &[kind],
        &address.port().to_be_bytes(),
        &ip.octets(),
        &below.to_be_bytes(),
        &label.to_be_bytes(),
        &ours.to_be_bytes(),
        &theirs.to_be_bytes(),
        &lost.to_be_bytes(),
        &u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes(),
    ];
    for field in fields {
        let Some((place, behind)) = rest.split_at_mut_checked(field.len()) else { break };
        place.copy_from_slice(field);
        rest = behind;
    }
    head
}
