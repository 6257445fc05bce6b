"""Text classifiers brought from Hugging Face, with their tokenizers, as networks on words."""

import warnings
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from xailab.core.checks import check_positive
from xailab.core.layers import hooked
from xailab.core.outputs import logits_of
from xailab.core.state import alone, frozen
from xailab.core.words import spans_of
from xailab.models.texts import Reading, SpecialToken, check_texts

_NO_WORD = ("pad", "mask", "unk")  # tokens that can stand where a word has been
_CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def text_classifier(
    model: nn.Module, tokenizer: Any, *, max_length: int | None = None
) -> "TextClassifier":
    """Make a network on words of a text classifier of Hugging Face and its tokenizer.

    The answer can be asked what every method on words asks: `xailab.explain(net, texts, target)`,
    `token_attributions`, LIME. It gives the words of the texts, whatever pieces the tokenizer cuts.

    Args:
        model: any `AutoModelForSequenceClassification`, or another network that is called by the
            names that the tokenizer gives, returns logits (N, K) and has `get_input_embeddings`.
        tokenizer: its fast tokenizer, which knows where in the text each piece stands.
        max_length: pieces of a text that are read, special tokens among them; what comes after is
            cut off with a warning. None: as many as the tokenizer says, and the network has
            positions for.

    Raises:
        TypeError: another model; a tokenizer that is not a fast one.
        ValueError: a network without embeddings, which reads characters; a `max_length` below 1.

    Elsewhere: captum `LayerIntegratedGradients(model, model.bert.embeddings)` and a baseline of
        ids made by hand; shap and lime ask `transformers.pipeline`.

    >>> text_classifier(nn.Linear(2, 2), None)
    Traceback (most recent call last):
        ...
    TypeError: the model must have get_input_embeddings, as Hugging Face's have, got Linear
    """
    if not isinstance(model, nn.Module) or not hasattr(model, "get_input_embeddings"):
        came = type(model).__name__
        raise TypeError(
            f"the model must have get_input_embeddings, as Hugging Face's have, got {came}"
        )
    _check_table(model)
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError(
            "the tokenizer must be a fast one of Hugging Face (PreTrainedTokenizerFast), which "
            f"knows where in the text a piece stands; got {type(tokenizer).__name__}"
        )
    return TextClassifier(model, tokenizer, max_length)


@dataclass(frozen=True, eq=False)
class Pieces:
    """One text, as a tokenizer cut it.

    Attributes:
        text: as it is written.
        inputs: what the network is called with: ids, mask and whatever else, (1, T) each.
        tokens: the pieces, as the tokenizer writes them.
        spans: where in the text each piece stands.
        special: which pieces the tokenizer added, as [CLS].
        cut: whether the text goes on beyond them.
    """

    text: str
    inputs: dict[str, Tensor]
    tokens: list[str]
    spans: list[tuple[int, int]]
    special: list[bool]
    cut: bool

    def words(self) -> tuple[list[str], Tensor]:
        """Return the words of the text, special tokens before and after, and whose each piece is.

        Words that one piece reaches across are one; blanks belong to the word after them. A word
        that the tokenizer passes over has no piece; those that were cut off are left out.
        """
        names, word_of = _joined(self.text, self.spans)
        own = [i for i, special in enumerate(self.special) if names and not special]
        kept = range(len(names))
        if self.cut and own:
            kept = range(min(word_of[i] for i in own), max(word_of[i] for i in own) + 1)
        start = own[0] if own else 0
        before = [i for i in range(len(self.tokens)) if i not in own and i < start]
        after = [i for i in range(len(self.tokens)) if i not in own and i >= start]
        beside = [[SpecialToken(self.tokens[i]) for i in some] for some in (before, after)]
        place = {i: len(before) + word_of[i] - kept.start for i in own}
        place |= {i: at for at, i in enumerate(before)}
        place |= {i: len(before) + len(kept) + at for at, i in enumerate(after)}
        words = [*beside[0], *(names[k] for k in kept), *beside[1]]
        return words, torch.tensor([place[i] for i in range(len(self.tokens))])


