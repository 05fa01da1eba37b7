from __future__ import annotations

import pytest
from hypothesis import given

from ovsfw.openflow import action as a
from ovsfw.openflow import match as m
from ovsfw.openflow.flow import Flow, flow
from ovsfw.openflow.text import FlowTextError, format_flow, parse_flow
from tests.flow_samples import flows, unhurried

TABLES = {10: "STATE", 11: "RULES_V4"}


@unhurried
@given(flows())
def test_a_text_reads_back_as_the_same_flow(each: Flow) -> None:
    assert parse_flow(format_flow(each)) == each


@unhurried
@given(flows())
def test_table_names_read_back_as_numbers(each: Flow) -> None:
    names = {number: f"T{number}" for number in range(254)}
    assert parse_flow(format_flow(each, names), names) == each


EXAMPLES = {
    "cookie=0x1f,table=STATE,priority=100,reg0=0x3,ct_state=-new+est+trk actions=resubmit(,RULES_V4)": flow(
        10, 100, (m.ct_state("+trk+est-new"), m.REGISTERS[0](3)), (a.Resubmit(11),), 0x1F
    ),
    "cookie=0x0,table=0,priority=0 actions=drop": flow(0, 0, (), (), 0),
    "cookie=0x0,table=RULES_V4,priority=9,tcp,nw_src=10.0.0.0/8,tp_dst=0x50/0xfff0 actions=conjunction(7,1/2)": flow(
        11,
        9,
        (m.ETH_TYPE(0x800), m.IP_PROTO(6), m.IPV4_SRC(10 << 24, 255 << 24), m.TCP_DST(0x50, 0xFFF0)),
        (a.Conjunction(7, 1, 2),),
        0,
    ),
    "cookie=0x0,table=0,priority=1,icmp6,in_port=LOCAL,dl_src=02:00:00:00:00:01,dl_vlan=5,icmp_type=135,"
    "nd_target=fe80::1 actions=NORMAL": flow(
        0,
        1,
        (
            m.ETH_TYPE(0x86DD),
            m.IN_PORT(0xFFFFFFFE),
            m.IP_PROTO(58),
            m.ICMP6_TYPE(135),
            m.ETH_SRC(0x020000000001),
            m.ND_TARGET(0xFE80 << 112 | 1),
            m.VLAN_VID(0x1005),
        ),
        (a.NORMAL,),
        0,
    ),
    "cookie=0x0,table=1,priority=1,ip,nw_frag=later actions=ct(commit,force,table=STATE,zone=NXM_NX_REG6[0..15],"
    "exec(load:0x1->NXM_NX_CT_MARK[],move:NXM_NX_REG3[]->NXM_NX_CT_LABEL[32..63])),ct_clear,pop_vlan,output:4": flow(
        1,
        1,
        (m.ETH_TYPE(0x800), m.IP_FRAG(3)),
        (
            a.Ct(
                a.Place(m.REGISTERS[6], 0, 16),
                commit=True,
                force=True,
                table=10,
                exec=(
                    a.Load(a.whole(m.CT_MARK), 1),
                    a.Move(a.whole(m.REGISTERS[3]), a.Place(m.CT_LABEL, 32, 32)),
                ),
            ),
            a.CtClear(),
            a.PopVlan(),
            a.Output(4),
        ),
        0,
    ),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples(text: str) -> None:
    assert format_flow(EXAMPLES[text], TABLES) == text
    assert parse_flow(text, TABLES) == EXAMPLES[text]


def test_what_a_switch_prints_is_read() -> None:
    printed = (
        " cookie=0x1, table=10, idle_timeout=5, importance=9, send_flow_rem priority=7,ct_state=+trk,tcp,"
        "vlan_tci=0x1000/0x1000,tcp_flags=+syn-ack actions=resubmit(,11)"
    )
    terms = (m.ETH_TYPE(0x800), m.IP_PROTO(6), m.ct_state("+trk"), m.VLAN_VID(0x1000, 0x1000), m.TCP_FLAGS(2, 0x12))
    expected = flow(10, 7, terms, (a.Resubmit(11),), 1)
    read = parse_flow(printed)
    assert (read.key, read.actions, read.cookie) == (expected.key, expected.actions, 1)
    assert (read.timeouts, read.flags, read.importance) == ((5, 0), 1, 9)


def test_what_is_not_known_is_shown_as_hex() -> None:
    plain = flow(3, 5, (m.ETH_TYPE(0x800), m.REGISTERS[1](7)), (), 0)
    tos = bytes.fromhex("80001001" + "05")
    goto = bytes.fromhex("0001000804000000")
    shown = format_flow(Flow(plain.key + tos, plain.value + goto))
    assert shown == (
        "cookie=0x0,table=3,priority=5,ip,reg1=0x7,unknown_field(0x8000100105) actions=unknown(0x0001000804000000)"
    )
    with pytest.raises(FlowTextError, match="unknown"):
        parse_flow(shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "table=1",
        "frobnicate actions=drop",
        "nw_colour=3 actions=drop",
        "vlan_tci=0xf000/0xf000 actions=drop",
        "tp_dst=80 actions=drop",
        "ct_state=+wet actions=drop",
        "actions=fly",
        "actions=load:1->NXM_NX_REG99[]",
        "actions=conjunction(1,2)",
        "nw_src=10.0.0.300,ip actions=drop",
    ],
)
def test_nonsense_is_refused_by_name(text: str) -> None:
    with pytest.raises(FlowTextError):
        parse_flow(text)
