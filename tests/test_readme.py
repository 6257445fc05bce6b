"""The README's ways to explain your own model, run as they stand there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

README = Path(__file__).parents[1] / "README.md"
SECTION = README.read_text(encoding="utf-8").partition("## Explain your own model")[2]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION.partition("\n## ")[0], re.S)


def run(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    exec(compile(BLOCKS[number], f"README, block {number}", "exec"), given)
    return given


def test_there_is_one_for_each_framework() -> None:
    assert len(BLOCKS) == 4
    assert all(len(block.splitlines()) <= 13 for block in BLOCKS)


def test_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    end = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *end)
    images, labels = torch.rand(2, 3, 16, 16), torch.tensor([0, 2])
    got = run(0, tmp_path, monkeypatch, model=net, images=images, labels=labels)
    assert got["both"].names[-4:] == got["more"]
    assert got["why"].table()["layer"]["grad_cam"] == "1"
    assert (tmp_path / "why.png").stat().st_size > 1000
    leaf = images.clone().requires_grad_()
    out = net(leaf)
    (want,) = torch.autograd.grad((out[:, 1] - out[:, 0]).sum(), leaf)
    torch.testing.assert_close(got["contrast"]["saliency"], want)


def test_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.ensemble import RandomForestClassifier

    draw = np.random.default_rng(0)
    table = pd.DataFrame(draw.normal(size=(80, 3)), columns=["age", "income", "debt"])
    forest = RandomForestClassifier(5, random_state=0).fit(table, table.income > table.debt)
    got = run(1, tmp_path, monkeypatch, forest=forest, table=table)
    assert list(got["shares"].columns) == ["age", "debt", "income"]
    means = forest.predict_proba(table[-50:])[:, 1].mean()
    want = forest.predict_proba(table[:5])[:, 1] - means
    np.testing.assert_allclose(got["shares"].sum(1), want, atol=1e-9)


def test_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = pytest.importorskip("xailab.attribution.cam_keras").keras.layers
    keras = pytest.importorskip("keras")
    inputs = keras.Input((12, 12, 1))
    maps = layers.Conv2D(4, 3, activation="relu", name="maps")(inputs)
    head = layers.Dense(3)(layers.GlobalAveragePooling2D()(maps))
    pictures = np.random.default_rng(0).random((2, 12, 12, 1), dtype=np.float32)
    got = run(2, tmp_path, monkeypatch, keras_model=keras.Model(inputs, head), pictures=pictures)
    assert got["why"].names == ["saliency", "integrated_gradients", "grad_cam"]
    assert got["why"].table()["layer"]["grad_cam"] == "maps"
    assert got["black_box"]["occlusion"].shape == (2, 12, 12, 1)
    assert (tmp_path / "why.pdf").read_bytes().startswith(b"%PDF")


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[MASK]", "a", "good", "film", "with", "bad", "end"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(words), intermediate_size=32, **sizes)
    classifier = BertForSequenceClassification(config).eval()
    got = run(3, tmp_path, monkeypatch, tokenizer=tokenizer, classifier=classifier)
    assert got["why"].names == ["token_attributions", "lime_text"]
    assert got["lrp"]["token_attributions"].shape == (1, 3)
    frame = got["why"].to_frame()["lime_text"].dropna()
    assert list(frame.index.get_level_values(-1)) == ["a", "good", "film", "with", "bad", "end"]
    assert np.isfinite(frame).all()
