"""Whatever is read, the answer is a policy or a PolicyError; and the order of the document never matters."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.errors import PolicyError
from ovsfw.policy.document import parse, warnings
from ovsfw.policy.model import Policy
from ovsfw.policy.report import MAX_PROBLEMS

DOCUMENTS = Path(__file__).parent / "documents"
OPENSTACK = json.loads((DOCUMENTS / "good/openstack.json").read_bytes())
SAMPLES = [path.read_bytes() for path in sorted(DOCUMENTS.glob("*/*")) if path.suffix in {".json", ".yaml"}]

keys = st.sampled_from(
    ["security_groups", "address_groups", "ports", "rules", "id", "name", "direction", "protocol", "port_range_min",
     "port_range_max", "remote_group_id", "remote_ip_prefix", "ethertype", "mac_address", "fixed_ips", "ip_address",
     "allowed_address_pairs", "addresses", "network_id", "stateful", "port_security_enabled", "tiers", "action",
     "position", "applies_to"]
)  # fmt: skip
words = st.sampled_from(
    ["a", "b", "ingress", "egress", "after", "deny", "IPv4", "IPv6", "tcp", "icmp", "10.0.0.1", "10.0.0.0/8", "::/0",
     "80", ""]
)  # fmt: skip
macs = st.sampled_from(["52:54:00:00:00:01", "52:54:00:00:00:02"])
leaves = st.none() | st.booleans() | st.integers(-2, 300) | st.floats() | words | macs | st.text(max_size=5)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=5)
)
objects = st.lists(st.dictionaries(keys, values, max_size=7), max_size=4)
documents = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("security_groups", "address_groups", "tiers", "ports"), objects)
)


def is_policy_or_policy_error(text: bytes | str) -> None:
    try:
        warnings(parse(text, "t"))
    except PolicyError as error:
        problems = error.problems[:MAX_PROBLEMS]
    else:
        return
    assert problems
    places = [(problem.line, problem.column) for problem in problems]
    assert places == sorted(places)


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    is_policy_or_policy_error(data)


@given(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("&*!|>%@-?:,[]{}#\"'\n \t"), max_size=60))
def test_any_text(text: str) -> None:
    is_policy_or_policy_error(text)


@given(values | documents)
def test_any_json(value: object) -> None:
    is_policy_or_policy_error(json.dumps(value))


@given(documents)
def test_json_and_yaml_say_the_same(value: object) -> None:
    def outcome(text: str) -> Policy | list[tuple[str, str]]:
        try:
            return parse(text, "t")
        except PolicyError as error:
            return sorted((each.path, each.message) for each in error.problems)

    clean = json.loads(json.dumps(value), parse_constant=lambda _: None)
    assert outcome(json.dumps(clean)) == outcome("# YAML\n" + yaml.safe_dump(clean, allow_unicode=False))


@given(st.sampled_from(SAMPLES), st.data())
def test_mutated_documents(sample: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(sample)))
    end = data.draw(st.integers(start, min(len(sample), start + 40)))
    is_policy_or_policy_error(sample[:start] + data.draw(st.binary(max_size=8)) + sample[end:])


def shuffled(value: Any, shuffle: random.Random) -> Any:
    """The same document, its lists and mappings in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(inner, shuffle)) for key, inner in value.items()]
        shuffle.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        inner_values = [shuffled(inner, shuffle) for inner in value]
        shuffle.shuffle(inner_values)
        return inner_values
    return value


def two_of_everything() -> dict[str, Any]:
    """The sample, with a second group whose rules have no ids, and repeat themselves."""
    document: dict[str, Any] = copy.deepcopy(OPENSTACK)
    remotes: list[dict[str, object]] = [{}, {"remote_ip_prefix": "10.0.0.0/8"}, {"remote_group_id": "default"}]
    rules = [{"direction": direction, **remote} for direction in ("ingress", "egress") for remote in remotes]
    document["security_groups"].append({"id": "web", "rules": [*rules, *rules]})
    document["address_groups"].append({"id": "home", "addresses": ["192.0.2.1", "192.0.2.0/24"]})
    document["ports"][0]["security_groups"].append("web")
    document["ports"][1]["fixed_ips"] = [{"ip_address": f"10.0.0.{last}"} for last in range(10, 20)]
    return document


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_document_does_not_matter(shuffle: random.Random) -> None:
    document = two_of_everything()
    expected, got = (parse(json.dumps(each), "t") for each in (document, shuffled(document, shuffle)))
    assert got == expected
    assert repr(got) == repr(expected)  # the order inside too
    assert len(got.security_groups["web"].rules) == 6
    addresses = got.ports["vm2"].fixed_ips
    assert addresses == tuple(sorted(addresses))
