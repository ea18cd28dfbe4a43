//! Packets that the prototype made, and what is in them.
#![allow(clippy::unwrap_used, clippy::panic)]

use ouroboros_crypto::{Rejected, Replay, Role, Session, Settings, Suite};
use serde_json::Value;

mod common;

use common::{decrypt, next_key, sealed};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/security.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key(value: &Value) -> [u8; 32] {
    bytes(value).try_into().unwrap()
}

fn suite(value: &Value) -> Suite {
    Suite::ALL.into_iter().find(|suite| suite.name() == value.as_str().unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn end(suite: Suite, key: &[u8; 32], rotation_bit: u32) -> Session {
    let settings = Settings { suite, role: Role::Acceptor, replay: Replay::Accept, rotation_bit };
    Session::new(settings, key).unwrap()
}

fn open(session: &mut Session, packet: &[u8]) -> Result<Vec<u8>, Rejected> {
    let mut plain = Vec::new();
    session.open(packet, &mut plain).map(|()| plain)
}

#[test]
fn suites_have_the_numbers_of_the_handshake() {
    for vector in list(&vectors()["packets_fixed_key"]) {
        let nid = vector["nid"].as_u64().unwrap() as u16;
        assert_eq!(Suite::from_nid(nid), Some(suite(&vector["cipher"])));
    }
    assert_eq!(Suite::from_nid(0), None);
    assert_eq!(Suite::from_nid(419), None);
}

#[test]
fn packets_under_a_fixed_key_open() {
    for vector in list(&vectors()["packets_fixed_key"]) {
        let mut session = end(suite(&vector["cipher"]), &key(&vector["key"]), 20);
        assert_eq!(open(&mut session, &bytes(&vector["packet"])), Ok(bytes(&vector["plaintext"])), "{vector}");
    }
}

#[test]
fn independent_decryption_reads_what_we_seal() {
    for vector in list(&vectors()["packets_fixed_key"]) {
        let (suite, key, plain) = (suite(&vector["cipher"]), key(&vector["key"]), bytes(&vector["plaintext"]));
        assert_eq!(decrypt(suite, &key, &bytes(&vector["packet"])), Some(plain.clone()), "the check itself");

        let packet = sealed(&mut end(suite, &key, 20), &plain);

        assert_eq!(packet.len(), plain.len() + suite.overhead());
        assert_eq!(packet[0] >> 7, 0);
        assert_eq!(decrypt(suite, &key, &packet), Some(plain));
    }
}

#[test]
fn packets_of_captured_handshakes_open() {
    let vectors = vectors();
    let mut handshakes = vec![&vectors["handshake_p256"]];
    for kind in ["handshakes_by_cipher", "handshakes_by_kex", "handshakes_by_kdf"] {
        handshakes.extend(list(&vectors[kind]));
    }
    for handshake in handshakes {
        let mut session = end(suite(&handshake["cipher"]), &key(&handshake["key"]), 20);
        for packet in list(&handshake["packets"]) {
            let data = bytes(&packet["udp"]).split_off(4);
            assert_eq!(open(&mut session, &data), Ok(bytes(&packet["plaintext"])), "{handshake}");
        }
    }
}

#[test]
fn rotation_of_the_prototype_is_followed() {
    let vector = &vectors()["rotation"];
    let mut session = end(Suite::Aes256Gcm, &key(&vector["initial_key"]), 2);
    for packet in list(&vector["packets"]) {
        assert_eq!(open(&mut session, &bytes(&packet["packet"])), Ok(bytes(&packet["plaintext"])), "{packet}");
        assert_eq!(session.epoch(), packet["epoch"].as_u64().unwrap());
    }
}

#[test]
fn we_rotate_through_the_keys_of_the_prototype() {
    let vector = &vectors()["rotation"];
    let keys: Vec<[u8; 32]> = list(&vector["keys"]).iter().map(key).collect();
    assert_eq!(next_key(&key(&vector["rotation_salt"]), &keys[0]), keys[1], "the check itself");
    let mut session = end(Suite::Aes256Gcm, &keys[0], 2);
    for number in 0..16u8 {
        let epoch = usize::from(number / 4);
        let packet = sealed(&mut session, &[number]);
        assert_eq!(usize::from(packet[0] >> 7), epoch % 2);
        assert_eq!(decrypt(Suite::Aes256Gcm, &keys[epoch], &packet), Some(vec![number]));
    }
}

#[test]
fn live_rotation_with_its_misleading_phase_is_read() {
    let vector = &vectors()["rotation_live"];
    for sender in ["client", "server"] {
        let mut session = end(Suite::Aes256Gcm, &key(&vector["keys"][0]), 5);
        for packet in list(&vector["packets"]).iter().filter(|packet| packet["frm"] == sender) {
            assert_eq!(open(&mut session, &bytes(&packet["packet"])), Ok(bytes(&packet["plaintext"])), "{packet}");
            assert_eq!(session.epoch(), packet["epoch"].as_u64().unwrap());
        }
    }
}

#[test]
fn frcp_packets_open_and_the_broken_retransmission_is_dropped() {
    let vector = &vectors()["frcp_encrypted"];
    let mut session = end(suite(&vector["cipher"]), &key(&vector["key"]), 20);
    let mut broken = 0;
    for packet in list(&vector["packets"]) {
        let result = open(&mut session, &bytes(&packet["packet"]));
        if packet["plaintext"].is_string() {
            assert_eq!(result, Ok(bytes(&packet["plaintext"])));
        } else {
            assert_eq!(result, Err(Rejected::Forged));
            broken += 1;
        }
    }
    assert_eq!((broken, session.counters().forged), (1, 1));
}
