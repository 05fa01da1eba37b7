"""Policies of known size, generated from a seed: for benchmarks, and to see how flows grow.

Ports whose id begins with `local-` are meant to be on this host (`ovsfw compile --local 'local-*'`), the others
elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ovsfw.errors import ConfigError

Document = dict[str, Any]

_SEED = 20
_PORTS = (22, 53, 80, 123, 443, 3306, 5432, 6379, 8080, 9092)


def _port(number: int, name: str, groups: list[str]) -> Document:
    """Both families; every port of a shape has its own address."""
    high, low = divmod(number, 250)
    return {
        "id": f"{name}-{number}",
        "mac_address": f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
        "fixed_ips": [
            {"ip_address": f"10.{high >> 8}.{high & 255}.{low + 1}"},
            {"ip_address": f"2001:db8::{high:x}:{low + 1:x}"},
        ],
        "security_groups": groups,
    }


def _rule(seeded: random.Random, index: int, groups: list[str]) -> Document:
    """Half of the rules name a remote group, a quarter a prefix, the rest anybody."""
    rule: Document = {
        "direction": "egress" if index % 10 == 0 else "ingress",
        "ethertype": "IPv6" if index % 4 == 3 else "IPv4",  # noqa: PLR2004 - one in four
        "protocol": seeded.choice(("tcp", "tcp", "udp")),
        "port_range_min": seeded.choice(_PORTS) + index,
    }
    rule["port_range_max"] = rule["port_range_min"]
    if index % 2:
        rule["remote_group_id"] = seeded.choice(groups)
    elif index % 4 == 0:
        rule["remote_ip_prefix"] = f"198.51.{index % 256}.0/24"
    return rule


def sized(*, local: int, remote: int, groups: int, rules: int) -> Document:
    """So many ports here and elsewhere, each in two of so many groups, each of these with so many rules."""
    seeded = random.Random(_SEED)  # noqa: S311 - a benchmark, not a secret
    names = [f"group-{number}" for number in range(groups)]
    return {
        "security_groups": [
            {"id": name, "rules": [_rule(seeded, index, names) for index in range(rules)]} for name in names
        ],
        "ports": [
            _port(number, "local" if number < local else "remote", seeded.sample(names, min(2, groups)))
            for number in range(local + remote)
        ],
    }


def _biggroup() -> Document:
    """One group of 5,000 members that refers to itself."""
    mutual = [
        {"direction": direction, "ethertype": family, "remote_group_id": "all"}
        for direction in ("ingress", "egress")
        for family in ("IPv4", "IPv6")
    ]
    local, members = 100, 5000
    ports = [_port(number, "local" if number < local else "remote", ["all"]) for number in range(members)]
    return {"security_groups": [{"id": "all", "rules": mutual}], "ports": ports}


def _ranges() -> Document:
    """100 ports, and 50 rules of ranges that fall badly on powers of two."""
    seeded = random.Random(_SEED)  # noqa: S311
    rules = []
    for _ in range(50):
        first = seeded.randrange(1, 60000)
        last = min(65535, first + seeded.randrange(3, 5000))
        rules.append({"direction": "ingress", "protocol": "tcp", "port_range_min": first, "port_range_max": last})
    return {
        "security_groups": [{"id": "ranges", "rules": rules}],
        "ports": [_port(number, "local", ["ranges"]) for number in range(100)],
    }


SHAPES: dict[str, Callable[[], Document]] = {
    "small": lambda: sized(local=20, remote=0, groups=5, rules=10),
    "medium": lambda: sized(local=200, remote=2000, groups=50, rules=20),
    "large": lambda: sized(local=500, remote=10000, groups=100, rules=30),
    "biggroup": _biggroup,
    "ranges": _ranges,
    "stress": lambda: sized(local=400, remote=0, groups=1, rules=1000),
}


def shape(name: str) -> Document:
    """A policy document.  Raises ConfigError for a name that is none."""
    if name not in SHAPES:
        raise ConfigError(f"no shape is named {name!r}; there are {', '.join(SHAPES)}")
    return SHAPES[name]()
