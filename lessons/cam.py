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
# **Question:** One picture shows a cat and a dog. Which part of it speaks for *cat*, and which for *dog*?
#
# **You will be able to**
# - compute a logit, CAM and Grad-CAM from feature maps, in code of your own
# - say when CAM and Grad-CAM are the same map
# - tell what a heat map knows from what drawing it has added
# - score a map where the right answer is known, and repair one that comes out empty
#
# **You need:** [[backprop]] and [[saliency]]
#
# **Time:** [[time]] · **Difficulty:** 3 of 5

# %%
import skimage.data
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import nn

from xailab import data, models, plots
from xailab.attribution import cam as cams
from xailab.core import capture
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.scoreboard import mosaics_known_answer, score

# %% [markdown]
# Put a photo of a cat beside a photo of a dog. The network has to say what it sees in both at once:

# %%
net = models.pretrained("efficientnet_lite0")
model = net.model
cat = net.preprocess(skimage.data.chelsea())  # (1, 3, 224, 224)
dog = net.preprocess(data.photos().image("bull mastiff"))  # (1, 3, 224, 224)
pair = torch.cat([cat, dog], dim=3)  # (1, 3, 224, 448)
for number, name, probability in net.top(pair, k=3):
    print(f"{probability:.3f}  {name} (class {number})")

# %% [markdown]
# It cannot make up its mind: two breeds of dog, then a tiger cat. So ask two questions about this one
# picture. This is the figure you will be able to make, and to doubt, at the end of the lesson:

# %% tags=["readme-mosaic"]
TIGER_CAT, MASTIFF = 282, 243
photo, both = net.picture(cat)[0], net.picture(pair)[0]
plots.compare(
    [cams.grad_cam(model, pair, target, layer="bn2") for target in (TIGER_CAT, MASTIFF)],
    over=both,
    titles=["tiger cat", "bull mastiff"],
    shared=False,
    title="One picture, one network, two questions",
)

# %% [markdown]
# ## 1. What the classifier gets to see
#
# Take the cat alone. The last layer of this network that still knows *where* is called `bn2`. Its output
# has 1,280 **channels**. Each channel is a **feature map**: 7 x 7 numbers that say how strongly *something*
# was found in each place. `capture` keeps a layer's output while the network runs:

# %%
with capture(model, "bn2") as kept, torch.no_grad():
    logits = model(cat)  # (1, 1000): one score per class, before softmax
maps = kept["bn2"][0]  # (1280, 7, 7): K feature maps, h x w cells
weight, bias = model.classifier.weight.detach(), model.classifier.bias.detach()
maps.shape, weight.shape, bias.shape

# %%
brightest = maps.mean(dim=(1, 2)).topk(3).indices.tolist()
plots.compare(
    maps[brightest, None],
    over=photo,
    titles=[f"channel {k}" for k in brightest],
    title="The three brightest of 1,280 feature maps",
)

# %% [markdown]
# No channel has a name. You see only where each of them found what it looks for. (Flat yellow is no
# error: this network cuts activations off at 6.)
#
# The rest of the network is short. **Global average pooling** replaces each feature map by its mean over
# the 49 cells. A linear layer multiplies each mean by a weight, adds them up and adds a bias; every
# class has its own row of weights.
#
# ### Exercise: the logit by hand (code, 3 minutes)
#
# Write these two steps. `hint("cam.logit")` helps, in up to three steps.


# %% tags=["exercise"]
def logit_by_hand(maps, weight, bias, target):
    """Logit of one class; maps (K, h, w), weight (C, K), bias (C,)."""
    ### BEGIN SOLUTION
    pooled = maps.mean(dim=(1, 2))  # (K,)
    return weight[target] @ pooled + bias[target]
    ### END SOLUTION


# %%
check("cam.logit", logit_by_hand)

# %%
print("yours       ", logit_by_hand(maps, weight, bias, TIGER_CAT))
print("the network ", logits[0, TIGER_CAT])

# %% [markdown]
# ## 2. CAM: the same sum in another order
#
# Pooling throws every *where* away. To get it back, take the means apart again. A mean is a sum over
# cells, the logit is a sum over channels of such means, and the order of sums does not matter. So add up
# the **channels** first and take the mean over **cells** last:
#
# $$s_c = \sum_k w_{ck} \Big(\frac{1}{hw}\sum_{ij} A^k_{ij}\Big) + b_c
#       = \frac{1}{hw}\sum_{ij} \underbrace{\Big(\sum_k w_{ck} A^k_{ij} + b_c\Big)}_{M_{ij}}$$
#
# $s_c$ is the logit of class $c$, $A^k$ the $k$-th feature map with $h \times w$ cells, $w_{ck}$ its weight
# for this class and $b_c$ the bias. $M$ is the **class activation map** (CAM).
#
# ### Exercise: CAM (code, 4 minutes)
#
# Write the map under the brace. Its mean has to be the whole logit, bias included.


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
# `xailab` has the same map, without the bias. It refuses a network whose logits are not a linear layer on
# means, because there the trick with the order of sums does not hold. Here is the map of the cat, whole:

