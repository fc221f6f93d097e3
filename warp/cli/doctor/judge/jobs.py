"""Whether somebody merges and deletes, whether that keeps up, and whether it has met records that can't be read."""

from __future__ import annotations

from collections.abc import Iterator

from warp.cli.doctor.facts import JobsFacts
from warp.cli.doctor.finding import Finding, note, ok, problem, warning
from warp.config import AgentConfig, is_shared
from warp.metadata.cluster_model import JOBS


def judge_jobs(config: AgentConfig, facts: JobsFacts | None) -> Iterator[Finding]:
    """Findings on the jobs of a cluster. `facts` is what this machine's agent tells; None where there is none."""
    yield _judge_role(config, facts)
    if facts is None:
        return
    if facts.refusal:
        yield note("jobs.backlog", f"the agent that runs here was asked, but {facts.refusal}")
        return
    yield _judge_backlog(facts)
    yield _judge_quarantine(facts)


def _judge_role(config: AgentConfig, facts: JobsFacts | None) -> Finding:
    check = "jobs.role"
    if JOBS in config.roles:
        return ok(check, "this agent may run jobs")
    remedy = "give at least one agent the role jobs (--roles)"
    if not is_shared(config.metadata):
        text = "this agent is the whole cluster and runs no jobs: nothing is ever merged or deleted"
        return problem(check, text, remedy)
    if facts is None or facts.refusal:
        return note(
            check, "this agent runs no jobs; whether another one does can be seen in `warp cluster status`"
        )
    if facts.has_jobs:
        return ok(check, "other agents run jobs")
    return problem(check, "no agent of the cluster runs jobs: nothing is ever merged or deleted", remedy)


def _judge_backlog(facts: JobsFacts) -> Finding:
    check, debt = "jobs.backlog", facts.merge_debt
    measured = {"merge_debt_ratio": debt}
    if debt <= 1.0:
        return ok(check, f"{debt:.0%} of what may wait waits to be merged", measured=measured)
    text = f"producers are held back: {debt:.1f} times as much waits to be merged as may wait"
    remedy = (
        "look at /v1/jobs of the agent that holds job/merge (`warp cluster status`): at its failures, at "
        "--jobs-bandwidth, and at the time that its passes take; more agents don't merge faster, a faster one does"
    )
    return warning(check, text, remedy, measured=measured)


def _judge_quarantine(facts: JobsFacts) -> Finding:
    check, count = "jobs.quarantine", facts.quarantined_extents
    measured = {"quarantined_extents": count}
    if not count:
        return ok(check, "everything that jobs have read was intact", measured=measured)
    text = f"{count} extents are missing or damaged in the object store; jobs leave them alone"
    remedy = "`warp fsck` names them, and releases those that can be read again with --repair"
    return problem(check, text, remedy, measured=measured)
