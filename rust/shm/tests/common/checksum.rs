//! A guard that is none: it tells packets of the other end from others as long as nobody wants to deceive it.

use ouroboros_shm::endpoint::Guard;

/// Bytes that it adds: a mark, and a sum.
pub const OVERHEAD: usize = 12;
const MARK: &[u8; 4] = b"mark";

/// Packets are turned upside down, and bear a sum.
#[derive(Debug, Default)]
pub struct Checksum {
    /// Packets to seal before it refuses; none: without end.
    pub limit: Option<u32>,
}

impl Guard for Checksum {
    fn overhead(&self) -> usize {
        OVERHEAD
    }

    fn seal(&mut self, plain: &[u8], sealed: &mut [u8]) -> bool {
        assert_eq!(sealed.len(), plain.len() + OVERHEAD);
        if self.limit == Some(0) {
            return false;
        }
        self.limit = self.limit.map(|limit| limit - 1);
        let (head, body) = sealed.split_at_mut(OVERHEAD);
        body.copy_from_slice(plain);
        body.reverse();
        head[..4].copy_from_slice(MARK);
        head[4..].copy_from_slice(&sum(body));
        true
    }

    fn open(&mut self, sealed: &[u8], plain: &mut [u8]) -> bool {
        assert_eq!(sealed.len(), plain.len() + OVERHEAD);
        let (head, body) = sealed.split_at(OVERHEAD);
        plain.copy_from_slice(body);
        plain.reverse();
        head[..4] == *MARK && head[4..] == sum(body)
    }
}

fn sum(bytes: &[u8]) -> [u8; 8] {
    bytes.iter().fold(1u64, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into())).to_be_bytes()
}
