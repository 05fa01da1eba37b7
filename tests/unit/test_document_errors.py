"""What people are told about a wrong document, to the letter: documents/bad/NAME beside NAME.errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovsfw.errors import PolicyError
from ovsfw.policy.document import parse
from ovsfw.policy.report import MAX_PROBLEMS

BAD = Path(__file__).parent / "documents" / "bad"
DOCUMENTS = sorted(path for path in BAD.iterdir() if path.suffix != ".errors")


def errors(text: bytes | str, source: str = "t") -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse(text, source)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_errors(path: Path) -> None:
    expected = path.with_name(path.name + ".errors").read_text()
    assert errors(path.read_bytes(), path.name) == expected.splitlines()


def test_no_expectation_is_left_over() -> None:
    assert {path.name.removesuffix(".errors") for path in BAD.glob("*.errors")} == {path.name for path in DOCUMENTS}


def test_the_report_is_bounded() -> None:
    text = "ports:\n" + "  - 7\n" * (MAX_PROBLEMS + 2000)
    lines = errors(text)
    assert lines[0] == "t:2:5: ports[0]: 7 is not a mapping"
    assert lines[99:] == ["t:101:5: ports[99]: 7 is not a mapping", "t: and 2,000 more problems"]


def test_the_report_of_one_too_many() -> None:
    assert errors("ports:\n" + "  - 7\n" * (MAX_PROBLEMS + 1))[-1] == "t: and 1 more problem"


def test_three_hundred_thousand_lines_with_thousands_of_errors() -> None:
    rule = "      - direction: ingress\n        protocol: {}\n        port_range_min: 1\n        port_range_max: 2\n"
    good, bad = rule.format("tcp"), rule.format("tpc")
    group = "  - name: web\n    rules:\n" + (good * 9 + bad) * 7500
    lines = errors("security_groups:\n" + group)
    message = "security_groups[0].rules[9].protocol: 'tpc' is not a protocol; did you mean tcp?"
    assert lines[0] == f"t:41:19: {message}"
    assert lines[100:] == ["t: and 7,400 more problems"]


@pytest.mark.parametrize("opening", ["[", "{a: ", '{"a": ', "- ", "? ", '{"a": ['])
def test_deep_nesting_is_refused(opening: str) -> None:
    (line,) = errors("ports: " * (opening[0] not in '-?{"[') + opening * 100_000)
    assert line.endswith("nested more than 64 levels deep")


@pytest.mark.parametrize(("levels", "accepted"), [(61, True), (62, False)])
def test_json_and_yaml_draw_the_line_at_the_same_depth(levels: int, accepted: bool) -> None:  # noqa: FBT001
    nested = "[" * levels + "]" * levels
    for text in (
        f'{{"ports": [{{"id": "a", "mac_address": "52:54:00:00:00:01", "tags": {nested}}}]}}',
        f"ports: [{{id: a, mac_address: 52:54:00:00:00:01, tags: {nested}}}]",
    ):
        if accepted:
            assert parse(text, "t").ports
        else:
            assert errors(text)[0].endswith("nested more than 64 levels deep")


def test_aliases_are_values_like_others() -> None:
    text = """
    security_groups:
      - &group
        id: a
        rules: &rules
          - {direction: ingress, protocol: &tcp tcp}
      - {id: b, rules: *rules}
      - {id: c, rules: [{direction: egress, protocol: *tcp}]}
    """
    groups = parse(text, "t").security_groups
    assert [rule.id for group in groups.values() for rule in group.rules] == [
        "a/ingress-ipv4-tcp",
        "b/ingress-ipv4-tcp",
        "c/egress-ipv4-tcp",
    ]


def test_a_problem_behind_an_alias_is_told_where_it_is_written() -> None:
    text = "security_groups:\n  - {id: a, rules: &r [{direction: in}]}\n  - {id: b, rules: *r}\n"
    assert errors(text) == [
        "t:2:36: security_groups[0].rules[0].direction: 'in' is not a direction; use ingress or egress",
        "t:2:36: security_groups[1].rules[0].direction: 'in' is not a direction; use ingress or egress",
    ]


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["tags: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert errors("\n".join(lines)) == [
        "t:6:45: a5[7]: aliases add more than 1,000,000 values to those that are written"
    ]


def test_text_with_half_a_surrogate_pair_is_refused() -> None:
    assert errors("ports:\n  - \ud800") == [r"t:2:5: the character '\ud800' is not allowed here"]


def test_a_byte_order_mark_is_no_part_of_the_document() -> None:
    json = r'{"security_groups": [{"id": "web", "name": "\ud83d\ude00"}]}'  # in YAML, this is no character
    assert parse("\ufeff" + json, "t").security_groups["web"].name == "\N{GRINNING FACE}"
    assert errors("\ufeffports: 1") == errors(b"\xef\xbb\xbfports: 1") == ["t:1:8: ports: 1 is not a list"]


def test_the_source_may_be_nameless() -> None:
    assert errors("ports: 1", "") == [":1:8: ports: 1 is not a list"]
