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
# # Adversarial examples: inputs that were made to mislead
#
# **Question:** How little must change in a picture before the network is wrong, and what helps against it?
#
# **You will be able to**
# - build FGSM, PGD and a black-box attack, and check them against foolbox
# - tell a network that withstands an attack from one that hides its gradient
# - harden a network by training, and measure what that keeps and what it costs
# - test a detector with attacks that it has not seen, and with one that knows it
# - measure what attacks do to saliency maps
#
# **You need:** [[training]] and [[saliency]]
#
# **Time:** [[time]]; the cells run in under a minute · **Difficulty:** 3 of 5

# %%
import warnings
from functools import partial
from time import perf_counter

import foolbox
import pandas as pd
import skimage.data
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_curve
from torch import nn

from xailab import data, models, plots, widgets
from xailab.attribution.saliency import saliency
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.localization import relevance_mass_accuracy
from xailab.trust import adversarial as adv
from xailab.trust.adversarial import accuracy_curve, cross_entropy, fgsm, pgd, square_attack
from xailab.trust.detectors import median_smooth, reduce_bits

# %% [markdown]
# A cat again, and the network that named it *tiger cat*. No color of any pixel may change by more than 2
# of its 255 gray levels. Within that, a search called PGD, ten steps long, asks for a **goose**:

# %%
GOOSE = 99
net = models.pretrained("efficientnet_lite0")
cat = net.preprocess(skimage.data.chelsea())  # (1, 3, 224, 224), one gray level is 1 / 128
level, clip = 1 / 128, (-127 / 128, 1)
steps = {"epsilon": 2 * level, "step_size": level / 2, "n_steps": 10}
attacked = pgd(net.model, cat, GOOSE, targeted=True, clip=clip, **steps)

# %% tags=["readme-goose"]
change = (attacked - cat)[0].mean(0, keepdim=True) / level  # in gray levels, at most 2
names = [f"{name.split(',')[0]} ({p:.2f})" for x in (cat, attacked) for _, name, p in net.top(x, 1)]
plots.images(
    [net.picture(cat)[0], change / 4 + 0.5, net.picture(attacked)[0]],
    titles=[names[0], "the change, x 64", names[1]],
    title="No pixel moved by more than 2 gray levels of 255",
)

# %% [markdown]
# You cannot see the difference, and the network is surer of the goose than it was of the cat. In this
# lesson you build such attacks, train a network that withstands them, build alarms that notice them,
# and then attack the alarms. All of that happens on digits: small enough to try everything.
#
# ## 1. One step, on paper
#
# Three pixels, and a network with one score: $s = 2x_1 - x_2 + \frac12 x_3$. Above 0 it says *yes*. For
# $x = (.4, .5, .6)$ the score is $.8 - .5 + .3 = .6$: *yes*. Now you may move each pixel by
# $\epsilon = .2$. Which way? Against its weight: down, up, down. That costs
# $.2 \cdot (2 + 1 + \frac12) = .7$, and the answer is *no*.

# %%
# NBVAL_CHECK_OUTPUT
w, x3 = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.4, 0.5, 0.6])
moved = x3 - 0.2 * w.sign()
print("moved to", [round(value, 1) for value in moved.tolist()])
print(f"score {w @ x3:.1f} -> {w @ moved:.1f}, lost {0.2 * w.abs().sum():.1f}")

# %% [markdown]
# Any network can be asked which way is *against*. Take the loss, and let its gradient say how each
# pixel moves it. This is the **fast gradient sign method** (FGSM):
#
# $$x' = \operatorname{clip}\big(x + \epsilon \operatorname{sign} \nabla_x L(f(x), t)\big)$$
#
# $f(x)$ are the logits, $t$ is the true class, $L$ the cross-entropy, $\epsilon$ the distance that each
# number may move, and clip keeps pixels between black (0) and white (1). The three pixels again, as a
# network with two logits, $0$ for *no* and $s$ for *yes*:

# %%
tiny = nn.Linear(3, 2, bias=False)
tiny.weight.data = torch.stack([torch.zeros(3), w])
x = x3[None].clone().requires_grad_()
loss = F.cross_entropy(tiny(x), torch.tensor([1]))
(grad,) = torch.autograd.grad(loss, x)
by_hand = (x + 0.2 * grad.sign()).clamp(0, 1).detach()
torch.testing.assert_close(by_hand[0], moved)

# %% [markdown]
# The package has the same step, and refuses what makes no sense:

# %%
torch.testing.assert_close(fgsm(tiny, x3[None], 1, epsilon=0.2), by_hand)
try:
    fgsm(tiny, x3[None], 1, epsilon=-0.2)
except ValueError as error:
    print(error)

