"""What our figures must reach, as data. A missed bar is shown, it fails nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.rows import C_SIZES, DIX_SIZES, IDLE_FLOWS, JUMBO, LAYER_SIZES, LEVELS, LOSSES

#: A row and a column of the table.
Cell = tuple[str, str]
OURS = "ours"


@dataclass(frozen=True, slots=True)
class Bar:
    """`value`, or `value` over `base`, must be at least (or at most) `bound`."""

    text: str
    value: Cell
    base: Cell | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bound(self) -> float:
        return self.at_least if self.at_least is not None else self.at_most or 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a bar went; `reached` is None when a figure is missing."""

    bar: Bar
    reached: float | None

    @property
    def met(self) -> bool:
        if self.reached is None:
            return False
        return self.reached >= self.bar.bound if self.bar.at_least is not None else self.reached <= self.bar.bound

    def __str__(self) -> str:
        unit = "x" if self.bar.base else ""
        sign = ">=" if self.bar.at_least is not None else "<="
        head = f"{self.bar.text}: bar {sign} {self.bar.bound:g}{unit}"
        if self.reached is None:
            return f"{head}: not measured"
        return f"{head}: {self.reached:.3g}{unit} {'ok' if self.met else self._missed()}"

    def _missed(self) -> str:
        reached, bound = self.reached or 0.0, self.bar.bound
        if not reached or not bound:
            return f"MISSED by {abs(reached - bound):.3g}"
        factor = max(reached / bound, bound / reached)
        return f"MISSED by {abs(reached / bound - 1):.0%}" if factor < 2 else f"MISSED by a factor of {factor:.3g}"


def judge(bar: Bar, median_of: Callable[[Cell], float | None]) -> Verdict:
    """Hold a bar against the figures of this run."""
    value = median_of(bar.value)
    if bar.base is None or value is None:
        return Verdict(bar, value)
    base = median_of(bar.base)
    return Verdict(bar, value / base if base else None)


def _growth() -> list[Bar]:
    few, many = LEVELS[0], LEVELS[-1]
    slower = [
        Bar(
            f"time a packet with {many} flows over with one, round trip over {which}",
            (f"grow-rtt-{which}-{many}", OURS),
            (f"grow-rtt-{which}-{few}", OURS),
            at_most=2,
        )
        for which in ("one", "all")
    ]
    rarer = [
        Bar(
            f"time a packet with {many} flows over with one, one way over {which}",
            (f"grow-rate-{which}-{few}", OURS),
            (f"grow-rate-{which}-{many}", OURS),
            at_most=2,
        )
        for which in ("one", "all")
    ]
    return slower + rarer


def _shared() -> list[Bar]:
    bars = []
    for place in ("one-core", "one-core-busy", "busy"):
        mean, rate = f"{place}-mean", f"{place}-rate"
        title = f"spinning over parking at once, {place}"
        bars.append(Bar(f"{title}: round trip", (mean, OURS), (f"{mean}-park", OURS), at_most=1.1))
        bars.append(Bar(f"{title}: time a packet one way", (f"{rate}-park", OURS), (rate, OURS), at_most=1.1))
    return bars


def _c_programs() -> list[Bar]:
    prototype = "over the C prototype"
    trips = [
        Bar(f"C programs, round trips a second, {where}: {prototype}", (row, OURS), (row, "prototype"), at_least=5)
        for row, where in (("c-trips", "a core each"), ("c-trips-free", "where the kernel puts them"))
    ]
    rates = [
        Bar(f"C programs, one way {size} B: {prototype}", (row, OURS), (row, "prototype"), at_least=3)
        for size in C_SIZES
        for row in [f"c-rate-{size}"]
    ]
    return trips + rates


