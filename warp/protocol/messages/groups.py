"""The classic group protocol: finding coordinators, membership, administration."""

from warp.protocol.schema import Request, Response, Struct, boolean, bytes_, field, int8, int16, int32, string
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED, ApiKey


class FindCoordinatorRequest(Request, api=ApiKey.FIND_COORDINATOR, versions=(0, 6), flexible=3):
    """v1 adds the type of key, v4 asks for many keys at once (KIP-699), v6 knows share groups (KIP-932)."""

    key: string = field(default="", until=3)
    key_type: int8 = field(default=0, since=1)
    coordinator_keys: list[string] = field(default_factory=list, since=4)


class Coordinator(Struct):
    key: string
    node_id: int32
    host: string
    port: int32
    error_code: int16
    error_message: string | None


class FindCoordinatorResponse(Response, api=ApiKey.FIND_COORDINATOR, versions=(0, 6), flexible=3):
    throttle_time_ms: int32 = field(default=0, since=1, ignorable=True)
    error_code: int16 = field(default=0, until=3)
    error_message: string | None = field(default="", since=1, until=3, ignorable=True)
    node_id: int32 = field(default=0, until=3)
    host: string = field(default="", until=3)
    port: int32 = field(default=0, until=3)
    coordinators: list[Coordinator] = field(default_factory=list, since=4)


class JoinGroupRequestProtocol(Struct):
    name: string
    metadata: bytes_


class JoinGroupRequest(Request, api=ApiKey.JOIN_GROUP, versions=(0, 9), flexible=6):
    """v0 has no rebalance timeout of its own. From v4 on a first join may be answered MEMBER_ID_REQUIRED (KIP-394);
    v5 knows static members (KIP-345)."""

    group_id: string
    session_timeout_ms: int32
    rebalance_timeout_ms: int32 = field(default=-1, since=1, ignorable=True)  # KIP-62
    member_id: string
    group_instance_id: string | None = field(default=None, since=5)  # KIP-345
    protocol_type: string
    protocols: list[JoinGroupRequestProtocol]
    reason: string | None = field(default=None, since=8, ignorable=True)  # KIP-800


class JoinGroupResponseMember(Struct):
    member_id: string
    group_instance_id: string | None = field(default=None, since=5, ignorable=True)  # KIP-345
    metadata: bytes_


class JoinGroupResponse(Response, api=ApiKey.JOIN_GROUP, versions=(0, 9), flexible=6):
    throttle_time_ms: int32 = field(default=0, since=2, ignorable=True)
    error_code: int16
    generation_id: int32 = field(default=-1)
    protocol_type: string | None = field(default=None, since=7, ignorable=True)  # KIP-559
    protocol_name: string | None = field(nullable=7)
    leader: string
    skip_assignment: boolean = field(default=False, since=9)  # KIP-814
    member_id: string
    members: list[JoinGroupResponseMember]


class SyncGroupRequestAssignment(Struct):
    member_id: string
    assignment: bytes_


class SyncGroupRequest(Request, api=ApiKey.SYNC_GROUP, versions=(0, 5), flexible=4):
    """From v5 on protocol type and name are checked against the group (KIP-559)."""

    group_id: string
    generation_id: int32
    member_id: string
    group_instance_id: string | None = field(default=None, since=3)  # KIP-345
    protocol_type: string | None = field(default=None, since=5, ignorable=True)  # KIP-559
    protocol_name: string | None = field(default=None, since=5, ignorable=True)
    assignments: list[SyncGroupRequestAssignment]


class SyncGroupResponse(Response, api=ApiKey.SYNC_GROUP, versions=(0, 5), flexible=4):
    throttle_time_ms: int32 = field(default=0, since=1, ignorable=True)
    error_code: int16
    protocol_type: string | None = field(default=None, since=5, ignorable=True)  # KIP-559
    protocol_name: string | None = field(default=None, since=5, ignorable=True)
    assignment: bytes_


