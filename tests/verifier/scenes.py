"""Small histories, each twice: as it has to be, and with one thing wrong that one check is there to notice."""

from __future__ import annotations

from collections.abc import Mapping

from tests.verifier.operations import (
    Assigned,
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    Done,
    Heartbeat,
    InitProducerId,
    Limit,
    Listed,
    ListedOffset,
    ListOffsets,
    Placed,
    Produced,
    ProducerIdGiven,
    Trimmed,
    TrimmedPart,
)
from tests.verifier.readback import FsckResult
from tests.verifier.rules import TopicRules
from tests.verifier.scene import HERE, NOW_MS, THERE, Scene, Story
from warp.errors import ErrorCode


def acknowledged(scene: Scene, wrong: bool) -> None:
    scene.write("a", offset=0)
    scene.write("b", offset=1)
    scene.read_back(*("b", "a") if wrong else ("a", "b"))


def read_stays(scene: Scene, wrong: bool) -> None:
    scene.send(scene.batch("a")).lost()
    scene.fetch(0, ["a"], end=1)
    scene.read_back(*() if wrong else ("a",))


def keep_times(scene: Scene, wrong: bool) -> None:
    scene.write("a", "b", offset=0, timestamp_ms=NOW_MS)
    read = scene.read_back("a", "b").logs[HERE]
    read.times_ms.extend([NOW_MS - 5, NOW_MS - 1 if wrong else NOW_MS])


def names_a_place(scene: Scene, wrong: bool) -> None:
    scene.write("a", offset=-1 if wrong else 0)
    scene.read_back("a")


def can_be_read(scene: Scene, wrong: bool) -> None:
    scene.write("a", offset=0)
    back = scene.read_back("a")
    if wrong:
        del back.logs[HERE]
        back.cannot_read(HERE, "no answer")


def atomic(scene: Scene, wrong: bool) -> None:
    """Also what nobody was answered."""
    scene.send(scene.batch("a"), scene.batch("b", at=THERE)).lost()
    scene.read_back("a")
    scene.read_back(*() if wrong else ("b",), at=THERE)


def of_one_piece(scene: Scene, wrong: bool) -> None:
    op = scene.send(scene.batch("a"), scene.batch("b", at=THERE))
    other = Placed(ErrorCode.REQUEST_TIMED_OUT) if wrong else Placed(ErrorCode.MESSAGE_TOO_LARGE)
    op.answered(Produced({HERE: Placed(0, 0), THERE: other}))
    scene.read_back("a")
    scene.read_back(*("b",) if wrong else (), at=THERE)


def one_order_of_requests(scene: Scene, wrong: bool) -> None:
    for value in ("1", "2"):
        scene.send(scene.batch(value), scene.batch(value, at=THERE)).lost()
    scene.read_back("1", "2")
    scene.read_back(*("2", "1") if wrong else ("1", "2"), at=THERE)


def seen_as_one(scene: Scene, wrong: bool) -> None:
    """Nobody has told the producer; but a reader has seen one part of its request."""
    scene.send(scene.batch("a"), scene.batch("b", at=THERE)).lost()
    early = scene.recorder.begin("early", ListOffsets([THERE], Limit.LATEST), agent="agent")
    scene.fetch(0, ["a"], end=1)
    early.answered(Listed({THERE: ListedOffset(0, 0)}))
    late = scene.recorder.begin("late", ListOffsets([THERE], Limit.LATEST), agent="other")
    late.answered(Listed({THERE: ListedOffset(0, 0 if wrong else 1)}))
    scene.read_back("a")
    scene.read_back("b", at=THERE)


def whole(scene: Scene, wrong: bool) -> None:
    scene.send(scene.batch("a", "b", "c")).lost()
    scene.read_back(*("a", "c") if wrong else ("a", "b", "c"))


