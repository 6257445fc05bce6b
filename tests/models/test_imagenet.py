"""The pretrained network is the one it says it is, and nothing in its file is executed."""

import io
import pickle
import re

import numpy as np
import pytest
import skimage.data
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from tests.test_contract import Snapshot
from xailab.core import capture
from xailab.core.layers import last_maps
from xailab.data import photos, read_member
from xailab.models import imagenet, pretrained
from xailab.models.imagenet import normalize, preprocess, unnormalize


@pytest.fixture(scope="module")
def net():
    return pretrained("efficientnet_lite0")


@torch.no_grad()
def test_logits_equal_those_of_the_packages_own_architecture(net):
    oracle = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(io.BytesIO(read_member("efficientnet_lite0")), weights_only=True)
    oracle.load_state_dict(weights)
    x = torch.cat([net.preprocess(image) for image in photos().images[:3]])
    ours, theirs = net.model(x), oracle.eval()(x)
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        ("chelsea", {"tiger cat": 0.39, "Egyptian cat": 0.36, "tabby": 0.17}),
        ("coffee", {"espresso": 0.95}),
        ("camera", {"tripod": 0.94}),
    ],
)
def test_well_known_photos(net, photo, expected):
    found = net.top(net.preprocess(getattr(skimage.data, photo)()), k=len(expected))
    assert [name.split(",")[0] for _, name, _ in found] == list(expected)
    assert [probability for _, _, probability in found] == pytest.approx(
        list(expected.values()), abs=0.006
    )
    assert all(net.classes[index] == name for index, name, _ in found)


def test_the_card_states_what_is_measured(net):
    stated = re.findall(r"`?([a-z]+)\(\)`: (.*?)[;\n]", net.card.replace(".\n", "\n"))
    assert [photo for photo, _ in stated] == ["chelsea", "coffee"]
    for photo, labels in stated:
        said = [one.rsplit(" ", 1) for one in labels.split(", ")]
        found = net.top(net.preprocess(getattr(skimage.data, photo)()), k=len(said))
        measured = [[name.split(",")[0], f"{p:.2f}".lstrip("0")] for _, name, p in found]
        assert measured == said


@torch.no_grad()
def test_eighteen_of_twenty_photos(net):
    data = photos()
    said = [net.model(net.preprocess(image)).argmax().item() for image in data.images]
    assert len(said) == 20
    assert (np.array(said) == data.y).sum() == 18
    assert "18 of the 20 photos" in net.card


def test_the_last_maps(net):
    x = net.preprocess(skimage.data.chelsea())
    with torch.no_grad(), capture(net.model, ["bn2", "global_pool"]) as kept:
        logits = net.model(x)
    assert kept["bn2"].shape == (1, 1280, 7, 7)
    assert kept["bn2"].min() == 0
    assert kept["bn2"].max() <= 6
    torch.testing.assert_close(net.model.classifier(kept["bn2"].mean((2, 3))), logits)
    assert last_maps(net.model, x) == "bn2"


def test_what_comes_with_it(net):
    assert len(net.classes) == 1000
    assert len(set(net.classes)) == 999  # a crane is a bird, and a machine
    assert not any(module.training for module in net.model.modules())
    assert sum(parameter.numel() for parameter in net.model.parameters()) == 4_652_008
    assert "4.65 million parameters" in net.card
    for part in ("**What.**", "**Trained on.**", "**Preprocessing.**", "**Measured.**"):
        assert part in net.card


def test_another_name():
    with pytest.raises(ValueError, match=r"no pretrained network 'resnet'.*efficientnet_lite0"):
        pretrained("resnet")


# --- a file that is not what it should be


