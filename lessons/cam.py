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
# # Class activation maps: where did it look?
#
# **Question:** One picture shows a cat and a dog: which part of it speaks for *cat*, and which for *dog*?
#
# **You will be able to**
# - compute CAM and Grad-CAM by hand, and say when the two are the same map
# - tell what a heat map knows from what drawing it has added
# - choose a layer and a variant, and defend the choice with a score
# - show four ways in which a convincing map misleads
#
# **You need:** [[backprop]] and [[saliency]]
#
# **Time:** [[time]]; the cells run in half a minute · **Difficulty:** 3 of 5

# %%
from importlib.metadata import version
from inspect import getsource
from time import perf_counter

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import xailab
from xailab import data, models, plots, widgets
from xailab.attribution import cam as cams
from xailab.attribution.saliency import guided_backprop
from xailab.core import capture, frozen
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.localization import relevance_mass_accuracy
from xailab.evaluate.scoreboard import marked_digits_known_answer, record, score

# %% [markdown]
# The cat fills one photo, the dog stands in another. Put them side by side, and the network has to
# say what it sees in both at once.

# %%
net = models.pretrained("efficientnet_lite0")
model = net.model
cat = net.preprocess(skimage.data.chelsea())  # (1, 3, 224, 224)
dog = net.preprocess(data.photos().image("bull mastiff"))  # (1, 3, 224, 224)
pair = torch.cat([cat, dog], dim=3)  # (1, 3, 224, 448)
for number, name, probability in net.top(pair, k=3):
    print(f"{probability:.3f}  {name} (class {number})")

# %% [markdown]
# It cannot make up its mind: two kinds of dog, then a tiger cat. Now ask two questions about this one
# picture. This is the figure that you will build in this lesson, and learn to doubt:

# %% tags=["readme-mosaic"]
TIGER_CAT, MASTIFF = 282, 243
photo, both = net.picture(cat)[0], net.picture(pair)[0]
answers = [cams.grad_cam(model, pair, target, layer="bn2") for target in (TIGER_CAT, MASTIFF)]
plots.compare(
    answers,
    over=both,
    titles=["tiger cat", "bull mastiff"],
    shared=False,
    title="One picture, one network, two questions",
)

# %% [markdown]
# ## 1. What the classifier gets to see
#
# Go back to the cat alone. The last part of the network that still knows *where* is a layer named
# `bn2`. It hands over 1,280 small pictures of 7 x 7 cells. Each of them says: *here is something like
# this*. `capture` keeps what a layer hands over while the network runs:

# %%
with capture(model, "bn2") as kept, torch.no_grad():
    logits = model(cat)  # (1, 1000): one score a class, before softmax
maps = kept["bn2"][0]  # (1280, 7, 7)
maps.shape

# %% [markdown]
# Look at three of them. They were picked because they add most to the score of tiger cat. None has
# a name; you see only where each of them found what it looks for. The flat yellow is no error: this
# network cuts every activation off at 6.

# %%
weights = model.classifier.weight[TIGER_CAT].detach()  # (1280,)
pooled = maps.mean(dim=(1, 2))  # (1280,): one average a picture
top = (weights * pooled).topk(3).indices.tolist()
plots.compare(
    [maps[k] for k in top],
    over=photo,
    titles=[f"number {k}" for k in top],
    title="Three of 1,280 small pictures",
    label="activation",
)

# %% [markdown]
# The rest of the network is short. It takes the average of each small picture, and a linear layer
# adds the averages up, with one weight for each picture and class. So you can compute the logit of
# tiger cat in one line:

# %%
bias = model.classifier.bias[TIGER_CAT].item()
print(f"by hand      {(weights @ pooled).item() + bias:.3f}")
print(f"the network  {logits[0, TIGER_CAT].item():.3f}")

# %% [markdown]
# Every *where* was lost in the averages. To get it back, take the averages apart again.
#
# ## 2. CAM: the same sum in another order
#
# An average is a sum over 49 cells. The logit is a sum over 1,280 pictures of sums over 49 cells, and
# the order of sums does not matter. So add up the **pictures** first, with their weights, and take
# the average **last**:
#
# $$s_c = \sum_k w_{ck} \frac{1}{49}\sum_{ij} A^k_{ij} + b_c
#       = \frac{1}{49}\sum_{ij} \underbrace{\sum_k w_{ck} A^k_{ij}}_{M_{ij}} + b_c$$
#
# $s_c$ is the logit of class $c$, $A^k$ the $k$-th small picture, $w_{ck}$ its weight for this class and
# $b_c$ the bias. $M$ is the **class activation map** (CAM): cell $ij$ gives $M_{ij}/49$ to the logit.

# %%
M = (weights[:, None, None] * maps).sum(dim=0)  # (7, 7)
print(f"mean of M, plus bias: {M.mean().item() + bias:.3f}")

