//! The flows of an impaired layer: what one program writes goes through a bad link to the other.
//!
//! ```text
//! allocator ══ channel ══ side 0 │ Impairment ──▶ │ side 1 ══ channel ══ acceptor
//!                                │ ◀── Impairment │
//! ```
//!
//! One thread sleeps in epoll on the doorbells of all flows and on one timer, so an idle layer costs nothing. Like a network,
//! it waits for nobody: a packet that does not fit into the ring of a slow reader is lost, and counted.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ouroboros_shm::endpoint::{Endpoint, Error};
use ouroboros_shm::layout::{CAPACITY, state};
use rustix::io::Errno;

use crate::impair::{Counters, Impairment, Settings, seed_of};
use crate::sleep::{STOP, Sleep, TIMER, Timer};

/// Packets that one side of a flow may send before the others get their turn.
const TURN: usize = 64;
/// More packets than a ring can hold: the shortest takes 8 bytes.
const ALL: usize = CAPACITY / 8;

/// How a program left its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Died,
}

/// The relay's end of the channel of one program.
#[derive(Debug)]
struct Side {
    endpoint: Endpoint,
    end: Option<End>,
    /// State bits that this end has because the program on the other side set them.
    shown: u32,
}

impl Side {
    /// The state bits that the program set itself.
    fn set_by_program(&self) -> u32 {
        match self.endpoint.writer().err() {
            // The state does not tell whose it is. Once the other side is up again, we can see.
            Some(Error::Down) if self.shown & state::DOWN == 0 => state::DOWN,
            Some(Error::Refused) => state::REFUSES,
            _ => 0,
        }
    }

    fn show(&mut self, bits: u32) {
        // One that is gone needs to see nothing.
        if bits != self.shown && self.endpoint.set_state(bits).is_ok() {
            self.shown = bits;
        }
    }
}

/// The packets of one direction.
#[derive(Debug)]
struct Way {
    link: Impairment,
    /// The time at which the timer looks after it.
    timer: Option<u64>,
}

#[derive(Debug)]
struct Flow {
    sides: [Side; 2],
    /// By the side from which packets come.
    ways: [Way; 2],
}

impl Flow {
    /// Take in up to `limit` packets that the program of a side wrote.
    fn take_in(&mut self, side: usize, limit: usize, now: u64, counters: &mut Counters) {
        let Side { endpoint, end, .. } = &mut self.sides[side];
        for _ in 0..limit {
            match receive(endpoint) {
                Ok(Some(packet)) => self.ways[side].link.offer(now, packet, counters),
                Ok(None) => return,
                Err(Error::Down) => {
                    // A flow that is down is readable at once and for ever, and only a change is of interest.
                    let _ = endpoint.ended().and_then(|seen| endpoint.watch(seen));
                    return;
                }
                Err(error) => {
                    *end = Some(if error == Error::PeerClosed { End::Closed } else { End::Died });
                    return;
                }
            }
        }
    }

