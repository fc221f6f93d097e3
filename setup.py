"""The native extensions and their build flags; everything else about the distribution is in pyproject.toml.

Two kinds of build exist. The release build is what users get. The debug build (``WARP_DEBUG_BUILD=1``) turns on
Cython's bounds and overflow checks and C's ``assert``; both keep their intermediate files apart under build/.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
DEBUG = os.environ.get("WARP_DEBUG_BUILD", "") not in ("", "0")
KIND = "debug" if DEBUG else "release"
NATIVE_MODULES = ("_codec", "_records", "_crc32c", "_compression")

# No -march: one wheel runs on every CPU of its architecture, and what needs newer instructions chooses at run time.
COMMON_FLAGS = ["-std=gnu11", "-fno-plt", "-fvisibility=hidden"]
DEBUG_FLAGS = ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"]
RELEASE_FLAGS = ["-O3", "-g0"]

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    # Off in both kinds: with boundscheck on, a negative index is then an error instead of counting from the end.
    "wraparound": False,
    "initializedcheck": DEBUG,
    "overflowcheck": DEBUG,
    "embedsignature": False,
}


class BuildExtensions(build_ext):
    """build_ext that compiles again when the kind of build has changed since the last one in the same place."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.build_temp = f"{self.build_temp}-{KIND}"
        self._kind_file = Path("build", f"kind-{sys.implementation.cache_tag}")
        if self.inplace and self._kind_file.is_file() and self._kind_file.read_text() != KIND:
            self.force = True
        if not self.parallel:
            self.parallel = min(len(os.sched_getaffinity(0)), len(NATIVE_MODULES))

    def run(self) -> None:
        super().run()
        if self.inplace:
            self._kind_file.parent.mkdir(exist_ok=True)
            self._kind_file.write_text(KIND)


def extensions() -> list[Extension]:
    """One extension per native leaf, each depending on every shared .pxd and C header."""
    shared = sorted(
        str(path.relative_to(ROOT))
        for pattern in ("*.pxd", "native/*.h")
        for path in ROOT.glob(f"warp/{pattern}")
    )
    return [
        Extension(
            f"warp.{name}",
            [f"warp/{name}.pyx"],
            depends=shared,
            include_dirs=["warp", "warp/native"],
            extra_compile_args=COMMON_FLAGS + (DEBUG_FLAGS if DEBUG else RELEASE_FLAGS),
            extra_link_args=[] if DEBUG else ["-Wl,-s"],
        )
        for name in NATIVE_MODULES
        if (ROOT / f"warp/{name}.pyx").exists()
    ]


if platform.system() != "Linux" or sys.byteorder != "little":
    raise SystemExit("warp-agent builds on Linux on x86_64 and aarch64 only")

setup(
    ext_modules=cythonize(
        extensions(),
        build_dir=f"build/cython-{KIND}",
        compiler_directives=DIRECTIVES,
        quiet=True,
    ),
    cmdclass={"build_ext": BuildExtensions},
)
