"""What a killed process leaves behind: a copy of its files is opened again, cut short or damaged too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.metadata.support import (
    NOW_MS,
    WatchedDatabase,
    batch,
    contents,
    offsets,
    segment,
    sequenced,
    sqlite_store,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.sqlite"


def copy_files(path: Path, folder: Path) -> Path:
    folder.mkdir()
    for suffix in ("", "-wal"):
        source = Path(f"{path}{suffix}")
        if source.exists():
            shutil.copy(source, folder / source.name)
    return folder / path.name


def test_a_process_killed_at_any_statement_of_a_commit_leaves_all_of_it_or_nothing(
    path: Path, tmp_path: Path
) -> None:
    copies: list[Path] = []

    def copy(name: str) -> None:
        copies.append(copy_files(path, tmp_path / f"{len(copies)}-{name}"))

    watching: list[bool] = [False]
    store = sqlite_store(
        path, lambda inner: WatchedDatabase(inner, lambda name: copy(name) if watching[0] else None)
    )
    first, second = store.new_topic("t", 2).logs
    store.commit_batches(sequenced(first, 0))
    before = contents(store, [first, second])
    watching[0] = True
    ask = segment("k", sequenced(first, 1), batch(second, 100, count=4))
    store.commit([ask], NOW_MS)
    watching[0] = False
    after = contents(store, [first, second])
    copy("after")
    store.close()
    assert len(copies) > 8
    for found in copies:
        recovered = sqlite_store(found)
        expected = after if found.parent.name.endswith("after") else before
        assert contents(recovered, [first, second]) == expected, found
        # And the commit can be asked for again, whatever had become of it.
        assert offsets(recovered.commit([ask], NOW_MS)) == [1, 0]
        assert contents(recovered, [first, second]) == after
        recovered.close()


def test_a_start_writes_what_it_finds_in_the_log_to_the_database_file(path: Path, tmp_path: Path) -> None:
    store = sqlite_store(path)
    [log] = store.new_topic("t").logs
    store.commit_batches(batch(log, count=3))
    expected = contents(store, [log])
    left = copy_files(path, tmp_path / "left")
    store.close()
    recovered = sqlite_store(left)
    file = shutil.copy(left, tmp_path / "file.sqlite")
    recovered.close()
    alone = sqlite_store(file)
    assert contents(alone, [log]) == expected
    alone.close()


def test_a_torn_log_gives_back_a_state_that_was_committed(path: Path, tmp_path: Path) -> None:
    store = sqlite_store(path)
    [log] = store.new_topic("t").logs
    sizes, states = [], []
    for n in range(6):
        store.commit_batches(sequenced(log, n))
        sizes.append(Path(f"{path}-wal").stat().st_size)
        states.append(contents(store, [log]))
    whole = copy_files(path, tmp_path / "whole")
    store.close()
    log_bytes = Path(f"{whole}-wal").read_bytes()
    assert sizes == sorted(set(sizes)), "every commit has made the log longer"
    for cut in [size + by for size in sizes for by in (-4000, -1, 0, 1) if size + by <= len(log_bytes)]:
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        shutil.copy(whole, folder / "db")
        (folder / "db-wal").write_bytes(log_bytes[:cut])
        recovered = sqlite_store(folder / "db")
        committed = sum(1 for size in sizes if size <= cut)
        if committed:
            assert contents(recovered, [log]) == states[committed - 1]
        else:
            assert recovered.log_states([log])[log].next_offset == 0
        recovered.close()


def test_a_damaged_end_of_the_log_is_no_commit(path: Path, tmp_path: Path) -> None:
    store = sqlite_store(path)
    [log] = store.new_topic("t").logs
    store.commit_batches(batch(log))
    held = contents(store, [log])
    size = Path(f"{path}-wal").stat().st_size
    store.commit_batches(batch(log))
    found = copy_files(path, tmp_path / "copy")
    store.close()
    with Path(f"{found}-wal").open("r+b") as file:
        file.seek(size + 200)
        file.write(b"\x55" * 100)
    recovered = sqlite_store(found)
    assert contents(recovered, [log]) == held
    recovered.close()
