//! Nodes in virtual time as Python objects.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ouroboros_shm::endpoint::Error;
use ouroboros_shm::layout::MAX_PACKET;
use ouroboros_sim::stack::ring::End;
use ouroboros_sim::stack::{Stack, TransferSettings, User};
use ouroboros_sim::{Network, Program, Queue, Tally};
use pyo3::exceptions::{PyIndexError, PyKeyError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::engine::{Counters, News, Setup, Where, address, dict, kind, note, snapshot_of, table};
use crate::errors::flow_error;
use crate::impairment::LinkSettings;

/// The number by which the kernel says that an address is taken.
const ADDRESS_IN_USE: i32 = 98;

/// Nodes, the links between them, and time that passes when it is told to. Nodes have numbers from 0.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct Simulation(Arc<Mutex<Network>>);

/// What a node has in the place of an engine, with the same verbs.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct SimulatedEngine {
    network: Arc<Mutex<Network>>,
    node: usize,
}

fn lock(network: &Mutex<Network>) -> MutexGuard<'_, Network> {
    network.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error_of(end: End, length: usize) -> PyErr {
    let error = match end {
        End::Closed => Error::PeerClosed,
        End::Died => Error::PeerDead,
        End::Down => Error::Down,
        End::Refused => Error::Refused,
    };
    flow_error(error, length)
}

#[pymethods]
impl Simulation {
    #[new]
    fn new() -> Self {
        Simulation(Arc::default())
    }

    /// One node more, by its engine.
    fn add_node(&self) -> SimulatedEngine {
        SimulatedEngine { network: Arc::clone(&self.0), node: lock(&self.0).add_node() }
    }

    /// Nanoseconds since it began.
    #[getter]
    fn now(&self) -> u64 {
        lock(&self.0).now()
    }

    /// Let time pass until `until`, or to the first instant with news for some node, or for a program that is watched. The
    /// time, and the news of nodes, as of `Engine.take_events`.
    fn run<'py>(&self, py: Python<'py>, until: u64) -> PyResult<(u64, Vec<(usize, News<'py>)>)> {
        let (now, events) = py.detach(|| lock(&self.0).run(until));
        let mut all: Vec<(usize, News<'py>)> = Vec::new();
        for (node, event) in events {
            if all.last().is_none_or(|(last, _)| *last != node) {
                all.push((node, News::default()));
            }
            if let Some((_, news)) = all.last_mut() {
                note(py, news, event)?;
            }
        }
        Ok((now, all))
    }

    /// Datagrams `sent`, that `arrived`, had no target (`astray`), were `lost` or `duplicated` on links; programs and nodes
    /// `woken`; nodes that were never through (`stuck`).
    fn counted<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let it = lock(&self.0).counted();
        let each = [
            ("sent", it.sent),
            ("arrived", it.arrived),
            ("astray", it.astray),
            ("lost", it.lost),
            ("duplicated", it.duplicated),
            ("woken", it.woken),
            ("stuck", it.stuck),
        ];
        dict(py, each)
    }

    /// Where all packets are: those `sent`, `duplicated`, `received` and `queued`, and those dropped, by the
    /// reason.
    fn balance<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
        let it = lock(&self.0).balance();
        let each = [("sent", it.sent), ("duplicated", it.duplicated), ("received", it.received), ("queued", it.queued)];
        Ok((dict(py, each)?, dict(py, it.dropped)?))
    }
}

impl SimulatedEngine {
    fn network(&self) -> MutexGuard<'_, Network> {
        lock(&self.network)
    }

    fn command(&self, command: impl FnOnce(&mut Stack<Queue>, u64)) {
        let mut network = self.network();
        let now = network.now();
        command(network.stack(self.node), now);
    }

    /// The program's side of a flow, with which something is about to be done.
    fn queue(&self, flow: u64) -> PyResult<Queue> {
        let mut network = self.network();
        network.stack(self.node);
        let queue = network.queue(self.node, flow.into()).cloned();
        queue.ok_or_else(|| PyKeyError::new_err(format!("no program has flow {flow}")))
    }

    fn start(&self, flow: u64, program: Program) -> PyResult<()> {
        let started = self.network().start(self.node, flow.into(), program);
        started.then_some(()).ok_or_else(|| PyKeyError::new_err(format!("no program has flow {flow}")))
    }
}

