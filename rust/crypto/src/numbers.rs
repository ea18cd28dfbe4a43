//! The IV of a packet: never the same twice under one key.
//!
//! ```text
//! 1 bit   phase, which the protocol wants there
//! 1 bit   direction: the role of the sender
//! 14 bits epoch, modulo 2^14
//! 16 bits salt, random for the session
//! 64 bits number of the packet, from a random start below 2^63, one more for each packet, never reset
//! 32 bits zero, in counter mode only: blocks are counted here
//! ```
//!
//! To the protocol all but the phase is random. Between our own nodes the receiver reads epoch, direction and number. Why
//! no IV repeats:
//!
//! * A session never takes a number twice: the count goes on through rotation, a retransmission takes a new one, and at
//!   2^64 the session ends. In counter mode packets are 2^32 blocks apart, more than the longest packet has.
//! * The two ends differ in the direction bit.
//! * A peer that draws its IVs at random (the prototype does) hits one of ours, or one of its own, with a probability below
//!   2^-54 per key, as a key is left after 2^20 packets.
//! * Should two sessions be made from one key and role, which is an error (and is prevented for the two sides of a fork),
//!   their salts and random starts still keep them apart: for 2^20 packets each they meet with a probability of 2^-58.

use crate::Role;

/// Random bytes that the numbering starts from.
pub(crate) const SEED: usize = 10;

/// Bits of the epoch that an IV carries.
const EPOCH_BITS: u32 = 14;
const EPOCH_MASK: u64 = (1 << EPOCH_BITS) - 1;

/// The IVs of one sender.
pub(crate) struct Numbers {
    direction: u8,
    salt: [u8; 2],
    first: u64,
    /// None when they are used up.
    next: Option<u64>,
}

impl Numbers {
    pub(crate) fn new(role: Role, seed: [u8; SEED]) -> Self {
        let [salt_0, salt_1, start @ ..] = seed;
        let first = u64::from_be_bytes(start) >> 1;
        Numbers { direction: direction_of(role), salt: [salt_0, salt_1], first, next: Some(first) }
    }

    /// Fill in the IV of the next packet. False when there is none left.
    #[must_use]
    pub(crate) fn draw(&mut self, phase: u8, epoch: u64, iv: &mut [u8]) -> bool {
        let (Some(number), Some((head, block))) = (self.next, iv.split_first_chunk_mut::<12>()) else {
            return false;
        };
        self.next = number.checked_add(1);
        let epoch = ((epoch & EPOCH_MASK) as u16).to_be_bytes();
        head[0] = phase << 7 | self.direction << 6 | epoch[0];
        head[1] = epoch[1];
        head[2..4].copy_from_slice(&self.salt);
        head[4..].copy_from_slice(&number.to_be_bytes());
        block.fill(0);
        true
    }

    /// Whether it is one that was drawn here: somebody sent a packet back. A random IV is taken for one of ours less than
    /// once in 2^40 packets, as long as we sent less than 2^40.
    pub(crate) fn drew(&self, iv: &[u8]) -> bool {
        let Some(parts) = Parts::read(iv) else { return false };
        parts.direction == self.direction
            && parts.salt == self.salt
            && parts.number >= self.first
            && self.next.is_none_or(|next| parts.number < next)
    }
}

fn direction_of(role: Role) -> u8 {
    match role {
        Role::Allocator => 0,
        Role::Acceptor => 1,
    }
}

/// The contents of an IV.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) phase: u8,
    pub(crate) direction: u8,
    pub(crate) number: u64,
    epoch: u64,
    salt: [u8; 2],
}

impl Parts {
    /// None if it is too short to be one.
    pub(crate) fn read(iv: &[u8]) -> Option<Self> {
        let [first, second, salt_0, salt_1, number @ ..] = iv.first_chunk::<12>()?;
        Some(Parts {
            phase: first >> 7,
            direction: first >> 6 & 1,
            epoch: u64::from(u16::from_be_bytes([first & 0x3f, *second])),
            salt: [*salt_0, *salt_1],
            number: u64::from_be_bytes(*number),
        })
    }

    pub(crate) fn is_from(&self, role: Role) -> bool {
        self.direction == direction_of(role)
    }

    /// How many epochs after `epoch` its own is: from two before it to half of the numbers that there are.
    pub(crate) fn epochs_after(&self, epoch: u64) -> Option<isize> {
        match self.epoch.wrapping_sub(epoch) & EPOCH_MASK {
            EPOCH_MASK => Some(-1),
            before if before == EPOCH_MASK - 1 => Some(-2),
            ahead if ahead < 1 << (EPOCH_BITS - 1) => Some(ahead as isize),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;
    use crate::Role;

    #[test]
    fn numbers_end_and_do_not_start_again() {
        let mut numbers = Numbers::new(Role::Allocator, [0xff; super::SEED]);
        assert_eq!(numbers.first, u64::MAX >> 1);
        numbers.next = Some(u64::MAX);
        let mut iv = [0; 16];
        assert!(numbers.draw(1, 0, &mut iv));
        assert_eq!(iv[4..], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert!(!numbers.draw(1, 0, &mut iv));
        assert!(!numbers.draw(0, 0, &mut iv));
    }
}
