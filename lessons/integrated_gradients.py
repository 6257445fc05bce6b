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
# # Integrated gradients: where did the score come from?
#
# **Question:** Between an empty picture and this 4 the score rose by twelve: which pixel gets how much of that?
#
# **You will be able to**
# - compute integrated gradients by hand, and tell from one number whether you took enough steps
# - choose a baseline, and show what it makes the map blind to
# - hand a score down through a network by DeepLIFT and by three rules of LRP, and check each layer
# - test a method against three axioms, in code
# - catch a library that is wrong, with a network that fits on paper
#
# **You need:** [[saliency]]
#
# **Time:** [[time]]; the cells run in less than a minute · **Difficulty:** 3 of 5

# %%
import copy
import warnings
from functools import partial

import captum.attr
import numpy as np
import skimage.data
import torch
from captum.attr._utils.lrp_rules import EpsilonRule, GammaRule
from torch import nn
from torchvision.transforms.functional import gaussian_blur

from xailab import data, models, plots, widgets
from xailab.attribution import paths, relevance
from xailab.attribution.saliency import input_x_gradient, saliency
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.scoreboard import marked_digits_known_answer, record, score

_ = torch.manual_seed(0)  # for the network with random weights near the end
warnings.filterwarnings("ignore", "the attribution misses")  # too few steps, on purpose, to see it

# %% [markdown]
# The digit network of the last lessons, and a 4 that it was not trained on:

# %%
cnn = models.digit_cnn()
mnist = data.load("mnist5k")
test = mnist.take(~mnist.extra["train"])
images = torch.as_tensor(test.images / np.float32(255))[:, None]  # (1000, 1, 28, 28), black is 0
labels = torch.as_tensor(test.y)
four = images[labels == 4][:1]  # (1, 1, 28, 28)
black = torch.zeros_like(four)

# %%
at_four, at_black = cnn(four)[0, 4].item(), cnn(black)[0, 4].item()
rise = at_four - at_black
print(f"logit of 4: {at_four:.2f}; for an all black picture: {at_black:.2f}; rise: {rise:.2f}")

# %% [markdown]
# Three answers to *which pixels?* follow; the number above each is what it adds up to, the outline is the
# stroke of the 4. The last one comes from the same method as the one in the middle, asked *compared with
# what?* in another way: its largest numbers lie on pixels that are **black**.

# %% tags=["readme-paths"]
closed = four.clone()
closed[0, 0, 6:8, 3:20] = 1  # the same 4 with a bar across its top
answers = [
    saliency(cnn, four, 4),
    paths.integrated_gradients(cnn, four, 4),
    paths.integrated_gradients(cnn, four, 4, baseline=closed),
]
names = ["gradient", "from black", "from a closed 4"]
plots.compare(
    [answer[0] for answer in answers],
    titles=[f"{name}: {answer.sum().item():.1f}" for name, answer in zip(names, answers)],
    shared=False,
    mask=four[0, 0] > 0.5,
    title="Where the 4 comes from depends on what you compare it with",
)

# %% [markdown]
# ## 1. The slope at the top is not the climb
#
# Begin with a network that you can compute in your head: one input, one ReLU.
#
# $$f(x) = 1 - \mathrm{ReLU}(1 - x)$$
#
# It rises with $x$ up to $x = 1$ and is flat from there on. You met its twin in [[saliency]]. A helper
# makes layers with the numbers you want:


# %%
def dense(weight, bias=None):
    """A linear layer with these numbers; weight has one row per output."""
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    layer.weight.data = torch.tensor(weight)
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


flat_top = nn.Sequential(dense([[-1.0]], [1.0]), nn.ReLU(), dense([[-1.0]], [1.0]))

# %%
# NBVAL_CHECK_OUTPUT
two = torch.tensor([[2.0]])
print("score at 0:", flat_top(0 * two).item())
print("score at 2:", flat_top(two).item())
print("slope at 2:", saliency(flat_top, two, 0).item() + 0)  # + 0 writes -0 as 0

# %% [markdown]
# The input went from 0 to 2, and the score from 0 to 1. Nothing else can have caused that, and the
# gradient says 0. A method that does so violates the axiom of **sensitivity**: *if input and baseline
# differ in one feature, and the scores differ, that feature must get something.*
#
# The slope is 0 because you ask at the top of the hill. So walk up, and ask on the way. The place
# $\alpha$ on the path runs from 0 (the **baseline**, here 0) to 1 (the input):

# %%
alphas = (torch.arange(20) + 0.5) / 20  # the middles of 20 steps
path = alphas[:, None] * two  # (20, 1)
slopes = saliency(flat_top, path, 0)[:, 0]
plots.curve(
    alphas,
    {"score": flat_top(path)[:, 0].detach(), "slope": slopes},
    title="All the climbing is done in the first half",
    xlabel="alpha, the place on the path from 0 to 2",
    ylabel="score; slope",
)

# %% [markdown]
# Each of the 20 steps is 0.1 long, and climbs its slope times 0.1. Add them up:

# %%
# NBVAL_CHECK_OUTPUT
print(f"sum of slope x step: {(slopes * 0.1).sum().item():.3f}")
print(f"the same: mean slope {slopes.mean().item():.2f} x way {two.item():.0f}")

