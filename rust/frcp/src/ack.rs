//! When to acknowledge, and which ranges to tell.

use crate::ranges::{Range, Ranges};

/// Packets that one acknowledgement may cover, once it is clear that many come.
const EVERY: u32 = 8;
/// The same at the beginning and while packets are missing.
const EVERY_EARLY: u32 = 2;
/// So many packets are the beginning.
const EARLY: u32 = 64;
/// The longest that an acknowledgement waits, ns.
pub const DELAY: u64 = 1_000_000;
/// In mode U without acknowledgements only the window has to be told, long before 64 packets, where a peer may stop.
const EVERY_WINDOW: u32 = 16;
const WINDOW_DELAY: u64 = 100_000_000;
/// Ranges in a packet at most.
pub const MAX_RANGES: usize = 32;
/// Bytes of a range on the wire: two sequence numbers.
pub const RANGE: usize = 8;
/// The last ranges that changed are told every time, so that a lost acknowledgement costs nothing.
const RECENT: usize = 16;
/// With others, in turn, up to so many in one packet.
const TOLD: usize = 24;

/// What a packet was to the receive queue, as far as acknowledging is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// The next one.
    Expected,
    /// One more while others are missing.
    WhileMissing,
    /// It shows that packets are missing, or brings one that was, or is not wanted.
    Remarkable,
}

/// Decides when the next acknowledgement goes.
#[derive(Debug)]
pub struct Acks {
    every: u32,
    delay: u64,
    most: usize,
    received: u32,
    pending: u32,
    due: Option<u64>,
    urgent: bool,
    recent: [u32; RECENT],
    /// Places of `recent` in use, and the one that was written last.
    used: usize,
    newest: usize,
    cursor: usize,
}

impl Acks {
    /// `acknowledged`: this flow has acknowledgements; otherwise only its window is told now and then.
    /// A packet lists at most `most` ranges.
    pub fn new(acknowledged: bool, most: usize) -> Self {
        let (every, delay) = if acknowledged { (EVERY, DELAY) } else { (EVERY_WINDOW, WINDOW_DELAY) };
        Acks {
            every,
            delay,
            most: most.min(MAX_RANGES),
            received: 0,
            pending: 0,
            due: None,
            urgent: false,
            recent: [0; RECENT],
            used: 0,
            newest: 0,
            cursor: 0,
        }
    }

    /// A data packet came.
    pub fn received(&mut self, now: u64, seqno: u32, urgency: Urgency) {
        self.received = self.received.saturating_add(1);
        self.pending = self.pending.saturating_add(1);
        self.due.get_or_insert(now.saturating_add(self.delay));
        match urgency {
            Urgency::Expected => {
                let early = self.received <= EARLY && self.every == EVERY;
                self.urgent |= self.pending >= if early { EVERY_EARLY } else { self.every };
            }
            Urgency::WhileMissing => self.urgent |= self.pending >= EVERY_EARLY,
            Urgency::Remarkable => self.urgent = true,
        }
        if urgency != Urgency::Expected {
            self.remember(seqno);
        }
    }

    fn remember(&mut self, seqno: u32) {
        let last = self.recent[self.newest];
        if self.used == 0 || seqno != last.wrapping_add(1) {
            self.newest = if self.used == 0 { 0 } else { (self.newest + 1) % RECENT };
            self.used = (self.used + 1).min(RECENT);
        }
        self.recent[self.newest] = seqno;
    }

    /// Something is to be told at once.
    pub fn hurry(&mut self) {
        self.urgent = true;
    }

    /// Something has not been told yet.
    pub fn owed(&self) -> bool {
        self.urgent || self.pending > 0
    }

    /// An acknowledgement has to go now.
    pub fn is_due(&self, now: u64) -> bool {
        self.urgent || self.due.is_some_and(|due| due <= now)
    }

    /// When one has to go.
    pub fn deadline(&self) -> Option<u64> {
        self.due
    }

    /// A packet told everything.
    pub fn told(&mut self) {
        self.pending = 0;
        self.due = None;
        self.urgent = false;
    }

