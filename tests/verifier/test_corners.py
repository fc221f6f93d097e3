"""Faults that look like what may happen: each beside a history in which it is what may happen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.verifier.judge import judge
from tests.verifier.operations import (
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    Done,
    Fetch,
    Fetched,
    Limit,
    Listed,
    ListedOffset,
    ListOffsets,
    OffsetCommit,
    Placed,
    Produced,
    Trimmed,
    TrimmedPart,
)
from tests.verifier.rules import TopicRules
from tests.verifier.scene import HERE, NOW_MS, THERE, Scene
from warp.errors import ErrorCode


def ask_end(scene: Scene, offset: int, limit: Limit = Limit.LATEST) -> None:
    op = scene.recorder.begin("asker", ListOffsets([HERE], limit), agent="other")
    op.answered(Listed({HERE: ListedOffset(0, offset)}))


def trim(scene: Scene, offset: int, agent: str) -> None:
    op = scene.recorder.begin("trimmer", DeleteRecords({HERE: offset}), agent=agent)
    op.answered(Trimmed({HERE: TrimmedPart(0, offset)}))


def records_before_a_start_that_the_same_agent_has_told(scene: Scene, wrong: bool) -> str:
    """Another agent may lag behind."""
    scene.write("a", "b", offset=0)
    trim(scene, 1, "agent" if wrong else "other")
    scene.fetch(0, ["a", "b"], end=2)
    scene.read_back("b", start=1)
    return "deleted records stay away"


def a_start_that_goes_back_at_the_agent_that_has_deleted(scene: Scene, wrong: bool) -> str:
    scene.write("a", "b", offset=0)
    trim(scene, 1, "agent" if wrong else "other")
    op = scene.recorder.begin("reader", Fetch({HERE: 1}), agent="agent")
    op.answered(Fetched({HERE: scene.recorder.part(0, 2, 0, [(1, None, b"b")])}))
    scene.read_back("b", start=1)
    return "watermarks never go back"


def an_end_below_what_a_consumer_has_handed_out(scene: Scene, wrong: bool) -> str:
    scene.send(scene.batch("a")).lost()
    if wrong:
        scene.recorder.reader("consumer").saw(HERE, 0, None, b"a")
    ask_end(scene, 0)
    scene.read_back("a")
    return "watermarks never go back"


def a_start_that_only_a_producer_was_told(scene: Scene, wrong: bool) -> str:
    scene.write("a", offset=0)
    op = scene.send(scene.batch("b"))
    op.answered(Produced({HERE: Placed(0, 1, 1 if wrong else 0)}))
    scene.read_back("a", "b")
    return "watermarks never go back"


def a_log_that_nobody_has_read_back(scene: Scene, wrong: bool) -> str:
    scene.write("a", offset=0)
    scene.write("a", offset=0, at=THERE)
    scene.read_back("a")
    if not wrong:
        scene.read_back("a", at=THERE)
    return "logs can be read"


def a_topic_that_is_deleted_twice(scene: Scene, wrong: bool) -> str:
    scene.recorder.begin("maker", CreateTopic("topic")).answered(Done())
    ops = [scene.recorder.begin("maker", DeleteTopic("topic")) for _ in range(3)]
    ops[0].answered(Done())
    ops[1].answered(Done())  # of a topic that had been there before, as far as one can see
    if wrong:
        ops[2].answered(Done())
    else:
        ops[2].failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    return "topics are made and deleted once"


def nothing_where_others_have_seen_a_part_of_the_same_request(scene: Scene, wrong: bool) -> str:
    """An empty answer is fresh; one that was on its way before need not be."""
    scene.send(scene.batch("a"), scene.batch("b", at=THERE)).lost()
    scene.fetch(0, ["b"], end=1, at=THERE) if wrong else None
    op = scene.recorder.begin("reader", Fetch({HERE: 0}), agent="other")
    scene.fetch(0, ["b"], end=1, at=THERE)
    op.answered(Fetched({HERE: scene.recorder.part(0, 0, 0)}))
    scene.read_back("a")
    scene.read_back("b", at=THERE)
    return "requests are seen as one"


def a_record_that_is_younger_than_its_batch(scene: Scene, wrong: bool) -> str:
    """Of a batch whose youngest record compaction has taken the rest is older."""
    scene.send(scene.batch("a", timestamp_ms=NOW_MS)).lost()
    scene.read_back("a").logs[HERE].times_ms.append(NOW_MS + wrong)
    return "records keep their times"


def an_altered_key(scene: Scene, wrong: bool) -> str:
    batch = scene.recorder.batch(HERE, [(b"key", b"value")])
    scene.ack(scene.send(batch), 0)
    back = scene.recorder.readback("agent", NOW_MS)
    back.log(HERE, 0, 1).add(0, b"kez" if wrong else b"key", b"value")
    scene.readbacks.append(back)
    return "acknowledged records are there"


def a_long_value_altered_in_its_middle(scene: Scene, wrong: bool) -> str:
    value = "x" * 5000
    scene.write(value, offset=0)
    scene.read_back(value[:2500] + "y" + value[2501:] if wrong else value)
    return "acknowledged records are there"


def an_empty_value_in_place_of_none(scene: Scene, wrong: bool) -> str:
    batch = scene.recorder.batch(HERE, [(b"key", None)])
    scene.ack(scene.send(batch), 0)
    back = scene.recorder.readback("agent", NOW_MS)
    back.log(HERE, 0, 1).add(0, b"key", b"" if wrong else None)
    scene.readbacks.append(back)
    return "acknowledged records are there"


def a_lost_commit_that_nobody_else_can_have_overwritten(scene: Scene, wrong: bool) -> str:
    """Only of groups whose commits rise: elsewhere a late one may come after that which was acknowledged."""
    scene.rising = frozenset({"group"} if wrong else ())
    scene.recorder.begin("member", OffsetCommit("group", {HERE: 1}, -1, "member")).lost()
    scene.commit(2)
    scene.told(1)
    return "committed offsets never go back"


def a_deletion_of_more_than_was_asked_for(scene: Scene, wrong: bool) -> str:
    """Where one log starts already is told too, when less is asked for."""
    scene.write("a", "b", "c", offset=0)
    if not wrong:
        trim(scene, 2, "agent")
    op = scene.recorder.begin("trimmer", DeleteRecords({HERE: 1}), agent="agent")
    op.answered(Trimmed({HERE: TrimmedPart(0, 2)}))
    scene.read_back("c", start=2)
    return "nothing goes without a reason"


def an_offset_out_of_range_that_retention_has_not_taken(scene: Scene, wrong: bool) -> str:
    scene.topics["topic"] = TopicRules(retention_ms=1_000)
    scene.write("a", "b", offset=0, timestamp_ms=NOW_MS - 2_000)
    op = scene.recorder.begin("reader", Fetch({HERE: int(wrong)}), agent="agent")
    op.answered(Fetched({HERE: scene.recorder.part(ErrorCode.OFFSET_OUT_OF_RANGE)}))
    scene.read_back("b", start=1)
    return "read your writes"


def a_young_record_that_was_the_last_of_its_key(scene: Scene, wrong: bool) -> str:
    """What compaction has taken does not keep what lies beside it from going."""
    scene.topics["topic"] = TopicRules(is_compacted=True, retention_ms=1_000)
    for offset, key in enumerate((b"key", b"other" if wrong else b"key")):
        scene.ack(scene.send(scene.recorder.batch(HERE, [(key, b"value")], timestamp_ms=NOW_MS)), offset)
    back = scene.recorder.readback("agent", NOW_MS)
    back.log(HERE, 1, 2).add(1, b"other" if wrong else b"key", b"value")
    scene.readbacks.append(back)
    return "nothing goes without a reason"


def a_write_to_a_topic_that_was_deleted_before(scene: Scene, wrong: bool) -> str:
    batch = scene.batch("a")
    op = None if wrong else scene.send(batch)
    scene.recorder.begin("maker", DeleteTopic("topic")).answered(Done())
    scene.ack(op or scene.send(batch), 0)
    back = scene.recorder.readback("agent", NOW_MS)
    back.does_not_know(HERE)
    scene.readbacks.append(back)
    return "deleted topics stay away"


def committed_offsets_that_differ_between_agents(scene: Scene, wrong: bool) -> str:
    """Either may be what is there, since one commit was lost; not both."""
    scene.recorder.begin("member", OffsetCommit("group", {HERE: 1}, -1, "member")).lost()
    scene.commit(2)
    for agent, offset in (("one", 2), ("other", 1 if wrong else 2)):
        back = scene.recorder.readback(agent, NOW_MS)
        back.group("group", {HERE: offset})
        scene.readbacks.append(back)
    return "agents agree"


CORNERS: list[Callable[[Scene, bool], str]] = [
    records_before_a_start_that_the_same_agent_has_told,
    a_start_that_goes_back_at_the_agent_that_has_deleted,
    an_end_below_what_a_consumer_has_handed_out,
    a_start_that_only_a_producer_was_told,
    a_log_that_nobody_has_read_back,
    a_topic_that_is_deleted_twice,
    nothing_where_others_have_seen_a_part_of_the_same_request,
    a_record_that_is_younger_than_its_batch,
    an_altered_key,
    a_long_value_altered_in_its_middle,
    an_empty_value_in_place_of_none,
    a_lost_commit_that_nobody_else_can_have_overwritten,
    committed_offsets_that_differ_between_agents,
    a_deletion_of_more_than_was_asked_for,
    an_offset_out_of_range_that_retention_has_not_taken,
    a_young_record_that_was_the_last_of_its_key,
    a_write_to_a_topic_that_was_deleted_before,
]


@pytest.mark.parametrize("wrong", [False, True], ids=["may-be", "is-wrong"])
@pytest.mark.parametrize("corner", CORNERS, ids=lambda corner: corner.__name__)
def test_a_fault_that_looks_like_what_may_happen_is_found(
    corner: Callable[[Scene, bool], str], wrong: bool
) -> None:
    scene = Scene()
    check = corner(scene, wrong)
    verdict = judge(scene.recorder.history, scene.readbacks, scene.rules, scene.fsck)
    found = {violation.check for violation in verdict.violations}
    if wrong:
        assert check in found, verdict.report()
    else:
        assert not found, verdict.report()
