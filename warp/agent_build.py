"""Builds the agent that a configuration describes, on the stores that it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from warp.agent import Agent
from warp.agent_metrics import MeasuredMetadataStore, MeasuredObjectStore
from warp.clock import Clock
from warp.config import AgentConfig, is_shared
from warp.ids import IdSource
from warp.metadata.urls import open_database
from warp.metrics import Metrics
from warp.objectstore.urls import open_object_store

BEAT_CONNECTIONS_MAX = 2
"""For signs of life alone. One is used; the second is for when the first hangs."""


def build_agent(
    config: AgentConfig,
    *,
    clock: Clock,
    ids: IdSource,
    metrics: Metrics,
    ended: Callable[[str], None] | None = None,
) -> Agent:
    """The agent that a configuration describes, on its own stores; its data directory is locked.

    `ended` is told why, when it must not serve any longer.
    Raises UsageError for stores that can't be, StartError when the directory is held by another agent.
    """
    object_store = open_object_store(object_store_url(config), clock=clock, ids=ids)
    agent = Agent(
        config,
        clock=clock,
        ids=ids,
        object_store=MeasuredObjectStore(object_store, metrics),
        metadata=_metadata_store(config, clock, ids, metrics),
        metrics=metrics,
        ended=ended,
    )
    agent.lock_directories(directories_in_use(config))
    return agent


def _metadata_store(
    config: AgentConfig, clock: Clock, ids: IdSource, metrics: Metrics
) -> MeasuredMetadataStore:
    timeout_s = config.metadata_timeout_ms / 1000
    database = open_database(
        config.metadata, clock, connections_max=config.metadata_connections_max, timeout_s=timeout_s
    )
    beats = None
    if database.is_shared:
        beats = open_database(
            config.metadata, clock, connections_max=BEAT_CONNECTIONS_MAX, timeout_s=timeout_s
        )
    return MeasuredMetadataStore(database, clock, ids, metrics, beats=beats)


def directories_in_use(config: AgentConfig) -> list[Path]:
    """The directories that must be this agent's alone: that of the database, and the data directory if it holds more.

    A directory of objects is none of them: keys are unique, so agents may share it.
    """
    if is_shared(config.metadata):
        return []
    data_directory = config.data_dir.resolve()
    paths = [
        Path(unquote(urlsplit(url).path)).resolve()
        for url in (config.object_store, config.metadata)
        if urlsplit(url).scheme in ("file", "sqlite")
    ]
    found = [data_directory] if any(path.is_relative_to(data_directory) for path in paths) else []
    if urlsplit(config.metadata).scheme == "sqlite" and paths[-1].parent not in found:
        found.append(paths[-1].parent)
    return found


def object_store_url(config: AgentConfig) -> str:
    """The URL with the reserve of --free-space-reserve, unless it names one itself."""
    parts = urlsplit(config.object_store)
    if parts.scheme != "file" or "reserve=" in parts.query:
        return config.object_store
    reserve = f"reserve={config.free_space_reserve_bytes}B"
    return parts._replace(query=f"{parts.query}&{reserve}" if parts.query else reserve).geturl()