def _network() -> list[Bar]:
    rates = [
        bar
        for size in (64, 1400)
        for rate in [f"udp-rate-{size}"]
        for bar in (
            Bar(f"raw one way {size} B: over the C prototype", (rate, OURS), (rate, "prototype"), at_least=3),
            Bar(f"raw one way {size} B: over UDP sockets", (rate, OURS), (rate, "udp"), at_least=1),
            Bar(f"raw one way {size} B: lost, %", (f"udp-loss-{size}", OURS), at_most=1),
        )
    ]
    lossy = [
        Bar(f"reliable, {loss} % lost: over TCP", (f"udp-lossy-{loss}", OURS), (f"udp-lossy-{loss}", "tcp"), at_least=3)
        for loss in LOSSES
    ]
    return [
        Bar(
            "raw round trip 64 B p50: time over the C prototype",
            ("udp-rtt-p50", OURS),
            ("udp-rtt-p50", "prototype"),
            at_most=1,
        ),
        *rates,
        Bar("reliable, Mbit/s", ("udp-reliable", OURS), at_least=600),
        Bar("reliable: over TCP", ("udp-reliable", OURS), ("udp-reliable", "tcp"), at_least=0.5),
        *lossy,
        Bar("set-up over UDP, a second", ("udp-setup", OURS), at_least=500),
        # Every 30 s each flow sends a keepalive, and one comes.
        Bar(f"wake-ups a second of a node with {IDLE_FLOWS} idle reliable flows", ("udp-idle-node", OURS), at_most=7),
    ]


def _ethernet() -> list[Bar]:
    return [
        Bar(
            "DIX round trip 64 B p50: time over the C prototype",
            ("dix-rtt-p50", OURS),
            ("dix-rtt-p50", "prototype"),
            at_most=0.5,
        ),
        *(
            Bar(f"DIX one way {size} B: over the C prototype", (row, OURS), (row, "prototype"), at_least=4)
            for size in DIX_SIZES
            for row in [f"dix-rate-{size}"]
        ),
        # Three times the bytes.
        Bar(
            f"DIX one way, frames of {JUMBO} B: packets over those of {DIX_SIZES[-1]} B",
            ("dix-jumbo", OURS),
            (f"dix-rate-{DIX_SIZES[-1]}", OURS),
            at_least=3 * DIX_SIZES[-1] / JUMBO,
        ),
        Bar("DIX, reliable, 1 % lost: over TCP", ("dix-lossy", OURS), ("dix-lossy", "tcp"), at_least=50),
        *(
            Bar(f"broadcast, {what}: over the C prototype", (row, OURS), (row, "prototype"), at_least=3)
            for row, what in (("broadcast-1", "one machine"), ("broadcast-hosts", "two hosts"))
        ),
    ]


def _layers() -> list[Bar]:
    return [
        *(Bar(f"a layer more, {size} B, ns a packet", (f"layer-{size}", OURS), at_most=90) for size in LAYER_SIZES),
        *(
            Bar(f"a unicast layer more, {size} B, ns a packet", (f"rank-{size}", OURS), at_most=140)
            for size in LAYER_SIZES
        ),
        *(
            Bar(
                f"transit{text}, {size} B, 10 000 routes: over 10",
                (f"transit-routes{mixed}-{size}", OURS),
                (f"transit{mixed}-{size}", OURS),
                at_most=1.1,
            )
            for size in LAYER_SIZES
            for mixed, text in (("", " in runs"), ("-mixed", " mixed"))
        ),
        Bar("a layer more: processor time over none", ("layer-with", OURS), ("layer-without", OURS), at_most=1.12),
    ]


def _unicast() -> list[Bar]:
    hops = {1: "one hop", 2: "two hops"}
    return [
        *(
            Bar(
                f"{text}, round trip 64 B: over the C prototype",
                (f"hop-{count}-rtt", OURS),
                (f"hop-{count}-rtt", "prototype"),
                at_most=1 / 3,
            )
            for count, text in hops.items()
        ),
        *(
            Bar(
                f"{text}, one way 1400 B: over the C prototype",
                (f"hop-{count}-rate", OURS),
                (f"hop-{count}-rate", "prototype"),
                at_least=8,
            )
            for count, text in hops.items()
        ),
        *(Bar(f"{text}, one way 1400 B: percent lost", (f"hop-{n}-loss", OURS), at_most=0) for n, text in hops.items()),
        Bar("set-up over one hop, a second", ("hop-setup", OURS), at_least=500),
        Bar("two hops, one way 1400 B: over one hop", ("hop-2-rate", OURS), ("hop-1-rate", OURS), at_least=0.6),
        Bar("a rank more, one way 1400 B: over one", ("ranks-rate-2", OURS), ("ranks-rate-1", OURS), at_least=0.85),
        Bar(
            "a rank more, reliable, 1 % lost: over one", ("ranks-lossy-2", OURS), ("ranks-lossy-1", OURS), at_least=0.8
        ),
        Bar("transit 1400 B in runs, ns a packet", ("transit-run", OURS), at_most=1500),
        Bar("transit 1400 B in runs: over a loop of sockets", ("transit-run", OURS), ("transit-run", "udp"), at_most=3),
        Bar("transit 1400 B mixed, ns a packet", ("transit-mix", OURS), at_most=2500),
        Bar(
            "transit, encrypted from end to end: over plain",
            ("transit-crypt", OURS),
            ("transit-run", OURS),
            at_most=1.1,
        ),
        Bar("enrollment on loopback, ms", ("enroll", OURS), at_most=10),
        Bar("enrollment with the C prototype, ms", ("enroll-prototype", "prototype"), at_most=150),
        Bar("four members by ouroboros.irm, ms", ("four-api", OURS), at_most=100),
        Bar("four members by commands, ms", ("four-commands", OURS), at_most=600),
        Bar("node at rest with a membership, KiB", ("rest-member", OURS), at_most=40 * 1024),
    ]


