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
# # Uncertainty: how sure is it, and may it be?
#
# **Question:** The network says *7, with 99 %*: how often is that right, and what does it say when it knows nothing?
#
# **You will be able to**
# - read margin, entropy and runners-up of a prediction, and show where softmax is not confidence
# - measure calibration by hand, draw it, and mend it with one number
# - split doubt into noise and ignorance, with dropout, an ensemble, Bayesian weights or Laplace
# - compare these on inputs of another kind, and let a network decline to answer
# - give sets of classes with a promised coverage, and say when the promise is void
#
# **You need:** [[training]] and [[saliency]]
#
# **Time:** [[time]]; the cells run in under half a minute · **Difficulty:** 3 of 5

# %%
from functools import partial
from time import perf_counter

import numpy as np
import pyro
import torch
import torch.nn.functional as F
import uncertainty_toolbox as uct
from mapie.classification import SplitConformalClassifier
from matplotlib import pyplot as plt
from scipy.stats import betabinom, binom
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import nn

from xailab import data, models, plots, widgets
from xailab.attribution.saliency import saliency
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.trust import uncertainty as doubt

# %% [markdown]
# Two moons of points, and a network that learned to tell them apart. This is the figure that you will
# build. On the left: where is it unsure? In the middle the part of the doubt that is **noise**: the
# classes overlap there, and no more data would help. On the right the part that is **ignorance**:
# nobody has been there.

# %% tags=["readme-uncertainty"]
torch.manual_seed(0)
moons = data.plane("moons", 300, noise=0.3)
points, colors = torch.as_tensor(moons.X), torch.as_tensor(moons.y)
line = torch.linspace(-6, 6, 60)
grid = torch.cartesian_prod(-line, line).flip(1)  # (3600, 2), from the upper left corner


def surfaces(told, title):
    """Draw a prediction's uncertainties over the grid."""
    parts = {name: getattr(told, name).reshape(60, 60) for name in ("total", *told._fields[2:])}
    return plots.surfaces(parts, points, colors, extent=6, top=np.log(2), title=title)


five_shipped = list(models.moon_nets()[models.MOON_NOISES.index(0.3)].members)
surfaces(doubt.ensemble(five_shipped, grid), "Total doubt = noise (middle) + ignorance (right)")

# %% [markdown]
# ## 1. What the probabilities say
#
# Take a network for digits. It learned from 1,000 digits only, and for long, which makes it as sure of
# itself as networks usually are. Another 1,000 digits are for choosing things (`valid`), and the test is
# 1,000 that nothing has touched.

# %%
digits = data.load("mnist5k")
images = torch.as_tensor(np.asarray(digits.images) / np.float32(255))[:, None]  # (5000, 1, 28, 28)
labels = torch.as_tensor(digits.y)
rows = np.flatnonzero(digits.extra["train"])
test = np.flatnonzero(~digits.extra["train"])
learned, valid, spare = rows[::4], rows[1::4], np.concatenate([rows[2::4], rows[3::4]])
x, y = images[test], labels[test]
five = list(models.digit_committee())
net = five[0]
with torch.no_grad():
    logits = net(x)  # (1000, 10)
probs = logits.double().softmax(dim=1)
print(f"accuracy {(probs.argmax(1) == y).double().mean():.3f}")

# %% [markdown]
# A row of probabilities already explains something. Look at the digit where the first two classes are
# closest:

# %%
best = probs.topk(2).values  # (1000, 2)
margins = best[:, 0] - best[:, 1]
hard = int(margins.argmin())
plots.images([x[hard]], titles=[f"labeled {y[hard]}"], title="The digit with the smallest margin")

# %% [markdown]
# Three numbers sum up such a row: the **margin** (first minus second), the **entropy**
#
# $$H(p) = -\sum_c p_c \log p_c$$
#
# (0 when one class has everything, $\log 10 = 2.3$ when all are alike; the unit of a natural logarithm
# is the *nat*), and the **runners-up**: what else it could be. $p_c$ is the probability of class $c$.

# %%
p = probs[hard]
margin, entropy = margins[hard].item(), -(p * p.log()).sum().item()
told = doubt.rank_classes(probs[hard : hard + 1], k=3)
assert np.isclose(told.margin[0], margin)
assert np.isclose(told.entropy[0], entropy)
print(f"margin {margin:.3f}, entropy {entropy:.3f} nats")
print("; ".join(f"{c}: {p[c]:.2f}" for c in told.classes[0]))

# %% [markdown]
# This is the cheapest explanation of a prediction there is, and often a useful one. It has one flaw: it
# believes the network.
#
# ### Predict, then run (1 minute)
#
# Make 1,000 pictures in which every pixel is a random number, as on a television without a station.
# What share of them will get a probability above .9 for some digit? Write a number from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
share = 0.3
### END SOLUTION

# %%
predict("uncertainty.noise", share)

# %%
generator = torch.Generator().manual_seed(0)
noise = torch.rand(1000, 1, 28, 28, generator=generator)
with torch.no_grad():
    confident = net(noise).softmax(1).max(1).values
reveal("uncertainty.noise", round((confident > 0.9).double().mean().item(), 3))
print(f"above .99: {(confident > 0.99).double().mean():.3f}")

