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
# # Saliency: which pixel would move the score?
#
# **Question:** If you could nudge one pixel of a photo, which one would change the network's answer most?
#
# **You will be able to**
# - compute the gradient of a score with respect to its input by hand, and read its sign and its unit
# - tell sensitivity from contribution, and show where a gradient of zero hides what decides
# - write input x gradient, deconvnet, guided backprop and SmoothGrad in a few lines each
# - choose SmoothGrad's noise by measuring what the network still recognizes
# - catch a pretty map that does not depend on the question
#
# **You need:** [[backprop]]
#
# **Time:** [[time]]; the cells run in less than a minute · **Difficulty:** 2 of 5

# %%
import copy
import time
import warnings
from functools import partial

import captum.attr
import numpy as np
import pandas as pd
import skimage.data
import torch
from torch import nn

import xailab
from xailab import data, plots
from xailab.attribution import saliency as methods
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.scoreboard import record, score
from xailab.models import digit_cnn, digit_cnn_marked, pretrained

_ = torch.manual_seed(0)  # for the networks with random weights further down

# %% [markdown]
# A photo of a cat, and a network that knows 1,000 classes:

# %%
net = pretrained("efficientnet_lite0")
cat = net.preprocess(skimage.data.chelsea())  # (1, 3, 224, 224)
photo = net.picture(cat)[0]  # (224, 224, 3), what the network sees
for index, name, probability in net.top(cat, 3):
    print(f"{index}  {name:16} {probability:.2f}")

# %% [markdown]
# It says *tiger cat*, class 282. Why? Three methods of this lesson answer, each with one number for
# each of the 150,528 numbers that went in. To draw them, take the largest magnitude of the three
# color channels at each pixel:

# %%
TIGER_CAT, ESPRESSO = 282, 967


def strength(attribution):
    """One number per pixel: the largest magnitude among its channels, (N, H, W)."""
    return attribution.abs().amax(dim=1)


# %%
names = ["saliency", "guided_backprop", "smoothgrad"]
found = xailab.explain(net.model, cat, TIGER_CAT, methods=names, n_samples=8, batch_size=1)
plots.compare(
    [strength(found[name]) for name in names],
    over=photo,
    titles=["gradient", "guided backprop", "SmoothGrad"],
    shared=False,
    title="One photo, one network, one answer: three explanations",
)

# %% [markdown]
# Which of the three do you trust most? The one in the middle is the tidiest: quiet, and bright on
# the eyes and the nose. Write your choice down. In section 10 you replace most of the network's
# weights by random numbers, and one of these maps hardly notices.
#
# Exercises come where their idea is fresh. Stuck? Run `hint("saliency.sensitivity")` in a new cell;
# there are up to three hints for each.
#
# ## 1. Sensitivity is not contribution
#
# Start with a model that you can compute in your head. A bank gives points for income (in
# thousands) and takes points for every loan that was not paid back:
#
# $$f(x) = 0.2\, x_\text{income} - 3\, x_\text{defaults} + 1$$
#
# Ada earns 50 thousand and has never defaulted.


# %%
def credit(x):  # (N, 2) -> (N,)
    return 0.2 * x[:, 0] - 3.0 * x[:, 1] + 1.0


ada = torch.tensor([[50.0, 0.0]])
credit(ada)  # 0.2 * 50 - 3 * 0 + 1

# %% [markdown]
# The **gradient** says how many points the score moves per unit of each input. Multiplied by the
# input it says how many points each input brought in:

# %%
leaf = ada.clone().requires_grad_()
(gradient,) = torch.autograd.grad(credit(leaf).sum(), leaf)
rows = zip(["income", "defaults"], ada[0].tolist(), gradient[0].tolist(), strict=True)
plots.table(
    [(name, f"{x:g}", f"{g:.1f}", f"{x * g + 0:.0f}") for name, x, g in rows],
    ["input", "Ada has", "gradient (points per unit)", "input x gradient (points)"],
    title="Defaults have the larger slope; income brought the points",
)  # "+ 0" writes -0 as 0

# %% [markdown]
# Both columns are right, and they answer different questions. *What would move the score most?*
# One default: 3 points per unit, fifteen times the slope of income. *Where do Ada's 11 points come
# from?* From income, and from the offset, which belongs to neither. "Defaults matter most for Ada"
# would be an odd thing to say of somebody who has none.
#
# So is input x gradient the answer to the second question? Look at what it takes for granted. A
# cold store raises an alarm that grows with the temperature. Here is the same rule twice, once for
# a thermometer in degrees Celsius, once in kelvin:


# %%
def alarm_celsius(x):
    return 0.5 * x[:, 0] - 10


def alarm_kelvin(x):
    return 0.5 * (x[:, 0] - 273.15) - 10


