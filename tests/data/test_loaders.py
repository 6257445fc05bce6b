import pytest

from xailab.data import entries, load, loaders


def test_every_data_set_has_a_loader_and_no_other():
    assert set(loaders._LOADERS) == {e.name for e in entries() if e.kind != "weights"}


def test_weights_are_not_loaded_as_data():
    with pytest.raises(ValueError, match="holds weights: its card says how"):
        load("efficientnet_lite0")


def test_unknown_name():
    with pytest.raises(ValueError, match="did you mean iris"):
        load("irs")


def test_card_comes_with_the_data():
    assert load("iris").card.startswith("# iris")
