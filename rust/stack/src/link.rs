//! A bad link, as a model: packets and time go in, packets come out, later, twice, in another order or not at all.
//!
//! Pure: no clock, no thread, and random numbers from a generator of its own, so that the same seed, packets and times give
//! the same result on every machine and in every version.

use std::collections::BTreeMap;

/// Bytes that may wait for their turn on a link with a rate; a packet that finds more before it is lost.
pub const QUEUE: usize = 256 << 10;

/// Bytes that may be under way in one direction, whatever the delay; further packets are lost.
pub const IN_FLIGHT: usize = 16 << 20;

/// Packets that may be, likewise: empty packets take memory, too.
pub const PACKETS: usize = IN_FLIGHT / 64;

/// A packet that is to be overtaken waits that long for the next one, nanoseconds; then it goes on in its order.
pub const HOLD: u64 = 10_000_000;

const SECOND: u128 = 1_000_000_000;
/// The increment of splitmix64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A probability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chance(u64);

impl Chance {
    const CERTAIN: f64 = (1u64 << 53) as f64;

    /// From 0.0, never, to 1.0, always; None for anything else.
    pub fn new(probability: f64) -> Option<Self> {
        // The product is a whole number up to 2^53 once rounded, which both types hold exactly.
        (0.0..=1.0).contains(&probability).then(|| Chance((probability * Self::CERTAIN).round() as u64))
    }
}

/// The behaviour of a link. By default it does nothing to packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// How likely a packet is lost.
    pub loss: Chance,
    /// How likely a packet arrives twice.
    pub duplicate: Chance,
    /// How likely the next packet overtakes a packet.
    pub reorder: Chance,
    /// The least time that a packet takes, ns.
    pub delay: u64,
    /// The most that is added to the delay, ns; each packet draws its own. Alone it never changes the order.
    pub jitter: u64,
    /// Bits in a second, 0 for no bound.
    pub rate: u64,
    /// Nothing comes through.
    pub partition: bool,
}

/// Counters of packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that arrived, duplicates among them.
    pub delivered: u64,
    /// Packets that did not.
    pub lost: u64,
    /// Packets that were sent on twice.
    pub duplicated: u64,
    /// Packets that were overtaken.
    pub reordered: u64,
}

/// The seed of one direction of one flow of a layer.
pub fn seed_of(layer: u64, flow: u64, direction: usize) -> u64 {
    [flow, direction as u64].iter().fold(mix(layer), |state, word| mix(state.wrapping_add(STEP) ^ word))
}

pub(crate) fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// splitmix64: a few instructions, one word of state, good enough to shake packets.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    fn happens(&mut self, chance: Chance) -> bool {
        self.next() >> 11 < chance.0
    }

    /// From 0 to `limit`, each as likely.
    fn up_to(&mut self, limit: u64) -> u64 {
        // The upper half of a product of two 64-bit numbers is one, too.
        ((u128::from(self.next()) * (u128::from(limit) + 1)) >> 64) as u64
    }
}

/// The time of arrival of a packet, and its place among packets of the same time.
type Place = (u64, u64);

/// One direction of a link.
#[derive(Debug)]
pub struct Impairment {
    settings: Settings,
    random: Random,
    scheduled: BTreeMap<Place, Vec<u8>>,
    /// Bytes of `scheduled`.
    bytes: usize,
    placed: u64,
    /// The last time of arrival of a packet in order: no later packet may come before it.
    last: u64,
    /// When the link has sent all that waits for its rate.
    free_at: u64,
    /// The packet that waits to be overtaken.
    held: Option<Place>,
}

impl Impairment {
    /// A link that nothing is on.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Impairment {
            settings,
            random: Random(seed),
            scheduled: BTreeMap::new(),
            bytes: 0,
            placed: 0,
            last: 0,
            free_at: 0,
            held: None,
        }
    }

    /// Change the settings for packets from now on; packets under way arrive as they were to.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// A packet is sent at `now`, in nanoseconds of any clock that never goes back.
    pub fn offer(&mut self, now: u64, packet: Vec<u8>, counters: &mut Counters) {
        let Settings { loss, duplicate, reorder, delay, jitter, partition, .. } = self.settings;
        // All numbers are drawn for every packet: so what happens to the n-th depends on the seed, on n and on its own
        // setting, not on what the other settings are or when packets come.
        let [lost, twice, late] = [loss, duplicate, reorder].map(|chance| self.random.happens(chance));
        let [wait, wait_again] = [(); 2].map(|()| delay.saturating_add(self.random.up_to(jitter)));
        let sent = if lost || partition { None } else { self.send(now, packet.len()) };
        let Some(sent) = sent else {
            counters.lost += 1;
            return;
        };
        let copy = twice.then(|| packet.clone());
        self.arrive(sent.saturating_add(wait), packet, late, counters);
        if let Some(copy) = copy
            && let Some(sent) = self.send(now, copy.len())
        {
            counters.duplicated += 1;
            let at = self.in_order(sent.saturating_add(wait_again));
            self.place(at, copy);
        }
    }

    /// Packets under way.
    pub fn under_way(&self) -> u64 {
        self.scheduled.len() as u64
    }

    /// When `due` has the next packet.
    pub fn next_deadline(&self) -> Option<u64> {
        self.scheduled.first_key_value().map(|(place, _)| place.0)
    }

    /// The next packet that has arrived by `now`.
    pub fn due(&mut self, now: u64) -> Option<Vec<u8>> {
        let first = self.scheduled.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let packet = first.remove();
        self.bytes -= packet.len();
        Some(packet)
    }

    /// When the last bit of a packet has left; None: there is no room for it.
    fn send(&mut self, now: u64, length: usize) -> Option<u64> {
        if self.bytes + length > IN_FLIGHT || self.scheduled.len() >= PACKETS {
            return None;
        }
        if self.settings.rate == 0 {
            return Some(now);
        }
        let start = self.free_at.max(now);
        if start - now > self.duration(QUEUE) {
            return None;
        }
        self.free_at = start.saturating_add(self.duration(length));
        Some(self.free_at)
    }

    /// How long so many bytes take at the rate, rounded up.
    fn duration(&self, length: usize) -> u64 {
        let time = (length as u128 * 8 * SECOND).div_ceil(u128::from(self.settings.rate));
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    fn arrive(&mut self, at: u64, packet: Vec<u8>, late: bool, counters: &mut Counters) {
        let held = self.held.filter(|held| self.scheduled.contains_key(held));
        if late && held.is_none() {
            self.held = Some(self.place(at.max(self.last).saturating_add(HOLD), packet));
            return;
        }
        let at = self.in_order(at);
        self.place(at, packet);
        // A packet that waited in vain goes first, in its order.
        if let Some(held) = held.filter(|held| held.0 >= at)
            && let Some(overtaken) = self.scheduled.remove(&held)
        {
            self.bytes -= overtaken.len();
            self.place(at, overtaken);
            counters.reordered += 1;
        }
        self.held = None;
    }

    /// The time of arrival of a packet that overtakes none.
    fn in_order(&mut self, at: u64) -> u64 {
        self.last = self.last.max(at);
        self.last
    }

    fn place(&mut self, at: u64, packet: Vec<u8>) -> Place {
        let place = (at, self.placed);
        self.placed += 1;
        self.bytes += packet.len();
        self.scheduled.insert(place, packet);
        place
    }
}
