"""Breakages of what is promised to readers and to the agent's owner: P5 to P8."""

from __future__ import annotations

from tests.breakages.tree import Breakage

CACHE = "tests/unit/log/test_cache.py"
CATCH_UP = "tests/unit/log/test_catch_up.py"
CRASH = "tests/unit/metadata/test_crash.py"
ENDS = "tests/unit/server/test_ends.py"
FETCH = "tests/unit/log/test_fetch.py"
FLUSH = "tests/unit/log/test_flush.py"
LIMITS = "tests/unit/server/test_limits.py"
LOCAL = "tests/unit/objectstore/test_local.py"
HINTS = "tests/unit/cluster/test_hints.py"
MEMORY = "tests/unit/log/test_memory.py"
ORDER = "tests/unit/server/test_order.py"
PRODUCE = "tests/unit/log/test_produce.py"
PAID_FETCH = "tests/unit/log/test_paid_fetch.py"
PAID_FLUSH = "tests/unit/log/test_paid_flush.py"
RACE = "tests/unit/log/test_race.py"
TWO_AGENTS = "tests/unit/cluster/test_two_agents.py"
LEFTOVERS = "test_leftovers_of_a_crash_are_removed_at_the_next_start_but_not_what_a_living_process_writes"
BUSY_BESIDE_QUIET = "test_partitions_that_always_have_something_do_not_keep_another_agents_records_back"
TOGETHER = "test_what_comes_while_a_notice_is_on_its_way_goes_together_the_newest_of_each_log"