/// The verbs of an engine.
#[pymethods]
impl SimulatedEngine {
    /// A member with a port at an address of IP; what leaves it takes `delay` ns, unless `link` says otherwise.
    fn open_port(&self, ip: &str, port: u16, delay: u64) -> PyResult<u64> {
        let member = self.network().open_port(self.node, address(ip, port)?, delay);
        let taken = || PyOSError::new_err((ADDRESS_IN_USE, "Address already in use"));
        Ok(member.ok_or_else(taken)?.into())
    }

    fn guard(&self, member: u64, secret: [u8; 32]) {
        self.network().stack(self.node).guard(member.into(), &secret);
    }

    fn open_member(&self, kind: &str) -> PyResult<u64> {
        let (kind, mut network) = (self::kind(kind)?, self.network());
        let member = network.name_member(self.node);
        network.stack(self.node).open_member(member, kind);
        Ok(member.into())
    }

    fn open_unicast(&self, address: u32, max_ttl: u8, ecn: bool) -> u64 {
        let mut network = self.network();
        let member = network.name_member(self.node);
        network.stack(self.node).open_unicast(member, TransferSettings { address, max_ttl, ecn });
        member.into()
    }

    fn change_unicast(&self, member: u64, address: u32, max_ttl: u8, ecn: bool) {
        let settings = TransferSettings { address, max_ttl, ecn };
        self.network().stack(self.node).change_unicast(member.into(), settings);
    }

    fn route(&self, member: u64, ways: HashMap<u32, Vec<u32>>, spread: bool) {
        self.network().stack(self.node).route(member.into(), table(ways, spread));
    }

    fn hand_over(&self, member: u64, lower: u64, neighbour: u32, most: usize, ours: bool) {
        self.command(|stack, now| stack.hand_over(now, member.into(), lower.into(), neighbour, (most, ours)));
    }

    fn resize(&self, flow: u64, packet: usize, mtu: usize, most: usize) {
        self.network().stack(self.node).resize(flow.into(), packet, mtu, most);
    }

    fn take_back(&self, member: u64, lower: u64) {
        self.network().stack(self.node).take_back(member.into(), lower.into());
    }

    fn send_pdu(&self, member: u64, destination: u32, eid: u64, ttl: u8, data: &[u8]) {
        self.command(|stack, now| stack.send_pdu(now, member.into(), destination, eid, ttl, data));
    }

    fn send_message(&self, flow: u64, data: &[u8]) {
        self.command(|stack, now| stack.send_message(now, flow.into(), data));
    }

    fn listen(&self, flow: u64) {
        self.command(|stack, now| stack.hand(now, flow.into(), User::Control(u32::MAX)));
    }

    fn close(&self, member: u64, died: bool) {
        self.network().close(self.node, member.into(), died);
    }

    fn impair(&self, member: u64, link: &LinkSettings) {
        self.network().stack(self.node).impair(member.into(), link.settings, link.seed);
    }

    fn say(&self, member: u64, to: Where, data: &[u8]) -> PyResult<()> {
        let to = to.read()?;
        self.command(|stack, now| stack.say(now, member.into(), to, data));
        Ok(())
    }

    #[getter]
    fn now(&self) -> u64 {
        self.network().now()
    }

    fn name(&self) -> u64 {
        self.network().name_flow(self.node).into()
    }

    fn add(&self, setups: Vec<PyRef<'_, Setup>>) -> PyResult<()> {
        setups.iter().try_for_each(|setup| self.join(setup))
    }

    fn join(&self, setup: &Setup) -> PyResult<()> {
        let Some(setup) = setup.take() else { return Ok(()) };
        let Ok(setup) = setup.with_ring(|_| Ok::<_, Infallible>(Queue::default()));
        if !self.network().add(self.node, setup) {
            return Err(PyValueError::new_err("the member of a flow is not there"));
        }
        Ok(())
    }

    fn unname(&self, flow: u64) {
        self.network().unname_flow(self.node, flow.into());
    }

    fn reserve(&self, member: u64, eid: u64, source: Option<Where>) -> PyResult<()> {
        let source = source.map(Where::read).transpose()?;
        self.network().stack(self.node).reserve(member.into(), eid, source);
        Ok(())
    }

    fn unreserve(&self, member: u64, eid: u64) {
        self.network().stack(self.node).unreserve(member.into(), eid);
    }

    fn peer_gone(&self, member: u64, eid: u64, died: bool) {
        self.network().stack(self.node).peer_gone(member.into(), eid, died);
    }

    fn note_device(&self, member: u64, on: bool, carries: bool) {
        self.command(|stack, now| stack.note_device(now, member.into(), on, carries));
    }

    fn end(&self, flow: u64) {
        self.command(|stack, now| stack.end(now, flow.into()));
    }

