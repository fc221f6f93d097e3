"""DescribeUserScramCredentials and AlterUserScramCredentials (KIP-554)."""

from warp.protocol.schema import Request, Response, Struct, bytes_, field, int8, int16, int32, string
from warp.protocol.types import ApiKey


class DescribeScramUser(Struct):
    name: string


class DescribeUserScramCredentialsRequest(
    Request, api=ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, versions=(0, 0), flexible=0
):
    """Null or no users ask for all."""

    users: list[DescribeScramUser] | None


class DescribedScramCredential(Struct):
    mechanism: int8
    iterations: int32


class DescribeUserScramCredentialsResult(Struct):
    user: string
    error_code: int16
    error_message: string | None
    credential_infos: list[DescribedScramCredential]


class DescribeUserScramCredentialsResponse(
    Response, api=ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, versions=(0, 0), flexible=0
):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    error_message: string | None
    results: list[DescribeUserScramCredentialsResult]


class ScramCredentialDeletion(Struct):
    name: string
    mechanism: int8


class ScramCredentialUpsertion(Struct):
    name: string
    mechanism: int8
    iterations: int32
    salt: bytes_
    salted_password: bytes_


class AlterUserScramCredentialsRequest(
    Request, api=ApiKey.ALTER_USER_SCRAM_CREDENTIALS, versions=(0, 0), flexible=0
):
    """Deletes and sets SCRAM credentials; the client salts and hashes."""

    deletions: list[ScramCredentialDeletion]
    upsertions: list[ScramCredentialUpsertion]


class AlterUserScramCredentialsResult(Struct):
    user: string
    error_code: int16
    error_message: string | None


class AlterUserScramCredentialsResponse(
    Response, api=ApiKey.ALTER_USER_SCRAM_CREDENTIALS, versions=(0, 0), flexible=0
):
    throttle_time_ms: int32 = field(default=0)
    results: list[AlterUserScramCredentialsResult]