# %%
summer_day = {
    "Celsius": (alarm_celsius, torch.tensor([[25.0]])),
    "kelvin": (alarm_kelvin, torch.tensor([[298.15]])),
}
rows = [
    (unit, f(x).item(), methods.saliency(f, x, None), methods.input_x_gradient(f, x, None))
    for unit, (f, x) in summer_day.items()
]
plots.table(
    [(unit, f"{s:.1f}", f"{g.item():.1f}", f"{a.item():.1f}") for unit, s, g, a in rows],
    ["scale", "score", "gradient", "input x gradient"],
    title="Same day, same alarm: input x gradient changes with the scale",
)

# %% [markdown]
# The score is the same, the slope is the same, and input x gradient jumps from 12.5 to 149.1,
# because the model's offset absorbed the shift. **Input x gradient measures from zero**, and where
# zero lies was decided by whoever stored the data. For our digits zero is black. For the photo
# above it is a middle gray.
#
# ## 2. The gradient of a digit
#
# Now a network. This one has three convolutions and was trained on 4,000 MNIST digits; the picture
# is one it has never seen.

# %%
cnn = digit_cnn()
mnist = data.load("mnist5k")
test = mnist.take(~mnist.extra["train"])
images = torch.as_tensor(test.images / np.float32(255))[:, None]  # (1000, 1, 28, 28), black is 0
four = images[test.y == 4][:1]  # (1, 1, 28, 28)
stroke = four[0, 0] > 0.5  # (28, 28), to draw its outline
print(f"p(4) = {cnn(four).softmax(1)[0, 4]:.4f}, logit of 4 = {cnn(four)[0, 4]:.2f}")

# %%
plots.images([four[0]], titles=["a 4 of the test set"])

# %% [markdown]
# The gradient of the score of class $t$ with respect to every pixel is one number per pixel:
#
# $$S_{ij} = \frac{\partial f_t(x)}{\partial x_{ij}}$$
#
# $x_{ij}$ is the brightness of the pixel in row $i$ and column $j$, $f_t$ the logit of class $t$
# (before softmax). The unit is logits per unit of brightness. In code it is three lines:

# %%
leaf = four.clone().requires_grad_()
logits = cnn(leaf)  # (1, 10)
(gradient,) = torch.autograd.grad(logits[0, 4], leaf)  # (1, 1, 28, 28)

# %%
plots.heatmap(
    gradient[0],
    title="Red: brighter here, more of a 4. Blue: less",
    label="logits per unit of brightness",
    mask=stroke,
)

# %% [markdown]
# The white outline is the stroke. Look at its upper left end: deep red touches deep blue. The
# network is picky about where exactly this stroke begins. The upper right end is mostly blue:
# brighter there counts against a 4. The corners of the picture are pale; strong colors there would
# have been a surprise.
#
# Do you believe the numbers? Brighten the strongest pixel by a hundredth, and watch the logit:

# %%
place = gradient.abs().flatten().argmax()
nudged = four.clone()
nudged.view(-1)[place] += 0.01
moved = (cnn(nudged) - cnn(four))[0, 4].item() / 0.01
print(f"logit moved by {moved:.2f} per unit; the gradient said {gradient.view(-1)[place]:.2f}")

# %% [markdown]
# The same thing from `xailab`. `assert_close` is silent where two maps are equal:

# %%
torch.testing.assert_close(methods.saliency(cnn, four, 4), gradient)

# %% [markdown]
# ### Your turn: many rows at once
#
# Usually you explain a batch, and every row has its own target. Write it. The result has the shape
# of `x`, keeps its signs, is detached from the graph, and leaves `x` and the model as they were.


# %% tags=["exercise"]
def sensitivity(model, x, targets):
    """Gradient of each row's own target logit: x (N, ...), targets (N,) -> (N, ...)."""
    ### BEGIN SOLUTION
    leaf = x.clone().requires_grad_()
    own_logits = model(leaf)[torch.arange(len(x)), targets]  # (N,)
    # No row's score depends on another row, so the sum's gradient holds every row's own.
    (gradient,) = torch.autograd.grad(own_logits.sum(), leaf)
    return gradient
    ### END SOLUTION


# %%
check("saliency.sensitivity", sensitivity)

# %% [markdown]
# ## 3. On a photo: why so grainy?
#
# For the cat the gradient looked like dust. Does the dust tell something about the network, or only
# about this very photo? Add noise that you cannot see, about one of 255 gray levels, and compare.
# First the prediction:

# %%
invisible = torch.randn(cat.shape, generator=torch.Generator().manual_seed(1)) / 128
almost = cat + invisible  # 128 gray levels are one unit of the network's input
for picture in (cat, almost):
    print([(name, round(p, 2)) for _, name, p in net.top(picture, 2)])

# %% [markdown]
# The same answer. Now the two gradients, and how alike they are:


# %%
def alike(a, b):
    """Correlation of two maps' strengths: 1 the same picture, 0 unrelated."""
    return np.corrcoef(strength(a).flatten(), strength(b).flatten())[0, 1]


before = methods.saliency(net.model, cat, TIGER_CAT)
after = methods.saliency(net.model, almost, TIGER_CAT)
print(f"correlation of the two maps: {alike(before, after):.2f}")