    fn doom(&self, flow: u64) {
        self.network().stack(self.node).doom(flow.into());
    }

    fn drop(&self, flow: u64) {
        self.network().stack(self.node).drop_flow(flow.into());
    }

    fn snapshot<'py>(&self, py: Python<'py>, member: u64) -> PyResult<Counters<'py>> {
        let snapshot = self.network().stack(self.node).snapshot(member.into());
        snapshot_of(py, snapshot)
    }

    fn held(&self) -> HashMap<i64, usize> {
        self.network().stack(self.node).held().into_iter().collect()
    }

    // --- links

    /// Let this happen to each datagram that leaves a port, on its way; None: nothing, and all takes `delay` ns.
    #[pyo3(signature = (member, link, delay=1_000_000))]
    fn link(&self, member: u64, link: Option<&LinkSettings>, delay: u64) {
        let mut network = self.network();
        match link {
            Some(link) => network.impair(self.node, member.into(), link.settings, link.seed),
            None => network.mend(self.node, member.into(), delay),
        }
    }

    /// Nothing gets from this node to another one any more, either way (True), or all does again.
    fn sever(&self, other: &SimulatedEngine, on: bool) -> PyResult<()> {
        if !Arc::ptr_eq(&self.network, &other.network) {
            return Err(PyValueError::new_err("the two nodes are not of one network"));
        }
        self.network().sever(self.node, other.node, on);
        Ok(())
    }

    // --- as a process

    /// The node stands still (True), as at SIGSTOP, or goes on, as at SIGCONT.
    fn freeze(&self, on: bool) {
        let mut network = self.network();
        if on {
            network.freeze(self.node);
        } else {
            network.thaw(self.node);
        }
    }

    /// The node is gone, as at SIGKILL. Its addresses are free.
    fn crash(&self) {
        self.network().crash(self.node);
    }

    // --- programs

    /// Write a packet to the flow of a program. False: no room now. Raises what a flow does.
    fn write(&self, flow: u64, packet: &[u8]) -> PyResult<bool> {
        if packet.len() > MAX_PACKET {
            return Err(flow_error(Error::TooLong(MAX_PACKET), packet.len()));
        }
        self.queue(flow)?.write(packet).map_err(|end| error_of(end, packet.len()))
    }

    /// The next packet for the program of a flow; None: there is none now. Raises what a flow does.
    fn read<'py>(&self, py: Python<'py>, flow: u64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let packet = self.queue(flow)?.read().map_err(|end| error_of(end, 0))?;
        Ok(packet.map(|packet| PyBytes::new(py, &packet)))
    }

    /// The program of a flow lets go, or `died`.
    fn let_go(&self, flow: u64, died: bool) -> PyResult<()> {
        self.queue(flow)?.let_go(died);
        Ok(())
    }

    /// Let `Simulation.run` come back when there is something for the program of a flow, or (False) not any more.
    fn watch(&self, flow: u64, on: bool) {
        let mut network = self.network();
        if on {
            network.watch(self.node, flow.into());
        } else {
            network.unwatch(self.node, flow.into());
        }
    }

    /// A program writes `count` packets of `length` bytes, one each `interval` ns, or as many as there is room for, and reads.
    fn source(&self, flow: u64, count: u64, length: usize, interval: u64) -> PyResult<()> {
        if length > MAX_PACKET {
            return Err(flow_error(Error::TooLong(MAX_PACKET), length));
        }
        self.start(flow, Program::Source { count, length, interval, closes: false })
    }

    /// A program reads.
    fn sink(&self, flow: u64) -> PyResult<()> {
        self.start(flow, Program::Sink)
    }

    /// A program writes back what it reads.
    fn echo(&self, flow: u64) -> PyResult<()> {
        self.start(flow, Program::Echo)
    }

    /// What such a program did: packets `written` and `read`, `bytes` read, packets out of order (`disordered`).
    fn tally<'py>(&self, py: Python<'py>, flow: u64) -> PyResult<Bound<'py, PyDict>> {
        let tally = self.network().tally(self.node, flow.into());
        let Tally { written, read, bytes, disordered, .. } =
            tally.ok_or_else(|| PyIndexError::new_err(format!("no program runs on flow {flow}")))?;
        dict(py, [("written", written), ("read", read), ("bytes", bytes), ("disordered", disordered)])
    }

    /// Nobody reads what is left for the program of a flow.
    fn forget(&self, flow: u64) {
        self.network().forget(self.node, flow.into());
    }
}
