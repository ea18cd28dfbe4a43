//! Flow sets and event queues. `ouroboros.event` is the same for Python: the meaning of each event is explained there.
//!
//! The cost of a wait depends on what happened, not on how many flows there are: a set waits with epoll for doorbells. A small
//! set checks its flows itself first, because for packets that come and go no system call is needed then.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Instant;

use ouroboros_shm::descriptors::above_standard;
use ouroboros_shm::layout::state;
use ouroboros_shm::spin::{Pauses, Spinner};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::write;

use crate::flow::{Flow, Step, Watcher};
use crate::sleep::{Bells, Sleeper, park};

const FLOW_PKT: c_int = 1;
const FLOW_DOWN: c_int = 2;
const FLOW_UP: c_int = 4;
const FLOW_DEALLOC: c_int = 16;
const FLOW_PEER: c_int = 32;

/// Packets of one flow that one wait tells of.
const PACKETS_AT_ONCE: u64 = 1024;
/// A set of at most this many flows checks them one by one.
const FEW: usize = 8;
/// Flows with news whose events are collected in one go.
const EVENTS_AT_ONCE: usize = 64;
/// The key of the eventfd of a set in epoll; no descriptor of a flow is that large.
const KICK: u64 = u64::MAX;

/// The handle of a set or a queue for a C program: a number in the form of a pointer.
pub struct Handle(pub *mut c_void);

impl From<c_int> for Handle {
    fn from(_: c_int) -> Self {
        Handle(std::ptr::null_mut())
    }
}

/// The sets and queues of the process.
#[derive(Debug, Default)]
pub struct Registry {
    sets: RwLock<HashMap<usize, Arc<Set>>>,
    queues: RwLock<HashMap<usize, Arc<Mutex<Queue>>>>,
}

impl Registry {
    /// `fset_create`.
    pub fn create(&self) -> *mut c_void {
        Set::new().map_or(std::ptr::null_mut(), |set| enter(&self.sets, set))
    }

    /// `fset_destroy`.
    pub fn destroy(&self, set: *mut c_void) -> c_int {
        if let Some(set) = leave(&self.sets, set) {
            set.zero();
            *lock(&set.members) = None;
            // Whoever waits looks and finds that it is gone.
            let _ = write(&set.kick, &1u64.to_ne_bytes());
        }
        0
    }

    /// `fset_zero`.
    pub fn zero(&self, set: *mut c_void) -> c_int {
        if let Some(set) = self.set(set) {
            set.zero();
        }
        0
    }

    /// `fset_add`.
    pub fn add(&self, set: *mut c_void, fd: c_int, flow: Arc<Flow>) -> c_int {
        self.set(set).map_or(-libc::EINVAL, |set| set.add(fd, flow))
    }

    /// `fset_del`.
    pub fn remove(&self, set: *mut c_void, fd: c_int) -> c_int {
        if let Some(set) = self.set(set) {
            set.remove(fd);
        }
        0
    }

    /// `fset_has`.
    pub fn has(&self, set: *const c_void, fd: c_int) -> bool {
        self.set(set).is_some_and(|set| lock(&set.members).as_ref().is_some_and(|members| members.contains_key(&fd)))
    }

    /// One step of `fevent`. `slept`: something woke the thread.
    pub fn step(&self, set: *mut c_void, queue: *mut c_void, deadline: Option<Instant>, slept: bool) -> Step {
        let (Some(set), Some(queue)) = (self.set(set), self.queue(queue)) else { return Step::failed(libc::EINVAL) };
        {
            let mut queue = lock(&queue);
            queue.drop_stale();
            if !queue.events.is_empty() {
                return Step::Done(1);
            }
        }
        let events = match set.collect(slept) {
            Some(events) => events,
            None => return Step::failed(libc::EINVAL),
        };
        {
            let mut queue = lock(&queue);
            queue.events.extend(events);
            if !queue.events.is_empty() {
                return Step::Done(1);
            }
        }
        if deadline.is_some_and(|end| end <= Instant::now()) {
            return Step::failed(libc::ETIMEDOUT);
        }
        set.sleep(deadline)
    }

    /// `fqueue_create`.
    pub fn create_queue(&self) -> *mut c_void {
        enter(&self.queues, Mutex::new(Queue { events: VecDeque::new(), last: -libc::EPERM }))
    }

    /// `fqueue_destroy`.
    pub fn destroy_queue(&self, queue: *mut c_void) -> c_int {
        leave(&self.queues, queue);
        0
    }

    /// `fqueue_next`.
    pub fn next(&self, queue: *mut c_void) -> c_int {
        self.queue(queue).map_or(-libc::EINVAL, |queue| lock(&queue).next().unwrap_or(-libc::EPERM))
    }

    /// `fqueue_type`.
    pub fn kind(&self, queue: *mut c_void) -> c_int {
        self.queue(queue).map_or(-libc::EINVAL, |queue| lock(&queue).last)
    }

