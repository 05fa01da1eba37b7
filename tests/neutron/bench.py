"""The words of which the cases of `real` and `concert` are made."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.neutron.lab import Host, Json, Lab, LabError, Vm, api, create, until

OBEY_TIMEOUT = 30.0
_NUMBERS = itertools.count(1)

_LISTEN = """
import selectors, socket, sys
chosen = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    listener = socket.create_server(("", port), reuse_port=True, backlog=64)
    chosen.register(listener, selectors.EVENT_READ, True)
while True:
    for key, _ in chosen.select():
        if key.data:
            chosen.register(key.fileobj.accept()[0], selectors.EVENT_READ, False)
        else:
            try:
                data = key.fileobj.recv(4096)
                key.fileobj.sendall(data)
            except OSError:
                data = b""
            if not data:
                chosen.unregister(key.fileobj)
                key.fileobj.close()
"""
_CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1).close()"
_TALK = """
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)
link.settimeout(1.0)
for line in sys.stdin:
    try:
        link.sendall(b"x")
        print("yes" if link.recv(1) else "no", flush=True)
    except OSError:
        print("no", flush=True)
"""


# --- Words ----------------------------------------------------------------------------------------------------------


def pings(source: Vm, target: Vm) -> bool:
    """Whether one echo request is answered."""
    return source.execute("ping", "-c1", "-W1", target.address)


def connects(source: Vm, target: Vm, port: int) -> bool:
    """Whether TCP can be opened."""
    return source.execute(sys.executable, "-S", "-c", _CONNECT, target.address, str(port))


def listen(machine: Vm, *ports: int) -> None:
    """Let a VM answer on TCP ports."""
    command = ("ip", "netns", "exec", machine.name, sys.executable, "-S", "-c", _LISTEN, *map(str, ports))
    machine.servers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))


def rule(group: Json, **more: Any) -> Json:
    """A new rule of a group."""
    values = {"direction": "ingress", "ethertype": "IPv4", "security_group_id": group["id"], **more}
    return create("security-group-rule", **values)


def tcp(group: Json, port: int, **more: Any) -> Json:
    """A rule for one TCP port."""
    return rule(group, protocol="tcp", port_range_min=port, port_range_max=port, **more)


def delete(kind: str, thing: Json) -> None:
    """Take an object away."""
    api("DELETE", f"{kind}s/{thing['id']}")


def change_port(machine: Vm, **values: Any) -> None:
    """Update the port of a VM."""
    machine.port = api("PUT", f"ports/{machine.port['id']}", {"port": values})["port"]


def group(name: str, **more: Any) -> Json:
    """A security group with nothing but Neutron's egress rules."""
    return create("security-group", name=f"{name}-{next(_NUMBERS)}", **more)


def stays(holds: Callable[[], bool], what: str) -> None:
    """It is so, and is so again after the agent has gone round.  Raises LabError."""
    for pause in (0.0, 2.5):
        time.sleep(pause)
        if not holds():
            raise LabError(f"not so: {what}")


@contextmanager
def talking(source: Vm, target: Vm, port: int) -> Iterator[Callable[[], bool]]:
    """An open TCP connection; whether it still carries data."""
    command = ("ip", "netns", "exec", source.name, sys.executable, "-S", "-u", "-c", _TALK, target.address, str(port))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answers() -> bool:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write("\n")
            process.stdin.flush()
        except OSError:
            return False
        return process.stdout.readline() == "yes\n"

    try:
        yield answers
    finally:
        process.kill()
        process.wait()


def lost_before_the_end(told: str) -> int:
    """Gaps in the numbers of the answers; what is missing at the end was cut with the rule."""
    numbers = [int(number) for number in re.findall(r"icmp_seq=(\d+)", told)]
    return numbers[-1] - numbers[0] + 1 - len(numbers)


# --- Where ---


@dataclass
class Bench:
    """The VMs of one host, in a network of their own, and the times that were measured there."""

    lab: Lab
    host: Host
    network: Json
    times: dict[str, float]

    def boot(self, name: str, *groups: Json, **more: Any) -> Vm:
        """A VM of this host."""
        return self.lab.boot(
            self.host, f"{name}-{self.host.number}", self.network, [each["id"] for each in groups], **more
        )

    def obeys(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until packets show it, and note how long that took."""
        self.times[what] = until(holds, f"{self.host.name}: {what}", OBEY_TIMEOUT)

    @property
    def is_ours(self) -> bool:
        """Whether ovsfw filters here."""
        return self.host.driver in ("ovsfw", "daemon")


@dataclass
class Machines:
    """What all cases use: two VMs of `web`, one of `other`, and the groups."""

    web: Json
    other: Json
    server: Vm
    sibling: Vm
    client: Vm
