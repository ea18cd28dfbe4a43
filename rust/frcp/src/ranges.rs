//! Sets of sequence numbers as ranges, for what arrived out of order at one side and what the other side knows of it.

use std::collections::VecDeque;

use crate::seq::before;

/// `start` is in it, `end` is the first that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first number.
    pub start: u32,
    /// The first number beyond.
    pub end: u32,
}

impl Range {
    /// How many numbers.
    pub fn len(&self) -> u32 {
        self.end.wrapping_sub(self.start)
    }

    fn contains(&self, seqno: u32) -> bool {
        seqno.wrapping_sub(self.start) < self.len()
    }
}

/// Ranges in order that do not touch each other, all within half of the numbers.
#[derive(Debug, Default)]
pub struct Ranges {
    ranges: VecDeque<Range>,
}

impl Ranges {
    /// The number of ranges.
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// The range at a place.
    pub fn get(&self, place: usize) -> Option<Range> {
        self.ranges.get(place).copied()
    }

    /// Forget everything.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Forget the first range.
    pub fn pop_first(&mut self) -> Option<Range> {
        self.ranges.pop_front()
    }

    /// Forget all before a number.
    pub fn forget_before(&mut self, seqno: u32) {
        while let Some(first) = self.ranges.front_mut() {
            if !before(first.start, seqno) {
                return;
            }
            if before(seqno, first.end) {
                first.start = seqno;
                return;
            }
            self.ranges.pop_front();
        }
    }

    /// The place of the first range that ends after a number, which is the one that has it if any has.
    pub fn place(&self, seqno: u32) -> usize {
        // Most numbers are beyond the last range or belong to it.
        match self.ranges.back() {
            Some(last) if !before(seqno, last.end) => self.ranges.len(),
            Some(last) if !before(seqno, last.start) => self.ranges.len() - 1,
            _ => self.ranges.partition_point(|range| !before(seqno, range.end)),
        }
    }

    /// The range that has a number.
    pub fn find(&self, seqno: u32) -> Option<Range> {
        self.get(self.place(seqno)).filter(|range| range.contains(seqno))
    }

    /// Add a number; false if it was there.
    pub fn insert(&mut self, seqno: u32) -> bool {
        let mut new = false;
        self.insert_range(Range { start: seqno, end: seqno.wrapping_add(1) }, |_| new = true);
        new
    }

    /// Add a range. `new` is called, in order, with each part of it that was not there.
    pub fn insert_range(&mut self, range: Range, mut new: impl FnMut(Range)) {
        let Range { start, end } = range;
        // One that only touches the start is joined, too.
        let first = self.place(start.wrapping_sub(1));
        let mut joined = range;
        let mut at = start;
        let mut last = first;
        while let Some(known) = self.get(last).filter(|known| !before(end, known.start)) {
            if before(at, known.start) {
                new(Range { start: at, end: known.start });
            }
            if before(known.start, joined.start) {
                joined.start = known.start;
            }
            if before(joined.end, known.end) {
                joined.end = known.end;
            }
            if before(at, known.end) {
                at = known.end;
            }
            last += 1;
        }
        if before(at, end) {
            new(Range { start: at, end });
        }
        match last - first {
            0 => self.ranges.insert(first, joined),
            _ => {
                if let Some(place) = self.ranges.get_mut(first) {
                    *place = joined;
                }
                self.ranges.drain(first + 1..last);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_a_set(
            base in prop_oneof![Just(0u32), Just(0xFFFF_FF80), any::<u32>()],
            steps in prop::collection::vec((0u32..300, 1u32..20), 1..60),
            cut in 0u32..320,
        ) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (start, length) in steps {
                let range = Range { start: base.wrapping_add(start), end: base.wrapping_add(start + length) };
                let mut new = BTreeSet::new();
                ranges.insert_range(range, |part| {
                    new.extend((0..part.len()).map(|n| part.start.wrapping_sub(base) + n));
                });
                let missing: BTreeSet<u32> = (start..start + length).filter(|n| !model.contains(n)).collect();
                prop_assert_eq!(&new, &missing);
                model.extend(missing);
            }
            for n in 0..330 {
                prop_assert_eq!(ranges.find(base.wrapping_add(n)).is_some(), model.contains(&n));
            }
            ranges.forget_before(base.wrapping_add(cut));
            let left = model.range(cut..).copied().collect::<Vec<_>>();
            let mut listed = vec![];
            for place in 0..ranges.count() {
                let range = ranges.get(place).unwrap();
                listed.extend((0..range.len()).map(|n| range.start.wrapping_sub(base) + n));
                if let Some(next) = ranges.get(place + 1) {
                    prop_assert!(before(range.end, next.start), "ranges touch");
                }
            }
            prop_assert_eq!(listed, left);
        }
    }
}
