//! The encryption of a flow between two programs.

use ouroboros_crypto::{Replay, Session, Suite};
use ouroboros_flow::{guard, session};
use ouroboros_shm::endpoint::Guard;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::Source;

/// The guard of one side of a flow, from the number of the suite and the key that the handshake gave.
pub fn new_guard(suite: u16, key: &Bound<'_, PyAny>, side: usize) -> PyResult<Box<dyn Guard>> {
    Ok(guard(new_session(suite, key, side, true)?))
}

/// The encryption of one side: 0 allocated the flow, 1 accepted it. `reject_replays`: the peer is one of ours.
pub fn new_session(suite: u16, key: &Bound<'_, PyAny>, side: usize, reject_replays: bool) -> PyResult<Session> {
    let suite = Suite::from_nid(suite).ok_or_else(|| PyValueError::new_err(format!("no cipher has number {suite}")))?;
    let source = Source::new(key)?;
    let key = source.as_slice(key.py());
    let key = key.try_into().map_err(|_| PyValueError::new_err(format!("a key has 32 bytes, not {}", key.len())))?;
    let replay = if reject_replays { Replay::Reject } else { Replay::Accept };
    Ok(session(suite, key, side, replay)?)
}
