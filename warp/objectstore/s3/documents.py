"""The XML that S3 answers with, read without trust: bounded by whoever received it, document types refused.

Without a document type there are no entities beyond XML's own, so a document never grows while it is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser
from xml.sax.saxutils import escape

from warp.errors import ObjectStoreError
from warp.objectstore.base import Buffer

TAGS_MAX = 100_000
"""Of a document; a full page of a listing has some 30,000. 8 MiB of nothing else would take seconds and a gigabyte."""

_ERROR_FIELDS = ("Code", "Message", "Region", "RequestId")


class DocumentError(ObjectStoreError):
    """A server's answer is not the XML document that it should be."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One `Contents` of a listing, with its whole key."""

    key: str
    size_bytes: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class ListingPage:
    """An answer to ListObjectsV2. `next_token` is empty on the last page."""

    objects: list[ListedObject]
    next_token: str


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """What became of one key of a DeleteObjects that was not deleted."""

    key: str
    code: str
    message: str


def parse_error(body: Buffer) -> Mapping[str, str]:
    """The fields of an `Error` document; absent ones are left out. Raises DocumentError."""
    root = _parse(body, "Error")
    texts = ((name, root.findtext(f"{{*}}{name}")) for name in _ERROR_FIELDS)
    return {name: text.strip() for name, text in texts if text}


def parse_listing(body: Buffer) -> ListingPage:
    """One page of ListObjectsV2, its keys URL-encoded if it says so. Raises DocumentError."""
    root = _parse(body, "ListBucketResult")
    is_encoded = _text(root, "EncodingType", "") == "url"
    objects = [_listed(each, is_encoded) for each in root.iterfind("{*}Contents")]
    next_token = ""
    if _text(root, "IsTruncated", "false").lower() == "true":
        next_token = _text(root, "NextContinuationToken")
    return ListingPage(objects, next_token)


def parse_delete_result(body: Buffer) -> list[DeleteFailure]:
    """The keys that DeleteObjects did not delete. Raises DocumentError."""
    root = _parse(body, "DeleteResult")
    return [
        DeleteFailure(_text(each, "Key", ""), _text(each, "Code", ""), _text(each, "Message", ""))
        for each in root.iterfind("{*}Error")
    ]


def delete_request(keys: Sequence[str]) -> bytes:
    """The body of a DeleteObjects that answers with failures only."""
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>{objects}</Delete>'
    ).encode()


def _listed(contents: Element, is_encoded: bool) -> ListedObject:
    key = _text(contents, "Key")
    size = _text(contents, "Size")
    if not (size.isascii() and size.isdigit() and len(size) < 20):
        raise DocumentError(f"a listing has the size {size[:20]!r}")
    modified_ms = _time_ms(_text(contents, "LastModified"))
    return ListedObject(unquote(key) if is_encoded else key, int(size), modified_ms)


def _time_ms(text: str) -> int:
    """Of `2026-11-22T10:11:12.000Z`."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise DocumentError(f"a listing has the time {text[:40]!r}") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _text(element: Element, name: str, default: str | None = None) -> str:
    text = element.findtext(f"{{*}}{name}", default)
    if text is None:
        raise DocumentError(f"no {name} in the server's answer")
    return text


def _parse(body: Buffer, name: str) -> Element:
    data = bytes(body)
    if data.count(b"<") > TAGS_MAX:
        raise DocumentError(f"the server's answer has more than {TAGS_MAX} tags")
    parser = XMLParser(target=_Builder())
    try:
        parser.feed(data)
        root: Element = parser.close()
    except (ParseError, ValueError, LookupError) as error:
        raise DocumentError(f"the server's answer is no XML: {error}") from error
    if root.tag.rpartition("}")[2] != name:
        raise DocumentError(f"the server answered with the document {root.tag[:60]!r}, not {name!r}")
    return root


class _Builder(TreeBuilder):
    """Builds the tree of a document without a document type."""

    def doctype(self, name: str, public_id: str | None, system_id: str | None) -> None:
        """Called at the beginning of a document type, before any entity is declared."""
        raise DocumentError("the server's answer has a document type, which is refused")
