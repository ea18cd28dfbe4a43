//! Messages over the control socket: those of `ouroboros.wire.control`, as msgpack behind a 4-byte length.
//!
//! A message is an array: the name of its type, then its fields in order. What else comes behind the fields that are known
//! here is ignored, so that a newer node of the same version may add to them.

use rmp::decode::{read_array_len, read_bin_len, read_int, read_str_from_slice};
use rmp::encode::{
    write_array_len, write_bool, write_f64, write_map_len, write_nil, write_sint, write_str, write_uint,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::time::PATIENCE;

/// The version of the messages. A node that speaks another one says so.
pub const VERSION: u64 = 12;

/// The `mtu` of unicast layers, if none is said.
const MTU: i64 = 1280;

/// The largest answer, bytes.
pub const MESSAGE_LENGTH: usize = 64 << 20;

/// Quality of service, in the order of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Qos {
    /// ms
    pub delay: u32,
    /// bit/s
    pub bandwidth: u64,
    /// Number of nines.
    pub availability: u8,
    /// 0: none is allowed.
    pub loss: u32,
    /// 0: none is allowed.
    pub ber: u32,
    /// 0 or 1.
    pub in_order: u8,
    /// ms
    pub max_gap: u32,
    /// Bits.
    pub cypher_s: u32,
    /// ms, 0 for none.
    pub timeout: u32,
}

