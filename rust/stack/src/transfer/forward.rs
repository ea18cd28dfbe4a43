//! Packets of a unicast layer: in from a lower flow, to a flow of ours, to a component of the member, or on to the next member.

use ouroboros_wire::management::EID;
use ouroboros_wire::pci::{FLOWS, PCI, Pci, forwarded};
use ouroboros_wire::update::Word;

use super::{Hop, Lower, Neighbour, Pacer, Queue, Settings, Table, Transfer, Waiting};
use crate::flow::{Place, User};
use crate::id::{FlowId, MemberId};
use crate::member::{Carries, Member};
use crate::outlet::{Blocker, Manner, Outlet, Way};
use crate::ring::Ring;
use crate::run::Run;
use crate::stack::{Event, Source, Stack, Where};

/// The last endpoint id of a component that members have.
const COMPONENTS: u64 = PROBES;
/// The component that answers probes, also those for others whose TTL ran out here (docs/protocol/unicast.md).
const PROBES: u64 = 2;

/// Commands of the control side.
impl<R: Ring> Stack<R> {
    /// A member of a unicast layer.
    pub fn open_unicast(&mut self, member: MemberId, settings: Settings) {
        self.members.insert(member, Member::new(Carries::Unicast(Box::new(Transfer::new(settings)))));
    }

    /// It is told something else from now on.
    pub fn change_unicast(&mut self, member: MemberId, settings: Settings) {
        if let Some(transfer) = self.transfer(member) {
            transfer.settings = settings;
        }
    }

    /// Its ways from now on.
    pub fn route(&mut self, member: MemberId, table: Table) {
        self.change_ways(member, |transfer| transfer.route(table));
    }

    /// A lower flow, which was the control side's, leads to a neighbour from now on. `most`: the longest packet that it
    /// carries. `ours`: the neighbour is a node of ours, which is not paced.
    pub fn hand_over(
        &mut self,
        now: u64,
        member: MemberId,
        lower: FlowId,
        neighbour: u32,
        (most, ours): (usize, bool),
    ) {
        if self.flow(lower).is_none() {
            return;
        }
        if self.transfer(member).is_some() {
            self.change_ways(member, |transfer| transfer.adopt(lower, neighbour, most));
        } else if !self.adopt_neighbour(now, member, lower, most, ours) {
            return;
        }
        if let Some(flow) = self.flow(lower) {
            flow.pacer = (!ours).then(Pacer::default);
        }
        self.taps.set_above(lower, member);
        self.hand(now, lower, User::Transfer(member));
    }

    /// What is below a flow carries packets of other lengths from now on. `packet`: of FRCP, or of a
    /// program without it, at the most; `mtu`: as of `Setup`; `most`: the longest packet that the flow carries for the member
    /// above, if one has it.
    pub fn resize(&mut self, flow: FlowId, packet: usize, mtu: usize, most: usize) {
        let Some(resized) = self.flow(flow) else { return };
        resized.resize(packet, mtu);
        if let User::Transfer(member) = resized.user {
            self.resize_neighbour(member, flow, most);
            self.change_ways(member, |transfer| transfer.set_most(flow, most));
        }
    }

    /// Nothing is sent by a lower flow any more. What arrives there is still taken.
    pub fn take_back(&mut self, member: MemberId, lower: FlowId) {
        self.drop_neighbour(member, lower);
        self.change_ways(member, |transfer| transfer.drop_lower(lower));
    }

    /// A packet of a component. `ttl`: lower flows that it may cross, as many as the layer allows at the most; 0: so many.
    pub fn send_pdu(&mut self, now: u64, member: MemberId, destination: u32, eid: u64, ttl: u8, data: &[u8]) {
        self.taps.now = now;
        let Some(transfer) = self.transfer(member) else { return };
        if destination == transfer.settings().address {
            return self.hear(now, member, None, eid, data);
        }
        let pci = transfer.pci(destination, 0, eid);
        let pci = Pci { ttl: if ttl == 0 { pci.ttl } else { ttl.min(pci.ttl) }, ..pci }.write();
        match transfer.hop(destination, eid) {
            Some(hop) if PCI + data.len() <= hop.most => {
                if self.send_by(now, hop.lower, Manner::Control, &pci, data).is_err() {
                    // Nobody here can wait: lost, as anywhere on the way.
                    self.count_unspoken(member);
                }
            }
            _ => transfer.counters.unspoken += 1,
        }
    }

