//! The number by which the node tells a process from what the same pid runs later.

use std::process;

use crate::c::random_of_exec;

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x100_0000_01b3;

/// The instance number of this process: the same for all that says hello from it, be it Python or C, and another one after
/// a fork or an exec. `ouroboros.runtime.instance` computes it in the same way.
#[must_use]
pub fn instance() -> u64 {
    let random = random_of_exec();
    let mut hash = FNV_START;
    for byte in random.iter().chain(&process::id().to_le_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    hash & 0xffff_ffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_keeps_its_number() {
        assert_eq!(instance(), instance());
        assert_ne!(random_of_exec(), [0; 16]);
        assert!(instance() < 1 << 48);
    }
}
