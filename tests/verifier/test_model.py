"""The verifier on histories of a model broker: of right ones it says nothing, in wrong ones it finds what was done."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies

from tests.verifier.figures import CHECKS, Verdict
from tests.verifier.judge import judge
from tests.verifier.model_broker import Fault
from tests.verifier.model_clients import RULES, Model

STEPS = 800
SEEDS = range(12)
FOUND_BY = {
    Fault.LOSE_ACKNOWLEDGED: {"acknowledged records are there"},
    Fault.ALTER: {"nothing comes from nowhere"},
    Fault.ALTER_TIME: {"records keep their times"},
    Fault.SWAP: {"acknowledged records are there", "copies have senders", "batches are whole"},
    Fault.STORE_TWICE: {"once with idempotence"},
    Fault.COPY: {"copies have senders", "requests are atomic"},
    Fault.TEAR_REQUEST: {"requests are atomic", "requests keep one order"},
    Fault.TEAR_BATCH: {"acknowledged records are there", "batches are whole"},
    Fault.LEAVE_HOLE: {"offsets are dense"},
    Fault.SKIP_SEQUENCE: {"order of producers"},
    Fault.NAME_OTHER_OFFSET: {"acknowledged records are there", "duplicates have their offsets"},
    Fault.STORE_REFUSED: {"copies have senders"},
    Fault.STRANGER: {"nothing comes from nowhere"},
    Fault.DISAGREE: {"agents agree"},
    Fault.FORGET_AT_ONE_AGENT: {"agents agree"},
    Fault.LATE_END: {"read your writes"},
    Fault.EMPTY_FETCH: {"read your writes"},
    Fault.END_GOES_BACK: {"watermarks never go back"},
    Fault.SKIP_IN_FETCH: {"offsets are dense"},
    Fault.OTHER_IN_FETCH: {"one order for everybody", "what was read stays"},
    Fault.OUT_OF_RANGE: {"read your writes"},
    Fault.TAKE_EARLY: {"nothing goes without a reason"},
    Fault.TAKE_WITHOUT_REASON: {"nothing goes without a reason"},
    Fault.UNDO_DELETE_RECORDS: {"deleted records stay away"},
    Fault.TAKE_LAST_OF_KEY: {"the last of each key stays", "old values stay away"},
    Fault.BRING_BACK_OLD_VALUE: {"old values stay away"},
    Fault.KEEP_DELETED_TOPIC: {"deleted topics stay away"},
    Fault.KEEP_RECORDS_OF_DELETED_TOPIC: {"deleted topics stay away"},
    Fault.LOSE_COMMIT: {"committed offsets never go back"},
    Fault.TELL_OLD_COMMIT: {"committed offsets never go back"},
    Fault.TELL_STRANGE_COMMIT: {"committed offsets were committed"},
    Fault.SHARE_TWICE: {"assignments never overlap"},
    Fault.OLD_GENERATION: {"generations only rise"},
    Fault.GIVE_ID_TWICE: {"producer ids are given once"},
    Fault.REFUSE_IN_ORDER: {"nothing is out of order without reason"},
}
"""At least one of these checks has to notice."""
UNUSED = {
    # Clients of the model ask only for what is there, and nobody waits for retention.
    "topics are known", "groups process everything", "retention takes what is old",
}  # fmt: skip


def verdict_of(model: Model) -> Verdict:
    return judge(model.recorder.history, model.readbacks, RULES, model.fsck)


@settings(max_examples=150)
@given(seed=strategies.integers(0, 2**32), steps=strategies.integers(0, 1500))
def test_nothing_is_wrong_with_a_history_that_can_happen(seed: int, steps: int) -> None:
    verdict = verdict_of(Model(seed, steps))
    assert not verdict.violations, verdict.report()


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_one_fault_in_a_history_is_found(fault: Fault) -> None:
    planted = 0
    for seed in SEEDS:
        model = Model(seed, STEPS, fault)
        if model.broker.is_planted:
            planted += 1
            verdict = verdict_of(model)
            found = {violation.check for violation in verdict.violations}
            assert found & FOUND_BY[fault], f"seed {seed}: {verdict.report()}"
    assert planted, "no seed of these has given an occasion for it"


def test_histories_of_the_model_give_every_check_something_to_do() -> None:
    looked_at: set[str] = set()
    for seed in SEEDS:
        looked_at |= set(verdict_of(Model(seed, STEPS)).figures.checks)
    assert set(CHECKS) - looked_at <= UNUSED


def test_one_history_gets_one_verdict() -> None:
    for seed in SEEDS:
        first, second = (verdict_of(Model(seed, STEPS, Fault.ALTER)) for _ in range(2))
        assert first.report() == second.report()
