//! Packets of others that wait for their way to one neighbour. Bounded: what is too much is taken from whoever has most.
//!
//! Each neighbour that they come from has a share of its own, as large as those of the others, however many flows and cubes it
//! says that they are of: nothing else tells who sent them. Within its share, a higher cube goes before a lower one, which gets
//! a share nevertheless. Within a cube, flows are spread over buckets that send in turn, by bytes; the packets of one flow stay
//! in order. A flow shares a bucket with others only if none is empty among those that it may have, as in CAKE (sch_cake).

use std::collections::VecDeque;

use ouroboros_wire::pci::{ECN, PCI, Pci};

use crate::flow::Place;
use crate::link::mix;
use crate::outlet::Blocker;

/// Packets that wait at the most, and bytes.
pub(crate) const PACKETS: usize = 1024;
const BYTES: usize = PACKETS * LENGTH;
/// What counts as one packet, if there are longer ones.
const LENGTH: usize = 1500;
/// The longest time that a packet may live in a unicast layer, whatever is below, ns (docs/spec/unicast-data.md 6).
const MPL: u64 = 100_000_000;
const CUBES: usize = 3;
const BUCKETS: usize = 64;
/// Buckets that a flow may have: one that is empty, before it shares one.
const CHOICE: usize = 8;
/// Bytes that a bucket sends until it is the turn of the next.
const QUANTUM: isize = 16 << 10;
/// A lower cube gets a byte for so many of each higher one, at the least.
const SHARE: usize = 4;
/// Packets that wait for each step of a mark, and the highest mark.
const SCALE: usize = 16;
pub(crate) const MARK: u8 = 63;

/// A packet, header included. `from`: what stands for the neighbour that it came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) since: u64,
    pub(crate) from: usize,
    pub(crate) packet: Vec<u8>,
}

impl Waiting {
    /// It has to be dropped: whoever waits for it assumes that it does not exist any more.
    pub(crate) fn is_old(&self, now: u64) -> bool {
        now.saturating_sub(self.since) > MPL
    }

    /// Add the bits of a mark; returns the mark before.
    pub(crate) fn mark(&mut self, mark: u8) -> u8 {
        let before = self.packet.get(ECN).copied().unwrap_or_default();
        self.set_mark(before | mark);
        before
    }

    pub(crate) fn set_mark(&mut self, mark: u8) {
        if let Some(ecn) = self.packet.get_mut(ECN) {
            *ecn = mark;
        }
    }

    pub(crate) fn pci(&self) -> Option<Pci> {
        self.packet.first_chunk::<PCI>().map(Pci::read)
    }
}

/// Packets of one flow, or of several.
#[derive(Debug, Default)]
struct Bucket {
    packets: VecDeque<Waiting>,
    bytes: usize,
    left: isize,
    /// If it is not empty: the flow that began it, and whether others came, because no bucket was empty.
    flow: u64,
    shared: bool,
}

impl Bucket {
    fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn push(&mut self, flow: u64, waiting: Waiting) {
        if self.is_empty() {
            (self.left, self.flow, self.shared) = (QUANTUM, flow, false);
        }
        self.shared |= self.flow != flow;
        self.bytes += waiting.packet.len();
        self.packets.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.packets.pop_front()?;
        self.left -= waiting.packet.len() as isize;
        self.bytes -= waiting.packet.len();
        Some(waiting)
    }

    fn push_front(&mut self, waiting: Waiting) {
        let length = waiting.packet.len();
        self.left = if self.is_empty() { QUANTUM } else { self.left + length as isize };
        self.bytes += length;
        self.packets.push_front(waiting);
    }

    fn pop_newest(&mut self) -> Option<Waiting> {
        let waiting = self.packets.pop_back()?;
        self.bytes -= waiting.packet.len();
        Some(waiting)
    }
}

/// Of one cube.
#[derive(Debug)]
struct Lane {
    buckets: [Bucket; BUCKETS],
    /// Buckets that are not empty, in turn.
    turns: VecDeque<u8>,
    /// Bytes that higher cubes owe it.
    owed: usize,
}

