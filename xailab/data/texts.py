"""Loaders of the text sets: strings, integer labels, a split that keeps copies together."""

import gzip
import html
import io
import re

import numpy as np
import pandas as pd

from xailab.data.archives import read_member
from xailab.data.dataset import Dataset

_HELD_OUT = 0.2
_NEXT = re.compile(r"\n(ham|spam)\t")


def sms() -> Dataset:
    """Load the SMS Spam Collection: 5,574 short messages; y: 1 if the message is spam.

    `.extra["train"]` marks four fifths of the messages. Messages that differ in nothing but
    digits, case and punctuation stand on one side of the split, so that a copy of what was
    learnt is not asked for.

    Raises:
        What `fetch` raises.
    """
    frame = pd.read_csv(io.BytesIO(read_member("sms")), usecols=["spam", "text"])
    rows = [
        row
        for label, text in zip(frame["spam"], frame["text"], strict=True)
        for row in _messages(int(label), text)
    ]
    y = np.array([label for label, _ in rows], dtype=np.int64)
    texts = [html.unescape(text).strip() for _, text in rows]
    return Dataset(
        name="sms",
        texts=texts,
        y=y,
        names=[],
        classes=["ham", "spam"],
        target="1 if the message is spam",
        extra={"train": _train_without_copies(texts)},
    )


def movies() -> Dataset:
    """Load 10,605 sentences from film reviews; y: 1 if people found the sentence positive.

    `.extra["score"]` is the mean of their ratings, from -4 to 4, and `y` whether it is above 0.
    `.extra["train"]` marks four fifths, sentences with the same letters on one side.

    Raises:
        What `fetch` raises.

    Reference: Hutto, Gilbert (2014), VADER: A Parsimonious Rule-based Model for Sentiment Analysis
        of Social Media Text.
    """
    frame = pd.read_csv(io.BytesIO(gzip.decompress(read_member("movies"))))
    score = frame["sentiment"].to_numpy(dtype=np.float64)
    texts = [" ".join(html.unescape(text).replace("''", '"').split()) for text in frame["text"]]
    return Dataset(
        name="movies",
        texts=texts,
        y=(score > 0).astype(np.int64),
        names=[],
        classes=["not positive", "positive"],
        target="1 if the sentence sounds positive",
        extra={"score": score, "train": _train_without_copies(texts)},
    )


def _messages(label: int, text: str) -> list[tuple[int, str]]:
    """Take apart what the archive's table runs together: a stray quote swallowed line ends.

    >>> _messages(0, "Hi there\\nspam\\tWin now!")
    [(0, 'Hi there'), (1, 'Win now!')]
    """
    first, *rest = _NEXT.split(text)
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return [(label, first), *((int(word == "spam"), message) for word, message in pairs)]


def _train_without_copies(texts: list[str]) -> np.ndarray:
    """Mark the training part, near copies together; always the same choice."""
    letters = [re.sub("[^a-z]", "", text.lower()) for text in texts]
    groups, group = np.unique(letters, return_inverse=True)
    return np.random.default_rng(0).random(len(groups))[group] >= _HELD_OUT
