"""MiniLM is the one it says it is, speaks to no host, and its features carry sentiment."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

from xailab.attribution.attention import attention_maps
from xailab.data import load, read_members
from xailab.models import minilm, movie_head
from xailab.models.sentences import MiniLM

TEXTS = ["Effective but too tepid biopic", "A gorgeous, witty, seductive movie.", "Eh."]


@pytest.fixture(scope="module")
def net():
    return minilm()


@pytest.fixture(scope="module")
def rival(tmp_path_factory):
    """The library's own way: the archive's files in a folder, its loader, its tokenizer."""
    folder = tmp_path_factory.mktemp("minilm")
    for path, content in read_members("minilm").items():
        if "Pooling" not in path:
            (folder / path.rpartition("/")[2]).write_bytes(content)
    kind = {"local_files_only": True}
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", **kind)
    return SimpleNamespace(model=model, tokenizer=AutoTokenizer.from_pretrained(folder, **kind))


def test_the_tokenizer_is_the_librarys(net, rival):
    theirs = rival.tokenizer(TEXTS, padding=True, return_tensors="pt")
    ours = net.encode(TEXTS)
    assert set(ours) == {"input_ids", "attention_mask"}
    for name, ids in ours.items():
        assert ids.tolist() == theirs[name].tolist()
    assert net.tokens(TEXTS[0]) == rival.tokenizer.convert_ids_to_tokens(theirs["input_ids"][0])[:9]
    assert net.tokens(TEXTS[0]) == [
        "[CLS]",
        "effective",
        "but",
        "too",
        "te",
        "##pid",
        "bio",
        "##pic",
        "[SEP]",
    ]


@torch.no_grad()
def test_features_are_the_masked_mean_of_the_librarys_last_vectors(net, rival):
    inputs = rival.tokenizer(TEXTS, padding=True, return_tensors="pt")
    last = rival.model(**inputs).last_hidden_state
    want = [
        row[: int(mask.sum())].mean(0)
        for row, mask in zip(last, inputs["attention_mask"], strict=True)
    ]
    torch.testing.assert_close(net.features(TEXTS), torch.stack(want), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.features(TEXTS, layer=6), net.features(TEXTS))


@torch.no_grad()
def test_layers_are_counted_from_the_vectors_that_go_in(net):
    (ids,) = net.encode(["a delight"])["input_ids"]
    embedded = net.model.embeddings(ids[None])[0].mean(0)
    torch.testing.assert_close(net.features(["a delight"], layer=0)[0], embedded)
    first = net.model.encoder.layer[0](net.model.embeddings(ids[None]))
    first = first[0] if isinstance(first, tuple) else first
    torch.testing.assert_close(
        net.features(["a delight"], layer=1)[0], first.reshape(-1, 384).mean(0)
    )
    for layer in (-1, 7, "last"):
        with pytest.raises(ValueError, match=f"layer must be 0 to 6, got {layer!r}"):
            net.features(["a delight"], layer=layer)


def test_a_mean_by_hand():
    class Ids(nn.Module):
        """Its last vectors are the ids."""

        encoder = SimpleNamespace(layer=[None] * 6)

        def forward(self, input_ids, attention_mask, output_hidden_states):
            return SimpleNamespace(hidden_states=[input_ids[..., None].float()] * 7)

    def encode_batch(texts):  # one id a letter, padding 99
        longest = max(map(len, texts))
        return [
            SimpleNamespace(
                ids=[ord(c) - 96 for c in text] + [99] * (longest - len(text)),
                attention_mask=[1] * len(text) + [0] * (longest - len(text)),
            )
            for text in texts
        ]

    toy = MiniLM(Ids(), SimpleNamespace(encode_batch=encode_batch), "")
    texts = ["abc", "c", "ad", "abcabca"]  # the order must come back after sorting by length
    for size in (1, 3, 32):
        found = toy.features(texts, batch_size=size).flatten().tolist()
        assert found == pytest.approx([2, 3, 2.5, 13 / 7])


def test_padding_changes_no_feature(net):
    alone = torch.cat([net.features([text]) for text in TEXTS])
    torch.testing.assert_close(net.features(TEXTS), alone, rtol=1e-4, atol=1e-5)


def test_every_head_of_every_layer_can_be_read(net):
    inputs = net.encode(TEXTS)
    maps = attention_maps(net.model, inputs)
    assert [tuple(weights.shape[:2]) for weights in maps] == [(3, 12)] * 6
    for weights in maps:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
        assert weights[2, ..., 4:].max() == 0  # "Eh." has four pieces, the rest is padding


def test_long_texts_are_cut(net):
    tokens = net.tokens("word " * 500)
    assert len(tokens) == 128
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")


def test_like_meanings_have_like_vectors(net):
    film, movie, bus = nn.functional.normalize(
        net.features(["A funny film.", "This movie made us laugh.", "The bus to Leeds is late."])
    )
    assert film @ movie > 0.5 > 0.3 > film @ bus


def test_frozen_features_and_a_linear_head_tell_sentiment(net):
    data, head = load("movies"), movie_head()
    held_out = np.flatnonzero(~data.extra["train"])
    test = data.take(np.random.default_rng(0).permutation(held_out)[:600])
    with torch.no_grad():
        said = head(net.features(test.texts, layer=head.layer)).argmax(1).numpy()
    assert (said == test.y).mean() >= 0.78  # on all 2,161 the card says 79.4 %
    assert said.mean() == pytest.approx(0.5, abs=0.1)  # not by saying one thing


def test_bad_texts_are_named(net):
    with pytest.raises(TypeError, match=r"texts must be a list of strings, got str"):
        net.features("one text")
    with pytest.raises(TypeError, match="text must be one string, got list"):
        net.tokens(["one text"])
    with pytest.raises(ValueError, match="texts is empty"):
        net.encode([])
    with pytest.raises(ValueError, match="batch_size"):
        net.features(TEXTS, batch_size=0)


QUIET = """\
import sys
import xailab.models.sentences
assert "transformers" not in sys.modules and "tokenizers" not in sys.modules
from xailab.course.offline import forbid_network
forbid_network()
from xailab.models import minilm, movie_head
minilm().features(["ok"])
"""


def test_loading_is_lazy_asks_no_host_and_prints_nothing():
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", QUIET], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
