//! The program's side of the control socket, for programs that are not in Python: what `ouroboros.runtime.client` is for
//! those that are. One connection for each call that waits; hanging up cancels it. There is no thread behind this.
//!
//! Read bottom to top: `message` (the bytes), `connection` (one socket), `client` (all of a process), `embedded` (starts a
//! node). `error` has the numbers that C programs get.

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

pub use client::{Client, Grant, Pending};
pub use error::Error;
pub use instance::instance;