def dense(scene: Scene, wrong: bool) -> None:
    scene.send(scene.batch("a")).lost()
    scene.send(scene.batch("b")).lost()
    scene.read_back(*("a", "", "b") if wrong else ("a", "b"))


def come_later(scene: Scene, wrong: bool) -> None:
    """An offset was free, and is filled when a later one is taken already."""
    scene.send(scene.batch("x")).lost()
    early = scene.batch("a")
    op = None if wrong else scene.send(early)
    scene.write("b", offset=1)
    scene.ack(op or scene.send(early), 0)
    scene.read_back("a", "b")


def one_order(scene: Scene, wrong: bool) -> None:
    scene.send(scene.batch("a")).lost()
    scene.send(scene.batch("b")).lost()
    scene.fetch(0, ["a"], end=1)
    scene.fetch(0, ["b"] if wrong else ["a"], end=1)
    scene.read_back("a")


def agree(scene: Scene, wrong: bool) -> None:
    scene.send(scene.batch("a")).lost()
    scene.send(scene.batch("b")).lost()
    scene.read_back("a", agent="one")
    scene.read_back("b" if wrong else "a", agent="other")


def never_back(scene: Scene, wrong: bool) -> None:
    scene.write("a", "b", offset=0)
    scene.fetch(0, ["a", "b"], end=2)
    scene.fetch(0, ["a"], end=1 if wrong else 2)
    scene.read_back("a", "b")


def within_the_end(scene: Scene, wrong: bool) -> None:
    scene.write("a", "b", offset=0)
    scene.fetch(0, ["a", "b"], end=1 if wrong else 2)
    scene.read_back("a", "b")


def once(scene: Scene, wrong: bool) -> None:
    batch = scene.batch("a", producer="p", base_sequence=0)
    scene.send(batch).lost()
    scene.ack(scene.send(batch), 0)
    scene.read_back(*("a", "a") if wrong else ("a",))


def in_sequence(scene: Scene, wrong: bool) -> None:
    """A batch may be missing at the end of what a producer wrote, and nowhere else."""
    scene.send(scene.batch("a", producer="p", base_sequence=0)).lost()
    scene.send(scene.batch("b", producer="p", base_sequence=1)).lost()
    scene.read_back("b" if wrong else "a")


def original_offsets(scene: Scene, wrong: bool) -> None:
    batch = scene.batch("a", producer="p", base_sequence=0)
    scene.ack(scene.send(batch), 0)
    scene.ack(scene.send(batch), 1 if wrong else 0)
    scene.read_back("a")


def in_order(scene: Scene, wrong: bool) -> None:
    first = scene.batch("a", producer="p", base_sequence=0)
    second = scene.batch("b", producer="p", base_sequence=1)
    if wrong:
        scene.ack(scene.send(first), 0)
    scene.send(second).answered(Produced({HERE: Placed(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER)}))
    if not wrong:
        scene.ack(scene.send(first), 0)
    scene.ack(scene.send(second), 1)
    scene.read_back("a", "b")


def given_once(scene: Scene, wrong: bool) -> None:
    for number, client in enumerate(("one", "other")):
        op = scene.recorder.begin(client, InitProducerId())
        op.answered(ProducerIdGiven(0 if wrong else number, 0))


def have_senders(scene: Scene, wrong: bool) -> None:
    """Without idempotence each send may add one."""
    batch = scene.batch("a")
    scene.send(batch).lost()
    if not wrong:
        scene.send(batch).lost()
    scene.read_back("a", "a")


def read_your_writes(scene: Scene, wrong: bool) -> None:
    scene.write("a", offset=0)
    op = scene.recorder.begin("reader", ListOffsets([HERE], Limit.LATEST), agent="other")
    op.answered(Listed({HERE: ListedOffset(0, 0 if wrong else 1)}))
    scene.read_back("a")