# %% [markdown]
# Why does so little suffice? The score lost $\epsilon$ times the sum of **all** weights' sizes. A
# digit has 784 pixels, so 784 such gifts; the photo above has 150,528.
#
# ### Exercise: FGSM for any network (code, 8 minutes)
#
# `x` is a batch $(N, \ldots)$ and `y` holds one true class a row. Leave the network and `x` as they were.
# `hint("adversarial.fgsm")` helps in up to three steps.


# %% tags=["exercise"]
def my_fgsm(model, x, y, epsilon):
    """Each row of x moved by epsilon, uphill in its own loss, and kept in 0..1."""
    ### BEGIN SOLUTION
    leaf = x.clone().requires_grad_()
    loss = F.cross_entropy(model(leaf), y, reduction="sum")
    (grad,) = torch.autograd.grad(loss, leaf)
    return (x + epsilon * grad.sign()).clamp(0, 1).detach()
    ### END SOLUTION


# %%
check("adversarial.fgsm", my_fgsm)

# %% [markdown]
# ## 2. The digit network
#
# 100 digits that the network has not seen in training. `mnist5k` is sorted by class, so shuffle:

# %%
plain = models.digit_cnn()
digits = data.load("mnist5k")
unseen = torch.as_tensor(~digits.extra["train"]).nonzero()[:, 0]
unseen = unseen[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
images = torch.as_tensor(digits.images[unseen])[:, None] / 255  # (1000, 1, 28, 28)
labels = torch.as_tensor(digits.y[unseen])
x, y = images[:100], labels[:100]


@torch.no_grad()
def right(net, x, y):
    """Share of right answers."""
    return (net(x).argmax(1) == y).float().mean().item()


# %% [markdown]
# Take a seven, and move each pixel by at most a tenth of the way from black to white:

# %%
seven, its_class = x[6:7], y[6:7]
moved = fgsm(plain, seven, its_class, epsilon=0.1)


def answer(net, x):
    share, named = net(x).softmax(1).max(1)
    return f"{named.item()} ({share.item():.2f})"


plots.images(
    [seven[0], (moved - seven)[0] * 5 + 0.5, moved[0]],
    titles=[answer(plain, seven), "the change, x 5", answer(plain, moved)],
    title="One gradient turns a seven into something else",
)

# %% [markdown]
# In the middle, gray means *not moved*: on black pixels half of the steps lead below black and are cut
# off. Here you do see the change. You would still read a seven.
#
# ### Predict, then run (2 minutes)
#
# With $\epsilon = .1$, FGSM leaves about half of the 100 digits right. Now a coin, not the
# gradient, decides for each pixel whether it goes up or down by .1. Which share stays right? Guess a number
# from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
noise_guess = 0.9
### END SOLUTION

# %%
predict("adversarial.noise", noise_guess)


# %%
def noise(net, x, y, *, epsilon):
    """Move each pixel by epsilon, up or down as a coin falls."""
    coins = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    return (x + epsilon * coins).clamp(0, 1)


EPSILONS = [0, 0.05, 0.1, 0.2, 0.3]
by_attack = {
    "a coin's signs": accuracy_curve(plain, x, y, epsilons=EPSILONS, attack=noise).accuracy,
    "FGSM": accuracy_curve(plain, x, y, epsilons=EPSILONS).accuracy,
}
plots.curve(
    EPSILONS,
    by_attack,
    title="The same distance, in another direction",
    xlabel="epsilon: how far each pixel moves",
    ylabel="share of digits still right",
)

# %%
reveal("adversarial.noise", round(by_attack["a coin's signs"][0.1], 2))

# %% [markdown]
# An adversarial example is no noisy picture. Both pictures are equally far from the digit; one of
# them was searched for. How far does the reasoning of section 1 carry here? Compare what the slope at
# the seven promises for the loss with what really comes. (The package's `cross_entropy` is torch's, one
# number a row, in double precision: single precision rounds the slope of a sure network away.)


# %%
def loss_and_slopes(x, y):
    x = x.clone().requires_grad_()
    loss = cross_entropy(plain(x), y)
    return loss.item(), torch.autograd.grad(loss, x)[0]


start, slopes = loss_and_slopes(seven, its_class)
rows = []
for epsilon in (0.02, 0.05, 0.1):
    step = fgsm(plain, seven, its_class, epsilon=epsilon)
    promised = start + (slopes * (step - seven)).sum().item()
    rows.append((epsilon, f"{promised:.3f}", f"{loss_and_slopes(step, its_class)[0]:.3f}"))
plots.table(
    rows, ["epsilon", "loss promised", "loss that came"], title="One step is not the whole way"
)

# %% [markdown]
# The loss bends upward: what comes is far more than the slope at the start promises. So look again
# after a part of the way: section 3.
#
# First the practitioners' library. foolbox has FGSM under the name `LinfFastGradientAttack`:

# %%
model = foolbox.PyTorchModel(plain, bounds=(0, 1))
began = perf_counter()
_, theirs, fooled = foolbox.attacks.LinfFastGradientAttack()(model, x, y, epsilons=EPSILONS)
seconds = perf_counter() - began
peer = 1 - fooled.float().mean(1)
pd.DataFrame({"xailab": by_attack["FGSM"], "foolbox": peer.numpy()}).round(3)

# %%
difference = (torch.tensor(by_attack["FGSM"].to_numpy()) - peer).abs().max().item()
assert difference <= 0.02
same = (theirs[2] - fgsm(plain, x, y, epsilon=0.1)).abs().flatten(1).amax(1) < 1e-6
print(
    f"largest difference in accuracy {difference:.3f}; equal pictures at .1: {same.float().mean():.0%}"
)

# %% [markdown]
# Where pictures differ, a gradient was so small that rounding decided its sign. We leave such pixels
# alone (sign of 0 is 0); foolbox moves them a full step. Time for both:

# %%
began = perf_counter()
for epsilon in EPSILONS:
    fgsm(plain, x, y, epsilon=epsilon)
ours = perf_counter() - began
plots.table(
    [("xailab", f"{ours:.1f}"), ("foolbox", f"{seconds:.1f}")],
    ["", "seconds"],
    title="FGSM, 5 x 100",
)

# %% [markdown]
# ## 3. PGD: many small steps
#
# Take a quarter of the step, look again, and never leave the box of $\pm\epsilon$ around the digit. This is
# **projected gradient descent** (PGD; it climbs, the name comes from the other direction):
#
# $$x_{k+1} = \operatorname{clip}\Big(x + \Pi_\epsilon\big(x_k + \eta \operatorname{sign}
#   \nabla_x L(f(x_k), t) - x\big)\Big)$$
#
# $\eta$ is the step, and $\Pi_\epsilon$ cuts each number of the change at $\pm\epsilon$.

# %%
epsilon, eta = 0.1, 0.025
climbing = seven.clone()
for _ in range(10):
    leaf = climbing.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(plain(leaf), its_class).sum(), leaf)
    change = (climbing + eta * grad.sign() - seven).clamp(-epsilon, epsilon)
    climbing = (seven + change).clamp(0, 1)

