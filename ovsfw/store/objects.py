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
    for kind in (
        Kind("group", "security_groups"),
        Kind("port", "ports"),
        Kind("address-group", "address_groups"),
        Kind("tier", "tiers"),
        Kind("network", "networks"),
        Kind("assertion", "assertions"),
    )
}
_WITH_RULES = ("security_groups", "tiers")
# Of these, a list may be written with commas; an item that is no mapping is an address.
_LISTS = frozenset(
    {
        "security_groups", "addresses", "applies_to", "dhcp_servers", "routers", "allowed", "denied", "from", "to",
        "except_from", "except_to", "except_services",
    }
)  # fmt: skip
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


def added(document: Document, kind: Kind, name: str, settings: Mapping[str, Any], place: int | None = None) -> Document:
    """With one more object, the last one unless there is a `place`.  Raises ConfigError when it is there."""
    objects = document[kind.collection]
    if any(_id(each) == name for each in objects):
        raise ConfigError(f"{kind.name} {name} is there already; change it with: ovsfw db {kind.name} set {name}")
    return {**document, kind.collection: _placed([*objects, {"id": name or None, **settings}], name, place)}


def changed(
    document: Document, kind: Kind, name: str, settings: Mapping[str, Any], place: int | None = None
) -> Document:
    """With some keys of an object changed, null taking one away.  Raises ConfigError when it is not there."""
    objects = document[kind.collection]
    _find(objects, kind.name, name)
    return {**document, kind.collection: _placed(_with(objects, name, settings), name, place)}


def deleted(document: Document, kind: Kind, names: Sequence[str]) -> Document:
    """Without some objects.  Raises ConfigError when one is not there."""
    for name in names:
        _find(document[kind.collection], kind.name, name)
    return {**document, kind.collection: [each for each in document[kind.collection] if _id(each) not in names]}


def rule_added(document: Document, owner: str, settings: Mapping[str, Any], place: int | None = None) -> Document:
    """With one more rule in a group or a tier.  Raises ConfigError."""
    for collection in _WITH_RULES:
        for found in document[collection]:
            if _id(found) == owner:
                rules = list(found.get("rules", ()))
                rules.insert(len(rules) if place is None else place, dict(settings))
                return _with_rules(document, collection, owner, rules)
    raise ConfigError(f"there is no group or tier {owner}")


def rule_changed(document: Document, name: str, settings: Mapping[str, Any], place: int | None = None) -> Document:
    """With some keys of a rule changed.  Raises ConfigError."""
    collection, owner = _owner_of(document, name)
    rules = _placed(_with(owner["rules"], name, settings), name, place)
    return _with_rules(document, collection, owner["id"], rules)


def rules_deleted(document: Document, names: Sequence[str]) -> Document:
    """Without some rules.  Raises ConfigError."""
    for name in names:
        collection, owner = _owner_of(document, name)
        rules = [rule for rule in owner["rules"] if rule["id"] != name]
        document = _with_rules(document, collection, owner["id"], rules)
    return document


def _id(found: Document) -> str:
    """Of the one network without an id, the empty text."""
    return found.get("id") or ""


def _with(objects: Sequence[Document], name: str, settings: Mapping[str, Any]) -> list[Document]:
    return [{**each, **settings} if _id(each) == name else each for each in objects]


def _placed(objects: list[Document], name: str, place: int | None) -> list[Document]:
    """With one object moved to a place, from 0 on; None leaves it where it is."""
    if place is None:
        return objects
    rest = [each for each in objects if _id(each) != name]
    return [*rest[:place], *(each for each in objects if _id(each) == name), *rest[place:]]


def _with_rules(document: Document, collection: str, owner: str, rules: list[Document]) -> Document:
    return {**document, collection: _with(document[collection], owner, {"rules": rules})}


def _find(objects: Sequence[Document], kind: str, name: str) -> Document:
    for each in objects:
        if _id(each) == name:
            return each
    raise ConfigError(f"there is no {kind} {name}")


def _owner_of(document: Document, rule: str) -> tuple[str, Document]:
    """The list and the group or tier that a rule is in."""
    for collection in _WITH_RULES:
        for found in document[collection]:
            if any(each["id"] == rule for each in found.get("rules", ())):
                return collection, found
    raise ConfigError(f"there is no rule {rule}")
