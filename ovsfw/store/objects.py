"""Changes to one object of a policy document: add, set, delete, as the command line says them.  Pure.

What an object may have is not judged here: the reader of the whole document does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from ovsfw.errors import ConfigError
from ovsfw.policy.writing import Document


class Kind(NamedTuple):
    """What the command line calls it, and which list of the document it is in."""

    name: str
    collection: str


KINDS = {
    kind.name: kind
    for kind in (Kind("group", "security_groups"), Kind("port", "ports"), Kind("address-group", "address_groups"))
}
# Of these, a list may be written with commas; an item that is no mapping is an address.
_LISTS = frozenset({"security_groups", "addresses"})
_ADDRESSES = frozenset({"fixed_ips", "allowed_address_pairs"})
_WORDS = {"true": True, "false": False, "null": None}


def parse_settings(words: Sequence[str]) -> Document:
    """`KEY=VALUE ...`: a word, or a list or mapping in YAML.  Raises ConfigError."""
    found: Document = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r}: use KEY=VALUE, as in protocol=tcp or security_groups=web,db")
        found[key] = _value(key, text)
    return found


def _value(key: str, text: str) -> Any:  # noqa: ANN401
    if text[:1] in ("[", "{"):
        try:
            # Every scalar as text: the reader of documents takes numbers so, and no MAC address becomes a number.
            value = yaml.load(text, yaml.BaseLoader)  # noqa: S506 - it makes nothing but text, lists and mappings
        except yaml.YAMLError:
            raise ConfigError(f"{key}={text}: no list or mapping in YAML") from None
    else:
        value = text.split(",") if key in _LISTS | _ADDRESSES and text not in _WORDS else _WORDS.get(text, text)
    if key in _ADDRESSES and isinstance(value, list):
        return [{"ip_address": item} if isinstance(item, str) else item for item in value]
    return value


def added(document: Document, kind: Kind, name: str, settings: Mapping[str, Any]) -> Document:
    """With one more object.  Raises ConfigError when it is there."""
    if any(each["id"] == name for each in document[kind.collection]):
        raise ConfigError(f"{kind.name} {name} is there already; change it with: ovsfw db {kind.name} set {name}")
    return {**document, kind.collection: [*document[kind.collection], {"id": name, **settings}]}


def changed(document: Document, kind: Kind, name: str, settings: Mapping[str, Any]) -> Document:
    """With some keys of an object changed, null taking one away.  Raises ConfigError when it is not there."""
    _find(document[kind.collection], kind.name, name)
    objects = [{**each, **settings} if each["id"] == name else each for each in document[kind.collection]]
    return {**document, kind.collection: objects}


def deleted(document: Document, kind: Kind, names: Sequence[str]) -> Document:
    """Without some objects.  Raises ConfigError when one is not there."""
    for name in names:
        _find(document[kind.collection], kind.name, name)
    return {**document, kind.collection: [each for each in document[kind.collection] if each["id"] not in names]}


def rule_added(document: Document, group: str, settings: Mapping[str, Any]) -> Document:
    """With one more rule in a group, which may be written by name as far as that is clear.  Raises ConfigError."""
    found = _find(document["security_groups"], "group", group)
    return _with_rules(document, found["id"], [*found.get("rules", ()), dict(settings)])


def rule_changed(document: Document, name: str, settings: Mapping[str, Any]) -> Document:
    """With some keys of a rule changed.  Raises ConfigError."""
    group = _group_of(document, name)
    rules = [{**rule, **settings} if rule["id"] == name else rule for rule in group["rules"]]
    return _with_rules(document, group["id"], rules)


def rules_deleted(document: Document, names: Sequence[str]) -> Document:
    """Without some rules.  Raises ConfigError."""
    for name in names:
        group = _group_of(document, name)
        document = _with_rules(document, group["id"], [rule for rule in group["rules"] if rule["id"] != name])
    return document


def _with_rules(document: Document, group: str, rules: list[Document]) -> Document:
    groups = [{**each, "rules": rules} if each["id"] == group else each for each in document["security_groups"]]
    return {**document, "security_groups": groups}


def _find(objects: Sequence[Document], kind: str, name: str) -> Document:
    for each in objects:
        if each["id"] == name:
            return each
    raise ConfigError(f"there is no {kind} {name}")


def _group_of(document: Document, rule: str) -> Document:
    for group in document["security_groups"]:
        if any(each["id"] == rule for each in group.get("rules", ())):
            return dict(group)
    raise ConfigError(f"there is no rule {rule}")
