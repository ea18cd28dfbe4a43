//! A member of a broadcast layer with neighbours: each packet goes to all programs here and to all neighbours but the one that it
//! came from, once (docs/protocol/broadcast.md).
//!
//! Members of ours put a header in front of what they tell one another, and know by it what was here before. Members of the C
//! prototype send bare packets, and send on what comes to them; so what comes from them is compared with what was here lately,
//! where there is more than one way to such members.

mod seen;
mod spread;

use std::collections::VecDeque;

use ouroboros_wire::relay::{Kind, Relay, WORD};

use crate::counters::TransferCounters;
use crate::flow::Place;
use crate::id::{FlowId, MemberId};
use crate::outlet::Blocker;
use crate::stack::Source;
use seen::{Contents, Numbers, unforeseen};

/// The longest packet that a member of the prototype passes on whole (docs/spec/unicast-control.md 8).
const MOST_FOREIGN: usize = 1399;
/// Packets, and their bytes, that wait for one neighbour. One more, and the oldest is lost.
const PACKETS: usize = 1024;
const BYTES: usize = 4 << 20;
/// Other members with neighbours of the prototype that are known.
const BORDERS: usize = 256;
/// How long one is known that says nothing more, ns; and how often we say what we have again while packets come.
const BORDER_LIFE: u64 = 600_000_000_000;
const BORDER_PAUSE: u64 = 1_000_000_000;
/// And how soon when another one appears.
const BORDER_URGENT: u64 = 10_000_000;

/// A lower flow to a neighbour. `most`: the longest packet that it carries.
#[derive(Debug)]
struct Link {
    flow: FlowId,
    most: usize,
    ours: bool,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    place: Place,
    listed: Option<Blocker>,
}

/// What keeps a link from taking more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Nothing,
    Port(MemberId),
    /// The flow below, by its credit or its pace; or what waits has its turn soon.
    Flow,
}

impl Link {
    /// Let a packet wait. Returns how many were lost for it.
    fn push(&mut self, packet: Vec<u8>) -> u64 {
        self.bytes += packet.len();
        self.waiting.push_back(packet);
        let mut lost = 0;
        while self.waiting.len() > PACKETS || (self.bytes > BYTES && self.waiting.len() > 1) {
            self.pop();
            lost += 1;
        }
        lost
    }

