"""Training a classifier: the loop by hand, the same with Lightning, and reading the log.

`python -m xailab.models.training --help` trains on a full public set, for those with internet.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset
from tqdm.auto import trange

from xailab.core import batched, capture, frozen
from xailab.core.batching import quiet
from xailab.core.checks import check_positive
from xailab.models import convnets

Pair = tuple[Tensor, Tensor]
_REMARKS = (
    "does not have many workers",  # the rows are in memory: a worker process would only cost
    "Checkpoint directory .* exists",  # wanted, when a training is resumed
    "LeafSpec.* is deprecated",  # Lightning 2.6 about torch 2.14: nothing a learner can mend
)


class History(NamedTuple):
    """What `fit` measured: three numbers an epoch."""

    train_loss: list[float]
    valid_loss: list[float]
    valid_accuracy: list[float]


class Score(NamedTuple):
    """What `evaluate` measured: mean cross-entropy (nats) and share of right answers."""

    loss: float
    accuracy: float


def order(n: int, *, seed: int, epoch: int) -> Tensor:
    """Return the order (n,) in which an epoch visits n rows; it depends on seed and epoch alone.

    An order drawn from one running generator would depend on all epochs before it, and a training
    that is resumed in epoch 5 would see other batches than one that was never interrupted.

    >>> order(5, seed=0, epoch=1).tolist() == order(5, seed=0, epoch=1).tolist()
    True
    """
    generator = torch.Generator().manual_seed(10_000 * seed + epoch)
    return torch.randperm(n, generator=generator)


def fit(
    model: nn.Module,
    train: Pair,
    valid: Pair,
    *,
    epochs: int,
    learning_rate: float = 5e-3,
    batch_size: int = 64,
    seed: int = 0,
) -> History:
    """Train a classifier with Adam on the cross-entropy of its logits; the loop, written out.

    Args:
        model: (N, ...) -> logits (N, K); its parameters change, and it ends in evaluation mode.
        train: inputs (N, ...) and class numbers (N,) to learn from.
        valid: the same, held out: measured after every epoch, never learnt from.
        epochs: how often every row is visited.
        learning_rate: Adam's step size.
        batch_size: rows per step; the last step of an epoch may have fewer.
        seed: decides the order of rows and what dropout drops; torch's own state stays.

    Returns:
        `train_loss` is the mean over the epoch while the weights change, the two others are
        measured at its end.

    Raises:
        ValueError: no rows, or not one class number a row.
        FloatingPointError: the loss is no finite number any more.

    Elsewhere: `Trainer.fit` (Lightning), `Model.fit` (Keras).
    """
    x, y = _checked("train", train)
    _checked("valid", valid)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    history = History([], [], [])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in trange(check_positive("epochs", epochs), disable=quiet(), unit=" epochs"):
            rows = order(len(x), seed=seed, epoch=epoch).split(batch_size)
            history.train_loss.append(_epoch(model, optimizer, x, y, rows))
            score = evaluate(model, valid)
            history.valid_loss.append(score.loss)
            history.valid_accuracy.append(score.accuracy)
    return history


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    batches: Sequence[Tensor],
) -> float:
    """Take one step a batch; return the mean loss of a row."""
    model.train()
    total = 0.0
    for rows in batches:
        loss = F.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    model.eval()
    if not np.isfinite(total):
        raise FloatingPointError(f"the loss became {total}: try a smaller learning rate")
    return total / len(x)


def evaluate(model: nn.Module, data: Pair) -> Score:
    """Measure a classifier in evaluation mode; nothing about it changes.

    Args:
        model: (N, ...) -> logits (N, K).
        data: inputs (N, ...) and class numbers (N,).

    Raises:
        ValueError: no rows, or not one class number a row.

    >>> logits, y = torch.tensor([[0.0, 100.0], [0.0, 100.0]]), torch.tensor([1, 0])
    >>> evaluate(nn.Identity(), (logits, y))
    Score(loss=50.0, accuracy=0.5)
    """
    x, y = _checked("data", data)
    with frozen(model), torch.no_grad():
        logits = batched(model, x, batch_size=500, progress=False)
    accuracy = (logits.argmax(1) == y).double().mean().item()
    return Score(F.cross_entropy(logits, y).item(), accuracy)


def _checked(name: str, data: Pair) -> Pair:
    x, y = data
    if len(x) == 0 or y.shape != (len(x),):
        raise ValueError(
            f"{name}: expected (inputs, class numbers) with one number a row and at least one row, "
            f"got inputs {tuple(x.shape)} and numbers {tuple(y.shape)}"
        )
    return data


class _Batches(Sampler[Tensor]):
    """Row numbers of each batch; Lightning tells it the epoch, also the one it resumes in."""

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n, self.batch_size, self.seed, self.epoch = n, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Note the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        # A generator looks at the epoch when its first batch is asked for: on a resume Lightning
        # makes the iterator before it calls set_epoch.
        yield from order(self.n, seed=self.seed, epoch=self.epoch).split(self.batch_size)

    def __len__(self) -> int:
        return ceil(self.n / self.batch_size)


def loaders(
    train: Pair, valid: Pair, *, batch_size: int = 64, seed: int = 0
) -> tuple[DataLoader, DataLoader]:
    """Return what Lightning wants in place of two pairs; the order of rows is that of `fit`.

    Raises:
        ValueError: no rows, or not one class number a row.
    """
    size = check_positive("batch_size", batch_size)
    parts = [TensorDataset(*_checked(*named)) for named in (("train", train), ("valid", valid))]
    # batch_size=None: the sampler's tensors are used as they are, which takes a whole batch at once
    shuffled = DataLoader(parts[0], sampler=_Batches(len(parts[0]), size, seed), batch_size=None)
    return shuffled, DataLoader(parts[1], batch_size=500)


class Classifier(lightning.LightningModule):
    """A network and how it is trained, as Lightning wants it: the training of `fit`, no loop.

    Logs `train/loss`, `valid/loss` and `valid/accuracy` once an epoch.

    Args:
        model: (N, ...) -> logits (N, K).
        learning_rate: Adam's step size.
    """

    def __init__(self, model: nn.Module, *, learning_rate: float = 5e-3) -> None:
        super().__init__()
        self.model, self.learning_rate = model, learning_rate

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, K)."""
        return self.model(x)

    def training_step(self, batch: Pair, _: int) -> Tensor:
        """Return the loss of one batch."""
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Pair, _: int) -> None:
        """Measure one held-out batch; Lightning averages, weighted by rows."""
        x, y = batch
        logits = self(x)
        self.log("valid/loss", F.cross_entropy(logits, y), prog_bar=True)
        self.log("valid/accuracy", (logits.argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over all parameters."""
        return torch.optim.Adam(self.parameters(), self.learning_rate)


class Histograms(lightning.Callback):
    """Log histograms to TensorBoard once an epoch; the step of each is the epoch's number.

    `activations/LAYER`: what a layer hands over for the same rows each time; `gradients/NAME`: the
    gradient of each weight tensor (no biases) in the epoch's last step.

    Args:
        layers: dotted names of layers.
        rows: inputs (n, ...) whose activations are logged.
    """

    def __init__(self, layers: Sequence[str], rows: Tensor) -> None:
        self.layers, self.rows = list(layers), rows

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Log gradients: they stand in the parameters between `backward` and the step."""
        if trainer.is_last_batch:
            for name, weight in pl_module.model.named_parameters():
                if weight.ndim > 1 and weight.grad is not None:
                    self._log(trainer, f"gradients/{name}", weight.grad)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log activations, with the weights that the epoch ends with."""
        model = pl_module.model
        with frozen(model), torch.no_grad(), capture(model, self.layers) as kept:
            model(self.rows.to(pl_module.device))
        for name in self.layers:
            self._log(trainer, f"activations/{name}", kept[name])

    def _log(self, trainer: Any, tag: str, values: Tensor) -> None:
        writer = trainer.logger.experiment
        writer.add_histogram(tag, values.detach().cpu(), trainer.current_epoch, bins=64)


def trainer(
    folder: str | Path,
    *,
    epochs: int,
    callbacks: Sequence[lightning.Callback] = (),
    **options: Any,
) -> lightning.Trainer:
    """Return a Lightning trainer on the CPU that writes log and checkpoints below `folder`.

    Lightning's remarks about hardware and worker processes are switched off for the session, and
    its progress bar under `XAILAB_QUIET=1`.

    Args:
        folder: where event files and checkpoints go.
        epochs: the last epoch's number plus one, also when a training is resumed.
        callbacks: early stopping, checkpoints, `Histograms`, ...
        **options: anything else that `lightning.Trainer` takes.
    """
    _without_tensorflow()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for remark in _REMARKS:
        warnings.filterwarnings("ignore", message=f".*{remark}")
    usual: dict[str, Any] = {
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": not quiet(),
    }
    return lightning.Trainer(
        max_epochs=check_positive("epochs", epochs),
        callbacks=list(callbacks),
        logger=TensorBoardLogger(folder, name="", version=""),
        default_root_dir=folder,
        **(usual | options),
    )


def _without_tensorflow() -> None:
    """Make TensorBoard use its own small stand-in for TensorFlow's file functions.

    It would import TensorFlow where that is installed, only to write files: ten seconds and
    half a gigabyte. A module of this name is how TensorBoard's own build says "do without".
    """
    if "tensorflow" not in sys.modules:
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))


class Scalars(NamedTuple):
    """One logged curve: step numbers and values."""

    steps: list[int]
    values: list[float]


class Histogram(NamedTuple):
    """One logged histogram: K counts between K + 1 edges."""

    step: int
    edges: np.ndarray
    counts: np.ndarray


def read_scalars(folder: str | Path) -> dict[str, Scalars]:
    """Return every curve in the event files of a folder, by its tag.

    Raises:
        FileNotFoundError: there is no event file in the folder.
    """
    log = _events(folder)
    curves = {tag: log.Scalars(tag) for tag in log.Tags()["scalars"]}
    return {
        tag: Scalars([each.step for each in curve], [each.value for each in curve])
        for tag, curve in curves.items()
    }


def read_histograms(folder: str | Path) -> dict[str, list[Histogram]]:
    """Return every histogram in the event files of a folder, by its tag, in order of steps.

    Raises:
        FileNotFoundError: there is no event file in the folder.
    """
    log = _events(folder)
    return {
        tag: [_histogram(each.step, each.histogram_value) for each in log.Histograms(tag)]
        for tag in log.Tags()["histograms"]
    }


def _histogram(step: int, value: Any) -> Histogram:
    """Give the first bucket its left end: an event file holds right ends alone."""
    edges, counts = np.array(value.bucket_limit), np.array(value.bucket)
    if counts[0] == 0:  # torch writes an empty first bucket, whose right end is that left end
        return Histogram(step, edges, counts[1:])
    return Histogram(step, np.concatenate([[min(value.min, edges[0])], edges]), counts)


def _events(folder: str | Path) -> Any:
    """Return TensorBoard's reader with all that the folder holds."""
    if not list(Path(folder).glob("events.out.tfevents.*")):
        raise FileNotFoundError(f"no TensorBoard event file in {folder}")
    _without_tensorflow()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "histograms": 0}  # 0: keep all steps, not a sample
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


class _FromBytes(nn.Module):
    """Scale bytes 0..255 to -1..1 in the network: a set of bytes takes a quarter of the memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float() / 127.5 - 1


def _public(name: str) -> tuple[Pair, Pair]:
    """Return training and test part of a public set: bytes (N, C, H, W) and class numbers."""
    from xailab.data import load

    data = load(name)
    images = torch.as_tensor(data.images)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    y, train = torch.as_tensor(data.y), torch.as_tensor(data.extra["train"])
    return (images[train], y[train]), (images[~train], y[~train])


def _network(name: str, images: Tensor) -> nn.Module:
    channels, size = images.shape[1:3]
    if name == "alexnet":
        return nn.Sequential(_FromBytes(), convnets.alexnet(channels=channels, size=size))
    return nn.Sequential(_FromBytes(), convnets.resnet(channels=channels))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m xailab.models.training",
        description="Train on a full public data set. It is downloaded once (MNIST 12 MB, CIFAR-10 "
        "170 MB) and needs the open internet; no lesson needs it. On two CPU cores an epoch takes "
        "minutes.",
    )
    parser.add_argument("--full", required=True, choices=["mnist", "cifar10"], help="the data set")
    parser.add_argument("--model", default="resnet", choices=["alexnet", "resnet"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--max-steps", type=int, default=-1, help="stop early: for a trial")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="runs", help="for the log and the checkpoints")
    parser.add_argument("--resume", metavar="CHECKPOINT", help="go on from this checkpoint")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; return 0, or 1 if the data could not be had."""
    chosen = _parser().parse_args(arguments)
    try:
        train, test = _public(chosen.full)
    except (OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    lightning.seed_everything(chosen.seed, verbose=False)
    module = Classifier(_network(chosen.model, train[0]), learning_rate=chosen.learning_rate)
    folder = Path(chosen.folder) / f"{chosen.full}-{chosen.model}"
    worker = trainer(folder, epochs=chosen.epochs, max_steps=chosen.max_steps, accelerator="auto")
    batches = loaders(train, test, batch_size=chosen.batch_size, seed=chosen.seed)
    worker.fit(module, *batches, ckpt_path=chosen.resume)
    accuracy = evaluate(module.model.cpu(), test).accuracy
    print(f"accuracy on the {len(test[0]):,} test pictures: {accuracy:.2%}")
    print(f"curves: tensorboard --logdir {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
