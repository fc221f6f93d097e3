"""What fuzzing has left behind, given to the targets again on the build in place: nothing of it may find anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import corpus
from tests.fuzz.table import TABLE

CORPUS_BYTES_MAX = 500_000
FOUND = [(path.parent.name, path.name) for path in sorted(corpus.FOUND.glob("*/*"))]


@pytest.mark.parametrize("name", TABLE)
def test_nothing_is_found_in_seeds_and_corpus(name: str) -> None:
    target = TABLE[name].load()
    inputs = [*target.seeds(), *corpus.packed(name)]
    assert inputs
    for data in inputs:
        assert len(data) <= target.input_bytes_max
        target.check(data)


@pytest.mark.parametrize(("target", "what"), FOUND, ids=[f"{target}/{what}" for target, what in FOUND])
def test_nothing_is_found_again(target: str, what: str) -> None:
    TABLE[target].load().check(corpus.found(target)[what])


def test_every_corpus_belongs_to_a_target() -> None:
    assert {path.stem for path in corpus.CORPUS.glob("*")} == set(TABLE)
    assert {path.name for path in corpus.FOUND.glob("*")} <= set(TABLE)


def test_corpora_are_small() -> None:
    files: list[Path] = [path for folder in (corpus.CORPUS, corpus.FOUND) for path in folder.rglob("*")]
    assert sum(path.stat().st_size for path in files if path.is_file()) <= CORPUS_BYTES_MAX


def test_packing_the_same_inputs_gives_the_same_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "CORPUS", tmp_path)
    archives = []
    for inputs in ([b"a", b"b", b"a"], [b"b", b"a"]):
        corpus.pack("x", inputs)
        archives.append((tmp_path / "x.xz").read_bytes())
    assert archives[0] == archives[1]
    assert sorted(corpus.packed("x")) == [b"a", b"b"]