def _encrypted() -> list[Bar]:
    over_tls = (
        ("one way 1400 B", "crypt-rate-1400", 5.0),
        ("one way 64 KiB", "crypt-rate-65536", 2.0),
        ("set-up", "crypt-setup", 2.0),
    )
    return [
        Bar("encrypted round trip 64 B, us more than not encrypted", ("crypt-rtt-more", OURS), at_most=5),
        *(
            Bar(f"encrypted {text}: over TLS", (row, OURS), (row, "tls"), at_least=least)
            for text, row, least in over_tls
        ),
        Bar(
            "encrypted one way 1400 B over UDP: over not encrypted",
            ("crypt-udp", OURS),
            ("crypt-udp-plain", OURS),
            at_least=0.6,
        ),
        Bar(
            "encrypted and reliable: over aioquic",
            ("crypt-udp-reliable", OURS),
            ("crypt-udp-reliable", "quic"),
            at_least=30,
        ),
        Bar("encrypted set-up over UDP, a second", ("crypt-udp-setup", OURS), at_least=300),
    ]


BARS: list[Bar] = [
    Bar("round trip 64 B p50: faster than SEQPACKET", ("rtt-p50-64", "seqpacket"), ("rtt-p50-64", OURS), at_least=15),
    Bar("round trip 64 B p50: over the limit", ("rtt-p50-64", OURS), ("rtt-p50-64", "limit"), at_most=6),
    Bar("one way 64 B: over pyzmq", ("rate-64", OURS), ("rate-64", "zmq"), at_least=1.3),
    Bar("one way 64 B: over the limit", ("rate-64", OURS), ("rate-64", "limit"), at_least=0.4),
    Bar("one way 1400 B: over pyzmq", ("rate-1400", OURS), ("rate-1400", "zmq"), at_least=3),
    Bar("one way 1400 B: over the limit", ("rate-1400", OURS), ("rate-1400", "limit"), at_least=0.4),
    Bar("one way 64 KiB: over SEQPACKET", ("rate-65536", OURS), ("rate-65536", "seqpacket"), at_least=1.4),
    Bar("batches of 64: over one by one", ("rate-batch", OURS), ("rate-64", OURS), at_least=2),
    Bar("set-up, a second", ("setup", OURS), at_least=1500),
    Bar("idle flow, KiB resident over both programs and the node", ("memory-rss", OURS), at_most=32),
    *_growth(),
    Bar("import ouroboros.dev, ms", ("import", OURS), at_most=100),
    Bar("wake-ups a second of an idle node", ("idle-node", OURS), at_most=0),
    Bar("wake-ups a second of an idle program", ("idle-program", OURS), at_most=0),
    *_shared(),
    Bar("awaited round trip 64 B: over blocking", ("aio-rtt", OURS), ("aio-rtt-blocking", OURS), at_most=1.5),
    Bar(
        "awaited packet one way 64 B: time over blocking", ("aio-rate-blocking", OURS), ("aio-rate", OURS), at_most=1.5
    ),
    Bar("awaited round trip 64 B: faster than streams", ("aio-rtt", "streams"), ("aio-rtt", OURS), at_least=3),
    Bar("awaited one way 64 B: over streams", ("aio-rate", OURS), ("aio-rate", "streams"), at_least=3),
    *_c_programs(),
    *_network(),
    *_ethernet(),
    *_layers(),
    *_unicast(),
    *_encrypted(),
    Bar(
        "round trip 64 B p50 on a C Ouroboros: faster than its own Python package",
        ("native-rtt-p50", "prototype"),
        ("native-rtt-p50", OURS),
        at_least=2,
    ),
]
