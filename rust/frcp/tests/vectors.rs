//! Packets of the C prototype, byte by byte, as they were captured.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MS, SECOND, config};
use ouroboros_frcp::{Connection, HEADER, Header, Peer, flag};

const D: u8 = flag::DATA;
const DRF: u8 = flag::DRF;
const A: u8 = flag::ACK;
const FC: u8 = flag::FC;

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.chars().filter(|c| !c.is_whitespace()).collect::<Vec<_>>();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn captured_headers_are_decoded_and_encoded_exactly() {
    let vectors = [
        ("G1", "03 000000 96c71024 00000000 6400000000000000", D | DRF, 0, 0x96c7_1024, 0, 8),
        (
            "G2",
            "0f c71125 b3d51464 96c71025 6400000000000000",
            D | DRF | A | FC,
            0xc7_1125,
            0xb3d5_1464,
            0x96c7_1025,
            8,
        ),
        ("G3", "0c d51565 00000000 b3d51465", A | FC, 0xd5_1565, 0, 0xb3d5_1465, 0),
        (
            "G4a",
            "0f d51565 96c71025 b3d51465 6400000001000000",
            D | DRF | A | FC,
            0xd5_1565,
            0x96c7_1025,
            0xb3d5_1465,
            8,
        ),
        ("G4b", "0d d51565 96c71026 b3d51465 6400000002000000", D | A | FC, 0xd5_1565, 0x96c7_1026, 0xb3d5_1465, 8),
        ("G5", "0c c71127 00000000 96c71027", A | FC, 0xc7_1127, 0, 0x96c7_1027, 0),
        ("G7", "04 000000 00000000 47c17fec", A, 0, 0, 0x47c1_7fec, 0),
        ("G8", "10 000000 00000000 00000000", flag::RDVS, 0, 0, 0, 0),
        ("G8'", "08 0004eb 00000000 00000000", FC, 0x4eb, 0, 0, 0),
        ("G11", "0b 160f22 dc54ac0c 00000000", D | DRF | FC, 0x16_0f22, 0xdc54_ac0c, 0, 0),
        ("G13", "01 000000 000003ec 00000000", D, 0, 0x3ec, 0, 0),
    ];
    for (name, hex, flags, window, seqno, ackno, payload) in vectors {
        let packet = bytes(hex);
        let (header, rest) = Header::decode(&packet).unwrap();
        assert_eq!(header, Header { flags, window, seqno, ackno }, "{name}");
        assert_eq!(rest.len(), payload, "{name}");
        assert_eq!(header.encode(), packet[..HEADER], "{name}");
    }
}

#[test]
fn what_is_shorter_than_a_header_is_none() {
    for length in 0..HEADER {
        assert!(Header::decode(&vec![0xff; length]).is_none());
    }
    let mut flow = connection(1);
    flow.receive(SECOND, &bytes("01 000000 000003ec"));
    assert_eq!((flow.stats().malformed, flow.message()), (1, None));
}

/// The first number of a flow is made of the seed.
fn connection(first: u32) -> Connection {
    Connection::new(config(true, Peer::Prototype), u64::from(first), 0)
}

fn sent(flow: &mut Connection, now: u64) -> Vec<Vec<u8>> {
    let mut packets = vec![];
    loop {
        let mut packet = vec![];
        if !flow.poll_transmit(now, &mut packet) {
            return packets;
        }
        packets.push(packet);
    }
}

/// The captured exchange, with us as the client; the packets of the server are the captured ones.
#[test]
fn we_say_in_the_captured_exchange_what_the_prototype_said() {
    let mut client = connection(0x96c7_1024);
    client.write(0, &bytes("6400000000000000")).unwrap();
    assert_eq!(sent(&mut client, 0), [bytes("03 000000 96c71024 00000000 6400000000000000")]);
    client.receive(2 * MS, &bytes("0f c71125 b3d51464 96c71025 6400000000000000"));
    assert_eq!(client.message(), Some(&bytes("6400000000000000")[..]));
    client.consume();
    assert!(sent(&mut client, 2 * MS).is_empty());
    let due = client.deadline().unwrap();
    assert!(due <= 4 * MS);
    client.timeout(due);
    assert_eq!(sent(&mut client, due), [bytes("0c d51565 00000000 b3d51465")]);
    client.write(100 * MS, &bytes("6400000001000000")).unwrap();
    client.write(100 * MS, &bytes("6400000002000000")).unwrap();
    let two =
        [bytes("0f d51565 96c71025 b3d51465 6400000001000000"), bytes("0d d51565 96c71026 b3d51465 6400000002000000")];
    assert_eq!(sent(&mut client, 100 * MS), two);
    // Both lost: the oldest goes again, with its DRF.
    let due = client.deadline().unwrap();
    assert!(due >= 120 * MS);
    client.timeout(due);
    assert_eq!(sent(&mut client, due), two[..1]);
    client.receive(due + MS, &bytes("0c c71127 00000000 96c71027"));
    assert_eq!(client.deadline(), None);
    assert_eq!(client.stats().in_flight, 0);
}

