"""One small model of every kind, with the rows it is asked about and what an oracle needs of it.

Weights are random and fixed by a seed; nothing is downloaded. A model is handed over as a user
would hand it over, in training mode too; `answer` is what it computes, written down once more.
"""

from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

Options = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Kind:
    """A model and the rows that are explained.

    Attributes:
        name: as in the table.
        model, x, target, options: what `explain` is given.
        answer: rows as tensors with channels first, float64 -> (N, K) or (N,); None for texts,
            and where the model cannot be asked as it is.
        twin: the module that `answer` runs, in evaluation mode, whose layers can be watched.
        layer: of the twin, through which the maps are to be explained.
        layout: lays one output of that layer out as maps (1, K, h, w).
        last: whether x has its channels last.
        fitted: what a tree was grown on.
    """

    name: str
    model: Any
    x: Any
    target: Any
    options: Options = field(default_factory=dict)
    answer: Callable[[Tensor], Tensor] | None = None
    twin: nn.Module | None = None
    layer: str | None = None
    layout: Callable[[Tensor], Tensor] = lambda maps: maps
    last: bool = False
    fitted: Any = None

    @property
    def rows(self) -> Tensor:
        """The rows as float64 with channels first."""
        return first(self.x, self.last)

    @property
    def background(self) -> Tensor:
        return first(self.options["background"], self.last)

    @property
    def targets(self) -> list[int | None]:
        return [None] * len(self.x) if self.target is None else list(self.target)


def first(x: Any, last: bool) -> Tensor:
    rows = torch.as_tensor(np.asarray(x), dtype=torch.float64)
    return rows.movedim(-1, 1) if last else rows


def _numbers(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _made(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float64) -> nn.Module:
    """Make a network with fixed weights that are large enough for its answers to differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().to(dtype)
        for name, value in model.named_parameters():
            if value.ndim > 1:
                nn.init.normal_(value, std=1.2 / value[0].numel() ** 0.5)
            elif "weight" not in name:
                nn.init.normal_(value, std=0.3)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.3, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def _torch(name: str, make: Callable[[], nn.Module], x: Tensor, target: Any, **facts: Any) -> Kind:
    model, twin = _made(make), _made(make).eval()
    background = _numbers(4, *x.shape[1:], seed=2)
    options = {"background": background, **facts.pop("options", {})}
    return Kind(name, model, x, target, options, facts.pop("answer", twin), twin, **facts)


# ---- pictures ------------------------------------------------------------------------------------

PICTURES = _numbers(2, 3, 16, 16)


# Four features in place of nine squares and more: so many coalitions of a large network take long.
QUARTERS = {"feature_mask": (torch.arange(40) // 20)[:, None] * 2 + torch.arange(40) // 20}


class Skips(nn.Module):
    """Two residual blocks, one ReLU module for all, as torchvision's ResNets have in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.short = nn.Conv2d(4, 6, 1, 2)
        self.relu = nn.ReLU(inplace=True)
        self.maps = nn.Identity()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.relu(self.norm1(self.conv1(x)) + x)
        x = self.maps(self.relu(self.norm2(self.conv2(x)) + self.short(x)))
        return self.fc(x.mean((2, 3)))


class Segmenter(nn.Module):
    """(N, 3, H, W) -> (N, 3, H, W), a score of every class at every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Dropout(), nn.Conv2d(4, 3, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Two(nn.Module):
    """A picture and a row of a table -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop, self.fc = nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Linear(6, 3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.fc(self.drop(torch.cat([self.conv(x).tanh().mean((2, 3)), z], 1)))


def _plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(5, 3),
    )  # fmt: skip


def _timm_resnet() -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    sizes = {"channels": (8, 8, 12, 12), "stem_width": 4, "stem_type": "deep"}
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=3, zero_init_last=False, **sizes)


def _shuffle() -> nn.Module:
    from torchvision.models import ShuffleNetV2

    return ShuffleNetV2([1, 1, 1], [8, 8, 12, 16, 16], num_classes=3)


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3)


def _timm_vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(16, 4, num_classes=3, embed_dim=8, depth=2, num_heads=2)


def _swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=3)


def _to_maps(tokens: Tensor) -> Tensor:
    """Leave out the class token, and lay out 4 x 4 patches."""
    return tokens[:, 1:].mT.unflatten(2, (4, 4))


def _class_token_apart(t: Tensor) -> Tensor:
    """The same, by loops."""
    return torch.stack(
        [torch.stack([t[:, 1 + 4 * i + j] for j in range(4)], -1) for i in range(4)], -2
    )


