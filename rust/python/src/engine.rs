//! The engine as a Python object.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ouroboros_frcp::{Config, Peer, UNSENT};
use ouroboros_io::board::Board;
use ouroboros_io::engine;
use ouroboros_io::stack::ether::{Framing, Mac, Station};
use ouroboros_io::stack::{
    self, About, Account, Carrier, Counted, Event, FlowId, How, Kind, MemberId, Table, TransferSettings, User,
};
use ouroboros_io::{Program, Segment};
use ouroboros_shm::endpoint::Endpoint;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::descriptors::take_over;
use crate::guard::new_session;
use crate::impairment::LinkSettings;

/// The thread that carries the packets of all layers of a node. Flows and members have numbers that it gives.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct Engine(Mutex<engine::Engine>);

impl Engine {
    fn lock(&self) -> MutexGuard<'_, engine::Engine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a peer is: an address and port of IP, or the number of the flow below that leads to it.
#[derive(FromPyObject, IntoPyObject)]
pub enum Where {
    Address(String, u16),
    Flow(u64),
}

impl Where {
    pub fn read(self) -> PyResult<stack::Where> {
        match self {
            Where::Address(ip, port) => Ok(stack::Where::Address(address(&ip, port)?)),
            Where::Flow(number) => Ok(stack::Where::Flow(number.into())),
        }
    }

    fn of(at: stack::Where) -> Self {
        match at {
            stack::Where::Address(address) => Where::Address(written(address), address.port()),
            stack::Where::Flow(flow) => Where::Flow(flow.into()),
        }
    }
}

/// The address of a host and its port, or that of a network device and the SAP there.
pub fn address(host: &str, port: u16) -> PyResult<SocketAddr> {
    if let Some(mac) = mac(host) {
        let sap = port.try_into().map_err(|_| PyValueError::new_err(format!("{port} is no SAP")))?;
        return Ok(Station { mac, sap }.into());
    }
    let ip: IpAddr = host.parse().map_err(|_| PyValueError::new_err(format!("{host:?} is no address")))?;
    Ok(SocketAddr::new(ip, port))
}

fn mac(text: &str) -> Option<Mac> {
    let parts: Vec<_> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>().ok()?;
    parts.try_into().ok()
}

fn written(address: SocketAddr) -> String {
    match Station::of(address) {
        Some(Station { mac, .. }) => mac.map(|byte| format!("{byte:02x}")).join(":"),
        None => address.ip().to_canonical().to_string(),
    }
}

/// What happened: management datagrams with member and source, messages for control, ends of flows with their last counters,
/// flows whose peers became silent or (true) came back, packets for components by member and endpoint id, with the flow that
/// brought them.
pub type News<'py> = (
    Vec<(u64, Where, Bound<'py, PyBytes>)>,
    Vec<(u64, Bound<'py, PyBytes>)>,
    Vec<(u64, &'static str, Bound<'py, PyDict>)>,
    Vec<(u64, bool)>,
    Vec<(u64, u64, Bound<'py, PyBytes>, Option<u64>)>,
);

/// One event more.
pub fn note<'py, R>(py: Python<'py>, news: &mut News<'py>, event: Event<R>) -> PyResult<()> {
    let (datagrams, messages, ends, states, heard) = news;
    match event {
        Event::Datagram(member, from, data) => {
            datagrams.push((member.into(), Where::of(from), PyBytes::new(py, &data)));
        }
        Event::Message(flow, data) => messages.push((flow.into(), PyBytes::new(py, &data))),
        Event::Ended(flow, how, counted, _) => ends.push((flow.into(), name(how), counters(py, *counted)?)),
        Event::State(flow, up) => states.push((flow.into(), up)),
        Event::Heard(member, eid, from, data) => {
            heard.push((member.into(), eid, PyBytes::new(py, &data), from.map(u64::from)));
        }
        Event::Closed(..) => {}
    }
    Ok(())
}

/// The kind of a member that has no port.
pub fn kind(word: &str) -> PyResult<Kind> {
    match word {
        "transfer" => Ok(Kind::Transfer),
        "local" => Ok(Kind::Local),
        "broadcast" => Ok(Kind::Broadcast),
        _ => Err(PyValueError::new_err(format!("no member is of kind {word:?}"))),
    }
}

/// The ways of a member of a unicast layer: by destination, neighbours in order.
pub fn table(ways: HashMap<u32, Vec<u32>>, spread: bool) -> Table {
    Table::new(ways.iter().map(|(destination, neighbours)| (*destination, &neighbours[..])), spread)
}

/// Counters of a member, and of its flows by number.
pub type Counters<'py> = (Bound<'py, PyDict>, Bound<'py, PyDict>);

pub fn snapshot_of<'py>(py: Python<'py>, snapshot: stack::Snapshot) -> PyResult<Counters<'py>> {
    let flows = PyDict::new(py);
    for (flow, counted) in snapshot.flows {
        flows.set_item(u64::from(flow), counters(py, counted)?)?;
    }
    let transfer = snapshot.transfer.iter().flat_map(|transfer| transfer.each());
    Ok((dict(py, snapshot.layer.each().chain(transfer))?, flows))
}