/// A request to the node. The Python messages of the same names say what they do.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Request<'a> {
    Hello { program: &'a str, instance: u64 },
    Alloc { name: &'a str, qos: Qos, timeout: Option<f64> },
    Accept { timeout: Option<f64> },
    Join { layer: &'a str, qos: Qos, timeout: Option<f64> },
    Dealloc { flow_id: u64, side: u64 },
    CreateName { name: &'a str, policy: &'a str, security: Option<NameSecurity<'a>> },
    DestroyName { name: &'a str },
    ListNames,
    RegisterName { name: &'a str, ipcp: i64 },
    UnregisterName { name: &'a str, ipcp: i64 },
    BindProgram { path: &'a str, name: &'a str, auto: bool, args: &'a [&'a str] },
    UnbindProgram { program: &'a str, name: &'a str },
    BindProcess { pid: i64, name: &'a str },
    UnbindProcess { pid: i64, name: &'a str },
    CreateIpcp { name: &'a str, kind: &'a str },
    BootstrapIpcp { ipcp: i64, layer: &'a str, settings: Settings<'a> },
    EnrollIpcp { ipcp: i64, name: &'a str },
    ConnectIpcp { ipcp: i64, component: &'a str, name: &'a str, qos: Qos },
    DisconnectIpcp { ipcp: i64, component: &'a str, name: &'a str },
    DestroyIpcp { ipcp: i64 },
    ListIpcps,
}

/// Absolute paths of encryption settings, certificate and key: of those who accept, then of those who allocate. None: the
/// usual place.
pub type NameSecurity<'a> = [Option<&'a str>; 6];

/// The settings of an IPC process of one type at bootstrap (`ouroboros.settings`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings<'a> {
    /// "local", "udp4" and so on.
    pub kind: &'a str,
    /// Number of the directory hash.
    pub hash: u64,
    /// Settings of some types only.
    pub of_type: OfType<'a>,
}

/// Settings that belong to the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfType<'a> {
    /// There are none.
    None,
    /// Of a layer over UDP.
    Udp(Udp<'a>),
    /// Of a unicast layer.
    Unicast(Unicast),
    /// Of a layer on an Ethernet segment.
    Ethernet(Ethernet<'a>),
}

/// Settings of a unicast layer, in the order of `ouroboros.settings`. The node checks them. Of those that the prototype does
/// not have, C programs get the default: its `mtu`, and that anyone may enroll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unicast {
    pub addr_size: u8,
    pub eid_size: u8,
    pub max_ttl: u8,
    /// Numbers of policies.
    pub routing: i64,
    pub link_state: i64,
    pub directory: i64,
    pub addr_auth: i64,
    pub cong_avoid: i64,
    /// Seconds: `t_recalc`, `t_update`, `t_timeo`.
    pub link_state_times: [i64; 3],
    /// `alpha`, `k`, and seconds: `t_expire`, `t_refresh`, `t_replicate`.
    pub dht: [i64; 5],
}

/// Settings of a layer over UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Our address.
    pub ip: &'a str,
    /// A name server; the unspecified address stands for none.
    pub dns: &'a str,
    /// UDP port.
    pub port: u16,
}

/// Settings of a layer on an Ethernet segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet<'a> {
    /// The network device.
    pub device: &'a str,
    /// Of DIX frames.
    pub ethertype: u16,
}

/// The answer of the node to a request.
#[derive(Debug, PartialEq)]
pub enum Answer<'a> {
    /// It is done; the value, still packed.
    Done(&'a [u8]),
    /// It is not done: the class of the exception in Python, and the reason.
    Failed(String, String),
    /// A flow.
    Granted(Granted),
}

/// A flow that the node gave out. Two descriptors come along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Number of the flow.
    pub flow_id: u64,
    /// The QoS that the allocating side asked for.
    pub qos: Qos,
    /// 0 or 1.
    pub side: u64,
    /// The longest message that the flow takes, bytes.
    pub max_packet: u64,
    /// When it is the programs that encrypt: the number of the cipher, and its key.
    pub cipher: Option<(u16, Key)>,
}

/// A key: wiped when it is dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Key")
    }
}

/// A name, of a listing.
#[derive(Debug, Deserialize)]
pub struct NameEntry {
    /// The name itself.
    pub name: String,
    /// "round-robin" or "spillover".
    pub policy: String,
}

/// An IPC process, of a listing.
#[derive(Debug, Deserialize)]
pub struct IpcpEntry {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// "local", "udp4" and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Empty as long as it is in no layer.
    pub layer: String,
}

/// One field of a message.
enum Field<'a> {
    Text(&'a str),
    Unsigned(u64),
    Signed(i64),
    Flag(bool),
    Seconds(Option<f64>),
    Qos(Qos),
    Texts(&'a [&'a str]),
    Settings(Settings<'a>),
    Security(Option<NameSecurity<'a>>),
    Nothing,
}

impl Request<'_> {
    /// The message as it goes over the socket, length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        let (kind, fields) = self.parts();
        array(&mut out, fields.len() + 1);
        string(&mut out, kind);
        for field in &fields {
            field.encode(&mut out);
        }
        let length = (out.len() - 4) as u32;
        out[..4].copy_from_slice(&length.to_be_bytes());
        out
    }

    /// Seconds that the node may take for it; None when it may wait for ever.
    pub(crate) fn limit(&self) -> Option<f64> {
        match *self {
            Request::Alloc { timeout, .. } | Request::Accept { timeout } | Request::Join { timeout, .. } => timeout,
            _ => Some(PATIENCE.as_secs_f64()),
        }
    }

    /// The same with what is left of its time.
    pub(crate) fn within(&self, seconds: f64) -> Self {
        let mut request = self.clone();
        if let Request::Alloc { timeout: Some(limit), .. }
        | Request::Accept { timeout: Some(limit) }
        | Request::Join { timeout: Some(limit), .. } = &mut request
        {
            *limit = limit.min(seconds).max(0.0);
        }
        request
    }

    fn parts(&self) -> (&'static str, Vec<Field<'_>>) {
        use Field::{Flag, Nothing, Seconds, Security, Signed, Text, Texts, Unsigned};
        match *self {
            Request::Hello { program, instance } => {
                ("Hello", vec![Unsigned(VERSION), Text(program), Unsigned(instance)])
            }
            Request::Alloc { name, qos, timeout } => {
                // Last: whether to wait until somebody serves the name. C programs can ask neither for that nor for a layer.
                ("Alloc", vec![Text(name), Field::Qos(qos), Seconds(timeout), Flag(false), Nothing])
            }
            Request::Accept { timeout } => ("Accept", vec![Nothing, Seconds(timeout)]),
            Request::Join { layer, qos, timeout } => ("Join", vec![Text(layer), Field::Qos(qos), Seconds(timeout)]),
            Request::Dealloc { flow_id, side } => ("Dealloc", vec![Unsigned(flow_id), Unsigned(side)]),
            Request::CreateName { name, policy, security } => {
                ("CreateName", vec![Text(name), Text(policy), Security(security)])
            }
            Request::DestroyName { name } => ("DestroyName", vec![Text(name)]),
            Request::ListNames => ("ListNames", vec![]),
            Request::RegisterName { name, ipcp } => ("RegisterName", vec![Text(name), Signed(ipcp)]),
            Request::UnregisterName { name, ipcp } => ("UnregisterName", vec![Text(name), Signed(ipcp)]),
            Request::BindProgram { path, name, auto, args } => {
                ("BindProgram", vec![Text(path), Text(name), Flag(auto), Texts(args)])
            }
            Request::UnbindProgram { program, name } => ("UnbindProgram", vec![Text(program), Text(name)]),
            Request::BindProcess { pid, name } => ("BindProcess", vec![Signed(pid), Text(name)]),
            Request::UnbindProcess { pid, name } => ("UnbindProcess", vec![Signed(pid), Text(name)]),
            Request::CreateIpcp { name, kind } => ("CreateIpcp", vec![Text(name), Text(kind)]),
            Request::BootstrapIpcp { ipcp, layer, settings } => {
                ("BootstrapIpcp", vec![Signed(ipcp), Text(layer), Field::Settings(settings)])
            }
            Request::EnrollIpcp { ipcp, name } => {
                // C programs say no layers to enroll or to connect over.
                ("EnrollIpcp", vec![Signed(ipcp), Text(name), Flag(false), Seconds(None), Texts(&[])])
            }
            Request::ConnectIpcp { ipcp, component, name, qos } => {
                ("ConnectIpcp", vec![Signed(ipcp), Text(component), Text(name), Field::Qos(qos), Text("")])
            }
            Request::DisconnectIpcp { ipcp, component, name } => {
                ("DisconnectIpcp", vec![Signed(ipcp), Text(component), Text(name)])
            }
            Request::DestroyIpcp { ipcp } => ("DestroyIpcp", vec![Signed(ipcp)]),
            Request::ListIpcps => ("ListIpcps", vec![]),
        }
    }
}