    /// A packet of the control side, by a lower flow that it has.
    pub fn send_message(&mut self, now: u64, lower: FlowId, data: &[u8]) {
        self.taps.now = now;
        let Some(member) = self.carrier_of(lower) else { return };
        if self.send_by(now, lower, Manner::Control, &[], data).is_err()
            && let Some(carrier) = self.members.get_mut(member)
        {
            // The flow has not counted it as sent.
            carrier.counters.said += 1;
            carrier.counters.crowded += 1;
        }
    }
}

/// Packets.
impl<R: Ring> Stack<R> {
    pub(crate) fn transfer(&mut self, member: MemberId) -> Option<&mut Transfer> {
        match &mut self.members.get_mut(member)?.carries {
            Carries::Unicast(transfer) => Some(transfer),
            _ => None,
        }
    }

    /// Change what `Transfer::hop` depends on. What found no way, or waits for one that is gone, looks again.
    pub(crate) fn change_ways(&mut self, member: MemberId, change: impl FnOnce(&mut Transfer)) {
        let Some(transfer) = self.transfer(member) else { return };
        change(transfer);
        let lost = std::mem::take(&mut transfer.lost);
        for waiting in transfer.stranded() {
            transfer.place(waiting);
        }
        let waits = transfer.neighbours.iter().enumerate().filter(|(_, neighbour)| neighbour.waits());
        let waits: Vec<usize> = waits.map(|(place, _)| place).collect();
        waits.into_iter().for_each(|place| self.ready_transit(member, place));
        lost.into_iter().for_each(|source| self.wake(source));
    }

    fn count_unspoken(&mut self, member: MemberId) {
        if let Some(transfer) = self.transfer(member) {
            transfer.counters.unspoken += 1;
        }
    }

    /// Take a run of packets of a lower flow apart.
    pub(crate) fn receive_pdus(&mut self, now: u64, member: MemberId, from: FlowId, run: Run<'_>, depth: usize) {
        let mut rest = run;
        while let Some((header, packets, others)) = rest.split::<PCI>() {
            rest = others;
            let Some(transfer) = self.transfer(member) else { return };
            let mut pci = Pci::read(&header);
            let Settings { address, ecn, .. } = transfer.settings();
            pci.ecn |= if ecn { self.arriving } else { 0 };
            if pci.destination != address {
                self.forward(now, member, from, pci, &header, packets);
            } else if pci.eid >= FLOWS {
                self.hand_to_flow(now, member, pci.eid, Where::Flow(from), packets, (pci.ecn, depth));
            } else {
                packets.packets().for_each(|packet| self.hear(now, member, Some(from), pci.eid, packet));
            }
        }
        if let Some(transfer) = self.transfer(member) {
            transfer.counters.malformed += rest.count();
        }
    }

    /// A packet for a component.
    fn hear(&mut self, now: u64, member: MemberId, from: Option<FlowId>, eid: u64, packet: &[u8]) {
        let Some(transfer) = self.transfer(member) else { return };
        if eid > COMPONENTS {
            transfer.counters.unknown_eid += 1;
        } else if let (Some(word), Some(from), 0) = (Word::read(packet), from, eid) {
            self.take_word(now, member, from, word);
        } else {
            transfer.counters.heard += 1;
            self.tell(Event::Heard(member, eid, from, packet.to_vec()));
        }
    }