impl Default for Lane {
    fn default() -> Self {
        Lane { buckets: std::array::from_fn(|_| Bucket::default()), turns: VecDeque::new(), owed: 0 }
    }
}

impl Lane {
    /// The bucket for a packet of a flow. As long as one of its packets waits, it is the same.
    fn choose(&self, flow: u64) -> usize {
        let first = flow as usize % (BUCKETS / CHOICE) * CHOICE;
        let all = self.buckets.get(first..first + CHOICE).unwrap_or_default();
        let common = (flow >> 32) as usize % CHOICE;
        let own = all.iter().position(|bucket| !bucket.is_empty() && bucket.flow == flow);
        let shares = all.get(common).is_some_and(|bucket| !bucket.is_empty() && bucket.shared);
        let place = own.or(shares.then_some(common)).or_else(|| all.iter().position(Bucket::is_empty));
        first + place.unwrap_or(common)
    }

    fn bucket(&mut self, at: u8) -> Option<&mut Bucket> {
        self.buckets.get_mut(usize::from(at))
    }

    fn push(&mut self, flow: u64, waiting: Waiting) {
        let at = self.choose(flow) as u8;
        let Some(bucket) = self.bucket(at) else { return };
        let first = bucket.is_empty();
        bucket.push(flow, waiting);
        if first {
            self.turns.push_back(at);
        }
    }

    /// The bucket whose turn it is.
    fn turn(&mut self) -> Option<u8> {
        loop {
            let at = *self.turns.front()?;
            let bucket = self.bucket(at)?;
            if bucket.left > 0 {
                return Some(at);
            }
            bucket.left += QUANTUM;
            self.turns.rotate_left(1);
        }
    }

    fn pop(&mut self) -> Option<(u8, Waiting)> {
        let at = self.turn()?;
        let waiting = self.bucket(at)?.pop()?;
        self.note_taken(at);
        Some((at, waiting))
    }

    /// Take back what `pop` gave.
    fn push_front(&mut self, at: u8, waiting: Waiting) {
        let Some(bucket) = self.bucket(at) else { return };
        let first = bucket.is_empty();
        bucket.push_front(waiting);
        if first {
            self.turns.push_front(at);
        }
    }

    fn pop_newest(&mut self, at: u8) -> Option<Waiting> {
        let waiting = self.bucket(at)?.pop_newest()?;
        self.note_taken(at);
        Some(waiting)
    }

    fn note_taken(&mut self, at: u8) {
        if self.bucket(at).is_some_and(|bucket| bucket.is_empty()) {
            self.turns.retain(|turn| *turn != at);
        }
    }

    fn next_length(&mut self) -> Option<usize> {
        let at = self.turn()?;
        self.bucket(at)?.packets.front().map(|waiting| waiting.packet.len())
    }

    /// Buckets that are not empty, and the bytes in each.
    fn lengths(&self) -> impl Iterator<Item = (u8, usize)> {
        self.turns.iter().filter_map(|at| Some((*at, self.buckets.get(usize::from(*at))?.bytes)))
    }
}

/// What came from one neighbour.
#[derive(Debug, Default)]
struct Share {
    from: usize,
    lanes: [Lane; CUBES],
    packets: usize,
    bytes: usize,
    /// Bytes that it may still send in this round.
    left: isize,
    /// What was owed before the last `pop`, and the lane and bucket of that packet.
    before: [usize; CUBES],
    last: (usize, u8),
}

impl Share {
    fn busy(&self) -> usize {
        self.lanes.iter().map(|lane| lane.turns.len()).sum()
    }

    fn push(&mut self, waiting: Waiting) {
        let (lane, flow) = place_of(&waiting);
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        self.packets += 1;
        self.bytes += waiting.packet.len();
        lane.push(flow, waiting);
    }

