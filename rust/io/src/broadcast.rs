//! A broadcast layer on one node: what a member writes goes to all other members.
//!
//! One thread sleeps in epoll on the doorbells of all members, so an idle layer costs nothing. It never waits for a member:
//! a packet that does not fit into the ring of a slow one is lost for that one alone, and counted.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ouroboros_shm::endpoint::{Endpoint, Error};
use ouroboros_shm::layout::state;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::{Errno, write};

/// Packets that one member may send before the others get their turn.
const TURN: usize = 64;
/// The epoll key of the eventfd that ends the thread.
const STOP: u64 = u64::MAX;

#[derive(Debug)]
struct Member {
    key: u64,
    endpoint: Endpoint,
}

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    members: Mutex<HashMap<u64, Arc<Member>>>,
    next_key: AtomicU64,
    lost: AtomicU64,
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, HashMap<u64, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker of one broadcast layer. Stops when dropped.
#[derive(Debug)]
pub struct Broadcast {
    shared: Arc<Shared>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Broadcast {
    /// Start a layer without members.
    pub fn start() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        let shared =
            Arc::new(Shared { epoll, members: Mutex::default(), next_key: AtomicU64::new(0), lost: AtomicU64::new(0) });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("broadcast".into()).spawn(move || run(&worker))?;
        Ok(Broadcast { shared, stop, thread: Some(thread) })
    }

    /// Take a member in. `endpoint` is the layer's side of its flow. What the member wrote before its flow ended is still
    /// passed on; then it is out.
    pub fn add(&self, endpoint: Endpoint) -> io::Result<()> {
        let key = self.shared.next_key.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member { key, endpoint });
        // A flow that ended already is readable, so that the thread finds out.
        if let Some(bell) = member.endpoint.bell() {
            self.shared.members().insert(key, Arc::clone(&member));
            epoll::add(&self.shared.epoll, bell, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?;
        }
        Ok(())
    }

    /// Packets that members lost because they read too slowly.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// End the layer: all its flows go down.
    pub fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // An eventfd takes a 1 unless it is full, and then the thread is awake anyway.
            let _ = write(&self.stop, &1u64.to_ne_bytes());
            // A panic of the thread was printed already; there is nothing left to stop.
            let _ = thread.join();
        }
        for (_, member) in self.shared.members().drain() {
            member.endpoint.close();
        }
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(shared: &Shared) {
    let mut packet = Vec::new();
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        match epoll::wait(&shared.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            // Only a programming error can bring us here; without a thread the layer is dead, and says so by silence.
            Err(_) => return,
        }
        for event in &events {
            let key = event.data.u64();
            if key == STOP {
                return;
            }
            serve(shared, key, &mut packet);
        }
    }
}

/// Pass on what one member wrote.
fn serve(shared: &Shared, key: u64, packet: &mut Vec<u8>) {
    let (member, others) = {
        let members = shared.members();
        let Some(member) = members.get(&key).cloned() else { return };
        (member, members.values().filter(|other| other.key != key).cloned().collect::<Vec<_>>())
    };
    for _ in 0..TURN {
        match receive(&member.endpoint, packet) {
            Ok(true) => others.iter().for_each(|other| deliver(shared, &other.endpoint, packet)),
            Ok(false) => return rest(shared, &member, 0),
            Err(Error::Down) => return rest(shared, &member, state::DOWN),
            Err(_) => return forget(shared, &member),
        }
    }
}

/// A member has nothing to pass on: silence its doorbell until there is something new. `seen`: what ended it, if anything.
fn rest(shared: &Shared, member: &Member, seen: u32) {
    if member.endpoint.watch(seen).is_err() {
        forget(shared, member);
    }
}

/// A member's flow ended and all it wrote was passed on.
fn forget(shared: &Shared, member: &Member) {
    shared.members().remove(&member.key);
    if let Some(bell) = member.endpoint.bell() {
        // Else its socket, readable for ever, would keep us awake. It can only fail for want of the socket.
        let _ = epoll::delete(&shared.epoll, bell);
    }
    member.endpoint.close();
}

fn receive(endpoint: &Endpoint, packet: &mut Vec<u8>) -> Result<bool, Error> {
    let mut reader = endpoint.reader()?;
    let Some(length) = reader.available()? else { return Ok(false) };
    packet.clear();
    packet.resize(length, 0);
    reader.take(length, as_uninit(packet));
    Ok(true)
}

fn deliver(shared: &Shared, endpoint: &Endpoint, packet: &[u8]) {
    let fits = endpoint.writer().and_then(|mut writer| writer.stage(packet));
    // A member that is gone or refuses packets loses nothing that it wanted.
    if fits == Ok(false) {
        shared.lost.fetch_add(1, Ordering::Relaxed);
    }
}

fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: initialised bytes are valid uninitialised ones, and `Reader::take` only writes to them.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}
