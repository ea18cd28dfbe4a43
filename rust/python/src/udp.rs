//! The worker of a UDP layer as a Python object.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ouroboros_frcp::{Config, Peer, Stats};
use ouroboros_io::udp::{Event, FlowCounters, How, LayerCounters, Setup, UdpLayer};
use ouroboros_shm::endpoint::Endpoint;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::guard::new_session;
use crate::relay::settings;

/// A thread that carries the flows of a UDP layer.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct UdpWorker(Mutex<UdpLayer>);

impl UdpWorker {
    fn lock(&self) -> MutexGuard<'_, UdpLayer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl UdpWorker {
    /// Start the thread. Takes over the socket, which is bound.
    #[new]
    fn new(socket: i32) -> PyResult<Self> {
        Ok(UdpWorker(Mutex::new(UdpLayer::start(take_over(socket)?)?)))
    }

    /// Carry a flow: `memory` and `bell` are those of side `side` of the channel of its program, and are taken over. With a
    /// `key` of 32 bytes that no other flow has, packets are encrypted by a `suite`, its number in the handshake;
    /// `reject_replays`: the peer is one of ours.
    #[pyo3(signature = (
        *, memory, bell, side, eid, peer_eid, peer, mtu, crc, timeout, seed, credit, frcp, suite=0, key=None,
        reject_replays=false
    ))]
    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        memory: i32,
        bell: i32,
        side: usize,
        eid: u32,
        peer_eid: u32,
        peer: (String, u16),
        mtu: usize,
        crc: bool,
        timeout: u32,
        seed: u64,
        credit: bool,
        frcp: Option<&Frcp>,
        suite: u16,
        key: Option<&Bound<'_, PyAny>>,
        reject_replays: bool,
    ) -> PyResult<()> {
        let (memory, bell) = (take_over(memory)?, take_over(bell)?);
        // The engine's side is the other one of the program's, whose role it plays.
        let crypto = key.map(|key| new_session(suite, key, 1 - side.min(1), reject_replays)).transpose()?;
        let endpoint = Endpoint::attach(memory, bell, side)?;
        let (peer, frcp) = (address(&peer)?, frcp.map(|frcp| frcp.0));
        self.lock().add(Setup { eid, peer_eid, peer, endpoint, frcp, seed, credit, crypto, crc, timeout, mtu });
        Ok(())
    }

    /// Keep the first packets for an endpoint id that come from an address until `add` or `unreserve`.
    fn reserve(&self, eid: u32, peer: (String, u16)) -> PyResult<()> {
        self.lock().reserve(eid, address(&peer)?);
        Ok(())
    }

    /// Forget what `reserve` kept.
    fn unreserve(&self, eid: u32) {
        self.lock().unreserve(eid);
    }

    /// The peer of a flow deallocated, or `died`.
    fn peer_gone(&self, eid: u32, died: bool) {
        self.lock().peer_gone(eid, died);
    }

    /// Send a management datagram.
    fn send(&self, datagram: &[u8], to: (String, u16)) -> PyResult<()> {
        self.lock().send(datagram, address(&to)?);
        Ok(())
    }

    /// Let this happen to all that is sent from now on.
    #[pyo3(signature = (*, loss, duplicate, reorder, delay, jitter, rate, partition, seed))]
    #[allow(clippy::too_many_arguments)]
    fn set_impairment(
        &self,
        loss: f64,
        duplicate: f64,
        reorder: f64,
        delay: u64,
        jitter: u64,
        rate: u64,
        partition: bool,
        seed: u64,
    ) -> PyResult<()> {
        self.lock().impair(settings([loss, duplicate, reorder], delay, jitter, rate, partition)?, seed);
        Ok(())
    }

    /// The descriptor that is readable while `take_events` has something.
    fn fileno(&self) -> i32 {
        self.lock().news().as_raw_fd()
    }

    /// What has happened since the last time: management datagrams with their senders, and ends of flows with their last
    /// counters.
    #[allow(clippy::type_complexity)]
    fn take_events<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Vec<(Bound<'py, PyBytes>, (String, u16))>, Vec<(u32, &'static str, Bound<'py, PyDict>)>)> {
        let (mut datagrams, mut ends) = (Vec::new(), Vec::new());
        for event in self.lock().take_events() {
            match event {
                Event::Management(data, from) => {
                    let from = (from.ip().to_canonical().to_string(), from.port());
                    datagrams.push((PyBytes::new(py, &data), from));
                }
                Event::Ended(eid, how, counters) => ends.push((eid, name(how), flow_counters(py, *counters)?)),
            }
        }
        Ok((datagrams, ends))
    }

    /// Counters of the layer, and of its flows by endpoint id.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
        let snapshot = py.detach(|| self.lock().snapshot());
        let flows = PyDict::new(py);
        for (eid, counters) in snapshot.flows {
            flows.set_item(eid, flow_counters(py, counters)?)?;
        }
        Ok((layer_counters(py, snapshot.layer)?, flows))
    }

    /// End the thread and all flows of the layer.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.lock().stop());
    }
}