VISIBLE = (
    Breakage(
        "take-a-question-that-failed-for-asked",
        "P5",
        "warp/log/fetch.py",
        "                is_asked = said is not None and not said.error\n",
        "                is_asked = said is not None\n",
        (f"{FETCH}::test_an_older_answer_does_not_stand_in_for_a_question_that_failed",),
    ),
    Breakage(
        "wait-for-more-than-the-index-was-asked-for",
        "P5",
        "warp/log/fetch.py",
        "    return sum(extent.size_bytes for extent in view.extents) < query.bytes_max\n",
        "    return False\n",
        (
            "tests/unit/log/test_catch_up.py::test_a_minimum_beyond_what_the_index_is_asked_for_is_not_waited_for",
        ),
    ),
    Breakage(
        "give-memory-back-only-as-time-goes-by",
        "P8",
        "warp/server/connection.py",
        "            self._outgoing.release_sent()  # who asks on",
        "            pass  # who asks on",
        (f"{LIMITS}::test_the_memory_of_an_answer_is_given_back_at_the_next_request_of_whoever_has_read_it",),
    ),
    Breakage(
        "answer-before-the-readers-are-told",
        "P5",
        "warp/log/flush.py",
        "            observer.committed(result, images)\n",
        "            asyncio.get_running_loop().call_later(0.001, observer.committed, result, images)\n",
        (f"{FLUSH}::test_readers_are_told_before_anybody_is_answered",),
    ),
    Breakage(
        "find-offsets-out-of-range-in-memory",
        "P5",
        "warp/log/fetch.py",
        """\
            elif said is not None and (said.error or said.extents):
""",
        """\
            elif self._tail.end_offset(query.log_id) is not None and said is None:
                views.append(View(ErrorCode.OFFSET_OUT_OF_RANGE, asked=True))
            elif said is not None and (said.error or said.extents):
""",
        (f"{FETCH}::test_offset_out_of_range_is_said_only_after_asking_the_store",),
    ),
    Breakage(
        "answer-nothing-without-asking-the-store",
        "P5",
        "warp/log/fetch.py",
        "        if _has_bytes(queries, views, max(bytes_min, 1), read_committed):\n",
        "        if _has_bytes(queries, views, bytes_min, read_committed):\n",
        (f"{FETCH}::test_a_fetch_that_would_answer_too_little_sees_what_was_committed_elsewhere_before",),
    ),
    Breakage(
        "join-a-question-that-was-sent-before",
        "P5",
        "warp/log/refresh.py",
        """\
                current, self._next = self._next, None
                await self._carry(current)
""",
        """\
                current = self._next
                await self._carry(current)
                self._next = None
""",
        (f"{FETCH}::test_questions_to_the_store_coalesce_and_never_use_an_older_answer",),
    ),
    Breakage(
        "wake-no-waiting-fetch",
        "P5",
        "warp/log/fetch.py",
        "        self._waiters.arrived((extent.log_id, extent.size_bytes) for extent in result.extents)\n",
        "",
        (f"{FETCH}::test_a_waiting_fetch_is_woken_by_the_commit_that_brings_enough",),
    ),
    Breakage(
        "remember-a-failed-load",
        "P5",
        "warp/log/cache.py",
        "            del self._loads[chunk_id]\n            self.used_bytes -= reserved\n",
        """\
            if load.data:
                del self._loads[chunk_id]
            self.used_bytes -= reserved
""",
        (f"{CACHE}::test_a_failed_load_is_not_remembered",),
    ),
    Breakage(
        "let-watermarks-go-back",
        "P5",
        "warp/log/tail.py",
        "            tail.state = _newer(tail.state, state)\n",
        "            tail.state = state\n",
        (f"{FETCH}::test_watermarks_never_go_back",),
    ),
    Breakage(
        "wait-without-the-hint-that-came-before-the-answer",
        "P5",
        "warp/log/fetch.py",
        "        if watch.mark == self._marks.number:\n            return []\n",
        "        if watch.mark is not None:\n            return []\n",
        (f"{TWO_AGENTS}::test_a_hint_that_overtakes_the_answer_of_the_store_is_not_missed",),
    ),
    Breakage(
        "trust-that-hints-arrive",
        "P5",
        "warp/log/fetch.py",
        "        return self._limits.look_interval_hearing_s if self._hears() else self._limits.look_interval_s\n",
        "        return math.inf if self._hears() else self._limits.look_interval_s\n",
        (
            f"{TWO_AGENTS}::test_a_waiting_fetch_looks_into_the_store_from_time_to_time",
            f"{TWO_AGENTS}::{BUSY_BESIDE_QUIET}",
        ),
    ),
    Breakage(
        "look-beside-nothing-while-there-is-enough",
        "P5",
        "warp/log/fetch.py",
        "            if self._hears is not None and len(queries) > 1:\n",
        "            if self._hears is not None and not queries:\n",
        (f"{TWO_AGENTS}::{BUSY_BESIDE_QUIET}",),
    ),
    Breakage(
        "refuse-partitions-that-another-agent-has-added",
        "P5",
        "warp/handlers/resolve.py",
        "    return isinstance(target, ErrorCode) and not isinstance(topic, ErrorCode)\n",
        "    return isinstance(target, ErrorCode) and isinstance(topic, ErrorCode)\n",
        (
            f"{TWO_AGENTS}::test_fetch_finds_a_partition_that_another_agent_has_added",
            f"{TWO_AGENTS}::test_produce_finds_a_partition_that_another_agent_has_added",
        ),
    ),
    Breakage(
        "refuse-offsets-on-the-word-of-a-hint",
        "P5",
        "warp/log/fetch.py",
        "        if not read.state.start_offset <= query.offset <= state.next_offset:\n",
        "        if not state.start_offset <= query.offset <= state.next_offset:\n",
        (f"{TWO_AGENTS}::test_an_offset_is_out_of_range_on_the_word_of_the_store_alone",),
    ),
    Breakage(
        "end-a-run-where-a-hint-says-that-the-log-does",
        "P5",
        "warp/log/tail.py",
        "            tail.state = replace(known, start_offset=start_offset, next_offset=next_offset)\n",
        """\
            tail.state = replace(known, start_offset=start_offset, next_offset=next_offset)
            tail.end_offset = next_offset
""",
        (
            f"{TWO_AGENTS}::test_a_hint_that_says_nothing_new_wakes_nobody",
            f"{TWO_AGENTS}::test_readers_skip_nothing_and_see_no_watermark_go_back_whatever_becomes_of_hints",
        ),
    ),
    Breakage(
        "lose-hints-that-came-while-a-notice-was-on-its-way",
        "P5",
        "warp/cluster/hints.py",
        "        self._waiting.grown(result.logs)\n        self._send_soon()\n",
        "        if self._task is None:\n            self._waiting.grown(result.logs)\n        self._send_soon()\n",
        (f"{HINTS}::{TOGETHER}",),
    ),
)

