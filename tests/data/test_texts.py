import re
from collections import defaultdict

import numpy as np
import pytest

from xailab.data import load, texts


@pytest.fixture(scope="module")
def sms():
    return load("sms")


def test_as_many_messages_as_were_published(sms):
    # Almeida, Gomez Hidalgo, Yamakami (2011): 4,827 ham and 747 spam; the archive has 4,837 rows
    assert np.bincount(sms.y).tolist() == [4827, 747]
    assert max(map(len, sms.texts)) < 1000
    assert not any("\n" in text or "\t" in text for text in sms.texts)


def test_messages_by_name(sms):
    first = sms.texts[2]
    assert first.startswith("Free entry in 2 a wkly comp")
    assert sms.classes[sms.y[2]] == "spam"
    # it comes twice; one of them was swallowed by a row of the archive that begins with ham
    swallowed = [sms.y[i] for i, text in enumerate(sms.texts) if text.startswith("Last Chance! Cl")]
    assert swallowed == [1, 1]


def test_marks_of_html_are_read(sms):
    assert not any(re.search("&(lt|gt|amp);", text) for text in sms.texts)
    assert any("<#>" in text for text in sms.texts)


def test_run_together_messages_are_taken_apart():
    run_together = "one\nham\ttwo\nspam\tthree spam\tand"
    assert texts._messages(1, run_together) == [(1, "one"), (0, "two"), (1, "three spam\tand")]


def test_the_split_is_fixed_and_keeps_copies_together(sms):
    train = sms.extra["train"]
    assert (train.sum(), (~train).sum()) == (4395, 1179)
    assert sms.y[~train].sum() == 167
    sides = defaultdict(set)
    for text, side in zip(sms.texts, train, strict=True):
        sides[re.sub("[^a-z]", "", text.lower())].add(side)
    both = [letters for letters, found in sides.items() if len(found) > 1]
    assert not both
    assert len(sides) < 5100  # there are copies to be kept together


@pytest.fixture(scope="module")
def movies():
    return load("movies")


def test_as_many_sentences_as_were_rated(movies):
    score = movies.extra["score"]
    assert len(movies) == len(score) == 10605  # Hutto, Gilbert (2014)
    assert (score.min(), round(score.max(), 3)) == (-3.875, 3.941)
    assert (score == 0).sum() == 37
    np.testing.assert_array_equal(movies.y, score > 0)
    assert movies.y.sum() == 5242


def test_sentences_by_name(movies):
    found = dict(zip(movies.texts, movies.extra["score"], strict=True))
    assert found["Effective but too tepid biopic"] == -0.6
    assert found["Griffin & Co. manage to be spectacularly outrageous."] > 0  # was "&amp;"
    assert movies.texts[0].startswith('The Rock is destined to be the 21st Century\'s new "Conan" ')
    assert not any(re.search("  |&amp;|''|\n", text) for text in movies.texts)


def test_the_split_of_the_movies_keeps_copies_together(movies):
    train = movies.extra["train"]
    assert (train.sum(), (~train).sum()) == (8444, 2161)
    assert 0.48 < movies.y[~train].mean() < 0.52
    both = {text for text in movies.texts if movies.texts.count(text) > 1}
    assert len(both) == 2
    for twice in both:
        assert (
            len(
                {
                    bool(side)
                    for text, side in zip(movies.texts, train, strict=True)
                    if text == twice
                }
            )
            == 1
        )
