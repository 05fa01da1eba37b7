"""The values in a policy document: each read from what YAML or JSON gives, or refused with a message for the user.

Every reader raises ValueError for what it refuses.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Annotated, TypeVar

import netaddr
from pydantic import PlainValidator

from ovsfw.policy import protocols
from ovsfw.policy.addresses import Family, Prefix, parse_mac
from ovsfw.policy.model import Action, Direction, Helper, Log, Position
from ovsfw.policy.places import MAX_DIGITS, show

E = TypeVar("E", bound=Enum)

# A document names the same few prefixes again and again.
_parse_prefix = lru_cache(maxsize=4096)(Prefix.parse)
HIGHEST_LIMIT = 2**32 - 1  # of connections in a conntrack zone
MAX_TEXT = 255  # of ids and names, as in Neutron


def _text(value: object) -> str:
    if not isinstance(value, str):
        hint = "is not text" if isinstance(value, (dict, list)) else "is not text; put it in quotes"
        raise ValueError(f"{show(value)} {hint}")  # noqa: TRY004 - pydantic collects ValueError only
    if len(value) > MAX_TEXT:
        raise ValueError(f"{show(value)} has {len(value)} characters; {MAX_TEXT} are allowed")
    return value


def identifier(value: object) -> str:
    """A text that may be an id.  Raises ValueError, with a message for the user, for anything else."""
    text = _text(value)
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError(f"{show(text)} is no id: printable characters are needed, and no space at either end")
    return text


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{show(value)} is not true or false")  # noqa: TRY004
    return value


def _number(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{show(value)} is not a whole number")  # noqa: TRY004
    return value


def _mac(value: object) -> int:
    if not isinstance(value, str) or len(value) > MAX_TEXT or value != value.strip():
        raise ValueError(f"{show(value)} is not a MAC address like '52:54:00:00:00:01'")
    return parse_mac(value)


def _prefix(value: object) -> Prefix:
    # Stricter than netaddr, which also reads netmasks, hostmasks and digits of other scripts.
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f:.]{1,45}(/[0-9]{1,3})?", value):
        raise ValueError(f"{show(value)} is not an IP address or prefix")
    return _parse_prefix(value)


def _own_prefix(value: object) -> Prefix:
    prefix = _prefix(value)
    if netaddr.IPAddress(str(value).partition("/")[0]).is_multicast():
        raise ValueError(f"{show(value)} is multicast; a port cannot own it")
    return prefix


def _limit(value: object) -> int:
    limit = _number(value)
    if not 1 <= limit <= HIGHEST_LIMIT:
        # Open vSwitch reads 0 as no limit in one datapath and as no connections in the other.
        raise ValueError(f"{show(value)} is not a number of connections (1 to {HIGHEST_LIMIT}; leave it out for any)")
    return limit


def _own_address(value: object) -> Prefix:
    address = _own_prefix(value)
    if not address.is_host or "/" in str(value):
        raise ValueError(f"{show(value)} is a prefix; one address is needed (prefixes go to allowed_address_pairs)")
    if not address.value:
        raise ValueError(f"{show(value)} is not the address of a port")
    return address


def _member(kind: type[E], value: object, complaint: str) -> E:
    if isinstance(value, str) and value in {member.value for member in kind}:
        return kind(value)
    raise ValueError(f"{show(value)} {complaint}")


def _direction(value: object) -> Direction:
    return _member(Direction, value, "is not a direction; use ingress or egress")


def _action(value: object) -> Action:
    return _member(Action, value, "is not an action; use allow, deny, reject or pass")


def _position(value: object) -> Position:
    return _member(Position, value, "is not a position; use before or after (the security groups)")


def _helper(value: object) -> Helper:
    return _member(Helper, value, "is not a helper of conntrack; use ftp or tftp")


def _log(value: object) -> Log:
    return _member(Log, value, "is nothing to log; use accepted, dropped or all")


def _ethertype(value: object) -> Family:
    for family in Family:
        if isinstance(value, str) and value.lower() == family.ethertype.lower():
            return family
    raise ValueError(f"{show(value)} is not an ethertype; use IPv4 or IPv6")


def _protocol(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{show(value)} is not a protocol; use a name like tcp, a number from 0 to 255, or any")  # noqa: TRY004
    return protocols.number(value)


Text = Annotated[str, PlainValidator(_text)]
Identifier = Annotated[str, PlainValidator(identifier)]
Boolean = Annotated[bool, PlainValidator(_boolean)]
Number = Annotated[int, PlainValidator(_number)]
Mac = Annotated[int, PlainValidator(_mac)]
RemotePrefix = Annotated[Prefix, PlainValidator(_prefix)]
OwnPrefix = Annotated[Prefix, PlainValidator(_own_prefix)]
OwnAddress = Annotated[Prefix, PlainValidator(_own_address)]
DirectionWord = Annotated[Direction, PlainValidator(_direction)]
EthertypeWord = Annotated[Family, PlainValidator(_ethertype)]
Protocol = Annotated[int | None, PlainValidator(_protocol)]
ActionWord = Annotated[Action, PlainValidator(_action)]
PositionWord = Annotated[Position, PlainValidator(_position)]
HelperWord = Annotated[Helper, PlainValidator(_helper)]
LogWord = Annotated[Log, PlainValidator(_log)]
ConnectionLimit = Annotated[int, PlainValidator(_limit)]
