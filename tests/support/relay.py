"""A TCP relay in front of a server, which cuts connections at a chosen moment of the conversation."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Relay:
    """Forwards to 127.0.0.1:`target_port` from `port`. Use as an async context manager.

    `cut_before(text)` cuts the connection on which the client next sends that text, and the server never gets it.
    `cut_after(text)` lets the server have it, waits for the answer, and cuts instead of passing it on.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.cuts = 0
        self._target_port = target_port
        self._before: bytes | None = None
        self._after: bytes | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

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

    def cut_all(self) -> None:
        """Cut every connection now."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        cut = asyncio.Event()
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(there)
        answers = asyncio.ensure_future(self._forward_answers(there_reader, writer, cut))
        try:
            while data := await reader.read(65536):
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
                if cut.is_set():
                    self.cuts += 1
                    break
                writer.write(data)
        except ConnectionError:
            return
        finally:
            writer.transport.abort()