def _segmentation() -> Kind:
    kind = _torch("segmentation", Segmenter, PICTURES, [2, 0])
    return Kind(kind.name, kind.model, kind.x, kind.target, kind.options)


def _segmentation_wrapped() -> Kind:
    kind = _torch("segmentation, wrapped", Segmenter, PICTURES, [0, 1])
    model, twin = kind.model, kind.twin

    def answer(rows: Tensor) -> Tensor:
        return twin(rows).flatten(2).sum(2) / rows[0, 0].numel()

    return Kind(
        kind.name, lambda x: model(x).mean((2, 3)), kind.x, kind.target, kind.options, answer
    )


def _two() -> Kind:
    kind = _torch("two inputs", Two, PICTURES, [2, 0])
    return Kind(kind.name, kind.model, kind.x, kind.target, kind.options)


def _two_wrapped() -> Kind:
    kind = _torch("two inputs, wrapped", Two, PICTURES, [2, 0])
    model, twin, z = kind.model, kind.twin, _numbers(1, 2, seed=3)

    def answer(rows: Tensor) -> Tensor:
        return torch.cat([twin(row[None], z) for row in rows])

    wrapped = lambda x: model(x, z.expand(len(x), -1))  # noqa: E731
    return Kind(kind.name, wrapped, kind.x, kind.target, kind.options, answer)


def _keras() -> Kind:
    """A functional Keras network, and the same in PyTorch, float64."""
    with redirect_stderr(StringIO()):
        from xailab.attribution.cam_keras import keras
    layers, twin = keras.layers, _made(_twin_of_keras).eval()
    start = keras.Input((16, 16, 3))
    maps = layers.Conv2D(4, 3, padding="same", name="first")(start)
    maps = layers.ReLU()(maps)
    maps = layers.Conv2D(5, 3, padding="same", activation="relu", name="maps")(maps)
    model = keras.Model(start, layers.Dense(3)(layers.GlobalAveragePooling2D()(maps)))
    weights = []
    for one in (twin[0], twin[2], twin[6]):
        axes = (2, 3, 1, 0) if one.weight.ndim == 4 else (1, 0)
        weights += [one.weight.detach().permute(axes).numpy(), one.bias.detach().numpy()]
    model.set_weights(weights)
    x, background = (_numbers(n, 16, 16, 3, seed=n).float().numpy() for n in (2, 4))
    return Kind(
        "Keras CNN", model, x, [2, 0], {"background": background}, twin, twin, "3", last=True
    )


def _twin_of_keras() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip


class ChannelsLast(nn.Module):
    """A network that takes (N, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.permute(0, 3, 1, 2))


def _channels_last() -> Kind:
    model, twin = _made(ChannelsLast), _made(ChannelsLast).eval().body
    options = {"background": _numbers(4, 16, 16, 3, seed=2), "channel_axis": -1}
    x = _numbers(2, 16, 16, 3)
    return Kind("CNN on channels last", model, x, [2, 0], options, twin, twin, last=True)


def _black_box() -> Kind:
    """A function of arrays with channels last."""
    twin = _made(_twin_of_keras).eval()

    def ask(pictures: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return twin(torch.as_tensor(pictures).permute(0, 3, 1, 2)).numpy()

    x = PICTURES.permute(0, 2, 3, 1).contiguous().numpy()
    return Kind("function of arrays (pictures)", ask, x, [2, 0], {}, twin, last=True)


# ---- sequences and texts -------------------------------------------------------------------------

VECTORS = _numbers(2, 5, 8)
IDS = torch.tensor([[4, 7, 1, 9, 3], [2, 2, 11, 5, 6]])
TEXTS = ["WIN a free prize now", "See you at lunch"]
STEPS = {"feature_mask": torch.arange(5)[:, None]}  # one step of time is one feature


class OverVectors(nn.Module):
    """A network of Hugging Face on the vectors of its tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, vectors: Tensor) -> Any:
        return self.model(inputs_embeds=vectors)


class Last(OverVectors):
    """The same, asked for what comes next."""

    def forward(self, vectors: Tensor) -> Tensor:
        return self.model(inputs_embeds=vectors).logits[:, -1]


def _steps_last() -> Kind:
    """The positions of a sequence are its steps of time, if the channels are said to come last."""
    model, twin = _made(lambda: Recurrent(nn.LSTM)), _made(lambda: Recurrent(nn.LSTM)).eval()
    options = {"background": _numbers(4, 5, 8, seed=2), "channel_axis": -1, **STEPS}
    answer = lambda rows: twin(rows.mT)  # noqa: E731
    return Kind("LSTM, channel_axis=-1", model, VECTORS, [2, 0], options, answer, twin, last=True)


