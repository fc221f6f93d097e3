"""An agent whose process, clock, network and release are in the hands of a schedule."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.previous import COMMAND as PREVIOUS_COMMAND
from tests.support.cluster import ClusterAgent

PROGRAM = Path(sys.executable).with_name("warp")
RETRY_S = 0.3
START_AGAIN_S = 40.0


class FaultyAgent(ClusterAgent):
    """One agent, by its console script. It ends with the process that has started it.

    `prefix` begins its command line; `previous_options` are those for the release before.
    """

    def __init__(
        self,
        number: int,
        directory: Path,
        options: Sequence[str],
        environment: dict[str, str],
        *,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        previous_options: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, f"zone-{number % 2}", options, environment, host)
        self.number = number
        self.life = 0
        """Counts its processes."""
        self.is_previous = False
        self.failed_starts: Counter[str] = Counter()
        """By the last line that was said."""
        self._is_over = False
        self.is_held = threading.Lock()
        """Whoever does something to its process has it."""
        self._prefix = prefix
        self._previous_options = previous_options
        # The kernel ends a process together with the thread that has started it, so that is one which stays.
        self._starter = ThreadPoolExecutor(1, f"agent-{number}")

    @property
    def name(self) -> str:
        """Of this life of it."""
        return f"agent-{self.number}.{self.life}"

    def command(self) -> list[str]:
        bound = ["setpriv", "--pdeathsig", "KILL", *self._prefix]
        program, options = (
            (PREVIOUS_COMMAND, self._previous_options)
            if self.is_previous
            else ((str(PROGRAM),), self._options)
        )
        return [
            *bound, *program, "agent", "--listen", self.bootstrap, "--http",
            f"{self.host}:{self.http_port}", "--data-dir", str(self.data_dir), *options,
        ]  # fmt: skip

    def start(self) -> None:
        """Until it serves. Raises AssertionError when it does not."""
        self.life += 1
        self._starter.submit(super().start).result()

    def start_again(self) -> None:
        """As its keeper would: again and again while it can't, because of what else happens."""
        deadline_s = time.monotonic() + START_AGAIN_S
        while not self._is_over:
            try:
                self.start()
            except AssertionError as error:
                self.failed_starts[_without_time(str(error).rpartition("\n")[2])] += 1
                if time.monotonic() > deadline_s and not self._is_over:
                    raise
                time.sleep(RETRY_S)
            else:
                return

    def end_in_order(self) -> None:
        """SIGTERM. Raises AssertionError when it does not end well."""
        code = self.stop()
        assert code == 0, f"{self.name} ended with exit code {code} on SIGTERM"

    def give_up(self) -> None:
        """End it at once, and start it never again."""
        self._is_over = True
        self.kill()

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.give_up()
        self._starter.shutdown()


def _without_time(line: str) -> str:
    """What a line of a log in JSON says."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, LookupError, TypeError):
        return line
