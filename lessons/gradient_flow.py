# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gradient flow: why deep networks did not learn
#
# **Question:** A network with 30 layers learns nothing at all: where did its gradient go, and what brings it back?
#
# **You will be able to**
# - compute the gradient of a chain as a product of slopes, and say when it vanishes or explodes
# - measure, layer by layer, how much gradient arrives in a real network
# - repair a broken curve by initialization, clipping, batch norm or skips, and say which repairs what
# - take a residual network apart into its paths, and measure which of them carry it
# - show four cases in which the norm of a gradient misleads
#
# **You need:** [[backprop]]
#
# **Time:** [[time]]; the cells run in under a minute · **Difficulty:** 2 of 5

# %%
from math import comb
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from xailab import data, plots, widgets
from xailab.core import capture
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.foundations import gradient_flow as flow

# %% [markdown]
# The data are small on purpose: 1,797 handwritten digits of 8 x 8 pixels. A network with **one** hidden
# layer gets more than nine in ten right. What happens with thirty?

# %%
digits = data.load("digits")
X = torch.tensor(digits.images, dtype=torch.float32).flatten(1)  # (1797, 64)
X, y = (X - X.mean()) / X.std(), torch.tensor(digits.y)
order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
train, test = order[:1400], order[1400:]
print(X.shape, f"{len(train)} to train on, {len(test)} held out")

# %% [markdown]
# Five networks with 30 hidden layers of 48 ReLUs. They differ in one thing each. The picture shows how
# much gradient arrives at each layer before the first step, on one pair of axes. Read it from right
# to left, as the gradient travels: it starts at layer 30.


# %%
def thirty(init="default", activation="relu", **options):
    """A network of 30 hidden layers for the digits."""
    return flow.deep_mlp(30, 48, activation, init=init, n_inputs=64, n_outputs=10, **options)


kinds = {
    "as PyTorch starts it": {},
    "Kaiming's start": {"init": "kaiming"},
    "batch norm": {"norm": "batch"},
    "skips": {"residual": True},
    "skips, batch norm": {"residual": True, "norm": "batch"},
}

# %% tags=["readme-remedies"]
first = train[:256]  # one large batch for all measurements
layers = np.arange(1, 31)


def norms_of(net):
    """Norm of the weight gradient of each hidden layer, (30,)."""
    norms = flow.gradient_norms(net, X[first], y[first], F.cross_entropy)
    return list(norms.values())[:30]  # without the head


