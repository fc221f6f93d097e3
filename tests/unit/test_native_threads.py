"""The native core and threads: large inputs let the interpreter go, and decompression is safe beside itself."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.batches import MIB, NOW_MS, rules, some_inputs
from warp._compression import compress, decompress
from warp._crc32c import crc32c
from warp._records import build_batch, iterate_records, validate_produce, verify_batch, verify_batches

LARGE = build_batch([(None, b"v" * 100, [], NOW_MS)] * 40_000)
LARGE_RULES = rules(max_message_bytes=64 * MIB)
ATTEMPTS_MAX = 500
CALLS_PER_ATTEMPT = 50


@pytest.fixture
def unhurried_interpreter() -> Iterator[None]:
    """Nobody is asked to give up the interpreter lock: who runs keeps it until it lets it go by itself."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


def lets_others_run(work: Callable[[], object]) -> bool:
    """Whether another thread got to run between the beginning and the end of `work`."""
    has_begun, is_done = threading.Event(), threading.Event()

    def worker() -> None:
        has_begun.set()
        work()
        is_done.set()

    thread = threading.Thread(target=worker)
    thread.start()
    has_begun.wait()
    ran_meanwhile = not is_done.is_set()
    thread.join()
    return ran_meanwhile


@pytest.mark.parametrize(
    "work",
    [
        lambda: crc32c(LARGE),
        lambda: verify_batch(LARGE),
        lambda: verify_batches(LARGE, 0, len(LARGE)),
        lambda: validate_produce(LARGE, LARGE_RULES),
    ],
    ids=["crc32c", "verify_batch", "verify_batches", "validate_produce"],
)
@pytest.mark.usefixtures("unhurried_interpreter")
def test_large_inputs_let_the_interpreter_lock_go(work: Callable[[], object]) -> None:
    """Whether the other thread wakes up during one call is chance; that it never does is not."""

    def many_calls() -> None:
        for _ in range(CALLS_PER_ATTEMPT):
            work()

    assert any(lets_others_run(many_calls) for _ in range(ATTEMPTS_MAX))


@pytest.mark.usefixtures("unhurried_interpreter")
def test_small_inputs_keep_the_interpreter_lock() -> None:
    """It also shows that the test above can fail."""
    small = build_batch([(None, b"v" * 100, [], NOW_MS)])

    def work() -> None:
        for _ in range(20_000):
            validate_produce(small, LARGE_RULES)

    assert not any(lets_others_run(work) for _ in range(3))


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_threads_that_decompress_at_once_do_not_disturb_each_other(codec: int) -> None:
    source = random.Random(codec)
    originals = [source.randbytes(200) * source.randrange(1, 3000) for _ in range(24)]
    packed = [compress(codec, original) for original in originals]

    def unpack_all(order: int) -> bool:
        turned = range(order, order + len(packed))
        return all(
            bytes(decompress(codec, packed[index % len(packed)], MIB)) == originals[index % len(packed)]
            for index in turned
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(unpack_all, range(16)))


def test_threads_that_validate_and_iterate_one_buffer_agree() -> None:
    inputs = some_inputs(300)
    data = build_batch(inputs, codec=4)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: len(list(iterate_records(data, MIB))), range(16)))
        sizes = list(pool.map(lambda _: validate_produce(data, rules()).size_bytes, range(16)))
    assert set(counts) == {300}
    assert set(sizes) == {len(data)}


def test_the_libraries_of_codecs_are_loaded_when_a_codec_is_used() -> None:
    program = (
        "import sys, warp._records as records\n"
        "libraries = {'lz4', 'zstandard', 'cramjam', 'snappy'}\n"
        "assert not libraries & set(sys.modules), libraries & set(sys.modules)\n"
        "records.build_batch([(None, b'v', [], 0)], codec=4)\n"
        "assert libraries & set(sys.modules) == {'zstandard'}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
