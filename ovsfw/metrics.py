"""The daemon's health for Prometheus, over HTTP.

What the loop knows is told as it is; drops and connections are asked of the switch at each scrape, over a connection of
its own, so that a slow answer holds up nothing.  Needs prometheus_client (the extra `metrics`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

from ovsfw.compiler.endpoints import network_of
from ovsfw.compiler.pipeline import is_ours, read_cookie
from ovsfw.compiler.recording import is_drop
from ovsfw.errors import ConfigError, SwitchError
from ovsfw.record import BUCKETS
from ovsfw.status_text import Status
from ovsfw.switch.channel import Channel
from ovsfw.switch.conntrack import Conntrack
from ovsfw.switch.rundir import management_socket, rundir_of
from ovsfw.sync import Sync
from ovsfw.waiting import within

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.registry import Collector
except ImportError:
    raise ConfigError("--metrics needs prometheus_client: pip install 'ovsfw[metrics]'") from None

_LONGEST_REQUEST = 8192
_TIMEOUT = 10.0
_LAST_PORT = 0xFFFF
_CONTENT = f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\nConnection: close\r\n\r\n"
_NOT_FOUND = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nsee /metrics\n"


def parse_address(text: str) -> tuple[str, int]:
    """ADDR:PORT, [ADDR]:PORT or PORT alone, which is loopback.  Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > _LAST_PORT:
        raise ConfigError(f"--metrics {text}: give ADDR:PORT, or a port of this machine's loopback")
    return host.strip("[]") or "127.0.0.1", int(port)


class Asked:
    """What the switch said when it was asked last: packets dropped by reason, and connections by network."""

    def __init__(self) -> None:
        self.drops: Mapping[str, int] = {}
        self.connections: Mapping[int, int] = {}
        self._channel = Channel(_TIMEOUT)

    async def ask(self, sync: Sync) -> None:
        """Ask; without an answer there are no numbers."""
        self.drops, self.connections = {}, {}
        path = management_socket(sync.place.bridge, rundir_of(sync.place.db))
        networks = {network_of(bound.vlan) for bound in sync.bindings.endpoints} if sync.bindings else set()
        with contextlib.suppress(SwitchError):
            if not self._channel.is_open:
                await self._channel.connect(path)
            dropped: Counter[str] = Counter()
            for flow, packets, _ in await self._channel.dump_counters():
                why = read_cookie(flow.cookie) if is_ours(flow) and is_drop(flow.instructions) else None
                if why is not None:
                    dropped[why[0].name.lower()] += packets
            self.drops = dropped
            tracker = Conntrack(path.parent, path.stem)
            self.connections = {network: await tracker.count(network) for network in sorted(networks)}

    def close(self) -> None:
        """Hang up."""
        self._channel.close()


