"""The one verifier: it is told all that clients asked and were answered, reads everything back, and trusts nobody.

    recorder = Recorder(clock)                     # seconds, of one clock for all clients; may be virtual
    place = Partition("orders", 0)
    batch = recorder.batch(place, [(b"key", b"value")], producer="producer-7", epoch=0, base_sequence=0)
    op = recorder.begin("producer-7", Produce([batch]), agent="agent-1.2")      # before it is sent
    op.answered(Produced({place: Placed(0, base_offset=17)}))                   # or failed(code), or lost()
    ...
    back = recorder.readback("agent-1.2", now_ms)                               # one for each agent, in turn
    back.log(place, start=0, end=18).add(17, b"key", b"value")
    verdict = judge(recorder.history, [back], Rules(), fsck=FsckResult.of(report))
    assert not verdict.violations, verdict.report()

**Recording.** Every operation begins before its request is sent, and ends when its answer has come, or when nobody
waits for it any more: `answered` with the typed answer (which may hold errors of parts), `failed` with the error of
the whole request, `lost` when the outcome is unknown. What never ends counts as lost. The order of these calls is
the order of things: what begins after an acknowledgement has to see it. So one recorder has to hear of all clients;
it may be called from several threads. A retry is another operation with the same `Batch`; retries may go through
any agent. `agent` names a life of an agent (another one after each restart), "" where nobody knows; what one agent
must not take back is not judged then. Names of clients are for people, but those of `producer`s matter: one name is
one idempotent producer (with one producer id), whose batches to a partition are ordered by (epoch, base_sequence);
"" is none, whose every send may add a copy. An `epoch` of -1 is unknown. `timestamp_ms` is that of the youngest
record; retention needs it, and what is read back is held against it where `LogRead.add` is told the times of records.
Headers are not known here: `adapters/seals.py` makes another value of what has come with others than were sent.

**Many records**, and clients that hide their requests, as librdkafka's: `Recorder.stream` takes records one by one,
numbers them as their producer does, and needs some 60 bytes for each beside its content; `Recorder.reader` takes
what a consumer hands out, `Recorder.processed` what a member of a group is done with. A million records are no
burden; judging is linear in what was recorded.

**Rules** say per topic what may be missing: `TopicRules` has cleanup policies, retention, lags. Without rules
nothing may be, but for what DeleteRecords and DeleteTopic took. A topic that is deleted and made again is another
one; what its name was asked while either may have been there binds nobody. A DeleteTopic that was lost may come at
any later time, unless a later answer shows that it has come: a topic should be deleted until that is known before
it is made again.

**The verdict** has `violations`, each with the promise, the check that found it and the place in the history, and
`figures`: how often each check looked at something, so that a run that has checked nothing is seen
(`Figures.checks`, `Verdict.report()`). Checks are listed in `tests/verifier/figures.py`. The same history gives the
same verdict, in the same order.
"""

from __future__ import annotations

from tests.verifier.figures import CHECKS, Figures, Verdict, Violation
from tests.verifier.history import Batch, History
from tests.verifier.judge import judge
from tests.verifier.operations import (
    Answer,
    Assigned,
    Committed,
    CommittedOffsets,
    CreateTopic,
    DeleteGroup,
    DeleteRecords,
    DeleteTopic,
    Done,
    Fetch,
    Fetched,
    Heartbeat,
    InitProducerId,
    Joined,
    JoinGroup,
    Limit,
    Listed,
    ListedOffset,
    ListOffsets,
    OffsetCommit,
    OffsetFetch,
    Operation,
    Part,
    Partition,
    Placed,
    Produce,
    Produced,
    ProducerIdGiven,
    StoredGroup,
    Synced,
    SyncGroup,
    Trimmed,
    TrimmedPart,
)
from tests.verifier.readback import FsckResult, LogRead, Readback
from tests.verifier.recorder import Op, Reader, Recorder, Stream
from tests.verifier.rules import Rules, TopicRules

__all__ = [
    "CHECKS",
    "Answer",
    "Assigned",
    "Batch",
    "Committed",
    "CommittedOffsets",
    "CreateTopic",
    "DeleteGroup",
    "DeleteRecords",
    "DeleteTopic",
    "Done",
    "Fetch",
    "Fetched",
    "Figures",
    "FsckResult",
    "Heartbeat",
    "History",
    "InitProducerId",
    "JoinGroup",
    "Joined",
    "Limit",
    "ListOffsets",
    "Listed",
    "ListedOffset",
    "LogRead",
    "OffsetCommit",
    "OffsetFetch",
    "Op",
    "Operation",
    "Part",
    "Partition",
    "Placed",
    "Produce",
    "Produced",
    "ProducerIdGiven",
    "Readback",
    "Reader",
    "Recorder",
    "Rules",
    "StoredGroup",
    "Stream",
    "SyncGroup",
    "Synced",
    "TopicRules",
    "Trimmed",
    "TrimmedPart",
    "Verdict",
    "Violation",
    "judge",
]