# %% [markdown]
# The same number a third time. Nothing was estimated: the map is the logit without its bias, spread
# out over the cells it came from. Here it is, whole:

# %%
print(M.numpy().round(1))

# %% [markdown]
# That is all there is to know. The smooth clouds that you have seen in papers are such a handful of
# numbers, stretched to the size of the photo. Compare:

# %%
cloud = F.interpolate(M[None, None], size=(224, 224), mode="bilinear")  # (1, 1, 224, 224)
plots.compare(
    [M, cloud],
    over=photo,
    titles=["what was computed", "what is usually shown"],
    title="49 numbers, and the same 49 numbers stretched",
    label="M (its mean + bias = logit)",
)

# %% [markdown]
# The left map cannot tell the eye from the fur beside it. The right one seems to follow the cheek and
# the muzzle, but it has no more information: between the cells, it is drawn by a formula that never
# saw the photo.
#
# ### Exercise: a map that keeps the whole logit (code, 6 minutes)
#
# The mean of $M$ is the logit only after you add the bias. Write a function whose map has the logit as
# its mean, bias included, for any class. `hint("cam.class_map")` helps in up to three steps.


# %% tags=["exercise"]
def class_map(maps, weight, bias, target):
    """Map (h, w) whose mean is the logit; maps (K, h, w), weight (C, K), bias (C,)."""
    ### BEGIN SOLUTION
    heat = (weight[target][:, None, None] * maps).sum(dim=0)
    return heat + bias[target]
    ### END SOLUTION


# %%
check("cam.class_map", class_map)

# %% [markdown]
# The package has CAM as well. It refuses a network whose logits are not a linear layer on averages,
# because there the trick with the order of sums does not hold.

# %%
same = cams.cam(model, cat, TIGER_CAT, layer="bn2", upsample=False)  # (1, 1, 7, 7)
torch.testing.assert_close(same[0, 0], M)

# %% [markdown]
# ## 3. Grad-CAM: ask the gradient for the weights
#
# Most networks do not end in an average and one linear layer. Then there is no $w_{ck}$ to read off.
# But you can still ask: *if the whole picture $A^k$ brightens a little, how much does the logit move?*
# Brightening the whole picture means every cell of it, so take the gradient at all 49 cells and
# average:
#
# $$\alpha_k = \frac{1}{49}\sum_{ij} \frac{\partial s_c}{\partial A^k_{ij}} \qquad
#   L = \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big)$$
#
# $\partial s_c / \partial A^k_{ij}$ is the slope of the logit at one cell, $\alpha_k$ the weight of the
# $k$-th picture, $L$ the map. The ReLU keeps what speaks *for* the class.
# First the forward pass, this time with gradients:

# %%
with capture(model, "bn2") as kept:
    logits = model(cat)
A = kept["bn2"]  # (1, 1280, 7, 7), and it remembers what was computed from it
(grads,) = torch.autograd.grad(logits[0, TIGER_CAT], A)
grads.shape

# %% [markdown]
# One slope for each cell of each picture. The rest is the formula, word by word:

# %%
alpha = grads.mean(dim=(2, 3), keepdim=True)  # (1, 1280, 1, 1)
heat = (alpha * A).sum(dim=1, keepdim=True).relu().detach()  # (1, 1, 7, 7)
print(heat[0, 0].numpy().round(2))

# %% [markdown]
# Compare with the 49 numbers above: the largest cell is the same one, in the fourth row. Divide the
# two maps, cell by cell:

# %%
ratio = M.relu() / heat[0, 0]
print(f"CAM / Grad-CAM: from {ratio.min().item():.3f} to {ratio.max().item():.3f}")

# %% [markdown]
# Always 49. The reason is in the slopes. On this network the logit depends on a cell only through
# the average, so each of the 49 cells has the same slope, $w_{ck}/49$:

# %%
k = top[0]
for i, j in [(0, 0), (0, 1), (3, 1), (6, 6)]:
    print(f"slope of picture {k} at cell ({i}, {j}): {grads[0, k, i, j].item():.6f}")
print(f"its weight / 49: {weights[k].item() / 49:.6f}")
A, logits = A.detach(), logits.detach()  # lets go of all that was kept for the backward pass

# %% [markdown]
# So here Grad-CAM **is** CAM, in another unit and without the negative cells. On a network with more
# layers behind the maps, only Grad-CAM is left.
#
# ### Exercise: Grad-CAM for any network (code, 12 minutes)
#
# Put the four steps into one function: forward pass, slopes, their mean, weighted sum with ReLU. It
# gets a batch `x` of N pictures, and each needs a map of its own. The check uses a tiny network where
# the slopes differ from cell to cell, so that a mean over the wrong axis shows.