# %%
M = cams.cam(model, cat, TIGER_CAT, layer="bn2", upsample=False)[0, 0]  # (7, 7)
print(f"mean of M, plus bias: {(M.mean() + bias[TIGER_CAT]).item():.3f}")
print(M.numpy().round(1))

# %% [markdown]
# That is the logit for the third time, and nothing was estimated. It is also all there is to know:
# 49 numbers. The smooth clouds in papers are such a handful of numbers, stretched to the size of the photo.
# Compare:

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
# The left map cannot tell the eye from the fur beside it. The right one seems to follow the cheek and the
# muzzle, but it holds no more information: between the cells it is drawn by a formula that never saw the
# photo.
#
# ### Your own photo (2 minutes)
#
# Drag a photo into the folder of this notebook and read it with `PIL.Image.open("its_name.jpg")`; any photo
# from `data.photos()` will do as well. `net.preprocess` makes it an input, `net.top(x, k=1)` says what the
# network sees in it. Draw its class activation map. Before you run the cell, note down where you expect the
# warm cells: what surprised you?

# %% tags=["exercise"]
### BEGIN SOLUTION
mine = net.preprocess(data.photos().image("dalmatian"))
number, name, probability = net.top(mine, k=1)[0]
plots.heatmap(
    cams.cam(model, mine, number, layer="bn2", upsample=False),
    net.picture(mine)[0],
    title=f"Where it sees {name.split(',')[0]} ({probability:.0%})",
)
### END SOLUTION

# %% [markdown]
# ## 3. Grad-CAM: ask the gradient for the weights
#
# Many networks (VGG, most transformers, anything with a second layer behind the means) have no weight per
# channel and class to read off. But you can still ask: *if a whole feature map brightens a little, how
# much does the logit move?* Brightening the whole map means every cell of it, so take the **gradient** at
# all cells and average it:
#
# $$\alpha_k = \frac{1}{hw}\sum_{ij} \frac{\partial s_c}{\partial A^k_{ij}} \qquad
#   L = \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big)$$
#
# $\alpha_k$ is the weight of the $k$-th feature map, and $L$ the map, **Grad-CAM**. The ReLU keeps what
# speaks *for* the class.
#
# ### Predict, then run (1 minute)
#
# On *this* network there is a $w_{ck}$ to compare with. Divide CAM by Grad-CAM, cell by cell, wherever
# both are positive. If you expect the same number in every cell, write that number; if you expect it to
# differ from cell to cell, write 0. (The formula of $s_c$ in section 2 has all you need.)

# %% tags=["exercise"]
### BEGIN SOLUTION
ratio_guess = 49
### END SOLUTION

# %%
predict("cam.ratio", ratio_guess)

# %% [markdown]
# ### Exercise: the weights (code, 3 minutes)
#
# Start with $\alpha$. `logit` is one number that still remembers how it was computed from `maps`, so
# `torch.autograd.grad(logit, maps)` gives a tuple with one gradient in it.


# %% tags=["exercise"]
def channel_weights(logit, maps):
    """alpha, (1, K, 1, 1), of one logit and maps (1, K, h, w)."""
    ### BEGIN SOLUTION
    (grads,) = torch.autograd.grad(logit, maps)  # (1, K, h, w)
    return grads.mean(dim=(2, 3), keepdim=True)
    ### END SOLUTION


# %%
check("cam.channel_weights", channel_weights)

# %% [markdown]
# ### Exercise: Grad-CAM for any network (code, 5 minutes)
#
# Now the whole method: forward pass inside `capture`, weights, weighted sum, ReLU. It gets a batch `x` of
# N pictures, and each needs a map of its own. (Rows do not touch each other, so one gradient of
# `logits[:, target].sum()` holds every row's own.) The check uses a tiny network whose gradients differ
# from cell to cell, so that a mean over the wrong axis shows.


# %% tags=["exercise"]
def my_grad_cam(model, x, target, layer):
    """Grad-CAM of each row of x for one class: (N, 1, h, w), detached."""
    ### BEGIN SOLUTION
    with capture(model, layer) as kept:
        logits = model(x)
    A = kept[layer]  # (N, K, h, w)
    alpha = channel_weights(logits[:, target].sum(), A)
    heat = (alpha * A).sum(dim=1, keepdim=True)
    return heat.relu().detach()
    ### END SOLUTION


# %%
check("cam.grad_cam", my_grad_cam)

# %% [markdown]
# The package and captum compute the same map:

# %%
heat = cams.grad_cam(model, cat, TIGER_CAT, layer="bn2", upsample=False)  # (1, 1, 7, 7)
theirs = LayerGradCam(model, model.bn2).attribute(cat, TIGER_CAT, relu_attributions=True)
torch.testing.assert_close(heat, theirs.detach(), rtol=1e-5, atol=1e-5)

# %%
ratio = M[M > 0] / heat[0, 0][M > 0]
reveal("cam.ratio", round(ratio.mean().item(), 3))
print(f"from {ratio.min().item():.3f} to {ratio.max().item():.3f}")