class Health(Collector):
    """Turns a status into metrics."""

    def __init__(self, look: Callable[[], Status], sync: Sync, asked: Asked) -> None:
        self._look, self._sync, self._asked = look, sync, asked

    def collect(self) -> Iterable[Metric]:
        """Everything."""
        found = self._look()
        yield InfoMetricFamily("ovsfw", "The daemon", {"version": found["version"], "bridge": found["bridge"]})
        generation = {"generation": found["policy"]["generation"]}
        yield InfoMetricFamily("ovsfw_policy", "The newest good policy of the source", generation)
        yield from self._gauges(found)
        yield from self._counters(found["sync"])
        yield self._steps()
        yield _by("gauge", "ovsfw_flows", "Flows of ovsfw on the switch", "table", found["flows"]["tables"])
        yield _by("counter", "ovsfw_dropped_packets", "Packets that were dropped", "reason", self._asked.drops)
        yield from _datapath(found["datapath"])
        by_network = {str(network): count for network, count in self._asked.connections.items()}
        yield _by("gauge", "ovsfw_connections", "Connections in conntrack", "network", by_network)

    def _gauges(self, found: Status) -> Iterator[Metric]:
        sync, ports = found["sync"], found["ports"]
        in_sync = sync["state"] == "in sync"
        yield GaugeMetricFamily("ovsfw_in_sync", "1 while the switch holds the policy", int(in_sync))
        yield GaugeMetricFamily("ovsfw_healthy", "1 while in sync with a source that is well", int(found["healthy"]))
        yield GaugeMetricFamily("ovsfw_watching", "1 while a flow monitor runs", int(sync["watching"]))
        connected = int(not found["database"]["away_since"])
        yield GaugeMetricFamily("ovsfw_database_connected", "0 while ovsdb-server is away", connected)
        for name, text, value in (
            ("state_since", "Since when the sync is in its state", sync["since"]),
            ("agreed", "When the switch was last known to hold the policy", sync["agreed"]),
            ("audit", "When the switch was last read as a whole", sync["dumped"]),
            ("start", "When the daemon was started", sync["started"]),
        ):
            yield GaugeMetricFamily(f"ovsfw_{name}_timestamp_seconds", text, value)
        endpoints = {
            "filtered": ports["filtered"],
            "unfiltered": len(ports["unfiltered"]),
            "unknown": len(ports["unknown"]),
        }
        yield _by("gauge", "ovsfw_endpoints", "Ports plugged in here with an iface-id", "state", endpoints)

    def _counters(self, sync: Status) -> Iterator[Metric]:
        for name, text, value in (
            ("changes", "Steps that changed something", sync["changes"]),
            ("flow_mods", "Flows added, changed or deleted", sync["flow_mods"]),
            ("repairs", "Steps that undid what somebody else had done", sync["repairs"]),
            ("repaired_flows", "Flows that were put right in repairs", sync["repaired_flows"]),
            ("failures", "Steps that failed", sync["failures"]),
            ("connects", "Connections made to the switch", sync["connects"]),
            ("cut_connections", "Live connections cut", self._sync.reconciler.settling.totals.cut),
            ("adopted_connections", "Live connections taken over", self._sync.reconciler.settling.totals.adopted),
            ("revived_connections", "Live connections that go on", self._sync.reconciler.settling.totals.revived),
        ):
            yield CounterMetricFamily(f"ovsfw_{name}", text, value=value)

    def _steps(self) -> Metric:
        record = self._sync.record
        buckets, below = [], 0
        for limit, count in zip((*map(str, BUCKETS), "+Inf"), record.latencies, strict=True):
            below += count
            buckets.append((limit, float(below)))
        text = "From having all that is needed to the commit's answer, of steps that changed something"
        return HistogramMetricFamily("ovsfw_step_seconds", text, buckets=buckets, sum_value=record.latency_sum)


def _datapath(found: Status) -> Iterator[Metric]:
    """Nothing while the switch cannot be asked."""
    if found["masks"] is not None:
        yield GaugeMetricFamily("ovsfw_megaflows", "Flows in the datapath's cache", found["megaflows"])
        yield GaugeMetricFamily("ovsfw_masks", "Masks that a packet is compared with, at the most", found["masks"])
        yield GaugeMetricFamily("ovsfw_masks_budget", "How many of them are no alarm", found["budget"])


def _by(kind: str, name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = (GaugeMetricFamily if kind == "gauge" else CounterMetricFamily)(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


@asynccontextmanager
async def serving(address: tuple[str, int], look: Callable[[], Status], sync: Sync) -> AsyncIterator[int]:
    """Answer GET /metrics meanwhile; gives the port.  Raises OSError when the address cannot be had."""
    asked, turn = Asked(), asyncio.Lock()
    registry = CollectorRegistry()
    registry.register(Health(look, sync, asked))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            request = await within(reader.readuntil(b"\r\n\r\n"), _TIMEOUT)
            if request.split(b" ")[1].partition(b"?")[0] == b"/metrics":
                async with turn:
                    await asked.ask(sync)
                    writer.write(_CONTENT.encode() + generate_latest(registry))
            else:
                writer.write(_NOT_FOUND.encode())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, *address, limit=_LONGEST_REQUEST)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        asked.close()
