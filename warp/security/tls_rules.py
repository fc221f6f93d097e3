"""From the subject of a certificate to the name of a principal: the rules of Kafka's ssl.principal.mapping.rules.

Rules are tried in their order; the first whose pattern matches the whole subject makes the name (KIP-371):

* `DEFAULT`: the subject as it is;
* `RULE:PATTERN/REPLACEMENT/`, then `L` or `U` for lower or upper case, or nothing. `$1` in the replacement stands for
  the first group of the pattern; a slash in either is written `\\/`.

Patterns are Python's regular expressions, which for what such rules use are Java's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

RULES_MAX = 100
"""Rules of one agent; each is tried for each connection."""

_RULE: Final = re.compile(
    r"\s*(?:(DEFAULT)|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?))\s*(,|$)", re.DOTALL
)
_REFERENCE: Final = re.compile(r"\\(.)|\$([0-9]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule. A pattern of None is DEFAULT's. The replacement is text and numbers of groups, one after the other."""

    pattern: re.Pattern[str] | None = None
    replacement: tuple[str | int, ...] = ()
    case: str = ""

    def apply(self, subject: str) -> str | None:
        if self.pattern is None:
            return subject
        found = self.pattern.fullmatch(subject)
        if found is None:
            return None
        name = "".join(part if isinstance(part, str) else found[part] or "" for part in self.replacement)
        return {"L": name.lower(), "U": name.upper()}.get(self.case, name)


class PrincipalRules:
    """The rules of one agent. Raises ValueError for rules that can't be read."""

    def __init__(self, text: str) -> None:
        self._rules: list[_Rule] = []
        at = 0
        while at < len(text) or not self._rules:
            found = _RULE.match(text, at)
            if found is None or len(self._rules) >= RULES_MAX:
                rest = text[at : at + 60]
                raise ValueError(
                    f"{rest!r} is neither DEFAULT nor RULE:PATTERN/REPLACEMENT/ with L, U or nothing"
                )
            self._rules.append(_rule(found))
            at = found.end()
            if found[5] and not text[at:].strip():
                raise ValueError("a rule is missing after the last comma")

    def name(self, subject: str) -> str:
        """The name for a subject. Raises ValueError where no rule fits, or the name would be empty."""
        for rule in self._rules:
            name = rule.apply(subject)
            if name is not None:
                if not name:
                    raise ValueError(f"the rules of --tls-principal-rules make no name of {subject[:200]!r}")
                return name
        raise ValueError(f"no rule of --tls-principal-rules fits its certificate, {subject[:200]!r}")


def _rule(found: re.Match[str]) -> _Rule:
    if found[1]:
        return _Rule()
    try:
        pattern = re.compile(found[2])
    except re.error as error:
        raise ValueError(f"{found[2][:100]!r} is not a regular expression: {error}") from None
    return _Rule(pattern, _replacement(found[3], pattern.groups), found[4])


def _replacement(text: str, groups: int) -> tuple[str | int, ...]:
    """Split a replacement at its references. As in Kafka, `$` and a number of no group is plain text."""
    parts: list[str | int] = []
    at = 0
    for found in _REFERENCE.finditer(text):
        parts.append(text[at : found.start()])
        at = found.end()
        if found[1] is not None:
            parts.append(found[1])
            continue
        # As many digits as still name a group, as in Java: $12 may be group 1 followed by a 2.
        digits = found[2]
        size = next((size for size in range(len(digits), 0, -1) if int(digits[:size]) <= groups), 0)
        parts += [int(digits[:size]), digits[size:]] if size else [f"${digits}"]
    parts.append(text[at:])
    return tuple(part for part in parts if part != "")
