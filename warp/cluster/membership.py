"""An agent's part in its cluster: it shows the others that it lives, and knows which of them do.

One loop moves the agent's registration, and reads all registrations and leases with the same request: a beat. What the
agent holds is its own for as long as its session lasts, which is until some time after the last beat that went through
was **sent**: whoever watches it counts from later on. Time is the machine's boot time throughout, which goes on while a
machine sleeps, so an agent that was frozen knows before it does anything else. None of this makes a write safe: that is
what the epochs of leases are for.

An agent on a database of its own is a cluster by itself, and has no need of any of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from warp.clock import Clock
from warp.cluster.clock_check import ClockCheck, ClockState
from warp.cluster.observing import Observer, alone
from warp.cluster.registration import Registration, RegistrationStore
from warp.cluster.session import WENT_BACK, Session
from warp.cluster.telling import Teller
from warp.errors import MetadataError, MetadataUnavailable, OutcomeUnknown
from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentFacts, AgentRow, AgentState, ClusterRows, ClusterView, LiveAgent

_log = logging.getLogger("warp.cluster")

DAY_MS = 24 * 3600 * 1000
COMMIT_AGE_MAX_S = 300.0
"""How long the last acknowledged commit is looked for: its segment is known for longer, whatever becomes of it."""
FORGET_S = 3600.0
"""How often agents that are gone for a day are forgotten."""
FORGET_AGENTS_MAX = 100
"""Of these, in one go."""
BEAT_S_MAX = 0.25
"""Between two beats, in a session of any length."""
NO_MEMBER = "this agent takes no part in the cluster any more"


class MembershipStore(RegistrationStore, Protocol):
    """The part of the metadata store that a member of a cluster needs. `MetadataStore` says what each does."""

    async def register_agent(self, name: str) -> BrokerId: ...

    async def beat(
        self, broker_id: BrokerId, incarnation: str, state: AgentState, facts: AgentFacts, now_ms: int
    ) -> ClusterRows: ...

    async def forget_agents(self, seen: Sequence[AgentRow]) -> list[BrokerId]: ...

    async def is_committed(self, key: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class MembershipLimits:
    """The times of a member. All agents of a cluster should have the same."""

    beat_s: float = BEAT_S_MAX
    """From the start of one beat to the start of the next."""
    timeout_s: float = 2.0
    """An agent that has been seen to stand still for longer is gone. A beat that takes longer is given up."""
    margin_s: float = 0.5
    """By how much sooner it thinks so itself."""
    pause_s: float = 0.02
    """Between the end of one beat and the start of the next at least, however many ask for a look."""
    join_s_max: float = 60.0
    """How long a start may take to get a registration."""

    @classmethod
    def of_timeout(cls, timeout_s: float) -> MembershipLimits:
        """Limits in the usual proportions: three beats fit into a session, with a margin.

        However long that is, an agent that comes, or leaves in order, is to be noticed soon.
        """
        beat_s = min(BEAT_S_MAX, timeout_s / 4)
        return cls(beat_s=beat_s, timeout_s=timeout_s, margin_s=timeout_s / 4)


class BeatOutcome(StrEnum):
    """What became of a beat."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It may have been seen by the others."""
    LOST = "lost"
    """It showed that the session is over for good."""
    BUG = "bug"