    /// Half of the queue is for what neighbours send.
    fn hold(&self) -> Hold {
        match self.place {
            _ if self.waiting.len() <= PACKETS / 2 && self.bytes <= BYTES / 2 => Hold::Nothing,
            Place::Parked(Blocker::Port(port)) => Hold::Port(port),
            _ => Hold::Flow,
        }
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let packet = self.waiting.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    fn lose_all(&mut self) -> u64 {
        self.bytes = 0;
        self.waiting.drain(..).count() as u64
    }

    fn push_front(&mut self, packet: Vec<u8>) {
        self.bytes += packet.len();
        self.waiting.push_front(packet);
    }
}

/// Another member that has neighbours of the prototype. `said`: its last words of that.
#[derive(Debug)]
struct Border {
    said: Relay,
    at: u64,
}

/// What a packet that came is.
#[derive(Debug, PartialEq, Eq)]
enum Taken<'a> {
    /// One to deliver and to send on.
    Packet(Relay, &'a [u8]),
    /// One to send on.
    Border(Relay),
    /// For the control side.
    Word(&'a [u8]),
    /// One that was here before, or is none.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    seed: u64,
    /// Of what enters the layer here, and how often it was another one.
    origin: u64,
    moves: u64,
    last: u64,
    links: Vec<Link>,
    /// Flows of programs that wait until a neighbour can take more.
    pub(crate) waiters: VecDeque<Source>,
    numbers: Numbers,
    contents: Contents,
    borders: Vec<Border>,
    /// When we said last what we have, and how much later we do again while packets come.
    said_at: u64,
    pause: u64,
    counters: TransferCounters,
}

impl Hub {
    /// `seed`: random.
    pub(crate) fn new(seed: u64) -> Self {
        Hub {
            seed,
            origin: unforeseen(seed, &[]),
            moves: 0,
            last: 0,
            links: Vec::new(),
            waiters: VecDeque::new(),
            numbers: Numbers::default(),
            contents: Contents::new(seed),
            borders: Vec::new(),
            said_at: 0,
            pause: 0,
            counters: TransferCounters::default(),
        }
    }

    pub(crate) fn counted(&self) -> TransferCounters {
        TransferCounters { waiting: self.links.iter().map(|link| link.waiting.len() as u64).sum(), ..self.counters }
    }

    fn link(&mut self, flow: FlowId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.flow == flow)
    }

    fn foreign(&self) -> usize {
        self.links.iter().filter(|link| !link.ours).count()
    }

    /// What went to a member of the prototype may come back by another one: there are several.
    fn is_strict(&self) -> bool {
        let others = self.borders.iter().map(|border| usize::from(border.said.foreign)).sum::<usize>();
        self.foreign() + others > 1
    }

    fn knows_foreign(&self) -> bool {
        self.foreign() > 0 || !self.borders.is_empty()
    }

    /// The header of what enters the layer here.
    fn enter(&mut self, kind: Kind) -> Relay {
        self.last += 1;
        let foreign = self.foreign().try_into().unwrap_or(u16::MAX);
        Relay { kind, hops: 0, foreign, origin: self.origin, number: self.last }
    }

    /// Somebody else uses our origin: others may know our next numbers already, so have one that nobody can foresee. What comes
    /// back of before is known here.
    fn begin_anew(&mut self) {
        self.numbers.know_all(self.origin);
        self.moves += 1;
        (self.origin, self.last) = (unforeseen(self.seed, &self.moves.to_be_bytes()), 0);
    }

    /// A program here sends a packet.
    fn enter_own(&mut self, now: u64, packet: &[u8]) -> Option<Relay> {
        if packet.is_empty() {
            return None;
        }
        if self.knows_foreign() {
            let strict = self.is_strict();
            if !self.contents.take(now, packet, false, strict) {
                self.counters.returned += 1;
                return None;
            }
        }
        Some(self.enter(Kind::Packet))
    }

    /// A packet came by a lower flow. Bytes of a stranger.
    fn take<'a>(&mut self, now: u64, from: FlowId, bytes: &'a [u8]) -> Taken<'a> {
        let Some(ours) = self.links.iter().find(|link| link.flow == from).map(|link| link.ours) else {
            self.counters.unknown_eid += 1;
            return Taken::Nothing;
        };
        if !ours {
            let strict = self.is_strict();
            if !self.contents.take(now, bytes, true, strict) {
                self.counters.returned += 1;
                return Taken::Nothing;
            }
            return Taken::Packet(self.enter(Kind::Foreign), bytes);
        }
        if let Some((&WORD, word)) = bytes.split_first() {
            self.counters.heard += 1;
            return Taken::Word(word);
        }
        let Some((relay, packet)) = Relay::read(bytes) else {
            self.counters.malformed += 1;
            return Taken::Nothing;
        };
        if relay.origin == self.origin && relay.number > self.last {
            self.counters.forged += 1;
            self.begin_anew();
            return Taken::Nothing;
        }
        if relay.origin == self.origin || !self.numbers.take(from, relay.origin, relay.number) {
            self.counters.returned += 1;
            return Taken::Nothing;
        }
        self.note_border(now, relay);
        let relay = match relay.hops.checked_add(1) {
            Some(hops) => Relay { hops, ..relay },
            None => {
                self.counters.ttl += 1;
                return Taken::Nothing;
            }
        };
        if relay.kind == Kind::Border {
            return Taken::Border(relay);
        }
        if packet.is_empty() {
            self.counters.malformed += 1;
            return Taken::Nothing;
        }
        if self.knows_foreign() {
            let (foreign, strict) = (relay.kind == Kind::Foreign, self.is_strict());
            if !self.contents.take(now, packet, foreign, strict) {
                self.counters.returned += 1;
                return Taken::Nothing;
            }
        }
        Taken::Packet(relay, packet)
    }

    /// What another member says of its neighbours, last.
    fn note_border(&mut self, now: u64, said: Relay) {
        self.borders.retain(|border| border.at + BORDER_LIFE > now);
        let has_room = self.borders.len() < BORDERS;
        let border = Border { said: Relay { kind: Kind::Border, ..said }, at: now };
        match self.borders.iter_mut().find(|border| border.said.origin == said.origin) {
            // What overtook this is newer.
            Some(known) if known.said.number > said.number => {}
            Some(known) => *known = border,
            None if said.foreign > 0 && has_room => {
                self.borders.push(border);
                // It is to know of us before what it sent comes back to it by way of ours.
                self.pause = BORDER_URGENT;
            }
            None => {}
        }
        self.borders.retain(|border| border.said.foreign > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(links: &[(u64, bool)]) -> Hub {
        let mut hub = Hub::new(7);
        for (flow, ours) in links {
            hub.adopt((*flow).into(), 1500, *ours);
        }
        hub
    }

    fn relayed(relay: Relay, packet: &[u8]) -> Vec<u8> {
        [&relay.write()[..], packet].concat()
    }

    const OTHER: Relay = Relay { kind: Kind::Packet, hops: 0, foreign: 0, origin: 99, number: 1 };

    #[test]
    fn a_packet_of_ours_is_taken_once_by_whichever_way() {
        let mut hub = hub(&[(1, true), (2, true)]);
        let bytes = relayed(OTHER, b"hello");
        assert_eq!(hub.take(0, 1.into(), &bytes), Taken::Packet(Relay { hops: 1, ..OTHER }, b"hello"));
        assert_eq!(hub.take(0, 1.into(), &bytes), Taken::Nothing);
        assert_eq!(hub.take(0, 2.into(), &bytes), Taken::Nothing);
        // The same words once more are another packet.
        assert_ne!(hub.take(0, 2.into(), &relayed(Relay { number: 2, ..OTHER }, b"hello")), Taken::Nothing);
        assert_eq!(hub.counted().returned, 2);
    }

    #[test]
    fn what_makes_no_sense_is_dropped() {
        let mut hub = hub(&[(1, true), (2, false)]);
        for bytes in [&b""[..], b"x", &[9; 40], &relayed(Relay { number: 0, ..OTHER }, b"x")] {
            assert_eq!(hub.take(0, 1.into(), bytes), Taken::Nothing);
        }
        assert_eq!(hub.take(0, 3.into(), b"who?"), Taken::Nothing);
        assert_eq!(hub.take(0, 1.into(), &relayed(Relay { hops: 255, ..OTHER }, b"x")), Taken::Nothing);
        let counted = hub.counted();
        assert_eq!((counted.malformed, counted.unknown_eid, counted.ttl), (4, 1, 1));
    }

    #[test]
    fn a_word_is_for_control() {
        assert_eq!(hub(&[(1, true)]).take(0, 1.into(), b"\x04bye"), Taken::Word(b"bye"));
    }

    #[test]
    fn the_prototype_repeats_itself_where_nothing_can_come_back() {
        let mut hub = hub(&[(1, true), (2, false)]);
        for number in 1..=3 {
            let Taken::Packet(relay, b"hi") = hub.take(0, 2.into(), b"hi") else { unreachable!("{number}") };
            assert_eq!((relay.kind, relay.foreign, relay.number), (Kind::Foreign, 1, number));
        }
        // A second way to such members, anywhere.
        let border = Relay { kind: Kind::Border, foreign: 1, ..OTHER };
        assert_eq!(hub.take(0, 1.into(), &border.write()), Taken::Border(Relay { hops: 1, ..border }));
        assert_eq!(hub.take(0, 2.into(), b"hi"), Taken::Nothing);
        // It is gone again.
        let gone = Relay { foreign: 0, number: 2, ..border };
        assert_ne!(hub.take(0, 1.into(), &gone.write()), Taken::Nothing);
        assert_ne!(hub.take(0, 2.into(), b"hi"), Taken::Nothing);
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes() {
        let mut hub = hub(&[(1, true)]);
        let link = hub.link(1.into()).unwrap_or_else(|| unreachable!());
        let lost: u64 = (0..PACKETS + 10).map(|number| link.push(vec![number as u8; 10])).sum();
        assert_eq!((lost, link.waiting.len(), link.bytes), (10, PACKETS, 10 * PACKETS));
        assert_eq!(link.pop(), Some(vec![10; 10]));
        let lost: u64 = (0..20).map(|_| link.push(vec![0; BYTES / 10])).sum();
        assert!(lost > PACKETS as u64 && link.bytes <= BYTES);
    }
}
