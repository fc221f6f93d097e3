"""`python -m tests.soak --minutes 3 --seed 1`: the life of data at a high rate, then a look at what is left of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.places import PLACES
from tests.soak.run import Soak

WRITING_SHARE = 0.7
"""The rest of the time goes into what follows."""
LINES_SHOWN = 100
CLUSTER_SPEED = 0.4
"""An S3 server for tests is slow."""


def main() -> int:
    """Exit code 0: nothing was lost, and nothing is left over."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="of writing and what follows, over all places"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--place", action="append", choices=sorted(PLACES), help="default: all")
    parser.add_argument("--speed", type=float, default=1.0, help="times the usual rate")
    options = parser.parse_args()
    places = options.place or list(PLACES)
    failed = False
    for name in places:
        began_s = time.monotonic()
        with (
            tempfile.TemporaryDirectory(prefix="warp-soak-") as directory,
            PLACES[name](Path(directory)) as place,
        ):
            speed = options.speed * (CLUSTER_SPEED if name == "cluster" else 1.0)
            soak = Soak(place, WRITING_SHARE * 60 * options.minutes / len(places), options.seed, speed)
            soak.run()
            sys.stdout.write(soak.report() + f"\n{name}: {time.monotonic() - began_s:.0f} s in all\n")
            failed = failed or bool(soak.problems)
            if soak.problems:
                for agent in place.agents:
                    # What clients did is in the clients' own reports.
                    lines = [line for line in agent.output if '"logger": "warp.audit"' not in line][
                        -LINES_SHOWN:
                    ]
                    sys.stdout.write("\n".join([f"--- {agent.bootstrap}", *lines, ""]))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