    /// Hand over the packets of a side that have arrived by `now`.
    fn deliver(&mut self, from: usize, now: u64, counters: &mut Counters) {
        let link = &mut self.ways[from].link;
        if link.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        let mut writer = self.sides[1 - from].endpoint.writer();
        while let Some(packet) = link.due(now) {
            match writer.as_mut().map(|writer| writer.stage(&packet)) {
                Ok(Ok(true)) => counters.delivered += 1,
                Ok(Ok(false)) => counters.lost += 1,
                // A program that is gone or refuses packets loses nothing that it wanted.
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    /// Let either program see what flags the other has set.
    fn show_flags(&mut self) {
        for side in [0, 1, 0] {
            let bits = self.sides[side].set_by_program();
            self.sides[1 - side].show(bits);
        }
    }

    /// How the flow has ended, when a program left and all it wrote arrived: the side that is to be told, and what.
    fn over(&self) -> Option<(usize, End)> {
        let gone = |side: usize| {
            let end = self.sides[side].end.filter(|_| self.ways[side].link.next_deadline().is_none());
            end.map(|end| (1 - side, end))
        };
        gone(0).or_else(|| gone(1))
    }
}

#[derive(Debug)]
struct State {
    flows: HashMap<u64, Flow>,
    settings: Settings,
    seed: u64,
    counters: Counters,
    /// When to look after which direction of which flow. Entries that are not that of `Way::timer` mean nothing any more.
    timers: BinaryHeap<Reverse<(u64, u64, usize)>>,
    timer: Timer,
}

impl State {
    /// Let the timer ring for the next entry.
    fn arm(&mut self, now: u64) {
        if let Some(Reverse((at, _, _))) = self.timers.peek() {
            self.timer.arm(*at, now);
        }
    }
}

#[derive(Debug)]
struct Shared {
    sleep: Sleep,
    state: Mutex<State>,
}

/// The worker of one impaired layer. Stops when dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Start a layer without flows.
    pub fn start(settings: Settings, seed: u64) -> io::Result<Self> {
        let (sleep, timer) = Sleep::new()?;
        let (flows, timers, counters) = (HashMap::new(), BinaryHeap::new(), Counters::default());
        let state = Mutex::new(State { flows, settings, seed, counters, timers, timer });
        let shared = Arc::new(Shared { sleep, state });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || worker.run())?;
        Ok(Relay { shared, thread: Some(thread) })
    }

    /// Join the two channels of a flow: `ends` are the relay's ends of those of the allocator and of the acceptor.
    pub fn add(&self, id: u64, ends: [Endpoint; 2]) -> io::Result<()> {
        let mut guard = self.shared.state();
        let state = &mut *guard;
        let ways = [0, 1].map(|direction| Way {
            link: Impairment::new(state.settings, seed_of(state.seed, id, direction)),
            timer: None,
        });
        let sides = ends.map(|endpoint| Side { endpoint, end: None, shown: 0 });
        for (side, Side { endpoint, .. }) in sides.iter().enumerate() {
            let bell = endpoint.pollable().map_err(|_| Errno::BADF)?;
            self.shared.sleep.watch(bell, key_of(id, side))?;
        }
        state.flows.insert(id, Flow { sides, ways });
        Ok(())
    }

    /// Forget a flow, which ends when it has not yet. No error when it is not there.
    pub fn remove(&self, id: u64) {
        self.shared.state().flows.remove(&id);
    }

    /// The process of a side died. What it wrote before still arrives, then the other side is told.
    pub fn mark_dead(&self, id: u64, side: usize) {
        let mut guard = self.shared.state();
        let State { flows, counters, .. } = &mut *guard;
        let Some(flow) = flows.get_mut(&id).filter(|_| side < 2) else { return };
        let now = self.shared.sleep.now();
        flow.take_in(side, ALL, now, counters);
        flow.sides[side].end.get_or_insert(End::Died);
        self.shared.settle(&mut guard, id, side, now);
    }

    /// Change what happens to packets from now on. The seed is that of flows which begin from now on.
    pub fn set(&self, settings: Settings, seed: u64) {
        let mut state = self.shared.state();
        (state.settings, state.seed) = (settings, seed);
        for way in state.flows.values_mut().flat_map(|flow| &mut flow.ways) {
            way.link.set(settings);
        }
    }

    /// What became of the packets of the layer so far.
    pub fn counters(&self) -> Counters {
        self.shared.state().counters
    }

    /// End the layer: all its flows go down, with what is under way.
    pub fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.sleep.stop();
            // A panic of the thread was printed already; there is nothing left to stop.
            let _ = thread.join();
        }
        self.shared.state().flows.clear();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

fn key_of(id: u64, side: usize) -> u64 {
    id * 2 + side as u64
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        while self.sleep.wait(&mut events) {
            for event in &events {
                match event.data.u64() {
                    STOP => return,
                    TIMER => self.look_after(&mut self.state()),
                    key => self.serve(&mut self.state(), key / 2, (key % 2) as usize),
                }
            }
        }
    }

    /// A doorbell rang.
    fn serve(&self, state: &mut State, id: u64, side: usize) {
        let State { flows, counters, .. } = state;
        // An event can be older than the end of its flow.
        let Some(flow) = flows.get_mut(&id) else { return };
        let now = self.sleep.now();
        flow.take_in(side, TURN, now, counters);
        self.settle(state, id, side, now);
    }

    /// The timer rang.
    fn look_after(&self, state: &mut State) {
        state.timer.rang();
        let now = self.sleep.now();
        while let Some(Reverse((at, id, side))) = state.timers.peek().copied().filter(|Reverse(next)| next.0 <= now) {
            state.timers.pop();
            if let Some(way) = state.flows.get_mut(&id).map(|flow| &mut flow.ways[side])
                && way.timer == Some(at)
            {
                way.timer = None;
                self.settle(state, id, side, now);
            }
        }
        state.arm(now);
    }

    /// Do what follows from new packets of a side, or from time that passed.
    fn settle(&self, state: &mut State, id: u64, side: usize, now: u64) {
        let State { flows, counters, timers, .. } = state;
        let Some(flow) = flows.get_mut(&id) else { return };
        if flow.sides[1 - side].shown != 0 {
            // What a side wrote after it took back a flag must not meet that flag.
            flow.show_flags();
        }
        flow.deliver(side, now, counters);
        if let Some((other, end)) = flow.over() {
            let endpoint = &flow.sides[other].endpoint;
            match end {
                End::Closed => endpoint.close(),
                End::Died => endpoint.close_as_dead(),
            }
            flows.remove(&id);
            return;
        }
        if flow.sides[side].end.is_none() {
            flow.show_flags();
        } else if let Some(bell) = flow.sides[side].endpoint.bell() {
            // We must not spin on a doorbell that hung up.
            self.sleep.forget(bell);
        }
        let way = &mut flow.ways[side];
        if let Some(next) = way.link.next_deadline().filter(|next| way.timer.is_none_or(|timer| *next < timer)) {
            way.timer = Some(next);
            timers.push(Reverse((next, id, side)));
            state.arm(now);
        }
    }
}

fn receive(endpoint: &Endpoint) -> Result<Option<Vec<u8>>, Error> {
    let mut reader = endpoint.reader()?;
    let Some(length) = reader.available()? else { return Ok(None) };
    let mut packet = vec![0; length];
    reader.take(length, as_uninit(&mut packet));
    Ok(Some(packet))
}

fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: initialised bytes are valid uninitialised ones, and `Reader::take` only writes to them.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}
