"""A TCP relay in front of a server, which cuts connections at a chosen moment of the conversation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

CALL_TIMEOUT_S = 30.0


class Relay:
    """Forwards to 127.0.0.1:`target_port` from `port`. Use as an async context manager.

    `cut_before(text)` cuts the connection on which the client next sends that text, and the server never gets it.
    `cut_after(text)` lets the server have it, waits for the answer, and cuts instead of passing it on.
    `hold()` passes nothing on, in neither direction, and hangs up on nobody, until `release()` passes on what has come.
    `refuse()` hangs up on everybody, old and new, until `release()`.
    `forbid(text)` cuts, from now on, every connection on which the client sends that text.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.cuts = 0
        self._target_port = target_port
        self._before: bytes | None = None
        self._after: bytes | None = None
        self._forbidden: bytes | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_refusing = False

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        self.cut_all()
        await asyncio.sleep(0)

    def cut_before(self, text: bytes) -> None:
        """Once."""
        self._before = text

    def cut_after(self, text: bytes) -> None:
        """Once."""
        self._after = text

    def forbid(self, text: bytes) -> None:
        """Always."""
        self._forbidden = text

    def hold(self) -> None:
        """From now on, also on new connections."""
        self._flowing.clear()

    def refuse(self) -> None:
        """From now on."""
        self._is_refusing = True
        self.cut_all()

    def release(self) -> None:
        """Let it flow again."""
        self._is_refusing = False
        self._flowing.set()

    def cut_all(self) -> None:
        """Cut every connection now."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        cut = asyncio.Event()
        await self._flowing.wait()
        try:
            if self._is_refusing:
                raise ConnectionRefusedError
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(there)
        answers = asyncio.ensure_future(self._forward_answers(there_reader, writer, cut))
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                if self._forbidden is not None and self._forbidden in data:
                    self.cuts += 1
                    break
                if self._before is not None and self._before in data:
                    self._before = None
                    self.cuts += 1
                    break
                if self._after is not None and self._after in data:
                    self._after = None
                    cut.set()
                there.write(data)
            if cut.is_set():
                await answers
        except ConnectionError:
            return  # either side may hang up at any time
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            for each in (writer, there):
                each.transport.abort()
                self._writers.discard(each)

    async def _forward_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                if cut.is_set():
                    self.cuts += 1
                    break
                writer.write(data)
        except ConnectionError:
            return
        finally:
            writer.transport.abort()


class RelayThread:
    """A relay with an event loop of its own, for tests that have none. Use as a context manager."""

    def __init__(self, target_port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._relay = Relay(target_port)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._relay.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._relay.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._relay.port

    @property
    def cuts(self) -> int:
        """How many connections it has cut because of a text."""
        return self._relay.cuts

    def cut_before(self, text: bytes) -> None:
        """Once."""
        self._loop.call_soon_threadsafe(self._relay.cut_before, text)

    def cut_after(self, text: bytes) -> None:
        """Once."""
        self._loop.call_soon_threadsafe(self._relay.cut_after, text)

    def forbid(self, text: bytes) -> None:
        """Cut every connection on which it is sent, from now on."""
        self._loop.call_soon_threadsafe(self._relay.forbid, text)

    def cut_all(self) -> None:
        """Cut every connection now."""
        self._loop.call_soon_threadsafe(self._relay.cut_all)

    def hold(self) -> None:
        """Pass nothing on from now on."""
        self._loop.call_soon_threadsafe(self._relay.hold)

    def refuse(self) -> None:
        """Hang up on everybody from now on."""
        self._loop.call_soon_threadsafe(self._relay.refuse)

    def release(self) -> None:
        """Let it flow again."""
        self._loop.call_soon_threadsafe(self._relay.release)

    def _call(self, coroutine: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_TIMEOUT_S)
