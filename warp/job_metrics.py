"""What an agent shows of the jobs that look after data, and of what they have still to do."""

from __future__ import annotations

from warp.instruments import Reading, Readings


class JobMetrics:
    """The part of `Metrics` that is about jobs."""

    def _make_job_metrics(self) -> None:
        self._make_passes()
        self._make_data_life()

    def _make_passes(self) -> None:
        self.jobs_held = Readings(
            "warp_jobs_held", "1 for each background job that this agent runs for its cluster", ["job"]
        )
        self.job_passes = Readings(
            "warp_job_passes_total", "Passes of background jobs that were done at this agent", ["job"]
        )
        self.job_failures = Readings(
            "warp_job_failures_total", "Passes of background jobs that were cut short by an error", ["job"]
        )
        self.job_seconds = Readings(
            "warp_job_last_pass_seconds", "Time that the last pass of a background job took", ["job"]
        )
        self.job_bytes = Readings(
            "warp_job_bytes_total",
            "Bytes that background jobs moved, by direction: read from the object store, written to it",
            ["job", "direction"],
        )
        self.job_deleted_objects = Readings(
            "warp_job_deleted_objects_total", "Objects that background jobs deleted", ["job"]
        )
        self.job_done = Readings(
            "warp_job_done_total",
            "What background jobs have done, by kind; docs/operations.md lists them",
            ["job", "what"],
        )
        self.deletions_refused = Reading(
            "warp_deletions_refused_total",
            "Passes that deleted nothing because the object store lives by other metadata than these",
        )
        self.jobs_paced_seconds = Reading(
            "warp_jobs_paced_seconds_total",
            "For how long jobs were held back, by --jobs-bandwidth or to spare producers",
        )

    def _make_data_life(self) -> None:
        self.merge_backlog = Reading(
            "warp_merge_backlog_ratio",
            "What waits to be merged beside what may wait, the worst that an agent tells of; producers are held back "
            "above 1",
        )
        self.held_back = Reading(
            "warp_held_back_total",
            "Produce requests after which a client was held back so that merging keeps up",
        )
        self.held_back_seconds = Reading(
            "warp_held_back_seconds_total", "For how long clients were held back so that merging keeps up"
        )
        self.live_segments = Readings(
            "warp_live_segments",
            "Segments that hold records, by level; shown by the agent that counts them",
            ["level"],
        )
        self.live_segment_bytes = Readings(
            "warp_live_segments_bytes", "Size of the segments that hold records, by level", ["level"]
        )
        self.dead_segments = Reading(
            "warp_dead_segments", "Segments that nothing refers to any more and whose objects are still there"
        )
        self.quarantined_extents = Reading(
            "warp_quarantined_extents",
            "Stretches of logs that jobs found damaged or missing, and leave alone",
        )
