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
# - compute the gradient of a chain as a product of derivatives, and say when it vanishes or explodes
# - measure, layer by layer, how much gradient arrives in a real network
# - repair a broken curve by initialization, normalization or skips, in code of your own
# - say what the norm of a gradient does not tell
#
# **You need:** [[backprop]]
#
# **Time:** [[time]] · **Difficulty:** 2 of 5

# %%
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from xailab import data, plots, widgets
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.foundations import gradient_flow as flow

# %% [markdown]
# The data are small on purpose: 1,797 handwritten digits of 8 x 8 pixels. A network with **one** hidden
# layer gets more than nine in ten right ([[backprop]]). What happens with thirty?

# %%
digits = data.load("digits")
X = torch.tensor(digits.images, dtype=torch.float32).flatten(1)  # (1797, 64)
X, y = (X - X.mean()) / X.std(), torch.tensor(digits.y)
order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
train, test = order[:1400], order[1400:]

# %% [markdown]
# Six networks with 30 hidden layers of 48 ReLUs: the first as PyTorch makes it, the others with a remedy or
# two. How much gradient arrives at each layer before the first step? Read the picture from right to left, as the
# gradient travels.


# %%
def thirty(init="default", activation="relu", **options):
    """A network of 30 hidden layers for the digits."""
    return flow.deep_mlp(30, 48, activation, init=init, n_inputs=64, n_outputs=10, **options)


kinds = {
    "as PyTorch starts it": {},
    "Kaiming's start": {"init": "kaiming"},
    "batch norm": {"norm": "batch"},
    "layer norm": {"norm": "layer"},
    "skips": {"residual": True},
    "skips, layer norm": {"residual": True, "norm": "layer"},
}

# %% tags=["readme-remedies"]
first = train[:256]  # one large batch for all measurements
layers = np.arange(1, 31)


def norms_of(net):
    """Norm of the weight gradient of each hidden layer, (30,)."""
    return list(flow.gradient_norms(net, X[first], y[first], F.cross_entropy).values())[:30]


