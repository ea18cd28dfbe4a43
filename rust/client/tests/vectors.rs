//! The control messages byte by byte, as the node in Python has them.

use std::collections::HashMap;

use ouroboros_client::message::{
    Answer, Ethernet, Granted, IpcpEntry, Key, NameEntry, OfType, Qos, Request, Settings, Udp, Unicast, decode_answer,
    decode_value,
};

const IPCP: i64 = (1 << 22) + 1;

const RAW: Qos = Qos {
    delay: u32::MAX,
    bandwidth: 0,
    availability: 0,
    loss: 1,
    ber: 1,
    in_order: 0,
    max_gap: u32::MAX,
    cypher_s: 0,
    timeout: 120_000,
};

const DATA: Qos = Qos { delay: 1000, loss: 0, ber: 0, in_order: 1, max_gap: 2000, ..RAW };

fn recorded() -> HashMap<&'static str, Vec<u8>> {
    let lines = include_str!("../../../tests/vectors/control.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, hex)| (name, bytes(hex))).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

#[test]
fn every_request_is_written_as_recorded() {
    let long = "n".repeat(200);
    let local = Settings { kind: "local", hash: 3, of_type: OfType::None };
    let udp = Udp { ip: "192.0.2.1", dns: "0.0.0.0", port: 3435 };
    let udp = Settings { kind: "udp4", hash: 1, of_type: OfType::Udp(udp) };
    let unicast = Unicast {
        addr_size: 4,
        eid_size: 8,
        max_ttl: 255,
        routing: 0,
        link_state: 2,
        directory: 0,
        addr_auth: 0,
        cong_avoid: 0,
        link_state_times: [1, 300, 70_000],
        dht: [10, 20, 86_400, 3, 3600],
    };
    let unicast = Settings { kind: "unicast", hash: 3, of_type: OfType::Unicast(unicast) };
    let ethernet = Ethernet { device: "eth0", ethertype: 0xA001 };
    let ethernet = Settings { kind: "eth-dix", hash: 1, of_type: OfType::Ethernet(ethernet) };
    let paths = [Some("/enc"), None, Some("/key"), None, Some("/crt"), None];
    let requests = [
        ("hello", Request::Hello { program: "oecho", instance: (1 << 48) - 1 }),
        ("alloc", Request::Alloc { name: "naïve", qos: RAW, timeout: Some(20.0) }),
        ("alloc without limit", Request::Alloc { name: "x", qos: DATA, timeout: None }),
        ("accept", Request::Accept { timeout: None }),
        ("accept with limit", Request::Accept { timeout: Some(0.5) }),
        ("join", Request::Join { layer: "lab", qos: RAW, timeout: Some(3.0) }),
        ("dealloc", Request::Dealloc { flow_id: 70_000, side: 1 }),
        ("create name", Request::CreateName { name: &long, policy: "round-robin", security: None }),
        ("create secured name", Request::CreateName { name: "x", policy: "spillover", security: Some(paths) }),
        ("destroy name", Request::DestroyName { name: "x" }),
        ("list names", Request::ListNames),
        ("register name", Request::RegisterName { name: "x", ipcp: IPCP }),
        ("unregister name", Request::UnregisterName { name: "x", ipcp: IPCP }),
        ("bind program", Request::BindProgram { path: "/bin/oecho", name: "x", auto: true, args: &["-l", "--fast"] }),
        ("unbind program", Request::UnbindProgram { program: "oecho", name: "x" }),
        ("bind process", Request::BindProcess { pid: 4711, name: "x" }),
        ("unbind process", Request::UnbindProcess { pid: 4711, name: "x" }),
        ("create ipcp", Request::CreateIpcp { name: "lab0", kind: "broadcast" }),
        ("bootstrap ipcp", Request::BootstrapIpcp { ipcp: IPCP, layer: "lab", settings: local }),
        ("bootstrap udp ipcp", Request::BootstrapIpcp { ipcp: 1, layer: "lab", settings: udp }),
        ("bootstrap unicast ipcp", Request::BootstrapIpcp { ipcp: 1, layer: "campus", settings: unicast }),
        ("bootstrap ethernet ipcp", Request::BootstrapIpcp { ipcp: 1, layer: "segment", settings: ethernet }),
        ("enroll ipcp", Request::EnrollIpcp { ipcp: IPCP, name: "campus" }),
        ("connect ipcp", Request::ConnectIpcp { ipcp: 1, component: "Data Transfer", name: "b", qos: DATA }),
        ("disconnect ipcp", Request::DisconnectIpcp { ipcp: 1, component: "Management", name: "b" }),
        ("destroy ipcp", Request::DestroyIpcp { ipcp: 1 }),
        ("list ipcps", Request::ListIpcps),
    ];
    let recorded = recorded();
    for (name, request) in &requests {
        assert_eq!(request.encode(), recorded[name], "{name}");
    }
    let answers = recorded.keys().filter(|name| name.starts_with("answer: ")).count();
    assert_eq!(requests.len() + answers, recorded.len(), "a recorded message is compared with nothing");
}

#[test]
fn every_answer_is_read_as_recorded() {
    let recorded = recorded();
    let answer = |name: &str| decode_answer(&recorded[name][4..]).expect(name);
    let value = |name: &str| {
        let Answer::Done(packed) = answer(name) else { return Vec::new() };
        packed.to_vec()
    };
    decode_value::<()>(&value("answer: done")).expect("nothing");
    assert_eq!(decode_value::<i64>(&value("answer: id")), Ok(IPCP));
    assert_eq!(answer("answer: failed"), Answer::Failed("FlowNameException".into(), "nobody offers 'x'".into()));
    let granted = Granted { flow_id: 7, qos: DATA, side: 1, max_packet: 1 << 20, cipher: None };
    assert_eq!(answer("answer: granted"), Answer::Granted(granted));
    let key = Key(std::array::from_fn(|at| at as u8).into());
    let granted = Granted { flow_id: 7, qos: DATA, side: 0, max_packet: 1000, cipher: Some((901, key)) };
    assert!(!format!("{granted:?}").contains("31"));
    assert_eq!(answer("answer: encrypted"), Answer::Granted(granted));
    let names: Vec<NameEntry> = decode_value(&value("answer: names")).expect("names");
    assert_eq!((names.len(), &*names[0].name, &*names[0].policy), (1, "x", "spillover"));
    let ipcps: Vec<IpcpEntry> = decode_value(&value("answer: ipcps")).expect("IPC processes");
    assert_eq!((ipcps[0].id, &*ipcps[0].name, &*ipcps[0].kind, &*ipcps[0].layer), (IPCP, "lab0", "local", "lab"));
}

#[test]
fn what_is_no_answer_is_refused() {
    for (name, body) in &recorded() {
        let body = &body[4..];
        if name.starts_with("answer: ") {
            for end in 0..body.len() {
                // Cut short it is refused, or its value is.
                if let Ok(Answer::Done(packed)) = decode_answer(&body[..end]) {
                    assert!(decode_value::<Vec<NameEntry>>(packed).is_err(), "{name} up to {end}");
                }
            }
        } else {
            assert!(decode_answer(body).is_err(), "{name}");
        }
    }
    assert!(decode_answer(&[0x91; 100_000]).is_err());
}
