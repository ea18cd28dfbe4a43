//! The door of a port: bounds for management datagrams of strangers.
//!
//! Anybody can send one, in the name of any address, and each that comes through costs control a hundred times what it costs
//! here. So control gets those that are expected, as many requests as have proven their address, up to a rate, and of all
//! others a trickle; each rate holds for one host and for all together. A request that can prove its address is told how, by
//! an answer that is shorter (docs/protocol/udp.md): nothing is remembered of it.

use std::hash::{DefaultHasher, Hasher};
use std::net::{IpAddr, SocketAddr};

use ouroboros_crypto::Proofs;
use ouroboros_wire::management::{FIXED, Kind, comes_again, cookie, retry};

/// Places in the tables of hosts. Two hosts that share one share its rate.
const HOSTS: usize = 1024;

/// A rate: so many a second, and at once.
struct Rate(u64, u64);

/// Requests with a proof, of one host and of all.
const PROVEN: [Rate; 2] = [Rate(1000, 1000), Rate(2000, 2000)];
/// Requests of nodes that cannot prove anything: of the prototype, and older ones of ours.
const UNPROVEN: [Rate; 2] = [Rate(50, 200), Rate(500, 1000)];
/// Messages that nobody waits for. Acknowledgements of ends are among them.
const UNEXPECTED: [Rate; 2] = [Rate(2000, 2000), Rate(4000, 4000)];
/// Requests that are told how to prove their address.
const CHALLENGES: Rate = Rate(50_000, 5000);

/// The fate of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Control gets it.
    Pass,
    /// There are too many.
    Drop,
    /// The sender is told to come again, with this.
    Answer([u8; FIXED]),
}

#[derive(Debug)]
pub(crate) struct Door {
    proofs: Proofs,
    /// Which host has which place in the tables is not to be known outside.
    lot: u64,
    proven: Gate,
    unproven: Gate,
    unexpected: Gate,
    challenges: Bucket,
}

impl Door {
    /// `secret`: random.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let mut proofs = Proofs::new(secret);
        let lot = proofs.cookie(0, b"the places of hosts");
        Door {
            proofs,
            lot,
            proven: Gate::new(PROVEN),
            unproven: Gate::new(UNPROVEN),
            unexpected: Gate::new(UNEXPECTED),
            challenges: Bucket::new(CHALLENGES),
        }
    }

    /// `expected`: somebody waits for it, from there.
    pub(crate) fn judge(&mut self, now: u64, from: SocketAddr, kind: Kind, datagram: &[u8], expected: bool) -> Verdict {
        let host = self.place(from.ip());
        let Kind::Request { source, proof } = kind else {
            return if expected || self.unexpected.take(now, host) { Verdict::Pass } else { Verdict::Drop };
        };
        if !comes_again(datagram) {
            return if self.unproven.take(now, host) { Verdict::Pass } else { Verdict::Drop };
        }
        let whom = bytes_of(from);
        if self.proofs.proves(now, &whom, cookie(datagram, proof)) {
            return if self.proven.take(now, host) { Verdict::Pass } else { Verdict::Drop };
        }
        if self.challenges.take(now) {
            return Verdict::Answer(retry(source, self.proofs.cookie(now, &whom)));
        }
        Verdict::Drop
    }

    fn place(&self, host: IpAddr) -> usize {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.lot);
        match host.to_canonical() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            // A host has all addresses of its network.
            IpAddr::V6(ip) => hasher.write(ip.octets().first_chunk::<8>().map_or(&[][..], |network| network)),
        }
        hasher.finish() as usize % HOSTS
    }
}

fn bytes_of(address: SocketAddr) -> [u8; 18] {
    let mut bytes = [0; 18];
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

/// A rate for each host, and one for all. What a host may not have takes nothing from the others.
#[derive(Debug)]
struct Gate {
    hosts: Box<[Bucket]>,
    all: Bucket,
}

impl Gate {
    fn new([one, all]: [Rate; 2]) -> Self {
        Gate { hosts: vec![Bucket::new(one); HOSTS].into(), all: Bucket::new(all) }
    }

    fn take(&mut self, now: u64, host: usize) -> bool {
        self.hosts.get_mut(host).is_some_and(|bucket| bucket.take(now)) && self.all.take(now)
    }
}

/// So many a second in the long run.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Nanoseconds for each, and for those at once.
    interval: u64,
    depth: u64,
    /// When it is full again.
    full_at: u64,
}

impl Bucket {
    const fn new(Rate(rate, burst): Rate) -> Self {
        let interval = 1_000_000_000 / rate;
        Bucket { interval, depth: interval * burst, full_at: 0 }
    }

