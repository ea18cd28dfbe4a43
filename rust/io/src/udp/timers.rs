//! When to look after which flow. An entry is only added when it comes before that of its flow, so a deadline that moves with
//! each packet costs nothing; an entry that came too early is found out when it fires.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The one entry of a flow that counts: those of other times in the heap mean nothing.
pub(super) type Slot = Option<u64>;

#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(u64, u32)>>);

impl Timers {
    /// Look after flow `eid` at `deadline` at the latest.
    pub(super) fn set(&mut self, eid: u32, slot: &mut Slot, deadline: Option<u64>) {
        let Some(at) = deadline else { return };
        if slot.is_none_or(|set| at < set) {
            *slot = Some(at);
            self.0.push(Reverse((at, eid)));
        }
    }

    /// The time of the first entry.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// An entry that is due.
    pub(super) fn due(&mut self, now: u64) -> Option<(u64, u32)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}
