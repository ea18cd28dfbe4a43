//! The round trip time and the time after which a packet counts as lost for good.

use crate::limits::MOST_RTT;

/// Until there is a sample, ns.
const INITIAL_RTO: u64 = 1_000_000_000;
const LEAST_RTT: u64 = 1_000;
const LEAST_DEVIATION: u64 = 100;

/// The estimator of Linux TCP: the deviation grows fast and shrinks slowly when a sample is shorter than expected.
#[derive(Debug, Clone, Default)]
pub struct Rtt {
    smoothed: u64,
    deviation: u64,
    sampled: bool,
}

impl Rtt {
    /// A packet was acknowledged that long after it had been sent, ns.
    pub fn sample(&mut self, sample: u64) {
        // What follows are means of samples, so they stay within the same limit.
        let sample = sample.min(MOST_RTT) as i64;
        if !self.sampled {
            self.sampled = true;
            self.set(sample, sample / 2);
            return;
        }
        let (smoothed, deviation) = (self.smoothed as i64, self.deviation as i64);
        let mut error = ((sample - smoothed).abs() - deviation) >> 2;
        if error < 0 {
            error >>= 3;
        }
        self.set(smoothed + ((sample - smoothed) >> 3), deviation + error);
    }

    fn set(&mut self, smoothed: i64, deviation: i64) {
        self.smoothed = smoothed.unsigned_abs().max(LEAST_RTT);
        self.deviation = deviation.unsigned_abs().max(LEAST_DEVIATION);
    }

    /// The smoothed round trip, ns; None before the first sample.
    pub fn smoothed(&self) -> Option<u64> {
        self.sampled.then_some(self.smoothed)
    }

    /// How long to wait for an acknowledgement, without back-off and bounds, ns.
    pub fn timeout(&self) -> u64 {
        if self.sampled { self.smoothed + 4 * self.deviation } else { INITIAL_RTO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_the_specification_is_exact() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), 1_000_000_000);
        rtt.sample(1_000_000);
        assert_eq!((rtt.smoothed, rtt.deviation, rtt.timeout()), (1_000_000, 500_000, 3_000_000));
        rtt.sample(2_000_000);
        assert_eq!((rtt.smoothed, rtt.deviation, rtt.timeout()), (1_125_000, 625_000, 3_625_000));
        rtt.sample(1_125_000);
        assert_eq!((rtt.smoothed, rtt.deviation, rtt.timeout()), (1_125_000, 605_468, 3_546_872));
    }

    #[test]
    fn absurd_samples_do_not_overflow() {
        let mut rtt = Rtt::default();
        for sample in [u64::MAX, 0, u64::MAX, 1, u64::MAX, 0] {
            rtt.sample(sample);
        }
        assert!(rtt.timeout() <= 5 * MOST_RTT);
        assert!(rtt.smoothed().is_some_and(|smoothed| smoothed <= MOST_RTT));
        let mut quick = Rtt::default();
        quick.sample(0);
        quick.sample(0);
        assert!(quick.timeout() >= LEAST_RTT);
    }
}