    /// Packets of others.
    fn forward(&mut self, now: u64, member: MemberId, from: FlowId, pci: Pci, header: &[u8; PCI], run: Run<'_>) {
        let Some(transfer) = self.transfer(member) else { return };
        let count = run.count();
        let Some(ttl) = transfer.ttl(pci.ttl) else {
            if pci.eid == PROBES {
                run.packets().for_each(|packet| self.hear(now, member, Some(from), PROBES, packet));
            } else {
                transfer.counters.ttl += count;
            }
            return;
        };
        let Some(hop) = transfer.hop(pci.destination, pci.eid) else {
            transfer.counters.no_route += count;
            return;
        };
        let source = transfer.by_flow.get(&from.into()).copied();
        if source == Some(hop.neighbour) {
            transfer.counters.returned += count;
            return;
        }
        let waits = transfer.neighbours.get(hop.neighbour).is_some_and(Neighbour::waits);
        let header = forwarded(*header, ttl, pci.ecn);
        if !waits && self.pass_whole(now, hop, header, run) {
            self.transit += count;
            if let Some(transfer) = self.transfer(member) {
                transfer.counters.forwarded += count;
            }
            return;
        }
        let Some(transfer) = self.transfer(member) else { return };
        let fits = |packet: &&[u8]| PCI + packet.len() <= hop.most;
        let mut packets = run.packets().filter(fits).peekable();
        let fitting = run.packets().filter(fits).count() as u64;
        transfer.counters.too_long += count - fitting;
        // Nothing overtakes what waits.
        let (mut sent, mut blocker) = (0, waits.then_some(Blocker::Busy));
        if !waits {
            let all = self.with(hop.lower, |below, stack| {
                while let Some(packet) = packets.peek() {
                    let frame = below.open_below(now, stack, Manner::Data)?;
                    let bytes = stack.bytes(&frame);
                    bytes.extend_from_slice(&header);
                    bytes.extend_from_slice(packet);
                    below.close_below(now, frame, stack);
                    packets.next();
                    sent += 1;
                }
                Ok(())
            });
            blocker = all.err();
        }
        self.transit += count;
        let Some(transfer) = self.transfer(member) else { return };
        transfer.counters.forwarded += sent;
        if let Some(blocker) = blocker {
            for packet in packets {
                let (since, from) = (now, source.unwrap_or(usize::MAX));
                let waiting = Waiting { since, from, packet: [&header, packet].concat() };
                transfer.enqueue(hop.neighbour, waiting);
            }
            self.hold_transit(now, member, hop.neighbour, blocker);
        }
    }

    /// Let a run leave from the buffer that it came in, which `receive_in` sees to. False: it has to be copied.
    fn pass_whole(&mut self, now: u64, hop: Hop, header: [u8; PCI], run: Run<'_>) -> bool {
        let Some(stride) = run.stride_of_whole(EID + PCI).filter(|stride| stride - EID <= hop.most) else {
            return false;
        };
        let passing = self.with(hop.lower, |below, stack| Ok(below.pass_below(now, run, stride, stack)));
        self.passing = passing.ok().flatten().map(|passing| (passing, header));
        self.passing.is_some()
    }

    /// A packet by a lower flow.
    pub(crate) fn send_by(
        &mut self,
        now: u64,
        lower: FlowId,
        manner: Manner,
        header: &[u8],
        data: &[u8],
    ) -> Result<(), Blocker> {
        self.with(lower, |below, stack| {
            let frame = below.open_below(now, stack, manner)?;
            let bytes = stack.bytes(&frame);
            bytes.extend_from_slice(header);
            bytes.extend_from_slice(data);
            below.close_below(now, frame, stack);
            stack.note_changed(below);
            Ok(())
        })
    }

    /// The lower flow that packets of a flow go by, kept in `known` as long as the ways stay the same.
    pub(crate) fn hop(&mut self, member: MemberId, known: &mut (u64, Option<Hop>), to: (u32, u64)) -> Option<Hop> {
        let transfer = self.transfer(member)?;
        if known.0 != transfer.epoch() {
            *known = (transfer.epoch(), transfer.hop(to.0, to.1));
        }
        known.1
    }
}

/// Words that wait at the most.
const WORDS: usize = 1024;

/// Words of receivers to senders, of which the control side hears nothing.
impl<R: Ring> Stack<R> {
    fn take_word(&mut self, now: u64, member: MemberId, from: FlowId, word: Word) {
        let taken = match word {
            Word::Report(report) => self.take_report(now, member, report, Where::Flow(from)),
            Word::Congested(eid, ece) => self.note_congestion(now, member, eid, ece),
        };
        if let Some(transfer) = self.transfer(member).filter(|_| taken) {
            transfer.counters.words += 1;
        }
    }

