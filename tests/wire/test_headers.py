"""Headers and whole frames: versions, exceptions, and what can't be read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from tests.wire.messages import versions_of
from tests.wire.strategies import sample
from warp.protocol import (
    APIS,
    Api,
    ApiKey,
    DecodeError,
    EncodeError,
    decode,
    encode,
    encode_request_frame,
    encode_response_frame,
    parse_request_header,
    response_body_offset,
)
from warp.protocol.messages.api_versions import ApiVersionsResponse
from warp.protocol.messages.fetch import FetchPartitionResponse, FetchResponse, FetchTopicResponse
from warp.protocol.messages.metadata import MetadataRequest


def header_bytes(key: int, version: int, correlation_id: int, client_id: bytes | None) -> bytes:
    head = key.to_bytes(2, "big", signed=True) + version.to_bytes(2, "big", signed=True)
    head += correlation_id.to_bytes(4, "big", signed=True)
    return head + (b"\xff\xff" if client_id is None else len(client_id).to_bytes(2, "big") + client_id)


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_every_request_frame_is_read_back(api: Api) -> None:
    for version in versions_of(api.request):
        request = sample(api.request, version)
        assert isinstance(request, api.request)
        frame = b"".join(encode_request_frame(-7, "me", request, version))
        assert int.from_bytes(frame[:4], "big") == len(frame) - 4
        header = parse_request_header(frame[4:])
        assert (header.api_key, header.api_version) == (api.key, version)
        assert (header.correlation_id, header.client_id) == (-7, "me")
        assert decode(api.request, version, frame[4:], header.body_offset) == request


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_every_response_frame_is_read_back(api: Api) -> None:
    for version in versions_of(api.response):
        response = sample(api.response, version)
        assert isinstance(response, api.response)
        frame = b"".join(encode_response_frame(77, response, version))
        assert frame[:8] == (len(frame) - 4).to_bytes(4, "big") + (77).to_bytes(4, "big")
        assert decode(api.response, version, frame[4:], response_body_offset(api.key, version)) == response


def test_api_versions_is_always_answered_with_response_header_0() -> None:
    for version in versions_of(ApiVersionsResponse):
        answer = ApiVersionsResponse(error_code=0, api_keys=[])
        frame = b"".join(encode_response_frame(1, answer, version))
        assert frame == (len(frame) - 4).to_bytes(4, "big") + b"\0\0\0\1" + encode(answer, version)


def test_the_client_id_keeps_its_length_of_two_bytes_and_may_be_null_or_empty() -> None:
    for version, tags in ((8, b""), (9, b"\0")):
        for client_id in (None, "", "kcat", "é"):
            data = header_bytes(3, version, 5, None if client_id is None else client_id.encode()) + tags
            header = parse_request_header(data + b"body")
            assert (header.client_id, header.body_offset) == (client_id, len(data))


def test_tagged_fields_of_a_header_are_skipped() -> None:
    data = header_bytes(3, 9, 5, b"x") + b"\2\1\3abc\x05\0"
    assert parse_request_header(data + b"body").body_offset == len(data)


@pytest.mark.parametrize("tags", [b"", b"\1", b"\1\0", b"\1\0\5", b"\2\1\0\1\0", b"\x80", b"\xff" * 5])
def test_malformed_tagged_fields_of_a_header_are_refused(tags: bytes) -> None:
    with pytest.raises(DecodeError, match="of the header"):
        parse_request_header(header_bytes(3, 9, 5, b"x") + tags)


def test_headers_of_unknown_apis_and_versions_are_read_up_to_the_client_id() -> None:
    for key, version in ((18, 5), (18, 32767), (999, 3), (-1, 0), (4, 9)):
        header = parse_request_header(header_bytes(key, version, 9, b"new") + b"\xff\xff")
        assert (header.api_key, header.api_version) == (key, version)
        assert (header.correlation_id, header.client_id, header.body_offset) == (9, "new", 13)


def test_a_header_cut_short_is_refused() -> None:
    data = header_bytes(3, 9, 5, b"client") + b"\0"
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            parse_request_header(data[:size])


def test_a_client_id_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(DecodeError, match="the client id is not UTF-8"):
        parse_request_header(header_bytes(3, 1, 5, b"\xff\xfe"))
    with pytest.raises(DecodeError, match="a client id of -2 bytes"):
        parse_request_header(bytes(8) + b"\xff\xfe")


@given(st.binary(max_size=30))
def test_random_bytes_are_a_header_or_refused(data: bytes) -> None:
    try:
        header = parse_request_header(data)
    except DecodeError:
        return
    assert 10 <= header.body_offset <= len(data)


def fetch_response(records: Any) -> FetchResponse:
    partition = FetchPartitionResponse(
        partition_index=0, error_code=0, high_watermark=1, aborted_transactions=None, records=records
    )
    topic = FetchTopicResponse(topic="t", topic_id=bytes(16), partitions=[partition, partition])
    return FetchResponse(responses=[topic])


def test_large_record_data_is_passed_on_by_reference() -> None:
    large, small, view = bytes(5000), b"small", memoryview(bytearray(b"v" * 4096))
    parts = encode_response_frame(1, fetch_response([small, large, view]), 12)
    assert [part for part in parts if part is large or part is view] == [large, view] * 2
    whole = b"".join(parts)
    assert int.from_bytes(whole[:4], "big") == len(whole) - 4
    decoded = decode(FetchResponse, 12, whole[4:], response_body_offset(ApiKey.FETCH, 12))
    assert decoded.responses[0].partitions[1].records == small + large + bytes(view)
    assert whole[9:] == encode(fetch_response([small, large, view]), 12)


def test_record_data_that_ends_a_frame_is_its_last_part() -> None:
    large = bytes(5000)
    parts = encode_response_frame(1, fetch_response(large), 4)
    assert parts[-1] is large
    assert len(parts) == 4


def test_records_may_be_null_or_empty() -> None:
    for records, read in ((None, None), (b"", b""), ([], b""), ((), b"")):
        frame = b"".join(encode_response_frame(1, fetch_response(records), 12))
        decoded = decode(FetchResponse, 12, frame[4:], response_body_offset(ApiKey.FETCH, 12))
        assert decoded.responses[0].partitions[0].records == read


def test_what_is_no_record_data_is_refused() -> None:
    for wrong in ("text", 5, [b"a", "b"], [None]):
        with pytest.raises(EncodeError, match=r"FetchPartitionResponse.records: .* is no bytes"):
            encode_response_frame(1, fetch_response(wrong), 12)


def test_a_frame_beyond_2_gib_is_refused() -> None:
    huge = [bytes(2**26)] * 17
    with pytest.raises(EncodeError, match="a frame of 2281701"):
        encode_response_frame(1, fetch_response(huge), 12)


def test_the_correlation_id_and_client_id_of_a_request_frame_are_as_given() -> None:
    frame = b"".join(encode_request_frame(2**31 - 1, None, MetadataRequest(topics=None), 12))
    assert frame[4:14] == b"\0\3\0\x0c\x7f\xff\xff\xff\xff\xff"