# %% [markdown]
# The logit depends on a cell only through a mean over 49 cells, so the gradient at **every** cell of channel
# $k$ is $w_{ck}/49$, and so is $\alpha_k$. Here Grad-CAM *is* CAM, in another unit and without its negative
# cells. On a network with more layers behind the feature maps only Grad-CAM is left.

# %%
quiz("cam.q_agree")

# %% [markdown]
# ## 4. Known answer: the pointing game
#
# Looking at one cat and one dog is no test. Here is one: 15 **mosaics** of four photos each. The network is
# asked about one of the four classes, and we know which quarter is right. The **pointing game** asks
# whether the hottest place lies in it. A map that knows nothing would be right in one of four.

# %% [markdown]
# ### Exercise: the score (code, 4 minutes)
#
# Write the pointing game for a batch of maps. Flatten each map, find its largest cell, and look up whether
# the truth is `True` there.


# %% tags=["exercise"]
def pointing(heat, truth):
    """Share of maps (N, 1, H, W) whose hottest place lies in truth (N, H, W), a number."""
    ### BEGIN SOLUTION
    hottest = heat.flatten(1).argmax(dim=1)  # (N,)
    hits = truth.flatten(1)[torch.arange(len(truth)), hottest]
    return hits.float().mean().item()
    ### END SOLUTION


# %%
check("cam.pointing", pointing)

# %% [markdown]
# Try yours on six mosaics. Then let the package score all 15, with a rival that never asks for a class:
# **Eigen-CAM** draws what the feature maps have most in common.

# %%
mosaics = mosaics_known_answer()  # x (15, 3, 448, 448), target (15,), truth (15, 448, 448)
found = cams.grad_cam(model, mosaics.x[:6], mosaics.target[:6], layer="bn2")
print("yours, on six mosaics:", pointing(found, mosaics.truth[:6]))

# %%
table = score(["grad_cam", "eigen_cam"], ["mosaics"])
table[["method", "pointing", "mass", "chance", "rows"]].round(2)

# %% [markdown]
# **Mass** is the share of the whole heat that lies in the right quarter. Remember what this shows: that the
# map finds a *photo* among four. In smaller things, a cell of 32 x 32 pixels can hide a lot.
#
# ## 5. When it lies: the map that came out empty
#
# One feature map of 2 x 2 cells, and the score *left column minus right column*. The left column is bright,
# so the score is high:

# %%
# NBVAL_CHECK_OUTPUT
column_net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1, bias=False))
column_net[2].weight.data = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
bright = torch.tensor([[[[3.0, 0.0], [3.0, 0.0]]]])  # (1, 1, 2, 2)
print("score   ", column_net(bright).item())
print("Grad-CAM", cams.grad_cam(column_net, bright, 0, layer="0").flatten().tolist())

# %% [markdown]
# Everything depends on this feature map, and its Grad-CAM is empty. Why?
#
# ### Exercise: fix it (debug, 4 minutes)
#
# Find the step that lost the answer, and write a map that keeps each cell's own gradient **and** its sign.
# Leave out the ReLU at the end, too. One changed line is enough.


# %% tags=["exercise"]
def mended(model, x, target, layer):
    """Signed map (N, 1, h, w) in which no gradients cancel, detached."""
    with capture(model, layer) as kept:
        logits = model(x)
    A = kept[layer]  # (N, K, h, w)
    (grads,) = torch.autograd.grad(logits[:, target].sum(), A)
    ### BEGIN SOLUTION
    return (grads * A).sum(dim=1, keepdim=True).detach()
    ### END SOLUTION


# %%
check("cam.mended", mended)

# %% [markdown]
# This map has a name, **HiResCAM**. Where only a linear layer comes after the feature maps, its cells add
# up to the logit without its bias, so that it says what the network adds up. Now the column shows:

# %%
print(cams.hires_cam(column_net, bright, 0, layer="0", relu=False).flatten().tolist())

# %% [markdown]
# On the cat's network it is CAM once more, divided by 49. Grad-CAM's mean did no harm there, because all
# cells of a channel have the same gradient.

# %%
progress()

# %% [markdown] tags=["deeper"]
# ## Deeper: what the ReLU hides
#
# Go back to the cat beside the dog, and leave the ReLU out. Red speaks for *tiger cat*, blue against it:

# %%
plots.heatmap(
    cams.cam(model, pair, TIGER_CAT, layer="bn2", upsample=False),  # (1, 1, 7, 14)
    both,
    title="The dog's head speaks against the cat",
    label="M (its mean + bias = logit)",
)

# %% [markdown]
# Behind a ReLU you cannot tell *nothing here* from *here is the counter-evidence*. That is also why every
# class has a map.
# Here are four maps of the one cat, each drawn up to its own maximum and stretched, as in a paper. Which of
# them belong to a class that is in the photo?