    /// Append the ranges to be told to a packet.
    pub fn ranges(&mut self, known: &Ranges, out: &mut Vec<u8>) {
        let mut list = Told { most: self.most, ..Told::default() };
        for back in 0..self.used {
            let seqno = self.recent[(self.newest + RECENT - back) % RECENT];
            list.add(known.find(seqno));
        }
        // The highest tells how far the peer got; the others in turn, so that each is told now and then.
        list.add(known.get(known.count().wrapping_sub(1)));
        for _ in 0..known.count().min(TOLD.saturating_sub(list.count)) {
            self.cursor = if self.cursor == 0 { known.count() - 1 } else { (self.cursor - 1).min(known.count() - 1) };
            list.add(known.get(self.cursor));
        }
        for range in &list.ranges[..list.count] {
            out.extend_from_slice(&range.start.to_be_bytes());
            out.extend_from_slice(&range.end.to_be_bytes());
        }
    }
}

struct Told {
    ranges: [Range; MAX_RANGES],
    count: usize,
    most: usize,
}

impl Default for Told {
    fn default() -> Self {
        Told { ranges: [Range { start: 0, end: 0 }; MAX_RANGES], count: 0, most: 0 }
    }
}

impl Told {
    fn add(&mut self, range: Option<Range>) {
        let Some(range) = range else { return };
        if self.count < self.most && !self.ranges[..self.count].contains(&range) {
            self.ranges[self.count] = range;
            self.count += 1;
        }
    }
}

/// The ranges of a payload; None: it is no list of ranges.
pub fn parse(payload: &[u8]) -> Option<impl Iterator<Item = Range> + '_> {
    let pairs = payload.chunks_exact(RANGE);
    (pairs.remainder().is_empty() && pairs.len() <= MAX_RANGES).then(|| {
        let number = |four: &[u8]| four.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        pairs.map(move |pair| Range { start: number(&pair[..4]), end: number(&pair[4..]) })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_few_packets_are_acknowledged_together() {
        let mut acks = Acks::new(true, MAX_RANGES);
        acks.received(10, 1, Urgency::Expected);
        assert!(acks.owed() && !acks.is_due(10));
        assert_eq!(acks.deadline(), Some(10 + DELAY));
        assert!(acks.is_due(10 + DELAY));
        acks.received(11, 2, Urgency::Expected);
        assert!(acks.is_due(11));
        acks.told();
        assert!(!acks.owed() && acks.deadline().is_none());
        (0..EARLY).for_each(|n| acks.received(12, 3 + n, Urgency::Expected));
        acks.told();
        (1..EVERY).for_each(|n| acks.received(13, 100 + n, Urgency::Expected));
        assert!(!acks.is_due(13));
        acks.received(13, 200, Urgency::Expected);
        assert!(acks.is_due(13));
    }

    #[test]
    fn a_gap_is_told_at_once() {
        let mut acks = Acks::new(true, MAX_RANGES);
        acks.received(0, 9, Urgency::Remarkable);
        assert!(acks.is_due(0));
    }

    #[test]
    fn every_range_is_told_in_the_end_and_the_recent_ones_every_time() {
        let mut acks = Acks::new(true, MAX_RANGES);
        let mut known = Ranges::default();
        (0..200).for_each(|n| assert!(known.insert(n * 3)));
        acks.received(0, 300, Urgency::Remarkable);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let mut out = vec![];
            acks.ranges(&known, &mut out);
            assert!(out.len() <= MAX_RANGES * RANGE);
            let told = parse(&out).unwrap().map(|range| range.start).collect::<Vec<_>>();
            assert!(told.contains(&300) && told.contains(&597));
            seen.extend(told);
        }
        assert_eq!(seen.len(), 200);
    }

    #[test]
    fn what_is_no_list_of_ranges_is_refused() {
        assert!(parse(&[0; 7]).is_none());
        assert!(parse(&[0; RANGE * (MAX_RANGES + 1)]).is_none());
        assert_eq!(parse(&[]).unwrap().count(), 0);
        assert_eq!(parse(&[0, 0, 0, 1, 0, 0, 0, 5]).unwrap().next(), Some(Range { start: 1, end: 5 }));
    }
}