    fn set(&self, handle: *const c_void) -> Option<Arc<Set>> {
        find(&self.sets, handle)
    }

    fn queue(&self, handle: *const c_void) -> Option<Arc<Mutex<Queue>>> {
        find(&self.queues, handle)
    }
}

fn handle() -> usize {
    /// Never given out twice, so that what is stale is known to be.
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) << 4
}

fn find<T>(registry: &RwLock<HashMap<usize, Arc<T>>>, handle: *const c_void) -> Option<Arc<T>> {
    registry.read().unwrap_or_else(PoisonError::into_inner).get(&(handle as usize)).cloned()
}

fn enter<T>(registry: &RwLock<HashMap<usize, Arc<T>>>, entry: T) -> *mut c_void {
    let handle = handle();
    registry.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(entry));
    handle as *mut c_void
}

fn leave<T>(registry: &RwLock<HashMap<usize, Arc<T>>>, handle: *const c_void) -> Option<Arc<T>> {
    registry.write().unwrap_or_else(PoisonError::into_inner).remove(&(handle as usize))
}

// --- queues

/// The events of one flow.
#[derive(Debug)]
struct Event {
    fd: c_int,
    flow: Weak<Flow>,
    kind: c_int,
    /// How often: for packets.
    count: u64,
}

impl Event {
    /// It tells of packets that were read meanwhile, or of a flow that was deallocated.
    fn is_stale(&self) -> bool {
        self.flow
            .upgrade()
            .is_none_or(|flow| flow.endpoint.is_closed() || (self.kind == FLOW_PKT && !flow.is_readable()))
    }
}

/// An event queue.
#[derive(Debug)]
pub struct Queue {
    events: VecDeque<Event>,
    last: c_int,
}

impl Queue {
    fn drop_stale(&mut self) {
        while self.events.front().is_some_and(Event::is_stale) {
            self.events.pop_front();
        }
    }

