//! A bad link between two descriptors: packets from one are written to the other, later, twice, or not at all.
//!
//! ```text
//! end 0 │ ── Impairment ──▶ │ end 1
//!       │ ◀── Impairment ── │
//! ```
//!
//! An end is anything that gives and takes whole packets: a TUN or TAP device, a connected datagram socket. One thread moves them,
//! and waits for nobody: a packet that an end does not take is lost, and counted.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ouroboros_shm::descriptors::above_standard;
use ouroboros_stack::link::{Counters, Impairment, Settings, seed_of};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::{Errno, ioctl_fionbio, read, write};

use crate::thread::{PROVOKED, Thread, give_up};

/// The longest packet that comes through whole. IP has none that is longer.
pub const LONGEST: usize = 65_535;

/// Packets that one end may send before the other gets its turn.
const TURN: usize = 64;
/// Packets that arrive within that time, nanoseconds, may share a wake-up of the thread.
const GRAIN: u64 = 50_000;
/// Buffers that are kept for the next packets, and the largest of them, bytes.
const SPARE: usize = 8192;
const SPARE_SIZE: usize = 2048;
/// The epoll key of the word to end; keys of the ends are smaller.
const STOP: u64 = u64::MAX;

/// State of the thread that others see.
#[derive(Debug)]
struct State {
    /// By the end from which packets come.
    ways: [Impairment; 2],
    counters: Counters,
}

type Shared = Arc<Mutex<State>>;

/// The worker of one link. Stops when dropped, and with it the link.
#[derive(Debug)]
pub struct Link {
    state: Shared,
    /// None once it was stopped.
    stop: Option<Arc<Stop>>,
    thread: Thread,
}

/// The word to end.
#[derive(Debug)]
struct Stop {
    told: OwnedFd,
    /// It is one to fail.
    broken: AtomicBool,
}

impl Stop {
    fn tell(&self) {
        // An eventfd takes a 1 unless it is full, and then the thread is awake anyway.
        let _ = write(&self.told, &1u64.to_ne_bytes());
    }
}

impl Link {
    /// Join two descriptors, which become non-blocking. `ways`: what happens to packets from the first and from the second, and
    /// the seeds of their random numbers; each direction has numbers of its own, also with equal seeds.
    pub fn start(ends: [OwnedFd; 2], ways: [(Settings, u64); 2]) -> io::Result<Self> {
        let epoll = above_standard(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        let told = above_standard(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        let stop = Arc::new(Stop { told, broken: AtomicBool::new(false) });
        epoll::add(&epoll, &stop.told, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        for (end, key) in ends.iter().zip(0..) {
            ioctl_fionbio(end, true)?;
            epoll::add(&epoll, end, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?;
        }
        let [forth, back] = ways;
        let ways = [(forth, 0), (back, 1)]
            .map(|((settings, seed), direction)| Impairment::new(settings, seed_of(seed, 0, direction)));
        let state = Arc::new(Mutex::new(State { ways, counters: Counters::default() }));
        let (start, buffer, spare) = (Instant::now(), vec![0; LONGEST], Vec::new());
        let worker = Worker { epoll, stop: stop.clone(), start, ends, buffer, spare };
        let shared = state.clone();
        // It owns all that is to be dropped.
        let thread = Thread::start("link", None, move || worker.run(&shared), || {})?;
        Ok(Link { state, stop: Some(stop), thread })
    }

    /// Change what happens to packets from the first end and from the second from now on.
    pub fn set(&self, ways: [Settings; 2]) {
        lock(&self.state).ways.iter_mut().zip(ways).for_each(|(way, settings)| way.set(settings));
    }

    /// Counters of the packets so far, both directions together.
    pub fn counters(&self) -> Counters {
        lock(&self.state).counters
    }

    /// Why the link ended by itself, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.thread.failure()
    }

    /// Let the thread panic, for tests.
    pub fn panic(&self) {
        if let Some(stop) = &self.stop {
            stop.broken.store(true, Ordering::Relaxed);
            stop.tell();
        }
    }

    /// End the link and close all descriptors. What is under way is lost; the counters stay.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            self.thread.end(|| stop.tell());
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// State of the thread alone.
struct Worker {
    epoll: OwnedFd,
    stop: Arc<Stop>,
    start: Instant,
    ends: [OwnedFd; 2],
    /// Buffer for a packet.
    buffer: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl Worker {
    fn run(mut self, shared: &Mutex<State>) {
        let mut events = Vec::with_capacity(4);
        let mut next = None;
        while self.wait(&mut events, next) {
            let mut state = lock(shared);
            for event in &events {
                self.take_in(&mut state, usize::from(event.data.u64() != 0), event.flags);
            }
            next = self.pass_on(&mut state);
        }
    }

    /// Wait for events until `next`, and put them into `events`. False: it was told to end.
    fn wait(&self, events: &mut Vec<epoll::Event>, next: Option<u64>) -> bool {
        events.clear();
        let timeout = next.map(|at| {
            let left = Duration::from_nanos(at.saturating_sub(self.now()));
            // The longest time is bounded by u64 nanoseconds, far below 2^63 s.
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => give_up(format_args!("waiting failed: {error}")),
        }
        assert!(!self.stop.broken.load(Ordering::Relaxed), "{PROVOKED}");
        events.iter().all(|event| event.data.u64() != STOP)
    }

    /// Nanoseconds since the link began.
    fn now(&self) -> u64 {
        // Enough for 584 years.
        self.start.elapsed().as_nanos() as u64
    }

    fn forget(&self, end: usize) {
        // It may be forgotten already.
        let _ = epoll::delete(&self.epoll, &self.ends[end]);
    }

    /// Take in the packets of an end.
    fn take_in(&mut self, state: &mut State, from: usize, flags: epoll::EventFlags) {
        let now = self.now();
        for _ in 0..TURN {
            match read(&self.ends[from], self.buffer.as_mut_slice()) {
                // Else an empty packet, which is one like any other.
                Ok(0) if flags.contains(epoll::EventFlags::HUP) => return self.forget(from),
                Ok(length) => {
                    let packet = self.copy(length);
                    state.ways[from].offer(now, packet, &mut state.counters);
                }
                Err(Errno::AGAIN) => return,
                Err(error) if is_passing(error) => {}
                // We must not spin on an end that is gone.
                Err(_) => return self.forget(from),
            }
        }
    }

    /// Hand over the packets that are due; returns when there will be more.
    fn pass_on(&mut self, state: &mut State) -> Option<u64> {
        let now = self.now();
        for from in [0, 1] {
            while let Some(packet) = state.ways[from].due(now) {
                match write(&self.ends[1 - from], &packet) {
                    Ok(_) => state.counters.delivered += 1,
                    Err(_) => state.counters.lost += 1,
                }
                self.keep(packet);
            }
        }
        let next = state.ways.iter().filter_map(Impairment::next_deadline).min();
        next.map(|next| next.max(now + GRAIN))
    }

    /// The packet that is in the buffer.
    fn copy(&mut self, length: usize) -> Vec<u8> {
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.clear();
        packet.extend_from_slice(&self.buffer[..length]);
        packet
    }

    fn keep(&mut self, packet: Vec<u8>) {
        if self.spare.len() < SPARE && packet.capacity() <= SPARE_SIZE {
            self.spare.push(packet);
        }
    }
}

/// Errors of sockets that say how an earlier packet fared. The next one may come through.
fn is_passing(error: Errno) -> bool {
    [Errno::INTR, Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::NETDOWN].contains(&error)
}
