from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.openflow import match as m
from ovsfw.openflow import port, wire
from ovsfw.openflow.codec import DATAPATH, ofproto, ofproto_parser, parser
from ovsfw.openflow.flow import Flow, flow
from tests.flow_samples import flows, unhurried

BYTES = st.binary(max_size=40)


def read(data: bytes) -> wire.Message:
    [message] = wire.Framer().feed(data)
    return message


def by_codec(data: bytes) -> object:
    """The message as the codec's own parser sees it."""
    version, kind, size, xid = struct.unpack_from("!BBHI", data)
    return ofproto_parser.msg(DATAPATH, version, kind, size, xid, data)


@unhurried
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2**32 - 1), BYTES)), st.integers(1, 50))
def test_messages_come_out_of_the_stream_as_they_went_in(sent: list[tuple[int, int, bytes]], step: int) -> None:
    stream = b"".join(wire.message(*each) for each in sent)
    framer, got = wire.Framer(), []
    for at in range(0, len(stream), step):
        got += framer.feed(stream[at : at + step])
    assert got == [wire.Message(wire.VERSION, *each) for each in sent]


def test_a_length_that_cannot_be_ends_the_stream() -> None:
    with pytest.raises(wire.WireError, match="7 bytes"):
        wire.Framer().feed(struct.pack("!BBHI", 5, 2, 7, 1))


@pytest.mark.parametrize("version", [1, 4, 5, 6])
def test_hello_offers_one_version_only(version: int) -> None:
    message = read(wire.hello(1, version))
    assert message.version == version
    assert [other for other in range(1, 10) if wire.offers(message, other)] == [version]


def test_a_hello_without_a_bitmap_offers_all_up_to_its_version() -> None:
    assert [v for v in range(1, 7) if wire.offers(wire.Message(4, 0, 1, b""), v)] == [1, 2, 3, 4]
    other_element = bytes.fromhex("0009000500000000")
    assert wire.offers(wire.Message(6, 0, 1, other_element + read(wire.hello(1, 5)).body), 5)
    assert not wire.offers(wire.Message(6, 0, 1, other_element + read(wire.hello(1, 4)).body), 5)


def test_an_echo_comes_back_in_the_version_and_with_the_data_it_came_with() -> None:
    request = wire.Message(1, ofproto.OFPT_ECHO_REQUEST, 77, b"ping")
    assert read(wire.echo_reply(request)) == wire.Message(1, ofproto.OFPT_ECHO_REPLY, 77, b"ping")


def test_small_requests_are_what_the_codec_writes() -> None:
    for made, theirs in (
        (wire.barrier(9), parser.OFPBarrierRequest(DATAPATH)),
        (wire.features_request(9), parser.OFPFeaturesRequest(DATAPATH)),
        (wire.flows_request(9), parser.OFPFlowStatsRequest(DATAPATH)),
        *(
            (wire.bundle_control(4, step, 9), parser.OFPBundleCtrlMsg(DATAPATH, 4, int(step), 3, []))
            for step in wire.BundleStep
        ),
    ):
        theirs.set_xid(9)
        theirs.serialize()
        # A request for all flows may name the empty match with or without its padding counted.
        assert made == bytes(theirs.buf)


def test_datapath_id() -> None:
    assert wire.datapath_id(wire.Message(5, 6, 1, bytes(7) + b"\x2a" + bytes(16))) == 42


@pytest.mark.parametrize(
    ("kind", "code", "name"),
    [
        (0, 0, "OFPHFC_INCOMPATIBLE"),
        (4, 9, "OFPBMC_BAD_PREREQ"),
        (5, 3, "OFPFMFC_OVERLAP"),
        (17, 13, "OFPBFC_MSG_FAILED"),
        (4, 999, "error type 4 code 999"),
        (0xFFFF, 2600, "error type 65535 code 2600"),
    ],
)
def test_errors_have_names(kind: int, code: int, name: str) -> None:
    data = struct.pack("!HH", kind, code) + wire.barrier(5)
    assert wire.refusal(read(wire.message(ofproto.OFPT_ERROR, 5, data))) == wire.Refusal(5, kind, code, name)


def test_an_error_without_a_code_is_not_openflow() -> None:
    with pytest.raises(wire.WireError):
        wire.refusal(wire.Message(5, 1, 1, b"\0"))


@unhurried
@given(flows(), st.integers(1, 2**32 - 1))
def test_the_codec_reads_an_add_as_it_was_meant(each: Flow, xid: int) -> None:
    seen = vars(by_codec(wire.add(each, xid)))
    assert (seen["table_id"], seen["priority"], seen["cookie"]) == (each.table, each.priority, each.cookie)
    assert (seen["idle_timeout"], seen["hard_timeout"]) == each.timeouts
    assert (seen["flags"], seen["importance"]) == (each.flags, each.importance)
    assert (seen["command"], seen["xid"], seen["cookie_mask"]) == (ofproto.OFPFC_ADD, xid, 0)
    assert len(seen["match"].to_jsondict()["OFPMatch"]["oxm_fields"]) == len(each.match)


