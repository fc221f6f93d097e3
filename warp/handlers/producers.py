"""InitProducerId: a number for an idempotent producer.

Behaviour: without a transactional id the answer is a new producer id with epoch 0, also for a producer that asks to
raise the epoch of the id that it has (KIP-360): a new id serves it as well, as with Kafka. It takes IDEMPOTENT_WRITE on
the cluster, or WRITE on any topic (KIP-679).

A transactional id is refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED as long as transactions are not served. The
code is chosen for what clients make of it, not for its name: it is the one that every client takes as fatal. librdkafka
asks again twice a second, without end, for any code but this one, CLUSTER_AUTHORIZATION_FAILED,
INVALID_TRANSACTION_TIMEOUT and the two that mean fenced; the Java client, aiokafka and kafka-python give up on any code
that is not retriable, and name this one. Clients look for the transaction coordinator first; FindCoordinator names this
agent, so that all of them come here and are told the same.

Version notes: v3 brings the id and epoch that the producer has; one without the other is INVALID_REQUEST.
"""

from __future__ import annotations

import logging

from warp.errors import ErrorCode
from warp.handlers.access import allows_idempotent_writes, allows_transactional_id
from warp.handlers.context import RequestContext
from warp.ids import NO_PRODUCER_ID
from warp.protocol.messages.producers import InitProducerIdRequest, InitProducerIdResponse
from warp.protocol.types import AclOperation

log = logging.getLogger("warp.handlers")

_NO_EPOCH = -1
_FIRST_EPOCH = 0


async def init_producer_id(context: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse:
    """Give the producer an id that nobody has had before."""
    if request.transactional_id is not None:
        code = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        if not allows_transactional_id(context, AclOperation.WRITE, request.transactional_id):
            return init_producer_id_failed(context, request, code, "")
        log.warning(
            "%s (%s) asked for the transactional id %.100r: transactions are not served",
            context.client_id,
            context.client.address,
            request.transactional_id,
        )
        return init_producer_id_failed(context, request, code, "transactions are not served")
    if not allows_idempotent_writes(context):
        return init_producer_id_failed(context, request, ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "")
    if (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == _NO_EPOCH):
        return init_producer_id_failed(context, request, ErrorCode.INVALID_REQUEST, "id without epoch")
    producer_id = await context.services.producer_ids.next()
    return InitProducerIdResponse(
        error_code=ErrorCode.NONE, producer_id=producer_id, producer_epoch=_FIRST_EPOCH
    )


def init_producer_id_failed(
    context: RequestContext, request: InitProducerIdRequest, code: ErrorCode, message: str
) -> InitProducerIdResponse:
    """The whole request failed."""
    return InitProducerIdResponse(error_code=context.note(code), producer_epoch=_NO_EPOCH)
