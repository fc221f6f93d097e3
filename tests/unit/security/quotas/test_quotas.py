"""What clients are let do, and how long they wait: whole quotas on a clock of the test's."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from warp.security.quotas.quotas import THROTTLE_MS_MAX, Quotas
from warp.security.quotas.rates import OWED_S_MAX, REMEMBERED_S


class World:
    """Quotas, and the time that they see."""

    def __init__(
        self, *quotas: tuple[Mapping[str, str | None], Mapping[str, float]], remembered_max: int = 100
    ) -> None:
        self.now_s = 1_000.0
        self.quotas = Quotas(lambda: self.now_s, remembered_max=remembered_max)
        self.define(*quotas)

    def define(self, *quotas: tuple[Mapping[str, str | None], Mapping[str, float]]) -> None:
        self.quotas.load({json.dumps(entity): json.dumps(values) for entity, values in quotas})


def test_nothing_is_limited_without_quotas() -> None:
    quotas = World().quotas
    assert not any([quotas.limits_produce, quotas.limits_fetch, quotas.limits_time])
    assert not any([quotas.limits_mutations, quotas.limits_connections])
    assert quotas.produced("alice", "app", 10**9) == 0
    assert quotas.fetch_room("alice", "app") == (0, None)
    assert quotas.fetched("alice", "app", 10**9) == 0
    assert quotas.spent("alice", "app", 100.0) == 0
    assert quotas.mutations("alice", "app", is_strict=True) is None
    assert quotas.connected("10.0.0.1")
    assert quotas.remembered == 0


def test_each_kind_switches_on_its_own() -> None:
    quotas = World(({"user": None}, {"producer_byte_rate": 1})).quotas
    assert [quotas.limits_produce, quotas.limits_fetch, quotas.limits_time] == [True, False, False]


def test_without_any_quota_all_use_is_forgotten() -> None:
    world = World(({"user": None}, {"producer_byte_rate": 1}))
    world.quotas.produced("alice", None, 100)
    assert world.quotas.remembered == 1
    world.define()
    assert world.quotas.remembered == 0
    assert not any([world.quotas.limits_produce])


def test_a_producer_is_held_back_for_what_is_beyond_its_window() -> None:
    world = World(({"client-id": "app"}, {"producer_byte_rate": 1_000}))
    assert world.quotas.produced("alice", "app", 10_000) == 0
    assert world.quotas.produced("bob", "app", 2_500) == 2_500
    assert world.quotas.produced("alice", "other", 10**9) == 0
    assert world.quotas.throttled.times["produce"] == 1
    assert world.quotas.throttled.seconds["produce"] == 2.5


def test_a_time_is_told_within_bounds_and_never_rounded_to_nothing() -> None:
    world = World(
        ({"user": "slow"}, {"producer_byte_rate": 1}), ({"user": "fast"}, {"producer_byte_rate": 10**9})
    )
    assert world.quotas.produced("slow", None, 10**6) == THROTTLE_MS_MAX
    assert world.quotas.produced("fast", None, 10**10 + 1) == 1


def test_users_share_nothing_under_the_default_user() -> None:
    world = World(({"user": None}, {"producer_byte_rate": 1_000}))
    assert world.quotas.produced("alice", "a", 11_000) == 1_000
    assert world.quotas.produced("alice", "b", 1_000) == 2_000
    assert world.quotas.produced("bob", "a", 10_000) == 0


def test_records_that_a_throttled_fetch_was_refused_are_not_counted() -> None:
    world = World(({"user": "alice"}, {"consumer_byte_rate": 1_000}))
    quotas = world.quotas
    assert quotas.fetch_room("alice", "app") == (0, 10_000)
    assert quotas.fetched("alice", "app", 8_000) == 0
    assert quotas.fetched("alice", "app", 4_000) == 2_000
    assert quotas.fetched("alice", "app", 4_000) == 2_000
    assert quotas.fetched("alice", "app", 2_000) == 0


def test_a_batch_larger_than_any_window_passes_and_is_paid_for() -> None:
    world = World(({"user": "alice"}, {"consumer_byte_rate": 1_000}))
    quotas = world.quotas
    assert quotas.fetched("alice", "app", 15_000) == 0
    assert quotas.fetch_room("alice", "app")[0] == 15_000
    assert quotas.fetched("alice", "app", 15_000) == THROTTLE_MS_MAX
    world.now_s += 14.0
    assert quotas.fetch_room("alice", "app")[0] == 1_000
    world.now_s += 1.0
    assert quotas.fetch_room("alice", "app") == (0, 10_000)
    assert quotas.fetched("alice", "app", 15_000) == 0


def test_readers_beside_each_other_don_t_keep_a_large_batch_from_passing() -> None:
    world = World(({"user": "alice"}, {"consumer_byte_rate": 1_000}))
    assert world.quotas.fetched("alice", "small", 5_000) == 0
    assert world.quotas.fetched("alice", "large", 50_000) == 0
    assert world.quotas.fetch_room("alice", "small")[0] == THROTTLE_MS_MAX


def test_request_time_is_a_percentage_of_one_processor_and_waits_a_second_at_most() -> None:
    world = World(({"user": "alice"}, {"request_percentage": 10}))
    assert world.quotas.spent("alice", "app", 1.0) == 0
    assert world.quotas.spent("alice", "app", 0.05) == 500
    assert world.quotas.spent("alice", "app", 10.0) == 1_000
    assert world.quotas.spent("bob", "app", 10.0) == 0


def test_a_strict_request_is_refused_what_comes_after_the_quota_is_used_up() -> None:
    world = World(({"user": "alice"}, {"controller_mutation_rate": 1}))
    quota = world.quotas.mutations("alice", "app", is_strict=True)
    assert quota is not None
    assert [quota.takes(10), quota.takes(5), quota.takes(1)] == [True, True, False]
    assert quota.throttle_ms() == 4_000
    world.now_s += 4.0
    again = world.quotas.mutations("alice", "other", is_strict=True)
    assert again is not None
    assert again.takes(1)
    assert again.throttle_ms() == 0


def test_a_request_of_an_older_version_is_done_and_held_back() -> None:
    world = World(({"user": "alice"}, {"controller_mutation_rate": 1}))
    quota = world.quotas.mutations("alice", "app", is_strict=False)
    assert quota is not None
    assert [quota.takes(10), quota.takes(5), quota.takes(1)] == [True, True, True]
    assert quota.throttle_ms() == 5_000


def test_changes_that_failed_cost_nothing() -> None:
    world = World(({"user": "alice"}, {"controller_mutation_rate": 1}))
    quota = world.quotas.mutations("alice", "app", is_strict=True)
    assert quota is not None
    for _ in range(100):
        assert quota.takes(50)
        quota.give_back(50)
    assert quota.throttle_ms() == 0


def test_an_address_opens_connections_at_its_rate() -> None:
    world = World(({"ip": "10.0.0.1"}, {"connection_creation_rate": 2}))
    assert [world.quotas.connected("10.0.0.1") for _ in range(21)] == [True] * 20 + [False]
    assert world.quotas.connected("10.0.0.2")
    assert world.quotas.throttled.times["connection"] == 1
    world.now_s += REMEMBERED_S
    assert world.quotas.connected("10.0.0.1")


def test_made_up_client_ids_neither_fill_memory_nor_make_it_forget_users() -> None:
    world = World(
        ({"client-id": None}, {"producer_byte_rate": 1_000}),
        ({"user": "alice"}, {"producer_byte_rate": 1_000}),
    )
    assert world.quotas.produced("alice", "app", 15_000) == 5_000
    for number in range(5_000):
        world.quotas.produced("eve", f"{number}" * 2_000, 11_000)
    assert world.quotas.remembered <= 100 + 1
    assert world.quotas.produced("alice", "app", 0) == 5_000


def test_idle_clients_are_forgotten_as_new_ones_come() -> None:
    world = World(({"client-id": None}, {"producer_byte_rate": 1_000}))
    for number in range(50):
        world.quotas.produced("alice", f"old {number}", 1)
    world.now_s += REMEMBERED_S
    for number in range(25):
        world.quotas.produced("alice", f"new {number}", 1)
    assert world.quotas.remembered == 25


def test_long_client_ids_are_told_apart() -> None:
    world = World(({"client-id": None}, {"producer_byte_rate": 1_000}))
    assert world.quotas.produced("alice", "x" * 5_000 + "1", 11_000) == 1_000
    assert world.quotas.produced("alice", "x" * 5_000 + "2", 10_000) == 0


def test_a_new_bound_holds_at_once_and_what_was_used_still_counts() -> None:
    world = World(({"user": "alice"}, {"producer_byte_rate": 1_000}))
    assert world.quotas.produced("alice", "app", 30_000) == 20_000
    world.define(({"user": "alice"}, {"producer_byte_rate": 10_000}))
    assert world.quotas.produced("alice", "app", 0) == 2_000


@pytest.mark.parametrize("size_bytes", [10**9, 10**15])
def test_debts_end(size_bytes: int) -> None:
    world = World(({"user": "alice"}, {"consumer_byte_rate": 1}))
    assert world.quotas.fetched("alice", "app", size_bytes) == 0
    world.now_s += OWED_S_MAX
    assert world.quotas.fetch_room("alice", "app")[0] == 0


def test_a_bound_that_is_lowered_does_not_lengthen_what_is_owed_beyond_all_measure() -> None:
    world = World(({"user": "alice"}, {"consumer_byte_rate": 10**6, "producer_byte_rate": 10**6}))
    assert world.quotas.fetched("alice", "app", 10**8) == 0
    world.define(({"user": "alice"}, {"consumer_byte_rate": 1}))
    assert world.quotas.fetch_room("alice", "app")[0] == THROTTLE_MS_MAX
    world.now_s += OWED_S_MAX
    assert world.quotas.fetch_room("alice", "app")[0] == 0


def test_changes_by_made_up_client_ids_do_not_make_it_forget_those_of_users() -> None:
    world = World(
        ({"client-id": None}, {"controller_mutation_rate": 1}),
        ({"user": "alice"}, {"controller_mutation_rate": 1}),
    )

    def takes(user: str, client_id: str, partitions: int) -> bool:
        quota = world.quotas.mutations(user, client_id, is_strict=True)
        assert quota is not None
        return quota.takes(partitions)

    assert takes("alice", "app", 50)
    for number in range(200):
        assert takes("eve", str(number), 50)
    assert not takes("alice", "app", 50)


def test_a_reader_of_much_goes_on_beside_one_of_little() -> None:
    world = World(({"user": "alice"}, {"consumer_byte_rate": 1_000}))
    read = {"little": 0, "much": 0}
    wakes_s = dict.fromkeys(read, world.now_s)
    for _ in range(600):
        for who in read:
            throttle_ms, room_bytes = (
                world.quotas.fetch_room("alice", who) if wakes_s[who] <= world.now_s else (1, 0)
            )
            size_bytes = 80 if who == "little" else max(500, (room_bytes or 0) // 500 * 500)
            throttle_ms = throttle_ms or world.quotas.fetched("alice", who, size_bytes)
            if not throttle_ms:
                read[who] += size_bytes
            elif wakes_s[who] <= world.now_s:
                wakes_s[who] = world.now_s + throttle_ms / 1000
        world.now_s += 0.1
    # A minute: after the first window's worth there are 200 bytes per second left beside the other's 800.
    assert read["much"] > 10_000 + 5_000
    assert sum(read.values()) < 75_000


@pytest.mark.parametrize("bound", [5e-324, 1e-300, 2.0**62])
def test_no_bound_is_too_small_or_too_large_to_reckon_with(bound: float) -> None:
    kinds = ("producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate")
    world = World(({"user": "alice"}, dict.fromkeys(kinds, bound)))
    for _ in range(3):
        throttles_ms = [
            world.quotas.produced("alice", "app", 2**31 - 1),
            world.quotas.fetch_room("alice", "app")[0],
            world.quotas.fetched("alice", "app", 2**31 - 1),
            world.quotas.spent("alice", "app", 5.0),
        ]
        for is_strict in (True, False):
            quota = world.quotas.mutations("alice", "app", is_strict=is_strict)
            assert quota is not None
            quota.takes(10)
            quota.takes(1)
            throttles_ms.append(quota.throttle_ms())
        assert all(0 <= throttle_ms <= THROTTLE_MS_MAX for throttle_ms in throttles_ms)
        world.now_s += 1.0
