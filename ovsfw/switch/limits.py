"""How many connections a conntrack zone may have, by `ovs-appctl dpctl/ct-*-limits` (ovs-vswitchd(8)).

The limit for zones without one of their own is never touched: in the userspace datapath, setting it to 0 means that no
connection is remembered, though reading says 0 also where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ovsfw.errors import SwitchError
from ovsfw.switch.rundir import control_socket
from ovsfw.switch.unixctl import unixctl

_LIMIT = re.compile(r"^zone=(\d+),limit=(\d+),", re.MULTILINE)


async def read(bridge: Path) -> dict[int, int]:
    """The limits of a bridge's datapath, by zone; `bridge` is its management socket.

    A datapath that knows no limits has none.  Raises SwitchError.
    """
    control = control_socket(rundir=bridge.parent)
    where = await datapath(control, bridge.stem)
    try:
        text = await unixctl(control, "dpctl/ct-get-limits", where)
    except SwitchError as error:
        if "not supported" in str(error):
            return {}
        raise
    return {int(zone): int(limit) for zone, limit in _LIMIT.findall(text)}


async def write(bridge: Path, wanted: Mapping[int, int | None]) -> None:
    """Set limits, or lift them (None).  Raises SwitchError."""
    control = control_socket(rundir=bridge.parent)
    where = await datapath(control, bridge.stem)
    limits = [f"zone={zone},limit={limit}" for zone, limit in wanted.items() if limit is not None]
    lifted = [str(zone) for zone, limit in wanted.items() if limit is None]
    if limits:
        await unixctl(control, "dpctl/ct-set-limits", where, *limits)
    if lifted:
        await unixctl(control, "dpctl/ct-del-limits", where, f"zone={','.join(lifted)}")


async def datapath(control: Path, bridge: str) -> str:
    """The datapath that a bridge is in, like `system@ovs-system`; `control` is ovs-vswitchd's socket.

    Raises SwitchError.
    """
    name = ""
    for line in (await unixctl(control, "dpif/show")).splitlines():
        if not line.startswith(" "):
            name = line.partition(":")[0]
        elif line.strip() == f"{bridge}:":
            return name
    raise SwitchError(f"{control}: no datapath has the bridge {bridge}")
