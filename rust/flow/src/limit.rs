//! How long a call may take.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// A time limit that a program sets for all calls of one kind.
#[derive(Debug)]
pub struct Timeout {
    /// Negative for none.
    nanoseconds: AtomicI64,
}

impl Timeout {
    /// No limit.
    pub(crate) fn new() -> Self {
        Timeout { nanoseconds: AtomicI64::new(-1) }
    }

    /// Set it; None for no limit.
    pub fn set(&self, time: Option<Duration>) {
        let nanoseconds = time.map_or(-1, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
        self.nanoseconds.store(nanoseconds, Ordering::Relaxed);
    }

    /// The limit that was set.
    pub fn get(&self) -> Option<Duration> {
        u64::try_from(self.nanoseconds.load(Ordering::Relaxed)).ok().map(Duration::from_nanos)
    }
}

/// The time limit of one call. A clock is read only when the call has to wait.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    nanoseconds: i64,
    deadline: Option<Instant>,
}

impl Limit {
    /// The limit of a call that begins now.
    #[inline]
    pub fn new(timeout: &Timeout) -> Self {
        Limit { nanoseconds: timeout.nanoseconds.load(Ordering::Relaxed), deadline: None }
    }

    /// When it is over. Counts from the first time that it is asked for.
    pub fn deadline(&mut self) -> Option<Instant> {
        if self.deadline.is_none()
            && let Ok(nanoseconds) = u64::try_from(self.nanoseconds)
        {
            self.deadline = Instant::now().checked_add(Duration::from_nanos(nanoseconds));
        }
        self.deadline
    }

    /// It is over.
    pub fn is_over(&mut self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }
}
