"""Frames: a byte stream cut into frames, however it arrives and however often there is no memory.

The input is a script: limits, then what arrives in which pieces. What the splitter hands out is held against the stream
itself, and what it has reserved against what it was granted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from tests.fuzz.marks import mark
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from warp._frames import FRAME_BYTES_MIN, FrameSplitter, SharedReceiveBuffer
from warp.protocol import DecodeError

SHARED_BYTES: Final = 4096
FRAME_BYTES_MAX: Final = 100_000
STEPS_MAX: Final = 64

# What a step of the script is.
PIECE, FRAME, REFUSE, GRANT, RESUME = range(5)


class Memory:
    """Says yes or no to what the splitter asks for, and counts."""

    def __init__(self) -> None:
        self.refuses = False
        self.granted_bytes = 0

    def reserve(self, size_bytes: int) -> bool:
        """What FrameSplitter calls."""
        assert size_bytes > 0
        if not self.refuses:
            self.granted_bytes += size_bytes
        return not self.refuses


class Run:
    """One stream through one splitter."""

    def __init__(self, frame_bytes_max: int, frame_bytes_min: int) -> None:
        self._memory = Memory()
        self._splitter = FrameSplitter(
            SharedReceiveBuffer(SHARED_BYTES), frame_bytes_max, self._memory.reserve
        )
        self._splitter.frame_bytes_min = frame_bytes_min
        self._stream = bytearray()
        self._frames: list[bytes] = []
        self._limits = range(frame_bytes_min, frame_bytes_max + 1)

    def play(self, script: Script) -> None:
        """All steps, then the checks."""
        refused = False
        try:
            for _ in range(STEPS_MAX):
                if not script:
                    break
                self._step(script)
                self._check_memory()
            self._memory.refuses = False
            while self._splitter.blocked:
                self._resume()
        except DecodeError:
            refused = True
        mark("refused" if refused else "read", min(len(self._frames), 4))
        self._check_frames(refused)
        if not refused:
            self._check_memory()
        self._splitter.close()
        assert self._splitter.reserved_bytes == self._splitter.held_bytes == 0

    def _step(self, script: Script) -> None:
        kind = script.byte() % 5
        mark("step", kind, self._splitter.blocked)
        if kind == PIECE:
            self._receive(script.take(script.byte()))
        elif kind == FRAME:
            size = script.number(3) % (FRAME_BYTES_MAX + 1)
            self._receive(struct.pack(">i", size) + bytes([size & 0xFF]) * size)
        elif kind == RESUME and self._splitter.blocked:
            self._resume()
        else:
            self._memory.refuses = kind == REFUSE

    def _receive(self, data: bytes) -> None:
        while data and not self._splitter.blocked:
            buffer = memoryview(self._splitter.get_buffer(-1))
            assert len(buffer) > 0
            part = data[: len(buffer)]
            buffer[: len(part)] = part
            buffer.release()
            # Before it is known whether the splitter likes it.
            self._stream += part
            data = data[len(part) :]
            self._take(self._splitter.buffer_updated(len(part)))

    def _resume(self) -> None:
        # Whoever resumes has reserved it.
        self._memory.granted_bytes += self._splitter.wanted_bytes
        self._take(self._splitter.resume())

    def _take(self, frames: list[bytes | memoryview]) -> None:
        self._frames += map(bytes, frames)

    def _check_memory(self) -> None:
        handed_out = sum(map(len, self._frames))
        assert self._memory.granted_bytes == handed_out + self._splitter.reserved_bytes

    def _check_frames(self, refused: bool) -> None:
        expected, is_sound = _frames_of(bytes(self._stream), self._limits)
        if refused:
            assert not is_sound, "refused a sound stream"
            assert self._frames == expected[: len(self._frames)]
        else:
            assert is_sound, "accepted a size outside of the limits"
            assert self._frames == expected


def _frames_of(stream: bytes, limits: range) -> tuple[list[bytes], bool]:
    """The whole frames of a stream, and whether no size in it is outside of the limits."""
    frames: list[bytes] = []
    while len(stream) >= 4:
        (size,) = struct.unpack_from(">i", stream)
        if size not in limits:
            return frames, False
        if len(stream) < 4 + size:
            break
        frames.append(stream[4 : 4 + size])
        stream = stream[4 + size :]
    return frames, True


def check(data: bytes) -> None:
    """Limits from the first four bytes, steps from the rest."""
    script = Script(data)
    frame_bytes_min = 1 if script.byte() & 1 else FRAME_BYTES_MIN
    Run(frame_bytes_min + script.number(3) % FRAME_BYTES_MAX, frame_bytes_min).play(script)


def seeds() -> Iterable[bytes]:
    """Whole frames, pieces of them, blocks, refusals, and sizes that are none."""
    limits = b"\0\x01\x80\0"
    whole = bytes([PIECE, 14]) + struct.pack(">i", 10) + b"0123456789"
    halves = bytes([PIECE, 6]) + struct.pack(">i", 10) + b"01" + bytes([PIECE, 8]) + b"23456789"
    size_in_two = bytes([PIECE, 2, 0, 0]) + bytes([PIECE, 12]) + b"\0\x0a0123456789"
    block = bytes([FRAME]) + (70_000).to_bytes(3, "big")
    waits = bytes([REFUSE]) + whole + bytes([GRANT, RESUME])
    yield from (limits + steps for steps in (whole, halves, size_in_two, block, waits, whole + block + whole))
    yield limits + bytes([REFUSE]) + block + bytes([RESUME, GRANT]) + whole * 3
    yield limits + bytes([PIECE, 28]) + (struct.pack(">i", 10) + b"0123456789") * 2 + whole
    yield limits + bytes([PIECE, 4]) + struct.pack(">i", -1)
    yield limits + bytes([PIECE, 4]) + struct.pack(">i", 2**31 - 1)
    yield b"\1\0\0\0" + bytes([PIECE, 5]) + struct.pack(">i", 1) + b"x"


TARGET = Target(
    check,
    seeds,
    words=(b"\0\0\0\x08", b"\0\0\0\x07", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\x01\x11\x70"),
    input_bytes_max=1024,
)
