from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

class NewTopic:
    def __init__(
        self,
        name: str,
        num_partitions: int = ...,
        replication_factor: int = ...,
        replica_assignments: Mapping[int, list[int]] | None = ...,
        topic_configs: Mapping[str, str] | None = ...,
    ) -> None: ...

class NewPartitions:
    def __init__(self, total_count: int, new_assignments: list[list[int]] | None = ...) -> None: ...

class AlterConfigOp(IntEnum):
    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3

class ConfigResourceType(IntEnum):
    TOPIC = 2
    BROKER = 4

class ConfigResource:
    def __init__(
        self, resource_type: ConfigResourceType, name: str, configs: Mapping[str, Any] | None = ...
    ) -> None: ...

class ScramMechanism(IntEnum):
    SCRAM_SHA_256 = 1
    SCRAM_SHA_512 = 2

class UserScramCredentialUpsertion:
    def __init__(
        self, user: str, mechanism: ScramMechanism, password: str | bytes, iterations: int | None = ...
    ) -> None: ...

class UserScramCredentialDeletion:
    def __init__(self, user: str, mechanism: ScramMechanism) -> None: ...

class KafkaAdminClient:
    def __init__(self, **configs: Any) -> None: ...
    def create_topics(
        self, new_topics: Iterable[NewTopic], timeout_ms: int | None = ..., validate_only: bool = ...
    ) -> Any: ...
    def delete_topics(self, topics: Iterable[str], timeout_ms: int | None = ...) -> Any: ...
    def create_partitions(
        self, topic_partitions: Mapping[str, NewPartitions], timeout_ms: int | None = ...
    ) -> Any: ...
    def list_topics(self) -> list[str]: ...
    def describe_topics(self, topics: Iterable[str] | None = ...) -> list[dict[str, Any]]: ...
    def describe_cluster(self) -> dict[str, Any]: ...
    def describe_configs(
        self,
        config_resources: Iterable[ConfigResource],
        include_synonyms: bool = ...,
        config_filter: str = ...,
    ) -> dict[str, Any]: ...
    def alter_configs(
        self,
        config_resources: Iterable[ConfigResource],
        validate_only: bool = ...,
        raise_on_unknown: bool = ...,
        incremental: bool | None = ...,
    ) -> dict[str, Any]: ...
    def list_config_resources(
        self, resource_types: Iterable[ConfigResourceType] | None = ...
    ) -> dict[str, list[str]]: ...
    def alter_user_scram_credentials(
        self, alterations: Iterable[UserScramCredentialUpsertion | UserScramCredentialDeletion]
    ) -> dict[str, str | None]: ...
    def describe_user_scram_credentials(
        self, users: Iterable[str] | None = ...
    ) -> dict[str, dict[str, Any]]: ...
    def create_acls(self, acls: Iterable[ACL]) -> dict[str, list[Any]]: ...
    def describe_acls(self, acl_filter: ACLFilter) -> tuple[list[ACL], Any]: ...
    def delete_acls(self, acl_filters: Iterable[ACLFilter]) -> list[tuple[ACLFilter, list[ACL], Any]]: ...
    def close(self) -> None: ...

class ResourceType(IntEnum):
    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    USER = 7

class ACLOperation(IntEnum):
    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE_TOKENS = 13

class ACLPermissionType(IntEnum):
    ANY = 1
    DENY = 2
    ALLOW = 3

class ACLResourcePatternType(IntEnum):
    ANY = 1
    MATCH = 2
    LITERAL = 3
    PREFIXED = 4

class ResourcePatternFilter:
    resource_type: ResourceType
    resource_name: str | None
    pattern_type: ACLResourcePatternType
    def __init__(
        self, resource_type: ResourceType, resource_name: str | None, pattern_type: ACLResourcePatternType
    ) -> None: ...

class ResourcePattern(ResourcePatternFilter):
    def __init__(
        self, resource_type: ResourceType, resource_name: str, pattern_type: ACLResourcePatternType = ...
    ) -> None: ...

class ACLFilter:
    principal: str | None
    host: str | None
    operation: ACLOperation
    permission_type: ACLPermissionType
    resource_pattern: ResourcePatternFilter
    def __init__(
        self,
        principal: str | None,
        host: str | None,
        operation: ACLOperation,
        permission_type: ACLPermissionType,
        resource_pattern: ResourcePatternFilter,
    ) -> None: ...

class ACL(ACLFilter): ...
