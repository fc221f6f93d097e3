"""Breakages of what the S3 store does for the promises."""

from __future__ import annotations

from tests.breakages.tree import Breakage

ERRORS = "tests/s3/test_errors.py"
START = "tests/s3/test_start.py"

ON_S3 = (
    Breakage(
        "take-an-error-of-s3-for-success",
        "P1",
        "warp/objectstore/s3/client.py",
        "                if answer.is_success or answer.status in operation.expected:\n",
        "                if answer.status != 404:\n",
        (f"{ERRORS}::test_while_s3_takes_nothing_producers_are_told_to_try_again",),
    ),
    Breakage(
        "send-objects-without-their-checksum",
        "P1",
        "warp/objectstore/s3/store.py",
        'headers=[("x-amz-checksum-crc32c", checksum), ("x-amz-sdk-checksum-algorithm", "CRC32C")],\n',
        'headers=[("x-amz-sdk-checksum-algorithm", "CRC32C"), ("x-amz-meta-crc32c", checksum)],\n',
        (f"{START}::test_what_a_server_can_do_is_seen_at_start",),
    ),
    Breakage(
        "read-again-what-has-come-of-a-range",
        "P5",
        "warp/objectstore/s3/ranges.py",
        "        self._position += len(piece)\n",
        "",
        (f"{ERRORS}::test_a_get_that_is_cut_is_resumed_where_it_ended",),
    ),
)
