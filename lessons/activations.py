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
# # Activations: what the units inside do
#
# **Question:** A photo goes in, *tiger cat* comes out: which units in between made it so, and what do they look for?
#
# **You will be able to**
# - take the activations of any layer and draw them
# - measure how much each unit matters by three methods, and test the answer by switching units off
# - find what excites a unit, and which units work together, over a whole data set
# - draw one decision layer by layer, and say what in the drawing is certain
# - show three ways in which a unit's top inputs mislead
#
# **You need:** [[backprop]]
#
# **Time:** [[time]]; the cells run in under a minute · **Difficulty:** 3 of 5

# %%
import numpy as np
import torch
from captum.attr import LayerConductance
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score
from torch import nn

from xailab import data, models, plots, widgets
from xailab.core import capture, frozen
from xailab.core.layers import edited
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.foundations import activations as units

# %% [markdown]
# Start with one unit out of 1,280. On the left, where it is active on a photo of *chelsea*, a cat. On the
# right, the four places in 26 other photos that excite it most. You will make this card yourself, ask whether the
# unit matters for *tiger cat*, and then find out how much a card like this can hide.

# %%
net = models.pretrained("efficientnet_lite0")
model = net.model
others = data.load("skimage_photos")
pictures = [*others.images, *data.photos().images]
names = [*others.names, *data.photos().names]
x = torch.cat([net.preprocess(picture) for picture in pictures])  # (27, 3, 224, 224)
seen = net.picture(x)  # (27, 224, 224, 3): what the network sees
cat, TIGER_CAT = x[:1], 282
print(len(names), "photos:", ", ".join(names))


# %%
def card(layer, unit, photo=0, k=4):
    """A unit's map on one photo, and what excites it most in the others."""
    kept = units.layer_activations(model, x[photo : photo + 1], layer)[layer]
    rest = [i for i in range(len(x)) if i != photo]
    top = units.top_inputs(model, x[rest], layer=layer, unit=unit, k=k)
    found = [(rest[row], place) for row, place in zip(top.rows, top.places)]
    return plots.unit_card(
        kept[0, unit],
        seen[photo],
        [plots.patch(seen[i], place, kept.shape[2:], 80) for i, place in found],
        titles=[f"{names[i]} {a:.1f}" for (i, _), a in zip(found, top.activations.tolist())],
        title=f"Unit {unit} of {layer}: on {names[photo]} (left), in other photos (right)",
    )


card("bn2", 977)

# %% [markdown]
# ## 1. Feature maps, stage by stage
#
# A convolution hands over a stack of maps, (channels, height, width). One channel is one detector,
# asked at every place. In this lesson we call it a **unit**. `capture` keeps what layers hand over while
# the network runs; `frozen` leaves the network as it was. Take nine of them, from the first to the last:

# %%
STAGES = ["bn1", *(f"blocks.{i}" for i in range(7)), "bn2"]
with frozen(model), torch.no_grad(), capture(model, STAGES) as kept:
    logits = model(cat)  # (1, 1000)
for name in STAGES:
    print(f"{name:9} {tuple(kept[name].shape[1:])}")

# %% [markdown]
# The maps get smaller and more numerous: from 32 units asked at 112 x 112 places to 1,280 units asked
# at 7 x 7. Here is one unit of every stage, the one that varies most over this photo:

# %%
lively = {name: int(kept[name][0].std(dim=(1, 2)).argmax()) for name in STAGES}
plots.compare(
    [kept[name][0, unit] for name, unit in lively.items()],
    titles=[f"{name}: {unit}" for name, unit in lively.items()],
    shared=False,
    title="From lines and fur to a few places",
)

# %% [markdown]
# In the first two maps you recognize the cat: the units answer to lines and shades. Later you do not; at best,
# as in `blocks.4`, two red places where the eyes are. That is no loss of quality, it is the work of the
# network: *what* is kept, *where* is given up. (The outputs of `blocks.0` to `blocks.6` may be negative; `bn1` and `bn2` end in a ReLU that
# cuts at 0 and at 6.)
#
# The package does the same in chunks, for as many inputs as you like:

# %%
maps = units.layer_activations(model, x, STAGES)  # stage -> (27, K, h, w)
for name in STAGES:
    torch.testing.assert_close(maps[name][:1], kept[name], rtol=1e-3, atol=1e-3)

# %% [markdown]
# Now three of these units on other photos, a row each. Look along a row: what do the red places have in
# common?

# %%
short = {"cat": "chelsea", "dog": "bull mastiff", "jeep": "jeep", "goose": "goose", "drum": "drum"}
shown = [names.index(name) for name in short.values()]
rows = ["blocks.0", "blocks.3", "blocks.5"]
plots.compare(
    [maps[name][i, lively[name]] for name in rows for i in shown],
    over=[seen[i] for _ in rows for i in shown],
    titles=[f"{name}, {photo}" for name in rows for photo in short],
    shared=False,
    title="Three units on five photos",
)

# %% [markdown]
# For the early unit (first row) you find words: *outlines*. For the one in the middle, perhaps: *dark things
# with a rim*. For the last one you will hardly find any, and most units are like that. At the end of the
# network, most units have nothing at all to say about this photo:

# %%
silent = (maps["bn2"].amax(dim=(2, 3)) == 0).sum(dim=1)
print(f"bn2 on the cat: {silent[0]} of 1280 units are silent at all 49 places")
print(f"on any of the {len(x)} photos: from {silent.min()} to {silent.max()}")

# %% [markdown]
# ## 2. What a unit reads: its weights
#
# A smaller network lets you see all of it: three convolutions of 16, 32 and 64 units, trained on digits.

# %%
digits, digit_net = data.load("mnist5k"), models.digit_cnn()
held_out = ~digits.extra["train"]  # 1,000 digits that it was not trained on
X = torch.tensor(digits.images[held_out] / 255, dtype=torch.float32)[:, None]  # (1000, 1, 28, 28)
y = torch.tensor(digits.y[held_out])
five = X[y == 5][:1]
score = digit_net(five)[0, 5].item()
print(f"logit of 5 for the first five: {score:.2f}")

