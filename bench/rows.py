"""What is measured: every row of the table, in the order in which it is printed."""

from __future__ import annotations

from dataclasses import dataclass

SIZES = {64: "64 B", 1400: "1400 B", 65536: "64 KiB"}
LATENCY_SIZES = (64, 1400)
RATE_SIZES = (64, 1400, 65536)
#: Flows open at the same time.
LEVELS = (1, 10, 100, 1000, 10_000)
MEMORY_FLOWS = 1000
#: Key -> how the programs and two endless loops are placed.
PLACES = {
    "one-core": "both programs on one core",
    "one-core-busy": "both on one core, a busy loop on every core",
    "busy": "a core each, a busy loop on every core",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A measure: `unit` is "ns", "us", "ms", "/s", "Mbit/s", "%", "KiB" or "wakes/s"."""

    measure: str
    title: str
    unit: str
    #: Rows of a section are a table of their own.
    section: str = "On one machine"


def _latency() -> dict[str, Row]:
    return {
        f"rtt-{quantile}-{size}": Row("latency", f"round trip {SIZES[size]}, {quantile}", "us")
        for size in LATENCY_SIZES
        for quantile in ("p50", "p99")
    }


def _rate() -> dict[str, Row]:
    rows = {f"rate-{size}": Row("rate", f"one way {SIZES[size]}", "/s") for size in RATE_SIZES}
    return {**rows, "rate-batch": Row("rate", "one way 64 B, batches of 64", "/s")}


def _growth() -> dict[str, Row]:
    titles = {
        "setup": ("set-up", "/s"),
        "rtt-one": ("round trip over one of them, p50", "us"),
        "rtt-all": ("round trip over all in turn, p50", "us"),
        "rate-one": ("one way over one of them", "/s"),
        "rate-all": ("one way over all in turn", "/s"),
    }
    rows = {
        f"grow-{key}-{level}": Row("growth", f"{level} flows: {title}", unit)
        for key, (title, unit) in titles.items()
        for level in LEVELS
    }
    return {**rows, "grow-release": Row("growth", f"{LEVELS[-1]} flows: release", "/s")}


def _shared() -> dict[str, Row]:
    return {
        f"{place}-{key}{suffix}": Row("shared", f"{title}: {what}{note}", unit)
        for place, title in PLACES.items()
        for key, what, unit in (
            ("mean", "round trip, mean", "us"),
            ("p50", "round trip, p50", "us"),
            ("rate", "one way", "/s"),
        )
        for suffix, note in (("", ""), ("-park", ", no spinning"))
    }


C_SIZES = (64, 1000)


def _c_programs() -> dict[str, Row]:
    section = "C programs on one machine"
    return {
        "c-trips": Row("c", "oping -f 64 B, a core each", "/s", section),
        "c-trips-free": Row("c", "oping -f 64 B, where the kernel puts them", "/s", section),
        **{f"c-rate-{size}": Row("c", f"ocbr -f {size} B, received", "/s", section) for size in C_SIZES},
    }


LINK_ROUND_TRIP_MS = 10
#: Percent of the packets that the bad links lose, in either direction.
LOSSES = (1, 5)
IDLE_FLOWS = 100


#: Bytes of packets over an Ethernet, and the MTU of one with jumbo frames.
DIX_SIZES = (64, 1400)
JUMBO = 9000


def _ethernet() -> dict[str, Row]:
    titles = {"rtt-p50": ("round trip 64 B, p50", "us"), "rtt-p99": ("round trip 64 B, p99", "us")}
    for size in DIX_SIZES:
        titles[f"rate-{size}"] = f"raw one way {SIZES[size]}, received", "/s"
        titles[f"loss-{size}"] = f"raw one way {SIZES[size]}, lost", "%"
    titles["jumbo"] = f"raw one way, frames of {JUMBO} B, received", "/s"
    titles["lossy"] = f"reliable 1400 B, round trip {LINK_ROUND_TRIP_MS} ms, {LOSSES[0]} % lost", "Mbit/s"
    return {f"dix-{key}": Row("dix", *words, "Between two nodes, over Ethernet") for key, words in titles.items()}


def _network() -> dict[str, Row]:
    lossy = f"reliable 1400 B, round trip {LINK_ROUND_TRIP_MS} ms"
    return {
        "udp-rtt-p50": _over_udp("udp", "round trip 64 B, p50", "us"),
        "udp-rtt-p99": _over_udp("udp", "round trip 64 B, p99", "us"),
        **{
            f"udp-{key}-{size}": _over_udp("udp", f"raw one way {SIZES[size]}, {title}", unit)
            for size in (64, 1400)
            for key, title, unit in (("rate", "received", "/s"), ("loss", "lost", "%"))
        },
        "udp-reliable": _over_udp("reliable", "reliable 1400 B, no loss", "Mbit/s"),
        **{f"udp-lossy-{loss}": _over_udp("lossy", f"{lossy}, {loss} % lost", "Mbit/s") for loss in LOSSES},
        "udp-setup": _over_udp("udp-setup", "set-up, a byte there and back, release", "/s"),
        "udp-idle-node": _over_udp("udp-idle", f"wake-ups of a node with {IDLE_FLOWS} idle reliable flows", "wakes/s"),
        "udp-idle-program": _over_udp("udp-idle", "wake-ups of a program with them", "wakes/s"),
    }


#: Bytes of the packets with which a layer more is measured.
LAYER_SIZES = (64, 1400)


def _layers() -> dict[str, Row]:
    section = "Layers over layers"
    return {
        **{
            f"layer-{size}": Row("layers", f"a layer more, {SIZES[size]}, down and up, in runs", "ns", section)
            for size in LAYER_SIZES
        },
        **{
            f"{row}-{size}": Row("layers", f"{text}, {SIZES[size]}, in runs", "ns", section)
            for size in LAYER_SIZES
            for row, text in (
                ("rank", "a unicast layer more, down and up"),
                ("transit", "a packet of others through a member, 10 routes"),
                ("transit-mixed", "the same, each packet of another flow"),
                ("transit-routes", "the same of one flow, 10 000 routes"),
                ("transit-routes-mixed", "the same, each packet of another flow, 10 000 routes"),
            )
        },
        "layer-without": Row("layers", "raw one way 1400 B over UDP, processor time of both engines", "ns", section),
        "layer-with": Row("layers", "the same with a layer more", "ns", section),
    }


#: Unicast layers over each other.
RANKS = (1, 2)
#: Flows of which packets come in turn, each of another one than the packet before.
MIXED_FLOWS = 16


def _unicast() -> dict[str, Row]:
    section = "Unicast layers"
    over = {1: "one hop over UDP", 2: "two hops"}
    lossy = f"round trip {LINK_ROUND_TRIP_MS} ms, {LOSSES[0]} % lost"
    return {
        **{
            f"hop-{hops}-{key}": Row(f"hop-{hops}", f"{text}: {what}", unit, section)
            for hops, text in over.items()
            for key, what, unit in (
                ("rtt", "round trip 64 B, p50", "us"),
                ("rate", "one way 1400 B, received", "/s"),
                ("loss", "one way 1400 B, lost", "%"),
            )
        },
        "hop-setup": Row("hop-1", "one hop over UDP: set-up, a byte there and back, release", "/s", section),
        **{
            f"ranks-{key}-{ranks}": Row("ranks", f"{ranks} rank{'s' * (ranks > 1)}: {what}", unit, section)
            for key, what, unit in (
                ("rate", "one way 1400 B, received", "/s"),
                ("lossy", f"reliable 1400 B, {lossy}, in virtual time", "Mbit/s"),
            )
            for ranks in RANKS
        },
        "transit-run": Row("transit", "processor time of the engine in the middle, 1400 B, in runs", "ns", section),
        "transit-mix": Row("transit", f"the same, {MIXED_FLOWS} flows in turn", "ns", section),
        "transit-crypt": Row("transit", "the same in runs, encrypted from end to end", "ns", section),
        "enroll": Row("enroll", "enrollment on loopback", "ms", section),
        "enroll-connected": Row("enroll", "enrollment on loopback, and connected", "ms", section),
        "enroll-prototype": Row("enroll", "enrollment of ours with a member of the prototype", "ms", section),
        "four-api": Row("four", "four members enrolled and connected, by ouroboros.irm", "ms", section),
        "four-commands": Row("four", "the same by commands", "ms", section),
        "rest-bare": Row("rest", "node at rest, resident", "KiB", section),
        "rest-member": Row("rest", "the same with a membership and a neighbour", "KiB", section),
        "rest-wakes": Row("rest", "wake-ups of that one", "wakes/s", section),
    }


def _encrypted() -> dict[str, Row]:
    return {
        "crypt-rtt-raw": _encrypting("crypt", "round trip 64 B on one machine, not encrypted, p50", "us"),
        "crypt-rtt": _encrypting("crypt", "the same, encrypted", "us"),
        "crypt-rtt-more": _encrypting("crypt", "what encryption adds", "us"),
        "crypt-rate-1400": _encrypting("crypt", "one way 1400 B on one machine", "/s"),
        "crypt-rate-65536": _encrypting("crypt", "one way 64 KiB on one machine", "/s"),
        "crypt-setup": _encrypting("crypt", "set-up on one machine", "/s"),
        "crypt-udp-plain": _encrypting("crypt-udp", "raw one way 1400 B over UDP, not encrypted", "/s"),
        "crypt-udp": _encrypting("crypt-udp", "the same, encrypted", "/s"),
        "crypt-udp-reliable": _encrypting("crypt-reliable", "reliable 1400 B over UDP", "Mbit/s"),
        "crypt-udp-setup": _encrypting("crypt-setup", "set-up over UDP, X25519", "/s"),
    }


def _native() -> dict[str, Row]:
    rows = {f"native-rtt-{key}": (f"round trip 64 B, {key}", "us") for key in ("p50", "p99", "mean")}
    rows["native-rate"] = "one way 64 B, received", "/s"
    rows["native-loss"] = "one way 64 B, lost", "%"
    return {key: Row("native", title, unit, "From Python on a C Ouroboros") for key, (title, unit) in rows.items()}


def _over_udp(measure: str, title: str, unit: str) -> Row:
    return Row(measure, title, unit, "Between two nodes, over UDP")


def _encrypting(measure: str, title: str, unit: str) -> Row:
    return Row(measure, title, unit, "Encrypted")


ROWS: dict[str, Row] = {
    **_latency(),
    **_rate(),
    "setup": Row("setup", "set-up, a byte there and back, release", "/s"),
    "memory-rss": Row("memory", f"idle flow, resident (RSS), of {MEMORY_FLOWS}", "KiB"),
    "memory-pss": Row("memory", f"idle flow, proportional (PSS), of {MEMORY_FLOWS}", "KiB"),
    **_growth(),
    "import": Row("import", "import", "ms"),
    "idle-program": Row("idle", "wake-ups of a program waiting in read", "wakes/s"),
    "idle-node": Row("idle", "wake-ups of the node meanwhile", "wakes/s"),
    **_shared(),
    "aio-rtt-blocking": Row("aio", "round trip 64 B, mean, blocking calls", "us"),
    "aio-rtt": Row("aio", "round trip 64 B, mean, awaited", "us"),
    "aio-rate-blocking": Row("aio", "one way 64 B, blocking calls", "/s"),
    "aio-rate": Row("aio", "one way 64 B, awaited", "/s"),
    **_c_programs(),
    **_network(),
    **_ethernet(),
    **_layers(),
    **_unicast(),
    **_encrypted(),
    **_native(),
}
