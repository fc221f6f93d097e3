"""The quotas of one agent: asked by handlers and the server, told of changes by the catalogue.

While no quota of a kind is defined, its attribute here (`limits_produce` and the others) is False, and nobody calls
anything: that check is all that an agent without quotas pays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from warp.security.quotas.entity import QuotaKey
from warp.security.quotas.rates import OWED_S_MAX, WINDOW_S, SlidingRate, TokenBucket
from warp.security.quotas.table import NO_QUOTAS, Limit, QuotaTable
from warp.security.quotas.usage import REMEMBERED_MAX, Usage

THROTTLE_MS_MAX: Final = 20_000
"""The longest that a connection is held back at once. Kafka has no such bound for bytes; clients give up requests that
wait for 30 s or more. What is left of a longer time is waited for after the next request."""
REQUEST_THROTTLE_S_MAX: Final = 1.0
"""The longest for time of the loop: one sample, as in Kafka."""

KINDS: Final = ("produce", "fetch", "request", "mutation", "connection")
"""What metrics call them."""


class Throttled:
    """How often clients were held back, and for how long in all, by kind."""

    def __init__(self) -> None:
        self.times = dict.fromkeys(KINDS, 0)
        self.seconds = dict.fromkeys(KINDS, 0.0)

    def count(self, kind: str, seconds: float) -> None:
        """A client is held back for so long."""
        self.times[kind] += 1
        self.seconds[kind] += seconds


class Quotas:
    """What clients of one agent may use, and what they have used. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float], *, remembered_max: int = REMEMBERED_MAX) -> None:
        self.throttled = Throttled()
        self.limits_produce = False
        self.limits_fetch = False
        self.limits_time = False
        self.limits_mutations = False
        self.limits_connections = False
        self._monotonic = monotonic
        self._table = NO_QUOTAS
        # Users are as many as can authenticate, client ids as many as anybody likes to make up: those who do must not
        # have others forgotten.
        self._of_users: Usage[SlidingRate] = Usage(SlidingRate, remembered_max)
        self._of_clients: Usage[SlidingRate] = Usage(SlidingRate, remembered_max)
        self._mutations_of_users: Usage[TokenBucket] = Usage(TokenBucket, remembered_max)
        self._mutations_of_clients: Usage[TokenBucket] = Usage(TokenBucket, remembered_max)
        self._connections: Usage[SlidingRate] = Usage(SlidingRate, remembered_max)

    def load(self, entries: Mapping[str, str]) -> None:
        """From now on these hold: the entries of the catalogue, by key. What clients have used still counts."""
        table = self._table = QuotaTable(entries, self._table)
        self.limits_produce = table.limits(QuotaKey.PRODUCER_BYTE_RATE)
        self.limits_fetch = table.limits(QuotaKey.CONSUMER_BYTE_RATE)
        self.limits_time = table.limits(QuotaKey.REQUEST_PERCENTAGE)
        self.limits_mutations = table.limits(QuotaKey.CONTROLLER_MUTATION_RATE)
        self.limits_connections = table.limits(QuotaKey.CONNECTION_CREATION_RATE)
        if not entries:
            for usage in self._usages():
                usage.clear()

    @property
    def remembered(self) -> int:
        """How many clients' use is kept at present."""
        return sum(map(len, self._usages()))

    def produced(self, user: str, client_id: str | None, size_bytes: int) -> int:
        """A client has sent records: how many milliseconds it is held back."""
        limit = self._table.of_client(QuotaKey.PRODUCER_BYTE_RATE, user, client_id or "")
        if limit is None:
            return 0
        rate = self._usage(limit, QuotaKey.PRODUCER_BYTE_RATE)
        owed_s = rate.charge(self._monotonic(), size_bytes, limit.bound, owed_s_max=OWED_S_MAX)
        return self._throttle("produce", owed_s)

    def fetch_room(self, user: str, client_id: str | None) -> tuple[int, int | None]:
        """A client wants records: (milliseconds, bytes), for how long it is held back instead, or what one answer may
        hold: what is left of its quota's window, None for anything.

        One that always asked for a whole window would get nothing beside another that takes a little again and again.
        """
        limit = self._table.of_client(QuotaKey.CONSUMER_BYTE_RATE, user, client_id or "")
        if limit is None:
            return 0, None
        rate, now_s = self._usage(limit, QuotaKey.CONSUMER_BYTE_RATE), self._monotonic()
        owed_s = rate.owed_s(now_s, limit.bound)
        return self._throttle("fetch", owed_s), max(1, int(rate.room(now_s, limit.bound)))

    def fetched(self, user: str, client_id: str | None, size_bytes: int) -> int:
        """There are records for a client: 0 if it may have them, else how many milliseconds it is held back without.

        Records that are more than a whole window lets through would never be let out by that rule. They are, and count
        for as long as it takes: the client's next fetches wait.
        """
        limit = self._table.of_client(QuotaKey.CONSUMER_BYTE_RATE, user, client_id or "")
        if limit is None:
            return 0
        rate, now_s = self._usage(limit, QuotaKey.CONSUMER_BYTE_RATE), self._monotonic()
        owed_s = rate.owed_s(now_s, limit.bound)
        if size_bytes > limit.bound * WINDOW_S and not owed_s:
            rate.borrow(now_s, size_bytes, limit.bound, owed_s_max=OWED_S_MAX)
            return 0
        excess_s = rate.excess_s(now_s, size_bytes, limit.bound)
        if excess_s > 0:
            return self._throttle("fetch", excess_s)
        rate.charge(now_s, size_bytes, limit.bound, owed_s_max=OWED_S_MAX)
        return 0

    def spent(self, user: str, client_id: str | None, seconds: float) -> int:
        """The loop has spent time on a client's request: how many milliseconds the client is held back."""
        limit = self._table.of_client(QuotaKey.REQUEST_PERCENTAGE, user, client_id or "")
        if limit is None:
            return 0
        rate = self._usage(limit, QuotaKey.REQUEST_PERCENTAGE)
        owed_s = rate.charge(self._monotonic(), seconds * 100, limit.bound, owed_s_max=REQUEST_THROTTLE_S_MAX)
        return self._throttle("request", owed_s)

    def mutations(self, user: str, client_id: str | None, *, is_strict: bool) -> MutationQuota | None:
        """What a client may change of topics in one request; None for anything."""
        limit = self._table.of_client(QuotaKey.CONTROLLER_MUTATION_RATE, user, client_id or "")
        if limit is None:
            return None
        usage = self._mutations_of_clients if limit.client_id else self._mutations_of_users
        bucket = usage.of(self._monotonic(), limit.user, limit.client_id)
        return MutationQuota(bucket, limit.bound, self._monotonic, self._throttle, is_strict=is_strict)

    def connected(self, host: str) -> bool:
        """A connection comes from an address: whether it may stay. One that may not is not counted."""
        bound = self._table.of_address(host)
        if bound is None:
            return True
        now_s = self._monotonic()
        rate = self._connections.of(now_s, host)
        excess_s = rate.excess_s(now_s, 1.0, bound)
        if excess_s > 0:
            self.throttled.count("connection", 0.0)
            return False
        rate.charge(now_s, 1.0, bound, owed_s_max=OWED_S_MAX)
        return True

    def _usages(self) -> tuple[Usage[SlidingRate] | Usage[TokenBucket], ...]:
        return (
            self._of_users,
            self._of_clients,
            self._mutations_of_users,
            self._mutations_of_clients,
            self._connections,
        )

    def _usage(self, limit: Limit, key: QuotaKey) -> SlidingRate:
        usage = self._of_clients if limit.client_id else self._of_users
        return usage.of(self._monotonic(), key, limit.user, limit.client_id)

    def _throttle(self, kind: str, seconds: float) -> int:
        """The time in milliseconds and within bounds, as clients are told it; counted."""
        if seconds <= 0:
            return 0
        milliseconds = math.ceil(min(seconds * 1000, THROTTLE_MS_MAX))
        self.throttled.count(kind, milliseconds / 1000)
        return milliseconds


