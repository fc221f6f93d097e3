"""Breakages of what is promised to producers: P1 to P4."""

from __future__ import annotations

from tests.breakages.tree import Breakage

COMMIT = "tests/unit/metadata/test_commit.py"
COMMITS = "tests/unit/metadata/test_commits.py"
FLUSH = "tests/unit/log/test_flush.py"
LOCAL = "tests/unit/objectstore/test_local.py"
ORDER = "tests/unit/server/test_order.py"
PAID = "tests/unit/log/test_paid_flush.py"
PRODUCE = "tests/unit/log/test_produce.py"
SYNC = "tests/unit/metadata/test_sync.py"
TAIL = "tests/unit/log/test_tail.py"

ACKNOWLEDGED = (
    Breakage(
        "acknowledge-before-the-put",
        "P1",
        "warp/log/upload.py",
        """\
        try:
            await self._put(key, image)
""",
        """\
        try:
            self._late = asyncio.ensure_future(self._put(key, image))
""",
        (f"{FLUSH}::test_a_request_is_answered_after_its_bytes_are_stored_and_its_offsets_committed",),
    ),
    Breakage(
        "acknowledge-before-the-commit",
        "P1",
        "warp/log/committer.py",
        """\
            result = await self._metadata.commit(commits, self._clock.time_ms())
""",
        """\
            for segment in segments:
                for unit in segment.units:
                    unit.fail(ErrorCode.NONE, "")
            result = await self._metadata.commit(commits, self._clock.time_ms())
""",
        (
            f"{FLUSH}::test_readers_are_told_before_anybody_is_answered",
            f"{FLUSH}::test_a_request_is_answered_after_its_bytes_are_stored_and_its_offsets_committed",
        ),
    ),
    Breakage(
        "commit-without-syncing-the-log",
        "P1",
        "warp/metadata/sqlite.py",
        "            await self._sync()\n",
        "            await asyncio.sleep(0)\n",
        (f"{SYNC}::test_every_write_is_synced_once_after_its_frames_and_no_read_is",),
    ),
    Breakage(
        "go-on-after-a-failed-sync",
        "P1",
        "warp/metadata/sqlite.py",
        "        if self._unsynced is not None:\n",
        "        if self._unsynced is not None and self._connection is None:\n",
        (f"{SYNC}::test_a_failed_sync_ends_all_service_until_the_next_start",),
    ),
    Breakage(
        "put-without-syncing-the-file",
        "P1",
        "warp/objectstore/local.py",
        """\
            os.fdatasync(fd)
            self._make_directory(directory)
""",
        """\
            self._make_directory(directory)
""",
        (f"{LOCAL}::test_a_put_forces_the_file_then_names_it_then_forces_the_directory",),
    ),
    Breakage(
        "put-without-syncing-the-directory",
        "P1",
        "warp/objectstore/local.py",
        """\
            _fsync_directory(directory)
        except FileNotFoundError as error:
""",
        """\
        except FileNotFoundError as error:
""",
        (f"{LOCAL}::test_a_put_forces_the_file_then_names_it_then_forces_the_directory",),
    ),
    Breakage(
        "make-directories-without-syncing-their-parents",
        "P1",
        "warp/objectstore/local.py",
        """\
                _fsync_directory(directory.rpartition("/")[0])
""",
        "",
        (f"{LOCAL}::test_new_directories_are_forced_into_their_parents_once",),
    ),
    Breakage(
        "use-a-key-for-a-second-put",
        "P1",
        "warp/log/upload.py",
        """\
        key = self._ids.segment_key()
        try:
""",
        """\
        key = self._key = self._key if attempt > 1 else self._ids.segment_key()
        try:
""",
        (f"{FLUSH}::test_a_failed_put_is_repeated_under_a_new_key",),
    ),
    Breakage(
        "commit-the-key-of-the-put-that-lost",
        "P1",
        "warp/log/upload.py",
        """\
        async def put() -> str:
            return await self._put_anew(image, note.attempts)
""",
        """\
        keys: list[str] = []

        async def put() -> str:
            keys.append(self._ids.segment_key())
            await self._put(keys[-1], image)
            return keys[0]
""",
        (f"{PAID}::test_a_hedge_has_a_key_of_its_own_and_only_the_winners_is_committed",),
    ),
    Breakage(
        "hedge-under-the-same-key",
        "P1",
        "warp/log/upload.py",
        """\
        async def put() -> str:
            return await self._put_anew(image, note.attempts)
""",
        """\
        key = self._ids.segment_key()

        async def put() -> str:
            await self._put(key, image)
            return key
""",
        (f"{PAID}::test_a_hedge_has_a_key_of_its_own_and_only_the_winners_is_committed",),
    ),
    Breakage(
        "commit-segments-that-may-have-been-swept",
        "P1",
        "warp/log/committer.py",
        "        if age_s > self._limits.segment_age_max_s:\n",
        "        if age_s > self._limits.segment_age_max_s and not segment.is_unknown:\n",
        (f"{FLUSH}::test_a_segment_older_than_fifteen_minutes_is_not_committed",),
    ),
    Breakage(
        "answer-out-of-order",
        "P1",
        "warp/server/connection.py",
        "        exchange.answered = True\n",
        """\
        exchange.answered = True
        self._exchanges.remove(exchange)
        self._exchanges.appendleft(exchange)
""",
        (f"{ORDER}::test_answers_leave_in_the_order_of_the_requests_whatever_ends_first",),
    ),
)

