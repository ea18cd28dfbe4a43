//! Which packets were received already.

/// Packets that may come late: this far behind the newest.
pub(crate) const SIZE: u64 = 4096;
const WORDS: usize = (SIZE / 64) as usize;

/// A bitmap of the last `SIZE` numbers. It starts at the first packet that is authentic, whatever its number.
pub(crate) struct Window {
    newest: Option<u64>,
    bits: [u64; WORDS],
}

impl Window {
    pub(crate) fn new() -> Self {
        Window { newest: None, bits: [0; WORDS] }
    }

    /// Whether the packet came before, or is so old that nobody knows.
    pub(crate) fn rejects(&self, number: u64) -> bool {
        match self.newest {
            Some(newest) if number <= newest => newest - number >= SIZE || self.bits[word(number)] & bit(number) != 0,
            _ => false,
        }
    }

    /// Note an authentic packet that was not rejected.
    pub(crate) fn note(&mut self, number: u64) {
        match self.newest {
            Some(newest) if number <= newest => {}
            Some(newest) if number - newest < SIZE => {
                for between in newest + 1..number {
                    self.bits[word(between)] &= !bit(between);
                }
                self.newest = Some(number);
            }
            _ => {
                self.bits = [0; WORDS];
                self.newest = Some(number);
            }
        }
        self.bits[word(number)] |= bit(number);
    }
}

fn word(number: u64) -> usize {
    (number / 64) as usize % WORDS
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}
