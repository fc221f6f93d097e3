"""The ways in which the product is broken: one promise each, one edit each, and the tests that have to notice.

ARCHITECTURE.md lists the promises. The tests named are the narrow, quick ones; others may notice too. A breakage should
look harmless: what nobody would write by mistake shows nothing. When its text is no longer there, because the code has
changed, it has to be rewritten; test_table.py says so in every run of the tests.
"""

from __future__ import annotations

from tests.breakages import (
    access,
    acls,
    authenticating,
    checking,
    clustering,
    compacting,
    configs,
    deleting,
    entries,
    grouping,
    membership,
    merging,
    objects,
    quotas,
    serving,
    storing,
    swapping,
    working,
    zone,
)

BREAKAGES = (
    *storing.ACKNOWLEDGED,
    *storing.ATOMIC,
    *storing.OFFSETS,
    *storing.IDEMPOTENT,
    *objects.ON_S3,
    *serving.VISIBLE,
    *serving.SURVIVING,
    *serving.HOSTILE,
    *serving.BOUNDED,
    *grouping.COMMITTED,
    *grouping.MEMBERS,
    *clustering.SLOTS,
    *clustering.JOBS,
    *membership.MEMBERS,
    *zone.READ_THROUGH,
    *access.ASKED,
    *entries.IN_FORCE,
    *acls.DECIDED,
    *authenticating.PROVED,
    *configs.CONFIGURED,
    *quotas.HELD_BACK,
    *deleting.IN_TIME,
    *checking.PROVED,
    *swapping.SWAPPED,
    *merging.MERGED,
    *working.JOBS_RUN,
    *compacting.COMPACTED,
)
