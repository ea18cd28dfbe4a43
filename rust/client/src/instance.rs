//! The number by which the node tells a process from what the same pid runs later.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

/// The entry of the auxiliary vector that says where the kernel put 16 random bytes.
const AT_RANDOM: u64 = 25;

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x100_0000_01b3;

/// The instance number of this process: the same for all that says hello from it, be it Python or C, and another one after
/// a fork or an exec. `ouroboros.runtime.client` computes it in the same way.
#[must_use]
pub fn instance() -> u64 {
    let random = random_of_exec().unwrap_or_else(now);
    let mut hash = FNV_START;
    for byte in random.iter().chain(&process::id().to_le_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    hash & 0xffff_ffff_ffff
}

/// The bytes that the kernel drew when this program was executed. Read by way of the file system, so that it takes no
/// pointer from a number.
fn random_of_exec() -> Option<[u8; 16]> {
    let vector = std::fs::read("/proc/self/auxv").ok()?;
    let words: Vec<u64> =
        vector.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes)).collect();
    let address = words.chunks_exact(2).find(|pair| pair[0] == AT_RANDOM)?[1];
    let mut random = [0; 16];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut random, address).ok()?;
    Some(random)
}

/// For a process that may not look at itself: then nothing else does, which could come to another number.
fn now() -> [u8; 16] {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_keeps_its_number() {
        assert_eq!(instance(), instance());
        assert!(random_of_exec().is_some());
        assert!(instance() < 1 << 48);
    }
}
