"""What misfortunes are made of does what it says, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import clocks, disks, network
from tests.faults.clocks import ShiftedClock
from tests.faults.conductor import Conductor
from tests.faults.disks import SmallDisk
from tests.faults.network import Link, Network
from tests.faults.schedule import Kind, Misfortune, Schedule

LOOK = """
import sys, time
for line in sys.stdin:
    time.sleep(0.001)
    print(time.time(), time.time_ns(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), flush=True)
"""
NETWORK = """
import time
from tests.faults.network import Network
with Network(1) as made:
    print(made.command(0)[3], flush=True)
    time.sleep(1000)
"""
CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as made:
    print(made.recv(100).decode())
"""


def needs(reason: str | None) -> None:
    if reason is not None:
        pytest.skip(reason)


def test_a_shifted_clock_is_wrong_as_told_while_its_process_runs_and_the_others_are_right(
    tmp_path: Path,
) -> None:
    needs(clocks.missing())
    clock = ShiftedClock(tmp_path / "clock")
    with subprocess.Popen(
        [sys.executable, "-c", LOOK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **clock.environment},
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        for shift_ms in (0, 240_000, -90_500, 0):
            clock.shift(shift_ms)
            before = (time.time(), time.time_ns(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))
            child.stdin.write("\n")
            child.stdin.flush()
            found = [float(word) for word in child.stdout.readline().split()]
            after = (time.time(), time.time_ns(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))
            shifts = (shift_ms / 1e3, shift_ms * 1e6, 0, 0)
            for earlier, told, later, shift in zip(before, found, after, shifts, strict=True):
                assert earlier + shift - 1e-3 <= told <= later + shift + 1e-3
        child.stdin.close()


def test_a_full_disk_takes_no_byte_and_is_as_before_afterwards(tmp_path: Path) -> None:
    needs(disks.missing())
    path = tmp_path / "disk"
    with SmallDisk(path, 1 << 20) as disk:
        (path / "kept").write_bytes(b"kept")
        with disk.full(0), pytest.raises(OSError, match="No space left") as refused:
            (path / "more").write_bytes(b"more")
        assert refused.value.errno == errno.ENOSPC
        with disk.full(8192):
            (path / "little").write_bytes(bytes(4096))
            with pytest.raises(OSError, match="No space left"):
                (path / "much").write_bytes(bytes(1 << 19))
        (path / "after").write_bytes(bytes(1 << 19))
        assert (path / "kept").read_bytes() == b"kept"
    assert str(path) not in Path("/proc/mounts").read_text()


def test_an_agent_behind_a_link_that_is_down_is_heard_again_when_it_is_up() -> None:
    needs(network.missing())
    with Network(2) as made:
        assert made.address(0) != made.address(1)
        with (
            serving(made.host_address(Link.STORE, 1)) as store,
            serving(made.host_address(Link.POSTGRES, 1)) as other,
        ):
            hears(made, 1, Link.STORE, store, "hello")
            with made.down(Link.STORE, 1):
                child = connecting(made, 1, Link.STORE, store)
                # The other link is as it was, and what was sent over this one is lost.
                hears(made, 1, Link.POSTGRES, other, "hello")
                assert child.poll() is None
            assert child.communicate(timeout=30)[0].strip() == "hello"
        numbers = [made.command(agent)[3] for agent in range(2)]
    assert not any(name in namespaces() for name in numbers)


def test_what_a_killed_run_has_left_is_removed_by_the_next_one_whatever_its_number() -> None:
    needs(network.missing())
    with Network(1):
        child = subprocess.Popen(
            [sys.executable, "-c", NETWORK], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        with child:
            child.kill()
        assert name in namespaces()
    with Network(1):
        assert name not in namespaces()


def namespaces() -> list[str]:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()


@contextmanager
def serving(host: str) -> Iterator[int]:
    """The port at which everybody is greeted."""
    code = (
        "import socket\n"
        f"with socket.create_server(({host!r}, 0)) as server:\n"
        "    print(server.getsockname()[1], flush=True)\n"
        "    while True:\n"
        "        with server.accept()[0] as made: made.sendall(b'hello')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.kill()


def connecting(made: Network, agent: int, link: Link, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CONNECT, made.host_address(link, agent), str(port)]
    return subprocess.Popen([*made.command(agent), *command], stdout=subprocess.PIPE, text=True)


def hears(made: Network, agent: int, link: Link, port: int, what: str) -> None:
    with connecting(made, agent, link, port) as child:
        assert child.communicate(timeout=30)[0].strip() == what


def test_what_is_in_force_is_put_right_also_when_the_run_fails_and_what_fails_is_told() -> None:
    done: list[str] = []

    @contextmanager
    def begin(misfortune: Misfortune) -> Iterator[None]:
        if misfortune.kind is Kind.KILL:
            raise OSError("no such agent")
        done.append(f"{misfortune.kind.name} begins")
        yield
        done.append(f"{misfortune.kind.name} is put right")

    now = [Misfortune(0.0, 1000.0, kind, None, 1.0, 0) for kind in (Kind.STORE_HANGS, Kind.KILL, Kind.CLOCK)]
    later = Misfortune(1000.0, 1.0, Kind.STORE_GONE, None, 1.0, 0)
    conductor = Conductor(Schedule(1, "cluster", 2000.0, (*now, later)), begin, {Kind.CLOCK}, lambda _: None)

    def run_and_fail() -> None:
        with conductor:
            while not (done and conductor.problems):
                time.sleep(0.001)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_and_fail()
    assert done == ["STORE_HANGS begins", "STORE_HANGS is put right"]
    assert conductor.happened == {Kind.STORE_HANGS: 1}
    [problem] = conductor.problems
    assert "no such agent" in problem