# %%
plots.compare(
    [strength(before), strength(after)],
    over=photo,
    titles=["the photo", "the photo + invisible noise"],
    title="The answer stays; the dust does not",
    label="|gradient| (logits per unit)",
)

# %% [markdown]
# Same color, same number here: both panels share one scale. Eyes and nose stay, the single
# speckles move. A network of ReLUs is cut like a gem: its surface is made of flat facets, each with
# a slope of its own. A tiny step onto the next facet hardly changes the logit, and the slope jumps.
# A single speckle therefore means little; section 7 averages them away.
#
# ## 4. Input x gradient
#
# By hand it is one product, and you know its weakness from the thermometer:
#
# $$A_{ij} = x_{ij} \, \frac{\partial f_t(x)}{\partial x_{ij}}$$

# %%
by_hand = four * gradient  # (1, 1, 28, 28), in logits
torch.testing.assert_close(methods.input_x_gradient(cnn, four, 4), by_hand)

# %%
plots.compare(
    [gradient[0], by_hand[0]],
    titles=["gradient", "input x gradient"],
    shared=False,
    mask=stroke,
    title="Multiplying by the input erases everything black",
)

# %% [markdown]
# The right map looks tidier, and the tidiness comes from the digit. How much did the product erase,
# and does what is left add up to the score?

# %%
black = four == 0
erased = gradient[black].abs().sum() / gradient.abs().sum()
rise = cnn(four)[0, 4] - cnn(torch.zeros_like(four))[0, 4]
print(f"share of the gradient that lies on black pixels: {erased:.0%}")
print(f"sum of the map: {by_hand.sum():.2f}; the logit's rise from a black image: {rise:.2f}")

# %% [markdown]
# A black pixel that would turn the 4 into something else when lit gets exactly 0 here: its
# *absence* may be what makes this a 4, and input x gradient cannot say so. And the numbers add up
# to the rise of the score for a linear model (or a ReLU network without offsets), not in general.
# [[integrated_gradients]] mends that.
#
# ## 5. Saturation: slope zero, and yet it decides
#
# An alarm has two sensors, each 0 or 1. It is on if at least one of them is lit, and it can be no
# more than on:
#
# $$f(x) = \min(1,\; x_1 + x_2)$$


# %%
def alarm(x):  # (N, 2) -> (N,), written with a ReLU as a network would
    return 1 - torch.relu(1 - x.sum(dim=1))


both_lit = torch.ones(1, 2)
print(f"both lit: {alarm(both_lit).item()}, none lit: {alarm(0 * both_lit).item()}")

# %% [markdown]
# Both sensors are lit. **Predict, then run:** what is the gradient of the alarm with respect to the
# first sensor?

# %% tags=["exercise"]
### BEGIN SOLUTION
slope_guess = 0.0
### END SOLUTION

# %%
predict("saliency.alarm", slope_guess)

# %%
slope = methods.saliency(alarm, both_lit, None)  # (1, 2)
reveal("saliency.alarm", slope[0, 0].item() + 0)  # + 0: no "-0"

# %% [markdown]
# Both slopes are 0, and so is input x gradient. Yet the alarm is on because of these two sensors
# and nothing else: put both out and it falls from 1 to 0. The unit is **saturated**. One more or
# one less changes nothing *from here*, and "from here" is all that a gradient knows.
#
# ### It happens in every sure classifier
#
# The network gave the 4 a probability of nearly 1, and a probability can be no more than 1. Fade
# the digit in from black and look at the slope of the *probability* on the way (the length of its
# gradient, as one arrow with 784 entries):

# %%
brightness = torch.linspace(0, 1, 21)
faded = brightness[:, None, None, None] * four  # (21, 1, 28, 28)
p_four = cnn(faded).softmax(1)[:, 4].detach()
slopes = methods.saliency(lambda x: cnn(x).softmax(1), faded, 4).flatten(1).norm(dim=1)

# %%
plots.curve(
    brightness,
    {"probability of 4": p_four, "its slope": slopes / slopes.max()},
    title="Where the network is sure, the slope is gone",
    xlabel="brightness of the digit (0 black, 1 as it is)",
    ylabel="probability; slope as a share of its peak",
)

# %% [markdown]
# The slope is largest where the network makes up its mind, and at the finished digit next to
# nothing is left of it: the evidence is complete, so no pixel seems to matter. How bad is it?

# %%
of_logit = methods.saliency(cnn, four, 4).abs().sum().item()
of_probability = methods.saliency(lambda x: cnn(x).softmax(1), four, 4).abs().sum().item()
print(f"sum of |slopes|: {of_logit:.1f} for the logit, {of_probability:.3f} for the probability")

# %% [markdown]
# This is why this course explains **logits**: softmax saturates, and the logit before it does not.
# It is no full cure. ReLU units inside the network saturate too, each time they are off.

# %%
quiz("saliency.q_zero")

