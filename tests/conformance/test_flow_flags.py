"""The flags of a flow: a row of `flows.md` 6.2, 6.3 and 4.1 a test, named in its id."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from support import Shell, forever

from ouroboros import dev
from ouroboros.dev import (
    FRCT_LINGER,
    FRCT_RESCNTL,
    FRCT_RETRANSMIT,
    Flow,
    FlowDownException,
    FlowNotAllocatedException,
    FlowPermissionException,
    FlowProperties,
    FlowSizeException,
    FlowWouldBlockException,
    QoSSpec,
)
from ouroboros.qos import NAMED_SPECS

from .worlds import Pair, arrived

F = FlowProperties

#: Row of 6.2, value in octal digits as the manual writes it.
VALUES = [
    ("read-only", F.ReadOnly, "0"),
    ("write-only", F.WriteOnly, "01"),
    ("read-write", F.ReadWrite, "02"),
    ("down", F.Down, "04"),
    ("non-blocking-read", F.NonBlockingRead, "01000"),
    ("non-blocking-write", F.NonBlockingWrite, "02000"),
    ("both", F.NonBlocking, "03000"),
    ("no-partial-read", F.NoPartialRead, "010000"),
    ("no-partial-write", F.NoPartialWrite, "020000"),
    ("default", F.ReadWrite | F.NoPartialWrite, "020002"),
]

OK = None
#: Row, flags, then what comes of: own write, own read of nothing, own read of a packet, a write of the peer.
EFFECTS: list[tuple[str, F, Any, Any, Any, Any]] = [
    ("read-only", F.ReadOnly | F.NonBlocking, FlowPermissionException, FlowWouldBlockException, OK, OK),
    (
        "write-only",
        F.WriteOnly | F.NonBlocking,
        OK,
        FlowPermissionException,
        FlowPermissionException,
        FlowPermissionException,
    ),
    ("read-write", F.ReadWrite | F.NonBlocking, OK, FlowWouldBlockException, OK, OK),
    ("down", F.ReadWrite | F.Down, FlowDownException, FlowDownException, OK, FlowDownException),
    ("down-read-only", F.ReadOnly | F.Down, FlowPermissionException, FlowDownException, OK, FlowDownException),
    ("non-blocking-read", F.ReadWrite | F.NonBlockingRead, OK, FlowWouldBlockException, OK, OK),
    ("no-access-bits", F.NonBlockingRead, FlowPermissionException, FlowWouldBlockException, OK, OK),
    ("both", F.ReadWrite | F.NonBlocking, OK, FlowWouldBlockException, OK, OK),
    ("no-partial-read", F.ReadWrite | F.NonBlocking | F.NoPartialRead, OK, FlowWouldBlockException, OK, OK),
    ("no-partial-write", F.ReadWrite | F.NonBlocking | F.NoPartialWrite, OK, FlowWouldBlockException, OK, OK),
]


def row(section: str, name: str) -> str:
    return f"flows.md-{section}-{name}"


def outcome(call: Callable[[], object], wanted: type[Exception] | None) -> None:
    if wanted is None:
        call()
    else:
        with pytest.raises(wanted):
            call()


class TestFlowFlags:
    @pytest.mark.parametrize(
        ("flag", "octal"), [pytest.param(flag, octal, id=row("6.2", name)) for name, flag, octal in VALUES]
    )
    def test_values(self, flag: FlowProperties, octal: str) -> None:
        assert int(flag) == int(octal, 8)

    def test_there_are_nine(self) -> None:
        """`flows.md` 6.2: the names of the requirement text, aliases of combinations included."""
        assert len(F.__members__) == 9

    @pytest.mark.parametrize("flag", [pytest.param(flag, id=row("6.2", name)) for name, flag, _ in VALUES])
    def test_flags_replace_all_of_those_before(self, near: Flow, flag: FlowProperties) -> None:
        near.set_flags(F.ReadWrite | F.NonBlocking | F.NoPartialRead)
        near.set_flags(flag)
        assert near.get_flags() == flag

    @pytest.mark.parametrize(
        ("flags", "write", "empty", "read", "refused"),
        [
            pytest.param(
                *rest, id=row("6.2", name), marks=[] if rest[-1] is OK else pytest.mark.needs("instant", "shared-flags")
            )
            for name, *rest in EFFECTS
        ],
    )
    def test_effects(
        self, near: Flow, far: Shell, flags: FlowProperties, write: Any, empty: Any, read: Any, refused: Any
    ) -> None:
        near.set_flags(flags)
        outcome(near.read, empty)
        near.set_flags(F.ReadWrite)
        far.do("f.write(b'packet')")
        arrived(near, 1)
        near.set_flags(flags)
        outcome(near.read, read)
        outcome(lambda: near.write(b"x"), write)
        outcome(lambda: far.do("f.write(b'y')"), refused)

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            pytest.param(first, second, id=row("6.2", f"{one}-then-{other}"))
            for (one, first, _), (other, second, _) in product(VALUES[:4], VALUES[:4])
            if one != other
        ],
    )
    @pytest.mark.needs("instant")
    def test_no_access_mode_is_for_ever(
        self, near: Flow, far: Shell, first: FlowProperties, second: FlowProperties
    ) -> None:
        """B18: write-only could not be undone."""
        near.set_flags(first)
        near.set_flags(second)
        near.set_flags(F.ReadWrite)
        near.write(b"out")
        assert far.do("f.read()") == b"out"
        far.do("f.write(b'in')")
        assert near.read() == b"in"

    @pytest.mark.parametrize("kind", [pytest.param(F.NonBlockingWrite, id=row("6.2", "non-blocking-write"))])
    @pytest.mark.needs("back-pressure", "room")
    def test_a_full_flow_would_block_a_write(self, near: Flow, far: Shell, kind: FlowProperties) -> None:
        near.set_flags(F.ReadWrite | kind)
        packet = bytes(min(60_000, near.max_packet))
        with pytest.raises(FlowWouldBlockException):
            forever(lambda: near.write(packet))

    @pytest.mark.parametrize(
        ("flags", "cut"),
        [
            pytest.param(F.ReadWrite, True, id=row("6.2", "no-partial-read-cleared")),
            pytest.param(F.ReadWrite | F.NoPartialRead, False, id=row("6.2", "no-partial-read")),
        ],
    )
    def test_partial_reads(self, near: Flow, far: Shell, flags: FlowProperties, cut: bool) -> None:
        near.set_flags(flags)
        far.do("f.write(b'0123456789')")
        outcome(lambda: near.read(4), None if cut else FlowSizeException)
        assert near.read() == (b"456789" if cut else b"0123456789")


ALL = FRCT_RETRANSMIT | FRCT_RESCNTL | FRCT_LINGER
#: Row of the second table of 4.1, QoS, initial flags; None: no FRCT.
INITIAL: list[tuple[str, QoSSpec, int | None]] = [
    ("unordered-by-default", QoSSpec(), None),
    ("unordered", QoSSpec(in_order=0, ber=0), None),
    ("ordered-lossy", QoSSpec(in_order=1), FRCT_RESCNTL),
    ("ordered-reliable", QoSSpec(in_order=1, loss=0), ALL),
    # Unlike the prototype: the requirement text has loss=0 alone turn retransmission on.
    ("loss-0-alone", QoSSpec(loss=0), ALL),
    *((f"named-{name}", qos, {"raw": None, "data": ALL}.get(name, FRCT_RESCNTL)) for name, qos in NAMED_SPECS.items()),
]
WITH = [(name, qos, flags) for name, qos, flags in INITIAL if flags is not None]
WITHOUT = [(name, qos) for name, qos, flags in INITIAL if flags is None]


class TestFrctFlags:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            pytest.param("FRCT_RETRANSMIT", 0o1, id=row("6.3", "rtx")),
            pytest.param("FRCT_RESCNTL", 0o2, id=row("6.3", "rescntl")),
            pytest.param("FRCT_LINGER", 0o4, id=row("6.3", "linger")),
        ],
    )
    def test_values(self, name: str, value: int) -> None:
        assert getattr(dev, name) == value
        assert name in dev.__all__

    @pytest.mark.parametrize(
        ("qos", "flags"), [pytest.param(qos, flags, id=row("4.1", name)) for name, qos, flags in WITH]
    )
    def test_initial_flags_follow_the_qos_at_both_ends(
        self, make_pair: Callable[..., Pair], qos: QoSSpec, flags: int
    ) -> None:
        pair = make_pair(qos)
        assert pair.near.get_frct_flags() == flags
        assert pair.far.do("f.get_frct_flags()") == flags

    @pytest.mark.parametrize("qos", [pytest.param(qos, id=row("4.1", name)) for name, qos in WITHOUT])
    def test_a_flow_without_frct_has_none(self, make_pair: Callable[..., Pair], qos: QoSSpec | None) -> None:
        near = make_pair(qos).near
        with pytest.raises(FlowPermissionException, match="FRCT") as caught:
            near.get_frct_flags()
        assert isinstance(caught.value, PermissionError)
        with pytest.raises(FlowPermissionException, match="FRCT"):
            near.set_frct_flags(FRCT_RESCNTL)

    @pytest.mark.parametrize(
        ("qos", "wanted", "kept"),
        [
            pytest.param(qos, wanted, wanted & ~FRCT_RETRANSMIT | fixed, id=row("6.1-B17", f"{name}-set-{wanted}"))
            for name, qos, fixed in (("lossy", QoSSpec(in_order=1), 0), ("reliable", QoSSpec(loss=0), FRCT_RETRANSMIT))
            for wanted in range(8)
        ],
    )
    def test_all_but_retransmission_can_be_set_and_cleared(
        self, make_pair: Callable[..., Pair], qos: QoSSpec, wanted: int, kept: int
    ) -> None:
        near = make_pair(qos).near
        near.set_frct_flags(ALL)
        near.set_frct_flags(wanted)
        assert near.get_frct_flags() == kept
        near.set_frct_flags(0)
        assert near.get_frct_flags() == kept & FRCT_RETRANSMIT

    @pytest.mark.parametrize(
        "flags", [pytest.param(flags, id=row("6.3", f"unknown-{flags}")) for flags in (8, -1, 1024)]
    )
    def test_unknown_flags_are_refused(self, make_pair: Callable[..., Pair], flags: int) -> None:
        near = make_pair(QoSSpec(loss=0)).near
        with pytest.raises(ValueError, match="FRCT"):
            near.set_frct_flags(flags)
        assert near.get_frct_flags() == ALL

    def test_an_object_starts_anew_with_its_next_flow(self, make_pair: Callable[..., Pair]) -> None:
        """`flows.md` 6.1, FRCTSFLAGS: flags belong to the flow."""
        pair = make_pair(QoSSpec(loss=0))
        pair.near.set_frct_flags(0)
        pair.near.dealloc()
        with pytest.raises(FlowNotAllocatedException):
            pair.near.get_frct_flags()
        with pytest.raises(FlowNotAllocatedException):
            pair.near.set_frct_flags(0)
        pair.far.begin_blocked("f.dealloc(); f.accept(name='pair')", "node")
        pair.near.alloc("pair", QoSSpec(in_order=1))
        pair.far.answer()
        assert pair.near.get_frct_flags() == FRCT_RESCNTL

    def test_on_a_local_flow_they_change_nothing_else(self, make_pair: Callable[..., Pair]) -> None:
        """`flows.md` 6.3: what was written before dealloc arrives without LINGER, too."""
        pair = make_pair(QoSSpec(loss=0))
        pair.near.set_frct_flags(0)
        pair.near.write(b"last")
        pair.near.dealloc()
        assert pair.far.do("f.read()") == b"last"