# %% [markdown]
# There is the whole rise of 1. That is **integrated gradients**: the mean gradient along the path, times
# the way gone.
#
# $$A_i = (x_i - b_i) \int_0^1 \frac{\partial f}{\partial x_i}\big(b + \alpha (x - b)\big)\, d\alpha
#   \approx (x_i - b_i) \, \frac1n \sum_{k=1}^{n} \frac{\partial f}{\partial x_i}
#   \big(b + \alpha_k (x - b)\big)$$
#
# $x$ is the input, $b$ the baseline, $i$ counts pixels, $n$ is the number of steps and
# $\alpha_k = (k - \frac12)/n$ the middle of step $k$. $A_i$ is in units of the score. A gradient tells
# how the score changes on a small step, so all steps together tell how it changes on the whole way:
#
# $$\sum_i A_i = f(x) - f(b)$$
#
# This is **completeness**: nothing of the rise is left over, and nothing is invented.
#
# ## 2. On paper
#
# Two inputs that have to come together before anything happens:
#
# $$g(x) = \mathrm{ReLU}(2 x_1 + x_2 - 1), \qquad x = (1, 1), \qquad b = (0, 0)$$
#
# On the path both inputs are $\alpha$, and inside the ReLU stands $3\alpha - 1$. Up to
# $\alpha = \frac13$ the ReLU is off and both slopes are 0. After that they are 2 and 1, for two thirds
# of the way. So
#
# $$A_1 = 1 \cdot 2 \cdot \tfrac23 = \tfrac43, \qquad A_2 = 1 \cdot 1 \cdot \tfrac23 = \tfrac23, \qquad
#   A_1 + A_2 = 2 = g(1, 1) - g(0, 0)$$
#
# The gradient at the end, times the input, gives $2 + 1 = 3$: one more than there is to share.

# %%
gate = nn.Sequential(dense([[2.0, 1.0]], [-1.0]), nn.ReLU())
one_one = torch.ones(1, 2)


def mean_slope(n_steps):
    """Mean gradient (1, 2) at the middles of n steps from (0, 0) to (1, 1)."""
    middles = (torch.arange(n_steps) + 0.5) / n_steps
    return saliency(gate, middles[:, None] * one_one, 0).mean(dim=0, keepdim=True)


# %%
rows = [("input x gradient", input_x_gradient(gate, one_one, 0))]
rows += [(f"integrated, {n} steps", one_one * mean_slope(n)) for n in (3, 50, 300)]
plots.table(
    [(name, *(f"{a:.3f}" for a in A[0]), f"{A.sum():.3f}") for name, A in rows],
    ["method", "first input", "second input", "sum"],
    title="The score rises by 2; paper says 1.333 and 0.667",
)

# %% [markdown]
# With 3 or 300 steps the answer is exact, with 50 it is off by one percent. Look at the slopes: they
# **jump** at $\alpha = \frac13$. 3 and 300 steps have an edge just there. Of 50 middles, 33 lie beyond the
# jump, 66% of them and not two thirds. A ReLU network has thousands of such jumps; keep this in mind for
# section 4.
#
# ## 3. On a digit
#
# The path from black to the 4 is the 4 fading in:

# %%
alphas = (torch.arange(50) + 0.5) / 50
path = black + alphas[:, None, None, None] * (four - black)  # (50, 1, 28, 28)
shown = [0, 12, 24, 37, 49]
plots.images(list(path[shown]), titles=[f"alpha {alphas[k].item():.2f}" for k in shown])

# %% [markdown]
# One backward pass gives the gradients at all 50 places, because no row depends on another:

# %%
leaf = path.clone().requires_grad_()
(gradients,) = torch.autograd.grad(cnn(leaf)[:, 4].sum(), leaf)  # (50, 1, 28, 28)
by_hand = (four - black) * gradients.mean(dim=0)  # (1, 1, 28, 28)
print(f"the map adds up to {by_hand.sum().item():.3f}; the score rose by {rise:.3f}")

# %%
rivals = {
    "gradient": saliency(cnn, four, 4),
    "input x gradient": input_x_gradient(cnn, four, 4),
    "integrated": by_hand,
}
plots.compare(
    [one[0] for one in rivals.values()],
    titles=[f"{name}: {one.sum().item():.2f}" for name, one in rivals.items()],
    shared=False,
    title=f"Only one of them adds up to the rise of {rise:.2f}",
)

# %% [markdown]
# Red pixels raised the score on the way, blue ones lowered it: the foot of the 4, at the lower right,
# counts against it. Input x gradient looks much alike, but its sum means nothing.
#
# The same from `xailab`, and from captum. Each has its own name for taking the middles:

# %%
ours = paths.integrated_gradients(cnn, four, 4, rule="midpoint", n_steps=50)
torch.testing.assert_close(ours, by_hand, rtol=1e-4, atol=1e-6)
peer = captum.attr.IntegratedGradients(cnn)
theirs = peer.attribute(four, target=4, n_steps=50, method="riemann_middle")
torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

# %% [markdown]
# ### Exercise: write it for a batch (code, 12 minutes)
#
# Every row of `x` has its own target, and its own path from the one `baseline` (a tensor that broadcasts
# to `x`). Take the middles of `n_steps` equal steps. The result is detached, and `x` stays as it was.
# `hint("integrated_gradients.midpoint")` helps in up to three steps.


# %% tags=["exercise"]
def my_integrated_gradients(model, x, targets, baseline, n_steps):
    """Integrated gradients of each row's own target: x (N, ...), targets (N,) -> (N, ...)."""
    ### BEGIN SOLUTION
    rows = torch.arange(len(x))
    total = torch.zeros_like(x)
    for k in range(n_steps):
        place = baseline + (k + 0.5) / n_steps * (x - baseline)
        leaf = place.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf)[rows, targets].sum(), leaf)
        total += gradient
    return (x - baseline) * total / n_steps
    ### END SOLUTION


# %%
check("integrated_gradients.midpoint", my_integrated_gradients)

# %% [markdown]
# ### Walk it yourself
#
# Move alpha with the arrow keys. The left panel is what the network sees, the middle one the gradient
# there, the right one the map added up so far. Watch three things: how evenly the 4 climbs from black; where
# the gradient changes (in the first few steps, then hardly); and what the 0 does when the path begins at
# **white**. Its score *falls*, so the map adds up to less than nothing: an all white picture has a higher
# logit of 0 than the 0 has.