/// How FRCP works on a flow.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct Frcp(Config);

#[pymethods]
impl Frcp {
    /// `own`: the peer is a node of ours, which can `sack` and take `fragments`, and packets up to `window` beyond the last
    /// one read. `max_packet`: bytes, header included. `mpl`: nanoseconds.
    #[new]
    #[pyo3(signature = (*, reliable, own, sack, fragments, window, max_packet, mpl))]
    fn new(reliable: bool, own: bool, sack: bool, fragments: bool, window: u32, max_packet: usize, mpl: u64) -> Self {
        let peer = if own { Peer::Own { sack, fragments, window } } else { Peer::Reference };
        Frcp(Config { reliable, peer, max_packet, mpl, rtt: None })
    }
}

fn take_over(descriptor: i32) -> PyResult<OwnedFd> {
    if descriptor < 0 {
        return Err(PyValueError::new_err("not a descriptor"));
    }
    // SAFETY: the caller gives the descriptor up.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn address((ip, port): &(String, u16)) -> PyResult<SocketAddr> {
    let ip: IpAddr = ip.parse().map_err(|_| PyValueError::new_err(format!("{ip:?} is no IP address")))?;
    Ok(SocketAddr::new(ip, *port))
}

fn name(how: How) -> &'static str {
    match how {
        How::Closed => "closed",
        How::Died => "died",
        How::Gone => "gone",
        How::Peer => "peer",
        How::Down => "down",
    }
}

fn layer_counters(py: Python<'_>, counters: LayerCounters) -> PyResult<Bound<'_, PyDict>> {
    let LayerCounters { received, calls, errors, unknown, wrong_source, short, refused, lost, duplicated, reordered } =
        counters;
    dict(
        py,
        &[
            ("received", received),
            ("calls", calls),
            ("errors", errors),
            ("unknown", unknown),
            ("wrong_source", wrong_source),
            ("short", short),
            ("refused", refused),
            ("lost", lost),
            ("duplicated", duplicated),
            ("reordered", reordered),
        ],
    )
}

fn flow_counters(py: Python<'_>, counters: FlowCounters) -> PyResult<Bound<'_, PyDict>> {
    let FlowCounters {
        sent,
        sent_bytes,
        received,
        received_bytes,
        delivered,
        overrun,
        damaged,
        rejected,
        replayed,
        too_long,
        frcp,
    } = counters;
    let counters = dict(
        py,
        &[
            ("sent", sent),
            ("sent_bytes", sent_bytes),
            ("received", received),
            ("received_bytes", received_bytes),
            ("delivered", delivered),
            ("overrun", overrun),
            ("damaged", damaged),
            ("rejected", rejected),
            ("replayed", replayed),
            ("too_long", too_long),
        ],
    )?;
    if let Some(stats) = frcp {
        counters.update(frcp_counters(py, stats)?.as_mapping())?;
    }
    Ok(counters)
}

fn frcp_counters(py: Python<'_>, stats: Stats) -> PyResult<Bound<'_, PyDict>> {
    dict(
        py,
        &[
            ("frcp_data_sent", stats.data_sent),
            ("frcp_retransmitted", stats.retransmitted),
            ("frcp_bare_sent", stats.bare_sent),
            ("frcp_data_received", stats.data_received),
            ("frcp_bare_received", stats.bare_received),
            ("frcp_duplicates", stats.duplicates),
            ("frcp_rejected", stats.rejected),
            ("frcp_skipped", stats.skipped),
            ("frcp_acknowledged_bytes", stats.acknowledged),
            ("frcp_lost", stats.lost),
            ("frcp_spurious", stats.spurious),
            ("frcp_timeouts", stats.timeouts),
            ("frcp_rtt_ns", stats.rtt),
            ("frcp_min_rtt_ns", stats.min_rtt),
            ("frcp_in_flight_bytes", stats.in_flight),
            ("frcp_congestion_window_bytes", stats.congestion_window),
            ("frcp_bandwidth_bytes_s", stats.bandwidth),
            ("frcp_window_packets", u64::from(stats.window)),
            ("frcp_unsent_bytes", stats.unsent),
        ],
    )
}

fn dict<'py>(py: Python<'py>, entries: &[(&str, u64)]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in entries {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}
