"""Texts as numbers: a fixed vocabulary, and what every network that reads words has in common."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

PADDING, UNKNOWN = 0, 1  # the ids of the two entries that are no words
_SPECIAL = ["<pad>", "<unk>"]
_PIECE = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+|[^\w\s]|_")


def pieces(text: str) -> list[str]:
    """Split a text into words, numbers and single marks, as they are written.

    >>> pieces("Don't wait: call 0800 NOW!!")
    ["Don't", 'wait', ':', 'call', '0800', 'NOW', '!', '!']
    """
    return _PIECE.findall(text)


def word(piece: str) -> str:
    """Return how the vocabulary writes a piece: lower case, and every digit a 0.

    A telephone number is then one word for all numbers of its length.

    >>> word("NOW"), word("08712"), word("Don’t")
    ('now', '00000', "don't")
    """
    return re.sub(r"\d", "0", piece.lower().replace("’", "'"))


def check_texts(texts: Sequence[str]) -> Sequence[str]:
    """Return the texts if they are a list of strings, at least one.

    Raises:
        TypeError: a single string, or anything else that is no sequence of strings.
        ValueError: no text at all.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"texts must be a list of strings, got {type(texts).__name__}: {texts}")
    if not len(texts):
        raise ValueError("texts is empty")
    return texts


class SpecialToken(str):
    """A token that stands beside the words of a text, as [CLS], and for none of them."""

    beside = True


class Reading(NamedTuple):
    """How a network reads one text: cut into pieces, each a vector and a part of a word.

    Attributes:
        words: of the text, in order; `SpecialToken`s among them.
        vectors: (1, T, width), of its pieces.
        owner: (T,) int64, the place in `words` that each piece belongs to.
        read: (T,) bool, False where there is padding.
        on_vectors: maps vectors (M, T, width) to outputs, all else about the text being fixed.
        network: what reads.
        inputs: the text as `network` takes it: ids (1, T), or a mapping of such tensors.
        leading: positions that the network itself puts before the pieces (a class token).
    """

    words: list[str]
    vectors: Tensor
    owner: Tensor
    read: Tensor
    on_vectors: nn.Module
    network: nn.Module
    inputs: Any
    leading: int = 0


