//! The encryption of a flow between two programs.

use std::io;

use ouroboros_client::message::Key;
use ouroboros_crypto::{Role, Session, Settings, Suite};
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

/// The guard of one side: 0 allocated the flow, 1 accepted it. The suite is the number of a cipher.
pub fn new(suite: u16, key: &Key, side: usize) -> io::Result<Box<dyn Guard>> {
    let unknown = || io::Error::other(format!("it is encrypted with cipher {suite}, which this library does not know"));
    let suite = Suite::from_nid(suite).ok_or_else(unknown)?;
    let role = if side == 0 { Role::Allocator } else { Role::Acceptor };
    Ok(Box::new(SessionGuard(Session::new(Settings::new(suite, role), &key.0)?)))
}
