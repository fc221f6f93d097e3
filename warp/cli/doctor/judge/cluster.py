"""An agent among others: whose metadata and bucket these are, whether its name is free, and how others reach it."""

from __future__ import annotations

from collections.abc import Iterator

from warp.agent_settings import listener_configs, peer_address
from warp.cli.doctor.facts import BindState, MarkerFacts, PortFacts, PostgresFacts, RegistrationState
from warp.cli.doctor.finding import Finding, note, ok, problem, warning
from warp.cli.doctor.judge.clients import is_loopback
from warp.config import AgentConfig
from warp.config_values import parse_address
from warp.handlers.context import Endpoint


def judge_cluster(
    config: AgentConfig, facts: PostgresFacts, marker: MarkerFacts, port: PortFacts
) -> Iterator[Finding]:
    """Findings on an agent's place in its cluster. `port` is that of its first listener."""
    if not facts.refusal:
        yield _judge_id(config.cluster_id, facts)
        yield _judge_marker(config.cluster_id, facts, marker)
        if facts.registration is not None:
            yield _judge_name(facts, port)
    yield judge_peer(config)


def _judge_id(wanted: str | None, facts: PostgresFacts) -> Finding:
    check, stored = "cluster.id", facts.cluster_id
    measured = {"cluster_id": stored}
    if stored is None:
        return ok(check, f"{wanted or 'a new one'}, given by the first agent to start", measured=measured)
    if wanted is not None and wanted != stored:
        text = f"this metadata belongs to cluster {stored}, not {wanted}"
        return problem(
            check,
            text,
            "name the metadata of the cluster that is meant, or leave --cluster-id out",
            measured=measured,
        )
    return ok(check, stored, measured=measured)


def _judge_marker(wanted: str | None, facts: PostgresFacts, marker: MarkerFacts) -> Finding:
    check, owner = "cluster.object-store", marker.cluster_id
    measured = {"cluster_id": owner}
    if marker.refusal:
        return warning(
            check, f"whose it is can't be told: {marker.refusal}", "see the findings on the object store"
        )
    if owner is None:
        return ok(check, "nobody's yet; the first agent to start marks it", measured=measured)
    own = facts.cluster_id or wanted
    if own is None:
        text = f"it belongs to cluster {owner}, and the metadata to none yet"
        remedy = "name the metadata of that cluster, or another bucket or prefix"
        return problem(check, text, remedy, measured=measured)
    if owner != own:
        text = f"it belongs to cluster {owner}, but the metadata to cluster {own}"
        remedy = (
            "give each cluster a bucket or a prefix of its own, or name the metadata that belongs to this one"
        )
        return problem(check, text, remedy, measured=measured)
    return ok(check, "it is this cluster's", measured=measured)


def _judge_name(facts: PostgresFacts, port: PortFacts) -> Finding:
    check, found = "cluster.name", facts.registration
    assert found is not None, "it was looked for"
    subject = found.name
    if found.state is RegistrationState.NONE:
        return ok(check, "no agent has had it yet", subject=subject)
    measured = {"broker_id": found.broker_id}
    if found.state is not RegistrationState.MOVING:
        text = f"the agent that had it is gone; the next one is broker {found.broker_id} again"
        return ok(check, text, subject=subject, measured=measured)
    broker = port.broker
    is_here = (
        port.state is BindState.TAKEN
        and broker is not None
        and (broker.wants_authentication or broker.cluster_id == facts.cluster_id)
    )
    if is_here:
        text = f"an agent that lives has it, as broker {found.broker_id}: one listens at {port.address}"
        return ok(check, text, subject=subject, measured=measured)
    text = f"another agent that lives advertises it, as broker {found.broker_id}"
    remedy = "give each agent an address of its own (--advertise), or stop the other one"
    return problem(check, text, remedy, subject=subject, measured=measured)


def judge_peer(config: AgentConfig) -> Finding:
    """Where other agents reach this one's HTTP."""
    check, alone = "cluster.http", "so it reads the bucket by itself"
    if config.http is None:
        return note(check, f"off: other agents can't ask this one for what it has read, {alone}")
    listener = listener_configs(config)[0]
    told = listener.advertise or listener.bind
    peer = peer_address(config, Endpoint(told.host, told.port), config.http)
    if peer is None:
        text = f"{config.http} is reached from this machine alone, {alone}"
        remedy = "give --http an address that other agents reach, or name where they do with --advertise-http"
        return warning(check, text, remedy)
    host = parse_address(peer).host
    if is_loopback(host) and not is_loopback(told.host):
        text = f"other agents are told {peer}, which means themselves to those on other machines"
        return warning(check, text, "name an address that they reach with --advertise-http")
    if is_loopback(host):
        return note(check, f"{peer}: only agents on this machine reach it")
    return ok(check, f"other agents are told {peer}", measured={"address": peer})
