"""What a world has besides when its agents ask who is there: users, their rights, how clients log in, and who fails to.

Clients log in on every new connection, by SCRAM or PLAIN, as the user that their name stands for. Some give a wrong
password first, some lose the connection in the middle of it. What users may do here never changes, so whoever is
refused breaks a promise; `guests` are those whose rights come and go.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tests.sim.client import Connection, Lost
from warp.errors import ErrorCode
from warp.metadata.entries import EntryChange, EntryKind
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import Acl, acl_key
from warp.security.credentials import SHA_256, entry_key, entry_value, make_credential

if TYPE_CHECKING:
    from tests.sim.world import World

SEEDS_PER_GUARD = 5
GUARDED_SEED = 3
"""Of so many seeds in a row, in this one the agents ask who is there."""
ROOT, WRITER, READER, MEMBER = "root", "writer", "reader", "member"
ITERATIONS = 4_096
SALT = b"of all users"
LOGIN_S = 10.0
MISHAPS = 0.03
"""The share of log-ins with a wrong password, and of those that are cut off in the middle."""
HANDSHAKE_VERSION = 1
AUTHENTICATE_VERSION = 2
RIGHTS = (
    (WRITER, AclResourceType.TOPIC, AclOperation.WRITE),
    (READER, AclResourceType.TOPIC, AclOperation.READ),
    (MEMBER, AclResourceType.TOPIC, AclOperation.READ),
    (MEMBER, AclResourceType.GROUP, AclOperation.READ),
)
"""On all resources of the type."""


class Refused(Lost):
    """Authentication has failed."""


def is_guarded(seed: int) -> bool:
    """Do the agents of this seed's world ask who is there?"""
    return seed % SEEDS_PER_GUARD == GUARDED_SEED


def user_of(client_id: str) -> str:
    """As whom a client logs in."""
    match client_id.partition("-")[0]:
        case "producer" | "pairs":
            return WRITER
        case "consumer" | "sceptic":
            return READER
        case "group" | "group auditor":
            return MEMBER
    return ROOT


def password_of(user: str) -> str:
    """Everybody can guess it, and nobody does."""
    return f"password of {user}"


