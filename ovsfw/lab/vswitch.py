"""An Open vSwitch of one's own: a database server and a switch, in a network namespace.

The processes belong to a run directory, not to the object that started them: another process finds and ends them by the
pid files there.  Nothing on the machine outside the directory and the namespace is touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ovsfw.errors import SwitchError
from ovsfw.lab.tools import Switch, not_installed

START_TIMEOUT = 120.0
STOP_TIMEOUT = 10.0
PROTOCOLS = "OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15"
SERVER, SWITCH = "ovsdb-server", "ovs-vswitchd"
_SCHEMA = "vswitch.ovsschema"
_SCHEMA_PLACES = ("/usr/share/openvswitch", "/usr/local/share/openvswitch")
# In the run directory: the name of the namespace, when this program made it and so must remove it.
_MADE_NAMESPACE = "made-netns"


class PrivateSwitch(Switch):
    """One ovsdb-server and one ovs-vswitchd, living in `directory` and in the network namespace `netns`.

    The namespace is made by `start` if it is missing, and then removed by `stop`.  Only one switch can live in a
    namespace: the userspace datapath always makes a device named ovs-netdev.
    """

    def __init__(self, directory: Path, netns: str, options: Sequence[str] = ()) -> None:
        """`options` are further arguments for ovs-vswitchd."""
        super().__init__(directory)
        self._options = tuple(options)
        self.netns = netns
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def is_running(self) -> bool:
        """Whether both processes are alive, whoever started them."""
        return all(self._pid(daemon) for daemon in (SERVER, SWITCH))

    def start(self) -> None:
        """Start with an empty database.  Raises SwitchError, and leaves nothing behind, when that cannot be done."""
        if self._pid(SERVER) or self._pid(SWITCH):
            raise SwitchError(f"{self.rundir}: a switch is already running there; stop it first")
        try:
            self._make_namespace()
            self._start_server()
            self.start_vswitchd()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything that was started in the run directory; nothing to do is fine."""
        for daemon in (SWITCH, SERVER):
            self._end(daemon, signal.SIGTERM)
        made = self.rundir / _MADE_NAMESPACE
        if made.exists():
            subprocess.run(["ip", "netns", "del", made.read_text()], env=self.environment, check=False)
            made.unlink()

    def start_vswitchd(self) -> None:
        """Start the switch alone; returns when it has set up every bridge of the database."""
        self._spawn(SWITCH, self.db, *self._options)
        pid = self._wait(lambda: self._pid(SWITCH), SWITCH)
        # ovs-vsctl waits until the switch has read a change: by then it has read everything.
        self.vsctl("set", "Open_vSwitch", ".", f"external_ids:private-switch={pid}")

    def restart_vswitchd(self) -> None:
        """End the switch in an orderly way and start it again; flows and connections are gone."""
        self._end(SWITCH, signal.SIGTERM)
        self.start_vswitchd()

    def kill_vswitchd(self) -> None:
        """Let the switch crash; the database lives on."""
        self._end(SWITCH, signal.SIGKILL)

    def restart_server(self) -> None:
        """Let the database crash and start it again; what it holds lives on."""
        self.kill_server()
        self.start_server()

    def kill_server(self) -> None:
        """Let the database crash."""
        self._end(SERVER, signal.SIGKILL)

    def start_server(self) -> None:
        """Start the database with what it holds; ovs-vswitchd finds it again within 8 s."""
        self._spawn(SERVER, str(self.rundir / "conf.db"), f"--remote=p{self.db}")
        self._wait(lambda: self._pid(SERVER) and (self.rundir / "db.sock").exists(), SERVER)

    def pid(self, daemon: str = SWITCH) -> int:
        """The pid of the switch, or of `ovsdb-server`; 0 when it is not alive."""
        return self._pid(daemon)

    def add_bridge(self, name: str, datapath: str = "netdev") -> None:
        """Add a bridge that forwards nothing by itself and speaks OpenFlow 1.4; `system` is the kernel's datapath."""
        bridge = ("set", "bridge", name, f"datapath_type={datapath}", "fail_mode=secure", f"protocols={PROTOCOLS}")
        self.vsctl("add-br", name, "--", *bridge)

    def _make_namespace(self) -> None:
        if os.geteuid() != 0:
            raise SwitchError("a private switch needs network namespaces: run this as root")
        self.rundir.mkdir(parents=True, exist_ok=True)
        names = [line.split()[0] for line in self.run("ip", "netns", "list").splitlines() if line]
        if self.netns not in names:
            # Noted before it is made: a crash between the two must not leave a namespace without owner.
            (self.rundir / _MADE_NAMESPACE).write_text(self.netns)
            self.run("ip", "netns", "add", self.netns)
        self.run("ip", "-n", self.netns, "link", "set", "lo", "up")

    def _start_server(self) -> None:
        for stale in ("conf.db", ".conf.db.~lock~", "db.sock"):
            (self.rundir / stale).unlink(missing_ok=True)
        self.run("ovsdb-tool", "create", str(self.rundir / "conf.db"), str(_schema()))
        self.start_server()
        # As Open vSwitch's own start script does it.
        version = self.run(SWITCH, "--version").split("\n")[0].split()[-1]
        self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", f"ovs_version={version}")

    def _spawn(self, daemon: str, *args: str) -> None:
        """Start a daemon in the namespace; it writes its pid file and log file into the run directory."""
        command = ["ip", "netns", "exec", self.netns, daemon, *args, "--pidfile", "--log-file", "-vconsole:off"]
        if shutil.which(daemon, path=self.environment["PATH"]) is None:
            raise SwitchError(not_installed(daemon))
        self._children[daemon] = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for us, not for the switch
        )

    def _pid(self, daemon: str) -> int:
        """The pid of a living daemon of this run directory, else 0."""
        try:
            pid = int((self.rundir / f"{daemon}.pid").read_text())
        except (OSError, ValueError):
            return 0
        # The file may be older than the last boot: make sure the process is what it says.
        words = _arguments(pid)
        ours = words and words[0].endswith(daemon.encode()) and any(os.fsencode(self.rundir) in word for word in words)
        return pid if ours else 0

    def _wait(self, ready: Callable[[], object], daemon: str) -> object:
        """Poll until `ready` gives something true.  Raises SwitchError with the log's end when the daemon died."""
        deadline = time.monotonic() + START_TIMEOUT
        while not (answer := ready()):
            ended = self._children[daemon].poll() is not None
            if ended or time.monotonic() > deadline:
                log = self.rundir / f"{daemon}.log"
                tail = "\n".join(log.read_text().splitlines()[-5:]) if log.exists() else "(no log)"
                raise SwitchError(f"{daemon} {'ended' if ended else 'is not ready'}; its log {log} ends with:\n{tail}")
            time.sleep(0.01)
        return answer

    def _end(self, daemon: str, how: signal.Signals) -> None:
        """Send a signal and wait until the process is gone, with SIGKILL as the last word."""
        child = self._children.pop(daemon, None)
        pid = child.pid if child is not None and child.poll() is None else self._pid(daemon)
        if not pid:
            return
        for number in (how, signal.SIGKILL):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            if _is_gone(pid, child):
                break
        else:
            raise SwitchError(f"{daemon} (pid {pid}) does not end")


def _is_gone(pid: int, child: subprocess.Popen[bytes] | None) -> bool:
    """Wait for a process to end; a child of ours is reaped on the way."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while time.monotonic() < deadline:
        if _has_ended(pid) if child is None else child.poll() is not None:
            return True
        time.sleep(0.005)
    return False


def _has_ended(pid: int) -> bool:
    """Whether a process has let go of its files, too; that its command line is gone comes before (exit(2), proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return True
    state, threads = fields[0], int(fields[17])
    return state in (b"Z", b"X") and threads <= 1


def _arguments(pid: int) -> list[bytes]:
    """The command line of a living process; empty for none and for a zombie."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return words.split(b"\0") if words else []


def _schema() -> Path:
    for place in _SCHEMA_PLACES:
        if (path := Path(place, _SCHEMA)).exists():
            return path
    raise SwitchError(not_installed(_SCHEMA))
