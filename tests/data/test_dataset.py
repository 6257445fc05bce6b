import numpy as np
import pandas as pd
import pytest

from xailab.data.dataset import Dataset


def table(X):
    return Dataset("iris", X=X, y=np.array([0, 1, 2]), names=["a"], extra={"k": np.arange(3)})


def test_take_cuts_every_part():
    images = Dataset(
        "digits", images=np.arange(3)[:, None, None], y=np.arange(3), names=list("abc")
    )
    taken = images.take([2, 0])
    assert taken.names == ["c", "a"]
    assert taken.y.tolist() == [2, 0]
    assert taken.images.ravel().tolist() == [2, 0]


@pytest.mark.parametrize("X", [np.arange(3.0)[:, None], pd.DataFrame({"a": [0.0, 1, 2]})])
def test_take_by_mask_keeps_the_kind_of_table(X):
    taken = table(X).take(np.array([True, False, True]))
    assert type(taken.X) is type(X)
    assert np.asarray(taken.X).ravel().tolist() == [0, 2]
    assert taken.extra["k"].tolist() == [0, 2]
    assert len(taken) == 2


def test_take_of_texts():
    data = Dataset("sms", texts=["hi", "win", "bye"], y=np.array([0, 1, 0]), names=[])
    taken = data.take(data.y == 0)
    assert taken.texts == ["hi", "bye"]
    assert taken.y.tolist() == [0, 0]
    assert repr(taken) == "Dataset('sms': 2 texts; y: none)"


def test_take_of_a_list_of_images_without_labels():
    data = Dataset(
        "skimage_photos", images=[np.zeros((2, 2, 3)), np.ones((3, 3, 3))], y=None, names=["p", "q"]
    )
    taken = data.take([1])
    assert taken.images[0].shape == (3, 3, 3)
    assert taken.y is None


def test_image_by_name():
    data = Dataset(
        "photos", images=[np.zeros((2, 2, 3)), np.ones((2, 2, 3))], y=None, names=["yurt", "drum"]
    )
    assert data.image("drum").min() == 1
    with pytest.raises(ValueError, match="no image 'drums'; there are drum"):
        data.image("drums")
    with pytest.raises(ValueError, match="has no images"):
        table(np.zeros((3, 1))).image("drum")