# %% tags=["exercise"]
def my_grad_cam(model, x, target, layer):
    """Grad-CAM of each row of x for one class: (N, 1, h, w), detached."""
    ### BEGIN SOLUTION
    with capture(model, layer) as kept:
        logits = model(x)
    A = kept[layer]  # (N, K, h, w)
    (grads,) = torch.autograd.grad(logits[:, target].sum(), A)
    alpha = grads.mean(dim=(2, 3), keepdim=True)
    return (alpha * A).sum(dim=1, keepdim=True).relu().detach()
    ### END SOLUTION


# %%
check("cam.grad_cam", my_grad_cam)

# %%
quiz("cam.q_agree")

# %% [markdown]
# ### The same from three libraries
#
# `xailab` gives your map. captum gives it too: its `LayerGradCam` leaves out the ReLU and the
# stretching unless you ask.

# %%
ours = cams.grad_cam(model, cat, TIGER_CAT, layer="bn2", upsample=False)
torch.testing.assert_close(ours, heat)
theirs = LayerGradCam(model, model.bn2).attribute(cat, TIGER_CAT, relu_attributions=True)
torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-5)

# %% [markdown]
# pytorch-grad-cam stretches its maps and scales each one to 0..1. The unit is lost on the way: its maps
# tell you nothing about *how much*. Scale ours alike, and they agree:


# %%
def to_unit(heat):
    """Shift and scale a map (1, 1, H, W) to 0..1, as pytorch-grad-cam does."""
    return ((heat - heat.min()) / (heat.max() - heat.min()))[0, 0].numpy()


def published(method_class, net, layer, x, target):
    """Map (H, W) of one class by a method of pytorch-grad-cam."""
    with method_class(net, [layer]) as method:
        return method(x, [ClassifierOutputTarget(target)])[0]


theirs = published(GradCAM, model, model.bn2, cat, TIGER_CAT)
ours = to_unit(cams.grad_cam(model, cat, TIGER_CAT, layer="bn2"))
np.testing.assert_allclose(ours, theirs, atol=1e-5)

# %% [markdown]
# One difference stays behind. pytorch-grad-cam calls `.backward()`, so every weight of the network
# now carries a gradient. If you trained on without clearing them, your next step would use them too:

# %%
left = sum(parameter.grad is not None for parameter in model.parameters())
model.zero_grad()
print(f"parameters with a gradient left behind: {left}")

# %% [markdown]
# And the time? All three take one forward and one backward pass. The backward pass of
# pytorch-grad-cam runs to the first layer, for the gradients it leaves behind; the others stop at
# `bn2`:


# %%
def milliseconds(function):
    times = []
    for _ in range(3):
        began = perf_counter()
        function()
        times.append(perf_counter() - began)
    return f"{1000 * min(times):.0f}"


rivals = {
    "xailab": lambda: cams.grad_cam(model, cat, TIGER_CAT, layer="bn2"),
    "captum": lambda: LayerGradCam(model, model.bn2).attribute(cat, TIGER_CAT),
    "pytorch-grad-cam": lambda: published(GradCAM, model, model.bn2, cat, TIGER_CAT),
}
rows = [(name, milliseconds(function)) for name, function in rivals.items()]
model.zero_grad()
plots.table(rows, ["library", "milliseconds"], title="Grad-CAM of one photo, best of three")

# %% [markdown]
# ## 4. Two animals: what speaks against
#
# Back to the cat beside the dog, and the map for *tiger cat*. Leave the ReLU out for once. Red speaks
# for the class, blue against it. Look at the dog's head:

# %%
signed = cams.cam(model, pair, TIGER_CAT, layer="bn2", upsample=False)  # (1, 1, 7, 14)
plots.heatmap(
    signed,
    both,
    title="The dog's head speaks against the cat",
    label="M (its mean + bias = logit)",
)

# %% [markdown]
# The dog's head is pale blue: it lowers the score of *tiger cat*. The ReLU of Grad-CAM shows such cells as
# empty, and you cannot tell *nothing here* from *here is the counter-evidence*. Count how much it
# cuts away:

# %%
print(f"sum of the cells for      {signed.clamp(min=0).sum().item():6.0f}")
print(f"sum of the cells against  {signed.clamp(max=0).sum().item():6.0f}")

# %% [markdown]
# Now put a number on the figure at the top of this lesson. The truth is known: the cat is in the left
# half. Which share of Grad-CAM's heat for *tiger cat* lies there? (A map that knows nothing would
# get .50.)

# %%
left_half = torch.zeros(1, 224, 448, dtype=torch.bool)
left_half[..., :224] = True


def on_the_cat(heat):
    """Share of the positive heat that lies on the cat's half."""
    heat = F.interpolate(heat, size=(224, 448), mode="nearest")
    return relevance_mass_accuracy(heat, left_half).item()


print(f"Grad-CAM: {on_the_cat(cams.grad_cam(model, pair, TIGER_CAT, layer='bn2')):.2f}")

