//! The program's side of the control socket, for programs that are not in Python: what `ouroboros.runtime.client` is for
//! those that are. One connection for each call that waits; hanging up cancels it. There is no thread behind this.
//!
//! Read bottom to top: `error` (the numbers that C programs get), `time`, `paths` (where a node is), `message` (the bytes),
//! `connection` (one socket), `c` (what functions for C have in common), `program` and `instance` (what a process is called),
//! `embedded` (starts a node), `client` (all of a process).

#![deny(unsafe_code)]

pub mod c;
pub mod client;
pub mod connection;
mod embedded;
pub mod error;
mod instance;
pub mod message;
mod paths;
mod program;
mod time;

pub use client::{Client, Grant, Pending};
pub use error::Error;
pub use instance::instance;
