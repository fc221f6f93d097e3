"""What a fault proxy does to which request, by rules and from a seed. It decides and does nothing."""

from __future__ import annotations

import enum
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Method, target and headers of an HTTP request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def body_bytes(self) -> int:
        """The length of its body."""
        return int(self.headers.get("content-length", "0"))


@dataclass(frozen=True, slots=True)
class Latency:
    """How long an answer takes at least, counted from when the request had arrived whole. The server has acted by then.

    `jitter_s` is the largest addition, equally distributed; a share of the requests takes `slow_s` more.
    """

    fixed_s: float = 0.0
    jitter_s: float = 0.0
    slow_share: float = 0.0
    slow_s: float = 0.0

    def draw(self, source: random.Random) -> float:
        """The latency of one request. Draws the same numbers whatever the settings are."""
        jitter, slow = source.random(), source.random()
        return self.fixed_s + self.jitter_s * jitter + (self.slow_s if slow < self.slow_share else 0.0)


class Moment(enum.Enum):
    """Where in the life of a request it hangs."""

    BEFORE_BODY = "before its body is read"
    BEFORE_SERVER = "read, and not passed on to the server"
    AFTER_SERVER = "carried out by the server, and not answered"


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answered by the proxy with a status and S3's error code; the server never sees it."""

    status: int
    code: str
    message: str = "refused by the fault proxy"


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answered; its connection stays open."""

    moment: Moment = Moment.BEFORE_SERVER


@dataclass(frozen=True, slots=True)
class CutRequest:
    """Its connection ends when so many bytes of the body have come and been passed on. The server sees a torn body."""

    body_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """Carried out by the server; the connection ends after so many bytes of the answer's body.

    With None not even the head of the answer leaves.
    """

    body_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """Carried out by the server, answered this much later."""

    delay_s: float


Fault = Refuse | Hang | CutRequest | CutAnswer | Delay

SLOW_DOWN = Refuse(503, "SlowDown")
INTERNAL_ERROR = Refuse(500, "InternalError")
ACCESS_DENIED = Refuse(403, "AccessDenied")
EXPIRED_TOKEN = Refuse(400, "ExpiredToken")
NO_SUCH_BUCKET = Refuse(404, "NoSuchBucket")


@dataclass(slots=True)
class Rule:
    """A fault and the requests that it happens to. Give `remove` of the plan to end it."""

    fault: Fault
    method: str = ""
    """Empty: all methods."""
    path_has: str = ""
    times: int | None = None
    """How often it still happens; None: without end."""
    share: float = 1.0
    """Of the requests that match otherwise."""
    matches: Callable[[RequestHead], bool] = lambda _: True
    happened: int = 0

    def fits(self, head: RequestHead, source: random.Random) -> bool:
        """Whether it happens to this request."""
        return (
            self.times != 0
            and self.method in ("", head.method)
            and self.path_has in head.path
            and self.matches(head)
            and (self.share >= 1.0 or source.random() < self.share)
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """About one request."""

    fault: Fault | None
    latency_s: float


@dataclass(slots=True)
class FaultPlan:
    """The rules in force. Tests change them from any thread while requests come."""

    seed: int = 1
    latencies: dict[str, Latency] = field(default_factory=dict)
    """By method; that of "" is for methods without one of their own."""
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _source: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._source = random.Random(self.seed)

    def add(self, rule: Rule) -> Rule:
        """The rule is in force from now on, before those added later."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """The rule is no longer in force, if it still was."""
        with self._lock:
            self._rules = [other for other in self._rules if other is not rule]

    def clear(self) -> None:
        """No fault happens from now on; latencies stay."""
        with self._lock:
            self._rules = []

    def decide(self, head: RequestHead) -> Decision:
        """What happens to a request: the first rule that fits."""
        with self._lock:
            latency = self.latencies.get(head.method, self.latencies.get("", Latency()))
            latency_s = latency.draw(self._source)
            for rule in self._rules:
                if rule.fits(head, self._source):
                    rule.happened += 1
                    if rule.times is not None:
                        rule.times -= 1
                    return Decision(rule.fault, latency_s)
        return Decision(None, latency_s)