    /// False: that flow is not open.
    fn note_congestion(&mut self, now: u64, member: MemberId, eid: u64, ece: u16) -> bool {
        let Some(at) = self.members.get_mut(member) else { return false };
        let id = at.by_eid.get(&eid).copied();
        let Some(flow) = id.and_then(|id| self.flow(id)) else {
            if let Some(at) = self.members.get_mut(member) {
                at.counters.unknown += 1;
            }
            return false;
        };
        // One that does not care ignores it.
        if let Some(ecn) = flow.outlet.ecn.as_mut() {
            ecn.sender.told(now, ece);
        }
        true
    }

    /// Packets of a flow came with that mark.
    pub(crate) fn note_marks(&mut self, member: MemberId, outlet: &mut Outlet, mark: u8, count: u64) {
        let (Some(ecn), Way::Unicast(destination, _)) = (&mut outlet.ecn, outlet.way) else { return };
        if mark == 0 && ecn.receiver.is_calm() {
            return;
        }
        for _ in 0..count {
            if let Some(ece) = ecn.receiver.note(mark) {
                self.say_word(member, destination, Word::Congested(outlet.peer_eid, ece));
            }
        }
    }

    /// Say something soon: what leads there may be taken out now, because a packet came by it.
    pub(crate) fn say_word(&mut self, member: MemberId, destination: u32, word: Word) {
        let Some(transfer) = self.transfer(member) else { return };
        if transfer.words.len() >= WORDS {
            transfer.counters.unspoken += 1;
            return;
        }
        transfer.words.push_back((destination, word));
        if transfer.words.len() == 1 {
            self.ready.push_back(Source::Words(member));
        }
    }

    pub(crate) fn serve_words(&mut self, now: u64, member: MemberId) {
        let Some(words) = self.transfer(member).map(|transfer| std::mem::take(&mut transfer.words)) else { return };
        for (destination, word) in words {
            self.send_pdu(now, member, destination, 0, 0, &word.write());
        }
    }
}

/// What became of a turn of a queue.
enum Turned {
    /// It is empty.
    Done,
    /// There is more than it may send in one turn.
    More,
    /// It has to wait.
    Held(Blocker),
}

/// Turns of what others send.
impl<R: Ring> Stack<R> {
    /// Send what waits for a neighbour, as much as it may in one turn.
    pub(crate) fn serve_transit(&mut self, now: u64, member: MemberId, place: usize) {
        let Some(transfer) = self.transfer(member) else { return };
        let marks = transfer.settings.ecn;
        let Some(neighbour) = transfer.neighbours.get_mut(place) else { return };
        let lower = neighbour.best();
        let Some(mut queue) = neighbour.queue.take() else { return };
        queue.place = Place::Idle;
        let turned = match lower {
            // Those that wait then are looked after when that changes.
            None => Turned::Done,
            Some(lower) => self.send_waiting(now, member, lower, marks, &mut queue),
        };
        let source = Source::Transit(member, place);
        let mut gone = None;
        match turned {
            Turned::Done => {}
            Turned::More => self.make_ready(source, &mut queue.place),
            // Nothing is taken out now.
            Turned::Held(Blocker::Down | Blocker::Busy) => gone = lower,
            Turned::Held(blocker) => self.park_transit(now, source, &mut queue.place, &mut queue.listed, blocker),
        }
        if let Some(neighbour) = self.transfer(member).and_then(|transfer| transfer.neighbours.get_mut(place)) {
            let came = neighbour.queue.replace(queue);
            // Something came back to us while it was sent.
            came.into_iter().flat_map(|mut came| came.take_all()).for_each(|waiting| {
                if let Some(transfer) = self.transfer(member) {
                    transfer.enqueue(place, waiting);
                }
            });
        }
        if let Some(lower) = gone {
            // It ends, or its user took it back.
            self.change_ways(member, |transfer| transfer.note_state(lower.flow, false));
        }
    }

