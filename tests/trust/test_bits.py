"""Bits by hand and against struct."""

import struct
from typing import Any

import numpy as np
import pytest
import torch

from xailab.trust.bits import bit_names, check_bit, flipped, with_bit


@pytest.mark.parametrize("bit", range(32))
def test_flips_equal_those_of_struct(bit: int) -> None:
    values = [0.0, 1.0, -2.5, 3.4e38, 1e-40]
    for value, got in zip(values, flipped(torch.tensor(values), bit), strict=True):
        (whole,) = struct.unpack("<I", struct.pack("<f", value))
        want = struct.pack("<I", whole ^ (1 << bit))
        assert struct.pack("<f", got.item()) == want or got.isnan()


def test_exponents_by_hand() -> None:
    """1 = 2^0 has exponent 127 = 0b01111111: bit 30 makes it 255 (infinity), bit 29 divides."""
    one = torch.tensor([1.0])
    assert flipped(one, 30).item() == float("inf")
    assert flipped(one, 29).item() == 2.0**-64
    assert flipped(2 * one, 29).item() == 2.0**65
    assert flipped(0.5 * one, 30).item() == 2.0**127
    assert flipped(one, 23).item() == 0.5
    assert flipped(one, 22).item() == 1.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_twice_is_never(dtype: torch.dtype) -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)).to(dtype)
    for bit, name in enumerate(bit_names(dtype)):
        once = flipped(values, bit)
        assert not torch.equal(once, values)
        if not once.isnan().any():  # NaN may come in two forms
            assert torch.equal(flipped(once, bit), values)
        if name == "sign":
            assert torch.equal(once, -values)
        if name.startswith("fraction"):
            assert ((once - values).abs() < values.abs()).all()


def test_names_count_the_bits() -> None:
    for dtype, width, exponent in (
        (torch.float64, 64, 11),
        (torch.float32, 32, 8),
        (torch.float16, 16, 5),
        (torch.bfloat16, 16, 8),
    ):
        names = bit_names(dtype)
        assert len(names) == width
        assert sum(name.startswith("exponent") for name in names) == exponent


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_a_flip_of_an_integer_adds_or_takes_a_power_of_two(dtype: torch.dtype) -> None:
    values = torch.tensor([0, 1, 100], dtype=dtype)
    names = bit_names(dtype)
    for bit, name in enumerate(names):
        moved = [int(new) - int(old) for new, old in zip(flipped(values, bit), values, strict=True)]
        assert flipped(values, bit).dtype == dtype
        assert {abs(step) for step in moved} == {2**bit}
        assert name == (
            "sign" if dtype != torch.uint8 and bit + 1 == len(names) else f"integer {bit}"
        )
    if dtype != torch.uint8:
        assert flipped(values, len(names) - 1).tolist() == [
            v - 2 ** (len(names) - 1) for v in values.tolist()
        ]


def test_a_bit_is_held() -> None:
    """5 is 101 in binary."""
    five = torch.tensor([5], dtype=torch.uint8)
    assert [with_bit(five, bit, 0).item() for bit in range(3)] == [4, 5, 1]
    assert [with_bit(five, bit, 1).item() for bit in range(3)] == [5, 7, 5]
    assert with_bit(torch.tensor([1.5]), 31, 1).item() == -1.5
    assert with_bit(torch.tensor([-1.5]), 31, 0).item() == 1.5
    assert with_bit(torch.tensor([3], dtype=torch.int8), 7, 1).item() == -125


def test_any_layout_in_memory() -> None:
    table = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(flipped(table.T, 31), -table.T)
    assert flipped(torch.tensor(1.0), 31).item() == -1


@pytest.mark.parametrize(
    ("values", "bit", "error", "words"),
    [
        ([1.0], 0, TypeError, "torch.Tensor, got list"),
        (torch.tensor([True]), 0, TypeError, "float64, .*int64, not of torch.bool"),
        (torch.tensor([1j]), 0, TypeError, "complex64"),
        (torch.ones(1), 1.0, TypeError, "bit must be an integer"),
        (torch.ones(1), True, TypeError, "bit must be an integer"),
        (torch.ones(1).half(), 16, ValueError, r"0..15.*fraction 0..9, exponent 10..14, sign 15"),
        (torch.ones(1).int(), 32, ValueError, r"integer 0..30, sign 31"),
        (torch.ones(1, dtype=torch.uint8), -1, ValueError, r"\(integer 0..7\), got -1"),
    ],
)
def test_bad_bits(values: Any, bit: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        flipped(values, bit)


def test_bits_of_any_integer_kind() -> None:
    for bit in (np.int64(31), torch.tensor(31), np.array(31)):
        assert flipped(torch.ones(1), bit).item() == -1
        assert check_bit(torch.float32, bit) == 31
