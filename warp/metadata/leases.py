"""Leases: who may write what, told apart by epochs that only rise.

A write names the lease that it comes under and shares its row first, in its own transaction; a taking changes that row.
So a write either ends before the taking does, and the new holder reads what it wrote, or it finds the lease taken and
changes nothing. Nobody's clock has a part in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from warp.ids import BrokerId
from warp.metadata.group_model import Lease, LeaseLost, LeaseState
from warp.metadata.session import Database, Session, Statement, load_statements

_SQL = load_statements("leases")
SHARE_LEASES = _SQL["share_leases"]
LOCK_LEASES = _SQL["lock_leases"]
LOCK_FREE_LEASES = _SQL["lock_free_leases"]
TAKE_LEASES = _SQL["take_leases"]
TAKE_LEASES_AS_SEEN = _SQL["take_leases_as_seen"]
RENEW_LEASES = _SQL["renew_leases"]
RELEASE_LEASES = _SQL["release_leases"]
READ_LEASES = _SQL["read_leases"]
LEASES_OF_HOLDER = _SQL["leases_of_holder"]


async def take_leases(database: Database, names: Iterable[str], holder: BrokerId) -> list[Lease]:
    """Take leases, whoever holds them; each gets an epoch that it never had. In order of their names."""
    ordered = sorted(set(names))
    if not ordered:
        return []
    async with database.transaction() as session:
        rows = await session.all(TAKE_LEASES, [(name, holder) for name in ordered])
    return sorted((Lease(name, holder, epoch) for name, epoch in rows), key=lambda lease: lease.name)


async def take_leases_as_seen(
    database: Database, seen: Mapping[str, LeaseState | None], holder: BrokerId
) -> list[Lease]:
    """Take those of the leases that are as they were seen to be (None: not there), whoever holds them; by name.

    Of several who have seen the same one gets the lease. One that was taken, released or renewed since stays as it is,
    and so does one that somebody writes under at this moment: for that, try again.
    """
    if not seen:
        return []
    rows = [
        (name, holder, 0 if state is None else state.epoch, 0 if state is None else state.counter)
        for name, state in sorted(seen.items())
    ]
    async with database.transaction() as session:
        free = {name for (name,) in await session.all(LOCK_FREE_LEASES, [(row[0],) for row in rows])}
        wanted = [row for row in rows if row[0] in free or seen[row[0]] is None]
        taken = await session.all(TAKE_LEASES_AS_SEEN, wanted)
    return sorted((Lease(name, holder, epoch) for name, epoch in taken), key=lambda lease: lease.name)


async def renew_leases(database: Database, leases: Sequence[Lease]) -> list[Lease]:
    """Show the observers that the holder lives. Those of the leases that are still held, in the order given."""
    return await _change(database, leases, RENEW_LEASES)


async def release_leases(database: Database, leases: Sequence[Lease]) -> list[Lease]:
    """Give leases up. Those that were still held; the others are left alone."""
    return await _change(database, leases, RELEASE_LEASES)


async def read_leases(database: Database, names: Iterable[str]) -> dict[str, LeaseState]:
    """Those of the leases that anybody has ever taken."""
    ordered = sorted(set(names))
    if not ordered:
        return {}
    rows = await database.all(READ_LEASES, [(name,) for name in ordered])
    return {row[0]: LeaseState(*row) for row in rows}


async def leases_held(database: Database, holder: BrokerId) -> list[Lease]:
    """All leases of a holder, by name."""
    rows = await database.all(LEASES_OF_HOLDER, holder)
    return [Lease(name, holder, epoch) for name, epoch in rows]


async def share_leases(session: Session, leases: Iterable[Lease]) -> None:
    """Let nobody take the leases before the transaction ends. The first statement of every write under a lease.

    Raises LeaseLost, which names all that are lost.
    """
    await _hold(session, leases, SHARE_LEASES)


async def lock_leases(session: Session, leases: Iterable[Lease]) -> None:
    """As share_leases, and let nobody else write under them either before the transaction ends.

    For a write that depends on what others under the same lease have not written.
    """
    await _hold(session, leases, LOCK_LEASES)


async def _hold(session: Session, leases: Iterable[Lease], statement: Statement) -> None:
    wanted = set(leases)
    lost = wanted - await _current(session, wanted, statement)
    if lost:
        raise LeaseLost(lost)


async def _change(database: Database, leases: Sequence[Lease], statement: Statement) -> list[Lease]:
    if not leases:
        return []
    async with database.transaction() as session:
        current = await _current(session, leases, LOCK_LEASES)
        held = [lease for lease in dict.fromkeys(leases) if lease in current]
        await session.execute_rows(statement, [(lease.name,) for lease in held])
    return held


async def _current(session: Session, leases: Iterable[Lease], statement: Statement) -> set[Lease]:
    """The leases of those names as they are now, locked as the statement does. A released one is nobody's."""
    names = sorted({lease.name for lease in leases})
    rows = await session.all(statement, [(name,) for name in names])
    return {Lease(name, holder, epoch) for name, holder, epoch in rows if holder is not None}
