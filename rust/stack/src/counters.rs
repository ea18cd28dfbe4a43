//! Counters of packets, by their fate.

use ouroboros_frcp::{Refused, Stats};

/// Makes a struct of counters, and a list of their names and values.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$what])* pub $field: u64,)*
        }

        impl $name {
            /// The names, in the order of their declaration.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            /// The values, in that order.
            pub fn values(&self) -> [u64; $name::NAMES.len()] {
                [$(self.$field),*]
            }

            /// By their names, in that order.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                Self::NAMES.iter().copied().zip(self.values())
            }
        }
    };
}

counters! {
    /// Packets of one flow.
    FlowCounters {
        /// Packets sent, keepalives and packets of FRCP among them.
        sent,
        /// Bytes of those, without endpoint ids.
        sent_bytes,
        /// Packets received, likewise.
        received,
        /// Bytes of those.
        received_bytes,
        /// Messages that the program got, or the layer above.
        delivered,
        /// Packets received that have nothing in them: keepalives.
        empty,
        /// Packets lost because the program reads too slowly.
        overrun,
        /// Packets that the user did not take: it is gone, refuses them, or nothing is in them.
        unwanted,
        /// Packets whose checksum was wrong.
        damaged,
        /// Packets of an encrypted flow that the peer did not send as they came.
        rejected,
        /// Packets of an encrypted flow that came before, or were sent back.
        replayed,
        /// Messages of FRCP that the user did not take any more.
        undelivered,
        /// Messages that were longer than the flow carries.
        too_long,
        /// Packets that could not be encrypted.
        unsealed,
        /// Messages of the user that it was too late to send: the flow was closing or had failed.
        unsent,
    }
}

impl FlowCounters {
    /// FRCP has not taken a message.
    pub(crate) fn count_refused(&mut self, why: Refused) {
        match why {
            Refused::TooLong { .. } => self.too_long += 1,
            Refused::Full | Refused::Closed => self.unsent += 1,
        }
    }
}

counters! {
    /// Datagrams of one member of a layer.
    LayerCounters {
        /// Datagrams received.
        received,
        /// Management datagrams among those that were taken.
        management,
        /// Calls of the kernel that sent something.
        calls,
        /// Datagrams that left by its port.
        sent,
        /// Words of control to peers, reports of what arrived among them.
        said,
        /// Calls of the kernel that failed.
        errors,
        /// Datagrams lost by those, or with the port.
        unsent,
        /// Words of control and keepalives that found no room.
        crowded,
        /// Datagrams that the kernel dropped before they were received, because its buffer was full.
        overflowed,
        /// Datagrams for no flow of ours.
        unknown,
        /// Datagrams from another place than that of the peer.
        wrong_source,
        /// Datagrams shorter than their headers.
        short,
        /// Management datagrams that were too long, or too many.
        refused,
        /// Requests that were told to come again with a proof of their address.
        challenged,
        /// Packets that arrived over the links of an impaired layer.
        delivered,
        /// Packets lost there, or by slow readers within the node.
        lost,
        /// Packets sent twice there.
        duplicated,
        /// Packets overtaken there.
        reordered,
    }
}

counters! {
    /// Packets of a member of a unicast layer.
    TransferCounters {
        /// Packets of others that went on.
        forwarded,
        /// Packets of others that no way leads from here: the destination is unknown, or all neighbours towards it are down.
        no_route,
        /// Packets of others that crossed as many lower flows as they may.
        ttl,
        /// Packets whose way leads back to the neighbour that they came from.
        returned,
        /// Packets of a broadcast layer in our name that are not ours.
        forged,
        /// Packets for an endpoint that is none.
        unknown_eid,
        /// Packets shorter than their headers.
        malformed,
        /// Packets of others longer than the next lower flow carries.
        too_long,
        /// Packets of others that had to go because the queue to the next member was full.
        queue_full,
        /// Packets of others that waited there for longer than a packet may live.
        expired,
        /// Packets of others that wait there now.
        waiting,
        /// Packets for the components of this member.
        heard,
        /// Packets of those components, and words to senders, that could not be sent: there was no way, or no room.
        unspoken,
        /// What receivers said of the way to them: how congested it is, and what came.
        words,
    }
}

