//! The encryption of one flow, as one of its ends does it.

use std::io;

use aws_lc_rs::error::Unspecified;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::cipher::Cipher;
use crate::numbers::{Numbers, Parts, SEED};
use crate::rotation::Keys;
use crate::suite::Suite;
use crate::window::Window;

/// Which end of the flow this is. The two ends have to differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that allocated the flow.
    Allocator,
    /// The end that accepted it.
    Acceptor,
}

impl Role {
    fn peer(self) -> Role {
        match self {
            Role::Allocator => Role::Acceptor,
            Role::Acceptor => Role::Allocator,
        }
    }
}

/// The fate of a packet that comes a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// It is delivered again: the IVs of the prototype tell no number.
    Accept,
    /// It is rejected. The peer has to be one of ours. A packet that is overtaken by 4096 later ones counts as old.
    /// Counter mode has no way to tell, and accepts.
    Reject,
}

/// How a session is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The cipher.
    pub suite: Suite,
    /// Which end this is.
    pub role: Role,
    /// The fate of replayed packets.
    pub replay: Replay,
    /// The key changes after two to the power of this packets. 20 in every build of the prototype that is in use.
    pub rotation_bit: u32,
}

impl Settings {
    /// For a peer of ours.
    pub fn new(suite: Suite, role: Role) -> Self {
        Settings { suite, role, replay: Replay::Reject, rotation_bit: 20 }
    }
}

/// Why a packet was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// It is too short to be one.
    TooShort,
    /// It was not sealed by the peer, or somebody altered it, or its key is long gone.
    Forged,
    /// It came before.
    Replayed,
    /// It is one of our own.
    Reflected,
    /// The session belongs to the process that forked this one.
    Forked,
    /// The target does not have the length of the plaintext.
    WrongRoom,
}

/// Why a packet was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The session belongs to the process that forked this one.
    Forked,
    /// All packet numbers are used.
    Exhausted,
    /// The packet is longer than 2^32 bytes, or the cipher failed.
    Failed,
    /// The target does not have the length of the sealed packet.
    WrongRoom,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "packet rejected: {self:?}")
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "packet not encrypted: {self:?}")
    }
}

impl std::error::Error for Rejected {}
impl std::error::Error for Refused {}

/// Packets so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sealed.
    pub sealed: u64,
    /// Opened.
    pub opened: u64,
    /// Rejected as too short or not authentic.
    pub forged: u64,
    /// Rejected as replayed.
    pub replayed: u64,
    /// Rejected as sent back.
    pub reflected: u64,
}

/// The encryption of one flow. It holds the keys; they are wiped when it is dropped, and do not show in `Debug`.
pub struct Session {
    settings: Settings,
    keys: Keys,
    numbers: Numbers,
    window: Window,
    counters: Counters,
}

impl Session {
    /// From the key that the handshake gave. At most one session per end may ever be made from a key.
    pub fn new(settings: Settings, key: &[u8; 32]) -> io::Result<Self> {
        let mut seed = [0; SEED];
        // Of the kernel: the library spends 35 ms in each thread on a generator of its own. So few bytes come at once.
        if getrandom(&mut seed, GetRandomFlags::empty())? != SEED {
            return Err(io::Error::other("no random bytes"));
        }
        Self::with_seed(settings, key, seed)
    }

