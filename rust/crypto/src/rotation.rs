//! Which key a packet is encrypted with.

use std::io;

use aws_lc_rs::error::Unspecified;

use crate::chain::{AHEAD, Chain};
use crate::cipher::Cipher;
use crate::numbers::Parts;
use crate::suite::Suite;

/// The keys of a flow and the rule by which they change.
pub(crate) enum Keys {
    Epochs(Epochs),
    Table(Table),
}

/// How a packet is to be sealed.
pub(crate) struct Sealing<'a> {
    pub(crate) cipher: &'a Cipher,
    pub(crate) phase: u8,
    pub(crate) epoch: u64,
}

impl Keys {
    /// `told`: the peer's IVs tell the epoch.
    pub(crate) fn new(suite: Suite, key: &[u8; 32], rotation_bit: u32, told: bool) -> io::Result<Self> {
        let mut chain = Chain::new(suite, key)?;
        let current = chain.cipher(0).map_err(|_| io::Error::other("the cipher cannot be set up"))?;
        Ok(if suite.authenticates() || told {
            Keys::Epochs(Epochs {
                chain,
                told,
                limit: 1 << rotation_bit,
                epoch: 0,
                packets: 0,
                current,
                previous: [None, None],
                ahead: [None, None],
            })
        } else {
            Keys::Table(Table { chain, bit: rotation_bit, packets: 0, age: 0, phase: 0, epoch: 0, current })
        })
    }

    /// False in the child of a fork.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Keys::Epochs(epochs) => epochs.chain.is_ours(),
            Keys::Table(table) => table.chain.is_ours(),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        match self {
            Keys::Epochs(epochs) => epochs.epoch,
            Keys::Table(table) => table.epoch,
        }
    }

    /// The key for the next packet. `sent` has to follow once it is sealed.
    pub(crate) fn sealing(&mut self) -> Result<Sealing<'_>, Unspecified> {
        match self {
            Keys::Epochs(epochs) => epochs.sealing(),
            Keys::Table(table) => {
                Ok(Sealing { cipher: &table.current, phase: table.bit_of_count(), epoch: table.epoch })
            }
        }
    }

    pub(crate) fn sent(&mut self) -> Result<(), Unspecified> {
        match self {
            Keys::Epochs(epochs) => {
                epochs.packets += 1;
                Ok(())
            }
            Keys::Table(table) => table.sent(),
        }
    }

    /// Decrypt a packet with whichever key is the right one.
    pub(crate) fn open(
        &mut self,
        parts: &Parts,
        mut attempt: impl FnMut(&Cipher) -> Result<(), Unspecified>,
    ) -> Result<(), Unspecified> {
        match self {
            Keys::Epochs(epochs) => epochs.open(parts, attempt),
            Keys::Table(table) => attempt(table.receive(parts.phase)?),
        }
    }
}

/// For ciphers that tell an authentic packet, and between our own ends. A side goes on to the next epoch after so many packets, its own and the authentic
/// ones of the peer, and follows a peer that went on before it.
///
/// The phase of a packet of the prototype tells its key only mostly, so these are tried one after the other. Packets between
/// two of our own ends tell their epoch: one try, and a peer may get far ahead while all of its packets are lost.
pub(crate) struct Epochs {
    chain: Chain,
    told: bool,
    limit: u64,
    epoch: u64,
    packets: u64,
    current: Cipher,
    /// Of the epoch before and the one before that: a prototype that is overtaken may go on by two at once.
    previous: [Option<Cipher>; 2],
    /// Of the next epoch and the one after, if they were needed already.
    ahead: [Option<Cipher>; 2],
}

