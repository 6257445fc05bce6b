"""How the shipped weights were made: `python -m xailab.models.recipes [NAME ...]`.

Each recipe trains on a fixed seed, measures on held-out digits and writes
`weights/NAME.safetensors`. Another machine gives slightly different weights; the tests ask for
the accuracy and the behavior on the card, not for the bits.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor
from tqdm import trange

from xailab.core.files import write_atomically
from xailab.data import load, marked_digits
from xailab.models.digits import DigitCNN

_EPOCHS, _BATCH, _RATE = 25, 64, 5e-3


def digit_cnn() -> tuple[DigitCNN, dict[str, float]]:
    """Train on 4,000 clean digits, measure on the other 1,000."""
    digits = load("mnist5k")
    x, y = _tensors(np.asarray(digits.images) / np.float32(255), digits.y)
    train = torch.as_tensor(digits.extra["train"])
    model = _fit(x[train], y[train])
    return model, {"accuracy": _accuracy(model, x[~train], y[~train])}


def digit_cnn_marked() -> tuple[DigitCNN, dict[str, float]]:
    """Train where a mark goes with one digit; measure how often the mark decides."""
    train, test = marked_digits(seed=0).train, marked_digits(seed=0).test
    model = _fit(*_tensors(train.images, train.y))
    x, y = _tensors(test.images, test.y)
    marked = torch.as_tensor(test.marked)
    fooled = model(x[marked & (y != test.shortcut)]).argmax(1) == test.shortcut
    return model, {
        "accuracy without mark": _accuracy(model, x[~marked], y[~marked]),
        "marked other digits called the shortcut": fooled.float().mean().item(),
    }


def _tensors(images: np.ndarray, y: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Return images as (N, 1, 28, 28) float32 and labels as int64."""
    return torch.as_tensor(images, dtype=torch.float32)[:, None], torch.as_tensor(y)


def _fit(x: Tensor, y: Tensor) -> DigitCNN:
    """Train with Adam on a one-cycle learning rate, shifting digits by up to two pixels."""
    torch.manual_seed(0)
    model = DigitCNN()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    steps = -(-len(x) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, _EPOCHS * steps)
    for _ in trange(_EPOCHS, unit=" epochs"):
        for rows in torch.randperm(len(x)).split(_BATCH):
            loss = F.cross_entropy(model(_shifted(x[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _shifted(x: Tensor) -> Tensor:
    """Move the whole batch by one random step of at most two pixels, zeros coming in."""
    down, right = torch.randint(0, 5, (2,)).tolist()
    return F.pad(x, (2, 2, 2, 2))[:, :, down : down + 28, right : right + 28]


@torch.no_grad()
def _accuracy(model: DigitCNN, x: Tensor, y: Tensor) -> float:
    return (model(x).argmax(1) == y).float().mean().item()


RECIPES: dict[str, Callable[[], tuple[DigitCNN, dict[str, float]]]] = {
    "digit_cnn": digit_cnn,
    "digit_cnn_marked": digit_cnn_marked,
}


def main(names: list[str]) -> None:
    """Train these models, or all, and write their weights beside this file."""
    for name in names or list(RECIPES):
        model, measured = RECIPES[name]()
        path = Path(__file__).parent / "weights" / f"{name}.safetensors"
        write_atomically(path, save(model.state_dict()))
        print(name, {key: round(value, 4) for key, value in measured.items()}, path.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1:])