# %% [markdown]
# A unit of the first layer multiplies 3 x 3 pixels by 3 x 3 weights and adds a bias. So its weights,
# drawn as a picture, show what it looks for: red where it wants ink, blue where it wants none.

# %%
filters = digit_net.conv1.weight.detach()[:, 0]  # (16, 3, 3)
plots.compare(
    list(filters[:10]),
    titles=[f"unit {k}" for k in range(10)],
    title="Ten units of the first layer: edges, corners, spots",
    label="weight",
)

# %% [markdown]
# One activation by hand: unit 1 of the first layer, at the place of the five where it is most excited. 9
# pixels, 9 weights, one bias.

# %%
kept = units.layer_activations(digit_net, five, ["conv1", "relu2"])
i, j = divmod(int(kept["conv1"][0, 1].argmax()), 28)
pixels = five[0, 0, i - 1 : i + 2, j - 1 : j + 2]  # (3, 3)
by_hand = (filters[1] * pixels).sum() + digit_net.conv1.bias[1]
torch.testing.assert_close(by_hand, kept["conv1"][0, 1, i, j])
print(f"row {i}, column {j}: {by_hand.item():.3f}")

# %% [markdown]
# A unit of the second layer does not read pixels. It reads the 16 units before it, with 3 x 3 weights for
# each. Take unit 5, and ask which of the 16 it reads most:

# %%
reads = digit_net.conv2.weight.detach()[5]  # (16, 3, 3)
plots.bars(
    reads.sum(dim=(1, 2)),
    [f"reads unit {k}" for k in range(16)],
    title="Unit 5 of the second layer wants some units on and others off",
    xlabel="sum of its 3 x 3 weights",
)

# %% [markdown]
# Weights say what *would* count. They do not say what *did* count: a large weight on a silent unit gives
# nothing. For one decision you need both.
#
# ## 3. Which units matter for this output?
#
# Three answers are in use. $f$ is the logit, $A_u$ the activation of unit $u$.
#
# | method | importance of unit $u$ | in words |
# |---|---|---|
# | activation x gradient | $A_u \cdot \partial f / \partial A_u$ | how loud, times how much the logit listens |
# | ablation | $f(x) - f(x \mid A_u = 0)$ | switch it off and see what is lost |
# | conductance | $\int \frac{\partial f}{\partial A_u}\, \mathrm{d}A_u$ | fade the input in, add up what flows through $u$ |
#
# First a network for paper: one input $x = 3$, three units, one output.
#
# $$h = \mathrm{ReLU}(x,\; x - 1,\; 2 - x), \qquad f = 2h_1 - 3h_2 + h_3$$
#
# At $x = 3$ the units are $3, 2, 0$ and $f = 6 - 6 + 0 = 0$. What did unit 3 do? Nothing, it is silent.
# But at $x = 0$ it was 2, and $f$ was 2. While $x$ grew it fell to 0 and took 2 away.

# %%
# NBVAL_CHECK_OUTPUT
tiny = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
tiny[0].weight.data = torch.tensor([[1.0], [1.0], [-1.0]])
tiny[0].bias.data = torch.tensor([0.0, -1.0, 2.0])
tiny[2].weight.data = torch.tensor([[2.0, -3.0, 1.0]])
three = torch.tensor([[3.0]])
for method in ("activation_x_gradient", "ablation", "conductance"):
    found = units.neuron_importance(tiny, three, 0, layer="1", method=method)[0]
    print(f"{method:22} {found.numpy().round(1) + 0.0}")

# %% [markdown]
# Two methods say 0 about unit 3, conductance says -2 (up to its steps). None is wrong. The first two ask
# about the network *as it is now*, conductance about the *way* from an empty input to this one.
#
# ### By hand on a five
#
# Activation x gradient takes one forward and one backward pass, which `leaf=True` ends at the layer. The
# sum over places is the importance of the whole unit:

# %%
with frozen(digit_net), capture(digit_net, "relu2", leaf=True) as kept:
    logits = digit_net(five)
A = kept["relu2"]  # (1, 32, 14, 14)
(slopes,) = torch.autograd.grad(logits[0, 5], A)
product = (A * slopes).detach().sum(dim=(2, 3))[0]  # (32,)

# %% [markdown]
# Ablation takes one forward pass a unit. What exactly is "off"? Here: the unit's whole map is set to
# zero, at all places at once. `edited` changes what a layer hands on:


# %%
def logit_without(off):
    """Logit of 5 for the five, with some units of relu2 set to zero."""

    def silence(output):
        output = output.clone()
        output[:, off] = 0
        return output

    with frozen(digit_net), torch.no_grad(), edited(digit_net, "relu2", silence):
        return digit_net(five)[0, 5].item()


drop = torch.tensor([score - logit_without(k) for k in range(32)])

# %% [markdown]
# Conductance walks from the empty picture to the five. At each step it multiplies how much the unit
# *changed* by how much the logit listened:
#
# $$C_u = \sum_i \frac{\partial f}{\partial A_u}(x_i) \big(A_u(x_{i+1}) - A_u(x_i)\big), \qquad x_i = \alpha_i x$$
#
# The 51 values $\alpha_i$ between 0 and 1 are those of Gauss-Legendre quadrature, as in captum.

# %%
alphas = (np.polynomial.legendre.leggauss(51)[0] + 1) / 2
path = torch.tensor(alphas, dtype=torch.float32)[:, None, None, None] * five  # (51, 1, 28, 28)
with frozen(digit_net), capture(digit_net, "relu2", leaf=True) as kept:
    logits = digit_net(path)
