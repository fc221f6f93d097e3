"""`warp cluster status|config`: who is in a cluster, what each agent does there, and who holds what; its configs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from warp.cli.agent_http import add_http_option, agent_address, get_json
from warp.cli.arguments import Parser, action_of, add_client_options
from warp.cli.client import Client
from warp.cli.configs.command import add_config_options, run_config
from warp.cli.configs.resource import ClusterConfigs
from warp.cli.tables import table
from warp.cli.wire_client import WireClient

ACTIONS = ("status", "config")
PATH = "/v1/cluster"
NONE = "-"

EXAMPLES = """\
  warp cluster status
  warp cluster status --http broker.example:8080
  warp cluster status --json | jq '.agents[] | select(.state != "serving")'

Any agent can be asked. It tells what it sees: of the others, by the database that all share; of its own session, by its
own clock. Exit code 1 says that something is out of order: its session has lapsed, its clock is wrong, a coordinator
slot is nobody's, no agent runs jobs, too much waits to be merged, or records can't be read.
"""

CONFIG_EXAMPLES = """\
  warp cluster config
  warp cluster config --set log.retention.ms=86400000 --set num.partitions=3
  warp cluster config --delete num.partitions
  warp cluster config --all
"""

_Row = Mapping[str, Any]


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    action = action_of("warp cluster", words, ACTIONS, EXAMPLES + "\n" + CONFIG_EXAMPLES)
    if action is None:
        return 0
    return _config(words[1:]) if action == "config" else _status(words[1:])


def _config(words: Sequence[str]) -> int:
    parser = Parser(
        "warp cluster config",
        "Show or change the configs of the whole cluster: what every agent does, where a topic does not say "
        "otherwise. Changes are made all together, or not at all, and are in force at once.",
        CONFIG_EXAMPLES,
    )
    add_config_options(parser)
    add_client_options(parser)
    found = parser.parse_all(words)
    with WireClient(Client(found)) as client:
        run_config(found, ClusterConfigs(client))
    return 0


def _status(words: Sequence[str]) -> int:
    parser = Parser(
        "warp cluster status",
        "Show the agents of a cluster: where they are, what they do, how loaded they are, and what each holds.",
        EXAMPLES,
    )
    add_http_option(parser)
    parser.add_argument("--json", action="store_true", help="Print what the agent says, as one JSON object.")
    found = parser.parse_all(words)
    status = get_json(agent_address(found), PATH)
    if found.json:
        json.dump(status, sys.stdout)
        print()
    else:
        print(report(status), end="")
    return 1 if problems(status) else 0


def report(status: Mapping[str, Any]) -> str:
    """The answer of /v1/cluster for people."""
    parts = [_head(status), _agents(status)]
    if status["own"]["is_shared"]:
        parts.append(_held(status))
    if "merge_debt" in status:  # Agents of older releases don't tell.
        parts.append(f"Merging: {status['merge_debt']:.0%} of what may wait (--merge-backlog-max) waits.")
    return "\n\n".join([*parts, *problems(status), *_lost(status)]) + "\n"


def problems(status: Mapping[str, Any]) -> list[str]:
    """What is out of order, a sentence or two each; nothing in an agent that is the whole cluster."""
    own, slots = status["own"], status["slots"]
    found = []
    if own["session"] != "live":
        found.append(
            "The session of the agent that was asked has lapsed: it does not reach the metadata store, or was frozen. "
            "The others take it for gone."
        )
    if not own["is_clock_trusted"]:
        found.append(
            "The clock of the agent that was asked is more than a minute off the database's: clients are not sent "
            "there, and no jobs run there. Set the clock."
        )
    if own["is_shared"] and slots["free"]:
        found.append(
            f"{slots['free']} of {slots['total']} coordinator slots are nobody's at the moment: their consumer groups "
            "wait. It passes within seconds where an agent has just gone."
        )
    return found + _problems_of_jobs(status)


def _problems_of_jobs(status: Mapping[str, Any]) -> list[str]:
    found = []
    lives = [agent for agent in status["agents"] if agent["state"] in ("serving", "leaving")]
    if not any("jobs" in agent["roles"] for agent in lives):
        found.append(
            "No agent that lives has the role jobs (--roles): nothing is merged, compacted or deleted, and in the end "
            "producers are held back."
        )
    if status.get("merge_debt", 0.0) > 1.0:
        found.append(
            f"Producers are held back: {status['merge_debt']:.1f} times as much waits to be merged as may wait. "
            "/v1/jobs of the agent that holds job/merge tells what keeps it, and `warp doctor` there more."
        )
    if status.get("quarantined_extents"):
        found.append(
            f"{status['quarantined_extents']} extents are missing or damaged in the object store; jobs leave them "
            "alone. `warp fsck` names them."
        )
    return found


def _lost(status: Mapping[str, Any]) -> list[str]:
    return [
        f"Agent {agent['broker_id']} ({agent['name']}) was lost without a goodbye {_age(agent['silent_s'])} ago; what "
        "it held, others have taken. It is forgotten after a day."
        for agent in status["agents"]
        if agent["state"] == "lost"
    ]


def _head(status: Mapping[str, Any]) -> str:
    own = status["own"]
    asked = f"Asked agent {own['broker_id']} ({own['name']}): "
    if not own["is_shared"]:
        return f"{asked}it has its metadata for itself, so it is the whole cluster."
    beat = f", last sign of life {own['beat_age_s']} s ago" if own["beat_age_s"] is not None else ""
    lapses = f", lapsed {own['session_lapses']} times so far" if own["session_lapses"] else ""
    skew = own["clock_skew_ms"]
    clock = (
        ""
        if skew is None
        else f"; clock {abs(skew)} ms {'ahead of' if skew > 0 else 'behind'} the database's"
    )
    return f"{asked}session {own['session']}{beat}{lapses}{clock}."


def _agents(status: Mapping[str, Any]) -> str:
    header = (
        "ID", "STATE", "ADDRESS", "ZONE", "GROUP", "ROLES", "VERSION", "UPTIME", "CONNECTIONS", "IN MB/S", "OUT MB/S",
        "SLOTS",
    )  # fmt: skip
    return table(header, [_cells(agent) for agent in status["agents"] if agent["state"] != "gone"])


def _cells(agent: _Row) -> Sequence[str]:
    lives = agent["state"] in ("serving", "leaving")
    return (
        str(agent["broker_id"]),
        agent["state"],
        ",".join(agent["endpoints"]) or agent["name"],
        agent["zone"] or NONE,
        agent["group"] or NONE,
        ",".join(agent["roles"]) or NONE,
        agent["version"] or NONE,
        _age(agent["uptime_s"]) if lives else NONE,
        str(agent["connections"]) if lives else NONE,
        _megabytes(agent["produced_bytes_per_s"]) if lives else NONE,
        _megabytes(agent["fetched_bytes_per_s"]) if lives else NONE,
        str(agent["slots"]),
    )


def _held(status: Mapping[str, Any]) -> str:
    slots = status["slots"]
    lines = [f"Coordinator slots: {slots['held']} of {slots['total']} held."]
    lines += [
        f"{job['name']}: {NONE if job['holder'] is None else 'agent ' + str(job['holder'])} (epoch {job['epoch']})"
        for job in status["jobs"]
    ]
    return "\n".join(lines)


def _megabytes(bytes_per_s: int) -> str:
    return f"{bytes_per_s / 1e6:.1f}"


def _age(seconds: float | None) -> str:
    """A time as people say it: its two largest units."""
    if seconds is None:
        return NONE
    left = int(seconds)
    parts = []
    for name, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2]) or "0s"