# %%
same = pgd(plain, seven, its_class, epsilon=0.1, step_size=0.025, n_steps=10)
torch.testing.assert_close(climbing, same)
for name, rows in (("FGSM", moved), ("PGD", climbing)):
    print(f"{name:5} {answer(plain, rows)}, loss {loss_and_slopes(rows, its_class)[0]:.1f}")


# %%
def pgd10(net, x, y, *, epsilon):
    return pgd(net, x, y, epsilon=epsilon, step_size=epsilon / 4, n_steps=10)


bent = pgd10(plain, x, y, epsilon=0.1)
print(
    f"still right at .1: {by_attack['FGSM'][0.1]:.2f} after FGSM, {right(plain, bent, y):.2f} after PGD"
)

# %% [markdown]
# At .1, FGSM left about half; ten small steps leave less than a quarter. **A weak attack makes a network
# look strong.** When you read *accuracy under attack*, ask which attack.
#
# ### Another measure of small: L2
#
# Until now every pixel had its own limit. You can also limit the length of the whole change,
# $\|\delta\|_2 = \sqrt{\sum_i \delta_i^2} \le \epsilon$. Then a step follows the gradient itself, made one
# long, and the projection shortens a change that is too long.
#
# ### Exercise: back into the ball (code, 5 minutes)
#
# `change` is $(N, \ldots)$. Return it with every row's length at most `epsilon`; shorter rows stay.


# %% tags=["exercise"]
def into_the_ball(change, epsilon):
    """Rows (N, ...) of L2 length epsilon at most, their directions kept."""
    ### BEGIN SOLUTION
    length = change.flatten(1).norm(dim=1).reshape(-1, *[1] * (change.ndim - 1))
    return torch.where(length > epsilon, change * (epsilon / length), change)
    ### END SOLUTION


# %%
check("adversarial.ball", into_the_ball)

# %%
half_x, half_y = x[:50], y[:50]
l2 = {"epsilon": 1.5, "step_size": 0.375, "n_steps": 10}
far = pgd(plain, half_x, half_y, norm="l2", **l2)
attack = foolbox.attacks.L2ProjectedGradientDescentAttack(
    abs_stepsize=0.375, steps=10, random_start=False
)
peer = attack(model, half_x, half_y, epsilons=1.5)[1]
agree = (plain(far).argmax(1) == plain(peer).argmax(1)).float().mean().item()
assert agree >= 0.98
print(f"same answers after our attack and foolbox's: {agree:.0%}")

# %%
one = pgd(plain, seven, its_class, norm="l2", **l2)
plots.compare(
    [climbing[0] - seven[0], one[0] - seven[0]],
    titles=["each pixel at most .1", "length at most 1.5"],
    title="L-inf spreads the change evenly, L2 where it pays most",
    label="change of the pixel",
)