@unhurried
@given(flows())
def test_a_delete_names_one_flow_and_its_cookie(each: Flow) -> None:
    seen = vars(by_codec(wire.delete(each, 3)))
    assert (seen["table_id"], seen["priority"], seen["command"]) == (
        each.table,
        each.priority,
        ofproto.OFPFC_DELETE_STRICT,
    )
    # All bits but one: with all, Open vSwitch would look through every flow with the same cookie.
    assert (seen["cookie"], seen["cookie_mask"]) == (each.cookie, 2**64 - 2)
    assert (seen["out_port"], seen["out_group"], seen["instructions"]) == (ofproto.OFPP_ANY, ofproto.OFPG_ANY, [])


@unhurried
@given(st.lists(flows(), max_size=4), st.lists(flows(), max_size=4))
def test_a_bundle_carries_deletes_then_adds_each_with_its_own_xid(deletes: list[Flow], adds: list[Flow]) -> None:
    messages = [read(data) for data in wire.bundle_adds(8, deletes, adds, 100)]
    assert [message.xid for message in messages] == list(range(100, 100 + len(deletes) + len(adds)))
    assert {message.type for message in messages} <= {ofproto.OFPT_BUNDLE_ADD_MESSAGE}
    assert all(message.body[:8] == struct.pack("!IHH", 8, 0, 3) for message in messages)
    inner = [message.body[8:] for message in messages]
    expected = [(wire.delete, each) for each in deletes] + [(wire.add, each) for each in adds]
    assert inner == [write(each, 100 + number) for number, (write, each) in enumerate(expected)]


def stats_entry(each: Flow, packets: int = 0, octets: int = 0) -> bytes:
    """A flow as section 7.3.5.2 has it, by way of the flow mod that makes it."""
    mod = wire.add(each, 1)
    head = struct.pack(
        "!BxIIHHHHH2xQQQ", each.table, 7, 8, each.priority, *each.timeouts, each.flags, each.importance, each.cookie,
        packets, octets,
    )  # fmt: skip
    return struct.pack("!H", 2 + len(head) + len(mod) - 48) + head + mod[48:]


@unhurried
@given(st.lists(st.tuples(flows(), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=5))
def test_flow_statistics_are_cut_into_flows(entries: list[tuple[Flow, int, int]]) -> None:
    body = struct.pack("!HH4x", 1, 1) + b"".join(stats_entry(*entry) for entry in entries)
    reply = wire.Message(5, ofproto.OFPT_MULTIPART_REPLY, 1, body)
    assert list(wire.parse_flows(reply)) == [each for each, _, _ in entries]
    assert list(wire.parse_counters(reply)) == [wire.Counted(*entry) for entry in entries]
    assert wire.has_more(reply)
    assert not wire.has_more(reply._replace(body=struct.pack("!HH4x", 1, 0)))


@pytest.mark.parametrize("size", [0, 55, 200])
def test_an_entry_whose_length_cannot_be_is_refused(size: int) -> None:
    entry = stats_entry(flow(1, 1, (m.IN_PORT(1),), (), 1))
    body = struct.pack("!HH4xH", 1, 0, size) + entry[2:]
    with pytest.raises(wire.WireError):
        list(wire.parse_flows(wire.Message(5, ofproto.OFPT_MULTIPART_REPLY, 1, body)))


@pytest.mark.parametrize("body", ["", "0001", "000100000000000000"])
def test_a_reply_that_is_cut_off_is_refused(body: str) -> None:
    reply = wire.Message(5, ofproto.OFPT_MULTIPART_REPLY, 1, bytes.fromhex(body))
    with pytest.raises(wire.WireError):
        assert list(wire.parse_flows(reply)) or wire.has_more(reply)


def described(number: int, name: bytes, config: int) -> bytes:
    return struct.pack("!H6s16sIIIIII", number, b"\2\0\0\0\0\1", name, config, 0, 0, 0, 0, 0)


def test_ports_of_openflow_1_0() -> None:
    body = struct.pack("!HH", 13, 0) + described(3, b"tap3", 0x10) + described(0xFFFE, b"br-int", 1)
    reply = wire.Message(1, 17, 5, body)
    assert list(port.parse_ports(reply)) == [
        port.SwitchPort(3, "tap3", "02:00:00:00:00:01", 0x10),
        port.SwitchPort(0xFFFFFFFE, "br-int", "02:00:00:00:00:01", 1),
    ]
    assert [each.no_flood for each in port.parse_ports(reply)] == [True, False]
    assert not port.has_more(reply)
    assert read(port.ports_request(5)) == wire.Message(1, 16, 5, struct.pack("!HH", 13, 0))


def test_no_flood_is_one_bit_of_the_port() -> None:
    local = port.SwitchPort(0xFFFFFFFE, "br-int", "02:00:00:00:00:01", 0)
    for on, config in ((True, 0x10), (False, 0)):
        body = struct.pack("!H6sIII4x", 0xFFFE, b"\2\0\0\0\0\1", config, 0x10, 0)
        assert read(port.set_no_flood(local, 6, on=on)) == wire.Message(1, 15, 6, body)