def known_topics(scene: Scene, wrong: bool) -> None:
    made = scene.recorder.begin("maker", CreateTopic("topic"))
    early = scene.recorder.begin("reader", ListOffsets([HERE]), agent="other")
    made.answered(Done())
    late = scene.recorder.begin("reader", ListOffsets([HERE]), agent="other")
    (late if wrong else early).answered(Listed({HERE: ListedOffset(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)}))
    scene.read_back()


def commits_stay(scene: Scene, wrong: bool) -> None:
    scene.commit(1)
    scene.commit(2)
    scene.told(1 if wrong else 2)


def commits_were_sent(scene: Scene, wrong: bool) -> None:
    scene.commit(1)
    scene.told(2 if wrong else 1)


def skips_nothing(scene: Scene, wrong: bool) -> None:
    for offset in (0, 2) if wrong else (0, 1, 2):
        scene.recorder.processed("group", HERE, offset)
    scene.commit(3)


def processes_everything(scene: Scene, wrong: bool) -> None:
    scene.finishing = {"group": [HERE]}
    scene.write("a", "b", offset=0)
    for offset in range(1 if wrong else 2):
        scene.recorder.processed("group", HERE, offset)
    scene.commit(1)
    scene.read_back("a", "b")


def generations_rise(scene: Scene, wrong: bool) -> None:
    scene.joined("a", 2)
    scene.joined("b", 1 if wrong else 2)


def fenced(scene: Scene, wrong: bool) -> None:
    scene.joined("a", 1)
    late = scene.recorder.begin("a", Heartbeat("group", 1, "a"))
    scene.joined("b", 2)
    if wrong:
        scene.recorder.begin("a", Heartbeat("group", 1, "a")).answered(Done())
    late.answered(Done())


def one_leader(scene: Scene, wrong: bool) -> None:
    scene.joined("a", 1, leads=True)
    scene.joined("b", 1, leads=wrong)


def hold_what_was_sent(scene: Scene, wrong: bool) -> None:
    plan = {"a": b"share of a", "b": b"share of b"}
    scene.synced("a", plan["a"], plan)
    scene.synced("b", plan["a" if wrong else "b"])


def no_overlap(scene: Scene, wrong: bool) -> None:
    for member, place in (("a", HERE), ("b", HERE if wrong else THERE)):
        scene.recorder.observe("auditor", Assigned("group", 1, member, [place]), Done())


def from_somewhere(scene: Scene, wrong: bool) -> None:
    scene.write("a", offset=0)
    scene.read_back(*("a", "x") if wrong else ("a",))


def deleted_records(scene: Scene, wrong: bool) -> None:
    scene.write("a", "b", offset=0)
    op = scene.recorder.begin("trimmer", DeleteRecords({HERE: 1}))
    op.answered(Trimmed({HERE: TrimmedPart(0, 1)}))
    scene.read_back(*("a", "b") if wrong else ("b",), start=0 if wrong else 1)


def deleted_topics(scene: Scene, wrong: bool) -> None:
    scene.write("a", offset=0)
    op = scene.recorder.begin("maker", DeleteTopic("topic"))
    if wrong:
        op.answered(Done())
    else:
        op.lost()  # and was not carried out
    scene.read_back("a")


def made_once(scene: Scene, wrong: bool) -> None:
    """Two at a time."""
    ops = [scene.recorder.begin("maker", CreateTopic("topic")) for _ in range(2)]
    ops[0].answered(Done())
    if wrong:
        ops[1].answered(Done())
    else:
        ops[1].failed(ErrorCode.TOPIC_ALREADY_EXISTS)


def with_a_reason(scene: Scene, wrong: bool) -> None:
    scene.topics["topic"] = TopicRules(retention_ms=1_000)
    scene.write("a", offset=0, timestamp_ms=NOW_MS - (500 if wrong else 1_500))
    scene.write("b", offset=1, timestamp_ms=NOW_MS)
    scene.read_back("b", start=1)


