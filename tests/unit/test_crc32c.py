"""CRC-32C: known vectors, and every implementation that this CPU has against the slow one."""

from __future__ import annotations

import array
import ctypes
import mmap
import platform
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tests.reference.crc32c import crc32c as slow_crc32c
from warp import _crc32c
from warp._crc32c import crc32c, crc32c_joined, crc32c_with, implementation, implementations

VECTORS = [
    (b"", 0),
    (b"a", 0xC1D04330),
    (b"123456789", 0xE3069283),
    # RFC 3720, appendix B.4; the bytes of each CRC stand there in the order of the wire.
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (
        bytes.fromhex("01c00000" + "00" * 12 + "14000000000004000000001400000018280000000000000002000000")
        + bytes(4),
        0xD9963A56,
    ),
]
RANDOM = random.Random(1).randbytes(20_000)
# Around each length at which an implementation changes its way: words, three streams, folding by 64 and by 256.
LENGTHS = sorted(
    {
        length
        for base in (0, 8, 16, 24, 48, 72, 96, 192, 256, 320, 512, 576, 768, 1024, 6144, 12288)
        for length in range(max(base - 9, 0), base + 10)
    }
)


@pytest.mark.parametrize("name", implementations())
@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_known_vectors(name: str, data: bytes, expected: int) -> None:
    assert crc32c_with(name, data) == expected
    assert crc32c(data) == expected


@pytest.mark.parametrize("name", implementations())
def test_every_implementation_agrees_with_the_slow_one_at_every_length_where_it_changes(name: str) -> None:
    for length in LENGTHS:
        assert crc32c_with(name, RANDOM[:length], 0x12345678) == slow_crc32c(RANDOM[:length], 0x12345678), (
            length
        )


@pytest.mark.parametrize("name", implementations())
def test_alignment_does_not_matter(name: str) -> None:
    view = memoryview(RANDOM)
    for length in (1, 7, 100, 511, 700, 5000):
        for start in range(65):
            piece = view[start : start + length]
            assert crc32c_with(name, piece) == crc32c_with("table", piece), (length, start)


@given(st.binary(max_size=2000), st.integers(0, 2**32 - 1))
def test_the_table_agrees_with_the_slow_one(data: bytes, crc: int) -> None:
    assert crc32c_with("table", data, crc) == slow_crc32c(data, crc)


@given(st.integers(0, 20_000), st.integers(0, 20_000))
def test_a_crc_goes_on_where_another_ended(first: int, second: int) -> None:
    middle, end = min(first, second), max(first, second)
    for name in implementations():
        start = crc32c_with(name, RANDOM[:middle])
        assert crc32c_with(name, RANDOM[middle:end], start) == crc32c_with(name, RANDOM[:end])


@pytest.fixture
def page_before_the_void() -> Iterator[memoryview]:
    """A page of random bytes; reading the page after it is a fault that ends the process."""
    page = mmap.PAGESIZE
    with mmap.mmap(-1, 2 * page) as mapping:
        mapping[:page] = (RANDOM * 4)[:page]
        anchor = ctypes.c_char.from_buffer(mapping, page)
        address = ctypes.c_void_p(ctypes.addressof(anchor))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(address, ctypes.c_size_t(page), 0) == 0
        with memoryview(mapping) as whole, whole[:page] as view:
            yield view
        assert libc.mprotect(address, ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE) == 0
        del anchor


@pytest.mark.parametrize("name", implementations())
def test_nothing_is_read_past_the_end(name: str, page_before_the_void: memoryview) -> None:
    for length in (0, 1, 9, 65, 511, 513, 1025, 4095):
        with page_before_the_void[len(page_before_the_void) - length :] as piece:
            assert crc32c_with(name, piece) == slow_crc32c(bytes(piece))


def test_inputs_above_the_size_at_which_the_lock_is_let_go() -> None:
    big = RANDOM * 10
    assert {crc32c_with(name, big) for name in implementations()} == {slow_crc32c(big)}


