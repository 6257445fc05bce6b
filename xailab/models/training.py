"""Training a classifier: the loop by hand, the same with Lightning, and reading the log.

Lightning and TensorBoard come with the extra `lab`; whatever needs them imports them when it is
asked for, so that `fit` and `evaluate` do without.

`python -m xailab.models.training --help` trains on a full public set, for those with internet.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from xailab.core import capture, frozen
from xailab.core.batching import quiet
from xailab.core.checks import as_integer, check_positive
from xailab.core.outputs import class_logits, classes_of, labels_of
from xailab.core.scores import outputs_of
from xailab.models import convnets, loop
from xailab.models.loop import (
    History,
    Pair,
    Score,
    adam,
    as_pair,
    batches,
    check_rows,
    check_table,
    check_trainable,
    class_loss,
    evaluate,
    order,
)

if TYPE_CHECKING:
    import lightning

Classifier: Any  # a LightningModule, and
Histograms: Any  # a callback: __getattr__ makes them when they are first asked for

__all__ = [
    "Classifier",
    "Histogram",
    "Histograms",
    "History",
    "Pair",
    "Scalars",
    "Score",
    "evaluate",
    "fit",
    "loaders",
    "main",
    "order",
    "read_histograms",
    "read_scalars",
    "trainer",
]
_REMARKS = (
    "does not have many workers",  # the rows are in memory: a worker process would only cost
    "Checkpoint directory .* exists",  # wanted, when a training is resumed
    "LeafSpec.* is deprecated",  # Lightning 2.6 about torch 2.14: nothing a learner can mend
)


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
    """Train a classifier with Adam on the cross-entropy of its logits (the loop is `loop.train`).

    Args:
        model: (N, ...) -> logits (N, K), or one logit, (N, 1) or (N,), for the classes 0 and 1;
            its parameters change, float32 or float64, and it ends in evaluation mode.
        train: inputs (N, ...) and class numbers (N,) to learn from, these in a tensor, an array or
            a list.
        valid: the same, held out: measured after every epoch, never learnt from.
        epochs: how often every row is visited.
        learning_rate: Adam's step size.
        batch_size: rows per step; the last step of an epoch may have fewer, but never one: that row
            joins the step before.
        seed: decides the order of rows and what dropout drops; torch's own state stays.

    Returns:
        `train_loss` is the mean over the epoch while the weights change, the two others are
        measured at its end.

    Raises:
        TypeError, ValueError: as `loop.check_rows` and `loop.train`.
        FloatingPointError: the loss is no finite number any more.

    Elsewhere: `Trainer.fit` (Lightning), `Model.fit` (Keras).
    """
    x, y = check_rows(model, *as_pair("train", train), name="train")
    held_out = check_rows(model, *as_pair("valid", valid), name="valid")
    history = History([], [], [])

    def loss_of(rows: Tensor) -> Tensor:
        return class_loss(outputs_of(model, x[rows]), y[rows])

    def measure(_: int) -> None:
        score = evaluate(model, held_out)
        history.valid_loss.append(score.loss)
        history.valid_accuracy.append(score.accuracy)

    plan: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    optimizer = adam(model, learning_rate)
    losses = loop.train(model, len(x), loss_of, optimizer=optimizer, after_epoch=measure, **plan)
    return history._replace(train_loss=losses)


class _Batches(Sampler[Tensor]):
    """Row numbers of each batch; Lightning tells it the epoch, also the one it resumes in."""

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n, self.batch_size, self.seed, self.epoch = n, batch_size, seed, 0

    def batches(self) -> tuple[Tensor, ...]:
        """Return the row numbers of each batch of the epoch, as `fit` takes them."""
        rows = order(self.n, seed=self.seed, epoch=self.epoch)
        return batches(rows, self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Note the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        # A generator looks at the epoch when its first batch is asked for: on a resume Lightning
        # makes the iterator before it calls set_epoch.
        yield from self.batches()

    def __len__(self) -> int:
        return len(self.batches())


def loaders(
    train: Pair, valid: Pair, *, batch_size: int = 64, seed: int = 0
) -> tuple[DataLoader, DataLoader]:
    """Return what Lightning wants in place of two pairs; the order of rows is that of `fit`.

    Raises:
        TypeError, ValueError: rows or labels as in `loop.check_rows`, as far as it can be seen
            without the model; `Classifier` looks at the rest when its training begins.
    """
    size, seed = check_positive("batch_size", batch_size), as_integer("seed", seed)
    named = {"train": train, "valid": valid}
    learn, held_out = (
        TensorDataset(*check_table(*as_pair(name, pair), name=name)) for name, pair in named.items()
    )
    # batch_size=None: the sampler's tensors are used as they are, which takes a whole batch at once
    shuffled = DataLoader(learn, sampler=_Batches(len(learn), size, seed), batch_size=None)
    return shuffled, DataLoader(held_out, batch_size=500)


def __getattr__(name: str) -> Any:
    """Make the classes that are Lightning's when one of them is first asked for."""
    if name in _LIGHTNING:
        return _with_lightning()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _with_lightning() -> dict[str, type]:
    """Return `Classifier` and `Histograms` as Lightning's module and callback."""
    import lightning

    bases = {"Classifier": lightning.LightningModule, "Histograms": lightning.Callback}
    return {
        name: type(name, (own, bases[name]), {"__doc__": own.__doc__, "__module__": __name__})
        for name, own in _LIGHTNING.items()
    }