# %% [markdown]
# ## 4. Without any gradient
#
# Suppose you may only ask the network and read its scores. **Square attack**: paint a random square
# $\epsilon$ lighter or darker, and keep it if the lead of the true class shrinks. The lead is
# $m = f_t - \max_{k \ne t} f_k$; below 0 the network is fooled.


# %%
def lead(net, x, y):
    logits = net(x)
    own = F.one_hot(y, 10).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).amax(1)


generator = torch.Generator().manual_seed(0)
best, leads = seven.clone(), [lead(plain, seven, its_class).item()]
for _ in range(300):
    i, j, side, sign = (torch.randint(n, (), generator=generator).item() for n in (24, 24, 12, 2))
    tried = best.clone()
    place = (slice(None), slice(None), slice(i, i + side + 1), slice(j, j + side + 1))
    tried[place] = (seven[place] + 0.1 * (2 * sign - 1)).clamp(0, 1)
    margin = lead(plain, tried, its_class).item()
    if margin < leads[-1]:
        best = tried
    leads.append(min(margin, leads[-1]))

# %%
plots.curve(
    range(301),
    {"lead of the seven": leads, "fooled below": [0.0] * 301},
    title="Trial and error wears the lead down",
    xlabel="questions asked",
    ylabel="lead of the true class (logits)",
)

# %% [markdown]
# The package's version begins with stripes and lets the squares shrink on a schedule, for all digits
# at once. foolbox has no square attack; its own black-box baseline repeats noise. Both get 40
# questions a digit:

# %%
forty = partial(square_attack, n_queries=40)
squares = forty(plain, x, y, epsilon=0.1)
torch.manual_seed(0)
repeated = foolbox.attacks.LinfRepeatedAdditiveUniformNoiseAttack(repeats=40)
noisy = repeated(model, half_x, half_y, epsilons=0.1)[1]
for name, rows in (("square attack", squares), ("repeated noise", noisy)):
    print(f"{name:15} {right(plain, rows, y[: len(rows)]):.2f} still right")

# %% [markdown]
# ### When it lies: a hidden gradient
#
# Somebody rounds each pixel to the 256 gray levels of a file before the network sees it. On digits this
# changes nothing: they come from such a file. Then they attack their network:


# %%
def rounded(x):
    return plain((x * 255).round() / 255)


with warnings.catch_warnings(record=True, action="always") as said:
    by_fgsm = fgsm(rounded, x, y, epsilon=0.1)
print("The package warns:", said[0].message)
claims = {
    "FGSM": by_fgsm,
    "square attack": forty(rounded, x, y, epsilon=0.1),
    "PGD of the bare network": bent,
}
still = [right(rounded, rows, y) for rows in claims.values()]
plots.bars(
    still, list(claims), title="A defense that only hides its gradient", xlabel="still right"
)

# %% [markdown]
# The slope of rounding is 0 nearly everywhere, so the gradient is 0 and the attack does not move. It
# **looks** unbreakable. An attack that needs no gradient, and one that borrows it from the bare
# network, get as far as on the bare network.

# %%
quiz("adversarial.q_hidden")

# %% [markdown]
# ## 5. Training against it
#
# What would make a network withstand? Show it, at each step of training, the inputs that mislead it
# most:
#
# $$\min_\theta \frac1N \sum_i \max_{\|\delta\|_\infty \le \epsilon} L\big(f_\theta(x_i + \delta), y_i\big)$$
#
# $\theta$ are the weights. The inner maximum is an attack, the outer minimum is training. Try it on the
# smallest network that reads digits, one linear layer, so that you can look at what it learns:

# %%
seen = torch.as_tensor(digits.extra["train"]).nonzero()[:, 0]
seen = seen[torch.randperm(4000, generator=torch.Generator().manual_seed(0))]
learn_x = torch.as_tensor(digits.images[seen])[:, None] / 255
learn_y = torch.as_tensor(digits.y[seen])
few = learn_x[:1500], learn_y[:1500]

# %%
linear = {}
for epsilon in (0, 0.1):
    torch.manual_seed(0)
    linear[epsilon] = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    options = {"epochs": 6, "batch_size": 125, "learning_rate": 0.01}
    adv.adversarial_fit(linear[epsilon], few, (x, y), epsilon=epsilon, **options)
rows = []
for epsilon, one in linear.items():
    bent_by_one = fgsm(one, images, labels, epsilon=0.1)
    shares = [right(one, rows_, labels) for rows_ in (images, bent_by_one)]
    rows.append((epsilon, *(f"{share:.2f}" for share in shares)))
plots.table(rows, ["trained against", "clean", "FGSM of .1"], title="One linear layer, hardened")

# %%
threes = [one[1].weight[3].detach().reshape(28, 28) for one in linear.values()]
plots.compare(
    threes,
    titles=["plain training", "against attacks of .1"],
    title="The weights of class 3: hardened, they show a three",
    label="weight",
)

