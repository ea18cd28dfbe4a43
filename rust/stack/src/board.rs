//! Where counters are shown, to whoever looks without asking.

use crate::counters::{Counted, MemberCounted, flow_names, flow_values, member_names, member_values};
use crate::flow::Flow;
use crate::id::{FlowId, MemberId};
use crate::ring::Ring;
use crate::stack::Stack;

/// A thing that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A member of a layer.
    Member(MemberId),
    /// A flow.
    Flow(FlowId),
}

/// Shows the counters of each source, the last ones until something else has its place.
pub trait Board {
    /// The counters of a source so far. `over`: it ended, and counts nothing more. Values are in the order of `names`; those
    /// that are missing at the end it does not have.
    fn publish(&mut self, source: Source, over: bool, values: &[u64]);
}

/// The names of the values of members, and of flows.
pub fn names() -> [(&'static str, Vec<&'static str>); 2] {
    [("layer", member_names().collect()), ("flow", flow_names().collect())]
}

/// Publish what a flow has counted.
pub fn publish_flow(board: &mut impl Board, flow: FlowId, over: bool, counted: &Counted) {
    let (values, count) = flow_values(counted);
    board.publish(Source::Flow(flow), over, values.get(..count).unwrap_or(&values));
}

/// Publish what a member has counted.
pub fn publish_member(board: &mut impl Board, member: MemberId, over: bool, counted: &MemberCounted) {
    let (values, count) = member_values(counted);
    board.publish(Source::Member(member), over, values.get(..count).unwrap_or(&values));
}

impl<R: Ring> Stack<R> {
    /// From now on `publish` will be called.
    pub fn show(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// Show what has changed since the last time; whether something has. What ends comes with the event that tells of it.
    pub fn publish(&mut self, board: &mut impl Board) -> bool {
        let mut some = self.changed.as_ref().is_some_and(|changed| !changed.is_empty());
        for (name, member) in self.members.entries_mut() {
            let counted = member.counted();
            if member.shown != Some(counted) {
                member.shown = Some(counted);
                some = true;
                publish_member(board, name.into(), false, &counted);
            }
        }
        let Some(mut changed) = self.changed.take() else { return some };
        for id in changed.drain(..) {
            if let Some(flow) = self.flow(id) {
                flow.changed = false;
                publish_flow(board, id, false, &flow.counted());
            }
        }
        self.changed = Some(changed);
        some
    }

    /// A flow that is taken out has counted something, and those below it.
    pub(crate) fn note_changed(&mut self, flow: &mut Flow<R>) {
        let Stack { changed: Some(changed), flows, .. } = self else { return };
        let mut note = |flow: &mut Flow<R>| {
            if !std::mem::replace(&mut flow.changed, true) {
                changed.push(flow.id);
            }
            flow.outlet.lower()
        };
        let mut next = note(flow);
        while let Some(lower) = next {
            let Some(below) = flows.get_mut(lower) else { return };
            next = note(below);
        }
    }
}
