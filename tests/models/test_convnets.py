"""The arithmetic agrees with torch, the networks with their papers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xailab.models import alexnet, conv_output_size, resnet
from xailab.models.convnets import ResidualBlock


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        (28, {"kernel": 5}, 24),  # 28 - 5 + 1
        (28, {"kernel": 5, "padding": 2}, 28),
        (5, {"kernel": 2, "stride": 2}, 2),  # windows at 0-1 and 2-3; the last pixel has none
        (224, {"kernel": 11, "stride": 4, "padding": 2}, 55),  # AlexNet's first layer
        (7, {"kernel": 3, "dilation": 3}, 1),  # the window reaches from 0 to 6
    ],
)
def test_sizes_worked_out_on_paper(size, options, expected):
    assert conv_output_size(size, **options) == expected


@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 5),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 3),
)
@settings(max_examples=300, deadline=None)
def test_torch_has_the_same_size_or_refuses_too(size, kernel, stride, padding, dilation):
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    layer = nn.Conv1d(1, 1, kernel, **options)
    try:
        expected = layer(torch.zeros(1, 1, size)).shape[-1]
    except RuntimeError:
        with pytest.raises(ValueError, match="does not fit"):
            conv_output_size(size, kernel, **options)
    else:
        assert conv_output_size(size, kernel, **options) == expected


@given(size=st.integers(2, 40), kernel=st.integers(2, 5), stride=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_poolings_follow_the_same_rule(size, kernel, stride):
    if kernel <= size:
        pooled = nn.MaxPool1d(kernel, stride)(torch.zeros(1, 1, size))
        assert conv_output_size(size, kernel, stride=stride) == pooled.shape[-1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": 0, "kernel": 1}, "size: expected at least 1, got 0"),
        ({"size": 9, "kernel": 0}, "kernel: .* got 0"),
        ({"size": 9, "kernel": 2, "stride": 0}, "stride: .* got 0"),
        ({"size": 9, "kernel": 2, "padding": -1}, "padding: .* at least 0, got -1"),
        ({"size": 3, "kernel": 3, "dilation": 2}, "window 5 wide does not fit into 3 pixels"),
    ],
)
def test_what_is_no_window_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        conv_output_size(**options)


@pytest.mark.parametrize(("channels", "size", "side"), [(3, 32, 4), (1, 28, 3), (3, 8, 1)])
def test_alexnet_fits_its_pictures(channels, size, side):
    net = alexnet(channels=channels, size=size, n_classes=7).eval()
    assert net(torch.rand(2, channels, size, size)).shape == (2, 7)
    convolutions = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 192, 384, 256, 256]
    first_linear = next(layer for layer in net if isinstance(layer, nn.Linear))
    assert first_linear.in_features == 256 * side**2


def test_pixels_are_integers_of_any_kind():
    assert conv_output_size(np.int64(28), torch.tensor(5)) == 24
    for size in (28.5, "28", True):
        with pytest.raises(TypeError, match="size must be an integer"):
            conv_output_size(size, 5)


def test_alexnet_refuses_what_is_too_small_for_it():
    with pytest.raises(ValueError, match="does not fit"):
        alexnet(size=7)


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_resnets_have_the_sizes_of_the_papers_table_6(depth, millions):
    parameters = sum(p.numel() for p in resnet(depth=depth).parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.03 if depth == 110 else 0.006)


@pytest.mark.parametrize(("channels", "size", "left"), [(3, 32, 8), (1, 28, 7)])
def test_resnet_halves_the_side_twice(channels, size, left):
    net = resnet(depth=8, channels=channels).eval()
    x = torch.rand(2, channels, size, size)
    assert net(x).shape == (2, 10)
    assert net[:6](x).shape == (2, 64, left, left)


@pytest.mark.parametrize("depth", [2, 10, 19, -4])
def test_resnet_refuses_other_depths(depth):
    with pytest.raises(ValueError, match=f"6 n \\+ 2.*got {depth}"):
        resnet(depth=depth)


def test_a_block_without_weights_hands_its_input_on():
    """The shortcut on paper: every second pixel, the new channels 0."""
    block = ResidualBlock(1, 2).eval()
    for weight in (block.conv1.weight, block.conv2.weight):
        nn.init.zeros_(weight)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert block(x).tolist() == [[[[0.0, 2.0], [8.0, 10.0]], [[0.0, 0.0], [0.0, 0.0]]]]


def test_a_block_with_weights_adds_what_they_compute():
    block = ResidualBlock(1, 1).eval()
    for layer, center in ((block.conv1, 3.0), (block.conv2, -0.5)):
        nn.init.zeros_(layer.weight)
        layer.weight.data[0, 0, 1, 1] = center
    kept = 1 / (1 + block.bn1.eps)  # two batch norms that have seen nothing yet
    out = block(torch.tensor([[[[2.0, -2.0]]]]))
    # 2 + (-0.5 * 3 * 2) = -1 -> 0;  -2 + (-0.5 * relu(-6)) = -2 -> 0
    assert out.tolist() == [[[[0.0, 0.0]]]]
    block.conv2.weight.data[0, 0, 1, 1] = 0.5
    torch.testing.assert_close(block(torch.tensor([[[[2.0]]]])).item(), 2 + 3 * kept)


@pytest.mark.parametrize("make", [alexnet, lambda: resnet(depth=8)])
def test_they_learn(make):
    """Dark or bright is soon learnt, and no weight is cut off from its gradient."""
    torch.manual_seed(0)
    y = torch.arange(16) % 2
    net, x = make(), torch.rand(16, 3, 32, 32) + 2 * y.reshape(-1, 1, 1, 1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("make", [alexnet, resnet])
def test_every_relu_is_a_module(make):
    """Methods that replace ReLUs (guided backprop) find them: none is hidden in a function."""
    net = make().eval()
    count = sum(isinstance(module, nn.ReLU) for module in net.modules())
    seen = []
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda *_: seen.append(1))
    net(torch.rand(1, 3, 32, 32))
    assert len(seen) == count == (7 if make is alexnet else 19)