#[pymethods]
impl Engine {
    /// Start the thread, without members and flows. `board`: an empty file in which its counters are, which is taken over.
    /// `instance`: a number by which that file is known.
    #[new]
    #[pyo3(signature = (board=None, instance=0))]
    fn new(board: Option<i32>, instance: u64) -> PyResult<Self> {
        let file = board.map(|board| take_over([board])).transpose()?;
        let board = file.map(|[file]| Board::new(file, instance)).transpose()?;
        Ok(Engine(Mutex::new(engine::Engine::start_with(board)?)))
    }

    /// A member of a layer with a port: a bound UDP socket, which is taken over; or, with the address of its device `mac`, a
    /// packet socket. Its frames have that `ethertype`, or are those of LLC.
    #[pyo3(signature = (socket, mac=None, ethertype=None))]
    fn open_port(&self, py: Python<'_>, socket: i32, mac: Option<Mac>, ethertype: Option<u16>) -> PyResult<u64> {
        let [socket] = take_over([socket])?;
        let framing = ethertype.map_or(Framing::Llc, Framing::Dix);
        let segment = mac.map(|mac| Segment { framing, mac });
        Ok(py.detach(|| self.lock().open_port(socket, segment))?.into())
    }

    /// Let strangers prove their address at the port of a member, and bound what they cause. `secret`: random.
    fn guard(&self, member: u64, secret: [u8; 32]) {
        self.lock().guard(member.into(), &secret);
    }

    /// A member whose flows are carried by lower flows ("transfer"), within the node ("local"), or each to all others
    /// ("broadcast").
    fn open_member(&self, kind: &str) -> PyResult<u64> {
        let kind = self::kind(kind)?;
        Ok(self.lock().open_member(kind).into())
    }

    /// A member of a unicast layer.
    fn open_unicast(&self, address: u32, max_ttl: u8, ecn: bool) -> u64 {
        self.lock().open_unicast(TransferSettings { address, max_ttl, ecn }).into()
    }

    /// It is told something else from now on.
    fn change_unicast(&self, member: u64, address: u32, max_ttl: u8, ecn: bool) {
        self.lock().change_unicast(member.into(), TransferSettings { address, max_ttl, ecn });
    }

    /// Its ways from now on: for each destination, neighbours in order. `spread`: all that are up are used, each for some
    /// flows, but for those behind a 0, which are for when none of the others is up.
    fn route(&self, member: u64, ways: HashMap<u32, Vec<u32>>, spread: bool) {
        self.lock().route(member.into(), table(ways, spread));
    }

    /// A lower flow leads to a neighbour from now on. `most`: the longest packet that it carries. `ours`: the neighbour is a
    /// node of ours, which is not paced.
    fn hand_over(&self, member: u64, lower: u64, neighbour: u32, most: usize, ours: bool) {
        self.lock().hand_over(member.into(), lower.into(), neighbour, (most, ours));
    }

    /// What is below a flow carries packets of other lengths from now on. `packet`: of FRCP; `mtu`: as of `Setup`; `most`: what
    /// the flow carries for a member above.
    fn resize(&self, flow: u64, packet: usize, mtu: usize, most: usize) {
        self.lock().resize(flow.into(), packet, mtu, most);
    }

    /// Nothing is sent by a lower flow any more.
    fn take_back(&self, member: u64, lower: u64) {
        self.lock().take_back(member.into(), lower.into());
    }

    /// Send a packet of a component of a member.
    fn send_pdu(&self, member: u64, destination: u32, eid: u64, ttl: u8, data: &[u8]) {
        self.lock().send_pdu(member.into(), destination, eid, ttl, data);
    }

    /// Send a packet by a flow that control has.
    fn send_message(&self, flow: u64, data: &[u8]) {
        self.lock().send_message(flow.into(), data);
    }

    /// All that comes by a flow that control has is told as messages from now on.
    fn listen(&self, flow: u64) {
        self.lock().hand(flow.into(), User::Control(u32::MAX));
    }

    /// End a member and its flows, and wait until its socket is closed. `died`: programs see it as a death of their peers.
    fn close(&self, py: Python<'_>, member: u64, died: bool) {
        py.detach(|| self.lock().close(member.into(), died));
    }

    /// Let this happen to all that a member sends, and programs write, once this has returned.
    fn impair(&self, py: Python<'_>, member: u64, link: &LinkSettings) {
        py.detach(|| self.lock().impair(member.into(), link.settings, link.seed));
    }

