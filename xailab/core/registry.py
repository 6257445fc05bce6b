"""The list of all methods: what each takes and gives, in one card a method.

`explain`, the scoreboard, the chooser, the benchmarks and the contract tests read these cards.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from xailab.core.subjects import PICTURE, Subject

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Card:
    """What is known of one attribution method.

    Attributes:
        name: the function's name, as in tables.
        function: the function itself.
        needs: of a model, "layer" (a layer with positions), "gradient", "relu" (ReLU modules and
            no other ReLU), "gap" (global average pooling before a linear classifier), "known"
            (nothing but operations that a rule is known for);
            and of the caller, "background" (rows to compare with), "window" (its size), "masks"
            (their number and grid), "few" (features, or groups of them: 2^n are run).
        title: its name in the field, as in pictures.
        titles: of a method that is several in one, by its option `method`.
        takes: "model" (tensors in and out), "predict" (arrays), "tree", "linear" (scikit-learn's
            own numbers), "tokens" (a network on words).
        refuses: says why it cannot read a model, and what to do instead; "" if it can.
        kinds: what a row of x may be ("picture", "table", "sequence", "text"); empty: anything.
        units: of its answer.
        units_of: what they are for a subject, where that depends on the model.
        promises: what its sum is, in words, where it promises one: "baseline" (the change of the
            score from a baseline) or "background" (from the mean over a background), or
            "rows" (from the mean over training rows, over a background where there is one).
        defaults: option -> what it is for a subject, where the caller says nothing.
        rows: how many rows it runs for each row of x, from a subject and the options.
        run: how `explain` calls it, where that is not (model, x, target, **options).
        keras: where its twin for Keras models stands, "module:function".
        reason: why one would take it, for the chooser.
        extra: options that `run` takes beside those of the function.
        options: the names of its keyword arguments, and `extra`.
    """

    name: str
    function: Callable[..., Any]
    needs: frozenset[str] = frozenset()
    title: str = ""
    titles: Mapping[str, str] = field(default_factory=dict, compare=False)
    takes: str = "model"
    refuses: Callable[[Any], str] | None = field(default=None, compare=False)
    kinds: frozenset[str] = frozenset()
    units: str = "score"
    units_of: Callable[[Subject], str] | None = field(default=None, compare=False)
    promises: str = ""
    defaults: Mapping[str, Callable[[Subject], Any]] = field(default_factory=dict, compare=False)
    rows: Callable[[Subject, Mapping[str, Any]], int] = field(
        default=lambda subject, options: 1, compare=False
    )
    run: Callable[..., Any] | None = field(default=None, compare=False)
    keras: str = ""
    reason: str = ""
    extra: frozenset[str] = frozenset()
    options: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        parameters = list(inspect.signature(self.function).parameters.values())
        named = (
            one.name
            for one in parameters[0 if self.takes != "model" else 3 :]
            if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        )
        own = {"model", "predict", "tree", "x", "target", "image", "text", "weights", "inputs"}
        if "layer" not in self.needs:  # `explain` asks about x: a layer's output is no map of it
            own |= {"layer", "layer_baseline"}
        object.__setattr__(self, "options", (frozenset(named) - own) | self.extra)
        object.__setattr__(self, "title", self.title or self.name.replace("_", " "))

    def title_for(self, options: Mapping[str, Any]) -> str:
        """Return its title, where it is told which of several methods it is."""
        return self.titles.get(options.get("method", ""), self.title)

    def units_for(self, of: Subject) -> str:
        """Return the units of its answer about a subject; a classifier's score is a probability."""
        if self.units_of is not None:
            return self.units_of(of)
        sure = of.framework == "sklearn" and hasattr(of.model, "predict_proba")
        return self.units.replace("score", "probability") if sure else self.units

    def maps(self, model: Any, x: Tensor, target: Any, options: Mapping[str, Any]) -> Tensor:
        """Run a method `(model, x, target)` with those options that it knows.

        Raises:
            TypeError: it did not return a tensor or an array.
            ValueError: it did not give one map per row of `x`.
        """
        known = {name: value for name, value in options.items() if name in self.options}
        return self.checked(self.function(model, x, target, **known), len(x), x)

    def checked(self, answer: Any, rows: int, x: Any) -> Tensor:
        """Return an answer as a tensor with one map a row, or raise as `maps` does."""
        if not isinstance(answer, (Tensor, np.ndarray)):
            raise TypeError(
                f"{self.name} must return a Tensor, it returned {type(answer).__name__}"
            )
        if answer.ndim < 2 or len(answer) != rows:
            came, shape = tuple(answer.shape), tuple(x.shape)
            raise ValueError(f"{self.name} must give one map per row of x {shape}, it gave {came}")
        return torch.as_tensor(answer).detach()

    def why_not(self, of: Subject, options: Mapping[str, Any] | None = None) -> str:
        """Say why the method cannot be asked about a subject, and what would help; "" if it can.

        What only running it shows (a layer that no rule is known for, a functional ReLU) the method
        refuses itself.
        """
        options = options or {}
        if self.kinds and of.kind not in self.kinds:
            own = " or a ".join(sorted(self.kinds))
            return f"it explains a {own}, and x is a {of.kind}: ask {_INSTEAD[of.kind]}"
        if self.takes == "model" and of.kind == "text":
            return "it explains numbers; of a text ask token_attributions or lime_text"
        if self.takes == "tokens" and of.framework != "tokens":
            return (
                "it needs a network with encode and embed; lime_text asks any function of texts "
                "(of Hugging Face's: xailab.models.text_classifier(model, tokenizer))"
            )
        if self.refuses is not None and (reason := self.refuses(of.model)):
            return reason
        if self.takes == "linear" and not hasattr(of.model, "coef_"):
            return "it reads a linear scikit-learn model; kernel_shap asks any model"
        if of.framework == "keras" and self.takes == "model" and self.needs & {"gradient", "layer"}:
            return "" if self.keras else "it has no form for Keras; integrated_gradients has"
        if "gradient" in self.needs and not (of.differentiable or of.framework == "tokens"):
            return "it needs gradients, and this model only answers: ask occlusion, LIME or SHAP"
        if self.needs & {"layer", "relu", "known"} and of.framework not in ("torch", "tokens"):
            return "it works on the layers of an nn.Module: write the model as one"
        if "layer" in self.needs and of.channel_axis != 1:
            return "it lays maps over x with channels first: let the model take x.movedim(1, -1)"
        if "layer" in self.needs and not (options.get("layer") or of.layer):
            return (
                "no layer is known to hold maps (an MLP has none, and it must be known which patch "
                "a token stands for): say layer= and, for tokens, reshape="
            )
        given = options.get("background") is not None or of.background is not None
        if "background" in self.needs and (self.takes == "model" or of.kind == "table"):
            return "" if given else "it needs background=, rows to compare with"
        return ""

    def ask(
        self, of: Subject, target: Any, options: Mapping[str, Any]
    ) -> tuple[Tensor, list[list[str]] | None, Tensor | None]:
        """Run the method on a subject: its answer in the axes of x, and what it says of it.

        The second is the names of its numbers, the third what its sum misses, where it tells.

        Args:
            of: a subject that `why_not` has nothing against.
            target: as for every method.
            options: all that the method is to be told, as `options_for` returns them.

        Raises:
            TypeError, ValueError: as for `maps`, or what the method raises.
        """
        if of.framework == "keras" and self.keras:
            twin = _twin(self.keras)
            answer = twin(of.model, of.x, target, **_known_to(twin, options))
            return self.checked(answer, len(of.x), of.x), None, None
        if self.run is not None:
            values, names, gap = self.run(of, target, options)
            values = self.checked(values, len(of.x), of.x)
            return values if of.kind == "text" else of.own(values), names, gap
        if of.differentiable and (of.channel_axis == 1 or self.needs & {"relu", "known"}):
            return self.maps(of.model, of.x, target, options), None, None  # no axis is special
        turned = {
            name: of.turned(value) if name in _LIKE_X and isinstance(value, Tensor) else value
            for name, value in options.items()
        }
        return of.own(self.maps(of.tensors, of.rows, target, turned)), None, None

    def options_for(self, subject: Subject, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the options that the method knows, and its defaults for the subject."""
        given = {name: value for name, value in options.items() if name in self.options}
        if "layer" in self.options and given.get("layer") is None and subject.layer:
            given["layer"] = subject.layer
        if "background" in self.options and subject.background is not None:
            given.setdefault("background", subject.background)
        drawn = {name: of(subject) for name, of in self.defaults.items() if name not in given}
        return {**{name: value for name, value in drawn.items() if value is not None}, **given}


METHODS: dict[str, Card] = {}
_INSTEAD = {  # what takes any model of such rows
    "table": "kernel_shap or lime_tabular",
    "picture": "occlusion or lime_image",
    "sequence": "occlusion or feature_ablation",
    "volume": "occlusion or feature_ablation",
    "text": "lime_text",
}
_LIKE_X = ("background", "baseline", "feature_mask")  # options in the axes of x


def _twin(path: str) -> Callable[..., Any]:
    """Return the function that stands at "module:function"; the module is heavy, so only now."""
    home, _, name = path.partition(":")
    return getattr(import_module(home), name)


def _known_to(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def method(*needs: str, **facts: Any) -> Callable[[F], F]:
    """Enter a function into the list of methods; with that it is under the contract tests.

    Args:
        needs: words of `Card.needs`.
        facts: any other field of `Card`, such as `title` or `units`.
    """

    def enter(function: F) -> F:
        name = function.__name__
        METHODS[name] = Card(name, function, frozenset(needs), **facts)
        return function

    return enter


def chosen(
    methods: Sequence[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]],
) -> list[Card]:
    """Return the methods meant: by name, as functions `(model, x, target)`, or named functions.

    One name or one function may stand alone.

    Raises:
        TypeError: neither names nor functions.
        ValueError: none at all, a name that is not listed (the message gives near ones), or one
            name twice.
    """
    if isinstance(methods, str) or callable(methods):
        methods = [methods]
    named = methods.items() if isinstance(methods, Mapping) else [(None, one) for one in methods]
    found = [_found(name, one) for name, one in named]
    names = [one.name for one in found]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"name at least one method, and each once; got {names}")
    return found


def _found(name: str | None, wanted: Any) -> Card:
    if isinstance(wanted, str):
        if wanted not in METHODS:
            near = get_close_matches(wanted, METHODS, n=3) or sorted(METHODS)
            raise ValueError(f"there is no method {wanted!r}; there is {', '.join(near)}")
        return METHODS[wanted]
    if not callable(wanted):
        raise TypeError(f"a method is a name or a function, got {type(wanted).__name__}")
    wanted = inspect.unwrap(wanted)  # a module that is called as its function
    own = getattr(wanted, "card", None)  # of a method made of another, as by `smooth`
    listed = next((one for one in METHODS.values() if one.function is wanted), None)
    listed = own if isinstance(own, Card) else listed
    own_name = name or str(getattr(wanted, "__name__", type(wanted).__name__))
    if listed is None:  # a layer that the caller's own function asks for is meant for maps of it
        asks = frozenset({"layer"} & inspect.signature(wanted).parameters.keys())
        return Card(own_name, wanted, extra=asks)
    return listed if name is None else replace(listed, name=name, title="")


def refuse_unknown(options: Iterable[str], methods: Sequence[Card]) -> None:
    """Raise for an option that would silently do nothing; `layer` is known to everyone.

    Raises:
        TypeError: none of the methods takes it; the message gives near ones.
    """
    known = {"layer"}.union(*(method.options for method in methods))
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=3) or sorted(known)
            raise TypeError(f"none of the methods takes {option!r}; they take {', '.join(near)}")


# ---- defaults that a subject settles -------------------------------------------------------------


def window_of(subject: Subject) -> Any:
    """Return a window of a quarter of the shortest side, of a seventh where it has over 200."""
    if subject.kind not in PICTURE:
        return 1
    short = min(subject.positions)
    return max(1, short // (7 if short > 200 else 4))


def stride_of(subject: Subject) -> Any:
    """Return half a window."""
    return max(1, window_of(subject) // 2)


def grid_of(cells: int) -> Callable[[Subject], Tensor | None]:
    """Return a default for `feature_mask`: the squares of a grid over pictures, else no mask."""
    return lambda subject: subject.own(subject.grid(cells)) if subject.kind in PICTURE else None
