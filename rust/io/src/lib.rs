//! The node's packet workers: threads that move packets between rings without the interpreter.

pub mod broadcast;
pub mod impair;
pub mod link;
pub mod relay;
mod sleep;
pub mod udp;
