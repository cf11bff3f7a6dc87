"""agentd._native: what agentd/_native.pyi promises. The core beneath it has its own tests in native/tests/."""

import mmap
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd import _native

# RFC 3720, B.4, and the check value of the CRC catalogue.
VECTORS = [
    (b"", 0x00000000),
    (b"a", 0xC1D04330),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
]


@pytest.mark.parametrize(("data", "checksum"), VECTORS)
def test_crc32c_vectors(data: bytes, checksum: int) -> None:
    assert _native.crc32c(data) == checksum


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_crc32c_in_pieces_equals_the_whole(first: bytes, second: bytes) -> None:
    assert _native.crc32c(second, _native.crc32c(first)) == _native.crc32c(first + second)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_crc32c_sees_every_flipped_bit(body: bytes, draw: st.DataObject) -> None:
    bit = draw.draw(st.integers(0, len(body) * 8 - 1))
    flipped = bytearray(body)
    flipped[bit // 8] ^= 1 << (bit % 8)
    assert _native.crc32c(flipped) != _native.crc32c(body)


def test_crc32c_reads_any_contiguous_buffer() -> None:
    with mmap.mmap(-1, 4096) as mapped:
        mapped[:9] = b"123456789"
        with memoryview(mapped) as view:
            assert _native.crc32c(view[:9]) == 0xE3069283
    assert _native.crc32c(bytearray(b"123456789")) == 0xE3069283


def test_crc32c_releases_its_buffer() -> None:
    data = bytearray(b"123456789")
    _native.crc32c(data)
    data.append(0)  # BufferError while anybody holds it


def test_crc32c_refuses_what_is_no_contiguous_buffer() -> None:
    with pytest.raises(TypeError):
        _native.crc32c("text")  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        _native.crc32c(memoryview(bytes(8))[::2])


@pytest.mark.parametrize("initial", [-1, 2**32, 2**64, 2**200])
def test_crc32c_refuses_an_initial_beyond_32_bits(initial: int) -> None:
    with pytest.raises(OverflowError):
        _native.crc32c(b"", initial)
    assert _native.crc32c(b"", 2**32 - 1) == 2**32 - 1


def test_crc32c_refuses_a_wrong_number_of_arguments() -> None:
    with pytest.raises(TypeError, match="1 or 2 arguments, not 0"):
        _native.crc32c()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="1 or 2 arguments, not 3"):
        _native.crc32c(b"", 0, 0)  # type: ignore[call-arg]


@pytest.mark.parametrize("clock_ns", [_native.boottime_ns, _native.monotonic_ns])
def test_clocks_never_go_back(clock_ns: Callable[[], int]) -> None:
    readings = [clock_ns() for _ in range(10_000)]
    assert readings == sorted(readings)


@pytest.mark.parametrize(
    ("clock_ns", "number"), [(_native.boottime_ns, time.CLOCK_BOOTTIME), (_native.monotonic_ns, time.CLOCK_MONOTONIC)]
)
def test_clocks_are_the_kernels(clock_ns: Callable[[], int], number: int) -> None:
    before = time.clock_gettime_ns(number)
    now = clock_ns()
    assert before <= now <= time.clock_gettime_ns(number)
