//! The ciphers of the protocol.

use aws_lc_rs::{aead, cipher};

/// A cipher that a flow can be encrypted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-128 in Galois/counter mode.
    Aes128Gcm,
    /// AES-192 in Galois/counter mode.
    Aes192Gcm,
    /// AES-256 in Galois/counter mode.
    Aes256Gcm,
    /// ChaCha20 with Poly1305.
    ChaCha20Poly1305,
    /// AES-128 in counter mode. It hides, but lets anybody alter what it hides; so do the next two.
    Aes128Ctr,
    /// AES-192 in counter mode.
    Aes192Ctr,
    /// AES-256 in counter mode.
    Aes256Ctr,
}

/// How a suite is done.
pub(crate) enum Algorithm {
    Aead(&'static aead::Algorithm),
    Ctr(&'static cipher::Algorithm),
}

impl Suite {
    /// All of them.
    pub const ALL: [Suite; 7] = [
        Suite::Aes128Gcm,
        Suite::Aes192Gcm,
        Suite::Aes256Gcm,
        Suite::ChaCha20Poly1305,
        Suite::Aes128Ctr,
        Suite::Aes192Ctr,
        Suite::Aes256Ctr,
    ];

    /// The suite with the number that the handshake agreed on.
    pub fn from_nid(nid: u16) -> Option<Suite> {
        Suite::ALL.into_iter().find(|suite| suite.nid() == nid)
    }

    /// Its number in the handshake.
    pub const fn nid(self) -> u16 {
        match self {
            Suite::Aes128Gcm => 895,
            Suite::Aes192Gcm => 898,
            Suite::Aes256Gcm => 901,
            Suite::ChaCha20Poly1305 => 1018,
            Suite::Aes128Ctr => 904,
            Suite::Aes192Ctr => 905,
            Suite::Aes256Ctr => 906,
        }
    }

    /// Its name in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::Aes128Gcm => "aes-128-gcm",
            Suite::Aes192Gcm => "aes-192-gcm",
            Suite::Aes256Gcm => "aes-256-gcm",
            Suite::ChaCha20Poly1305 => "chacha20-poly1305",
            Suite::Aes128Ctr => "aes-128-ctr",
            Suite::Aes192Ctr => "aes-192-ctr",
            Suite::Aes256Ctr => "aes-256-ctr",
        }
    }

    /// Bytes of the key that it uses.
    pub const fn key_length(self) -> usize {
        match self {
            Suite::Aes128Gcm | Suite::Aes128Ctr => 16,
            Suite::Aes192Gcm | Suite::Aes192Ctr => 24,
            Suite::Aes256Gcm | Suite::Aes256Ctr | Suite::ChaCha20Poly1305 => 32,
        }
    }

    /// Whether a packet that somebody altered is found out.
    pub const fn authenticates(self) -> bool {
        self.tag_length() > 0
    }

    /// Bytes in front of the ciphertext.
    pub const fn iv_length(self) -> usize {
        match self {
            Suite::Aes128Ctr | Suite::Aes192Ctr | Suite::Aes256Ctr => 16,
            _ => 12,
        }
    }

    /// Bytes behind the ciphertext.
    pub const fn tag_length(self) -> usize {
        match self {
            Suite::Aes128Ctr | Suite::Aes192Ctr | Suite::Aes256Ctr => 0,
            _ => 16,
        }
    }

    /// Bytes by which a packet grows.
    pub const fn overhead(self) -> usize {
        self.iv_length() + self.tag_length()
    }

    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            Suite::Aes128Gcm => Algorithm::Aead(&aead::AES_128_GCM),
            Suite::Aes192Gcm => Algorithm::Aead(&aead::AES_192_GCM),
            Suite::Aes256Gcm => Algorithm::Aead(&aead::AES_256_GCM),
            Suite::ChaCha20Poly1305 => Algorithm::Aead(&aead::CHACHA20_POLY1305),
            Suite::Aes128Ctr => Algorithm::Ctr(&cipher::AES_128),
            Suite::Aes192Ctr => Algorithm::Ctr(&cipher::AES_192),
            Suite::Aes256Ctr => Algorithm::Ctr(&cipher::AES_256),
        }
    }
}
