"""Which patch a token stands for: proved by a stimulus, in transformers of three libraries."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from tests.classifiers import transformers
from tests.snapshots import Snapshot
from xailab.core.places import followed
from xailab.core.tokens import Layout, last_layer, layout_of
from xailab.models import digit_vit

Made = tuple[nn.Module, tuple[int, ...]]
_DEEP = {"embed_dim": 16, "depth": 3, "num_heads": 2}
_HF = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 5}
_HF_VIT = {**_HF, "intermediate_size": 32, "image_size": 32, "patch_size": 8}


def of_timm(name: str, *sides: int, **sizes: Any) -> Callable[[], Made]:
    return lambda: (timm.create_model(name, num_classes=5, **sizes), (3, *sides))


def of_hugging_face(model: str, config: str, *sides: int, **sizes: Any) -> Callable[[], Made]:
    return lambda: (
        getattr(transformers, model)(getattr(transformers, config)(**sizes)), (3, *sides)
    )  # fmt: skip


def _swin() -> Made:
    sizes = ([4, 4], 12, [1, 1], [2, 2], [2, 2])
    return torchvision.models.SwinTransformer(*sizes, num_classes=5), (3, 32, 48)


def _swin_v2() -> Made:
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

    sizes = ([4, 4], 12, [1, 1], [2, 2], [2, 2])
    parts = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return torchvision.models.SwinTransformer(*sizes, num_classes=5, **parts), (3, 32, 48)


def _convnext() -> Made:
    blocks = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]
    return torchvision.models.ConvNeXt(blocks, num_classes=5), (3, 32, 48)


# name -> how it is made; its default layer; and how that is laid out
NETS: dict[str, tuple[Callable[[], Made], str, str]] = {
    "ViT (torchvision)": (
        lambda: (torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5),
                 (3, 32, 32)),
        "encoder.layers.encoder_layer_2.ln_1", "4 x 4 tokens",
    ),
    "Swin (torchvision)": (_swin, "permute", ""),
    "Swin v2 (torchvision)": (_swin_v2, "permute", ""),
    "ConvNeXt (torchvision)": (_convnext, "features", ""),
    "ViT (timm)": (
        of_timm("vit_tiny_patch16_224", 64, 96, img_size=(64, 96), **_DEEP),
        "blocks.2.norm1", "4 x 6 tokens",
    ),
    "ViT, mean of patches (timm)": (
        of_timm("vit_tiny_patch16_224", 64, 64, img_size=64, global_pool="avg", **_DEEP),
        "norm", "4 x 4 tokens",
    ),
    "DeiT, distilled (timm)": (
        of_timm("deit_tiny_distilled_patch16_224", 64, 64, img_size=64, **_DEEP),
        "blocks.2.norm1", "4 x 4 tokens",
    ),
    "ViT with registers (timm)": (
        of_timm("vit_small_patch14_reg4_dinov2", 56, 84, img_size=(56, 84), **_DEEP),
        "blocks.2.norm1", "4 x 6 tokens",
    ),
    "Swin (timm)": (
        of_timm("swin_tiny_patch4_window7_224", 64, 96, img_size=(64, 96), window_size=4,
                embed_dim=12, depths=(1, 2), num_heads=(2, 2)),
        "norm", "",
    ),
    "ConvNeXt (timm)": (
        of_timm("convnext_atto", 64, 96, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)), "norm_pre", "",
    ),
    "ViT (Hugging Face)": (
        of_hugging_face("ViTForImageClassification", "ViTConfig", 32, 32, **_HF_VIT),
        "vit.layers.1.layernorm_before", "4 x 4 tokens",
    ),
    "DeiT (Hugging Face)": (
        of_hugging_face("DeiTForImageClassification", "DeiTConfig", 32, 32, **_HF_VIT),
        "deit.layers.1.layernorm_before", "4 x 4 tokens",
    ),
    "Swin (Hugging Face)": (
        of_hugging_face("SwinForImageClassification", "SwinConfig", 32, 48, image_size=(32, 48),
                        patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[2, 2],
                        window_size=2, num_labels=5),
        "swin.layernorm", "4 x 6 tokens",
    ),
    "ConvNeXt (Hugging Face)": (
        of_hugging_face("ConvNextForImageClassification", "ConvNextConfig", 32, 48,
                        hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=5),
        "convnext.encoder.stages.1", "",
    ),
    "DINOv2 (Hugging Face)": (
        of_hugging_face("Dinov2ForImageClassification", "Dinov2Config", 32, 48, image_size=32,
                        patch_size=8, **_HF),
        "dinov2.layernorm", "4 x 6 tokens",
    ),
    "digit_vit": (lambda: (digit_vit(), (1, 28, 28)), "encoder.blocks.2.norm1", "7 x 7 tokens"),
}  # fmt: skip


@cache
def made(name: str) -> tuple[nn.Module, Tensor]:
    """Make a network with random weights, and a picture for it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, shape = NETS[name][0]()
        if name != "digit_vit":
            for value in model.parameters():
                nn.init.normal_(value, std=0.3 if value.ndim > 1 else 0.1)
        return model.eval(), torch.rand(1, *shape)


