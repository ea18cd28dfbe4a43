//! The node's engine: one thread that moves packets between rings and sockets without the interpreter. The work on packets
//! is in `ouroboros-stack`; here is the I/O.

#![forbid(unsafe_code)]

pub mod board;
mod driver;
pub mod engine;
mod ether;
pub mod link;
mod program;
mod socket;
pub mod thread;

pub use ether::Segment;
pub use ouroboros_stack as stack;
pub use ouroboros_stack::link as impair;
pub use program::Program;
