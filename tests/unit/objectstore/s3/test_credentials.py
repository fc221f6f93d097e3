"""Where credentials are found, and how they are kept fresh."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.unit.objectstore.s3.support import CREDENTIALS, FixedSource, run
from warp.clock import SystemClock
from warp.errors import ObjectStoreError, StartError
from warp.objectstore.s3 import credentials as module
from warp.objectstore.s3.credentials import (
    RENEW_S_MIN,
    STALE_RENEW_S_MIN,
    Chain,
    CredentialKeeper,
    Credentials,
)

NEWER = Credentials("AKIDNEWER", "another secret")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without credentials, whose files lie in a directory of the test's own."""
    for name in (
        "ACCESS_KEY_ID",
        "SECRET_ACCESS_KEY",
        "SESSION_TOKEN",
        "PROFILE",
        "DEFAULT_PROFILE",
        "ROLE_ARN",
    ):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def test_the_chain_reads_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "B")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "C")
    chain = Chain("")
    assert chain.load() == Credentials("A", "B", "C")
    assert not chain.runs_out


def test_the_chain_reads_profiles_and_reads_them_again_when_asked_to(home: Path) -> None:
    text = (
        "[default]\naws_access_key_id={0}\naws_secret_access_key=B\n"
        "[me]\naws_access_key_id={1}\naws_secret_access_key=D\n"
    )
    (home / "credentials").write_text(text.format("A", "C"))
    default, mine = Chain(""), Chain("me")
    assert default.load() == Credentials("A", "B")
    assert mine.load() == Credentials("C", "D")
    (home / "credentials").write_text(text.format("A2", "C2"))
    assert mine.load() == Credentials("C", "D")
    assert mine.reload() == Credentials("C2", "D")


def test_the_chain_runs_a_credential_process_whose_credentials_run_out(home: Path) -> None:
    command = home / "process.sh"
    command.write_text(
        '#!/bin/sh\necho \'{"Version": 1, "AccessKeyId": "P", "SecretAccessKey": "Q", "SessionToken": "R",'
        ' "Expiration": "2099-01-01T00:00:00Z"}\'\n'
    )
    command.chmod(0o755)
    (home / "config").write_text(f"[default]\ncredential_process = {command}\n")
    chain = Chain("")
    assert chain.load() == Credentials("P", "Q", "R")
    assert chain.runs_out


@pytest.mark.parametrize(
    ("files", "profile", "words"),
    [
        ({}, "", "no credentials for S3: set AWS_ACCESS_KEY_ID"),
        ({}, "nobody", "profile .*nobody.* could not be found"),
        ({"credentials": "[default]\naws_access_key_id=A\n"}, "", "Partial credentials found"),
        ({"config": "[default]\ncredential_process = /nowhere/at/all\n"}, "", "credentials for S3"),
    ],
)
def test_what_the_chain_can_not_find_is_said(
    home: Path, files: dict[str, str], profile: str, words: str
) -> None:
    for name, text in files.items():
        (home / name).write_text(text)
    with pytest.raises(StartError, match=words):
        Chain(profile).load()


def test_credentials_are_renewed_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.005)
    renewed = threading.Event()

    class Renewing(FixedSource):
        def load(self) -> Credentials:
            assert threading.current_thread() is not threading.main_thread()
            return NEWER if renewed.is_set() else CREDENTIALS

    async def whole() -> None:
        keeper = CredentialKeeper(Renewing(runs_out=True), SystemClock())
        await keeper.open()
        assert keeper.current == CREDENTIALS
        renewed.set()
        async with asyncio.timeout(30):
            while keeper.current != NEWER:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await keeper.close()

    run(whole())


def test_old_credentials_stay_while_new_ones_can_not_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.005)
    asked = threading.Semaphore(0)

    class Failing(FixedSource):
        loads = 0

        def load(self) -> Credentials:
            self.loads += 1
            if self.loads > 1:
                asked.release()
                raise ObjectStoreError("credentials for S3 can't be renewed: STS is away")
            return CREDENTIALS

    async def whole() -> None:
        keeper = CredentialKeeper(Failing(runs_out=True), SystemClock())
        await keeper.open()
        for _ in range(2):
            assert await asyncio.to_thread(asked.acquire, timeout=30)
        assert keeper.current == CREDENTIALS
        await keeper.close()

    with caplog.at_level(logging.WARNING):
        run(whole())
    assert "STS is away" in caplog.text


