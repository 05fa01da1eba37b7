"""What is counted in a dump of the datapath's flows: lines as Open vSwitch prints them."""

from __future__ import annotations

from ovsfw.openflow.megaflow import MaskCount, flows_and_masks, mask

USERSPACE = "dummy@ovs-dummy:\n  lookups: hit:0 missed:0 lost:0\n  flows: 12\n  port 0: ovs-dummy (dummy-internal)\n"
KERNEL = "system@ovs-system:\n  lookups: hit:9 missed:8 lost:0\n  flows: 7\n  masks: hit:30 total:5 hit/pkt:2.70\n"
LINE = (
    "ufid:0f1c, recirc_id({recirc}),dp_hash(0/0),in_port({port}),eth(src=52:54:00:00:00:01,dst={mac}/00:00:00:00:00:00)"
    ",eth_type(0x0800),ipv4(src={address}/{length},proto=6,frag=no),tcp(src=1/0,dst=80/0xfff0),tcp_flags({flags}), "
    "packets:1, bytes:2, used:0.1s, flags:S, dp:ovs, actions:ct(zone=4095),recirc(0x5)"
)
PLAIN = {"recirc": 0, "port": "p1", "mac": "52:54:00:00:00:02", "address": "10.0.0.0", "length": "255.0.0.0"}


def line(**other: object) -> str:
    return LINE.format(**(PLAIN | {"flags": "-fin-rst"} | other))


def test_only_the_kernels_datapath_tells_of_masks() -> None:
    assert flows_and_masks(USERSPACE) == (12, None)
    assert flows_and_masks(KERNEL) == (7, 5)


def test_values_do_not_matter_and_masks_do() -> None:
    one = mask(line())
    assert mask(line(recirc="0x7", mac="00:00:00:00:00:00", address="11.0.0.0", flags="+fin-rst")) == one
    assert mask(line(length="255.255.0.0")) != one
    assert mask(line(flags="-rst")) != one


def test_each_port_has_masks_of_its_own() -> None:
    count = MaskCount()
    count.add(["flow-dump from the main thread:", line(), line(length="255.128.0.0"), line(address="12.0.0.0")])
    count.add([line(port="p2")])
    assert count.most == 2
    assert MaskCount().most == 0
