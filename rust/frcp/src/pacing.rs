//! Spreads packets over time, in bursts that are worth a wake-up and a system call.

/// Once it has to wait, the next burst is worth so much time or so many bytes, whichever is less.
const BURST_TIME: u64 = 250_000;
const BURST_BYTES: u64 = 32 << 10;
/// What may be made up for after a late wake-up.
const CATCH_UP_TIME: u64 = 1_000_000;
const CATCH_UP_BYTES: u64 = 256 << 10;
/// What is owed at most, ns: a packet at the lowest rate. Recovery sends without asking, and those after it do not pay for all
/// of that.
const DEBT: u64 = SECOND;

const SECOND: u64 = 1_000_000_000;

/// Says when packets may be sent.
#[derive(Debug, Default)]
pub struct Pacer {
    /// Bytes a second; 0: no bound.
    rate: u64,
    /// When all that was sent would have been sent at the rate.
    even: u64,
    /// It has to wait until a burst is due.
    waits: bool,
}

impl Pacer {
    /// From now on at this rate.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
    }

    fn time(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(SECOND) / self.rate.max(1)
    }

    /// A packet may be sent.
    pub fn is_ready(&mut self, now: u64) -> bool {
        if self.rate == 0 {
            return true;
        }
        self.waits = if self.waits { self.ready_at() > now } else { self.even > now };
        !self.waits
    }

    /// When one may, if it may not now.
    pub fn ready_at(&self) -> u64 {
        self.even.saturating_add(BURST_TIME.min(self.time(BURST_BYTES)))
    }

    /// A packet was sent.
    pub fn spend(&mut self, now: u64, bytes: u64) {
        let catch_up = CATCH_UP_TIME.min(self.time(CATCH_UP_BYTES));
        let takes = if self.rate == 0 { 0 } else { self.time(bytes) };
        let even = self.even.max(now.saturating_sub(catch_up)).saturating_add(takes);
        self.even = even.min(now.saturating_add(DEBT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Send as much as is allowed, waking when told, for a time; the bytes and the wake-ups.
    fn run(pacer: &mut Pacer, until: u64) -> (u64, u64) {
        let (mut now, mut bytes, mut wakes) = (0, 0, 0);
        while now < until {
            wakes += 1;
            while pacer.is_ready(now) {
                pacer.spend(now, 1000);
                bytes += 1000;
            }
            assert!(pacer.ready_at() > now, "it would spin");
            now = pacer.ready_at();
        }
        (bytes, wakes)
    }

    #[test]
    fn the_rate_is_kept_in_bursts() {
        let mut pacer = Pacer::default();
        pacer.set_rate(250_000_000);
        let (bytes, wakes) = run(&mut pacer, SECOND);
        assert!((245_000_000..=251_000_000).contains(&bytes), "{bytes}");
        assert!(wakes < 8_000, "{wakes}");
    }

    #[test]
    fn a_slow_rate_is_kept_packet_by_packet() {
        let mut pacer = Pacer::default();
        pacer.set_rate(10_000);
        let (bytes, _) = run(&mut pacer, 10 * SECOND);
        assert!((95_000..=105_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn silence_saves_no_more_than_a_burst() {
        let mut pacer = Pacer::default();
        pacer.set_rate(100_000_000);
        pacer.spend(0, 1000);
        let mut bytes = 0;
        while pacer.is_ready(3600 * SECOND) {
            pacer.spend(3600 * SECOND, 1000);
            bytes += 1000;
        }
        assert!(bytes <= 102_000, "{bytes}");
    }
    #[test]
    fn what_is_sent_without_asking_is_owed_for_a_second_at_most() {
        let mut pacer = Pacer::default();
        pacer.set_rate(1000);
        for _ in 0..100 {
            pacer.spend(5, 1000);
        }
        assert!(pacer.ready_at() <= 5 + SECOND + BURST_TIME, "{}", pacer.ready_at());
    }
}