# %% [markdown]
# Plain training also gives weight to pixels all around the three: it helps a little now and then, and an
# attacker can use it always. Under attack a weight has to earn more than it costs, since the attacker takes
# $\epsilon$ times its size. What is left looks like a digit. The price: two points of clean accuracy.
#
# ### The digit network
#
# The same for the convolutional network takes minutes, so its weights come with the package:
# `digit_cnn_robust` went on from `digit_cnn` with 16 epochs against attacks of .1. Its rival
# `digit_cnn_noisy` learned under a coin's noise of the same size (data augmentation). You measure:

# %%
nets = {"plain": plain, "noisy": models.digit_cnn_noisy(), "robust": models.digit_cnn_robust()}
attacks = {"noise": noise, "FGSM": fgsm, "PGD": pgd10, "squares": forty}
under = {("plain", "PGD"): bent, ("plain", "squares"): squares}
for name, one in nets.items():
    for kind, attack in attacks.items():
        if (name, kind) not in under:
            under[name, kind] = attack(one, x, y, epsilon=0.1)

# %%
table = pd.DataFrame(
    {
        name: [right(one, images, labels)] + [right(one, under[name, kind], y) for kind in attacks]
        for name, one in nets.items()
    },
    index=["clean, all 1,000", *attacks],
)
table.round(3)

# %% [markdown]
# Read the row of PGD. Noise in training is worth something: it is a defense, a weak one. Training
# against the attack keeps most. Is its gradient hidden? The squares need none and fool fewer, so it
# does not look like it. Attack harder, to be sure, with 20 steps from a random start:

# %%
hard = pgd(nets["robust"], x, y, epsilon=0.1, step_size=0.02, n_steps=20, random_start=True)
robust_accuracy = right(nets["robust"], hard, y)
assert robust_accuracy >= 0.8
print(f"robust network, 20 steps of PGD at .1: {robust_accuracy:.3f} right")
print(f"clean: {table.robust.iloc[0]:.3f}, plain network {table.plain.iloc[0]:.3f}")

# %% [markdown]
# And the price? Among 1,000 clean digits there is none that you could see: two such shares differ by a
# point by chance. (Part of the reason: it trained for longer than `digit_cnn`; its card compares it with
# a network that went on as long without attacks.) The linear layer, which has less room, did pay.
#
# ### Predict, then run (2 minutes)
#
# It was taught $\epsilon = .1$. Which share stays right under PGD at **twice** that, $.2$? Guess from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
double_guess = 0.6
### END SOLUTION

# %%
predict("adversarial.double", double_guess)

# %%
GRID = [0, 0.1, 0.2, 0.3]
kept = {}
for name in ("plain", "robust"):
    attacked = [x, under[name, "PGD"]]
    attacked += [pgd10(nets[name], x, y, epsilon=epsilon) for epsilon in GRID[2:]]
    kept[name] = [right(nets[name], rows, y) for rows in attacked]
plots.curve(
    GRID,
    kept,
    title="It withstands what it was taught, not much more",
    xlabel="epsilon of PGD (taught: .1)",
    ylabel="share of digits still right",
)

# %%
reveal("adversarial.double", round(kept["robust"][2], 2))

# %% [markdown]
# Both curves end at 0. That is a good sign **for the attack**: an attack whose curve never gets there
# probably has a fault (Carlini and others, 2019).
#
# ## 6. Alarms
#
# If the answer cannot be protected, can the attack be noticed? Four detectors; each gives a row one
# number, its suspicion $d$. **None of them is shown an attack**: they know clean digits only.
#
# | detector | suspicious is |
# |---|---|
# | feature squeezing | an answer that changes when the picture is rounded to black and white, or smoothed |
# | Mahalanobis | activations of `relu3` far from the mean of every class, in units of their spread |
# | isolation forest | activations of `relu3` that few random cuts set apart |
# | disagreement | another network, here the vision transformer of [[attention]], that says something else |
#
# Feature squeezing by hand, for the seven and its attacked copy:


# %%
def squeezing(x):
    told = plain(x).softmax(1)
    others = [(x > 0.5).float(), median_smooth(x)]
    return max((told - plain(other).softmax(1)).abs().sum().item() for other in others)


detectors = {"squeezing": adv.FeatureSqueezing(plain)}
for rows in (seven, climbing):
    by_hand = squeezing(rows)
    assert abs(by_hand - detectors["squeezing"].score(rows).item()) < 1e-5
    print(f"{answer(plain, rows)}: suspicion {by_hand:.2f} of 2")

# %%
known = learn_x[:1000], learn_y[:1000]
vit = models.digit_vit()
detectors |= {
    "Mahalanobis": adv.Mahalanobis(plain, "relu3", *known),
    "forest": adv.Isolation(plain, "relu3", known[0]),
    "disagreement": adv.Disagreement([plain, vit]),
}

# %% [markdown]
# Four attacks, and of each those pictures that do fool the network. The clean digits are others than
# those that the detectors know:

