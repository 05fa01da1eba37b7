"""Makes an empty database a policy database: who it is, who may write what, and where it listens.

A database without this is never taken for an empty policy.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ovsfw.store.client import DATABASE, Connection, Remote, connected
from ovsfw.store.editing import Operation, select, transact

# The role of a host's certificate: it may write one row, the one that has its name.
HOST_ROLE = "ovsfw-host"
_OF_A_HOST = ("generation", "last_seen", "ports", "ready", "version", "problem")


def schema_file() -> Path:
    """Where the schema is, for ovsdb-tool."""
    return Path(str(resources.files(__package__).joinpath("ovsfw.ovsschema")))


async def initialise(remote: Remote, *, hosts: Sequence[str] = (), others: Sequence[str] = ()) -> bool:
    """Set a database up; whether there was anything to do.

    `hosts` and `others` are listeners as ovsdb-server has them (`pssl:6641`); over TLS, those for hosts let a client
    write no more than the row of the host that its certificate names.  Raises StoreError.
    """
    async with connected(remote) as connection:
        operations = await _missing(connection, hosts, others)
        if operations:
            await transact(connection, operations)
        return bool(operations)


async def _missing(connection: Connection, hosts: Sequence[str], others: Sequence[str]) -> list[Operation]:
    tops, roles, listeners = (
        answer["rows"]
        for answer in await transact(
            connection,
            [select("Global", ["identity"]), select("RBAC_Role", ["name"]), select("Connection", ["target"])],
        )
    )
    there = {row["target"] for row in listeners}
    targets = {target: HOST_ROLE if target.startswith("pssl:") else "" for target in hosts}
    targets.update(dict.fromkeys(others, ""))
    return [
        *([] if tops else [_global()]),
        *([] if roles else _role()),
        *_listeners({target: role for target, role in targets.items() if target not in there}),
    ]


def _global() -> Operation:
    """Generation 0: no policy yet, which is not an empty policy."""
    row = {"identity": str(uuid.uuid4()), "generation": 0}
    return {"op": "insert", "table": "Global", "row": row}


def _role() -> list[Operation]:
    permission = {
        "table": "Host",
        "authorization": "name",
        "insert_delete": True,
        "update": ["set", list(_OF_A_HOST)],
    }
    role = {"name": HOST_ROLE, "permissions": ["map", [["Host", ["named-uuid", "permission"]]]]}
    return [
        {"op": "insert", "table": "RBAC_Permission", "row": permission, "uuid-name": "permission"},
        {"op": "insert", "table": "RBAC_Role", "row": role},
    ]


def _role_of_now() -> list[Operation]:
    """Let hosts write the columns of this version."""
    where = [["table", "==", "Host"]]
    row = {"update": ["set", list(_OF_A_HOST)]}
    return [{"op": "update", "table": "RBAC_Permission", "where": where, "row": row}]


def _listeners(targets: dict[str, str]) -> list[Operation]:
    found: list[Operation] = []
    for number, (target, role) in enumerate(targets.items()):
        name = f"listener{number}"
        found += [
            {"op": "insert", "table": "Connection", "row": {"target": target, "role": role}, "uuid-name": name},
            {
                "op": "mutate",
                "table": "Global",
                "where": [],
                "mutations": [["connections", "insert", ["set", [["named-uuid", name]]]]],
            },
        ]
    return found


async def convert(remote: Remote) -> str:
    """Bring a database to this version of ovsfw, while everybody stays connected; the version it had.

    Raises StoreError when the server refuses: then nothing has changed.
    """
    schema = json.loads(schema_file().read_text())
    async with connected(remote) as connection:
        before = str((await connection.call("get_schema", [DATABASE]))["version"])
        if before != schema["version"]:
            await connection.call("convert", [DATABASE, schema])
    # The server may leave those who were connected; and who was interrupted here does it again.
    async with connected(remote) as connection:
        await transact(connection, _role_of_now())
    return before
