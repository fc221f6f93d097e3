"""The addresses that the agent listens on: free, its own, or somebody else's."""

from __future__ import annotations

from warp.cli.doctor.facts import BindState, Holder, HolderState, PortFacts
from warp.cli.doctor.finding import Figure, Finding, note, ok, problem, warning


def judge_listener(facts: PortFacts, holder: Holder) -> Finding:
    """An address of --listen."""
    check, subject = "ports.listen", str(facts.address)
    if facts.state is not BindState.TAKEN:
        return _judge_untaken(check, "--listen", facts, holder)
    broker = facts.broker
    if broker is None or not broker.is_broker:
        reason = broker.refusal if broker is not None else ""
        text = f"taken by a program that is no Kafka broker: it {reason}" if reason else "taken"
        return problem(
            check, text, "stop that program, or name another address with --listen", subject=subject
        )
    cluster = broker.cluster_id or "without an id"
    if broker.wants_authentication:
        cluster = "unknown because it wants clients to authenticate"
    if holder.state is HolderState.HELD:
        return ok(
            check,
            f"the agent serves here, cluster {cluster}",
            subject=subject,
            measured={"cluster_id": cluster},
        )
    if holder.state is HolderState.UNKNOWN:
        text = f"a Kafka broker serves here, cluster {cluster}; another agent can't"
        return note(check, text, subject=subject, measured={"cluster_id": cluster})
    text = f"taken by a Kafka broker of another data directory, cluster {cluster}"
    remedy = "stop that broker, or name another address with --listen"
    return problem(check, text, remedy, subject=subject, measured={"cluster_id": cluster})


def judge_http(facts: PortFacts, holder: Holder, cluster_id: str | None) -> Finding:
    """The address of --http. `cluster_id` is what the Kafka listener of this agent answered, if it did."""
    check, subject = "ports.http", str(facts.address)
    if facts.state is not BindState.TAKEN:
        return _judge_untaken(check, "--http", facts, holder)
    status = facts.status
    if status is None or status.refusal:
        reason = f": it {status.refusal}" if status is not None else ""
        text = f"taken by a program that is no agent{reason}"
        return problem(check, text, "stop that program, or name another address with --http", subject=subject)
    who = f"Warp {status.version}, cluster {status.cluster_id}, broker {status.broker_id}"
    measured: dict[str, Figure] = {
        "version": status.version,
        "cluster_id": status.cluster_id,
        "broker_id": status.broker_id,
    }
    is_other = cluster_id is not None and status.cluster_id != cluster_id
    if holder.state is HolderState.NOBODY or is_other:
        text = f"taken by another agent: {who}"
        remedy = "stop that agent, or name another address with --http"
        return problem(check, text, remedy, subject=subject, measured=measured)
    if status.reasons_not_ready:
        text = f"the agent is not ready: {'; '.join(status.reasons_not_ready)} ({who})"
        remedy = "see its log; it goes on by itself when what it depends on is back"
        return warning(check, text, remedy, subject=subject, measured=measured)
    return ok(check, f"the agent is ready: {who}", subject=subject, measured=measured)


def _judge_untaken(check: str, option: str, facts: PortFacts, holder: Holder) -> Finding:
    subject = str(facts.address)
    if facts.state is BindState.FREE and facts.address.port == 0:
        return ok(check, "any free port will be taken", subject=subject)
    if facts.state is BindState.FREE and holder.state is HolderState.HELD:
        text = (
            "free, though an agent runs on this data directory: it listens elsewhere, or does not serve yet"
        )
        remedy = f"give the doctor the options of that agent ({option} among them), or see its log"
        return warning(check, text, remedy, subject=subject)
    if facts.state is BindState.FREE:
        return ok(check, "free", subject=subject)
    if facts.state is BindState.PRIVILEGED:
        remedy = f"name a port from 1024 up with {option}, or give the agent CAP_NET_BIND_SERVICE"
        return problem(check, f"this user may not use the port ({facts.reason})", remedy, subject=subject)
    if facts.state is BindState.NOT_HERE:
        text = "no interface of this machine has that address"
        remedy = f"name an address of this machine, or 0.0.0.0 for all of them, with {option}"
        return problem(check, text, remedy, subject=subject)
    if facts.state is BindState.UNKNOWN_HOST:
        text = f"the host name has no address ({facts.reason})"
        return problem(check, text, f"name an IP address of this machine with {option}", subject=subject)
    text = f"can't be listened on ({facts.reason})"
    return problem(check, text, f"name another address with {option}", subject=subject)
