//! One flow: a user above (a program, a member of a layer, the control side), a protocol, and a way to the peer below.

mod above;
mod arrivals;
mod ends;
mod program;

use std::collections::VecDeque;

use ouroboros_crypto::Session;
use ouroboros_frcp::{Config, Connection};

use crate::counters::{Counted, FlowCounters};
use crate::credit::{Credit, MOST};
use crate::id::{FlowId, MemberId};
use crate::link::Impairment;
use crate::memory::Account;
use crate::outlet::{Blocker, Outlet, Way};
use crate::ring::{Flags, Ring, Write};
use crate::stack::{Carrier, Source, Stack};
use crate::tap::About;
use crate::transfer::{Pacer, WAITING};

/// Packets that one flow may send or take in before the others get their turn.
const TURN: usize = 128;
/// Bytes that FRCP takes for flows above before they have to wait.
const UNSENT: usize = 64 << 10;

/// The user of a flow.
#[derive(Debug)]
pub enum User<R> {
    /// A program.
    Program(R),
    /// A member of a layer above: the packets belong to its flows.
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
    /// Its user.
    pub user: User<R>,
    /// FRCP on both ends; None: packets as they are.
    pub frcp: Option<Config>,
    /// Random; chooses the first sequence number.
    pub seed: u64,
    /// Seeds the bad link of the flow, together with the seed of the layer.
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
    /// The same until its first packet, and the control side is told of that one; 0: no other time.
    pub grace: u32,
    /// For those that watch.
    pub about: About,
    /// What pays for the memory of FRCP; none: it has as much as it needs.
    pub accounts: Vec<Account>,
}

impl<R> Setup<R> {
    /// A raw flow with nothing that it need not have.
    pub fn new(id: FlowId, member: MemberId, carrier: Carrier, user: User<R>) -> Self {
        Setup {
            id,
            member,
            eid: 0,
            peer_eid: 0,
            carrier,
            user,
            frcp: None,
            seed: 0,
            lot: (0, 0),
            credit: false,
            session: None,
            crc: false,
            mtu: usize::MAX,
            timeout: 0,
            grace: 0,
            about: About::default(),
            accounts: Vec::new(),
        }
    }

    /// The same, with another kind of ring for its program, if that can be.
    pub fn with_ring<Q, E>(self, make: impl FnOnce(R) -> Result<Q, E>) -> Result<Setup<Q>, E> {
        let user = match self.user {
            User::Program(ring) => User::Program(make(ring)?),
            User::Transfer(member) => User::Transfer(member),
            User::Control(take) => User::Control(take),
        };
        let Setup { id, member, eid, peer_eid, carrier, frcp, seed, lot, credit, session, crc, mtu, .. } = self;
        let (timeout, grace, about, accounts) = (self.timeout, self.grace, self.about, self.accounts);
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
            about,
            accounts,
        })
    }
}

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The user let go, and all its packets were sent, or acknowledged on a reliable flow.
    Closed,
    /// Likewise, but the program died.
    Died,
    /// The peer deallocated or died.
    Gone,
    /// The peer was silent for longer than the timeout of the flow.
    Silent,
    /// Packets were not acknowledged in time.
    Broken,
}

/// How packets of the user become packets on the wire.
#[derive(Debug)]
enum Protocol {
    /// As they are. With a peer of ours: credit for sending, and reports for the credit of the peer.
    Raw {
        credit: Option<Credit>,
        reports: Reports,
    },
    Frcp(Box<Connection>),
}

/// The last report to the sender of a raw flow.
#[derive(Debug, Default)]
struct Reports {
    counted: u64,
    wait: bool,
    /// Bytes of packets since the queue of the program was seen empty.
    backlog: usize,
}

/// When a flow wants another turn.
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
    /// Sources above that wait for this flow.
    pub(crate) waiters: VecDeque<Source>,
    /// For a neighbour that sends no reports.
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
    /// The device below carries nothing; what came before that proves nothing.
    cut: bool,
    /// How the user ended, once all that it wrote was taken in.
    user_gone: Option<How>,
    /// The program died though its ring does not show it. So many bytes of it are still taken in, at the most.
    doomed: Option<usize>,
    /// The peer's node said that it deallocated or died.
    peer_gone: bool,
    /// It died.
    peer_died: bool,
    /// The program tells when there is room for the next message.
    awaits_room: bool,
    /// Packets from the other end of a loop, and their bytes.
    inbox: VecDeque<Vec<u8>>,
    inbox_bytes: usize,
    /// Packets that flows above must not lose and FRCP had no room for, and their bytes.
    urgent: VecDeque<Vec<u8>>,
    urgent_bytes: usize,
    /// For a user that is not known yet.
    kept: VecDeque<Vec<u8>>,
    /// The flags of the peer, as its program sees them.
    shown: Flags,
    /// The flags that its program had set when all that it wrote before was taken in.
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
                // Packets of flows above that are written early cannot be put in order any more.
                let unsent = if ring.is_some() { config.unsent } else { config.unsent.min(UNSENT) };
                Protocol::Frcp(Box::new(Connection::new(
                    Config { unsent, thrifty: !setup.accounts.is_empty(), ..config },
                    setup.seed,
                    now,
                )))
            }
            None => {
                // Members between the two nodes have room for so many.
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
            longest: usize::MAX,
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
            cut: false,
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
        // Packets that a side wrote after it took back a flag must not meet that flag.
        self.show_flags(stack, false);
        self.take_inbox(now, stack);
        let mut blocker = self.outlet.pass_on(now, stack);
        let more = self.take_in(now, stack, &mut blocker);
        let all = !more && blocker.is_none();
        // Before anything is sent: messages that the user takes open the window that the peer is told.
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

    pub(crate) fn counted(&self) -> Counted {
        let frcp = match &self.protocol {
            Protocol::Frcp(connection) => Some(connection.stats()),
            Protocol::Raw { .. } => None,
        };
        let (rejected, replayed) = self.outlet.rejected();
        (FlowCounters { rejected, replayed, ..self.counters }, frcp)
    }

    /// Tell the accounts how much of their memory it holds now, and hear how short that is.
    pub(crate) fn settle(&mut self, stack: &mut Stack<R>) {
        if self.accounts.is_empty() {
            return;
        }
        let Protocol::Frcp(connection) = &mut self.protocol else { return };
        let memory = connection.memory();
        connection.press(stack.accounts.settle(&self.accounts, self.memory, memory));
        self.memory = memory;
    }

    /// Give the program a record of a capture. False: it is lost, because the program reads too slowly.
    pub(crate) fn give(&mut self, record: &[u8]) -> bool {
        let User::Program(ring) = &self.user else { return false };
        let given = matches!(ring.writer().map(|mut writer| writer.stage(record)), Ok(Ok(true)));
        *if given { &mut self.counters.delivered } else { &mut self.counters.overrun } += 1;
        given
    }

    /// Packets lost because the user reads too slowly.
    pub(crate) fn overrun(&self) -> u64 {
        self.counters.overrun
    }

    /// Packets of the flow that wait, to be sent or to be taken.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let link = self.outlet.link.as_ref().map_or(0, Impairment::under_way);
        (link + self.inbox.len() as u64, self.kept.len() as u64)
    }

    pub(super) fn count(&mut self, packets: u64, bytes: u64) {
        self.counters.received += packets;
        self.counters.received_bytes += bytes;
    }
}
