"""Ways to break quotas: who is held back, for how long, and who is not."""

from __future__ import annotations

from tests.breakages.tree import Breakage

MUTE = "tests/unit/server/test_mute.py"
QUOTAS = "tests/unit/security/quotas/test_quotas.py"
RATES = "tests/unit/security/quotas/test_rates.py"

HELD_BACK = (
    Breakage(
        "start-what-a-muted-connection-has-read",
        "P7",
        "warp/server/connection.py",
        "_HOLD_STARTS: Final = HOLD_ANSWERS | HOLD_THROTTLE\n",
        "_HOLD_STARTS: Final = HOLD_ANSWERS\n",
        (f"{MUTE}::test_a_muted_connection_reads_and_starts_nothing_and_answers_what_was_started",),
    ),
    Breakage(
        "mute-beyond-the-drain",
        "P6",
        "warp/server/mute.py",
        "        self._is_closed = True\n        self.lift()\n",
        "        self._is_closed = True\n",
        (f"{MUTE}::test_draining_ends_the_mute_and_answers_what_was_read",),
    ),
    Breakage(
        "forget-what-is-owed-with-the-sample",
        "P7",
        "warp/security/quotas/rates.py",
        "        self._owed_until_s = now_s + owed_s\n        return owed_s\n\n    def borrow",
        "        return owed_s\n\n    def borrow",
        (f"{RATES}::test_a_request_much_larger_than_its_quota_is_not_forgotten_with_its_sample",),
    ),
    Breakage(
        "remember-every-client-id",
        "P8",
        "warp/security/quotas/usage.py",
        "len(self._kept) >= self._max or ",
        "",
        (f"{QUOTAS}::test_made_up_client_ids_neither_fill_memory_nor_make_it_forget_users",),
    ),
    Breakage(
        "let-client-ids-push-out-users",
        "P7",
        "warp/security/quotas/quotas.py",
        "self._of_clients if limit.client_id else self._of_users",
        "self._of_clients",
        (f"{QUOTAS}::test_made_up_client_ids_neither_fill_memory_nor_make_it_forget_users",),
    ),
)
