//! Packets of an end, altered or not, and packets of anybody, for the other end. The property tests and the fuzz target
//! `crypto_open` take it from here.

use ouroboros_crypto::{Replay, Role, Session, Settings, Suite};

/// First byte: the suite and the kind of peer. Then steps: a byte that says what, a length, and that many bytes.
pub fn run(input: &[u8]) {
    let Some((&kind, mut rest)) = input.split_first() else { return };
    let suite = Suite::ALL[usize::from(kind & 0x7f) % Suite::ALL.len()];
    let replay = if kind & 0x80 == 0 { Replay::Accept } else { Replay::Reject };
    let end = |role| {
        let settings = Settings { suite, role, replay, rotation_bit: 2 };
        Session::with_seed(settings, &[1; 32], [kind; 10]).expect("a session")
    };
    let (mut near, mut far) = (end(Role::Allocator), end(Role::Acceptor));
    let mut altered_in_a_row = 0;
    while let [what, length, bytes @ ..] = rest {
        let (bytes, after) = bytes.split_at(bytes.len().min(usize::from(*length)));
        rest = after;
        let mut packet = Vec::new();
        let mut plain = Vec::new();
        if what & 1 == 0 {
            let opened = far.open(bytes, &mut plain).is_ok();
            assert!(!opened || !suite.authenticates());
            continue;
        }
        near.seal(bytes, &mut packet).expect("sealed");
        let at = usize::from(what >> 2) % packet.len();
        if what & 2 != 0 {
            packet[at] ^= 1 << (length % 8);
        }
        let opened = far.open(&packet, &mut plain).is_ok();
        if !suite.authenticates() {
            continue;
        }
        if what & 2 != 0 {
            assert!(!opened);
            altered_in_a_row += 1;
        } else {
            // A peer that is more than two epochs ahead is out of reach.
            assert!(opened || altered_in_a_row >= 4);
            assert!(!opened || plain == bytes);
            altered_in_a_row = if opened { 0 } else { altered_in_a_row };
        }
    }
}
