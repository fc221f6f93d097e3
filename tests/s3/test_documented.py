"""docs/object-storage.md, followed: its policy where policies are held to, its settings, its lines of errors."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process.conftest import ROOT, TIMEOUT_S, environment, run_warp
from tests.support.fault_plan import Hang, Refuse
from tests.support.fault_proxy import FaultProxy
from tests.support.process import AgentProcess
from tests.support.rgw import RgwServer
from tests.support.s3 import S3Server, environment_of, s3_url
from tests.support.sigv4 import ask
from tests.support.tls import Certificate
from warp.clock import SystemClock
from warp.errors import StartError
from warp.ids import IdSource
from warp.objectstore.s3.settings import _PARAMETERS, S3Settings
from warp.objectstore.urls import open_object_store

TEXT = (ROOT / "docs" / "object-storage.md").read_text()
PREFIX = "prod/eu"


def table(heading: str) -> dict[str, list[str]]:
    """The first table under a heading: the cells of each row by its first."""
    lines = TEXT.partition(f"## {heading}\n")[2].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows: dict[str, list[str]] = {}
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[name] = cells
    return rows


def documented_policy(bucket: str) -> dict[str, Any]:
    """The policy, filled in as the document says."""
    found = re.search(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    policy: dict[str, Any] = json.loads(found[1])
    filled: dict[str, Any] = json.loads(
        json.dumps(policy).replace("BUCKET", bucket).replace("PREFIX", PREFIX)
    )
    return filled


def grant(server: RgwServer, bucket: str, policy: dict[str, Any]) -> None:
    """Make the policy hold for a user who owns nothing: as the policy of the bucket, which names whom it is for."""
    for statement in policy["Statement"]:
        statement["Principal"] = {"AWS": [f"arn:aws:iam:::user/{server.stranger.access_key}"]}
    answer = server.ask("PUT", f"/{bucket}", query={"policy": ""}, body=json.dumps(policy).encode())
    assert answer.status == 204, answer


def doctor(server: RgwServer, bucket: str, directory: Path) -> dict[str, dict[str, Any]]:
    """The stranger's findings, by check."""
    done = subprocess.run(
        [sys.executable, "-m", "warp", "doctor", "--json", "--samples", "2", "--data-dir", str(directory),
         "--listen", "127.0.0.1:0", "--http", "off",
         "--object-store", s3_url(bucket, PREFIX, endpoint=server.endpoint)],
        capture_output=True, timeout=TIMEOUT_S, cwd=ROOT, check=False,
        env=environment(**environment_of(server.stranger)),
    )  # fmt: skip
    return {found["check"]: found for found in json.loads(done.stdout)["findings"]}


@pytest.mark.rgw
def test_the_documented_policy_is_enough_for_an_agent_and_for_the_doctor(
    rgw_server: RgwServer, tmp_path: Path
) -> None:
    bucket = rgw_server.new_bucket()
    grant(rgw_server, bucket, documented_policy(bucket))
    found = doctor(rgw_server, bucket, tmp_path)
    for check in ("open", "check", "put-large", "get-large"):
        assert found[f"object-store.{check}"]["severity"] == "ok", found
    # Written by the owner: the policy alone lets the agent read and remove it.
    foreign = f"/{bucket}/{PREFIX}/segments/foreign"
    assert rgw_server.ask("PUT", foreign, body=b"x").status == 200
    answers = [ask(rgw_server.endpoint, rgw_server.stranger, method, foreign) for method in ("GET", "DELETE")]
    assert [answer.status for answer in answers] == [200, 204]
    agent = AgentProcess(
        tmp_path / "data", "--object-store", s3_url(bucket, PREFIX, endpoint=rgw_server.endpoint),
        environment=environment_of(rgw_server.stranger),
    )  # fmt: skip
    with agent:
        assert run_warp("produce", "t", "-b", agent.bootstrap, stdin=b"x\n")[0] == 0
    with agent:
        # Read from the bucket: the memory of the first process is gone.
        assert run_warp("consume", "t", "--to", "end", "-b", agent.bootstrap)[1] == "x\n"
        assert agent.stop() == 0


@pytest.mark.rgw
@pytest.mark.parametrize("action", ["s3:PutObject", "s3:DeleteObject", "s3:ListBucket"])
def test_what_a_policy_lacks_is_named(rgw_server: RgwServer, tmp_path: Path, action: str) -> None:
    bucket = rgw_server.new_bucket()
    policy = documented_policy(bucket)
    objects, listing = policy["Statement"]
    if action == "s3:ListBucket":
        policy["Statement"].remove(listing)
    else:
        objects["Action"].remove(action)
    grant(rgw_server, bucket, policy)
    found = doctor(rgw_server, bucket, tmp_path)["object-store.open"]
    assert found["severity"] == "problem"
    assert f"allow {action} on arn:aws:s3:::{bucket}" in found["remedy"]


