"""What a model returned: its logits, its classes. Every function asks here.

A network with one logit is a binary classifier: its decision lies at 0, its probability is the
sigmoid. Written as two columns, (0, z), it is like any other: their softmax is that sigmoid.
"""

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xailab.core.asking import ask
from xailab.core.checks import Model

_PLAIN = (RuntimeError, TypeError, IndexError, KeyError, AttributeError)


def answer_of(model: Model, x: Tensor) -> Tensor:
    """Ask a model about rows, and return its logits, of whatever shape.

    Raises:
        ValueError: the model refuses the shape of `x`.
        TypeError: it takes other arguments than `x`, or returns something else than a tensor of
            logits (see `logits_of`).

    >>> answer_of(torch.neg, torch.ones(1, 2))
    tensor([[-1., -1.]])
    """
    return logits_of(ask(model, x))


def logits_of(answer: Any) -> Tensor:
    """Return the logits out of whatever a model returned.

    A tensor is taken as it is; of an answer with `logits` (Hugging Face's outputs, a dict, a
    dataclass) those; of a tuple, a list, a dict or a dataclass its only tensor.

    Raises:
        TypeError: there are no logits, or several tensors among which nothing says which; the
            message shows how to pick one of this very answer.

    >>> logits_of({"loss": None, "logits": torch.ones(2)})
    tensor([1., 1.])
    """
    found = _logits(answer)
    if found is None:
        raise TypeError(_no_logits(answer))
    return found


def function_scores(target: Callable[[Any], Tensor], answer: Any, rows: int) -> Tensor:
    """Return what a target that is a function makes of a model's answer: one number a row.

    The function is given the logits (see `logits_of`), of whatever shape; where there are several
    tensors and no logits, the answer as it is. It is asked about any number of rows.

    Args:
        target: the function.
        answer: what the model returned.
        rows: of how many rows.

    Raises:
        TypeError: it gives no tensor of floats.
        ValueError: it gives another shape than (rows,), or fails on this answer.

    >>> function_scores(lambda out: out[:, 1] - out[:, 0], torch.tensor([[2.0, 5.0]]), 1)
    tensor([3.])
    """
    logits = _logits(answer)
    given = answer if logits is None else logits
    try:
        scores = target(given)
    except _PLAIN as error:
        raise ValueError(
            f"target, a function, was given {_form(given)} for {rows} rows (it is asked about any "
            f"number of them) and failed with {type(error).__name__}: {error}"
        ) from error
    if not isinstance(scores, Tensor) or scores.shape != (rows,):
        came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"target as a function must give ({rows},), one number a row, got {came} of an answer "
            f"{_form(given)}"
        )
    if not scores.is_floating_point():
        raise TypeError(
            f"target as a function must give floating-point numbers, got {scores.dtype}: take the "
            "scores themselves (a count, a comparison or an argmax has no gradient)"
        )
    return scores


def scores_by(target: Callable[[Any], Tensor], model: Model, x: Tensor) -> Tensor:
    """Return the scores of rows by a target that is a function, (N,); see `function_scores`.

    >>> scores_by(lambda out: out.sum(1), torch.neg, torch.ones(1, 2))
    tensor([-2.])
    """
    return function_scores(target, ask(model, x), len(x))


def _logits(answer: Any) -> Tensor | None:
    """Return the logits of an answer, or None where nothing says which they are."""
    if isinstance(answer, Tensor):
        return answer
    named = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if isinstance(named, Tensor):
        return named
    tensors = [part for _, part in _parts(answer) if isinstance(part, Tensor)]
    return tensors[0] if len(tensors) == 1 else None


def _parts(answer: Any) -> list[tuple[str, Any]]:
    """Return what an answer holds, each with the code that reaches it."""
    if isinstance(answer, Mapping):
        return [(f"[{key!r}]", part) for key, part in answer.items()]
    if isinstance(answer, (tuple, list)):
        return [(f"[{i}]", part) for i, part in enumerate(answer)]
    if is_dataclass(answer):
        return [(f".{name}", part) for name, part in vars(answer).items()]
    return []


def _reached(answer: Any) -> list[tuple[str, Tensor]]:
    """Return every tensor of an answer, also of tuples inside it, with the code that reaches it."""
    found = []
    for code, part in _parts(answer):
        if isinstance(part, Tensor):
            found.append((code, part))
        else:
            found += [(code + more, tensor) for more, tensor in _reached(part)]
    return found


def _form(answer: Any) -> str:
    """Say what an answer is: the shape of a tensor, the places of several."""
    if isinstance(answer, Tensor):
        return f"a tensor {tuple(answer.shape)}"
    held = _reached(answer)
    places = ", ".join(f"{code} {tuple(one.shape)}" for code, one in held[:6])
    return f"{type(answer).__name__} with {len(held)} tensors" + (f" ({places})" if held else "")


def _no_logits(answer: Any) -> str:
    """Say what to do with an answer that holds no logits, in code that fits this answer."""
    came = f"the model must return one tensor, or one called logits; it returned {_form(answer)}"
    wrap = "wrap it, for instance in `class Wrapped(torch.nn.Module)` whose forward returns "
    held = [(code, one) for code, one in _reached(answer) if one.is_floating_point() and one.ndim]
    if not held:
        return f"{came}: {wrap}`self.model(x)[0]`"
    if isinstance(answer, (list, tuple)) and isinstance(answer[0], Mapping):  # a detector's
        key = "scores" if "scores" in answer[0] else next(iter(answer[0]))
        one_a_row = f"torch.stack([one[{key!r}][:1].sum() for one in {{}}])"
        number, wrapped = one_a_row.format("answer"), one_a_row.format("self.model(x)")
    else:
        code, one = held[0]
        number, wrapped = f"answer{code}{number_of(one)}", f"self.model(x){code}"
    return (
        f"{came}: say which number of a row by a function as target, for instance `lambda answer: "
        f"{number}`, or {wrap}`{wrapped}`"
    )


def number_of(outputs: Tensor) -> str:
    """Write down an index that makes one number a row of outputs (N, ...): of class 0, its mean.

    >>> number_of(torch.zeros(2, 3, 8, 8)), number_of(torch.zeros(2, 3)), number_of(torch.zeros(2))
    ('[:, 0].mean((1, 2))', '[:, 0]', '')
    """
    places = tuple(range(1, outputs.ndim - 1))
    mean = f".mean({places if len(places) > 1 else places[0]})" if places else ""
    return ("[:, 0]" if outputs.ndim > 1 else "") + mean


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
