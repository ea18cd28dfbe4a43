//! The ways of a unicast layer: for each destination the neighbours that lead there. A table never changes; the next one takes
//! its place.

use crate::id::Map;
use crate::link::mix;

/// Neighbours that a table has for one destination, at the most.
pub const WAYS: usize = 8;

/// Neighbours in order, by address; 0: none, which is no address.
type Neighbours = [u32; WAYS];

/// Those of a destination: `equal` that are as good as each other, and then alternates, for when none of them is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ways {
    pub(crate) neighbours: Neighbours,
    pub(crate) equal: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    /// By destination, the place of its neighbours. Few destinations have neighbours of their own, so a table fits into caches.
    places: Map<u32, u32>,
    ways: Vec<Ways>,
    /// All that are equal and up are used, each for some flows; else only the first that is.
    pub(crate) spread: bool,
}

impl Table {
    /// Destinations, and the neighbours of each in order, of which the first `WAYS` count. A 0 stands behind those that are
    /// as good as each other, if there are others.
    pub fn new<'a>(ways: impl Iterator<Item = (u32, &'a [u32])>, spread: bool) -> Self {
        let (mut table, mut known) = (Table { spread, ..Table::default() }, Map::default());
        for (destination, ways) in ways {
            let mut neighbours = [0; WAYS];
            ways.iter().filter(|way| **way != 0).zip(&mut neighbours).for_each(|(way, place)| *place = *way);
            let ways = Ways { neighbours, equal: ways.iter().take_while(|way| **way != 0).count() };
            let place = *known.entry(ways).or_insert_with(|| {
                table.ways.push(ways);
                table.ways.len() as u32 - 1
            });
            table.places.insert(destination, place);
        }
        table
    }

    /// The place of the neighbours for a destination.
    pub(crate) fn find(&self, destination: u32) -> Option<usize> {
        self.places.get(&destination).map(|place| *place as usize)
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
