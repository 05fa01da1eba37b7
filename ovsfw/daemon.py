"""The daemon: a source, a bridge, the loop between them, and the socket by which it answers.  Wiring only.

To hang something onto it: give `supervisor` a task, `control` a command.  A task that fails is started again and hurts
no other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ovsfw import __version__, logs
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.control import Control
from ovsfw.crowding import BUDGET, Crowding
from ovsfw.explain.journal import Lines
from ovsfw.notify import Notifier
from ovsfw.openflow.text import format_flow
from ovsfw.pidfile import PidFile
from ovsfw.sources.source import Source
from ovsfw.status import of_datapath, status
from ovsfw.status_text import Status, render
from ovsfw.supervisor import Supervisor
from ovsfw.switch.rundir import management_socket, rundir_of
from ovsfw.sync import AUDIT_EVERY, Place, Sync

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """Where the daemon works and how.

    `rundir` is where its pid file and control socket are; `source_name` is what the policy's source is called;
    `audit_every` is in seconds; `set_fail_mode` lets it set the bridge's fail_mode to secure;
    `metrics` is where it tells of its health over HTTP, ADDR:PORT, empty for nowhere; `decisions` is the file that
    decisions are logged to, - for standard output, empty for none; `mask_budget` is how many masks the datapath may
    have without an alarm.
    """

    place: Place
    rundir: Path
    source_name: str
    audit_every: float = AUDIT_EVERY
    set_fail_mode: bool = False
    metrics: str = ""
    decisions: str = ""
    mask_budget: int = BUDGET


class Daemon:
    """Its parts; each has its own state."""

    def __init__(self, source: Source, options: Options) -> None:
        """Nothing runs yet."""
        self.source, self.options = source, options
        self.sync = Sync(source, options.place, options.audit_every, set_fail_mode=options.set_fail_mode)
        self.control = Control()
        self.supervisor = Supervisor()
        self._pidfile = PidFile(options.rundir / "ovsfw.pid")
        self.supervisor.add("sync", self.sync.run)
        self.supervisor.add("control", self._serve)
        self.supervisor.add("answers", self.sync.answering.run)
        path = management_socket(options.place.bridge, rundir_of(options.place.db))
        self.crowding = Crowding(path, options.mask_budget)
        self.supervisor.add("masks", self.crowding.run)
        if options.place.records_drops:
            self.supervisor.add("drops", self.sync.watch.run)
        self._decisions = Lines(options.decisions) if options.decisions else None
        if self._decisions is not None:
            self.supervisor.add("decisions", partial(self.sync.journal.run, self._decisions))
        self._notifier = Notifier()
        self.supervisor.add("notify", partial(self._notifier.run, self._health))
        if options.metrics:
            self.supervisor.add("metrics", self._metrics())
        self._register()

    async def run(self) -> None:
        """Until SIGTERM, SIGINT or the command `exit`; flows stay.  Raises ConfigError when it cannot begin."""
        self._pidfile.claim()
        try:
            self._listen_to_signals()
            await self.source.start(self.sync.heard)
            logger.info(
                "ovsfw %s keeps %s as %s says", __version__, self.options.place.bridge, self.options.source_name
            )
            await self.supervisor.run()
        finally:
            self._notifier.tell("STOPPING=1")
            await self.source.close()
            self._pidfile.release()
            if self._decisions is not None:
                self._decisions.close()
        logger.info("ovsfw ends; the flows stay as they are")

    def _health(self) -> tuple[bool, str]:
        """Whether the first sync is done, and how it is in one line."""
        record = self.sync.record
        problem = (record.problem or self.source.state().problem).partition("\n")[0]
        return record.agreed > 0, f"{record.state.value}{': ' if problem else ''}{problem}"

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.supervisor.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Read the policy again, look at everything that the switch holds, and open the log of decisions again."""
        if self._decisions is not None:
            self._decisions.reopen()
        self.source.reload()
        self.sync.doubt("reload")

    async def _serve(self) -> None:
        """Sockets of others are of daemons that were killed: the lock on the pid file is ours."""
        for stale in self.options.rundir.glob("ovsfw.*.ctl"):
            stale.unlink(missing_ok=True)
        async with self.control.serving(self.options.rundir / f"ovsfw.{os.getpid()}.ctl"):
            self._pidfile.write()
            await asyncio.Event().wait()

    def status(self) -> Status:
        """Everything there is to know."""
        found = status(self.sync, self.source.state(), self.options.source_name, self.supervisor.states)
        return {**found, "datapath": of_datapath(self.crowding)}

    def _metrics(self) -> Callable[[], Awaitable[None]]:
        """The task that answers scrapes.  Raises ConfigError when it cannot be."""
        from ovsfw import metrics  # noqa: PLC0415 - an extra, which may be missing

        address = metrics.parse_address(self.options.metrics)

        async def serve() -> None:
            async with metrics.serving(address, self.status, self.sync) as port:
                logger.info("metrics: http://%s:%d/metrics", address[0], port)
                await asyncio.Event().wait()

        return serve

    def _register(self) -> None:
        register = self.control.register
        register("version", "", 0, 0, self._version)
        register("status", "[json]", 0, 1, self._status)
        register("reconcile", "", 0, 0, self._reconcile)
        register("reload", "", 0, 0, self._reload)
        register("drops", "[PORT]", 0, 1, self.sync.watch.tell)
        register("dump", "", 0, 0, self._dump)
        register("vlog/set", "LEVEL", 1, 1, self._set_level)
        register("vlog/list", "", 0, 0, self._list_level)
        register("exit", "", 0, 0, self._exit)

    async def _version(self, _args: Sequence[str]) -> str:
        return f"ovsfw {__version__}\n"

    async def _status(self, args: Sequence[str]) -> str:
        found = self.status()
        return json.dumps(found) if args else render(found)

    async def _reconcile(self, _args: Sequence[str]) -> str:
        return f"{await self.sync.reconcile('reconcile')}\n"

    async def _reload(self, _args: Sequence[str]) -> str:
        self.reload()
        return ""

    async def _dump(self, _args: Sequence[str]) -> str:
        flows = self.sync.reconciler.flows.flows()
        return "".join(f"{format_flow(flow, TABLE_NAMES)}\n" for flow in flows)

    async def _set_level(self, args: Sequence[str]) -> str:
        logs.set_level(args[0])
        return ""

    async def _list_level(self, _args: Sequence[str]) -> str:
        return f"{logs.current_level()}\n"

    async def _exit(self, _args: Sequence[str]) -> str:
        asyncio.get_running_loop().call_soon(self.supervisor.stop)
        return ""