    /// The newest packet of the bucket with most bytes; of the lowest such.
    fn pop_newest(&mut self) -> Option<Waiting> {
        let lengths = self
            .lanes
            .iter()
            .enumerate()
            .flat_map(|(lane, it)| it.lengths().map(move |(bucket, bytes)| (bytes, usize::MAX - lane, bucket)));
        let (_, lane, bucket) = lengths.max()?;
        let dropped = self.lanes.get_mut(usize::MAX - lane)?.pop_newest(bucket)?;
        self.count_out(&dropped);
        Some(dropped)
    }

    fn pop(&mut self) -> Option<Waiting> {
        let at = self.next_lane()?;
        self.before = self.lanes.each_ref().map(|lane| lane.owed);
        let (lower, rest) = self.lanes.split_at_mut_checked(at)?;
        let lane = rest.first_mut()?;
        let (bucket, waiting) = lane.pop()?;
        self.last = (at, bucket);
        let length = waiting.packet.len();
        lane.owed = lane.owed.saturating_sub(length);
        for lower in lower {
            lower.owed = if lower.turns.is_empty() { 0 } else { lower.owed + length.div_ceil(SHARE) };
        }
        self.left -= length as isize;
        self.count_out(&waiting);
        Some(waiting)
    }

    fn push_front(&mut self, waiting: Waiting) {
        let (lane, bucket) = self.last;
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        self.packets += 1;
        self.bytes += waiting.packet.len();
        self.left += waiting.packet.len() as isize;
        lane.push_front(bucket, waiting);
        self.lanes.iter_mut().zip(self.before).for_each(|(lane, owed)| lane.owed = owed);
    }

    /// The lowest that is owed enough for its next packet, or else the highest.
    fn next_lane(&mut self) -> Option<usize> {
        let highest = self.lanes.iter().rposition(|lane| !lane.turns.is_empty())?;
        let owed = |lane: &mut Lane| lane.next_length().is_some_and(|length| length <= lane.owed);
        Some(self.lanes.iter_mut().take(highest).position(owed).unwrap_or(highest))
    }

    /// What waits in the bucket of the next packet, in packets.
    fn next_load(&mut self) -> Option<usize> {
        let at = self.next_lane()?;
        let lane = self.lanes.get_mut(at)?;
        let bucket = lane.turn().and_then(|at| lane.bucket(at))?;
        Some(bucket.packets.len().max(bucket.bytes / LENGTH))
    }

    fn count_out(&mut self, waiting: &Waiting) {
        self.packets -= 1;
        self.bytes -= waiting.packet.len();
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    /// One for each neighbour from which something waits; as many as there were of those at one time.
    shares: Vec<Share>,
    packets: usize,
    bytes: usize,
    /// That of the packet that `pop` gave.
    last: usize,
    /// Where it waits for its turn, and the list in which it stands.
    pub(crate) place: Place,
    pub(crate) listed: Option<Blocker>,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { shares: Vec::new(), packets: 0, bytes: 0, last: 0, place: Place::Idle, listed: None }
    }
}