class Vocabulary:
    """A fixed list of words; the id of a word is its place in the list.

    Args:
        words: all different; the first two must be "<pad>" (id 0, no word) and "<unk>" (id 1, any
            word that is not in the list).

    Raises:
        ValueError: other beginnings, or a word that comes twice.

    >>> words = Vocabulary(["<pad>", "<unk>", "call", "now"])
    >>> words.encode(["Call me now", "NOW"])
    tensor([[2, 1, 3],
            [3, 0, 0]])
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        if self.words[:2] != _SPECIAL:
            raise ValueError(f"a vocabulary begins with {_SPECIAL}, got {self.words[:2]}")
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) < len(self.words):
            twice = Counter(self.words).most_common(1)[0][0]
            raise ValueError(f"a word may be listed once, but {twice!r} comes more often")

    @classmethod
    def of(cls, texts: Iterable[str], *, at_least: int = 1) -> "Vocabulary":
        """Return the vocabulary of the words that some texts use so often, frequent ones first."""
        counts = Counter(word(piece) for text in texts for piece in pieces(text))
        often = sorted((-n, each) for each, n in counts.items() if n >= at_least)
        return cls(_SPECIAL + [each for _, each in often])

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """Return the vocabulary of a file with one word on each line."""
        return cls(path.read_text(encoding="utf-8").splitlines())

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: Sequence[str], *, max_length: int | None = None) -> Tensor:
        """Return the ids of texts (N, T) int64, shorter ones padded with 0 at the end.

        Args:
            texts: N strings; a text without any word becomes a row of padding.
            max_length: what comes after so many words is cut off; None cuts nothing.

        Raises:
            TypeError: a single string, or anything else that is no sequence of strings.
            ValueError: no text at all.
        """
        rows = [
            torch.tensor(self._row(text)[:max_length], dtype=torch.int64)
            for text in check_texts(texts)
        ]
        ids = pad_sequence(rows, batch_first=True, padding_value=PADDING)
        return ids if ids.shape[1] else ids.new_full((len(texts), 1), PADDING)

    def _row(self, text: str) -> list[int]:
        return [self._ids.get(word(piece), UNKNOWN) for piece in pieces(text)]

    def decode(self, ids: Tensor) -> list[list[str]]:
        """Return the words of each row of ids (N, T), without the padding.

        >>> Vocabulary(["<pad>", "<unk>", "call"]).decode(torch.tensor([[2, 1, 0]]))
        [['call', '<unk>']]
        """
        return [[self.words[i] for i in row if i != PADDING] for row in ids.tolist()]


class TextModel(nn.Module):
    """A network on words, split in two so that methods on floats can explain it.

    Ids have no gradient, but the vectors they stand for do:
    `forward(ids) = forward_embedded(embed(ids), ids != 0)`. A method that wants a function of a
    float tensor is given `lambda vectors: model.forward_embedded(vectors, mask)`. Padding is the
    zero vector; how much of it there is never changes an answer.

    Attributes:
        vocabulary: the words it knows.
        max_length: how many words it can read; None for any number.
        leading: how many positions of its own it puts before the words (a class token).
    """

    leading = 0

    def __init__(self, vocabulary: Vocabulary, width: int, max_length: int | None = None) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.max_length = max_length
        self.embedding = nn.Embedding(len(vocabulary), width, padding_idx=PADDING)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the ids of texts, (N, T) int64, cut after `max_length` words."""
        ids = self.vocabulary.encode(texts, max_length=self.max_length)
        return ids.to(self.embedding.weight.device)

    def embed(self, ids: Tensor) -> Tensor:
        """Return the vector of each id: (N, T) -> (N, T, width).

        Raises:
            TypeError: ids that are no integers.
            ValueError: another shape than (N, T), or an id that the vocabulary does not have.
        """
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
            came = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
            raise TypeError(
                f"ids must be a tensor of int64, as encode(texts) gives, got {came}; "
                "vectors go to forward_embedded"
            )
        if ids.ndim != 2 or ids.numel() == 0:
            raise ValueError(f"ids must be (N, T), got shape {tuple(ids.shape)}")
        low, high, last = int(ids.min()), int(ids.max()), len(self.vocabulary) - 1
        if low < 0 or high > last:
            raise ValueError(f"ids must lie in 0..{last}, got {low if low < 0 else high}")
        return self.embedding(ids)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits of ids (N, T), 0 being padding."""
        return self.forward_embedded(self.embed(ids), ids != PADDING)

    def forward_embedded(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits of word vectors (N, T, width).

        Args:
            embeddings: what `embed` returns, or something between it and a baseline.
            mask: (N, T) or (1, T) bool, False where there is padding; None: all are words.

        Raises:
            TypeError, ValueError: another dtype or shape.
        """
        raise NotImplementedError

    def readings(self, inputs: Sequence[str] | Tensor) -> list[Reading]:
        """Return how each text is read, or each row of ids (N, T): every word is one piece.

        Words are as they are written where texts were given, else as the vocabulary has them.

        Raises:
            TypeError, ValueError: as for `encode` and `embed`.
        """
        ids = inputs if isinstance(inputs, Tensor) else self.encode(inputs)
        vectors, read = self.embed(ids).detach(), ids != PADDING
        if isinstance(inputs, Tensor):
            words = [[self.vocabulary.words[i] for i in row] for row in _without_end(ids)]
        else:
            words = [pieces(text)[: self.max_length] for text in inputs]
        places = torch.arange(ids.shape[1], device=ids.device)
        return [
            Reading(
                words[i],
                vectors[i : i + 1],
                places,
                read[i],
                _OnVectors(self, read[i : i + 1]),
                self,
                ids[i : i + 1],
                self.leading,
            )
            for i in range(len(ids))
        ]

    def vector_of(self, name: str) -> Tensor:
        """Return the vector of "pad" or "unk", the entries that are no words, (width,).

        Raises:
            ValueError: another name.
        """
        known = {"pad": PADDING, "unk": UNKNOWN}
        if name not in known:
            raise ValueError(
                f"the vocabulary has no {name!r} token to be the baseline; it has 'pad', 'unk', "
                "and a number or a vector always is one"
            )
        return self.embedding.weight[known[name]].detach()

    def _mask(self, embeddings: Tensor, mask: Tensor | None) -> Tensor:
        """Check both and return the mask as (N, T)."""
        weight = self.embedding.weight
        if embeddings.dtype != weight.dtype:
            raise TypeError(
                f"embeddings must be {weight.dtype} as the weights, got {embeddings.dtype}"
            )
        if embeddings.ndim != 3 or embeddings.shape[2] != weight.shape[1]:
            raise ValueError(
                f"embeddings must be (N, T, {weight.shape[1]}), got shape {tuple(embeddings.shape)}"
            )
        n, t, _ = embeddings.shape
        if self.max_length is not None and t > self.max_length:
            raise ValueError(f"this network reads at most {self.max_length} words, got {t}")
        if mask is None:
            return torch.ones(n, t, dtype=torch.bool, device=embeddings.device)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True where there is a word, got {mask.dtype}")
        if mask.shape not in ((n, t), (1, t)):
            raise ValueError(f"mask must be ({n}, {t}) or (1, {t}), got shape {tuple(mask.shape)}")
        return mask.expand(n, t)


class _OnVectors(nn.Module):
    """A network as a function of vectors alone; where there are words, (1, T), is fixed."""

    def __init__(self, model: TextModel, words: Tensor) -> None:
        super().__init__()
        self.model, self.words = model, words

    def forward(self, vectors: Tensor) -> Tensor:
        return self.model.forward_embedded(vectors, self.words)


def _without_end(ids: Tensor) -> list[list[int]]:
    """Return the ids of each row without the padding at its end."""
    rows = []
    for row in ids.tolist():
        while row and row[-1] == PADDING:
            row.pop()
        rows.append(row)
    return rows