# %%
clean = images[100:300]
tries = {
    "FGSM .2": fgsm(plain, half_x, half_y, epsilon=0.2),
    "PGD .1": bent[:50],
    "L2 1.5": far,
    "squares .2": forty(plain, half_x, half_y, epsilon=0.2),
}
fooling = {name: rows[plain(rows).argmax(1) != half_y] for name, rows in tries.items()}
caught = adv.detection_table(detectors, clean, fooling)
caught.auc.unstack().round(2)

# %% [markdown]
# That is the area under the ROC curve: the chance that an attacked digit is more suspicious than a
# clean one; .5 is guessing. Now the whole curves, for the attack that two of the four miss most often:

# %%
rates = torch.linspace(0, 1, 51).tolist()
curves = {}
for name, detector in detectors.items():
    scores = torch.cat([detector.score(clean), detector.score(fooling["L2 1.5"])])
    odd = torch.arange(len(scores)) >= len(clean)
    false, true, _ = roc_curve(odd, scores)
    curves[name] = [true[false <= rate].max() for rate in rates]
plots.curve(
    rates,
    curves,
    title="An alarm that sees one attack may miss the next: L2, length 1.5",
    xlabel="false alarms: share of clean digits",
    ylabel="share of attacks caught",
)

# %% [markdown]
# Mahalanobis looked perfect on FGSM. A smaller change of another kind often passes below it. So a
# detector's figure belongs to the attack that it was measured on, also if it was never trained on any.
#
# ## 7. An attacker who knows the alarm
#
# Until now nobody tried to escape the alarm. An attacker who knows it climbs two hills in turn: mislead
# the network; as soon as another class leads by a margin $\kappa$, go down the suspicion.
#
# $$x' \leftarrow x' + \eta \operatorname{sign} \begin{cases} -\nabla m(x') & -m(x') < \kappa \\
#   -\nabla d(x') & \text{else} \end{cases}$$
#
# $m$ is the true class's lead of section 4, so $-m$ is that of the best *wrong* class. The forest has no
# slope and is left out.

# %%
thresholds = caught.threshold.groupby("detector", sort=False).first()  # 5 % false alarms
some, their_y = x[:20], y[:20]
sly_steps = {"epsilon": 0.2, "step_size": 0.03, "n_steps": 15}


def success(name, rows):
    """Share of digits that fool the network and stay below the alarm's threshold."""
    fooled = plain(rows).argmax(1) != their_y
    return (fooled & (detectors[name].score(rows) <= thresholds[name])).float().mean().item()


# %%
blind = pgd10(plain, some, their_y, epsilon=0.2)
ADAPTIVE = ["Mahalanobis", "squeezing", "disagreement"]
outcome = {"blind PGD": [success(name, blind) for name in ADAPTIVE]}
outcome["knows the alarm"] = []
for name in ADAPTIVE:
    alarm = detectors[name].suspicion
    rows = adv.adaptive_attack(plain, some, their_y, suspicion=alarm, **sly_steps)
    outcome["knows the alarm"].append(success(name, rows))
pd.DataFrame(outcome, index=ADAPTIVE).round(2)

# %% [markdown]
# The table says which share of attacks succeeds. Mahalanobis is beaten, disagreement lets more than half
# through, squeezing stops most. Is squeezing strong, or is the attack weak? Both suspicions are computed
# from *probabilities*, and those are nearly flat where a network is sure: a gradient that hides again. So
# give the attacker a suspicion with a slope: *every voter should name the class that the network names
# now*, as a cross-entropy on logits.


# %%
def agreement(*voters):
    """Suspicion with a slope everywhere: do the voters name what the network names?"""

    def suspicion(x):
        named = plain(x).argmax(1)
        return sum(cross_entropy(voter(x), named) for voter in voters)

    return suspicion


def nearly_black_and_white(x):
    return plain(torch.sigmoid((x - 0.5) / 0.1))  # rounding with a slope, for the attacker


better = {
    "squeezing": agreement(lambda x: plain(median_smooth(x)), nearly_black_and_white),
    "disagreement": agreement(vit),
}

# %%
outcome["knows it well"] = outcome["knows the alarm"][:1]
for name, suspicion in better.items():
    options = {"suspicion": suspicion, "margin": 2.0, **sly_steps}
    rows = adv.adaptive_attack(plain, some, their_y, **options)
    outcome["knows it well"].append(success(name, rows))
beaten = pd.DataFrame(outcome, index=ADAPTIVE)

# %%
assert beaten.loc["Mahalanobis", "knows the alarm"] >= 0.8
assert beaten.loc["disagreement", "knows it well"] >= 0.6
lines = [
    f"{name}: {', '.join(f'{v:.2f} {k}' for k, v in row.items())}"
    for name, row in beaten.iterrows()
]
plots.scoreboard(
    beaten,
    title="Share of attacks that pass, by what the attacker knows",
    xlabel="share that fools the network and stays below the alarm",
    alt=f"Shares of attacks that pass. {'; '.join(lines)}.",
)

