"""What docs/policy.md shows is real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ovsfw.errors import PolicyError
from ovsfw.policy import protocols, schema
from ovsfw.policy.document import parse, warnings

TEXT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
BLOCKS = re.findall(r"^```(yaml|json|yaml wrong|text)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
EXAMPLES = [text for kind, text in BLOCKS if kind in {"yaml", "json"}]


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_a_policy(text: str) -> None:
    assert warnings(parse(text, "docs")) == []


def test_the_wrong_example_is_wrong_as_it_says() -> None:
    (wrong,) = [text for kind, text in BLOCKS if kind == "yaml wrong"]
    (said,) = [text for kind, text in BLOCKS if kind == "text"]
    with pytest.raises(PolicyError) as caught:
        parse(wrong, "policy.yaml")
    assert f"{caught.value}\n" == said


def test_every_attribute_and_protocol_is_described() -> None:
    groups: tuple[type[schema.Shape], ...] = (schema.SecurityGroupShape, schema.AddressGroupShape, schema.TierShape)
    shapes = (schema.PortShape, *groups, schema.RuleShape, schema.TierRuleShape, schema.AssertionShape)
    described = {word for words in re.findall(r"`([^`\n]+)`|^ +-? ?(\w+):", TEXT, re.MULTILINE) for word in words}
    assert {name for shape in shapes for name in schema.known_keys(shape)} <= described
    assert protocols.NUMBERS.keys() <= described