# %%
GOOSE = 99
four = [TIGER_CAT, 904, GOOSE, 559]
heats = [cams.grad_cam(model, cat, c, layer="bn2") for c in four]
plots.compare(
    heats,
    over=photo,
    titles=list("ABCD"),
    shared=False,
    title="Four classes, four good-looking maps",
)

# %%
plots.compare(
    heats,
    over=photo,
    titles=[f"{net.classes[c].split(',')[0]} ({logits[0, c].item():.1f})" for c in four],
    title="On one scale, with their logits, three of them are pale",
    label="Grad-CAM (logits)",
)

# %% [markdown]
# The logit of *goose* is 10 below the cat's, which makes a goose some 20,000 times less probable. Grad-CAM
# still draws a bright spot: the ReLU removed all that speaks against a goose, and the color scale blew up
# the rest. So put the map of another class beside it, on one scale, with the logits.

# %%
quiz("cam.q_goose")

# %% [markdown] tags=["deeper"]
# ## Deeper: which layer?
#
# Early layers have many more cells. In `blocks.2`, a mosaic of 448 x 448 pixels gives 56 x 56 cells; the
# last feature maps have 14 x 14. Would it not be better to take the finer ones?
#
# ### Predict, then run (2 minutes)
#
# A map that knows nothing has .25 of its heat in the right quarter of a mosaic. Guess the share for
# **Grad-CAM at `blocks.2`**, a number from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
blocks_2_share = 0.5
### END SOLUTION

# %%
predict("cam.layer", blocks_2_share)

# %% [markdown]
# One forward and one backward pass give the feature maps and gradients of all layers at once:

# %%
from xailab.core import frozen
from xailab.evaluate.localization import relevance_mass_accuracy

LAYERS = [*(f"blocks.{i}" for i in range(7)), "bn2"]


def maps_and_gradients(x, target):
    """Pairs (A, g), one per layer, each (1, K, h, w)."""
    with frozen(model), capture(model, LAYERS) as kept:  # no gradients of the weights
        answer = model(x.requires_grad_())
    every = [kept[name] for name in LAYERS]
    return [(A.detach(), g) for A, g in zip(every, torch.autograd.grad(answer[0, target], every))]


# %% [markdown]
# On six mosaics, three numbers per layer: the share of Grad-CAM's heat in the right quarter, the same of
# LayerCAM (each cell keeps its own gradient where that is positive), and how much of the gradients is left
# after Grad-CAM's mean (1: all cells agree; 0: they cancel).


# %%
def three_numbers(A, g, truth):
    alpha = g.mean(dim=(2, 3), keepdim=True)
    drawn = [(weights * A).sum(1, keepdim=True).relu() for weights in (alpha, g.relu())]
    large = [F.interpolate(one, size=(448, 448), mode="nearest") for one in drawn]
    shares = [relevance_mass_accuracy(one, truth[None]).item() for one in large]
    return [*shares, (alpha.abs().sum() / g.abs().mean(dim=(2, 3)).sum()).item()]


by_layer = torch.tensor(
    [
        [three_numbers(A, g, truth) for A, g in maps_and_gradients(picture[None], int(c))]
        for picture, c, truth in zip(mosaics.x[:6], mosaics.target, mosaics.truth)
    ]
).mean(dim=0)  # (8 layers, 3 numbers)

# %%
reveal("cam.layer", round(by_layer[2, 0].item(), 2))

# %%
plots.curve(
    range(8),
    {
        "Grad-CAM": by_layer[:, 0],
        "LayerCAM": by_layer[:, 1],
        "knows nothing": torch.full((8,), 0.25),
    },
    title="Grad-CAM works in the last layers only",
    xlabel="blocks.0 to blocks.6; 7 is bn2, the last feature maps",
    ylabel="share of heat in the right quarter",
)

# %% [markdown]
# In the first five blocks Grad-CAM is about as good as a map that knows nothing, fine cells or not. LayerCAM
# is better there, though far from good. Both jump at `blocks.6`. At `bn2` LayerCAM falls back, because it
# drops the channels that speak against the class. The third number says what goes wrong for Grad-CAM early:

# %%
plots.bars(
    by_layer[:, 2],
    LAYERS,
    title="In early layers the gradients cancel, and Grad-CAM goes blind",
    xlabel="part of the gradients that survives the mean",
)

# %% [markdown]
# Look for yourself. Tab moves between the controls, the arrow keys change them. Go down from `bn2` to
# `blocks.0`, then try the third class: there is no goose in the picture.

# %%
from xailab import widgets

widgets.cam_browser(net, pair, [TIGER_CAT, MASTIFF, 99])

# %% [markdown]
# ### Exercise: blind it yourself (code, 5 minutes)
#
# A feature map is `[[3, 1], [0, 0]]`. Find four weights, as a list of two rows, with which the score (each
# cell times its weight, summed) is **at least 6** and Grad-CAM's map is empty.

# %% tags=["exercise"]
### BEGIN SOLUTION
blind_weights = [[3.0, 0.0], [0.0, -3.0]]
### END SOLUTION

# %%
check("cam.blind", blind_weights)