def _table(scene: Scene, *records: tuple[str, str | None]) -> None:
    """A compacted topic with these keys and values, one batch each."""
    scene.topics["topic"] = TopicRules(is_compacted=True)
    for offset, (key, value) in enumerate(records):
        content = (key.encode(), None if value is None else value.encode())
        batch = scene.recorder.batch(HERE, [content], timestamp_ms=NOW_MS - 10_000)
        scene.ack(scene.send(batch), offset)


def _read_table(scene: Scene, end: int, found: Mapping[int, tuple[str, str | None]]) -> None:
    back = scene.recorder.readback("agent", NOW_MS)
    read = back.log(HERE, 0, end)
    for offset, (key, value) in found.items():
        read.add(offset, key.encode(), None if value is None else value.encode())
    scene.readbacks.append(back)


def last_of_key(scene: Scene, wrong: bool) -> None:
    _table(scene, ("k", "1"), ("other", "1"), ("k", "2"))
    found: dict[int, tuple[str, str | None]] = {1: ("other", "1"), 2: ("k", "2")}
    if wrong:
        del found[2]
    _read_table(scene, 3, found)


def old_values(scene: Scene, wrong: bool) -> None:
    _table(scene, ("k", "1"), ("k", None), ("other", "1"))
    found: dict[int, tuple[str, str | None]] = {2: ("other", "1")}
    if wrong:
        found = {0: ("k", "1"), **found}
    _read_table(scene, 3, found)


def old_goes(scene: Scene, wrong: bool) -> None:
    scene.topics["topic"] = TopicRules(retention_ms=1_000, linger_ms=500)
    scene.write("a", offset=0, timestamp_ms=NOW_MS - (2_000 if wrong else 1_200))
    scene.read_back("a")


def referenced(scene: Scene, wrong: bool) -> None:
    scene.fsck = FsckResult(["object-missing: segments/1"] if wrong else [], checked=1)


def unreferenced(scene: Scene, wrong: bool) -> None:
    scene.fsck = FsckResult(left_over={"dead segments": int(wrong)}, checked=1)


STORIES: Mapping[str, Story] = {
    "acknowledged records are there": acknowledged,
    "records keep their times": keep_times,
    "what was read stays": read_stays,
    "acknowledgements name a place": names_a_place,
    "logs can be read": can_be_read,
    "requests are atomic": atomic,
    "answers are of one piece": of_one_piece,
    "requests keep one order": one_order_of_requests,
    "requests are seen as one": seen_as_one,
    "batches are whole": whole,
    "offsets are dense": dense,
    "later writes come later": come_later,
    "one order for everybody": one_order,
    "agents agree": agree,
    "watermarks never go back": never_back,
    "nothing follows the end": within_the_end,
    "once with idempotence": once,
    "order of producers": in_sequence,
    "duplicates have their offsets": original_offsets,
    "nothing is out of order without reason": in_order,
    "producer ids are given once": given_once,
    "copies have senders": have_senders,
    "read your writes": read_your_writes,
    "topics are known": known_topics,
    "committed offsets never go back": commits_stay,
    "committed offsets were committed": commits_were_sent,
    "groups skip nothing": skips_nothing,
    "groups process everything": processes_everything,
    "generations only rise": generations_rise,
    "old generations are fenced": fenced,
    "one leader per generation": one_leader,
    "members hold what they were sent": hold_what_was_sent,
    "assignments never overlap": no_overlap,
    "nothing comes from nowhere": from_somewhere,
    "deleted records stay away": deleted_records,
    "deleted topics stay away": deleted_topics,
    "topics are made and deleted once": made_once,
    "nothing goes without a reason": with_a_reason,
    "the last of each key stays": last_of_key,
    "old values stay away": old_values,
    "retention takes what is old": old_goes,
    "nothing referenced is missing": referenced,
    "nothing unreferenced is left": unreferenced,
}
"""For each check the story in which it has something to notice."""
