"""What the S3 store asks for, and what it makes of the answers."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from tests.support.s3_scripted import (
    MODIFIED_MS,
    FakeServer,
    Fault,
    Request,
    TinyS3,
    answer,
    delete_result,
    error,
    listing,
    part_of,
    scripted,
)
from tests.unit.objectstore.s3.support import check
from warp._crc32c import crc32c
from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject
from warp.objectstore.base import ObjectInfo, SummedParts
from warp.objectstore.s3.documents import DocumentError
from warp.objectstore.s3.errors import BadAnswer, Cut, S3Error
from warp.objectstore.s3.store import DELETE_KEYS_MAX, LISTING_BYTES_MAX, SINGLE_DELETES_AT_A_TIME, S3Store

OK = answer(200)
DATA = b"0123456789"


def test_a_put_carries_the_checksum_of_its_parts_and_an_unsigned_payload() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("segments/ab/x=1", [b"012", memoryview(b"345"), bytearray(b"6789")])
        (request,) = server.requests
        assert (request.method, request.target) == ("PUT", "/bucket/p/segments/ab/x%3D1")
        assert request.body == DATA
        checksum = base64.b64encode(crc32c(DATA).to_bytes(4, "big")).decode()
        assert request.headers["x-amz-checksum-crc32c"] == checksum
        assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
        assert "x-amz-checksum-crc32c" in request.headers["authorization"]

    check(lambda _: OK, test, prefix="p/")


def test_a_checksum_that_is_known_is_sent_as_it_is() -> None:
    """So that the server finds out when the bytes have changed since it was made."""

    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("k", SummedParts([DATA[:5], DATA[5:]], crc32c(DATA) ^ 1))
        (request,) = server.requests
        checksum = base64.b64encode((crc32c(DATA) ^ 1).to_bytes(4, "big")).decode()
        assert request.headers["x-amz-checksum-crc32c"] == checksum
        assert request.body == DATA

    check(lambda _: OK, test)


def test_payloads_are_signed_by_setting() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("k", [DATA[:5], DATA[5:]])
        assert server.requests[0].headers["x-amz-content-sha256"] == hashlib.sha256(DATA).hexdigest()

    check(lambda _: OK, test, sign_payload=True)


# ---- reading ----


def test_a_range_is_asked_for_and_handed_over() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.get("k", 2, 5) == b"23456"
        assert server.requests[0].headers["range"] == "bytes=2-6"

    check(scripted(part_of(DATA, 2, 7)), test)


def test_a_range_that_ends_behind_the_object_is_short() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        for start, there in ((8, b"89"), (10, b""), (500, b"")):
            with pytest.raises(ShortObject) as caught:
                await store.get("k", start, 5)
            assert caught.value.data == there
        assert store.traffic.requests == {("get", "ok"): 3}
        assert store.traffic.received_bytes == 2, "error documents are no objects"

    check(TinyS3(objects={"k": DATA}), test)


def test_a_server_without_ranges_may_send_the_whole_object_where_that_is_what_was_asked_for() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.get("k", 0, 10) == DATA
        with pytest.raises(ShortObject) as caught:
            await store.get("k", 0, 11)
        assert caught.value.data == DATA
        with pytest.raises(BadAnswer):
            await store.get("k", 0, 9)
        with pytest.raises(BadAnswer):
            await store.get("k", 1, 10)

    check(lambda _: answer(200, DATA), test)


@pytest.mark.parametrize(
    "given",
    [
        answer(206, DATA[:5]),
        answer(206, DATA[:5], content_range="bytes 1-5/10"),
        answer(206, DATA[:4], content_range="bytes 0-4/10"),
        answer(206, DATA[:3], content_range="bytes 0-2/10"),
        answer(206, DATA[:3], content_range="bytes 0-2/*"),
        answer(206, DATA[:5], content_range="bytes a-b/c"),
        answer(206, DATA[:5], content_range="bytes 0-9999999999999999999/10"),
        answer(204),
    ],
    ids=[
        "no range", "another range", "fewer than its range", "fewer for no reason", "fewer of unknown size",
        "no numbers", "huge numbers", "no content",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_the_range_is_refused(given: bytes) -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(BadAnswer):
            await store.get("k", 0, 5)

    check(scripted(given), test)


def test_an_object_that_is_not_there_is_told_from_a_bucket_that_is_not_there() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(ObjectNotFound):
            await store.get("k", 0, 5)
        with pytest.raises(S3Error, match="NoSuchBucket"):
            await store.get("k", 0, 5)
        with pytest.raises(S3Error, match="404"):
            await store.get("k", 0, 5)  # from a proxy that does not know
        with pytest.raises(ObjectNotFound):
            await store.head("k")
        with pytest.raises(ObjectStoreError, match="bucket 'bucket' does not exist") as caught:
            await store.head("k")
        assert not isinstance(caught.value, ObjectNotFound)

    check(
        scripted(
            error(404, "NoSuchKey"), error(404, "NoSuchBucket"), answer(404, b"<html>"),
            answer(404), answer(200), answer(404), answer(404),
        ),
        test,
    )  # fmt: skip


def test_a_get_that_is_cut_goes_on_where_it_ended_in_the_same_object() -> None:
    whole = part_of(DATA, 0, 10, etag='"first"')

    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.get("k", 0, 10) == DATA
        asked = [(request.headers["range"], request.headers.get("if-match")) for request in server.requests]
        assert asked == [
            ("bytes=0-9", None),
            ("bytes=4-9", '"first"'),
            ("bytes=5-9", '"first"'),
        ]
        assert store.traffic.requests == {("get", "cut"): 2, ("get", "ok"): 1}
        assert store.traffic.received_bytes == 10

    check(
        scripted(
            Fault(whole[: -len(DATA)] + DATA[:4]),
            Fault(part_of(DATA, 4, 10, etag='"first"')[:-5]),
            part_of(DATA, 5, 10, etag='"first"'),
        ),
        test,
    )


def test_a_get_that_is_cut_begins_again_where_the_object_has_no_tag() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.get("k", 0, 10) == DATA
        assert [request.headers["range"] for request in server.requests] == ["bytes=0-9"] * 3

    check(
        scripted(
            Fault(part_of(DATA, 0, 10, etag="absent")[:-3]),
            Fault(part_of(DATA, 0, 10, etag='W/"weak"')[:-3]),
            part_of(DATA, 0, 10),
        ),
        test,
    )


def test_an_object_that_was_replaced_while_it_was_read_is_an_error() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(ObjectStoreError, match="replaced while it was read"):
            await store.get("k", 0, 10)

    check(scripted(Fault(part_of(DATA, 0, 10)[:-3]), error(412, "PreconditionFailed")), test)


@pytest.mark.parametrize(
    "then",
    [part_of(b"9876543210", 7, 10, etag='"e2"'), Fault(part_of(b"9876543210", 7, 10, etag='"e2"')[:-1])],
    ids=["whole", "cut"],
)
def test_two_objects_are_not_mixed_by_a_server_that_knows_no_if_match(then: bytes | Fault) -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(ObjectStoreError, match="replaced while it was read"):
            await store.get("k", 0, 10)

    check(scripted(Fault(part_of(DATA, 0, 10)[:-3]), then), test)


def test_a_get_that_is_cut_behind_its_last_byte_is_continued_with_that_byte() -> None:
    """There are no empty ranges to ask for."""
    chunked = part_of(DATA, 0, 10, content_length="absent", transfer_encoding="chunked")
    chunked = chunked.removesuffix(DATA) + b"a\r\n" + DATA + b"\r\n"

    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.get("k", 0, 10) == DATA
        assert [request.headers["range"] for request in server.requests] == ["bytes=0-9", "bytes=9-9"]

    check(scripted(Fault(chunked), part_of(DATA, 9, 10)), test)


def test_a_cut_answer_with_more_than_it_promised_is_refused() -> None:
    given = answer(206, DATA[:8], content_range="bytes 0-4/10", etag='"e1"')

    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(BadAnswer):
            await store.get("k", 0, 10)

    check(scripted(Fault(given[:-1])), test)


def test_a_continued_get_of_a_short_object_hands_over_all_of_it() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(ShortObject) as caught:
            await store.get("k", 0, 100)
        assert caught.value.data == DATA

    check(scripted(Fault(part_of(DATA, 0, 10)[:-3]), part_of(DATA, 7, 10)), test)


def test_head_says_size_and_time() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.head("k") == ObjectInfo("k", 10, MODIFIED_MS)
        server.respond = scripted(answer(200, content_length="absent"), answer(200, content_length="7"))
        with pytest.raises(BadAnswer, match="how large"):
            await store.head("k")
        with pytest.raises(BadAnswer, match="when it was stored"):
            await store.head("k")

    check(TinyS3(objects={"k": DATA}), test)


# ---- create ----


def test_create_asks_that_the_key_be_free() -> None:
    tiny = TinyS3()

    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.create("k", b"mine") is True
        assert await store.create("k", b"theirs") is False
        assert tiny.objects == {"k": b"mine"}
        assert [request.headers["if-none-match"] for request in server.requests] == ["*", "*"]
        assert store.traffic.requests == {("put", "ok"): 1, ("put", "conflict"): 1}

    check(tiny, test)


@pytest.mark.parametrize(
    "lost",
    [Fault(), Fault(b"nonsense\r\n\r\n"), error(500, "InternalError"), answer(503, b"<html>busy</html>")],
    ids=["cut", "garbled", "500", "503 of a proxy"],
)
@pytest.mark.parametrize(
    ("there", "expected"), [(b"mine", True), (b"other", False), (b"mine and more", False)]
)
def test_a_create_whose_answer_was_lost_finds_out_whose_the_object_is(
    there: bytes, expected: bool, lost: bytes | Fault
) -> None:
    tiny = TinyS3(objects={"k": there})

    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.create("k", b"mine") is expected

    check(scripted(lost, then=tiny), test)


def test_a_create_that_was_cut_before_it_arrived_takes_effect_by_repetition() -> None:
    tiny = TinyS3()

    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.create("k", b"mine") is True
        assert tiny.objects == {"k": b"mine"}

    check(scripted(Fault(), error(500, "InternalError"), then=tiny), test)


def test_a_create_that_is_cut_every_time_reads_back_before_it_gives_up() -> None:
    tiny = TinyS3()

    def respond(request: Request) -> bytes | Fault:
        return Fault() if request.method == "PUT" else tiny(request)

    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(Cut):
            await store.create("k", b"mine")
        tiny.objects["k"] = b"mine"
        assert await store.create("k", b"mine") is True
        tiny.objects["k"] = b"other"
        assert await store.create("k", b"mine") is False

    check(respond, test)


def test_a_create_beside_another_one_waits_for_what_becomes_of_that() -> None:
    conflict = error(409, "ConditionalRequestConflict")
    tiny = TinyS3()

    async def test(store: S3Store, server: FakeServer) -> None:
        # The other one fails: ours takes its place.
        assert await store.create("k", b"mine") is True
        # The other one succeeds.
        server.respond = scripted(conflict, then=TinyS3(objects={"k": b"other"}))
        assert await store.create("k", b"mine") is False
        # Neither, for ever.
        server.respond = lambda request: conflict if request.method == "PUT" else error(404, "NoSuchKey")
        with pytest.raises(ObjectStoreError, match="again and again"):
            await store.create("k", b"mine")

    check(scripted(conflict, then=tiny), test)


def test_a_server_that_knows_no_conditional_puts_refuses_the_create() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(S3Error, match="501 NotImplemented"):
            await store.create("k", b"mine")

    check(lambda _: error(501, "NotImplemented"), test, attempts=1)


# ---- listing ----


async def listed(store: S3Store, prefix: str = "") -> list[str]:
    return [found.key async for found in store.list(prefix)]


def test_a_listing_follows_its_pages_and_leaves_the_prefix_out() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        found = [each async for each in store.list("segments/")]
        assert found == [
            ObjectInfo("segments/a", 3, MODIFIED_MS),
            ObjectInfo("segments/x=1", 3, MODIFIED_MS),
            ObjectInfo("segments/b", 3, MODIFIED_MS),
        ]
        assert server.requests[0].query == {
            "list-type": "2", "encoding-type": "url", "max-keys": "1000", "prefix": "my/p/segments/",
        }  # fmt: skip
        assert server.requests[1].query["continuation-token"] == "a/+=&token"

    check(
        scripted(
            listing(["my/p/segments/a", "my/p/segments/x%3D1"], "a/+=&amp;token"),
            listing(["my/p/segments/b"]),
        ),
        test,
        prefix="my/p/",
    )


def test_keys_that_nobody_asked_for_or_that_are_none_of_ours_are_left_out() -> None:
    keys = ["p/ok", "other/ok", "p/.hidden", "p//empty", "p/with%20space", "p/../up", "p/", "pp/ok"]

    async def test(store: S3Store, server: FakeServer) -> None:
        assert await listed(store) == ["ok"]

    check(scripted(listing(keys)), test, prefix="p/")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no xml",
        b"<Other/>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><ListBucketResult>&a;</ListBucketResult>',
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>k</Key></Contents></ListBucketResult>",
    ],
)
def test_a_listing_that_makes_no_sense_is_an_error_and_not_an_empty_listing(body: bytes) -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(DocumentError):
            await listed(store)

    check(scripted(answer(200, body)), test)


def test_a_listing_that_never_ends_or_is_too_large_is_an_error() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(BadAnswer, match="again and again"):
            await listed(store)
        server.respond = lambda _: answer(200, content_length=str(LISTING_BYTES_MAX + 1))
        with pytest.raises(BadAnswer, match="larger than"):
            await listed(store)

    check(lambda _: listing(["k"], "same"), test)


# ---- deleting ----


def keys_in(request: Request) -> list[str]:
    return re.findall("<Key>(.*?)</Key>", request.body.decode())


def test_objects_are_deleted_a_thousand_at_a_time() -> None:
    keys = [f"k{number}" for number in range(2 * DELETE_KEYS_MAX + 1)]

    async def test(store: S3Store, server: FakeServer) -> None:
        await store.delete(keys)
        assert [request.method for request in server.requests] == ["POST", "POST", "DELETE"]
        assert [*keys_in(server.requests[0]), *keys_in(server.requests[1])] == [
            f"p/{key}" for key in keys[:-1]
        ]
        for request in server.requests[:2]:
            digest = base64.b64encode(hashlib.md5(request.body).digest()).decode()
            assert request.headers["content-md5"] == digest
            assert request.target == "/bucket/?delete"
        assert store.traffic.requests == {("delete", "ok"): 3}

    check(TinyS3(), test, prefix="p/")


def test_no_keys_are_no_request() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.delete([])
        assert not server.requests

    check(scripted(), test)


def test_keys_that_failed_for_the_moment_are_deleted_again() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.delete(["a", "b", "c", "d"])
        assert [keys_in(request) for request in server.requests] == [["a", "b", "c", "d"], ["b", "c"]]

    failures = delete_result(("b", "InternalError"), ("c", "SlowDown"), ("d", "NoSuchKey"))
    check(scripted(failures, delete_result()), test)


@pytest.mark.parametrize("failure", [("b", "AccessDenied"), ("stranger", "InternalError")])
def test_a_key_that_can_not_be_deleted_is_an_error(failure: tuple[str, str]) -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(ObjectStoreError, match=failure[0]):
            await store.delete(["a", "b"])

    check(scripted(delete_result(failure)), test)


def test_keys_that_fail_for_ever_are_an_error() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(ObjectStoreError, match="again and again"):
            await store.delete(["a", "b"])
        assert len(server.requests) == 3

    check(lambda _: delete_result(("b", "InternalError")), test, attempts=3)


@pytest.mark.parametrize("refusal", [error(501, "NotImplemented"), error(405, "MethodNotAllowed")])
def test_a_server_that_can_not_delete_many_is_asked_for_one_at_a_time(refusal: bytes) -> None:
    tiny = TinyS3(objects={"a": b"", "b": b"", "c": b""})

    async def test(store: S3Store, server: FakeServer) -> None:
        await store.delete(["a", "b", "gone"])
        await store.delete(["c", "gone"])
        assert not tiny.objects
        assert [request.method for request in server.requests].count("POST") == 1

    check(lambda request: refusal if request.method == "POST" else tiny(request), test)


def test_who_may_not_delete_many_at_once_deletes_one_at_a_time() -> None:
    tiny = TinyS3(objects=dict.fromkeys("abcd", b""))

    async def test(store: S3Store, server: FakeServer) -> None:
        await store.delete(["a", "b"])
        await store.delete(["c", "d"])
        assert not tiny.objects
        assert [request.method for request in server.requests] == ["POST", *["DELETE"] * 4]

    check(lambda request: error(403, "AccessDenied") if request.method == "POST" else tiny(request), test)


def test_who_may_not_delete_at_all_tries_both_ways_again_later() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        for _ in range(2):
            server.requests.clear()
            with pytest.raises(S3Error, match="AccessDenied"):
                await store.delete(["a", "b"])
            assert [request.method for request in server.requests] == ["POST", "DELETE", "DELETE"]

    check(lambda _: error(403, "AccessDenied"), test)


def test_a_store_that_is_away_is_not_asked_for_every_key() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(S3Error, match="InternalError"):
            await store.delete([f"k{number}" for number in range(100)])
        assert len(server.requests) == 1 + SINGLE_DELETES_AT_A_TIME

    refuse = error(500, "InternalError")
    check(scripted(error(501, "NotImplemented"), then=lambda _: refuse), test, attempts=1)


def test_single_deletes_take_what_is_gone_for_deleted_and_tell_of_the_rest() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.delete(["gone"])
        with pytest.raises(S3Error, match="AccessDenied"):
            await store.delete(["a"])

    check(scripted(error(404, "NoSuchKey"), error(403, "AccessDenied")), test)


# ---- check ----


def test_check_asks_once_for_the_bucket() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.check()
        assert [(request.method, request.target) for request in server.requests] == [("HEAD", "/bucket/")]
        with pytest.raises(ObjectStoreError, match="does not exist"):
            await store.check()
        with pytest.raises(ObjectStoreError, match="503"):
            await store.check()
        assert store.traffic.requests == {
            ("head", "ok"): 1,
            ("head", "not_found"): 1,
            ("head", "slow_down"): 1,
        }

    check(scripted(OK, answer(404), answer(503)), test)