# %% [markdown] tags=["deeper"]
# ## Deeper: other weights
#
# All class activation maps are weighted sums of feature maps. They differ in the weights. Write
# $g = \partial s_c / \partial A^k_{ij}$ for the gradient at one cell:
#
# | method | weight of channel $k$ at cell $ij$ | costs |
# |---|---|---|
# | Grad-CAM | mean of $g$ over all cells | one backward pass |
# | HiResCAM | $g$, each cell its own | one backward pass |
# | XGrad-CAM | mean of $g$, each cell counted by its share of $A^k$ | one backward pass |
# | LayerCAM | $\mathrm{ReLU}(g)$, each cell its own | one backward pass |
# | Grad-CAM++ | sum of $a \cdot \mathrm{ReLU}(g)$ over all cells, $a = g^2 / (2g^2 + g^3 \sum A^k)$ | one backward pass |
# | Score-CAM | softmax of the logit when the input is seen through $A^k$ | one forward pass per channel |
# | Ablation-CAM | share of the logit that is lost without $A^k$ | one forward pass per channel |
# | Eigen-CAM | first principal component of the channels; no class enters | one forward pass |
#
# ### Predict, then run (2 minutes)
#
# Grad-CAM++ was made for pictures with several objects of one class: its factor $a$ lifts feature maps that
# are bright in few cells. For *tiger cat* on the cat beside the dog, Grad-CAM has nearly all of its heat on
# the cat. Guess **Grad-CAM++'s** share there, from 0 to 1. Look at its formula first.

# %% tags=["exercise"]
### BEGIN SOLUTION
plus_plus_share = 0.98
### END SOLUTION

# %%
predict("cam.plus_plus", plus_plus_share)

# %%
left_half = torch.zeros(1, 224, 448, dtype=torch.bool)
left_half[..., :224] = True


def share_on_cat(heat):
    """Share of the positive heat that lies on the cat's half."""
    from xailab.evaluate.localization import relevance_mass_accuracy

    large = F.interpolate(heat.relu(), size=(224, 448), mode="nearest")
    return relevance_mass_accuracy(large, left_half).item()


variants = {
    "Grad-CAM": cams.grad_cam,
    "HiResCAM": cams.hires_cam,
    "XGrad-CAM": cams.xgrad_cam,
    "LayerCAM": cams.layer_cam,
    "Grad-CAM++": cams.grad_cam_plus_plus,
    "Eigen-CAM": cams.eigen_cam,
}
shares = {
    name: share_on_cat(variant(model, pair, TIGER_CAT, layer="bn2", upsample=False))
    for name, variant in variants.items()
}
for name, share in shares.items():
    print(f"{name:12}{share:.2f}")

# %%
reveal("cam.plus_plus", round(shares["Grad-CAM++"], 2))

# %% [markdown]
# Eigen-CAM finds the dog, whatever you ask for: no class enters it. More surprising are LayerCAM and
# Grad-CAM++. Both have a ReLU on the **gradients**, so a channel that speaks against the class is dropped
# before the sum. Is that to blame? Take CAM and drop its negative weights.

# %%
with capture(model, "bn2") as kept_pair, torch.no_grad():
    model(pair)
only_for = (weight[TIGER_CAT].relu()[:, None, None] * kept_pair["bn2"][0]).sum(dim=0)[None, None]
all_weights = cams.cam(model, pair, TIGER_CAT, layer="bn2", upsample=False)
print(f"CAM, all weights       {share_on_cat(all_weights):.2f}")
print(f"CAM, positive weights  {share_on_cat(only_for):.2f}")

# %% [markdown]
# Behind global average pooling all gradients of a channel are equal, so the ReLU of LayerCAM drops whole
# channels: here it *is* CAM with positive weights. Grad-CAM++ weighs the rest in another way and comes out
# nearly the same. So the dropped weights are to blame: of CAM's lead over .50, two thirds came from the
# channels **against** the class.
#
# **Score-CAM** asks no gradient. It uses each feature map as a window: stretched over the input, it dims
# what is dark in it, and the network scores what is left. That is one forward pass per channel, so take a
# digit: the digit network has 64 channels.

# %%
digits, digit_net = data.load("mnist5k"), models.digit_cnn()
test_fives = [i for i, y in enumerate(digits.y) if y == 5 and not digits.extra["train"][i]]
digit = torch.tensor(digits.images[test_fives[0]] / 255, dtype=torch.float32)[None, None]
with capture(digit_net, "relu3") as kept_digit, torch.no_grad():
    digit_net(digit)
small = kept_digit["relu3"][0][:, None]  # (64, 1, 7, 7)

# %%
windows = F.interpolate(small, size=28, mode="bilinear")  # (64, 1, 28, 28)
low, high = windows.amin((1, 2, 3), keepdim=True), windows.amax((1, 2, 3), keepdim=True)
windows = (windows - low) / (high - low).clamp(min=1e-12)  # each from 0 to 1
with torch.no_grad():
    seen = digit_net(digit * windows)[:, 5]  # (64,): the logit of 5 through each window
