"""Deadlines: what is due comes up once and in time, however often it was moved; and nothing is left behind."""

from __future__ import annotations

from hypothesis import given, strategies as st

from warp.groups.timers import Deadlines

KEYS = "abcd"
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(KEYS), st.integers(0, 100)),
        st.tuples(st.just("cancel"), st.sampled_from(KEYS), st.just(0)),
        st.tuples(st.just("advance"), st.just(""), st.integers(0, 40)),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_deadlines_do_what_a_plain_dict_does(operations: list[tuple[str, str, int]]) -> None:
    deadlines: Deadlines[str] = Deadlines()
    plain: dict[str, int] = {}
    now = 0
    for operation, key, number in operations:
        if operation == "set":
            deadlines.set(key, now + number)
            plain[key] = now + number
        elif operation == "cancel":
            deadlines.cancel(key)
            plain.pop(key, None)
        else:
            now += number
            expected = sorted(name for name, due in plain.items() if due <= now)
            popped = []
            while (due_key := deadlines.pop_due(now)) is not None:
                popped.append(due_key)
            assert sorted(popped) == expected
            for name in expected:
                del plain[name]
        assert len(deadlines) == len(plain)
        assert all(
            deadlines.get(name) == plain.get(name) and (name in deadlines) == (name in plain) for name in KEYS
        )
        next_due = deadlines.next_due()
        assert (next_due is None) == (not plain)
        assert next_due is None or next_due <= min(plain.values())


def test_moving_a_deadline_back_does_not_grow_the_heap() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for due in range(10_000):
        deadlines.set("a", due)
    assert len(deadlines._heap) == 1
    assert deadlines.pop_due(9_998) is None
    assert deadlines.pop_due(9_999) == "a"


def test_keys_that_come_and_go_leave_nothing_behind() -> None:
    deadlines: Deadlines[int] = Deadlines()
    deadlines.set(-1, 10**9)
    for key in range(10_000):
        deadlines.set(key, 10**6)
        deadlines.cancel(key)
    assert len(deadlines._heap) < 200
    assert len(deadlines._queued) < 200


def test_deadlines_that_are_moved_forward_leave_nothing_behind() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for due in range(10_000, 0, -1):
        deadlines.set("a", due)
    assert len(deadlines._heap) < 200
    assert deadlines.pop_due(1) == "a"
    assert deadlines.pop_due(10**9) is None


def test_clear_forgets_everything() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 1)
    deadlines.clear()
    assert (len(deadlines), deadlines.next_due(), deadlines.pop_due(5)) == (0, None, None)
