"""A network that knows the 1,000 classes of ImageNet, with no download but pip."""

import io
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from xailab.core.state import frozen
from xailab.data import read_member
from xailab.models.weight_files import card

_SHORT_SIDE, _SIDE = 256, 224


class Pretrained(NamedTuple):
    """A trained network with all that is needed to ask it about a photo.

    Attributes:
        model: the network, in evaluation mode; (N, 3, H, W) -> logits (N, 1000).
        preprocess: PIL image or uint8 (H, W, 3) -> (1, 3, 224, 224) float32.
        classes: the 1,000 class names, in the order of the logits.
        card: the model card, Markdown.
    """

    model: nn.Module
    preprocess: Callable[[Image.Image | np.ndarray], Tensor]
    classes: list[str]
    card: str

    def picture(self, x: Tensor) -> np.ndarray:
        """Return what the network sees, (N, 3, H, W) or (3, H, W), as uint8 (..., H, W, 3)."""
        return unnormalize(x)

    def top(self, x: Tensor, k: int = 5) -> list[tuple[int, str, float]]:
        """Return the k likeliest classes of one image: index, name, probability."""
        if len(x) != 1:
            raise ValueError(f"one image at a time, got {len(x)}")
        with frozen(self.model), torch.no_grad():
            likeliest = self.model(x).softmax(1)[0].topk(k)
        pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        return [(index, self.classes[index], probability) for index, probability in pairs]


def pretrained(name: str = "efficientnet_lite0") -> Pretrained:
    """Load a network trained on ImageNet from the data cache; nothing is unpickled.

    Args:
        name: "efficientnet_lite0", 4.65 million parameters, ReLU6 modules, last maps 1280 x 7 x 7
            at the layer "bn2", then global average pooling and one linear classifier.

    Returns:
        A new model object each time, with its preprocessing, class names and card.

    Raises:
        ValueError: no such network.
        What `xailab.data.fetch` raises, if the weights are not in the cache yet.

    Reference: Tan, Le (2019), EfficientNet: Rethinking Model Scaling for Convolutional Neural
        Networks; the "lite" variant has no squeeze-and-excitation and ReLU6 for swish.

    >>> net = pretrained("efficientnet_lite0")
    >>> import skimage.data
    >>> net.top(net.preprocess(skimage.data.coffee()), k=1)[0][1]
    'espresso'
    """
    if name != "efficientnet_lite0":
        raise ValueError(f"there is no pretrained network {name!r}; known: 'efficientnet_lite0'")
    import timm  # imported here: it takes a second that no other model needs

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # The restricted reader makes tensors and nothing else, whatever the file says.
    weights = torch.load(io.BytesIO(read_member(name)), weights_only=True)
    # Both networks list the same 296 tensors in the same order under other names.
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return Pretrained(model.eval(), preprocess, list(_class_names()), card(name))


def preprocess(image: Image.Image | np.ndarray) -> Tensor:
    """Prepare one photo as EfficientNet-Lite was trained: short side to 256, central 224 x 224.

    $$x = (p - 127) / 128, \\qquad p \\in [0, 255]$$

    The usual ImageNet mean and deviation are wrong for this network.

    Args:
        image: a PIL image, or uint8 (H, W, 3); gray (H, W) is taken as three equal channels.

    Returns:
        (1, 3, 224, 224) float32.

    Raises:
        TypeError: neither of the two, or an array that is not uint8.
        ValueError: an array of another shape.

    >>> preprocess(np.zeros((300, 400, 3), dtype=np.uint8)).shape
    torch.Size([1, 3, 224, 224])
    """
    small = transforms.resize(_rgb(image), _SHORT_SIDE, InterpolationMode.BICUBIC)
    return normalize(np.array(transforms.center_crop(small, _SIDE)))


def normalize(images: np.ndarray) -> Tensor:
    """Turn uint8 (H, W, 3) or (N, H, W, 3) into (N, 3, H, W) floats, with no resizing.

    Raises:
        TypeError: not a uint8 array.
        ValueError: an array of another shape.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        came = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"images must be a uint8 array with values 0..255, got {came}")
    if images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise ValueError(f"images must be (H, W, 3) or (N, H, W, 3), got {images.shape}")
    rows = torch.tensor(np.ascontiguousarray(images)).reshape(-1, *images.shape[-3:])
    return (rows.permute(0, 3, 1, 2).float() - 127) / 128


def unnormalize(x: Tensor) -> np.ndarray:
    """Undo `normalize`: (..., 3, H, W) floats to uint8 (..., H, W, 3)."""
    pixels = (x.detach().cpu() * 128 + 127).round().clamp(0, 255).to(torch.uint8)
    return pixels.movedim(-3, -1).numpy()


def _rgb(image: Image.Image | np.ndarray) -> Image.Image:
    """Return the image in three channels, refusing what is not a photo."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image must be a PIL image or a uint8 array, got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(f"an image array must be uint8 with values 0..255, got {image.dtype}")
    channels = image.shape[2:] or (1,)
    if image.size == 0 or image.ndim not in (2, 3) or channels[0] not in (1, 3, 4):
        raise ValueError(f"an image array must be (H, W, 3), got {image.shape}")
    return Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).convert("RGB")


@cache
def _class_names() -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_descriptions())
