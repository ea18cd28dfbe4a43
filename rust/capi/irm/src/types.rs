//! Arguments and results of C programs: layouts and numbers.

use std::ffi::{CStr, c_int};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::pid_t;
use ouroboros_client::message::{Ethernet, IpcpEntry, NameEntry, Qos, Unicast};

/// The words that the node knows the types of IPC processes by, in the order of their numbers.
const TYPES: [&str; 7] = ["local", "unicast", "broadcast", "eth-llc", "eth-dix", "udp4", "udp6"];
const UNICAST: c_int = 1;
const ETH_LLC: c_int = 3;
const ETH_DIX: c_int = 4;
const UDP4: c_int = 5;
const UDP6: c_int = 6;

/// Directory hashes, by number: SHA3-224, SHA3-256, SHA3-384, SHA3-512.
const HASHES: std::ops::Range<u64> = 0..4;

/// The ethertype of layers, if none is said.
const ETHERTYPE: u16 = 0xA000;

/// SHA3-256.
pub const DEFAULT_HASH: u64 = 1;

const POLICIES: [&str; 2] = ["round-robin", "spillover"];

/// The name in the prototype for the layer of an IPC process that is in none.
const NO_LAYER: &str = "Not enrolled.";

pub fn type_word(number: c_int) -> Option<&'static str> {
    TYPES.get(usize::try_from(number).ok()?).copied()
}

/// The number of a directory hash.
pub fn hash(number: c_int) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| HASHES.contains(number))
}

pub fn policy_word(number: c_int) -> Option<&'static str> {
    POLICIES.get(usize::try_from(number).ok()?).copied()
}

/// The text in a field; None when it does not end there, or is no UTF-8.
fn read(field: &[u8]) -> Option<&str> {
    CStr::from_bytes_until_nul(field).ok()?.to_str().ok()
}

/// A field with a text, as much of it as fits before the zero byte.
fn field<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let length = text.len().min(LENGTH - 1);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    bytes
}

/// `qosspec_t`, which is passed by value.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct QosSpec {
    delay: u32,
    bandwidth: u64,
    availability: u8,
    loss: u32,
    ber: u32,
    in_order: u8,
    max_gap: u32,
    timeout: u32,
}

impl From<QosSpec> for Qos {
    fn from(qos: QosSpec) -> Self {
        Qos {
            delay: qos.delay,
            bandwidth: qos.bandwidth,
            availability: qos.availability,
            loss: qos.loss,
            ber: qos.ber,
            in_order: qos.in_order,
            max_gap: qos.max_gap,
            // It has no field for it.
            cypher_s: 0,
            timeout: qos.timeout,
        }
    }
}

/// `struct ipcp_list_info`.
#[repr(C)]
pub struct IpcpListInfo {
    pid: pid_t,
    kind: c_int,
    name: [u8; 255],
    layer: [u8; 255],
}

impl IpcpListInfo {
    pub fn new(entry: &IpcpEntry) -> Self {
        IpcpListInfo {
            // The node gives ids that fit: above all pids, and counted.
            pid: pid_t::try_from(entry.id).unwrap_or_default(),
            kind: TYPES.iter().position(|word| *word == entry.kind).unwrap_or(TYPES.len()) as c_int,
            name: field(&entry.name),
            layer: field(if entry.layer.is_empty() { NO_LAYER } else { &entry.layer }),
        }
    }

    /// Listings are sorted by that.
    pub fn order(&self) -> (c_int, pid_t) {
        (self.kind, self.pid)
    }
}

/// The files of one side of a name: encryption, key, certificate.
type SecurityPaths = [[u8; 512]; 3];

/// `struct name_info`.
#[repr(C)]
pub struct NameInfo {
    name: [u8; 256],
    pub policy: c_int,
    server: SecurityPaths,
    client: SecurityPaths,
}

impl NameInfo {
    pub fn new(entry: &NameEntry) -> Self {
        NameInfo {
            name: field(&entry.name),
            policy: c_int::from(entry.policy != POLICIES[0]),
            server: [[0; 512]; 3],
            client: [[0; 512]; 3],
        }
    }

    pub fn name(&self) -> Option<&str> {
        read(&self.name)
    }

