//! What arrived: puts packets in order and fragments together, and says how many more may come.

use std::collections::VecDeque;

use crate::MAX_MESSAGE;
use crate::config::SPARE;
use crate::header::flag;
use crate::ranges::Ranges;
use crate::seq::{ahead, before};

/// In mode U a packet that is further ahead than the window and this is not one of this run.
const LEAP: u32 = 1 << 16;
/// In mode U so many of the last packets are told as received.
const HISTORY: u32 = 4096;
const HISTORY_RANGES: usize = 64;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was the next one.
    Expected,
    /// It is kept until those before it come; `new_gap`: it is the first to show that they are missing.
    Early { new_gap: bool },
    /// It was missing, or came after lost ones (mode U).
    Filled,
    /// It was there, or is too late.
    Old,
    /// It is beyond the window.
    Beyond,
}

/// How the queue treats packets.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Mode R: nothing may be missing.
    pub reliable: bool,
    /// The flags of fragments mean something.
    pub fragments: bool,
    /// Remember in mode U, too, what came.
    pub history: bool,
    /// Packets beyond the last one read that are taken.
    pub window: u32,
    /// Memory for packets that is kept for the next ones, bytes.
    pub spare: usize,
}

#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    /// How many packets it came in.
    packets: u32,
}

#[derive(Debug, Default)]
struct Slot {
    packet: Option<Vec<u8>>,
    flags: u8,
}

/// Counters of the queue.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    /// Messages that were given up because parts of them were lost or made no sense.
    pub broken: u64,
    /// Packets that never came (mode U).
    pub skipped: u64,
    /// Most packets that waited for a missing one.
    pub most_early: u64,
}

/// The receive queue of a flow.
#[derive(Debug)]
pub struct Receive {
    rules: Rules,
    /// The next sequence number in order.
    next: u32,
    /// The window edge that was told last; never goes back within a run.
    edge: u32,
    /// Packets from `next` on.
    slots: VecDeque<Slot>,
    early: u64,
    received: Ranges,
    messages: VecDeque<Message>,
    /// Packets of `messages`.
    unread: u32,
    /// So much was unread since the edge was told that the peer may be waiting.
    crowded: bool,
    assembly: Option<Message>,
    /// There is no memory for more parts of a long message.
    short: bool,
    free: Vec<Vec<u8>>,
    free_bytes: usize,
    counters: Counters,
}

impl Receive {
    /// An empty queue that begins at 0; see [`Receive::begin`].
    pub fn new(rules: Rules) -> Self {
        Receive {
            rules,
            next: 0,
            edge: 0,
            slots: VecDeque::new(),
            early: 0,
            received: Ranges::default(),
            messages: VecDeque::new(),
            unread: 0,
            crowded: false,
            assembly: None,
            short: false,
            free: Vec::new(),
            free_bytes: 0,
            counters: Counters::default(),
        }
    }

    /// A new run: the next packet has this number, and the peer sends `granted` packets without being told a window. Whole
    /// messages that wait for the program stay.
    pub fn begin(&mut self, seqno: u32, granted: u32) {
        while let Some(slot) = self.slots.pop_front() {
            if let Some(packet) = slot.packet {
                self.recycle(packet);
            }
        }
        self.early = 0;
        self.received.clear();
        self.counters.broken += u64::from(self.assembly.take().is_some());
        self.next = seqno;
        self.edge = seqno.wrapping_add(granted.min(self.rules.window));
    }

    /// The next sequence number in order.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// The first sequence number that would not be taken.
    pub fn edge(&self) -> u32 {
        let edge = self.next.wrapping_sub(self.unread).wrapping_add(self.rules.window);
        if before(self.edge, edge) && !(self.short && self.assembled() > SPARE) { edge } else { self.edge }
    }

    /// Bytes of a message of which parts are missing.
    pub fn assembled(&self) -> usize {
        self.assembly.as_ref().map_or(0, |message| message.bytes.len())
    }

    /// Packets that the peer was told it may send, and that were not read.
    pub fn promised(&self) -> u32 {
        ahead(self.next.wrapping_sub(self.unread), self.edge)
    }

    /// From now on so many packets are taken beyond the last one read, in so far as the peer was not told of more.
    pub fn set_window(&mut self, window: u32) {
        self.rules.window = window;
    }

    /// The peer was told of more than it has after a long pause, and nothing is missing of what it sent.
    pub fn is_generous(&self, granted: u32) -> bool {
        ahead(self.next, self.edge) > granted && self.early == 0 && self.assembly.is_none()
    }

    /// The peer takes no more for granted than so many packets.
    pub fn take_back(&mut self, granted: u32) {
        self.edge = self.next.wrapping_add(granted);
        self.slots.shrink_to_fit();
    }

