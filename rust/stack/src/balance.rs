//! Where all packets are that ports or flows within the node were given: taken, dropped for a reason, or waiting.

use std::collections::BTreeMap;

use crate::flow::Flow;
use crate::link::Impairment;
use crate::member::{Carries, Member};
use crate::outlet::Way;
use crate::ring::Ring;
use crate::stack::Stack;
use crate::stage::Stage;

/// What became of packets on their way from flow to flow, by ports or within the node. One of a flow over flows of a layer
/// below is inside of packets of those, and is not counted again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// Packets of flows, keepalives and those of FRCP among them, and words of control.
    pub sent: u64,
    /// Packets sent on twice by bad links, or to more than one member of a broadcast layer.
    pub duplicated: u64,
    /// Datagrams that left the node by its ports.
    pub left: u64,
    /// Datagrams that came to its ports.
    pub arrived: u64,
    /// Packets that their flows took, and words of control.
    pub received: u64,
    /// Packets that wait: for room at a port, on a bad link, for their flow.
    pub queued: u64,
    /// Packets that are nowhere any more, by the reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl Balance {
    /// `sent + duplicated + arrived = left + received + dropped + queued`.
    pub fn is_even(&self) -> bool {
        self.sent + self.duplicated + self.arrived == self.left + self.received + self.lost() + self.queued
    }

    /// All that was dropped.
    pub fn lost(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// So many were dropped more.
    pub fn drop(&mut self, reason: &'static str, count: u64) {
        if count > 0 {
            *self.dropped.entry(reason).or_default() += count;
        }
    }

    /// Add what became of others.
    pub fn add(&mut self, other: &Balance) {
        self.sent += other.sent;
        self.duplicated += other.duplicated;
        self.left += other.left;
        self.arrived += other.arrived;
        self.received += other.received;
        self.queued += other.queued;
        other.dropped.iter().for_each(|(reason, count)| self.drop(reason, *count));
    }
}

impl<R: Ring> Stack<R> {
    /// What became of all packets so far.
    pub fn balance(&self) -> Balance {
        let mut all = self.past.clone();
        self.members.values().for_each(|member| member.balance(&mut all));
        self.flows.values().for_each(|flow| flow.balance(&mut all));
        all
    }
}

impl<R: Ring> Flow<R> {
    pub(crate) fn balance(&self, into: &mut Balance) {
        if let Way::Transfer(_) | Way::Unicast(..) | Way::Tap = self.outlet.way {
            return;
        }
        let (it, frcp) = self.counted();
        let (waiting, kept) = self.waiting();
        let reliable = frcp.is_some();
        let frcp = frcp.unwrap_or_default();
        into.received += it.empty;
        into.received += if reliable {
            (frcp.data_received + frcp.bare_received).saturating_sub(frcp.duplicates + frcp.beyond + frcp.rejected)
        } else {
            it.delivered
        };
        let dropped = [
            ("damaged", it.damaged),
            ("rejected", it.rejected),
            ("replayed", it.replayed),
            ("overrun", it.overrun),
            ("unwanted", it.unwanted),
            ("frcp_duplicates", frcp.duplicates),
            ("frcp_beyond", frcp.beyond),
            ("frcp_rejected", frcp.rejected),
            ("frcp_malformed", frcp.malformed),
        ];
        into.sent += it.sent;
        into.queued += waiting + kept;
        dropped.into_iter().for_each(|(reason, count)| into.drop(reason, count));
    }
}

impl Member {
    pub(crate) fn balance(&self, into: &mut Balance) {
        into.add(&self.past);
        into.duplicated += self.shaken.duplicated + self.copies;
        into.drop("lost", self.shaken.lost.saturating_sub(self.slow));
        into.drop("unheard", self.unheard);
        let Carries::Port(port) = &self.carries else { return };
        let it = &self.counters;
        into.sent += it.said;
        into.left += it.sent;
        into.arrived += it.received;
        into.received += it.management + it.challenged;
        into.queued += port.stage.count() + self.link.as_ref().map_or(0, Impairment::under_way) + self.kept();
        let dropped = [
            ("unsent", it.unsent),
            ("crowded", it.crowded),
            ("unknown", it.unknown),
            ("wrong_source", it.wrong_source),
            ("short", it.short),
            ("refused", it.refused),
        ];
        dropped.into_iter().for_each(|(reason, count)| into.drop(reason, count));
    }

    /// The member ends: what waits is lost with it.
    pub(crate) fn lose_all(&mut self) {
        self.counters.unknown += self.forget_kept();
        if let Some(link) = self.link.take() {
            self.shaken.lost += link.under_way();
        }
        if let Carries::Port(port) = &mut self.carries {
            self.counters.unsent += port.stage.count();
            port.stage = Stage::new(1);
        }
    }
}