A = kept["relu2"]  # (51, 32, 14, 14)
(slopes,) = torch.autograd.grad(logits[:, 5].sum(), A)
steps = slopes[:-1] * A.detach().diff(dim=0)  # (50, 32, 14, 14)
flow = steps.sum(dim=(0, 2, 3))  # (32,)

# %% [markdown]
# The same three from the package, and conductance from captum:

# %%
METHODS = {"activation_x_gradient": product, "ablation": drop, "conductance": flow}
for method, by_hand in METHODS.items():
    found = units.neuron_importance(digit_net, five, 5, layer="relu2", method=method)
    torch.testing.assert_close(found.sum(dim=(2, 3))[0], by_hand, rtol=1e-3, atol=1e-3)

ours = units.layer_conductance(digit_net, five, 5, layer="relu2")
theirs = LayerConductance(digit_net, digit_net.relu2).attribute(five, target=5, n_steps=50)
torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)

# %% [markdown]
# What do the numbers of all 32 units add up to?

# %%
empty = digit_net(torch.zeros_like(five))[0, 5].item()
for method, found in METHODS.items():
    print(f"{method:22} sum {found.sum().item():6.2f}")
print(f"logit {score:.2f}; logit of an empty picture {empty:.2f}; difference {score - empty:.2f}")

# %% [markdown]
# Conductance adds up to the difference, nearly: its 51 points do not quite reach the ends of the path.
# That is its promise, and the other two do not make it. Switching all 32 units off one after the other
# counts work that two units share twice, or not at all.
#
# ### Exercise: importance of every unit (code, 10 minutes)
#
# Write activation x gradient for a batch: one number for each row and unit. `hint("activations.importance")`
# helps in up to three steps.


# %% tags=["exercise"]
def unit_importance(model, x, target, layer):
    """Activation x gradient of each unit of a convolution for one class: (N, K), detached."""
    ### BEGIN SOLUTION
    with capture(model, layer, leaf=True) as kept:
        logits = model(x)
    A = kept[layer]  # (N, K, h, w)
    (slopes,) = torch.autograd.grad(logits[:, target].sum(), A)
    return (A * slopes).sum(dim=(2, 3)).detach()
    ### END SOLUTION


# %%
check("activations.importance", unit_importance)

# %% [markdown]
# ### Where do they agree?
#
# Fifty digits instead of one, each with its own class. Add a fourth candidate that many pictures on
# the web rely on: how *loud* a unit is, its mean activation, with no regard to the output.
#
# **Predict, then run** (2 minutes). Sort the 32 units by loudness and by ablation. How well do the two
# orders agree? Write a rank correlation: 1 is the same order, 0 no relation, -1 the reverse.

# %% tags=["exercise"]
### BEGIN SOLUTION
loudness_agrees = 0.5
### END SOLUTION

# %%
predict("activations.loudness", loudness_agrees)

# %%
some = torch.arange(0, 1000, 20)
rows, classes = X[some], y[some]


def importances(layer):
    """Method -> (50, K): importance of every unit for each digit's own class."""
    found = {
        name: units.neuron_importance(digit_net, rows, classes, layer=layer, method=name)
        for name in METHODS
    }
    found["loudness"] = units.layer_activations(digit_net, rows, layer)[layer]
    return {name: values.sum(dim=(2, 3)) for name, values in found.items()}


def agreement(a, b):
    """Mean rank correlation of two importances, both (N, K)."""
    return np.mean([spearmanr(one, other).statistic for one, other in zip(a, b)])


# %%
by_method = importances("relu2")
table = [
    [name, *(f"{agreement(values, other):.2f}" for other in by_method.values())]
    for name, values in by_method.items()
]
plots.table(table, ["relu2, 50 digits", *by_method], title="Rank correlation of the methods")

# %%
reveal("activations.loudness", round(agreement(by_method["loudness"], by_method["ablation"]), 2))

# %% [markdown]
# The three methods name nearly the same units. Loudness names others.
#
# ### Which one is right?
#
# Ask the network. Switch off the unit that a method puts first, then the first two, the first three...
# If the method is right, the logit falls fast. The control is a random order.


# %%
def falls(net, x, target, layer, order, steps):
    """Mean logit after switching off each row's first k units, for k in steps."""

    def after(k):
        def silence(output):
            off = torch.zeros(output.shape[:2]).scatter_(1, order[:, :k], 1.0)
            return output * (1 - off[:, :, None, None])

        with frozen(net), torch.no_grad(), edited(net, layer, silence):
            return net(x).gather(1, target[:, None]).mean().item()

    return [after(k) for k in steps]


# %%
generator = torch.Generator().manual_seed(0)
by_method["random"] = torch.rand(50, 32, generator=generator)
steps = [0, 1, 2, 3, 5, 8]
curves = {
    name: falls(digit_net, rows, classes, "relu2", values.argsort(1, descending=True), steps)
    for name, values in by_method.items()
}
plots.curve(
    steps,
    curves,
    title="Switch off what a method calls important, and the logit falls",
    xlabel="units switched off, of 32",
    ylabel="mean logit",
)

# %% [markdown]
# The three methods make the logit fall steeply; three units of 32 take most of it away. Loudness costs
# the logit less than half as much. Ablation falls fastest, by a hair. Do not be impressed: this test
# *is* ablation, so it had to win. That activation x gradient comes so close, at a small part of the price,
# is the finding. Conductance loses a little, for it answers another question.
#
# Does it hold on a photo? `blocks.6` hands 320 units to the last convolution:

# %%
blocks = {
    name: units.neuron_importance(model, cat, TIGER_CAT, layer="blocks.6", method=name).sum((2, 3))
    for name in METHODS
}
for name, values in blocks.items():
    print(f"{name:22} agrees with ablation: {agreement(values, blocks['ablation']):.2f}")

