"""Who lives, from rows and times alone."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, strategies as st

from warp.cluster.clock_check import ClockCheck, ClockState
from warp.cluster.observing import FIRST_SIGHT_AGE_MAX_MS, Observer, Stillness, alone
from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentFacts, AgentRow, AgentState, ClusterRows, LiveAgent
from warp.metadata.group_model import LeaseState

NOW_MS = 1_700_000_000_000
OWN, B, C = BrokerId(1), BrokerId(2), BrokerId(3)
SELF = LiveAgent(OWN, "own", AgentFacts(endpoints=("a:9092",)))
TIMEOUT_S = 2.0


def row(
    broker_id: BrokerId,
    counter: int,
    incarnation: str = "i1",
    state: AgentState = AgentState.SERVING,
    age_ms: int = 0,
    facts: AgentFacts = AgentFacts(),  # noqa: B008 - it never changes
) -> AgentRow:
    return AgentRow(broker_id, f"agent-{broker_id}", incarnation, state, counter, NOW_MS - age_ms, facts)


class Watch:
    """An observer that looks every half second, and gets its answer at once unless it is told otherwise."""

    def __init__(self) -> None:
        self.observer = Observer(OWN, TIMEOUT_S, alone(SELF))
        self.now_s = 100.0

    def look(
        self, *rows: AgentRow, leases: Mapping[str, LeaseState] | None = None, took_s: float = 0.0
    ) -> bool:
        sent_s = self.now_s
        cluster = ClusterRows(1, NOW_MS, (row(OWN, 1, "own"), *rows), leases or {})
        changed = self.observer.observe(cluster, SELF, sent_s, sent_s + took_s)
        self.now_s = sent_s + max(0.5, took_s)
        return changed

    @property
    def living(self) -> list[BrokerId]:
        return [broker_id for broker_id in self.observer.view.agents if broker_id != OWN]


def test_an_agent_is_gone_when_its_counter_has_stood_still_for_longer_than_a_session() -> None:
    watch = Watch()
    assert watch.look(row(B, 7))
    for still in (False, False, True, False):
        # Half-way through the session it has become silent.
        assert watch.look(row(B, 7)) == still
        assert watch.living == [B]
    assert watch.look(row(B, 7))
    assert watch.living == []
    assert not watch.look(row(B, 7))
    assert watch.look(row(B, 8))
    assert watch.living == [B]


def test_an_agent_that_is_silent_for_half_a_session_lives_and_is_shown_as_silent_until_it_moves() -> None:
    watch = Watch()
    seen = []
    for counter in (7, 7, 7, 7, 8, 8):
        watch.look(row(B, counter))
        seen.append(watch.observer.view.agents[B].is_silent)
    assert seen == [False, False, False, True, False, False]


def test_an_agent_that_moves_lives_whatever_its_state_of_load() -> None:
    watch = Watch()
    for counter in range(50):
        watch.look(row(B, counter, facts=AgentFacts(connections=counter)))
        assert watch.living == [B]
    assert watch.observer.view.version == 2


def test_a_counter_that_falls_moves_too() -> None:
    watch = Watch()
    for counter in range(50, 0, -1):
        watch.look(row(B, counter))
    assert watch.living == [B]


def test_a_new_incarnation_is_a_new_agent_with_its_own_time() -> None:
    watch = Watch()
    for _ in range(4):
        watch.look(row(B, 7))
    for _ in range(5):
        watch.look(row(B, 7, "i2"))
        assert watch.living == [B]
    watch.look(row(B, 7, "i2"))
    assert watch.living == []


def test_a_goodbye_counts_at_once_and_an_end_of_it_too() -> None:
    watch = Watch()
    watch.look(row(B, 7), row(C, 1))
    watch.look(row(B, 8, state=AgentState.GONE), row(C, 2))
    assert watch.living == [C]
    watch.look(row(B, 9, "i2"), row(C, 3))
    assert watch.living == [B, C]


def test_an_agent_that_is_no_longer_registered_is_gone() -> None:
    watch = Watch()
    watch.look(row(B, 7))
    assert watch.look()
    assert watch.living == []


def test_after_a_failed_read_all_have_their_time_anew_but_the_gone_stay_gone() -> None:
    watch = Watch()
    for turn in range(6):
        watch.look(row(B, 7), row(C, 1 if turn < 2 else 2))
    assert watch.living == [C]
    watch.observer.interrupted()
    for _ in range(5):
        watch.look(row(B, 7), row(C, 2))
        assert watch.living == [C]
    watch.look(row(B, 7), row(C, 2))
    assert watch.living == []


def test_time_between_two_looks_counts_for_little() -> None:
    watch = Watch()
    watch.look(row(B, 7))
    watch.now_s += 3600
    watch.look(row(B, 7))
    assert watch.living == [B]
    watch.look(row(B, 7), took_s=3600.0)
    assert watch.living == [B]
    watch.look(row(B, 7))
    watch.look(row(B, 7))
    assert watch.living == []


def test_an_agent_that_has_been_silent_for_long_is_not_taken_for_alive_at_first_sight() -> None:
    watch = Watch()
    watch.look(row(B, 7, age_ms=FIRST_SIGHT_AGE_MAX_MS + 1), row(C, 1, age_ms=-FIRST_SIGHT_AGE_MAX_MS - 1))
    assert watch.living == []
    watch.look(row(B, 8, age_ms=FIRST_SIGHT_AGE_MAX_MS + 1), row(C, 1))
    assert watch.living == [B]
    watch.look(row(B, 9, age_ms=FIRST_SIGHT_AGE_MAX_MS + 1), row(C, 1))
    assert watch.living == [B]


def test_this_agent_is_always_there_whatever_its_row_says() -> None:
    observer = Observer(OWN, TIMEOUT_S, alone(SELF))
    for turn in range(20):
        observer.observe(ClusterRows(1, NOW_MS, (), {}), SELF, float(turn), float(turn))
        observer.observe(
            ClusterRows(1, NOW_MS, (row(OWN, 1, "thief", AgentState.GONE),)), SELF, turn + 0.5, turn + 0.5
        )
    assert dict(observer.view.agents) == {OWN: SELF}
    assert observer.view.version == 1


def test_agents_are_in_the_order_of_their_ids() -> None:
    watch = Watch()
    watch.look(row(C, 1), row(B, 1), row(BrokerId(12), 1))
    assert list(watch.observer.view.agents) == [1, 2, 3, 12]


def test_leases_that_change_hands_are_news_and_their_counters_are_none() -> None:
    watch = Watch()
    watch.look()
    assert watch.look(leases={"x": LeaseState("x", B, 1, 1)})
    assert not watch.look(leases={"x": LeaseState("x", B, 1, 2)})
    assert watch.look(leases={"x": LeaseState("x", B, 2, 3)})
    assert watch.look(leases={"x": LeaseState("x", None, 2, 4)})
    assert watch.look(leases={})
    assert watch.observer.view.version == 1


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.0, 5.0), st.floats(0.0, 5.0), st.booleans()), max_size=40)
)
def test_nobody_is_gone_who_could_not_have_been_seen_to_stand_still_for_a_session(
    looks: list[tuple[bool, float, float, bool]],
) -> None:
    """The counter is read somewhere between the asking and the answer: here always at the asking, the worst case."""
    observer = Observer(OWN, TIMEOUT_S, alone(SELF))
    now_s, counter, moved_s = 0.0, 1, 0.0
    for moves, rest_s, took_s, fails in looks:
        now_s += rest_s
        if moves:
            # Seen only from the answer to the next look on.
            counter, moved_s = counter + 1, now_s
        sent_s, now_s = now_s, now_s + took_s
        if fails:
            observer.interrupted()
            continue
        observer.observe(ClusterRows(1, NOW_MS, (row(B, counter),)), SELF, sent_s, now_s)
        if B not in observer.view.agents:
            assert sent_s - moved_s > TIMEOUT_S


def test_stillness_counts_from_the_answer_that_showed_a_mark_to_the_asking_of_the_last() -> None:
    still = Stillness(gap_s=10.0)
    assert still.see("m", 0.0, 1.0)
    assert not still.see("m", 1.5, 4.0)
    assert still.still_s == 0.5
    assert not still.see("m", 4.0, 4.1)
    assert still.still_s == 3.0
    assert still.see("n", 4.5, 5.0)
    assert still.still_s == 0.0


def test_a_clock_is_compared_with_what_the_database_can_have_said_between_asking_and_answer() -> None:
    check = ClockCheck()
    assert (check.skew_ms, check.state) == (None, ClockState.RIGHT)
    assert not check.see(1000, 1300, 0.5)
    assert check.skew_ms == 0
    check.see(1000, 900, 0.5)
    assert check.skew_ms == 100
    check.see(1000, 2000, 0.5)
    assert check.skew_ms == -499
    check.see(1000, 90_000, 1.5)
    assert check.skew_ms == -499, "a slow answer says nothing"


def test_the_state_of_a_clock_rises_at_its_bounds_and_falls_at_half_of_them() -> None:
    check = ClockCheck()
    states = []
    for skew_ms in (1000, 1001, 900, 501, 500, 60_001, 45_000, 30_000, 600, 0, -1001, -60_001, 0):
        check.see(NOW_MS + skew_ms, NOW_MS + (1 if skew_ms < 0 else 0), 0.0)
        states.append(check.state.name)
    assert states == [
        "RIGHT", "OFF", "OFF", "OFF", "RIGHT", "DISTRUSTED", "DISTRUSTED", "OFF", "OFF", "RIGHT", "OFF",
        "DISTRUSTED", "RIGHT",
    ]  # fmt: skip
