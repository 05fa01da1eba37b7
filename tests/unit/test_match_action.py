from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.openflow import action as a
from ovsfw.openflow import match as m
from ovsfw.openflow.codec import parser
from tests.flow_samples import action_lists, matches, unhurried

# As Open vSwitch 3.1 writes them back in OpenFlow 1.4.
CANONICAL_ACTIONS = {
    a.Output(3): "00000010000000030000000000000000",
    a.NORMAL: "00000010fffffffa0000000000000000",
    a.Resubmit(7): "ffff001000002320000efff807000000",
    a.Load(a.Place(m.REGISTERS[3], 4, 8), 5): "ffff00180000232000070107000106040000000000000005",
    a.Load(a.whole(a.VLAN_TCI), 0): "ffff0018000023200007000f000008020000000000000000",
    a.Load(a.whole(m.ETH_SRC), 1): "ffff0018000023200007002f000004060000000000000001",
    a.Load(a.whole(m.METADATA), 1): "ffff0018000023200007003f800004080000000000000001",
    a.Move(a.whole(m.CT_MARK), a.whole(m.REGISTERS[2])): "ffff00180000232000060020000000000001d60400010404",
    a.Conjunction(9, 1, 2): "ffff0010000023200022000200000009",
    a.Ct(a.Place(m.REGISTERS[6], 0, 16)): "ffff0018000023200023000000010c04000fff0000000000",
    a.Ct(3, commit=True, force=True, table=4, exec=(a.Load(a.whole(m.CT_MARK), 1),)): (
        "ffff00300000232000230003000000000003040000000000ffff0018000023200007001f0001d6040000000000000001"
    ),
    a.CtClear(): "ffff001000002320002b000000000000",
    a.PopVlan(): "0012000800000000",
}


@pytest.mark.parametrize("action", CANONICAL_ACTIONS, ids=str)
def test_the_bytes_of_each_action(action: a.Action) -> None:
    assert a.encode_action(action).hex() == CANONICAL_ACTIONS[action]


@unhurried
@given(action_lists)
def test_actions_read_back(actions: tuple[a.Action, ...]) -> None:
    assert a.decode_actions(a.encode_actions(actions)) == actions


@unhurried
@given(action_lists)
def test_the_codec_finds_the_same_number_of_actions(actions: tuple[a.Action, ...]) -> None:
    data = a.encode_actions(actions)
    if actions:
        assert len(parser.OFPInstruction.parser(data, 0).actions) == len(actions)
    else:
        assert data == b""


@unhurried
@given(st.binary(min_size=1, max_size=40))
def test_other_actions_stay_as_they_are(body: bytes) -> None:
    """Whatever a switch has, reading it does not fail and shows it whole."""
    size = 8 + (len(body) + 7) // 8 * 8
    action = b"\xff\xff" + size.to_bytes(2, "big") + b"\0\0\x23\x21" + body.ljust(size - 8, b"\0")
    data = bytes.fromhex("0004") + (8 + size).to_bytes(2, "big") + bytes(4) + action
    assert a.decode_actions(data) == (a.Unknown(action),)


@pytest.mark.parametrize("data", ["0001000804000000", "00040018000000000012000800000000"])
def test_instructions_that_are_not_one_list_of_actions_stay_whole(data: str) -> None:
    assert a.decode_actions(bytes.fromhex(data)) == (a.Unknown(bytes.fromhex(data)),)


def test_an_action_that_would_be_shown_wrongly_is_not_shown_as_ours() -> None:
    """An output that sends part of a packet to a controller is no plain output."""
    data = bytes.fromhex("0000001000000003004000000000" + "0000")
    instructions = bytes.fromhex("0004001800000000") + data
    assert a.decode_actions(instructions) == (a.Unknown(data),)


def test_an_unknown_action_is_never_sent() -> None:
    with pytest.raises(ValueError, match="unknown action"):
        a.encode_actions((a.Unknown(b"\0" * 8),))


def test_nothing_to_do_is_no_instruction() -> None:
    assert a.encode_actions(()) == b""
    assert a.decode_actions(b"") == ()


@unhurried
@given(matches(), st.randoms())
def test_a_match_reads_back_in_canonical_order(match: m.Match, random: object) -> None:
    shuffled = list(match)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert m.encode_match(tuple(shuffled)) == m.encode_match(match)
    assert m.decode_match(m.encode_match(match)) == match


@unhurried
@given(matches())
def test_the_codec_reads_a_match_as_it_was_meant(match: m.Match) -> None:
    data = m.encode_match(match)
    header = b"\0\1" + (4 + len(data)).to_bytes(2, "big")
    padding = bytes(-(4 + len(data)) % 8)
    seen = parser.OFPMatch.parser(header + data + padding, 0)
    assert sorted(name for name, _ in seen.items()) == sorted(term.field.codec_name for term in match)


@pytest.mark.parametrize("field", m.FIELDS, ids=str)
def test_the_size_of_each_field_is_the_one_in_its_header(field: m.Field) -> None:
    exact, masked = m.encode_term(field(0)), m.encode_term(field(0, 1))
    header = 8 if exact[:2] == b"\xff\xff" else 4
    assert len(exact) == header + field.size == 4 + exact[3]
    assert len(masked) == header + 2 * field.size == 4 + masked[3]
    assert masked[2] == exact[2] | 1


def test_a_field_of_somebody_else_is_named_by_its_bytes() -> None:
    tos = bytes.fromhex("8000100105")
    with pytest.raises(m.UnknownFieldError, match="8000100105"):
        m.decode_match(m.encode_match((m.ETH_TYPE(0x800),)) + tos)


def test_conntrack_states_as_ovs_ofctl_writes_them() -> None:
    assert m.ct_state("+trk-new") == m.CT_STATE(0x20, 0x21)