# %%
chosen = [int((labels == digit).nonzero()[0]) for digit in (4, 0, 7)]
widgets.path_slider(cnn, images[chosen], labels[chosen], names=["a 4", "a 0", "a 7"])

# %% [markdown]
# ## 4. How many steps?
#
# You need not guess. Completeness gives you one number that tells: the **gap** between what the map
# adds up to and what the score rose by. captum calls it the convergence delta. Ten digits, four ways to
# place the points, more and more of them:

# %%
ten, own = images[::100], labels[::100]  # one of each class
with torch.no_grad():
    rises = (cnn(ten) - cnn(black)).gather(1, own[:, None])[:, 0]  # (10,)


def gaps(rule, n_steps):
    """Size of the completeness gap of each digit, as a share of its rise: (10,)."""
    options = {"rule": rule, "n_steps": n_steps, "batch_size": 32}
    A = paths.integrated_gradients(cnn, ten, own, **options)
    return (paths.completeness_gap(cnn, ten, own, A) / rises).abs()


# %%
counts = [4, 8, 16, 32, 64]
rules = ["left", "trapezoid", "midpoint", "gauss-legendre"]
found = {rule: torch.stack([gaps(rule, n) for n in counts]) for rule in rules}  # (5, 10) each
plots.curve(
    counts,
    {rule: gap.median(dim=1).values for rule, gap in found.items()},
    title="Well placed points save half of the steps",
    xlabel="steps",
    ylabel="gap / rise, median of ten digits",
    log=True,
)

# %% [markdown]
# The left ends of the steps lean to one side, and gain least. Gauss-Legendre (the default in `xailab`)
# spaces and weighs its points so that polynomials come out exact; here it gets by with half as many as
# the middles. On a smooth function it wins more. For $x_1 x_2 x_3$ at $(1, 2, 3)$, two points will do:


# %%
def product(x):
    return x.prod(dim=1)


numbers = torch.tensor([[1.0, 2.0, 3.0]])
for rule in rules:
    A = paths.integrated_gradients(product, numbers, None, rule=rule, n_steps=2)
    gap = paths.completeness_gap(product, numbers, None, A).item()
    print(f"{rule:15} 2 points: gap {abs(gap):.3f} of 6")

# %% [markdown]
# On the digit network the slope along the path is a staircase, as on paper in section 2, and no rule can
# guess where the edges are. The median hides the worst of the ten. Show it too:

# %%
worst = found["gauss-legendre"].max(dim=1)
for n, gap, who in zip(counts, worst.values, worst.indices):
    print(f"{n:3} steps: worst gap {gap.item():.1%} of the rise (a {own[who].item()})")

# %% [markdown]
# So there is no number of steps that is always enough. Ask for the gap, and take more steps until it
# is small beside the differences that you want to read off the map.

# %%
quiz("integrated_gradients.q_gap")

# %% [markdown]
# ## 5. On a photo
#
# EfficientNet sees the cat, and its numbers are brightness minus 127, divided by 128. So the baseline 0 is
# not black: it is **middle gray**.

# %%
net = models.pretrained("efficientnet_lite0")
cat = net.preprocess(skimage.data.chelsea())  # (1, 3, 224, 224)
gray, TIGER_CAT = torch.zeros_like(cat), 282
photo = net.picture(cat)[0]
levels = [0.0, 0.05, 0.1, 0.5, 1.0]
faded = [net.picture(level * cat)[0] for level in levels]
plots.images(faded, titles=[f"alpha {level:.2f}" for level in levels])

# %% [markdown]
# ### Predict, then run (2 minutes)
#
# For gray, the logit of *tiger cat* is about 0, for the photo about 9. You fade the photo in. Which
# share of the rise has happened **after the first tenth of the way**, in the third picture? Write a number
# from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
first_tenth = 0.2
### END SOLUTION

# %%
predict("integrated_gradients.first_tenth", first_tenth)

# %%
alphas = (torch.arange(40) + 0.5) / 40
scores, slopes, cat_map = [], [], torch.zeros_like(cat)
for alpha in alphas:
    leaf = (alpha * cat).requires_grad_()
    logit = net.model(leaf)[0, TIGER_CAT]
    (gradient,) = torch.autograd.grad(logit, leaf)
    cat_map += cat * gradient / 40
    scores.append(logit.item())
    slopes.append((cat * gradient).sum().item())

# %%
with torch.no_grad():
    ends = net.model(torch.cat([gray, 0.1 * cat, cat]))[:, TIGER_CAT].tolist()
cat_rise = ends[2] - ends[0]
reveal("integrated_gradients.first_tenth", round((ends[1] - ends[0]) / cat_rise, 2))

# %%
plots.curve(
    alphas,
    {"logit": scores, "slope / 10": np.array(slopes) / 10},
    title="The cat is recognized almost at once",
    xlabel="alpha, from gray to the photo",
    ylabel="logit of tiger cat; slope along the path",
)

# %% [markdown]
# A cat at a tenth of its contrast, which you can hardly see, is enough. All that matters happens in that
# short piece, where the slope shoots up. Only four of the 40 steps fall there. The price:

# %%
added = cat_map.sum().item()
print(f"the logit rose by {cat_rise:.2f}; 40 equal steps add up to {added:.2f}")
print(f"gap: {abs(added - cat_rise) / cat_rise:.0%} of the rise")

# %% [markdown]
# 40 steps were plenty for a digit; here they leave a large gap. Would another baseline be easier? Blur the
# cat until the network sees none, and try three numbers of points:

# %%
blurred = gaussian_blur(cat, [61, 61], [15.0, 15.0])
with torch.no_grad():
    blur_rise = ends[2] - net.model(blurred)[0, TIGER_CAT].item()
from_blur = {}
for n in (12, 16, 20):
    from_blur[n] = paths.integrated_gradients(
        net.model, cat, TIGER_CAT, baseline=blurred, n_steps=n
    )
    part = from_blur[n].sum().item() / blur_rise
    print(f"{n} points add up to {part:.0%} of the rise of {blur_rise:.2f}")