class Recurrent(nn.Module):
    """(N, T, F) -> (N, 3)."""

    def __init__(self, cell: Any = nn.GRU) -> None:
        super().__init__()
        self.cell, self.fc = cell(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.cell(x)[0][:, -1])


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=16, intermediate_size=16, max_position_embeddings=8, num_labels=3, **sizes
    )
    return BertForSequenceClassification(config)


def _gpt() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=2, n_head=2))


def _ids(name: str, make: Callable[[], nn.Module]) -> Kind:
    return Kind(name, _made(make), IDS, [2, 0])


def _bert_vectors() -> Kind:
    twin = _made(lambda: OverVectors(_bert())).eval()
    return _torch(
        "BERT, on vectors", lambda: OverVectors(_bert()), VECTORS, [2, 0], options=STEPS,
        answer=lambda rows: twin.model(inputs_embeds=rows).logits,
    )  # fmt: skip


def _gpt_vectors() -> Kind:
    kind = _torch("GPT-2, on vectors", lambda: OverVectors(_gpt()), VECTORS, [2, 0])
    return Kind(kind.name, kind.model, kind.x, kind.target, kind.options)


def _sms() -> Kind:
    from xailab.models import sms_gru

    return Kind("sms_gru, on texts", sms_gru(), TEXTS, [1, 0])


def _text_classifier() -> Kind:
    """Of Hugging Face, as it is brought: words are cut into pieces, and special tokens added."""
    from tests.classifiers import made
    from xailab.models import text_classifier

    name = "BERT, text_classifier"
    return Kind(name, text_classifier(*made("BERT")), TEXTS, [1, 0], {"baseline": "mask"})


def free_and_lunch(texts: list[str]) -> np.ndarray:
    """A function of texts: (N, 2)."""
    free = np.array([3.0 * ("free" in t) - 2.0 * ("you" in t and "See" in t) for t in texts])
    return np.stack([-free, free], 1)


# ---- tables --------------------------------------------------------------------------------------

NAMES = ["age", "income", "debt", "years"]
TABLE = pd.DataFrame(_numbers(60, 4, seed=5).numpy(), columns=NAMES)
GROUPS = [[0, 2], [1, 3]]  # of columns that belong together
CLASSES = (TABLE["age"] * TABLE["income"] > 0).astype(int) + (TABLE["debt"] > 0.7)
AMOUNTS = TABLE["age"] * TABLE["income"] - TABLE["debt"]


def _estimator(name: str, model: Any, y: Any, target: Any) -> Kind:
    model = model.fit(TABLE, y)
    ask = model.predict_proba if hasattr(model, "predict_proba") else model.predict

    def answer(rows: Tensor) -> Tensor:
        return torch.as_tensor(ask(pd.DataFrame(rows.numpy(), columns=NAMES)))

    options = {"background": TABLE[10:16], "groups": GROUPS}
    return Kind(name, model, TABLE[:2], target, options, answer, fitted=TABLE)


def _array_function() -> Kind:
    def ask(rows: np.ndarray) -> np.ndarray:
        return np.stack([rows[:, 0] * rows[:, 1], np.sin(rows[:, 2]) - rows[:, 3]], 1)

    x, background = TABLE[:2].to_numpy(), TABLE[10:16].to_numpy()
    answer = lambda rows: torch.as_tensor(ask(rows.numpy()))  # noqa: E731
    options = {"background": background, "groups": GROUPS}
    return Kind("function of arrays (table)", ask, x, [1, 0], options, answer)


ROWS = torch.as_tensor(TABLE[:2].to_numpy(copy=True))