# %% [markdown]
# ## 5. Three variants that change the weights
#
# All class activation maps are weighted sums of the small pictures. The variants differ in the weights.
# Write $g = \partial s_c / \partial A^k_{ij}$ for the slope at one cell:
#
# | method | weight of picture $k$ at cell $ij$ | asks for |
# |---|---|---|
# | Grad-CAM | mean of $g$ over all cells | one backward pass |
# | LayerCAM | $\mathrm{ReLU}(g)$, each cell its own | one backward pass |
# | Grad-CAM++ | sum of $a \cdot \mathrm{ReLU}(g)$ over all cells, $a = g^2 / (2g^2 + g^3 \sum A^k)$ | one backward pass |
# | Score-CAM | softmax of the logit when the input is seen through $A^k$ | one forward pass a picture |
#
# Grad-CAM++ was made for pictures with several objects of one class: its factor $a$ lifts pictures that
# are bright in few cells.
#
# ### Predict, then run (2 minutes)
#
# For *tiger cat* on the cat beside the dog, Grad-CAM had nearly all of its heat on the cat. Guess:
# which share will **Grad-CAM++** have there? Look at the formula before you write a number from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
plus_plus_share = 0.98
### END SOLUTION

# %%
predict("cam.plus_plus", plus_plus_share)

# %% [markdown]
# LayerCAM takes one line, Grad-CAM++ four:

# %%
with capture(model, "bn2") as kept:
    logits = model(pair)
(g,) = torch.autograd.grad(logits[0, TIGER_CAT], kept["bn2"])
A = kept["bn2"].detach()  # (1, 1280, 7, 14)
layer_heat = (g.relu() * A).sum(dim=1, keepdim=True).relu()  # (1, 1, 7, 14)

# %%
below = 2 * g**2 + g**3 * A.sum(dim=(2, 3), keepdim=True)
a = torch.where(below == 0, 0, g**2 / below)  # where g = 0, so is its weight
w = (a * g.relu()).sum(dim=(2, 3), keepdim=True)  # (1, 1280, 1, 1)
plus_heat = (w * A).sum(dim=1, keepdim=True).relu()  # (1, 1, 7, 14)

# %%
options = {"layer": "bn2", "upsample": False}
torch.testing.assert_close(layer_heat, cams.layer_cam(model, pair, TIGER_CAT, **options))
torch.testing.assert_close(plus_heat, cams.grad_cam_plus_plus(model, pair, TIGER_CAT, **options))

# %%
reveal("cam.plus_plus", round(on_the_cat(plus_heat), 2))

# %%
grad_heat = cams.grad_cam(model, pair, TIGER_CAT, **options)
plots.compare(
    [grad_heat, plus_heat, layer_heat],
    over=both,
    titles=["Grad-CAM", "Grad-CAM++", "LayerCAM"],
    shared=False,
    title="Asked for the cat, two variants light up the dog",
)

# %% [markdown]
# The newer methods do worse here. Which part of the formula is to blame? Both have a ReLU on the
# **slopes**: a small picture that speaks against the class is dropped before the sum. In Grad-CAM the
# pictures against *tiger cat* cancel the heat on the dog's head. Test this: take CAM and drop its
# negative weights.

# %%
only_for = (weights.relu()[None, :, None, None] * A).sum(dim=1, keepdim=True)
rivals = {
    "CAM, all weights": signed,
    "CAM, positive weights": only_for,
    "LayerCAM": layer_heat,
    "Grad-CAM++": plus_heat,
}
for name, heat in rivals.items():
    print(f"{name:22}{on_the_cat(heat):.2f}")

# %% [markdown]
# Two of these had to agree. Behind an average, all slopes of a small picture are equal, so the ReLU of
# LayerCAM drops whole pictures: here it *is* CAM with positive weights. Grad-CAM++ weighs the rest
# in another way and comes out nearly the same. So the drop is to blame: of CAM's lead over .50, two
# thirds came from the weights **against** the class.
#
# ### Score-CAM: no gradient, many forward passes
#
# Score-CAM uses each small picture as a window. It stretches the picture over the input, dims what is
# dark in it, and asks the network for the score of what is left. That is one forward pass for each
# small picture, so work on a digit: our digit network has 64 of them, not 1,280.

# %%
digits, digit_net = data.load("mnist5k"), models.digit_cnn()
row = np.flatnonzero((digits.y == 5) & ~digits.extra["train"])[0]  # a five it was not trained on
digit = torch.tensor(digits.images[row] / 255, dtype=torch.float32)[None, None]  # (1, 1, 28, 28)
with capture(digit_net, "relu3") as kept, torch.no_grad():
    digit_net(digit)
small = kept["relu3"][0][:, None]  # (64, 1, 7, 7)

# %%
windows = F.interpolate(small, size=28, mode="bilinear")  # (64, 1, 28, 28)
low, high = windows.amin((1, 2, 3), keepdim=True), windows.amax((1, 2, 3), keepdim=True)
windows = (windows - low) / (high - low).clamp(min=1e-12)  # each from 0 to 1
with torch.no_grad():
    scores = digit_net(digit * windows)[:, 5]  # (64,): the logit of 5 through each window