    /// As `new`, with the random bytes of the IVs given. Never the same ones for the same key and role.
    pub fn with_seed(settings: Settings, key: &[u8; 32], seed: [u8; SEED]) -> io::Result<Self> {
        if !(1..=62).contains(&settings.rotation_bit) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the rotation bit must be from 1 to 62"));
        }
        Ok(Session {
            settings,
            keys: Keys::new(settings.suite, key, settings.rotation_bit, settings.replay == Replay::Reject)?,
            numbers: Numbers::new(settings.role, seed),
            window: Window::new(),
            counters: Counters::default(),
        })
    }

    /// How it was made.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Bytes by which a packet grows.
    pub fn overhead(&self) -> usize {
        self.settings.suite.overhead()
    }

    /// How often the key was changed.
    pub fn epoch(&self) -> u64 {
        self.keys.epoch()
    }

    /// Packets so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Append the sealed packet to `out`. Nothing is appended if that fails.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let start = out.len();
        out.resize(start + plain.len() + self.overhead(), 0);
        let result = self.seal_into(plain, &mut out[start..]);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// Seal into `out`, which has the length of `plain` and the overhead.
    pub fn seal_into(&mut self, plain: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        let whole = Whole::of(self.settings.suite, out).ok_or(Refused::WrongRoom)?;
        if whole.text.len() != plain.len() {
            return Err(Refused::WrongRoom);
        }
        self.seal_with(whole, |cipher, whole| cipher.seal(whole.iv, plain, whole.text, whole.tag))
    }

    /// Seal a packet that stands in `frame` with the room for the IV in front of it and the room for the tag behind it.
    pub fn seal_in_place(&mut self, frame: &mut [u8]) -> Result<(), Refused> {
        let whole = Whole::of(self.settings.suite, frame).ok_or(Refused::WrongRoom)?;
        self.seal_with(whole, |cipher, whole| cipher.seal_in_place(whole.iv, whole.text, whole.tag))
    }

    fn seal_with(
        &mut self,
        whole: Whole<'_>,
        seal: impl FnOnce(&Cipher, Whole<'_>) -> Result<(), Unspecified>,
    ) -> Result<(), Refused> {
        if !self.keys.is_ours() {
            return Err(Refused::Forked);
        }
        if whole.text.len() > u32::MAX as usize {
            return Err(Refused::Failed);
        }
        let sealing = self.keys.sealing().map_err(|_| Refused::Failed)?;
        if !self.numbers.draw(sealing.phase, sealing.epoch, whole.iv) {
            return Err(Refused::Exhausted);
        }
        seal(sealing.cipher, whole).map_err(|_| Refused::Failed)?;
        self.keys.sent().map_err(|_| Refused::Failed)?;
        self.counters.sealed += 1;
        Ok(())
    }

    /// The length of the plaintext of a packet of `length` bytes; None if that is too short for one.
    pub fn plain_length(&self, length: usize) -> Option<usize> {
        length.checked_sub(self.overhead())
    }

    /// Append the plaintext of `packet` to `out`. Nothing is appended if the packet is rejected.
    pub fn open(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), Rejected> {
        let start = out.len();
        out.resize(start + self.plain_length(packet.len()).unwrap_or(0), 0);
        let result = self.open_into(packet, &mut out[start..]);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// Put the plaintext of `packet` into `plain`, which has the length that `plain_length` tells. If the packet is
    /// rejected, nothing of it is there.
    pub fn open_into(&mut self, packet: &[u8], plain: &mut [u8]) -> Result<(), Rejected> {
        let result = self.try_open(packet, plain);
        let counter = match result {
            Ok(()) => &mut self.counters.opened,
            Err(Rejected::Replayed) => &mut self.counters.replayed,
            Err(Rejected::Reflected) => &mut self.counters.reflected,
            Err(_) => &mut self.counters.forged,
        };
        *counter += 1;
        result
    }

    fn try_open(&mut self, packet: &[u8], plain: &mut [u8]) -> Result<(), Rejected> {
        if !self.keys.is_ours() {
            return Err(Rejected::Forked);
        }
        let suite = self.settings.suite;
        let text_length = self.plain_length(packet.len()).ok_or(Rejected::TooShort)?;
        if plain.len() != text_length {
            return Err(Rejected::WrongRoom);
        }
        let (iv, rest) = packet.split_at(suite.iv_length());
        let (text, tag) = rest.split_at(text_length);
        let parts = Parts::read(iv).ok_or(Rejected::TooShort)?;
        let of_ours = self.settings.replay == Replay::Reject;
        if self.numbers.drew(iv) || of_ours && !parts.is_from(self.settings.role.peer()) {
            return Err(Rejected::Reflected);
        }
        let numbered = of_ours && suite.authenticates();
        // Before the work of decrypting; what is authentic is noted after it.
        if numbered && self.window.rejects(parts.number) {
            return Err(Rejected::Replayed);
        }
        self.keys.open(&parts, |cipher| cipher.open(iv, text, tag, plain)).map_err(|_| Rejected::Forged)?;
        if numbered {
            self.window.note(parts.number);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Settings { suite, role, .. } = self.settings;
        let mut shown = formatter.debug_struct("Session");
        shown.field("suite", &suite).field("role", &role).field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

/// The parts of a sealed packet.
struct Whole<'a> {
    iv: &'a mut [u8],
    text: &'a mut [u8],
    tag: &'a mut [u8],
}

impl<'a> Whole<'a> {
    fn of(suite: Suite, packet: &'a mut [u8]) -> Option<Self> {
        let text_length = packet.len().checked_sub(suite.overhead())?;
        let (iv, rest) = packet.split_at_mut(suite.iv_length());
        let (text, tag) = rest.split_at_mut(text_length);
        Some(Whole { iv, text, tag })
    }
}
