//! The ways of a unicast layer: for each destination the neighbours that lead there. A table never changes; the next one takes
//! its place.

use crate::id::Map;
use crate::link::mix;

/// Neighbours that a table has for one destination, at the most.
pub const WAYS: usize = 8;

/// Neighbours in order, by address; 0: none, which is no address.
type Neighbours = [u32; WAYS];

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    /// By destination, the place of its neighbours. Few destinations have neighbours of their own, so a table fits into caches.
    places: Map<u32, u32>,
    neighbours: Vec<Neighbours>,
    /// All that are up are used, each for some flows; else only the first that is.
    pub(crate) spread: bool,
}

impl Table {
    /// Destinations, and the neighbours of each in order, of which the first `WAYS` count.
    pub fn new<'a>(ways: impl Iterator<Item = (u32, &'a [u32])>, spread: bool) -> Self {
        let (mut table, mut known) = (Table { spread, ..Table::default() }, Map::default());
        for (destination, ways) in ways {
            let mut neighbours = [0; WAYS];
            ways.iter().filter(|way| **way != 0).zip(&mut neighbours).for_each(|(way, place)| *place = *way);
            let place = *known.entry(neighbours).or_insert_with(|| {
                table.neighbours.push(neighbours);
                table.neighbours.len() as u32 - 1
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
    pub(crate) fn neighbours(&self) -> &[Neighbours] {
        &self.neighbours
    }
}

/// Neighbours that are up, by their places, in the order of the table.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hops {
    count: u8,
    places: [u16; WAYS],
    /// What tells them apart, whatever their places.
    addresses: Neighbours,
}

impl Hops {
    pub(crate) fn push(&mut self, place: usize, address: u32) {
        if let (Some(free), Some(known)) =
            (self.places.get_mut(self.count as usize), self.addresses.get_mut(self.count as usize))
        {
            (*free, *known) = (place as u16, address);
            self.count += 1;
        }
    }

    pub(crate) fn first(&self) -> Option<usize> {
        (self.count > 0).then_some(self.places[0] as usize)
    }

    /// One of them for each flow: the one whose number with that of the flow is the highest. So a flow keeps its way when
    /// others come and go.
    pub(crate) fn choose(&self, destination: u32, eid: u64) -> Option<usize> {
        if self.count < 2 {
            return self.first();
        }
        let flow = mix(eid ^ u64::from(destination) << 32);
        let ways = self.places.iter().zip(&self.addresses).take(self.count as usize);
        ways.max_by_key(|(_, address)| mix(flow ^ u64::from(**address))).map(|(place, _)| *place as usize)
    }
}