    fn take(&mut self, now: u64) -> bool {
        let full_at = self.full_at.max(now) + self.interval;
        let there = full_at <= now + self.depth;
        if there {
            self.full_at = full_at;
        }
        there
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use ouroboros_wire::management::Datagram;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn address(host: u8, port: u16) -> SocketAddr {
        ([192, 0, 2, host], port).into()
    }

    /// A request with an extension of those flags, and a cookie.
    fn request(flags: u8, with: u64) -> Vec<u8> {
        let mut bytes = vec![0; 99];
        bytes[4..8].copy_from_slice(&7u32.to_be_bytes());
        bytes[44] = 1;
        bytes[98] = 28;
        bytes.extend([&b"pyO7\x01"[..], &[flags], &[0; 22]].concat());
        let proof = if with == 0 { 0 } else { with ^ 1 ^ cookie(&bytes, 1) };
        bytes[8..16].copy_from_slice(&proof.to_be_bytes());
        bytes
    }

    fn judge(door: &mut Door, now: u64, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let kind = Datagram::new(datagram).unwrap().kind();
        door.judge(now, from, kind, datagram, false)
    }

    fn cookie_of(verdict: &Verdict) -> u64 {
        let Verdict::Answer(bytes) = verdict else { panic!("{verdict:?}") };
        u64::from_be_bytes(*bytes[8..].first_chunk().unwrap())
    }

    fn passed(door: &mut Door, now: u64, count: usize, each: impl Fn(usize) -> (SocketAddr, Vec<u8>)) -> usize {
        let verdicts = (0..count).map(|at| {
            let (from, datagram) = each(at);
            judge(door, now, from, &datagram)
        });
        verdicts.filter(|verdict| *verdict == Verdict::Pass).count()
    }

    #[test]
    fn who_comes_again_with_the_cookie_is_let_in_and_nobody_else() {
        let (mut door, here) = (Door::new(&[1; 32]), address(1, 3435));
        let cookie = cookie_of(&judge(&mut door, 1, here, &request(64, 0)));
        assert_eq!(judge(&mut door, 2, here, &request(64, cookie)), Verdict::Pass);
        for (from, tried) in [(address(1, 3436), cookie), (address(2, 3435), cookie), (here, cookie + 1)] {
            assert!(matches!(judge(&mut door, 3, from, &request(64, tried)), Verdict::Answer(_)));
        }
        // One that was altered on the way is asked for once more.
        let mut altered = request(64, cookie);
        altered[46] ^= 1;
        assert_eq!(cookie_of(&judge(&mut door, 3, here, &altered)), cookie);
    }

    #[test]
    fn a_flood_without_proofs_costs_control_a_trickle_and_those_with_proofs_nothing() {
        let (mut door, here) = (Door::new(&[1; 32]), address(1, 3435));
        let cookie = cookie_of(&judge(&mut door, 1, here, &request(64, 0)));
        let forged = |at: usize| (SocketAddr::from(([10, 0, (at >> 8) as u8, at as u8], 1)), request(0, 0));
        assert_eq!(passed(&mut door, SECOND, 50_000, forged), 1000);
        assert_eq!(passed(&mut door, 2 * SECOND, 50_000, forged), 500);
        assert_eq!(passed(&mut door, 2 * SECOND, 1000, |_| (here, request(64, cookie))), 1000);
        // Of those that could prove an address, none.
        assert_eq!(passed(&mut door, 2 * SECOND, 50_000, |at| (forged(at).0, request(64, at as u64))), 0);
    }

    #[test]
    fn one_host_takes_no_more_than_its_part() {
        let mut door = Door::new(&[1; 32]);
        assert_eq!(passed(&mut door, SECOND, 5000, |port| (address(1, port as u16), request(0, 0))), 200);
        assert_eq!(passed(&mut door, SECOND, 100, |_| (address(2, 1), request(0, 0))), 100);
        let cookies: Vec<u64> =
            (1..=2).map(|host| cookie_of(&judge(&mut door, SECOND, address(host, 1), &request(64, 0)))).collect();
        assert_eq!(passed(&mut door, SECOND, 5000, |_| (address(1, 1), request(64, cookies[0]))), 1000);
        assert_eq!(passed(&mut door, SECOND, 100, |_| (address(2, 1), request(64, cookies[1]))), 100);
    }

    #[test]
    fn what_is_expected_comes_through_whatever_else_comes() {
        let (mut door, mut answer) = (Door::new(&[1; 32]), vec![0; FIXED]);
        answer[44] = 2;
        let kind = Datagram::new(&answer).unwrap().kind();
        assert_eq!(passed(&mut door, SECOND, 50_000, |at| (address(at as u8, at as u16), answer.clone())), 4000);
        assert_eq!(door.judge(SECOND, address(1, 1), kind, &answer, true), Verdict::Pass);
    }

    #[test]
    fn hosts_of_one_network_of_ipv6_are_one() {
        let door = Door::new(&[1; 32]);
        let place = |text: &str| door.place(text.parse().unwrap());
        assert_eq!(place("2001:db8::1"), place("2001:db8::ffff:1"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
        assert_ne!(place("2001:db8::1"), place("2001:db8:0:1::1"));
    }
}