score_heat = (seen.softmax(0)[:, None, None, None] * small).sum(0).relu()  # (1, 7, 7)
same = cams.score_cam(digit_net, digit, 5, layer="relu3", upsample=False)
torch.testing.assert_close(score_heat, same[0])

# %%
import xailab

names = ["grad_cam", "score_cam", "ablation_cam"]
explained = xailab.explain(digit_net, digit, 5, methods=names, layer="relu3")
explained.plot(
    over=digit[0], title="The same 64 feature maps, other weights: the hottest spot moves"
)

# %% [markdown]
# Nothing here says which of them is right; that takes a known answer. Score them on one: a network that
# calls a digit 8 because of a white mark of 4 x 4 pixels in the corner, on digits where the mark, and only
# the mark, makes the 8.

# %%
marks = score(["grad_cam", "layer_cam", "hires_cam", "guided_grad_cam"], ["marked_digits"])
marks[["method", "pointing", "mass", "chance", "rows"]].round(3)

# %% [markdown]
# The mass of the first three is hardly above chance. A photo that fills 7 x 7 cells is found, a mark as
# small as one cell is not. For small things, look for a method that works on pixels.

# %% [markdown] tags=["deeper"]
# ## Deeper: transformers, where tokens are the maps
#
# A **vision transformer** (ViT) cuts the picture into patches and turns each into a vector, a **token**. Our
# digit ViT has 7 x 7 patches of 4 x 4 pixels, and in front of them a **class token**, from which the answer is
# read. A layer's output is (N, 50, 48): 50 tokens of 48 channels. Leave the class token out, put the other 49
# back into their grid, and every channel is a feature map again:

# %%
vit, mnist = models.digit_vit(), data.load("mnist5k")
held_out = torch.tensor(mnist.images[~mnist.extra["train"]] / 255, dtype=torch.float32)[:60, None]
one_digit = held_out[:1]  # (1, 1, 28, 28)
with torch.no_grad():
    told = vit(held_out).argmax(dim=1)  # (60,)
BEFORE_LAST_ATTENTION = "encoder.blocks.2.norm1"


def as_maps(tokens):
    """Feature maps (N, 48, 7, 7) of tokens (N, 50, 48), without the class token."""
    return tokens[:, 1:].mT.unflatten(2, (7, 7))


# %%
with capture(vit, BEFORE_LAST_ATTENTION) as kept_tokens:
    vit_logits = vit(one_digit)
tokens = kept_tokens[BEFORE_LAST_ATTENTION]  # (1, 50, 48)
(token_grads,) = torch.autograd.grad(vit_logits[0, told[0]], tokens)
token_alpha = as_maps(token_grads).mean(dim=(2, 3), keepdim=True)  # (1, 48, 1, 1)
token_heat = (token_alpha * as_maps(tokens)).sum(dim=1, keepdim=True).relu().detach()
packages = cams.grad_cam(vit, one_digit, told[:1], layer=BEFORE_LAST_ATTENTION, upsample=False)
torch.testing.assert_close(packages, token_heat)

# %% [markdown]
# The formula is the old one. What is new is the question **which layer**. Behind the last attention the
# network reads the class token and nothing else. Ask there, and no patch has a gradient. Or take the attention
# weights: they have enough axes to pass for feature maps, but the axes say *from token* and *to token*, not row
# and column. The package refuses both:

# %%
for wrong_layer in ("encoder.norm", "encoder.blocks.2.attention.softmax"):
    try:
        cams.grad_cam(vit, one_digit, told[:1], layer=wrong_layer)
    except ValueError as error:
        print(f"{wrong_layer}: {error}\n")

# %% [markdown]
# `explain` looks for the last layer that holds patches and still moves the answer, and says which one it took:

# %%
import xailab

on_tokens = xailab.explain(vit, one_digit, told[:1], methods=["grad_cam", "hires_cam"])
on_tokens.plot(over=one_digit[0], title="Two maps of 7 x 7 tokens")

# %% [markdown]
# Do these maps point at what the network uses? Black out the three hottest patches on 60 digits that it was not
# trained on, and note how far the logit falls. Three rulers stand beside them: three patches drawn from those
# with ink; LRP, which shares out the logit through every layer down to the pixels ([[relevance]]); and occlusion,
# which tries each patch alone and so knows best.


# %%
def logit_lost(heat):
    """Fall of the told class's logit, (60,), when the three hottest of (60, 49) patches are black."""
    patches = heat.argsort(dim=1, descending=True)[:, :3]
    keep = torch.ones(60, 49).scatter(1, patches, 0).unflatten(1, (1, 7, 7))
    black = held_out * F.interpolate(keep, size=28, mode="nearest")
    with torch.no_grad():
        return (vit(held_out) - vit(black)).gather(1, told[:, None])[:, 0]


# %%
from xailab.attribution.occlusion import occlusion
from xailab.attribution.relevance import lrp

