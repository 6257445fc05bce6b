"""xailab beside captum and pytorch-grad-cam on EfficientNet-Lite0: one photo, two threads.

    python -m benchmarks.attribution [METHOD ...]

Each pair runs in turn (ours, theirs, ours, ...), so that a machine whose speed drifts treats both
alike; the table gives the medians, the rows that went through the model, and the part of our time
that was spent inside the model's forward pass.
"""

import os
import statistics
import sys
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

import captum.attr
import pytorch_grad_cam
import skimage.data
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from xailab.attribution import cam, saliency
from xailab.models import pretrained

os.environ["TQDM_DISABLE"] = "1"
TIGER_CAT = 282
Pair = tuple[Callable[[], Any], Callable[[], Any], int]


def pairs(model: nn.Module, x: Tensor) -> dict[str, Pair]:
    """Return, by method: ours, theirs, and how often to repeat."""
    layer = model.bn2
    noisy = captum.attr.NoiseTunnel(captum.attr.Saliency(model))

    def grad_cam_zoo(kind: Any) -> Callable[[], Any]:
        goal = [ClassifierOutputTarget(TIGER_CAT)]
        return lambda: kind(model=model, target_layers=[layer])(input_tensor=x, targets=goal)

    return {
        "saliency": (
            lambda: saliency.saliency(model, x, TIGER_CAT),
            lambda: captum.attr.Saliency(model).attribute(x, TIGER_CAT, abs=False),
            15,
        ),
        "smoothgrad, 25 samples": (
            lambda: saliency.smoothgrad(model, x, TIGER_CAT),
            lambda: noisy.attribute(
                x, target=TIGER_CAT, nt_type="smoothgrad", nt_samples=25, abs=False, stdevs=0.4
            ),
            5,
        ),
        "grad_cam": (
            lambda: cam.grad_cam(model, x, TIGER_CAT, layer="bn2"),
            lambda: captum.attr.LayerGradCam(model, layer).attribute(x, TIGER_CAT),
            15,
        ),
        "grad_cam_plus_plus": (
            lambda: cam.grad_cam_plus_plus(model, x, TIGER_CAT, layer="bn2"),
            grad_cam_zoo(pytorch_grad_cam.GradCAMPlusPlus),
            15,
        ),
        "score_cam, 1280 channels": (
            lambda: cam.score_cam(model, x, TIGER_CAT, layer="bn2"),
            grad_cam_zoo(pytorch_grad_cam.ScoreCAM),
            2,
        ),
    }


class Meter:
    """Counts rows and seconds of a model's forward passes."""

    def __init__(self, model: nn.Module) -> None:
        self.rows, self.seconds, self._began = 0, 0.0, 0.0
        model.register_forward_pre_hook(self._before)
        model.register_forward_hook(self._after)

    def _before(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._began = perf_counter()

    def _after(self, model: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.rows += len(inputs[0])
        self.seconds += perf_counter() - self._began

    def run(self, function: Callable[[], Any]) -> tuple[float, int, float]:
        """Return seconds, rows and the share of forward passes of one call."""
        self.rows, self.seconds = 0, 0.0
        began = perf_counter()
        function()
        seconds = perf_counter() - began
        return seconds, self.rows, self.seconds / seconds


def main(names: list[str]) -> None:
    """Print one line per method."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    net = pretrained("efficientnet_lite0")
    x, meter = net.preprocess(skimage.data.chelsea()), Meter(net.model)
    print("| method | xailab | peer | peer / xailab | rows | peer's rows | in forward |")
    print("|---|---|---|---|---|---|---|")
    for name, (ours, theirs, repeats) in pairs(net.model, x).items():
        if names and not any(name.startswith(wanted) for wanted in names):
            continue
        ours(), theirs()  # the first calls measure chunks and warm caches
        runs = [(meter.run(ours), meter.run(theirs)) for _ in range(repeats)]
        mine, other = (statistics.median(run[i][0] for run in runs) for i in (0, 1))
        share = statistics.median(run[0][2] for run in runs)
        rows = f"{runs[0][0][1]} | {runs[0][1][1]}"
        print(
            f"| {name} | {mine:.3f} s | {other:.3f} s | {other / mine:.2f} | {rows} | {share:.0%} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