# %% [markdown]
# Do not be taken in by the last line. Sums that jump about like this have not settled, and one that
# comes out right is luck. Trust a gap that **stays** small when you double the steps. Sundararajan, Taly and
# Yan (2017) needed 20 to 300 of them. Section 8 has a method that adds up after one pass.

# %%
plots.compare(
    [one.abs().sum(dim=1) for one in (cat_map, from_blur[20])],
    over=photo,
    titles=["from gray", "from blur"],
    title="One cat, one network, two baselines",
    label="|attribution| (logits)",
)

# %% [markdown]
# The two maps explain two different rises. *From gray* asks what all the colors and edges did, *from
# blur* only what the fine detail did. Apart from their gaps, neither is wrong. A map without its baseline
# is half a sentence.
#
# ## 6. Compared with what?
#
# On to the choice itself, where you can check it. What makes our 4 a 4, and not a 9? Paint two rows of
# pixels white, and see:

# %%
for name, picture in {"the 4": four, "closed at the top": closed}.items():
    logits = cnn(picture)[0]
    print(f"{name:18} says {logits.argmax().item()}; 4: {logits[4]:6.2f}, 9: {logits[9]:6.2f}")

# %%
top_gap = (closed > four) & (four == 0)  # (1, 1, 28, 28): black pixels that were painted
plots.images([four[0], closed[0]], titles=["a 4", "a 9, says the network"])

# %% [markdown]
# So the **empty gap** at the top decides between 4 and 9. A good answer to *why 4 and not 9* has to point
# there. Put the question as a score of its own, the difference of the two logits:


# %%
def four_not_nine(x):  # (N, 1, 28, 28) -> (N,)
    logits = cnn(x)
    return logits[:, 4] - logits[:, 9]


# %% [markdown]
# ### Predict, then run (2 minutes)
#
# Take black as the baseline. Which share of the map (of the sum of its absolute values) lies on pixels
# that are **black** in the 4? A number from 0 to 1. Look at the formula first.

# %% tags=["exercise"]
### BEGIN SOLUTION
black_share = 0.0
### END SOLUTION

# %%
predict("integrated_gradients.black_share", black_share)

# %%
baselines = {
    "black": black,
    "white": torch.ones_like(four),
    "blurred": gaussian_blur(four, [15, 15], [4.0, 4.0]),
    "mean digit": images.mean(dim=0, keepdim=True),
    "closed 4": closed,
}
asked = partial(paths.integrated_gradients, four_not_nine, four, None, n_steps=100)
maps = {name: asked(baseline=baseline) for name, baseline in baselines.items()}

# %%
dark = four == 0
share = {name: (A.abs()[dark].sum() / A.abs().sum()).item() for name, A in maps.items()}
reveal("integrated_gradients.black_share", share["black"])

# %%
plots.table(
    [
        (name, f"{A.sum():.1f}", f"{A[top_gap].sum():.1f}", f"{share[name]:.0%}")
        for name, A in maps.items()
    ],
    ["baseline", "sum of the map", "of it on the gap", "share on black pixels"],
    title="4 or 9: a black baseline gives the gap nothing",
)

# %% [markdown]
# The factor $x_i - b_i$ is 0 wherever the input equals the baseline. **A black baseline is blind to
# black pixels**: not because the network ignores them, but because you said that black is nothing. The
# closed 4 puts nearly everything on the gap, by construction: only the painted pixels differ. What it
# tells you is the amount, some 20 logits. White sees black pixels, but spends most on the
# empty rim around the 4.

# %%
plots.compare(
    [A[0] for A in maps.values()],
    titles=list(maps),
    shared=False,
    mask=top_gap[0, 0],
    title="One network, one 4, five baselines: the gap is framed",
)

# %% [markdown]
# ## 7. Many baselines at once: expected gradients
#
# The mean digit did best among those that know nothing of the answer. But it is a gray cloud, and no
# digit looks like it. Why not compare with many real digits, and average the maps? To save work, take
# just one random point on each path:
#
# $$A = \frac1n \sum_{k=1}^n (x - b_k)\, \frac{\partial f}{\partial x}\big(b_k + \alpha_k (x - b_k)\big)$$
#
# $b_k$ is a random digit out of a **background**, $\alpha_k$ a random place on the path from it.

# %%
background = images[50::100]  # (10, 1, 28, 28): one of each class
generator = torch.Generator().manual_seed(7)
b = background[torch.randint(len(background), (400,), generator=generator)]  # (400, 1, 28, 28)
alpha = torch.rand(400, 1, 1, 1, generator=generator)
rough = ((four - b) * saliency(four_not_nine, b + alpha * (four - b), None)).mean(dim=0)

# %%
expected = paths.expected_gradients(four_not_nine, four, None, background=background, n_samples=400)
with torch.no_grad():
    want = (four_not_nine(four) - four_not_nine(background).mean()).item()
print(f"by hand {rough.sum().item():.1f}, xailab {expected.sum().item():.1f}, exact {want:.1f}")

# %% [markdown]
# Both sums scatter around the exact one, the score minus the background's mean score. Each draw is
# rough, so this is a method whose gap shrinks slowly. The draws differ, the maps hardly:

# %%
together = np.corrcoef(rough.flatten(), expected.flatten())[0, 1]
print(f"correlation of the two maps: {together:.2f}")
plots.heatmap(
    expected[0],
    title=f"Against ten real digits, the gap gets {expected[top_gap].sum().item():.1f}",
    label="logit of 4 minus logit of 9",
    mask=top_gap[0, 0],
)

