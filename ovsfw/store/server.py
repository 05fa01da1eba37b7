"""A database server of one's own, in a directory of its own: one command for a lab, a small site, or one of three.

The server belongs to the directory, not to the process that started it: it is found by the sockets there.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ovsfw.errors import StoreError, SwitchError
from ovsfw.store.client import DATABASE, Tls
from ovsfw.store.setup import schema_file
from ovsfw.switch.unixctl import unixctl

COMMAND_TIMEOUT = 60.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Listeners that are rows of the database, so that they can be changed while it runs and have roles.
_LISTENERS = f"db:{DATABASE},Global,connections"


class Server:
    """One ovsdb-server with the database in `directory`/ovsfw.db."""

    def __init__(self, directory: Path, tls: Tls | None = None) -> None:
        """`tls` are the server's own key and certificate, and the CA of its clients."""
        self.directory = directory.absolute()
        self.file = self.directory / "ovsfw.db"
        self.address = f"unix:{self.directory}/db.sock"
        self.control = self.directory / "ovsdb-server.ctl"
        self._tls = tls

    def create(self, schema: Path | None = None) -> None:
        """Make a database of one server.  Raises StoreError."""
        self._make_directory()
        _run("ovsdb-tool", "create", str(self.file), str(schema or schema_file()))

    def create_cluster(self, local: str) -> None:
        """Make the first server of a cluster, which talks to the others at `local` (`tcp:10.0.0.1:6644`)."""
        self._make_directory()
        _run("ovsdb-tool", "create-cluster", str(self.file), str(schema_file()), local)

    def join_cluster(self, local: str, others: Sequence[str]) -> None:
        """Make a further server of a cluster."""
        self._make_directory()
        _run("ovsdb-tool", "join-cluster", str(self.file), DATABASE, local, *others)

    def start(self, prefix: Sequence[str] = (), listen: Sequence[str] = ()) -> None:
        """Start; returns when it listens.  `prefix` goes before the command (`ip netns exec NAME`).

        `listen` is where it listens besides, this server alone: what all of a cluster share are rows of the database.

        Raises StoreError.
        """
        tls = self._tls
        files = (tls.private_key, tls.certificate, tls.ca_certificate) if tls else ()
        options = ("--private-key", "--certificate", "--ca-cert")
        _run(
            *prefix,
            "ovsdb-server",
            "--detach",
            "--no-chdir",
            f"--pidfile={self.directory}/ovsdb-server.pid",
            f"--log-file={self.directory}/ovsdb-server.log",
            "-vconsole:off",
            f"--unixctl={self.control}",
            f"--remote=p{self.address}",
            f"--remote={_LISTENERS}",
            *(f"--remote={target}" for target in listen),
            *(f"{option}={file}" for option, file in zip(options, files, strict=False)),
            str(self.file),
        )

    async def is_running(self) -> bool:
        """Whether it answers."""
        try:
            await unixctl(self.control, "version")
        except SwitchError:
            return False
        return True

    async def stop(self) -> bool:
        """End it in an orderly way; whether it was running.  Returns when its process is gone."""
        pid_file = self.directory / "ovsdb-server.pid"
        try:
            await unixctl(self.control, "exit")
        except SwitchError:
            return False
        while pid_file.exists():  # noqa: ASYNC110 - it belongs to another process, which removes it last
            await asyncio.sleep(0.01)
        return True

    async def ask(self, command: str, *args: str) -> str:
        """What the server answers to a command of ovs-appctl.  Raises SwitchError."""
        return await unixctl(self.control, command, *args)

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.directory}: {error.strerror}") from None


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"}
    try:
        done = subprocess.run(  # noqa: S603 - programs of Open vSwitch, with files and addresses as arguments
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT,
        )
    except FileNotFoundError:
        raise StoreError(f"{command[0]} not found: install Open vSwitch (apt-get install openvswitch-switch)") from None
    except subprocess.TimeoutExpired:
        raise StoreError(f"{' '.join(command)}: no answer within {COMMAND_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise StoreError(f"{command[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}")
