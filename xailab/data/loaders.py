"""One door to all data sets: `load(name)`."""

from collections.abc import Callable
from functools import partial

from xailab.data import images, tables, texts, tone
from xailab.data.dataset import Dataset
from xailab.data.public import public
from xailab.data.registry import entry

_LOADERS: dict[str, Callable[[], Dataset]] = {
    "photos": images.photos,
    "skimage_photos": images.skimage_photos,
    "mnist5k": images.mnist5k,
    "digits": images.digits,
    "mnist": partial(public, "mnist"),
    "cifar10": partial(public, "cifar10"),
    "sms": texts.sms,
    "movies": texts.movies,
    "tones": tone.as_dataset,
    **tables.LOADERS,
}


def load(name: str) -> Dataset:
    """Load a data set by its name in the registry, fetching it first if it has to be fetched.

    Tables have `.X`: a float64 array (N, D) where every column is a number, otherwise a pandas
    DataFrame; `.names` are its columns. Image sets have `.images`, uint8; text sets `.texts`. `.y`
    holds int64 class numbers (`.classes[y[i]]` in words) or float64 values. `.card` says where it
    all came from.

    Raises:
        ValueError: no data set of that name (near names are listed), or it holds weights.
        ImportError: the package that carries the data is not installed.
        ConnectionError, OSError: it could not be fetched or stored.

    >>> load("iris")
    Dataset('iris': 150 rows of 4 columns; y: the species, 0 to 2)
    """
    if entry(name).kind == "weights":
        raise ValueError(f"{name!r} holds weights: its card says how to load them")
    return _LOADERS[name]()
