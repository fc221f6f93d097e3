"""The arithmetic of `warp cost`: from two readings of an agent's counters to requests, bytes and money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from warp.cli.agent_http import NoAgentAnswer
from warp.cli.cost.prices import Prices

GB: Final = 10**9
"""Of records, as Warp counts throughput."""
STORAGE_GB: Final = 2**30
"""Of storage and transfer, as S3 bills them."""
MONTH_S: Final = 730 * 3600
"""The month of price lists: a twelfth of a year."""

KINDS: Final = ("put", "get", "head", "list", "delete")
NOT_BILLED: Final = "slow_down"
"""S3 does not charge for requests that it answered with 503 (its documentation, "Billing for error responses")."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an agent tells under /v1/object-store."""

    url: str
    requests_are_free: bool
    uptime_s: float
    requests: Mapping[tuple[str, str], int]
    """Attempts by kind and status."""
    sent_bytes: int
    received_bytes: int
    produced_bytes: int
    fetched_bytes: int

    def since(self, earlier: Reading) -> Reading:
        """What happened after an earlier reading. Raises NoAgentAnswer when it is of another run of the agent."""
        if self.uptime_s < earlier.uptime_s or self.url != earlier.url:
            raise NoAgentAnswer("the agent was started anew during the window; try again")
        requests = {key: count - earlier.requests.get(key, 0) for key, count in self.requests.items()}
        return Reading(
            url=self.url,
            requests_are_free=self.requests_are_free,
            uptime_s=self.uptime_s - earlier.uptime_s,
            requests={key: count for key, count in requests.items() if count},
            sent_bytes=self.sent_bytes - earlier.sent_bytes,
            received_bytes=self.received_bytes - earlier.received_bytes,
            produced_bytes=self.produced_bytes - earlier.produced_bytes,
            fetched_bytes=self.fetched_bytes - earlier.fetched_bytes,
        )

    def count(self, kind: str) -> int:
        """Attempts of a kind, whatever became of them."""
        return sum(count for (counted, _), count in self.requests.items() if counted == kind)

    def billed(self, kind: str) -> int:
        """Attempts of a kind that cost money."""
        return sum(
            count
            for (counted, status), count in self.requests.items()
            if counted == kind and status != NOT_BILLED
        )


def reading_of(answer: Mapping[str, Any]) -> Reading:
    """The reading in an agent's answer. Raises NoAgentAnswer when it is none."""
    try:
        return Reading(
            url=str(answer["url"]),
            requests_are_free=bool(answer["requests_are_free"]),
            uptime_s=float(answer["uptime_s"]),
            requests={
                (str(each["kind"]), str(each["status"])): int(each["count"]) for each in answer["requests"]
            },
            sent_bytes=int(answer["sent_bytes"]),
            received_bytes=int(answer["received_bytes"]),
            produced_bytes=int(answer["produced_bytes"]),
            fetched_bytes=int(answer["fetched_bytes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NoAgentAnswer(
            f"the agent's answer was not understood ({error!r}); is it of another release?"
        ) from None


@dataclass(frozen=True, slots=True)
class Bill:
    """What happened in a span of time, and what it costs at some prices. `retention_s` is None when it is not known."""

    reading: Reading
    prices: Prices
    retention_s: float | None = None

    def request_cost(self, kind: str) -> float:
        """Of the requests of a kind in the span; HEAD is billed as GET."""
        price = {
            "put": self.prices.put_price,
            "get": self.prices.get_price,
            "head": self.prices.get_price,
            "list": self.prices.list_price,
            "delete": self.prices.delete_price,
        }[kind]
        return self.reading.billed(kind) * price / 1000

    @property
    def transfer_cost(self) -> float:
        """Of the bytes read in the span."""
        return self.reading.received_bytes / STORAGE_GB * self.prices.transfer_price

    @property
    def total_cost(self) -> float:
        """Of requests and transfer in the span; storage is not in it."""
        return sum(map(self.request_cost, KINDS)) + self.transfer_cost

    def per_gb(self, amount: float) -> float | None:
        """An amount of the span for 10^9 bytes of records produced; None when none were."""
        return amount / self.reading.produced_bytes * GB if self.reading.produced_bytes else None

    def per_month(self, amount: float) -> float | None:
        """An amount of the span in a month at the same rate; None when the span has no length."""
        return amount / self.reading.uptime_s * MONTH_S if self.reading.uptime_s > 0 else None

    @property
    def stored_per_month(self) -> float | None:
        """GB of storage that a month at the same rate adds."""
        added = self.per_month(self.reading.produced_bytes)
        return None if added is None else added / STORAGE_GB

    @property
    def stored(self) -> float | None:
        """GB of storage in the long run: what the retention keeps of the same rate; None when it is not known."""
        added = self.stored_per_month
        return None if added is None or self.retention_s is None else added * self.retention_s / MONTH_S

    @property
    def storage_cost_per_month(self) -> float | None:
        """Of what is stored in the long run."""
        return None if self.stored is None else self.stored * self.prices.storage_price