def _joined(text: str, pieces: Sequence[tuple[int, int]]) -> tuple[list[str], list[int]]:
    """Return the words of a text that its pieces can tell apart, and of which each piece is."""
    spans = spans_of(text)
    if not spans:
        return [], []
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    touched = []
    for start, end in pieces:
        first = min(bisect_right(ends, start), len(spans) - 1)  # the first word that ends later
        touched.append((first, max(first, bisect_left(starts, end) - 1)))
    together = {k for first, last in touched for k in range(first + 1, last + 1)}
    heads = [k for k in range(len(spans)) if k not in together]
    tails = [*(head - 1 for head in heads[1:]), len(spans) - 1]
    names = [text[starts[head] : ends[tail]] for head, tail in zip(heads, tails, strict=True)]
    return names, [bisect_right(heads, first) - 1 for first, _ in touched]


class Encoded(tuple[Pieces, ...]):
    """Texts as `TextClassifier.encode` gives them: none is padded, whatever their lengths."""


class TextClassifier(nn.Module):
    """A text classifier of Hugging Face with its tokenizer; `text_classifier` makes it.

    Every text is read without padding, so that none can change its answer: texts of the same
    number of pieces go through the network together. What the network makes of a text is a
    function of the vectors of its pieces (`readings`), everything else being told as ever.

    Attributes:
        model: the classifier.
        tokenizer: its tokenizer.
        max_length: how many pieces it reads; None for any number.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = _limit(model, tokenizer, max_length)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the pieces of texts; a text without any is read as one padding token.

        Warns where a text has more pieces than the network reads.

        Raises:
            TypeError: a single string, or anything else that is no sequence of strings.
            ValueError: no text at all; ids that the network does not have; a text without pieces
                where the tokenizer has no padding token.
        """
        found = Encoded(self._pieces(text) for text in check_texts(texts))
        if any(one.cut for one in found):
            warnings.warn(
                f"a text has more pieces than the {self.max_length} that are read: what comes "
                "beyond them is cut off, and counts for nothing",
                stacklevel=3,
            )
        return found

    def embed(self, encoded: Encoded) -> Tensor:
        """Return the vectors of the pieces, (N, T, width); shorter texts end in vectors of 0."""
        rows = [self._vectors(one)[0] for one in encoded]
        return pad_sequence(rows, batch_first=True)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return the logits (N, K) of what `encode` gave.

        Raises:
            ValueError: the network does not give (N, K) logits.
        """
        of_length = defaultdict(list)
        for i, one in enumerate(encoded):
            of_length[len(one.tokens)].append(i)
        answers: dict[int, Tensor] = {}
        for rows in of_length.values():
            inputs = [encoded[i].inputs for i in rows]
            together = {name: torch.cat([one[name] for one in inputs]) for name in inputs[0]}
            answers.update(zip(rows, _logits(self.model, together), strict=True))
        return torch.stack([answers[i] for i in range(len(encoded))])

    def forward_embedded(self, embeddings: Tensor, encoded: Encoded) -> Tensor:
        """Return the logits of vectors (N, T, width) in place of those that `embed` gives."""
        lengths = [len(one.tokens) for one in encoded]
        with frozen(self.model):
            functions = [self._on_vectors(one) for one in encoded]
        rows = zip(functions, embeddings, lengths, strict=True)
        return torch.cat([function(row[None, :length]) for function, row, length in rows])

    def readings(self, texts: Sequence[str] | Tensor) -> list[Reading]:
        """Return how each text is read: its words, the vectors of its pieces, and what they do.

        Raises:
            TypeError: as for `encode`; ids in place of texts, in which no words can be found.
            ValueError: as for `encode`; a network whose answer is not one of these vectors: an
                encoder with a decoder, which reads the text twice, or one without such vectors.
        """
        if isinstance(texts, Tensor):
            raise TypeError("hand over the texts, not their ids: words are found in the texts")
        found = []
        for one in self.encode(texts):
            words, owner = one.words()
            with frozen(self.model):
                network = self._on_vectors(one)
                vectors = self._vectors(one).detach()
            owner = owner.to(vectors.device)
            read = torch.ones_like(owner, dtype=torch.bool)
            found.append(Reading(words, vectors, owner, read, network, self.model, one.inputs))
        return found

    def vector_of(self, name: str) -> Tensor:
        """Return the vector of a token that stands for no word: "pad", "mask" or "unk", (width,).

        Raises:
            ValueError: the tokenizer has no such token.
        """
        if not (tokens := _special(self.tokenizer, name)):
            has = [one for one in _NO_WORD if _special(self.tokenizer, one)]
            raise ValueError(
                f"the tokenizer has no {name!r} token to be the baseline; it has "
                f"{', '.join(map(repr, has)) or 'none'}, and a number or a vector always is one"
            )
        ids = self._row(self.tokenizer.convert_tokens_to_ids(tokens))
        with torch.no_grad():
            return _table(self.model)(ids)[0, 0]

    def _pieces(self, text: str) -> Pieces:
        limit = {"truncation": True, "max_length": self.max_length} if self.max_length else {}
        with _as_it_was(self.tokenizer):
            batch = self.tokenizer(text, verbose=False, **limit)
        (encoding,) = batch.encodings
        if not encoding.ids:
            return self._nothing(text, list(batch))
        inputs = {name: self._row(values) for name, values in batch.items()}
        self._check_ids(inputs["input_ids"])
        special = [bool(one) for one in encoding.special_tokens_mask]
        cut = bool(encoding.overflowing)
        return Pieces(text, inputs, list(encoding.tokens), list(encoding.offsets), special, cut)

    def _nothing(self, text: str, names: Sequence[str]) -> Pieces:
        """Return a text without any piece: one padding token, or one that begins or ends texts."""
        token = next(iter(_special(self.tokenizer, "pad", "bos", "eos")), None)
        if token is None:
            raise ValueError(
                f"the tokenizer makes no piece of {text!r:.40}, and has no padding token to stand "
                "for it: set tokenizer.pad_token"
            )
        known = {"input_ids": self.tokenizer.convert_tokens_to_ids(token), "attention_mask": 1}
        inputs = {name: self._row([known.get(name, 0)]) for name in names}
        return Pieces(text, inputs, [token], [(0, 0)], [True], False)

    def _row(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([list(numbers)], device=next(self.model.parameters()).device)

    def _check_ids(self, ids: Tensor) -> None:
        known = getattr(_table(self.model), "num_embeddings", None)
        if known is not None and int(ids.max()) >= known:
            raise ValueError(
                f"the tokenizer gives the id {int(ids.max())}, and {type(self.model).__name__} has "
                f"vectors for {known} ids: is it the tokenizer of this model?"
            )

    def _vectors(self, one: Pieces) -> Tensor:
        vectors = _table(self.model)(one.inputs["input_ids"])
        if not isinstance(vectors, Tensor) or vectors.shape[:2] != (1, len(one.tokens)):
            raise ValueError(f"the embeddings of {type(self.model).__name__} are not one a piece")
        return vectors

    def _on_vectors(self, one: Pieces) -> "_OnVectors":
        """Return the network as a function of the vectors, having seen that it answers as ever."""
        name = type(self.model).__name__
        if getattr(getattr(self.model, "config", None), "is_encoder_decoder", False):
            raise ValueError(
                f"{name} is an encoder with a decoder, which reads the text a second time: its "
                "answer is no function of one vector a piece; lime_text and owen_text only ask for "
                "answers"
            )
        with torch.no_grad():
            want, vectors = _logits(self.model, one.inputs), self._vectors(one)
            for function in (_OnVectors(self.model, one), _OnVectors(self.model, one, named=True)):
                if _agree(function, vectors, want):
                    return function
        raise ValueError(
            f"{name} answers otherwise when it is given the vectors of its own ids: nothing can be "
            "explained through them; lime_text and owen_text only ask for answers"
        )


class _OnVectors(nn.Module):
    """A network as a function of the vectors of one text's pieces, (M, T, width) -> (M, K).

    They are put in place of what the layer of embeddings gives, so that positions, masks and
    pooling are still those of the ids. Where a network does not read that layer as it stands, they
    are handed over as `inputs_embeds`.
    """

    def __init__(self, model: nn.Module, one: Pieces, *, named: bool = False) -> None:
        super().__init__()
        self.model, self.inputs, self.named = model, one.inputs, named

    def forward(self, vectors: Tensor) -> Tensor:
        if len(vectors) > 1 and not _takes_batches(self.model):
            return torch.cat([self(one[None]) for one in vectors])
        inputs = {name: one.repeat(len(vectors), 1) for name, one in self.inputs.items()}
        if self.named:
            del inputs["input_ids"]
            return _logits(self.model, {"inputs_embeds": vectors, **inputs})
        with hooked(self.model, {_layer(self.model): partial(_in_place, vectors, inputs)}):
            return _logits(self.model, inputs)


def _in_place(
    vectors: Tensor,
    inputs: dict[str, Tensor],
    module: nn.Module,
    given: tuple[Any, ...],
    output: Tensor,
) -> Tensor | None:
    """Return vectors in place of an embedding layer's output, if it was given the text's ids.

    A network may lengthen them to a multiple, or look up token types in the same table.
    """
    ids, (seen,) = inputs["input_ids"], given
    length = ids.shape[1]
    if seen.shape[:1] == ids.shape[:1] and torch.equal(seen[:, :length], ids):
        return torch.cat([vectors, output[:, length:]], 1)
    if any(torch.equal(seen, one) for name, one in inputs.items() if name != "input_ids"):
        return None
    raise ValueError("the layer of embeddings is given other ids than those of the text")


def _agree(function: _OnVectors, vectors: Tensor, want: Tensor) -> bool:
    """Tell whether a network answers alike to ids and to their vectors; errors are a no."""
    try:
        got = function(vectors)
    except Exception:  # it answered to ids: what fails is this way in
        return False
    close = _CLOSE.get(want.dtype, 1e-4)
    return got.shape == want.shape and bool(((got - want).abs() <= close * want.abs().max()).all())


def _logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Ask a network about texts of one length, (M, K)."""
    rows, length = next(iter(inputs.values())).shape[:2]
    if rows > 1 and not _takes_batches(model):
        one_by_one = ({name: one[i : i + 1] for name, one in inputs.items()} for i in range(rows))
        return torch.cat([_logits(model, one) for one in one_by_one])
    try:
        logits = logits_of(model(**inputs))
    except (IndexError, RuntimeError) as error:
        known = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        if known is None or length <= known:
            raise
        raise ValueError(
            f"{type(model).__name__} cannot read {length} pieces ({error}): hand text_classifier a "
            f"max_length= of at most {known}"
        ) from error
    if logits.ndim != 2 or len(logits) != rows:
        raise ValueError(
            f"{type(model).__name__} must give logits (N, K) with N = {rows} texts, it gave "
            f"{tuple(logits.shape)}: is it a classifier of texts?"
        )
    return logits


