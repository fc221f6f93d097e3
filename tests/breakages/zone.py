"""Breakages of what agents of a zone do for each other, by promise."""

from __future__ import annotations

from tests.breakages.tree import Breakage

CACHE = "tests/unit/log/test_cache_peers.py"
PEERS = "tests/unit/cluster/test_zone_peers.py"
ZONE = "tests/unit/cluster/test_zone_cache.py"
CHUNKS = "tests/unit/http/test_chunks.py"

READ_THROUGH = (
    Breakage(
        "believe-a-peer-that-an-object-is-short",
        "P5",
        "warp/log/cache.py",
        "        for is_store_only in (False, True):\n",
        "        for is_store_only in (False,):\n",
        (f"{CACHE}::test_that_an_object_is_too_short_is_believed_of_the_store_alone",),
    ),
    Breakage(
        "serve-a-peer-what-comes-after-a-gap",
        "P5",
        "warp/log/cache.py",
        "                if len(view) < end - start:\n                    break\n",
        "",
        (f"{CACHE}::test_nothing_that_comes_after_a_gap_is_served",),
    ),
    Breakage(
        "take-the-bytes-of-a-peer-unchecked",
        "P5",
        "warp/cluster/zone_cache.py",
        " and crc32c(answer.body) == checksum\n",
        "\n",
        (f"{PEERS}::test_a_peer_that_answers_nonsense_costs_a_request_to_the_store_and_no_more",),
    ),
    Breakage(
        "ask-a-peer-on-behalf-of-a-peer",
        "P6",
        "warp/log/cache.py",
        "        if is_store_only:\n            load.read_store()\n",
        "",
        (f"{CACHE}::test_a_peer_that_asks_for_what_this_agent_asks_a_peer_for_gets_it_from_the_store",),
    ),
    Breakage(
        "hand-out-any-file-of-the-store",
        "P7",
        "warp/http/chunks.py",
        '    check_key(fields["key"])\n',
        "",
        (f"{CHUNKS}::test_what_is_not_a_range_of_an_object_never_reaches_the_store",),
    ),
    Breakage(
        "keep-what-a-peer-has-taken",
        "P8",
        "warp/http/connection.py",
        "                response.done()\n",
        "                self._loop.call_later(3600, response.done)\n",
        (f"{ZONE}::test_consumers_at_three_agents_cost_one_request_per_chunk",),
    ),
)
