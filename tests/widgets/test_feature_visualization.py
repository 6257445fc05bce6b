"""The growth browser shows the frame the slider points at, and four of them where none slides."""

import pytest
import torch

from xailab import widgets
from xailab.widgets.feature_visualization import Frame, explorer, growth_browser, strip


@pytest.fixture
def frames():
    pictures = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return [Frame(8 * i, picture, 1.5 * i) for i, picture in enumerate(pictures)]


def test_the_slider_starts_at_the_end_and_redraws(frames):
    box = explorer(frames, title="<channel> 66")
    slider, image, words = box.children
    last = bytes(image.value)
    assert last.startswith(b"\x89PNG")
    assert "step 48: 9.0" in words.value
    assert "&lt;channel&gt;" in words.value  # a title is text, not markup
    slider.value = 2
    assert "step 16: 3.0" in words.value
    assert bytes(image.value) != last
    slider.value = 6
    assert bytes(image.value) == last


def test_the_control_is_labelled(frames):
    slider = explorer(frames, title="channel 66").children[0]
    assert slider.description == "Step"
    assert "arrow keys" in slider.tooltip


def test_four_frames_stand_in(frames, capsys):
    words = strip(frames, title="channel 66").alt
    for step, score in ((0, 0.0), (16, 3.0), (32, 6.0), (48, 9.0)):
        assert f"step {step}: {score}" in words
    assert "4 pictures" in words
    assert "2 pictures" in strip(frames[:2], title="channel 66").alt
    growth_browser(frames, title="channel 66")
    assert capsys.readouterr().out.startswith("In words: channel 66")


def test_bad_frames_are_named(frames):
    for draw in (strip, explorer):
        with pytest.raises(ValueError, match="at least two frames are needed, got 1"):
            draw(frames[:1], title="")
        with pytest.raises(ValueError, match=r"must rise, got \[8, 0\]"):
            draw(frames[1::-1], title="")


def test_it_is_reached_from_the_package():
    assert widgets.growth_browser is growth_browser