class ClockAt(SystemClock):
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_the_chain_is_not_asked_for_every_refusal_and_more_often_for_stale_credentials() -> None:
    clock, source = ClockAt(), FixedSource()

    async def whole() -> None:
        keeper = CredentialKeeper(source, clock)
        await keeper.open()
        assert not await keeper.renew(CREDENTIALS, are_stale=False)
        assert not await keeper.renew(CREDENTIALS, are_stale=False)
        assert source.reloads == 1
        clock.now += RENEW_S_MIN
        assert not await keeper.renew(CREDENTIALS, are_stale=False)
        assert not await keeper.renew(CREDENTIALS, are_stale=True)
        assert source.reloads == 2
        clock.now += STALE_RENEW_S_MIN
        assert not await keeper.renew(CREDENTIALS, are_stale=True)
        assert source.reloads == 3
        clock.now += STALE_RENEW_S_MIN
        source.credentials.append(NEWER)
        assert await keeper.renew(CREDENTIALS, are_stale=True)
        # Who comes late with the old ones is served at once.
        assert await keeper.renew(CREDENTIALS, are_stale=True)
        assert source.reloads == 4
        await keeper.close()

    run(whole())


def test_those_who_are_refused_together_share_one_look_at_the_chain() -> None:
    """Also when the first of them is given up meanwhile."""
    may_go_on = threading.Event()

    class Slow(FixedSource):
        def reload(self) -> Credentials:
            assert may_go_on.wait(timeout=30)
            return super().reload()

    source = Slow([CREDENTIALS, NEWER])

    async def whole() -> None:
        keeper = CredentialKeeper(source, SystemClock())
        await keeper.open()
        asking = [asyncio.create_task(keeper.renew(CREDENTIALS, are_stale=True)) for _ in range(5)]
        await asyncio.sleep(0)
        asking[0].cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        assert await asyncio.gather(*asking[1:]) == [True] * 4
        assert source.reloads == 1
        await keeper.close()

    run(whole())


def test_a_chain_that_hangs_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_WAIT_S_MAX", 0.01)
    may_go_on = threading.Event()

    class Hanging(FixedSource):
        def reload(self) -> Credentials:
            assert may_go_on.wait(timeout=30)
            return NEWER

    async def whole() -> None:
        keeper = CredentialKeeper(Hanging(), SystemClock())
        await keeper.open()
        for _ in range(2):
            assert not await keeper.renew(CREDENTIALS, are_stale=True)
        may_go_on.set()
        async with asyncio.timeout(30):
            while not await keeper.renew(CREDENTIALS, are_stale=True):
                pass
        assert keeper.current == NEWER
        await keeper.close()

    run(whole())


@pytest.mark.parametrize("is_bug", [False, True])
def test_the_poll_goes_on_after_a_refusal_of_sts_and_after_a_bug(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_bug: bool
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.005)
    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AssumeRole")
    loads = threading.Semaphore(0)

    class Refused:
        """What botocore's own credentials with an end do when STS refuses."""

        def get_frozen_credentials(self) -> None:
            loads.release()
            raise KeyError("bug") if is_bug else denied

    class Refusing(Chain):
        def reload(self) -> Credentials:
            self._found = Refused()  # type: ignore[assignment]
            return CREDENTIALS

    async def whole() -> None:
        keeper = CredentialKeeper(Refusing(""), SystemClock())
        await keeper.open()
        for _ in range(3):
            assert await asyncio.to_thread(loads.acquire, timeout=30)
        assert keeper.current == CREDENTIALS
        await keeper.close()

    run(whole())
    assert ("failed unexpectedly" if is_bug else "AssumeRole") in caplog.text


def test_a_failed_renewal_is_logged_and_leaves_what_there_was(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FixedSource):
        def reload(self) -> Credentials:
            raise StartError("no credentials any more")

    async def whole() -> None:
        keeper = CredentialKeeper(Failing(), SystemClock())
        await keeper.open()
        assert not await keeper.renew(CREDENTIALS, are_stale=True)
        assert keeper.current == CREDENTIALS

    run(whole())
    assert "no credentials any more" in caplog.text