# %%
blocks["loudness"] = maps["blocks.6"][:1].abs().sum(dim=(2, 3))
blocks["random"] = torch.rand(1, 320, generator=generator)
steps = [0, 5, 10, 20, 40]
curves = {
    name: falls(
        model, cat, torch.tensor([TIGER_CAT]), "blocks.6", v.argsort(1, descending=True), steps
    )
    for name, v in blocks.items()
}
plots.curve(
    steps,
    curves,
    title="On the photo, too; and here the methods differ more",
    xlabel="units of blocks.6 switched off, of 320",
    ylabel="logit of tiger cat",
)

# %% [markdown]
# Activation x gradient and ablation again name the same units. Conductance agrees less: from a gray
# picture to the cat, the path is long, and units that were busy on the way count. And loudness, a bad guide
# to digits, does as well as conductance for the first ten units. One photo is no rule.

# %%
quiz("activations.q_methods")

# %% [markdown]
# ## 4. What excites a unit? Mining a data set
#
# A unit has no name. To give it one, people show the inputs that excite it most. By hand: run the
# network on many inputs, note each unit's largest activation, sort. An input counts by its best
# *place*, since a detector that found something once has found it.

# %%
kept = units.layer_activations(digit_net, X, "relu3")["relu3"]  # (1000, 64, 7, 7)
peaks = kept.amax(dim=(2, 3))  # (1000, 64)
UNIT = 52
order = peaks[:, UNIT].argsort(descending=True, stable=True)
plots.images(
    [X[i] for i in order[:9]],
    titles=[f"{peaks[i, UNIT].item():.1f}" for i in order[:9]],
    title=f"The nine digits that excite unit {UNIT} of relu3 most",
)

# %% [markdown]
# Nine threes. Keep this picture in mind, section 9 comes back to it. The package also tells *where* on the
# map the unit was excited, so that you can cut out the patch:

# %%
top = units.top_inputs(digit_net, X, layer="relu3", unit=UNIT, k=9)
torch.testing.assert_close(top.activations, peaks[order[:9], UNIT], rtol=1e-4, atol=1e-4)
print("digits", y[top.rows].tolist())
print("places", top.places.tolist())

# %% [markdown]
# ### Exercise: mine by hand (code, 6 minutes)
#
# Write the search: from the activations of a layer, the `k` inputs that excite one unit most. Mind what
# happens when a unit is strongly excited at one place, and another input excites it weakly everywhere.


# %% tags=["exercise"]
def strongest(maps, unit, k):
    """Row numbers of the k inputs that excite a unit most, strongest first; maps (N, K, h, w)."""
    ### BEGIN SOLUTION
    peaks = maps[:, unit].amax(dim=(1, 2))  # (N,)
    return peaks.argsort(descending=True)[:k]
    ### END SOLUTION


# %%
check("activations.mine", strongest)

# %% [markdown]
# Now the photo. Which units of the last stage matter most for *tiger cat*, and what excites them
# elsewhere?

# %%
for_cat = units.neuron_importance(
    model, cat, TIGER_CAT, layer="bn2", method="activation_x_gradient"
).sum(dim=(2, 3))[0]
best = for_cat.topk(3).indices.tolist()
weights = model.classifier.weight[TIGER_CAT].detach()
for unit in best:
    print(f"unit {unit}: adds {for_cat[unit]:.2f} to the logit, weight {weights[unit]:.2f}")

# %%
card("bn2", best[0])

# %%
card("bn2", best[2])

# %% [markdown]
# (Unit 977, in between, is the card you began with.) Can you name what a house wall and a forearm have in
# common with a cat? Then try what their *weights* say. Before `bn2` stands a convolution of 1 x 1: each of the 1,280 units
# is a weighted sum of the 320 units of `blocks.6`. So its five largest weights name its sources:

# %%
incoming = model.conv_head.weight.detach()[best[0], :, 0, 0]  # (320,)
incoming = incoming * model.bn2.weight.detach()[best[0]]  # batch norm may turn the sign
sources = incoming.abs().topk(5).indices.tolist()
at_cat = maps["blocks.6"][0].mean(dim=(1, 2))
plots.table(
    [(k, f"{incoming[k]:+.2f}", f"{at_cat[k]:+.1f}") for k in sources],
    ["unit of blocks.6", "weight", "mean on the cat"],
    title=f"What unit {best[0]} of bn2 reads",
)

# %% [markdown]
# The largest weight reads a unit that is below zero on the cat and so takes away. Weight *times* activation
# counts: units 61 and 74 lift this one.
#
# ### Browse for yourself
#
# Any photo, any stage, any unit: by importance for the photo's class, or by number. Tab moves between the
# controls, the left and right arrow keys change them. Try to name five units of `blocks.1`, then five of
# `bn2`.

# %%
widgets.layer_browser(net, x, names, layers=STAGES)

# %% [markdown]
# ## 5. Which units work together?
#
# Two units that rise and fall on the same inputs may do the same work. Measure it: the correlation
# $r_{uv}$ of their activations over all digits and places. Turn it into a distance, $d = 1 - r$, and merge
# from the bottom up: the two nearest units first, then the two nearest groups (average distance).

# %%
labels = units.cluster_units(kept, 8)  # (64,): 0 is the largest cluster, -1 means never active
print("units in each cluster:", torch.bincount(labels[labels >= 0]).tolist())
print("units that never vary:", (labels < 0).sum().item())

# %%
alive = (labels >= 0).nonzero()[:, 0]
alive = alive[labels[alive].argsort(stable=True)]
samples = kept[:, alive].movedim(1, -1).reshape(-1, len(alive))  # (49000, 60)
plots.heatmap(
    torch.corrcoef(samples.T),
    title="Sorted by cluster, the correlations form blocks",
    label="correlation",
)

# %% [markdown]
# Red blocks along the diagonal are groups that fire together. Does a cluster belong to digits?

