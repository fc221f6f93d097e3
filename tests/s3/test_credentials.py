"""Credentials that change or run out while an agent runs."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.broker.support import Broker, RunWithBroker, batch
from tests.s3.test_errors import values
from tests.support.fault_plan import EXPIRED_TOKEN, Fault, Refuse, RequestHead
from tests.support.fault_proxy import FaultProxy
from tests.support.rgw import RgwServer
from tests.support.sigv4 import Credentials
from warp.errors import ErrorCode

VALID_S = 3600


@dataclass
class Issuer:
    """A program that gives out temporary credentials, as AWS configuration files may name one."""

    directory: Path
    gone: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        program = self.directory / "issue.py"
        program.write_text(f"print(open({str(self.directory / 'current.json')!r}).read())")
        self.config.write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")

    @property
    def config(self) -> Path:
        return self.directory / "config"

    def issue(self, access_key: str) -> None:
        """From now on it gives these."""
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + VALID_S))
        found = {
            "Version": 1,
            "AccessKeyId": access_key,
            "SecretAccessKey": "s",
            "SessionToken": "t",
            "Expiration": ends,
        }
        (self.directory / "current.json").write_text(json.dumps(found))

    def is_gone(self, head: RequestHead) -> bool:
        """Whether a request is signed with credentials that have run out."""
        key = access_key_of(head)
        self.seen.append(key)
        assert head.headers["x-amz-security-token"] == "t"
        return key in self.gone


def access_key_of(head: RequestHead) -> str:
    return head.headers["authorization"].partition("Credential=")[2].partition("/")[0]


@pytest.fixture
def issuer(server: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Issuer:
    made = Issuer(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(made.config))
    made.issue("key-1")
    return made


on_moto = pytest.mark.parametrize("server", ["moto"], indirect=True)


@on_moto
def test_credentials_that_run_out_are_renewed_and_producers_see_nothing(
    with_s3_broker: RunWithBroker, proxy: FaultProxy, issuer: Issuer
) -> None:
    proxy.fail(EXPIRED_TOKEN, matches=issuer.is_gone)

    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        expected: list[bytes] = []
        for number in range(1, 4):
            value = b"signed with key %d" % number
            assert (await client.produce(topic, batch(value))).error_code == 0
            assert issuer.seen[-1] == f"key-{number}"
            expected.append(value)
            issuer.issue(f"key-{number + 1}")
            issuer.gone.add(f"key-{number}")
        assert await values(client, topic) == expected

    with_s3_broker(test)


@on_moto
def test_while_there_are_no_new_credentials_producers_are_told_to_try_again(
    with_s3_broker: RunWithBroker, proxy: FaultProxy, issuer: Issuer
) -> None:
    proxy.fail(EXPIRED_TOKEN, matches=issuer.is_gone)

    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        assert (await client.produce(topic, batch(b"before"))).error_code == 0
        issuer.gone.add("key-1")
        refused = await client.produce(topic, batch(b"during"))
        assert refused.error_code == ErrorCode.KAFKA_STORAGE_ERROR
        issuer.issue("key-2")
        assert (await client.produce(topic, batch(b"after"))).error_code == 0
        assert await values(client, topic) == [b"before", b"after"]

    with_s3_broker(test)


def write_key(path: Path, key: Credentials) -> None:
    path.write_text(
        f"[default]\naws_access_key_id = {key.access_key}\naws_secret_access_key = {key.secret_key}\n"
    )


@pytest.fixture
def key_file(server: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the agent under test has its key from."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    return path


@on_moto
@pytest.mark.parametrize("fault", [Refuse(403, "InvalidAccessKeyId"), Refuse(403, "AccessDenied")], ids=str)
def test_a_key_that_was_replaced_in_its_file_is_read_anew(
    with_s3_broker: RunWithBroker, proxy: FaultProxy, key_file: Path, fault: Fault
) -> None:
    write_key(key_file, Credentials("old", "secret"))
    gone: set[str] = set()
    proxy.fail(fault, matches=lambda head: access_key_of(head) in gone)

    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        assert (await client.produce(topic, batch(b"old"))).error_code == 0
        write_key(key_file, Credentials("new", "secret"))
        gone.add("old")
        assert (await client.produce(topic, batch(b"new"))).error_code == 0
        assert await values(client, topic) == [b"old", b"new"]

    with_s3_broker(test)


@pytest.mark.rgw
@pytest.mark.parametrize("server", ["rgw"], indirect=True)
def test_a_key_that_the_server_forgets_is_replaced_from_its_file(
    with_s3_broker: RunWithBroker, rgw_server: RgwServer, key_file: Path
) -> None:
    old, new = Credentials("old-key", "old-secret"), Credentials("new-key", "new-secret")
    rgw_server.add_key(old)
    write_key(key_file, old)

    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        assert (await client.produce(topic, batch(b"old"))).error_code == 0
        rgw_server.add_key(new)
        write_key(key_file, new)
        rgw_server.remove_key(old)
        assert (await client.produce(topic, batch(b"new"))).error_code == 0
        assert await values(client, topic) == [b"old", b"new"]

    with_s3_broker(test)
