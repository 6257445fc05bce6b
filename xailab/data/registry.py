"""What data sets there are: the registry file and the cards, read and checked."""

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One data set of `datasets/registry.toml`.

    Attributes:
        name: what `load(name)` takes.
        kind: "images", "table", "texts" or "weights".
        title: one line for people.
        source: "archive" (a pinned package archive), "dependency" (inside an installed package)
            or "torchvision" (its download).
        package: the distribution that carries it, as pip names it.
        version: pinned version of an archive; "" for the others.
        file: file name of the archive.
        sha256: hash of the archive, hexadecimal.
        member: path inside the archive, with `*` wildcards.
        licence: of the data, not of the package around it.
        rows: number of examples that `load` returns; 0 for weights.
        classes: number of classes; 0 for a regression target or none.
        size: bytes to fetch; 0 for a dependency.
        lessons: the lessons that load it, without their numbers.
        selection: numbers of a documented subset (photos: the well-classified ones).
    """

    name: str
    kind: str
    title: str
    source: str
    package: str
    licence: str
    version: str = ""
    file: str = ""
    sha256: str = ""
    member: str = ""
    rows: int = 0
    classes: int = 0
    size: int = 0
    lessons: tuple[str, ...] = ()
    selection: tuple[int, ...] = ()

    @property
    def needed(self) -> bool:
        """Whether the set-up fetches it: an archive that a lesson loads."""
        return self.source == "archive" and bool(self.lessons)


def folder() -> Path:
    """Return the folder of `registry.toml` and `cards/`: the repository's, or the wheel's copy.

    Raises:
        FileNotFoundError: neither is there (a broken installation).
    """
    here = Path(__file__).resolve()
    places = (here.parents[2] / "datasets", here.parent / "_datasets")
    for place in places:
        if (place / "registry.toml").is_file():
            return place
    raise FileNotFoundError(f"no registry.toml in {places[0]} or {places[1]}: reinstall xailab")


@cache
def _registry() -> dict[str, Entry]:
    tables = tomllib.loads((folder() / "registry.toml").read_text(encoding="utf-8"))
    return {name: _entry(name, fields) for name, fields in tables.items()}


def _entry(name: str, fields: dict) -> Entry:
    tuples = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    return Entry(name=name, **(fields | tuples))


def entries() -> list[Entry]:
    """Return every data set, in the order of the registry.

    >>> [entry.name for entry in entries()][:2]
    ['efficientnet_lite0', 'photos']
    """
    return list(_registry().values())


def entry(name: str) -> Entry:
    """Return the registry entry of one data set.

    Raises:
        ValueError: there is none of that name; near names are listed.

    >>> entry("photos").rows
    20
    """
    known = _registry()
    if name in known:
        return known[name]
    near = get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"no data set named {name!r}; {hint}")


def card(name: str) -> str:
    """Return the card of a data set, Markdown: what, where from, licence, size, known problems.

    Raises:
        ValueError: no data set of that name.

    >>> card("photos").splitlines()[0]
    '# photos'
    """
    return (folder() / "cards" / f"{entry(name).name}.md").read_text(encoding="utf-8")
