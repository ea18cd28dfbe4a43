//! The ways of a unicast layer: for each destination the neighbours that lead there. A table never changes; the next one takes
//! its place.

use crate::id::Map;
use crate::link::mix;

/// Neighbours that a table has for one destination, at the most.
pub const WAYS: usize = 8;

/// Neighbours in order, by address; 0: none, which is no address.
type Neighbours = [u32; WAYS];

/// Of the slots, so many of `FULL_OF` are taken at the most: then what is looked up is in the first ones that are looked at.
const FULL: usize = 3;
const FULL_OF: usize = 4;

/// Those of a destination: `equal` that are as good as each other, and then alternates, for when none of them is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ways {
    pub(crate) neighbours: Neighbours,
    pub(crate) equal: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    /// A destination, 0 for none, and the place of its neighbours. It is in the slot that its number says, or in the first free
    /// one from there on. So a look-up reads one line of memory as a rule, and few destinations have neighbours of their own.
    slots: Vec<(u32, u32)>,
    ways: Vec<Ways>,
    /// All that are equal and up are used, each for some flows; else only the first that is.
    pub(crate) spread: bool,
}

impl Table {
    /// Destinations, and the neighbours of each in order, of which the first `WAYS` count. A 0 stands behind those that are
    /// as good as each other, if there are others.
    pub fn new<'a>(ways: impl Iterator<Item = (u32, &'a [u32])>, spread: bool) -> Self {
        let (mut table, mut known) = (Table { spread, ..Table::default() }, Map::default());
        let mut places: Map<u32, u32> = Map::default();
        for (destination, ways) in ways {
            let mut neighbours = [0; WAYS];
            ways.iter().filter(|way| **way != 0).zip(&mut neighbours).for_each(|(way, place)| *place = *way);
            let ways = Ways { neighbours, equal: ways.iter().take_while(|way| **way != 0).count() };
            let place = *known.entry(ways).or_insert_with(|| {
                table.ways.push(ways);
                table.ways.len() as u32 - 1
            });
            places.insert(destination, place);
        }
        if !places.is_empty() {
            table.slots = vec![(0, 0); (places.len() * FULL_OF / FULL + 1).next_power_of_two()];
        }
        places.into_iter().filter(|(destination, _)| *destination != 0).for_each(|entry| table.insert(entry));
        table
    }

    /// There is a free slot, and none of that destination.
    fn insert(&mut self, entry: (u32, u32)) {
        let mut at = self.first(entry.0);
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.0 == 0 {
                *slot = entry;
                return;
            }
            at = self.next(at);
        }
    }

    /// The place of the neighbours for a destination.
    pub(crate) fn find(&self, destination: u32) -> Option<usize> {
        let mut at = self.first(destination);
        loop {
            match *self.slots.get(at)? {
                (0, _) => return None,
                (there, place) if there == destination => return Some(place as usize),
                _ => at = self.next(at),
            }
        }
    }

    /// The slot where a destination is looked for first.
    fn first(&self, destination: u32) -> usize {
        // The upper bits of the product depend on all bits of the number.
        (u64::from(destination).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & self.slots.len().wrapping_sub(1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & self.slots.len().wrapping_sub(1)
    }

    /// By their places.
    pub(crate) fn ways(&self) -> &[Ways] {
        &self.ways
    }
}

/// Neighbours that are up, by their places, in the order of the table.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hops {
    count: u8,
    /// The first so many are as good as each other.
    equal: u8,
    places: [u16; WAYS],
    /// What tells them apart, whatever their places.
    addresses: Neighbours,
}

impl Hops {
    /// `equal`: it is as good as those before.
    pub(crate) fn push(&mut self, place: usize, address: u32, equal: bool) {
        if let (Some(free), Some(known)) =
            (self.places.get_mut(self.count as usize), self.addresses.get_mut(self.count as usize))
        {
            (*free, *known) = (place as u16, address);
            self.count += 1;
            self.equal += u8::from(equal);
        }
    }

    pub(crate) fn first(&self) -> Option<usize> {
        (self.count > 0).then_some(self.places[0] as usize)
    }

    /// One of those that are equal for each flow: the one whose number with that of the flow is the highest. So a flow keeps
    /// its way when others come and go. If there is none, the first of the others.
    pub(crate) fn choose(&self, destination: u32, eid: u64) -> Option<usize> {
        if self.equal < 2 {
            return self.first();
        }
        let flow = mix(eid ^ u64::from(destination) << 32);
        let ways = self.places.iter().zip(&self.addresses).take(self.equal as usize);
        ways.max_by_key(|(_, address)| mix(flow ^ u64::from(**address))).map(|(place, _)| *place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(destinations: impl Iterator<Item = u32>) -> Table {
        let ways: Vec<(u32, [u32; 2])> = destinations.map(|each| (each, [each % 3 + 1, 9])).collect();
        Table::new(ways.iter().map(|(destination, ways)| (*destination, &ways[..])), false)
    }

    #[test]
    fn every_destination_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 5, 6, 7, 100, 767, 768, 10_000] {
            // Far apart, next to each other, and such as differ in the upper bits only.
            for step in [7919, 1, 1 << 18] {
                let all = (1..=count).map(|each: u32| each.wrapping_mul(step)).filter(|each| *each != 0);
                let table = table(all.clone());
                let known: std::collections::BTreeSet<u32> = all.collect();
                for each in &known {
                    let place = table.find(*each).expect("it is there");
                    assert_eq!(table.ways()[place].neighbours[..2], [each % 3 + 1, 9]);
                }
                assert!(
                    (1..1000).map(|each| each * 13).all(|each| known.contains(&each) == table.find(each).is_some())
                );
                assert_eq!(table.find(0), None);
            }
        }
    }

    #[test]
    fn neighbours_are_kept_once_and_the_last_word_counts() {
        assert_eq!(table(1..=10_000).ways().len(), 3);
        let ways = [(5, &[1u32][..]), (5, &[2][..]), (0, &[3][..])];
        let table = Table::new(ways.into_iter(), false);
        assert_eq!(table.find(5).map(|place| table.ways()[place].neighbours[0]), Some(2));
        assert_eq!(table.find(0), None);
    }

    #[test]
    fn a_look_up_reads_few_slots() {
        let table = table((0..10_000).map(|each| 1_000_000 + each * 7919));
        let slots = table.slots.len();
        let far = |at: usize, destination: u32| at.wrapping_sub(table.first(destination)) & (slots - 1);
        let steps: usize =
            table.slots.iter().enumerate().filter(|(_, slot)| slot.0 != 0).map(|(at, slot)| far(at, slot.0)).sum();
        assert!(steps < 10_000, "{steps} steps for 10 000 destinations");
    }
}