curves = {name: norms_of(thirty(**options)) for name, options in kinds.items()}
plots.curve(
    layers,
    curves,
    title="One network of six gets almost no gradient to its first layer",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %% [markdown]
# The lowest curve is what `nn.Linear` and `nn.ReLU` give you if you change nothing. From layer 30 to layer 1 it
# loses ten powers of ten.
#
# ## 1. A chain on paper: derivatives multiply
#
# Take the deepest network that fits on paper: layers of one unit. Each multiplies by a weight $w_l$ and applies an
# activation function $\phi$:
#
# $$h_0 = x, \qquad z_l = w_l\,h_{l-1}, \qquad h_l = \phi(z_l)$$
#
# If the input moves a little, $h_1$ moves by $w_1\,\phi'(z_1)$ times as much, $h_2$ by $w_2\,\phi'(z_2)$ times *that*.
# By the **chain rule**, the derivatives multiply:
#
# $$\frac{\partial h_D}{\partial x} = \prod_{l=1}^{D} w_l\,\phi'(z_l)$$
#
# $D$ is the number of layers. The derivative of a **sigmoid** is $h(1-h)$, at most $\frac14$. What is left after thirty
# layers, for this and other factors?

# %%
for factor in (0.25, 0.5, 0.9, 1.0, 1.1, 1.5):
    print(f"{factor:4} multiplied 30 times is {factor**30:.1e}")

# %% [markdown]
# Only 1 stays 1. Below it the gradient **vanishes**, above it it **explodes**. Every remedy keeps the factor close to 1.
#
# ### Exercise: the derivative of a chain (code, 4 minutes)
#
# Let $\phi$ be tanh, so $h_l = \tanh(w_l h_{l-1})$, with the derivative $1 - h_l^2$. Return $\partial h_D / \partial x$ as
# a product, without autograd. `hint("gradient_flow.chain")` helps, in up to three steps.


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
# ## 2. Thirty layers, measured
#
# With many units, the factor of a layer is a matrix, and the gradient that comes down is a vector. Instead of single
# numbers, follow a length, the **norm** of what arrives at each layer's weights:
#
# $$g_l = \left\lVert \frac{\partial L}{\partial W_l} \right\rVert = \sqrt{\text{sum of all squared entries}}$$
#
# $L$ is the loss of a batch, $W_l$ the weight matrix of layer $l$.
#
# ### Exercise: the norm at each layer (code, 4 minutes)
#
# `net[:-1]` are the hidden layers, and each keeps its matrix in `layer.linear.weight`. Compute the cross-entropy of the
# batch (`F.cross_entropy`), ask `torch.autograd.grad` for its gradients with respect to all these matrices at once, and
# return a list of their norms.


# %% tags=["exercise"]
def layer_norms(net, x, y):
    """Norm of the weight gradient of each hidden layer: a list of numbers, layer 1 first."""
    ### BEGIN SOLUTION
    weights = [layer.linear.weight for layer in net[:-1]]
    loss = F.cross_entropy(net(x), y)
    grads = torch.autograd.grad(loss, weights)
    return [grad.square().sum().sqrt().item() for grad in grads]
    ### END SOLUTION


# %%
check("gradient_flow.norms", layer_norms)

# %% [markdown]
# `flow.gradient_norms` does this for any network, and `.backward()` leaves the same gradients in `.grad`:

# %%
plain = thirty()
F.cross_entropy(plain(X[first]), y[first]).backward()
usual = [layer.linear.weight.grad.norm().item() for layer in plain[:-1]]
np.testing.assert_allclose(norms_of(plain), usual, rtol=1e-5)
print(f"layer 30 {usual[29]:.1e}   layer 15 {usual[14]:.1e}   layer 1 {usual[0]:.1e}")

# %% [markdown]
# ### Predict, then run (1 minute)
#
# Now 30 layers of **sigmoids**. By how many powers of ten is the gradient at layer 1 smaller than that at layer 30?
# Think of 1/4, and that weights count too. Write a number: 3 means a thousand times smaller.

# %% tags=["exercise"]
### BEGIN SOLUTION
powers_of_ten = 18
### END SOLUTION

# %%
predict("gradient_flow.powers", powers_of_ten)


# %%
def norms_in_double(**options):
    """In float64, because float32 takes the square of 1e-25 for 0."""
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
        "ReLU": norms_in_double(),
        "tanh, large weights": norms_in_double(activation="tanh", init=4.0),
    },
    title="Two vanish, one explodes: straight lines, since factors multiply",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %% [markdown]
# On a logarithmic axis a constant factor is a straight line, and its tilt is the factor of one layer. (The ReLU
# curve levels off at the left, because more comes in from below there.) One can read that
# *ReLU solves the vanishing gradient*, because its derivative is 1 wherever it is on. Look at its curve. The factor of a
# layer is derivative **times weights**, and half of the derivatives are 0.

# %%
quiz("gradient_flow.q_relu")

# %% [markdown]
# ## 3. Remedy 1: start with the right scale
#
# Go up the network first. A unit adds up $n$ products, $z = \sum_j w_j a_j$. If the weights are drawn around 0 with
# variance $v$, the mean square of $z$ is $n\,v$ times that of $a$. A ReLU keeps the positive half:
#
# $$\overline{h^2} = \tfrac12\, n\, v\, \overline{a^2}$$
#
# The bars are means over units. `nn.Linear` draws with $v = \frac{1}{3n}$ and keeps a sixth in each layer. Which $v$
# hands on exactly the scale that came in? Drawing weights in this way is **Kaiming initialization** (He and others, 2015).
#
# ### Exercise: draw the weights (code, 2 minutes)
#
# Return normal random numbers of the right variance. `torch.randn(a, b)` has variance 1; multiplying by $s$ makes it
# $s^2$.