ink = F.avg_pool2d(held_out, 4).flatten(1) > 0.05  # (60, 49)
rulers = {"three with ink": torch.rand(60, 49, generator=torch.Generator().manual_seed(0)) + ink}
for label, method in (("Grad-CAM", cams.grad_cam), ("HiResCAM", cams.hires_cam)):
    found_heat = method(vit, held_out, told, layer=BEFORE_LAST_ATTENTION, upsample=False)
    rulers[label] = found_heat.flatten(1)
rulers["LRP"] = F.avg_pool2d(lrp(vit, held_out, told), 4).flatten(1)
rulers["occlusion"] = F.avg_pool2d(occlusion(vit, held_out, told, window=4, stride=4), 4).flatten(1)
falls = {label: logit_lost(heat_of) for label, heat_of in rulers.items()}

# %%
plots.bars(
    [fall.mean().item() for fall in falls.values()],
    [f"{label} (+- {fall.std().item() / 60**0.5:.2f})" for label, fall in falls.items()],
    title="On tokens, maps of a layer are better than chance, and far from the best",
    xlabel="fall of the logit, mean of 60 digits (+- standard error)",
)

# %% [markdown]
# After two rounds of attention a token holds news of many patches, and its place in the grid is only where it
# began. A token map is worth a first look; then ask a method that goes down to the pixels.

# %% [markdown] tags=["deeper"]
# ## Deeper: guided Grad-CAM
#
# **Guided backprop** ([[saliency]]) draws fine lines. Guided Grad-CAM multiplies them with Grad-CAM. The
# numbers are the shares of the heat on the cat's half, when asked for the cat and for the mastiff:

# %%
from xailab.attribution.saliency import guided_backprop
from xailab.evaluate.localization import relevance_mass_accuracy

cat_half = torch.zeros(1, 224, 448, dtype=torch.bool)
cat_half[..., :224] = True
guided = [guided_backprop(model, pair, c) for c in (TIGER_CAT, MASTIFF)]
product = [cams.guided_grad_cam(model, pair, c, layer="bn2") for c in (TIGER_CAT, MASTIFF)]
lines = [one.abs().sum(1, keepdim=True) for one in guided + product]  # each (1, 1, 224, 448)
on_cat = [relevance_mass_accuracy(one, cat_half).item() for one in lines]

# %%
captions = ["guided, cat", "guided, mastiff", "product, cat", "product, mastiff"]
plots.compare(
    lines,
    titles=[f"{caption}: {share:.2f}" for caption, share in zip(captions, on_cat)],
    shared=False,
    title="Guided backprop chooses a little, Grad-CAM does the rest",
)

# %% [markdown]
# Asked for the mastiff, guided backprop takes some of its heat off the cat, but leaves lines on both animals;
# the product moves nearly all of it. The product looks sharper than Grad-CAM. It does not *know* more about
# where the cat is: 49 numbers per photo still decide which lines you get to see.

# %% [markdown] tags=["deeper"]
# ## Deeper: a cell sees more than its square
#
# On the photo, a cell is drawn as a square of 32 x 32 pixels. You read: *the reason is in this square*. But
# the number in a cell was computed by the whole network before it, from its **receptive field**. Take the
# hottest cell of the cat, and ask which pixels move it:

# %%
from xailab.core import frozen
from xailab.evaluate.localization import relevance_mass_accuracy

row, column = divmod(int(M.argmax()), 7)
pixels = cat.clone().requires_grad_()
with frozen(model), capture(model, "bn2") as kept_cell:
    model(pixels)
cell = (weight[TIGER_CAT] * kept_cell["bn2"][0, :, row, column]).sum()
(moves,) = torch.autograd.grad(cell, pixels)
reach = F.avg_pool2d(moves.abs().sum(dim=1), 8)  # (1, 28, 28): 8 x 8 pixels each

# %%
square = torch.zeros(1, 28, 28, dtype=torch.bool)
square[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
inside = relevance_mass_accuracy(reach, square).item()
plots.heatmap(
    reach,
    photo,
    title=f"Only {inside:.0%} of what moves this cell lies in its square",
    label="gradient of the cell (absolute)",
    mask=square[0],
)

# %% [markdown]
# The white frame is the cell as it is drawn. Nearly all that moves it lies outside: the pupil counts, and
# fur at the edge of the photo, more than the spot that the map marks. Read a class activation map as
# *around here*.

# %% [markdown] tags=["deeper"]
# ## Deeper: a library's wrong denominator, found with a pencil
#
# Here is a network that you can do on paper: two feature maps of 2 x 2 cells. Each has one bright cell of
# value 2, in opposite corners. All gradients are $1$ in the first map and $\frac12$ in the second.
#
# With four cells and $\sum A = 2$, Grad-CAM++ gives a channel the weight
# $4 \cdot \frac{g^2}{2g^2 + 2g^3} \cdot g = \frac{4g}{2 + 2g}$. That is $1$ for $g = 1$ and $\frac23$
# for $g = \frac12$, so the second spot has to be $\frac23$ as hot as the first. In the second case the same
# network gives its score in another unit: all gradients are a thousand times smaller. Then $2g$ hardly
# counts beside $2$, and the ratio is nearly $\frac12$.

# %%
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget


def published(network, layer, x, target):
    """Grad-CAM++ of one class by pytorch-grad-cam, (H, W), scaled to 0..1."""
    with GradCAMPlusPlus(network, [layer]) as method:
        return method(x.clone().requires_grad_(), [ClassifierOutputTarget(target)])[0]


def corner_net(unit):
    network = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(8, 1, bias=False))
    network[2].weight.data = unit * torch.tensor([[1.0, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]])
    return network


