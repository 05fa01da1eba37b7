"""An operator's word that a database is right, for hosts that know another one or a newer one.

Hosts refuse a database that has gone back in time or is another one: it may have lost its disk, and an old or empty
policy is not what anybody wanted.  After a restore it is exactly what is wanted.
"""

from __future__ import annotations

from ovsfw.errors import StoreAwayError, StoreError
from ovsfw.store.client import Remote, connected
from ovsfw.store.editing import commit, read_from, select, transact, update_global

# So far that no host knows more, also one that has not said yet what it knows.
_AHEAD = 1_000_000


async def trust(remote: Remote) -> int:
    """Let every host take the policy that is there now; the generation it has from now on.

    Raises StoreError when there is no policy, or the database is away.
    """
    async with connected(remote) as connection:
        before = (await read_from(connection)).generation
        if not before:
            raise StoreError(f"{remote}: there is no policy in the database to be trusted; put one in first")
        (hosts,) = await transact(connection, [select("Host", ["generation"])])
        known: list[int] = [row["generation"] for row in hosts["rows"]]
        generation = max([before, *known]) + _AHEAD
        row = {"generation": generation, "trusted": generation}
        if not await commit(connection, before, [update_global(row)]):
            raise StoreAwayError(f"{remote}: the policy was changed at this very moment; look at it, and try again")
        return generation