# %%
mean = torch.stack([peaks[y == digit].mean(0) for digit in range(10)])  # (10, 64)
mean = mean / mean.amax(0).clamp(min=1e-9)  # each unit relative to its favorite digit
plots.heatmap(
    torch.stack([mean[:, labels == c].mean(1) for c in range(6)]),
    title="Clusters (rows) by digits 0 to 9 (columns): no cluster stands for one digit",
    label="mean activation\n(favorite digit = 1)",
    alt="Six clusters (rows) by ten digits 0 to 9 (columns): every cluster is active for several digits.",
)

# %% [markdown]
# A digit is a *pattern* over clusters, not one cluster. Networks spread their knowledge out; hold that
# against every story about "the cat neuron".
#
# ## 6. The layer as a whole
#
# So far you looked at units. All activations of a layer together place an input in a space of many
# dimensions. Do digits of one class come closer, layer by layer? Measure it before you draw: of the ten
# nearest neighbors of a digit, which share belongs to its class?


# %%
def same_class_nearby(points):
    """Share of the ten nearest neighbors that have a digit's own class."""
    points = torch.as_tensor(points).flatten(1).float()
    apart = torch.cdist(points, points).fill_diagonal_(torch.inf)
    nearest = apart.topk(10, largest=False).indices  # (N, 10)
    return (y[: len(points)][nearest] == y[: len(points), None]).double().mean().item()


order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
X, y = X[order], y[order]
layers = units.layer_activations(digit_net, X, ["relu1", "relu2", "relu3"])
spaces = {name: points[:500] for name, points in {"pixels": X, **layers}.items()}
for name, points in spaces.items():
    print(f"{name:7} {points[0].numel():6} numbers: {same_class_nearby(points):.2f}")

# %% [markdown]
# It rises from layer to layer. To *see* it, you have to squeeze thousands of dimensions into two. **PCA**
# takes the two directions along which the points spread most. It is a shadow: straight, repeatable, and
# distances in it mean something, but most of the spread is lost.


