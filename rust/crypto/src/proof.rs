//! Cookies that prove an address, as in DTLS and in the cookies of DNS: who got one back has received what was sent there.
//! Nothing is remembered of those to whom they were sent.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};

/// How long a key makes cookies, nanoseconds; its cookies are good for as long again.
const PERIOD: u64 = 300_000_000_000;

/// Makes cookies, and knows them again.
#[derive(Debug)]
pub struct Proofs {
    secret: Key,
    /// Of the period now, and the one before.
    keys: [Key; 2],
    period: u64,
}

impl Proofs {
    /// `secret`: random, and known to nobody else.
    pub fn new(secret: &[u8; 32]) -> Self {
        let secret = Key::new(HMAC_SHA256, secret);
        let keys = keys(&secret, 0);
        Proofs { secret, keys, period: 0 }
    }

    /// What proves `whom`, an address as bytes. Never 0, which is none.
    pub fn cookie(&mut self, now: u64, whom: &[u8]) -> u64 {
        self.turn(now);
        make(&self.keys[0], whom)
    }

    /// Whether that is a cookie of `whom`, not older than two periods.
    pub fn proves(&mut self, now: u64, whom: &[u8], cookie: u64) -> bool {
        self.turn(now);
        // Both are compared as numbers, in one instruction each.
        cookie != 0 && self.keys.iter().any(|key| make(key, whom) == cookie)
    }

    fn turn(&mut self, now: u64) {
        let period = now / PERIOD;
        if period != self.period {
            self.keys = keys(&self.secret, period);
            self.period = period;
        }
    }
}

fn keys(secret: &Key, period: u64) -> [Key; 2] {
    // Before the first one there is one that nobody has a cookie of.
    [period, period.wrapping_sub(1)].map(|each| Key::new(HMAC_SHA256, sign(secret, &each.to_be_bytes()).as_ref()))
}

fn make(key: &Key, whom: &[u8]) -> u64 {
    let tag = sign(key, whom);
    tag.as_ref().first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &[u8] = b"192.0.2.1 3435";
    const B: &[u8] = b"192.0.2.1 3436";

    fn proofs() -> Proofs {
        Proofs::new(&[7; 32])
    }

    #[test]
    fn a_cookie_proves_whoever_it_was_sent_to_and_nobody_else() {
        let mut proofs = proofs();
        let cookie = proofs.cookie(1, A);
        assert!(proofs.proves(2, A, cookie));
        assert!(!proofs.proves(2, B, cookie) && !proofs.proves(2, A, cookie ^ 1) && !proofs.proves(2, A, 0));
        assert!(!Proofs::new(&[8; 32]).proves(2, A, cookie));
    }

    #[test]
    fn a_cookie_is_good_for_one_period_at_least_and_for_two_at_most() {
        let mut proofs = proofs();
        let cookie = proofs.cookie(PERIOD - 1, A);
        assert!(proofs.proves(2 * PERIOD - 1, A, cookie));
        assert_ne!(proofs.cookie(PERIOD, A), cookie);
        assert!(!proofs.proves(2 * PERIOD, A, cookie));
    }
}
