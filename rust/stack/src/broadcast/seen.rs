//! Packets that were here before: by origin and number those of members of ours, by digest where members of the prototype may
//! bring them back.

use std::collections::VecDeque;
use std::hash::Hasher;

use crate::id::{FlowId, Map};

/// Numbers of one origin that are told apart; what is that much older is taken for known.
const NUMBERS: u64 = 4096;
const WORD: u64 = u64::BITS as u64;
/// Origins at once. One more, and the one that was silent longest is forgotten, of those that came first by the lower flow by
/// which most did: whoever invents some makes others forgotten that come by the same way, and no more.
const ORIGINS: usize = 1024;

/// The last numbers of one origin.
#[derive(Debug)]
struct Window {
    top: u64,
    bits: Box<[u64; (NUMBERS / WORD) as usize]>,
    /// When it was heard last, in takes.
    used: u64,
    /// The lower flow by which it came first.
    from: u64,
}

impl Window {
    fn bit(&mut self, number: u64) -> Option<(&mut u64, u64)> {
        let at = number % NUMBERS;
        Some((self.bits.get_mut((at / WORD) as usize)?, 1 << (at % WORD)))
    }

    fn take(&mut self, number: u64) -> bool {
        if number > self.top {
            if number - self.top >= NUMBERS {
                self.bits.fill(0);
            } else {
                for passed in self.top + 1..number {
                    if let Some((word, bit)) = self.bit(passed) {
                        *word &= !bit;
                    }
                }
            }
            self.top = number;
            if let Some((word, bit)) = self.bit(number) {
                *word |= bit;
            }
            return true;
        }
        if self.top - number >= NUMBERS {
            return false;
        }
        let Some((word, bit)) = self.bit(number) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// Numbers that were here, by origin.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    windows: Map<u64, Window>,
    /// How many of them came first by which lower flow.
    by: Map<u64, usize>,
    takes: u64,
}

impl Numbers {
    /// Whether that number of that origin was not here before.
    pub(crate) fn take(&mut self, from: FlowId, origin: u64, number: u64) -> bool {
        self.window(from.into(), origin).take(number)
    }

    /// Whatever comes of that origin was here before.
    pub(crate) fn know_all(&mut self, origin: u64) {
        let window = self.window(u64::MAX, origin);
        window.top = u64::MAX;
        window.bits.fill(u64::MAX);
    }

    fn window(&mut self, from: u64, origin: u64) -> &mut Window {
        self.takes += 1;
        if !self.windows.contains_key(&origin) {
            if self.windows.len() >= ORIGINS {
                self.forget_one();
            }
            *self.by.entry(from).or_default() += 1;
        }
        let bits = || Box::new([0; (NUMBERS / WORD) as usize]);
        let window = self.windows.entry(origin).or_insert_with(|| Window { top: 0, bits: bits(), used: 0, from });
        window.used = self.takes;
        window
    }

    fn forget_one(&mut self) {
        let most = self.by.iter().max_by_key(|(from, count)| (**count, **from)).map(|(from, _)| *from);
        let of_most = self.windows.iter().filter(|(_, window)| Some(window.from) == most);
        let oldest = of_most.min_by_key(|(_, window)| window.used).map(|(origin, _)| *origin);
        let Some(window) = oldest.and_then(|oldest| self.windows.remove(&oldest)) else { return };
        if let Some(count) = self.by.get_mut(&window.from) {
            *count -= 1;
            if *count == 0 {
                self.by.remove(&window.from);
            }
        }
    }
}

/// A number that follows from those bytes, and that nobody can foresee without the seed.
pub(crate) fn unforeseen(seed: u64, bytes: &[u8]) -> u64 {
    #[allow(clippy::disallowed_types, deprecated, reason = "it is seeded")]
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write_u64(seed);
    hasher.write(bytes);
    hasher.finish()
}

/// How long a digest is known, ns, and how many are.
pub(crate) const KNOWN: u64 = 2_000_000_000;
const DIGESTS: usize = 4096;
/// Equal packets of members of the prototype that are taken in that time, where they cannot come back by another way.
const EQUALS: u32 = 256;

#[derive(Debug)]
struct Digest {
    at: u64,
    /// One of those equal packets came from a member of the prototype.
    foreign: bool,
    count: u32,
}

/// Contents that were here lately.
#[derive(Debug)]
pub(crate) struct Contents {
    seed: u64,
    known: Map<u64, Digest>,
    order: VecDeque<(u64, u64)>,
}

impl Contents {
    pub(crate) fn new(seed: u64) -> Self {
        Contents { seed, known: Map::default(), order: VecDeque::new() }
    }