def _takes_batches(model: nn.Module) -> bool:
    """Tell whether several texts may go together: some networks want to know a padding token."""
    config = getattr(model, "config", None)
    config = getattr(config, "get_text_config", lambda: config)()
    return config is None or getattr(config, "pad_token_id", None) is not None


def _table(model: nn.Module) -> nn.Module:
    """Return the layer that gives the ids their vectors."""
    return model.get_input_embeddings()  # type: ignore[operator]


def _check_table(model: nn.Module) -> None:
    """Refuse a network without such a layer.

    Raises:
        ValueError: it says so itself, or gives something else.
    """
    with suppress(NotImplementedError):
        if isinstance(_table(model), nn.Module):
            return
    raise ValueError(
        f"{type(model).__name__} has no layer that gives each piece of a text its vector: write a "
        "function of a list of texts, which lime_text and owen_text ask"
    )


def _layer(model: nn.Module) -> str:
    """Return the name of that layer."""
    table = _table(model)
    names = [name for name, module in model.named_modules() if module is table]
    if not names:
        raise ValueError(f"the embeddings of {type(model).__name__} are not one of its layers")
    return names[0]


def _special(tokenizer: Any, *names: str) -> list[str]:
    """Return those of these tokens that a tokenizer has, as it writes them."""
    known = tokenizer.special_tokens_map
    return [known[f"{name}_token"] for name in names if known.get(f"{name}_token") is not None]


