//! The flows of the process, by the descriptors that C programs know them by.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ouroboros_client::c::uncancelled;
use ouroboros_client::error::ENOTALLOC;
use ouroboros_shm::endpoint::GLANCES;

use crate::flow::{Call, Flow, Step};

/// Descriptors are below that.
pub const LIMIT: usize = 4096;
/// The first that is given out.
const FIRST: usize = 64;

/// Nobody uses the descriptor.
const FREE: i32 = -1;
/// Somebody is just taking it, or giving it back.
const TAKEN: i32 = -2;
/// It is the parent's of this process, which was forked.
const PARENTS: i32 = -3;

/// The use of each descriptor: one of the above, or the doorbell of a flow. The child of a fork reads it, where no lock
/// can be taken.
static USE: [AtomicI32; LIMIT] = [const { AtomicI32::new(FREE) }; LIMIT];

type Slot = RwLock<Option<Arc<Flow>>>;

/// The flows.
#[derive(Debug)]
pub struct Table {
    slots: Box<[Slot; LIMIT]>,
}

impl Table {
    pub fn new() -> Self {
        // Not from an array, which might be made on a stack that has no room for it.
        let slots: Vec<Slot> = (0..LIMIT).map(|_| Slot::default()).collect();
        Table { slots: slots.try_into().expect("as many as there are descriptors") }
    }

    /// All flows that there are.
    pub fn flows(&self) -> Vec<Arc<Flow>> {
        self.slots.iter().filter_map(|slot| slot.read().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Give a flow the lowest descriptor that is free; None when there is none.
    pub fn add(&self, flow: Flow) -> Option<c_int> {
        use std::os::fd::AsRawFd;

        let free = |fd: &usize| USE[*fd].compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok();
        let fd = (FIRST..LIMIT).find(free)?;
        let bell = flow.endpoint.bell().map_or(TAKEN, |bell| bell.as_raw_fd());
        *self.slots[fd].write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(flow));
        USE[fd].store(bell, Ordering::Release);
        Some(fd as c_int)
    }

    /// Take a flow out. `finish` gets it, and only then its descriptor is free for another one.
    pub fn remove(&self, fd: c_int, finish: impl FnOnce(Arc<Flow>)) -> bool {
        let Some(slot) = self.slot(fd) else { return false };
        let taken = slot.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(flow) = taken else { return false };
        // The flow may go on for a while, when other threads are using it; its doorbell must not be noted as this one's.
        USE[fd as usize].store(TAKEN, Ordering::Relaxed);
        finish(flow);
        USE[fd as usize].store(FREE, Ordering::Release);
        true
    }

    /// The flow of a descriptor.
    pub fn get(&self, fd: c_int) -> Option<Arc<Flow>> {
        self.read_slot(fd)?.clone()
    }

    fn slot(&self, fd: c_int) -> Option<&Slot> {
        let index = usize::try_from(fd).ok().filter(|index| *index < LIMIT)?;
        // Flows of the parent are in a table that was left behind.
        match USE[index].load(Ordering::Acquire) {
            FREE | TAKEN | PARENTS => None,
            _ => self.slots.get(index),
        }
    }

    fn read_slot(&self, fd: c_int) -> Option<RwLockReadGuard<'_, Option<Arc<Flow>>>> {
        self.slot(fd).map(|slot| slot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One step of `flow_read`.
    pub fn read(&self, fd: c_int, target: &mut [MaybeUninit<u8>], call: &mut Call) -> Step {
        let slot = self.read_slot(fd);
        let flow = slot.as_ref().and_then(|slot| slot.as_ref()).filter(|flow| call.is_about(flow));
        let Some(flow) = flow else { return Step::failed(why_not(fd)) };
        for _ in 0..GLANCES {
            match flow.try_read(target) {
                Ok(Some(length)) => return Step::Done(length as isize),
                Ok(None) => {}
                Err(error) => return Step::failed(error),
            }
            match flow.glance_for_packet(call) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Step::failed(error),
            }
        }
        let flow = Arc::clone(flow);
        // Whoever deallocates needs the slot.
        drop(slot);
        uncancelled(|| flow.before_sleep(call))
    }

    /// One step of `flow_write`.
    pub fn write(&self, fd: c_int, packet: &[u8], call: &mut Call) -> Step {
        let slot = self.read_slot(fd);
        let flow = slot.as_ref().and_then(|slot| slot.as_ref()).filter(|flow| call.is_about(flow));
        let Some(flow) = flow else { return Step::failed(why_not(fd)) };
        for _ in 0..GLANCES {
            match flow.try_write(packet) {
                Ok(true) => return Step::Done(packet.len() as isize),
                Ok(false) => {}
                Err(error) => return Step::failed(error),
            }
            match flow.glance_for_room(packet.len(), call) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Step::failed(error),
            }
        }
        let flow = Arc::clone(flow);
        drop(slot);
        uncancelled(move || flow.wait_for_room(packet.len(), call));
        Step::Again
    }
}

/// Mark all flows as the parent's, and let go of their doorbells. For the child of a fork.
pub fn leave_to_parent(let_go: &dyn Fn(c_int)) {
    for each in &USE {
        let bell = each.load(Ordering::Relaxed);
        if bell >= 0 {
            let_go(bell);
        }
        if bell != FREE {
            each.store(PARENTS, Ordering::Relaxed);
        }
    }
}

/// The error for a descriptor that has no flow.
pub fn why_not(fd: c_int) -> c_int {
    if usize::try_from(fd).is_ok_and(|fd| fd < LIMIT) { ENOTALLOC } else { libc::EBADF }
}