    /// Send a management datagram.
    fn say(&self, member: u64, to: Where, data: &[u8]) -> PyResult<()> {
        self.lock().say(member.into(), to.read()?, data);
        Ok(())
    }

    /// Nanoseconds since it began.
    #[getter]
    fn now(&self) -> u64 {
        self.lock().now()
    }

    /// A number for a flow.
    fn name(&self) -> u64 {
        self.lock().name().into()
    }

    /// A flow that has that number will not be carried.
    fn unname(&self, flow: u64) {
        self.lock().unname(flow.into());
    }

    /// Carry flows. The two ends of one within the node have to come together.
    fn add(&self, setups: Vec<PyRef<'_, Setup>>) -> PyResult<()> {
        let taken = setups.iter().filter_map(|setup| setup.take()).map(with_program);
        self.lock().add(taken.collect::<PyResult<_>>()?);
        Ok(())
    }

    /// Carry a flow of a broadcast member, and wait until it gets what others write.
    fn join(&self, py: Python<'_>, setup: &Setup) -> PyResult<()> {
        if let Some(setup) = setup.take() {
            let setup = with_program(setup)?;
            py.detach(|| self.lock().join(setup));
        }
        Ok(())
    }

    /// Keep the first packets for an endpoint id that come from a peer, or for None from any, until `add` or `unreserve`.
    fn reserve(&self, member: u64, eid: u64, source: Option<Where>) -> PyResult<()> {
        self.lock().reserve(member.into(), eid, source.map(Where::read).transpose()?);
        Ok(())
    }

    /// Forget what `reserve` kept.
    fn unreserve(&self, member: u64, eid: u64) {
        self.lock().unreserve(member.into(), eid);
    }

    /// The peer of a flow deallocated, or `died`.
    fn peer_gone(&self, member: u64, eid: u64, died: bool) {
        self.lock().peer_gone(member.into(), eid, died);
    }

    /// The device of a member's port is `on` and `carries` frames, or not.
    fn note_device(&self, member: u64, on: bool, carries: bool) {
        self.lock().note_device(member.into(), on, carries);
    }

    /// The user of a flow, which is no program, lets go: what it sent is still delivered.
    fn end(&self, flow: u64) {
        self.lock().end(flow.into());
    }

    /// The program of a flow died. What it wrote before still arrives.
    fn doom(&self, flow: u64) {
        self.lock().doom(flow.into());
    }

    /// A flow is over at once. No error when it is not there.
    fn drop(&self, flow: u64) {
        self.lock().drop_flow(flow.into());
    }

    /// The descriptor that is readable while `take_events` has something, and once there is a `failure`.
    fn fileno(&self) -> i32 {
        self.lock().news().as_raw_fd()
    }

    /// What has happened since the last time, so many events at the most.
    fn take_events<'py>(&self, py: Python<'py>, most: usize) -> PyResult<News<'py>> {
        // Rings of programs are dropped there, which takes its time.
        let events = py.detach(|| {
            let mut events = self.lock().take_events(most);
            events.iter_mut().for_each(|event| {
                if let Event::Ended(_, _, _, ring) = event {
                    drop(ring.take());
                }
            });
            events
        });
        let mut news = News::default();
        events.into_iter().try_for_each(|event| note(py, &mut news, event))?;
        Ok(news)
    }

    /// Counters of a member, and of its flows by number.
    fn snapshot<'py>(&self, py: Python<'py>, member: u64) -> PyResult<Counters<'py>> {
        let snapshot = py.detach(|| self.lock().snapshot(member.into()));
        snapshot_of(py, snapshot)
    }

    /// Memory of FRCP that flows share, bytes by the key of the account.
    fn held(&self, py: Python<'_>) -> HashMap<i64, usize> {
        py.detach(|| self.lock().held()).into_iter().collect()
    }

    /// Why the thread ended by itself, None while all is well.
    #[getter]
    fn failure(&self) -> Option<String> {
        self.lock().failure().map(str::to_owned)
    }

    /// Let the thread panic, for tests.
    fn _panic(&self) {
        self.lock().panic();
    }

    /// End the thread and all flows.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.lock().stop());
    }
}

/// The same, if its program has a ring.
fn with_program(setup: stack::Setup<Option<Program>>) -> PyResult<stack::Setup<Program>> {
    setup.with_ring(|ring| ring.ok_or_else(|| PyValueError::new_err("the user of a flow is a program or a member")))
}

/// A flow for `Engine.add` or `SimulatedEngine.add`, once.
#[pyclass(frozen, module = "ouroboros.dataplane._engine")]
pub struct Setup(Mutex<Option<stack::Setup<Option<Program>>>>);

