"""Every method on every known-answer set that it applies to.

    python -m benchmarks.scoreboard [METHOD ...]

Writes `benchmarks/scoreboard.csv`, a line for each method and set, in the columns of
`xailab.evaluate.scoreboard` but for the speed, which needs an idle machine (see attribution.py);
lines of methods that were not asked for stay. Black boxes get groups of pixels as their features:
superpixels for LIME, a grid of squares for the others.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from xailab.attribution import lime, occlusion, paths, relevance, sequences, shapley
from xailab.core import predictor
from xailab.core.files import write_atomically
from xailab.data import load
from xailab.evaluate.scoreboard import SETS, score

BOARD = Path(__file__).with_name("scoreboard.csv")
ROWS = {"marked_digits": 60, "tones": 60, "mosaics": 15}  # so many questions of each set
SLOW_ROWS = {"mosaics": 5}  # for methods that run hundreds of large pictures for each question
Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]

GRADIENTS = ["saliency", "input_x_gradient", "deconvnet", "guided_backprop", "smoothgrad"]
CAMS = ["cam", "grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam", "guided_grad_cam"]
QUICK = {*GRADIENTS, *CAMS} - {"smoothgrad", "score_cam"}


def grid(x: Tensor, cells: int) -> Tensor:
    """Number the squares of a grid laid over the pictures, (1, 1, H, W)."""
    rows, columns = (torch.arange(side) * cells // side for side in x.shape[2:])
    return (rows[:, None] * cells + columns)[None, None]


def window(x: Tensor) -> dict[str, int]:
    """Return windows of a quarter of a small picture's side, of a seventh of a photo's."""
    side = x.shape[2] // (7 if x.shape[2] > 200 else 4)
    return {"window": side, "stride": side // 2}


def against(background: Tensor, method: Callable[..., Tensor]) -> Explain:
    return lambda model, x, target: method(model, x, target, background=background)


def by_superpixels(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """LIME row by row: 50 superpixels, 300 samples, hidden ones black."""
    ask = predictor(model)
    pairs = zip(x.numpy(), target.tolist(), strict=True)
    maps = [lime.lime_image(ask, row, t, n_samples=300, hide=x.min().item()) for row, t in pairs]
    return torch.as_tensor(np.stack(maps)).to(x)


def by_squares(method: Callable[..., Any], cells: int, **options: Any) -> Explain:
    """A SHAP estimate of the squares of a grid, against the picture's darkest value."""

    def explain(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        ask, squares, hidden = predictor(model), grid(x, cells)[0, 0].numpy(), x.min().item()
        maps = []
        for row, t in zip(x.numpy(), target.tolist(), strict=True):

            def shown(players: Any, row: Any = row, t: int = t) -> Any:
                mask = players.astype(bool)[:, squares][:, None]
                return ask(np.where(mask, row, np.float32(hidden)))[:, t]

            players = np.ones(cells**2), np.zeros((1, cells**2))
            maps.append(method(shown, *players, **options)[squares][None])
        return torch.as_tensor(np.stack(maps)).to(x)

    return explain


def background(name: str, x: Tensor) -> Tensor:
    """Return ten inputs to compare with: without the mark, where that is the question."""
    if name == "marked_digits":
        return torch.as_tensor(load("mnist5k").images[:10])[:, None] / 255
    return x[torch.linspace(0, len(x) - 1, 10).long()]


def methods(name: str, x: Tensor) -> dict[str, str | Explain]:
    """Return what is scored on a set of such inputs, by the name in the table."""
    dark = x.min().item()
    ten = background(name, x)
    rules = {f"lrp_{rule}": {"rule": rule} for rule in ("epsilon", "gamma", "z_plus")}
    few = 3 if x.shape[2] > 200 else 4  # mosaics: 2^9 coalitions of large pictures are enough

    def with_options(method: Callable[..., Tensor], **options: Any) -> Explain:
        return lambda model, rows, target: method(model, rows, target, **options)

    by_name = {method: method for method in (*GRADIENTS, *CAMS)}
    sound = {"band_occlusion": with_options(band_map, baseline=dark)} if name == "tones" else {}
    return {
        **by_name,
        "integrated_gradients": with_options(paths.integrated_gradients, baseline=dark),
        "expected_gradients": against(ten, paths.expected_gradients),
        "deep_lift": with_options(relevance.deep_lift, baseline=dark),
        "deep_shap": against(ten, relevance.deep_shap),
        **{name: with_options(relevance.lrp, **rule) for name, rule in rules.items()},
        "occlusion": with_options(occlusion.occlusion, baseline=dark, **window(x)),
        "feature_ablation": with_options(
            occlusion.feature_ablation, feature_mask=grid(x, 7), baseline=dark
        ),
        "rise": with_options(occlusion.rise, n_masks=300, grid=7, p_keep=0.5),
        "lime_image": by_superpixels,
        "shapley_values": with_options(
            shapley.shapley_values, feature_mask=grid(x, 3), baseline=dark
        ),
        "kernel_shap": by_squares(shapley.kernel_shap, few, n_samples=500),
        "permutation_shap": by_squares(shapley.permutation_shap, few, n_permutations=8),
        **sound,
    }


def band_map(model: nn.Module, x: Tensor, target: Tensor, *, baseline: float) -> Tensor:
    return sequences.band_occlusion(model, x, target, baseline=baseline).map()


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
        found: Mapping[str, Any] = methods(name, SETS[name]().x)
        for method, how in found.items():
            if wanted and method not in wanted:
                continue
            try:
                asked = [how] if isinstance(how, str) else {method: how}
                rows = ROWS[name] if method in QUICK else SLOW_ROWS.get(name, ROWS[name])
                table = score(asked, [name], limit=rows).drop(columns="ms_per_row").round(4)
            except ValueError as error:
                print(f"{method} does not apply to {name}: {str(error)[:150]}", flush=True)
                continue
            print(table.to_string(header=False, index=False), flush=True)
            board = entered(board, table)
            write_atomically(BOARD, board.to_csv(index=False))


if __name__ == "__main__":
    main(sys.argv[1:])
