"""Any requests in any order, most of them nonsense: each is answered once, and the group stays whole."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.unit.groups.group_invariants import check
from tests.unit.groups.group_support import Driver, joining
from warp.errors import ErrorCode
from warp.groups.model import (
    CheckCommit,
    CheckOffsetDelete,
    Delete,
    Describe,
    GroupSettings,
    Heartbeat,
    Leave,
    Leaver,
    Request,
    Sync,
)

HISTORIES_PER_TEST = 250
STEPS = 80
NAMES = ("a", "b", "c")
INSTANCES = (None, None, None, "i0", "i1")
OUTCOMES = (ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE)


class AnyRequests:
    """One history: what is asked, when time passes, when saves end, when the coordinator changes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        settings = GroupSettings(
            initial_rebalance_delay_ms=self.random.choice([0, 0, 3_000]),
            members_max=self.random.choice([2, 5, 100]),
            pending_members_max=self.random.choice([1, 100]),
            group_metadata_bytes_max=self.random.choice([20, 10_000]),
            group_assignment_bytes_max=self.random.choice([5, 10_000]),
            deferred_requests_max=self.random.choice([2, 100]),
        )
        self.driver = Driver(settings)
        self.sent: set[int] = set()
        self.ids = ["", "stranger"]

    def run(self) -> None:
        for _ in range(STEPS):
            self.step()
            self.learn()
            if self.driver.group.is_dead:
                self.answer_all_of_the_dead()
            check(self.driver.group, self.driver.stored)
        self.finish()

    def step(self) -> None:
        driver, chance = self.driver, self.random.random()
        if driver.saving is not None and chance < 0.4:
            if self.random.random() < 0.85:
                driver.save()
            else:
                driver.fail_save(self.random.choice(OUTCOMES))
        elif chance < 0.15:
            driver.advance(self.random.choice([1, 1_000, 3_000, 6_000, 20_000, 70_000]))
        elif chance < 0.17:
            driver.saving = None
            driver.take(driver.group.abandon(self.random.choice(OUTCOMES)))
        else:
            driver.holds_saves = self.random.random() < 0.5
            self.sent.add(driver.send(self.request()))

    def request(self) -> Request:
        pick = self.random
        known = [
            *(member.member_id for member in self.driver.group.roster),
            *self.driver.group.roster.pending,
        ]
        member_id = pick.choice(known if known and pick.random() < 0.6 else self.ids[:2] + self.ids[-8:])
        instance_id = pick.choice(INSTANCES)
        if pick.random() < 0.5:
            instance_id = self.instance_of(member_id)
        generation = self.driver.group.generation + pick.choice([0, 0, 0, 0, 0, -1, 1])
        match pick.randrange(14):
            case 0 | 1 | 2 | 3 | 4:
                return self.join(member_id, instance_id)
            case 5 | 6 | 7 | 8:
                return self.sync(member_id, instance_id, generation)
            case 9:
                return Heartbeat(member_id, instance_id, generation)
            case 10:
                leavers = [
                    Leaver(pick.choice(self.ids), pick.choice(INSTANCES)) for _ in range(pick.randrange(3))
                ]
                return Leave(tuple(leavers))
            case 11:
                return CheckCommit(member_id, instance_id, pick.choice([generation, -1]), pick.random() < 0.3)
            case 12:
                return CheckOffsetDelete() if pick.random() < 0.5 else Describe()
            case _:
                return Delete() if pick.random() < 0.3 else Heartbeat(member_id, instance_id, generation)

    def join(self, member_id: str, instance_id: str | None) -> Request:
        pick = self.random
        names = pick.sample(NAMES, pick.choice([0, 1, 2, 2, 3, 3, 3, 3]))
        return joining(
            member_id,
            instance_id=instance_id,
            protocols=tuple((name, bytes(pick.randrange(3))) for name in names),
            protocol_type=pick.choice(["consumer", "consumer", "consumer", "connect"]),
            session_timeout_ms=pick.choice([10, *[6_000, 10_000, 30_000] * 5]),
            rebalance_timeout_ms=pick.choice([-1, 0, 20_000, 60_000]),
            id_required=pick.random() < 0.5,
            can_skip_assignment=pick.random() < 0.5,
        )

    def sync(self, member_id: str, instance_id: str | None, generation: int) -> Request:
        pick = self.random
        leader = self.driver.group.leader
        if pick.random() < 0.4 and leader is not None:
            member_id, instance_id = leader, self.instance_of(leader)
        assignments = tuple((name, bytes(pick.randrange(4))) for name in self.ids)
        base = Sync(member_id, instance_id, generation, assignments=assignments)
        return replace(base, protocol=pick.choice([None, None, *NAMES]))

    def instance_of(self, member_id: str) -> str | None:
        member = self.driver.group.roster.get(member_id)
        return None if member is None else member.instance_id

    def learn(self) -> None:
        """Answers are counted, and the ids in them used from now on."""
        for token, answer in self.driver.answers.items():
            self.sent.remove(token)
            member_id = getattr(answer, "member_id", "")
            if member_id and member_id not in self.ids:
                self.ids.append(member_id)
        self.driver.answers.clear()

    def answer_all_of_the_dead(self) -> None:
        assert not self.sent, "requests that nobody will answer"
        if self.driver.saving is None:
            self.driver.take_over()

    def finish(self) -> None:
        """When nobody asks for anything any more, everything comes to an end."""
        while self.driver.saving is not None:
            self.driver.save()
        self.driver.holds_saves = False
        self.driver.advance(3_600_000)
        self.learn()
        group = self.driver.group
        assert not self.sent, "requests that were never answered"
        assert group.is_dead or group.is_idle
        assert (group.wake_ms, len(group.sessions), len(group.roster)) == (None, 0, 0)


@pytest.mark.parametrize("first", range(0, 2_000, HISTORIES_PER_TEST))
def test_any_requests_leave_a_whole_group_and_no_reply_out(first: int) -> None:
    for seed in range(first, first + HISTORIES_PER_TEST):
        try:
            AnyRequests(seed).run()
        except Exception as error:
            error.add_note(f"history {seed}")
            raise
