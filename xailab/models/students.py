"""Small digit networks that learned from labels, or from a large network's answers."""

from collections.abc import Iterator

from torch import Tensor, nn

from xailab.models.weight_files import with_weights

STUDENT_WIDTHS = ((2, 3), (4, 6), (16, 24))  # channels of the students in "sizes"


class SmallDigitCNN(nn.Module):
    """Two convolutions and one linear layer: a student for `digit_cnn`.

    (N, 1, 28, 28) in [0, 1] -> logits (N, 10). The last maps, `relu2`, are 12 x 12 each.

    Args:
        width: channels of the two convolutions.

    >>> sum(p.numel() for p in SmallDigitCNN().parameters())
    2174
    """

    def __init__(self, width: tuple[int, int] = (8, 12)) -> None:
        super().__init__()
        first, second = width
        self.conv1 = nn.Conv2d(1, first, 5, stride=2)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool = nn.MaxPool2d(4)
        self.fc = nn.Linear(9 * second, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, 10)."""
        x = self.relu1(self.conv1(x))  # (N, 8, 12, 12)
        x = self.relu2(self.conv2(x))  # (N, 12, 12, 12)
        return self.fc(self.pool(x).flatten(1))


class DigitStudents(nn.Module):
    """The students of lesson `distillation`, trained in pairs that differ in their teaching alone.

    `few_labels`, `all_labels` and `taught` hold three each, from the first weights of seeds 0 to 2:
    trained on 200 labels, on 4,000, and on the answers of `digit_cnn` to 4,000 digits without a
    label. `sizes` holds taught ones of other widths, `STUDENT_WIDTHS`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.few_labels, self.all_labels, self.taught = (
            nn.ModuleList(SmallDigitCNN() for _ in range(3)) for _ in range(3)
        )
        self.sizes = nn.ModuleList(SmallDigitCNN(width) for width in STUDENT_WIDTHS)

    def triplets(self) -> Iterator[tuple[nn.Module, nn.Module, nn.Module]]:
        """Yield, for each seed, the students of few labels, of all labels, and of the teacher."""
        return zip(self.few_labels, self.all_labels, self.taught, strict=True)


def digit_students() -> DigitStudents:
    """Return the trained students, in evaluation mode."""
    return with_weights("digit_students", DigitStudents())