    fn send_waiting(&mut self, now: u64, member: MemberId, lower: Lower, marks: bool, queue: &mut Queue) -> Turned {
        let (mut sent, mut expired, mut too_long) = (0, 0, 0);
        let mut left = queue.quantum();
        let turned = loop {
            let mark = if marks { queue.next_mark() } else { 0 };
            let Some(mut waiting) = queue.pop() else { break Turned::Done };
            if waiting.is_old(now) {
                expired += 1;
            } else if waiting.packet.len() > lower.most {
                too_long += 1;
            } else {
                let before = waiting.mark(mark);
                if let Err(blocker) = self.send_by(now, lower.flow, Manner::Data, &[], &waiting.packet) {
                    waiting.set_mark(before);
                    queue.push_front(waiting);
                    break Turned::Held(blocker);
                }
                sent += 1;
                left = left.saturating_sub(waiting.packet.len());
                if left == 0 {
                    break if queue.is_empty() { Turned::Done } else { Turned::More };
                }
            }
        };
        if let Some(transfer) = self.transfer(member) {
            transfer.counters.forwarded += sent;
            transfer.counters.expired += expired;
            transfer.counters.too_long += too_long;
        }
        turned
    }

    /// Something was put into a queue that was empty, and could not be sent for that reason.
    fn hold_transit(&mut self, now: u64, member: MemberId, place: usize, blocker: Blocker) {
        let Some(queue) = self.transfer(member).and_then(|transfer| transfer.queue(place)) else { return };
        let (mut at, mut listed) = (queue.place, queue.listed);
        if at != Place::Idle {
            return;
        }
        let source = Source::Transit(member, place);
        match blocker {
            // What is taken out now is there for its turn, and what is gone is found out then.
            Blocker::Busy | Blocker::Down => self.make_ready(source, &mut at),
            _ => self.park_transit(now, source, &mut at, &mut listed, blocker),
        }
        if let Some(queue) = self.transfer(member).and_then(|transfer| transfer.queue(place)) {
            (queue.place, queue.listed) = (at, listed);
        }
    }

    fn park_transit(
        &mut self,
        now: u64,
        source: Source,
        place: &mut Place,
        listed: &mut Option<Blocker>,
        blocker: Blocker,
    ) {
        self.park_source(now, source, place, listed, blocker);
        if *place == Place::Idle {
            // There is nothing to wait for any more.
            self.make_ready(source, place);
        }
    }

    fn ready_transit(&mut self, member: MemberId, place: usize) {
        let Some(queue) = self.transfer(member).and_then(|transfer| transfer.queue(place)) else { return };
        if std::mem::replace(&mut queue.place, Place::Ready) != Place::Ready {
            self.ready.push_back(Source::Transit(member, place));
        }
    }

    /// What a queue was listed for is there.
    pub(crate) fn wake_transit(&mut self, member: MemberId, place: usize) {
        let Some(queue) = self.transfer(member).and_then(|transfer| transfer.queue(place)) else { return };
        queue.listed = None;
        if matches!(queue.place, Place::Parked(_)) {
            self.ready_transit(member, place);
        }
    }
}

/// For tests.
impl<R: Ring> Stack<R> {
    /// Queues with packets that nothing would look after. Each is a fault of the stack.
    pub fn forgotten(&mut self) -> usize {
        let mut forgotten = 0;
        for member in self.members() {
            for place in 0..self.transfer(member).map_or(0, |transfer| transfer.neighbours.len()) {
                let source = Source::Transit(member, place);
                let neighbour = self.transfer(member).and_then(|transfer| transfer.neighbours.get(place));
                let queue = neighbour.and_then(|neighbour| neighbour.queue.as_ref());
                let awaited = match queue.filter(|queue| !queue.is_empty()).map(|queue| queue.place) {
                    None => true,
                    Some(Place::Idle) => false,
                    Some(Place::Ready) => self.ready.contains(&source),
                    Some(Place::Parked(blocker)) => self.list_of(blocker).is_some_and(|list| list.contains(&source)),
                };
                forgotten += usize::from(!awaited);
            }
        }
        forgotten
    }
}

impl Transfer {
    /// Let a packet wait for a neighbour.
    fn enqueue(&mut self, place: usize, waiting: Waiting) {
        let gone = self.queue(place).map_or(0, |queue| queue.push(waiting));
        self.counters.queue_full += gone;
    }

    /// Let a packet wait for whichever neighbour is on its way by now.
    fn place(&mut self, waiting: Waiting) {
        let hop = waiting.pci().and_then(|pci| self.hop(pci.destination, pci.eid));
        match hop {
            Some(hop) if hop.neighbour == waiting.from => self.counters.returned += 1,
            Some(hop) => self.enqueue(hop.neighbour, waiting),
            None => self.counters.no_route += 1,
        }
    }
}