UNLIMITED: Final = Quotas(lambda: 0.0)
"""Nobody is limited, and nobody ever tells it otherwise."""


class MutationQuota:
    """What one request may change of topics, counted in partitions (KIP-599).

    A strict one refuses what comes after the quota is used up; one that is not, for clients that don't know the error,
    lets everything be done and holds the client back.
    """

    def __init__(
        self,
        bucket: TokenBucket,
        bound: float,
        monotonic: Callable[[], float],
        throttle: Callable[[str, float], int],
        *,
        is_strict: bool,
    ) -> None:
        self._bucket = bucket
        self._bound = bound
        self._monotonic = monotonic
        self._throttle = throttle
        self._is_strict = is_strict
        self._is_exceeded = False

    def takes(self, partitions: int) -> bool:
        """Count a change; False if it must not be made."""
        now_s = self._monotonic()
        if self._is_strict and self._bucket.wait_s(now_s, self._bound) > 0:
            self._is_exceeded = True
            return False
        wait_s = self._bucket.take(now_s, partitions, self._bound)
        if not self._is_strict and wait_s > 0:
            self._is_exceeded = True
        return True

    def give_back(self, partitions: int) -> None:
        """A change that was counted has failed."""
        self._bucket.take(self._monotonic(), -partitions, self._bound)

    def throttle_ms(self) -> int:
        """How many milliseconds the client is held back for this request."""
        if not self._is_exceeded:
            return 0
        return self._throttle("mutation", self._bucket.wait_s(self._monotonic(), self._bound))