@pytest.mark.rgw
def test_what_is_said_of_conditions_and_of_ceph_is_so(rgw_server: RgwServer, tmp_path: Path) -> None:
    strict, lenient = rgw_server.new_bucket(), rgw_server.new_bucket()
    for bucket, operator in ((strict, "StringLike"), (lenient, "StringLikeIfExists")):
        policy = documented_policy(bucket)
        policy["Statement"][1]["Condition"] = {operator: {"s3:prefix": f"{PREFIX}/*"}}
        grant(rgw_server, bucket, policy)
        found = doctor(rgw_server, bucket, tmp_path)
        if bucket == lenient:
            assert {found[f"object-store.{check}"]["severity"] for check in ("open", "check")} == {"ok"}
        else:
            assert found["object-store.open"]["severity"] == "problem"
            assert "StringLikeIfExists" in found["object-store.open"]["remedy"], found
    many = b"<Delete><Object><Key>%s</Key></Object></Delete>" % f"{PREFIX}/segments/foreign".encode()
    refused = ask(
        rgw_server.endpoint, rgw_server.stranger, "POST", f"/{lenient}", query={"delete": ""}, body=many
    )
    assert refused.status == 403


@pytest.mark.rgw
def test_what_is_said_of_versions_on_ceph_is_so(rgw_server: RgwServer, tmp_path: Path) -> None:
    bucket = rgw_server.new_bucket()
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    assert rgw_server.ask("PUT", f"/{bucket}", query={"versioning": ""}, body=body).status == 200
    grant(rgw_server, bucket, documented_policy(bucket))
    found = doctor(rgw_server, bucket, tmp_path)
    assert found["object-store.open"]["severity"] == "ok"
    assert found["object-store.abilities"]["measured"]["conditional_create"] is False


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    rows = {name.strip("`"): cells for name, cells in table("Settings").items()}
    assert set(rows) == set(_PARAMETERS)
    defaults = {field.name: field.default for field in dataclasses.fields(S3Settings)}
    for name, (field, parse) in _PARAMETERS.items():
        default = defaults[field]
        if default != "":
            shown = rows[name][0].strip("`")
            assert parse(shown) == default, name


def documented_lines() -> list[re.Pattern[str]]:
    """What the lines of the table of start-up errors match; `…` and words in capitals stand for anything."""
    patterns = []
    for cell in table("Start-up errors"):
        for quoted in re.findall(r"`([^`]+)`", cell):
            words = re.split(r"…|\bREGION\b|s3:ACTION|\bARN\b", quoted)
            patterns.append(re.compile(".*".join(re.escape(word) for word in words)))
    return patterns


def refusal(url: str) -> str:
    """Why a store does not open."""

    async def run() -> str:
        clock = SystemClock()
        store = open_object_store(url, clock=clock, ids=IdSource(clock, lambda count: b"\7" * count))
        try:
            with pytest.raises(StartError) as caught:
                await store.open()
            return str(caught.value)
        finally:
            await store.close()

    return asyncio.run(run())


def assert_documented(line: str) -> None:
    assert any(pattern.search(line) for pattern in documented_lines()), line


@pytest.fixture
def credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment_of(s3_server.credentials).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("credentials")
def test_the_lines_of_a_wrong_url_are_documented(s3_server: S3Server, tmp_path: Path) -> None:
    server = s3_server.endpoint
    (tmp_path / "empty.pem").write_text("")
    lines = {
        "no region": refusal("s3://bucket"),
        "no bucket": refusal(s3_url("no-such-bucket", endpoint=server)),
        "no host": refusal(s3_url("bucket", endpoint="http://nowhere.invalid")),
        "no server": refusal(s3_url("bucket", endpoint="http://127.0.0.1:1", attempts="1")),
        "no TLS": refusal(s3_url("bucket", endpoint=server.replace("http:", "https:"), attempts="1")),
        "no profile": refusal(s3_url("bucket", endpoint=server, profile="nobody")),
        "no file of certificates": refusal(
            s3_url("bucket", endpoint="https://127.0.0.1:1", ca_bundle=str(tmp_path / "empty.pem"))
        ),
    }
    for line in lines.values():
        assert_documented(line)
    assert len(set(lines.values())) == len(lines)


@pytest.mark.usefixtures("credentials")
def test_the_line_of_missing_credentials_is_documented(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert_documented(refusal(s3_url("bucket", endpoint=s3_server.endpoint)))


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (301, "PermanentRedirect"),
        (400, "AuthorizationHeaderMalformed"),
        (400, ""),
        (400, "ExpiredToken"),
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
        (403, "RequestTimeTooSkewed"),
        (403, "SignatureDoesNotMatch"),
        (404, "NoSuchBucket"),
        (501, "NotImplemented"),
        (503, "SlowDown"),
    ],
)
def test_the_line_of_each_refusal_is_documented(s3_server: S3Server, status: int, code: str) -> None:
    with FaultProxy(s3_server.endpoint) as proxy, proxy.failing(Refuse(status, code)):
        assert_documented(refusal(s3_url(s3_server.new_bucket(), endpoint=proxy.endpoint, attempts="1")))


@pytest.mark.usefixtures("credentials")
def test_the_line_of_a_server_that_does_not_answer_is_documented(s3_server: S3Server) -> None:
    with FaultProxy(s3_server.endpoint) as proxy, proxy.failing(Hang()):
        url = s3_url("bucket", endpoint=proxy.endpoint, attempts="1", read_timeout="100ms")
        assert_documented(refusal(url))


@pytest.mark.usefixtures("credentials")
def test_the_line_of_a_certificate_that_nobody_vouches_for_is_documented(tmp_path: Path) -> None:
    async def run() -> str:
        context = Certificate(tmp_path).server_context()
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        try:
            url = s3_url("bucket", endpoint=f"https://127.0.0.1:{port}", attempts="1")
            return await asyncio.to_thread(refusal, url)
        finally:
            server.close()

    assert_documented(asyncio.run(run()))
