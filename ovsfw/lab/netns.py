"""Network namespaces: run something in one, and remove them with everything inside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ovsfw.errors import SwitchError

NAMES = Path("/run/netns")  # ip-netns(8)
COMMAND_TIMEOUT = 300.0  # seconds; emulated beside others, a dozen machines that start at once need more than 60
PATIENCE = 2.0  # seconds for a process to end after SIGTERM


def run(command: Sequence[str], stdin: str = "") -> str:
    """What a command prints.  Raises SwitchError with its complaint."""
    title = " ".join(command[:5])
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT
        )
    except FileNotFoundError:
        raise SwitchError(f"{command[0]} not found: install iproute2 and ethtool") from None
    except subprocess.TimeoutExpired:
        raise SwitchError(f"{title}: no answer within {COMMAND_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise SwitchError(f"{title}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def batch(commands: Iterable[str], space: str = "") -> None:
    """Run commands of ip(8), each without the leading word `ip`, in one process, in a namespace or here.

    Links are to be made in the namespace that they are for: before 6.13, Linux refuses a name that is taken where the
    command runs.  Raises SwitchError.
    """
    where = ["-n", space] if space else []
    run(["ip", *where, "-batch", "-"], "".join(f"{command}\n" for command in commands))


def inside(name: str, *command: str, stdin: str = "") -> str:
    """What a command prints when it runs in a namespace.  Raises SwitchError."""
    return run(["ip", "netns", "exec", name, *command], stdin)


def names(prefix: str) -> list[str]:
    """The namespaces whose names start so, sorted."""
    return sorted(path.name for path in NAMES.glob(f"{prefix}*"))


def remove(doomed: Sequence[str]) -> None:
    """Remove namespaces, their devices, and every process inside; one that is gone already is fine.

    Raises SwitchError when a process does not end.
    """
    inodes = {inode for name in doomed if (inode := _inode(NAMES / name))}
    _end_processes(inodes, signal.SIGTERM)
    for name in doomed:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    # Without a name nobody can enter any more; who entered in the meantime ends here.
    _end_processes(inodes, signal.SIGKILL)
    if left := [name for name in doomed if (NAMES / name).exists()]:
        raise SwitchError(f"cannot remove network namespaces: {', '.join(left)}")


def processes(inodes: set[int]) -> list[int]:
    """The pids of the living processes in the namespaces with these inodes."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _inode(Path(f"/proc/{pid}/ns/net")) in inodes]


def _end_processes(inodes: set[int], how: signal.Signals) -> None:
    deadline = time.monotonic() + PATIENCE
    signalled: set[int] = set()
    while pids := processes(inodes):
        late = time.monotonic() > deadline
        if late and how is signal.SIGKILL:
            raise SwitchError(f"processes do not end: {' '.join(map(str, pids))}")
        if late:
            return
        for pid in set(pids) - signalled:
            _kill(pid, how)
        signalled.update(pids)
        time.sleep(0.005)


def _kill(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return


def _inode(path: Path) -> int:
    """What identifies a namespace; 0 when there is none (any more), as with a process that has just ended."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0