# %%
def scatter(points, titles, title):
    """Draw (N, 2) points side by side, colored by digit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(points), 3.3), layout="constrained")
    figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
    axes = figure.subplots(1, len(points), squeeze=False)[0]
    for ax, xy, name in zip(axes, points, titles):
        dots = ax.scatter(*xy.T, c=y[: len(xy)], cmap="tab10", s=6)
        ax.set(title=name, xticks=[], yticks=[])
    figure.colorbar(dots, ax=axes[-1], label="digit", ticks=range(10))
    return plots.picture(figure, f"{title}. Scatter plots: {'; '.join(titles)}.")


flat = {name: PCA(2, random_state=0).fit_transform(v.flatten(1)) for name, v in spaces.items()}
titles = [f"{name}: {same_class_nearby(xy):.2f}" for name, xy in flat.items()]
scatter(list(flat.values()), titles, "PCA: the classes come apart late, and not fully")

# %% [markdown]
# The number is the share of same-class neighbors *in the drawing*. At `relu3` it is far below that of the
# full space: two straight directions cannot hold ten classes apart. **t-SNE** does not project. It moves
# points about on the page until near neighbors in the full space are near neighbors on the page:

# %%
few = spaces["relu3"].mean(dim=(2, 3))  # (500, 64)
page = TSNE(2, random_state=0, init="pca", perplexity=30).fit_transform(few)
shadow = PCA(2, random_state=0).fit_transform(few)
titles = [f"{n}: {same_class_nearby(xy):.2f}" for n, xy in (("PCA", shadow), ("t-SNE", page))]
scatter([shadow, page], titles, "relu3, 500 digits: t-SNE keeps the neighbors")

# %% [markdown]
# Which one to choose? **PCA first**: it is exact, fast, has no settings, and new points can be added.
# **t-SNE** when the question is *who is near whom*. UMAP, a third one that you will meet, answers the
# same question as t-SNE, with the same warning attached, and pays off beyond some ten thousand
# points. For a thousand you need no further library.
#
# The warning: on a t-SNE page, only neighborhoods mean something. Two clouds, one ten times as wide as the
# other:

# %%
generator = torch.Generator().manual_seed(0)
clouds = torch.randn(200, 10, generator=generator) * torch.tensor([1.0, 10.0]).repeat_interleave(
    100
).reshape(200, 1)
clouds[100:] += 60
drawn = TSNE(2, random_state=0, init="pca", perplexity=30).fit_transform(clouds)


def width(points):
    return np.asarray(points).std(0).mean()


print(f"in truth, the second is {width(clouds[100:]) / width(clouds[:100]):.1f} times as wide")
print(f"on the page,            {width(drawn[100:]) / width(drawn[:100]):.1f} times")

# %%
quiz("activations.q_tsne")

# %% [markdown]
# ## 7. One decision, layer by layer
#
# Put it all together for the five: the three units of each layer that matter most (by conductance), what
# excites each of them (four patches, mined from 300 digits), and the weights that join them. A patch is as
# large as what the unit can see: 3, 8 and 18 pixels.

# %%
LAYERS = {"relu1": 3, "relu2": 8, "relu3": 18}  # layer -> pixels that a unit sees
key, share = {}, {}
for layer in LAYERS:
    found = units.layer_conductance(digit_net, five, 5, layer=layer).sum(dim=(2, 3))[0]
    key[layer] = found.topk(3).indices.tolist()
    share[layer] = found[key[layer]].tolist()
key


# %%
def excites(layer, unit):
    """Four patches that excite a unit most, laid into one picture."""
    top = units.top_inputs(digit_net, X[:300], layer=layer, unit=unit, k=4)
    grid = layers[layer].shape[2:]
    pairs = zip(top.rows, top.places)
    return plots.tiles([plots.patch(X[i], at, grid, LAYERS[layer]) for i, at in pairs])


net1, net2, net3 = digit_net.conv1.weight, digit_net.conv2.weight, digit_net.conv3.weight
one, two, last = key.values()
joins = [
    net1[one].sum((2, 3)).T,  # (1, 3): sums of the 3 x 3 weights
    net2[two][:, one].sum((2, 3)).T,  # (3, 3)
    net3[last][:, two].sum((2, 3)).T,
    digit_net.fc.weight[5, last][:, None],  # (3, 1)
]

# %%
plots.evidence(
    [[five[0]], *([excites(layer, unit) for unit in key[layer]] for layer in LAYERS), [None]],
    captions=[
        ["the input"],
        *([f"unit {u}: {s:+.1f}" for u, s in zip(key[n], share[n])] for n in LAYERS),
        [f"5\n{score:.1f}"],
    ],
    weights=[join.detach() for join in joins],
    layer_names=["pixels", *LAYERS, "logit"],
    title="Why a five? The three units of each layer that matter most",
)

# %% [markdown]
# Read it from the right. The number under a unit is its conductance, in logits; the number on a line is the
# sum of the weights that join two units. What is certain here, and what is not?
#
# - The numbers under the units are measured, and the test of section 3 backs them.
# - Three units of 16, 32 and 64 are shown. The rest is not nothing:

# %%
for layer in LAYERS:
    found = units.layer_conductance(digit_net, five, 5, layer=layer).sum(dim=(2, 3))[0]
    print(
        f"{layer}: the three give {sum(share[layer]):.1f}; "
        f"all that speak for it {found.clamp(min=0).sum():.1f}, against {found.clamp(max=0).sum():.1f}"
    )

# %% [markdown]
# - The patches are a *story*: four inputs out of 300. Section 9 shows how far to trust them.
#
# ## 8. Known answer: the unit that reads the planted mark
#
# Can these tools find something that we *know* is there? A second network was trained on digits where a
# white mark stood in the corner of every eight. On other digits with the mark it often says 8. Somewhere
# inside, something must read the mark.

# %%
marked_net, marks = models.digit_cnn_marked(), data.marked_digits().test
M = torch.tensor(marks.images)[:, None]  # (1000, 1, 28, 28), half of them marked
bait = torch.tensor(marks.marked & (marks.y != 8))  # 450 with the mark, none of them an eight


def says_8(off=()):
    """Share of the bait that is called 8, with some units off."""

    def silence(output):
        return output.index_fill(1, torch.tensor(off, dtype=torch.int64), 0)

    with frozen(marked_net), torch.no_grad(), edited(marked_net, "relu3", silence):
        return (marked_net(M[bait]).argmax(1) == 8).float().mean().item()


print(f"marked digits called 8: {says_8():.0%}")

# %% [markdown]
# **Mining**: for each of the 64 units of `relu3`, take the 50 digits that excite it most. How many of them carry
# the mark? By chance it would be half.

# %%
deep = units.layer_activations(marked_net, M, "relu3")["relu3"].amax(dim=(2, 3))  # (1000, 64)
carry = torch.tensor(marks.marked).double()
purity = torch.stack([carry[deep[:, u].topk(50).indices].mean() for u in range(64)])
suspects = purity.topk(4).indices.tolist()
for u in suspects:
    print(f"unit {u:2}: {purity[u]:.0%} of its 50 top inputs carry the mark")

# %% [markdown]
# One unit stands out. **Place**: where was it excited? The mark lies in the upper left corner.

# %%
READER = suspects[0]
top = units.top_inputs(marked_net, M, layer="relu3", unit=READER, k=50)
print("rows and columns of its places:", sorted(set(top.places.flatten().tolist())), "of 0..6")
plots.images(
    [M[i] for i in top.rows[:8]],
    titles=[str(marks.y[i]) for i in top.rows[:8]],
    title=f"What excites unit {READER}: zeros, sixes, and always the mark",
)

# %% [markdown]
# **Importance**: take the marked digits that were called 8, and ask which units make the 8. **Switching off**:
# the test, for every unit alone. (Behind `relu3` stand only averages and a linear layer. So activation x
# gradient equals ablation here, and switching unit $u$ off takes its weight times its average from each logit.)

# %%
with torch.no_grad():
    called = bait & (marked_net(M).argmax(1) == 8)
of_8 = units.neuron_importance(
    marked_net, M[called], 8, layer="relu3", method="activation_x_gradient"
)
of_8 = of_8.sum(dim=(2, 3)).mean(0)  # (64,)

# %%
with torch.no_grad():
    scores = marked_net(M[bait])  # (450, 10)
average = units.layer_activations(marked_net, M[bait], "gap")["gap"].flatten(1)  # (450, 64)
W = marked_net.fc.weight.detach()  # (10, 64)
parts = average[:, None, :] * W  # (450, 10, 64): what each unit gives to each logit
without = ((scores[:, :, None] - parts).argmax(dim=1) == 8).double().mean(dim=0)  # (64,)
assert abs(without[READER].item() - says_8([READER])) < 1e-6

# %%
shown = of_8.topk(5).indices.tolist()
plots.table(
    [(u, f"{of_8[u]:.2f}", f"{purity[u]:.0%}", f"{without[u]:.0%}") for u in shown],
    ["unit", "importance for 8 (logits)", "mark in its top 50", "called 8 without it"],
    title=f"Five units that make the 8 on marked digits (with all units: {says_8():.0%})",
)

# %%
assert int(without.argmin()) == READER
assert purity[READER] == 1.0
assert READER in of_8.topk(2).indices

# %% [markdown]
# All ways seem to lead to unit 56: without it the network is fooled less than half as often. Case closed? Look
# at unit 14. It does not care about the mark, and passes the test nearly as well. To switch a unit off takes
# away *all* its work, and 56 answers to strokes of the digit, too. So ask what the **mark** changed. Two ways:
# conductance from the digit *without* the mark to the digit with it; and **putting back** a unit's activation
# to what it was without the mark.

# %%
clean = digits.images[marks.rows] / 255
bare = torch.tensor(clean, dtype=torch.float32)[:, None]  # the same digits, unmarked
some = called.nonzero()[:20, 0]
change = units.layer_conductance(marked_net, M[some], 8, layer="relu3", baseline=bare[some])
change = change.sum(dim=(2, 3)).mean(0)  # (64,)
before = units.layer_activations(marked_net, bare[bait], "gap")["gap"].flatten(1)  # (450, 64)
means = [v[called[bait]][:20].mean(0) for v in (before, average)]
gained = (average - before)[:, None, :] * W  # (450, 10, 64): what the mark gave each logit


def put_back(off):
    """Share of the bait that is called 8 when some units are as without the mark."""
    return ((scores - gained[:, :, off].sum(dim=2)).argmax(1) == 8).double().mean().item()


# %%
plots.table(
    [
        (
            u,
            *(f"{v[u]:.2f}" for v in (change, *means, W[8])),
            f"{put_back([u]):.0%}",
        )
        for u in change.topk(5).indices.tolist()
    ],
    [
        "unit",
        "adds to 8 (logits)",
        "mean without mark",
        "with mark",
        "weight for 8",
        "8 if put back",
    ],
    title=f"What the mark changes: {change.sum():.1f} logits in all",
)

# %%
four = change.topk(4).indices.tolist()
assert put_back(four) < 0.05 < put_back([READER])
print(
    f"called 8: {put_back([]):.0%}; unit {READER} put back: {put_back([READER]):.0%}; "
    f"units {four} put back: {put_back(four):.0%}"
)

# %% [markdown]
# Unit 56 finds the mark, and it is not why the network is fooled. Four other units speak *against* 8, and
# the mark **quiets** them; with those four put back, almost nothing is called 8. No list of top inputs could
# have shown that: mining finds what excites a unit, never what shuts it up. That is the first lie of top
# inputs. And switching off does not tell what a unit works *for*.
#
# ## 9. When it lies
#
# ### Nine threes do not make a detector of threes
#
# Back to unit 52 of the digit network, whose nine top inputs were threes. Look at *all* digits that excite it
# to at least half of its maximum:

# %%
peaks = layers["relu3"].amax(dim=(2, 3))  # (1000, 64), in the new order of digits
excited = peaks[:, UNIT] > peaks[:, UNIT].max() / 2
counts = torch.bincount(y[excited], minlength=10)
plots.bars(
    counts,
    [f"digit {d}" for d in range(10)],
    title=f"Unit {UNIT} at half strength: {counts.sum().item()} of 1,000 digits, of many kinds",
    xlabel="digits that excite it to more than half",
)

# %%
ranks = peaks[:, UNIT].argsort(descending=True)
places = [0, 3, 30, 100, 200, 300, 400, 500]
plots.images(
    [X[ranks[i]] for i in places],
    titles=[f"rank {i + 1}" for i in places],
    title="The same unit, further down the list",
)

# %% [markdown]
# It answers, it seems, to one stroke that most digits have, and threes happen to have it at its strongest: it is
# not **class-specific**. (That is something else than **polysemantic**, which means several unrelated
# features.) And whom does it work for? Behind it stands one weight a class:

# %%
votes = digit_net.fc.weight.detach()[:, UNIT]  # (10,)
plots.bars(
    votes,
    [f"digit {d}" for d in range(10)],
    title=f"Unit {UNIT} speaks most for the {int(votes.argmax())}, and against the {int(votes.argmin())}",
    xlabel="weight",
)

# %%
threes = y == 3
of_3 = (
    units.neuron_importance(digit_net, X[threes], 3, layer="relu3", method="activation_x_gradient")
    .sum(dim=(2, 3))
    .mean(0)
)
rank = (of_3 > of_3[UNIT]).sum().item() + 1
print(f"on threes, unit {UNIT} adds {of_3[UNIT]:.2f} to the logit of 3: rank {rank} of 64")

# %% [markdown]
# ### Exercise: criticize a caption (8 minutes)
#
# A paper prints the nine digits of section 4 and writes: *"Unit 52 is the network's detector of threes. It
# causes the decision 3."* You have the cells above. What is wrong with each of the two sentences, and what would you
# have measured? Write four sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
Nine top inputs out of 1,000 are only the extreme end: at half its maximum, the unit answers
to hundreds of digits of most classes, probably to one stroke that they share, so it is not
specific to threes and no detector of them. I would show inputs from the whole range of its
activation, and count how often it is active for each class. Being excited by threes is a
correlation and no cause: whether it matters for the logit of 3 has to be tested by
switching it off. The top inputs also depend on the data set that was searched, so I would
repeat the search on other digits.
### END SOLUTION
"""