def _limit(model: nn.Module, tokenizer: Any, wanted: int | None) -> int | None:
    """Return how many pieces are read: as many as wanted, or as everyone involved can take."""
    if wanted is not None:
        return check_positive("max_length", wanted)
    known = [getattr(tokenizer, "model_max_length", None), _positions(model)]
    return min((n for n in known if n and n < 1e9), default=None)  # a huge number means: any


def _positions(model: nn.Module) -> int | None:
    """Return for how many pieces a network has positions, if they stand in a table.

    A table with a place for padding (RoBERTa's) begins to count behind it.
    """
    n, words = (
        getattr(getattr(model, "config", None), "max_position_embeddings", None),
        _table(model),
    )
    for one in model.modules():
        if isinstance(one, nn.Embedding) and one is not words and one.num_embeddings == n:
            return n - (0 if one.padding_idx is None else one.padding_idx + 1)
    return None


@contextmanager
def _as_it_was(tokenizer: Any) -> Iterator[None]:
    """Put back how a tokenizer cuts and pads: asking it once changes it for the next time."""
    inner = tokenizer.backend_tokenizer
    with alone():
        truncation, padding = inner.truncation, inner.padding
        try:
            yield
        finally:
            inner.no_truncation() if truncation is None else inner.enable_truncation(**truncation)
            inner.no_padding() if padding is None else inner.enable_padding(**padding)
