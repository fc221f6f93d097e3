"""What an agent shows of its groups: their states, their members, how far behind they are."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.broker.groups import AT_ONCE, stable_group
from tests.broker.support import Broker, RunWithBroker, batch

Samples = dict[tuple[str, tuple[str, ...]], float]


async def shown(broker: Broker) -> Samples:
    """What /metrics says, by name and label values in the order of the labels' names."""
    text = (await broker.agent.render_metrics()).decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_groups_are_shown_with_their_states_members_and_lags(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic(partitions=2)
        assert (await client.produce(topic, batch(*[b"x"] * 10))).error_code == 0
        members = await stable_group(broker, "g", "one", "two")
        assert await members[0].commit(topic, 4) == 0
        found = await shown(broker)
        assert found["warp_groups", ("Stable",)] == 1
        assert found["warp_groups", ("Empty",)] == 0
        assert found["warp_group_members", ()] == 2
        assert found["warp_group_lag", ("g", "0", topic)] == 6
        assert found["warp_group_events_total", ("generation",)] >= 1
        assert found["warp_offsets_committed_total", ()] == 1
        assert found["warp_offset_commit_seconds_count", ()] == 1

    with_memory_broker(test, **AT_ONCE)


def test_no_more_lags_are_shown_than_allowed(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topics = [await broker.topic() for _ in range(3)]
        [member] = await stable_group(broker, "g")
        for topic in topics:
            assert await member.commit(topic, 0) == 0
        found = await shown(broker)
        assert sum(name == "warp_group_lag" for name, _ in found) == 2

    with_memory_broker(test, **AT_ONCE, group_lag_series_max="2")
