"""OffsetCommit, OffsetFetch and OffsetDelete: the committed offsets of groups."""

from warp.protocol.schema import (
    NO_UUID,
    Request,
    Response,
    Struct,
    boolean,
    field,
    int16,
    int32,
    int64,
    string,
    uuid,
)
from warp.protocol.types import ApiKey


class OffsetCommitRequestPartition(Struct):
    partition_index: int32
    committed_offset: int64
    committed_leader_epoch: int32 = field(default=-1, since=6, ignorable=True)  # KIP-320
    committed_metadata: string | None


class OffsetCommitRequestTopic(Struct):
    name: string = field(default="", until=9, ignorable=True)
    topic_id: uuid = field(default=NO_UUID, since=10, ignorable=True)
    partitions: list[OffsetCommitRequestPartition]


class OffsetCommitRequest(Request, api=ApiKey.OFFSET_COMMIT, versions=(2, 10), flexible=8):
    """v2 to v4 may give a retention time; v9 is for members of the new protocol too (KIP-848), v10 names topics by id
    (KIP-516)."""

    group_id: string
    generation_id_or_member_epoch: int32 = field(default=-1)
    member_id: string
    group_instance_id: string | None = field(default=None, since=7)  # KIP-345
    retention_time_ms: int64 = field(default=-1, until=4, ignorable=True)
    topics: list[OffsetCommitRequestTopic]


class OffsetCommitResponsePartition(Struct):
    partition_index: int32
    error_code: int16


class OffsetCommitResponseTopic(Struct):
    name: string = field(until=9, ignorable=True)
    topic_id: uuid = field(since=10, ignorable=True)
    partitions: list[OffsetCommitResponsePartition]


class OffsetCommitResponse(Response, api=ApiKey.OFFSET_COMMIT, versions=(2, 10), flexible=8):
    throttle_time_ms: int32 = field(default=0, since=3, ignorable=True)
    topics: list[OffsetCommitResponseTopic]


class OffsetFetchRequestTopic(Struct):
    name: string
    partition_indexes: list[int32]


class OffsetFetchRequestGroupTopic(Struct):
    name: string = field(default="", until=9, ignorable=True)
    topic_id: uuid = field(default=NO_UUID, since=10, ignorable=True)
    partition_indexes: list[int32]


class OffsetFetchRequestGroup(Struct):
    group_id: string
    member_id: string | None = field(default=None, since=9, ignorable=True)
    member_epoch: int32 = field(default=-1, since=9, ignorable=True)
    topics: list[OffsetFetchRequestGroupTopic] | None


class OffsetFetchRequest(Request, api=ApiKey.OFFSET_FETCH, versions=(1, 10), flexible=6):
    """Up to v7 one group, from v8 on several (KIP-709). Null topics ask for all from v2 on. v9 is for members of the
    new protocol too (KIP-848), v10 names topics by id (KIP-516)."""

    group_id: string = field(default="", until=7)
    topics: list[OffsetFetchRequestTopic] | None = field(default_factory=list, until=7, nullable=2)
    groups: list[OffsetFetchRequestGroup] = field(default_factory=list, since=8)
    require_stable: boolean = field(default=False, since=7)  # KIP-447


class OffsetFetchResponsePartition(Struct):
    partition_index: int32
    committed_offset: int64
    committed_leader_epoch: int32 = field(default=-1, since=5, ignorable=True)  # KIP-320
    metadata: string | None
    error_code: int16


class OffsetFetchResponseTopic(Struct):
    name: string
    partitions: list[OffsetFetchResponsePartition]


class OffsetFetchResponseGroupPartition(Struct):
    partition_index: int32
    committed_offset: int64
    committed_leader_epoch: int32 = field(default=-1)
    metadata: string | None
    error_code: int16


class OffsetFetchResponseGroupTopic(Struct):
    name: string = field(until=9, ignorable=True)
    topic_id: uuid = field(since=10, ignorable=True)
    partitions: list[OffsetFetchResponseGroupPartition]


class OffsetFetchResponseGroup(Struct):
    group_id: string
    topics: list[OffsetFetchResponseGroupTopic]
    error_code: int16 = field(default=0)


class OffsetFetchResponse(Response, api=ApiKey.OFFSET_FETCH, versions=(1, 10), flexible=6):
    throttle_time_ms: int32 = field(default=0, since=3, ignorable=True)
    topics: list[OffsetFetchResponseTopic] = field(default_factory=list, until=7)
    error_code: int16 = field(default=0, since=2, until=7, ignorable=True)
    groups: list[OffsetFetchResponseGroup] = field(default_factory=list, since=8)


class OffsetDeleteRequestPartition(Struct):
    partition_index: int32


class OffsetDeleteRequestTopic(Struct):
    name: string
    partitions: list[OffsetDeleteRequestPartition]


class OffsetDeleteRequest(Request, api=ApiKey.OFFSET_DELETE, versions=(0, 0)):
    """Deletes committed offsets of topics that the group does not consume (KIP-496). Never flexible."""

    group_id: string
    topics: list[OffsetDeleteRequestTopic]


class OffsetDeleteResponsePartition(Struct):
    partition_index: int32
    error_code: int16


class OffsetDeleteResponseTopic(Struct):
    name: string
    partitions: list[OffsetDeleteResponsePartition]


class OffsetDeleteResponse(Response, api=ApiKey.OFFSET_DELETE, versions=(0, 0)):
    error_code: int16
    throttle_time_ms: int32 = field(default=0)
    topics: list[OffsetDeleteResponseTopic]
