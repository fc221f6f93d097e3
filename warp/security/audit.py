"""The audit log: who was refused what, and who has changed what, one structured line each.

Lines go to the logger `warp.audit`, so that they can be told from others and kept apart. Fields hold what people and
clients have named, so each is escaped and shortened, and no secret ever gets here: credentials are named by mechanism
and user alone, sensitive configs without their values.

A client that is refused asks again and again, and the log must not grow with that: refusals have a budget of lines per
second, of which one client gets a part, so that it does not hide the others. What was left out is counted in the next
line. Changes have no budget: each is a line, or for many things at once a few.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from warp.protocol.types import AclOperation, AclResourceType
from warp.security.principal import Principal

log = logging.getLogger("warp.audit")

REFUSAL_LINES_PER_S_MAX: Final = 20
REFUSAL_LINES_OF_ONE_PER_S_MAX: Final = 5
"""Of one principal at one host."""
REFUSALS_NAMED_MAX: Final = 10
"""Refused resources of one request that its line names; the others are counted."""
ITEMS_PER_LINE_MAX: Final = 20
"""Things that one line about a change names."""
TEXT_CHARACTERS_MAX: Final = 500
"""Of one name or value; longer than any topic's."""
MASKED: Final = "[hidden]"

_WINDOW_S: Final = 1.0
_SECRET_FACTS: Final = frozenset(
    {"password", "salted_password", "salt", "secret", "stored_key", "server_key", "token"}
)
"""Facts that nobody ought to hand over, and that are not written when somebody does."""
_RESERVED: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "asctime",
    "message",
    "time",
    "level",
    "logger",
}
"""Fields that log lines have anyway."""


class Refusal(NamedTuple):
    """One thing that a client may not do."""

    operation: AclOperation
    resource: AclResourceType
    name: str

    def __str__(self) -> str:
        return f'{self.operation.name} {self.resource.name} "{escaped(self.name)}"'


class Asker(NamedTuple):
    """Who has sent a request, and which."""

    principal: Principal
    address: str
    """Of the client: HOST:PORT."""
    listener: str
    """The one that it came in on: protocol and address, as clients are told them."""
    client_id: str | None
    api: str
    version: int

    @property
    def host(self) -> str:
        """The address without the port."""
        return self.address.rpartition(":")[0]


class Audit:
    """The audit log of one agent. `monotonic` gives seconds; `observe` is told the API of each refused request.

    With `only_logs` nothing is refused in truth, and the lines say what would have been.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        only_logs: bool = False,
        observe: Callable[[str], None] | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._message = "would deny" if only_logs else "denied"
        self._observe = observe
        self._window_ends_s = float("-inf")
        self._lines = 0
        self._lines_of: Counter[tuple[Principal, str]] = Counter()
        """In this second; no more keys than lines."""
        self._left_out = 0

    def denied(
        self, asker: Asker, refusals: Sequence[tuple[AclOperation, AclResourceType, str]], count: int
    ) -> None:
        """A request was refused `count` things, of which `refusals` are the first few; at least one."""
        if self._observe is not None:
            self._observe(asker.api)
        if not self._passes(asker):
            self._left_out += 1
            return
        first, *others = (Refusal(*refusal) for refusal in refusals[:REFUSALS_NAMED_MAX])
        fields: dict[str, Any] = {
            "principal": escaped(str(asker.principal)),
            "address": asker.address,
            "listener": asker.listener,
            "client_id": None if asker.client_id is None else escaped(asker.client_id),
            "api": asker.api,
            "api_version": asker.version,
            "operation": first.operation.name,
            "resource": first.resource.name,
            "resource_name": escaped(first.name),
        }
        if others:
            fields["also"] = ", ".join(map(str, others))
        if count > 1:
            fields["refusals"] = count
        if self._left_out:
            fields["requests_left_out"], self._left_out = self._left_out, 0
        log.warning(self._message, extra=fields)

    def changed(self, principal: Principal, address: str, action: str, **facts: object) -> None:
        """Somebody has changed something: `action` in a few fixed words, as "created topics", and the facts.

        Facts are numbers, texts, or several texts. Of more than ITEMS_PER_LINE_MAX only the first are written, and
        the rest counted: use `changed_each` for those.
        """
        fields: dict[str, Any] = {"principal": escaped(str(principal)), "address": address}
        for name, value in facts.items():
            if name in _RESERVED or name in fields:
                name = f"resource_{name}"
            fields[name] = MASKED if name in _SECRET_FACTS else _shown(value)
        log.info(action, extra=fields)

    def changed_each(
        self, principal: Principal, address: str, action: str, items: Sequence[str], **facts: object
    ) -> None:
        """The same was done to several things: as many lines as it takes to name them all."""
        for start in range(0, len(items), ITEMS_PER_LINE_MAX):
            part = items[start : start + ITEMS_PER_LINE_MAX]
            self.changed(principal, address, action, items=part, **facts)

    def _passes(self, asker: Asker) -> bool:
        """Whether there is budget for a line about this client; takes it."""
        now_s = self._monotonic()
        if now_s >= self._window_ends_s:
            self._window_ends_s = now_s + _WINDOW_S
            self._lines = 0
            self._lines_of.clear()
        who = asker.principal, asker.host
        if self._lines >= REFUSAL_LINES_PER_S_MAX or self._lines_of[who] >= REFUSAL_LINES_OF_ONE_PER_S_MAX:
            return False
        self._lines += 1
        self._lines_of[who] += 1
        return True


def escaped(text: str) -> str:
    """The text on one line, without characters that can't be seen, and not longer than TEXT_CHARACTERS_MAX or so."""
    shown = text[:TEXT_CHARACTERS_MAX]
    # Nearly every name is such as it is; a request may have thousands.
    if not shown.isprintable() or '"' in shown or "\\" in shown:
        shown = "".join(map(_escaped_character, shown))
    return shown if len(text) <= TEXT_CHARACTERS_MAX else f"{shown}… ({len(text)} characters)"


def _escaped_character(character: str) -> str:
    if character == '"':
        return '\\"'
    if character != "\\" and character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _shown(value: object) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (str, Principal)) or not isinstance(value, Iterable):
        return escaped(str(value))
    items = list(value)
    text = ", ".join(f'"{escaped(str(item))}"' for item in items[:ITEMS_PER_LINE_MAX])
    more = len(items) - ITEMS_PER_LINE_MAX
    return f"{text} and {more} more" if more > 0 else text
