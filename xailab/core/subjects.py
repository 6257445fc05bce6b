"""What is explained: a model of any framework, the rows it is asked about, and their names."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xailab.core.checks import check_input
from xailab.core.folding import predictor
from xailab.core.outputs import as_array, logits_of
from xailab.core.scores import scores_of, select
from xailab.core.state import alone, frozen
from xailab.core.tokens import last_layer, layout_of

PICTURE = frozenset({"picture"})
_KINDS = {2: "table", 3: "sequence", 4: "picture", 5: "volume"}


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the rows that are to be explained.

    Attributes:
        model: as it was handed over.
        framework: "torch" (an `nn.Module`), "tensors" (a function of tensors), "arrays" (a function
            of arrays), "keras", "sklearn", "tokens" (a network on words: one of the course, or
            Hugging Face's by `xailab.models.text_classifier`), "texts" (a function of a list of
            texts).
        x: the rows: a Tensor for torch, an array for arrays, Keras and scikit-learn, a list of
            texts.
        channel_axis: where pictures and sequences have their channels: 1, or the last.
        names: what the columns of a table are called, or None.
        background: rows to compare with, in the form of x, or None.

    >>> of = subject(nn.Linear(2, 1), torch.ones(1, 2), names=["age", "income"])
    >>> of.framework, of.kind, of.names
    ('torch', 'table', ['age', 'income'])
    """

    model: Any = field(repr=False)
    framework: str
    x: Any = field(repr=False)
    channel_axis: int = 1
    names: list[str] | None = None
    background: Any = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """What a row is: "picture", "table", "sequence", "volume" or "text"."""
        if self.framework in ("tokens", "texts"):
            return "text"
        return _KINDS.get(self.x.ndim, "volume")

    @property
    def differentiable(self) -> bool:
        """Whether gradients can be asked for by PyTorch."""
        return self.framework in ("torch", "tensors")

    @cached_property
    def layer(self) -> str | None:
        """The last layer with positions that its answer depends on; None where none is known."""
        if self.framework == "keras":
            return _last_keras_maps(self.model)
        return last_layer(self.model, self.x) if self.framework == "torch" else None

    def laid_out(self, layer: str) -> str:
        """Say how the tokens of a layer are laid out, as in "14 x 14 tokens"; "" for maps."""
        return str(layout_of(self.model, layer, self.x)) if self.framework == "torch" else ""

    # -- all frameworks alike: tensors, channels first

    @cached_property
    def rows(self) -> Tensor:
        """The rows as a tensor with channels first."""
        return torch.as_tensor(self.x).movedim(self.channel_axis, 1)

    @cached_property
    def tensors(self) -> Callable[[Tensor], Tensor]:
        """The model on such rows; through arrays no gradient passes."""
        if self.differentiable and self.channel_axis == 1:
            return self.model
        if self.differentiable:
            return lambda rows: self.model(rows.movedim(1, self.channel_axis))
        return lambda rows: torch.as_tensor(self.ask(as_array(rows))).to(rows)

    def ask(self, rows: np.ndarray) -> np.ndarray:
        """Answer such rows as a black box, arrays to arrays."""
        return np.asarray(self.predict(np.moveaxis(rows, 1, self.channel_axis)))

    def turned(self, values: Tensor) -> Tensor:
        """Return what broadcasts to x, or to a row of it, with channels first."""
        missing = self.x.ndim - values.ndim
        return values[(None,) * missing].movedim(self.channel_axis, 1)

    def own(self, values: Tensor) -> Tensor:
        """Return an attribution of such rows in the axes of x."""
        return values.movedim(1, self.channel_axis)

    @property
    def positions(self) -> tuple[int, ...]:
        """The sides of a picture, the length of a sequence."""
        return tuple(self.rows.shape[2:])

    def grid(self, cells: int) -> Tensor:
        """Number the squares of a grid laid over pictures, (1, 1, H, W)."""
        rows, columns = (torch.arange(side) * cells // side for side in self.positions)
        return (rows[:, None] * cells + columns)[None, None]

    # -- in the model's own form

    @cached_property
    def predict(self) -> Callable[..., Any]:
        """The model as a black box on rows like x: arrays (texts) in, scores out."""
        if self.framework == "torch":
            return predictor(self.model)
        if self.framework == "tensors":
            return lambda rows: as_array(logits_of(self._held(torch.as_tensor(rows).to(self.x))))
        if self.framework == "tokens":
            return lambda texts: as_array(logits_of(self._held(self.model.encode(list(texts)))))
        if self.framework == "sklearn":
            return self._of_estimator
        if self.framework == "keras":
            return lambda rows: np.asarray(self.model(rows.astype(self.x.dtype), training=False))
        return self._held

    def _of_estimator(self, rows: np.ndarray) -> np.ndarray:
        """Ask an estimator by the names it was fitted with, so that no column takes another's."""
        fitted = getattr(self.model, "feature_names_in_", None)
        if fitted is not None:
            import pandas as pd

            rows = pd.DataFrame(rows, columns=self.names or list(fitted))
        ask = getattr(self.model, "predict_proba", None) or self.model.predict
        return np.asarray(ask(rows))

    def _held(self, rows: Any) -> Any:
        """Ask the model while it, or the networks that it uses, are held still."""
        with frozen(self.model), torch.no_grad():
            return self.model(rows)

    def scores(self, target: Any, rows: Any = None) -> Tensor:
        """Return the target's score of every row, (N,), before anything is explained."""
        rows = self.x if rows is None else rows
        if self.differentiable:
            with frozen(self.model), torch.no_grad():
                return scores_of(self.model, rows, target)
        answers = torch.as_tensor(np.asarray(self.predict(rows), dtype=np.float64))
        if answers.ndim not in (1, 2) or len(answers) != len(rows):
            n, came = len(rows), tuple(answers.shape)
            raise ValueError(f"the model must give ({n},) or ({n}, K), got {came}")
        return select(answers, target)

    def alone(self) -> AbstractContextManager[None]:
        """Keep other threads from changing a model meanwhile."""
        return alone()


def subject(
    model: Any,
    x: Any,
    *,
    names: Sequence[str] | None = None,
    background: Any = None,
    channel_axis: int | None = None,
) -> Subject:
    """Make a subject out of a model of any framework and the rows it is asked about.

    Args:
        model: an `nn.Module`, a Keras model, a fitted scikit-learn estimator, a function of
            tensors or of arrays, or a network of the course on words.
        x: (N, ...) in the form that the model takes; a DataFrame for tables; a text or several.
        names: of a table's columns; None takes those of a DataFrame.
        background: rows to compare with, for methods that need some.
        channel_axis: of pictures and sequences, 1 or the last (-1). None: 1 for torch, the last for
            Keras; of arrays it is told from the number of channels, where that is possible.

    Raises:
        TypeError: no model, or rows of a type that it does not take.
        ValueError: rows that are NaN, empty or have no batch dimension; names that do not fit;
            pictures whose channels may be on either side.
    """
    names = list(getattr(x, "columns", [])) or None if names is None else list(names)
    x = [x] if isinstance(x, str) else x
    framework = _framework(model, x)
    if framework not in ("tokens", "texts"):
        x = _rows(framework, model, x)
        background = None if background is None else _rows(framework, model, background)
    axis = 1 if framework in ("tokens", "texts") else _channels(framework, x, channel_axis)
    made = Subject(model, framework, x, axis, names and [str(name) for name in names], background)
    if names is not None and made.kind == "table" and len(names) != x.shape[1]:
        raise ValueError(f"there are {len(names)} names for {x.shape[1]} columns")
    return made


def _channels(framework: str, x: Any, wanted: int | None) -> int:
    """Return the axis of the channels, 1 or the last."""
    last = x.ndim - 1
    if wanted is not None:
        if wanted not in (1, -1, last):
            raise ValueError(f"channel_axis must be 1 or -1, got {wanted}")
        return 1 if wanted == 1 else last
    if framework == "keras":
        return last
    if framework != "arrays" or x.ndim < 4:
        return 1
    few = [axis for axis in (1, last) if x.shape[axis] in (1, 3, 4)]
    if len(few) != 1:
        raise ValueError(f"x {x.shape} may have its channels on axis 1 or last: say channel_axis=")
    return few[0]


_KERAS_MAPS = ("Conv", "Pool", "BatchNorm", "ReLU", "Activation", "Add", "Concatenate", "Dropout")


def _last_keras_maps(model: Any) -> str | None:
    """Return the name of a Keras model's last layer with maps (N, h, w, C), or None."""
    for layer in reversed(getattr(model, "layers", [])):
        shape = getattr(getattr(layer, "output", None), "shape", ())
        if len(shape) == 4 and tuple(shape[1:3]) != (1, 1):
            known = any(word in type(layer).__name__ for word in _KERAS_MAPS)
            return layer.name if known else None
        if len(shape) == 3:  # goes on with tokens
            return None
    return None


def _framework(model: Any, x: Any) -> str:
    texts = isinstance(x, (list, tuple)) and bool(x) and all(isinstance(one, str) for one in x)
    if texts:
        _check_reads(model)
    if isinstance(model, nn.Module):
        return "tokens" if texts else "torch"
    if any(one.__module__.split(".")[0] == "keras" for one in type(model).__mro__):
        return "keras"
    if hasattr(model, "predict") and hasattr(model, "get_params"):
        return "sklearn"
    if not callable(model):
        raise TypeError(
            "the model must be an nn.Module, a Keras model, a fitted scikit-learn estimator or a "
            f"function, got {type(model).__name__}"
        )
    return "texts" if texts else "tensors" if isinstance(x, Tensor) else "arrays"


def _check_reads(model: Any) -> None:
    """Refuse what takes no list of texts: a network on ids without its tokenizer, a pipeline.

    Raises:
        TypeError: with the line that makes a network on words of it.
    """
    name, parts = type(model).__name__, "model, tokenizer"
    if isinstance(model, nn.Module):
        if hasattr(model, "encode") and hasattr(model, "embed"):
            return
        why = f"{name} takes no texts"
    elif isinstance(model, (tuple, list)):
        why = f"a {name} is no model"
    elif isinstance(getattr(model, "model", None), nn.Module) and hasattr(model, "tokenizer"):
        why, parts = f"a {name} gives no scores as numbers", "pipe.model, pipe.tokenizer"
    else:
        return
    raise TypeError(
        f"{why}: make a network on words of Hugging Face's classifier and its tokenizer, "
        f"`xailab.models.text_classifier({parts})`, or write a function of a list of texts"
    )


def _rows(framework: str, model: Any, x: Any) -> Any:
    """Return rows in the form that the model takes, finite and with the batch first."""
    frame = hasattr(x, "to_numpy") and hasattr(x, "columns")
    if framework in ("torch", "tensors"):
        if frame:
            weights = model.parameters() if isinstance(model, nn.Module) else ()
            dtype = next((p.dtype for p in weights if p.is_floating_point()), torch.float32)
            x = torch.as_tensor(_numbers(x, frame)).to(dtype)
        return check_input(model, x)
    if not frame and not isinstance(x, np.ndarray):
        raise TypeError(f"x must be an array or a DataFrame for this model, got {type(x).__name__}")
    array = _numbers(x, frame)
    check_input(nn.Identity(), torch.as_tensor(array))
    return array


def _numbers(x: Any, frame: bool) -> np.ndarray:
    """Return a table or an array of numbers as floats, naming what is none."""
    if not frame:
        return x if x.dtype.kind == "f" else x.astype(np.float64)
    for name, column in x.items():
        if column.dtype.kind not in "iufb":
            raise TypeError(f"column {name!r} of x holds {column.dtype}, not numbers: encode it")
    return x.to_numpy(dtype=np.float64, copy=True)