    /// Encryption settings, certificate and key of those who accept, then of those who allocate, in the order of the message;
    /// None when one is no text.
    pub fn paths(&self) -> Option<[Option<&str>; 6]> {
        let [server_settings, server_key, server_certificate] = &self.server;
        let [client_settings, client_key, client_certificate] = &self.client;
        let server = [server_settings, server_certificate, server_key];
        let client = [client_settings, client_certificate, client_key];
        let mut paths = [None; 6];
        for (target, field) in paths.iter_mut().zip(server.into_iter().chain(client)) {
            *target = Some(read(field)?).filter(|path| !path.is_empty());
        }
        Some(paths)
    }
}

/// The part of `struct ipcp_config` that depends on the type, as bytes.
#[repr(C, align(8))]
struct Settings([u8; 264]);

/// `struct ipcp_config`.
#[repr(C)]
pub struct IpcpConfig {
    layer_name: [u8; 256],
    pub hash: c_int,
    pub kind: c_int,
    settings: Settings,
}

impl IpcpConfig {
    pub fn layer_name(&self) -> Option<&str> {
        read(&self.layer_name)
    }

    /// Our address, that of a name server, and the port, of a layer over UDP.
    pub fn udp(&self) -> Option<(IpAddr, IpAddr, u16)> {
        match self.kind {
            UDP4 => Some((self.ipv4(0), self.ipv4(4), u16::from_ne_bytes(self.bytes(8)))),
            UDP6 => Some((self.ipv6(0), self.ipv6(16), u16::from_ne_bytes(self.bytes(32)))),
            _ => None,
        }
    }

    /// Whether it is for a unicast layer.
    pub fn is_unicast(&self) -> bool {
        self.kind == UNICAST
    }

    /// Settings of a unicast layer, as `struct uni_config` has them; None when one of its policies is none.
    pub fn unicast(&self) -> Option<Unicast> {
        let policy =
            |at, count| Some(i64::from(c_int::from_ne_bytes(self.bytes(at)))).filter(|each| (0..count).contains(each));
        let count = |at| i64::from(u32::from_ne_bytes(self.bytes(at)));
        let seconds = |at| i64::from_ne_bytes(self.bytes(at));
        let [addr_size, eid_size, max_ttl] = self.bytes(0);
        Some(Unicast {
            addr_size,
            eid_size,
            max_ttl,
            routing: policy(8, 1)?,
            link_state: policy(16, 3)?,
            link_state_times: [24, 32, 40].map(seconds),
            directory: policy(48, 1)?,
            // The address of a first peer follows, which belongs to the inside of the prototype.
            dht: [56, 60, 64, 68, 72].map(count),
            addr_auth: policy(88, 1)?,
            cong_avoid: policy(92, 2)?,
        })
    }

    /// Whether it is for a layer on an Ethernet segment.
    pub fn is_ethernet(&self) -> bool {
        [ETH_LLC, ETH_DIX].contains(&self.kind)
    }

    /// Settings of such a layer; None when the name of its device is no text.
    pub fn ethernet(&self) -> Option<Ethernet<'_>> {
        // LLC has none, and C programs leave it out.
        let ethertype = if self.kind == ETH_LLC { ETHERTYPE } else { u16::from_ne_bytes(self.bytes(256)) };
        Some(Ethernet { device: read(&self.settings.0[..256])?, ethertype })
    }

    fn ipv4(&self, at: usize) -> IpAddr {
        Ipv4Addr::from(self.bytes::<4>(at)).into()
    }

    fn ipv6(&self, at: usize) -> IpAddr {
        Ipv6Addr::from(self.bytes::<16>(at)).into()
    }

    fn bytes<const COUNT: usize>(&self, at: usize) -> [u8; COUNT] {
        std::array::from_fn(|index| self.settings.0[at + index])
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn structures_are_laid_out_as_in_c() {
        assert_eq!(size_of::<QosSpec>(), 40);
        assert_eq!(size_of::<IpcpListInfo>(), 520);
        assert_eq!(offset_of!(IpcpListInfo, layer), 263);
        assert_eq!(size_of::<NameInfo>(), 3332);
        assert_eq!(offset_of!(NameInfo, client), 1796);
        assert_eq!(size_of::<IpcpConfig>(), 528);
        assert_eq!(offset_of!(IpcpConfig, settings), 264);
    }

    #[test]
    fn a_field_without_an_end_is_no_text() {
        assert_eq!(read(b"abc\0d"), Some("abc"));
        assert_eq!(read(b"abc"), None);
        assert_eq!(field::<4>("abcdef"), *b"abc\0");
    }
}