class _Classifier:
    """A network and how it is trained, as Lightning wants it: the training of `fit`, no loop.

    Logs `train/loss`, `valid/loss` and `valid/accuracy` once an epoch.

    Args:
        model: (N, ...) -> logits (N, K), or one logit, (N, 1) or (N,).
        learning_rate: Adam's step size.
    """

    model: nn.Module
    log: Any  # Lightning's
    trainer: Any

    def __init__(self, model: nn.Module, *, learning_rate: float = 5e-3) -> None:
        super().__init__()
        self.model, self.learning_rate = model, learning_rate

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, K) with K at least 2."""
        return class_logits(outputs_of(self.model, x))

    def on_train_start(self) -> None:
        """Look at weights, rows and labels, as `fit` does, where Lightning knows the rows."""
        check_trainable(self.model)
        for name in ("train_dataloader", "val_dataloaders"):
            rows = getattr(getattr(self.trainer, name), "dataset", None)
            if isinstance(rows, TensorDataset) and len(rows.tensors) == 2:
                check_rows(self.model, *rows.tensors, name=name)

    def training_step(self, batch: Pair, _: int) -> Tensor:
        """Return the loss of one batch."""
        x, y = batch
        loss = self._loss(self.forward(x), y)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Pair, _: int) -> None:
        """Measure one held-out batch; Lightning averages, weighted by rows."""
        x, y = batch
        logits = self.forward(x)
        self.log("valid/loss", self._loss(logits, y), prog_bar=True)
        self.log("valid/accuracy", (classes_of(logits) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over all parameters."""
        return adam(self.model, self.learning_rate)

    @staticmethod
    def _loss(logits: Tensor, y: Tensor) -> Tensor:
        return class_loss(logits, labels_of(y, *logits.shape))


class _Histograms:
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


_LIGHTNING: dict[str, type] = {"Classifier": _Classifier, "Histograms": _Histograms}


def trainer(
    folder: str | Path,
    *,
    epochs: int,
    callbacks: "Sequence[lightning.Callback]" = (),
    **options: Any,
) -> "lightning.Trainer":
    """Return a Lightning trainer on the CPU that writes log and checkpoints below `folder`.

    Lightning's remarks about hardware and worker processes are switched off for the session, and
    its progress bar under `XAILAB_QUIET=1`.

    Args:
        folder: where event files and checkpoints go.
        epochs: the last epoch's number plus one, also when a training is resumed.
        callbacks: early stopping, checkpoints, `Histograms`, ...
        **options: anything else that `lightning.Trainer` takes.
    """
    import lightning
    from lightning.pytorch.loggers import TensorBoardLogger

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
    import lightning

    lightning.seed_everything(chosen.seed, verbose=False)
    network = _network(chosen.model, train[0])
    module = _with_lightning()["Classifier"](network, learning_rate=chosen.learning_rate)
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
