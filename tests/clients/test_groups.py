"""Groups of every client: members share partitions, go on where others have stopped, and survive their agent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from tests.clients.java_tools import GROUPS, JavaTools
from tests.clients.members import KINDS, Kind, Member, Seen, java, kinds_named
from tests.support.process import AgentProcess

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(240)]
PARTITIONS = 4


def named(kinds: Sequence[Kind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name)


def make_topic(bootstrap: str, topic: str, partitions: int = PARTITIONS) -> None:
    # The client is held on to: its futures fail once it is gone.
    client = AdminClient({"bootstrap.servers": bootstrap})
    client.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def send(bootstrap: str, topic: str, first: int, count: int) -> set[str]:
    """Numbers as values, spread over the partitions; returns them once all are acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap})
    values = {str(number) for number in range(first, first + count)}
    for number in range(first, first + count):
        producer.produce(topic, str(number), partition=number % PARTITIONS)
    assert producer.flush(60) == 0
    return values


@pytest.fixture
def own_agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that the test may kill."""
    with AgentProcess(tmp_path / "data") as process:
        yield process


@named(KINDS)
def test_a_member_goes_on_where_the_one_before_has_committed(bootstrap: str, topic: str, kind: Kind) -> None:
    make_topic(bootstrap, topic)
    first = send(bootstrap, topic, 0, 100)
    with Member(kind, bootstrap, topic, f"g-{topic}") as member:
        member.wait_for(lambda: committed(member.seen) == 100, "100 records are committed")
        assert member.seen.values() == first
        member.stop()
    second = send(bootstrap, topic, 100, 60)
    with Member(kind, bootstrap, topic, f"g-{topic}") as member:
        member.wait_for(lambda: committed(member.seen, after=25) == 60, "60 more are committed")
        assert member.seen.values() == second
        member.stop()


def committed(seen: Seen, after: int = 0) -> int:
    """How many offsets beyond `after` in each partition the commits cover."""
    highest: dict[int, int] = {}
    for partition, offset in seen.commits:
        highest[partition] = max(offset, highest.get(partition, 0))
    return sum(offset - after for offset in highest.values())


@named([kind for kind in KINDS if kind.tells_assignment])
def test_two_members_share_the_partitions_and_one_takes_over(bootstrap: str, topic: str, kind: Kind) -> None:
    make_topic(bootstrap, topic)
    with (
        Member(kind, bootstrap, topic, f"g-{topic}") as one,
        Member(kind, bootstrap, topic, f"g-{topic}") as two,
    ):
        one.wait_for(lambda: are_shared(one, two), "both have half of the partitions")
        one.stop()
        two.wait_for(lambda: two.assignment == (0, 1, 2, 3), "the other has all of them")
        two.stop()


def are_shared(*members: Member) -> bool:
    owned = [partition for member in members for partition in member.assignment or ()]
    return sorted(owned) == list(range(PARTITIONS)) and all(member.assignment for member in members)


@named([kind for kind in KINDS if kind.is_cooperative])
def test_a_cooperative_member_keeps_what_it_need_not_give(bootstrap: str, topic: str, kind: Kind) -> None:
    make_topic(bootstrap, topic)
    with ExitStack() as stack:
        one = stack.enter_context(Member(kind, bootstrap, topic, f"g-{topic}", assignor="cooperative"))
        one.wait_for(lambda: one.assignment == (0, 1, 2, 3), "it has all partitions")
        two = stack.enter_context(Member(kind, bootstrap, topic, f"g-{topic}", assignor="cooperative"))
        one.wait_for(lambda: are_shared(one, two), "both have half of the partitions")
        assert () not in one.assignments
        two.stop()
        one.wait_for(lambda: one.assignment == (0, 1, 2, 3), "it has all partitions again")
        assert () not in one.assignments
        one.stop()


@named([kind for kind in KINDS if kind.is_static])
def test_a_static_member_comes_back_to_its_partitions(bootstrap: str, topic: str, kind: Kind) -> None:
    make_topic(bootstrap, topic)
    group = f"g-{topic}"
    with ExitStack() as stack:
        # A session longer than the test: were the member not known by its instance, nobody would get its partitions.
        one, two = (
            stack.enter_context(Member(kind, bootstrap, topic, group, instance=name, session_ms=300_000))
            for name in ("a", "b")
        )
        one.wait_for(lambda: are_shared(one, two), "both have half of the partitions")
        before = list(two.assignments)
        had = one.assignment
        one.kill()
        again = stack.enter_context(Member(kind, bootstrap, topic, group, instance="a", session_ms=300_000))
        again.wait_for(lambda: again.assignment == had, "it has its partitions back")
        sent = send(bootstrap, topic, 0, 40)
        again.wait_for(lambda: again.seen.values() | two.seen.values() == sent, "both read on")
        assert two.assignments == before


@named(KINDS)
def test_members_survive_that_their_agent_is_killed(own_agent: AgentProcess, topic: str, kind: Kind) -> None:
    bootstrap = own_agent.bootstrap
    make_topic(bootstrap, topic)
    sent = send(bootstrap, topic, 0, 100)
    seen = Seen()
    with (
        Member(kind, bootstrap, topic, "g", seen) as one,
        Member(kind, bootstrap, topic, "g", seen) as two,
    ):
        one.wait_for(lambda: committed(seen) == len(sent), "the first records are committed")
        for number in range(2):
            own_agent.kill()
            own_agent.start()
            sent.update(send(bootstrap, topic, 100 + 40 * number, 40))
            one.wait_for(lambda: seen.values() == sent, "the group has read on")
            one.wait_for(lambda: committed(seen) == len(sent), "the group has committed on")
        # At least once is the only slack: what was committed is not processed again.
        assert processed_after_commit(seen) == []
        one.stop()
        two.stop()


def processed_after_commit(seen: Seen) -> list[tuple[int, int]]:
    """Records that came again though a later offset had been committed when the group lost its agent."""
    counts: dict[tuple[int, int], int] = {}
    for partition, offset, _ in seen.records:
        counts[partition, offset] = counts.get((partition, offset), 0) + 1
    # The first hundred were all committed before the first kill.
    return sorted(place for place, count in counts.items() if count > 1 and place[1] < 100 // PARTITIONS)


def test_members_in_several_languages_form_one_group(bootstrap: str, topic: str) -> None:
    make_topic(bootstrap, topic)
    seen = Seen()
    with ExitStack() as stack:
        members = [
            stack.enter_context(Member(kind, bootstrap, topic, f"g-{topic}", seen))
            for kind in kinds_named("confluent", "franz-go", "java")
        ]
        members[0].wait_for(lambda: are_shared(*members), "each has a share")
        sent = send(bootstrap, topic, 0, 200)
        members[0].wait_for(lambda: seen.values() == sent, "all records are processed")
        for member in members:
            member.stop()


def tool(name: str, *arguments: str, timeout_s: float = 60.0) -> str:
    done = subprocess.run(
        [*java(), name, *arguments], capture_output=True, timeout=timeout_s, check=False, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_kafkas_own_tools_show_the_group_and_its_lag(
    bootstrap: str, topic: str, java_tools: JavaTools
) -> None:
    make_topic(bootstrap, topic)
    group = f"g-{topic}"
    groups = (GROUPS, "--bootstrap-server", bootstrap)
    (kind,) = kinds_named("java")
    send(bootstrap, topic, 0, 40)
    with Member(kind, bootstrap, topic, group) as member:
        member.wait_for(lambda: committed(member.seen) == 40, "all is committed")
        assert group in java_tools.succeed(*groups, "--list").split()
        assert "Stable" in java_tools.succeed(*groups, "--describe", "--group", group, "--state")
        assert "consumer-" in java_tools.succeed(*groups, "--describe", "--group", group, "--members")
        member.stop()
    send(bootstrap, topic, 40, 8)
    rows = [line.split() for line in java_tools.succeed(*groups, "--describe", "--group", group).splitlines()]
    lags = {row[2]: row[3:6] for row in rows if len(row) > 5 and row[0] == group}
    assert lags == {str(partition): ["10", "12", "2"] for partition in range(PARTITIONS)}
    java_tools.succeed(
        *groups, "--reset-offsets", "--to-earliest", "--topic", topic, "--group", group, "--execute"
    )
    rows = [line.split() for line in java_tools.succeed(*groups, "--describe", "--group", group).splitlines()]
    assert {row[3] for row in rows if len(row) > 5 and row[0] == group} == {"0"}
    java_tools.succeed(*groups, "--delete-offsets", "--topic", f"{topic}:0,1", "--group", group)
    rows = [line.split() for line in java_tools.succeed(*groups, "--describe", "--group", group).splitlines()]
    assert {row[2] for row in rows if len(row) > 5 and row[0] == group} == {"2", "3"}
    java_tools.succeed(*groups, "--delete", "--group", group)
    assert group not in java_tools.succeed(*groups, "--list").split()


def test_librdkafkas_administrator_sees_and_changes_groups(bootstrap: str, topic: str) -> None:
    make_topic(bootstrap, topic)
    group = f"g-{topic}"
    (kind,) = kinds_named("confluent")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    send(bootstrap, topic, 0, 40)
    with Member(kind, bootstrap, topic, group) as member:
        member.wait_for(lambda: committed(member.seen) == 40, "all is committed")
        stable = admin.list_consumer_groups(states={ConsumerGroupState.STABLE}).result(30)
        assert group in {one.group_id for one in stable.valid}
        described = admin.describe_consumer_groups([group])[group].result(30)
        assert described.state is ConsumerGroupState.STABLE
        (told,) = described.members
        assert [part.partition for part in told.assignment.topic_partitions] == [0, 1, 2, 3]
        assert told.host == "/127.0.0.1"
        with pytest.raises(KafkaException) as refused:
            admin.delete_consumer_groups([group])[group].result(30)
        assert refused.value.args[0].code() == KafkaError.NON_EMPTY_GROUP
        member.stop()
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 3)])
    admin.alter_consumer_group_offsets([moved])[group].result(30)
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30)
    offsets = {part.partition: part.offset for part in found.topic_partitions or ()}
    assert offsets == {0: 3, 1: 10, 2: 10, 3: 10}
    admin.delete_consumer_groups([group])[group].result(30)
    gone = admin.describe_consumer_groups([group])[group].result(30)
    assert gone.state is ConsumerGroupState.DEAD


def test_kafkas_verifiable_clients_agree(bootstrap: str, topic: str, tmp_path: Path) -> None:
    make_topic(bootstrap, topic)
    produced = tool(
        "org.apache.kafka.tools.VerifiableProducer", "--bootstrap-server", bootstrap, "--topic", topic,
        "--max-messages", "500",
    )  # fmt: skip
    events = [json.loads(line) for line in produced.splitlines()]
    assert sum(event["name"] == "producer_send_success" for event in events) == 500
    consumed = tool(
        "org.apache.kafka.tools.VerifiableConsumer", "--bootstrap-server", bootstrap, "--topic", topic,
        "--group-id", f"g-{topic}", "--max-messages", "500",
    )  # fmt: skip
    events = [json.loads(line) for line in consumed.splitlines()]
    assert sum(event.get("count", 0) for event in events if event["name"] == "records_consumed") == 500
