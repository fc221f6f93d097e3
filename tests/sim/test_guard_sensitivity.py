"""That the simulator would notice who gets in, or is kept out: the product is broken on purpose, which has to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.sim.guard import GUARDED_SEED, SEEDS_PER_GUARD
from tests.sim.world import simulate
from warp.handlers import fetch
from warp.metadata.entries import EntryChange
from warp.protocol.types import ApiKey
from warp.security.acl_authorizer import AclAuthorizer
from warp.security.credentials import Credentials
from warp.security.quotas.quotas import Quotas
from warp.server import authentication

SEEDS = range(GUARDED_SEED, GUARDED_SEED + 4 * SEEDS_PER_GUARD, SEEDS_PER_GUARD)


def complaints() -> str:
    """What the first guarded seed says that says anything."""
    for seed in SEEDS:
        violations = simulate(seed, settle_s=20.0).violations
        if violations:
            return "\n".join(violations)
    return ""


def test_acls_that_stay_remembered_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AclAuthorizer, "_forget", lambda *_: None)
    monkeypatch.setattr(AclAuthorizer, "_forget_everything", lambda *_: None)
    assert "P10: guest-" in complaints()


def test_acls_that_can_only_come_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    take = AclAuthorizer.entries_changed

    def hoard(self: AclAuthorizer, entries: Mapping[str, str], changes: Sequence[EntryChange]) -> None:
        take(self, entries, [change for change in changes if change.value is not None])

    monkeypatch.setattr(AclAuthorizer, "entries_changed", hoard)
    assert "may not write, and" in complaints()


def test_requests_that_pass_before_authentication_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_PASSING", authentication._PASSING | {int(ApiKey.PRODUCE)})
    assert "answered a stranger" in complaints()


def test_waiting_fetches_that_are_not_asked_again_about_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_withhold", lambda *_: None)
    assert "turned out while it waited" in complaints()


def test_users_that_can_only_come_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hoard(self: Credentials, entries: Mapping[str, str], changes: Sequence[EntryChange]) -> None:
        self._entries = {**self._entries, **entries}

    monkeypatch.setattr(Credentials, "entries_changed", hoard)
    assert "who does not exist" in complaints()


def test_passwords_that_are_not_compared_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def believe(*_: Any) -> bool:
        return True

    monkeypatch.setattr("warp.security.plain.Passwords._is_password", believe)
    assert "has another password" in complaints()


def test_quotas_that_nobody_heeds_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quotas, "load", lambda *_: None)
    assert "has a quota that nobody heeds" in complaints()