shares = scores.softmax(0)  # (64,), they add up to 1
score_heat = (shares[:, None, None, None] * small).sum(0).relu()  # (1, 7, 7)

# %%
same = cams.score_cam(digit_net, digit, 5, layer="relu3", upsample=False)
torch.testing.assert_close(score_heat, same[0])

# %%
order = scores.argsort(descending=True)
shown = [digit[0], *(digit * windows)[order[[0, 1, -1]]]]
plots.images(
    shown,
    titles=["the digit", *(f"logit {scores[k].item():.1f}" for k in order[[0, 1, -1]])],
    title="The best two windows and the worst",
)

# %% [markdown]
# Let `explain` run it beside Grad-CAM. It counts the rows that went through the network:

# %%
found = xailab.explain(digit_net, digit, 5, methods=["grad_cam", "score_cam"], layer="relu3")
found.table()[["rows"]]

# %%
found.plot(over=digit[0], title="The same 64 pictures, other weights: the hottest spot moves")

# %% [markdown]
# Grad-CAM points at the upper stroke, Score-CAM at the lower one. Nothing here says which of them is
# right; that takes a known answer (section 7). On a photo, the price is high:

# %%
empty = (maps.amax(dim=(1, 2)) == 0).sum().item()
print(f"{len(maps):,} small pictures of the cat; {empty} of them are empty")

# %% [markdown]
# The empty ones hide everything and share one forward pass. That leaves hundreds, where Grad-CAM takes
# one.
#
# ### Guided Grad-CAM: fine lines, borrowed
#
# Guided backprop ([[saliency]]) draws fine lines, but on both animals, whichever you ask for. Guided
# Grad-CAM multiplies the two: the lines come from guided backprop, the choice between the animals from
# Grad-CAM. The numbers are the shares on the cat's half:

# %%
fine = [guided_backprop(model, pair, t) for t in (TIGER_CAT, MASTIFF)]
chosen = [cams.guided_grad_cam(model, pair, t, layer="bn2") for t in (TIGER_CAT, MASTIFF)]
lines = [heat.abs().sum(1, keepdim=True) for heat in fine + chosen]  # each (1, 1, 224, 448)
names = ["guided, cat", "guided, mastiff", "product, cat", "product, mastiff"]
plots.compare(
    lines,
    titles=[f"{name}: {on_the_cat(heat):.2f}" for name, heat in zip(names, lines)],
    shared=False,
    title="Grad-CAM chooses the animal, not guided backprop",
)

# %% [markdown]
# The product looks sharper than Grad-CAM. It does not *know* more about where the cat is: 49 numbers a
# photo still decide which lines you get to see.
#
# ## 6. Which layer?
#
# Early layers have many more cells. In `blocks.2`, a photo mosaic of 448 x 448 pixels gives 56 x 56
# cells; in the last maps 14 x 14. Would it not be better to take the finer maps?
#
# ### Predict, then run (2 minutes)
#
# In a mosaic of four photos, a quarter of the picture is right. A map that knows nothing has .25 of its
# heat there. Guess the share for **Grad-CAM at `blocks.2`**, a number from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
blocks_2_share = 0.5
### END SOLUTION

# %%
predict("cam.layer", blocks_2_share)

# %% [markdown]
# One forward and one backward pass give the maps and slopes of all layers at once. Six mosaics are
# enough to see it:

# %%
LAYERS = [*(f"blocks.{i}" for i in range(7)), "bn2"]
grids = data.mosaics()


def maps_and_slopes(x, target):
    """Pairs (A, g), one a layer, each (1, K, h, w)."""
    with frozen(model), capture(model, LAYERS) as kept:  # no gradients of the weights
        logits = model(x.requires_grad_())
    maps = [kept[name] for name in LAYERS]
    return [(A.detach(), g) for A, g in zip(maps, torch.autograd.grad(logits[0, target], maps))]


# %%
def in_the_right_quarter(heat, truth):
    heat = F.interpolate(heat.relu(), size=(448, 448), mode="nearest")
    return relevance_mass_accuracy(heat, truth).item()


by_grad, by_layer, survives = np.zeros((3, 6, len(LAYERS)))
for i, x in enumerate(models.normalize(grids.images[:6])):
    for j, (A, g) in enumerate(maps_and_slopes(x[None], int(grids.target[i]))):
        alpha = g.mean(dim=(2, 3), keepdim=True)
        by_grad[i, j] = in_the_right_quarter((alpha * A).sum(1, True), grids.truth[i])
        by_layer[i, j] = in_the_right_quarter((g.relu() * A).sum(1, True), grids.truth[i])
        # how much of the slopes is left after the mean: for section 8
        survives[i, j] = alpha.abs().sum() / g.abs().mean(dim=(2, 3)).sum()

