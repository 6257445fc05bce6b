"""Networks of torchvision and timm with random weights, none of which is as trivial as when new."""

from collections.abc import Callable
from functools import cache

import timm
import torch
import torchvision
from torch import Tensor, nn


def _bottlenecks() -> nn.Module:
    """ResNet-50 with one block of each kind."""
    return torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1] * 4, num_classes=10)


def _convnext() -> nn.Module:
    """ConvNeXt-tiny, narrower and with fewer blocks."""
    sizes = [(24, 48, 1), (48, 96, 2), (96, None, 1)]
    blocks = [torchvision.models.convnext.CNBlockConfig(*one) for one in sizes]
    return torchvision.models.ConvNeXt(blocks, num_classes=10)


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18 (torchvision)": lambda: torchvision.models.resnet18(num_classes=10),
    "ResNet-18 (timm)": lambda: timm.create_model("resnet18", num_classes=10),
    "bottlenecks (torchvision)": _bottlenecks,
    "DenseNet (torchvision)": lambda: torchvision.models.DenseNet(8, (2, 3, 2), 16, num_classes=10),
    "MobileNetV2 (torchvision)": lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25),  # noqa: E501
    "MobileNetV3 (torchvision)": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "MobileNetV3 (timm)": lambda: timm.create_model("mobilenetv3_small_050", num_classes=10),
    "ConvNeXt (torchvision)": _convnext,
    "ConvNeXt (timm)": lambda: timm.create_model("convnext_atto", num_classes=10),
    "ViT (torchvision)": lambda: torchvision.models.VisionTransformer(64, 16, 3, 4, 32, 64, num_classes=10),  # noqa: E501
    "DeiT (timm)": lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=64, depth=3, num_classes=10),  # noqa: E501
}  # fmt: skip


@cache
def network(name: str) -> nn.Module:
    """Make a network once, in evaluation mode.

    A new batch norm changes nothing, a new residual branch, bias or head is often 0.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MAKERS[name]()
        for key, weight in model.named_parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=1.2 / weight[0].numel() ** 0.5)
            elif key.endswith("bias"):
                nn.init.normal_(weight, std=0.1)
            else:
                nn.init.uniform_(weight, 0.5, 1.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.3, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def photo(n: int = 1) -> Tensor:
    """Return what they take, noise from 0 to 1."""
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(1))