# %% [markdown]
# Softmax has no way to say *none of these*. It compares ten scores, and far from all digits the scores
# are far apart. So a probability says how the ten classes compare; whether the question makes sense, it
# does not say. Keep this in mind for section 4.
#
# ## 2. Calibration: is .9 right in 90 %?
#
# Stay with real digits. Of all answers given with 90 %, are 90 % right? Do it by hand with ten answers,
# sorted into two bins:

# %%
# NBVAL_CHECK_OUTPUT
confidence = np.array([0.55, 0.6, 0.65, 0.7, 0.7, 0.9, 0.92, 0.95, 0.98, 1.0])
right = np.array([1, 0, 1, 0, 1, 1, 0, 1, 0, 1])
for name, here in (("up to .8", confidence <= 0.8), ("above .8", confidence > 0.8)):
    says, does = confidence[here].mean(), right[here].mean()
    print(
        f"{name}: {here.sum()} answers, says {says:.2f}, right {does:.2f}, gap {does - says:+.2f}"
    )

# %% [markdown]
# In the lower bin it says .64 and is right in .60; in the upper one it says .95 and is right in .60. The
# **expected calibration error** (ECE) is the mean gap, each bin weighted by its rows:
#
# $$\text{ECE} = \sum_b \frac{n_b}{N} \left|\text{acc}(b) - \text{conf}(b)\right|
#   = \tfrac{5}{10} \cdot .04 + \tfrac{5}{10} \cdot .35 = .195$$
#
# $n_b$ is the number of the $N$ rows in bin $b$, acc their share of right answers, conf their mean
# confidence.
#
# ### Exercise: the ECE (code, 10 minutes)
#
# Write it for any number of bins of equal width. Mind the confidence of exactly 1, and bins without
# rows. `hint("uncertainty.ece")` helps.


# %% tags=["exercise"]
def ece(confidence, right, n_bins):
    """Expected calibration error of confidence (N,) and right (N,), both arrays."""
    ### BEGIN SOLUTION
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    error = 0.0
    for b in np.unique(bins):
        here = bins == b
        error += here.mean() * abs(right[here].mean() - confidence[here].mean())
    return error
    ### END SOLUTION


# %%
check("uncertainty.ece", ece)

# %% [markdown]
# Now the network, on its 1,000 test digits. `gap` is accuracy minus confidence: negative is
# overconfident.

# %%
table = doubt.reliability_table(probs, y, n_bins=10)
table[table.n > 0].round(3)

# %% [markdown]
# Most answers sit in the last bin, and that bin promises more than it keeps. Now find one number $T$,
# the **temperature**, and divide all logits by it. $T > 1$ pulls the probabilities together. It is chosen
# on the `valid` digits, so that their true classes become as likely as possible. (From here on the ECE has
# 15 bins, as is usual, not the table's ten; its value depends on that.)

# %%
with torch.no_grad():
    valid_logits = net(images[valid])
candidates = np.linspace(0.5, 5, 91)
losses = [F.cross_entropy(valid_logits / T, labels[valid]).item() for T in candidates]
T = doubt.fit_temperature(valid_logits, labels[valid])
assert abs(T - candidates[np.argmin(losses)]) < 0.05

mild = (logits.double() / T).softmax(dim=1)
before, after = (doubt.expected_calibration_error(q, y) for q in (probs, mild))
assert after < 0.7 * before
print(f"T = {T:.2f}, ECE {before:.3f} -> {after:.3f}")

# %%
again = doubt.reliability_table(mild, y, n_bins=10)
figure, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
ax.plot([0.3, 1], [0.3, 1], ":", color="#555555", label="as promised")
for name, one, mark in (("T = 1", table, "o-"), (f"T = {T:.1f}", again, "s--")):
    full = one[one.n >= 10]  # a bin with three rows says nothing
    ax.plot(full.confidence, full.accuracy, mark, label=name)
ax.set_title("Reliability: below the diagonal is overconfident")
ax.set(xlabel="mean confidence of a bin", ylabel="share of right answers")
ax.legend()
words = "Reliability diagram: without a temperature, bins at .76 and .85 are right in half of the cases;"
plots.picture(figure, f"{words} divided by T, bins above .6 lie near the diagonal.")

# %% [markdown]
# Before, the curve lies below the diagonal: the network says .85 and is right in half. The gap of the last
# point is small, but nine answers of ten are there. After, the curve comes close above .6, where again nine
# of ten answers are. Further left a bin holds two or three dozen rows, and wobbles.

# %%
quiz("uncertainty.q_temperature")

# %% [markdown]
# ### When there is nothing to mend
#
# How large an ECE is large? Imagine that the probabilities were exactly true, and draw the labels from
# them: even then the ECE of 1,000 digits is not 0, since shares in bins wobble. Compare with that our
# network, and the digit CNN of the earlier lessons, which learned from 4,000 shifted digits:

# %%
cnn = models.digit_cnn()
with torch.no_grad():
    honest, on_noise = cnn(x).double().softmax(1), cnn(noise).softmax(1).max(1).values
for name, q in (("our network", probs), ("the CNN", honest)):
    drawn_labels = torch.multinomial(q, 100, replacement=True, generator=generator).T  # (100, 1000)
    by_chance = [doubt.expected_calibration_error(q, one) for one in drawn_labels]
    low, high = np.quantile(by_chance, [0.025, 0.975])
    error = doubt.expected_calibration_error(q, y)
    print(f"{name}: ECE {error:.3f}, perfect probabilities {low:.3f} to {high:.3f} (95 %)")
