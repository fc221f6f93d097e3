"""Checks that wheelhouse/ holds the wheels and the sdist of this tree.

While a version is being worked on its wheels may be older than the tree: that is a warning. On a commit that carries a
version tag (v0.1.0) anything missing or old is a failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

from tools.source_digest import BUILD_INFO, source_digest

__all__ = ["main", "problems"]

PYTHON_TAGS = ("cp311", "cp312", "cp313")
_ROOT = Path(__file__).resolve().parent.parent


def problems(wheelhouse: Path, version: str, digest: str) -> list[str]:
    """One line for each wheel or sdist of `version` that is missing or was built from other sources."""
    found = []
    for pattern in (
        *(f"warp_agent-{version}-{tag}-*.whl" for tag in PYTHON_TAGS),
        f"warp_agent-{version}.tar.gz",
    ):
        archives = sorted(wheelhouse.glob(pattern))
        if not archives:
            found.append(f"{pattern} is missing")
        found += [f"{path.name} is older than the tree" for path in archives if stored_digest(path) != digest]
    expected = {f"warp_agent-{version}-", f"warp_agent-{version}.tar.gz"}
    for path in sorted([*wheelhouse.glob("*.whl"), *wheelhouse.glob("*.tar.gz")]):
        if not any(path.name.startswith(prefix) for prefix in expected):
            found.append(f"{path.name} is not of version {version}")
    return found


def stored_digest(archive: Path) -> str:
    """The digest that a wheel or sdist carries; empty if it carries none."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            if BUILD_INFO not in wheel.namelist():
                return ""
            content = wheel.read(BUILD_INFO)
    else:
        with tarfile.open(archive) as sdist:
            members = [name for name in sdist.getnames() if name.endswith(f"/{BUILD_INFO}")]
            file = sdist.extractfile(members[0]) if members else None
            if file is None:
                return ""
            content = file.read()
    return str(json.loads(content).get("sources_sha256", ""))


def version_tags() -> list[str]:
    """The version tags of the checked-out commit; none outside a git clone."""
    git = subprocess.run(
        ["git", "tag", "--points-at", "HEAD", "--list", "v*"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return git.stdout.split() if git.returncode == 0 else []


def main() -> int:
    """Print what is wrong; 1 only if something is and the commit is tagged as a version."""
    version = str(tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    found = problems(_ROOT / "wheelhouse", version, source_digest(_ROOT))
    tags = version_tags()
    if tags and f"v{version}" not in tags:
        found.append(f"the commit is tagged {' '.join(tags)}, but pyproject.toml says {version}")
    if not found:
        print("Wheels are those of this tree.")
        return 0
    severity = "error" if tags else "warning"
    for line in found:
        print(f"{severity}: wheelhouse: {line}", file=sys.stderr)
    print(f"{severity}: `make wheels` builds them anew", file=sys.stderr)
    return 1 if tags else 0


if __name__ == "__main__":
    sys.exit(main())