ATOMIC = (
    Breakage(
        "split-a-request-over-segments",
        "P2",
        "warp/log/produce.py",
        """\
        begin = self._clock.monotonic()
        deadline = begin + min(max(timeout_ms, 0), _TIMEOUT_MAX_MS) / 1000
""",
        """\
        if len(appends) > 1:
            staged = [await self.stage([append], timeout_ms) for append in appends]

            async def joined() -> list[AppendOutcome]:
                return [outcome for part in staged for outcome in await part.outcomes]

            return Staged(asyncio.get_running_loop().create_task(joined()))
        begin = self._clock.monotonic()
        deadline = begin + min(max(timeout_ms, 0), _TIMEOUT_MAX_MS) / 1000
""",
        (f"{PRODUCE}::test_a_request_larger_than_a_segment_is_stored_in_one",),
    ),
    Breakage(
        "keep-what-a-failed-transaction-has-written",
        "P2",
        "warp/metadata/sqlite.py",
        """\
            except BaseException:
                statements.rollback()
                raise
""",
        """\
            except BaseException:
                statements.commit()
                raise
""",
        (f"{COMMITS}::test_a_commit_that_fails_at_any_statement_leaves_nothing_behind",),
    ),
)

OFFSETS = (
    Breakage(
        "count-batches-in-place-of-records",
        "P3",
        "warp/metadata/commit.py",
        "        self._log.next_offset += batch.offset_count\n",
        "        self._log.next_offset += 1\n",
        (f"{COMMIT}::test_offsets_are_dense_and_follow_the_order_of_batches",),
    ),
    Breakage(
        "swap-batches-of-a-log-in-a-segment",
        "P3",
        "warp/log/sealed.py",
        "                group.append((unit, item))\n",
        "                group.insert(0, (unit, item))\n",
        (f"{FLUSH}::test_requests_of_one_turn_share_a_segment_log_by_log_each_in_order_of_arrival",),
    ),
    Breakage(
        "commit-other-batches-under-the-same-key",
        "P3",
        "warp/log/sealed.py",
        "        if self._commit is None:\n",
        "        if self._commit is None or not self.is_committing:\n",
        (f"{FLUSH}::test_a_group_of_unknown_outcome_is_resolved_one_by_one_as_it_was",),
    ),
    Breakage(
        "serve-an-extent-that-does-not-join",
        "P3",
        "warp/log/tail.py",
        "        if extent.base_offset == tail.end_offset:\n",
        "        if extent.base_offset >= tail.end_offset:\n",
        (
            f"{TAIL}::test_an_extent_that_does_not_join_is_not_used_before_the_store_has_filled_the_gap",
            f"{TAIL}::test_whatever_comes_in_what_order_reads_tile_the_log",
        ),
    ),
)