/// The same with us as the server.
#[test]
fn we_answer_in_the_captured_exchange_what_the_prototype_answered() {
    let mut server = connection(0xb3d5_1464);
    server.receive(0, &bytes("03 000000 96c71024 00000000 6400000000000000"));
    server.consume();
    server.write(0, &bytes("6400000000000000")).unwrap();
    assert_eq!(sent(&mut server, 0), [bytes("0f c71125 b3d51464 96c71025 6400000000000000")]);
    server.receive(12 * MS, &bytes("0c d51565 00000000 b3d51465"));
    server.receive(112 * MS, &bytes("0d d51565 96c71026 b3d51465 6400000002000000"));
    server.receive(112 * MS, &bytes("0f d51565 96c71025 b3d51465 6400000001000000"));
    server.consume();
    server.consume();
    assert_eq!(sent(&mut server, 112 * MS), [bytes("0c c71127 00000000 96c71027")]);
    // The question, and its answer.
    server.receive(200 * MS, &bytes("10 000000 00000000 00000000"));
    assert_eq!(sent(&mut server, 200 * MS), [bytes("08 c71127 00000000 00000000")]);
}

#[test]
fn mode_u_says_where_it_begins_in_every_packet() {
    let mut flow = Connection::new(config(false, Peer::Prototype), 0xdc54_ac0b, 0);
    flow.receive(0, &bytes("03 000000 00160e21 00000000 aa"));
    flow.consume();
    flow.write(0, b"1").unwrap();
    flow.write(0, b"2").unwrap();
    assert_eq!(sent(&mut flow, 0), [bytes("0b 160f22 dc54ac0b 00000000 31"), bytes("0b 160f22 dc54ac0c 00000000 32"),]);
}

#[test]
fn unknown_flags_are_ignored_and_an_empty_message_is_one() {
    let mut flow = connection(1);
    flow.receive(0, &bytes("e3 000000 000003eb 00000000 aabb"));
    flow.receive(0, &bytes("01 000000 000003ec 00000000"));
    assert_eq!(flow.message(), Some(&[0xaa, 0xbb][..]));
    flow.consume();
    assert_eq!(flow.message(), Some(&[][..]));
}

/// An early bare packet: where our run will begin, and what we have got (H1).
#[test]
fn a_bare_packet_before_our_first_data_tells_our_number() {
    let mut flow = connection(0x0102_0304);
    flow.receive(0, &bytes("03 000000 96c71024 00000000 64"));
    flow.consume();
    assert_eq!(sent(&mut flow, 50 * MS), [bytes("0e c71125 01020304 96c71025")]);
    // A question of such a peer is answered in the same way.
    flow.receive(60 * MS, &bytes("10 000000 00000000 00000000"));
    assert_eq!(sent(&mut flow, 60 * MS), [bytes("0a c71125 01020304 00000000")]);
}

/// G10: what a prototype says that does not know us. A window of 0 and an acknowledgement of 0 mean nothing.
#[test]
fn a_zero_window_of_a_peer_that_does_not_know_us_is_ignored() {
    let mut flow = connection(0x96c7_1024);
    flow.write(0, b"x").unwrap();
    assert_eq!(sent(&mut flow, 0).len(), 1);
    flow.receive(MS, &bytes("0f 000000 fdc19e2e 00000000 64"));
    let stats = flow.stats();
    assert_eq!((stats.window, stats.acknowledged), (63, 0));
}
