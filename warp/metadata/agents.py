"""The registrations of a cluster's agents: how one joins, shows that it lives, sees the others, and is forgotten.

A registration belongs to the process whose incarnation it carries. Another process takes it over only as it has seen it
to be: had it moved since, somebody else has been there. With it go the leases that were held under its broker id. A
transaction locks registrations before leases.
"""

from __future__ import annotations

from collections.abc import Sequence

from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentFacts, AgentRow, AgentState, ClusterRows
from warp.metadata.group_model import LeaseState
from warp.metadata.leases import RELEASE_LEASES
from warp.metadata.session import Call, Database, Row, Session, load_statements

_SQL = load_statements("agents")
FIND_AGENT = _SQL["find_agent"]
INSERT_AGENT = _SQL["insert_agent"]
TAKE_OVER_AGENT = _SQL["take_over_agent"]
BEAT = _SQL["beat"]
ALL_AGENTS = _SQL["all_agents"]
ALL_LEASES = _SQL["all_leases"]
LOCK_LEASES_OF_HOLDERS = _SQL["lock_leases_of_holders"]
LOCK_AGENTS_AS_SEEN = _SQL["lock_agents_as_seen"]
DELETE_AGENTS = _SQL["delete_agents"]
FIND_SEGMENT = _SQL["find_segment"]

_STATES = frozenset(AgentState)

NOTHING_KNOWN = AgentFacts(endpoints=(), roles=())
"""Of an agent whose facts this release can't read: it lives, but nobody is sent there."""


async def find_agent(database: Database, name: str) -> AgentRow | None:
    """The registration under a name, None where there is none."""
    row = await database.one(FIND_AGENT, name)
    return None if row is None else _agent(row)


async def join_agent(
    database: Database, name: str, incarnation: str, facts: AgentFacts, seen: AgentRow | None, now_ms: int
) -> BrokerId | None:
    """Register a process that is not to be sent anybody yet: its broker id, or None if the row is not as seen.

    `seen` is the registration that it takes over, None where it has found none. What was held under it is released.
    """
    state, text = AgentState.LEAVING.value, facts.to_json()
    if seen is None:
        row = await database.one(INSERT_AGENT, name, now_ms, incarnation, state, text)
        return None if row is None else BrokerId(row[0])
    async with database.transaction() as session:
        row = await session.one(
            TAKE_OVER_AGENT, name, seen.incarnation, seen.counter, now_ms, incarnation, state, text
        )
        if row is None:
            return None
        await _release_leases(session, [seen.broker_id])
        return BrokerId(row[0])


async def beat(
    database: Database,
    broker_id: BrokerId,
    incarnation: str,
    state: AgentState,
    facts: AgentFacts,
    now_ms: int,
) -> ClusterRows:
    """Move the counter of a registration that is still this incarnation's, and read all there is to know."""
    time_ms = await database.time_ms()
    moved, agents, leases = await database.together(
        (
            Call(BEAT, (broker_id, incarnation, state.value, now_ms, facts.to_json())),
            Call(ALL_AGENTS, ()),
            Call(ALL_LEASES, ()),
        )
    )
    return ClusterRows(
        counter=moved[0][0] if moved else None,
        time_ms=time_ms,
        agents=tuple(_agent(row) for row in agents),
        leases={row[0]: LeaseState(row[0], _holder(row[1]), row[2], row[3]) for row in leases},
    )


async def forget_agents(database: Database, seen: Sequence[AgentRow]) -> list[BrokerId]:
    """Delete registrations that are still as seen, and release what was held under them. Which these were.

    Their broker ids are never given out again.
    """
    if not seen:
        return []
    async with database.transaction() as session:
        wanted = [(row.broker_id, row.incarnation, row.counter) for row in seen]
        found = [BrokerId(row[0]) for row in await session.all(LOCK_AGENTS_AS_SEEN, wanted)]
        await _release_leases(session, found)
        await session.execute_rows(DELETE_AGENTS, [(broker_id,) for broker_id in found])
    return found


async def is_committed(database: Database, key: str) -> bool:
    """Is the segment of that key known? False of one that was committed tells that the database went back in time."""
    return await database.one(FIND_SEGMENT, key) is not None


async def _release_leases(session: Session, holders: Sequence[BrokerId]) -> None:
    """Make nobody hold what they hold: locked in the order of names, as whoever takes leases does."""
    rows = await session.all(LOCK_LEASES_OF_HOLDERS, [(holder,) for holder in holders])
    await session.execute_rows(RELEASE_LEASES, [(name,) for (name,) in rows])


def _agent(row: Row) -> AgentRow:
    broker_id, name, incarnation, state, counter, beat_ms, text = row
    try:
        facts = AgentFacts.from_json(text)
    except ValueError:
        facts = NOTHING_KNOWN
    return AgentRow(BrokerId(broker_id), name, incarnation, _state(state), counter, beat_ms, facts)


def _state(stored: int) -> AgentState:
    """A state that a later release has thought of is one in which nobody is sent there."""
    return AgentState(stored) if stored in _STATES else AgentState.LEAVING


def _holder(stored: int | None) -> BrokerId | None:
    return None if stored is None else BrokerId(stored)