# %% [markdown]
# The gap gets about as much as from the mean digit. What you have gained is another thing: the pictures
# compared with are real ones, and nobody had to invent a *nothing*.
#
# ## 8. DeepLIFT: the difference in one pass
#
# All this walking costs a backward pass a step. DeepLIFT gets an answer that adds up out of **one**, with
# an idea you can do on paper. Run the network twice, on the input and on the baseline. Wherever an
# activation bends, replace its slope by that of the **secant**, the straight line between the two (this is
# its *rescale* rule):
#
# $$m = \frac{\mathrm{ReLU}(z) - \mathrm{ReLU}(z^b)}{z - z^b}$$
#
# Take the gate of section 2. Its ReLU gets $z^b = -1$ for the baseline and $z = 2$ for the input. It gives
# 0 and 2, so $m = \frac{2 - 0}{2 - (-1)} = \frac23$. The linear layer passes its weights on, 2 and 1:
# $A = (\frac43, \frac23)$.

# %%
z, z_b = gate[0](one_one), gate[0](0 * one_one)  # 2 and -1
m = (z.relu() - z_b.relu()) / (z - z_b)
lifted = (one_one - 0) * m * gate[0].weight  # (1, 2)
torch.testing.assert_close(lifted, relevance.deep_lift(gate, one_one, 0))
print(lifted.detach().numpy().round(3))

# %% [markdown]
# The same as integrated gradients: with one ReLU, the mean slope on the path *is* the slope of that line.
# With more layers the two part (section 10). On the digit, with no steps to choose, it adds up:

# %%
lift = relevance.deep_lift(cnn, four, 4)
print(f"DeepLIFT adds up to {lift.sum().item():.4f}; the score rose by {rise:.4f}")
together = np.corrcoef(lift.flatten(), by_hand.detach().flatten())[0, 1]
print(f"correlation with integrated gradients: {together:.3f}")

# %% [markdown]
# And on the photo, where 40 steps left a gap? The network is fifty layers deep, and still one pass is
# enough:

# %%
cat_lift = relevance.deep_lift(net.model, cat, TIGER_CAT)
print(f"DeepLIFT adds up to {cat_lift.sum().item():.4f}; the score rose by {cat_rise:.4f}")

# %% [markdown]
# captum has DeepLIFT too. On a network whose pooling takes averages, the two agree (maxima wait for
# section 12):