# %%
reveal("cam.layer", round(by_grad.mean(0)[2], 2))

# %%
plots.curve(
    range(8),
    {
        "Grad-CAM": by_grad.mean(0),
        "LayerCAM": by_layer.mean(0),
        "knows nothing": np.full(8, 0.25),
    },
    title="Grad-CAM works in the last layers only",
    xlabel="blocks.0 to blocks.6; 7 is bn2, the last maps",
    ylabel="share of heat in the right quarter",
)

# %% [markdown]
# In the first five blocks Grad-CAM is about as good as a map that knows nothing, fine cells or not.
# LayerCAM, where each cell keeps its own slope, is better there, though far from good. Both jump at
# `blocks.6`. At `bn2` LayerCAM falls back: there it drops the pictures against the class, as you saw in
# section 5. What goes wrong for Grad-CAM in the early layers, section 8 shows.
#
# Look for yourself. Tab moves between the controls, the arrow keys change them. Go down from `bn2`
# to `blocks.0`, then try the third class: there is no goose in the picture.

# %%
GOOSE = 99
widgets.cam_browser(net, pair, [TIGER_CAT, MASTIFF, GOOSE])

# %% [markdown]
# ## 7. Known answer: the pointing game
#
# Looking at one cat and one dog is no test. Here is one: 15 mosaics of four photos each. For each, the
# network is asked about one of the four classes, and we know the right quarter. **Pointing**: is the
# hottest place in the right quarter? **Mass**: which share of the heat is there? Chance is .25 for both.

# %%
METHODS = ["grad_cam", "grad_cam_plus_plus", "layer_cam"]
table = score(METHODS, ["mosaics"])
table[["method", "pointing", "mass", "chance", "rows"]].round(2)

# %%
hits = table.set_index("method").loc["grad_cam", "pointing"]
assert hits >= 0.95
print(f"Grad-CAM points into the right quarter in {hits:.0%} of the mosaics")

# %% [markdown]
# The second test is harsher. A network was trained on digits where a white mark of 4 x 4 pixels stood
# in the corner of many eights, and it learned the mark. Here is a zero with the mark. With the mark the
# network says 8, without it something else, so we **know** that the mark decides. Where is Grad-CAM's
# hottest cell?

# %%
marks = marked_digits_known_answer()
zero, outline = marks.x[:1], marks.truth[:1]  # (1, 1, 28, 28) and (1, 28, 28)
bare = zero * ~outline[:, None]
with torch.no_grad():
    print("with the mark:", marks.model(zero).argmax().item())
    print("without it:   ", marks.model(bare).argmax().item())

# %%
plots.heatmap(
    cams.grad_cam(marks.model, zero, 8, layer="relu3", upsample=False),
    zero[0],
    title="The hottest cell covers one corner of the mark",
    label="Grad-CAM (logits)",
    mask=outline[0],
)

# %% [markdown]
# The white frame is the mark. It lies across four cells, and only one of them is hot. Parts of the zero
# are nearly as hot, though without the mark they made no 8. Stretch this map, and its hottest pixel is
# the middle of the hot cell, outside the mark by one pixel: pointing is strict here, so look at the
# mass too. Is this one zero an exception? Ask all of these digits:

# %%
marked = score([*METHODS, "guided_grad_cam"], ["marked_digits"])
marked[["method", "pointing", "mass", "chance", "rows"]].round(3)

# %%
for scores in (table, marked):
    board = record(scores)
wide = board.pivot(index="method", columns="dataset", values="mass").loc[METHODS]
plots.scoreboard(wide, title="These maps find the photo, not the mark")

# %% [markdown]
# On the mosaics, Grad-CAM wins by far: it keeps the weights against a class. On the marks, the mass of
# all three is hardly above chance; only guided Grad-CAM, which draws pixels, finds a little more. A
# photo that fills 7 x 7 cells is found, a mark as small as one cell is not. For small things, look for
# a method that works on pixels.
#
# ## 8. When it lies
#
# ### The map of a class that is not there
#
# You can ask for any class. Here are four maps of the one cat, each drawn up to its own top, smooth, as
# you would see them in a paper. Which of them belong to a class that is in the photo?

# %%
asked = [TIGER_CAT, 904, GOOSE, 559]
heats = [cams.grad_cam(model, cat, t, layer="bn2") for t in asked]
plots.compare(
    heats,
    over=photo,
    titles=list("ABCD"),
    shared=False,
    title="Four classes, four good-looking maps",
)

# %%
with torch.no_grad():
    logits = model(cat)[0]
names = [f"{net.classes[t].split(',')[0]} ({logits[t].item():.1f})" for t in asked]
plots.compare(
    heats,
    over=photo,
    titles=names,
    title="On one scale, with their logits, three of them are pale",
    label="Grad-CAM (logits)",
)

