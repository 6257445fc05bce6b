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

from xailab.core.checks import check_positive
from xailab.core.outputs import logits_of, probabilities_of
from xailab.core.rgb import to_rgb
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
        """Return the k likeliest classes of one image: index, name, probability.

        Raises:
            TypeError: k is not an integer.
            ValueError: several images, k out of 1 to the number of classes.
        """
        if len(x) != 1:
            raise ValueError(f"one image at a time, got {len(x)}")
        if check_positive("k", k) > len(self.classes):
            raise ValueError(f"k is {k}, there are {len(self.classes)} classes")
        with frozen(self.model), torch.no_grad():
            likeliest = probabilities_of(logits_of(self.model(x)))[0].topk(int(k))
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
        image: a PIL image, or uint8 (H, W, 3), as `xailab.core.rgb.to_rgb` takes it: upright,
            gray as three equal channels, what is transparent white.

    Returns:
        (1, 3, 224, 224) float32.

    Raises:
        TypeError: neither of the two, or an array that is neither uint8 nor uint16.
        ValueError: an array of another shape, a mode of Pillow whose range is not known.

    >>> preprocess(np.zeros((300, 400, 3), dtype=np.uint8)).shape
    torch.Size([1, 3, 224, 224])
    """
    photo = Image.fromarray(to_rgb(image))
    small = transforms.resize(photo, _SHORT_SIDE, InterpolationMode.BICUBIC)
    return normalize(np.array(transforms.center_crop(small, _SIDE)))


def normalize(images: np.ndarray) -> Tensor:
    """Turn uint8 (H, W, 3) or (N, H, W, 3) into (N, 3, H, W) floats, with no resizing.

    Files and other kinds of pictures go through `xailab.core.rgb.to_rgb` first.

    Raises:
        TypeError: not a uint8 array.
        ValueError: an array of another shape, or an empty one.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        came = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"images must be a uint8 array with values 0..255, got {came}")
    if images.ndim not in (3, 4) or images.shape[-1] != 3 or images.size == 0:
        raise ValueError(f"images must be (H, W, 3) or (N, H, W, 3), got {images.shape}")
    rows = torch.tensor(np.ascontiguousarray(images)).reshape(-1, *images.shape[-3:])
    return (rows.permute(0, 3, 1, 2).float() - 127) / 128


def unnormalize(x: Tensor) -> np.ndarray:
    """Undo `normalize`: (..., 3, H, W) floats to uint8 (..., H, W, 3).

    Raises:
        TypeError: not a tensor of floats.
        ValueError: another shape, NaN or infinity.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        came = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a tensor of floats, got {came}")
    if x.ndim < 3 or x.shape[-3] != 3:
        raise ValueError(f"x must be (..., 3, H, W), got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError("x holds values that are NaN or infinite")
    pixels = x.detach().cpu().double() * 128 + 127  # in double: half precision would round them
    return pixels.round().clamp(0, 255).to(torch.uint8).movedim(-3, -1).numpy()


@cache
def _class_names() -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_descriptions())