# %%
def captums_deep_lift(model, x, baseline, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its hooks
        found = captum.attr.DeepLift(model).attribute(x, baseline, target=target)
    return found.detach()


averaging = copy.deepcopy(cnn)
averaging.pool1 = averaging.pool2 = nn.AvgPool2d(2)
ours = relevance.deep_lift(averaging, four, 4)
torch.testing.assert_close(ours, captums_deep_lift(averaging, four, black, 4), rtol=1e-3, atol=1e-4)

# %% [markdown]
# Average DeepLIFT over a background, and it is called **Deep SHAP** (`relevance.deep_shap`). It needs
# one pass a baseline and adds up exactly, where expected gradients scatters.
#
# ## 9. LRP: hand the score down
#
# **Layer-wise relevance propagation** needs no baseline. It begins at the top with the whole score, and
# each layer hands on what it got, in proportion. Unit $j$ was fed by its inputs with
# $z_{ij} = x_i w_{ij}$; what it got from above, $R_j$, is shared in these proportions ($i'$ runs over
# all inputs of the unit):
#
# $$R_i = \sum_j \frac{z_{ij}}{\sum_{i'} z_{i'j}} R_j$$
#
# Here is a network for paper: $x = (2, 1)$, two hidden units, score 6, no biases.

# %%
small = nn.Sequential(dense([[1.0, -1.0], [1.0, 2.0]]), nn.ReLU(), dense([[2.0, 1.0]]))
x = torch.tensor([[2.0, 1.0]])
hidden = small[:2](x)  # (1, 2): 2 - 1 = 1 and 2 + 2 = 4
plots.network(
    [2, 2, 1],
    node_values=[x[0].tolist(), hidden[0].tolist(), small(x)[0].tolist()],
    edge_values=[small[0].weight.T.tolist(), small[2].weight.T.tolist()],
    layer_names=["input", "hidden", "score"],
    title="6 points of score to hand down",
)

# %% [markdown]
# The top: $1 \cdot 2 + 4 \cdot 1 = 6$, so the hidden units get 2 and 4. A ReLU hands on
# all it got. The first hidden unit was fed $2 \cdot 1 = 2$ and $1 \cdot (-1) = -1$, together 1: of its 2,
# the inputs get $\frac21 \cdot 2 = 4$ and $\frac{-1}{1} \cdot 2 = -2$. The second was fed $2$ and $2$, so each input gets half of its 4. In total:
# $(6, 0)$.

# %%
z = x.T * small[0].weight.T  # (2 inputs, 2 hidden): what each input feeds to each unit
R_hidden = hidden * small[2].weight  # (1, 2): 2 and 4
R = (z / z.sum(dim=0) * R_hidden).sum(dim=1)  # (2,)
print("products ", z.tolist())
print("hidden   ", R_hidden[0].tolist(), " sum", R_hidden.sum().item())
print("input    ", R.tolist(), " sum", R.sum().item())

# %% [markdown]
# 6 at the top, 6 in the middle, 6 at the bottom: relevance is **conserved** layer by layer. But the
# second input gets 0: what it did against the first unit and for the second cancels. And if the products
# of a unit add up to nearly 0, the shares become huge. The rules of LRP differ in how they tame this:
#
# | rule | shares |
# |---|---|
# | epsilon | as above, the sum moved away from 0 by a little $\varepsilon$ |
# | gamma | with $w + \gamma \max(w, 0)$ in place of $w$: positive weights count more |
# | z-plus | only positive products share |
#
# With $\gamma = 1$ the first unit is fed $2 \cdot 2 = 4$ and $-1$, so its 2 becomes $\frac83$ and
# $-\frac23$. With z-plus the first input gets all of it.

# %%
options = {
    "epsilon": {"rule": "epsilon"},
    "gamma = 1": {"rule": "gamma", "gamma": 1.0},
    "z-plus": {"rule": "z_plus"},
}
found = {name: relevance.lrp(small, x, 0, **rule) for name, rule in options.items()}
torch.testing.assert_close(found["epsilon"][0], R.detach(), rtol=1e-4, atol=1e-4)
plots.table(
    [(name, *(f"{r:.2f}" for r in A[0]), f"{A.sum():.2f}") for name, A in found.items()],
    ["rule", "first input", "second input", "sum"],
    title="Three rules, three answers, one sum",
)

# %% [markdown]
# ### Exercise: one step of LRP (code, 10 minutes)
#
# Write the epsilon rule for one linear layer with a bias: relevance of the outputs in, relevance of the
# inputs out. The denominator is everything that fed the unit, **bias included**, moved away from 0 by
# epsilon: $z_j + \varepsilon$ where $z_j \ge 0$, $z_j - \varepsilon$ elsewhere.


# %% tags=["exercise"]
def lrp_step(x, weight, bias, relevance_out, epsilon):
    """x (N, I), weight (J, I), bias (J,), relevance_out (N, J) -> relevance of x (N, I)."""
    ### BEGIN SOLUTION
    z = x @ weight.T + bias  # (N, J)
    away = torch.where(z >= 0, epsilon, -epsilon)
    return x * ((relevance_out / (z + away)) @ weight)
    ### END SOLUTION


# %%
check("integrated_gradients.lrp_step", lrp_step)

# %% [markdown]
# ### Layer by layer through the digit network
#
# `layer_relevance` tells what arrives at every layer. Take first a copy of the network whose biases are
# set to 0 (another function, with another score), then the network as it is:

# %%
unbiased = copy.deepcopy(cnn)
for layer in (unbiased.conv1, unbiased.conv2, unbiased.conv3, unbiased.fc):
    nn.init.zeros_(layer.bias)

LAYERS = ["fc", "gap", "relu3", "pool2", "relu2", "pool1", "relu1"]
RULES = ["epsilon", "gamma", "z_plus"]


def handed_down(model, rule):
    """Sum of the relevance at every layer, from the score to the pixels."""
    found = relevance.layer_relevance(model, four, 4, layers=LAYERS, rule=rule)
    found["pixels"] = relevance.lrp(model, four, 4, rule=rule)
    return {name: one.sum().item() for name, one in found.items()}


# %%
for rule in RULES:
    sums = np.array(list(handed_down(unbiased, rule).values()))
    np.testing.assert_allclose(sums, sums[0], rtol=1e-4)
    print(f"{rule:8} without biases: {sums.min():.3f} to {sums.max():.3f} in all layers")

# %%
sums = {rule: handed_down(cnn, rule) for rule in RULES}
plots.table(
    [(name, *(f"{sums[rule][name]:.2f}" for rule in RULES)) for name in sums["epsilon"]],
    ["layer", *RULES],
    title="With biases, convolutions keep a part or give more than they got",
)

# %% [markdown]
# Without biases nothing is lost, in any layer, by any rule. With biases, sums change wherever a layer
# with a bias is passed, because the bias gets its share too and has no pixel to hand it to. Check one by
# hand: what the last layer kept is exactly its bias (a negative one: a little more went out than came in).

# %%
kept = sums["epsilon"]["fc"] - sums["epsilon"]["gap"]
print(f"kept by the last layer {kept:.5f}; its bias for class 4: {cnn.fc.bias[4].item():.5f}")

# %%
plots.compare(
    [relevance.lrp(cnn, four, 4, rule=rule)[0] for rule in RULES],
    titles=["epsilon", "gamma", "z-plus"],
    title="Three rules: from pixels for and against to all for",
    label="relevance (logits)",
)

# %% [markdown]
# Look for blue. The epsilon map has evidence against the 4, the gamma map less, the z-plus map none at
# all: where only positive products share, nothing negative can come out. That map is the
# calmest, and it can no longer say *against*.
#
# captum agrees on the epsilon rule. Its gamma rule raises the weights and not the biases (ours both, as
# if the bias were one more input), so compare that one without biases:


# %%
def captums_lrp(model, rule):
    own = copy.deepcopy(model)  # it writes into the layers
    for layer in (own.conv1, own.conv2, own.conv3, own.fc):
        layer.rule = rule()
    leaf = four.clone().requires_grad_()
    return captum.attr.LRP(own).attribute(leaf, target=4).detach()


theirs = captums_lrp(cnn, partial(EpsilonRule, epsilon=1e-6))
torch.testing.assert_close(relevance.lrp(cnn, four, 4), theirs, rtol=1e-3, atol=1e-4)
theirs = captums_lrp(unbiased, partial(GammaRule, gamma=0.25))
ours = relevance.lrp(unbiased, four, 4, rule="gamma")
torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)

# %% [markdown]
# ## 10. Two networks, one function
#
# Here are two networks with two inputs. The first takes 1 off early, the second takes it off late:
#
# $$\mathrm{early}(x) = \mathrm{ReLU}\big(\mathrm{ReLU}(x_1 - 1) - \mathrm{ReLU}(x_2)\big) \qquad
#   \mathrm{late}(x) = \mathrm{ReLU}\big(\mathrm{ReLU}(x_1) - 1 - \mathrm{ReLU}(x_2)\big)$$

# %%
same = [[1.0, 0.0], [0.0, 1.0]]
early = nn.Sequential(dense(same, [-1.0, 0.0]), nn.ReLU(), dense([[1.0, -1.0]]), nn.ReLU())
late = nn.Sequential(dense(same), nn.ReLU(), dense([[1.0, -1.0]], [-1.0]), nn.ReLU())
many = torch.rand(10_000, 2, generator=generator) * 20 - 10
print("largest difference on 10,000 inputs:", (early(many) - late(many)).abs().max().item())