# %% [markdown]
# Disagreement falls further. Squeezing holds in most cases, also against this attack. Before you believe in
# it, find out **why**. It has two squeezers; ask them one at a time:

# %%
single = {
    "smoothing alone": adv.FeatureSqueezing(plain, [median_smooth]),
    "black and white alone": adv.FeatureSqueezing(plain, [partial(reduce_bits, bits=1)]),
}
voters = [lambda x: plain(median_smooth(x)), nearly_black_and_white]
for (name, detector), voter in zip(single.items(), voters, strict=True):
    detectors[name] = detector
    thresholds[name] = detector.score(clean).quantile(0.95).item()
    options = {"suspicion": agreement(voter), "margin": 2.0, **sly_steps}
    print(
        f"{name:22} {success(name, adv.adaptive_attack(plain, some, their_y, **options)):.2f} pass"
    )

# %% [markdown]
# Smoothing falls. Rounding to black and white is what holds, and the reason is in the **data**: these
# digits are nearly black and white already, and a step of .2 takes few pixels across the middle. Count,
# and compare with the photo:

# %%
photo = torch.as_tensor(skimage.data.chelsea()) / 255
for name, pixels in (("digits", x), ("the cat's photo", photo)):
    near = ((pixels - 0.5).abs() <= 0.2).float().mean().item()
    print(f"{name:15} a step of .2 can take {near:.0%} of the numbers across .5")

# %% [markdown]
# Whoever reports this alarm as *the detector that works* has measured MNIST.
#
# ### Exercise: a claim from a product page (criticize, 8 minutes)
#
# > *"Our reader of bank checks is safe from adversarial attacks. Under FGSM with epsilon = 0.3 it
# > keeps 96 % of its accuracy, and so does a model in which we quantize the input. Our built-in
# > detector, tuned on FGSM, catches 99.2 % of adversarial examples."*
#
# Which of this would you not believe before you see what? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
FGSM is one step, the weakest attack there is: I would ask for PGD with many steps and random starts, and
for a curve over epsilon that falls to 0, because at .3 a working attack should leave little. That the
quantized model withstands as well points to a hidden gradient: rounding has slope 0, so I would attack
it with a black-box search such as squares, and with the gradient borrowed from the bare network. The
detector was tuned on the attack that it is tested on; I want its ROC on attacks it has not seen, L2 for
example, and the false alarms on clean checks that the 99.2 % cost. And nobody has tried to escape it: an
adaptive attacker, who knows the detector, is the test that counts. An epsilon ball is not all that
happens to a check either: folds, stamps and pens are not in it.
### END SOLUTION
"""

# %%
check("adversarial.claim", criticism)

# %%
quiz("adversarial.q_adaptive")

# %% [markdown]
# ## 8. What happens to the maps
#
# A saliency map ([[saliency]]) is the gradient of one class's logit. Attack the plain network with PGD at .1,
# and draw the map of the class that it names, before and after:


# %%
def named_map(net, x):
    """Saliency of the class that the network names, (N, 1, H, W)."""
    return saliency(net, x, net(x).argmax(1))


before, after = named_map(plain, seven), named_map(plain, climbing)
plots.compare(
    [before[0], after[0]],
    titles=[f"says {answer(plain, seven)}", f"says {answer(plain, climbing)}"],
    title="Another answer, another map",
    label="slope of the named logit",
)


# %% [markdown]
# Reports say: *the attack scrambles the explanation*. Measure it, and ask two more things that such
# reports leave out. Does the map of the **same class** change as well? And what does a coin's noise of
# the same size do?


# %%
def likeness(a, b):
    """Mean correlation of the maps' numbers, row by row."""
    pairs = zip(a.flatten(1), b.flatten(1), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).nanmean().item()


def changes_of_maps(name):
    net, bent, coins = nets[name], under[name, "PGD"], under[name, "noise"]
    named = net(x).argmax(1)
    first = saliency(net, x, named)
    return [
        likeness(first, named_map(net, bent)),
        likeness(first, saliency(net, bent, named)),
        likeness(first, saliency(net, coins, named)),
    ]


maps = pd.DataFrame(
    {name: changes_of_maps(name) for name in ("plain", "robust")},
    index=["attack, class named then", "attack, same class", "a coin's noise, same class"],
)
maps.round(2)

# %% [markdown]
# The first row is the drama in the reports: a different answer gets a different map, as it should. For
# the **same class**, the attack moves the map no more than a coin does. So on this network the map is
# shaky, but it was not the attack that broke it. The robust network's maps stay closer to themselves in
# every row (in the first one also because it seldom changes its answer).
#
# ### Do robust networks have cleaner maps?
#
# It is often said, and shown with three handpicked pictures. First the pictures, then three numbers on
# 100 digits.

