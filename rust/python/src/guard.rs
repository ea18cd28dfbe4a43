//! The encryption of a flow between two programs.

use ouroboros_crypto::{Replay, Role, Session, Settings, Suite};
use ouroboros_shm::endpoint::Guard;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

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
pub fn new_guard(suite: u16, key: &[u8], side: usize) -> PyResult<Box<dyn Guard>> {
    let suite = Suite::from_nid(suite).ok_or_else(|| PyValueError::new_err(format!("no cipher has number {suite}")))?;
    let key = key.try_into().map_err(|_| PyValueError::new_err(format!("a key has 32 bytes, not {}", key.len())))?;
    let role = if side == 0 { Role::Allocator } else { Role::Acceptor };
    let settings = Settings { replay: Replay::Reject, ..Settings::new(suite, role) };
    Ok(Box::new(SessionGuard(Session::new(settings, key)?)))
}
