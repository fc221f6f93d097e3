"""A group consumer as Java's: joins, takes the id that it is given, syncs, sends heartbeats, joins when called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.unit.groups.group_support import joining
from tests.unit.groups.model_coordinator import ModelCoordinator, World
from warp.errors import ErrorCode
from warp.groups.model import (
    Answer,
    CheckCommit,
    CodeAnswer,
    Heartbeat,
    JoinAnswer,
    Leave,
    Leaver,
    Request,
    Sync,
    SyncAnswer,
)

HEARTBEAT_MS = 3_000
SESSION_MS = 10_000
REBALANCE_MS = 30_000
BACKOFF_MS = 100
FIND_AGAIN = {
    None,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
}
START_ANEW = {ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION}


@dataclass(frozen=True)
class Kind:
    """What sort of client it is."""

    instance_id: str | None = None
    is_old: bool = False
    """It knows neither MEMBER_ID_REQUIRED nor skipping of assignments."""
    protocols: tuple[str, ...] = ("range",)


class ModelClient:
    """One process. `stop` ends it without a word, `close` with a LeaveGroup when it is dynamic."""

    def __init__(self, world: World, coordinator: ModelCoordinator, kind: Kind) -> None:
        self.world = world
        self.coordinator = coordinator
        self.kind = kind
        self.member_id = ""
        self.generation = -1
        self.assignment: bytes | None = None
        self.topics = b"t"
        self.errors: list[ErrorCode] = []
        self.is_fenced = False
        self.is_running = True
        self._plans = 0
        self._frozen_until_ms = 0
        self._round = 0
        self._join()

    # What happens to it.

    def stop(self) -> None:
        self.is_running = False

    def close(self) -> None:
        if self.kind.instance_id is None and self.is_running:
            self._send(Leave((Leaver(self.member_id, None, "closed"),)), lambda _: None)
        self.is_running = False

    def freeze(self, ms: int) -> None:
        """It does nothing for a while, as in a long pause of its garbage collector."""
        self._frozen_until_ms = self.world.now_ms + ms

    def subscribe(self, topics: bytes) -> None:
        self.topics = topics
        if self.assignment is not None:
            self._join()

    # What it does. A round ends with every new join: answers of earlier rounds are of no interest.

    def _send(self, request: Request, then: Callable[[Answer | None], None], delay_ms: int = 0) -> None:
        """Send a request; the answer, or None for a lost connection, is given to `then` if nothing else has begun."""
        this_round = self._round

        def answered(answer: Answer | None) -> None:
            self.world.after(self._delay_ms(), lambda: arrive(answer))

        def arrive(answer: Answer | None) -> None:
            if self.is_running and this_round == self._round:
                if self._frozen_until_ms > self.world.now_ms:
                    self.world.after(self._frozen_until_ms - self.world.now_ms, lambda: arrive(answer))
                    return
                then(answer)

        self.world.after(delay_ms + self._delay_ms(), lambda: self.coordinator.send(request, answered))

    def _delay_ms(self) -> int:
        return self.world.random.choice([0, 1, 1, 2, 20])

    def _join(self) -> None:
        self._round += 1
        self.assignment = None
        request = joining(
            self.member_id,
            instance_id=self.kind.instance_id,
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=REBALANCE_MS,
            protocols=tuple((name, self.topics) for name in self.kind.protocols),
            id_required=not self.kind.is_old,
            can_skip_assignment=not self.kind.is_old,
        )
        self._send(request, self._joined)

    def _joined(self, answer: Answer | None) -> None:
        if answer is None:
            self._retry()
            return
        assert isinstance(answer, JoinAnswer)
        match answer.error:
            case ErrorCode.NONE:
                self.member_id, self.generation = answer.member_id, answer.generation
                assert answer.protocol in self.kind.protocols
                self._sync(answer)
            case ErrorCode.MEMBER_ID_REQUIRED:
                assert self.member_id == ""
                assert not self.kind.is_old
                assert self.kind.instance_id is None
                self.member_id = answer.member_id
                self._join()
            case error:
                self._failed(error)

    def _sync(self, joined: JoinAnswer) -> None:
        shares: list[tuple[str, bytes]] = []
        if joined.leader == joined.member_id and not joined.skip_assignment:
            self._plans += 1
            plan = f"{joined.generation}|{joined.member_id}.{self._plans}"
            shares = [(member.member_id, f"{plan}|{member.member_id}".encode()) for member in joined.members]
        request = Sync(
            self.member_id,
            self.kind.instance_id,
            self.generation,
            joined.protocol_type,
            joined.protocol,
            shares,
        )
        # A leader that has thought for long sends its plan although it has been called to join again meanwhile.
        think_ms = self.world.random.choice([0, 10, 2_000]) if shares else 0
        self._send(request, self._synced, think_ms)
        self._plan_heartbeat()

    def _synced(self, answer: Answer | None) -> None:
        if answer is None:
            self._retry()
            return
        assert isinstance(answer, SyncAnswer)
        if answer.error:
            self._failed(answer.error)
        else:
            assert answer.assignment, "a member was left out"
            self.assignment = answer.assignment

    def _plan_heartbeat(self) -> None:
        this_round = self._round
        self.world.after(HEARTBEAT_MS, lambda: self._if_still(this_round, self._heartbeat))

    def _heartbeat(self) -> None:
        if self._frozen_until_ms > self.world.now_ms:
            self.world.after(self._frozen_until_ms - self.world.now_ms, self._plan_heartbeat)
            return
        if self.assignment is not None and self.world.random.random() < 0.3:
            self._send(CheckCommit(self.member_id, self.kind.instance_id, self.generation), self._beaten)
        else:
            self._send(Heartbeat(self.member_id, self.kind.instance_id, self.generation), self._beaten)
        self._plan_heartbeat()

    def _beaten(self, answer: Answer | None) -> None:
        if answer is None:
            return
        assert isinstance(answer, CodeAnswer)
        if answer.error and answer.error not in FIND_AGAIN:
            self._failed(answer.error)

    def _failed(self, error: ErrorCode) -> None:
        self.errors.append(error)
        if error is ErrorCode.FENCED_INSTANCE_ID:
            self.is_fenced = True
            self.is_running = False
        elif error is ErrorCode.REBALANCE_IN_PROGRESS:
            self._join()
        elif error in START_ANEW:
            self.member_id = ""
            self._join()
        else:
            assert error in FIND_AGAIN, error
            self._retry()

    def _retry(self) -> None:
        self._round += 1
        this_round = self._round
        self.world.after(BACKOFF_MS, lambda: self._if_still(this_round, self._join))

    def _if_still(self, this_round: int, do: Callable[[], None]) -> None:
        if self.is_running and this_round == self._round:
            do()
