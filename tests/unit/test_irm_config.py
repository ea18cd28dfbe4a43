"""Settings of IPC processes and names: their defaults, what they refuse, and that they still are what programs rely on."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import pytest

import ouroboros.ipcp_config
from ouroboros import irm
from ouroboros.irm import (
    AddressAuthPolicy,
    CongestionAvoidPolicy,
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    DirectoryPolicy,
    DtConfig,
    EthConfig,
    IpcpConfig,
    IpcpType,
    LinkStateConfig,
    LinkStatePolicy,
    LoadBalancePolicy,
    NameInfo,
    NameSecPaths,
    RoutingConfig,
    RoutingPolicy,
    Udp4Config,
    Udp6Config,
    UnicastConfig,
)

#: What a type checker would find is tested at run time, too.
untyped: Any = irm

#: The numbers are those on the wire (`irm.md` 1.2).
ENUMS: dict[type[IntEnum], dict[str, int]] = {
    IpcpType: {"LOCAL": 0, "UNICAST": 1, "BROADCAST": 2, "ETH_LLC": 3, "ETH_DIX": 4, "UDP4": 5, "UDP6": 6},
    AddressAuthPolicy: {"FLAT_RANDOM": 0},
    LinkStatePolicy: {"SIMPLE": 0, "LFA": 1, "ECMP": 2},
    RoutingPolicy: {"LINK_STATE": 0},
    CongestionAvoidPolicy: {"NONE": 0, "MB_ECN": 1},
    DirectoryPolicy: {"DHT": 0},
    DirectoryHashAlgo: {"SHA3_224": 0, "SHA3_256": 1, "SHA3_384": 2, "SHA3_512": 3},
    LoadBalancePolicy: {"ROUND_ROBIN": 0, "SPILL": 1},
}


@pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: kind.__name__)
def test_an_enum_has_its_members_with_their_numbers(kind: type[IntEnum]) -> None:
    assert {member.name: member.value for member in kind} == ENUMS[kind]


@pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: kind.__name__)
def test_every_member_has_a_word_of_its_own(kind: type[IntEnum]) -> None:
    words = [getattr(member, "word") for member in kind]  # noqa: B009 - not every IntEnum has it
    assert len(set(words)) == len(words)


def test_words_are_those_of_the_irm_command() -> None:
    assert [each.word for each in IpcpType][3:5] == ["eth-llc", "eth-dix"]
    assert [each.word for each in LinkStatePolicy] == ["link_state", "lfa", "ecmp"]
    assert [each.word for each in CongestionAvoidPolicy] == ["none", "mb-ecn"]
    assert [each.word for each in LoadBalancePolicy] == ["round-robin", "spillover"]
    assert (AddressAuthPolicy.FLAT_RANDOM.word, DirectoryPolicy.DHT.word) == ("flat", "DHT")
    assert (RoutingPolicy.LINK_STATE.word, DirectoryHashAlgo.SHA3_384.word) == ("link_state", "SHA3_384")


def test_constants() -> None:
    assert (irm.BIND_AUTO, irm.DT_COMP, irm.MGMT_COMP) == (1, "Data Transfer", "Management")


def test_defaults_are_the_documented_ones() -> None:
    conf = UnicastConfig()
    assert (conf.dt.addr_size, conf.dt.eid_size, conf.dt.max_ttl) == (4, 8, 60)
    assert conf.dt.routing == RoutingConfig(
        RoutingPolicy.LINK_STATE, LinkStateConfig(LinkStatePolicy.SIMPLE, 4, 15, 60)
    )
    assert conf.dir == DirConfig(DirectoryPolicy.DHT, DhtConfig(3, 8, 86400, 900, 900))
    assert conf.addr_auth is AddressAuthPolicy.FLAT_RANDOM
    assert conf.cong_avoid is CongestionAvoidPolicy.MB_ECN
    assert conf.enroll == ("anyone",)
    assert EthConfig() == EthConfig("", 0xA000)
    assert Udp4Config() == Udp4Config("0.0.0.0", "0.0.0.0", 3435)
    assert Udp6Config() == Udp6Config("::", "::", 3435)


def test_defaults_of_layers_and_names() -> None:
    conf = IpcpConfig(IpcpType.LOCAL)
    assert (conf.layer_name, conf.dir_hash_algo) == ("", DirectoryHashAlgo.SHA3_256)
    assert (conf.unicast, conf.eth, conf.udp4, conf.udp6) == (None, None, None, None)
    name = NameInfo("clock")
    assert name.pol_lb is LoadBalancePolicy.ROUND_ROBIN
    assert name.server_sec == name.client_sec == NameSecPaths("", "", "")


@pytest.mark.parametrize(
    ("who", "kept"), [("nobody", ("nobody",)), (["a", "b", "a"], ("a", "b")), (("certified",), ("certified",))]
)
def test_who_may_enroll_is_kept_as_a_tuple(who: object, kept: tuple[str, ...]) -> None:
    assert UnicastConfig(enroll=who).enroll == kept  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("who", "kind", "why"),
    [
        (None, TypeError, "enroll must be one of anyone, certified, nobody, or a tuple of names, not None"),
        (7, TypeError, "or a tuple of names, not 7"),
        ((7,), TypeError, "enroll must be a string, not 7"),
        ((), ValueError, "enroll has no names in it: write nobody if that is meant"),
        (("a", "nobody"), ValueError, "enroll has nobody among names: it stands for itself"),
        ("a\nb", ValueError, "enroll has a name that is empty, or has control characters"),
        ("x" * 256, ValueError, "256 bytes in UTF-8; at most 255"),
    ],
)
def test_who_may_enroll_cannot_be_that(who: object, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        UnicastConfig(enroll=who)  # type: ignore[arg-type]


def test_two_objects_share_no_parts() -> None:
    one, other = UnicastConfig(), UnicastConfig()
    one.dt.routing.ls.t_recalc = 9
    assert other.dt.routing.ls.t_recalc == 4


def test_none_stands_for_the_defaults_of_a_part() -> None:
    for conf in (RoutingConfig(ls=None), UnicastConfig(dt=None, dir=None)):  # type: ignore[arg-type]
        assert conf == type(conf)()


def test_plain_numbers_become_members() -> None:
    conf = IpcpConfig(2, "lab", 3)  # type: ignore[arg-type]
    assert conf.ipcp_type is IpcpType.BROADCAST
    assert conf.dir_hash_algo is DirectoryHashAlgo.SHA3_512


def test_addresses_can_be_objects_and_are_kept_as_strings() -> None:
    conf = Udp6Config(ipaddress.ip_address("2001:DB8:0::1"))  # type: ignore[arg-type]
    assert conf.ip_addr == "2001:db8::1"


@pytest.mark.parametrize(
    ("kind", "field", "least", "most"),
    [
        (DtConfig, "addr_size", 1, 8),
        (DtConfig, "eid_size", 1, 8),
        (DtConfig, "max_ttl", 1, 255),
        (DtConfig, "mtu", 128, 65535),
        (LinkStateConfig, "t_recalc", 1, 2**32 - 1),
        (LinkStateConfig, "t_update", 1, 2**32 - 1),
        (LinkStateConfig, "t_timeo", 1, 2**32 - 1),
        (DhtConfig, "alpha", 1, 10),
        (DhtConfig, "k", 1, 20),
        (DhtConfig, "t_expire", 10, 86400),
        (DhtConfig, "t_refresh", 3, 3600),
        (DhtConfig, "t_replicate", 3, 3600),
        (EthConfig, "ethertype", 0x0600, 0xFFFE),
        (Udp4Config, "port", 1, 65535),
        (Udp6Config, "port", 1, 65535),
    ],
)
def test_numbers_have_their_range(kind: Callable[..., object], field: str, least: int, most: int) -> None:
    where = f"{getattr(kind, '__name__', '')}: {field} must be"
    for fits in (least, most):
        assert getattr(kind(**{field: fits}), field) == fits
    for outside in (least - 1, most + 1):
        with pytest.raises(ValueError, match=f"^{where} from "):
            kind(**{field: outside})
    for no_number in (str(least), float(least), True, None, math.nan):
        with pytest.raises(TypeError, match=f"^{where} a whole number"):
            kind(**{field: no_number})


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: untyped.IpcpConfig("local"),
            TypeError,
            "IpcpConfig: ipcp_type must be of class IpcpType, not 'local'",
        ),
        (
            lambda: untyped.IpcpConfig(7),
            ValueError,
            "IpcpConfig: ipcp_type must be one of LOCAL (0), UNICAST (1), BROADCAST (2)",
        ),
        (lambda: untyped.IpcpConfig(LinkStatePolicy.LFA), TypeError, "IpcpConfig: ipcp_type must be of class IpcpType"),
        (lambda: untyped.IpcpConfig(True), TypeError, "IpcpConfig: ipcp_type must be of class IpcpType, not True"),
        (
            lambda: untyped.IpcpConfig(IpcpType.LOCAL, b"lab"),
            TypeError,
            "IpcpConfig: layer_name must be a string, not b'lab'",
        ),
        (
            lambda: untyped.IpcpConfig(0, "é" * 128),
            ValueError,
            "IpcpConfig: layer_name has 256 bytes in UTF-8; at most 255 fit",
        ),
        (lambda: untyped.IpcpConfig(0, "\ud800" * 86), ValueError, "IpcpConfig: layer_name has 258 bytes"),
        (
            lambda: untyped.IpcpConfig(1, unicast=EthConfig()),
            TypeError,
            "unicast must be of class UnicastConfig, not EthConfig(",
        ),
        (
            lambda: untyped.IpcpConfig(0, eth=EthConfig()),
            ValueError,
            "IpcpConfig: eth means nothing for type local: leave it out",
        ),
        (lambda: untyped.IpcpConfig(5, udp6=Udp6Config()), ValueError, "IpcpConfig: udp6 means nothing for type udp4"),
        (
            lambda: untyped.DtConfig(routing=LinkStateConfig()),
            TypeError,
            "DtConfig: routing must be of class RoutingConfig",
        ),
        (lambda: untyped.Udp4Config("::1"), ValueError, "Udp4Config: ip_addr must be an IPv4 address, not '::1'"),
        (lambda: untyped.Udp6Config(dns_addr="x"), ValueError, "Udp6Config: dns_addr must be an IPv6 address, not 'x'"),
        (lambda: untyped.EthConfig(None), TypeError, "EthConfig: dev must be a string, not None"),
        (
            lambda: untyped.NameSecPaths(key="k" * 512),
            ValueError,
            "NameSecPaths: key has 512 bytes in UTF-8; at most 511 fit",
        ),
        (
            lambda: untyped.NameInfo("a", 2),
            ValueError,
            "NameInfo: pol_lb must be one of ROUND_ROBIN (0), SPILL (1), not 2",
        ),
        (
            lambda: untyped.NameInfo("a", server_sec="a"),
            TypeError,
            "NameInfo: server_sec must be of class NameSecPaths, not 'a'",
        ),
    ],
)
def test_an_error_names_the_class_and_the_field(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)


def test_attributes_can_be_set_and_are_checked_too() -> None:
    conf = IpcpConfig(IpcpType.LOCAL, "lab")
    conf.layer_name = "field"
    assert conf.layer_name == "field"
    with pytest.raises(TypeError, match="IpcpConfig: layer_name must be a string"):
        conf.layer_name = 1  # type: ignore[assignment]
    assert conf.layer_name == "field"


def test_a_misspelt_attribute_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"DhtConfig has no field 'aplha' \(known: alpha, k"):
        DhtConfig().aplha = 3


def test_everything_is_in_irm_and_documented() -> None:
    for name in ouroboros.ipcp_config.__all__:
        value = getattr(ouroboros.ipcp_config, name)
        assert getattr(irm, name) is value
        assert name in irm.__all__
        assert value.__doc__
        assert not value.__doc__.startswith(("An enumeration.", f"{name}("))
