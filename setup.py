"""The native extensions and their build flags; everything else about the distribution is in pyproject.toml.

Three kinds of build exist. The release build is what users get. The debug build (``WARP_DEBUG_BUILD=1``) turns on
Cython's bounds checks, C's ``assert``, and the compiler's checks for undefined behaviour: overflow, shifts, misaligned
reads. The fuzz build (``WARP_FUZZ_BUILD=1``) is made by clang and adds checks of every address and the counters by which
a fuzzer sees where an input went; tests/fuzz runs it. All keep their intermediate files under build/, apart.
Every wheel and sdist carries a digest of its sources, see tools/source_digest.py.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from tools.source_digest import BUILD_INFO, source_digest  # noqa: E402


def is_asked_for(kind: str) -> bool:
    """Whether the environment asks for that kind of build."""
    return os.environ.get(f"WARP_{kind.upper()}_BUILD", "") not in ("", "0")


KIND = "fuzz" if is_asked_for("fuzz") else "debug" if is_asked_for("debug") else "release"
CHECKED = KIND != "release"
NATIVE_MODULES = sorted(path.stem for path in ROOT.glob("warp/*.pyx"))

# No -march: one wheel runs on every CPU of its architecture; what needs newer instructions chooses at run time.
COMMON_FLAGS = ["-std=gnu11", "-fno-plt", "-fvisibility=hidden"]
# CPython's own flags define signed overflow (-fwrapv); the debug build takes that back, to find it.
SANITIZER_FLAGS = ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
CHECKED_FLAGS = ["-O1", "-g", "-UNDEBUG", "-fno-wrapv", "-fno-omit-frame-pointer", *SANITIZER_FLAGS]
# clang alone has libFuzzer's counters. Its check of function types would stumble over the casts of CPython's own API.
# Nothing is linked: the library that the process is started under has all that the checks call.
FUZZ_FLAGS = [
    "-fsanitize=address,fuzzer-no-link",
    "-fno-sanitize=function",
    "-Wno-unused-function",
    "-Wno-unused-command-line-argument",
]
COMPILE_FLAGS = {
    "release": ["-O3", "-g0"],
    "debug": CHECKED_FLAGS,
    "fuzz": [*CHECKED_FLAGS, *FUZZ_FLAGS],
}
LINK_FLAGS = {
    "release": ["-Wl,-s"],
    "debug": SANITIZER_FLAGS,
    "fuzz": [],
}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    # Off in all kinds: with boundscheck on, a negative index is then an error instead of counting from the end.
    "wraparound": False,
    "initializedcheck": CHECKED,
    # Native objects hold views of foreign memory: nobody pickles them.
    "auto_pickle": False,
}


class BuildExtensions(build_ext):
    """build_ext with one incremental build folder per kind, which in-place and editable builds share."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.inplace:
            self.build_lib = f"build/inplace-{KIND}-{sys.implementation.cache_tag}"
            self.build_temp = f"{self.build_lib}-objects"
            self._remove_other_kind()
        if not self.parallel:
            self.parallel = min(len(os.sched_getaffinity(0)), len(NATIVE_MODULES))

    def _remove_other_kind(self) -> None:
        """Remove the libraries in place if the other kind of build made them: they look newer than what is built."""
        marker = ROOT / "build" / f"kind-{sys.implementation.cache_tag}"
        if marker.is_file() and marker.read_text(encoding="utf-8") != KIND:
            for library in ROOT.glob(f"warp/*{sysconfig.get_config_var('EXT_SUFFIX')}"):
                library.unlink()
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(KIND, encoding="utf-8")


class BuildPackage(build_py):
    """build_py that adds the digest of the sources to what a wheel installs."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            write_build_info(Path(self.build_lib))


class SourceDistribution(sdist):
    """sdist that adds the digest of the sources to the archive."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_build_info(Path(base_dir))


def write_build_info(directory: Path) -> None:
    """Store the digest of this tree's sources under `directory`."""
    target = directory / BUILD_INFO
    target.parent.mkdir(parents=True, exist_ok=True)
    info = {"sources_sha256": source_digest(ROOT)}
    target.write_text(json.dumps(info) + "\n", encoding="utf-8")


def extensions() -> list[Extension]:
    """One extension per native leaf; each depends on every shared .pxd and C header, and on the flags here."""
    shared = [*ROOT.glob("warp/*.pxd"), *ROOT.glob("warp/native/*.h"), ROOT / "setup.py"]
    return [
        Extension(
            f"warp.{name}",
            [f"warp/{name}.pyx"],
            depends=sorted(str(path.relative_to(ROOT)) for path in shared),
            include_dirs=["warp", "warp/native"],
            extra_compile_args=COMMON_FLAGS + COMPILE_FLAGS[KIND],
            extra_link_args=LINK_FLAGS[KIND],
        )
        for name in NATIVE_MODULES
    ]


def is_older_than_flags() -> bool:
    """Whether Cython ran before this file was changed last: it compares its output with the sources alone."""
    translated = (ROOT / f"build/cython-{KIND}/warp/{name}.c" for name in NATIVE_MODULES)
    changed = (ROOT / "setup.py").stat().st_mtime
    return any(path.exists() and path.stat().st_mtime < changed for path in translated)


if platform.system() != "Linux" or sys.byteorder != "little":
    raise SystemExit("warp-agent builds on Linux on x86_64 and aarch64 only")

setup(
    ext_modules=cythonize(
        extensions(),
        build_dir=f"build/cython-{KIND}",
        compiler_directives=DIRECTIVES,
        force=is_older_than_flags(),
        quiet=True,
    ),
    cmdclass={"build_ext": BuildExtensions, "build_py": BuildPackage, "sdist": SourceDistribution},
)