def known(name: str) -> dict[str, Layout]:
    """Return all layers whose layout is known."""
    model, x = made(name)
    found = {}
    for one in followed(model, x):
        try:
            found[one.name] = layout_of(model, one.name, x)
        except ValueError as error:
            assert "not known to be maps" in str(error)  # noqa: PT017
    return found


def outputs(model: nn.Module, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept[name] = output.clone()

    handles = [model.get_submodule(n).register_forward_hook(partial(keep, n)) for n in names]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return kept


@pytest.mark.parametrize("name", NETS)
def test_a_change_of_one_patch_is_seen_at_its_place(name: str) -> None:
    """By every layer whose layout is known; where windows overlap, at most so many places aside."""
    model, x = made(name)
    aside = 3 if "ConvNeXt" in name else 1 if "Swin" in name else 0  # its kernels are 7 x 7
    layouts = known(name)
    before = outputs(model, x, list(layouts))
    tokens = 0
    for layer, layout in layouts.items():
        maps = layout.maps(before[layer])
        (height, width), (tall, wide) = maps.shape[2:], x.shape[2:]
        if height * width < 4:
            continue
        tokens += layout.tokens is not None
        for row, column in ((0, width - 1), (height - 1, 0), (height // 2, width // 3)):
            changed = x.clone()
            rows = slice(row * tall // height, (row + 1) * tall // height)
            columns = slice(column * wide // width, (column + 1) * wide // width)
            changed[..., rows, columns] += 3
            now = layout.maps(outputs(model, changed, [layer])[layer])
            at = (now - maps)[0].square().sum(0).flatten().argmax().item()
            off = max(abs(at // width - row), abs(at % width - column))
            assert off <= aside, layer
    assert tokens >= 4 or NETS[name][2] == ""


@pytest.mark.parametrize("name", NETS)
def test_the_layer_to_explain_through(name: str) -> None:
    model, x = made(name)
    before = Snapshot(model, x)
    layer = last_layer(model, x)
    before.check()
    assert layer == NETS[name][1]
    assert str(layout_of(model, layer, x)) == NETS[name][2]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("ViT (timm)", "blocks.1.attn"),
        ("ViT (timm)", "blocks.1.attn.qkv"),
        ("ViT (timm)", "blocks.1.mlp.fc1"),
        ("ViT (timm)", "blocks.1.mlp.act"),
        ("ViT (torchvision)", "encoder.layers.encoder_layer_1.mlp.0"),
        ("Swin (torchvision)", "features.1.0.mlp.0"),
        ("ViT (Hugging Face)", "vit.layers.0.attention.q_proj"),
        ("digit_vit", "encoder.blocks.1.attention.softmax"),
    ],
)
def test_what_is_no_map_is_refused(name: str, layer: str) -> None:
    """Attention, its queries and keys, and what is hidden in an MLP."""
    model, x = made(name)
    with pytest.raises(ValueError, match=r"not known to be maps.*reshape="):
        layout_of(model, layer, x)


def test_a_bias_of_positions_is_no_map() -> None:
    """It has the shape of tokens, and nothing of the picture."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.table = nn.Conv2d(1, 4, 4, 4), nn.Embedding(4, 4)
            self.norm, self.fc = nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.cut(x).flatten(2).mT + self.table(torch.arange(4)[None])
            return self.fc(self.norm(tokens).mean(1))

    model, x = Positions(), torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match="not known to be maps"):
        layout_of(model, "table", x)
    assert str(layout_of(model, "norm", x)) == "2 x 2 tokens"


def test_tokens_in_another_order_are_put_right() -> None:
    """A network that shuffles its tokens, with a class token in between."""

    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.norm, self.fc = nn.Conv2d(1, 3, 2, 2), nn.LayerNorm(3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.cut(x).flatten(2).mT[:, [4, 0, 5, 2, 1, 3]]
            between = tokens.new_zeros(len(x), 1, 3)
            return self.fc(self.norm(torch.cat([tokens[:, :2], between, tokens[:, 2:]], 1)).mean(1))

    layout = layout_of(Shuffled(), "norm", torch.rand(1, 1, 4, 6))
    assert layout.tokens is not None
    assert layout.tokens.tolist() == [1, 5, 4, 6, 0, 3]
    assert layout.sides == (2, 3)


def test_tokens_that_are_mixtures_are_refused() -> None:
    """Each row of patches averaged into one token: no grid is left."""

    class Averaged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.mix = nn.Conv2d(1, 3, 2, 2), nn.Linear(6, 6, bias=False)
            self.norm, self.fc = nn.LayerNorm(3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.mix(self.cut(x).flatten(2)).mT
            return self.fc(self.norm(tokens).mean(1))

    with pytest.raises(ValueError, match="not known to be maps"):
        layout_of(Averaged(), "norm", torch.rand(1, 1, 4, 6))
