"""Documents from servers: what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from tests.support.s3_scripted import MODIFIED, MODIFIED_MS
from warp.objectstore.s3.documents import (
    TAGS_MAX,
    DocumentError,
    ListedObject,
    ListingPage,
    delete_request,
    parse_delete_result,
    parse_error,
    parse_listing,
)

PARSERS = [parse_error, parse_listing, parse_delete_result]
ONE = f"<Contents><Key>a%20b</Key><Size>7</Size><LastModified>{MODIFIED}</LastModified></Contents>"


def test_an_error_is_read_with_and_without_a_namespace() -> None:
    for root in ("Error", 'Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'):
        document = f"<{root}><Code> NoSuchKey </Code><Message>a &lt;b&gt;</Message><Other/></Error>"
        assert parse_error(document.encode()) == {"Code": "NoSuchKey", "Message": "a <b>"}


def test_keys_of_a_listing_are_decoded_if_it_says_that_they_are_encoded() -> None:
    plain = f"<ListBucketResult>{ONE}</ListBucketResult>"
    assert parse_listing(plain.encode()).objects == [ListedObject("a%20b", 7, MODIFIED_MS)]
    encoded = f"<ListBucketResult><EncodingType>url</EncodingType>{ONE}</ListBucketResult>"
    assert parse_listing(encoded.encode()).objects == [ListedObject("a b", 7, MODIFIED_MS)]


def test_a_listing_may_be_empty_and_tell_times_in_other_ways() -> None:
    assert parse_listing(b"<ListBucketResult/>") == ListingPage([], "")
    for time in ("2026-11-22T10:11:12Z", "2026-11-22T12:11:12+02:00", "2026-11-22T10:11:12"):
        document = f"<ListBucketResult>{ONE.replace(MODIFIED, time)}</ListBucketResult>"
        assert parse_listing(document.encode()).objects[0].modified_ms == MODIFIED_MS


@pytest.mark.parametrize(
    "change",
    [
        ("7", "-7"),
        ("7", ""),
        ("7", "7.5"),
        ("7", "9" * 30),
        ("7", "७"),
        (MODIFIED, "yesterday"),
        ("Key", "Name"),
    ],
)
def test_an_object_that_makes_no_sense_is_refused(change: tuple[str, str]) -> None:
    with pytest.raises(DocumentError):
        parse_listing(f"<ListBucketResult>{ONE.replace(*change)}</ListBucketResult>".encode())


@pytest.mark.parametrize(
    "document",
    [
        '<!DOCTYPE Error [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><Error><Code>&b;</Code></Error>',
        '<!DOCTYPE Error SYSTEM "file:///etc/passwd"><Error/>',
        '<?xml version="1.0"?><!DOCTYPE Error><Error/>',
        "<Error><Code>&undefined;</Code></Error>",
        '<?xml version="1.0" encoding="nonsense"?><Error/>',
        "<Error>",
        "<html/>",
        "",
    ],
)
def test_document_types_and_nonsense_are_refused(document: str) -> None:
    for parse in PARSERS:
        with pytest.raises(DocumentError):
            parse(document.encode())


@given(st.binary(max_size=200), st.sampled_from(PARSERS))
def test_no_bytes_do_worse_than_being_refused(data: bytes, parse: object) -> None:
    assert callable(parse)
    for body in (
        data,
        b"<Error>" + data + b"</Error>",
        b"<ListBucketResult>" + data + b"</ListBucketResult>",
    ):
        try:
            parse(body)
        except DocumentError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_deep_documents_do_not_break_the_parser() -> None:
    deep = b"<Error>" + b"<a>" * 10_000 + b"</a>" * 10_000 + b"</Error>"
    assert parse_error(deep) == {}


def test_keys_to_delete_are_escaped() -> None:
    assert b"<Key>a&lt;b&amp;c</Key>" in delete_request(["a<b&c"])


@pytest.mark.parametrize("parse", PARSERS)
def test_a_document_of_tags_and_nothing_else_is_refused_before_it_is_built(
    parse: Callable[[bytes], object],
) -> None:
    with pytest.raises(DocumentError, match="more than 100000 tags"):
        parse(b"<Error>" + b"<a/>" * TAGS_MAX + b"</Error>")


def test_a_full_page_with_all_that_s3_says_of_objects_is_read() -> None:
    details = "".join(f"<Field{number}>x</Field{number}>" for number in range(15))
    contents = ONE.replace("</Contents>", f"{details}</Contents>") * 1000
    page = parse_listing(f"<ListBucketResult>{contents}</ListBucketResult>".encode())
    assert len(page.objects) == 1000
