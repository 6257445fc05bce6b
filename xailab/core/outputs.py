"""What a model returned: its logits, its classes. Every function asks here.

A network with one logit is a binary classifier: its decision lies at 0, its probability is the
sigmoid. Written as two columns, (0, z), it is like any other: their softmax is that sigmoid.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xailab.core.checks import InputError, Model

# Words of torch's complaints about shapes; anything else is the model's own error and passes.
_SHAPE = re.compile(r"shape|size|dimension|channels|expected .*input|[0-9]D", re.IGNORECASE)


def answer_of(model: Model, x: Tensor) -> Tensor:
    """Ask a model about rows, and return its logits, of whatever shape.

    Raises:
        ValueError: the model refuses the shape of `x`.
        TypeError: it takes other arguments than `x`, or returns something else than a tensor of
            logits (see `logits_of`).

    >>> answer_of(torch.neg, torch.ones(1, 2))
    tensor([[-1., -1.]])
    """
    try:
        answer = model(x.clone())  # a first layer that works in place must not change x
    except RuntimeError as error:
        if type(error) is RuntimeError and _SHAPE.search(str(error)):
            raise InputError(f"the model refuses x of shape {tuple(x.shape)}: {error}") from error
        raise
    except TypeError as error:
        if _takes_x_alone(model, x):
            raise
        raise TypeError(
            f"the model must take x as its one argument, but {error}: fix the others, for instance "
            "`lambda x: model(x, z.expand(len(x), -1))` with one row z (an nn.Module that does so "
            "keeps its layers)"
        ) from error
    return logits_of(answer)


def _takes_x_alone(model: Model, x: Tensor) -> bool:
    """Tell whether a model can be called with x, as far as its signature says."""
    try:
        inspect.signature(getattr(model, "forward", model)).bind(x)
    except TypeError:
        return False
    except ValueError:  # it has none
        pass
    return True


def logits_of(answer: Any) -> Tensor:
    """Return the logits out of whatever a model returned.

    A tensor is taken as it is; of an answer with `logits` (Hugging Face's outputs, a dict, a
    dataclass) those; of a tuple, a list or a dict its only tensor.

    Raises:
        TypeError: there are no logits, or several tensors among which nothing says which.

    >>> logits_of({"loss": None, "logits": torch.ones(2)})
    tensor([1., 1.])
    """
    if isinstance(answer, Tensor):
        return answer
    named = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if isinstance(named, Tensor):
        return named
    tensors = list(_tensors(answer))
    if len(tensors) == 1:
        return tensors[0]
    raise TypeError(
        f"the model must return one tensor, or one called logits; it returned "
        f"{type(answer).__name__} with {len(tensors)} tensors: wrap it, for instance in "
        "`class Wrapped(torch.nn.Module)` whose forward returns `self.model(x)[0]`"
    )


def _tensors(answer: Any) -> Iterator[Tensor]:
    parts = answer.values() if isinstance(answer, Mapping) else answer
    if isinstance(parts, Mapping) or not isinstance(parts, (tuple, list, type({}.values()))):
        return
    for part in parts:
        if isinstance(part, Tensor):
            yield part


def class_logits(outputs: Tensor) -> Tensor:
    r"""Return logits with a column for every class, (N, K) with K at least 2.

    One logit $z$, (N,) or (N, 1), becomes $(0, z)$: the softmax of that is $\sigma(z)$, its
    cross-entropy the binary one, its largest column the side of 0 on which $z$ lies.

    Args:
        outputs: (N, K), (N, 1) or (N,) logits.

    Raises:
        ValueError: another number of axes.

    >>> class_logits(torch.tensor([[-2.0], [3.0]]))
    tensor([[ 0., -2.],
            [ 0.,  3.]])
    """
    if outputs.ndim not in (1, 2) or (outputs.ndim == 2 and outputs.shape[1] == 0):
        raise ValueError(f"outputs must be (N, K) or (N,) logits, got {tuple(outputs.shape)}")
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        return outputs
    one = outputs.reshape(-1, 1)
    return torch.cat([torch.zeros_like(one), one], dim=1)


def classes_of(outputs: Tensor) -> Tensor:
    """Return the class that each row of outputs speaks for, (N,) int64.

    >>> classes_of(torch.tensor([[1.0, 2.0], [4.0, 3.0]])), classes_of(torch.tensor([-1.0, 1.0]))
    (tensor([1, 0]), tensor([0, 1]))
    """
    return class_logits(outputs).argmax(1)


def probabilities_of(outputs: Tensor) -> Tensor:
    """Return class probabilities, (N, K) with K at least 2, softmax taken in float32 or finer.

    >>> probabilities_of(torch.tensor([[0.0]]))
    tensor([[0.5000, 0.5000]])
    """
    logits = class_logits(outputs)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)


def labels_of(y: Any, rows: int, n_classes: int | None = None, *, name: str = "y") -> Tensor:
    """Return true classes as (N,) int64, whatever they came in: a list, an array, a tensor.

    Whole numbers stored as floats or bools are taken; everything else is refused, one-hot rows
    too.

    Args:
        y: one class index per row.
        rows: N.
        n_classes: K; None does not look how large they are.
        name: what the caller calls them.

    Raises:
        TypeError: not numbers.
        ValueError: another shape, numbers that are no class.

    >>> labels_of([0, 1.0], 2, 2)
    tensor([0, 1])
    """
    array = as_array(y) if isinstance(y, Tensor) else np.asarray(y)
    if array.dtype.kind not in "iufb":
        raise TypeError(f"{name} must hold class numbers, got {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(
            f"{name} must be ({rows},) class numbers, one a row, got shape {array.shape}"
            + (
                f": of one-hot rows give {name}.argmax(1)"
                if array.ndim == 2 and array.shape[1] > 1
                else ""
            )
        )
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array % 1 == 0).all()):
        raise ValueError(f"{name} must hold whole class numbers; it holds NaN or fractions")
    index = array.astype(np.int64)
    if rows and (index.min() < 0 or (n_classes is not None and index.max() >= n_classes)):
        wrong = index.min() if index.min() < 0 else index.max()
        upper = "" if n_classes is None else f"..{n_classes - 1}"
        raise ValueError(f"{name} must lie in 0{upper}, it holds the class {wrong}")
    return torch.as_tensor(index, device=y.device if isinstance(y, Tensor) else None)


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor of any dtype and device as an array; bfloat16, which NumPy lacks, as float32.

    >>> as_array(torch.ones(1, dtype=torch.bfloat16)).dtype
    dtype('float32')
    """
    plain = tensor.detach().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
