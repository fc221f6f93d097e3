"""A raw client that talks to one agent at a time and tells the verifier of every request and answer."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tests.broker.client import Client
from tests.verifier import Answer, Operation, Recorder
from warp.errors import ErrorCode
from warp.protocol import Request
from warp.protocol.messages.groups import FindCoordinatorRequest

ATTEMPT_S = 5.0
"""How long an agent may take for an answer until nobody waits for it any more."""
AGAIN_S = 0.05
AVOID_S = 2.0
FIND_VERSION = 4
LINGERS_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER: what has not been sent when a client hangs up is thrown away. Otherwise the kernel goes on to send it, and
a request that was lost would come behind those which the client has made since, for no fault of the agent's."""

TRY_AGAIN = frozenset(
    {
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)
"""Kafka's clients try again after these, and lose nothing."""


class Where(Protocol):
    """An agent. `name` is that of its present life."""

    host: str
    port: int

    @property
    def name(self) -> str: ...


class Score:
    """How a client fares: how often it has come to its goal, and what it was told that it should not have been."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = 0
        self.problems: list[str] = []

    def complain(self, text: str) -> None:
        """Note it, with the time as logs have it."""
        now = time.time()
        self.problems.append(
            f"{time.strftime('%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03} {self.name}: {text}"
        )


class Caller:
    """Goes from agent to agent as it is told to, or away from one that has not answered."""

    def __init__(self, recorder: Recorder, name: str, agents: Sequence[Where], source: random.Random) -> None:
        self.recorder = recorder
        self.score = Score(name)
        self.source = source
        self._agents = list(agents)
        self._avoid_until_s = dict.fromkeys(range(len(agents)), 0.0)
        self._wanted = source.randrange(len(agents))
        self._connected = -1
        self._life = ""
        self._client: Client | None = None

    @property
    def name(self) -> str:
        return self.score.name

    async def ask(
        self,
        operation: Operation,
        request: Request,
        version: int,
        read: Callable[[Any], Answer | int],
        attempt_s: float = ATTEMPT_S,
    ) -> Answer | int | None:
        """The answer, recorded with its operation; the error of the whole request; None when there was none."""
        client = await self._connect()
        if client is None:
            return None
        op = self.recorder.begin(self.name, operation, self._life)
        response = await self._exchange(client, request, version, attempt_s)
        if response is None:
            op.lost()
            return None
        answer = read(response)
        if isinstance(answer, int):
            op.failed(answer)
        else:
            op.answered(answer)
        return answer

    async def ask_aside(self, request: Request, version: int, attempt_s: float = ATTEMPT_S) -> Any:
        """The answer to a request of which the verifier wants to know nothing; None when there was none."""
        client = await self._connect()
        return None if client is None else await self._exchange(client, request, version, attempt_s)

    async def go_to_coordinator(self, group: str, stopping: asyncio.Event) -> bool:
        """Ask any agent who coordinates a group, and go there. False: told to stop meanwhile."""
        while not stopping.is_set():
            self.move()
            answer = await self.ask_aside(FindCoordinatorRequest(coordinator_keys=[group]), FIND_VERSION)
            if answer is not None:
                [found] = answer.coordinators
                places = [(agent.host, agent.port) for agent in self._agents]
                if not found.error_code and (found.host, found.port) in places:
                    self.move(places.index((found.host, found.port)))
                    return True
                self.judge(found.error_code, "the search for the coordinator")
            await self.rest()
        return False

    def move(self, agent: int | None = None) -> None:
        """Ask another agent from now on; by default any that nothing is known against."""
        if agent is None:
            now_s = time.monotonic()
            good = [number for number, until_s in self._avoid_until_s.items() if until_s <= now_s]
            agent = self.source.choice(good or list(self._avoid_until_s))
        self._wanted = agent

    def judge(self, error_code: int, what: str) -> None:
        """Note an error that Kafka's clients would not take for passing."""
        if error_code and error_code not in TRY_AGAIN:
            self.score.complain(f"{what} was refused with {ErrorCode(error_code).name}")

    async def rest(self, seconds: float = AGAIN_S) -> None:
        """Wait about so long."""
        await asyncio.sleep(self.source.uniform(0, 2 * seconds))

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.writer.transport.abort()
            self._client = None

    async def _connect(self) -> Client | None:
        if self._client is not None and self._connected == self._wanted:
            return self._client
        self.hang_up()
        agent = self._agents[self._wanted]
        life = agent.name
        try:
            async with asyncio.timeout(ATTEMPT_S):
                client = await Client.connect(agent.port, agent.host)
                made: socket.socket = client.writer.get_extra_info("socket")
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGERS_NOT)
        except (OSError, TimeoutError):
            self._avoid()
            return None
        # Where it was started again just now, nobody knows which of the two it is.
        self._life = life if life == agent.name else ""
        self._client, self._connected = client, self._wanted
        return client

    async def _exchange(self, client: Client, request: Request, version: int, attempt_s: float) -> Any:
        try:
            async with asyncio.timeout(attempt_s):
                return await client.ask(request, version)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.hang_up()
            if attempt_s >= ATTEMPT_S:
                self._avoid()
            return None

    def _avoid(self) -> None:
        self._avoid_until_s[self._wanted] = time.monotonic() + AVOID_S