SURVIVING = (
    Breakage(
        "drop-produces-of-a-client-that-has-left",
        "P6",
        "warp/server/connection.py",
        "        self._drop_frames(keep_staged=True)\n        self._give_up_waiting()\n",
        "        self._drop_frames(keep_staged=False)\n        self._give_up_waiting()\n",
        (f"{ENDS}::test_produces_that_had_come_in_full_are_staged_after_their_client_has_left",),
    ),
    Breakage(
        "remove-what-a-living-agent-writes",
        "P6",
        "warp/objectstore/local.py",
        """\
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _unlink_if_there(str(path))
""",
        """\
                _unlink_if_there(str(path))
""",
        (f"{LOCAL}::{LEFTOVERS}",),
    ),
    Breakage(
        "start-without-the-checkpoint",
        "P6",
        "warp/metadata/sqlite.py",
        '            connection.execute("pragma wal_checkpoint(truncate)")\n',
        "",
        (f"{CRASH}::test_a_start_writes_what_it_finds_in_the_log_to_the_database_file",),
    ),
)

HOSTILE = (
    Breakage(
        "store-batches-without-checking-their-crc",
        "P7",
        "warp/_records.pyx",
        """\
        refuse(verdict, CORRUPT_MESSAGE, b"batch has a wrong CRC")
        return
    judge_header(verdict)
""",
        """\
        pass
    judge_header(verdict)
""",
        (f"{PRODUCE}::test_parts_that_pass_are_stored_together_and_the_others_have_their_own_error",),
    ),
    Breakage(
        "read-on-after-a-malformed-frame",
        "P7",
        "warp/server/connection.py",
        """\
            frames = FrameSplitter.buffer_updated(self, nbytes)
        except DecodeError as error:
            self._close(frame_error(error))
            return
""",
        """\
            frames = FrameSplitter.buffer_updated(self, nbytes)
        except DecodeError:
            return
""",
        (f"{LIMITS}::test_a_size_that_can_not_be_is_refused_without_memory",),
    ),
    Breakage(
        "read-a-frame-of-any-size",
        "P7",
        "warp/server/incoming.py",
        "        FrameSplitter.__init__(self, pool.receive_buffer, pool.frame_bytes_max, pool.memory.try_reserve)\n",
        "        FrameSplitter.__init__(self, pool.receive_buffer, 2**31 - 1, pool.memory.try_reserve)\n",
        (f"{LIMITS}::test_a_size_that_can_not_be_is_refused_without_memory",),
    ),
)