print(f"noise pictures to which the CNN gives above .99: {(on_noise > 0.99).double().mean():.3f}")

# %% [markdown]
# The CNN's ECE is one that perfect probabilities could have, too: there is nothing to mend. And still it
# is sure of a digit in nearly *every* noise picture. **Calibrated** is a statement about digits like those
# that you measured on. It says nothing about inputs of another kind.
#
# ## 3. Where doubt comes from
#
# One answer does not show what the network never learned. Several can: train five networks on the same
# data from different beginnings. Where data settle the answer they agree; where nobody has been, each may
# make up something else. Back to the two moons, live:


# %%
def train(seed):
    """One small network on the moons, all 300 points in every step."""
    torch.manual_seed(seed)
    net = models.mlp([2, 32, 32, 2])
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(150):
        loss = F.cross_entropy(net(points), colors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


moon_five = [train(seed) for seed in range(5)]

# %% [markdown]
# Ask all five about two places: one on the border between the moons, and the one where they differ most.

# %%
with torch.no_grad():
    votes = torch.stack([one(grid).softmax(1) for one in moon_five])  # (5, 3600, 2)
near = grid.norm(dim=1) < 1.5
border = int(torch.where(near, (votes.mean(0)[:, 0] - 0.5).abs(), 1.0).argmin())
far = int(votes[:, :, 0].std(0).argmax())
for name, place in (("border", border), ("far", far)):
    where = ", ".join(f"{v:.1f}" for v in grid[place])
    print(f"{name} ({where}): p(blue) = {votes[:, place, 0].numpy().round(2)}")

# %% [markdown]
# On the border, none of the five is sure. Far away, each is sure, but they contradict each other. Yet the
# **averages** over the five lie near .5 in both places. Two kinds of doubt, and this is how to part them:
#
# $$\underbrace{H\big(\tfrac1S \textstyle\sum_s p_s\big)}_{\text{total}} =
#   \underbrace{\tfrac1S \textstyle\sum_s H(p_s)}_{\text{aleatoric: each one's own doubt}} +
#   \underbrace{I}_{\text{epistemic: what is left, their quarrel}}$$
#
# $p_s$ is what network $s$ of $S$ says, $H$ the entropy.

# %%
for name, place in (("border", border), ("far", far)):
    p = votes[:, place]  # (5, 2)
    total = torch.special.entr(p.mean(0)).sum()  # entr(p) = -p log p
    aleatoric = torch.special.entr(p).sum(1).mean()
    print(f"{name}: total {total:.2f} = noise {aleatoric:.2f} + ignorance {total - aleatoric:.2f}")

# %% [markdown]
# ### Exercise: split the doubt (code, 8 minutes)
#
# Write it for all points at once. The check also asks about networks that are certain, where $0 \log 0$
# has to count as 0 (`scipy.special.entr` knows).


# %% tags=["exercise"]
def split(samples):
    """Total, aleatoric, epistemic, each (N,), of probabilities (S, N, K), an array."""
    ### BEGIN SOLUTION
    from scipy.special import entr

    total = entr(samples.mean(axis=0)).sum(axis=-1)
    aleatoric = entr(samples).sum(axis=-1).mean(axis=0)
    return total, aleatoric, total - aleatoric
    ### END SOLUTION


# %%
check("uncertainty.split", split)

# %% [markdown]
# The package does the same, and the picture of the opening is yours:

# %%
told = doubt.ensemble(moon_five, grid)
torch.testing.assert_close(told.mean, votes.mean(0))
surfaces(told, "Noise lives between the moons, ignorance beyond their ends")

# %% [markdown]
# (The thin streaks of noise outside are the borders of the single networks.) Measure what you see: walk
# away from the moons in all directions, and average along rings.

# %%
angle = torch.linspace(0, 2 * torch.pi, 181)[:-1]
circle = torch.stack([angle.cos(), angle.sin()], dim=1)  # (180, 2)
radii = [3, 4, 5, 6, 8, 10]
asked = [doubt.ensemble(moon_five, places) for places in (points, *(r * circle for r in radii))]
aleatoric = [told.aleatoric.mean().item() for told in asked]
epistemic = [told.epistemic.mean().item() for told in asked]
assert min(epistemic[1:]) > 2 * epistemic[0]
assert max(aleatoric[1:]) < aleatoric[0]
plots.curve(
    [0, *radii],
    {"noise (aleatoric)": aleatoric, "ignorance (epistemic)": epistemic},
    title="Away from the data ignorance grows, noise does not",
    xlabel="distance from the middle (0: at the points themselves)",
    ylabel="nats, mean over the ring",
)

# %%
quiz("uncertainty.q_more")

# %% [markdown]
# ### When it lies
#
# Look at the picture again: the ignorance is a fan along the border's two ends. In most other
# directions, nobody has been either, and the five agree all the same, because they were all made in the
# same way:

# %%
sure = (doubt.ensemble(moon_five, 10 * circle).total < 0.01).double().mean()
print(f"at distance 10, sure in {sure:.0%} of all directions")

# %% [markdown]
# Networks with ReLU are linear far out, and a linear score only grows. So *low* epistemic uncertainty
# does not prove that the network knows. Compare the ensemble with three methods that section 4 explains,
# at more noise and other distances: Tab walks through the controls, the arrow keys move the sliders,
# space picks a method. (It starts at noise .2, with networks trained with dropout.)

# %%
widgets.uncertainty_surface()

# %% [markdown]
# ## 4. Four ways to many networks
#
# An ensemble of five costs five trainings. Here are three ways to get by with one.
#
# **Dropout** (Gal and Ghahramani 2016). Our network learned with 30 % of its hidden units dropped at
# random. So drop them when you ask, too, and ask often: each time another network answers. By hand, put
# the dropout layers (and only them) into training mode:

# %%
torch.manual_seed(0)
for layer in net:
    if isinstance(layer, nn.Dropout):
        layer.train()
with torch.no_grad():
    samples = torch.stack([net(x[:200]).softmax(1) for _ in range(100)])  # (100, 200, 10)
net.eval()
ours = doubt.mc_dropout(net, x[:200], n_samples=100)
apart = (samples.mean(0) - ours.mean).abs()
print(f"difference of the means: {apart.mean():.3f} in the mean, {apart.max():.2f} at most")
assert apart.mean() < 0.01

# %% [markdown]
# Both are averages over 100 random networks, so they agree up to chance.
#
# **Bayes by backprop** (Blundell and others 2015). Give each weight a distribution in place of a
# number: a mean $\mu$ and a width $\sigma$. Every pass draws $w = \mu + \sigma \varepsilon$ with
# $\varepsilon$ from $\mathcal N(0, 1)$. Training minimizes the usual loss plus the distance to a **prior**,
# what you believe of a weight before any data, here $\mathcal N(0, s^2)$. The distance is the KL
# divergence, without which $\sigma$ would shrink toward 0:
#
# $$\text{KL} = \sum_w \Big(\log\frac{s}{\sigma_w} + \frac{\sigma_w^2 + \mu_w^2}{2 s^2} - \frac12\Big)$$
#
# For one weight with $\mu = 1$, $\sigma = .5$, $s = 1$:

# %%
# NBVAL_CHECK_OUTPUT
layer = doubt.BayesLinear(1, 1, bias=False, prior_std=1.0, initial_std=0.5)
nn.init.constant_(layer.weight, 1.0)
by_hand = np.log(1 / 0.5) + (0.5**2 + 1**2) / 2 - 0.5
assert np.isclose(doubt.kl_from_prior(layer).item(), by_hand, atol=1e-5)
print(f"KL by hand {by_hand:.4f} nats")

# %% [markdown]
# The shipped network, `digit_bayes`, counts this distance a tenth only. At its full weight the prior wins
# over 1,000 digits, and accuracy falls; `models.card("digit_bayes")` has both figures.
#
# **Laplace** (MacKay 1992). Leave the trained network as it is. Ask only of its last layer: how sharply
# do the training rows bend the loss at these weights? Where they bend it a lot, a weight is known well.
# The inverse of that curvature is the covariance $\Sigma$ of the weights. $\lambda$ stands for the prior:
#
# $$\Sigma = \Big(\sum_i \big(\operatorname{diag} p_i - p_i p_i^\top\big) \otimes
#   \varphi_i \varphi_i^\top + \lambda I\Big)^{-1}$$
#
# $\varphi_i$ are the inputs of the last layer for row $i$, $p_i$ its probabilities, $I$ is the identity, and
# $\otimes$ multiplies each entry on its left by the whole matrix on its right. $\lambda$ is chosen on the
# `valid` digits, by the mean of $-\log p$ of the true class (**NLL**, smaller is better):


# %%
def laplace(precision):
    return doubt.laplace_last_layer(
        net, images[learned], labels[learned], prior_precision=precision
    )


precisions = [1.0, 3.0, 10.0, 30.0, 100.0]
losses = [
    F.nll_loss(laplace(one).predict(images[valid]).mean.log(), labels[valid]).item()
    for one in precisions
]
precision = precisions[int(np.argmin(losses))]
for one, loss in zip(precisions, losses):
    print(f"lambda {one:5.0f}: NLL {loss:.3f}{'  <- chosen' if one == precision else ''}")

# %% [markdown]
# ### One table
#
# All were trained on the same 1,000 digits and are asked about the same test digits. For the AUROC, every
# test digit is also shown **turned by 90 degrees**, as no training digit ever was. **AUROC** is the chance
# that a turned digit gets a larger doubt than an upright one: .5 is guessing.

# %%
turned = x.rot90(1, dims=(2, 3))
plots.images(
    [*x[::250], *turned[::250]],
    titles=["upright"] * 4 + ["turned"] * 4,
    title="Known kind, unknown kind",
)


# %%
@torch.no_grad()
def alone(rows, net=net, temperature=1.0):
    """What one network says, as a prediction: it has no quarrel with itself."""
    return doubt.entropy_split((net(rows) / temperature).double().softmax(1)[None])


methods = {
    "one network": alone,
    "with temperature": partial(alone, temperature=T),
    "MC dropout": partial(doubt.mc_dropout, net),
    "ensemble of 5": partial(doubt.ensemble, five),
    "Bayes by backprop": partial(doubt.mc_weights, models.digit_bayes()),
    "last-layer Laplace": laplace(precision).predict,
}
upright, strange, seconds = {}, {}, {}
for name, ask in methods.items():
    began = perf_counter()
    upright[name], strange[name] = ask(x), ask(turned)
    seconds[name] = perf_counter() - began


# %%
def measure(inside, outside):
    """Accuracy, NLL, ECE, and AUROC of the total and of the epistemic uncertainty."""
    p = inside.mean.double()
    p = p / p.sum(1, keepdim=True)
    scores = [
        (p.argmax(1) == y).double().mean().item(),
        F.nll_loss(p.log(), y).item(),
        doubt.expected_calibration_error(p, y),
        doubt.ood_auroc(inside.total, outside.total),
    ]
    quarrel = inside.epistemic.max() > 0
    return [*scores, doubt.ood_auroc(inside.epistemic, outside.epistemic) if quarrel else None]


measured = {name: measure(upright[name], strange[name]) for name in methods}

# %%
names = ["method", "accuracy", "NLL", "ECE", "AUROC, total", "AUROC, epistemic", "seconds"]
rows = [
    (name, *("-" if v is None else f"{v:.3f}" for v in measured[name]), f"{seconds[name]:.1f}")
    for name in methods
]
one, *others = measured.values()
assert all(other[1] < one[1] and other[2] < one[2] for other in others)
plots.table(rows, names, title="1,000 digits, upright and turned: who knows what it does not know")

# %% [markdown]
# Read it column by column. In NLL and ECE, everything beats the network alone, and the plain temperature
# is hard to beat: calibration alone is no reason for Bayesian methods. Turned digits are another matter.
# A temperature does not help there: it changes how sure the network is, hardly *of what*. Dropout and five
# networks do help. And not all that is called Bayesian does: look at the row of Bayes by backprop. Was our
# one network perhaps the weakest of the five? Ask each of them alone:

# %%
singles = [doubt.ood_auroc(alone(x, one).total, alone(turned, one).total) for one in five]
together = measured["ensemble of 5"][3]
print(f"AUROC alone: {min(singles):.3f} to {max(singles):.3f}; all five: {together:.3f}")
assert together > max(singles)

# %% [markdown]
# The gain is real but modest, and nobody here comes near 1: a turned 8 is still an 8. A method that is
# advertised with one such number on one data set has shown little.
#
# ## 5. The same in Pyro, and a regression
#
# Pyro is the practitioners' library for Bayesian models on torch. You write the model as a story of how
# data come about, and a *guide*: the family of distributions in which to look for that of the weights.
# Take a curve with known noise of .2: 60 points between -2 and 2.

# %%
NOISE, HIDDEN = 0.2, 20


def observe(n, seed):
    rng = np.random.default_rng(seed)
    where = rng.uniform(-2, 2, n)
    values = np.sin(2 * where) + NOISE * rng.standard_normal(n)
    return torch.tensor(where).float().reshape(-1, 1), torch.tensor(values).float()


px, py = observe(60, seed=0)


# %% [markdown]
# Ours first: two Bayesian layers, and a last one that states the known noise, since `mc_weights` wants mean
# and log variance of a regression.


# %%
class KnownNoise(nn.Module):
    def forward(self, mean):
        return torch.cat([mean, torch.full_like(mean, 2 * np.log(NOISE))], dim=1)  # (N, 2)


def nll(outputs, values):
    std = (outputs[:, 1] / 2).exp()
    return -torch.distributions.Normal(outputs[:, 0], std).log_prob(values).mean()


# %%
torch.manual_seed(0)
first = doubt.BayesLinear(1, HIDDEN, prior_std=1.0, initial_std=0.05)
second = doubt.BayesLinear(HIDDEN, 1, prior_std=0.5, initial_std=0.05)
curve = nn.Sequential(first, nn.ReLU(), second, KnownNoise())
parts = (first.weight, first.bias, second.weight, second.bias)
start = torch.cat([part.detach().flatten() for part in parts])
fit = partial(doubt.fit_bayes, curve, px, py, loss_fn=nll, batch_size=60)
steps = fit(epochs=300, learning_rate=0.03) + fit(epochs=150, learning_rate=0.003)
print(f"objective, nats a row: {steps[0]:.2f} -> {steps[-1]:.2f}")


# %% [markdown]
# Now Pyro: the same story, the same prior, the same beginning. Its objective, `Trace_ELBO`, is ours: the
# loss plus the KL distance, and `AutoNormal` gives each weight a mean and a width.


# %%
prior = torch.cat([torch.full((2 * HIDDEN,), 1.0), torch.full((HIDDEN + 1,), 0.5)])


def story(x, y=None):
    w = pyro.sample("w", pyro.distributions.Normal(0, prior).to_event(1))
    w1, b1, w2, b2 = w.split([HIDDEN, HIDDEN, HIDDEN, 1])
    mean = pyro.deterministic("mean", F.relu(x * w1 + b1) @ w2 + b2)
    pyro.sample("y", pyro.distributions.Normal(mean, NOISE).to_event(1), obs=y)


pyro.set_rng_seed(0)
begin = pyro.infer.autoguide.init_to_value(values={"w": start})
guide = pyro.infer.autoguide.AutoNormal(story, init_loc_fn=begin, init_scale=0.05)
adam = pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.988})  # the step shrinks by 1.2 % each time
svi = pyro.infer.SVI(story, guide, adam, pyro.infer.Trace_ELBO())
for _ in range(450):
    svi.step(px, py)

