"""Messages between members of a layer: the bytes of the C prototype, and that anything else is refused with the field named.

The vectors are those of `unicast-control.md` 13, captured between members of the prototype.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ouroboros.errors import ProtocolError
from ouroboros.settings import (
    BroadcastSettings,
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    DtConfig,
    UnicastConfig,
    UnicastSettings,
)
from ouroboros.wire.unicast import cep, dht, enrollment, protobuf
from ouroboros.wire.unicast.cep import Cep, Ours
from ouroboros.wire.unicast.dht import Contact, FindNode, FindValue, NodeFound, Store, ValueFound
from ouroboros.wire.unicast.enrollment import Ack, Configuration, Request, Response

A, B, C = 0x5DE9D31B, 0x80ACF665, 0x07C0FBAC
MESSAGES = Path(protobuf.__file__).with_name("messages.proto")

# --- CEP

CEPS = {
    "0a0a456e726f6c6c6d656e74 1203 4f4550 1801 2800 4000": Cep("Enrollment", "OEP", 1, 0, 0),
    "0a0a4d616e6167656d656e74 1203 4c5350 1801 2800 40 e5ecb38508": Cep("Management", "LSP", 1, 0, B),
    "0a0a4d616e6167656d656e74 1203 4c5350 1801 2800 40 9ba6a7ef05": Cep("Management", "LSP", 1, 0, A),
    "0a0d44617461205472616e73666572 1203 647470 1801 2802 40 e5ecb38508": Cep("Data Transfer", "dtp", 1, 2, B),
    "0a0d44617461205472616e73666572 1203 647470 1801 2802 40 9ba6a7ef05": Cep("Data Transfer", "dtp", 1, 2, A),
    "0a0d44617461205472616e73666572 1200 1800 2800 4000": Cep("Data Transfer", "", 0, 0, 0),
    "0a001200180028004000": cep.UNKNOWN,
}


@pytest.mark.parametrize("vector", CEPS)
def test_golden_cep(vector: str) -> None:
    data, message = bytes.fromhex(vector), CEPS[vector]
    assert cep.decode(data) == message
    assert message.encode() == data


def test_a_cep_of_ours_is_one_of_the_prototype_with_a_field_more() -> None:
    plain = Cep("Data Transfer", "dtp", 1, 2, 0xFFFFFFFF)
    message = msgspec.structs.replace(plain, ours=Ours(flags=cep.LEAVING, rank=8, node=2**64 - 1))
    data = message.encode()
    assert data.startswith(plain.encode())
    assert data[len(plain.encode()) :] == bytes.fromhex("a206 0f 0801 1001 1808 21 ffffffffffffffff")
    assert cep.decode(data) == message


def test_names_that_are_too_long_or_unprintable_are_left_out_of_a_cep() -> None:
    named = msgspec.structs.replace(cep.UNKNOWN, ours=Ours(0, 1, 0, "n" * cep.NAME_LENGTH))
    assert cep.decode(named.encode()) == named
    for name in ("n" * (cep.NAME_LENGTH + 1), "bell\a"):
        message = msgspec.structs.replace(cep.UNKNOWN, ours=Ours(0, 1, 0, name))
        assert cep.decode(message.encode()).ours == Ours(0, 1, 0, "")
    longest = Cep("Data Transfer", "dtp", 1, 2, 0xFFFFFFFF, Ours(0xFF, 8, 2**64 - 1, "n" * cep.NAME_LENGTH))
    assert len(longest.encode()) <= cep.LONGEST


def test_fields_of_a_cep_come_in_any_order_and_unknown_ones_are_skipped() -> None:
    more = "a2010474657874 4807"  # 20: text, 9: a number
    data = bytes.fromhex(f"40 e5ecb38508 {more} 2800 3001 2002 1801 1203 4c5350 0a0a4d616e6167656d656e74")
    assert cep.decode(data) == Cep("Management", "LSP", 1, 0, B)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("0a0a456e726f6c6c6d656e74 1203 4f4550 1801 2800", "without address"),
        ("0a02c328 1200 1800 2800 4000", "component: .* is no UTF-8"),
        ("0a00 1202c328 1800 2800 4000", "protocol: .* is no UTF-8"),
        ("0a00 1200 1800 2800 40 8080808010", "address: 4294967296 is none"),
        ("0a7f", "bytes that are no such message"),
        ("", "without component, protocol, version, syntax, address"),
        ("0a00 1200 1800 2800 4000 a20602 0801", "without ours.flags, ours.rank, ours.node"),
        ("0a00 1200 1800 2800 4000" + "9a0600" * 50, "at most 128"),
    ],
)
def test_bad_ceps_are_refused(data: str, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        cep.decode(bytes.fromhex(data))


def test_a_version_of_ours_that_cannot_be_read_counts_as_the_prototype() -> None:
    data = bytes.fromhex("0a00 1200 1800 2800 4000 a2060f 0800 1000 1800 21 0000000000000000")
    assert cep.decode(data) == cep.UNKNOWN


def test_no_cep_is_made_that_a_member_of_the_prototype_would_cut() -> None:
    with pytest.raises(ValueError, match="takes 128"):
        Cep("x" * 128, "", 0, 0, 0).encode()


# --- enrollment

ID = bytes.fromhex("217b2f8bd8055911")
CONF = (
    "2a3f 0a050a01751001 1001 1a34"
    "0a14 0804 1008 183c 220c 0800 1208 0800 1004 180f 203c"
    "1218 0800 1214 0803 1008 1880a305 208407 288407 309ba6a7ef05"
    "1800 2001"
)
HEAD = "0a08217b2f8bd8055911 10cbf7a9d806 18b3bfdb54 2000"
WALL = 1795849163 * 1_000_000_000 + 177659827
RESPONSE = Response(ID, WALL, Configuration("u", UnicastSettings(), A))


def test_golden_request() -> None:
    data = bytes.fromhex("0a08217b2f8bd8055911")
    assert enrollment.decode_request(data) == Request(ID)
    assert Request(ID).encode() == data


def test_golden_response() -> None:
    data = bytes.fromhex(HEAD + CONF)
    assert len(data) == 88
    assert enrollment.decode_response(data) == RESPONSE
    assert RESPONSE.encode() == data


def test_golden_response_of_a_broadcast_layer() -> None:
    data = bytes.fromhex(HEAD + "2a0a 0a060a0262631001 1002")
    message = Response(ID, WALL, Configuration("bc", BroadcastSettings(), None))
    assert enrollment.decode_response(data) == message
    assert message.encode() == data


def test_golden_ack() -> None:
    data = bytes.fromhex("0a08217b2f8bd8055911 1000")
    assert enrollment.decode_ack(data) == Ack(ID)
    assert Ack(ID).encode() == data


def test_a_refusal_has_no_configuration_and_says_why_to_those_that_read_it() -> None:
    refusal = Response(ID, WALL, None, "the layer takes nobody")
    data = refusal.encode()
    assert b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" in data
    assert enrollment.decode_response(data) == refusal
    bare = bytes.fromhex(HEAD.removesuffix("2000") + "20ffffffffffffffffff01")
    assert enrollment.decode_response(bare) == Response(ID, WALL, None)


def test_a_configuration_of_ours_comes_out_as_it_went_in() -> None:
    unicast = UnicastConfig(dir=DirConfig(dht=DhtConfig(1, 20, 10, 3, 3600)))
    settings = UnicastSettings(DirectoryHashAlgo.SHA3_512, unicast=unicast)
    message = Response(ID, 0, Configuration("ü" * 127, settings, 0xFFFFFFFF))
    assert enrollment.decode_response(message.encode()) == message


@pytest.mark.parametrize("enroll", [("nobody",), ("alice", "bob"), tuple(map(chr, range(300, 384))), ("ü" * 127,)])
def test_who_may_enroll_fits_into_the_longest_configuration(enroll: tuple[str, ...]) -> None:
    settings = UnicastSettings(unicast=UnicastConfig(enroll=enroll))
    message = Response(ID, 0, Configuration("ü" * 127, settings, 0xFFFFFFFF))
    assert enrollment.decode_response(message.encode()) == message
    with pytest.raises(ValueError, match=r"names of \d+ bytes together"):
        UnicastConfig(enroll=tuple(map(str, range(1000))))


@pytest.mark.parametrize("mtu", [128, 1279, 65535])
def test_the_mtu_is_told_only_when_it_is_another_one_than_that_of_all_layers(mtu: int) -> None:
    def configuration(mtu: int) -> Response:
        settings = UnicastSettings(unicast=UnicastConfig(DtConfig(mtu=mtu)))
        return Response(ID, 0, Configuration("u", settings, A))

    assert configuration(1280).encode() == Response(ID, 0, Configuration("u", UnicastSettings(), A)).encode()
    assert len(configuration(mtu).encode()) > len(configuration(1280).encode())
    assert enrollment.decode_response(configuration(mtu).encode()) == configuration(mtu)


def test_who_may_enroll_is_told_only_when_a_member_of_the_prototype_would_not_know() -> None:
    anyone = Response(ID, 0, Configuration("u", UnicastSettings(), A)).encode()
    some = Response(ID, 0, Configuration("u", UnicastSettings(unicast=UnicastConfig(enroll=("bob",))), A)).encode()
    assert b"anyone" not in anyone
    assert b"bob" in some


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        (CONF, "", "conf: missing"),
        ("0a08217b2f8bd8055911", "0a07217b2f8bd80559", "id: 7 bytes, where 8 belong"),
        ("18b3bfdb54", "188094ebdc03", "t_nsec: 1000000000 is no part of a second"),
        ("0a050a01751001", "0a050a01001001", "layer name .* control characters"),
        ("0a050a01751001", "0a050a01ff1001", "layer name: .* is no UTF-8"),
        ("0a050a01751001", "0a050a01751004", "conf: 4 is not a valid DirectoryHashAlgo"),
        ("1001 1a34", "1005 1a34", "ipcp_type: 5"),
        ("1001 1a34", "1001 2234", "unicast: missing"),
        ("0804 1008 183c", "0805 1008 183c", "addr_size: 5 bytes; flat addresses have 4"),
        ("0804 1008 183c", "0804 1008 1800", "max_ttl must be from 1 to 255 hops, not 0"),
        ("220c 0800 1208", "220c 0801 1208", "RoutingConfig: pol"),
        ("220c 0800 1208", "220c 0800 1a08", "ls: missing"),
        ("1208 0800 1004", "1208 0803 1004", "LinkStateConfig: pol"),
        ("1004 180f 203c", "1000 180f 203c", "t_recalc must be from 1"),
        ("1004 180f 203c", "1004 1800 203c", "t_update must be from 1"),
        ("1004 180f 203c", "1004 180f 2000", "t_timeo must be from 1"),
        ("1218 0800 1214", "1218 0801 1214", "DirConfig: pol"),
        ("1218 0800 1214", "1218 0800 1a14", "dht: missing"),
        ("0803 1008 1880a305", "0800 1008 1880a305", "alpha must be from 1 to 10"),
        ("0803 1008 1880a305", "0803 1015 1880a305", "k must be from 1 to 20"),
        ("0803 1008 1880a305", "0803 1008 18808006", "t_expire must be from 10 to 86400"),
        ("208407 288407", "208000 288407", "t_refresh must be from 3 to 3600"),
        ("208407 288407", "208407 28841d", "t_replicate must be from 3 to 3600"),
        ("309ba6a7ef05", "308080808000", "peer: 0 is no address"),
        ("1800 2001", "1801 2001", "addr_auth"),
        ("1800 2001", "1800 2002", "cong_avoid"),
    ],
)
def test_bad_responses_are_refused(good: str, bad: str, why: str) -> None:
    whole = HEAD + CONF
    assert good in whole
    with pytest.raises(ProtocolError, match=why):
        enrollment.decode_response(bytes.fromhex(whole.replace(good, bad)))


def test_endpoint_ids_of_another_size_are_taken_as_8_with_the_reason() -> None:
    taken = enrollment.decode_response(bytes.fromhex((HEAD + CONF).replace("0804 1008", "0804 1004"))).configuration
    assert taken is not None
    assert taken.settings == UnicastSettings()
    assert taken.note == "endpoint ids of 4 bytes are taken as 8, as members of the C prototype do"


def test_what_is_longer_than_a_receiver_takes_is_neither_made_nor_taken() -> None:
    with pytest.raises(ValueError, match="takes 1024"):
        Response(ID, 0, Configuration("u" * 1000, UnicastSettings(), A)).encode()
    with pytest.raises(ProtocolError, match="at most 1024"):
        enrollment.decode_request(Request(ID).encode() + bytes.fromhex("a206") * 600)


@pytest.mark.parametrize("length", [0, 7, 9])
def test_ids_of_another_length_are_neither_made_nor_taken(length: int) -> None:
    id = bytes(length)
    for message in (Request(id), Ack(id), Response(id, 0, None)):
        with pytest.raises(ProtocolError, match="where 8 belong"):
            message.encode()
    with pytest.raises(ProtocolError, match="where 8 belong"):
        enrollment.decode_ack(bytes([0x0A, length, *id, 0x10, 0]))


# --- directory

ID_A = bytes.fromhex("57fd444492815445e32863973a6447bf6d8191582e220ab2274250ef5457733f")
ID_B = bytes.fromhex("bad1da12d86246e78ef521a8f1ecbac08408edc5f977b88c6bcc436f3885d28a")
ID_C = bytes.fromhex("a4656d167c3d0ae5d0b4f78272ea8ca795037d10c9f76d8e26c82fb3951db913")
OPING = bytes.fromhex("42dee3b0415b4f690fd91cbd99876f1e9bd8d9745ef7fa32b142773af0349d54")
AT_A, AT_B = Contact(ID_A, A), Contact(ID_B, B)
MAGIC = "b6c383ded7f4e7e8b901"
#: The other run of `unicast-control.md` 13.4: two contacts and a value.
OTHER = Contact(bytes.fromhex("1dcfa562ba31666b0c411f9aeb95bb081c056745a50a71392f1618362d9e1bc4"), 0x79B0999F)
SVC = bytes.fromhex("7a665e4d7ab718e311bbf58f8ce850c9a0a6ae13699bb62f7909eddbf592b39d")
OTHERS = (
    Contact(bytes.fromhex("b369fb81c2570785b8179494b2179e5bd6124a129be2a94ad939cc37cb9e2a77"), 0x9968AA83),
    Contact(bytes.fromhex("7757ec73bb20cd2d35509a089802d983a5df659c6d3213bedfe33c85da2132f9"), 0xCBFA6FF6),
)
SOURCE_A, SOURCE_B = f"1228 0a20 {ID_A.hex()} 10 9ba6a7ef05", f"1228 0a20 {ID_B.hex()} 10 e5ecb38508"
ADDRESS_C = 0x3E83F7AC
DHT = {
    f"0801 {SOURCE_B} 222d 08{MAGIC} 1220{ID_B.hex()}": FindNode(AT_B, 0xB9D19FA57BC0E1B6, ID_B),
    f"0802 {SOURCE_A} 2a57 08{MAGIC} 1220{ID_B.hex()} 1a28 0a20{ID_B.hex()} 10e5ecb38508": NodeFound(
        AT_A, 0xB9D19FA57BC0E1B6, ID_B, (AT_B,)
    ),
    f"0800 1227 0a20{ID_C.hex()} 10acf7833e 1a32 0a20{OPING.hex()} 12080000000007c0fbac 18f79aafd806": Store(
        Contact(ID_C, C), OPING, C, 1795935607
    ),
    f"0803 {SOURCE_A} 222c 08efd0d89cf2ddd08a10 1220{OPING.hex()}": FindValue(AT_A, 0x101542EF2396286F, OPING),
    f"0804 {SOURCE_B} 2a56 08efd0d89cf2ddd08a10 1220{OPING.hex()} 1a28 0a20{ID_A.hex()} 109ba6a7ef05 3200": ValueFound(
        AT_B, 0x101542EF2396286F, OPING, (AT_A,), ()
    ),
    f"0804 1228 0a20{OTHER.id.hex()} 109fb3c2cd07 2a8101 08ccbacfb8c5c29e8b9f01 1220{SVC.hex()}"
    f"1a28 0a20{OTHERS[0].id.hex()} 1083d5a2cb09 1a28 0a20{OTHERS[1].id.hex()} 10f6dfe9df0c"
    "320a 0a08000000009968aa83": ValueFound(OTHER, 0x9F167A145713DD4C, SVC, OTHERS, (0x9968AA83,)),
}


@pytest.mark.parametrize("vector", DHT, ids=[type(each).__name__ for each in DHT.values()])
def test_golden_directory_message(vector: str) -> None:
    data, message = bytes.fromhex(vector), DHT[vector]
    assert dht.decode(data, 32) == message
    assert message.encode() == data


STORE = Store(AT_B, OPING, B, 1795935607)


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ("0800 1228", "0805 1228", "code: 5"),
        (f"1228 0a20 {ID_B.hex()}", f"1227 0a1f {ID_B.hex()[2:]}", "src.id: 31 bytes, where 32 belong"),
        ("10 e5ecb38508", "10 8080808000", "src.addr: 0 is no address"),
        ("10 e5ecb38508", "10 ffffffff7f", "src.addr: 34359738367 is no address"),
        ("1a32 0a20", "1a32 1a20", "without store.key"),
        ("1a32", "2232", "without find.cookie"),
        ("12080000000080acf665 18", "12080000000000000000 18", "val: 0 is no address"),
        ("12080000000080acf665 18", "12080000000180acf665 18", "val: 6453786213 is no address"),
        ("1a32", "1a31", "bytes that are no such message"),
    ],
)
def test_bad_directory_messages_are_refused(good: str, bad: str, why: str) -> None:
    whole = f"0800 {SOURCE_B} 1a32 0a20{OPING.hex()} 12080000000080acf665 18f79aafd806"
    assert bytes.fromhex(whole) == STORE.encode()
    assert good in whole
    with pytest.raises(ProtocolError, match=why):
        dht.decode(bytes.fromhex(whole.replace(good, bad)), 32)


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_a_code_without_its_part_is_refused(code: int) -> None:
    data = bytearray(STORE.encode())
    data[1] = code
    with pytest.raises(ProtocolError, match="missing in a message with code"):
        dht.decode(bytes(data), 32)


def test_bad_contacts_and_values_in_an_answer_spoil_only_themselves() -> None:
    find = protobuf.make(
        "Found",
        cookie=1,
        key=OPING,
        contacts=[
            protobuf.make("Contact", id=b"", address=A),
            protobuf.make("Contact", id=ID_A, address=0),
            protobuf.make("Contact", id=ID_A, address=2**32),
            protobuf.make("Contact", id=ID_A, address=A),
        ],
    )
    values = protobuf.make("Values", values=[b"", b"1234567", bytes(8), b"\1" * 8, bytes.fromhex("000000005de9d31b")])
    source = protobuf.make("Contact", id=ID_B, address=B)
    data = protobuf.serialized(protobuf.make("Dht", code=4, source=source, node=find, value=values))
    assert dht.decode(data, 32) == ValueFound(AT_B, 1, OPING, (AT_A,), (A,))


def test_what_kills_members_of_the_prototype_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="has contacts"):
        NodeFound(AT_A, 1, OPING, ()).encode()
    with pytest.raises(ValueError, match="cannot be told"):
        NodeFound(AT_A, 1, OPING, (Contact(b"short", B),)).encode()
    with pytest.raises(ValueError, match="cannot be told"):
        FindNode(Contact(ID_A, 0), 1, OPING).encode()


# --- the runtime


def test_messages_are_compiled_from_the_source_that_is_there(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="the compiler is not among the oldest dependencies")
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    compiled = tmp_path / "messages.binpb"
    source = MESSAGES.relative_to(MESSAGES.parents[3])
    arguments = ["protoc", f"--proto_path={MESSAGES.parents[3]}", f"--descriptor_set_out={compiled}", str(source)]
    assert protoc.main(arguments) == 0
    there = FileDescriptorSet.FromString(MESSAGES.with_suffix(".binpb").read_bytes())
    assert there == FileDescriptorSet.FromString(compiled.read_bytes()), "run `make proto`"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["ouroboros.dev", "ouroboros.irm", "ouroboros.cli", "ouroboros.wire.unicast.dht"])
def test_protobuf_is_loaded_with_the_first_message_only(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith('google')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "[]\n"
