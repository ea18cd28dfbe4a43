//! All views of packets, on bytes of anybody. Property tests and the fuzz target `fuzz/fuzz_targets/wire.rs` take it from here.
//!
//! No input may make one panic, or read what is not there; and what is read of a header is all that is in it: written again, it
//! is the same.

use ouroboros_wire::ether::{Framing, Mac, Station};
use ouroboros_wire::management::{Datagram, EID, Kind, LONGEST, comes_again, cookie, retry};
use ouroboros_wire::pci::{Form, PCI, Pci, forwarded};
use ouroboros_wire::relay::Relay;
use ouroboros_wire::update::Word;

/// The device that frames come to.
const US: Mac = [2, 0, 0, 0, 0, 1];
const ETHERTYPE: u16 = 0xA000;

/// One input. Its first byte says who reads the rest.
pub fn run(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 6 {
        0 => frame(Framing::Dix(ETHERTYPE), bytes),
        1 => frame(Framing::Llc, bytes),
        2 => packet(bytes),
        3 => relay(bytes),
        4 => word(bytes),
        _ => datagram(bytes),
    }
}

/// Half of all frames are for us and of the layer, whatever the bytes say.
fn frame(framing: Framing, bytes: &[u8]) {
    let Some((chosen, bytes)) = bytes.split_first() else { return };
    let mut frame = bytes.to_vec();
    if chosen & 1 == 0 && frame.len() >= 14 {
        frame[..6].copy_from_slice(&US);
        frame[6] &= 0xFE;
        if framing == Framing::Llc {
            frame[12] = 0;
        } else {
            frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        }
    }
    let before = frame.clone();
    let Some((from, at)) = framing.open(&US, &mut frame) else {
        assert_eq!(frame, before, "refused, and changed");
        return;
    };
    assert!(at.start + EID <= at.end && at.end <= frame.len());
    assert_eq!(frame[at.start + EID..], before[at.start + EID..]);
    assert_eq!(from.mac, before[6..12]);
    assert_eq!(Station::of(from.into()), Some(from));
    assert!(framing.header(&US, from, u32::MAX, at.len() - EID).is_some());
}

fn packet(bytes: &[u8]) {
    if let Some((header, _)) = bytes.split_first_chunk::<PCI>() {
        let pci = Pci::read(header);
        assert_eq!(pci.write(), *header);
        let on = Pci::read(&forwarded(*header, pci.ttl.saturating_sub(1), 1));
        assert_eq!((on.destination, on.eid, on.ecn), (pci.destination, pci.eid, pci.ecn | 1));
    }
    let [address, eid, packet @ ..] = bytes else { return };
    let Some(form) = Form::new(usize::from(*address), usize::from(*eid)) else { return };
    let read = form.read(packet).map(|read| read.payload.len());
    assert_eq!(read, packet.len().checked_sub(form.length()));
}

fn relay(bytes: &[u8]) {
    if let Some((relay, rest)) = Relay::read(bytes) {
        assert_eq!([&relay.write()[..], rest].concat(), bytes);
    }
}

fn word(bytes: &[u8]) {
    if let Some(word) = Word::read(bytes) {
        assert_eq!(Word::read(&word.write()), Some(word));
    }
}

fn datagram(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let Some(datagram) = Datagram::new(bytes) else { return };
    if let Some(report) = datagram.report() {
        assert_eq!(Datagram::new(&report.encode()).and_then(Datagram::report), Some(report));
    }
    let again = comes_again(bytes);
    if let Kind::Request { source, proof } = datagram.kind() {
        let cookie = cookie(bytes, proof);
        assert!(proof != 0 || cookie == 0);
        assert!(Datagram::new(&retry(source, cookie)).is_some_and(|it| it.kind() == Kind::Answer(source)));
    }
    assert_eq!(again, comes_again(bytes));
}