/// Makes the names of what FRCP counts, and the list of their values.
macro_rules! of_frcp {
    ($($name:literal $field:ident,)*) => {
        const FRCP: &[&str] = &[$($name),*];

        fn frcp_values(stats: &Stats) -> [u64; FRCP.len()] {
            [$(stats.$field.into()),*]
        }
    };
}

of_frcp! {
    "frcp_data_sent" data_sent,
    "frcp_retransmitted" retransmitted,
    "frcp_bare_sent" bare_sent,
    "frcp_data_received" data_received,
    "frcp_bare_received" bare_received,
    "frcp_duplicates" duplicates,
    "frcp_beyond" beyond,
    "frcp_rejected" rejected,
    "frcp_malformed" malformed,
    "frcp_broken" broken,
    "frcp_skipped" skipped,
    "frcp_acknowledged_bytes" acknowledged,
    "frcp_lost" lost,
    "frcp_spurious" spurious,
    "frcp_timeouts" timeouts,
    "frcp_rtt_ns" rtt,
    "frcp_min_rtt_ns" min_rtt,
    "frcp_in_flight_bytes" in_flight,
    "frcp_congestion_window_bytes" congestion_window,
    "frcp_bandwidth_bytes_s" bandwidth,
    "frcp_window_packets" window,
    "frcp_unsent_bytes" unsent,
}

/// The counters of a member, and further ones if it is in a unicast layer.
pub type MemberCounted = (LayerCounters, Option<TransferCounters>);

/// How many values a member has, at the most.
const OF_MEMBER: usize = LayerCounters::NAMES.len() + TransferCounters::NAMES.len();

/// The names of all that a member can count, in the order of `member_values`.
pub fn member_names() -> impl Iterator<Item = &'static str> {
    LayerCounters::NAMES.iter().chain(TransferCounters::NAMES).copied()
}

/// All that a member counts, and how many values that are: those of unicast layers come last.
pub fn member_values((layer, transfer): &MemberCounted) -> ([u64; OF_MEMBER], usize) {
    let mut all = [0; OF_MEMBER];
    let (own, of_transfer) = all.split_at_mut(LayerCounters::NAMES.len());
    own.copy_from_slice(&layer.values());
    let count = match transfer {
        Some(transfer) => {
            of_transfer.copy_from_slice(&transfer.values());
            OF_MEMBER
        }
        None => own.len(),
    };
    (all, count)
}

/// The counters of a flow, and those of FRCP, if the flow has it.
pub type Counted = (FlowCounters, Option<Stats>);

/// How many values a flow has, at the most.
const OF_FLOW: usize = FlowCounters::NAMES.len() + FRCP.len();

/// The names of all that a flow can count, in the order of `flow_values`.
pub fn flow_names() -> impl Iterator<Item = &'static str> {
    FlowCounters::NAMES.iter().chain(FRCP).copied()
}

/// All that a flow counts, by names.
pub fn each_of_flow(counted: &Counted) -> impl Iterator<Item = (&'static str, u64)> {
    let (values, count) = flow_values(counted);
    flow_names().zip(values).take(count)
}

/// All that a flow counts, and how many values that are: those of FRCP come last.
pub fn flow_values((counters, frcp): &Counted) -> ([u64; OF_FLOW], usize) {
    let mut all = [0; OF_FLOW];
    let (own, of_frcp) = all.split_at_mut(FlowCounters::NAMES.len());
    own.copy_from_slice(&counters.values());
    let count = match frcp {
        Some(stats) => {
            of_frcp.copy_from_slice(&frcp_values(stats));
            OF_FLOW
        }
        None => own.len(),
    };
    (all, count)
}

/// The state of a member at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Of the member.
    pub layer: LayerCounters,
    /// And what it counted beside that, if it is one of a unicast layer.
    pub transfer: Option<TransferCounters>,
    /// Of the flows that it carries.
    pub flows: Vec<(crate::FlowId, Counted)>,
}