# %% [markdown]
# ## 6. Deconvnet and guided backprop: bend the backward pass
#
# Both methods run the backward pass with a changed rule at the ReLUs. Take one layer with four
# units. $a$ is what went *into* each ReLU, $R$ the signal that comes back *from above*:
#
# | method | the ReLU passes down |
# |---|---|
# | gradient | $R$ where $a > 0$ |
# | deconvnet (Zeiler and Fergus, 2014) | $R$ where $R > 0$ |
# | guided backprop (Springenberg et al., 2014) | $R$ where $a > 0$ and $R > 0$ |

# %%
# NBVAL_CHECK_OUTPUT
a = torch.tensor([-2.0, 1.0, 3.0, -1.0])
R = torch.tensor([5.0, -4.0, 2.0, -3.0])
print("gradient       ", (R * (a > 0) + 0).tolist())  # "+ 0" again: no -0
print("deconvnet      ", R.clamp(min=0).tolist())
print("guided backprop", (R.clamp(min=0) * (a > 0)).tolist())

# %% [markdown]
# The third unit passes its signal down in all three. The first one was off, and deconvnet passes
# its signal all the same. The second speaks *against* the class, and both new rules drop it.
#
# PyTorch lets you replace what a module passes down by a hook. Its second argument is what the
# module would pass down (the gradient's rule), its third the signal from above:


# %%
def backward_with(rule):
    """Signal at the pixels of the four when every ReLU passes down what `rule` says."""
    relus = [module for module in cnn.modules() if isinstance(module, nn.ReLU)]
    hooks = [relu.register_full_backward_hook(rule) for relu in relus]
    leaf = four.clone().requires_grad_()
    (signal,) = torch.autograd.grad(cnn(leaf)[0, 4], leaf)
    for hook in hooks:
        hook.remove()
    return signal


# %%
guided = backward_with(lambda relu, down, above: (down[0].clamp(min=0),))
deconv = backward_with(lambda relu, down, above: (above[0].clamp(min=0),))
torch.testing.assert_close(methods.guided_backprop(cnn, four, 4), guided)
torch.testing.assert_close(methods.deconvnet(cnn, four, 4), deconv)

# %%
plots.compare(
    [gradient[0], deconv[0], guided[0]],
    titles=["gradient", "deconvnet", "guided backprop"],
    shared=False,
    mask=stroke,
    title="Both rules drop what speaks against: less blue, more stroke",
)

# %% [markdown]
# Guided backprop redraws the stroke, mostly in red. Where did the blue of the two upper ends go? The
# network had reasons *against* a 4 there, and the rule threw them away. (The blue that is left
# comes from the first convolution: its weights have both signs, and no ReLU lies below it.)
#
# On the photo:

# %%
passes = {
    "gradient": methods.saliency,
    "input x gradient": methods.input_x_gradient,
    "deconvnet": methods.deconvnet,
    "guided backprop": methods.guided_backprop,
}
of_cat = {name: method(net.model, cat, TIGER_CAT) for name, method in passes.items()}
plots.compare(
    [strength(attribution) for attribution in of_cat.values()],
    over=photo,
    titles=list(of_cat),
    shared=False,
    title="Four backward passes: deconvnet draws a grid that is not in the photo",
)

# %% [markdown]
# Where does deconvnet's grid come from? Not from the cat: ask about a plain gray picture.

# %%
gray = torch.zeros_like(cat)
deconv_gray = methods.deconvnet(net.model, gray, TIGER_CAT)
print(f"deconvnet of the cat and of plain gray: {alike(of_cat['deconvnet'], deconv_gray):.3f}")

# %% [markdown]
# The very same map. Look at the table of rules: deconvnet's does not contain $a$, so the photo can
# enter only through max pooling. The network of Zeiler and Fergus has it, this one has not. The grid
# is made by kernels that move in steps of two: on the way down, they reach some pixels more often
# than others.
#
# ### What if a ReLU is a function?
#
# A hook needs a module to sit on. Many networks write `torch.relu(x)` instead. Then the rule would
# miss that ReLU, and you would get some mixture without knowing:


# %%
class Careless(nn.Sequential):
    def forward(self, x):
        return torch.relu(super().forward(x))


try:
    methods.guided_backprop(Careless(cnn), four, 4)
except ValueError as error:
    print(error)

# %% [markdown]
# ## 7. SmoothGrad: average the dust away
#
# If single speckles are chance, average over many almost equal pictures (Smilkov et al., 2017):
#
# $$\hat S = \frac 1n \sum_{k=1}^n \frac{\partial f_t(x + \varepsilon_k)}{\partial x}
#   \qquad \varepsilon_k \sim \mathcal N(0, \sigma^2)$$
#
# $\varepsilon_k$ is fresh noise for every pixel of every copy. By hand, with 25 copies:

# %%
generator = torch.Generator().manual_seed(0)  # its own: nobody else's random numbers change
copies = four + 0.1 * torch.randn(25, 1, 28, 28, generator=generator)
copies.requires_grad_()
(slopes,) = torch.autograd.grad(cnn(copies)[:, 4].sum(), copies)  # (25, 1, 28, 28)
by_hand = slopes.mean(dim=0, keepdim=True)  # (1, 1, 28, 28)

