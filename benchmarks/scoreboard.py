"""Every method on every known-answer set that it applies to.

    python -m benchmarks.scoreboard [METHOD ...]

Writes `benchmarks/scoreboard.csv`, a line for each method and set, in the columns of
`xailab.evaluate.scoreboard` but for the speed, which needs an idle machine (see attribution.py);
lines of methods that were not asked for stay. What a method needs (windows, squares of a grid,
superpixels) is drawn from the pictures, as its card says; what is another choice here stands below.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import xailab
from xailab.core.files import write_atomically
from xailab.core.registry import METHODS
from xailab.core.subjects import subject
from xailab.data import load
from xailab.evaluate.scoreboard import SETS, score

BOARD = Path(__file__).with_name("scoreboard.csv")
ROWS = {"marked_digits": 60, "tones": 60, "mosaics": 15}  # so many questions of each set
SLOW_ROWS = {"mosaics": 5}  # for methods that run over 100 large pictures for each question
RULES = ("epsilon", "gamma", "z_plus")  # of LRP, a line each
SAMPLES = {"lime_image": 300, "kernel_shap": 500}


def background(name: str, x: Tensor) -> Tensor:
    """Return ten inputs to compare with: without the mark, where that is the question."""
    if name == "marked_digits":
        return torch.as_tensor(load("mnist5k").images[:10])[:, None] / 255
    return x[torch.linspace(0, len(x) - 1, 10).long()]


def options(name: str, method: str, x: Tensor) -> dict[str, Any]:
    """Return what a method is told about a set: what counts as nothing, and how many samples."""
    known = METHODS[method].options
    told: dict[str, Any] = {"baseline": x.min().item()} if method not in ("rise",) else {}
    told |= (
        {"background": background(name, x)} if method.endswith(("gradients", "deep_shap")) else {}
    )
    told |= {"n_samples": SAMPLES[method]} if method in SAMPLES else {}
    return {option: value for option, value in told.items() if option in known}


def lines(name: str, method: str, x: Tensor) -> dict[str, dict[str, Any]]:
    """Return the lines of a method on a set: the name of each, and its options."""
    told = options(name, method, x)
    if method == "lrp":
        return {f"lrp_{rule}": {"rule": rule} for rule in RULES}
    return {method: told}


def questions(name: str, method: str, x: Tensor, told: dict[str, Any]) -> int:
    """Return how many questions of a set a method is asked: fewer where each runs many pictures."""
    card, of = METHODS[method], subject(SETS[name]().model, x[:1])
    runs = card.rows(of, card.options_for(of, told))
    return SLOW_ROWS.get(name, ROWS[name]) if runs > 50 else ROWS[name]


def entered(board: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the board with new lines in the place of older ones."""
    both = pd.concat([board, table]) if len(board) else table
    return both.drop_duplicates(["method", "dataset"], keep="last").sort_values(
        ["dataset", "mass"], ascending=[True, False]
    )


def main(wanted: list[str]) -> None:
    """Score, print and write line by line, so that an interruption loses one line."""
    board = pd.read_csv(BOARD) if BOARD.exists() else pd.DataFrame()
    for name in ROWS:
        x = SETS[name]().x
        for method in xailab.methods():
            for line, told in lines(name, method, x).items():
                if wanted and line not in wanted:
                    continue
                try:
                    table = score([method], [name], limit=questions(name, method, x, told), **told)
                except ValueError as error:
                    print(f"{line} does not apply to {name}: {str(error)[:150]}", flush=True)
                    continue
                board = entered(
                    board, table.assign(method=line).drop(columns="ms_per_row").round(4)
                )
                write_atomically(BOARD, board.to_csv(index=False))
                print(table.to_string(header=False, index=False), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
