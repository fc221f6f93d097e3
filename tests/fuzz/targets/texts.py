"""Small things that strangers write: names, certificates' subjects, subscriptions, notices, keys of objects.

The first byte chooses which reader gets the rest. Each reads it, or refuses it as it is meant to, and what it reads can
be written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.fuzz.marks import mark, said
from tests.fuzz.target import Target
from tests.fuzz.targets.users import ED_KEY
from warp.cluster.hints import FORMAT, UnknownFormat, decode as read_notice, encode, encode_log
from warp.cluster.topic_request import check_topic_name
from warp.errors import KafkaError
from warp.groups.subscription import subscribed
from warp.http.access import parse_basic
from warp.ids import BrokerId, segment_key_time_ms
from warp.objectstore.base import check_key
from warp.protocol import DecodeError, decode, encode as encode_message
from warp.protocol.messages.consumer_groups import ConsumerProtocolSubscription
from warp.security.names import check_name, prepare_name, unescape_name
from warp.security.tls_names import MalformedName, subject_text
from warp.security.tls_rules import PrincipalRules

RULES: Final = PrincipalRules(r"RULE:^CN=([^,]*),.*$/$1-x/L,RULE:^.*OU=(\w+).*$/$1/U,DEFAULT")


def check(data: bytes) -> None:
    """Give it to one of the readers."""
    if data:
        reader = READERS[data[0] % len(READERS)]
        try:
            reader(data[1:])
        except Refused as refused:
            mark(reader.__name__, said(refused))
        else:
            mark(reader.__name__)


class Refused(Exception):
    """As it should be."""


def _subject(data: bytes) -> None:
    try:
        text = subject_text(data)
    except MalformedName as error:
        raise Refused(str(error)) from error
    assert isinstance(text.encode("utf-8", "surrogatepass"), bytes)
    try:
        RULES.name(text)
    except ValueError as error:
        raise Refused("rules") from error


def _name(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for read in (prepare_name, check_name, unescape_name):
        try:
            found = read(text)
        except ValueError as error:
            mark(read.__name__, said(error))
            continue
        mark(read.__name__)
        if read is prepare_name:
            assert found.isprintable()
            assert prepare_name(found) == found, "prepared twice it is another"


def _subscription(data: bytes) -> None:
    found = subscribed(data)
    try:
        full = decode(ConsumerProtocolSubscription, 0, data, 2, allow_trailing=True)
    except DecodeError as error:
        raise Refused(str(error).partition(" at byte")[0]) from error
    if found is not None:
        assert found == full.topics


def _notice(data: bytes) -> None:
    try:
        notice = read_notice(data.decode("utf-8", "replace"))
    except UnknownFormat as error:
        raise Refused("notice") from error
    assert all(hint.log_id > 0 and hint.next_offset >= 0 and hint.start_offset >= 0 for hint in notice.logs)
    if notice.logs:
        (again,) = encode(BrokerId(notice.sender), iter([*map(encode_log, notice.logs)]), 2**30)
        assert read_notice(again).logs == notice.logs


def _key(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    time_ms = segment_key_time_ms(text)
    mark("key", time_ms is None)
    if time_ms is not None:
        name = text.rpartition("/")[2]
        assert f"{time_ms:012x}" == name[:12].lower(), "not a time as keys have it"
    try:
        check_key(text)
    except ValueError as error:
        raise Refused(str(error)) from error


def _topic(data: bytes) -> None:
    try:
        check_topic_name(data.decode("utf-8", "replace"))
    except KafkaError as error:
        raise Refused(error.code.name) from error


def _basic(data: bytes) -> None:
    try:
        user, _ = parse_basic(data.decode("latin-1"))
    except ValueError as error:
        raise Refused(str(error)) from error
    assert user


READERS: Final[tuple[Callable[[bytes], None], ...]] = (
    _subject,
    _name,
    _subscription,
    _notice,
    _key,
    _topic,
    _basic,
)


def _certificate(*attributes: tuple[Any, str]) -> bytes:
    import datetime as dt

    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(ED_KEY.public_key())
    made = (
        made.serial_number(5)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    )
    return made.sign(ED_KEY, None).public_bytes(Encoding.DER)


def seeds() -> Iterable[bytes]:
    """One or two for each reader."""
    oid = x509.NameOID
    yield b"\0" + _certificate(
        (oid.COMMON_NAME, "alice, =+"), (oid.ORGANIZATIONAL_UNIT_NAME, "dev"), (oid.COUNTRY_NAME, "DE")
    )
    yield b"\0" + _certificate((oid.SERIAL_NUMBER, "1"), (oid.COMMON_NAME, " é#"))
    for text in ("alice", "\u2168\u00aa", "a=2Cb=3D", "\u0627\u0031\u0628", "*"):
        yield b"\1" + text.encode()
    full = ConsumerProtocolSubscription(topics=["a", "b"], user_data=b"data")
    yield b"\2\0\0" + encode_message(full, 0)
    yield b"\3" + f"{FORMAT}5;7.1f,8.2.1.1,v3,*".encode()
    yield b"\3" + f"{FORMAT};7fffffffffffffff.7fffffffffffffff".encode()
    yield b"\4segments/0f/018bcfe56800-00112233445566778899"
    yield b"\5a.b_c-d"
    yield b"\6Basic YWxpY2U6c2VjcmV0"


TARGET = Target(
    check,
    seeds,
    words=(
        b"=2C", b"=3D", b"segments/", b"receipts/", b"Basic ", b".", b"..", b";", b",", b"v", b"*", b"+", b"_", b"0x",
        b"-", b"\xc2\xad", b"\xe2\x85\xa8", b"\xd8\xa7", b"\xe2\x80\x8f", b"\x30\x82", b"\x06\x03\x55\x04\x03",
        b"\x1e", b"\x1c", b"\x84\xff\xff\xff\xff", b"7fffffffffffffff", b"\0\x01", b"\xff\xff\xff\xff",
    ),
    input_bytes_max=1024,
)  # fmt: skip
