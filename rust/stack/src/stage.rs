//! Datagrams on their way out of a socket: runs of equal sizes to one peer, each of which is one call of the kernel (GSO).
//! The driver, which has the socket, takes out the oldest run, and says whether it was sent.
//!
//! Each peer has a run of its own that is open, so datagrams to several in turn leave together nevertheless. Nothing that is
//! committed is ever lost here: what a full socket does not take stays, in order, and writers look for `has_room` before they
//! begin a datagram.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Bytes of one run: the most that UDP carries, less its headers.
const LONGEST: usize = 65_000;
/// Bytes that wait at the most, but for the last datagram.
pub(crate) const LIMIT: usize = 256 << 10;
/// Bytes of urgent datagrams that wait at the most.
const URGENT: usize = 64 << 10;
/// Buffers that are kept for the next runs: for a stage that is full of full runs, and the one that is being written.
const POOL: usize = LIMIT / LONGEST + 2;

/// The place of the run that is not one yet: a first datagram is written there.
const FRESH: usize = 0;

/// An address that a stage knows. It stays known until each `know` has its `forget`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(usize);

#[derive(Debug)]
struct PeerSlot {
    address: SocketAddr,
    /// Flows that know it, and its runs.
    users: usize,
    /// The place of the run that its next datagram joins, or `FRESH`.
    open: usize,
}

/// A run.
#[derive(Debug, Default)]
struct Staged {
    peer: Peer,
    bytes: Vec<u8>,
    /// Bytes in front that have left.
    left: usize,
    /// Bytes of each datagram, but for a shorter last one.
    segment: usize,
    count: usize,
    /// It has to leave datagram by datagram.
    apart: bool,
    /// The buffer is one of those that datagrams arrive in.
    adopted: bool,
}

/// Datagrams for one call of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The peer.
    pub to: SocketAddr,
    /// All datagrams.
    pub bytes: &'a [u8],
    /// Bytes of each datagram, if there are several.
    pub segment: Option<usize>,
}

impl Outgoing<'_> {
    /// Datagrams.
    pub fn count(&self) -> u64 {
        self.segment.map_or(1, |segment| self.bytes.len().div_ceil(segment)) as u64
    }
}

/// The way out of a socket. `begin` a datagram, append it to what that returns, then `commit` it.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Datagrams that the kernel takes at once.
    segments: usize,
    peers: Vec<PeerSlot>,
    /// Places in `peers` that are free.
    free: Vec<usize>,
    known: BTreeMap<SocketAddr, usize>,
    /// In no order; a place stays that of a run until it has left.
    runs: Vec<Staged>,
    /// Places in `runs`: of those that wait, the oldest first, and of those that have left.
    order: VecDeque<usize>,
    /// Likewise, of datagrams that overtake the others.
    urgent: VecDeque<usize>,
    gone: Vec<usize>,
    /// Buffers for the next runs, and for the next datagrams that arrive.
    pool: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
    urgent_bytes: usize,
    blocked: bool,
    /// Of the datagram that is being written: its peer, the place of the run that it stands in, and where there it starts.
    to: Peer,
    at: usize,
    start: usize,
}

impl Stage {
    pub(crate) fn new(segments: usize) -> Self {
        Stage {
            segments,
            peers: Vec::new(),
            free: Vec::new(),
            known: BTreeMap::new(),
            runs: vec![Staged::default()],
            order: VecDeque::new(),
            urgent: VecDeque::new(),
            gone: Vec::new(),
            pool: Vec::new(),
            spare: Vec::new(),
            bytes: 0,
            urgent_bytes: 0,
            blocked: false,
            to: Peer(0),
            at: FRESH,
            start: 0,
        }
    }

    // --- peers

