"""The unit as it is shipped, started by a real systemd: process 1 of a namespace, over a copy of this machine's root.

The copy is an overlay that is thrown away; nothing on the machine is changed.  Open vSwitch runs outside, and only its
run directory is seen inside, where packages have it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import ovs as ovs_package
import pytest

from ovsfw.lab.vswitch import PrivateSwitch
from tests.ovs.test_daemon import document, is_verified, ours, plug
from tests.running import until
from tests.test_house import ROOT

pytestmark = [pytest.mark.ovs, pytest.mark.usefixtures("bridge")]
USER = 54322
_UNIT = "etc/systemd/system/ovsfw.service"
# Nothing of this machine is started but the unit.  Where nobody reads the journal, the log goes to a file.
_NOTHING = "[Unit]\nDefaultDependencies=no\n"
_FILES = {
    **{f"etc/systemd/system/{name}.target": _NOTHING for name in ("empty", "sysinit", "basic")},
    "etc/systemd/system/openvswitch-switch.service": f"{_NOTHING}[Service]\nType=oneshot\nExecStart=true\n",
    f"{_UNIT}.d/log.conf": "[Service]\nStandardError=append:/etc/ovsfw/log\n",
    # An interpreter that is not where it was built must be told where its parts are.
    "usr/bin/ovsfw": (
        "#!/bin/sh\nexport LD_LIBRARY_PATH=/opt/python/lib PYTHONHOME=/opt/python\n"
        "export PYTHONPATH=/opt/ovsfw:/opt/packages PYTHONDONTWRITEBYTECODE=1\n"
        f'exec /opt/python/bin/python3.{sys.version_info.minor} -m ovsfw "$@"\n'
    ),
}
_BOOT = """
set -e
root=$1 run=$2
for cgroup in /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    [ ! -e $cgroup/cgroup.procs ] || { mkdir -p $cgroup/$3; echo $$ > $cgroup/$3/cgroup.procs; break; }
done
mount -t tmpfs tmpfs $root/run
mount -t tmpfs tmpfs $root/tmp
mount --rbind /dev $root/dev
mkdir $root/run/openvswitch
mount --bind $run $root/run/openvswitch
for each in python=$4 packages=$5 ovsfw=$6; do
    mkdir -p $root/opt/${each%%=*}
    mount --bind ${each#*=} $root/opt/${each%%=*}
done
exec unshare --cgroup --pid --fork --kill-child=SIGKILL sh -c '
    mount -t sysfs sysfs $0/sys
    exec unshare --root $0 --mount-proc env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
        /lib/systemd/systemd --system --unit=empty.target --log-target=console' $root
"""


class Machine:
    """A booted systemd; `ask` is `systemctl` there."""

    def __init__(self, directory: Path, ovs: PrivateSwitch) -> None:
        self.root, self.switch = directory / "root", ovs
        self.policy, self.log_file = (self.root / "etc/ovsfw" / name for name in ("policy.yaml", "log"))
        self._cgroup = f"ovsfw-test-{os.getpid()}"
        self._console = directory / "console"
        packages = Path(ovs_package.__file__).parent.parent
        words = [self.root, ovs.rundir, self._cgroup, sys.base_prefix, packages, ROOT]
        with self._console.open("wb") as console:
            command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--ipc", "--uts", "--net"]
            command += ["bash", "-c", _BOOT, "boot", *map(str, words)]
            self._process = subprocess.Popen(command, stdout=console, stderr=console, stdin=subprocess.DEVNULL)
        try:
            until(lambda: self._init() and self._is_up(), self._console.read_text)
        except BaseException:
            self.close()
            raise

    def _init(self) -> int:
        """The pid of its process 1, as it is outside; 0 for none."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        is_it = bool(children) and Path(f"/proc/{children[0]}/comm").read_text() == "systemd\n"
        return int(children[0]) if is_it else 0

    def _is_up(self) -> bool:
        return self.systemctl("is-system-running").stdout.strip() in {"running", "degraded", "starting"}

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What it says, whatever its exit status."""
        return self.inside("systemctl", *words)

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command there."""
        enter = ["nsenter", "--target", str(self._init()), "--mount", "--pid", "--root", "--wd", *words]
        return subprocess.run(enter, capture_output=True, text=True, check=False, timeout=60)

    def ask(self, *words: str) -> None:
        """It must succeed."""
        done = self.systemctl(*words)
        assert done.returncode == 0, f"{done.stderr}{self.log}"

    def shown(self, name: str) -> str:
        """A property of the service."""
        return self.systemctl("show", "ovsfw", "--value", "--property", name).stdout.strip()

    @property
    def log(self) -> str:
        """What the daemon has logged."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something true."""
        until(condition, lambda: f"{self.systemctl('status', 'ovsfw').stdout}{self.log}{self._console.read_text()}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for cgroup in Path("/sys/fs/cgroup").glob(f"**/{self._cgroup}"):
            for each in sorted(cgroup.glob("**/"), reverse=True):
                until(lambda: _is_removed(each), "all of its processes have ended")  # noqa: B023 - at once


def _is_removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except OSError:
        return False
    return True


def _mount(stack: ExitStack, where: Path, kind: str, *options: str) -> None:
    subprocess.run(["mount", "-t", kind, *options, kind, where], check=True)
    stack.callback(lambda: subprocess.run(["umount", "--lazy", where], check=True))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on a file system of its own, with the copy of the root in `root`."""
    made = tmp_path_factory.mktemp("systemd")
    with ExitStack() as stack:
        _mount(stack, made, "tmpfs")
        for name in ("upper", "work", "root"):
            (made / name).mkdir()
        layers = f"lowerdir=/,upperdir={made}/upper,workdir={made}/work"
        _mount(stack, made / "root", "overlay", "-o", layers)
        yield made


@pytest.fixture
def machine(root: Path, ovs: PrivateSwitch) -> Iterator[Machine]:
    """Booted, with the unit and the user that it names, who may write to the sockets of Open vSwitch."""
    copy = root / "root"
    for name, text in _FILES.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text)
    (copy / "usr/bin/ovsfw").chmod(0o755)
    shutil.copy(ROOT / "share/ovsfw.service", copy / _UNIT)
    (copy / "etc/passwd").write_text(f"openvswitch:x:{USER}:{USER}::/nonexistent:/usr/sbin/nologin\n")
    (copy / "etc/group").write_text(f"openvswitch:x:{USER}:\n")
    (copy / "etc/ovsfw").mkdir(exist_ok=True)
    plug(ovs, 1)
    ovs.rundir.chmod(0o755)
    for path in (*ovs.rundir.glob("*.mgmt"), ovs.rundir / "db.sock", *ovs.rundir.glob("ovs-vswitchd.*.ctl")):
        os.chown(path, 0, USER)
        path.chmod(0o660)
    made = Machine(root, ovs)
    try:
        yield made
    finally:
        made.close()


def test_the_unit_under_a_real_systemd(machine: Machine, tmp_path: Path) -> None:
    """Ready when the bridge holds the policy; reloaded, killed, hung, stopped."""
    ovs = machine.switch
    machine.ask("start", "--no-block", "ovsfw")
    machine.until(lambda: "no new policy" in machine.log)
    machine.until(lambda: "waiting for a policy" in machine.shown("StatusText"))
    assert machine.shown("ActiveState") == "activating"
    machine.policy.write_text(document(1, 2))
    machine.until(lambda: machine.shown("ActiveState") == "active")
    machine.until(lambda: machine.shown("StatusText") == "in sync")
    flows = ours(ovs)
    assert flows

    status = machine.inside("cat", f"/proc/{machine.shown('MainPID')}/status").stdout
    for line in (
        f"Uid:\t{USER}",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        *(f"Cap{kind}:\t0{{16}}" for kind in ("Eff", "Bnd")),
    ):
        assert re.search(f"^{line}", status, re.MULTILINE), status

    before = machine.log.count("policy refused")
    machine.policy.write_text("ports: 7")
    machine.ask("reload", "ovsfw")
    machine.until(lambda: machine.log.count("policy refused") > before)
    machine.until(lambda: machine.shown("StatusText").startswith("in sync: "))
    machine.policy.write_text(document(1, 2))
    machine.until(lambda: machine.shown("StatusText") == "in sync")

    machine.ask("kill", "--signal=KILL", "ovsfw")
    machine.until(lambda: machine.shown("NRestarts") == "1" and machine.shown("StatusText") == "in sync")
    assert ours(ovs) == flows

    machine.ask("stop", "ovsfw")
    assert machine.shown("ActiveState") == "inactive"
    assert "ovsfw ends; the flows stay as they are" in machine.log
    assert ours(ovs) == flows
    (tmp_path / "policy.yaml").write_text(document(1, 2))
    assert is_verified(ovs, tmp_path / "policy.yaml")


def test_systemd_finds_nothing_wrong_with_the_unit_and_little_to_fear(machine: Machine) -> None:
    """An exposure of 2 of 10 is what systemd calls OK; a unit without any restriction has 9.6."""
    for words in (("verify", f"/{_UNIT}"), ("security", "--offline=true", "--threshold=20", f"/{_UNIT}")):
        done = machine.inside("systemd-analyze", *words)
        assert done.returncode == 0, done.stderr + done.stdout
        assert "ovsfw.service:" not in done.stderr


def test_a_daemon_that_hangs_is_started_again(machine: Machine) -> None:
    """By the watchdog, which is given less patience here."""
    impatient = machine.root / f"{_UNIT}.d/watchdog.conf"
    impatient.write_text("[Service]\nWatchdogSec=3\n")
    try:
        machine.policy.write_text(document(1, 2))
        machine.ask("daemon-reload")
        machine.ask("start", "ovsfw")
        machine.ask("kill", f"--signal={signal.SIGSTOP.name}", "ovsfw")
        machine.until(lambda: machine.shown("NRestarts") == "1" and machine.shown("StatusText") == "in sync")
        assert ours(machine.switch)
    finally:
        impatient.unlink()
