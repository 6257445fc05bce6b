"""xailab beside captum, pytorch-grad-cam and lime: EfficientNet-Lite0, one photo, two threads.

Shapley values are compared on a small network of 12 features, where all coalitions can be asked.

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
import numpy as np
import pytorch_grad_cam
import skimage.data
import torch
from lime.lime_image import LimeImageExplainer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from skimage.segmentation import slic
from torch import Tensor, nn

from xailab.attribution import cam, lime, occlusion, paths, saliency, shapley
from xailab.core import predictor
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
        "integrated_gradients, 50 steps": (
            lambda: paths.integrated_gradients(model, x, TIGER_CAT),
            lambda: captum.attr.IntegratedGradients(model).attribute(x, target=TIGER_CAT),
            3,
        ),
        "occlusion, 32 / 16": (
            lambda: occlusion.occlusion(model, x, TIGER_CAT, window=32, stride=16),
            lambda: captum.attr.Occlusion(model).attribute(
                x, sliding_window_shapes=(3, 32, 32), strides=(3, 16, 16), target=TIGER_CAT
            ),
            3,
        ),
        **lime_pairs(model, x),
    }


def lime_pairs(model: nn.Module, x: Tensor) -> dict[str, Pair]:
    """Return ours and lime's own: the same patches and samples.

    Ours asks through `predictor`, then through the function that lime is given, such as its users
    write.
    """
    picture = x[0].permute(1, 2, 0).double().numpy()
    patches = slic(picture, n_segments=50, compactness=10, channel_axis=2, start_label=0)
    ask = predictor(model)

    def predict(pictures: Any) -> Any:
        rows = torch.as_tensor(np.asarray(pictures), dtype=torch.float32).permute(0, 3, 1, 2)
        with torch.no_grad():
            return model(rows).numpy()

    def plain(pictures: Any) -> Any:  # the same, channels first
        return predict(pictures.transpose(0, 2, 3, 1))

    def theirs() -> Any:
        return LimeImageExplainer(random_state=0).explain_instance(
            picture,
            predict,
            labels=(TIGER_CAT,),
            top_labels=None,
            hide_color=0,
            num_samples=1000,
            segmentation_fn=lambda _: patches,
        )

    def ours(black_box: Any) -> Callable[[], Any]:
        return lambda: lime.lime_image(black_box, x[0].numpy(), TIGER_CAT, segments=patches)

    return {
        "lime_image, 1000 samples": (ours(ask), theirs, 2),
        "lime_image, plain function": (ours(plain), theirs, 2),
    }


def shapley_pairs(model: nn.Module, x: Tensor) -> dict[str, Pair]:
    """Return the same for a small network of 12 features, where every coalition is asked."""
    background, row = torch.zeros(1, 12), x.numpy()[0]

    def predict(rows: Any) -> Any:
        with torch.no_grad():
            return model(torch.as_tensor(rows, dtype=torch.float32)).numpy()[:, 0]

    return {
        # captum's exact ShapleyValues walks all 12! orders; its sampling asks as many rows as ours.
        "shapley_values, 12 features": (
            lambda: shapley.shapley_values(model, x, 0),
            lambda: captum.attr.ShapleyValueSampling(model).attribute(x, target=0, n_samples=341),
            3,
        ),
        "kernel_shap, 4094 coalitions": (
            lambda: shapley.kernel_shap(predict, row, background.numpy()),
            lambda: captum.attr.KernelShap(model).attribute(x, target=0, n_samples=4096),
            3,
        ),
    }


class Meter:
    """Counts rows and seconds of a model's forward passes."""

    def __init__(self, model: nn.Module) -> None:
        self.rows, self.seconds, self._began = 0, 0.0, 0.0
        model.register_forward_pre_hook(lambda *seen: self._before(*seen))
        model.register_forward_hook(lambda *seen: self._after(*seen))

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
    torch.manual_seed(0)
    net = pretrained("efficientnet_lite0")
    photo = net.preprocess(skimage.data.chelsea())
    small = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 3))
    print("| method | xailab | peer | peer / xailab | rows | peer's rows | in forward |")
    print("|---|---|---|---|---|---|---|")
    for model, x, make in (
        (net.model, photo, pairs),
        (small, torch.randn(1, 12), shapley_pairs),
    ):
        meter = Meter(model)  # first, so that copies made of the model are counted too
        for name, pair in make(model, x).items():
            if not names or any(name.startswith(wanted) for wanted in names):
                print(line(name, pair, meter), flush=True)


def line(name: str, pair: Pair, meter: Meter) -> str:
    """Measure one pair; return its row of the table."""
    ours, theirs, repeats = pair
    ours(), theirs()  # the first calls measure chunks and warm caches
    runs = [(meter.run(ours), meter.run(theirs)) for _ in range(repeats)]
    mine, other = (statistics.median(run[i][0] for run in runs) for i in (0, 1))
    share = statistics.median(run[0][2] for run in runs)
    rows = f"{runs[0][0][1]} | {runs[0][1][1]}"
    return f"| {name} | {mine:.3f} s | {other:.3f} s | {other / mine:.2f} | {rows} | {share:.0%} |"


if __name__ == "__main__":
    main(sys.argv[1:])