corners = torch.tensor([[[[2.0, 0], [0, 0]], [[0, 0], [0, 2.0]]]])  # (1, 2, 2, 2)


# %%
def second_to_first(unit):
    network = corner_net(unit)
    on_paper = (2 + 2 * unit) / (2 + unit) / 2  # 4g / (2 + 2g) at g = unit / 2, over that at unit
    ours = cams.grad_cam_plus_plus(network, corners, 0, layer="0")[0, 0]
    theirs = published(network, network[0], corners, 0)
    ratios = [on_paper, ours[1, 1] / ours[0, 0], theirs[1, 1] / theirs[0, 0]]
    return [f"{float(ratio):.3f}" for ratio in ratios]


plots.table(
    [("1", *second_to_first(1.0)), ("1/1000", *second_to_first(0.001))],
    ["unit of the score", "on paper", "xailab", "pytorch-grad-cam"],
    title="Heat of the second spot, the first being 1",
)

# %% [markdown]
# In the first case the library has the value on paper. In the second it is off by a factor of two. Ask its
# own source why:

# %%
from importlib.metadata import version
from inspect import getsource

print("grad-cam", version("grad-cam"))
for line in getsource(GradCAMPlusPlus).splitlines():
    if "eps" in line:
        print(line.strip())

# %% [markdown]
# It adds a small number to the denominator, so that nothing is divided by 0. But with $g = .001$, $2g^2$ is
# only $2 \cdot 10^{-6}$: the guard, $10^{-6}$, is no longer small beside what it guards. Are gradients ever
# that small? On the cat's network they are weights divided by 49, so the map of the cat feels it, a little:

# %%
plus = cams.grad_cam_plus_plus(model, cat, TIGER_CAT, layer="bn2")[0, 0]
scaled = (plus - plus.min()) / (plus.max() - plus.min())  # as the library does; the unit is lost
gap = abs(scaled.numpy() - published(model, model.bn2, cat, TIGER_CAT)).max()
model.zero_grad()  # the library calls .backward() and leaves a gradient in every weight
print(f"largest difference, the maps running from 0 to 1: {gap:.2f}")

# %% [markdown]
# You would not see it in a picture. You see it in a network of eight weights and a pencil. Keep such a
# network for each method that you rely on.

# %% [markdown] tags=["deeper"]
# ## Deeper: a claim from a report
#
# ### Exercise: criticize (8 minutes)
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

# %% [markdown]
# ## You can now
#
# - compute a logit, CAM and Grad-CAM from feature maps, in code of your own
# - say when CAM and Grad-CAM are the same map
# - tell what a heat map knows from what drawing it has added
# - score a map where the right answer is known, and repair one that comes out empty
#
# ## Takeaways
#
# - A class activation map is a weighted sum of feature maps. CAM reads the weights off the classifier,
#   Grad-CAM takes mean gradients; behind global average pooling and one linear layer they are the same.
# - It has as many numbers as the layer has cells, here 49. The smooth cloud is drawn.
# - A mean of gradients can cancel to nothing, and an empty map then means nothing. Score a method where you
#   know the answer.
#
# ## Myth refuted
#
# *"Grad-CAM is a fine map, made by weighting the input pixels by their gradients."* One can read this. No
# pixel is weighted: one weight for each of 1,280 feature maps gives 49 numbers, and stretching does the
# rest (sections 2 and 3). Weighting pixels by their gradients is another method, input x gradient
# ([[saliency]]).
#
# ## Go further
#
# - Zhou, Khosla, Lapedriza, Oliva, Torralba (2016), *Learning Deep Features for Discriminative
#   Localization*: CAM.
# - Selvaraju and others (2017), *Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based
#   Localization*; section 3.2 has guided Grad-CAM.
# - Chattopadhay, Sarkar, Howlader, Balasubramanian (2018), *Grad-CAM++: Generalized
#   Gradient-Based Visual Explanations for Deep Convolutional Networks*; its equation 19 is the
#   denominator of the pencil section.
# - Draelos, Carin (2020), *Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional
#   neural networks*.
# - Wang and others (2020), *Score-CAM*; Desai, Ramaswamy (2020), *Ablation-CAM*; Muhammad, Yeasin (2020),
#   *Eigen-CAM*; Jiang and others (2021), *LayerCAM*.
# - Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim (2018), *Sanity Checks for Saliency Maps*: which maps
#   survive when the network's weights are replaced by noise.
