//! A member of a layer: the part of an IPC process in a stack. It has the flows that it carries, by our endpoint ids, and
//! counters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::balance::Balance;
use crate::counters::{LayerCounters, MemberCounted};
use crate::door::Door;
use crate::id::{Eids, FlowId};
use crate::link::{Counters, Impairment, Settings};
use crate::stack::{Source, Where};
use crate::stage::Stage;
use crate::transfer::Transfer;

/// Packets that are kept for a flow whose other end was quicker.
const KEPT: usize = 32;

/// How a member carries its flows.
#[derive(Debug)]
pub(crate) enum Carries {
    /// By a socket of its own.
    Port(Box<Port>),
    /// By flows of layers below.
    Transfer,
    /// By flows of layers below that lead to neighbours: packets have addresses.
    Unicast(Box<Transfer>),
    /// Within this stack, which has both ends.
    Local,
    /// Within this stack: each flow gets the packets of all others.
    Broadcast,
}

/// The way out of the node.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) stage: Stage,
    /// Sources that wait until there is room.
    pub(crate) parked: VecDeque<Source>,
    /// Bytes of the kernel's buffer for datagrams that arrive.
    pub(crate) room: u32,
    /// What the kernel had dropped there when it was asked last, and the mark of what arrives: how full the buffer is.
    pub(crate) dropped: u32,
    pub(crate) mark: u8,
    /// When there was nothing to receive last.
    pub(crate) drained_at: u64,
    /// For management datagrams; None: all come in.
    pub(crate) door: Option<Door>,
    /// Management datagrams have a form that only the control side knows. Reports are what they are everywhere, and no longer
    /// or shorter, which messages of the other form are not.
    pub(crate) foreign: bool,
}

/// Packets for a flow that is not there yet.
#[derive(Debug)]
struct Reserved {
    /// None: from anywhere.
    from: Option<Where>,
    datagrams: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) carries: Carries,
    pub(crate) flows: BTreeSet<FlowId>,
    pub(crate) by_eid: Eids,
    pub(crate) counters: LayerCounters,
    /// Counters of the bad links of an impaired layer.
    pub(crate) shaken: Counters,
    /// Packets lost because a reader in this node was too slow. They are in `shaken`, and its flow counts them, too.
    pub(crate) slow: u64,
    /// Of a broadcast layer: deliveries of a packet beyond the first one; and packets that no flow got.
    pub(crate) copies: u64,
    pub(crate) unheard: u64,
    /// The balance of flows that ended.
    pub(crate) past: Balance,
    /// The counters that were shown last.
    pub(crate) shown: Option<MemberCounted>,
    pub(crate) impaired: Option<(Settings, u64)>,
    /// The bad link of management datagrams, which carry their destination in front there.
    pub(crate) link: Option<Impairment>,
    reserved: BTreeMap<u64, Reserved>,
}

impl Member {
    pub(crate) fn new(carries: Carries) -> Self {
        Member {
            carries,
            flows: BTreeSet::new(),
            by_eid: Eids::default(),
            counters: LayerCounters::default(),
            shaken: Counters::default(),
            slow: 0,
            copies: 0,
            unheard: 0,
            past: Balance::default(),
            shown: None,
            impaired: None,
            link: None,
            reserved: BTreeMap::new(),
        }
    }

    pub(crate) fn port(&mut self) -> Option<&mut Port> {
        match &mut self.carries {
            Carries::Port(port) => Some(port),
            _ => None,
        }
    }

    pub(crate) fn stage(&mut self) -> Option<&mut Stage> {
        self.port().map(|port| &mut port.stage)
    }

    pub(crate) fn counted(&self) -> MemberCounted {
        let Counters { delivered, lost, duplicated, reordered } = self.shaken;
        let layer =
            LayerCounters { delivered, lost: self.counters.lost + lost, duplicated, reordered, ..self.counters };
        let transfer = match &self.carries {
            Carries::Unicast(transfer) => Some(transfer.counted()),
            _ => None,
        };
        (layer, transfer)
    }

    /// Keep the first packets for an endpoint id that come from there, or for None from anywhere.
    pub(crate) fn reserve(&mut self, eid: u64, from: Option<Where>) {
        if let Some(before) = self.reserved.insert(eid, Reserved { from, datagrams: Vec::new() }) {
            self.counters.unknown += before.datagrams.len() as u64;
        }
    }

    /// Whether something for that endpoint id may come from there before its flow is there.
    pub(crate) fn expects(&self, eid: u64, from: Where) -> bool {
        self.reserved.get(&eid).is_some_and(|reserved| reserved.from.is_none_or(|only| only == from))
    }

    /// Returns the packets that were kept. Nothing more is expected.
    pub(crate) fn unreserve(&mut self, eid: u64) -> Vec<Vec<u8>> {
        self.reserved.remove(&eid).map(|reserved| reserved.datagrams).unwrap_or_default()
    }

    /// Nothing is expected any more; returns how many packets were kept.
    pub(crate) fn forget_kept(&mut self) -> u64 {
        let kept = self.kept();
        self.reserved.clear();
        kept
    }

    /// Packets that are kept.
    pub(crate) fn kept(&self) -> u64 {
        self.reserved.values().map(|reserved| reserved.datagrams.len() as u64).sum()
    }

    /// Keep packets for a flow that is not there yet, if it is expected.
    pub(crate) fn keep<'a>(&mut self, eid: u64, from: Where, count: u64, datagrams: impl Iterator<Item = &'a [u8]>) {
        let Some(reserved) =
            self.reserved.get_mut(&eid).filter(|reserved| reserved.from.is_none_or(|only| only == from))
        else {
            self.counters.unknown += count;
            return;
        };
        let room = KEPT - reserved.datagrams.len().min(KEPT);
        reserved.datagrams.extend(datagrams.take(room).map(<[u8]>::to_vec));
        self.counters.unknown += count.saturating_sub(room as u64);
    }
}

/// An address without flow labels and scopes of IPv6, which do not tell peers apart.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

const ADDRESS: usize = 18;

/// A datagram with its destination in front.
pub(crate) fn addressed(to: SocketAddr, datagram: &[u8]) -> Vec<u8> {
    let ip = match to.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    [&ip.octets()[..], &to.port().to_be_bytes(), datagram].concat()
}

/// The destination, and the datagram.
pub(crate) fn unaddressed(packet: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (address, datagram) = packet.split_first_chunk::<ADDRESS>()?;
    let (ip, port) = (address.first_chunk::<16>()?, address.last_chunk()?);
    Some((SocketAddr::new(IpAddr::from(*ip).to_canonical(), u16::from_be_bytes(*port)), datagram))
}
