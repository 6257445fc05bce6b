"""The bits of a number: what each one is for, and what becomes of a number when one changes."""

from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from xailab.core.checks import as_integer

# Of each floating-point dtype: an integer of the same size, and how many bits hold the fraction.
_FLOATS = {
    torch.float64: (torch.int64, 52),
    torch.float32: (torch.int32, 23),
    torch.float16: (torch.int16, 10),
    torch.bfloat16: (torch.int16, 7),
}
_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


def bit_names(dtype: torch.dtype = torch.float32) -> list[str]:
    """Return what each bit of a dtype is for, from the lowest to the highest.

    Floats have a fraction, an exponent and a sign. The bits of an integer are powers of two; the
    highest of a signed one counts negatively (two's complement).

    Raises:
        TypeError: neither a floating-point dtype nor one of integers.

    >>> names = bit_names()
    >>> names[0], names[22], names[23], names[30], names[31]
    ('fraction 0', 'fraction 22', 'exponent 0', 'exponent 7', 'sign')
    >>> bit_names(torch.int8)[6:]
    ['integer 6', 'sign']
    """
    width = torch.iinfo(_integer_like(dtype)).bits
    if dtype in _INTEGERS:
        signed = torch.iinfo(dtype).min < 0
        return [*(f"integer {i}" for i in range(width - signed)), *["sign"] * signed]
    fraction = _FLOATS[dtype][1]
    low = [f"fraction {i}" for i in range(fraction)]
    return [*low, *(f"exponent {i}" for i in range(width - 1 - fraction)), "sign"]


def flipped(values: Tensor, bit: int) -> Tensor:
    r"""Flip one bit of every number: what a particle does to a memory cell.

    $$v = (-1)^{s}\; 2^{e - 127}\; (1 + f), \qquad
      \text{float32: } s = \text{bit } 31,\; e = \text{bits } 30..23,\; f = \text{bits } 22..0$$

    A flip in the fraction changes a number by less than half of itself. A flip of an exponent bit
    multiplies or divides it by $2^{(2^k)}$: of bit 30, by $2^{128}$. Bit k of an integer adds or
    takes $2^k$.

    Args:
        values: floats or integers.
        bit: which; 0 is the lowest, the highest is the sign, if there is one (see `bit_names`).

    Returns:
        A copy with the bit flipped, in the shape and dtype of `values`.

    Raises:
        TypeError: not a tensor of floats or integers, or `bit` no integer.
        ValueError: a bit that the dtype does not have.

    Reference: IEEE (2019), Standard for Floating-Point Arithmetic, 754.
    Elsewhere: PyTorchFI, TensorFI.

    >>> flipped(torch.tensor([1.5]), 31), flipped(torch.tensor([1.5]), 22)
    (tensor([-1.5000]), tensor([1.]))
    >>> flipped(torch.tensor([1.5]), 23), flipped(torch.tensor([1.5]), 30)
    (tensor([0.7500]), tensor([nan]))
    """
    bits, mask = _bits(values, bit)
    return bits.bitwise_xor(mask).view(values.dtype)


def with_bit(values: Tensor, bit: int, value: int) -> Tensor:
    """Set one bit of every number to 0 or 1: what a cell does that is stuck.

    Raises:
        TypeError, ValueError: as `flipped`.

    >>> with_bit(torch.tensor([1.5, -1.5]), 31, 1)
    tensor([-1.5000, -1.5000])
    """
    bits, mask = _bits(values, bit)
    held = bits.bitwise_or(mask) if value else bits.bitwise_and(~mask)
    return held.view(values.dtype)


def _integer_like(dtype: Any) -> torch.dtype:
    """Return the integer dtype that shows the bits of a dtype."""
    if dtype in _INTEGERS:
        return dtype
    if dtype not in _FLOATS:
        known = ", ".join(str(one).removeprefix("torch.") for one in (*_FLOATS, *_INTEGERS))
        raise TypeError(f"bits are known of {known}, not of {dtype}")
    return _FLOATS[dtype][0]


def _bits(values: Any, bit: int) -> tuple[Tensor, int]:
    """Return the bits of numbers as integers, and the mask with which to reach one of them."""
    if not isinstance(values, Tensor):
        raise TypeError(f"values must be a torch.Tensor, got {type(values).__name__}")
    whole, place = torch.iinfo(_integer_like(values.dtype)), check_bit(values.dtype, bit)
    mask = 2**place if 2**place <= whole.max else whole.min
    return values.detach().contiguous().view(_integer_like(values.dtype)), mask


def check_bit(dtype: torch.dtype, bit: Any, *, of: str = "") -> int:
    """Return the number of a bit that numbers of this dtype have.

    Args:
        dtype: of the numbers.
        bit: 0 is the lowest.
        of: whose numbers they are, for the message.

    Raises:
        TypeError, ValueError: as `flipped`.

    >>> check_bit(torch.int8, 7)
    7
    """
    names, place = bit_names(dtype), as_integer("bit", bit)
    if not 0 <= place < len(names):
        parts, first = [], 0
        for kind, run in groupby(name.split()[0] for name in names):
            last = first + len(list(run)) - 1
            parts.append(f"{kind} {last}" if first == last else f"{kind} {first}..{last}")
            first = last + 1
        raise ValueError(
            f"bit must lie in 0..{len(names) - 1} for {dtype}{of} ({', '.join(parts)}), got {place}"
        )
    return place