    fn next(&mut self) -> Option<c_int> {
        self.drop_stale();
        let event = self.events.front_mut()?;
        event.count -= 1;
        self.last = event.kind;
        let fd = event.fd;
        if event.count == 0 {
            self.events.pop_front();
        }
        Some(fd)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// --- sets

/// A flow in a set.
#[derive(Debug)]
struct Member {
    flow: Arc<Flow>,
    /// Cleared once it has ended for good, and that was told: its doorbell stays readable and would wake us for nothing.
    watched: bool,
    /// That it is down was told.
    down: bool,
}

/// A flow set.
#[derive(Debug)]
pub struct Set {
    epoll: OwnedFd,
    /// Wakes who waits when the set is destroyed.
    kick: OwnedFd,
    spinner: Spinner,
    members: Mutex<Option<BTreeMap<c_int, Member>>>,
}

impl Set {
    fn new() -> std::io::Result<Self> {
        let epoll = above_standard(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        let kick = above_standard(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        epoll::add(&epoll, &kick, epoll::EventData::new_u64(KICK), epoll::EventFlags::IN)?;
        Ok(Set { epoll, kick, spinner: Spinner::new(), members: Mutex::new(Some(BTreeMap::new())) })
    }

    fn add(self: &Arc<Self>, fd: c_int, flow: Arc<Flow>) -> c_int {
        let mut members = lock(&self.members);
        let Some(members) = members.as_mut() else { return -libc::EINVAL };
        let watcher: Weak<Self> = Arc::downgrade(self);
        if !flow.begin_watch(watcher) {
            return -libc::EPERM;
        }
        // In this order: whoever deallocates closes first, and then looks for the set.
        let closed = flow.endpoint.is_closed();
        if closed || !self.watch(fd, &flow) {
            flow.end_watch();
            return if closed { -libc::EINVAL } else { -libc::ENOMEM };
        }
        members.insert(fd, Member { flow, watched: true, down: false });
        0
    }

    fn watch(&self, fd: c_int, flow: &Flow) -> bool {
        let data = epoll::EventData::new_u64(fd as u64);
        flow.endpoint.bell().is_some_and(|bell| epoll::add(&self.epoll, bell, data, epoll::EventFlags::IN).is_ok())
    }

    fn unwatch(&self, member: &mut Member) {
        if std::mem::take(&mut member.watched)
            && let Some(bell) = member.flow.endpoint.bell()
        {
            // It is in there, unless memory is corrupted.
            let _ = epoll::delete(&self.epoll, bell);
        }
    }

    /// Take a flow out, if it is in.
    fn remove(&self, fd: c_int) {
        let mut members = lock(&self.members);
        if let Some(member) = members.as_mut().and_then(|members| members.remove(&fd)) {
            self.let_go(member);
        }
    }

    fn let_go(&self, mut member: Member) {
        self.unwatch(&mut member);
        member.flow.end_watch();
    }

    fn zero(&self) {
        let mut members = lock(&self.members);
        let all = members.as_mut().map(std::mem::take).unwrap_or_default();
        all.into_values().for_each(|member| self.let_go(member));
    }

    /// The events so far, without waiting longer than a moment. None: the set was destroyed. `slept`: something woke us, so that
    /// there is something to find, if need be with the help of the system.
    fn collect(&self, slept: bool) -> Option<Vec<Event>> {
        let mut members = lock(&self.members);
        let members = members.as_mut()?;
        if members.len() > FEW {
            return Some(self.collect_from_ready(members));
        }
        let mut events = self.collect_from_all(members, false);
        if events.is_empty() && slept {
            events = self.collect_from_all(members, true);
        }
        if events.is_empty() && self.spin(members) {
            events = self.collect_from_all(members, false);
        }
        Some(events)
    }

    /// Spin for a short time until anything happens. Returns whether it did.
    fn spin(&self, members: &BTreeMap<c_int, Member>) -> bool {
        let live: Vec<&Flow> =
            members.values().filter(|each| each.watched && !each.down).map(|each| &*each.flow).collect();
        let news = || live.iter().any(|flow| flow.endpoint.has_news());
        !live.is_empty() && self.spinner.spin(Pauses::ANSWER, news)
    }

    fn collect_from_all(&self, members: &mut BTreeMap<c_int, Member>, thoroughly: bool) -> Vec<Event> {
        let mut events = Vec::new();
        for (fd, member) in members.iter_mut().filter(|(_, member)| member.watched) {
            self.collect_from(*fd, member, thoroughly, &mut events);
        }
        events
    }

    /// Collect from the flows whose doorbell rang.
    fn collect_from_ready(&self, members: &mut BTreeMap<c_int, Member>) -> Vec<Event> {
        let mut events = Vec::new();
        let mut ready = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_AT_ONCE];
        // Not by `epoll_pwait2`, which debuggers and sandboxes do not all know.
        // SAFETY: there is room for that many.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), ready.as_mut_ptr(), EVENTS_AT_ONCE as c_int, 0) };
        for event in &ready[..usize::try_from(count).unwrap_or_default()] {
            let fd = event.u64 as c_int;
            if let Some(member) = members.get_mut(&fd).filter(|member| member.watched)
                && !self.collect_from(fd, member, true, &mut events)
            {
                quiet(member);
            }
        }
        events
    }

    /// The events of a flow; whether there are any. `thoroughly`: ask the system whether the peer is there.
    fn collect_from(&self, fd: c_int, member: &mut Member, thoroughly: bool, events: &mut Vec<Event>) -> bool {
        let before = events.len();
        let flow = &member.flow;
        let mut tell = |kind, count| events.push(Event { fd, flow: Arc::downgrade(flow), kind, count });
        let endpoint = &flow.endpoint;
        // In this order: all packets that come before the end are there to be counted when the end is.
        let ended = if thoroughly { endpoint.ended() } else { endpoint.known_end() }.unwrap_or_default();
        let readable = flow.is_readable();
        let packets = if readable { endpoint.receive_queue().unwrap_or_default().clamp(1, PACKETS_AT_ONCE) } else { 0 };
        if packets > 0 {
            tell(FLOW_PKT, packets);
        }
        if ended & (state::CLOSED | state::DEAD) != 0 {
            if packets < PACKETS_AT_ONCE {
                tell(if ended == state::CLOSED { FLOW_DEALLOC } else { FLOW_PEER }, 1);
                self.unwatch(member);
            }
        } else if (ended == state::DOWN) != member.down {
            member.down = ended == state::DOWN;
            tell(if member.down { FLOW_DOWN } else { FLOW_UP }, 1);
        }
        events.len() > before
    }

    /// Get ready to sleep until something happens.
    fn sleep(self: Arc<Self>, deadline: Option<Instant>) -> Step {
        {
            let mut members = lock(&self.members);
            let Some(members) = members.as_mut() else { return Step::failed(libc::EINVAL) };
            if members.len() <= FEW {
                members.values().filter(|member| member.watched).for_each(quiet);
            }
        }
        let epoll = self.epoll.as_fd().as_raw_fd();
        if park(self) {
            return Step::Sleep(Bells { first: epoll, second: -1 }, deadline);
        }
        // This thread is ending, and has no place to keep it: short steps will do.
        std::thread::yield_now();
        Step::Again
    }
}

impl Watcher for Set {
    fn forget(&self, fd: c_int) {
        self.remove(fd);
    }
}

impl Sleeper for Set {}

/// From now on the doorbell is silent until there is something to tell.
fn quiet(member: &Member) {
    let seen = if member.down { state::DOWN } else { 0 };
    // A flow that was closed meanwhile is about to leave the set.
    let _ = member.flow.endpoint.watch(seen);
}
