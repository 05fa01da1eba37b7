"""The parts that the document reader is made of."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ovsfw.errors import PolicyError, Problem
from ovsfw.policy import protocols
from ovsfw.policy.addresses import Family
from ovsfw.policy.jsontext import looks_like_json
from ovsfw.policy.places import Builder, Node, Place, format_path, show
from ovsfw.policy.yamltext import read, resolve
from ovsfw.sources import file
from ovsfw.sources.file import read_policy


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("NULL", None), ("nUll", "nUll"),
        ("true", True), ("False", False), ("yes", "yes"), ("no", "no"), ("on", "on"), ("y", "y"),
        ("0", 0), ("-7", -7), ("+7", 7), ("010", 10), ("0o10", 8), ("0x1F", 31), ("0b1", "0b1"), ("1_000", "1_000"),
        ("1:30", "1:30"), ("52:54:00:00:00:01", "52:54:00:00:00:01"), ("12:34:56", "12:34:56"),
        ("2024-01-01", "2024-01-01"), ("10.0.0.1", "10.0.0.1"), ("10.0.0.0/8", "10.0.0.0/8"), ("-", "-"), (".", "."),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-1E-3", -0.001),
        (".inf", math.inf), ("-.INF", -math.inf), ("1e999", math.inf), ("inf", "inf"), ("nan", "nan"),
        ("65c0ee9f-d634-4522-8954-51021b570b0d", "65c0ee9f-d634-4522-8954-51021b570b0d"), ("<<", "<<"), ("=", "="),
    ],
)  # fmt: skip
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_not_a_number_is_one() -> None:
    number = resolve(".nan")
    assert isinstance(number, float)
    assert math.isnan(number)


def test_every_value_has_its_place() -> None:
    builder = Builder("t")
    read("a:\n  - b\n  - {c: d}\n", builder)
    assert builder.value == {"a": ["b", {"c": "d"}]}
    places = {
        (): (1, 1),
        ("a",): (2, 3),
        ("a", 0): (2, 5),
        ("a", 1): (3, 5),
        ("a", 1, "c"): (3, 9),
        ("a", 1, "x"): (3, 5),
        ("a", 2): (2, 3),
        ("a", "x"): (2, 3),
        ("a", 0, "x"): (2, 5),
        ("a", 0, 1): (2, 5),
        ("x", "y"): (1, 1),
    }
    assert {path: builder.node.find(path) for path in places} == places
    assert builder.node.find(("a", 1, "c"), key=True) == (3, 6)
    assert builder.node.find(("a", 1), key=True) == (3, 5)
    assert Node(Place(1, 2)).find((), key=True) == (1, 2)


def test_paths() -> None:
    assert format_path(()) == ""
    assert format_path(("binding:x", 0, "a b", "", "c-d")) == "binding:x[0]['a b'][''].c-d"


def test_values_are_shown_short() -> None:
    values: tuple[object, ...] = (None, True, 1, 1.5, "a", "a\nb", {}, [], "x" * 42)
    shown = [show(value) for value in values]
    assert shown == ["null", "true", "1", "1.5", "'a'", r"'a\nb'", "a mapping", "a list", repr("x" * 42)]
    assert show("x" * 43) == repr("x" * 39 + "...")


def test_json_is_told_by_its_beginning() -> None:
    assert [looks_like_json(text) for text in ('\n{\n"', "{}", "[", "{a", "ports", "")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_protocols_of_neutron() -> None:
    expected = {
        "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "icmpv6": 58, "igmp": 2,
        "ip": 0, "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
        "ipv6-route": 43, "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136,
        "vrrp": 112,
    }  # fmt: skip
    assert expected == protocols.NUMBERS
    assert {name: protocols.number(name.upper()) for name in expected} == expected
    assert protocols.number("Any") is None


def test_protocol_numbers_have_one_name_each() -> None:
    assert [protocols.number(protocols.name(number)) for number in range(256)] == list(range(256))
    assert [protocols.number(str(number)) for number in range(256)] == list(range(256))
    assert (protocols.name(58), protocols.name(0), protocols.name(None)) == ("ipv6-icmp", "hopopt", "any")


@pytest.mark.parametrize("value", ["256", 256, -1, "-1", "٣", "1" * 5000, "6.0", "", "t c p"])
def test_what_is_no_protocol(value: str | int) -> None:
    with pytest.raises(ValueError, match="is not a protocol"):
        protocols.number(value)


@pytest.mark.parametrize("number", [41, 43, 44, 58, 59, 60])
def test_protocols_of_ipv6_are_refused_in_ipv4(number: int) -> None:
    assert protocols.in_family(number, Family.IPV6) == number
    with pytest.raises(ValueError, match="is not a protocol of IPv4"):
        protocols.in_family(number, Family.IPV4)


def test_icmp_is_that_of_the_family() -> None:
    assert (protocols.in_family(1, Family.IPV4), protocols.in_family(1, Family.IPV6)) == (1, 58)
    assert (protocols.in_family(None, Family.IPV4), protocols.in_family(6, Family.IPV6)) == (None, 6)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("security_groups: [{id: web}]")
    assert list(read_policy(path).security_groups) == ["web"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def problem(path: Path | str) -> Problem:
        with pytest.raises(PolicyError) as caught:
            read_policy(path)
        (only,) = caught.value.problems
        assert only.source == str(path)
        return only

    assert problem(tmp_path / "none.yaml").message == "cannot be read: No such file or directory"
    assert problem(tmp_path).message == "cannot be read: Is a directory"
    assert problem("a\0b").message == "cannot be read: embedded null byte"
    monkeypatch.setattr(file, "MAX_BYTES", 1024**2)
    assert problem("/dev/zero").message == "larger than 1 MiB; is it a policy?"