# %% [markdown]
# In `xailab`, `noise` is a share of the picture's range (largest minus smallest), which is 1 here:

# %%
smooth_four = methods.smoothgrad(cnn, four, 4, noise=0.1, n_samples=25, seed=0)
torch.testing.assert_close(smooth_four, by_hand)

# %% [markdown]
# How many copies are enough? Make the map twice with different noise; if the two agree, more copies
# bring nothing:

# %%
for n in (5, 25, 100):
    one, other = (
        methods.smoothgrad(cnn, four, 4, n_samples=n, seed=seed, batch_size=25) for seed in (1, 2)
    )
    agreement = np.corrcoef(one.flatten(), other.flatten())[0, 1]
    print(f"{n:3} copies: correlation of two runs {agreement:.2f}")

# %% [markdown]
# ### How much noise?
#
# More noise gives a smoother map. Is smoother better? At noise 0.4 you can still read the digit:

# %%
noisy = four + 0.4 * torch.randn(100, 1, 28, 28, generator=generator)
plots.images(
    [four[0], noisy[0].clamp(0, 1)],
    titles=["the four", "noise 0.4"],
    title="You still see a 4",
)

# %% [markdown]
# **Predict, then run:** what probability does the network give to *4*, on average over 100 such
# pictures?

# %% tags=["exercise"]
### BEGIN SOLUTION
probability_guess = 0.8
### END SOLUTION

# %%
predict("saliency.noisy_four", probability_guess)

# %%
reveal("saliency.noisy_four", round(cnn(noisy).softmax(1)[:, 4].mean().item(), 4))

# %% [markdown]
# The network was trained without noise, and at this level it sees no 4 at all. The average of its
# slopes there explains how it reads noise. Measure both sides: how rough the map is, and how
# sure the network still is of what you ask it about.


# %%
def roughness(attribution):
    """Mean step between neighboring pixels, in units of the mean magnitude."""
    steps = [attribution.diff(dim=axis).abs().mean() for axis in (2, 3)]
    return (sum(steps) / 2 / attribution.abs().mean()).item()


levels = [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5]
maps = [methods.smoothgrad(cnn, four, 4, noise=level, batch_size=25) for level in levels]
draws = torch.randn(100, 1, 28, 28, generator=generator)
sure = [cnn(four + level * draws).softmax(1)[:, 4].mean().item() for level in levels]

# %%
plots.curve(
    levels,
    {"roughness of the map": [roughness(m) for m in maps], "probability of 4": sure},
    title="The map gets smoother while the network loses the digit",
    xlabel="noise (share of the range)",
    ylabel="roughness; probability",
)

# %% [markdown]
# The map becomes calmer all the way, also long after the network has lost the digit: calm is no
# sign of truth. Choose the largest noise at which the network still recognizes what you ask about,
# here 0.15 to 0.2. (Smilkov et al. recommend 0.1 to 0.2.) The same check on the photo:

# %%
levels = [0, 0.05, 0.15, 0.4]
draws = torch.randn(8, 3, 224, 224, generator=generator)
spread = cat.max() - cat.min()
with torch.no_grad():
    sure = [net.model(cat + n * spread * draws).softmax(1)[:, TIGER_CAT].mean() for n in levels]

# %%
smoothed = partial(methods.smoothgrad, net.model, cat, TIGER_CAT, n_samples=6, batch_size=1)
plots.compare(
    [strength(before), *(strength(smoothed(noise=level)) for level in levels[1:])],
    over=photo,
    titles=[f"noise {n:g}, p = {p:.2f}" for n, p in zip(levels, sure, strict=True)],
    shared=False,
    title="The noise goes up, and the tiger cat goes down",
)

# %% [markdown]
# Noise of 0.15 costs hardly more than 0.05. But look at the last panel. It is bright on two eyes and
# quiet elsewhere, and it explains a *tiger cat* in which the network itself hardly believes.
#
# ### Your turn: SmoothGrad for any input
#
# Write it for one row `x` of shape `(1, ...)` and a `noise` in shares of the row's range. You may
# use `methods.saliency`. Take care that nobody's random numbers change.


# %% tags=["exercise"]
def smooth(model, x, target, noise, n_samples, seed):
    """SmoothGrad of one row, (1, ...) -> (1, ...); noise is a share of max - min of x."""
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(n_samples, *x.shape[1:], generator=generator)  # (n, ...)
    copies = x + noise * (x.max() - x.min()) * draws
    return methods.saliency(model, copies, target).mean(dim=0, keepdim=True)
    ### END SOLUTION


# %%
check("saliency.smooth", smooth)

# %% [markdown]
# ## 8. The practitioners' library: captum
#
# [Captum](https://captum.ai) (Kokhlikyan et al., 2020) has all five. Two of its habits to know:
# `Saliency` takes the absolute value unless you ask it not to, and the noise of `NoiseTunnel` is in
# units of `x` and comes from the global random state.

