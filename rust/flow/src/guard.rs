//! The encryption of a flow between two programs.

use std::io;

use ouroboros_crypto::{Replay, Role, Session, Settings, Suite};
use ouroboros_shm::endpoint::Guard;

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

/// The encryption of one side, with a key that no other flow has: 0 allocated the flow, 1 accepted it. Fails when the system
/// gives no memory that is kept from disks, or nothing random.
pub fn session(suite: Suite, key: &[u8; 32], side: usize, replay: Replay) -> io::Result<Session> {
    let role = if side == 0 { Role::Allocator } else { Role::Acceptor };
    Session::new(Settings { replay, ..Settings::new(suite, role) }, key)
}

/// The cipher for the packets of an end.
pub fn guard(session: Session) -> Box<dyn Guard> {
    Box::new(SessionGuard(session))
}
