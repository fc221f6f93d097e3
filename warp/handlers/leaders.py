"""Who asks, and which agents it is to be told of: what the handlers of Metadata and their like have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warp.cluster.discovery import AgentAddress, Caller, Choice
    from warp.handlers.context import RequestContext


def caller_of(context: RequestContext) -> Caller:
    """The client of the request as discovery knows it; it is known from now until its connection ends."""
    client = context.client
    client.caller = context.services.discovery.caller(
        client.caller, context.client_id, client.host, client.listener
    )
    return client.caller


def choice_for(context: RequestContext) -> Choice:
    """Who leads partitions, in the eyes of the client of the request."""
    caller = caller_of(context)
    if context.client.rack is not None:
        caller.rack = context.client.rack
    return context.services.discovery.choose(caller, used_s=context.client.used_s)


def agents_for(context: RequestContext) -> list[AgentAddress]:
    """The agents that the client of the request may talk to."""
    client = context.client
    return context.services.discovery.agents(client.listener, client.advertised)