# %% tags=["exercise"]
def kaiming(n_out, n_in):
    """Weights (n_out, n_in) with which a ReLU layer keeps the mean square of its input."""
    ### BEGIN SOLUTION
    variance = 2 / n_in
    return torch.randn(n_out, n_in) * variance**0.5
    ### END SOLUTION


# %%
check("gradient_flow.kaiming", kaiming)

# %% [markdown]
# The gradient runs down through the same weights, so the same start repairs it too:

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
# ## 4. Remedy 2: normalize
#
# A good start does not last; training moves the weights. So set the scale right in every layer, again and again. Take
# the sums $z$ of a batch, (rows, units):
#
# $$\hat z = \frac{z - \text{mean}(z)}{\sqrt{\text{var}(z) + 10^{-5}}}$$
#
# **Batch norm** takes mean and variance of each unit, over the rows of the batch (Ioffe and Szegedy, 2015). **Layer norm**
# takes them of each row, over its units (Ba, Kiros and Hinton, 2016), so that no row depends on its neighbors in the batch.
# Transformers use that one. Then come a scale and a shift that are learned, 1 and 0 at the start.
#
# ### Exercise: layer norm (code, 2 minutes)
#
# Without the learned scale and shift. The variance is the mean of the squared distances from the mean
# (`unbiased=False`).


# %% tags=["exercise"]
def layer_norm(z):
    """Each row of z (rows, units), with mean 0 and variance 1 over its units."""
    ### BEGIN SOLUTION
    mean = z.mean(dim=1, keepdim=True)
    variance = z.var(dim=1, unbiased=False, keepdim=True)
    return (z - mean) / (variance + 1e-5).sqrt()
    ### END SOLUTION


# %%
check("gradient_flow.layer_norm", layer_norm)

