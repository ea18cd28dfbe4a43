//! The keys of a flow: each comes from the one before it.

use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroize;

use crate::cipher::Cipher;
use crate::suite::Suite;
use crate::vault::{KEYS, Vault};

const INFO: &[u8] = b"o7s-key-rotation";

/// The furthest epoch beyond the current one whose key can be asked for.
pub(crate) const AHEAD: usize = KEYS - 1;

/// The key of the current epoch, and those after it that somebody asked for.
pub(crate) struct Chain {
    suite: Suite,
    vault: Vault,
    known: usize,
}

impl Chain {
    pub(crate) fn new(suite: Suite, key: &[u8; 32]) -> io::Result<Self> {
        let mut vault = Vault::new()?;
        let secrets = vault.secrets_mut();
        secrets.salt.copy_from_slice(digest(&SHA256, key).as_ref());
        secrets.keys[0].copy_from_slice(key);
        Ok(Chain { suite, vault, known: 1 })
    }

    /// False in the child of a fork.
    pub(crate) fn is_ours(&self) -> bool {
        self.vault.is_ours()
    }

    /// The cipher `step` epochs on, at most `AHEAD`. A key is derived once: to ask for many costs no more than to get there.
    pub(crate) fn cipher(&mut self, step: usize) -> Result<Cipher, Unspecified> {
        let secrets = self.vault.secrets_mut();
        if step > AHEAD {
            return Err(Unspecified);
        }
        while self.known <= step {
            let (before, after) = secrets.keys.split_at_mut(self.known);
            let last = before.last().ok_or(Unspecified)?;
            let next = after.first_mut().ok_or(Unspecified)?;
            Salt::new(HKDF_SHA256, &secrets.salt).extract(last).expand(&[INFO], HKDF_SHA256)?.fill(next)?;
            self.known += 1;
        }
        Cipher::new(self.suite, &secrets.keys[step])
    }

    /// `step` epochs on, which must have been asked for; the keys before it are wiped.
    pub(crate) fn advance(&mut self, step: usize) {
        debug_assert!(step < self.known);
        let keys = &mut self.vault.secrets_mut().keys;
        keys.copy_within(step..self.known, 0);
        self.known -= step;
        keys[self.known..self.known + step].iter_mut().for_each(Zeroize::zeroize);
    }
}
