//! A bad link between two descriptors: what can be read from one is written to the other, later, twice, or not at all.
//!
//! ```text
//! end 0 │ ── Impairment ──▶ │ end 1
//!       │ ◀── Impairment ── │
//! ```
//!
//! An end is anything that gives and takes whole packets: a TUN device, a connected datagram socket. One thread moves them,
//! and waits for nobody: a packet that an end does not take is lost, and counted.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::epoll;
use rustix::io::{Errno, ioctl_fionbio, read, write};

use crate::impair::{Counters, Impairment, Settings, seed_of};
use crate::sleep::{STOP, Sleep, TIMER, Timer};

/// The longest packet that comes through whole. IP has none that is longer.
pub const LONGEST: usize = 65_535;

/// Packets that one end may send before the other gets its turn.
const TURN: usize = 64;
/// Packets that arrive within that time, nanoseconds, may share a wake-up of the thread.
const GRAIN: u64 = 50_000;
/// Buffers that are kept for the next packets, and the largest of them, bytes.
const SPARE: usize = 8192;
const SPARE_SIZE: usize = 2048;

/// What the thread and those who ask for it share.
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
    running: Option<(Arc<Sleep>, JoinHandle<()>)>,
}

impl Link {
    /// Join two descriptors, which become non-blocking. Both directions are treated alike, with random numbers of their own.
    pub fn start(ends: [OwnedFd; 2], settings: Settings, seed: u64) -> io::Result<Self> {
        let (sleep, timer) = Sleep::new()?;
        let sleep = Arc::new(sleep);
        for (end, key) in ends.iter().zip(0..) {
            ioctl_fionbio(end, true)?;
            sleep.watch(end, key)?;
        }
        let ways = [0, 1].map(|direction| Impairment::new(settings, seed_of(seed, 0, direction)));
        let state = Arc::new(Mutex::new(State { ways, counters: Counters::default() }));
        let worker = Worker { sleep: sleep.clone(), ends, timer, buffer: vec![0; LONGEST], spare: Vec::new() };
        let shared = state.clone();
        let thread = std::thread::Builder::new().name("link".into()).spawn(move || worker.run(&shared))?;
        Ok(Link { state, running: Some((sleep, thread)) })
    }

    /// Change what happens to packets from now on.
    pub fn set(&self, settings: Settings) {
        lock(&self.state).ways.iter_mut().for_each(|way| way.set(settings));
    }

    /// What became of the packets so far, in both directions together.
    pub fn counters(&self) -> Counters {
        lock(&self.state).counters
    }

    /// End the link and close all descriptors. What is under way is lost; the counters stay.
    pub fn stop(&mut self) {
        if let Some((sleep, thread)) = self.running.take() {
            sleep.stop();
            // A panic of the thread was printed already; there is nothing left to stop.
            let _ = thread.join();
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

/// What the thread has for itself.
struct Worker {
    sleep: Arc<Sleep>,
    ends: [OwnedFd; 2],
    timer: Timer,
    /// What a packet is read into.
    buffer: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl Worker {
    fn run(mut self, shared: &Mutex<State>) {
        let mut events = Vec::with_capacity(4);
        while self.sleep.wait(&mut events) {
            let mut state = lock(shared);
            for event in &events {
                match event.data.u64() {
                    STOP => return,
                    TIMER => self.timer.rang(),
                    key => self.take_in(&mut state, usize::from(key != 0), event.flags),
                }
            }
            self.pass_on(&mut state);
        }
    }

    /// Take in what an end sent.
    fn take_in(&mut self, state: &mut State, from: usize, flags: epoll::EventFlags) {
        let now = self.sleep.now();
        for _ in 0..TURN {
            match read(&self.ends[from], self.buffer.as_mut_slice()) {
                // Else an empty packet, which is one like any other.
                Ok(0) if flags.contains(epoll::EventFlags::HUP) => return self.sleep.forget(&self.ends[from]),
                Ok(length) => {
                    let packet = self.copy(length);
                    state.ways[from].offer(now, packet, &mut state.counters);
                }
                Err(Errno::AGAIN) => return,
                Err(error) if is_passing(error) => {}
                // We must not spin on an end that is gone.
                Err(_) => return self.sleep.forget(&self.ends[from]),
            }
        }
    }

    /// Hand over what has arrived, and see to it that the rest will be.
    fn pass_on(&mut self, state: &mut State) {
        let now = self.sleep.now();
        for from in [0, 1] {
            while let Some(packet) = state.ways[from].due(now) {
                match write(&self.ends[1 - from], &packet) {
                    Ok(_) => state.counters.delivered += 1,
                    Err(_) => state.counters.lost += 1,
                }
                self.keep(packet);
            }
        }
        if let Some(next) = state.ways.iter().filter_map(Impairment::next_deadline).min() {
            self.timer.arm(next.max(now + GRAIN), now);
        }
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