# %%
C = captum.attr
ask = {"target": 4}
theirs = {
    "saliency": lambda: C.Saliency(cnn).attribute(four, abs=False, **ask),
    "input_x_gradient": lambda: C.InputXGradient(cnn).attribute(four, **ask),
    "deconvnet": lambda: C.Deconvolution(cnn).attribute(four, **ask),
    "guided_backprop": lambda: C.GuidedBackprop(cnn).attribute(four, **ask),
    "smoothgrad": lambda: C.NoiseTunnel(C.Saliency(cnn)).attribute(
        four, nt_samples=25, stdevs=0.1, abs=False, **ask
    ),
}

# %%
mine = {name: partial(getattr(methods, name), cnn, four, 4) for name in theirs}
mine["smoothgrad"] = partial(mine["smoothgrad"], n_samples=25, batch_size=25)


# %%
def timed(function):
    """What a function returns, and its best time out of ten in milliseconds."""
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - began)
    return result, 1000 * min(seconds)


# %%
warnings.filterwarnings("ignore", module="captum")  # it announces its hooks
rows = []
for name in theirs:
    (a, a_ms), (b, b_ms) = timed(mine[name]), timed(theirs[name])
    equal = np.corrcoef(a.flatten(), b.detach().flatten())[0, 1]
    rows.append((name, f"{equal:.3f}", f"{a_ms:.1f}", f"{b_ms:.1f}"))
    assert equal > (0.9 if name == "smoothgrad" else 0.99999), name
    assert name == "smoothgrad" or torch.allclose(a, b, atol=1e-5), name
columns = ["method", "correlation", "xailab (ms)", "captum (ms)"]
plots.table(rows, columns, title="Five methods, two libraries, the same maps")

# %% [markdown]
# Four are equal to 1e-5. SmoothGrad draws other noise, so it agrees as well as two of its own runs
# do. The times are those of the machine that ran this notebook.
#
# ### Where captum gives something else
#
# We compared on the digit network on purpose. The photo network's units are not `nn.ReLU` but
# `nn.ReLU6`, a ReLU that also stops at 6. Captum's guided backprop hooks `nn.ReLU` only:

# %%
their_guided = C.GuidedBackprop(net.model).attribute(cat, target=TIGER_CAT)
print(f"captum's guided backprop and the plain gradient: {alike(their_guided, before):.3f}")
print(
    f"xailab's guided backprop and the plain gradient: {alike(of_cat['guided backprop'], before):.3f}"
)

# %% [markdown]
# A correlation of 1.000: captum found nothing to hook and returned the plain gradient under the
# name of guided backprop, without an error. Checking a method on a network that you can follow by
# hand does not check it on yours.
#
# ## 9. Known answer: who finds what we hid?
#
# Two data sets where we know what a right map must show, because we put it there:
#
# - **marked digits**: a network that cheats. It calls a digit *8* because of a small bright square
#   in the corner; take the square away and it says something else. The square is the answer.
# - **mosaics**: four photos of four classes in one picture. The cell of the class asked for is the
#   answer.

# %%
marked = data.marked_digits(seed=0).test
cheat = digit_cnn_marked()
shown = torch.as_tensor(marked.images)[:, None]  # (1000, 1, 28, 28)
bare = shown * ~torch.as_tensor(marked.truth)[:, None]  # the same digits without the mark
with_mark, without_mark = cheat(shown).argmax(1), cheat(bare).argmax(1)
fooled = ((with_mark == 8) & (without_mark != 8)).nonzero()[0].item()  # the first one

# %%
grids = data.mosaics(seed=0)
called = f"called {with_mark[fooled]}, without mark {without_mark[fooled]}"
plots.images(
    [marked.images[fooled], grids.images[0]],
    titles=[called, f"where is the {grids.names[0]}?"],
    title="Both pictures have a right answer",
)

# %% [markdown]
# Scores mean little without controls. Add two "methods" that never look at the network: random
# numbers, and the picture itself (how far each pixel lies above the darkest one).


# %%
def noise_only(model, x, target):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(0))


def the_picture(model, x, target):
    return x - x.amin(dim=(1, 2, 3), keepdim=True)


five = ["saliency", "input_x_gradient", "deconvnet", "guided_backprop", "smoothgrad"]
controls = {"noise_only": noise_only, "the_picture": the_picture}

# %% [markdown]
# `pointing` asks: does the largest value of the map lie in the right place? `mass` asks: which share
# of the positive values lies there? To save your time, the cell below asks about ten mosaics, and
# gives SmoothGrad two noisy copies there. It is still the longest cell of the lesson.

# %%
digits_table = score(five, "marked_digits", limit=100, batch_size=25)
mosaics_table = score(five, "mosaics", limit=10, n_samples=2, batch_size=1)
record(digits_table)
record(mosaics_table)
sizes = {"marked_digits": 100, "mosaics": 10}
of_controls = [score(controls, name, limit=rows) for name, rows in sizes.items()]