# %%
plots.curve(
    layers,
    {name: curves[name] for name in ("as PyTorch starts it", "batch norm", "layer norm")},
    title="Layer norm flattens the curve; batch norm makes it explode slowly",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %% [markdown]
# Both cancel whatever scale the weights have. With batch norm and ReLUs, each layer still makes the gradient about 1.2
# times larger on the way down. (Yang and others, 2019, derive $\sqrt{\pi/(\pi-1)} \approx 1.21$ for wide layers.) With
# five layers nobody would notice.
#
# ## 5. Remedy 3: a way around
#
# The last remedy leaves the layers as they are and adds a **skip connection** around each: $h + F(h)$, where $F$ is the
# layer (He and others, 2016). A network of such **residual blocks** is a ResNet. In the chain on paper, the factor of a
# layer becomes $1 + F'$. Even a layer that passes nothing back cannot stop the gradient any more.
#
# ### Exercise: blocks with skips (code, 2 minutes)


# %% tags=["exercise"]
def through_blocks(h, branches):
    """Send h (rows, units) through residual blocks; each branch is one F."""
    ### BEGIN SOLUTION
    for branch in branches:
        h = h + branch(h)
    return h
    ### END SOLUTION


# %%
check("gradient_flow.skips", through_blocks)

# %%
plots.curve(
    layers,
    {name: curves[name] for name in ("as PyTorch starts it", "skips", "skips, layer norm")},
    title="Skips bring the gradient to every layer, and plenty of it",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)

# %% [markdown]
# Factors above 1 multiply, too: that is why *skips* lies so high. With ReLUs each block adds something positive, so
# the numbers grow on the way up. A norm inside the blocks keeps what they add in bounds.
#
# ## 6. Who learns?
#
# ### Predict, then run (1 minute)
#
# Look at the curves once more. That of *layer norm* alone is about as flat as that of *Kaiming's start*, which will get
# about eight in ten right. Train it for ten epochs: what share of the held-out digits does it get right, on average over
# three random seeds? Guessing gets 0.1.

# %% tags=["exercise"]
### BEGIN SOLUTION
flat_guess = 0.9
### END SOLUTION

# %%
predict("gradient_flow.flat", flat_guess)


# %%
def fit(net, *, epochs=10, rate=0.001, method=torch.optim.Adam, seed=0):
    """Train on the digits, 140 rows a step; return the network and the loss of every step."""
    shuffle, losses = torch.Generator().manual_seed(seed), []
    optimizer = method(net.parameters(), lr=rate, fused=True)  # fused: the same, faster
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train), generator=shuffle)].split(140):
            loss = F.cross_entropy(net(X[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return net.eval(), losses


# %%
trained = {
    name: [fit(thirty(seed=seed, **options), seed=seed)[0] for seed in (0, 1, 2)]
    for name, options in kinds.items()
}
right = {
    name: [flow.accuracy_without(net, X[test], y[test]) for net in nets]
    for name, nets in trained.items()
}
reveal("gradient_flow.flat", round(np.mean(right["layer norm"]), 2))

# %%
plots.intervals(
    {
        "mean of 3 seeds, worst to best": np.array(
            [(np.mean(r), min(r), max(r)) for r in right.values()]
        ).T
    },
    list(right),
    title="After ten epochs: a healthy curve is not enough",
    xlabel="share of held-out digits right (guessing: 0.1)",
    line=0.1,
)

# %% [markdown]
# Ten epochs, three random seeds: each dot is a mean, each line runs from the worst seed to the best. Without a gradient,
# nothing is learned. But the reverse is not true: *batch norm* and *layer norm* alone bring plenty of gradient to every
# layer, and their networks hardly get beyond guessing. Skips with layer norm learn best. (That is how transformers are
# built.) Why a norm alone does not help, the picture does not say; for batch norm, look into the section on shattered gradients.
#
# ### A network of your own (3 minutes)
#
# Build one with `flow.deep_mlp`: another depth, another activation (`"tanh"`, `"gelu"`), `residual`, `norm`, `init`. Draw
# its curve of norms, train it, and print its share of right digits. Can you get 60 layers to learn?

# %% tags=["exercise"]
### BEGIN SOLUTION
mine = flow.deep_mlp(60, 48, "gelu", residual=True, norm="layer", n_inputs=64, n_outputs=10)
my_norms = list(flow.gradient_norms(mine, X[first], y[first], F.cross_entropy).values())[:60]
fit(mine, epochs=5)
plots.curve(
    np.arange(1, 61),
    {"mine": my_norms},
    title=f"Sixty layers, {flow.accuracy_without(mine, X[test], y[test]):.0%} right after 5 epochs",
    xlabel="layer",
    ylabel="norm of the weight gradient",
    log=True,
)
### END SOLUTION

# %% [markdown]
# ## 7. When it lies: the same network, another curve
#
# A ReLU passes a factor on: $\text{relu}(10\,z) = 10\,\text{relu}(z)$. So make one layer of a plain network ten times as
# large, and the next one ten times as small. Every output stays the same. And the gradients?

# %%
twin = thirty(init="kaiming").double()
rows = X[first].double()
before = flow.gradient_norms(twin, rows, y[first], F.cross_entropy)
outputs = twin(rows).detach()
with torch.no_grad():
    twin.layer10.linear.weight *= 10  # its biases are 0 before training
    twin.layer11.linear.weight /= 10
torch.testing.assert_close(twin(rows), outputs)
after = flow.gradient_norms(twin, rows, y[first], F.cross_entropy)
for name in ("layer9.linear", "layer10.linear", "layer11.linear", "layer12.linear"):
    print(f"{name:15} {before[name]:.3f} -> {after[name]:.3f}")

# %% [markdown]
# Layer 10 lost nine tenths of its norm, layer 11 has ten times as much, and both do exactly what they did before. **A
# large gradient is not an important layer**, and a small one is not a useless one. To know what a layer is worth, remove
# it and measure.

# %%
quiz("gradient_flow.q_norm")

# %% [markdown]
# ## 8. Play
#
# Two classes of points in the plane, red squares and blue disks; the hollow ones are held out. Each small square is what
# one unit says about the whole plane (red positive, blue negative). The lines between them are the weights, or their
# gradients if you set *Edges show* to that: the wider, the larger. Tab moves between the controls, the arrow keys change
# one, Space presses a button.
#
# 1. **Train**, wait, **Stop**. Which layer still shows straight lines?
# 2. Ten layers, sigmoid, edges that show gradients. Where do the lines end? Train. Then tick *residual*.
# 3. Three layers of ReLU, learning rate 10. A crossed-out square is a unit that is 0 everywhere: a **dead unit**.

# %%
widgets.playground("moons", depth=3, width=6, activation="tanh")

# %%
progress()

# %% [markdown] tags=["deeper"]
# ## Deeper: activation functions and their derivatives
#
# Which factors can a layer contribute? Five functions, and below each its derivative. Two are relatives of ReLU: **leaky
# ReLU** keeps 1% of a negative number, **GELU** rounds the corner off.

# %%
from xailab.widgets.training import activation_picture

names = ["sigmoid", "tanh", "relu", "leaky_relu", "gelu"]
activation_picture(names, title="The derivative of a sigmoid never exceeds a quarter")

# %%
z = torch.linspace(-4, 4, 801, dtype=torch.float64).requires_grad_()
for name in names:
    (derivative,) = torch.autograd.grad(flow.ACTIVATIONS[name]()(z).sum(), z)
    low, high = derivative.aminmax()
    print(f"{name:11} derivatives from {low.item():.2f} to {high.item():.2f}")

# %% [markdown]
# Where a curve below touches 0, nothing passes: on both sides of sigmoid and tanh, on the left of ReLU. Sigmoid is the
# only one that takes something away *everywhere*.

# %% [markdown] tags=["deeper"]
# ## Deeper: where the input is forgotten
#
# What does a vanished gradient look like from below? First the scale on the way up:

# %%
from xailab.core import capture

scales = {
    "variance 4/n": flow.activation_scales(thirty(init=2.0), X[first]),
    "Kaiming, 2/n": flow.activation_scales(thirty(init="kaiming"), X[first]),
    "nn.Linear": flow.activation_scales(thirty(), X[first]),
}
plots.curve(
    layers,
    {label: list(scale.values())[:30] for label, scale in scales.items()},
    title="With variance 2/n the numbers keep their scale on the way up",
    xlabel="layer",
    ylabel="root mean square of the activations",
    log=True,
)

# %% [markdown]
# The lowest curve does not fall forever: it meets the biases. `nn.Linear` draws those at random as well, and higher up
# the network passes on little but its own biases. How much of a layer's output still differs from digit to digit?

# %%
forgetful = thirty()
with capture(forgetful, ["layer1", "layer6", "layer12"]) as kept, torch.no_grad():
    forgetful(X[first])
for place, h in kept.items():
    print(f"{place:8} {(h.std(dim=0).norm() / h.square().mean(dim=0).sqrt().norm()).item():.2%}")

# %% [markdown]
# What the input said is gone. And what becomes of such a network in training?

# %%
guesser, starts = trained["as PyTorch starts it"][0], thirty(seed=0)
moved = [
    ((a.linear.weight - b.linear.weight).norm() / b.linear.weight.norm()).item()
    for a, b in zip(guesser[:30], starts[:30])
]
spread = guesser(X[test]).softmax(dim=1).std(dim=0).max().item()
print(f"standard deviation of its probabilities over the digits: {spread:.0e} at most")
print(f"layer 1 moved by {moved[0]:.4%}, layer 30 by {moved[29]:.0%}")

# %% [markdown]
# It gives every digit the same answer, and its first layers hardly move: they never find out what to change. Adam
# divides each gradient by its recent size, which could make up for a small one, but adds $10^{-8}$ to what it divides by.
# Here the gradients are far below that.

# %% [markdown] tags=["deeper"]
# ## Deeper: clip what explodes
#
# With weights of variance $4/n$ the gradient is too large. A plain step along it jumps out of the world:

# %%
_, shaken = fit(thirty(init=2.0), epochs=1, rate=0.01, method=torch.optim.SGD)
print("loss of the first steps:", [f"{value:.3g}" for value in shaken[:4]])

# %% [markdown]
# **Gradient clipping** keeps the direction of the step and limits its length. With all gradients together as one long
# vector $g$ and a limit $c$:
#
# $$g \leftarrow g \cdot \min\!\Big(1, \frac{c}{\lVert g \rVert}\Big)$$
#
# ### Exercise: clip a list of gradients (code, 6 minutes)
#
# You get a list of tensors, one for each parameter, of any shapes. **One** factor serves all of them, computed from their
# common norm. Return new tensors. A gradient of zeros has to survive: PyTorch adds $10^{-6}$ to the norm it divides by.


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
unruly = thirty(init=2.0)
F.cross_entropy(unruly(X[first]), y[first]).backward()
ours = flow.clip_by_norm([p.grad for p in unruly.parameters()], max_norm=1.0)
unclipped = nn.utils.clip_grad_norm_(unruly.parameters(), max_norm=1.0)
for grad, parameter in zip(ours, unruly.parameters()):
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
        self.seen.append((nn.utils.get_total_norm(grads), nn.utils.get_total_norm(clipped)))
        super().step()


ClippedSGD.seen = []
_, calmed = fit(thirty(init=2.0), epochs=4, rate=0.01, method=ClippedSGD)
norms_seen = np.array(ClippedSGD.seen)

# %%
plots.curve(
    np.arange(len(norms_seen)),
    {"before clipping": norms_seen[:, 0], "after clipping": norms_seen[:, 1], "loss": calmed},
    title="After clipping, the norm is calm whatever happens",
    xlabel="step",
    ylabel="norm, or loss",
    log=True,
)

# %% [markdown]
# It survives, and the loss falls. But only the length of the step was repaired: the network is as badly scaled as before.
# And imagine a dashboard that logs the norm *after* clipping: a flat line at 1.0, while the loss is in the thousands. Log
# it **before**, and count how often it was cut. Here: in every single step.

# %% [markdown] tags=["deeper"]
# ## Deeper: what a residual block carries
#
# ### Predict, then run (2 minutes)
#
# Take two kinds of trained networks, *skips, layer norm* and *Kaiming's start*. Remove one of the layers 2 to 30: what
# comes into it goes on unchanged. Measure the share of held-out digits still right, and average over the 29 choices. Guess
# the two shares, in this order, as a list of two numbers from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
shares_right = [0.9, 0.1]
### END SOLUTION

# %%
predict("gradient_flow.drop_one", shares_right)

# %%
compared = ("skips, layer norm", "Kaiming's start")
alone = {
    name: np.array(
        [list(flow.block_ablation(net, X[test], y[test]).values()) for net in trained[name]]
    )
    for name in compared
}  # each (3, 29): seeds, layers 2 ... 30
reveal("gradient_flow.drop_one", [round(alone[name].mean(), 2) for name in compared])

# %%
plots.curve(
    np.arange(2, 31),
    {name: table.mean(axis=0) for name, table in alone.items()},
    title="Any plain layer is vital; of the blocks, only the first few matter",
    xlabel="layer that is removed (mean of three seeds)",
    ylabel="held-out digits right",
)

# %% [markdown]
# In the plain network every layer expects exactly what the one before it makes. And the residual one? Multiply out the
# factors of three blocks with derivatives $a$, $b$, $c$:
#
# $$(1+a)(1+b)(1+c) = 1 + (a+b+c) + (ab+ac+bc) + abc$$
#
# Eight terms, and each is a **path** from the input to the output: at each block it takes the skip (1) or the branch. A
# plain chain has only the last one, $abc$. Removing a block takes away half of the paths, and the other half still ends in
# the right answer. How many blocks can go? Remove $k$ at random, ten draws each:

# %%
residual = trained["skips, layer norm"][0]
counts = [0, 1, 2, 4, 6, 8, 12, 16, 22, 29]
blocks, dice = [f"layer{i}" for i in range(2, 31)], np.random.default_rng(0)


def after_removing(k):
    draws = [dice.choice(blocks, size=k, replace=False) for _ in range(10)]
    return np.mean([flow.accuracy_without(residual, X[test], y[test], list(d)) for d in draws])


plots.curve(
    counts,
    {"with skips": [after_removing(k) for k in counts], "guessing": np.full(len(counts), 0.1)},
    title="The residual network fades: the more blocks go, the worse it gets",
    xlabel="number of blocks removed",
    ylabel="held-out digits right",
)

# %% [markdown]
# It behaves like a committee that loses members. But the members are not equal. Compare what a block adds with what comes
# in, $\lVert F(h) \rVert / \lVert h \rVert$:

# %%
state, added = residual[0](X[test]).detach(), []
with torch.no_grad():
    for block in residual[1:30]:
        added.append((block.branch(state).norm() / state.norm()).item())
        state = block(state)
for i in (2, 3, 5, 10, 20, 30):
    kept_right = alone["skips, layer norm"][0, i - 2]
    print(
        f"block {i:2} adds {added[i - 2]:4.0%} of what comes in; without it {kept_right:.0%} right"
    )

# %% [markdown]
# A late block adds a few percent to a long sum. That it can go is no wonder. (Veit, Wilber and Belongie, 2016, found the
# same in ResNets on photos.)

# %% [markdown] tags=["deeper"]
# ## Deeper: which paths carry the gradient?
#
# There are $2^{29}$ paths through 29 residual blocks, over 500 million, and most of them go through about half of the
# branches. A gradient that goes through $k$ branches is shortened $k$ times. So do the long ones count at all? In a
# `deep_mlp` all paths can be added up exactly, sorted by length, block by block: what went through $k$ branches so far goes
# on as $k$ (skip) or $k+1$ (branch). The function returns 30 gradients, for 0 to 29 branches; together they are the whole:

# %%
from math import comb

resnet = trained["skips, layer norm"][0]
parts = flow.gradient_by_path_length(resnet, X[test], y[test], F.cross_entropy)  # (30, 397, 48)
into = resnet[0](X[test]).detach().requires_grad_()  # what comes into the first block
(whole,) = torch.autograd.grad(F.cross_entropy(resnet[1:](into), y[test]), into)
torch.testing.assert_close(parts.sum(dim=0), whole, rtol=1e-3, atol=1e-7)

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
for k, net_of_seed in enumerate(trained["skips, layer norm"]):
    lengths = flow.gradient_by_path_length(net_of_seed, X[test], y[test], F.cross_entropy)
    sizes = lengths.flatten(1).norm(dim=1)
    short = int(np.searchsorted((sizes / sizes.sum()).numpy().cumsum(), 0.9))
    print(
        f"seed {k}: 90% of the gradient (norms of its parts) takes at most {short} branches, "
        f"{paths[: short + 1].sum():.3%} of all paths"
    )

# %% [markdown]
# So this deep network is much like an ensemble of shallower ones (Veit and others). The skips did not teach the gradient
# to survive 29 layers: they gave it a way not to go through them.

# %% [markdown] tags=["deeper"]
# ## Deeper: shattered gradients
#
# With batch norm alone every layer got a gradient, and the network learned little. A norm has no direction, so ask for
# that: move each digit by a tiny bit of noise and compare the **direction** of the gradient with respect to the input.
# Nearby digits ought to ask for similar changes. A cosine of 1 means the same direction, 0 unrelated.


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
cosines = {
    name: [agreement(thirty(seed=seed, **kinds[name])) for seed in (0, 1, 2)]
    for name in list(kinds)[1:]
}
plots.intervals(
    {"mean of 3 seeds": np.array([(np.mean(c), min(c), max(c)) for c in cosines.values()]).T},
    list(cosines),
    title="With batch norm alone the directions are noise",
    xlabel="cosine of the gradients of two neighbors, before training",
    line=0,
)

# %% [markdown]
# Balduzzi and others (2017) call these **shattered gradients**. Each is long enough, and a step against one of them says
# nothing about its neighbors. No plot of norms shows this. It does not explain everything, though: *layer norm* alone has
# a flat curve and gradients that agree, and it did not learn in ten epochs either. Neither measurement promises learning.

# %% [markdown] tags=["deeper"]
# ## Deeper: dead units have norms like any other
#
# Some ReLUs are off for every digit from the start, and too large a learning rate pushes more of them there. The
# derivative of such a **dead unit** is 0 for every digit, so its own weights get no gradient that could bring it back.
# Train one network twice, at a usual rate and at fifty times that:

# %%
from xailab.core import capture


def dead_units(net):
    """Per hidden layer, the number of its 48 units that are 0 for all digits."""
    with capture(net, ["layer1", "layer2", "layer3", "layer4"]) as answers, torch.no_grad():
        net(X)
    return [(answer.amax(dim=0) == 0).sum().item() for answer in answers.values()]


# %%
for rate in (0.001, 0.05):
    four = flow.deep_mlp(4, 48, "relu", n_inputs=64, n_outputs=10)
    dead_before = dead_units(four)
    fit(four, epochs=5, rate=rate)
    print(f"rate {rate}: dead units {dead_before} -> {dead_units(four)} of 48 in each layer")
    print("   norms by layer:", " ".join(f"{norm:.2f}" for norm in norms_of(four)))

# %% [markdown]
# Both lines of norms look alike, and in the second network about half of all units are gone. The units that are left
# carry the norm of their layer. Count units, not only layers.

# %% [markdown] tags=["deeper"]
# ## Deeper: a report on training
#
# ### Exercise: criticize (6 minutes)
#
# > *"We trained a plain network of 50 ReLU layers and clip the gradient to norm 1. Our dashboard shows a gradient norm
# > of 1.0 throughout, so training is stable and gradients neither vanish nor explode. The gradient norm is largest in
# > layer 1, so layer 1 is the most important layer; layers 30 to 50 have tiny gradients and can be removed."*
#
# The dashboard reads the norm after clipping. What is wrong with each conclusion, and what would you measure instead?
# Four to six sentences.

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

# %% [markdown]
# ## You can now
#
# - compute the gradient of a chain as a product of derivatives, and say when it vanishes or explodes
# - measure, layer by layer, how much gradient arrives in a real network
# - repair a broken curve by initialization, normalization or skips, in code of your own
# - say what the norm of a gradient does not tell
#
# ## Takeaways
#
# - Going down, a gradient is multiplied by derivative times weight at each layer. Thirty factors have to be close to 1,
#   and that is what initialization, normalization and skips are for.
# - A gradient that arrives is necessary for learning, not sufficient: two networks of six had it and hardly learned.
# - A norm is one number. It does not say which way, which unit, or how important.
#
# ## Myth refuted
#
# *"ReLU solves the vanishing gradient, because its derivative is 1."* Section 2: thirty ReLU layers, started as `nn.Linear`
# starts them, lose ten powers of ten. The factor is derivative times weights. With the right start (section 3) the same
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
# - Ioffe, Szegedy (2015), *Batch Normalization*; Ba, Kiros, Hinton (2016), *Layer Normalization*; Yang, Pennington, Rao,
#   Sohl-Dickstein, Schoenholz (2019), *A Mean Field Theory of Batch Normalization*: why it explodes slowly.
# - Veit, Wilber, Belongie (2016), *Residual Networks Behave Like Ensembles of Relatively Shallow Networks*.
# - Balduzzi and others (2017), *The Shattered Gradients Problem: If resnets are the answer, then what is the question?*
# - Xiong and others (2020), *On Layer Normalization in the Transformer Architecture*: where in a block the norm belongs.