# %%
wide = torch.linspace(-3, 3, 61).reshape(-1, 1)
ours = doubt.mc_weights(curve, wide, n_samples=200, task="regression")
ask = pyro.infer.Predictive(story, guide=guide, num_samples=200, return_sites=["mean"])
means = ask(wide)["mean"].reshape(200, -1)
theirs = doubt.variance_split(means, torch.full_like(means, NOISE**2))
agree = np.corrcoef(*(told.epistemic.sqrt().numpy() for told in (ours, theirs)))[0, 1]
apart = (ours.mean - theirs.mean)[wide[:, 0].abs() <= 2].abs().mean().item()
print(f"correlation of the spreads {agree:.2f}; means differ by {apart:.2f} at the points")
assert agree > 0.9
assert apart < NOISE / 2

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
figure.suptitle("Ignorance (band) opens past the points, noise (dashed) stays")
for ax, name, told in zip(axes, ("xailab", "Pyro"), (ours, theirs)):
    center, ignorance, noisy = told.mean, 2 * told.epistemic.sqrt(), 2 * told.aleatoric.sqrt()
    ax.fill_between(wide[:, 0], center - ignorance, center + ignorance, color="#9cc9e6")
    ax.plot(wide[:, 0], torch.stack([center - noisy, center + noisy], 1), "--", color="#555555")
    ax.plot(wide[:, 0], center, color="#0072B2")
    ax.plot(px[:, 0], py, "k.", markersize=3)
    ax.set_title(name)
