"""Carries out what a report offers to repair, and nothing else."""

from __future__ import annotations

from warp.ids import ProducerId
from warp.lifecycle.fsck_report import Repair, RepairKind, Report
from warp.metadata.fsck_repairs import FsckRepairs


async def repair(report: Report, repairs: FsckRepairs) -> None:
    """Put right what can be; `report.repaired` then tells what was. Raises MetadataError."""
    for wanted in report.repairs:
        has_changed = await _carry_out(wanted, repairs)
        (report.repaired if has_changed else report.not_needed).append(wanted)


async def _carry_out(wanted: Repair, repairs: FsckRepairs) -> bool:
    """Do it; False when nothing was wrong any more."""
    match wanted.kind:
        case RepairKind.LOG_SIZE:
            return await repairs.log_size(wanted.log_id)
        case RepairKind.PREFIX:
            return await repairs.prefix(wanted.log_id)
        case RepairKind.LOG_MAXIMUM:
            return await repairs.log_maximum(wanted.log_id)
        case RepairKind.CLEAN_OFFSET:
            return await repairs.clean_offset(wanted.log_id)
        case RepairKind.RELEASE:
            return await repairs.release(wanted.log_id, wanted.number, wanted.segment_id)
        case RepairKind.PRODUCER:
            return await repairs.producer(wanted.log_id, ProducerId(wanted.number))