impl Queue {
    pub(crate) fn packets(&self) -> usize {
        self.packets
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// How full it is, for the packet that leaves.
    pub(crate) fn mark(&self) -> u8 {
        (self.packets.max(self.bytes / LENGTH) / SCALE).min(MARK.into()) as u8
    }

    /// How full it is, for the packet that leaves next: as if all buckets of its share had as much in them as its own, and
    /// all shares as much as that one.
    pub(crate) fn next_mark(&mut self) -> u8 {
        let shares = self.shares.iter().filter(|share| share.packets > 0).count();
        let Some(share) = self.next_share().and_then(|at| self.shares.get_mut(at)) else { return 0 };
        let busy = share.busy() * shares;
        (share.next_load().unwrap_or(0) * busy / SCALE).min(MARK.into()) as u8
    }

    /// Bytes that it may send in one turn.
    pub(crate) fn quantum(&self) -> usize {
        self.shares.iter().map(Share::busy).sum::<usize>() * QUANTUM as usize
    }

    /// Let a packet wait; returns how many had to go for it, itself included.
    pub(crate) fn push(&mut self, waiting: Waiting) -> u64 {
        self.packets += 1;
        self.bytes += waiting.packet.len();
        let at = self.share_of(waiting.from);
        if let Some(share) = self.shares.get_mut(at) {
            share.push(waiting);
        }
        let mut gone = 0;
        while self.packets > PACKETS || self.bytes > BYTES {
            let most = self.shares.iter_mut().max_by_key(|share| share.bytes);
            let Some(dropped) = most.and_then(Share::pop_newest) else { break };
            self.count_out(&dropped);
            gone += 1;
        }
        gone
    }

    /// The share of what comes from there.
    fn share_of(&mut self, from: usize) -> usize {
        if let Some(known) = self.shares.iter().position(|share| share.from == from) {
            return known;
        }
        let new = Share { from, left: QUANTUM, ..Share::default() };
        // One that has had its part of this round keeps that in mind.
        match self.shares.iter_mut().enumerate().find(|(_, share)| share.packets == 0 && share.left > 0) {
            Some((at, unused)) => {
                *unused = new;
                at
            }
            None => {
                self.shares.push(new);
                self.shares.len() - 1
            }
        }
    }

    /// The packet whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        self.last = self.next_share()?;
        let waiting = self.shares.get_mut(self.last)?.pop()?;
        self.count_out(&waiting);
        Some(waiting)
    }

    /// Take back what `pop` just gave: it could not be sent.
    pub(crate) fn push_front(&mut self, waiting: Waiting) {
        let Some(share) = self.shares.get_mut(self.last) else { return };
        self.packets += 1;
        self.bytes += waiting.packet.len();
        share.push_front(waiting);
    }

    /// All of them, those of one flow in order.
    pub(crate) fn take_all(&mut self) -> Vec<Waiting> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// Of those that have not sent their part of this round, the one with the highest cube. When all have, a round begins. What
    /// is empty for a while loses its turn and gains none.
    fn next_share(&mut self) -> Option<usize> {
        if self.packets == 0 {
            return None;
        }
        loop {
            let shares = self.shares.iter_mut().enumerate().rev();
            let next =
                shares.filter(|(_, share)| share.left > 0).filter_map(|(at, share)| Some((share.next_lane()?, at)));
            if let Some((_, at)) = next.max_by_key(|(lane, _)| *lane) {
                return Some(at);
            }
            self.shares.iter_mut().for_each(|share| share.left = (share.left + QUANTUM).min(QUANTUM));
        }
    }

    fn count_out(&mut self, waiting: &Waiting) {
        self.packets -= 1;
        self.bytes -= waiting.packet.len();
    }
}

