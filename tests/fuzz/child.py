"""One fuzzing process: `python -m tests.fuzz.child TARGET`, then what libFuzzer takes. Started by `tests.fuzz`.

It runs under the address sanitizer's library, with the fuzz build of `warp` before the one in place.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import atheris

from tests.fuzz import marks
from tests.fuzz.places import BUILD
from tests.fuzz.table import TABLE


class Unread(logging.Handler):
    """Makes every line of the log, as an agent would, and throws it away: names of strangers stand in them."""

    def emit(self, record: logging.LogRecord) -> None:
        """What can't be written is a find."""
        self.format(record).encode("utf-8")


def main() -> None:
    """Fuzz until libFuzzer has had enough; it ends the process."""
    name = sys.argv.pop(1)
    if any(module.startswith("warp.") for module in sys.modules):
        raise SystemExit("a module of the product was imported before it could be instrumented")
    with atheris.instrument_imports(*instrumented(TABLE[name].instrumented), enable_loader_override=False):
        target = TABLE[name].load()
    check_origin()
    from warp.logs import JsonFormatter

    handler = Unread()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.DEBUG, handlers=[handler])
    first, *_ = [atheris._reserve_counter() for _ in range(marks.COUNTERS)]
    marks.tell(lambda number: atheris._trace_branch(first + number))
    # When it merges corpora, libFuzzer starts itself anew, by way of a shell.
    sys.argv[0] = shlex.join([sys.executable, "-P", "-m", "tests.fuzz.child", name])
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


def instrumented(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """The top-level packages to instrument, and the modules of the product in them that are left alone.

    Instrumenting takes time, and branches of modules that have nothing to do with an input would draw attention.
    """
    modules = (path.relative_to(BUILD).with_suffix("").parts for path in BUILD.glob("warp/**/*.py"))
    names = [".".join(parts).removesuffix(".__init__") for parts in modules]
    left_alone = [name for name in names if not any(f"{name}.".startswith(f"{one}.") for one in wanted)]
    # No package at all would mean all of them.
    return sorted({name.partition(".")[0] for name in wanted}) or ["none"], left_alone


def check_origin() -> None:
    """Raise SystemExit unless all of the product comes from the fuzz build, which may lack what did not compile."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] == "warp" and file and not Path(file).is_relative_to(BUILD):
            raise SystemExit(f"{name} is not of the fuzz build, but {file}: make fuzz builds it")


if __name__ == "__main__":
    main()