words = (
    "Two curves, xailab's and Pyro's, with a band of two standard deviations of ignorance, narrow"
)
plots.picture(
    figure, f"{words} in the middle, wide on both sides; the dashed noise is alike all along."
)

# %% [markdown]
# Two independent programs, one picture: in the middle the band of ignorance is narrower than the noise,
# past the last points it is wider. Both programs end in some optimum of a bumpy landscape after noisy
# steps, so they agree in shape, not to the last digit.
#
# A regression has a reliability of its own: do 50 % of new values lie in the central 50 % interval?
# **uncertainty-toolbox** measures it; so does `coverage_table`:

# %%
new_x, new_y = observe(500, seed=1)
told = doubt.mc_weights(curve, new_x, n_samples=100, task="regression")
mean, std = told.mean.numpy(), told.total.sqrt().numpy()
coverage = doubt.coverage_table(mean, std, new_y)
error = (coverage.expected - coverage.observed).abs().mean()
theirs = uct.mean_absolute_calibration_error(mean, std, new_y.numpy(), num_bins=101)
assert abs(error - theirs) < 1e-9
assert error < 0.05
print(f"calibration error: xailab {error:.4f}, uncertainty-toolbox {theirs:.4f}")
print(coverage.iloc[[50, 90]].round(2).to_string(index=False))