IDEMPOTENT = (
    Breakage(
        "commit-in-the-order-of-uploads",
        "P4",
        "warp/log/flush.py",
        """\
            if segment.key is None:
                break
""",
        """\
            if segment.key is None:
                continue
""",
        (f"{FLUSH}::test_segments_commit_in_seal_order_though_their_puts_end_in_another",),
    ),
    Breakage(
        "append-duplicates-again",
        "P4",
        "warp/metadata/commit.py",
        "    if batch.base_sequence == expected and batch.producer_epoch >= state.epoch:\n",
        "    if batch.base_sequence <= expected and batch.producer_epoch >= state.epoch:\n",
        (
            f"{COMMIT}::test_a_duplicate_gets_its_original_offset_and_leaves_no_trace",
            f"{COMMIT}::test_a_duplicate_within_one_commit_is_known",
        ),
    ),
    Breakage(
        "remember-four-batches-of-a-producer",
        "P4",
        "warp/metadata/commit.py",
        "WINDOW_BATCHES = 5\n",
        "WINDOW_BATCHES = 4\n",
        (f"{COMMIT}::test_a_producer_is_known_by_its_last_five_batches",),
    ),
    Breakage(
        "count-sequences-without-the-modulus",
        "P4",
        "warp/metadata/commit.py",
        "    return add_to_sequence(last_sequence, 1)\n",
        "    return last_sequence + 1\n",
        (f"{COMMIT}::test_sequences_wrap_after_the_largest_int32",),
    ),
    Breakage(
        "accept-gaps-at-once",
        "P4",
        "warp/metadata/commit.py",
        "        return now - first_seen >= self._grace_s\n",
        "        return True\n",
        (
            f"{COMMIT}::test_gap_memory_counts_its_grace_from_the_first_sight",
            f"{COMMITS}::test_a_gap_is_answered_softly_until_its_grace_is_over",
        ),
    ),
    Breakage(
        "answer-an-error-when-the-outcome-is-unknown",
        "P4",
        "warp/log/committer.py",
        """\
            except OutcomeUnknown:
                segment.is_unknown = True
            except MetadataUnavailable:
""",
        """\
            except OutcomeUnknown as error:
                self._on_failed(segment, _failure(error, segment))
                return
            except MetadataUnavailable:
""",
        (f"{FLUSH}::test_an_unknown_outcome_is_resolved_under_the_same_key",),
    ),
    Breakage(
        "answer-an-error-at-the-end-of-what-may-be-committed",
        "P4",
        "warp/log/flush.py",
        """\
            if segment.may_be_committed:
                for unit in segment.units:
                    unit.abandon()
""",
        """\
            if segment.may_be_committed:
                for unit in segment.units:
                    unit.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER, "this agent is shutting down")
""",
        (f"{FLUSH}::test_drain_keeps_its_bound_and_close_answers_what_is_certain",),
    ),
    Breakage(
        "let-later-batches-overtake-failed-ones",
        "P4",
        "warp/log/flush.py",
        "            fail_followers(producers, list(self._waiting_units(after=segment.number)), error)\n",
        "",
        (
            f"{FLUSH}::test_a_put_that_fails_for_good_fails_its_requests_and_those_that_would_overtake_them",
            f"{FLUSH}::test_a_segment_that_the_store_refuses_fails_and_takes_its_followers_along",
        ),
    ),
    Breakage(
        "stage-produces-side-by-side",
        "P4",
        "warp/server/connection.py",
        """\
        else:
            self._holder = exchange
        exchange.task = asyncio.get_running_loop().create_task(coroutine)
""",
        """\
        elif exchange.order is Order.SERIAL:
            self._holder = exchange
        exchange.task = asyncio.get_running_loop().create_task(coroutine)
""",
        (f"{ORDER}::test_produces_are_staged_one_after_the_other_and_committed_side_by_side",),
    ),
    Breakage(
        "accept-a-fenced-epoch",
        "P4",
        "warp/metadata/commit.py",
        "    if batch.base_sequence == expected and batch.producer_epoch >= state.epoch:\n",
        "    if batch.base_sequence == expected:\n",
        (f"{COMMIT}::test_an_old_epoch_is_refused",),
    ),
    Breakage(
        "fail-followers-that-may-be-committed",
        "P4",
        "warp/log/flush.py",
        "            if number > after and not segment.may_be_committed:\n",
        "            if number > after:\n",
        (f"{FLUSH}::test_a_failure_is_not_told_to_followers_whose_own_commit_may_have_happened",),
    ),
    Breakage(
        "give-up-an-unknown-commit-that-nobody-waits-for",
        "P4",
        "warp/log/committer.py",
        "        if not segment.is_unknown and not segment.is_wanted:\n",
        "        if not segment.is_wanted:\n",
        (f"{FLUSH}::test_while_the_outcome_is_unknown_the_only_answer_is_a_time_out",),
    ),
)
