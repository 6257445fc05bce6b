"""xailab beside captum, pytorch-grad-cam, lime, zennit and shap, on two threads.

EfficientNet-Lite0 and one photo; Shapley values on a small network of 12 features, where all
coalitions can be asked; relevance on ResNet-18 and ViT-tiny with random weights; a forest.

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
import shap
import skimage.data
import timm
import torch
import torchvision
import zennit.composites
import zennit.torchvision
from lime.lime_image import LimeImageExplainer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from skimage.segmentation import slic
from sklearn.ensemble import RandomForestRegressor
from torch import Tensor, nn

from xailab.attribution import (
    cam,
    lime,
    occlusion,
    paths,
    relevance,
    saliency,
    shapley,
    trees,
)
from xailab.core import predictor
from xailab.models import pretrained

os.environ["XAILAB_QUIET"] = "1"
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


def table_pairs(model: nn.Module, x: Tensor) -> dict[str, Pair]:
    """Return ours and captum's for many rows at once."""
    peer = captum.attr.FeatureAblation(model)
    return {
        "feature_ablation, 1000 rows x 10": (
            lambda: occlusion.feature_ablation(model, x, 0),
            lambda: peer.attribute(x, target=0),
            15,
        )
    }


def resnet_pairs(model: nn.Module, x: Tensor) -> dict[str, Pair]:
    """Return LRP beside zennit's, and beside three forward and backward passes."""
    canonizers = [zennit.torchvision.ResNetCanonizer()]
    composite = zennit.composites.EpsilonPlus(canonizers=canonizers)
    one = torch.eye(1000)[:1]

    def theirs() -> None:
        leaf = x.clone().requires_grad_()
        with composite.context(model) as changed:
            torch.autograd.grad(changed(leaf), leaf, one)

    return {
        "lrp, ResNet-18": (lambda: relevance.lrp(model, x, 0, rule="epsilon_plus"), theirs, 7),
        "lrp, ResNet-18; peer: 3 x (forward, backward)": (
            lambda: relevance.lrp(model, x, 0, rule="epsilon_plus"),
            lambda: _passes(model, x, 3),
            7,
        ),
    }


def vit_pairs(model: nn.Module, x: Tensor) -> dict[str, Pair]:
    """Return LRP through attention beside three forward and backward passes."""
    return {
        "lrp, ViT-tiny; peer: 3 x (forward, backward)": (
            lambda: relevance.lrp(model, x, 0),
            lambda: _passes(model, x, 3),
            7,
        )
    }


def _passes(model: nn.Module, x: Tensor, n: int) -> None:
    for _ in range(n):
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)


def forest_pairs(model: nn.Module, x: Tensor) -> dict[str, Pair]:
    """Return ours and shap's of a forest of 100 trees; the model and x are not used."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 10))
    y = rows[:, 0] * rows[:, 1] + np.sin(3 * rows[:, 2]) + 0.1 * rng.normal(size=1000)
    forest = RandomForestRegressor(100, max_depth=8, random_state=0).fit(rows, y)
    some = rows[:100]

    def theirs(background: Any, kind: str) -> Callable[[], Any]:
        peer = shap.TreeExplainer(forest, background, feature_perturbation=kind)
        return lambda: peer.shap_values(rows)

    return {
        "tree_shap, 100 trees x 1000 rows": (
            lambda: trees.tree_shap(forest, rows),
            theirs(None, "tree_path_dependent"),
            3,
        ),
        "tree_shap, interventional, 100 rows of background": (
            lambda: trees.tree_shap(forest, rows, background=some),
            theirs(some, "interventional"),
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
    table = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 3))
    picture = torch.randn(1, 3, 224, 224)
    for model, x, make in (
        (net.model, photo, pairs),
        (small, torch.randn(1, 12), shapley_pairs),
        (table, torch.randn(1000, 10), table_pairs),
        (torchvision.models.resnet18().eval(), picture, resnet_pairs),
        (timm.create_model("vit_tiny_patch16_224").eval(), picture, vit_pairs),
        (small, torch.randn(1, 12), forest_pairs),
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