# %% [markdown]
# ## 6. Let it decline
#
# Doubt is useful if you act on it. **Selective prediction**: answer the digits that are surest, hand the
# rest to a person. The curve shows the error among those answered:

# %%
wrong = {name: (told.mean.argmax(1) != y).double() for name, told in upright.items()}
shown = ["one network", "MC dropout", "ensemble of 5"]
curves = {name: doubt.risk_coverage(upright[name].total, wrong[name]) for name in shown}
tenths = np.arange(99, 1000, 100)
assert all(one.risk[799] * 0.8 < one.risk[-1] / 2 for one in curves.values())  # in the other fifth
plots.curve(
    curves["one network"].coverage[tenths],
    {name: one.risk[tenths] for name, one in curves.items()},
    title="Most mistakes are among the least sure fifth of the digits",
    xlabel="share of digits answered (coverage)",
    ylabel="share of wrong answers among them (risk)",
)

# %% [markdown]
# For this you need only the *order* of the doubts, not their size: a badly calibrated network can decline
# well.
#
# ## 7. Sets with a promise
#
# All of the above trusts the probabilities more or less. **Conformal prediction** (Vovk, Gammerman and
# Shafer 2005) trusts nothing, and still promises: *the set that I give holds the true class with
# probability 90 %*. The idea: on digits held back, write down how strange the true class looked,
# $1 - p_{\text{true}}$. Find the value that 90 % of them do not exceed. For a new digit, name all classes
# that are not stranger than that.

# %%
# NBVAL_CHECK_OUTPUT
scores = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.4, 0.5, 0.7, 0.9])  # nine held-back digits
rank = int(np.ceil((9 + 1) * (1 - 0.2)))  # alpha = .2: a set may miss in 20 %
threshold = scores[rank - 1]
new = np.array([0.55, 0.31, 0.14])  # three classes
print(f"rank {rank}: threshold {threshold}; in the set: {np.flatnonzero(1 - new <= threshold)}")