impl Field<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Field::Text(text) => string(out, text),
            Field::Unsigned(number) => done(write_uint(out, number)),
            Field::Signed(number) => done(write_sint(out, number)),
            Field::Flag(flag) => done(write_bool(out, flag)),
            Field::Seconds(Some(seconds)) => done(write_f64(out, seconds)),
            Field::Qos(qos) => encode_qos(out, qos),
            Field::Texts(texts) => {
                array(out, texts.len());
                texts.iter().for_each(|text| string(out, text));
            }
            Field::Settings(settings) => settings.encode(out),
            Field::Security(Some(paths)) => {
                array(out, paths.len());
                for path in paths {
                    match path {
                        Some(path) => string(out, path),
                        None => done(write_nil(out)),
                    }
                }
            }
            Field::Seconds(None) | Field::Security(None) | Field::Nothing => done(write_nil(out)),
        }
    }
}

impl Settings<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        array(out, 3 + usize::from(self.of_type != OfType::None));
        string(out, self.kind);
        done(write_uint(out, self.hash));
        // No impairment, which C programs cannot ask for.
        done(write_nil(out));
        match self.of_type {
            OfType::None => {}
            OfType::Udp(udp) => udp.encode(out),
            OfType::Unicast(unicast) => unicast.encode(out),
            OfType::Ethernet(ethernet) => ethernet.encode(out),
        }
    }
}

impl Udp<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        done(write_map_len(out, 4));
        for (field, text) in [("ip_addr", self.ip), ("dns_addr", self.dns)] {
            string(out, field);
            string(out, text);
        }
        numbers(out, &[("port", self.port.into())]);
        string(out, "peers");
        array(out, 0);
    }
}

impl Ethernet<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        done(write_map_len(out, 2));
        string(out, "dev");
        string(out, self.device);
        numbers(out, &[("ethertype", self.ethertype.into())]);
    }
}