    /// Whether there is memory for more parts of a long message, from now on.
    pub fn set_short(&mut self, short: bool) {
        self.short = short;
    }

    /// The program reads as fast as packets come, or nearly.
    pub fn keeps_up(&self) -> bool {
        self.unread <= self.rules.window / 2
    }

    /// The edge that was told last.
    pub fn told(&self) -> u32 {
        self.edge
    }

    /// The present edge is told to the peer.
    pub fn tell(&mut self) -> u32 {
        self.edge = self.edge();
        self.crowded = self.unread >= self.rules.window / 2;
        self.edge
    }

    /// The reading of the program made so much room that the peer should hear of it at once.
    pub fn has_news(&self) -> bool {
        let opened = ahead(self.edge, self.edge());
        let left = ahead(self.next, self.edge);
        let window = self.rules.window;
        // Tiny steps would cost the peer tiny batches; while there is something to read, larger ones are worth waiting for.
        let narrow = left <= window / 4 && (opened >= window / 8 || self.messages.is_empty());
        self.crowded && opened > 0 && (opened >= window / 2 || narrow)
    }

    /// Packets before others that came are missing.
    pub fn has_gaps(&self) -> bool {
        self.early > 0
    }

    /// What came: in mode R beyond `next`, in mode U before it.
    pub fn received(&self) -> &Ranges {
        &self.received
    }

    /// A number is neither in the window nor one that was there not long ago.
    pub fn is_foreign(&self, seqno: u32) -> bool {
        let zone = self.rules.window.max(LEAP);
        let since = seqno.wrapping_sub(self.next.wrapping_sub(zone));
        let most = zone.wrapping_add(self.edge().wrapping_sub(self.next)).wrapping_add(if self.rules.reliable {
            0
        } else {
            LEAP
        });
        since >= most
    }

    /// A data packet.
    pub fn receive(&mut self, seqno: u32, flags: u8, payload: &[u8]) -> Arrival {
        if self.rules.reliable {
            self.receive_reliable(seqno, flags, payload)
        } else {
            self.receive_lossy(seqno, flags, payload)
        }
    }

    fn receive_reliable(&mut self, seqno: u32, flags: u8, payload: &[u8]) -> Arrival {
        if before(seqno, self.next) {
            return Arrival::Old;
        }
        if !before(seqno, self.edge()) {
            return Arrival::Beyond;
        }
        if seqno == self.next {
            return self.receive_next(flags, payload);
        }
        self.keep(seqno, flags, payload)
    }

    fn receive_next(&mut self, flags: u8, payload: &[u8]) -> Arrival {
        self.advance(1);
        self.accept(flags, payload);
        if self.early == 0 {
            return Arrival::Expected;
        }
        while let Some(packet) = self.slots.front_mut().and_then(|slot| slot.packet.take()) {
            let flags = self.slots.front().map_or(0, |slot| slot.flags);
            self.early -= 1;
            self.advance(1);
            self.accept_owned(flags, packet);
        }
        self.received.forget_before(self.next);
        Arrival::Filled
    }

    /// `next` moves on.
    fn advance(&mut self, packets: u32) {
        self.next = self.next.wrapping_add(packets);
        self.slots.pop_front();
    }

