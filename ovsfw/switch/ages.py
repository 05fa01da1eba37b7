"""How often and how lately the flows of a bridge were hit, over a short connection in OpenFlow 1.0."""

from __future__ import annotations

from pathlib import Path

from ovsfw.openflow import ages, port
from ovsfw.openflow.ages import Age
from ovsfw.switch.connection import Connection


async def read(path: Path) -> list[Age]:
    """Every flow of the bridge whose management socket this is.  Raises SwitchError."""
    connection = await Connection.open(path, port.VERSION)
    try:
        return await connection.gather(ages.ages_request, ages.parse_ages, port.has_more)
    finally:
        connection.close()