    /// Whether a packet is none that comes back. `foreign`: it is from a member of the prototype. `strict`: what went to one such
    /// member may come back by another.
    pub(crate) fn take(&mut self, now: u64, packet: &[u8], foreign: bool, strict: bool) -> bool {
        self.forget(now);
        let digest = unforeseen(self.seed, packet);
        let Some(known) = self.known.get_mut(&digest) else {
            self.known.insert(digest, Digest { at: now, foreign, count: 1 });
            self.order.push_back((now, digest));
            return true;
        };
        if strict {
            let comes_back = foreign || known.foreign;
            known.foreign |= foreign;
            return !comes_back;
        }
        known.foreign |= foreign;
        known.count += u32::from(foreign);
        !foreign || known.count <= EQUALS
    }

    fn forget(&mut self, now: u64) {
        while let Some((at, digest)) = self.order.front().copied()
            && (at + KNOWN <= now || self.order.len() >= DIGESTS)
        {
            self.order.pop_front();
            if self.known.get(&digest).is_some_and(|known| known.at == at) {
                self.known.remove(&digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As a set of all numbers would, as long as they are not far apart.
        #[test]
        fn each_number_is_taken_once(steps in prop::collection::vec((0..3u64, 0..NUMBERS - 300), 1..400)) {
            let (mut numbers, mut known, mut base) = (Numbers::default(), BTreeSet::new(), 300);
            for (origin, back) in steps {
                base += back % 3;
                let number = base - (back % 300);
                prop_assert_eq!(numbers.take(1.into(), origin, number), known.insert((origin, number)));
            }
        }

        #[test]
        fn none_is_taken_twice_wherever_it_is(numbers in prop::collection::vec(1..20_000u64, 1..400)) {
            let (mut seen, mut taken) = (Numbers::default(), BTreeSet::new());
            for number in numbers {
                if seen.take(1.into(), 1, number) {
                    prop_assert!(taken.insert(number));
                }
            }
        }
    }

    #[test]
    fn the_origin_that_was_silent_longest_is_forgotten() {
        let mut numbers = Numbers::default();
        let mut take = |origin| numbers.take(1.into(), origin, 7);
        (0..ORIGINS as u64).for_each(|origin| assert!(take(origin)));
        assert!(!take(0) && take(u64::MAX) && !take(0));
        assert!(take(1), "it was the oldest");
        assert_eq!(numbers.windows.len(), ORIGINS);
    }

    #[test]
    fn origins_that_come_by_one_way_make_none_forgotten_that_came_by_others() {
        let mut numbers = Numbers::default();
        (0..10).for_each(|origin| assert!(numbers.take(1.into(), origin, 7)));
        (0..9999).for_each(|origin| assert!(numbers.take(2.into(), 100 + origin, 7)));
        (0..10).for_each(|origin| assert!(!numbers.take(1.into(), origin, 7)));
        assert_eq!((numbers.windows.len(), numbers.by.values().sum::<usize>()), (ORIGINS, ORIGINS));
    }

    #[test]
    fn nothing_of_an_origin_that_is_known_is_new() {
        let mut numbers = Numbers::default();
        numbers.know_all(5);
        for number in [1, 7, NUMBERS, u64::MAX - NUMBERS, u64::MAX - 1, u64::MAX] {
            assert!(!numbers.take(1.into(), 5, number), "{number}");
        }
    }

    #[test]
    fn equal_packets_count_as_one_only_where_they_may_come_back() {
        let mut contents = Contents::new(1);
        // Of our own programs: never, but for what the prototype said.
        assert!(contents.take(0, b"a", false, true) && contents.take(0, b"a", false, true));
        assert!(!contents.take(1, b"a", true, true));
        assert!(!contents.take(1, b"a", false, true));
        assert!(contents.take(KNOWN, b"a", true, true));
        assert!(contents.take(KNOWN, b"b", true, true) && !contents.take(KNOWN, b"b", true, true));
        // There is one way only.
        let taken = (0..1000).filter(|_| contents.take(KNOWN, b"c", true, false)).count();
        assert_eq!(taken, EQUALS as usize);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut contents = Contents::new(1);
        for number in 0..3 * DIGESTS as u64 {
            assert!(contents.take(0, &number.to_be_bytes(), true, true));
        }
        assert!(contents.order.len() <= DIGESTS && contents.known.len() <= DIGESTS);
    }
}