# %%
everything = pd.concat([digits_table, mosaics_table, *of_controls])
chance = everything.groupby("dataset")["chance"].first().to_dict()
plots.scoreboard(
    everything.pivot(index="method", columns="dataset", values="mass"),
    title="Most methods beat chance; none is reliable",
    xlabel="share of positive values in the right place",
    chance=chance,
)

# %% [markdown]
# Read it against the controls:
#
# - On the **marked digits** only input x gradient clearly beats *the picture*, and it has the picture
#   built in: the mark is the brightest block there is.
# - On the **mosaics** brightness helps nobody, and *the picture* falls back to chance. Deconvnet
#   falls with it: its map did not even change when the cat was taken away. Guided backprop
#   does better: with four photos in view, its map moves a little with the question.
# - **SmoothGrad** looks better than the plain gradient, and its mass is no better on either set.
#
# Now the other measure:

# %%
columns = everything.pivot(index="method", columns="dataset", values="pointing").round(2)
plots.table(columns, title="How often the largest value lies in the right place")

# %% [markdown]
# Look at three rows:
#
# - *the picture* points at the mark most often of all, and it never asked the network. A score
#   without a control would have fooled you.
# - SmoothGrad points into the right photo more often than the plain gradient, with two copies only,
#   and its mass did not rise. Averaging can remove the single wrong speckle, and a single speckle
#   is all that pointing looks at: two fair measures, two verdicts. Two hits more in ten mosaics are
#   a hint and no proof, though, and on the marked digits SmoothGrad points worse.
# - Guided backprop, the tidiest map of all, is the worst of the five at pointing to the mark.
#
# And ten mosaics are few. Look at what random numbers scored there, with a chance of one in four:
# luck alone moves these hit rates by a tenth or two.
#
# The scores went to your scoreboard; later lessons add their methods to it, on the same questions.

# %%
quiz("saliency.q_controls")

# %% [markdown]
# ## 10. When it lies: the map that ignores the question
#
# Back to the picture at the top. An explanation of *tiger cat* should differ from an explanation of
# *espresso*, on the same photo and with the same network. Guided backprop draws eyes and a nose for
# the cat. **Predict, then run:** how alike is its map for *espresso*? (1 the same picture, 0
# unrelated)

# %% tags=["exercise"]
### BEGIN SOLUTION
alike_guess = 0.3
### END SOLUTION

# %%
predict("saliency.espresso", alike_guess)

# %%
guided_cat = of_cat["guided backprop"]
guided_espresso = methods.guided_backprop(net.model, cat, ESPRESSO)
reveal("saliency.espresso", round(alike(guided_cat, guided_espresso), 3))

# %%
plots.compare(
    [strength(guided_cat), strength(guided_espresso)],
    over=photo,
    titles=["why tiger cat?", "why espresso?"],
    shared=False,
    title="On this photo, guided backprop gives one answer to two questions",
)

# %% [markdown]
# The eyes and the nose of a cat "explain" why the photo is a cup of coffee. And the other methods?

# %%
for name, method in passes.items():
    of_espresso = method(net.model, cat, ESPRESSO)
    print(f"{name:17} correlation of cat and espresso: {alike(of_cat[name], of_espresso):.3f}")

# %% [markdown]
# Deconvnet ignores the question too; the other two maps change with it.
#
# Now the network instead of the question. Keep the lower layers, and give the last two of seven
# stages, the head and the classifier fresh random weights. What is left can no longer tell a cat
# from a cup.

# %%
UPPER = ("blocks.5", "blocks.6", "conv_head", "bn2", "classifier")
ruined = copy.deepcopy(net.model)
for name, module in ruined.named_modules():
    if name.startswith(UPPER) and hasattr(module, "reset_parameters"):
        module.reset_parameters()

# %%
upper = sum(p.numel() for name, p in ruined.named_parameters() if name.startswith(UPPER))
share = upper / sum(p.numel() for p in ruined.parameters())
likeliest = ruined(cat).softmax(1).max().item()
print(f"{share:.0%} of the weights are random; the likeliest class has p = {likeliest:.3f}")

# %%
gradient_ruined = methods.saliency(ruined, cat, TIGER_CAT)
guided_ruined = methods.guided_backprop(ruined, cat, TIGER_CAT)
print(f"gradient,        trained and ruined: {alike(before, gradient_ruined):.2f}")
print(f"guided backprop, trained and ruined: {alike(guided_cat, guided_ruined):.2f}")

# %%
plots.compare(
    [strength(m) for m in (before, gradient_ruined, guided_cat, guided_ruined)],
    over=photo,
    titles=["gradient, trained", "gradient, ruined", "guided, trained", "guided, ruined"],
    shared=False,
    title="Guided backprop hardly notices that most weights are random",
)

