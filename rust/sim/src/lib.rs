//! Nodes in virtual time, pure: the stacks of nodes, the links between their ports, and programs on their flows.
//!
//! ```text
//! program ══ Queue ══ Stack ── port ── link ──▶ port ── Stack ══ Queue ══ program
//! ```
//!
//! The same calls have the same result, on every machine. Packets, timers and keepalives stay here; `Network::run` comes back
//! when there is something that the control side of a node has to know.
//!
//! Read bottom to top: `queue`, `link`, `program`, `node`, `network`.

#![forbid(unsafe_code)]

mod link;
mod network;
mod node;
mod program;
mod queue;

pub use network::{Counted, Network, News};
pub use ouroboros_stack as stack;
pub use program::{Program, Tally};
pub use queue::Queue;
