//! Packets that were here before: by origin and number those of members of ours, by digest where members of the prototype may
//! bring them back.

use std::collections::VecDeque;
use std::hash::Hasher;

use crate::id::Map;

/// Numbers of one origin that are told apart; what is that much older is taken for known.
const NUMBERS: u64 = 4096;
const WORD: u64 = u64::BITS as u64;
/// Origins at once. One more, and the one that was silent longest is forgotten.
const ORIGINS: usize = 1024;

/// The last numbers of one origin.
#[derive(Debug)]
struct Window {
    top: u64,
    bits: Box<[u64; (NUMBERS / WORD) as usize]>,
    /// When it was heard last, in takes.
    used: u64,
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
    takes: u64,
}

impl Numbers {
    /// Whether that number of that origin was not here before.
    pub(crate) fn take(&mut self, origin: u64, number: u64) -> bool {
        self.takes += 1;
        if !self.windows.contains_key(&origin) && self.windows.len() >= ORIGINS {
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.used).map(|(origin, _)| *origin);
            oldest.and_then(|oldest| self.windows.remove(&oldest));
        }
        let window = (self.windows.entry(origin)).or_insert_with(|| Window {
            top: 0,
            bits: Box::new([0; (NUMBERS / WORD) as usize]),
            used: 0,
        });
        window.used = self.takes;
        window.take(number)
    }
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
        // One that nobody can foresee without the seed.
        #[allow(clippy::disallowed_types, deprecated, reason = "it is seeded")]
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(packet);
        let digest = hasher.finish();
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
                prop_assert_eq!(numbers.take(origin, number), known.insert((origin, number)));
            }
        }

        #[test]
        fn none_is_taken_twice_wherever_it_is(numbers in prop::collection::vec(1..20_000u64, 1..400)) {
            let (mut seen, mut taken) = (Numbers::default(), BTreeSet::new());
            for number in numbers {
                if seen.take(1, number) {
                    prop_assert!(taken.insert(number));
                }
            }
        }
    }

    #[test]
    fn the_origin_that_was_silent_longest_is_forgotten() {
        let mut numbers = Numbers::default();
        (0..ORIGINS as u64).for_each(|origin| assert!(numbers.take(origin, 7)));
        assert!(!numbers.take(0, 7));
        assert!(numbers.take(u64::MAX, 7));
        assert_eq!(numbers.windows.len(), ORIGINS);
        assert!(!numbers.take(0, 7));
        assert!(numbers.take(1, 7), "it was the oldest");
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
