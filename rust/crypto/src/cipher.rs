//! One key, ready for use.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;

use crate::suite::{Algorithm, Suite};

/// Encrypts and decrypts under one key. "Less safe" says that the caller answers for the nonces: `numbers.rs` does.
pub(crate) enum Cipher {
    Aead(LessSafeKey),
    // Boxed: a move leaves a copy of the key behind, and this one is a value.
    Ctr(Box<EncryptingKey>),
}

impl Cipher {
    /// For the first bytes of `key`, as many as the suite takes.
    pub(crate) fn new(suite: Suite, key: &[u8; 32]) -> Result<Self, Unspecified> {
        let key = &key[..suite.key_length()];
        Ok(match suite.algorithm() {
            Algorithm::Aead(algorithm) => Cipher::Aead(LessSafeKey::new(UnboundKey::new(algorithm, key)?)),
            Algorithm::Ctr(algorithm) => {
                Cipher::Ctr(Box::new(EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key)?)?))
            }
        })
    }

    /// `text` becomes ciphertext. `tag` has the length of the suite's tag.
    pub(crate) fn seal_in_place(&self, iv: &[u8], text: &mut [u8], tag: &mut [u8]) -> Result<(), Unspecified> {
        match self {
            Cipher::Aead(key) => key.seal_in_place_scatter(nonce(iv)?, Aad::empty(), text, &[], tag),
            Cipher::Ctr(key) => encrypt(key, iv, text),
        }
    }

    /// As `seal_in_place`, from `plain` to `text` of the same length.
    pub(crate) fn seal(&self, iv: &[u8], plain: &[u8], text: &mut [u8], tag: &mut [u8]) -> Result<(), Unspecified> {
        match self {
            Cipher::Aead(key) => key.seal_out_of_place_scatter(nonce(iv)?, Aad::empty(), plain, text, &[], tag),
            Cipher::Ctr(key) => {
                text.copy_from_slice(plain);
                encrypt(key, iv, text)
            }
        }
    }

    /// `plain`, of the length of `text`, gets the plaintext; zeros if the packet is not authentic.
    pub(crate) fn open(&self, iv: &[u8], text: &[u8], tag: &[u8], plain: &mut [u8]) -> Result<(), Unspecified> {
        match self {
            Cipher::Aead(key) => key.open_separate_gather(nonce(iv)?, Aad::empty(), text, tag, plain),
            Cipher::Ctr(key) => {
                plain.copy_from_slice(text);
                encrypt(key, iv, plain)
            }
        }
    }
}

fn nonce(iv: &[u8]) -> Result<Nonce, Unspecified> {
    Nonce::try_assume_unique_for_key(iv)
}

/// Counter mode is its own inverse.
fn encrypt(key: &EncryptingKey, iv: &[u8], text: &mut [u8]) -> Result<(), Unspecified> {
    let block: [u8; 16] = iv.try_into().map_err(|_| Unspecified)?;
    key.less_safe_encrypt(text, EncryptionContext::Iv128(FixedLength::from(block)))?;
    Ok(())
}