def test_any_contiguous_buffer_is_taken() -> None:
    numbers = array.array("Q", range(100))
    assert crc32c(numbers) == crc32c(numbers.tobytes()) == crc32c(bytearray(numbers.tobytes()))
    assert crc32c(memoryview(numbers)) == crc32c(numbers.tobytes())


def test_what_is_no_contiguous_buffer_is_refused() -> None:
    with pytest.raises(BufferError):
        crc32c(memoryview(RANDOM)[::2])
    with pytest.raises(TypeError):
        crc32c("text")  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        crc32c(b"", -1)


def test_the_fastest_implementation_is_chosen_and_the_table_is_always_there() -> None:
    assert implementation() == implementations()[0]
    assert implementations()[-1] == "table"
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    if "vpclmulqdq" in flags and "avx512f" in flags:
        assert implementation() == "vpclmulqdq"
    elif "sse4_2" in flags and "pclmulqdq" in flags:
        assert implementation() == "sse42"
    elif "pmull" in flags and "crc32" in flags:
        assert implementation() == "armv8-pmull"


def test_an_implementation_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no CRC-32C implementation 'abacus' here, there is .*table"):
        crc32c_with("abacus", b"")


DRIVER = """
#include <stdio.h>
#include "native/crc32c.h"

/* For each implementation: its name, and how many of its results differ from the table's. */
int main(void)
{
    static uint8_t data[20000];
    crc32c_implementation found[CRC32C_IMPLEMENTATIONS_MAX];
    uint64_t state = 1;
    crc32c_prepare();
    for (size_t index = 0; index < sizeof data; index++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        data[index] = (uint8_t)(state >> 56);
    }
    int count = crc32c_available(found);
    for (int each = 0; each < count; each++) {
        int different = 0;
        for (size_t length = 0; length + 16 < sizeof data; length += length < 700 ? 1 : 977)
            for (size_t start = 0; start < 16; start++)
                different += found[each].run(7, data + start, length) != crc32c_by_table(7, data + start, length);
        uint32_t known = crc32c_invert_and_run(found[each].run, 0, (const uint8_t *)"123456789", 9);
        printf("%s %08x %d\\n", found[each].name, known, different);
    }
    return 0;
}
"""


@pytest.mark.toolchain
@pytest.mark.may_skip
@pytest.mark.skipif(platform.machine() == "aarch64", reason="the tests above ran on this processor")
def test_the_implementations_for_aarch64_agree(tmp_path: Path) -> None:
    """Cross-compiled as the extension is, with no flag for newer instructions, and run in an emulator."""
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static")
    (tmp_path / "driver.c").write_text(DRIVER, encoding="utf-8")
    include = Path(_crc32c.__file__).parent
    program = str(tmp_path / "driver")
    flags = ["-std=gnu11", "-O3", "-Wall", "-Werror", "-static", f"-I{include}"]
    subprocess.run([compiler, *flags, str(tmp_path / "driver.c"), "-o", program], check=True)
    ran = subprocess.run([emulator, program], check=True, capture_output=True, text=True)
    expected = [f"{name} e3069283 0" for name in ("armv8-pmull", "armv8", "table")]
    assert ran.stdout.splitlines() == expected


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_crc_of_two_pieces_follows_from_theirs(first: bytes, second: bytes) -> None:
    assert crc32c_joined(slow_crc32c(first), slow_crc32c(second), len(second)) == slow_crc32c(first + second)


@pytest.mark.parametrize("zeros", [1, 2, 255, 65_536, 1_000_003])
def test_the_crc_of_a_long_second_piece_is_joined(zeros: int) -> None:
    assert crc32c_joined(crc32c(b"before"), crc32c(bytes(zeros)), zeros) == crc32c(b"before" + bytes(zeros))


def test_pieces_longer_than_any_memory_are_joined_in_steps() -> None:
    """No one has 2^62 zero bytes; but twice 2^61 of them are as many."""
    half = crc32c_joined(crc32c(b"a"), 0, 2**61)
    assert crc32c_joined(half, 0, 2**61) == crc32c_joined(crc32c(b"a"), 0, 2**62)


def test_a_length_that_can_not_be_is_refused() -> None:
    with pytest.raises(OverflowError):
        crc32c_joined(1, 2, -1)