/// The lane of a packet, and what stands for its flow. A cube that is none is the lowest.
fn place_of(waiting: &Waiting) -> (usize, u64) {
    let Some(Pci { destination, cube, eid, .. }) = waiting.pci() else { return (0, 0) };
    let lane = if usize::from(cube) < CUBES { cube.into() } else { 0 };
    (lane, mix(eid ^ u64::from(destination) << 32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(cube: u8, flow: u64, number: u64, length: usize) -> Waiting {
        let pci = Pci { destination: 7, cube, ttl: 60, ecn: 0, eid: flow };
        let mut packet = [&pci.write()[..], &number.to_be_bytes()].concat();
        packet.resize(length.max(packet.len()), 0);
        Waiting { since: 0, from: 0, packet }
    }

    fn read(waiting: &Waiting) -> (u8, u64, u64) {
        let (pci, rest) = waiting.packet.split_at(PCI);
        let pci = Pci::read(pci.try_into().unwrap_or_else(|_| unreachable!()));
        (pci.cube, pci.eid, u64::from_be_bytes(rest[..8].try_into().unwrap_or_else(|_| unreachable!())))
    }

    fn shares(queue: &mut Queue, count: usize, of: impl Fn(&Waiting) -> u64) -> Vec<(u64, usize)> {
        let mut found = std::collections::BTreeMap::new();
        for waiting in std::iter::from_fn(|| queue.pop()).take(count) {
            *found.entry(of(&waiting)).or_insert(0) += waiting.packet.len();
        }
        found.into_iter().collect()
    }

    #[test]
    fn flows_send_as_many_bytes_whatever_the_length_of_their_packets() {
        let mut queue = Queue::default();
        for number in 0..400 {
            queue.push(packet(0, 1, number, 100));
            queue.push(packet(0, 2, number, 1000));
        }
        let lengths = shares(&mut queue, 360, |waiting| read(waiting).1);
        let (one, other) = (lengths[0].1, lengths[1].1);
        assert!(one.abs_diff(other) <= QUANTUM as usize + 1000, "{lengths:?}");
    }

    #[test]
    fn a_higher_cube_goes_first_and_leaves_a_share() {
        let mut queue = Queue::default();
        for number in 0..300 {
            (0..3).for_each(|cube| assert_eq!(queue.push(packet(cube, 1, number, 500)), 0));
        }
        let lengths = shares(&mut queue, 300, |waiting| read(waiting).0.into());
        assert!(lengths[2].1 > 3 * lengths[1].1.max(lengths[0].1), "{lengths:?}");
        assert!(lengths.iter().all(|(_, bytes)| *bytes > 300 * 500 / 10), "{lengths:?}");
        let mut queue = Queue::default();
        [0, 7, 2, 1].iter().for_each(|cube| assert_eq!(queue.push(packet(*cube, 1, 0, 100)), 0));
        let order: Vec<u8> = queue.take_all().iter().map(|waiting| read(waiting).0).collect();
        assert_eq!(order, [2, 1, 0, 7]);
    }

    #[test]
    fn a_flood_takes_nothing_from_others() {
        let mut queue = Queue::default();
        (0..5000).for_each(|number| _ = queue.push(packet(2, 1, number, 100)));
        assert_eq!((queue.packets(), queue.mark()), (PACKETS, MARK));
        (0..20).for_each(|number| assert_eq!(queue.push(packet(0, 2, number, 100)), 1));
        let kept = queue.take_all();
        assert_eq!(kept.iter().filter(|waiting| read(waiting).1 == 2).count(), 20);
        // Of the flood those that came first.
        assert!(kept.iter().filter(|waiting| read(waiting).1 == 1).map(|it| read(it).2).eq(0..PACKETS as u64 - 20));
    }

    /// Thousands of flows and the highest cube give a neighbour no more than the others have.
    #[test]
    fn a_neighbour_has_its_share_however_many_flows_it_invents() {
        let flood = |number| packet(2, number, number, 1000);
        let thin = |number| Waiting { from: 1, ..packet(0, 7, number, 1000) };
        let mut queue = Queue::default();
        (0..5000).for_each(|number| _ = queue.push(flood(number)));
        let (mut offered, mut got) = (0, 0);
        for turn in 0..20_000 {
            (0..4).for_each(|number| _ = queue.push(flood(5000 + turn * 4 + number)));
            // A bit less than half of what leaves, so that it is empty now and then.
            if turn % 20 < 9 {
                assert_eq!(queue.push(thin(turn)), 1);
                offered += 1;
            }
            got += u64::from(queue.pop().is_some_and(|waiting| waiting.from == 1));
        }
        assert!(got + 40 >= offered, "{got} of {offered}");
        // And the other way round: what is empty now and then gains nothing by that.
        let (mut queue, mut got) = (Queue::default(), 0);
        for turn in 0..20_000 {
            _ = queue.push(thin(turn));
            _ = queue.push(flood(turn));
            got += u64::from(queue.pop().is_some_and(|waiting| waiting.from == 1));
        }
        assert!((9_900..10_100).contains(&got), "{got}");
    }

    #[test]
    fn long_packets_count_for_several() {
        let mut queue = Queue::default();
        (0..40).for_each(|number| _ = queue.push(packet(0, 1, number, 9000)));
        assert_eq!((queue.mark(), queue.next_mark()), (40 * 6 / 16, 40 * 6 / 16));
    }

    #[test]
    fn neighbours_that_send_one_after_the_other_have_one_share() {
        let mut queue = Queue::default();
        for from in 0..1000 {
            queue.push(Waiting { from, ..packet(0, 1, 1, 100) });
            assert_eq!(queue.pop().map(|waiting| waiting.from), Some(from));
        }
        assert_eq!(queue.shares.len(), 1);
    }

    #[test]
    fn a_flow_is_marked_by_what_it_has_in_the_queue() {
        let mut queue = Queue::default();
        assert_eq!(queue.next_mark(), 0);
        (0..400).for_each(|number| _ = queue.push(packet(0, 1, number, 1000)));
        (0..100).for_each(|number| _ = queue.push(packet(0, 2, number, 1000)));
        let mut marks = [Vec::new(), Vec::new()];
        for _ in 0..60 {
            let mark = queue.next_mark();
            let flow = queue.pop().map_or(0, |it| read(&it).1);
            marks[flow as usize - 1].push(mark);
        }
        assert_eq!((marks[0][0], marks[1][0]), (50, 12));
        assert!(marks[0].iter().min() > marks[1].iter().max(), "{marks:?}");
    }

    #[test]
    fn a_flow_has_a_bucket_of_its_own_as_long_as_there_is_one() {
        let mut queue = Queue::default();
        for flow in 0..CHOICE as u64 {
            (0..50).for_each(|number| _ = queue.push(packet(0, flow, number, 1000)));
        }
        let taken = shares(&mut queue, 8 * 33, |waiting| read(waiting).1);
        assert!(taken.len() == 8 && taken.iter().all(|(_, bytes)| bytes.abs_diff(33_000) < 17_000), "{taken:?}");
    }

    /// More than there are buckets.
    const FLOWS: u64 = 200;

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8, u64, usize),
        Pop,
        TakeBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..5u8, 0..FLOWS, 0..20_000usize).prop_map(|(cube, flow, length)| Step::Push(cube, flow, length)),
            2 => Just(Step::Pop),
            1 => Just(Step::TakeBack),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted_or_out_of_order(steps in prop::collection::vec(step(), 0..600)) {
            let mut queue = Queue::default();
            let (mut pushed, mut dropped, mut popped) = (0, 0, Vec::new());
            for step in steps {
                match step {
                    Step::Push(cube, flow, length) => {
                        let from = flow as usize % 3;
                        dropped += queue.push(Waiting { from, ..packet(cube, flow, pushed as u64, length) }) as usize;
                        pushed += 1;
                    }
                    Step::Pop => popped.extend(queue.pop().map(|waiting| read(&waiting))),
                    Step::TakeBack => {
                        if let Some(waiting) = queue.pop() {
                            queue.push_front(waiting);
                        }
                    }
                }
                prop_assert!(queue.packets <= PACKETS && queue.bytes <= BYTES);
                prop_assert_eq!(pushed, dropped + popped.len() + queue.packets());
                let lanes = queue.shares.iter().flat_map(|share| &share.lanes);
                let waiting = lanes.flat_map(|lane| lane.buckets.iter().flat_map(|bucket| &bucket.packets));
                let bytes: usize = waiting.map(|waiting| waiting.packet.len()).sum();
                prop_assert_eq!(bytes, queue.bytes);
                prop_assert_eq!(bytes, queue.shares.iter().map(|share| share.bytes).sum::<usize>());
            }
            popped.extend(queue.take_all().iter().map(read));
            prop_assert!(queue.is_empty() && queue.bytes == 0);
            for (cube, flow) in (0..5u8).flat_map(|cube| (0..FLOWS).map(move |flow| (cube, flow))) {
                let numbers: Vec<_> = popped.iter().filter(|it| (it.0, it.1) == (cube, flow)).map(|it| it.2).collect();
                prop_assert!(numbers.is_sorted());
            }
        }
    }
}