# %% [markdown]
# The prettiest map of this lesson is decided by the lower layers and the photo. What turns their
# edges and textures into *cat* or *espresso* sits in the layers that you replaced. Adebayo et al.
# (2018) ran this test on many methods, layer by layer; [[sanity]] repeats it in
# full.
#
# ### Your turn: criticize
#
# A colleague writes in a report:
#
# > *The guided backprop map is sharp, and it is bright on the eyes and the nose. It shows that the
# > network attends to the face, and that it recognizes cats for the right reason.*
#
# What is wrong with this? Write at least 40 words: what does such a map tell, which two tests does
# it fail, and what would you ask the colleague to show instead?

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
The map tells where a bent gradient is large, so at best where a small change of a pixel would move
the score. It says neither what contributed to the score nor what the network "attends to". The map
is nearly the same for the class espresso, and nearly the same after most of the weights have been
replaced by random ones: what the network knows about cats hardly enters it. That it is sharp says
nothing. I would ask for a method that changes with the class and with the weights, for its score on
data with a known answer, and for what happens to the logit when the face is covered.
### END SOLUTION
"""

# %%
check("saliency.report", criticism)

# %% [markdown]
# ## Myth refuted
#
# **"Guided backprop shows the important regions, because it keeps the positive gradients."** You saw
# it in section 10: on a photo with one object it draws the same regions for another class, and for a network
# that has forgotten its classes. (Where several objects compete it moves with the question, as the mosaics show.)
#
# **"Draw the gradient of the weights as an image, and you see what the model attends to."** Take a linear model with random weights. It knows
# nothing. Let it see the 4, and draw its weights' gradient:


# %%
guesser = nn.Linear(784, 10)  # random weights, never trained


def weight_gradient(label, unit=4):
    """Gradient of the loss with respect to the weights of one output, (28, 28)."""
    loss = nn.functional.cross_entropy(guesser(four.flatten(1)), torch.tensor([label]))
    (gradient,) = torch.autograd.grad(loss, guesser.weight)  # (10, 784)
    return gradient[unit].view(28, 28)


# %%
evidence = methods.saliency(lambda x: guesser(x.flatten(1)), four, 4)
plots.compare(
    [weight_gradient(label=4), weight_gradient(label=7), evidence[0]],
    titles=["weights, label 4", "weights, label 7", "input gradient"],
    shared=False,
    title="A model of pure chance 'attends' to a perfect 4",
)

# %% [markdown]
# Left and middle: same model, same picture, same ten logits. Only the label in the loss differs,
# and the drawing turns from blue to red. Right: the gradient of the *input*, which is what this
# model goes by. It is noise, as it must be. The reason is one line of [[backprop]]:
#
# $$\frac{\partial L}{\partial W_k} = (p_k - y_k)\, x$$
#
# $L$ is the loss, $W_k$ the weights of class $k$, $p_k$ its probability, and $y_k$ is 1 for the label
# and 0 for the others. The weights' gradient of a linear layer is a copy of its input, times the
# error. You saw the 4
# because you put it there:

# %%
for label in (4, 7):
    same = np.corrcoef(weight_gradient(label).flatten(), four.flatten())[0, 1]
    print(f"label {label}: correlation with the digit itself {same:+.3f}")

# %% [markdown]
# **You can now**
# - compute the gradient of a score with respect to its input by hand, and read its sign and its unit
# - tell sensitivity from contribution, and show where a gradient of zero hides what decides
# - write input x gradient, deconvnet, guided backprop and SmoothGrad in a few lines each
# - choose SmoothGrad's noise by measuring what the network still recognizes
# - catch a pretty map that does not depend on the question
#
# ## Takeaways
#
# - A gradient is a slope at one point: what would move the score from here, not what made it.
# - Calm, sharp and tidy are properties of the picture. Ask for another class, ruin the weights, score it
#   where the answer is known; then trust it as far as it came.
# - Put controls beside every score: a map that never looked at the network may do well.
#
# ## Go further
#
# - Simonyan, Vedaldi, Zisserman (2013), *Deep Inside Convolutional Networks: Visualising Image
#   Classification Models and Saliency Maps*: the gradient as a map.
# - Shrikumar, Greenside, Shcherbina, Kundaje (2016), *Not Just a Black Box: Learning Important
#   Features Through Propagating Activation Differences*: input x gradient.
# - Zeiler, Fergus (2014), *Visualizing and Understanding Convolutional Networks*: deconvnet.
# - Springenberg, Dosovitskiy, Brox, Riedmiller (2014), *Striving for Simplicity: The All
#   Convolutional Net*: guided backprop.
# - Smilkov, Thorat, Kim, Viégas, Wattenberg (2017), *SmoothGrad: removing noise by adding noise*.
# - Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim (2018), *Sanity Checks for Saliency Maps*: the
#   second test of section 10, in full.
# - Nie, Zhang, Patel (2018), *A Theoretical Explanation for Perplexing Behaviors of
#   Backpropagation-based Visualizations*: why guided backprop and deconvnet redraw the picture.

# %%
progress()