    fn keep(&mut self, seqno: u32, flags: u8, payload: &[u8]) -> Arrival {
        let place = seqno.wrapping_sub(self.next) as usize;
        while self.slots.len() <= place {
            self.slots.push_back(Slot::default());
        }
        if self.slots.get(place).is_some_and(|slot| slot.packet.is_some()) {
            return Arrival::Old;
        }
        let ranges = self.received.count();
        // Numbers that continue the last range show nothing new.
        let continues = self.received.get(ranges.wrapping_sub(1)).is_some_and(|last| last.end == seqno);
        let beyond = self.received.get(ranges.wrapping_sub(1)).is_none_or(|last| before(last.end, seqno));
        let mut packet = self.free.pop().unwrap_or_default();
        self.free_bytes = self.free_bytes.saturating_sub(packet.capacity());
        packet.clear();
        packet.extend_from_slice(payload);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Slot { packet: Some(packet), flags };
        }
        self.received.insert(seqno);
        self.early += 1;
        self.counters.most_early = self.counters.most_early.max(self.early);
        if continues || beyond { Arrival::Early { new_gap: beyond } } else { Arrival::Filled }
    }

    fn receive_lossy(&mut self, seqno: u32, flags: u8, payload: &[u8]) -> Arrival {
        let skipped = seqno.wrapping_sub(self.next);
        let late = before(seqno, self.next);
        if !late && skipped >= self.rules.window.saturating_add(LEAP) {
            return Arrival::Beyond;
        }
        if self.rules.history {
            self.note(seqno);
        }
        if late {
            return Arrival::Old;
        }
        if skipped > 0 {
            self.counters.skipped += u64::from(skipped);
            self.counters.broken += u64::from(self.assembly.take().is_some());
        }
        let granted = before(seqno, self.edge());
        self.next = seqno.wrapping_add(1);
        // A peer that does not heed the window loses what it sends beyond it.
        if !granted && self.unread >= self.rules.window {
            self.counters.skipped += 1;
            self.counters.broken += u64::from(self.assembly.take().is_some());
            return Arrival::Beyond;
        }
        self.accept(flags, payload);
        if skipped > 0 { Arrival::Filled } else { Arrival::Expected }
    }

    fn note(&mut self, seqno: u32) {
        if self.received.count() == 0 || !before(seqno, self.next.wrapping_sub(HISTORY)) {
            self.received.insert(seqno);
        }
        self.received.forget_before(seqno.wrapping_sub(HISTORY));
        if self.received.count() > HISTORY_RANGES {
            self.received.pop_first();
        }
    }

    /// The next packet in order.
    fn accept(&mut self, flags: u8, payload: &[u8]) {
        if self.rules.fragments && flags & (flag::FIRST | flag::MORE) != flag::FIRST {
            return self.assemble(flags, payload);
        }
        let mut packet = self.free.pop().unwrap_or_default();
        self.free_bytes = self.free_bytes.saturating_sub(packet.capacity());
        packet.clear();
        packet.extend_from_slice(payload);
        self.accept_owned(flags, packet);
    }

    fn accept_owned(&mut self, flags: u8, packet: Vec<u8>) {
        if self.rules.fragments && flags & (flag::FIRST | flag::MORE) != flag::FIRST {
            self.assemble(flags, &packet);
            return self.recycle(packet);
        }
        self.counters.broken += u64::from(self.assembly.take().is_some());
        self.ready(Message { bytes: packet, packets: 1 });
    }

    /// A fragment.
    fn assemble(&mut self, flags: u8, payload: &[u8]) {
        if flags & flag::FIRST != 0 {
            let old = self.assembly.replace(Message { bytes: Vec::new(), packets: 0 });
            self.counters.broken += u64::from(old.is_some());
        }
        let Some(mut message) = self.assembly.take() else {
            // The rest of a message that was given up; that was counted at its beginning, if there was one.
            return;
        };
        // Each part has a byte at least, so those of a message are no more than its bytes may be.
        if payload.is_empty() || message.bytes.len() + payload.len() > MAX_MESSAGE {
            self.counters.broken += 1;
            return;
        }
        message.bytes.extend_from_slice(payload);
        message.packets += 1;
        if flags & flag::MORE != 0 {
            self.assembly = Some(message);
        } else {
            self.ready(message);
        }
    }

    fn ready(&mut self, message: Message) {
        self.unread = self.unread.saturating_add(message.packets);
        self.crowded |= self.unread >= self.rules.window / 2;
        self.messages.push_back(message);
    }

    /// The next message for the program.
    pub fn message(&self) -> Option<&[u8]> {
        self.messages.front().map(|message| message.bytes.as_slice())
    }

    /// The program has read it.
    pub fn consume(&mut self) -> bool {
        let Some(message) = self.messages.pop_front() else { return false };
        self.unread -= message.packets;
        self.recycle(message.bytes);
        true
    }

    /// Nobody will read what is there.
    pub fn discard(&mut self) {
        while self.consume() {}
    }

    fn recycle(&mut self, packet: Vec<u8>) {
        if self.free_bytes + packet.capacity() <= self.rules.spare {
            self.free_bytes += packet.capacity();
            self.free.push(packet);
        }
    }

    /// Counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: u8 = flag::FIRST;
    const BEGIN: u8 = flag::FIRST | flag::MORE;
    const MIDDLE: u8 = flag::MORE;
    const END: u8 = 0;

    fn queue(reliable: bool) -> Receive {
        let mut queue =
            Receive::new(Rules { reliable, fragments: true, history: !reliable, window: 100, spare: 1 << 20 });
        queue.begin(u32::MAX, 100);
        queue
    }

    fn read(queue: &mut Receive) -> Vec<Vec<u8>> {
        let mut all = vec![];
        while let Some(message) = queue.message() {
            all.push(message.to_vec());
            queue.consume();
        }
        all
    }

    #[test]
    fn packets_are_put_in_order_across_the_wrap() {
        let mut queue = queue(true);
        assert_eq!(queue.receive(1, WHOLE, b"c"), Arrival::Early { new_gap: true });
        assert_eq!(queue.receive(2, WHOLE, b"d"), Arrival::Early { new_gap: false });
        assert_eq!(queue.receive(4, WHOLE, b"f"), Arrival::Early { new_gap: true });
        assert_eq!(queue.receive(2, WHOLE, b"d"), Arrival::Old);
        assert_eq!(queue.receive(0, WHOLE, b"b"), Arrival::Filled);
        assert!(queue.message().is_none() && queue.has_gaps());
        assert_eq!(queue.receive(u32::MAX, WHOLE, b"a"), Arrival::Filled);
        assert_eq!(read(&mut queue), [b"a", b"b", b"c", b"d"]);
        assert_eq!(queue.receive(3, WHOLE, b"e"), Arrival::Filled);
        assert_eq!(read(&mut queue), [b"e", b"f"]);
        assert_eq!((queue.next(), queue.has_gaps(), queue.received().count()), (5, false, 0));
        assert_eq!(queue.receive(u32::MAX, WHOLE, b"a"), Arrival::Old);
    }

    #[test]
    fn the_window_moves_when_messages_are_read() {
        let mut queue = queue(true);
        (0..100u32).for_each(|n| assert_eq!(queue.receive(u32::MAX.wrapping_add(n), WHOLE, b"x"), Arrival::Expected));
        assert_eq!(queue.receive(99, WHOLE, b"x"), Arrival::Beyond);
        assert_eq!((queue.tell(), queue.has_news()), (99, false));
        queue.consume();
        assert_eq!((queue.edge(), queue.has_news()), (100, false));
        read(&mut queue);
        assert_eq!((queue.edge(), queue.has_news()), (199, true));
        queue.tell();
        assert!(!queue.has_news());
    }

    #[test]
    fn fragments_that_make_no_message_are_dropped_and_counted() {
        let mut queue = queue(true);
        let packets = [(END, "x"), (MIDDLE, "x"), (BEGIN, "a"), (WHOLE, "b"), (BEGIN, "c"), (MIDDLE, "d"), (END, "e")];
        for ((flags, payload), n) in packets.into_iter().zip(0..) {
            queue.receive(u32::MAX.wrapping_add(n), flags, payload.as_bytes());
        }
        assert_eq!(read(&mut queue), [&b"b"[..], b"cde"]);
        assert_eq!(queue.counters().broken, 1);
    }

    #[test]
    fn a_message_longer_than_allowed_is_given_up() {
        let mut queue = queue(true);
        let part = [0; 65_536];
        queue.receive(u32::MAX, BEGIN, &part);
        (0..20).for_each(|n| assert!(queue.receive(n, MIDDLE, &part) == Arrival::Expected));
        queue.receive(20, END, &part);
        assert!(queue.message().is_none());
        assert_eq!(queue.counters().broken, 1);
    }

    #[test]
    fn a_message_of_parts_without_bytes_is_given_up() {
        let mut queue = queue(true);
        queue.receive(u32::MAX, BEGIN, b"a");
        (0..20).for_each(|n| assert!(queue.receive(n, MIDDLE, b"") == Arrival::Expected));
        queue.receive(20, END, b"z");
        assert!(queue.message().is_none() && queue.assembly.is_none());
        assert_eq!(queue.counters().broken, 1);
    }

    #[test]
    fn mode_u_skips_what_is_lost_and_remembers_what_came() {
        let mut queue = queue(false);
        queue.receive(u32::MAX, BEGIN, b"a");
        assert_eq!(queue.receive(1, END, b"c"), Arrival::Filled);
        assert_eq!(queue.receive(2, WHOLE, b"d"), Arrival::Expected);
        assert_eq!(queue.receive(0, MIDDLE, b"b"), Arrival::Old);
        assert_eq!(queue.receive(0x0100_0000, WHOLE, b"z"), Arrival::Beyond);
        assert_eq!(read(&mut queue), [b"d"]);
        assert_eq!((queue.counters().skipped, queue.counters().broken), (1, 1));
        assert_eq!(queue.received().get(0).map(|range| (range.start, range.end)), Some((u32::MAX, 3)));
    }

    #[test]
    fn a_new_run_keeps_whole_messages() {
        let mut queue = queue(true);
        queue.receive(u32::MAX, WHOLE, b"a");
        queue.receive(0, BEGIN, b"b");
        queue.receive(5, WHOLE, b"z");
        queue.begin(1000, 64);
        assert!(!queue.is_foreign(1063) && queue.is_foreign(1_000_000));
        queue.receive(1000, WHOLE, b"c");
        assert_eq!(read(&mut queue), [b"a", b"c"]);
    }
}
