"""The JSON Schema of the policy document, for editors; made from the shapes that read it.

It knows names, kinds of values and what is required.  What objects have to do with each other is for `ovsfw check`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import AliasChoices, PlainValidator

from ovsfw.policy import schema
from ovsfw.policy.model import Action, Direction, Helper, Log, Position
from ovsfw.policy.suppressions import SuppressionShape
from ovsfw.policy.values import MAX_TEXT

Json = dict[str, Any]
_TEXT: Json = {"type": "string", "maxLength": MAX_TEXT}
_NUMBER: Json = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[0-9]+$"}]}
_ADDRESS: Json = {"type": "string", "pattern": "^[0-9A-Fa-f:.]{1,45}(/[0-9]{1,3})?$"}
# By the name of the function that reads a value.
_VALUES: dict[str, Json] = {
    "_text": _TEXT,
    "identifier": {**_TEXT, "minLength": 1},
    "_boolean": {"type": "boolean"},
    "_number": _NUMBER,
    "_limit": _NUMBER,
    "_mac": _TEXT,
    "_prefix": _ADDRESS,
    "_own_prefix": _ADDRESS,
    "_own_address": {"type": "string", "pattern": "^[0-9A-Fa-f:.]{1,45}$"},
    "_direction": {"enum": [each.value for each in Direction]},
    "_action": {"enum": [each.value for each in Action]},
    "_reason": {"type": "string", "pattern": "\\S"},
    "date": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
    "_helper": {"enum": [each.value for each in Helper]},
    "_log": {"enum": [each.value for each in Log]},
    "_position": {"enum": [each.value for each in Position]},
    "_ethertype": {"type": "string", "pattern": "^[Ii][Pp][Vv][46]$"},
    "_protocol": {"type": ["string", "integer"]},
}
# What is in lists that are read one by one.
_LISTS: Mapping[tuple[type[schema.Shape], str], type[schema.Shape]] = {
    (schema.SecurityGroupShape, "rules"): schema.RuleShape,
    (schema.TierShape, "rules"): schema.TierRuleShape,
    (schema.DocumentShape, "security_groups"): schema.SecurityGroupShape,
    (schema.DocumentShape, "address_groups"): schema.AddressGroupShape,
    (schema.DocumentShape, "tiers"): schema.TierShape,
    (schema.DocumentShape, "ports"): schema.PortShape,
    (schema.DocumentShape, "networks"): schema.NetworkShape,
    (schema.DocumentShape, "assertions"): schema.AssertionShape,
    (schema.DocumentShape, "audit_suppressions"): SuppressionShape,
}


def json_schema() -> Json:
    """The schema of a whole document, as of draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A policy of ovsfw",
        **_object(schema.DocumentShape),
        "minProperties": 1,
    }


def _object(shape: type[schema.Shape]) -> Json:
    """One object: its attributes in all spellings, what is ignored in it, and nothing else."""
    properties: Json = {}
    required: list[Json] = []
    for name, field in shape.model_fields.items():
        alias = field.validation_alias
        spellings = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [name]
        inside = _LISTS.get((shape, name))
        value = _list(_object(inside)) if inside else _value(field.annotation, field.metadata)
        if field.is_required():
            required.append({"anyOf": [{"required": [spelling]} for spelling in spellings]})
        else:
            value = _or_null(value)
        properties.update(dict.fromkeys(spellings, value))
    properties.update({name: {} for name in sorted(shape.ignored)})
    made: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    if shape.ignored_prefixes:
        made["patternProperties"] = {f"^{re.escape(prefix)}": {} for prefix in shape.ignored_prefixes}
    if required:
        made["allOf"] = required
    return made


def _or_null(value: Json) -> Json:
    if "enum" in value:
        return {"enum": [*value["enum"], None]}
    if "type" not in value:
        return {"anyOf": [*value["anyOf"], {"type": "null"}]} if value else {}
    kinds = value["type"]
    return {**value, "type": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _value(annotation: Any, metadata: list[Any]) -> Json:  # noqa: ANN401 - whatever a type can be
    """What a value may be; {} is anything."""
    for reader in metadata:
        if isinstance(reader, PlainValidator):
            return _VALUES[getattr(reader.func, "__name__", "")]
    if isinstance(annotation, type) and issubclass(annotation, schema.Shape):
        return _object(annotation)
    if hasattr(annotation, "__metadata__"):
        return _value(annotation.__origin__, list(annotation.__metadata__))
    if get_origin(annotation) is list:
        return _list(_value(get_args(annotation)[0], []))
    without_null = [each for each in get_args(annotation) if each is not NoneType]
    return _value(without_null[0], []) if len(without_null) == 1 else {}
