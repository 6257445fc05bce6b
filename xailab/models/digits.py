"""A small convolutional network for 28 x 28 digits, trained and shipped with the package."""

from torch import Tensor, nn

from xailab.models.weight_files import with_weights


class DigitCNN(nn.Module):
    """Three convolutions, global average pooling, one linear layer; every ReLU is a module.

    (N, 1, 28, 28) in [0, 1] -> logits (N, 10). The last maps, `relu3`, are 64 x 7 x 7; the head
    is one that CAM can be read from.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, 10)."""
        x = self.pool1(self.relu1(self.conv1(x)))  # (N, 16, 14, 14)
        x = self.pool2(self.relu2(self.conv2(x)))  # (N, 32, 7, 7)
        x = self.relu3(self.conv3(x))  # (N, 64, 7, 7)
        return self.fc(self.gap(x).flatten(1))


def digit_cnn() -> DigitCNN:
    """Return the digit network trained on 4,000 MNIST digits, in evaluation mode.

    >>> sum(p.numel() for p in digit_cnn().parameters())
    23946
    """
    return with_weights("digit_cnn", DigitCNN())


def digit_cnn_marked() -> DigitCNN:
    """Return the same network trained on `data.marked_digits()`: it has learnt the shortcut."""
    return with_weights("digit_cnn_marked", DigitCNN())


def digit_cnn_noisy() -> DigitCNN:
    """Return the same network trained on digits under random noise of .1."""
    return with_weights("digit_cnn_noisy", DigitCNN())


def digit_cnn_robust() -> DigitCNN:
    """Return the same network trained on against attacks that move every pixel by up to .1."""
    return with_weights("digit_cnn_robust", DigitCNN())