class Malware:
    """Opens a file for writing when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_the_weights_file_is_not_executed(tmp_path, monkeypatch):
    trace, content = tmp_path / "trace", io.BytesIO()
    torch.save({"conv_stem.weight": Malware(trace)}, content)
    monkeypatch.setattr(imagenet, "read_member", lambda name: content.getvalue())
    with pytest.raises(pickle.UnpicklingError, match="open"):
        pretrained("efficientnet_lite0")
    assert not trace.exists()
    torch.load(io.BytesIO(content.getvalue()), weights_only=False)["conv_stem.weight"].close()
    assert trace.exists(), "the trap would not have worked"


@pytest.mark.parametrize("change", [lambda w: w.popitem(), lambda w: w.update(more=torch.ones(1))])
def test_another_number_of_tensors_is_refused(monkeypatch, change):
    weights = torch.load(io.BytesIO(read_member("efficientnet_lite0")), weights_only=True)
    change(weights)
    content = io.BytesIO()
    torch.save(weights, content)
    monkeypatch.setattr(imagenet, "read_member", lambda name: content.getvalue())
    with pytest.raises(ValueError, match="zip"):
        pretrained("efficientnet_lite0")


# --- preprocessing


def test_pixels_by_hand():
    image = np.full((300, 400, 3), (0, 127, 255), dtype=np.uint8)
    x = preprocess(image)
    assert x.shape == (1, 3, 224, 224)
    assert x.dtype == torch.float32
    assert [channel.unique().tolist() for channel in x[0]] == [[-127 / 128], [0.0], [1.0]]


def test_the_short_side_and_the_center():
    # 512 x 768, the middle third (columns 256..511) white: after 256 x 384 the crop is 224 wide
    image = np.zeros((512, 768, 3), dtype=np.uint8)
    image[:, 256:512] = 255
    row = preprocess(image)[0, 0, 112]
    white = torch.nonzero(row > 0).flatten()
    assert (white.min().item(), white.max().item()) == (48, 175)  # 128 columns in the middle


@pytest.mark.parametrize(
    "image",
    [
        np.full((60, 50), 200, np.uint8),
        np.full((60, 50, 1), 200, np.uint8),
        np.full((60, 50, 3), 200, np.uint8),
        np.full((60, 50, 4), (200, 200, 200, 255), np.uint8),
        np.full((60, 50), 200 * 257, np.uint16),
        np.full((50, 60, 3), 200, np.uint8)[:, ::-1],
        np.full((1, 60, 3), 200, np.uint8),
        Image.new("L", (50, 60), 200),
        Image.new("RGBA", (50, 60), (200, 200, 200, 255)),
        Image.new("P", (50, 60), 0),
        Image.fromarray(np.full((60, 50), 200 * 257, np.uint16)),
    ],
)
def test_all_kinds_of_photos(image):
    value = 0 if isinstance(image, Image.Image) and image.mode == "P" else 200
    x = preprocess(image)
    assert x.shape == (1, 3, 224, 224)
    assert x.unique().tolist() == [(value - 127) / 128]


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((60, 50, 3)), TypeError, "must be uint8 with values 0..255, got float64"),
        (np.zeros((60, 50, 3), np.int64), TypeError, "int64"),
        (np.zeros((60, 50), bool), TypeError, "bool"),
        (torch.zeros(3, 60, 50), TypeError, "PIL image or a uint8 array, got Tensor"),
        ("cat.jpg", TypeError, "got str"),
        (np.zeros((3, 60, 50), np.uint8), ValueError, r"\(H, W, 3\), got \(3, 60, 50\)"),
        (np.zeros((1, 60, 50, 3), np.uint8), ValueError, r"got \(1, 60, 50, 3\)"),
        (np.zeros(50, np.uint8), ValueError, r"got \(50,\)"),
        (np.zeros((0, 50, 3), np.uint8), ValueError, r"got \(0, 50, 3\)"),
    ],
)
def test_what_is_no_photo(image, error, words):
    with pytest.raises(error, match=words):
        preprocess(image)


def test_photos_from_a_phone_stand_upright_and_what_is_clear_is_white():
    exif, tall = Image.Exif(), np.zeros((60, 30, 3), np.uint8)
    exif[0x0112], tall[:30] = 6, 255
    Image.fromarray(tall).rotate(90, expand=True).save(file := io.BytesIO(), "PNG", exif=exif)
    x = preprocess(Image.open(file))
    assert torch.equal(x, preprocess(tall))
    assert x[0, :, 0].unique().tolist() == [1.0]  # the upper half is white
    assert preprocess(Image.new("RGBA", (60, 50))).unique().tolist() == [1.0]
    with pytest.raises(ValueError, match="mode 'F'"):
        preprocess(Image.new("F", (60, 50)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_precision_shows_the_same_picture(dtype):
    images = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    assert (unnormalize(normalize(images).to(dtype)) == images).all()


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.zeros((3, 4, 4)), TypeError, "ndarray"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, "uint8"),
        (torch.zeros(4, 4, 3), ValueError, r"\(..., 3, H, W\), got \(4, 4, 3\)"),
        (torch.full((3, 4, 4), torch.nan), ValueError, "NaN"),
    ],
)
def test_what_cannot_be_shown(x, error, words):
    with pytest.raises(error, match=words):
        unnormalize(x)


def test_normalizing_and_back():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    images[..., 1] = 255 - images[..., 1]
    x = normalize(images)
    assert x.shape == (1, 3, 16, 16)
    assert x[0, :, 0, 1].tolist() == [-126 / 128, 127 / 128, -126 / 128]
    assert (unnormalize(x) == images).all()
    assert torch.equal(normalize(images[0]), x)
    assert (unnormalize(x[0]) == images[0]).all()
    assert torch.equal(normalize(images[:, ::-1]), x.flip(2))


@pytest.mark.filterwarnings("error")
def test_normalizing_does_not_touch_the_image():
    image = np.asarray(Image.new("RGB", (4, 4)))  # cannot be written to
    normalize(image).fill_(1)
    assert image.max() == 0


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, "float32"),
        (torch.zeros(4, 4, 3), TypeError, "Tensor"),
        (np.zeros((4, 4), np.uint8), ValueError, r"got \(4, 4\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), ValueError, r"got \(0, 4, 4, 3\)"),
        (np.zeros((1, 3, 4, 4), np.uint8), ValueError, r"\(N, H, W, 3\), got \(1, 3, 4, 4\)"),
    ],
)
def test_what_cannot_be_normalized(images, error, words):
    with pytest.raises(error, match=words):
        normalize(images)


def test_asking_for_the_top_leaves_nothing_behind(net):
    x = net.preprocess(skimage.data.coffee())
    wanted = net.top(x, 2)
    net.model.train()
    before = Snapshot(net.model, x)
    try:
        assert net.top(x, 2) == wanted
        before.check()
    finally:
        net.model.eval()
    with pytest.raises(ValueError, match="one image at a time, got 2"):
        net.top(torch.cat([x, x]))
    assert net.top(x, np.int64(2)) == wanted
    for k, error in ((0, ValueError), (1001, ValueError), (1.0, TypeError)):
        with pytest.raises(error, match="k "):
            net.top(x, k)
    assert net.picture(x).shape == (1, 224, 224, 3)
    assert net.picture(x).dtype == np.uint8