BOUNDED = (
    Breakage(
        "claim-chunks-without-end",
        "P8",
        "warp/log/claims.py",
        "        for chunk_id in claim.chunk_ids:\n            self._cache.keep(chunk_id)\n",
        """\
        claim.chunk_ids = list(chunk_ids)
        for chunk_id in claim.chunk_ids:
            self._cache.keep(chunk_id)
""",
        (f"{CACHE}::test_claims_share_what_is_neither_held_nor_needed_for_a_load",),
    ),
    Breakage(
        "fill-partitions-from-wherever-each-has-come-to",
        "P8",
        "warp/log/plan.py",
        "            oldest = min(self._lines, key=_age)\n",
        "            oldest = next(iter(self._lines))\n",
        (f"{CATCH_UP}::test_partitions_that_lag_behind_come_up_with_the_others",),
    ),
    Breakage(
        "serve-only-those-who-lag-behind",
        "P8",
        "warp/log/plan.py",
        "        if first.want.number not in self._reaches:\n            self._serve(self._next_chunk(first))\n",
        "",
        (f"{CATCH_UP}::test_the_first_partition_is_served_however_far_others_lag_behind",),
    ),
    Breakage(
        "grant-memory-without-end",
        "P8",
        "warp/log/memory.py",
        "        return self.used_bytes + size_bytes <= self.bytes_max or self.used_bytes == 0\n",
        "        return True\n",
        (
            f"{MEMORY}::test_what_fits_is_had_at_once_and_given_back",
            f"{LIMITS}::test_a_frame_is_not_read_before_its_memory_is_there",
        ),
    ),
    Breakage(
        "keep-the-memory-of-requests",
        "P8",
        "warp/server/connection.py",
        "        self._memory.release(exchange.size_bytes)\n",
        "",
        (
            f"{LIMITS}::test_a_frame_is_not_read_before_its_memory_is_there",
            f"{ORDER}::test_every_order_of_three_kinds_is_answered_in_order",
        ),
    ),
    Breakage(
        "keep-the-memory-of-answers-that-nobody-takes",
        "P8",
        "warp/server/connection.py",
        "                if exchange.release is not None:\n                    exchange.release()\n",
        "",
        (f"{LIMITS}::test_the_memory_of_an_answer_that_nobody_takes_is_given_back",),
    ),
    Breakage(
        "read-requests-without-end",
        "P8",
        "warp/server/connection.py",
        "        waiting = len(self._frames) + len(self._exchanges) + len(self._unanswerable)\n",
        "        waiting = len(self._frames)\n",
        (
            f"{LIMITS}::test_reading_stops_at_the_limit_of_requests_and_goes_on_below_it",
            f"{LIMITS}::test_produces_without_acks_count_as_in_flight",
        ),
    ),
    Breakage(
        "cache-without-end",
        "P8",
        "warp/log/cache.py",
        "        while self.used_bytes + size > self.bytes_max:\n",
        "        while len(self._entries) > self.bytes_max:\n",
        (f"{CACHE}::test_the_bound_holds_at_every_moment_under_many_readers",),
    ),
    Breakage(
        "count-small-segments-for-less-than-they-take",
        "P8",
        "warp/log/image.py",
        "_PART_BYTES = 430\n",
        "_PART_BYTES = 240\n",
        (f"{CACHE}::test_small_segments_count_for_no_less_than_the_memory_that_they_take",),
    ),
    Breakage(
        "decompress-without-end",
        "P8",
        "warp/log/produce.py",
        "            decompressed_bytes_max=self._limits.decompressed_bytes_max,\n",
        "            decompressed_bytes_max=2**31 - 1,\n",
        (f"{PRODUCE}::test_the_rules_of_the_topic_hold",),
    ),
    Breakage(
        "write-into-the-reserve-of-the-disk",
        "P8",
        "warp/objectstore/local.py",
        "        if free_bytes - size_bytes < self._reserve_free_bytes:\n",
        "        if free_bytes < size_bytes:\n",
        (f"{LOCAL}::test_below_the_reserve_writes_are_refused_and_deletes_still_work",),
    ),
    Breakage(
        "seal-without-end",
        "P8",
        "warp/log/flush.py",
        "            and self._sealed_bytes < self._limits.sealed_bytes_max\n",
        "",
        (f"{FLUSH}::test_nothing_is_sealed_while_sealed_segments_hold_all_the_bytes_that_they_may",),
    ),
    Breakage(
        "hedge-without-end",
        "P8",
        "warp/log/hedge.py",
        "        return self._tokens >= _ONE\n",
        "        return True\n",
        (f"{PAID_FLUSH}::test_when_the_whole_store_becomes_slow_hardly_any_put_is_sent_twice",),
    ),
    Breakage(
        "hedge-without-a-request-to-spare",
        "P8",
        "warp/log/upload.py",
        "may_hedge=lambda: is_wanted() and self._may_spend()",
        "may_hedge=is_wanted",
        (f"{PAID_FLUSH}::test_no_put_is_sent_twice_beyond_the_request_budget",),
    ),
    Breakage(
        "let-requests-go-on-that-have-lost",
        "P8",
        "warp/log/race.py",
        "        call.add_done_callback(ended)\n        call.cancel()\n",
        "        call.add_done_callback(ended)\n",
        (
            f"{RACE}::test_the_second_wins_over_a_slow_first_which_is_cancelled",
            f"{RACE}::test_the_first_may_still_win_and_the_second_is_cancelled",
        ),
    ),
    Breakage(
        "read-twice-without-memory-for-it",
        "P8",
        "warp/log/cache.py",
        """\
        if self._waiting_for_space or not self._make_room(self.chunk_bytes):
            return False
        self.used_bytes += self.chunk_bytes
        return True
""",
        """\
        self.used_bytes += self.chunk_bytes
        return True
""",
        (f"{PAID_FETCH}::test_a_second_get_needs_memory_of_its_own",),
    ),
    Breakage(
        "keep-the-memory-of-a-second-get",
        "P8",
        "warp/log/cache.py",
        "        self.used_bytes -= self.chunk_bytes\n        self._grant_space()\n",
        "        self._grant_space()\n",
        (f"{PAID_FETCH}::test_a_slow_get_is_hedged_and_its_readers_share_the_faster_one",),
    ),
    Breakage(
        "evict-what-is-being-read",
        "P8",
        "warp/log/cache.py",
        "            victim = next((chunk_id for chunk_id in self._entries if chunk_id not in self._pins), None)\n",
        "            victim = next(iter(self._entries), None)\n",
        (f"{CACHE}::test_a_chunk_makes_no_room_before_its_reader_has_copied_from_it",),
    ),
)