    /// The peer at an address.
    pub(crate) fn know(&mut self, address: SocketAddr) -> Peer {
        let place = match self.known.entry(address) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let place = self.free.pop().unwrap_or(self.peers.len());
                let slot = PeerSlot { address, users: 0, open: FRESH };
                match self.peers.get_mut(place) {
                    Some(free) => *free = slot,
                    None => self.peers.push(slot),
                }
                *entry.insert(place)
            }
        };
        self.peers[place].users += 1;
        Peer(place)
    }

    /// One of the flows that know a peer writes nothing more to it. Committed datagrams still leave.
    pub(crate) fn forget(&mut self, peer: Peer) {
        let slot = &mut self.peers[peer.0];
        slot.users -= 1;
        if slot.users == 0 {
            self.known.remove(&slot.address);
            self.free.push(peer.0);
        }
    }

    // --- writers

    /// Whether a writer that can wait may begin a datagram. A writer that cannot wait may exceed the limit.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < LIMIT && !self.blocked
    }

    /// Whether all datagrams of a run may be begun, one after the other.
    pub(crate) fn has_room_for_run(&self) -> bool {
        self.bytes + LONGEST < LIMIT && !self.blocked
    }

    /// The socket has taken nothing for long, so that even writers that cannot wait find no room.
    pub(crate) fn is_crowded(&self) -> bool {
        self.bytes > 2 * LIMIT
    }

    /// Nothing waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty() && self.urgent.is_empty()
    }

    /// Datagrams that wait.
    pub(crate) fn count(&self) -> u64 {
        let places = self.order.iter().chain(&self.urgent);
        let waiting = places.filter_map(|place| self.runs.get(*place));
        waiting.map(|run| (run.bytes.len() - run.left).div_ceil(run.segment.max(1)).max(1) as u64).sum()
    }

    /// Begin a datagram to a peer, which is to be appended to what is returned. Nothing else happens before `commit`,
    /// `discard` or `take`.
    pub(crate) fn begin(&mut self, peer: Peer) -> &mut Vec<u8> {
        (self.to, self.at) = (peer, self.peers[peer.0].open);
        let bytes = &mut self.runs[self.at].bytes;
        self.start = bytes.len();
        bytes
    }

    /// The datagram that is being written, and what stands before it.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.runs[self.at].bytes
    }

    /// The datagram that is being written.
    pub(crate) fn written(&mut self) -> &mut [u8] {
        let start = self.start;
        &mut self.bytes()[start..]
    }

    /// The datagram is complete; returns its length. `mtu`: no datagram that is longer goes out with others, because the kernel
    /// does not cut a run whose parts have to be cut again.
    pub(crate) fn commit(&mut self, mtu: usize) -> usize {
        let run = &mut self.runs[self.at];
        let (length, whole) = (run.bytes.len() - self.start, run.bytes.len());
        self.bytes += length;
        if length <= run.segment && whole <= LONGEST {
            run.count += 1;
            // The next will be as long.
            if length < run.segment || run.count >= self.segments || whole + run.segment > LONGEST {
                self.peers[self.to.0].open = FRESH;
            }
        } else {
            self.open(length, mtu);
        }
        length
    }

    /// As `commit`, for a datagram that overtakes all that are not urgent. False: too many wait, and it is discarded.
    pub(crate) fn commit_urgent(&mut self) -> bool {
        let length = self.written().len();
        if self.urgent_bytes + length > URGENT {
            self.discard();
            return false;
        }
        self.urgent_bytes += length;
        let place = self.run_of_written(length);
        self.urgent.push_back(place);
        true
    }

    /// The datagram that is being written is the first of a run.
    fn open(&mut self, length: usize, mtu: usize) {
        let place = self.run_of_written(length);
        self.order.push_back(place);
        self.peers[self.to.0].open =
            if length > mtu || 2 * length > LONGEST || self.segments < 2 { FRESH } else { place };
    }

    /// The place of a run for the datagram that is being written alone.
    fn run_of_written(&mut self, length: usize) -> usize {
        let mut bytes = std::mem::replace(&mut self.runs[FRESH].bytes, self.pool.pop().unwrap_or_default());
        if self.at != FRESH {
            bytes.extend_from_slice(self.written());
            self.discard();
        }
        self.put(Staged { peer: self.to, bytes, segment: length, count: 1, ..Staged::default() })
    }

    /// The place of a run from now on.
    fn put(&mut self, run: Staged) -> usize {
        self.peers[run.peer.0].users += 1;
        let place = self.gone.pop().unwrap_or(self.runs.len());
        match self.runs.get_mut(place) {
            Some(gone) => *gone = run,
            None => self.runs.push(run),
        }
        place
    }

    /// Whether `adopt` may have a run of so many bytes, of so many datagrams. Of one that is not full there is not enough to
    /// make up for the call: others can still join it if it is copied.
    pub(crate) fn adopts(&self, bytes: usize, segment: usize, count: u64) -> bool {
        let (most, full) = (self.segments as u64, bytes + segment > LONGEST);
        self.has_room() && bytes <= LONGEST && count <= most && (full || count == most)
    }

    /// A run leaves from the buffer that it arrived in, of which it has the first `length` bytes. The caller has another
    /// buffer, as long, for it.
    pub(crate) fn adopt(&mut self, peer: Peer, buffer: &mut Vec<u8>, length: usize, segment: usize) {
        let size = buffer.len();
        let mut bytes = std::mem::replace(buffer, self.spare.pop().unwrap_or_default());
        buffer.resize(size, 0);
        bytes.truncate(length);
        self.bytes += length;
        let count = length.div_ceil(segment.max(1));
        let place = self.put(Staged { peer, bytes, segment, count, adopted: true, ..Staged::default() });
        self.order.push_back(place);
        // Nothing overtakes it.
        self.peers[peer.0].open = FRESH;
    }

    /// The datagram is not to be sent.
    pub(crate) fn discard(&mut self) {
        let start = self.start;
        self.bytes().truncate(start);
    }

    /// The datagram, which is then not sent from here.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let datagram = self.written().to_vec();
        self.discard();
        datagram
    }

    // --- the socket

    /// The next datagrams to leave; None: there are none, or the socket takes nothing now.
    pub(crate) fn transmit(&self) -> Option<Outgoing<'_>> {
        let run = &self.runs[self.next().filter(|_| !self.blocked)?];
        let rest = &run.bytes[run.left..];
        let bytes = if run.apart { &rest[..rest.len().min(run.segment)] } else { rest };
        let segment = (bytes.len() > run.segment).then_some(run.segment);
        Some(Outgoing { to: self.peers[run.peer.0].address, bytes, segment })
    }

    fn next(&self) -> Option<usize> {
        self.urgent.front().or(self.order.front()).copied()
    }

    /// The datagrams of `transmit` have left, or will never.
    pub(crate) fn sent(&mut self) {
        let Some(length) = self.transmit().map(|outgoing| outgoing.bytes.len()) else { return };
        let Some(place) = self.next() else { return };
        *if self.urgent.is_empty() { &mut self.bytes } else { &mut self.urgent_bytes } -= length;
        let run = &mut self.runs[place];
        run.left += length;
        if run.left == run.bytes.len() {
            let (peer, adopted, mut bytes) = (run.peer, run.adopted, std::mem::take(&mut run.bytes));
            self.close(place);
            let queue = if self.urgent.is_empty() { &mut self.order } else { &mut self.urgent };
            self.gone.extend(queue.pop_front());
            self.forget(peer);
            if adopted && self.spare.len() < POOL {
                self.spare.push(bytes);
            } else if !adopted && self.pool.len() < POOL {
                bytes.clear();
                self.pool.push(bytes);
            }
        }
    }

    /// The kernel does not take what `transmit` returned as it is: datagram by datagram, then. `segments`: what it takes at once
    /// from now on.
    pub(crate) fn part(&mut self, segments: usize) {
        self.segments = segments;
        if let Some(place) = self.next() {
            self.runs[place].apart = true;
            self.close(place);
        }
    }

    /// No datagram joins that run any more.
    fn close(&mut self, place: usize) {
        let slot = &mut self.peers[self.runs[place].peer.0];
        if slot.open == place {
            slot.open = FRESH;
        }
    }

    /// The socket takes nothing now.
    pub(crate) fn blocked(&mut self) {
        self.blocked = true;
    }

    /// It may take something again.
    pub(crate) fn unblocked(&mut self) {
        self.blocked = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENTS: usize = 64;
    const MTU: usize = 9000;

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], number))
    }

    fn peers<const COUNT: usize>(stage: &mut Stage) -> [Peer; COUNT] {
        std::array::from_fn(|number| stage.know(address(number as u16)))
    }

    fn write(stage: &mut Stage, peer: Peer, datagram: &[u8]) {
        stage.begin(peer).extend_from_slice(datagram);
        stage.commit(MTU);
    }

    /// The datagrams of one call.
    fn call(stage: &mut Stage) -> Option<(SocketAddr, Vec<Vec<u8>>)> {
        let Outgoing { to, bytes, segment } = stage.transmit()?;
        let datagrams = bytes.chunks(segment.unwrap_or(bytes.len())).map(<[u8]>::to_vec).collect();
        stage.sent();
        Some((to, datagrams))
    }

    /// Where to, and the lengths, of all calls.
    fn calls(stage: &mut Stage) -> Vec<(u16, Vec<usize>)> {
        std::iter::from_fn(|| call(stage))
            .map(|(to, datagrams)| (to.port(), datagrams.iter().map(Vec::len).collect()))
            .collect()
    }

    #[test]
    fn datagrams_to_peers_in_turn_leave_in_one_call_each() {
        let mut stage = Stage::new(SEGMENTS);
        let peers: [Peer; 4] = peers(&mut stage);
        for number in 0..16 {
            peers.iter().for_each(|peer| write(&mut stage, *peer, &[number; 1400]));
        }
        assert_eq!(calls(&mut stage), [0, 1, 2, 3].map(|peer| (peer, vec![1400; 16])));
    }

    #[test]
    fn a_run_ends_with_a_shorter_datagram_and_before_a_longer_one() {
        let mut stage = Stage::new(SEGMENTS);
        let [one] = peers(&mut stage);
        [100, 100, 50, 50, 100, 100].iter().for_each(|length| write(&mut stage, one, &vec![0; *length]));
        assert_eq!(calls(&mut stage), [(0, vec![100, 100, 50]), (0, vec![50]), (0, vec![100, 100])]);
    }

    #[test]
    fn a_run_is_no_longer_than_the_kernel_takes() {
        let mut stage = Stage::new(SEGMENTS);
        let [one] = peers(&mut stage);
        (0..70).for_each(|_| write(&mut stage, one, &[0; 10]));
        (0..50).for_each(|_| write(&mut stage, one, &[0; 1400]));
        (0..3).for_each(|_| write(&mut stage, one, &vec![0; MTU + 1]));
        let lengths: Vec<_> = calls(&mut stage).into_iter().map(|(_, lengths)| (lengths.len(), lengths[0])).collect();
        assert_eq!(lengths, [(64, 10), (6, 10), (46, 1400), (4, 1400), (1, MTU + 1), (1, MTU + 1), (1, MTU + 1)]);
    }

    #[test]
    fn nothing_is_lost_when_the_socket_is_full() {
        let mut stage = Stage::new(SEGMENTS);
        let [one, other] = peers(&mut stage);
        write(&mut stage, one, b"first");
        assert!(stage.transmit().is_some());
        stage.blocked();
        assert!(!stage.has_room());
        assert_eq!(stage.transmit(), None);
        // Writers that cannot wait.
        write(&mut stage, other, b"second");
        write(&mut stage, one, b"third!");
        write(&mut stage, one, b"4");
        stage.unblocked();
        assert!(stage.has_room());
        assert_eq!(calls(&mut stage), [(0, vec![5]), (1, vec![6]), (0, vec![6, 1])]);
        assert!(stage.is_empty());
    }

    #[test]
    fn a_stage_has_room_up_to_its_limit() {
        let mut stage = Stage::new(SEGMENTS);
        let [one] = peers(&mut stage);
        let mut count = 0;
        while stage.has_room() {
            write(&mut stage, one, &[0; 1000]);
            count += 1000;
        }
        assert_eq!((count, stage.bytes), (LIMIT.next_multiple_of(1000), count));
        call(&mut stage);
        assert!(stage.has_room());
    }

    #[test]
    fn a_run_that_is_refused_leaves_datagram_by_datagram() {
        let mut stage = Stage::new(SEGMENTS);
        let [one] = peers(&mut stage);
        (0..3).for_each(|_| write(&mut stage, one, &[0; 10]));
        write(&mut stage, one, &[0; 4]);
        stage.part(1);
        (0..2).for_each(|_| write(&mut stage, one, &[0; 10]));
        assert_eq!(calls(&mut stage), [10, 10, 10, 4, 10, 10].map(|length| (0, vec![length])));
    }

    #[test]
    fn what_is_not_sent_leaves_no_trace() {
        let mut stage = Stage::new(SEGMENTS);
        let [one] = peers(&mut stage);
        for written in [&b"kept"[..], b"too"] {
            stage.begin(one).extend_from_slice(b"not sent");
            stage.discard();
            stage.begin(one).extend_from_slice(b"sent elsewhere");
            assert_eq!(stage.take(), b"sent elsewhere");
            write(&mut stage, one, written);
        }
        assert_eq!(call(&mut stage), Some((address(0), vec![b"kept".to_vec(), b"too".to_vec()])));
        assert_eq!(call(&mut stage), None);
    }

    #[test]
    fn a_peer_is_forgotten_when_its_last_datagram_has_left() {
        let mut stage = Stage::new(SEGMENTS);
        let [one] = peers(&mut stage);
        assert_eq!(stage.know(address(0)), one);
        stage.forget(one);
        write(&mut stage, one, b"last words");
        stage.forget(one);
        assert_ne!(stage.know(address(1)), one);
        assert_eq!(calls(&mut stage), [(0, vec![10])]);
        assert_eq!(stage.know(address(2)), one);
        write(&mut stage, one, b"anew");
        assert_eq!(calls(&mut stage), [(2, vec![4])]);
        assert_eq!((stage.known.len(), stage.peers.len()), (2, 2));
    }

    #[test]
    fn buffers_are_kept_for_a_full_stage_and_no_more() {
        let mut stage = Stage::new(SEGMENTS);
        for number in 0..1000 {
            let peer = stage.know(address(number));
            write(&mut stage, peer, &[0; 48]);
            stage.forget(peer);
        }
        assert_eq!(calls(&mut stage).len(), 1000);
        assert_eq!((stage.pool.len(), stage.known.len()), (POOL, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, usize),
        Adopt(usize, usize, usize, usize),
        Discard(usize, usize),
        Sent,
        Part(usize),
        Blocked,
        Unblocked,
    }

    fn step() -> impl Strategy<Value = Step> {
        let length = || prop_oneof![Just(4), Just(1400), Just(1404), 4..200usize, 4..20_000usize, Just(65_500)];
        prop_oneof![
            8 => (0..4usize, length()).prop_map(|(peer, length)| Step::Write(peer, length)),
            1 => (0..4usize, 1000..9000usize, 4..9000usize)
                .prop_map(|(peer, length, last)| Step::Adopt(peer, length, LONGEST / length, last.min(length))),
            1 => (0..4usize, length()).prop_map(|(peer, length)| Step::Discard(peer, length)),
            2 => Just(Step::Sent),
            1 => (1..=SEGMENTS).prop_map(Step::Part),
            1 => Just(Step::Blocked),
            1 => Just(Step::Unblocked),
        ]
    }

    /// A stage, and what it has to send to each of four peers, with the bytes of all.
    struct Checked {
        stage: Stage,
        expected: [VecDeque<Vec<u8>>; 4],
        number: u32,
    }

    impl Checked {
        fn datagram(&mut self, length: usize) -> Vec<u8> {
            self.number += 1;
            let mut datagram = self.number.to_be_bytes().to_vec();
            datagram.resize(length, 0);
            datagram
        }

        fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
            match step {
                Step::Write(peer, length) => {
                    let datagram = self.datagram(length);
                    let known = self.stage.know(address(peer as u16));
                    write(&mut self.stage, known, &datagram);
                    self.stage.forget(known);
                    self.expected[peer].push_back(datagram);
                }
                Step::Adopt(peer, length, count, last) => {
                    let lengths = std::iter::repeat_n(length, count - 1).chain([last]);
                    let datagrams: Vec<_> = lengths.map(|length| self.datagram(length)).collect();
                    let mut buffer = datagrams.concat();
                    let whole = buffer.len();
                    if !self.stage.adopts(whole, length, count as u64) {
                        return Ok(());
                    }
                    buffer.resize(2 * LONGEST, 0);
                    let known = self.stage.know(address(peer as u16));
                    self.stage.adopt(known, &mut buffer, whole, length);
                    self.stage.forget(known);
                    prop_assert_eq!(buffer.len(), 2 * LONGEST);
                    self.expected[peer].extend(datagrams);
                }
                Step::Discard(peer, length) => {
                    let datagram = self.datagram(length);
                    let known = self.stage.know(address(peer as u16));
                    self.stage.begin(known).extend_from_slice(&datagram);
                    self.stage.discard();
                    self.stage.forget(known);
                }
                Step::Sent => self.send()?,
                Step::Part(segments) => {
                    self.stage.part(segments);
                    let apart = self.stage.transmit().and_then(|outgoing| outgoing.segment);
                    prop_assert_eq!(apart, None);
                }
                Step::Blocked => self.stage.blocked(),
                Step::Unblocked => self.stage.unblocked(),
            }
            let waiting: usize = self.expected.iter().flatten().map(Vec::len).sum();
            prop_assert_eq!(self.stage.bytes, waiting);
            prop_assert_eq!(self.stage.has_room(), waiting < LIMIT && !self.stage.blocked);
            prop_assert_eq!(self.stage.transmit().is_some(), waiting > 0 && !self.stage.blocked);
            prop_assert!(self.stage.pool.len() <= POOL && self.stage.spare.len() <= POOL);
            Ok(())
        }

        fn send(&mut self) -> Result<(), TestCaseError> {
            let Some((to, datagrams)) = call(&mut self.stage) else { return Ok(()) };
            let (first, total) = (datagrams[0].len(), datagrams.iter().map(Vec::len).sum::<usize>());
            prop_assert!(datagrams.len() == 1 || (first <= MTU && total <= LONGEST && datagrams.len() <= SEGMENTS));
            for datagram in datagrams {
                prop_assert_eq!(Some(datagram), self.expected[usize::from(to.port())].pop_front());
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn all_that_is_committed_leaves_once_and_in_order(steps in prop::collection::vec(step(), 1..200)) {
            let mut checked = Checked { stage: Stage::new(SEGMENTS), expected: Default::default(), number: 0 };
            for step in steps {
                checked.take(step)?;
            }
            checked.stage.unblocked();
            while checked.stage.bytes > 0 {
                checked.send()?;
            }
            prop_assert_eq!(checked.expected, <[VecDeque<Vec<u8>>; 4]>::default());
            prop_assert!(checked.stage.known.is_empty());
        }
    }
}
