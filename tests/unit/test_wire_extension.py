"""The blob that two of our nodes exchange: its bytes, and that nothing else is taken for one."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from ouroboros.wire import extension
from ouroboros.wire.extension import Extension

REQUEST = bytes(range(16))
ONE = Extension(extension.DEALLOC | extension.SACK, 1400, 65536, REQUEST)
BYTES = bytes.fromhex("70794f37 01 05 0578 00010000 000102030405060708090a0b0c0d0e0f")

EXTENSIONS = st.builds(
    Extension,
    st.integers(0, 255),
    st.integers(extension.LEAST_PACKET, extension.LONGEST_PACKET),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=16, max_size=16),
    st.integers(extension.LEAST_PACKET, extension.LONGEST_PACKET),
)


def test_golden_bytes() -> None:
    assert ONE.encode() == BYTES
    assert extension.decode(BYTES) == ONE
    assert len(BYTES) == extension.LENGTH == 28
    whole = msgspec.structs.replace(ONE, whole=1300)
    data = BYTES[:4] + b"\x02" + BYTES[5:] + b"\x05\x14"
    assert whole.encode() == data
    assert extension.decode(data) == whole
    # A length that is too small to be believed is not said.
    assert extension.decode(data[:-2] + b"\0\x7f") == ONE


@given(EXTENSIONS, st.binary(max_size=40))
def test_what_is_encoded_is_decoded_and_what_later_versions_append_is_skipped(blob: Extension, more: bytes) -> None:
    assert extension.decode(blob.encode() + more) == blob


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert extension.decode(BYTES[:4] + b"\x02" + BYTES[5:]) == ONE
    later = BYTES[:4] + b"\x03" + BYTES[5:] + b"\x05\x14more"
    assert extension.decode(later) == msgspec.structs.replace(ONE, whole=1300)
    assert extension.decode(BYTES + b"\x05\x14") == ONE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BYTES[:-1],
        b"x" + BYTES[1:],
        BYTES[:4] + b"\0" + BYTES[5:],
        *(BYTES[:6] + longest.to_bytes(2) + BYTES[8:] for longest in (0, 1, 12, 16, extension.LEAST_PACKET - 1)),
    ],
)
def test_anything_else_is_not_one_of_ours(data: bytes) -> None:
    assert extension.decode(data) is None


@given(st.binary(max_size=60))
def test_bytes_of_a_stranger_never_raise(data: bytes) -> None:
    found = extension.decode(data)
    assert found is None or data.startswith(extension.MAGIC)


@pytest.mark.parametrize(("said", "own", "whole"), [(0, 0, 0), (0, 900, 900), (900, 0, 900), (900, 1300, 900)])
def test_lengths_in_force_are_the_smaller_of_both(said: int, own: int, whole: int) -> None:
    peer = Extension(0, 1400, 65536, REQUEST, said)
    assert peer.agree(Extension(0, 1000, 4096, bytes(16), own)) == Extension(0, 1000, 65536, REQUEST, whole)


def test_what_is_in_force_is_what_both_can_do() -> None:
    own = Extension(extension.DEALLOC | extension.FRAGMENTS, 8976, 4096, bytes(16))
    agreed = ONE.agree(own)
    assert agreed == Extension(extension.DEALLOC, 1400, 65536, REQUEST)
    assert agreed.has(extension.DEALLOC)
    assert not agreed.has(extension.SACK)