impl Unicast {
    fn encode(&self, out: &mut Vec<u8>) {
        done(write_map_len(out, 5));
        open(out, "dt", 5);
        let sizes = [("addr_size", self.addr_size), ("eid_size", self.eid_size), ("max_ttl", self.max_ttl)];
        numbers(out, &sizes.map(|(field, size)| (field, size.into())));
        open(out, "routing", 2);
        numbers(out, &[("pol", self.routing)]);
        open(out, "ls", 4);
        let [recalc, update, timeo] = self.link_state_times;
        numbers(out, &[("pol", self.link_state), ("t_recalc", recalc), ("t_update", update), ("t_timeo", timeo)]);
        numbers(out, &[("mtu", MTU)]);
        open(out, "dir", 2);
        numbers(out, &[("pol", self.directory)]);
        open(out, "dht", 5);
        let [alpha, k, expire, refresh, replicate] = self.dht;
        let dht =
            [("alpha", alpha), ("k", k), ("t_expire", expire), ("t_refresh", refresh), ("t_replicate", replicate)];
        numbers(out, &dht);
        numbers(out, &[("addr_auth", self.addr_auth), ("cong_avoid", self.cong_avoid)]);
        string(out, "enroll");
        array(out, 1);
        string(out, "anyone");
    }
}

/// A field that is a map with so many fields.
fn open(out: &mut Vec<u8>, field: &str, length: u32) {
    string(out, field);
    done(write_map_len(out, length));
}

/// Fields of a map.
fn numbers(out: &mut Vec<u8>, fields: &[(&str, i64)]) {
    for (field, number) in fields {
        string(out, field);
        done(write_sint(out, *number));
    }
}

fn encode_qos(out: &mut Vec<u8>, qos: Qos) {
    let fields = [
        qos.delay.into(),
        qos.bandwidth,
        qos.availability.into(),
        qos.loss.into(),
        qos.ber.into(),
        qos.in_order.into(),
        qos.max_gap.into(),
        qos.cypher_s.into(),
        qos.timeout.into(),
    ];
    array(out, fields.len());
    for field in fields {
        done(write_uint(out, field));
    }
}

fn array(out: &mut Vec<u8>, length: usize) {
    done(write_array_len(out, length as u32));
}

fn string(out: &mut Vec<u8>, text: &str) {
    done(write_str(out, text));
}

/// Writing into memory does not fail.
fn done<T, E>(result: Result<T, E>) {
    debug_assert!(result.is_ok());
}

/// Parse an answer.
pub fn decode_answer(body: &[u8]) -> Result<Answer<'_>, Error> {
    let mut rest = body;
    let length = read_array_len(&mut rest).map_err(strange)?;
    let (kind, rest) = read_str_from_slice(rest).map_err(strange)?;
    match kind {
        "Done" if length >= 2 => Ok(Answer::Done(rest)),
        "Failed" if length >= 3 => {
            let (error, rest) = read_str_from_slice(rest).map_err(strange)?;
            let (text, _) = read_str_from_slice(rest).map_err(strange)?;
            Ok(Answer::Failed(error.to_owned(), text.to_owned()))
        }
        "Granted" if length >= 8 => decode_granted(rest).map(Answer::Granted),
        _ => Err(strange(format!("{kind:?} with {length} parts"))),
    }
}

fn decode_granted(rest: &[u8]) -> Result<Granted, Error> {
    let mut fields = rmp_serde::Deserializer::new(rest);
    let (flow_id, qos) = (field(&mut fields)?, field(&mut fields)?);
    let (side, max_packet) = (field(&mut fields)?, field(&mut fields)?);
    field::<IgnoredAny>(&mut fields)?;
    let mut rest = *fields.get_ref();
    let suite = read_int(&mut rest).map_err(strange)?;
    let length = read_bin_len(&mut rest).map_err(strange)? as usize;
    let key = rest.get(..length).ok_or_else(|| strange("it is cut off"))?;
    Ok(Granted { flow_id, qos, side, max_packet, cipher: cipher(suite, key)? })
}

fn cipher(suite: u16, key: &[u8]) -> Result<Option<(u16, Key)>, Error> {
    if suite == 0 {
        return Ok(None);
    }
    let mut copy = Zeroizing::new([0; 32]);
    if key.len() != copy.len() {
        return Err(strange("its key has another length"));
    }
    copy.copy_from_slice(key);
    Ok(Some((suite, Key(copy))))
}

fn field<T: DeserializeOwned>(
    fields: &mut rmp_serde::Deserializer<rmp_serde::decode::ReadReader<&[u8]>>,
) -> Result<T, Error> {
    T::deserialize(fields).map_err(strange)
}

/// The value of a `Done`.
pub fn decode_value<T: DeserializeOwned>(packed: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(packed).map_err(strange)
}

fn strange(why: impl std::fmt::Display) -> Error {
    Error::Protocol(format!("the node sent something that is no answer: {why}"))
}
