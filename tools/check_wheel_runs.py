"""Checks that a wheel works where nothing can be compiled: installs it and runs its agent.

The wheel for the running CPython goes into a new, empty environment. A PATH without compilers and CC=/bin/false see to
it that nothing, a dependency neither, is built on the way. Then `warp agent` must say on free ports that it serves,
answer its health check, and leave with 0 on SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 60


def main() -> int:
    """Run the check on the wheel in wheelhouse/, or on the one that is given."""
    parser = argparse.ArgumentParser(prog="make check-wheel", description=__doc__)
    parser.add_argument(
        "wheel", nargs="?", type=Path, help="the wheel; default: the one in wheelhouse/ for this CPython"
    )
    wheel = parser.parse_args().wheel or find_wheel(_ROOT / "wheelhouse")
    with tempfile.TemporaryDirectory(prefix="warp-wheel-") as name:
        directory = Path(name)
        environment = bare_environment(directory)
        python = make_environment(directory / "venv")
        print(f"installing {wheel.name} without a compiler", flush=True)
        install = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", wheel.resolve()]
        subprocess.run(install, env=environment, cwd=directory, check=True)
        run_agent(python.with_name("warp"), environment, directory)
    print(f"{wheel.name} installs and serves.")
    return 0


def find_wheel(wheelhouse: Path) -> Path:
    """The wheel for the running CPython and machine. Leaves the program with the remedy if there is none."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheels = sorted(wheelhouse.glob(f"warp_agent-*-{tag}-*{os.uname().machine}.whl"))
    if len(wheels) != 1:
        raise SystemExit(
            f"check-wheel: {len(wheels)} wheels for {tag} in {wheelhouse}; `make wheels` builds them anew"
        )
    return wheels[0]


def bare_environment(directory: Path) -> dict[str, str]:
    """The environment variables: no compiler, no settings of Warp or Python that the caller may have."""
    empty = directory / "bin"
    empty.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WARP_", "PYTHON"))}
    return kept | {"PATH": str(empty), "CC": "/bin/false", "CXX": "/bin/false", "HOME": str(directory)}


def make_environment(directory: Path) -> Path:
    """A virtual environment with nothing but pip; returns its interpreter."""
    venv.create(directory, with_pip=True, symlinks=True)
    return directory / "bin" / "python"


def run_agent(program: Path, environment: dict[str, str], directory: Path) -> None:
    """Start an agent on free ports, wait until it serves, ask for its health, stop it."""
    kafka_port, http_port = free_ports(2)
    command: list[str | Path] = [
        program,
        "agent",
        "--listen",
        f"127.0.0.1:{kafka_port}",
        "--http",
        f"127.0.0.1:{http_port}",
    ]
    log = directory / "agent.log"
    with log.open("wb") as output:
        agent = subprocess.Popen(
            command, env=environment, cwd=directory, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until_serving(agent, kafka_port, log)
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/v1/ready", timeout=10) as response:
            print(f"/v1/ready answers {response.status}", flush=True)
        agent.send_signal(signal.SIGTERM)
        status = agent.wait(_STOP_TIMEOUT_S)
    finally:
        agent.kill()
        agent.wait()
    if status != 0:
        raise SystemExit(
            f"check-wheel: the agent left with {status} on SIGTERM\n{log.read_text(encoding='utf-8')}"
        )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def wait_until_serving(agent: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the agent has printed its address in the line that says that it serves."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while agent.poll() is None and time.monotonic() < deadline:
        if f":{port}" in log.read_text(encoding="utf-8"):
            return
        time.sleep(0.05)
    raise SystemExit(f"check-wheel: the agent does not serve\n{log.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    sys.exit(main())
