"""The stepper itself: it tries every order once, knows who waits, and finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.isolation.conftest import InWorld
from tests.isolation.stepper import Deadlock, Outcome, Run, sql
from tests.isolation.world import World
from warp.errors import MetadataError
from warp.metadata.session import Database

pytestmark = pytest.mark.postgres

ADD = sql(
    "insert into settings (name, value) values ($1, '1') on conflict (name) do update set value = settings.value"
)
READ = sql("select value from settings where name = $1")
READ_LOCKED = sql("select s.value from settings s where s.name = $1 lock rows of s")
WRITE = sql("update settings set value = $2 where name = $1")


async def _nothing(_outcome: Outcome) -> None:
    pass


@pytest.mark.parametrize(("count", "orders"), [(1, 2), (2, 6), (3, 20)])
def test_statements_that_have_nothing_to_do_with_each_other_run_in_every_order(
    in_world: InWorld[list[Outcome]], count: int, orders: int
) -> None:
    def statements(name: str) -> object:
        async def run(database: Database) -> None:
            for number in range(count):
                await database.all(READ, f"{name}-{number}")

        return run

    async def prepare() -> Run:
        return Run({name: statements(name) for name in ("a", "b")}, _nothing)  # type: ignore[misc]

    outcomes = in_world(lambda world: world.explore(prepare))
    assert len({tuple(outcome.steps) for outcome in outcomes}) == len(outcomes) == orders
    assert not any(outcome.has_waited for outcome in outcomes)


def test_who_comes_to_a_lock_waits_for_its_holder_to_end(in_world: InWorld[list[Outcome]]) -> None:
    async def change(database: Database) -> None:
        async with database.transaction() as session:
            await session.execute(WRITE, "x", "2")

    async def explore(world: World) -> list[Outcome]:
        await world.plain.execute(ADD, "x")

        async def prepare() -> Run:
            return Run({"a": change, "b": change}, _nothing)

        return await world.explore(prepare)

    outcomes = in_world(explore)
    # Begin and begin come in any order; then one writes first, and the other may come to wait for it.
    waited = [outcome for outcome in outcomes if outcome.has_waited]
    assert 0 < len(waited) < len(outcomes)
    for outcome in waited:
        [waiting] = [step.split()[0] for step in outcome.steps if step.endswith("waits")]
        holder = "b" if waiting == "a" else "a"
        place = outcome.steps.index(f"{waiting} waits")
        assert outcome.steps[place + 1] == f"{holder} commit"


@pytest.mark.parametrize("read", [READ, READ_LOCKED])
def test_an_update_that_is_lost_is_found(in_world: InWorld[list[Outcome]], read: object) -> None:
    async def count_up(database: Database) -> None:
        async with database.transaction() as session:
            row = await session.one(read, "x")  # type: ignore[arg-type]
            assert row is not None
            await session.execute(WRITE, "x", str(int(row[0]) + 1))

    async def explore(world: World) -> list[Outcome]:
        async def prepare() -> Run:
            await world.plain.execute(ADD, "x")
            await world.plain.execute(WRITE, "x", "0")
            return Run({"a": count_up, "b": count_up}, check)

        async def check(_outcome: Outcome) -> None:
            assert await world.rows("select value from settings where name = 'x'") == [("2",)], "lost"

        return await world.explore(prepare)

    if read is READ_LOCKED:
        assert len(in_world(explore)) > 1
    else:
        with pytest.raises(AssertionError, match=r"lost(.|\n)*a commit"):
            in_world(explore)


def test_a_deadlock_is_found(in_world: InWorld[list[Outcome]]) -> None:
    def both(*names: str) -> object:
        async def run(database: Database) -> None:
            async with database.transaction() as session:
                for name in names:
                    await session.execute(WRITE, name, "1")

        return run

    async def explore(world: World) -> list[Outcome]:
        for name in ("x", "y"):
            await world.plain.execute(ADD, name)

        async def prepare() -> Run:
            return Run({"a": both("x", "y"), "b": both("y", "x")}, _nothing)  # type: ignore[dict-item]

        return await world.explore(prepare)

    with pytest.raises(Deadlock, match="all wait for each other"):
        in_world(explore)


def test_an_error_of_the_database_is_an_answer_and_any_other_a_failure(
    in_world: InWorld[list[Outcome]],
) -> None:
    async def broken(database: Database) -> None:
        await database.all(sql("select 1 / 0"))

    async def buggy(database: Database) -> None:
        await database.all(READ, "x")
        raise KeyError("lost")

    async def idle(database: Database) -> None:
        await database.all(READ, "x")

    async def prepare() -> Run:
        return Run({"a": broken, "b": idle}, _nothing)

    async def prepare_bug() -> Run:
        return Run({"a": buggy, "b": idle}, _nothing)

    outcomes = in_world(lambda world: world.explore(prepare))
    assert all(isinstance(outcome.answers["a"], MetadataError) for outcome in outcomes)
    with pytest.raises(AssertionError, match="KeyError"):
        in_world(lambda world: world.explore(prepare_bug))
