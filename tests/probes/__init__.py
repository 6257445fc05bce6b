"""One row for every method that is given a model: how to call it, and what it promises.

The rows of each package stand in a file beside this one; `tests/test_contract_packages.py` tests
the promises on all of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

TARGETS = torch.tensor([2, 0, 3])  # of `tests.toys.inputs()`


class Probe(NamedTuple):
    """One method.

    Args:
        function: whose docstring a reader sees.
        call: `call(model, x, **options)`; what it `takes` may be among the options.
        takes: words that say which promises are tested:
            x (refuses bad rows), target, layer, batch_size (options of the call),
            none (a model with one output takes target=None),
            rows (one result a row of x), tensors (the result holds some),
            mode (does not mind training mode and no_grad), runs (asks the model at least once),
            copy (hands back a changed copy of the model).
    """

    function: Callable[..., Any]
    call: Callable[..., Any]
    takes: frozenset[str]


def probe(
    function: Callable[..., Any], takes: str, call: Callable[..., Any] | None = None
) -> Probe:
    """Return a row; without a `call` the function itself takes `(model, x, **options)`."""
    return Probe(function, call or function, frozenset(takes.split()))


def dtype_of(model: Any) -> torch.dtype:
    """Return the dtype of a model's floats: integers, as quantized weights are, do not count."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())