# %% [markdown]
# Why $n + 1$? The new digit is one more draw. Among all $n + 1$ scores, its rank is equally likely to be any
# of $1 \dots n + 1$. So it is at most the 8th of 10 with probability .8. This is the whole proof, and it
# needs one thing only: that the new digit comes from where the held-back ones came.
#
# ### Exercise: the threshold (code, 6 minutes)
#
# With too few scores the rank is larger than $n$: no finite threshold can promise so much.


# %% tags=["exercise"]
def threshold_of(scores, alpha):
    """Conformal threshold of scores (n,); infinite if there are too few."""
    ### BEGIN SOLUTION
    rank = int(np.ceil((len(scores) + 1) * (1 - alpha)))
    if rank > len(scores):
        return np.inf
    return np.sort(scores)[rank - 1]
    ### END SOLUTION


# %%
check("uncertainty.threshold", threshold_of)

# %% [markdown]
# Does the promise hold? The network has never seen 4,000 of the digits. Cut them into 20 parts of 200; for
# each part, calibrate on $n$ others, and count how many of the 200 sets hold the true class. Note that
# this is the overconfident network of section 1, unmended.

# %%
pool = np.random.default_rng(0).permutation(np.concatenate([valid, spare, test]))
with torch.no_grad():
    P = net(images[pool]).double().softmax(1).numpy()  # (4000, 10)
Y = labels[pool].numpy()


def covered(n):
    """Hits among 200 new digits for 20 splits, each calibrated on n digits after them."""
    hits = []
    for new in np.arange(4000).reshape(20, 200):
        held = (new[-1] + 1 + np.arange(n)) % 4000
        sets = doubt.conformal_sets(P[held], Y[held], P[new], alpha=0.1).sets
        hits.append(sets[np.arange(200), Y[new]].sum())
    return np.array(hits)


# %% [markdown]
# If the coverage were exactly .9, the hits among 200 would be binomial. But the threshold was itself
# found from $n$ random digits. With few of them it is off by chance, for all 200 new digits at once. The
# exact law of the hits is a **beta-binomial**, which is wider:


# %%
def inside(hits, law):
    low, high = law.interval(0.95)
    return f"{((hits >= low) & (hits <= high)).sum()} of 20 within {low:.0f}..{high:.0f}"


rows = []
for n in (20, 1000):
    hits, rank = covered(n), int(np.ceil((n + 1) * 0.9))
    laws = binom(200, 0.9), betabinom(200, rank, n + 1 - rank)
    rows.append((n, f"{hits.mean() / 200:.3f}", *(inside(hits, law) for law in laws)))
low, high = binom(4000, 0.9).interval(0.95)
assert low <= hits.sum() <= high  # all 4,000 sets, at n = 1000
names = ["calibration digits", "mean coverage", "binomial 95 %", "beta-binomial 95 %"]
plots.table(rows, names, title="Hits among 200 new digits, promised 180, in 20 splits")

# %% [markdown]
# With 20 calibration digits single splits stray beyond what the binomial law allows, as the beta-binomial
# says they will. With 1,000 the two laws nearly agree, and all 4,000 sets together lie in the binomial
# interval of 90 %, as the cell asserts.
#
# **MAPIE** is the practitioners' library. It wants a scikit-learn classifier, so wrap the probabilities:


# %%
class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose input is its output."""

    classes_, is_fitted_ = np.arange(10), True

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(axis=1)


peer = SplitConformalClassifier(Given(), confidence_level=0.9, conformity_score="lac", prefit=True)
_, theirs = peer.conformalize(P[:1000], Y[:1000]).predict_set(P[1000:])  # (3000, 10, 1)
ours = doubt.conformal_sets(P[:1000], Y[:1000], P[1000:], alpha=0.1)
np.testing.assert_array_equal(ours.sets, theirs[:, :, 0])
sizes = np.bincount(ours.sets.sum(1))
print("sets with 0, 1, 2, ... classes:", sizes)

# %% [markdown]
# The same 3,000 sets. Nearly all name one class, since the network alone is right in 90 %. An empty set
# says that no class is likely enough.
#
# ### When it lies
#
# The promise is one over all digits. Ask for each class:

# %%
hit = ours.sets[np.arange(3000), Y[1000:]]
by_class = [hit[Y[1000:] == k].mean() for k in range(10)]
plots.bars(
    by_class,
    [str(k) for k in range(10)],
    title="90 % on average is more for some digits and less for others",
    xlabel="coverage",
)

# %% [markdown]
# ### Predict, then run (2 minutes)
#
# And the turned digits? With the same threshold, what share of their sets will hold the true class?

# %% tags=["exercise"]
### BEGIN SOLUTION
turned_guess = 0.5
### END SOLUTION

# %%
predict("uncertainty.turned", turned_guess)

# %%
with torch.no_grad():
    P_turned = net(turned).double().softmax(1).numpy()
lost = doubt.conformal_sets(P[:1000], Y[:1000], P_turned, alpha=0.1).sets
reveal("uncertainty.turned", round(lost[np.arange(1000), y].mean(), 3))
print(f"sets with exactly one class: {(lost.sum(1) == 1).mean():.2f}")

# %% [markdown]
# Nearly all sets still hold one class, and nearly all are wrong. The proof needed new digits *from where
# the held-back ones came*; these do not, and nothing in the sets warns you. The doubts of section 4 do,
# in part.
#
# ## 8. How sure is the explanation?
#
# If five networks disagree about answers, do they disagree about *reasons*? Explain one digit with each of
# them, and look at mean and spread, pixel by pixel (Bykov and others 2020):

# %%
one_digit, label = x[hard : hard + 1], int(y[hard])  # the doubtful one of section 1
spread = doubt.explanation_uncertainty(five, one_digit, label, explain=saliency)
maps = torch.stack([saliency(one, one_digit, label) for one in five])
torch.testing.assert_close(spread.mean, maps.mean(0))
torch.testing.assert_close(spread.std, maps.std(0, correction=0))

settled = torch.where(spread.mean.abs() > spread.std, spread.mean, 0.0)
plots.compare(
    [maps[0], maps[1], spread.mean, spread.std, settled],
    titles=["network 1", "network 2", "mean of five", "spread", "mean above spread"],
    title="Part of a map is one network's own accident",
    label="gradient (logits)",
)

# %% [markdown]
# The first two maps explain the same answer about the same digit, by networks of the same accuracy. The
# last one keeps only what stands out of the spread, like the red stroke of the 1 in the middle. Is this
# digit an exception? Correlate the maps of two networks, pair by pair, for 20 digits that the five are
# surest of, and for 20 of the least sure:


# %%
def likeness(i):
    """Mean correlation of two networks' maps of the class that the five chose."""
    target = int(upright["ensemble of 5"].mean[i].argmax())
    each = torch.stack([saliency(one, x[i : i + 1], target) for one in five]).flatten(1)
    return np.corrcoef(each)[np.tril_indices(5, -1)].mean()


