//! Memory of FRCP that flows share: whose it is, how much that may be, and how short it is.

use std::collections::BTreeMap;

use ouroboros_frcp::Pressure;

/// What pays for a flow: all flows with the same `key` together have `budget` bytes, beside what each has in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// A number that the control side gives.
    pub key: i64,
    /// That of the last flow that was added counts.
    pub budget: usize,
}

#[derive(Debug, Default)]
struct Entry {
    budget: usize,
    held: usize,
    flows: usize,
}

/// All accounts that have flows.
#[derive(Debug, Default)]
pub(crate) struct Accounts(BTreeMap<i64, Entry>);

impl Accounts {
    /// A flow begins.
    pub(crate) fn open(&mut self, accounts: &[Account]) {
        for account in accounts {
            let entry = self.0.entry(account.key).or_default();
            entry.budget = account.budget;
            entry.flows += 1;
        }
    }

    /// What a flow holds has changed; how short the memory is that it may have.
    pub(crate) fn settle(&mut self, accounts: &[Account], before: usize, after: usize) -> Pressure {
        let mut worst = Pressure::Easy;
        for account in accounts {
            let Some(entry) = self.0.get_mut(&account.key) else { continue };
            entry.held = entry.held - before + after;
            worst = worst.max(match entry.held {
                held if held > entry.budget => Pressure::Over,
                // The other half is for flows that come later.
                held if held > entry.budget / 2 => Pressure::Tight,
                _ => Pressure::Easy,
            });
        }
        worst
    }

    /// A flow is over, and held so much.
    pub(crate) fn close(&mut self, accounts: &[Account], held: usize) {
        for account in accounts {
            let Some(entry) = self.0.get_mut(&account.key) else { continue };
            entry.held -= held;
            entry.flows -= 1;
            if entry.flows == 0 {
                self.0.remove(&account.key);
            }
        }
    }

    /// By key, bytes.
    pub(crate) fn held(&self) -> impl Iterator<Item = (i64, usize)> {
        self.0.iter().map(|(key, entry)| (*key, entry.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Account = Account { key: 60001, budget: 1000 };
    const ALL: Account = Account { key: -2, budget: 1500 };

    #[test]
    fn what_is_short_of_any_account_is_short() {
        let mut accounts = Accounts::default();
        accounts.open(&[ONE, ALL]);
        accounts.open(&[Account { key: 60002, ..ONE }, ALL]);
        assert_eq!(accounts.settle(&[ONE, ALL], 0, 500), Pressure::Easy);
        assert_eq!(accounts.settle(&[ONE, ALL], 500, 501), Pressure::Tight);
        assert_eq!(accounts.settle(&[ONE, ALL], 501, 1001), Pressure::Over);
        // The other has nothing yet, but all together have more than half.
        assert_eq!(accounts.settle(&[Account { key: 60002, ..ONE }, ALL], 0, 10), Pressure::Tight);
        assert_eq!(accounts.held().collect::<Vec<_>>(), [(-2, 1011), (60001, 1001), (60002, 10)]);
        accounts.close(&[ONE, ALL], 1001);
        assert_eq!(accounts.held().collect::<Vec<_>>(), [(-2, 10), (60002, 10)]);
        accounts.close(&[Account { key: 60002, ..ONE }, ALL], 10);
        assert_eq!(accounts.held().count(), 0);
    }
}
