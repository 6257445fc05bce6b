"""Networks of the right shape for pictures of 28 or 32 pixels, and the arithmetic of that shape."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from xailab.core.checks import as_integer


def conv_output_size(
    size: int, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    """Return how many positions a convolution or a pooling has along one side of a picture.

        floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1

    Args:
        size: pixels along the side.
        kernel: cells of the window along the side.
        stride: pixels from one position to the next; a pooling's default is its kernel.
        padding: pixels added at each of the two ends.
        dilation: pixels from one cell of the window to the next.

    Raises:
        TypeError: an argument is no integer.
        ValueError: an argument is too small, or the window does not fit once.

    Reference: Dumoulin and Visin (2016), *A guide to convolution arithmetic for deep learning*.

    >>> conv_output_size(28, 5), conv_output_size(24, 2, stride=2)
    (24, 12)
    """
    least = {"size": 1, "kernel": 1, "stride": 1, "padding": 0, "dilation": 1}
    given = {"size": size, "kernel": kernel, "stride": stride, "padding": padding}
    for name, value in {**given, "dilation": dilation}.items():
        if as_integer(name, value) < least[name]:
            raise ValueError(f"{name}: expected at least {least[name]}, got {value}")
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        wide = dilation * (kernel - 1) + 1
        raise ValueError(
            f"a window {wide} wide does not fit into {size} pixels with {padding} added at each end"
        )
    return room // stride + 1


def alexnet(*, channels: int = 3, size: int = 32, n_classes: int = 10) -> nn.Sequential:
    """Return an AlexNet for small pictures: five convolutions, three poolings, three linear layers.

    The published network begins with a window of 11 and a stride of 4, made for 224 pixels; of 32
    it leaves nothing for the last pooling. Here all windows are 3 wide, the poolings halve the
    side, and the linear layers have 1,024 units in place of 4,096.

    Args:
        channels: 1 for gray pictures, 3 for color.
        size: pixels along a side, at least 8.
        n_classes: number of logits.

    Returns:
        (N, channels, size, size) -> logits (N, n_classes), untrained; every ReLU is a module.

    Raises:
        ValueError: the picture is too small for three poolings.

    Reference: Krizhevsky, Sutskever, Hinton (2012), *ImageNet Classification with Deep
    Convolutional Neural Networks*.

    >>> sum(p.numel() for p in alexnet().parameters())
    7506762
    """
    side = size
    for _ in range(3):
        side = conv_output_size(side, 2, stride=2)
    return nn.Sequential(
        *(*_conv_relu(channels, 64), nn.MaxPool2d(2)),
        *(*_conv_relu(64, 192), nn.MaxPool2d(2)),
        *(*_conv_relu(192, 384), *_conv_relu(384, 256), *_conv_relu(256, 256), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Dropout(), nn.Linear(256 * side * side, 1024), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(1024, 1024), nn.ReLU()),
        nn.Linear(1024, n_classes),
    )


def _conv_relu(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()


class ResidualBlock(nn.Module):
    """Two convolutions, and a shortcut that adds the block's input to what they compute.

    Where the block halves the side and doubles the channels, the shortcut takes every second
    pixel and fills the new channels with zeros: it has no parameters (the paper's option A).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.added = (1, 0) if inputs == outputs else (2, outputs - inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride), halves rounded up."""
        change = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return self.relu2(shortcut + change)


def resnet(*, depth: int = 20, channels: int = 3, n_classes: int = 10) -> nn.Sequential:
    """Return the residual network of the paper's CIFAR-10 experiments.

    One convolution, three stages of (depth - 2) / 6 blocks with 16, 32 and 64 channels, the
    average over all positions, one linear layer. It takes any size; of 32 pixels 8 x 8 are left.

    Args:
        depth: number of layers with weights: 8, 14, 20, 32, 44, 56, ...
        channels: 1 for gray pictures, 3 for color.
        n_classes: number of logits.

    Returns:
        (N, channels, H, W) -> logits (N, n_classes), untrained; every ReLU is a module.

    Raises:
        ValueError: depth - 2 is not a positive multiple of 6.

    Reference: He, Zhang, Ren, Sun (2016), *Deep Residual Learning for Image Recognition*,
    section 4.2.

    >>> sum(p.numel() for p in resnet(depth=20).parameters())
    269722
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(f"depth: expected 8, 14, 20, 26, 32, ... (6 n + 2), got {depth}")
    widths = [16] * (blocks + 1) + [32] * blocks + [64] * blocks
    return nn.Sequential(
        *(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(ResidualBlock(a, b) for a, b in pairwise(widths)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n_classes)),
    )