order = upright["ensemble of 5"].total.argsort().tolist()
surest, least = (np.mean([likeness(i) for i in g]) for g in (order[:100:5], order[-100::5]))
print(f"correlation of two networks' maps: surest digits {surest:.2f}, least sure {least:.2f}")
assert least < surest

# %% [markdown]
# The maps agree more where the networks agree, and never fully: what differs told you about one training
# run, not about the digit. So before you explain a single pixel, train again, or use dropout:
# `explanation_uncertainty` takes a single network with dropout as well.
#
# ### Exercise: a claim from a brochure (criticize, 8 minutes)
#
# > *"Our network for skin photos is calibrated: its mean confidence is 95 %, and so is its accuracy. Photos
# > with a softmax above .9 are decided without a doctor. In addition, conformal sets guarantee 95 % coverage
# > for every patient. We are now bringing it to a third country, with another camera."*
#
# What do these numbers show, what do they not, and what would you ask for? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
That mean confidence equals accuracy does not make it calibrated: overconfident and underconfident bins
cancel in the mean, and one group of patients may pay for another. I would ask for a reliability diagram and
the ECE, by bin and by group, on held-out rows. A softmax above .9 says how the known classes compare, not
that the photo is of a known kind: random noise gets more. So the rule needs a check for inputs of another
kind, with its AUROC, and a risk-coverage curve that shows the errors among photos decided without a doctor.
The conformal promise is one on average over patients, not for every patient; rare classes may get much
less. It also holds only if calibration and new photos come from the same source: with another camera it is
void until they calibrate again there.
### END SOLUTION
"""

# %%
check("uncertainty.report", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - read margin, entropy and runners-up of a prediction, and show where softmax is not confidence
# - measure calibration by hand, draw it, and mend it with one number
# - split doubt into noise and ignorance, with dropout, an ensemble, Bayesian weights or Laplace
# - compare these on inputs of another kind, and let a network decline to answer
# - give sets of classes with a promised coverage, and say when the promise is void
#
# ## Takeaways
#
# - Calibration is about inputs of the kind that you measured on. A temperature mends it there, changes no
#   answer, and does nothing for inputs of another kind.
# - Noise is doubt that every network admits, ignorance is what they quarrel about. Ignorance grows away
#   from the data, but not in all directions: agreement is no proof of knowledge.
# - A conformal set needs no trust in the network, but new rows must come from where the calibration rows
#   came; its promise is one on average.
#
# ## Myth refuted
#
# *"Softmax .9 means 90 % confident."* Section 2: where the network said .85, it was right in half of
# the cases. Section 1: pictures of noise got more than .99, and the well calibrated CNN gave that to nearly
# all of them.
#
# ## Go further
#
# - Guo, Pleiss, Sun, Weinberger (2017), *On Calibration of Modern Neural Networks*: temperature.
# - Gal, Ghahramani (2016), *Dropout as a Bayesian Approximation*; Lakshminarayanan, Pritzel, Blundell
#   (2017), *Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles*.
# - Blundell, Cornebise, Kavukcuoglu, Wierstra (2015), *Weight Uncertainty in Neural Networks*; Daxberger and
#   others (2021), *Laplace Redux - Effortless Bayesian Deep Learning*.
# - Hein, Andriushchenko, Bitterwolf (2019), *Why ReLU Networks Yield High-Confidence Predictions Far Away
#   From the Training Data and How to Mitigate the Problem*: the reason for the noise pictures.
# - Angelopoulos, Bates (2021), *A Gentle Introduction to Conformal Prediction and Distribution-Free
#   Uncertainty Quantification*: also why the hits are beta-binomial.
# - Bykov and others (2020), *How Much Can I Trust You? - Quantifying Uncertainties in Explaining Neural
#   Networks*.
