//! Names of flows and members: a place in an arena, and how often that place was given away before. So a name that is out of
//! date finds nothing, whatever stands in its place by now.

#[allow(clippy::disallowed_types, reason = "with a hasher of its own it has no random order")]
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

macro_rules! name {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl From<$name> for u64 {
            fn from(name: $name) -> u64 {
                name.0
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                $name(number)
            }
        }
    };
}

name!(FlowId, "A flow of a stack.");
name!(MemberId, "A member of a layer: the part of an IPC process in a stack.");

/// Gives names away. The owner of a stack has one for each kind.
#[derive(Debug, Default)]
pub struct Names {
    free: Vec<u64>,
    places: u64,
}

impl Names {
    /// A name that nothing has, and nothing had.
    pub fn draw<N: From<u64>>(&mut self) -> N {
        let number = self.free.pop().unwrap_or_else(|| {
            self.places += 1;
            self.places - 1
        });
        N::from(number)
    }

    /// Its place is free.
    pub fn give_back(&mut self, name: impl Into<u64>) {
        self.free.push(name.into().wrapping_add(1 << 32));
    }
}

/// An arena.
#[derive(Debug)]
pub(crate) struct Slots<T>(Vec<Slot<T>>);

#[derive(Debug)]
struct Slot<T> {
    name: u64,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots(Vec::new())
    }
}

impl<T> Slots<T> {
    fn slot(&mut self, name: u64) -> Option<&mut Slot<T>> {
        self.0.get_mut(name as u32 as usize).filter(|slot| slot.name == name)
    }

    pub(crate) fn get(&self, name: impl Into<u64>) -> Option<&T> {
        let name = name.into();
        self.0.get(name as u32 as usize).filter(|slot| slot.name == name)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, name: impl Into<u64>) -> Option<&mut T> {
        self.slot(name.into())?.value.as_mut()
    }

    /// Whether the place belongs to this name, with something in it or not.
    pub(crate) fn has_place(&mut self, name: impl Into<u64>) -> bool {
        self.slot(name.into()).is_some()
    }

    /// Take a value out, until `put`. Meanwhile it is not found.
    pub(crate) fn take(&mut self, name: impl Into<u64>) -> Option<T> {
        self.slot(name.into())?.value.take()
    }

    pub(crate) fn put(&mut self, name: impl Into<u64>, value: T) {
        if let Some(slot) = self.slot(name.into()) {
            slot.value = Some(value);
        }
    }

    /// From now on the place belongs to this name.
    pub(crate) fn insert(&mut self, name: impl Into<u64>, value: T) {
        let name = name.into();
        let place = name as u32 as usize;
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || Slot { name: u64::MAX, value: None });
        }
        if let Some(slot) = self.0.get_mut(place) {
            *slot = Slot { name, value: Some(value) };
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(|slot| slot.value.as_ref())
    }

    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.0.iter_mut().filter_map(|slot| Some((slot.name, slot.value.as_mut()?)))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, &T)> {
        self.0.iter().filter_map(|slot| Some((slot.name, slot.value.as_ref()?)))
    }
}

/// Flows by our endpoint ids, which are random numbers of our own choice: nobody else can make them meet.
pub(crate) type Eids = Map<u64, FlowId>;

/// A map of numbers that has no random order.
#[allow(clippy::disallowed_types, reason = "with a hasher of its own it has no random order")]
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// Spreads numbers over the bits that a table looks at.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_out_of_date_finds_nothing() {
        let (mut names, mut slots) = (Names::default(), Slots::default());
        let first: FlowId = names.draw();
        let second: FlowId = names.draw();
        slots.insert(first, "first");
        slots.insert(second, "second");
        assert_eq!(slots.take(first), Some("first"));
        assert_eq!(slots.get(first), None);
        slots.put(first, "again");
        assert_eq!(slots.get(first), Some(&"again"));
        slots.take(first);
        names.give_back(first);
        let third: FlowId = names.draw();
        assert_ne!(third, first);
        slots.insert(third, "third");
        slots.put(first, "late");
        assert_eq!((slots.get(first), slots.get(third)), (None, Some(&"third")));
        assert_eq!(slots.values().collect::<Vec<_>>(), [&"third", &"second"]);
    }
}