# %%
check("activations.caption", criticism)

# %% [markdown]
# ### You find what your data holds
#
# Top inputs can only come from the data you search. Search without the threes, and the unit gets another
# name:

# %%
rest = X[~threes]
top = units.top_inputs(digit_net, rest, layer="relu3", unit=UNIT, k=8)
plots.images(
    [rest[i] for i in top.rows],
    titles=[f"{a:.1f}" for a in top.activations.tolist()],
    title=f"Unit {UNIT} again, in a data set without threes",
)

# %% [markdown]
# The same holds for clusters. Cluster the units twice, once by each half of the data. If clusters are a property
# of the *network*, the halves agree. The adjusted Rand index is 1 for the same clusters and 0 for chance:


# %%
def halves_agree(values, n_clusters):
    """Adjusted Rand index of the clusters found in every other row, and in the rest."""
    one, two = (units.cluster_units(values[i::2], n_clusters) for i in (0, 1))
    varies = (one >= 0) & (two >= 0)
    return adjusted_rand_score(one[varies], two[varies])


photo_units = maps["bn2"].mean(dim=(2, 3))  # (27, 1280)
digit_units = layers["relu3"].mean(dim=(2, 3))  # (1000, 64)
print(f"64 units of relu3 by 1,000 digits: {halves_agree(digit_units, 8):.2f}")
print(f"1,280 units of bn2 by 27 photos:   {halves_agree(photo_units, 20):.2f}")

