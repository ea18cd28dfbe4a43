//! Shared by the tests: an end of the prototype, after the table of the protocol description, and a network that misbehaves.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::VecDeque;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::iv::FixedLength;
use ouroboros_crypto::{Replay, Role, Session, Settings, Suite};

pub mod attack;

pub const KEY: [u8; 32] = [0x5a; 32];

pub const AEAD: [Suite; 4] = [Suite::Aes128Gcm, Suite::Aes192Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
pub const CTR: [Suite; 3] = [Suite::Aes128Ctr, Suite::Aes192Ctr, Suite::Aes256Ctr];

pub fn session(suite: Suite, role: Role, replay: Replay, rotation_bit: u32) -> Session {
    Session::new(Settings { suite, role, replay, rotation_bit }, &KEY).unwrap()
}

/// Both ends of a flow between nodes of ours.
pub fn own_pair(suite: Suite, rotation_bit: u32) -> (Session, Session) {
    let end = |role| session(suite, role, Replay::Reject, rotation_bit);
    (end(Role::Allocator), end(Role::Acceptor))
}

pub fn sealed(session: &mut Session, plain: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    session.seal(plain, &mut packet).unwrap();
    packet
}

pub fn opened(session: &mut Session, packet: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    session.open(packet, &mut plain).ok().map(|()| plain)
}

/// A source of chance that repeats itself.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A packet and what is in it.
pub struct Transit {
    pub packet: Vec<u8>,
    pub plain: Vec<u8>,
}

/// One direction that loses a percentage of the packets and delays the others by up to `depth` ticks of a common clock.
pub struct Network {
    loss: u64,
    depth: u64,
    under_way: VecDeque<(u64, Transit)>,
}

impl Network {
    pub fn new(loss: u64, depth: u64) -> Self {
        Network { loss, depth, under_way: VecDeque::new() }
    }

    pub fn send(&mut self, now: u64, packet: Transit, chance: &mut Chance) {
        if !chance.percent(self.loss) {
            let due = now + chance.below(self.depth + 1);
            let at = self.under_way.partition_point(|(other, _)| *other <= due);
            self.under_way.insert(at, (due, packet));
        }
    }

    pub fn arrived(&mut self, now: u64) -> Vec<Transit> {
        let count = self.under_way.partition_point(|(due, _)| *due <= now);
        self.under_way.drain(..count).map(|(_, packet)| packet).collect()
    }
}

/// An end of the prototype: the rotation table of the protocol description, and nothing of the crate under test.
pub struct Prototype {
    suite: Suite,
    bit: u32,
    count: u64,
    age: u64,
    phase: u8,
    salt: [u8; 32],
    current: [u8; 32],
    previous: Option<[u8; 32]>,
    chance: Chance,
}

impl Prototype {
    pub fn new(suite: Suite, bit: u32, seed: u64) -> Self {
        let salt = digest(&SHA256, &KEY).as_ref().try_into().unwrap();
        Prototype { suite, bit, count: 0, age: 0, phase: 0, salt, current: KEY, previous: None, chance: Chance(seed) }
    }

    fn bit_of_count(&self) -> u8 {
        (self.count >> self.bit & 1) as u8
    }

    fn rotate(&mut self) {
        let next = next_key(&self.salt, &self.current);
        self.previous = Some(std::mem::replace(&mut self.current, next));
        self.age = 0;
        self.phase ^= 1;
    }

    pub fn send(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut iv: Vec<u8> = (0..self.suite.iv_length()).map(|_| self.chance.next() as u8).collect();
        iv[0] = iv[0] & 0x7f | self.bit_of_count() << 7;
        let packet = encrypt(self.suite, &self.current, &iv, plain);
        self.sent();
        packet
    }

    /// What it would send for the same IV; the phase in it has to be right.
    pub fn send_with(&mut self, iv: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        (iv[0] >> 7 == self.bit_of_count()).then(|| {
            let packet = encrypt(self.suite, &self.current, iv, plain);
            self.sent();
            packet
        })
    }

    fn sent(&mut self) {
        let before = self.bit_of_count();
        self.count += 1;
        self.age += 1;
        if self.bit_of_count() != before {
            self.rotate();
        }
        if self.age >= (1 << self.bit) / 2 {
            self.previous = None;
        }
    }

    pub fn receive(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let size = 1u64 << self.bit;
        if packet[0] >> 7 != self.phase && self.age >= size * 3 / 4 {
            self.rotate();
        }
        self.count += 1;
        self.age += 1;
        decrypt(self.suite, &self.current, packet).or_else(|| decrypt(self.suite, self.previous.as_ref()?, packet))
    }
}

pub fn next_key(salt: &[u8; 32], key: &[u8; 32]) -> [u8; 32] {
    let mut next = [0; 32];
    Salt::new(HKDF_SHA256, salt)
        .extract(key)
        .expand(&[b"o7s-key-rotation"], HKDF_SHA256)
        .unwrap()
        .fill(&mut next)
        .unwrap();
    next
}

fn aead_key(suite: Suite, key: &[u8; 32]) -> Option<LessSafeKey> {
    let algorithm = match suite {
        Suite::Aes128Gcm => &aead::AES_128_GCM,
        Suite::Aes192Gcm => &aead::AES_192_GCM,
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        _ => return None,
    };
    Some(LessSafeKey::new(UnboundKey::new(algorithm, &key[..algorithm.key_len()]).unwrap()))
}

fn counter_mode(suite: Suite, key: &[u8; 32], iv: &[u8], text: &mut [u8]) {
    let (algorithm, length) = match suite {
        Suite::Aes128Ctr => (&cipher::AES_128, 16),
        Suite::Aes192Ctr => (&cipher::AES_192, 24),
        _ => (&cipher::AES_256, 32),
    };
    let key = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, &key[..length]).unwrap()).unwrap();
    let block: [u8; 16] = iv.try_into().unwrap();
    key.less_safe_encrypt(text, EncryptionContext::Iv128(FixedLength::from(block))).unwrap();
}

pub fn encrypt(suite: Suite, key: &[u8; 32], iv: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut text = plain.to_vec();
    match aead_key(suite, key) {
        Some(key) => {
            let nonce = Nonce::try_assume_unique_for_key(iv).unwrap();
            key.seal_in_place_append_tag(nonce, Aad::empty(), &mut text).unwrap();
        }
        None => counter_mode(suite, key, iv, &mut text),
    }
    [iv, &text].concat()
}

pub fn decrypt(suite: Suite, key: &[u8; 32], packet: &[u8]) -> Option<Vec<u8>> {
    let (iv, text) = packet.split_at_checked(suite.iv_length())?;
    let mut text = text.to_vec();
    match aead_key(suite, key) {
        Some(key) => {
            let nonce = Nonce::try_assume_unique_for_key(iv).ok()?;
            let length = key.open_in_place(nonce, Aad::empty(), &mut text).ok()?.len();
            text.truncate(length);
        }
        None => counter_mode(suite, key, iv, &mut text),
    }
    Some(text)
}
