"""A small convolutional network for spectrograms; it is trained where it is needed."""

from typing import Any

import torch
from torch import Tensor, nn

from xailab.core.checks import as_integer
from xailab.core.scores import outputs_of
from xailab.data.tone import FRAMES, INSTRUMENTS, ROWS, Tones, tones
from xailab.models.loop import adam, check_rows, class_loss, train

_BATCH = 32


class ToneCNN(nn.Module):
    """Three convolutions and one linear layer that knows the place of everything it is given.

    (N, 1, 64, 64) in [0, 1], frequency down and time across, -> logits (N, 4). There is no global
    pooling: it would forget when and how high a note was, and that is all there is to know. Every
    ReLU is a module; the last maps, `relu3`, are 16 x 16 x 16, and the linear layer reads them
    as 16 x 4 x 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.pool3 = nn.MaxPool2d(4)
        self.fc = nn.Linear(16 * 4 * 4, len(INSTRUMENTS))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, 4).

        Raises:
            ValueError: another shape than (N, 1, 64, 64).
        """
        if x.shape[1:] != (1, ROWS, FRAMES):
            raise ValueError(f"x must be (N, 1, {ROWS}, {FRAMES}), got shape {tuple(x.shape)}")
        x = self.pool1(self.relu1(self.conv1(x)))  # (N, 8, 32, 32)
        x = self.pool2(self.relu2(self.conv2(x)))  # (N, 16, 16, 16)
        x = self.pool3(self.relu3(self.conv3(x)))  # (N, 16, 4, 4)
        return self.fc(x.flatten(1))


def tone_cnn(clips: Tones | None = None, *, epochs: int = 8, seed: int = 0) -> ToneCNN:
    """Train a network on the training part of the tones; a few seconds on one core.

    Args:
        clips: what to learn from; None: `data.tones()`.
        epochs: how often every clip is heard.
        seed: of the first weights and the order of the clips; torch's own state stays.

    Returns:
        The network in evaluation mode.

    Raises:
        TypeError, ValueError: `epochs` is no integer or below 1.

    >>> tone_cnn(tones(n=12), epochs=1)(torch.zeros(2, 1, 64, 64)).shape
    torch.Size([2, 4])
    """
    learn = (tones() if clips is None else clips).train
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(as_integer("seed", seed))
        model = ToneCNN()
    x = torch.as_tensor(learn.spectrograms)[:, None]
    x, y = check_rows(model, x, learn.y, name="clips")

    def loss_of(rows: Tensor) -> Tensor:
        return class_loss(outputs_of(model, x[rows]), y[rows])

    plan: dict[str, Any] = {"epochs": epochs, "batch_size": _BATCH, "seed": seed}
    train(model, len(x), loss_of, optimizer=adam(model, 5e-3), **plan)
    return model