curves = {name: norms_of(thirty(**options)) for name, options in kinds.items()}
plots.curve(
    layers,
    curves,
    title="One network of five gets almost no gradient to its first layer",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %% [markdown]
# The lowest curve is what you get from `nn.Linear` and `nn.ReLU` if you change nothing. From layer 30
# to layer 1 it loses ten powers of ten. In this lesson you compute such curves, find out what
# bends them, and end with what the picture does *not* tell.
#
# ## 1. A chain on paper: slopes multiply
#
# Take the deepest network that fits on paper: layers of one unit. Each multiplies by a weight $w$
# and applies a function $\phi$:
#
# $$h_0 = x, \qquad z_l = w\,h_{l-1}, \qquad h_l = \phi(z_l)$$
#
# If the input moves a little, $h_1$ moves by $w\,\phi'(z_1)$ times as much, $h_2$ by $w\,\phi'(z_2)$ times
# *that*, and so on: **the slopes multiply**.
#
# $$\frac{\partial h_D}{\partial x} = \prod_{l=1}^{D} w\,\phi'(z_l)$$
#
# $D$ is the number of layers. Here are four layers with $\phi$ = sigmoid and $w = 1$, starting at $x = 0$. The slope of the sigmoid is
# $h(1-h)$, as in [[backprop]].

# %%
# NBVAL_CHECK_OUTPUT
h, product, rows = 0.0, 1.0, []
for layer in range(1, 5):
    h = 1 / (1 + np.exp(-1.0 * h))  # the weight is 1
    slope = 1.0 * h * (1 - h)
    product *= slope
    rows.append((layer, f"{h:.3f}", f"{slope:.3f}", f"{product:.6f}"))
plots.table(rows, ["layer", "h", "slope", "product so far"], title="A chain of four sigmoids")

# %% [markdown]
# The first slope is exactly 1/4: the steepest a sigmoid ever gets. So every layer takes away at least
# three quarters, and after four layers under 1/256 is left. Ask PyTorch:

# %%
x = torch.zeros((), dtype=torch.float64, requires_grad=True)
h4 = x
for _ in range(4):
    h4 = torch.sigmoid(1.0 * h4)
(slope_of_chain,) = torch.autograd.grad(h4, x)
print(f"by hand {product:.6f}   by autograd {slope_of_chain.item():.6f}")
assert abs(slope_of_chain.item() - product) < 1e-12

# %% [markdown]
# With thirty layers, at best, and with other slopes:

# %%
# NBVAL_CHECK_OUTPUT
for slope in (0.25, 0.5, 0.9, 1.0, 1.1, 1.5):
    print(f"{slope:4} multiplied 30 times is {slope**30:.1e}")

# %% [markdown]
# Only 1 stays 1. Below it the gradient **vanishes**, above it **explodes**. Three of the four remedies of
# this lesson do the same thing: they keep the factor of a layer close to 1.
#
# ### Exercise: the slope of a chain of tanh (code, 6 minutes)
#
# Each layer has its own weight: $h_l = \tanh(w_l h_{l-1})$. Return $\partial h_D / \partial x$ as a product
# of slopes, without autograd. The slope of tanh is $1 - h^2$. `hint("gradient_flow.chain")` helps.


# %% tags=["exercise"]
def chain_slope(weights, x):
    """Derivative of tanh(w_D ... tanh(w_2 tanh(w_1 x))) by x; weights in the order w_1, w_2, ..."""
    ### BEGIN SOLUTION
    h, product = x, 1.0
    for w in weights:
        h = np.tanh(w * h)
        product *= w * (1 - h**2)
    return product
    ### END SOLUTION


# %%
check("gradient_flow.chain", chain_slope)

# %% [markdown]
# ## 2. Activation functions and their slopes
#
# Which factors can a layer contribute? Look at the functions first, then at their slopes. Two are
# relatives of ReLU: *leaky ReLU* keeps 1% of a negative number, *GELU* rounds the corner off.

# %%
z = (torch.arange(-40, 41, dtype=torch.float64) / 10).requires_grad_()
names = ["sigmoid", "tanh", "relu", "leaky_relu", "gelu"]
values = {name: flow.ACTIVATIONS[name]()(z) for name in names}
slopes = {name: torch.autograd.grad(a.sum(), z)[0] for name, a in values.items()}
plots.curve(
    z.detach(),
    {name: a.detach() for name, a in values.items()},
    title="Two of them flatten on both sides, three on the left only",
    xlabel="z",
    ylabel="activation",
)

# %%
plots.curve(
    z.detach(),
    slopes,
    title="The slope of a sigmoid never exceeds a quarter",
    xlabel="z",
    ylabel="slope of the activation",
)

# %%
s, t = values["sigmoid"], values["tanh"]
torch.testing.assert_close(slopes["sigmoid"], s * (1 - s))  # the formulas of lesson backprop
torch.testing.assert_close(slopes["tanh"], 1 - t**2)
torch.testing.assert_close(slopes["relu"], (z > 0).double())
for name in names:
    low, high = slopes[name].aminmax()
    print(f"{name:11} slopes from {low.item():.2f} to {high.item():.2f}")

# %% [markdown]
# A ReLU has the slope 1 wherever it is on. So many texts say: *ReLU solves the vanishing gradient.* The
# lowest curve of this lesson's first picture was made of ReLUs. Its layers lost their gradient all the same: the
# factor of a layer is slope **times weights**, and half of the slopes are 0.
#
# ## 3. Thirty layers, measured
#
# In a network with many units, the factor of a layer is a matrix. The gradient that comes down, a vector,
# is multiplied by one matrix after the other. Instead of following single numbers, take the length (the
# norm) of what arrives at each layer's weights:
#
# $$g_l = \left\lVert \frac{\partial L}{\partial W_l} \right\rVert = \sqrt{\text{sum of all squared entries}}$$
#
# $L$ is the loss of a batch, $W_l$ the weight matrix of layer $l$. By [[backprop]], $\partial L / \partial W_l$ is
# what comes down from above times the numbers that come in from below. By hand:

# %%
net = thirty()
loss = F.cross_entropy(net(X[first]), y[first])
weights = [layer.linear.weight for layer in net[:30]]  # layer 1: (48, 64), others (48, 48)
grads = torch.autograd.grad(loss, weights)
by_hand = [grad.square().sum().sqrt().item() for grad in grads]
print(f"layer 30 {by_hand[29]:.1e}   layer 15 {by_hand[14]:.1e}   layer 1 {by_hand[0]:.1e}")

# %% [markdown]
# The same from `xailab`, and from what most training loops do: `.backward()`, then read `.grad`. The
# second leaves a gradient in every parameter, where the next step of a training would find it. The first
# works on a copy of the network, which costs a little time.

# %%
np.testing.assert_allclose(norms_of(net), by_hand, rtol=1e-5)
F.cross_entropy(net(X[first]), y[first]).backward()
usual = [weight.grad.norm().item() for weight in weights]
np.testing.assert_allclose(norms_of(net), usual, rtol=1e-5)
left = sum(parameter.grad is not None for parameter in net.parameters())
net.zero_grad()
print(f"left behind by .backward(): {left} gradients; by gradient_norms: 0")


# %%
def milliseconds(function):
    times = []
    for _ in range(5):
        began = perf_counter()
        function()
        times.append(perf_counter() - began)
    return f"{1000 * min(times):.0f}"


def usual_way():
    F.cross_entropy(net(X[first]), y[first]).backward()
    net.zero_grad()


rows = [
    ("xailab, without a trace", milliseconds(lambda: norms_of(net))),
    (".backward() and zero_grad()", milliseconds(usual_way)),
]
plots.table(rows, ["way", "milliseconds"], title="One measurement of 30 layers, best of five")

# %% [markdown]
# ### Predict, then run (2 minutes)
#
# Now 30 layers of **sigmoids**. By how many powers of ten is the gradient at layer 1 smaller than that
# at layer 30? Think of 1/4, and that weights count too. Write a number: 3 means a thousand times smaller.

# %% tags=["exercise"]
### BEGIN SOLUTION
powers_of_ten = 18
### END SOLUTION

# %%
predict("gradient_flow.powers", powers_of_ten)


# %%
def norms_in_double(**options):
    """The same in float64: float32 takes the square of 1e-25 for 0."""
    net = thirty(**options).double()
    norms = flow.gradient_norms(net, X[first].double(), y[first], F.cross_entropy)
    return list(norms.values())[:30]


sigmoid = norms_in_double(activation="sigmoid")
reveal("gradient_flow.powers", round(np.log10(sigmoid[-1] / sigmoid[0])))

# %%
plots.curve(
    layers,
    {
        "sigmoid": sigmoid,
        "tanh": norms_in_double(activation="tanh"),
        "ReLU": norms_in_double(),
        "tanh, gain 4": norms_in_double(activation="tanh", init=4.0),
        "ReLU, gain 2": norms_in_double(init=2.0),
    },
    title="Three vanish, two explode: straight lines, since factors multiply",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %% [markdown]
# On a logarithmic axis a constant factor is a straight line, and its tilt is the factor of one layer. The
# last two have larger weights: of variance $4^2/n$ and $2^2/n$, where $n$ is the number of units. With tanh
# the gradient grows on its way down. With ReLU the numbers also grow on the way **up** (tanh would cut them
# off at 1). At each layer one factor is as much larger as the other is smaller, so their product is flat,
# and high from end to end: the loss itself is enormous.

# %%
for init in ("default", 2.0):
    exploded = thirty(init=init)
    loss = F.cross_entropy(exploded(X[first]), y[first]).item()
    print(f"init {init!s:8} loss before the first step: {loss:.3g}")

# %% [markdown]
# A guess among ten classes costs log 10 = 2.3. And what does a vanished gradient mean for learning? Train for a few epochs
# and look at how far each layer has moved from where it started.


# %%
def fit(net, *, epochs=10, rate=0.001, method=torch.optim.Adam):
    """Train on the digits, 100 rows a step; return the loss of every step."""
    shuffle, losses = torch.Generator().manual_seed(0), []
    optimizer = method(net.parameters(), lr=rate)
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train), generator=shuffle)].split(100):
            loss = F.cross_entropy(net(X[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


# %%
trained = {"as PyTorch starts it": thirty()}
net = trained["as PyTorch starts it"]
before = [layer.linear.weight.clone() for layer in net[:30]]
losses = fit(net)
moved = [((a.linear.weight - b).norm() / b.norm()).item() for a, b in zip(net, before)]
print(f"loss from {losses[0]:.3f} to {losses[-1]:.3f}")
shares = net(X[test]).softmax(dim=1)
print(f"its probabilities differ between digits by at most {shares.std(dim=0).max().item():.0e}")
print(f"layer 1 moved by {moved[0]:.4%}, layer 30 by {moved[29]:.0%}")

# %% [markdown]
# That is guessing: it gives every digit the same answer. The first layers hardly move at all; they never
# find out what they should change. Adam divides each gradient by its recent size, which could make up for
# a small one, but adds $10^{-8}$ to what it divides by. Here the gradients are far below that.

# %%
quiz("gradient_flow.q_relu")

# %% [markdown]
# ## 4. Remedy 1: start with the right scale
#
# Go up the network first. A unit adds up $n$ products, $z = \sum_j w_j a_j$. If the weights are drawn
# around 0 with variance $v$, the mean square of $z$ is
#
# $$\overline{z^2} = n\,v\,\overline{a^2}$$
#
# A ReLU keeps the positive half, so $\overline{h^2} = \frac12\, n\, v\, \overline{a^2}$. To hand on the scale
# that came in, choose $v = 2/n$. That is Kaiming's start (He and others, 2015). Try it on one layer:

# %%
torch.manual_seed(0)
a, n = torch.randn(1000, 48), 48  # a layer's input: 1,000 rows of mean square 1
for name, variance in [("2/n", 2 / n), ("1/(3n), as nn.Linear", 1 / (3 * n)), ("4/n", 4 / n)]:
    W = torch.randn(48, 48) * variance**0.5
    h = (a @ W.T).relu()
    print(f"variance {name:21} mean square that comes out: {h.square().mean().item():.2f}")

# %% [markdown]
# `nn.Linear` draws evenly from $-1/\sqrt{n}$ to $1/\sqrt{n}$, which is variance $1/(3n)$, and keeps a sixth.
# Thirty such layers leave $6^{-30}$ of the mean square. First measured on the way up:

# %%
scales = {
    "variance 4/n": flow.activation_scales(thirty(init=2.0), X[first]),
    "Kaiming, 2/n": flow.activation_scales(thirty(init="kaiming"), X[first]),
    "nn.Linear": flow.activation_scales(thirty(), X[first]),
}
plots.curve(
    layers,
    {name: list(scale.values())[:30] for name, scale in scales.items()},
    title="With variance 2/n the numbers keep their scale on the way up",
    xlabel="layer",
    ylabel="root mean square of the activations",
    log=True,
)

# %% [markdown]
# The lowest curve does not fall forever: it meets the biases. `nn.Linear` draws those at random as well,
# and higher up the network hands on little but its own biases. How much of each layer's output still
# differs from digit to digit?

# %%
net = thirty()
with capture(net, ["layer1", "layer6", "layer12"]) as kept, torch.no_grad():
    net(X[first])
for name, h in kept.items():
    print(f"{name:8} {(h.std(dim=0).norm() / h.square().mean(dim=0).sqrt().norm()).item():.2%}")

# %% [markdown]
# What the input said is gone. The gradient runs down through the same weights, so it shrinks alike; no
# bias stops it. (The curve levels off below layer 5 because more comes in from below there.)

# %%
plots.curve(
    layers,
    {name: curves[name] for name in ("as PyTorch starts it", "Kaiming's start")},
    title="The start alone repairs the curve",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %% [markdown]
# ## 5. Remedy 2: clip what explodes
#
# Now the network whose gradient is too large. A plain step along it jumps out of the world:

# %%
shaken = thirty(init=2.0)
losses = fit(shaken, epochs=1, rate=0.01, method=torch.optim.SGD)
print("loss of the first steps:", [f"{loss:.3g}" for loss in losses[:4]])

# %% [markdown]
# Clipping keeps the direction of the step and limits its length. With all gradients together as one long
# vector $g$ and a limit $c$:
#
# $$g \leftarrow g \cdot \min\!\Big(1, \frac{c}{\lVert g \rVert}\Big)$$
#
# ### Exercise: clip a list of gradients (code, 8 minutes)
#
# You get a list of tensors, one for each parameter, of any shapes. **One** factor serves all of them,
# computed from their common norm. Return new tensors. A gradient of zeros has to survive: PyTorch adds
# $10^{-6}$ to the norm it divides by. `hint("gradient_flow.clip")` helps.


# %% tags=["exercise"]
def clip(grads, max_norm):
    """New tensors, all shortened by one factor so that their common norm is at most max_norm."""
    ### BEGIN SOLUTION
    norm = torch.stack([grad.square().sum() for grad in grads]).sum().sqrt()
    factor = min(1.0, max_norm / (norm.item() + 1e-6))
    return [grad * factor for grad in grads]
    ### END SOLUTION


# %%
check("gradient_flow.clip", clip)

# %% [markdown]
# The package has it, and PyTorch has `clip_grad_norm_`, which changes the gradients in place:

# %%
net = thirty(init=2.0)
F.cross_entropy(net(X[first]), y[first]).backward()
ours = flow.clip_by_norm([p.grad for p in net.parameters()], max_norm=1.0)
unclipped = nn.utils.clip_grad_norm_(net.parameters(), max_norm=1.0)
for grad, parameter in zip(ours, net.parameters()):
    torch.testing.assert_close(grad, parameter.grad, rtol=1e-5, atol=0)
print(f"norm before: {unclipped.item():.3g}")


# %%
class ClippedSGD(torch.optim.SGD):
    """Plain steps, none of them longer than rate * 1; keeps the norms before and after."""

    def step(self):
        parameters = self.param_groups[0]["params"]
        grads = [p.grad for p in parameters]
        clipped = flow.clip_by_norm(grads, 1.0)
        for p, grad in zip(parameters, clipped):
            p.grad = grad
        SEEN.append((nn.utils.get_total_norm(grads), nn.utils.get_total_norm(clipped)))
        super().step()


# %%
SEEN = []
calmed = thirty(init=2.0)
clipped_losses = fit(calmed, epochs=4, rate=0.01, method=ClippedSGD)
print("loss of some steps:", [f"{loss:.3g}" for loss in clipped_losses[::11]])

# %% [markdown]
# It survives, and the loss falls. But look at what was repaired: the length of the step. The curve
# over the layers is only shifted, and the network is as badly scaled as before:

# %%
exploding = np.array(norms_of(thirty(init=2.0)))
plots.curve(
    layers,
    {
        "exploding": exploding,
        "exploding, clipped": exploding / unclipped.item(),
        "Kaiming's start": curves["Kaiming's start"],
    },
    title="Clipping shifts the curve; it does not change the network",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %% [markdown]
# ## 6. Remedy 3: batch norm
#
# Instead of hoping that the scale stays right, set it right in every layer. Batch norm subtracts the
# mean of each unit over the batch and divides by its standard deviation (Ioffe and Szegedy, 2015):
#
# $$\hat z = \frac{z - \text{mean}(z)}{\sqrt{\text{var}(z) + 10^{-5}}}$$
#
# Then comes a scale and a shift that can be learned, 1 and 0 at the start.

# %%
z = 100 * torch.randn(256, 48) + 7  # badly scaled, (rows, units)
z_hat = (z - z.mean(dim=0)) / (z.var(dim=0, unbiased=False) + 1e-5).sqrt()
torch.testing.assert_close(z_hat, nn.BatchNorm1d(48)(z), rtol=1e-4, atol=1e-5)
print(
    f"root mean square before {z.square().mean().sqrt():.0f}, after {z_hat.square().mean().sqrt():.2f}"
)

# %%
with_norm = {name: curves[name] for name in ("as PyTorch starts it", "batch norm")}
plots.curve(
    layers,
    with_norm,
    title="Batch norm turns vanishing into a slow explosion",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %%
for init in ("default", "kaiming", 2.0):
    norms = norms_of(thirty(init, norm="batch"))
    growth = (norms[0] / norms[29]) ** (1 / 29)
    print(f"init {init!s:8} from layer to layer downward the gradient grows {growth:.2f}-fold")

# %% [markdown]
# Batch norm cancels whatever scale the weights have, so the tilt no longer depends on the start. It is not
# a flat line, though. With ReLUs, each layer makes the gradient about 1.2 times larger on the way down
# (Yang and others, 2019, derive
# $\sqrt{\pi/(\pi-1)} \approx 1.21$ for wide layers). For 5 layers nobody would notice.
#
# ## 7. Remedy 4: a way around
#
# The last remedy leaves the layers as they are and adds a **skip** around each: $h + F(h)$, where $F$ is
# the layer (He and others, 2016). In the chain on paper the factor of a layer becomes $1 + F'$:

# %%
# NBVAL_CHECK_OUTPUT
for slope in (0.0, 0.01, 0.1, 0.25):
    print(f"F' = {slope:<5} plain: {slope**30:.0e}   with skips: {(1 + slope) ** 30:.1f}")

# %% [markdown]
# Even a layer that passes nothing back cannot stop the gradient any more. But factors above 1 now
# multiply, and that is why the curve of *skips* at the top lies so high: with ReLUs, each block adds
# something positive, and the numbers grow upward. Batch norm inside the blocks keeps what they add in
# bounds. Here are both broken curves and all remedies on the same axes. The clipped one only looks repaired:

# %%
clipped = {"exploding": exploding, "exploding, clipped": exploding / unclipped.item()}
plots.curve(
    layers,
    curves | clipped,
    title="Two broken curves, and five after a remedy",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %% [markdown]
# Does a healthy curve mean that the network learns? Train all of them with the same optimizer, the same
# rate and the same batches:

# %%
for name, options in kinds.items():
    if name not in trained:
        trained[name] = thirty(**options)
        fit(trained[name])
scores = {name: flow.accuracy_without(net, X[test], y[test]) for name, net in trained.items()}
plots.bars(
    list(scores.values()),
    list(scores),
    title="Skips with batch norm learn best; batch norm alone hardly learns",
    xlabel="share of held-out digits classified right",
)

# %% [markdown]
# Batch norm brought plenty of gradient to every layer, and yet its network learned little. Section 9 comes
# back to this. First: what does a skip do, besides keeping the gradient alive?
#
# ## 8. What a residual block carries
#
# Multiply out the factors of three blocks with slopes $a$, $b$, $c$:
#
# $$(1+a)(1+b)(1+c) = 1 + (a+b+c) + (ab+ac+bc) + abc$$
#
# Eight terms, and each is a **path** from the input to the output: at each block it takes the skip (1) or the
# branch. One path goes through no branch, three through one, three through two, one through all. A plain
# chain has only the last one, $abc$. Veit, Wilber and Belongie (2016) asked: what if you remove a block?

# %%
# NBVAL_CHECK_OUTPUT
a, b, c = 0.5, 0.2, 0.1
by_length = [1, a + b + c, a * b + a * c + b * c, a * b * c]
print("by number of branches:", [round(part, 3) for part in by_length])
print(f"sum {sum(by_length):.3f}   product {(1 + a) * (1 + b) * (1 + c):.3f}")
print(
    f"what does not pass branch b: {(1 + a) * (1 + c):.3f} with skips, nothing in the plain chain"
)

# %% [markdown]
# ### Predict, then run (2 minutes)
#
# Take two of your trained networks, *skips, batch norm* and *Kaiming's start*. Remove one of the layers
# 2 to 30: what comes into it is handed on unchanged. Measure the share of held-out digits still
# right, and average over the 29 choices. Guess the two shares, in this order, as a list of
# two numbers from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
shares_right = [0.9, 0.1]
### END SOLUTION

# %%
predict("gradient_flow.drop_one", shares_right)

# %% [markdown]
# Removing a layer by hand is leaving it out of the loop:


# %%
def right_without(net, dropped):
    """Share of held-out digits right when one hidden layer is left out."""
    h = X[test]
    for i, layer in enumerate(net, start=1):  # 30 hidden layers, then the head
        h = h if i == dropped else layer(h)
    return (h.argmax(1) == y[test]).float().mean().item()


residual, chain = trained["skips, batch norm"].eval(), trained["Kaiming's start"].eval()
with torch.no_grad():
    alone = {
        "with skips": [right_without(residual, i) for i in range(2, 31)],
        "plain": [right_without(chain, i) for i in range(2, 31)],
    }

# %%
for net, accuracies in zip((residual, chain), alone.values()):
    ablated = flow.block_ablation(net, X[test], y[test])  # layer2 ... layer30
    np.testing.assert_allclose(list(ablated.values()), accuracies)
reveal("gradient_flow.drop_one", [round(np.mean(accuracies), 2) for accuracies in alone.values()])

# %%
plots.curve(
    np.arange(2, 31),
    alone,
    title="Any plain layer is vital; of the blocks, only the first few",
    xlabel="layer that is removed",
    ylabel="held-out digits right",
)

# %% [markdown]
# In the plain network every layer expects exactly what the one before it makes. In the residual network a
# removed block takes away half of the paths, and the other half still ends in the right answer. How many
# can go? Remove $k$ blocks at random, ten draws each:

# %%
generator = np.random.default_rng(0)
counts = [0, 1, 2, 4, 6, 8, 12, 16, 22, 29]
blocks = [f"layer{i}" for i in range(2, 31)]


def after_removing(k):
    draws = [generator.choice(blocks, size=k, replace=False) for _ in range(10)]
    return np.mean([flow.accuracy_without(residual, X[test], y[test], list(d)) for d in draws])


left = [after_removing(k) for k in counts]
plots.curve(
    counts,
    {"with skips": left, "guessing": np.full(len(counts), 0.1)},
    title="The residual network fades: the more blocks go, the worse it gets",
    xlabel="number of blocks removed",
    ylabel="held-out digits right",
)

# %% [markdown]
# No cliff: it behaves like a committee that loses members. But the members are not equal, as the left end of
# the picture before last shows. Compare what a block adds with what comes in, $\lVert F(h) \rVert / \lVert h \rVert$:

# %%
h, added = residual[0](X[test]).detach(), []
with torch.no_grad():
    for block in residual[1:30]:
        added.append((block.branch(h).norm() / h.norm()).item())
        h = block(h)
base = scores["skips, batch norm"]
print(f"all blocks in place: {base:.0%} right")
for i in (2, 3, 5, 10, 20, 30):
    right = alone["with skips"][i - 2]
    print(f"block {i:2} adds {added[i - 2]:4.0%} of what comes in; without it {right:.0%} right")

# %% [markdown]
# A late block adds a few percent to a long sum. That it can go is no wonder; the early ones cannot.
#
# ### Which paths carry the gradient?
#
# There are $2^{29}$ paths through 29 blocks, over 500 million. Most of them are long: half of the blocks
# on average. A gradient that goes through $k$ branches is shortened $k$ times. So do the long ones count at
# all? Veit and others drew paths at random. In a `deep_mlp` all of them can be added up exactly, sorted by
# length, block by block: what went through $k$ branches so far goes on as $k$ (skip) or $k+1$ (branch).

# %%
parts = flow.gradient_by_path_length(residual, X[test], y[test], F.cross_entropy)  # (30, 397, 48)
h = residual[0](X[test]).detach().requires_grad_()  # what comes into the first block
loss = F.cross_entropy(residual[1:](h), y[test])
(whole,) = torch.autograd.grad(loss, h)
torch.testing.assert_close(parts.sum(dim=0), whole, rtol=1e-3, atol=1e-7)
print("the 30 parts add up to the gradient that autograd gives")

# %%
carried = parts.flatten(1).norm(dim=1)
share = (carried / carried.sum()).numpy()
paths = np.array([comb(29, k) for k in range(30)]) / 2**29
plots.curve(
    np.arange(30),
    {"gradient": share, "number of paths": paths},
    title="Most paths are long; the gradient comes through the short ones",
    xlabel="branches that a path goes through, of 29",
    ylabel="share",
)

# %%
short = int(np.searchsorted(share.cumsum(), 0.9))
print(f"90% of the gradient (parts' norms) came through paths of at most {short} branches")
print(f"those are {paths[: short + 1].sum():.2%} of all paths")

# %% [markdown]
# So this deep network is much like an ensemble of shallower ones (Veit and others). The skips did not teach the
# gradient to survive 29 layers: they gave it a way not to go through them.
#
# ## 9. When it lies
#
# ### The same network, another curve
#
# A ReLU passes a factor on: $\text{relu}(10\,z) = 10\,\text{relu}(z)$. So make one layer of the plain network ten times
# as large, and the next one ten times as small. Every output stays the same. And the gradients?

# %%
twin = thirty(init="kaiming").double()
rows, truth = X[first].double(), y[first]
before = flow.gradient_norms(twin, rows, truth, F.cross_entropy)
logits = twin(rows).detach()
with torch.no_grad():
    twin.layer10.linear.weight *= 10  # its biases are 0 before training
    twin.layer11.linear.weight /= 10
torch.testing.assert_close(twin(rows), logits)
after = flow.gradient_norms(twin, rows, truth, F.cross_entropy)
for name in ("layer9.linear", "layer10.linear", "layer11.linear", "layer12.linear"):
    print(f"{name:15} {before[name]:.3f} -> {after[name]:.3f}")

# %% [markdown]
# Layer 10 lost nine tenths of its norm, layer 11 has ten times as much, and both do exactly what they did
# before. **A large gradient is not an important layer**, and a small one is not a useless one. Compare a norm with
# the norm of the weights, or remove the layer and measure, as in section 8.
#
# ### A norm has no direction
#
# With batch norm alone every layer got a gradient, and the network learned little. Ask for more than the
# length: move each digit by a tiny bit of noise and compare the **direction** of the gradient with respect to
# the input. Nearby digits ought to ask for similar changes. A cosine of 1 means the same direction, 0 unrelated.


# %%
def gradient_at(net, inputs):
    inputs = inputs.clone().requires_grad_()
    loss = F.cross_entropy(net(inputs), y[first], reduction="sum")
    return torch.autograd.grad(loss, inputs)[0]


def agreement(net):
    """Mean cosine of the input gradients at each digit and at a neighbor 1% away."""
    noise = torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
    for _ in range(50):
        net(X[first])  # batch norm gathers its averages
    net.eval()
    at, near = gradient_at(net, X[first]), gradient_at(net, X[first] + 0.01 * noise)
    return F.cosine_similarity(at, near).mean().item()


# %%
cosines = {name: agreement(thirty(**kinds[name])) for name in list(kinds)[1:]}
plots.bars(
    list(cosines.values()),
    list(cosines),
    title="Healthy norms, but with batch norm alone the directions are noise",
    xlabel="cosine of the gradients of two neighbors, before training",
)

# %% [markdown]
# Balduzzi and others (2017) call these *shattered* gradients. Each of the 256 gradients is long enough, and
# a step against one of them says nothing about its neighbors. No plot of norms shows this.
#
# ### Clipping hides an exploding loss
#
# In section 5 the norms were kept before and after clipping. Imagine a dashboard that shows the second:

# %%
SEEN = np.array(SEEN)
plots.curve(
    np.arange(len(SEEN)),
    {"before clipping": SEEN[:, 0], "after clipping": SEEN[:, 1], "loss": clipped_losses},
    title="After clipping, the norm is calm whatever happens",
    xlabel="step",
    ylabel="norm, or loss",
    log=True,
)

# %% [markdown]
# A flat line at 1.0, while the loss is in the thousands. Log the norm **before** clipping, and count how
# often it was cut. Here: in every single step.
#
# ### Dead units: norms like any other
#
# Some ReLUs are off for every digit from the start, and too large a rate pushes more of them there. The slope of
# such a unit is 0 for every digit, so its own weights get no gradient that could bring it back. Train one
# network twice, at a usual rate and at fifty times that:


# %%
def dead_units(net):
    """Per hidden layer, the number of its 48 units that are 0 for all digits."""
    with capture(net, ["layer1", "layer2", "layer3", "layer4"]) as kept, torch.no_grad():
        net(X)
    return [(h.amax(dim=0) == 0).sum().item() for h in kept.values()]


# %%
for rate in (0.001, 0.05):
    four = flow.deep_mlp(4, 48, "relu", n_inputs=64, n_outputs=10)
    before = dead_units(four)
    fit(four, epochs=5, rate=rate)
    norms = flow.gradient_norms(four, X[first], y[first], F.cross_entropy)
    print(f"rate {rate}: dead units {before} -> {dead_units(four)} of 48 in each layer")
    print("   norms by layer:", " ".join(f"{norm:.2f}" for norm in norms.values()))

# %% [markdown]
# Both lines of norms look alike, and in the second network about half of all units are gone. The units that are
# left carry the norm of their layer. Count units, not only layers.

# %%
quiz("gradient_flow.q_norm")

# %% [markdown]
# ## 10. Play
#
# Now watch it. Two classes of points in the plane, red squares and blue disks; the hollow ones are held out. Each
# small square is what one neuron says about the whole plane (red positive, blue negative). Tab moves between the
# controls, the arrow keys change one, Space presses a button. It trains while other cells run.
#
# 1. Press **Train**, wait, press **Stop**. Which layer still shows straight lines?
# 2. Ten layers, sigmoid, no skips. Compare the gradients of the first and the last layer, in the line above the
#    picture. Train. Then tick *residual*.
# 3. Three layers of ReLU, learning rate 10. A crossed-out square is a neuron that is 0 everywhere: dead.
# 4. Ten layers of ReLU with *residual*, learning rate 1. What does the line say now?

# %%
widgets.playground("moons", depth=3, width=6, activation="tanh")

# %% [markdown]
# ### Exercise: a report on training (criticize, 8 minutes)
#
# > *"We trained a plain network of 50 ReLU layers and clip the gradient to norm 1. Our dashboard shows a gradient norm
# > of 1.0 throughout, so training is stable and gradients neither vanish nor explode. The gradient norm is largest in
# > layer 1, so layer 1 is the most important layer; layers 30 to 50 have tiny gradients and can be removed."*
#
# What is wrong with each conclusion, and what would you measure instead? Four to six sentences.

# %% tags=["exercise"]
report = """
### BEGIN SOLUTION
The norm was read after clipping, so it is at most 1 by construction: the loss and the norm before
clipping may explode, and I would plot both, and how often it was clipped. One norm for all parameters
also says nothing about single layers, which may vanish while others are large: measure layer by layer.
A large gradient is not importance: scaling one layer up and the next one down leaves the network the
same and changes both norms. To know what a layer is worth, remove it (bypass it) and measure the held-out
accuracy. In a plain network without skips, removing any single layer is likely to ruin it, however small
its gradient; only residual networks bear that.
### END SOLUTION
"""

# %%
check("gradient_flow.report", report)

# %%
progress()

# %% [markdown]
# **You can now**
# - compute the gradient of a chain as a product of slopes, and say when it vanishes or explodes
# - measure, layer by layer, how much gradient arrives in a real network
# - repair a broken curve by initialization, clipping, batch norm or skips, and say which repairs what
# - take a residual network apart into its paths, and measure which of them carry it
# - show four cases in which the norm of a gradient misleads
#
# ## Takeaways
#
# - Going down, a gradient is multiplied by slope times weight at each layer. Thirty factors have to be close to 1,
#   and that is what initialization, normalization and skips are for. Clipping limits the step and repairs nothing else.
# - A residual network works like many shallow ones added up: single blocks can go, and most of the gradient
#   comes through short paths.
# - A norm is one number. It does not say which way, which unit, or how important.
#
# ## Myth refuted
#
# *"ReLU solves the vanishing gradient, because its slope is 1."* Section 3: thirty ReLU layers, started as `nn.Linear`
# starts them, lose ten powers of ten. The factor is slope times weights. With the right start (section 4) the same
# ReLUs keep their gradient.
#
# ## Go further
#
# - Hochreiter (1991), *Untersuchungen zu dynamischen neuronalen Netzen*: the vanishing gradient, first described (in
#   German); Bengio, Simard, Frasconi (1994), *Learning Long-Term Dependencies with Gradient Descent is Difficult*.
# - Glorot, Bengio (2010), *Understanding the difficulty of training deep feedforward neural networks*.
# - Pascanu, Mikolov, Bengio (2013), *On the difficulty of training recurrent neural networks*: clipping.
# - He, Zhang, Ren, Sun (2015), *Delving Deep into Rectifiers*: the variance 2/n; and (2016) *Deep Residual Learning for
#   Image Recognition*.
# - Ioffe, Szegedy (2015), *Batch Normalization*; Yang, Pennington, Rao, Sohl-Dickstein, Schoenholz (2019), *A Mean Field
#   Theory of Batch Normalization*: why it explodes slowly.
# - Veit, Wilber, Belongie (2016), *Residual Networks Behave Like Ensembles of Relatively Shallow Networks*.
# - Balduzzi and others (2017), *The Shattered Gradients Problem: If resnets are the answer, then what is the question?*