@lru_cache
def salted(password: str, salt: bytes, iterations: int) -> bytes:
    """PBKDF2, which is dear, of the few passwords that there are."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


class Guard:
    """Users and their log-ins in one world. It has chances of its own."""

    def __init__(self, world: World) -> None:
        self.chance = random.Random(f"{world.seed} guard")
        self.session_ms = self.chance.choice((0, 0, 4_000, 9_000))
        """After so long clients have to authenticate again, or are hung up on."""
        self.log_ins = 0
        self.failed_log_ins = 0
        """Those that had to fail."""
        self._world = world
        self._is_stormy = True
        world.network.greet = self.greet

    def options(self) -> dict[str, str]:
        """Of the agents' configuration."""
        return {
            "listen": "SASL_PLAINTEXT://127.0.0.1:9092",
            "sasl_mechanisms": "SCRAM-SHA-256,PLAIN",
            "authorization": "enforce",
            "super_users": f"User:{ROOT}",
        }

    async def prepare(self) -> None:
        """Create users and rights through an agent, as somebody on its own machine does, and wait for the others."""
        agent = self._world.hosts[0].agent
        assert agent is not None, "the first agent serves"
        users = [
            EntryChange(
                entry_key(SHA_256, user),
                entry_value(
                    make_credential(SHA_256, ITERATIONS, SALT, salted(password_of(user), SALT, ITERATIONS))
                ),
            )
            for user in (ROOT, WRITER, READER, MEMBER)
        ]
        acls = [
            EntryChange(
                acl_key(
                    Acl(
                        resource, AclPatternType.LITERAL, "*", f"User:{user}", "*", operation, AclPermissionType.ALLOW
                    )
                ),
                "",
            )
            for user, resource, operation in RIGHTS
        ]  # fmt: skip
        await agent.catalogue.change_entries(EntryKind.CREDENTIAL, lambda entries: users)
        await agent.catalogue.change_entries(EntryKind.ACL, lambda entries: acls)
        for host in self._world.hosts:
            if host.agent is not None:
                await host.agent.catalogue.refresh()

    def calm(self) -> None:
        """Nobody errs any more."""
        self._is_stormy = False

    async def greet(self, connection: Connection) -> None:
        """What a client does first on a connection: it logs in as the user that its name stands for. Raises Lost."""
        user = user_of(connection.client_id)
        if self._is_stormy and self.chance.random() < MISHAPS:
            await self.fail(connection, user, "wrong")
            raise Lost("a wrong password, by mistake")
        try:
            await self.log_in(connection, user, password_of(user))
        except Refused as error:
            self._world.history.violate("P10", f"{connection.client_id} was refused as {user}: {error}")
            raise

    async def fail(self, connection: Connection, user: str, password: str) -> None:
        """Log in with what has to be refused. Raises Lost when nobody can tell whether it is."""
        try:
            await self.log_in(connection, user, password)
        except Refused:
            self.failed_log_ins += 1
        else:
            self._world.history.violate(
                "P10", f"{connection.life} let {user} in, who does not exist or has another password"
            )
        connection.close()

    async def log_in(self, connection: Connection, user: str, password: str) -> int:
        """Authenticate, or do so again: milliseconds that the session lasts, 0 for ever. Raises Refused and Lost."""
        is_cut = self._is_stormy and self.chance.random() < MISHAPS
        mechanism = self.chance.choice(("SCRAM-SHA-256", "SCRAM-SHA-256", "PLAIN"))
        handshake = SaslHandshakeRequest(mechanism=connection.mechanism or mechanism)
        connection.mechanism = handshake.mechanism
        shaken = await connection.ask(handshake, HANDSHAKE_VERSION, LOGIN_S)
        if shaken.error_code:
            raise Refused(f"SaslHandshake got {ErrorCode(shaken.error_code).name}")
        if handshake.mechanism == "PLAIN":
            answer = await self._send_token(connection, f"\0{user}\0{password}".encode())
        else:
            answer = await self._prove(connection, user, password, is_cut)
        self.log_ins += 1
        return int(answer.session_lifetime_ms)

    async def _prove(self, connection: Connection, user: str, password: str, is_cut: bool) -> Any:
        """SCRAM-SHA-256, the client's side (RFC 5802)."""
        nonce = f"{self.chance.getrandbits(96):024x}"
        first = f"n={user},r={nonce}"
        challenge = (await self._send_token(connection, f"n,,{first}".encode())).auth_bytes.decode()
        if is_cut:
            connection.close()
            raise Lost("cut off in the middle of authentication")
        fields = dict(part.split("=", 1) for part in challenge.split(","))
        key = salted(password, base64.b64decode(fields["s"]), int(fields["i"]))
        last = f"c=biws,r={fields['r']}"
        signed = f"{first},{challenge},{last}".encode()
        client_key = hmac.digest(key, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
        answer = await self._send_token(connection, f"{last},p={base64.b64encode(proof).decode()}".encode())
        shown = hmac.digest(hmac.digest(key, b"Server Key", "sha256"), signed, "sha256")
        if answer.auth_bytes != b"v=" + base64.b64encode(shown):
            self._world.history.violate("P10", f"{connection.life} does not know who {user} is")
        return answer

    async def _send_token(self, connection: Connection, token: bytes) -> Any:
        answer = await connection.ask(
            SaslAuthenticateRequest(auth_bytes=token), AUTHENTICATE_VERSION, LOGIN_S
        )
        if answer.error_code:
            raise Refused(f"SaslAuthenticate got {ErrorCode(answer.error_code).name}: {answer.error_message}")
        return answer
