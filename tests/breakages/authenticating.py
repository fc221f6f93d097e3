"""Breakages of who gets in by SASL, and of what is learnt by trying; P10."""

from __future__ import annotations

from tests.breakages.tree import Breakage

CREDENTIALS = "tests/unit/security/test_credentials.py"
JWKS = "tests/unit/security/test_jwks.py"
OAUTH = "tests/unit/security/test_oauth.py"
PLAIN = "tests/unit/security/test_plain.py"
SCRAM = "tests/unit/security/test_scram.py"
STRANGERS = "tests/unit/server/test_strangers.py"
TLS_FLOODS = "tests/unit/server/test_tls_floods.py"

PROVED = (
    Breakage(
        "let-who-would-know-made-up-keys-in",
        "P10",
        "warp/security/scram.py",
        "        if not (is_right and self._is_known and is_current):\n",
        "        if not is_right:\n",
        (f"{SCRAM}::test_no_proof_fits_a_user_that_does_not_exist",),
    ),
    Breakage(
        "let-an-exchange-outlive-its-password",
        "P10",
        "warp/security/scram.py",
        "        if not (is_right and self._is_known and is_current):\n",
        "        if not (is_right and self._is_known):\n",
        (f"{SCRAM}::test_a_credential_that_changes_in_the_middle_of_an_exchange_lets_nobody_in",),
    ),
    Breakage(
        "answer-strangers-as-often-as-they-ask",
        "P8",
        "warp/server/incoming.py",
        "        return self._early_requests > self._pool.limits.early_requests_max\n",
        "        return False\n",
        (f"{STRANGERS}::test_requests_that_come_all_at_once_before_authentication_are_not_even_begun",),
    ),
    Breakage(
        "read-on-while-answers-of-tls-are-not-taken",
        "P8",
        "warp/security/tls_endpoint.py",
        "        self._is_below_full = True\n        if self._is_below_there():\n"
        "            self._below.pause_reading()\n",
        "        self._is_below_full = True\n",
        (f"{TLS_FLOODS}::test_a_peer_that_wants_new_handshakes_and_takes_no_answer_is_not_read_from",),
    ),
    Breakage(
        "take-the-nonce-of-another-exchange",
        "P10",
        "warp/security/scram.py",
        '        if not hmac.compare_digest(final.nonce.encode("utf-8"), first.nonce.encode("ascii")):\n',
        "        if not final.nonce:\n",
        (f"{SCRAM}::test_a_right_proof_with_the_nonce_of_another_exchange_is_refused",),
    ),
    Breakage(
        "derive-nothing-for-users-that-do-not-exist",
        "P10",
        "warp/security/plain.py",
        "        for spelling in spellings:\n",
        "        for spelling in spellings if found else ():\n",
        (f"{PLAIN}::test_unknown_user_and_wrong_password_are_the_same_message_and_the_same_work",),
    ),
    Breakage(
        "make-up-what-looks-like-the-first-user",
        "P10",
        "warp/security/credentials.py",
        "            self._shapes[scram] = max(counts, key=lambda shape: (counts[shape], shape), default=None)\n",
        "            self._shapes[scram] = next(iter(counts), None)\n",
        (f"{CREDENTIALS}::test_what_is_made_up_looks_like_most_of_what_there_is",),
    ),
    Breakage(
        "believe-what-a-token-says-of-its-algorithm",
        "P10",
        "warp/security/jwks.py",
        "            if unverified.algorithm in key.algorithms\n            and (",
        "            if (",
        (f"{OAUTH}::test_a_key_signs_only_by_its_own_algorithms_and_only_under_its_own_id",),
    ),
    Breakage(
        "take-tokens-for-others",
        "P10",
        "warp/security/oauth.py",
        "    if rules.audience is not None and rules.audience not in _audiences(claims):\n",
        '    if rules.audience is not None and rules.audience not in str(claims.get("aud")):\n',
        (f"{OAUTH}::test_claims_that_are_wrong_are_refused_with_the_reason",),
    ),
    Breakage(
        "keep-keys-for-ever",
        "P10",
        "warp/security/jwks.py",
        "        return self.age_s < KEYS_KEPT_S\n",
        "        return bool(self._keys)\n",
        (f"{JWKS}::test_keys_that_can_not_be_fetched_again_serve_on_for_a_day",),
    ),
    Breakage(
        "ask-the-issuer-for-every-unknown-key",
        "P8",
        "warp/security/jwks.py",
        "            if now_s < self._open_at_s:\n                return\n",
        "",
        (f"{OAUTH}::test_tokens_with_keys_that_nobody_has_fetch_no_more_than_once_in_a_while",),
    ),
)
