"""CAMs of transformers where the answer is known: one cell of noise is marked, and decides."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer

import xailab
from xailab.attribution import grad_cam
from xailab.evaluate import pointing_game

SIDE = 32
Planted = tuple[Tensor, Tensor, Tensor]
_SMALL: dict[str, Any] = {
    "img_size": SIDE, "patch_size": 4, "in_chans": 1, "num_classes": 3,
    "embed_dim": 48, "num_heads": 4, "mlp_ratio": 2,
}  # fmt: skip
_MEAN: dict[str, Any] = {"class_token": False, "global_pool": "avg"}


def planted(n: int, seed: int, cell: int, height: float) -> Planted:
    """Noise without a mark (class 0), or with stripes that lie (1) or stand (2) in one cell."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.randn(n, 1, SIDE, SIDE, generator=generator)
    y = torch.randint(3, (n,), generator=generator)
    corners = torch.randint(SIDE // cell, (n, 2), generator=generator) * cell
    marks = torch.zeros(3, cell, cell)
    marks[1, ::2], marks[2, :, ::2] = height, height
    truth = torch.zeros(n, SIDE, SIDE, dtype=torch.bool)
    for i, (row, column) in enumerate(corners.tolist()):
        at = slice(row, row + cell), slice(column, column + cell)
        x[i, 0][at] += marks[y[i]]
        truth[i][at] = True
    return x, y, truth


def swin() -> nn.Module:
    model = SwinTransformer([4, 4], 24, [1, 1], [2, 2], [2, 2], mlp_ratio=2.0, num_classes=3)
    model.features[0][0] = nn.Conv2d(1, 24, 4, 4)
    return model


# how it is made, side of the cell (one place of the layer), height of the mark, layer
NETS: dict[str, tuple[Callable[[], nn.Module], int, float, str]] = {
    "class token": (
        lambda: VisionTransformer(**_SMALL, depth=1, final_norm=False), 4, 3.0, "blocks.0.norm1",
    ),
    "mean of patches": (
        lambda: VisionTransformer(**_SMALL, **_MEAN, depth=1, attn_drop_rate=0.9), 4, 4.0, "norm",
    ),
    "Swin": (swin, 8, 2.0, "permute"),
    "two blocks": (
        lambda: VisionTransformer(**_SMALL, depth=2, final_norm=False), 4, 3.0, "blocks.1.norm1",
    ),
}  # fmt: skip


@cache
def trained(name: str) -> nn.Module:
    make, cell, height, _ = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
        for step in range(200):
            x, y, _ = planted(64, 10 + step, cell, height)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval()


def marked(name: str) -> Planted:
    """Return pictures that hold a mark, all of them told right."""
    x, y, truth = planted(120, 1, *NETS[name][1:3])
    model = trained(name)
    with torch.no_grad():
        assert (model(x).argmax(1) == y).all()
    return x[y > 0], y[y > 0], truth[y > 0]


def pointing(maps: Tensor, truth: Tensor) -> float:
    return pointing_game(maps[:, 0], truth).mean().item()


@pytest.mark.parametrize("name", ["class token", "mean of patches", "Swin"])
def test_the_marked_cell_is_found(name: str) -> None:
    x, y, truth = marked(name)
    found = xailab.explain(trained(name), x, y, methods=["grad_cam", "hires_cam"])
    assert {one.layer for one in found} == {NETS[name][3]}
    for method in ("grad_cam", "hires_cam"):
        assert pointing(found[method], truth) >= 0.95, method


@pytest.mark.parametrize("name", ["class token", "mean of patches"])
def test_tokens_laid_out_in_another_order_are_chance(name: str) -> None:
    """64 places, of which one is right: the number of hits says whether the order is."""
    x, y, truth = marked(name)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))

    def shuffled(tokens: Tensor) -> Tensor:
        return tokens[:, -64:][:, order].mT.unflatten(2, (8, 8))

    maps = grad_cam(trained(name), x, y, layer=NETS[name][3], reshape=shuffled)
    assert pointing(maps, truth) < 0.1


def test_tokens_that_have_read_each_other_stand_for_other_patches() -> None:
    """Where it lies: the first of two blocks tells all tokens of the mark.

    The class token may read it from any of them in the second block, so the evidence lies
    elsewhere there. What asks about the picture itself still finds the mark.
    """
    x, y, truth = marked("two blocks")
    methods = ["grad_cam", "occlusion"]
    found = xailab.explain(
        trained("two blocks"), x[:30], y[:30], methods=methods, window=4, stride=4
    )
    assert found.table().loc["grad_cam", "layer"] == "blocks.1.norm1, 8 x 8 tokens"
    assert pointing(found["grad_cam"], truth[:30]) < 0.3
    assert pointing(found["occlusion"].sum(1, keepdim=True), truth[:30]) >= 0.95
