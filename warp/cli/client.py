"""The client library behind the commands that talk to a broker, with its errors turned into one line.

librdkafka reports trouble in three ways: exceptions, events, and log lines of its own on standard error. Here the last
two are remembered instead, because the reason of a time-out is in them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ClusterMetadata

from warp.cli.arguments import DEFAULT_BOOTSTRAP
from warp.cli.client_config import client_settings
from warp.config import did_you_mean
from warp.errors import UsageError, WarpError

CLIENT_ID = "warp-cli"

LOOK_S = 1.5
"""After so long, the library is asked whether it tries again and again for a reason that stays."""
_AUTHENTICATION = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
_LASTING = (*_AUTHENTICATION, KafkaError._SSL, KafkaError.UNSUPPORTED_SASL_MECHANISM)
"""Errors of a connection that trying again does not mend."""
_UNANSWERED = (
    KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._MSG_TIMED_OUT,
)  # fmt: skip
_REFUSALS: Mapping[int, str] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "that topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "that group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "that transactional id",
}
"""What ACLs refuse, by the error that says so."""

C = TypeVar("C")


class ClientError(WarpError):
    """The broker could not be reached, or refused what was asked of it."""


class Client:
    """Makes clients for one broker, and remembers the last reason that they gave for not reaching it."""

    def __init__(self, found: argparse.Namespace) -> None:
        settings = client_settings(found, os.environ)
        self.bootstrap: str = found.bootstrap or settings.bootstrap or DEFAULT_BOOTSTRAP
        self.timeout_s: float = found.timeout
        self.options = settings.options
        """What the user sets, by the library's names; secrets among them."""
        self._last_error = ""
        self._last_code = 0

    def producer(self, **settings: Any) -> Producer:
        """A producer. Raises UsageError for settings that the library refuses."""
        return self._make(Producer, settings)

    def consumer(self, **settings: Any) -> Consumer:
        """A consumer that is assigned partitions by hand: no group, no commits; unless settings say otherwise.

        Drop it instead of closing it: `close` looks for the coordinator of its group, for up to 45 s.
        """
        manual = {"group.id": CLIENT_ID, "enable.auto.commit": False, "enable.partition.eof": True}
        return self._make(Consumer, {**manual, **settings})

    def admin(self) -> AdminClient:
        """A client for topics and their configs."""
        return self._make(AdminClient, {})

    def cluster(self, client: AdminClient | Consumer) -> ClusterMetadata:
        """Brokers and topics. Raises ClientError when no broker answers in time, or lets this client in."""
        last: KafkaException | None = None
        look_s = min(LOOK_S, self.timeout_s)
        for timeout_s in (look_s, self.timeout_s - look_s):
            try:
                return client.list_topics(timeout=max(0.001, timeout_s))
            except KafkaException as error:
                # Has the callback for errors called, which knows why.
                client.poll(0)
                last = error
                if error.args[0].code() not in _UNANSWERED or self._last_code in _LASTING:
                    break
        assert last is not None, "it was asked at least once"
        raise self.failure(last) from last

    def topic_partitions(self, client: AdminClient | Consumer, topic: str) -> list[int]:
        """The partitions of a topic that exists. Raises ClientError that names the nearest topic when it doesn't."""
        topics = self.cluster(client).topics
        if topic not in topics:
            near = did_you_mean(topic, topics)
            raise ClientError(
                f"there is no topic {topic}{near or f'; make it with `warp topic create {topic}`'}"
            )
        return sorted(topics[topic].partitions)

    def offsets(self, consumer: Consumer, topic: str, times_ms: Mapping[int, int]) -> dict[int, int]:
        """Per partition the first offset of that time or later; the end when there is none. Raises ClientError.

        The protocol's special times are OFFSET_BEGINNING and OFFSET_END.
        """
        asked = [TopicPartition(topic, partition, time_ms) for partition, time_ms in times_ms.items()]
        try:
            answers = consumer.offsets_for_times(asked, timeout=self.timeout_s)
            for answer in answers:
                if answer.error is not None:
                    raise KafkaException(answer.error)
        except KafkaException as error:
            raise self.failure(error) from error
        found = {answer.partition: answer.offset for answer in answers}
        missing = {partition: OFFSET_END for partition, offset in found.items() if offset < 0}
        if missing and any(times_ms[partition] != OFFSET_END for partition in missing):
            found.update(self.offsets(consumer, topic, missing))
        return found

    def has_failed(self, message: Message) -> bool:
        """False for a record or an end of partition; True for trouble that passes. Raises ClientError for the rest."""
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return False
        if error.retriable() and not error.fatal():
            return True
        raise self.failure(error)

    def failure(self, error: KafkaException | KafkaError) -> ClientError:
        """One line for an error of the library."""
        reason = error.args[0] if isinstance(error, KafkaException) else error
        if not isinstance(reason, KafkaError):
            return ClientError(str(reason))
        if reason.code() in _UNANSWERED and self._last_code in _LASTING:
            return self._no_entry(self._last_code, self._last_error)
        if reason.code() in _UNANSWERED:
            why = f" ({self._last_error})" if self._last_error else ""
            return ClientError(
                f"no broker answered at {self.bootstrap} within {self.timeout_s:g} s{why}; is the agent running?"
            )
        if reason.code() in _LASTING:
            return self._no_entry(reason.code(), _reason(reason.str()))
        if reason.code() in _REFUSALS:
            user = self.options.get("sasl.username")
            who = f"user {user}" if user else "this client"
            return ClientError(
                f"{who} may not do that to {_REFUSALS[reason.code()]}: no ACL allows it ({reason.name()})"
            )
        return ClientError(f"{reason.str()} ({reason.name()})")

    def _no_entry(self, code: int, why: str) -> ClientError:
        """For a broker that is there, and does not let this client in, or is not to be trusted."""
        if code in _AUTHENTICATION:
            return ClientError(
                f"{self.bootstrap} did not take this client's credentials: {why}; check sasl.mechanism, "
                "sasl.username and the password"
            )
        if code == KafkaError.UNSUPPORTED_SASL_MECHANISM:
            return ClientError(
                f"{self.bootstrap} does not authenticate that way: {why}; set another sasl.mechanism"
            )
        return ClientError(
            f"no TLS with {self.bootstrap}: {why}; check security.protocol, ssl.ca.location and the host name"
        )

    def note_error(self, error: KafkaError) -> None:
        """The library's error callback."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self._last_error:
            # librdkafka gives some failures of a handshake the code of a lost connection, and OpenSSL's words.
            is_tls = "SSL routines" in error.str()
            self._last_error = _reason(error.str())
            self._last_code = KafkaError._SSL if is_tls else error.code()

    def config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The library's settings of a client: those of every command, these, and over them those of the user."""
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": CLIENT_ID,
            "log_level": 0,
            "socket.timeout.ms": max(100, int(self.timeout_s * 1000)),
            **settings,
            **self.options,
        }

    def _make(self, kind: Callable[..., C], settings: Mapping[str, Any]) -> C:
        try:
            return kind({**self.config(settings), "error_cb": self.note_error})
        except KafkaException as error:
            raise UsageError(f"the client library refuses its settings: {error.args[0].str()}") from error


def _reason(text: str) -> str:
    """The essence of librdkafka's `host:port/bootstrap: Connect to ipv4#… failed: Connection refused (after …)`."""
    text = text.partition(" (after ")[0]
    _, failed, reason = text.rpartition(" failed: ")
    return reason if failed else text.rpartition("/bootstrap: ")[2]