# %% [markdown]
# They are the same function: what goes in and what comes out cannot tell you which one you have. So an
# explanation of the *function* must not depend on it either. That is the axiom of **implementation
# invariance**. Ask at $x = (3, 1)$, where the score is 1:

# %%
point = torch.tensor([[3.0, 1.0]])
contenders = {
    "input x gradient": input_x_gradient,
    "integrated gradients": partial(paths.integrated_gradients, rule="midpoint", n_steps=100),
    "DeepLIFT": relevance.deep_lift,
    "LRP epsilon": relevance.lrp,
    "LRP gamma": partial(relevance.lrp, rule="gamma"),
}


def numbers_of(A):
    return ", ".join(f"{a:.2f}" for a in A[0].tolist())


# %%
answers = {
    name: [explain(model, point, 0) for model in (early, late)]
    for name, explain in contenders.items()
}
plots.table(
    [(name, *map(numbers_of, pair)) for name, pair in answers.items()],
    ["method", "early", "late"],
    title="The same function, at the same point",
)

# %% [markdown]
# DeepLIFT gives $(2, -1)$ and $(1.5, -0.5)$. Both add up to 1, and both follow its rule: its secants depend
# on where the layers bend. Do the first on paper: the first ReLU goes from $-1$ to $2$ and gives $0$ to
# $2$, so $m = \frac23$; the last gets $2 - 1 = 1$ after $0$, so $m = 1$; $3 \cdot \frac23 \cdot 1 = 2$.
# LRP with the gamma rule differs too; LRP with the epsilon rule does not, for a reason that section 12
# brings to light.
#
# Now put all three axioms into code, and test all five methods:

# %%
rows = []
for name, explain in contenders.items():
    on_early, on_late = answers[name]
    sensitive = explain(flat_top, two, 0).abs().item() > 1e-3
    complete = all(abs(A.sum().item() - 1) < 1e-3 for A in (on_early, on_late))
    invariant = torch.allclose(on_early, on_late, atol=1e-3)
    verdicts = ["yes" if ok else "no" for ok in (sensitive, complete, invariant)]
    rows.append((name, *verdicts))
plots.table(
    rows,
    ["method", "sensitivity", "completeness", "implementation invariance"],
    title="Which axioms hold, tested on three small networks",
)

# %% [markdown]
# A *no* here is a proof: one counterexample is enough. A *yes* is only as good as the test. For integrated
# gradients the three are theorems (Sundararajan, Taly and Yan, 2017). Note what they do **not** say:
# none of them tells you which baseline is right, or that the map shows what a person would call the
# reason.

# %%
quiz("integrated_gradients.q_invariance")

# %% [markdown]
# ## 11. Known answer: the mark
#
# The cheating network of the last lessons says 8 because of a white mark of 4 x 4 pixels. On these digits we
# know that the mark decides. All methods of this lesson, beside the plain gradient; the last two compare
# with the ten ordinary digits of section 7 instead of black:


# %%
def lrp_z_plus(model, x, target):
    return relevance.lrp(model, x, target, rule="z_plus")


alone = ["saliency", "integrated_gradients", "deep_lift", "lrp", lrp_z_plus]
beside = ["expected_gradients", "deep_shap"]
options = {"n_steps": 20, "n_samples": 10, "background": background, "batch_size": 25}
table = score([*alone, *beside], "marked_digits", limit=100, **options)
board = record(table)

# %%
found = table.set_index("method")
assert found["pointing"][beside].min() > 1.5 * found["pointing"].drop(beside).max()
plots.scoreboard(
    found[["pointing", "mass"]],
    title="The background matters more than the method",
    xlabel="score on 100 marked digits",
    chance=found["chance"].iloc[0],
)

# %% [markdown]
# Compare `deep_lift` with `deep_shap`. It is the same rule, and it points at the mark in about half of the
# digits when compared with black, and in all of them when compared with ordinary digits. Against *black*,
# every stroke of the digit is news and gets its share of the credit. Against *other digits*, strokes are
# nothing special and the mark is. (None of the ten has a mark. A background full of marks would be blind
# to it, as black is to black.) And z-plus, the calm map, is worse than the plain gradient at pointing: it
# spreads the score over everything bright. See one:

# %%
marks = marked_digits_known_answer()
zero, mark = marks.x[:1], marks.truth[0]
compared = {
    "integrated, black": paths.integrated_gradients(marks.model, zero, 8),
    "LRP z-plus": lrp_z_plus(marks.model, zero, 8),
    "Deep SHAP, digits": relevance.deep_shap(marks.model, zero, 8, background=background),
}
plots.compare(
    [one[0] for one in compared.values()],
    titles=list(compared),
    shared=False,
    mask=mark,
    title="A zero that is called 8 because of the mark",
)

# %% [markdown]
# ## 12. When it lies
#
# ### A long way to an old answer
#
# LRP with the epsilon rule hands the score down layer by layer with great care. Compare it with the
# simplest method of [[saliency]]:

# %%
careful = relevance.lrp(cnn, four, 4)
simple = input_x_gradient(cnn, four, 4)
print(f"largest number in the map:  {careful.abs().max().item():.4f}")
print(f"largest difference of both: {(careful - simple).abs().max().item():.6f}")

# %% [markdown]
# It **is** input x gradient (shown by Shrikumar and others, 2016, and Ancona and others, 2018). Multiply out the
# rule: a layer hands down $x_i \sum_j w_{ij} R_j / z_j$. If you call $R_j / z_j$ the signal, each layer
# multiplies the signal by its weights and each ReLU that is on lets it pass: that is backpropagation. The
# $x_i$ in front stays only at the bottom, since it cancels with the $z_j$ of the layer below. So this map has
# every fault of input x gradient. That is why the epsilon rule passed the invariance test, and failed the
# other two. Other rules, or other rules in lower layers (`per_layer`), give something new.
#
# ### The factor draws the picture
#
# Integrated gradients multiplies by $x - b$. With a black baseline that is the picture itself. Then how
# much of the map is the network? Ask a network with **random weights**, which knows nothing:

# %%
nobody = type(cnn)().eval()
fake = paths.integrated_gradients(nobody, four, 4)
without = [
    paths.integrated_gradients(model, four, 4, multiply_by_inputs=False) for model in (cnn, nobody)
]
plots.compare(
    [one[0] for one in (by_hand, fake, *without)],
    titles=["trained", "random", "trained, no factor", "random, no factor"],
    shared=False,
    title="With the factor, even a network that knows nothing draws a 4",
)

# %% [markdown]
# The second map shows a 4, drawn by a network that has never seen a digit. A map that looks like the object
# is no evidence that the network recognized it. [[sanity]] makes a test out of this.
#
# ### One library's answer is not the truth
#
# Two networks for a pencil. The first is $f(x) = 3x$ at $x = 1$: the slope is 3 everywhere, so integrated
# gradients must be 3, whatever the rule.

# %%
triple, one = dense([[3.0]]), torch.ones(1, 1)
peer = captum.attr.IntegratedGradients(triple)
rows = []
for n in (5, 20, 50):
    theirs = peer.attribute(one, target=0, n_steps=n, method="riemann_trapezoid").item()
    ours = paths.integrated_gradients(triple, one, 0, n_steps=n, rule="trapezoid").item()
    rows.append((n, f"{ours:.3f}", f"{theirs:.3f}", f"{theirs / 3:.2f}"))
plots.table(
    rows,
    ["steps", "xailab", f"captum {captum.__version__}", "captum / 3"],
    title="Trapezoid rule on 3x: the answer is 3",
)

# %% [markdown]
# captum's trapezoid weights add up to $\frac{n-1}{n}$ and not to 1, so every map comes out too small by that
# factor. Nothing is wrong with its middles: they agreed with yours in section 3.
#
# The second network takes maxima of neighbors, in windows that overlap, and adds them up:
# $\max(x_1, x_2) + \max(x_2, x_3)$. For $(0, 2, 0)$ that is 4, for the baseline $(0, 0, 0)$ it is 0. All of the
# 4 is due to the middle.

# %%
neighbors = nn.Sequential(nn.MaxPool1d(2, stride=1), nn.Flatten(), dense([[1.0, 1.0]]))
x = torch.tensor([[[0.0, 2.0, 0.0]]])
print("score  ", neighbors(x).item())
print("xailab ", relevance.deep_lift(neighbors, x, 0)[0, 0].tolist())
print("captum ", captums_deep_lift(neighbors, x, torch.zeros_like(x), 0)[0, 0].tolist())

# %% [markdown]
# captum loses half: both windows have the same winner, and it keeps only one of their shares. A check
# that you can run on any network and any library finds this: does the map add up? Ask it each
# time.
#
# ### Exercise: a claim from a report (criticize, 8 minutes)
#
# > *"We explain each refusal of a loan by integrated gradients (20 steps, baseline 0 in the standardized
# > table). The method satisfies the axioms, so the explanations are correct. The attributions add up to
# > 92% of the change in score; the rest is rounding. The applicant's income received an attribution of 0,
# > which proves that income was not used."*
#
# What is wrong with it, and what would you ask for? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
A gap of 8% is no rounding error, it says that 20 steps were too few: take more until the gap is small.
In a standardized table the baseline 0 is the average applicant, and it was never said why that should be
the comparison. An applicant with average income equals the baseline there, so the factor x - b is 0 and the
attribution has to be 0, used or not: the method is blind to it. I would ask for other baselines, for
example a background of accepted applicants, and test whether changing the income changes the score. The
axioms hold for any baseline, and so they cannot make an explanation correct; scores on a model where we
know the answer would say more.
### END SOLUTION
"""

# %%
check("integrated_gradients.report", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - compute integrated gradients by hand, and tell from one number whether you took enough steps
# - choose a baseline, and show what it makes the map blind to
# - hand a score down through a network by DeepLIFT and by three rules of LRP, and check each layer
# - test a method against three axioms, in code
# - catch a library that is wrong, with a network that fits on paper
#
# ## Takeaways
#
# - An attribution is an answer to *compared with what?* The baseline decides what the map can see, and
#   where it equals the input, the map is blind.
# - If a method promises to add up, check that it does. The gap tells you when steps are too few or a
#   library is wrong.
# - Axioms rule methods out; they do not make a map right. On the marked digits the background changed the
#   score more than the method did.
#
# ## Myth refuted
#
# *"One library's answer is the truth."* Section 12: a network of one weight shows that a published
# trapezoid rule loses a part of every map, and one of two windows that a published DeepLIFT loses half.
#
# ## Go further
#
# - Sundararajan, Taly, Yan (2017), *Axiomatic Attribution for Deep Networks*: integrated gradients, the
#   axioms, and the pair of networks of section 10.
# - Shrikumar, Greenside, Kundaje (2017), *Learning Important Features Through Propagating Activation
#   Differences*: DeepLIFT.
# - Bach and others (2015), *On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
#   Relevance Propagation*; Montavon and others (2019), *Layer-Wise Relevance Propagation: An Overview*.
# - Ancona, Ceolini, Öztireli, Gross (2018), *Towards better understanding of gradient-based attribution
#   methods for Deep Neural Networks*: when LRP, DeepLIFT and input x gradient are the same.
# - Sturmfels, Lundberg, Lee (2020), *Visualizing the Impact of Feature Attribution Baselines*.
# - Erion, Janizek, Sturmfels, Lundberg, Lee (2021), *Improving performance of deep learning models with
#   axiomatic attribution priors and expected gradients*.
