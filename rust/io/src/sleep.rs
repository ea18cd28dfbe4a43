//! Where a worker sleeps: in epoll, on the descriptors that it watches, on one timer, and on the word to end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::{Errno, read, write};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// The key of the event that ends the worker.
pub const STOP: u64 = u64::MAX;
/// The key of the timer.
pub const TIMER: u64 = u64::MAX - 1;

/// What a worker waits for. The keys `STOP` and `TIMER` are taken.
#[derive(Debug)]
pub struct Sleep {
    epoll: OwnedFd,
    stop: OwnedFd,
    start: Instant,
}

impl Sleep {
    /// With the timer that wakes it.
    pub fn new() -> io::Result<(Self, Timer)> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let sleep = Sleep { epoll, stop, start: Instant::now() };
        sleep.watch(&sleep.stop, STOP)?;
        sleep.watch(&timer, TIMER)?;
        Ok((sleep, Timer { descriptor: timer, armed: None }))
    }

    /// Nanoseconds since this began.
    pub fn now(&self) -> u64 {
        // Enough for 584 years.
        self.start.elapsed().as_nanos() as u64
    }

    /// Wake up when the descriptor is readable.
    pub fn watch(&self, descriptor: impl AsFd, key: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?)
    }

    /// Let a descriptor be, which may be forgotten already.
    pub fn forget(&self, descriptor: impl AsFd) {
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// Put what happened into `events`, after waiting for it. False: nothing ever will.
    #[must_use]
    pub fn wait(&self, events: &mut Vec<epoll::Event>) -> bool {
        events.clear();
        // Anything but a signal is a programming error; without a thread the worker is dead, and says so by silence.
        matches!(epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), None), Ok(_) | Err(Errno::INTR))
    }

    /// Have `wait` give `STOP`.
    pub fn stop(&self) {
        // An eventfd takes a 1 unless it is full, and then the thread is awake anyway.
        let _ = write(&self.stop, &1u64.to_ne_bytes());
    }
}

/// Wakes a worker once, at the earliest time it was told since it rang last.
#[derive(Debug)]
pub struct Timer {
    descriptor: OwnedFd,
    /// When it rings.
    armed: Option<u64>,
}

impl Timer {
    /// Ring at `at`, or before; `now` is that of the `Sleep`.
    pub fn arm(&mut self, at: u64, now: u64) {
        if self.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        self.armed = Some(at);
        // At 0 it would never ring. The longest time is bounded by u64 nanoseconds, far below 2^63 s.
        let left = Duration::from_nanos(at.saturating_sub(now).max(1));
        let it_value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Fails only for a value out of range, which this is not.
        let _ = timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value });
    }

    /// To be called when it rang.
    pub fn rang(&mut self) {
        // Else it stays readable. That it is not any more is no error.
        let _ = read(&self.descriptor, &mut [0u8; 8]);
        self.armed = None;
    }
}