impl Epochs {
    fn sealing(&mut self) -> Result<Sealing<'_>, Unspecified> {
        if self.packets >= self.limit {
            let next = match self.ahead[0].take() {
                Some(cipher) => cipher,
                None => self.chain.cipher(1)?,
            };
            self.advance(1, next);
        }
        Ok(Sealing { cipher: &self.current, phase: (self.epoch & 1) as u8, epoch: self.epoch })
    }

    fn open(
        &mut self,
        parts: &Parts,
        mut attempt: impl FnMut(&Cipher) -> Result<(), Unspecified>,
    ) -> Result<(), Unspecified> {
        if self.told {
            return self.attempt(parts.epochs_after(self.epoch).ok_or(Unspecified)?, &mut attempt);
        }
        [0, 1, -1, 2, -2].into_iter().find_map(|step| self.attempt(step, &mut attempt).ok()).ok_or(Unspecified)
    }

    /// Try the key of `step` epochs after the current one. If it is the right one, that is the current epoch from now on,
    /// unless it is an old one.
    fn attempt(
        &mut self,
        step: isize,
        attempt: &mut impl FnMut(&Cipher) -> Result<(), Unspecified>,
    ) -> Result<(), Unspecified> {
        match usize::try_from(step) {
            Err(_) => attempt(self.before(step).ok_or(Unspecified)?)?,
            Ok(0) => attempt(&self.current)?,
            Ok(step) => self.attempt_later(step, attempt)?,
        }
        self.packets += 1;
        Ok(())
    }

    fn before(&self, step: isize) -> Option<&Cipher> {
        self.previous.get(step.unsigned_abs() - 1)?.as_ref()
    }

    fn attempt_later(
        &mut self,
        step: usize,
        attempt: &mut impl FnMut(&Cipher) -> Result<(), Unspecified>,
    ) -> Result<(), Unspecified> {
        let kept = self.ahead.get_mut(step - 1).and_then(Option::take);
        let cipher = match kept {
            Some(cipher) => cipher,
            None if step <= AHEAD => self.chain.cipher(step)?,
            None => return Err(Unspecified),
        };
        let result = attempt(&cipher);
        if result.is_ok() {
            self.advance(step, cipher);
        } else if let Some(place) = self.ahead.get_mut(step - 1) {
            *place = Some(cipher);
        }
        result
    }

    fn advance(&mut self, step: usize, cipher: Cipher) {
        let current = std::mem::replace(&mut self.current, cipher);
        let [before, _] = std::mem::take(&mut self.previous);
        // Where epochs were left out, packets of theirs may still be under way.
        self.previous = match step {
            1 => [Some(current), before],
            2 => [self.chain.cipher(1).ok(), Some(current)],
            _ => [self.chain.cipher(step - 1).ok(), self.chain.cipher(step - 2).ok()],
        };
        let [_, second] = std::mem::take(&mut self.ahead);
        self.ahead[0] = second.filter(|_| step == 1);
        self.chain.advance(step);
        self.epoch += step as u64;
        self.packets = 0;
    }
}

/// For counter mode with the prototype: nothing tells whether a key was the right one, so both sides have to follow the
/// table of the protocol to the letter. Where the key changes in two-way traffic, or near a loss, garbage is delivered; the
/// prototype does no better. (Its previous key is for a second try, so it has no use here.)
pub(crate) struct Table {
    chain: Chain,
    bit: u32,
    packets: u64,
    age: u64,
    phase: u8,
    epoch: u64,
    current: Cipher,
}

impl Table {
    fn bit_of_count(&self) -> u8 {
        (self.packets >> self.bit & 1) as u8
    }

    fn sent(&mut self) -> Result<(), Unspecified> {
        let before = self.bit_of_count();
        self.count();
        if self.bit_of_count() != before { self.rotate() } else { Ok(()) }
    }

    fn receive(&mut self, phase: u8) -> Result<&Cipher, Unspecified> {
        let size = 1u64 << self.bit;
        if phase != self.phase && self.age >= size - size / 4 {
            self.rotate()?;
        }
        self.count();
        Ok(&self.current)
    }

    fn count(&mut self) {
        self.packets += 1;
        self.age += 1;
    }

    fn rotate(&mut self) -> Result<(), Unspecified> {
        self.current = self.chain.cipher(1)?;
        self.chain.advance(1);
        self.age = 0;
        self.phase ^= 1;
        self.epoch += 1;
        Ok(())
    }
}