# %% [markdown]
# The network does not believe in a goose: its logit is 10 below the cat's, which makes it some 20,000
# times less probable. Grad-CAM still draws a bright spot,
# because the ReLU removed all that speaks against it and the color scale blew up the rest. So never
# look at one map alone. Put the map of another class beside it, on one scale, and write the logit
# under it.

# %%
quiz("cam.q_goose")

# %% [markdown]
# ### Slopes that cancel
#
# Take a network with one small picture of 2 x 2 cells, and the score *left column minus right column*.
# The left column is bright, so the score is high:

# %%
# NBVAL_CHECK_OUTPUT
column_net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1, bias=False))
column_net[2].weight.data = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
bright = torch.tensor([[[[3.0, 0.0], [3.0, 0.0]]]])  # (1, 1, 2, 2)
print("score   ", column_net(bright).item())
print("Grad-CAM", cams.grad_cam(column_net, bright, 0, layer="0").flatten().tolist())
print("LayerCAM", cams.layer_cam(column_net, bright, 0, layer="0").flatten().tolist())

# %% [markdown]
# The mean of 1, -1, 1, -1 is 0. Grad-CAM's map is empty, though everything depends on this picture.
# Does this happen in a real network? Measure how much of the slopes survives the mean, in each layer of
# the last section: 1 means that all cells agree, 0 that they cancel.

# %%
plots.bars(
    survives.mean(0),
    LAYERS,
    title="In early layers the slopes cancel, and Grad-CAM goes blind",
    xlabel="part of the slopes that survives the mean",
)

# %% [markdown]
# ### Exercise: blind it yourself (code, 5 minutes)
#
# Now the picture is `[[3, 1], [0, 0]]`. Find four weights, as a list of two rows, with which the score (each
# cell times its weight, summed) is
# **at least 6** and Grad-CAM's map is empty.

# %% tags=["exercise"]
### BEGIN SOLUTION
blind_weights = [[3.0, 0.0], [0.0, -3.0]]
### END SOLUTION

# %%
check("cam.blind", blind_weights)

# %% [markdown]
# ### A cell sees more than its square
#
# On the photo, a cell is drawn as a square of 32 x 32 pixels. You read: *the reason is in this square*.
# The mark has warned you. The number in a cell was computed by the whole network before it, from far
# more pixels. Take the hottest cell of the cat, and ask which pixels move it:

# %%
row, column = divmod(int(M.argmax()), 7)
x = cat.clone().requires_grad_()
with frozen(model), capture(model, "bn2") as kept:
    model(x)
cell = (weights * kept["bn2"][0, :, row, column]).sum()
(slopes,) = torch.autograd.grad(cell, x)
reach = F.avg_pool2d(slopes.abs().sum(dim=1), 8)  # (1, 28, 28): 8 x 8 pixels each

# %%
square = torch.zeros(1, 28, 28, dtype=torch.bool)
square[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
inside = relevance_mass_accuracy(reach, square).item()
plots.heatmap(
    reach,
    photo,
    title=f"Only {inside:.0%} of what moves this cell lies in its square",
    label="slope of the cell",
    mask=square[0],
)

# %% [markdown]
# The white frame is the cell as it is drawn. Nearly all that moves it lies outside: the pupil counts, and
# fur at the edge of the photo, more than the spot that the map marks. Read a class activation map as
# *around here*.
#
# ### One library's answer is not the truth
#
# Here is a network that you can do on paper: two small pictures of 2 x 2 cells. Each has one bright
# cell of value 2, in opposite corners. All slopes are $1$ in the first picture, and $\frac12$ in the
# second.
#
# With four cells and $\sum A = 2$, Grad-CAM++ gives a picture the weight
# $4 \cdot \frac{g^2}{2g^2 + 2g^3} \cdot g = \frac{4g}{2 + 2g}$. That is $1$ for $g = 1$ and $\frac23$
# for $g = \frac12$, so the second spot has to be $\frac23$ as hot as the first. In the second case, the
# same network gives its score in other units: all slopes are a thousand times smaller. Then $2g$ hardly counts beside $2$,
# and the ratio is nearly $\frac12$.


# %%
def corner_net(unit):
    net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(8, 1, bias=False))
    net[2].weight.data = unit * torch.tensor([[1.0, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]])
    return net


def weight_on_paper(g):
    return 4 * g * g**2 / (2 * g**2 + g**3 * 2)


corners = torch.tensor([[[[2.0, 0], [0, 0]], [[0, 0], [0, 2.0]]]])  # (1, 2, 2, 2)


# %%
def second_to_first(unit):
    net = corner_net(unit)
    on_paper = weight_on_paper(unit / 2) / weight_on_paper(unit)
    ours = cams.grad_cam_plus_plus(net, corners, 0, layer="0")[0, 0]
    theirs = published(GradCAMPlusPlus, net, net[0], corners.clone().requires_grad_(), 0)
    ratios = [on_paper, ours[1, 1] / ours[0, 0], theirs[1, 1] / theirs[0, 0]]
    return [f"{float(ratio):.3f}" for ratio in ratios]


