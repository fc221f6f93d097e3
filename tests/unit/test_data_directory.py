"""Directories that are made survive a power cut: the entry of each new one is synced in its parent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from warp.data_directory import DirectoryLock, make_directory
from warp.errors import StartError


def test_the_parent_of_every_new_directory_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    make_directory(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    make_directory(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_a_relative_directory_is_made_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_directory(Path("warp-data"))
    assert (tmp_path / "warp-data").is_dir()


def test_a_file_in_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(StartError, match="is not a directory"):
        DirectoryLock(tmp_path / "data").acquire(0)


def test_a_file_above_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartError, match="is not a directory"):
        DirectoryLock(tmp_path / "file" / "data").acquire(0)
