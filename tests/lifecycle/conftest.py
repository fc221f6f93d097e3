"""A broker with stores in memory beside each test."""

from __future__ import annotations

from tests.broker.conftest import with_memory_broker

__all__ = ["with_memory_broker"]
