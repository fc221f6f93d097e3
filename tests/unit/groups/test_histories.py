"""Random histories of a group: consumers come, go, crash, freeze and return, the store fails, coordinators die.

Whatever has happened, one generation is current, it has one leader and one assignment; and once the trouble is over,
everybody who runs has a share of it again.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.groups.model_client import REBALANCE_MS, SESSION_MS, Kind, ModelClient
from tests.unit.groups.model_coordinator import ModelCoordinator, Trouble, World
from warp.errors import ErrorCode
from warp.groups.model import GroupSettings
from warp.groups.transitions import State

HISTORIES_PER_TEST = 100
TROUBLE_MS = 80_000
SETTLE_MS = 2 * (REBALANCE_MS + SESSION_MS) + 20_000
EVENT_EVERY_MS = 4_000


EVENTS = ("start", "start", "stop", "close", "freeze", "subscribe")
CALM_EVENTS = ("start", "start", "close", "subscribe")


class History:
    """One history: a world, its coordinator, and the clients that have ever run."""

    def __init__(self, seed: int, trouble: Trouble, events: tuple[str, ...] = EVENTS) -> None:
        self.world = World(seed)
        self.events = events
        delay_ms = self.world.random.choice([0, 0, 3_000])
        self.coordinator = ModelCoordinator(
            self.world, GroupSettings(initial_rebalance_delay_ms=delay_ms), trouble
        )
        self.clients: list[ModelClient] = []

    def start(self) -> None:
        """Another client: a static one takes the place of whoever ran as that instance."""
        pick = self.world.random
        instance_id = pick.choice([None, None, "i0", "i1", "i2"]) if self.events is EVENTS else None
        kind = Kind(
            instance_id=instance_id,
            is_old=pick.random() < 0.3,
            protocols=pick.choice([("range",), ("range", "sticky"), ("sticky", "range")]),
        )
        for client in self.running():
            if instance_id is not None and client.kind.instance_id == instance_id and pick.random() < 0.7:
                client.stop()
        self.clients.append(ModelClient(self.world, self.coordinator, kind))

    def running(self) -> list[ModelClient]:
        return [client for client in self.clients if client.is_running]

    def happen(self) -> None:
        """Something happens to somebody."""
        pick, running = self.world.random, self.running()
        client = pick.choice(running) if running else None
        what = pick.choice(self.events)
        if client is None or what == "start":
            if len(running) < 8:
                self.start()
        elif what == "stop":
            client.stop()
        elif what == "close":
            client.close()
        elif what == "freeze":
            client.freeze(pick.choice([1_000, 8_000, 20_000]))
        else:
            client.subscribe(pick.choice([b"t", b"u", b""]))

    def run(self) -> None:
        while self.world.now_ms < TROUBLE_MS:
            self.happen()
            self.world.run_until(self.world.now_ms + self.world.random.randint(0, 2 * EVENT_EVERY_MS))
        self.coordinator.trouble.life_ms = 0
        self.coordinator.trouble.save_fails = 0.0
        self.world.run_until(TROUBLE_MS + 10_000)
        if not self.running():
            self.start()
        end_ms = self.world.now_ms + SETTLE_MS
        while self.world.now_ms < end_ms and not self.is_settled():
            self.world.run_until(self.world.now_ms + SESSION_MS)
        self.check_settled()

    def is_settled(self) -> bool:
        group = self.coordinator.group
        ids = {client.member_id for client in self.running() if client.assignment is not None}
        return (
            group is not None
            and group.state is State.STABLE
            and len(ids) == len(self.running())
            and ids == {member.member_id for member in group.roster}
            and not self.coordinator.waiting
        )

    def check_settled(self) -> None:
        """All who run are members of one stable generation, and hold what its leader sent them."""
        group, running = self.coordinator.group, self.running()
        assert group is not None
        assert group.state is State.STABLE
        assert {client.member_id for client in running} == {member.member_id for member in group.roster}
        assert {client.generation for client in running} == {group.generation}
        shares = {client.assignment for client in running}
        assert None not in shares
        assert len(shares) == len(running), "two have the same share"
        assert not self.coordinator.waiting, "requests that were never answered"


def run(seed: int, trouble: Trouble, events: tuple[str, ...] = EVENTS) -> History:
    history = History(seed, trouble, events)
    try:
        history.run()
    except BaseException as error:
        error.add_note(f"history {seed}, {trouble}")
        raise
    return history


TROUBLES: dict[str, Callable[[], Trouble]] = {
    "clients": Trouble,
    "store": lambda: Trouble(save_fails=0.2),
    "coordinators": lambda: Trouble(life_ms=10_000),
    "everything": lambda: Trouble(save_fails=0.1, life_ms=20_000),
}


@pytest.mark.parametrize("first", range(0, 300, HISTORIES_PER_TEST))
@pytest.mark.parametrize("trouble", TROUBLES)
def test_group_stays_one_and_settles_when_trouble_is_over(trouble: str, first: int) -> None:
    for seed in range(first, first + HISTORIES_PER_TEST):
        run(seed, TROUBLES[trouble]())


def test_members_that_do_nothing_wrong_are_never_thrown_out() -> None:
    for seed in range(HISTORIES_PER_TEST):
        history = run(seed, Trouble(), CALM_EVENTS)
        errors = {error for client in history.clients for error in client.errors}
        assert errors <= {ErrorCode.REBALANCE_IN_PROGRESS}, f"history {seed}"


def test_no_history_depends_on_anything_but_its_seed() -> None:
    for seed in range(5):
        ends = [run(seed, TROUBLES["everything"]()) for _ in range(2)]
        assert ends[0].coordinator.stored == ends[1].coordinator.stored
        assert ends[0].coordinator.witness == ends[1].coordinator.witness


def test_quiet_group_does_not_notice_that_its_coordinator_changes() -> None:
    for seed in range(50):
        history = History(seed, Trouble())
        for _ in range(5):
            history.clients.append(ModelClient(history.world, history.coordinator, Kind()))
        history.world.run_until(2 * SESSION_MS)
        history.check_settled()
        before = [(client.member_id, client.generation, client.assignment) for client in history.clients]
        for client in history.clients:
            client.errors.clear()
        for _ in range(5):
            history.coordinator.die()
            history.world.run_until(history.world.now_ms + 2 * SESSION_MS)
        history.check_settled()
        assert before == [
            (client.member_id, client.generation, client.assignment) for client in history.clients
        ]
        assert not any(client.errors for client in history.clients)
