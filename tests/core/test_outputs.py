"""What a model returned, through one door; one logit is two classes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xailab.core.outputs import (
    as_array,
    class_logits,
    classes_of,
    labels_of,
    logits_of,
    probabilities_of,
)

LOGITS = torch.tensor([[1.0, 2.0]])


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


@pytest.mark.parametrize(
    "answer",
    [
        LOGITS,
        (LOGITS,),
        [LOGITS, None],
        {"logits": LOGITS, "hidden": torch.ones(3)},
        {"scores": LOGITS},
        Output(LOGITS),
        Output(LOGITS, torch.ones(3)),
    ],
)
def test_logits_are_found(answer) -> None:
    assert logits_of(answer) is LOGITS


@pytest.mark.parametrize(
    "answer", [None, 3, np.ones(2), (LOGITS, LOGITS), {}, {"a": LOGITS, 1: LOGITS}]
)
def test_several_or_none_are_refused_with_the_way_out(answer) -> None:
    with pytest.raises(TypeError, match=r"must return one tensor.*wrap it"):
        logits_of(answer)


def test_one_logit_is_two_classes() -> None:
    z = torch.tensor([-1.0, 0.5])
    for outputs in (z, z[:, None]):
        assert class_logits(outputs).tolist() == [[0.0, -1.0], [0.0, 0.5]]
        assert classes_of(outputs).tolist() == [0, 1]
        torch.testing.assert_close(probabilities_of(outputs)[:, 1], z.sigmoid())
        loss = nn.functional.cross_entropy(class_logits(outputs), torch.tensor([0, 1]))
        want = nn.functional.binary_cross_entropy_with_logits(z, torch.tensor([0.0, 1.0]))
        torch.testing.assert_close(loss, want)


def test_several_logits_are_as_they_are() -> None:
    assert class_logits(LOGITS) is LOGITS
    assert classes_of(LOGITS).tolist() == [1]
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        class_logits(torch.ones(2, 3, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_halves_sum_to_one(dtype) -> None:
    p = probabilities_of(torch.randn(50, 9).to(dtype))
    assert p.dtype == torch.float32
    torch.testing.assert_close(p.sum(1), torch.ones(50))


@pytest.mark.parametrize(
    "y",
    [[0, 2, 1], (0, 2, 1), np.array([0, 2, 1], np.int32), torch.tensor([0, 2, 1]), [0.0, 2.0, 1.0]],
)
def test_labels_of_any_kind(y) -> None:
    assert torch.equal(labels_of(y, 3, 3), torch.tensor([0, 2, 1]))
    assert labels_of([False, True], 2, 2).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        (["a", "b", "c"], TypeError, "labels must hold class numbers"),
        (torch.eye(3), ValueError, r"one-hot rows give labels.argmax\(1\)"),
        ([0, 1], ValueError, r"\(3,\) class numbers, one a row, got shape \(2,\)"),
        ([0, 1, 1.5], ValueError, "NaN or fractions"),
        ([0, 1, float("nan")], ValueError, "NaN or fractions"),
        ([0, 1, 3], ValueError, r"0\.\.2, it holds the class 3"),
        ([0, -1, 2], ValueError, "the class -1"),
    ],
)
def test_other_labels_are_refused_by_name(y, error, words) -> None:
    with pytest.raises(error, match=words):
        labels_of(y, 3, 3, name="labels")


def test_arrays_of_every_precision() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.int64):
        assert (
            as_array(torch.ones(2, dtype=dtype, requires_grad=dtype.is_floating_point)).sum() == 2
        )
