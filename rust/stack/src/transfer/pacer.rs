//! The pace at which packets go to a neighbour that says nothing of what it got: members of the C prototype. Their hosts have
//! buffers for a few hundred packets, and stop when they run out of them (docs/spec/unicast-data.md 8.1, U5).

/// Packets that may leave at once.
const BURST: u64 = 64;
/// Nanoseconds for each further one: about as many as such a member takes.
const STEP: u64 = 16_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    /// When the burst is paid off.
    even: u64,
}

impl Pacer {
    /// When the next packet may leave; None: now.
    pub(crate) fn waits_until(&self, now: u64) -> Option<u64> {
        let at = (self.even + STEP).saturating_sub(BURST * STEP);
        (now < at).then_some(at)
    }

    /// A packet left.
    pub(crate) fn sent(&mut self, now: u64) {
        self.even = self.even.max(now) + STEP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_at_once_and_then_one_after_the_other() {
        let (mut pacer, mut now, mut sent) = (Pacer::default(), 5_000_000, Vec::new());
        while sent.len() < 200 {
            match pacer.waits_until(now) {
                Some(until) => now = until,
                None => {
                    pacer.sent(now);
                    sent.push(now);
                }
            }
        }
        assert_eq!(sent.iter().filter(|at| **at == 5_000_000).count(), BURST as usize);
        assert_eq!(sent[199] - sent[0], (200 - BURST) * STEP);
        assert_eq!(pacer.waits_until(now + BURST * STEP), None);
    }
}