impl Setup {
    /// What it was made of, the first time.
    pub fn take(&self) -> Option<stack::Setup<Option<Program>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Setup {
    /// `flow`: its number; `label`: by which others know it; `member`: carries it. Its user is a `program`, by memory and
    /// bell of a side of its channel, which are taken over, or `transfer`, a member above, or `control`, that takes so many
    /// packets (of a member above, if there is one); none for a program in virtual time. Its carrier is that member's port
    /// to a `peer`, a flow `lower`, the way to the `destination` in a `cube`, the `other` end within the node, or all others
    /// of the member; or it is a capture of the member (`tap`: bytes of each packet, and nanoseconds since 1970 when the
    /// time of the engine was 0). With a `key` of 32 bytes that no other flow has, packets are encrypted by a `suite`, its
    /// number in the handshake; `grace`: ms until the first packet of the peer; `side`: 0 allocated the flow, 1 accepted it;
    /// `reject_replays`: the peer is one of ours. `lot`: chooses what a bad link does. `accounts`: what pays for the memory
    /// of FRCP, the bytes that all flows with the same key have together.
    #[new]
    #[pyo3(signature = (
        *, flow, member, side, label=0, tap=None, program=None, transfer=None, control=None, peer=None, lower=None, destination=None,
        cube=0, other=None, eid=0, peer_eid=0,
        mtu=usize::MAX, crc=false, timeout=0, grace=0, seed=0, lot=(0, 0), credit=false, frcp=None, suite=0, key=None,
        reject_replays=false, accounts=HashMap::new()
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords")]
    fn new(
        flow: u64,
        member: u64,
        side: usize,
        label: u64,
        tap: Option<(u32, u64)>,
        program: Option<(i32, i32, usize)>,
        transfer: Option<u64>,
        control: Option<u32>,
        peer: Option<(String, u16)>,
        lower: Option<u64>,
        destination: Option<u32>,
        cube: u8,
        other: Option<u64>,
        eid: u64,
        peer_eid: u64,
        mtu: usize,
        crc: bool,
        timeout: u32,
        grace: u32,
        seed: u64,
        lot: (u64, usize),
        credit: bool,
        frcp: Option<&Frcp>,
        suite: u16,
        key: Option<&Bound<'_, PyAny>>,
        reject_replays: bool,
        accounts: HashMap<i64, usize>,
    ) -> PyResult<Self> {
        let user = match (program, transfer, control) {
            (Some((memory, bell, side)), None, None) => {
                let [memory, bell] = take_over([memory, bell])?;
                User::Program(Some(Program::new(Endpoint::attach(memory, bell, side)?)))
            }
            (None, Some(member), None) => User::Transfer(MemberId::from(member)),
            (None, _, Some(take)) => User::Control(take),
            (None, None, None) => User::Program(None),
            _ => return Err(PyValueError::new_err("a flow has one user")),
        };
        let carrier = match (peer, lower, destination, other) {
            (Some((ip, port)), None, None, None) => Carrier::Port(address(&ip, port)?),
            (None, Some(flow), None, None) => Carrier::Transfer(flow.into()),
            (None, None, Some(address), None) => Carrier::Unicast(address, cube),
            (None, None, None, Some(flow)) => Carrier::Loop(flow.into()),
            (None, None, None, None) => match tap {
                Some((snap, epoch)) => Carrier::Tap { snap, epoch },
                None => Carrier::Broadcast,
            },
            _ => return Err(PyValueError::new_err("a flow has one carrier")),
        };
        let about = About { label, above: transfer.map(MemberId::from) };
        let session = key.map(|key| new_session(suite, key, side, reject_replays)).transpose()?;
        let (id, member, frcp) = (FlowId::from(flow), MemberId::from(member), frcp.map(|frcp| frcp.0));
        Ok(Setup(Mutex::new(Some(stack::Setup {
            id,
            member,
            eid,
            peer_eid,
            carrier,
            user,
            frcp,
            seed,
            lot,
            credit,
            session,
            crc,
            mtu,
            timeout,
            grace,
            about,
            accounts: accounts.into_iter().map(|(key, budget)| Account { key, budget }).collect(),
        }))))
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
        let peer = if own { Peer::Own { sack, fragments, window } } else { Peer::Prototype };
        Frcp(Config { reliable, peer, max_packet, mpl, unsent: UNSENT, thrifty: false })
    }
}

fn name(how: How) -> &'static str {
    match how {
        How::Closed => "closed",
        How::Died => "died",
        How::Gone => "gone",
        How::Silent => "silent",
        How::Broken => "broken",
    }
}

fn counters(py: Python<'_>, counted: Counted) -> PyResult<Bound<'_, PyDict>> {
    dict(py, stack::each_of_flow(&counted))
}

pub fn dict<'py>(
    py: Python<'py>,
    entries: impl IntoIterator<Item = (&'static str, u64)>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in entries {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}
