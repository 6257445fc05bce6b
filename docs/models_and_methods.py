"""Write which method can be asked about which kind of model: docs/models_and_methods.md.

Every cell is asked and compared with an oracle, by the code that the tests run:

    python -m docs.models_and_methods
"""

from pathlib import Path

from tests.cells import METHODS, REASONS, RIGHT, cell
from tests.kinds import MAKERS, NAMED, installed
from xailab.core.registry import Card

PAGE = Path(__file__).resolve().parent / "models_and_methods.md"

_HEAD = """\
# Which method for which model

Made by `python -m docs.models_and_methods`; a test compares. Each method of `xailab.methods()` was
asked about a small model of each kind, through `xailab.explain`.
**right** means: the answer is that of a second, slow program written from the method's definition
(`tests/oracles.py`). Everything else is the short reason of a refusal: an error that says in full,
as below the tables, what came and what to do instead. There is no third kind of cell. The models
are those of `tests/kinds.py`; where one is "wrapped", it is the kind before it in a function of one
argument that gives one number for each class.
"""
_NEEDS = {
    "layer": "a layer with positions",
    "gradient": "gradients",
    "relu": "ReLUs as modules",
    "gap": "global average pooling before a linear classifier",
    "known": "only operations that a rule is known for",
    "background": "`background=`",
    "window": "a window",
    "masks": "a number of masks",
    "few": "few features, or groups of them",
}
_TAKES = {
    "model": "a model of tensors",
    "predict": "any function of arrays or texts",
    "tree": "scikit-learn's trees, forests and boosting",
    "linear": "a linear scikit-learn model",
    "tokens": "a network on words",
}
_PROMISES = {
    "": "no sum",
    "baseline": "the sum is the change of the score from the baseline",
    "background": "the sum is the change of the score from its mean over the background",
    "rows": "the sum is the change of the answer from its mean over training rows or a background",
}


def text() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *(_table(group) for group in MAKERS), _refusals(), _cards()])


def read(page: str) -> dict[tuple[str, str], str]:
    """Return the cells that a page holds: (kind, method) -> what became of it."""
    cells, kinds = {}, []
    for line in page.partition("\n## What")[0].splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if line.startswith("| method"):
            kinds = parts[1:]
        elif line.startswith("| `"):
            cells |= {(kind, parts[0].strip("`")): said for kind, said in zip(kinds, parts[1:])}  # noqa: B905
    return cells


def _table(group: str) -> str:
    kinds = [kind for kind in MAKERS[group] if installed(kind)]
    rows = [
        f"| `{name}` | " + " | ".join(_cell(kind, name) for kind in kinds) + " |"
        for name in sorted(METHODS)
    ]
    head = [f"| method | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    return "\n".join([f"## {group}\n", *head, *rows, ""])


def _cell(kind: str, name: str) -> str:
    said = cell(kind, name).said
    return "**right**" if said == RIGHT else said


def _refusals() -> str:
    """Say every short reason in full, as it was said first."""
    found: dict[str, str] = {}
    for kind in filter(installed, NAMED):
        for name in sorted(METHODS):
            one = cell(kind, name)
            found.setdefault(one.said, f"{one.message} ({kind})")
    rows = [f"| {said} | {found[said]} |".replace("\n", " ") for said in REASONS if said in found]
    head = "| in short | in full, of one kind |\n|---|---|"
    return "\n".join(["## What the refusals say in full\n", head, *rows, ""])


def _cards() -> str:
    head = "| method | takes | of | units | promises | needs |\n|---|---|---|---|---|---|"
    rows = [_row(METHODS[name]) for name in sorted(METHODS)]
    return "\n".join(["## What the methods say of themselves\n", head, *rows, ""])


def _row(card: Card) -> str:
    of = " or ".join(f"a {kind}" for kind in sorted(card.kinds)) or "anything"
    needs = ", ".join(_NEEDS[need] for need in sorted(card.needs)) or "nothing"
    facts = (_TAKES[card.takes], of, card.units, _PROMISES[card.promises], needs)
    return f"| `{card.name}`: {card.title} | " + " | ".join(facts) + " |"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
    print(PAGE, "is written")
