"""The agent inside a machine of the lab."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from ovsfw.lab.agent import Agent

HOST = "127.0.0.1"


def left_over() -> tuple[socket.socket, int]:
    """A server has ended while its connection lived, and its side still waits: the far end, the port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, 0))
        listener.listen()
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
        near.close()
        return far, listener.getsockname()[1]


def test_what_is_left_of_a_connection_keeps_no_service_from_its_port() -> None:
    far, port = left_over()
    with far:
        asyncio.run(Agent("vm1", [HOST]).listen([("tcp", port)]))


def test_a_port_that_somebody_listens_on_is_not_taken_from_him() -> None:
    with socket.create_server((HOST, 0)) as other, pytest.raises(OSError, match="in use"):
        asyncio.run(Agent("vm1", [HOST]).listen([("tcp", other.getsockname()[1])]))


def test_not_more_probes_wait_at_a_time_than_the_asker_says() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, 0))
        probes = [[token, "udp", HOST, *silent.getsockname()] for token in "abcdef"]
        began = time.monotonic()
        answers = asyncio.run(Agent("vm1", [HOST]).probe(probes, timeout=0.1, attempts=1, at_once=2))
        assert time.monotonic() - began > 0.29
        assert [answer["how"] for answer in answers] == ["silent"] * 6
        assert sorted(silent.recv(10) for _ in probes) == [b"a", b"b", b"c", b"d", b"e", b"f"]
