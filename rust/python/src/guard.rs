//! The encryption of a flow between two programs.

use ouroboros_crypto::{Replay, Role, Session, Settings, Suite};
use ouroboros_shm::endpoint::Guard;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::Source;

#[derive(Debug)]
struct SessionGuard(Session);

impl Guard for SessionGuard {
    fn overhead(&self) -> usize {
        self.0.overhead()
    }

    fn seal(&mut self, plain: &[u8], sealed: &mut [u8]) -> bool {
        self.0.seal_into(plain, sealed).is_ok()
    }

    fn open(&mut self, sealed: &[u8], plain: &mut [u8]) -> bool {
        self.0.open_into(sealed, plain).is_ok()
    }
}

/// The guard of one side of a flow, from the number of the suite and the key that the handshake gave.
pub fn new_guard(suite: u16, key: &Bound<'_, PyAny>, side: usize) -> PyResult<Box<dyn Guard>> {
    Ok(Box::new(SessionGuard(new_session(suite, key, side, true)?)))
}

/// The encryption of one side: 0 allocated the flow, 1 accepted it. `reject_replays`: the peer is one of ours.
pub fn new_session(suite: u16, key: &Bound<'_, PyAny>, side: usize, reject_replays: bool) -> PyResult<Session> {
    let suite = Suite::from_nid(suite).ok_or_else(|| PyValueError::new_err(format!("no cipher has number {suite}")))?;
    let source = Source::new(key)?;
    let key = source.as_slice(key.py());
    let key = key.try_into().map_err(|_| PyValueError::new_err(format!("a key has 32 bytes, not {}", key.len())))?;
    let role = if side == 0 { Role::Allocator } else { Role::Acceptor };
    let replay = if reject_replays { Replay::Reject } else { Replay::Accept };
    Ok(Session::new(Settings { replay, ..Settings::new(suite, role) }, key)?)
}