class HeartbeatRequest(Request, api=ApiKey.HEARTBEAT, versions=(0, 4), flexible=4):
    """Keeps a member alive; REBALANCE_IN_PROGRESS asks it to join again."""

    group_id: string
    generation_id: int32
    member_id: string
    group_instance_id: string | None = field(default=None, since=3)  # KIP-345


class HeartbeatResponse(Response, api=ApiKey.HEARTBEAT, versions=(0, 4), flexible=4):
    throttle_time_ms: int32 = field(default=0, since=1, ignorable=True)
    error_code: int16


class LeaveGroupMember(Struct):
    member_id: string
    group_instance_id: string | None = field(default=None)
    reason: string | None = field(default=None, since=5, ignorable=True)  # KIP-800


class LeaveGroupRequest(Request, api=ApiKey.LEAVE_GROUP, versions=(0, 5), flexible=4):
    """From v3 on several members, also static ones, leave at once (KIP-345)."""

    group_id: string
    member_id: string = field(default="", until=2)
    members: list[LeaveGroupMember] = field(default_factory=list, since=3)


class LeaveGroupMemberResponse(Struct):
    member_id: string
    group_instance_id: string | None
    error_code: int16


class LeaveGroupResponse(Response, api=ApiKey.LEAVE_GROUP, versions=(0, 5), flexible=4):
    throttle_time_ms: int32 = field(default=0, since=1, ignorable=True)
    error_code: int16
    members: list[LeaveGroupMemberResponse] = field(default_factory=list, since=3)


class DescribeGroupsRequest(Request, api=ApiKey.DESCRIBE_GROUPS, versions=(0, 6), flexible=5):
    """From v6 on an unknown group is GROUP_ID_NOT_FOUND instead of state Dead (KIP-1043)."""

    groups: list[string]
    include_authorized_operations: boolean = field(default=False, since=3)  # KIP-430


class DescribedGroupMember(Struct):
    member_id: string
    group_instance_id: string | None = field(default=None, since=4, ignorable=True)  # KIP-345
    client_id: string
    client_host: string
    member_metadata: bytes_
    member_assignment: bytes_


class DescribedGroup(Struct):
    error_code: int16
    error_message: string | None = field(default=None, since=6)
    group_id: string
    group_state: string
    protocol_type: string
    protocol_data: string
    members: list[DescribedGroupMember]
    authorized_operations: int32 = field(default=AUTHORIZED_OPERATIONS_OMITTED, since=3)


class DescribeGroupsResponse(Response, api=ApiKey.DESCRIBE_GROUPS, versions=(0, 6), flexible=5):
    throttle_time_ms: int32 = field(default=0, since=1, ignorable=True)
    groups: list[DescribedGroup]


class ListGroupsRequest(Request, api=ApiKey.LIST_GROUPS, versions=(0, 5), flexible=3):
    """Filters by state from v4 (KIP-518), by type from v5 on (KIP-848)."""

    states_filter: list[string] = field(default_factory=list, since=4)
    types_filter: list[string] = field(default_factory=list, since=5)


class ListedGroup(Struct):
    group_id: string
    protocol_type: string
    group_state: string = field(default="", since=4, ignorable=True)
    group_type: string = field(default="", since=5, ignorable=True)


class ListGroupsResponse(Response, api=ApiKey.LIST_GROUPS, versions=(0, 5), flexible=3):
    throttle_time_ms: int32 = field(default=0, since=1, ignorable=True)
    error_code: int16
    groups: list[ListedGroup]


class DeleteGroupsRequest(Request, api=ApiKey.DELETE_GROUPS, versions=(0, 2), flexible=2):
    """Deletes empty groups (KIP-229)."""

    groups_names: list[string]


class DeletableGroupResult(Struct):
    group_id: string
    error_code: int16


class DeleteGroupsResponse(Response, api=ApiKey.DELETE_GROUPS, versions=(0, 2), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    results: list[DeletableGroupResult]