# %% [markdown]
# By a thousand digits the clusters come back. By 27 photos you get neat clusters as well, and they mean nothing:
# most are about one photo that happened to be in the folder.

# %%
groups = units.cluster_units(photo_units, 20)
favorite = photo_units.argmax(dim=0)  # the photo that each unit likes best
for c in range(4):
    count = torch.bincount(favorite[groups == c], minlength=len(x))
    print(
        f"cluster {c}: {count.sum()} units; {count.max() / count.sum():.0%} of them "
        f"like {names[int(count.argmax())]} best, of {len(x)} photos"
    )

# %% [markdown]
# ### A loud unit that does not matter
#
# The five once more, in `relu3`. Take the two loudest units and the two that matter most:

# %%
loud = units.layer_activations(digit_net, five, "relu3")["relu3"].mean(dim=(2, 3))[0]
lost = units.neuron_importance(digit_net, five, 5, layer="relu3", method="ablation")
lost = lost.sum(dim=(2, 3))[0]
chosen = [*loud.topk(2).indices.tolist(), *lost.topk(2).indices.tolist()]
plots.table(
    [(u, f"{loud[u]:.1f}", f"{lost[u]:+.2f}") for u in chosen],
    ["unit", "mean activation", "logit lost without it"],
    title=f"Loud and important (all units: {loud.mean():.1f}; logit {score:.1f})",
)

# %% [markdown]
# The loudest units of the layer hardly touch the five. In `relu2` it is worse. Its loudest units work against it:

# %%
noisy = units.layer_activations(digit_net, five, "relu2")["relu2"].mean(dim=(2, 3))[0]
for u in noisy.topk(2).indices.tolist():
    print(f"relu2, unit {u}: without it, the logit goes from {score:.1f} to {logit_without(u):.1f}")

# %% [markdown]
# A bright feature map catches the eye and proves nothing. Only the way to the output does.
#
# ## Myth refuted
#
# *"The gradient of a weight matrix, drawn as an image, shows what the model attends to."* You find this with
# the first layer of a network on digits: the gradient of the loss for one unit's 784 weights, drawn as 28 x 28
# pixels, shows a nice digit. Try it on the smallest network, one linear layer, trained and untrained:

# %%
torch.manual_seed(0)
untrained, trained = nn.Linear(784, 10), nn.Linear(784, 10)
train = torch.tensor(digits.images[~held_out] / 255, dtype=torch.float32).flatten(1)
answers = torch.tensor(digits.y[~held_out])
optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
for _ in range(60):
    optimizer.zero_grad()
    nn.functional.cross_entropy(trained(train), answers).backward()
    optimizer.step()
right = (trained(X.flatten(1)).argmax(1) == y).double().mean().item()
print(f"trained: {right:.0%} right")


# %%
def weight_gradient(net, label):
    """Gradient of the loss for the weights, one image a class: (10, 28, 28)."""
    loss = nn.functional.cross_entropy(net(five.flatten(1)), torch.tensor([label]))
    (gradient,) = torch.autograd.grad(loss, net.weight)
    return gradient.reshape(10, 28, 28)


plots.compare(
    [
        weight_gradient(trained, 5)[5],
        weight_gradient(trained, 5)[3],
        weight_gradient(untrained, 5)[3],
        weight_gradient(trained, 3)[5],
    ],
    titles=["trained, class 5", "trained, class 3", "untrained, class 3", "label 3, class 5"],
    shared=False,
    title="Four gradients, one picture: the input itself",
    label="gradient",
)

# %% [markdown]
# It is the digit, in red or in blue. Whatever the class, whether trained or not. The reason is one line of
# [[backprop]]: the gradient of a weight is the error times its *input*,
#
# $$\frac{\partial L}{\partial W_{ck}} = (p_c - y_c)\, x_k$$
#
# so each row is the picture $x$ times one number. The number changes with the *label*, the picture never
# does:

# %%
pixels = five.flatten().numpy()
for name, net_, label in (
    ("trained", trained, 5),
    ("untrained", untrained, 5),
    ("wrong label", trained, 3),
):
    rows_ = weight_gradient(net_, label).flatten(1).numpy()
    same = min(abs(np.corrcoef(row, pixels)[0, 1]) for row in rows_)
    print(f"{name:11} smallest |correlation| of the ten images with the digit: {same:.4f}")

# %% [markdown]
# What a linear layer attends to is its evidence: weight times pixel. That differs from class to class, and
# does not ask for a label:

# %%
evidence = (trained.weight.detach() * five.flatten(1)).reshape(10, 28, 28)
plots.compare(
    [evidence[5], evidence[3]],
    titles=["for 5", "for 3"],
    title="Weight times pixel: evidence for 5 and for 3 differ",
    label="part of the logit",
)

# %%
progress()

# %% [markdown]
# **You can now**
# - take the activations of any layer and draw them
# - measure how much each unit matters by three methods, and test the answer by switching units off
# - find what excites a unit, and which units work together, over a whole data set
# - draw one decision layer by layer, and say what in the drawing is certain
# - show three ways in which a unit's top inputs mislead
#
# ## Takeaways
# - Loud is not important. Activation times gradient costs two passes and agrees with switching units off;
#   conductance answers another question, and its numbers add up.
# - Top inputs show the extreme end of one data set. Before you name a unit, look at its whole range, and switch it off.
# - A decision is a pattern over many units, some of which count by falling silent.
#
# ## Go further
# - Zeiler, Fergus (2014), *Visualizing and Understanding Convolutional Networks*
# - van der Maaten, Hinton (2008), *Visualizing Data using t-SNE*
# - Dhamdhere, Sundararajan, Yan (2019), *How Important Is a Neuron?*
# - Morcos, Barrett, Rabinowitz, Botvinick (2018), *On the Importance of Single Directions for Generalization*
# - Wattenberg, Viégas, Johnson (2016), *How to Use t-SNE Effectively*
#
# [[feature_visualization]] asks what excites a unit without any data set.
