//! When to look after which flow: a heap with one entry for each, at most.
//!
//! An entry is only moved when it has to come earlier, so a deadline that moves with each packet costs nothing; an entry that
//! came too early is found out when it fires. Entries of one time fire in the order of their flows.

use crate::id::FlowId;

/// Children of a node of the heap.
const ARITY: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<(u64, FlowId)>,
    /// By the place of a flow in its arena: one more than the place of its entry in the heap, or 0.
    places: Vec<usize>,
}

fn slot_of(flow: FlowId) -> usize {
    u64::from(flow) as u32 as usize
}

impl Timers {
    /// Look after a flow at `deadline` at the latest.
    pub(crate) fn set(&mut self, flow: FlowId, deadline: Option<u64>) {
        let Some(at) = deadline else { return };
        let slot = slot_of(flow);
        if slot >= self.places.len() {
            self.places.resize(slot + 1, 0);
        }
        match self.places[slot] {
            0 => {
                self.heap.push((at, flow));
                self.rise(self.heap.len() - 1);
            }
            place if at < self.heap[place - 1].0 => {
                self.heap[place - 1] = (at, flow);
                self.rise(place - 1);
            }
            _ => {}
        }
    }

    /// Forget a flow.
    pub(crate) fn remove(&mut self, flow: FlowId) {
        if let Some(place @ 1..) = self.places.get(slot_of(flow)).copied() {
            self.take(place - 1);
        }
    }

    /// The time of the first entry.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// A flow that is due.
    pub(crate) fn due(&mut self, now: u64) -> Option<FlowId> {
        (self.next()? <= now).then(|| self.take(0))
    }

    fn take(&mut self, at: usize) -> FlowId {
        let (_, flow) = self.heap.swap_remove(at);
        self.places[slot_of(flow)] = 0;
        if at < self.heap.len() {
            self.rise(at);
            self.sink(at);
        }
        flow
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.heap[at] < self.heap[(at - 1) / ARITY] {
            self.swap(at, (at - 1) / ARITY);
            at = (at - 1) / ARITY;
        }
        self.places[slot_of(self.heap[at].1)] = at + 1;
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let children = ARITY * at + 1..(ARITY * at + ARITY + 1).min(self.heap.len());
            let Some(least) = children.min_by_key(|child| self.heap[*child]) else { return };
            if self.heap[at] <= self.heap[least] {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for at in [one, other] {
            self.places[slot_of(self.heap[at].1)] = at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u64, u64),
        Remove(u64),
        Due(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20u64, 0..100u64).prop_map(|(flow, at)| Step::Set(flow, at)),
            (0..20u64).prop_map(Step::Remove),
            (0..100u64).prop_map(Step::Due),
        ]
    }

    proptest! {
        #[test]
        fn the_earliest_deadline_of_each_flow_fires_in_order(steps in prop::collection::vec(step(), 0..200)) {
            let (mut timers, mut model) = (Timers::default(), BTreeMap::<FlowId, u64>::new());
            for step in steps {
                match step {
                    Step::Set(flow, at) => {
                        let flow = FlowId::from(flow);
                        timers.set(flow, Some(at));
                        let entry = model.entry(flow).or_insert(at);
                        *entry = at.min(*entry);
                    }
                    Step::Remove(flow) => {
                        timers.remove(flow.into());
                        model.remove(&flow.into());
                    }
                    Step::Due(now) => {
                        let first = model.iter().map(|(flow, at)| (*at, *flow)).min().filter(|(at, _)| *at <= now);
                        prop_assert_eq!(timers.due(now), first.map(|(_, flow)| flow));
                        first.map(|(_, flow)| model.remove(&flow));
                    }
                }
                prop_assert_eq!(timers.next(), model.values().min().copied());
                prop_assert_eq!(timers.heap.len(), model.len());
            }
        }
    }
}