class Membership:
    """One agent as a member of its cluster.

    `name` is its first advertised address, `incarnation` random text of this process, `facts` what it tells of itself,
    `last_commit` the key of the last segment whose commit was acknowledged. `stop` is told, once, why the agent must
    end: when another process has its registration, or the database has lost what was committed. `beaten` hears what
    became of each beat.
    """

    def __init__(
        self,
        store: MembershipStore,
        clock: Clock,
        *,
        name: str,
        incarnation: str,
        facts: Callable[[], AgentFacts],
        limits: MembershipLimits | None = None,
        is_shared: bool,
        stop: Callable[[str], None],
        last_commit: Callable[[], str | None] = lambda: None,
        beaten: Callable[[BeatOutcome], None] = lambda outcome: None,
    ) -> None:
        self.name = name
        self.limits = limits or MembershipLimits()
        self.is_shared = is_shared
        self.rows: ClusterRows | None = None
        """What the last beat has read; None before the first, and always without others."""
        self.lapses = 0
        """How many sessions of this agent had lapsed before the present one began."""
        self._store = store
        self._clock = clock
        self._incarnation = incarnation
        self._read_facts = facts
        self._facts = AgentFacts()
        self._stop = stop
        self._last_commit = last_commit
        self._beaten = beaten
        self._state = AgentState.LEAVING
        self._clocks = ClockCheck()
        self._session = Session(self.limits.timeout_s - self.limits.margin_s)
        self._observer: Observer | None = None
        self._teller = Teller(self.limits.timeout_s)
        self._callbacks: list[Callable[[ClusterView], None]] = []
        self._commit: tuple[str, float] | None = None
        """The last commit, and a boot time before which it was not there yet."""
        self._looked_s: float | None = None
        self._forget_s = 0.0
        self._loop_task: asyncio.Task[None] | None = None
        self._is_closing = False
        self._wake = asyncio.Event()
        self._asked: list[asyncio.Future[ClusterView]] = []

    # What is known.

    @property
    def view(self) -> ClusterView:
        """The cluster as it was seen last, this agent always in it. Not before `join`."""
        return self._observing.view

    @property
    def is_live(self) -> bool:
        """Does this agent's session last? Only then is what it holds its own, as far as it can know."""
        if not self.is_shared:
            return not self._is_closing
        return self._session.is_live(self._clock.boottime())

    @property
    def beat_age_s(self) -> float | None:
        """How long ago the last beat that went through was sent; None before there was one."""
        return self._session.age_s(self._clock.boottime())

    @property
    def clock_skew_ms(self) -> int | None:
        """By how much this machine's clock is ahead of the database's; None while that isn't known."""
        return self._clocks.skew_ms

    @property
    def is_clock_trusted(self) -> bool:
        """Is the clock near enough to the database's to stamp records and to decide what has had its time?"""
        return self._clocks.state is not ClockState.DISTRUSTED

    def subscribe(self, callback: Callable[[ClusterView], None]) -> None:
        """Call back, on the loop, whenever anything but load has changed, leases included, or a session is back.

        After the first beat in any case: the view knew of nobody before.
        """
        self._callbacks.append(callback)

    # Coming and going.

    async def join(self) -> BrokerId:
        """Get this agent's registration, and begin to beat; nobody is sent here before `start`. Its broker id.

        Raises StartError when another agent that lives has it, MetadataError when a store of its own fails.
        """
        self._facts = self._read_facts()
        if not self.is_shared:
            broker_id = await self._store.register_agent(self.name)
            self._observer = self._new_observer(broker_id)
            return broker_id
        limits = self.limits
        registration = Registration(
            self._store,
            self._clock,
            self.name,
            self._incarnation,
            look_s=limits.beat_s,
            timeout_s=limits.timeout_s,
            join_s_max=limits.join_s_max,
            request_s_max=limits.timeout_s,
        )
        broker_id = await registration.get(self._facts)
        self._observer = self._new_observer(broker_id)
        self._session.joined(registration.sent_s)
        self._forget_s = self._clock.boottime() + FORGET_S
        self._loop_task = asyncio.get_running_loop().create_task(self._run(), name="membership")
        self._loop_task.add_done_callback(self._ended)
        return broker_id

    def start(self) -> None:
        """Let others send clients here: this agent serves."""
        self._state = AgentState.SERVING
        self._own_changed()
        self._wake.set()

    async def refresh(self) -> ClusterView:
        """A look that begins from now on; who asks meanwhile shares it. Raises MetadataError when it fails."""
        if not self.is_shared:
            self._own_changed()
            return self.view
        if self._loop_task is None or self._loop_task.done() or self._is_closing:
            raise MetadataUnavailable(NO_MEMBER)
        answer: asyncio.Future[ClusterView] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._wake.set()
        return await answer

    async def leave(self) -> None:
        """Let nobody be sent here any more, and tell the others at once, as far as the store lets them be told."""
        self._state = AgentState.LEAVING
        if self._observer is None:
            return
        self._own_changed()
        try:
            await self.refresh()
        except MetadataError as error:
            _log.info("the others could not be told at once that this agent leaves: %s", error)

    async def close(self) -> None:
        """Beat no more, and say goodbye, so that the others need not wait. Never raises MetadataError."""
        if self._is_closing:
            return
        self._is_closing = True
        self._wake.set()
        task, self._loop_task = self._loop_task, None
        if task is None:
            return
        await asyncio.wait([task])
        if not self._session.is_over:
            await self._say_goodbye()
        self._session.end()

    # The loop.

    async def _run(self) -> None:
        while not (self._is_closing or self._session.is_over):
            self._wake.clear()
            asked, self._asked = self._asked, []
            began_s = self._clock.monotonic()
            error = await self._round()
            self._answer(asked, error)
            await self._forget()
            await self._pause(began_s)
        self._answer(self._asked, MetadataUnavailable(NO_MEMBER))

    async def _round(self) -> MetadataError | None:
        """One beat with all that comes of it. Never raises: what went wrong, None when nothing did."""
        outcome = BeatOutcome.OK
        error: MetadataError | None = None
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                await self._beat()
                await self._check_commit()
            if self._session.is_over:
                outcome, error = BeatOutcome.LOST, MetadataUnavailable(NO_MEMBER)
        except TimeoutError:
            outcome = BeatOutcome.UNKNOWN
            error = MetadataUnavailable(f"no answer within {self.limits.timeout_s:g} s")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this task, but something that it waited for.
            outcome, error = BeatOutcome.UNKNOWN, MetadataUnavailable("the request was given up")
        except OutcomeUnknown as unknown:
            outcome, error = BeatOutcome.UNKNOWN, unknown
        except MetadataError as failed:
            outcome, error = BeatOutcome.FAILED, failed
        except Exception as bug:  # noqa: BLE001 - an agent that stops beating for a bug is lost to its cluster
            outcome, error = BeatOutcome.BUG, MetadataError(f"unexpected error: {bug!r}")
            self._teller.bug(bug, "beating")
        if error is not None and not self._session.is_over:
            self._observing.interrupted()
            now_s = self._clock.boottime()
            if not self._session.is_live(now_s):
                self._teller.failed(error, self._session.age_s(now_s))
        self._guarded(lambda: self._beaten(outcome), "counting a beat")
        return error

    async def _beat(self) -> None:
        self._guarded(self._tell_facts, "gathering facts")
        observer = self._observing
        sent_ms, sent_s = self._clock.time_ms(), self._clock.boottime()
        state = AgentState.LEAVING if self._own().is_leaving else AgentState.SERVING
        rows = await self._store.beat(observer.own, self._incarnation, state, self._facts, sent_ms)
        received_s = self._clock.boottime()
        was_live, age_s = self._session.is_live(received_s), self._session.age_s(received_s)
        reason = self._session.beaten(rows, observer.own, self._incarnation, sent_s)
        if reason is not None:
            self._end(reason)
            return
        self.lapses += not was_live
        self._teller.answered(age_s, was_live=was_live)
        if self._clocks.see(sent_ms, rows.time_ms, received_s - sent_s):
            self._teller.clock(self._clocks)
            # The others are to hear of it before the next beat is due.
            self._wake.set()
        is_first = self.rows is None
        self.rows, before = rows, observer.view
        has_changed = observer.observe(rows, self._own(), sent_s, received_s)
        self._teller.seen(before, observer.view, rows)
        if has_changed or is_first or not was_live:
            self._notify()

    async def _check_commit(self) -> None:
        """Is the commit still there that was acknowledged last? Raises MetadataError when that can't be told."""
        key, now_s = self._last_commit(), self._clock.boottime()
        looked_s, self._looked_s = self._looked_s, now_s
        if key is None or self._session.is_over:
            return
        if self._commit is None or self._commit[0] != key:
            # It may be as old as the look before: the store was away since, or this process stood still.
            self._commit = key, now_s if looked_s is None else looked_s
        is_lost = self._is_young_commit(now_s) and not await self._store.is_committed(key)
        # Here too this process may have stood still.
        if is_lost and self._is_young_commit(self._clock.boottime()):
            self._end(WENT_BACK.format(f"segment {key} is not known any more"))

    def _is_young_commit(self, now_s: float) -> bool:
        return self._commit is not None and now_s - self._commit[1] <= COMMIT_AGE_MAX_S

    async def _forget(self) -> None:
        """Now and then, at one of the agents: let go of registrations that nobody has moved for a day."""
        rows, now_s = self.rows, self._clock.boottime()
        if rows is None or now_s < self._forget_s or self._session.is_over:
            return
        self._forget_s = now_s + FORGET_S
        live = self.view.agents
        if min(live) != self.view.own or not self.is_clock_trusted:
            return
        old = [
            row
            for row in rows.agents
            if row.broker_id not in live and row.incarnation and abs(rows.time_ms - row.beat_ms) > DAY_MS
        ]
        if not old:
            return
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                forgotten = await self._store.forget_agents(old[:FORGET_AGENTS_MAX])
            _log.info("forgot agents that were gone for a day", extra={"broker_ids": sorted(forgotten)})
        except (MetadataError, TimeoutError) as error:
            _log.info("agents that are gone for a day could not be forgotten: %s", error)
        except Exception as bug:  # noqa: BLE001 - as above
            self._teller.bug(bug, "forgetting agents")

    async def _pause(self, began_s: float) -> None:
        """Until the next beat is due, or somebody asks for one."""
        await asyncio.sleep(self.limits.pause_s)
        left_s = began_s + self.limits.beat_s - self._clock.monotonic()
        if left_s > 0 and not self._is_closing:
            try:
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                await self._store.beat(
                    self.view.own, self._incarnation, AgentState.GONE, self._facts, self._clock.time_ms()
                )
        except (MetadataError, TimeoutError) as error:
            _log.info(
                "the others could not be told that this agent is gone, and will find out: %s",
                str(error) or type(error).__name__,
            )

    # Its parts.

    @property
    def _observing(self) -> Observer:
        if self._observer is None:
            raise RuntimeError("the agent has not joined its cluster yet")
        return self._observer

    def _new_observer(self, broker_id: BrokerId) -> Observer:
        own = LiveAgent(broker_id, self._incarnation, self._facts, is_leaving=True)
        return Observer(broker_id, self.limits.timeout_s, alone(own))

    def _own(self) -> LiveAgent:
        is_leaving = self._state is not AgentState.SERVING or not self.is_clock_trusted
        return LiveAgent(self._observing.own, self._incarnation, self._facts, is_leaving)

    def _own_changed(self) -> None:
        self._guarded(self._tell_facts, "gathering facts")
        if self._observing.own_changed(self._own()):
            self._notify()

    def _tell_facts(self) -> None:
        self._facts = self._read_facts()

    def _notify(self) -> None:
        for callback in self._callbacks:
            self._guarded(lambda callback=callback: callback(self.view), "telling of a new view")  # type: ignore[misc]

    def _end(self, reason: str) -> None:
        """This agent must end: nothing that it holds is its own any more."""
        self._session.end()
        self._wake.set()
        self._guarded(lambda: self._stop(reason), "stopping")

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The loop is over; if a bug has ended it, this agent is of no more use to its cluster."""
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            self._teller.bug(bug, "taking part in the cluster")
            self._answer(self._asked, MetadataUnavailable(NO_MEMBER))
            self._end(f"this agent takes no part in the cluster any more, because of a bug: {bug!r}")

    def _answer(self, asked: Sequence[asyncio.Future[ClusterView]], error: MetadataError | None) -> None:
        for answer in asked:
            if answer.done():
                continue
            if error is None:
                answer.set_result(self.view)
            else:
                answer.set_exception(error)

    def _guarded(self, call: Callable[[], None], doing: str) -> None:
        """Call what is somebody else's: its bugs are told, and stop nothing."""
        try:
            call()
        except Exception as bug:  # noqa: BLE001 - the loop goes on whatever its callbacks do
            self._teller.bug(bug, doing)