# %%
rows = torch.cat([x[6:7], x[0:1], x[21:22]])
pictures = [named_map(nets[name], rows)[i, 0] for name in ("plain", "robust") for i in range(3)]
pictures = [one / one.abs().max() for one in pictures]
plots.compare(
    pictures,
    titles=[f"{name}: {labels_}" for name in ("plain", "robust") for labels_ in (7, 0, 4)],
    title="Above the plain network's maps, below the robust one's",
    label="slope, largest = 1",
)


# %%
def gini(a):
    """0: every pixel counts the same; 1: one pixel has all."""
    values = a.abs().flatten(1).sort(1).values
    n = values.shape[1]
    ranks = 2 * torch.arange(1, n + 1) - n - 1
    return ((ranks * values).sum(1) / (n * values.sum(1))).mean().item()


def roughness(a):
    """Sum of the steps between neighboring pixels, for maps that sum to 1."""
    a = a / a.abs().sum((1, 2, 3), keepdim=True)
    return (a.diff(dim=2).abs().sum((1, 2, 3)) + a.diff(dim=3).abs().sum((1, 2, 3))).mean().item()


# %%
ink = F.max_pool2d(x, 3, stride=1, padding=1)[:, 0] > 0  # the stroke and its neighbors
cleanness = {}
for name, one in nets.items():
    a = named_map(one, x)
    on_ink = relevance_mass_accuracy(a, ink, absolute=True).mean().item()
    cleanness[name] = [on_ink, gini(a), roughness(a)]
index = ["share on the stroke", "Gini (sparse: 1)", "roughness"]
print(f"the stroke and its neighbors are {ink.float().mean():.0%} of the pixels")
pd.DataFrame(cleanness, index=index).round(2)

# %%
assert cleanness["robust"][0] > cleanness["plain"][0] + 0.1
assert cleanness["robust"][1] > cleanness["plain"][1] + 0.05

# %% [markdown]
# Here the saying holds: more of the robust network's map lies on the stroke, and it is sparser. The
# roughness hardly differs, so *smoother* would be too much. And *cleaner* is a statement about the
# **network**: it looks at other pixels, for the reason you saw in the linear weights. It does not make
# the plain network's map a worse account of the plain network.
#
# Explore: tab to the network and the attack, and move epsilon with the arrow keys. Find the smallest
# epsilon at which PGD makes the robust network give up the seven.

# %%
both = {name: nets[name] for name in ("plain", "robust")}
radii = [0, 0.05, 0.1, 0.15, 0.2, 0.3]
widgets.epsilon_slider(both, x[[6, 0, 21]], y[[6, 0, 21]], epsilons=radii)

# %%
progress()

# %% [markdown]
# **You can now**
# - build FGSM, PGD and a black-box attack, and check them against foolbox
# - tell a network that withstands an attack from one that hides its gradient
# - harden a network by training, and measure what that keeps and what it costs
# - test a detector with attacks that it has not seen, and with one that knows it
# - measure what attacks do to saliency maps
#
# ## Takeaways
#
# - Many small changes in the right direction add up. A coin's noise of the same size does little.
# - Robust is a statement about an attack: its norm, its epsilon, its steps, and what it knows. An attack
#   that fails may be a weak attack.
# - Training against attacks keeps most of what it was taught to keep, and the network looks at other
#   pixels. An alarm counts when an attacker who knows it has failed, and you know why.
#
# ## Myth refuted
#
# *"Adversarial examples are noisy pictures, so training with noise protects."* Section 2: noise of the same
# size leaves most digits right where a search leaves few. Section 5: training with noise keeps much less
# than training against the search.
#
# *"The attack scrambles the explanation."* Section 8: for the same class it moves the maps of these
# networks as much as a coin does.
#
# ## Go further
#
# - Goodfellow, Shlens, Szegedy (2015), *Explaining and Harnessing Adversarial Examples*: FGSM, and why
#   linear is enough.
# - Madry, Makelov, Schmidt, Tsipras, Vladu (2018), *Towards Deep Learning Models Resistant to Adversarial
#   Attacks*: PGD and adversarial training.
# - Andriushchenko, Croce, Flammarion, Hein (2020), *Square Attack: a query-efficient black-box adversarial
#   attack via random search*.
# - Athalye, Carlini, Wagner (2018), *Obfuscated Gradients Give a False Sense of Security*; Carlini and
#   others (2019), *On Evaluating Adversarial Robustness*: how defenses deceive their makers.
# - Xu, Evans, Qi (2018), *Feature Squeezing*, and Lee, Lee, Lee, Shin (2018), *A Simple Unified Framework
#   for Detecting Out-of-Distribution Samples and Adversarial Attacks*.
# - Tsipras, Santurkar, Engstrom, Turner, Madry (2019), *Robustness May Be at Odds with Accuracy*: the
#   price, and maps of robust networks.
