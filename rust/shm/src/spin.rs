//! How long to spin before sleeping. Waking a sleeping process costs tens of microseconds. Spinning costs nothing when the
//! answer is near and a core is free, and takes the peer's time when no core is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// About the price of sleeping and being woken: spinning longer than this can never pay.
const DEFAULT_LIMIT: Duration = Duration::from_micros(50);
/// A spinner that was not running for this long had its core taken away: the machine is busy.
const PREEMPTED: Duration = Duration::from_micros(250);
const MAX_CREDIT: u32 = 8;
/// Without credit, one wait in this many is spun, to find out whether that has become worth it. Each failure doubles it.
const PROBE_FIRST: u32 = 32;
const PROBE_LAST: u32 = 8192;
const CHECKS_PER_CLOCK: u32 = 16;
/// Pauses between two checks of a stream, about half a microsecond. Each check takes the cache line away from the writer: a
/// reader that checks all the time makes both several times slower than one that lets a few packets gather.
const STREAM_PAUSES: u32 = 32;

/// The limit for this process: `OUROBOROS_SPIN_US`, else 50 us.
fn limit() -> Duration {
    static LIMIT: OnceLock<Duration> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let wanted = std::env::var("OUROBOROS_SPIN_US").ok().and_then(|text| text.parse().ok());
        wanted.map_or(DEFAULT_LIMIT, Duration::from_micros)
    })
}

/// How long to leave the writer alone between two checks.
#[derive(Debug, Clone, Copy)]
pub struct Pauses(u32);

impl Pauses {
    /// The answer to a packet that was just written.
    pub const ANSWER: Pauses = Pauses(1);
    /// One of many packets.
    pub const STREAM: Pauses = Pauses(STREAM_PAUSES);

    fn pause(self) {
        (0..self.0).for_each(|_| std::hint::spin_loop());
    }
}

/// Learns from the last waits of one direction of a flow whether spinning pays. It does not when the peer shares our core
/// or the machine has more to do than cores; asking the system whether that is so would cost more than trying.
#[derive(Debug)]
pub struct Spinner {
    credit: AtomicU32,
    skipped: AtomicU32,
    probe_every: AtomicU32,
}

impl Default for Spinner {
    fn default() -> Self {
        Spinner::new()
    }
}

impl Spinner {
    /// Starts with the hope that it pays.
    #[must_use]
    pub fn new() -> Self {
        Spinner {
            credit: AtomicU32::new(MAX_CREDIT),
            skipped: AtomicU32::new(0),
            probe_every: AtomicU32::new(PROBE_FIRST),
        }
    }

    /// Check until `ready`, for a time that depends on how it went before, with `pauses` between checks. Returns whether it
    /// was ready.
    pub fn spin(&self, pauses: Pauses, ready: impl Fn() -> bool) -> bool {
        let limit = limit();
        if limit.is_zero() || !self.worth_it() {
            return ready();
        }
        let start = Instant::now();
        let mut last = start;
        loop {
            for _ in 0..CHECKS_PER_CLOCK {
                if ready() {
                    self.earn();
                    return true;
                }
                pauses.pause();
            }
            let now = Instant::now();
            if now - last > PREEMPTED {
                self.credit.store(0, Ordering::Relaxed);
                self.pay();
                return ready();
            }
            if now - start > limit {
                self.pay();
                return ready();
            }
            last = now;
        }
    }

    /// Check for about a microsecond. Short enough to keep the interpreter lock.
    pub fn glance(&self, pauses: Pauses, ready: impl Fn() -> bool) -> bool {
        if limit().is_zero() || self.credit.load(Ordering::Relaxed) == 0 {
            return ready();
        }
        (0..64 / pauses.0).any(|_| {
            pauses.pause();
            ready()
        })
    }

    fn worth_it(&self) -> bool {
        if self.credit.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let skipped = self.skipped.load(Ordering::Relaxed) + 1;
        let probe = skipped >= self.probe_every.load(Ordering::Relaxed);
        self.skipped.store(if probe { 0 } else { skipped }, Ordering::Relaxed);
        probe
    }

    fn earn(&self) {
        let credit = self.credit.load(Ordering::Relaxed);
        self.credit.store((credit + 1).min(MAX_CREDIT), Ordering::Relaxed);
        self.probe_every.store(PROBE_FIRST, Ordering::Relaxed);
    }

    fn pay(&self) {
        let credit = self.credit.load(Ordering::Relaxed);
        self.credit.store(credit.saturating_sub(1), Ordering::Relaxed);
        if credit == 0 {
            let every = self.probe_every.load(Ordering::Relaxed);
            self.probe_every.store((every * 2).min(PROBE_LAST), Ordering::Relaxed);
        }
    }
}
