"""The shapes of a policy document, one object of it at a time.

They are those of the Neutron API (https://docs.openstack.org/api-ref/network/v2/), with the spellings of the SDK and of
`openstack ... show -f json`.  A null is an absent attribute; attributes of Neutron that do not matter to a firewall are
dropped; any other key is refused.  What one attribute has to do with another is not judged here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ovsfw.policy.addresses import Family
from ovsfw.policy.model import Position
from ovsfw.policy.places import Path, show
from ovsfw.policy.report import Report
from ovsfw.policy.values import (
    ActionWord,
    Boolean,
    ConnectionLimit,
    DirectionWord,
    EthertypeWord,
    HelperWord,
    Identifier,
    LogWord,
    Mac,
    Number,
    OwnAddress,
    OwnPrefix,
    PositionWord,
    Protocol,
    RemotePrefix,
    Text,
)

_COMMON = frozenset(
    {
        "project_id", "tenant_id", "description", "created_at", "updated_at", "revision_number", "tags",
        "standard_attr_id", "location",
    }
)  # fmt: skip
_IGNORED_OF_GROUPS = _COMMON | {"shared", "is_shared", "is_default"}
_IGNORED_OF_RULES = _COMMON | {"name", "security_group_id", "normalized_cidr", "belongs_to_default_sg"}
_IGNORED_OF_PORTS = _COMMON | {
    "admin_state_up", "is_admin_state_up", "data_plane_status", "device_id", "device_owner", "device_profile",
    "dns_assignment", "dns_domain", "dns_name", "extra_dhcp_opts", "hardware_offload_type", "hints", "ip_allocation",
    "mac_learning_enabled", "numa_affinity_policy", "propagate_uplink_status", "pvlan_community", "pvlan_type",
    "qos_network_policy_id", "qos_policy_id", "resource_request", "status", "trunk_details", "trusted",
}  # fmt: skip
_IGNORED_OF_NETWORKS = _COMMON | {
    "admin_state_up", "availability_zone_hints", "availability_zones", "dns_domain", "ipv4_address_scope",
    "ipv6_address_scope", "is_admin_state_up", "is_default", "is_port_security_enabled", "is_router_external",
    "is_shared", "is_vlan_transparent", "is_vlan_qinq", "l2_adjacency", "mtu", "port_security_enabled",
    "qos_policy_id", "qinq", "segments", "shared", "status", "subnet_ids", "subnets", "vlan_transparent",
}  # fmt: skip
_IGNORED_PREFIXES_OF_NETWORKS = ("provider:", "provider_", "router:")
_IGNORED_PREFIXES_OF_PORTS = ("binding:", "binding_")


class Shape(BaseModel):
    """An object of the document."""

    model_config = ConfigDict(extra="forbid", loc_by_alias=True, frozen=True)
    ignored: ClassVar[frozenset[str]] = frozenset()
    ignored_prefixes: ClassVar[tuple[str, ...]] = ()
    # What stands in for a required attribute that is wrong, so that the others can be judged all the same.
    stand_ins: ClassVar[dict[str, object]] = {}

    @model_validator(mode="before")
    @classmethod
    def _only_what_matters(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        known = known_keys(cls)
        return {
            key: value
            for key, value in data.items()
            if key not in cls.ignored
            and not key.startswith(cls.ignored_prefixes)
            and (value is not None or key not in known)
        }

    @classmethod
    def written(cls, name: str, data: Mapping[str, object]) -> str:
        """How the document spells an attribute."""
        alias = cls.model_fields[name].validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else ()
        return next((str(choice) for choice in choices if data.get(str(choice)) is not None), name)


@cache
def known_keys(shape: type[Shape]) -> frozenset[str]:
    """The keys that mean something in an object, in all their spellings."""
    return frozenset(key for keys in _spellings(shape) for key in keys)


def _spellings(shape: type[Shape]) -> Iterator[tuple[str, ...]]:
    """The spellings of each key, the one to recommend first."""
    for name, field in shape.model_fields.items():
        alias = field.validation_alias
        yield tuple(str(choice) for choice in alias.choices) if isinstance(alias, AliasChoices) else (name,)


class RuleShape(Shape):
    """A security group rule."""

    ignored = _IGNORED_OF_RULES
    stand_ins: ClassVar[dict[str, object]] = {"direction": "ingress"}
    id: Identifier | None = None
    direction: DirectionWord
    ethertype: EthertypeWord = Field(Family.IPV4, validation_alias=AliasChoices("ethertype", "ether_type"))
    protocol: Protocol = None
    port_range_min: Number | None = None
    port_range_max: Number | None = None
    remote_ip_prefix: RemotePrefix | None = None
    remote_group_id: Text | None = None
    remote_address_group_id: Text | None = None
    log: LogWord | None = None
    helper: HelperWord | None = None


class TierRuleShape(RuleShape):
    """A rule of a tier."""

    stand_ins: ClassVar[dict[str, object]] = {**RuleShape.stand_ins, "action": "deny"}
    action: ActionWord


class SecurityGroupShape(Shape):
    """A security group; its rules are read one by one."""

    ignored = _IGNORED_OF_GROUPS
    id: Identifier | None = None
    name: Text | None = None
    stateful: Boolean = True
    rules: list[Any] = Field([], validation_alias=AliasChoices("rules", "security_group_rules"))
    log: LogWord | None = None


class TierShape(Shape):
    """A tier; its rules are read one by one."""

    ignored = _IGNORED_OF_GROUPS
    id: Identifier | None = None
    name: Text | None = None
    position: PositionWord = Position.BEFORE
    applies_to: list[Text] | None = None
    rules: list[Any] = []


class AddressGroupShape(Shape):
    """An address group."""

    ignored = _IGNORED_OF_GROUPS
    id: Identifier | None = None
    name: Text | None = None
    addresses: list[RemotePrefix] = []


class FixedIpShape(Shape):
    """An address of a port."""

    ignored = frozenset({"subnet_id", "subnet"})
    ip_address: OwnAddress


class AddressPairShape(Shape):
    """An address or prefix that a port may use besides its own, and the MAC it uses it with."""

    ip_address: OwnPrefix
    mac_address: Mac | None = None


class PortShape(Shape):
    """A port."""

    ignored = _IGNORED_OF_PORTS
    ignored_prefixes = _IGNORED_PREFIXES_OF_PORTS
    stand_ins: ClassVar[dict[str, object]] = {"id": "-", "mac_address": "02:00:00:00:00:00"}
    id: Identifier
    name: Text | None = None
    mac_address: Mac
    network_id: Identifier | None = None
    fixed_ips: list[FixedIpShape] = []
    allowed_address_pairs: list[AddressPairShape] = []
    security_groups: list[Text] = Field([], validation_alias=AliasChoices("security_groups", "security_group_ids"))
    port_security_enabled: Boolean = Field(
        default=True, validation_alias=AliasChoices("port_security_enabled", "is_port_security_enabled")
    )


class NetworkShape(Shape):
    """What holds for the ports of a network."""

    ignored = _IGNORED_OF_NETWORKS
    ignored_prefixes = _IGNORED_PREFIXES_OF_NETWORKS
    id: Identifier | None = None
    name: Text | None = None
    dhcp_servers: list[OwnPrefix] | None = None
    routers: list[OwnPrefix] | None = None
    connection_limit: ConnectionLimit | None = None


class AssertionShape(Shape):
    """An assertion; whom and what it is about is read word by word."""

    stand_ins: ClassVar[dict[str, object]] = {"from": "any", "to": "any"}
    id: Identifier | None = None
    from_: Any = Field(validation_alias=AliasChoices("from"))
    to: Any
    allowed: Any = None
    denied: Any = None
    except_from: Any = None
    except_to: Any = None
    except_services: Any = None
    ethertype: EthertypeWord | None = Field(None, validation_alias=AliasChoices("ethertype", "ether_type"))


class DocumentShape(Shape):
    """The whole document; its objects are read one by one."""

    security_groups: list[Any] = []
    address_groups: list[Any] = []
    tiers: list[Any] = []
    ports: list[Any] = []
    networks: list[Any] = []
    assertions: list[Any] = []
    audit_suppressions: list[Any] = []


AnyShape = TypeVar("AnyShape", bound=Shape)


def read(shape: type[AnyShape], data: object, path: Path, report: Report) -> tuple[AnyShape, frozenset[str]] | None:
    """Read one object; report what is wrong with it.

    Returns the object and its wrong attributes, in which it has defaults or stand-ins; None when it is no object.
    """
    try:
        return shape.model_validate(data), frozenset()
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        location: Path = tuple(detail["loc"])
        key = str(location[-1]) if location else ""
        owner = _owner(shape, location[:-1])
        report.add(path + location, _message(detail, owner, key), at_key=detail["type"] == "extra_forbidden")
    if not isinstance(data, dict):
        return None
    wrong = frozenset(str(detail["loc"][0]) for detail in details)
    rest = {key: value for key, value in data.items() if key not in wrong and value is not None}
    return shape.model_validate({**shape.stand_ins, **rest}), wrong


def _owner(shape: type[Shape], location: Path) -> type[Shape]:
    """The shape of the object that a location is in; only those of a port are nested."""
    if not location:
        return shape
    return FixedIpShape if location[0] == "fixed_ips" else AddressPairShape


def _message(detail: ErrorDetails, owner: type[Shape], key: str) -> str:
    match detail["type"]:
        case "missing":
            return f"{key} is required"
        case "extra_forbidden":
            return _unknown(owner, key)
        case "list_type":
            return f"{show(detail['input'])} is not a list"
        case "model_type":
            return f"{show(detail['input'])} is not a mapping"
        case _:
            return str(detail["ctx"]["error"])


def _unknown(shape: type[Shape], key: str) -> str:
    known = known_keys(shape)
    if shape is RuleShape and key in TierRuleShape.model_fields and key not in known:
        return f"a rule of a security group has no {key}, it allows; only tiers have other rules"
    if key in known:
        return f"{show(key)} is another spelling of a key that is given too"
    near = difflib.get_close_matches(key.lower(), sorted(known | shape.ignored), n=1)
    keys = ", ".join(spellings[0] for spellings in _spellings(shape))
    hint = f"did you mean {near[0]}?" if near else f"the keys here are {keys}"
    return f"unknown key {show(key)}; {hint}"