rows = [("1", *second_to_first(1.0)), ("1/1000", *second_to_first(0.001))]
names = ["unit of the score", "on paper", "xailab", "pytorch-grad-cam"]
plots.table(rows, names, title="Heat of the second spot, the first being 1")

# %% [markdown]
# In the first case the library has the value on paper. In the second it is off by a factor of two.
# Ask its own source why:

# %%
print("grad-cam", version("grad-cam"))
for line in getsource(GradCAMPlusPlus).splitlines():
    if "eps" in line:
        print(line.strip())

# %% [markdown]
# It adds a small number to the denominator, so that nothing is divided by 0. But with $g = .001$,
# $2g^2$ is only $2 \cdot 10^{-6}$. The guard, $10^{-6}$, is no longer small beside what it guards:

# %%
# NBVAL_CHECK_OUTPUT
for g in (0.001, 0.0005):
    print(f"g = {g}: a = {g**2 / (2 * g**2):.3f}; guarded: {g**2 / (2 * g**2 + 1e-6):.3f}")

# %% [markdown]
# A third and a sixth in place of two halves: so the ratio falls from $\frac12$ to $\frac14$. Are slopes
# ever so small? In section 3 you saw one of .002: a weight divided by 49. So the map of the cat feels
# it too, a little:

# %%
theirs = published(GradCAMPlusPlus, model, model.bn2, cat, TIGER_CAT)
ours = to_unit(cams.grad_cam_plus_plus(model, cat, TIGER_CAT, layer="bn2"))
model.zero_grad()
print(f"largest difference, the maps running from 0 to 1: {np.abs(ours - theirs).max():.2f}")

# %% [markdown]
# You would not see it in a picture. You see it in a network of eight weights and a pencil. Keep such a
# network for each method that you rely on.
#
# ### Exercise: a claim from a report (criticize, 8 minutes)
#
# > *"Our network finds pneumonia in chest X-rays with 94% accuracy. The Grad-CAM map in Figure 3 follows
# > the outline of the inflamed lobe smoothly. This proves that the network bases its decision on the
# > lesion, as a radiologist does, and that it can be used in the clinic."*
#
# What does the figure show, what does it not show, and what would you ask for? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
The smooth outline is drawn by interpolation: such maps often have 7 x 7 cells, too coarse to follow a
lobe, and each cell sees far beyond its own square. One figure, chosen by the authors, says nothing
about the other patients: I would ask for the pointing game and the mass on all test images, against
masks that radiologists drew, beside the value that chance gives. Warm says where, not why: a hospital
tag or a drain in the same place would warm the same cell. I would want the map for "healthy" on the same
scale, because a map for the wrong class can look as good, and the evidence against, which the ReLU
hides. Accuracy and a plausible map together still do not test use in a clinic.
### END SOLUTION
"""

# %%
check("cam.radiology", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - compute CAM and Grad-CAM by hand, and say when the two are the same map
# - tell what a heat map knows from what drawing it has added
# - choose a layer and a variant, and defend the choice with a score
# - show four ways in which a convincing map misleads
#
# ## Takeaways
#
# - A class activation map is a weighted sum of small pictures. CAM reads the weights off the classifier,
#   Grad-CAM takes mean slopes; behind an average and one linear layer they are the same.
# - The weights against a class tell classes apart, as those for it do. Variants that drop them lit up
#   the wrong animal.
# - Every class has a good-looking map. Draw maps on one scale, beside another class, and score the
#   method where you know the answer.
#
# ## Myth refuted
#
# *"Grad-CAM is a fine map, made by weighting the input pixels by their gradients."* No pixel is
# weighted. One weight for each of 1,280 small pictures gives 49 numbers, and stretching does the rest:
# see both in section 2. Weighting pixels by their gradients is another method, input x gradient
# ([[saliency]]).
#
# *"One library's answer is the truth."* Section 8: a network of eight weights caught an installed one.
#
# ## Go further
#
# - Zhou, Khosla, Lapedriza, Oliva, Torralba (2016), *Learning Deep Features for Discriminative
#   Localization*: CAM.
# - Selvaraju and others (2017), *Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based
#   Localization*; section 3.2 has guided Grad-CAM.
# - Chattopadhay, Sarkar, Howlader, Balasubramanian (2018), *Grad-CAM++: Generalized
#   Gradient-Based Visual Explanations for Deep Convolutional Networks*; its equation 19 is the
#   denominator of section 8.
# - Wang and others (2020), *Score-CAM*, and Jiang and others (2021), *LayerCAM*.
# - Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim (2018), *Sanity Checks for Saliency Maps*: which maps
#   survive when the network's weights are replaced by noise.