class Functional(nn.Module):
    """The same with its ReLU called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.relu = nn.Linear(4, 6), nn.Linear(6, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)) + self.relu(self.first(-x)))


def _mlp(outputs: int, activation: Any = nn.ReLU) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6), activation(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, outputs)
    )


MAKERS: dict[str, dict[str, Callable[[], Kind]]] = {
    "Pictures": {
        "plain CNN": lambda: _torch("plain CNN", _plain, PICTURES, [2, 0], layer="5"),
        "CNN with skips": lambda: _torch("CNN with skips", Skips, PICTURES, [2, 0], layer="maps"),
        "ResNet (timm)": lambda: _torch(
            "ResNet (timm)", _timm_resnet, _numbers(2, 3, 40, 40), [2, 0], layer="layer4",
            options=QUARTERS,
        ),
        "ShuffleNet (torchvision)": lambda: _torch(
            "ShuffleNet (torchvision)", _shuffle, _numbers(2, 3, 40, 40), [2, 0], layer="conv5",
            options=QUARTERS,
        ),
        "ViT (torchvision)": lambda: _torch(
            "ViT (torchvision)", _vit, PICTURES, [2, 0], layout=_class_token_apart,
            layer="encoder.layers.encoder_layer_1.ln_1",
        ),
        "ViT (timm)": lambda: _torch(
            "ViT (timm)", _timm_vit, PICTURES, [2, 0], layout=_class_token_apart,
            layer="blocks.1.norm1",
        ),
        "ViT, layer= and reshape=": lambda: _torch(
            "ViT, layer= and reshape=", _timm_vit, PICTURES, [2, 0], layer="blocks.1.norm1",
            layout=_class_token_apart,
            options={"layer": "blocks.1.norm1", "reshape": _to_maps},
        ),
        "Swin (torchvision)": lambda: _torch(
            "Swin (torchvision)", _swin, PICTURES, [2, 0], layer="permute"
        ),
        "Swin, layer=": lambda: _torch(
            "Swin, layer=", _swin, PICTURES, [2, 0], layer="norm", options={"layer": "norm"},
            layout=lambda maps: torch.stack([maps[..., k] for k in range(maps.shape[3])], 1),
        ),
        "Keras CNN": _keras,
        "CNN on channels last": _channels_last,
        "function of arrays (pictures)": _black_box,
        "segmentation": _segmentation,
        "segmentation, wrapped": _segmentation_wrapped,
        "two inputs": _two,
        "two inputs, wrapped": _two_wrapped,
    },
    "Sequences and texts": {
        "BERT, on ids": lambda: _ids("BERT, on ids", _bert),
        "BERT, on vectors": _bert_vectors,
        "GPT-2, on ids": lambda: _ids("GPT-2, on ids", _gpt),
        "GPT-2, on vectors": _gpt_vectors,
        "GPT-2, last token": lambda: _torch(
            "GPT-2, last token", lambda: Last(_gpt()), VECTORS, [2, 0], options=STEPS
        ),
        "GRU": lambda: _torch("GRU", Recurrent, VECTORS, [2, 0], options=STEPS),
        "LSTM": lambda: _torch("LSTM", lambda: Recurrent(nn.LSTM), VECTORS, [2, 0]),
        "LSTM, channel_axis=-1": _steps_last,
        "sms_gru, on texts": _sms,
        "BERT, text_classifier": _text_classifier,
        "function of texts": lambda: Kind("function of texts", free_and_lunch, TEXTS, [1, 0]),
    },
    "Tables": {
        "MLP": lambda: _torch("MLP", lambda: _mlp(3), ROWS, [2, 0], options={"groups": GROUPS}),
        "MLP, ReLU as a function": lambda: _torch(
            "MLP, ReLU as a function", Functional, ROWS, [2, 0], options={"groups": GROUPS}
        ),
        "one-logit network": lambda: _torch("one-logit network", lambda: _mlp(1, nn.GELU), ROWS, None),  # noqa: E501
        "random forest": lambda: _estimator(
            "random forest", RandomForestClassifier(5, max_depth=3, random_state=0), CLASSES, [2, 0]
        ),
        "gradient boosting": lambda: _estimator(
            "gradient boosting", GradientBoostingRegressor(n_estimators=8, random_state=0), AMOUNTS, None  # noqa: E501
        ),
        "decision tree": lambda: _estimator(
            "decision tree", DecisionTreeClassifier(max_depth=4, random_state=0), CLASSES, [2, 0]
        ),
        "logistic regression": lambda: _estimator(
            "logistic regression", LogisticRegression(), CLASSES > 0, [1, 0]
        ),
        "ridge regression": lambda: _estimator("ridge regression", Ridge(), AMOUNTS, None),
        "function of arrays (table)": _array_function,
    },
}  # fmt: skip
NAMED = {name: make for group in MAKERS.values() for name, make in group.items()}


@cache
def kind(name: str) -> Kind:
    """Make a kind once; KeyError for a name that is not one of `NAMED`."""
    return NAMED[name]()


def installed(name: str) -> bool:
    """Tell whether what a kind is made with is there: TensorFlow has no build for every Python."""
    return "Keras" not in name or find_spec("tensorflow") is not None
