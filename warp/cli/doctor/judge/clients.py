"""What clients see: the address that they are told, whether it leads to the cluster, and to whom it sends them on."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from warp.cli.doctor.facts import BrokerFacts, ClientFacts
from warp.cli.doctor.finding import Finding, note, ok, problem, warning
from warp.config_values import Address

_ADVERTISE = "--advertise"


def judge_told(told: Address, listen: Address, hostname: str) -> Finding:
    """The address that clients of a listener are told, by itself."""
    check, subject = "clients.advertised", str(told)
    if not is_loopback(told.host):
        return ok(check, f"what clients of {listen} are told to connect to", subject=subject)
    if is_loopback(listen.host):
        return note(check, "only clients on this machine can use the agent", subject=subject)
    text = f"clients of {listen} are told to connect to themselves; those on other machines can't follow"
    remedy = f"start the agent with {_ADVERTISE} {hostname}:{told.port or listen.port}, or a name that clients know"
    return warning(check, text, remedy, subject=subject)


def judge_clients(facts: ClientFacts) -> Iterator[Finding]:
    """What came of connecting as a client does."""
    subject = str(facts.told)
    answer = facts.answer
    if not answer.is_broker:
        yield _judge_silence(facts, subject)
        return
    ip = ", ".join(answer.resolved)
    behind = f" ({ip})" if ip and ip != facts.told.host else ""
    wants = (
        ", and wants clients to authenticate: nothing more is looked at"
        if answer.wants_authentication
        else ""
    )
    yield ok(
        "clients.reach",
        f"a Kafka broker answers{behind}{wants}",
        subject=subject,
        measured={"resolved": answer.resolved},
    )
    if answer.wants_authentication:
        return
    yield _judge_cluster(facts, subject)
    yield from _judge_brokers(facts, subject)
    if facts.listen is None and answer.round_trip is not None:
        latency = answer.round_trip
        yield ok("clients.round-trip", latency.words(), subject=subject, measured=latency.measured())


def is_loopback(host: str) -> bool:
    """True for names and addresses that mean the machine that uses them."""
    if host.lower() in ("localhost", "localhost.localdomain", "ip6-localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _judge_silence(facts: ClientFacts, subject: str) -> Finding:
    check, refusal = "clients.reach", facts.answer.refusal
    if facts.listen is None:
        remedy = "see whether the agent runs, and what lies between: name, port, firewall"
        return problem(check, f"no Kafka broker: {refusal}", remedy, subject=subject)
    if not facts.answer.resolved:
        remedy = f"make the name known to the name service of agent and clients, or {_ADVERTISE} another"
        return problem(check, refusal, remedy, subject=subject)
    if facts.is_serving or facts.answer.is_open:
        text = f"clients are sent there, and no Kafka broker answers: {refusal}"
        remedy = f"{_ADVERTISE} an address that leads to {facts.listen}; look at port mappings and firewalls"
        return problem(check, text, remedy, subject=subject)
    return note(check, "not tried: no agent serves here yet; ask again when one does", subject=subject)


def _judge_cluster(facts: ClientFacts, subject: str) -> Finding:
    check, found, expected = "clients.cluster", facts.answer.cluster_id, facts.expected_cluster_id
    if expected is not None and found != expected:
        text = f"leads to cluster {found or 'without an id'}; {facts.listen} is cluster {expected}"
        remedy = f"{_ADVERTISE} an address that leads to {facts.listen}: this one is another cluster's"
        return problem(check, text, remedy, subject=subject, measured={"cluster_id": found})
    if expected is None and facts.listen is not None:
        text = f"cluster {found or 'without an id'} answers, though nobody listens on {facts.listen}"
        remedy = f"see who uses this address, or {_ADVERTISE} another: clients would be sent to that cluster"
        return warning(check, text, remedy, subject=subject, measured={"cluster_id": found})
    return ok(check, found or "without an id", subject=subject, measured={"cluster_id": found})


def _judge_brokers(facts: ClientFacts, subject: str) -> Iterator[Finding]:
    check, answer = "clients.brokers", facts.answer
    if not answer.brokers:
        remedy = "see the log of the agent: it should name itself at least"
        yield problem(check, "the cluster names no broker", remedy, subject=subject)
        return
    names = [f"{broker.address} (broker {broker.broker_id})" for broker in answer.brokers]
    bad = [other for other in facts.others if _complaint(other, facts)]
    for other in bad:
        yield problem(
            check,
            f"clients are sent to {other.address}: {_complaint(other, facts)}",
            f"start that broker with {_ADVERTISE} and an address that its clients can reach",
            subject=subject,
            measured={"broker": str(other.address)},
        )
    if bad:
        return
    measured = {"brokers": [str(broker.address) for broker in answer.brokers]}
    if not is_loopback(facts.told.host) and all(
        is_loopback(broker.address.host) for broker in answer.brokers
    ):
        yield warning(
            check,
            f"clients are sent to {', '.join(names)}, which is each machine itself",
            f"start the agent with {_ADVERTISE} and an address that clients can reach, such as {facts.told}",
            subject=subject,
            measured=measured,
        )
        return
    yield ok(check, f"all answer: {', '.join(names)}", subject=subject, measured=measured)


def _complaint(other: BrokerFacts, facts: ClientFacts) -> str:
    if not other.is_broker:
        return other.refusal
    if other.wants_authentication:
        return ""
    if other.cluster_id != facts.answer.cluster_id:
        return f"it is of cluster {other.cluster_id}"
    return ""
