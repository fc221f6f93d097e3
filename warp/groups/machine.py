"""What a coordinator needs of any kind of group, so that other group protocols can stand beside the classic one.

Slots, leases, loading, timers, storing and offsets work on this alone. A machine of the consumer protocol (KIP-848) has
requests and a stored form of its own; everything else it shares.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from warp.errors import ErrorCode
from warp.groups.model import GroupOverview, Now, Step

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)


class GroupMachine(Protocol[RequestT_contra]):
    """A group as a pure state machine; see `warp.groups.state.ClassicGroup` for what each member promises."""

    group_id: str

    def handle(self, token: object, request: RequestT_contra, now: Now) -> Step: ...

    def tick(self, now: Now) -> Step: ...

    def saved(self, now: Now) -> Step: ...

    def save_failed(self, error: ErrorCode) -> Step: ...

    def abandon(self, error: ErrorCode) -> Step: ...

    def restart_sessions(self, now: Now) -> None: ...

    def overview(self) -> GroupOverview: ...

    def subscribed_topics(self) -> frozenset[str] | None: ...

    @property
    def wake_ms(self) -> int | None: ...

    @property
    def is_settled(self) -> bool: ...

    @property
    def weight_bytes(self) -> int: ...

    @property
    def is_idle(self) -> bool: ...

    @property
    def is_dead(self) -> bool: ...
