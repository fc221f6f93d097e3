"""DescribeUserScramCredentials and AlterUserScramCredentials: the users that authenticate by passwords (KIP-554).

Behaviour: describing tells mechanisms and iterations and nothing else; null or no users ask for all. A user named twice
is DUPLICATE_RESOURCE, one that has no credential RESOURCE_NOT_FOUND. Altering takes what the client has salted and
iterated, and keeps the keys that come of it, never the password. Each user has its own result: all that is asked for it
is done, or nothing. Any agent does it; the others know within a second.

Describing takes DESCRIBE on the cluster, altering ALTER.

Version notes: there is only version 0.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from warp.errors import ErrorCode
from warp.handlers.context import RequestContext
from warp.metadata.entries import EntryChange, EntryKind
from warp.protocol.messages.scram import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
    DescribedScramCredential,
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)
from warp.protocol.types import AclOperation, AclResourceType
from warp.security.authorizer import CLUSTER_NAME
from warp.security.credential_changes import Alteration, Deletion, Plan, Upsertion, plan_changes
from warp.security.credentials import (
    SCRAM_HASHES,
    entry_key,
    split_entry_key,
    stored_iterations,
)

ALTERATIONS_MAX = 1_000
"""In one request."""
_USERS_AT_ONCE = 1_000
"""Described before others get their turn."""
_REFUSED = "Cluster authorization failed."


async def describe_user_scram_credentials(
    context: RequestContext, request: DescribeUserScramCredentialsRequest
) -> DescribeUserScramCredentialsResponse:
    """Describe the users asked for, or all."""
    if not context.allows(AclOperation.DESCRIBE, AclResourceType.CLUSTER, CLUSTER_NAME):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        return describe_user_scram_credentials_failed(context, request, code, _REFUSED)
    await context.services.catalogue.everything()
    entries = context.services.catalogue.entries(EntryKind.CREDENTIAL)
    if request.users:
        names: Sequence[str] = [user.name for user in request.users]
    else:
        names = sorted({owner[1] for key in entries if (owner := split_entry_key(key)) is not None})
    results = []
    for index, (name, times) in enumerate(Counter(names).items(), 1):
        results.append(_described(context, entries, name, times))
        if index % _USERS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return DescribeUserScramCredentialsResponse(
        error_code=ErrorCode.NONE, error_message=None, results=results
    )


def _described(
    context: RequestContext, entries: Mapping[str, str], name: str, times: int
) -> DescribeUserScramCredentialsResult:
    infos = []
    code, message = ErrorCode.NONE, None
    for scram in SCRAM_HASHES if times == 1 else ():
        value = entries.get(entry_key(scram, name))
        iterations = None if value is None else stored_iterations(scram, value)
        if iterations is not None:
            infos.append(DescribedScramCredential(mechanism=scram.number, iterations=iterations))
    if times > 1:
        code, message = ErrorCode.DUPLICATE_RESOURCE, "The user stands there twice"
    elif not infos:
        code, message = ErrorCode.RESOURCE_NOT_FOUND, "There is no such user with SCRAM credentials"
    return DescribeUserScramCredentialsResult(
        user=name, error_code=context.note(code), error_message=message, credential_infos=infos
    )


def describe_user_scram_credentials_failed(
    context: RequestContext, request: DescribeUserScramCredentialsRequest, code: ErrorCode, message: str
) -> DescribeUserScramCredentialsResponse:
    """The whole request failed."""
    return DescribeUserScramCredentialsResponse(
        error_code=context.note(code), error_message=message, results=[]
    )


async def alter_user_scram_credentials(
    context: RequestContext, request: AlterUserScramCredentialsRequest
) -> AlterUserScramCredentialsResponse:
    """Delete and set credentials."""
    if not context.allows(AclOperation.ALTER, AclResourceType.CLUSTER, CLUSTER_NAME):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        return alter_user_scram_credentials_failed(context, request, code, _REFUSED)
    alterations = _alterations(request)
    if len(alterations) > ALTERATIONS_MAX:
        problem = f"more than {ALTERATIONS_MAX} credentials in one request"
        return alter_user_scram_credentials_failed(context, request, ErrorCode.INVALID_REQUEST, problem)
    plans: list[Plan] = []
    done: list[str] = []

    def decide(entries: Mapping[str, str]) -> Sequence[EntryChange]:
        plans[:] = [plan_changes(entries, alterations)]
        done[:] = plans[0].done
        return plans[0].changes

    with context.telling_each("altered credentials", done):
        await context.services.catalogue.change_entries(EntryKind.CREDENTIAL, decide)
    (plan,) = plans
    return AlterUserScramCredentialsResponse(
        results=[
            _result(context, user, ErrorCode.NONE, None)
            if error is None
            else _result(context, user, error.code, error.message)
            for user, error in plan.results.items()
        ]
    )


def _alterations(request: AlterUserScramCredentialsRequest) -> list[Alteration]:
    deletions = [Deletion(each.name, each.mechanism) for each in request.deletions]
    upsertions = [
        Upsertion(each.name, each.mechanism, each.iterations, bytes(each.salt), bytes(each.salted_password))
        for each in request.upsertions
    ]
    return [*deletions, *upsertions]


def alter_user_scram_credentials_failed(
    context: RequestContext, request: AlterUserScramCredentialsRequest, code: ErrorCode, message: str
) -> AlterUserScramCredentialsResponse:
    """The whole request failed: each user has the error."""
    users = dict.fromkeys(each.user for each in _alterations(request))
    return AlterUserScramCredentialsResponse(
        results=[_result(context, user, code, message) for user in users]
    )


def _result(
    context: RequestContext, user: str, code: ErrorCode, message: str | None
) -> AlterUserScramCredentialsResult:
    return AlterUserScramCredentialsResult(user=user, error_code=context.note(code), error_message=message)
