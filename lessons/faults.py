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
# # Faults: what breaks a model that works?
#
# **Question:** A network is right 97 times in 100: which group of inputs, which bit of its memory, which dirty lens would break it, and who would tell you?
#
# **You will be able to**
# - find the group of rows on which a model is weak, and tell it from chance
# - flip one bit of one weight by hand, and say beforehand whether it matters
# - measure which bits, layers and spoiled inputs a network bears
# - say what a fault does to an explanation while the accuracy hides it
# - build a monitor with a stated rate of false alarms, and say what it cannot see
#
# **You need:** [[training]] and [[cam]]
#
# **Time:** [[time]]; the cells run in half a minute · **Difficulty:** 3 of 5

# %%
import struct
from contextlib import ExitStack
from time import sleep

import numpy as np
import pandas as pd
import torch
from scipy.stats import binom, ks_2samp, ttest_ind
from skimage.filters import gaussian
from torchvision.transforms.functional import adjust_contrast

from xailab import data, models, plots
from xailab.attribution.cam import grad_cam
from xailab.core import capture
from xailab.core.layers import edited
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.trust import faults
from xailab.trust.faults import Monitor, corrupt, flip_bits, flipped, slices, stuck_at

# %% [markdown]
# The digit network of the earlier lessons, and 1,000 digits that it was not trained on, in random
# order:

# %%
digits, net = data.load("mnist5k"), models.digit_cnn()
held_out = np.random.default_rng(0).permutation(np.flatnonzero(~digits.extra["train"]))
x = torch.tensor(digits.images[held_out] / 255, dtype=torch.float32)[:, None]  # (1000, 1, 28, 28)
y = torch.tensor(digits.y[held_out])


def answers(x):
    """Return the classes; -1 where a logit is NaN or infinite: that is no answer (section 3)."""
    with torch.no_grad():
        logits = net(x)
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def accuracy(x, y):
    return (answers(x) == y).double().mean().item()


print(f"right: {accuracy(x, y):.3f} of {len(x)} digits")

# %% [markdown]
# Now break one of its memory cells: of the 64 x 7 x 7 numbers that the layer `relu3` hands on, hold
# one at 125, nearly the largest that ever occurs there. Count how often the network is right, and ask
# Grad-CAM where it looks, before and after:

# %%
LOWER_LEFT = 42  # row 6, column 0 of 7 x 7
CELL = 17 * 49 + LOWER_LEFT  # of unit 17
some, here = x[:200], {"layer": "relu3", "upsample": False}
given = answers(some)
before = grad_cam(net, some, given, **here)  # (200, 1, 7, 7)
with stuck_at(net, "relu3", value=125.0, at=[CELL]):
    same = answers(some) == given
    broken, after = accuracy(x, y), grad_cam(net, some, given, **here)
moved = same & (after.flatten(1).argmax(1) == LOWER_LEFT)  # the hottest cell is in the corner
error = np.sqrt(broken * (1 - broken) / len(x))
print(f"broken network, right: {broken:.3f}, give or take {error:.3f}")
print(f"same answer, but hottest in the empty corner: {moved.sum()} of {len(some)} maps")

# %%
i = moved.nonzero()[0].item()
plots.compare(
    [before[i], after[i]],
    over=some[i],
    titles=[f"sound: a {given[i]}", f"one cell broken: a {given[i]}"],
    title="The same answer for another reason",
    label="Grad-CAM (logits)",
)

# %% [markdown]
# The test set sees no difference that its own uncertainty would not allow. One map in six points at an
# empty corner. In this lesson you break a network in several ways, and learn which instrument shows which
# fault.
#
# ## 1. Where is it wrong? Slices
#
# One accuracy for all rows is a mean. A model can be right 93 times in 100, and wrong every other time
# for one group of people. To see whether such a group is found, **plant** one. The digits come from
# three scanners and from writers of many ages. One scanner is noisy, but only with the paper that
# writers over 64 use:


# %%
def planted(seed):
    """Return what is known of each digit, which ones are spoiled, and where the network errs."""
    rng = np.random.default_rng(seed)
    columns = {"scanner": list("ABC"), "hand": ["left", "right"], "age": range(18, 80)}
    records = pd.DataFrame({name: rng.choice(list(of), len(x)) for name, of in columns.items()})
    weak = ((records.scanner == "B") & (records.age > 64)).to_numpy(copy=True)
    said = clean.clone()
    said[weak] = answers(corrupt(x[weak], "gaussian_noise", 4, seed=seed))
    return records, weak, (said != y).int().numpy()


clean = answers(x)
records, weak, wrong = planted(seed=0)
print(f"right: {1 - wrong.mean():.3f}; {weak.sum()} digits are spoiled")

# %% [markdown]
# Forget for a moment what was planted. You have a table of 1,000 writers and a column of errors, and
# suspect scanner B. Does it err more often than chance allows? Compare the slice $S$ with all other rows
# $\bar S$ by Welch's t: the difference of the mean errors $\bar e$, in units of its own standard error.
#
# $$t_S = \frac{\bar e_S - \bar e_{\bar S}}{\sqrt{s_S^2 / |S| + s_{\bar S}^2 / |\bar S|}}$$
#
# $s^2$ is the variance of the errors (with $n - 1$), $|S|$ the number of rows.


# %%
def welch(wrong, inside):
    """Welch's t of the errors inside a slice against all other rows."""
    a, b = wrong[inside], wrong[~inside]
    return (a.mean() - b.mean()) / np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))


in_b = (records.scanner == "B").to_numpy()
t = welch(wrong, in_b)
assert np.isclose(t, ttest_ind(wrong[in_b], wrong[~in_b], equal_var=False).statistic)
print(f"wrong: {wrong[in_b].mean():.3f} with B, {wrong[~in_b].mean():.3f} without; t = {t:.1f}")

# %% [markdown]
# scipy's test gives the same number. But scanner B alone is not what was planted. `slices` tries every
# value of every column, **and every pair** of these, and puts the largest t first. Ages are cut so that
# each part holds a quarter of the rows:

# %%
found = slices(wrong, records, k=50)
assert np.isclose(found.t["`scanner` == 'B'"], t)
plots.table(found.head(3)[["n", "error", "rest", "t"]].round(3), title="The weakest slices")

# %% [markdown]
# First stands the pair that was planted, with an age limit near the planted 64; its halves come behind
# it. Was that luck? Plant it anew with five seeds. *Overlap* counts the rows in both groups, found and
# planted, over the rows in either:


# %%
def overlap(seed):
    records, weak, wrong = planted(seed)
    name = slices(wrong, records).index[0]
    member = records.index.isin(records.query(name).index)
    return name, f"{(member & weak).sum() / (member | weak).sum():.2f}"


rows = [(seed, *overlap(seed)) for seed in range(5)]
assert all("scanner` == 'B'" in name and "age` >" in name for _, name, _ in rows)
plots.table(
    rows, ["seed", "first slice", "overlap"], title="The planted slice comes first each time"
)

# %% [markdown]
# ### A real slice
#
# Now without planting. Give the network more to do: a little noise on **all** digits. It makes more
# errors, and they are its own. Describe each digit by what can be measured on the clean picture:


# %%
def described(x):
    """Return a table: the digit, its ink, its width, and its slant (x moves by so much per y)."""
    image, (rows, columns) = x[:, 0].numpy(), np.mgrid[:28, :28]
    mass = image.sum((1, 2), keepdims=True)
    right = columns - (image * columns).sum((1, 2), keepdims=True) / mass
    up = (image * rows).sum((1, 2), keepdims=True) / mass - rows
    slant = (image * right * up).sum((1, 2)) / (image * up**2).sum((1, 2))
    width = (image > 0.5).any(1).sum(1)
    names = [f"{digit}" for digit in y[: len(x)].tolist()]
    return pd.DataFrame({"digit": names, "ink": image.mean((1, 2)), "width": width, "slant": slant})


table = described(x)
noisy = corrupt(x, "gaussian_noise", 2)
said = answers(noisy)
wrong = (said != y).int().numpy()
found = slices(wrong, table, k=3)
plots.table(found[["n", "error", "rest", "t", "p"]].round(4), title="Weak slices under noise")

# %% [markdown]
# The 1 is weak. A 1 has little ink, so you may think that the noise drowns its thin stroke. The second
# line of the table says otherwise: the 1s with little ink err less often than all 1s. Cut them by ink:

# %%
ones = (y == 1).numpy()
names = ["least ink", "less", "more", "most ink"]
quarter = pd.qcut(table.ink[ones], 4, labels=names)
share = pd.Series(wrong[ones], quarter.index).groupby(quarter, observed=True).mean()
plots.bars(
    share, names, title="Under noise, the 1s with most ink fail most", xlabel="share of errors"
)

# %% [markdown]
# A slice says **where** a model is weak, never **why**: the first reason that comes to mind can be wrong.
#
# ### When it lies: who looks at many groups finds a bad one
#
# Tables call a t of more than 1.65 *significant at 5%*. Shuffle the errors among the digits, so that
# no group is weak any more. Then look for the worst of some 40 groups: ten digits times four quarters
# of the slant.

# %%
groups = table.digit + " " + pd.qcut(table.slant, 4, labels=list("1234")).astype(str)
members = [(groups == name).to_numpy() for name in groups.unique()]
members = [inside for inside in members if inside.sum() >= 10]

rng = np.random.default_rng(0)
shuffled = [rng.permutation(wrong) for _ in range(20)]
naive = sum(max(welch(errors, inside) for inside in members) > 1.65 for errors in shuffled)
honest = sum(len(slices(errors, table)) > 0 for errors in shuffled)
print(f"of 20 tables without a weak slice: t > 1.65 finds one in {naive}, `slices` in {honest}")
assert naive > 3 > honest

# %% [markdown]
# One harmless group passes the 5% line now and then; the worst of 40 does so far more often than 5 times
# in 100. `slices` looks at hundreds of groups, and adjusts its p-values for that (Benjamini, Hochberg
# 1995). The other side of the coin: ask it about the clean digits, where errors are few.

# %%
real = (clean != y).int().numpy()
print(f"{real.sum()} errors on clean digits: {len(slices(real, table))} weak slices")

# %% [markdown]
# So few errors show no weak slice. That is an honest answer, and not the same as *there is none*.
#
# ## 2. One number, 32 bits
#
# The network's memory is 23,946 numbers of 32 bits. Take one, 0.15625, which is $1.25 \cdot 2^{-3}$. Bit 31
# is the **sign** $s$. Bits 30 to 23 are the **exponent** $e$, a whole number from which 127 is taken. Bits
# 22 to 0 are the **fraction** $f$, behind a one that is not stored:
#
# $$v = (-1)^s \cdot 2^{e - 127} \cdot (1 + f)$$

# %%
# NBVAL_CHECK_OUTPUT
(whole,) = struct.unpack(">I", struct.pack(">f", 0.15625))  # the same 32 bits as a whole number
bits = f"{whole:032b}"
print("sign", bits[0], " exponent", bits[1:9], " fraction", bits[9:])
s, e, f = int(bits[0]), int(bits[1:9], 2), int(bits[9:], 2) / 2**23
print(f"s = {s}, e = {e}, f = {f}: v = {(-1) ** s * 2.0 ** (e - 127) * (1 + f)}")

# %% [markdown]
# ### Exercise: flip a bit (code, 8 minutes)
#
# A particle from space turns one bit over: 0 becomes 1, or 1 becomes 0. In whole numbers that is *exclusive
# or* with a one at that place: `0b0101 ^ (1 << 3)` is `0b1101`. Write `flip(value, bit)`: the float32
# after its bit 0...31 was flipped. Use `struct` as above, there and back. `hint("faults.flip")` helps.


# %% tags=["exercise"]
def flip(value, bit):
    """Return the float32 `value` after one bit (0 = lowest of the fraction) was flipped."""
    ### BEGIN SOLUTION
    (whole,) = struct.unpack(">I", struct.pack(">f", value))
    return struct.unpack(">f", struct.pack(">I", whole ^ (1 << bit)))[0]
    ### END SOLUTION


# %%
check("faults.flip", flip)

# %% [markdown]
# The package flips whole tensors; numpy does it by looking at the same bytes as whole numbers. All 32
# flips, and they agree:

# %%
# NBVAL_CHECK_OUTPUT
number = torch.tensor([0.15625])
ours = torch.cat([flipped(number, bit) for bit in range(32)])  # (32,)
whole = np.float32(0.15625).view(np.uint32)
theirs = (whole ^ (np.uint32(1) << np.arange(32, dtype=np.uint32))).view(np.float32)
assert np.array_equal(ours.numpy(), theirs)
names = faults.bit_names()
rows = [(bit, names[bit], f"{ours[bit].item():.6g}") for bit in (31, 30, 29, 24, 23, 22, 0)]
plots.table(rows, ["bit", "what it is", "0.15625 becomes"], title="One number, seven flips")

# %% [markdown]
# Look at bit 30. Bit $k$ of the exponent (bit $23 + k$ of the number) is worth $2^k$: a flip multiplies by
# $2^{2^k}$ where the bit was 0, and divides where it was 1. For bit 30 that is $2^{128}$, for bit 29 still
# $2^{64}$; yet bit 29 made the number tiny, and bit 30 gigantic. Count how often each exponent bit is set
# in all weights of the network:

# %%
weights = torch.cat([p.detach().flatten() for p in net.parameters()])
integers = weights.view(torch.int32)
share = [((integers >> bit) & 1).float().mean() for bit in range(30, 22, -1)]
plots.bars(
    share,
    [f"bit {bit}" for bit in range(30, 22, -1)],
    title="In every weight bit 30 is 0 and waits to be set",
    xlabel="share of weights in which the bit is 1",
)

# %% [markdown]
# All weights are smaller than 2: bit 30 is 0. In all but a few, bits 29 to 27 are 1. So a flip of bit 30
# sets a one and makes the weight gigantic. A flip of bits 29 to 27 takes a one away and makes it
# practically zero, and one weight of thousands should not be missed.
#
# ## 3. Faults in a network
#
# `flip_bits` breaks a layer inside a `with` block and repairs it on leaving, also after an error:

# %%
place = 8 * 64 + 30  # row 8, column 30 of the last layer: it leads to the answer 8


def report():
    print(f"weight {net.fc.weight[8, 30]:10.4g}, right {accuracy(some, y[:200]):.3f}")


report()
with flip_bits(net, "fc", bit=30, at=[place]):
    report()
report()

# %% [markdown]
# Now for nine bits and each layer: flip the bit in one weight drawn at random, count how much accuracy is
# lost, and take the mean over five draws. An answer that is not a number counts as wrong. In the table,
# *exponent 7* is bit 30:

# %%
LAYERS = ["conv1", "conv2", "conv3", "fc"]
few, right = x[:100], y[:100]
BITS = [31, 30, 29, 28, 25, 24, 23, 22, 0]
damage = faults.damage_table(net, few, right, layers=LAYERS, bits=BITS, n_repeats=5, batch_size=100)
plots.cells(
    damage.mean,
    title="One flipped bit in one weight: only bit 30 ruins the network",
    label="lost accuracy, mean of 5",
    xlabel="layer",
    ylabel="flipped bit",
)

# %% [markdown]
# Two things to see. All lines but one are dark: of the bits tried, only bit 30 ruins it; others cost a few
# points at worst, as far as five draws can tell. And in the line of bit 30, the layers differ. Does `conv3` really
# bear a flip better than `conv2`?
#
# ### Predict, then run (2 minutes)
#
# Behind both layers stands a ReLU. A flip makes a weight of -0.1 in them $-3 \cdot 10^{37}$, and one of
# +0.1 as large upwards. Guess the share of digits that the network still gets right, in the mean, after
# bit 30 of a *negative* weight of `conv2` or `conv3` was flipped.

# %% tags=["exercise"]
### BEGIN SOLUTION
negative_share = 0.97
### END SOLUTION

# %%
predict("faults.negative", negative_share)


# %%
def bit_30(layer, positive):
    """Mean accuracy after bit 30 of one of six weights with this sign was flipped."""
    weight = getattr(net, layer).weight.detach().flatten().numpy()
    fits = ((weight > 0) == positive) & (np.abs(weight) < 1)
    places = np.random.default_rng(0).permutation(np.flatnonzero(fits))[:6]
    found = []
    for place in places:
        with flip_bits(net, layer, bit=30, at=[place]):
            found.append(accuracy(few, right))
    return float(np.mean(found))


by_sign = {layer: (bit_30(layer, False), bit_30(layer, True)) for layer in LAYERS}

# %%
reveal("faults.negative", round(np.mean([by_sign["conv2"][0], by_sign["conv3"][0]]), 2))
rows = [(layer, *(f"{value:.2f}" for value in pair)) for layer, pair in by_sign.items()]
columns = ["layer", "right, weight was < 0", "right, weight was > 0"]
plots.table(rows, columns, title="The sign of the weight decides")

# %% [markdown]
# A gigantic positive weight floods everything behind it. A gigantic negative one drives its unit below
# zero, **the ReLU cuts it off**, and one unit of many is dead. In `fc` there is no ReLU behind: there a
# negative flip removes one answer. (Weights beyond 1 in size were left out: their exponent becomes all
# ones, which means infinite or not a number, whatever the sign.)
#
# So what were the five weights of `conv3` that were hit in the picture?

# %%
before = net.conv3.weight.detach().flatten().clone()
for seed in range(5):
    with flip_bits(net, "conv3", bit=30, seed=seed):
        hit = (net.conv3.weight.detach().flatten() != before).nonzero().item()
        print(f"draw {seed}: {before[hit]:6.3f}, right {accuracy(few, right):.2f}")

# %% [markdown]
# One of five was positive: the dark cell of `conv3` is a lucky draw, not a property of the layer. A mean
# over five coin tosses is no safety figure. Ask for the worst case too:

# %%
worst = pd.DataFrame(
    {"mean": damage.mean.loc["exponent 7"], "worst": damage.worst.loc["exponent 7"]}
)
plots.table(worst.round(2), title="Bit 30: lost accuracy")

# %%
quiz("faults.q_format")

# %% [markdown]
# ### When it lies: an answer that is not a number
#
# Flip bit 30 of a positive weight of `conv1` and look at the logits, and at what a program makes of
# them that only asks for the largest:

# %%
first = int((net.conv1.weight.flatten() > 0).nonzero()[0])
with flip_bits(net, "conv1", bit=30, at=[first]), torch.no_grad():
    logits = net(some)
print("numbers that are NaN:", f"{logits.isnan().float().mean():.0%}")
print("answers given:", logits.argmax(1).unique().tolist())

# %% [markdown]
# `argmax` of nothing but NaN is 0, without any complaint. The network seems to read zeros. This is why
# `damage_table` counts a row with a NaN as wrong, and why your program should.
#
# ### Activations, and values that are stuck
#
# Weights lie in memory, activations pass through. A flip there hits one number of a layer's output, at
# the same place in every row. Behind a ReLU many numbers are 0; one with bit 30 flipped becomes 2:

# %%
assert flipped(torch.zeros(1), 30) == 2
OUTPUTS = ["relu1", "relu2", "relu3", "gap"]
options = {"bits": [31, 30, 29, 26, 23], "n_repeats": 4, "where": "activation"}
in_flight = faults.damage_table(net, few, right, layers=OUTPUTS, batch_size=100, **options)
plots.cells(
    in_flight.mean,
    title="Activations: behind the average, every high bit hurts",
    label="lost accuracy, mean of 4",
    xlabel="output of",
    ylabel="flipped bit",
)

# %% [markdown]
# `gap` hands 64 numbers to the last layer, each the mean of a whole map: there even lower exponent bits
# hurt.
#
# A **stuck-at** fault is the other classic of hardware testing: a bit, or a number, that never changes. A
# stuck bit hurts only where it is not so already. You know bit 30 of the weights: it is 0 in all of them.

# %%
for value in (0, 1):
    with stuck_at(net, "conv2", value=value, bit=30, where="weight", n_faults=100):
        print(f"bit 30 of 100 weights stuck at {value}: right {accuracy(few, right):.2f}")

# %% [markdown]
# Now whole numbers: the 64 of `gap`. Hold more and more of them at 0 (dead) or at 50 (three times as much
# as any of them reaches):

# %%
with capture(net, "gap") as pooled, torch.no_grad():
    net(some)
print(f"largest number that gap hands on: {pooled['gap'].max():.0f}")
counts = [1, 2, 4, 8, 16, 32]


def stuck(value):
    found = []
    for n in counts:
        for seed in range(3):
            with stuck_at(net, "gap", value=value, n_faults=n, seed=seed):
                found.append(accuracy(few, right))
    return np.reshape(found, (len(counts), 3)).mean(1)


plots.curve(
    counts,
    {"stuck at 0": stuck(0.0), "stuck at 50": stuck(50.0)},
    title="A silent unit is borne, a shouting one is not",
    xlabel="units of 64 that are stuck",
    ylabel="share right",
)

# %% [markdown]
# ### A cure: nobody may shout louder than ever before
#
# The flood is worse than the silence. So note the largest activation of each ReLU on good digits, and cut
# off at that value whatever is larger (Hoang and others 2020; Chen and others 2021). Does it help against
# bit 30?

# %%
RELUS = ["relu1", "relu2", "relu3"]
with capture(net, RELUS) as seen, torch.no_grad():
    net(x[500:])
top = {layer: float(output.max()) for layer, output in seen.items()}


def guarded():
    """Cut each ReLU at the largest value seen, inside a `with` block."""
    stack = ExitStack()
    for layer, limit in top.items():
        cut = lambda a, limit=limit: a.nan_to_num(0, posinf=limit).clamp(max=limit)  # noqa: E731
        stack.enter_context(edited(net, layer, cut))
    return stack


# %%
found = []
for layer in LAYERS:
    for seed in range(6):
        with flip_bits(net, layer, bit=30, seed=seed):
            bare = accuracy(few, right)
            with guarded():
                found.append((layer, bare, accuracy(few, right)))
cured = pd.DataFrame(found, columns=["layer", "bare", "guarded"]).groupby("layer").mean()
plots.table(cured.round(2), title="Share right after bit 30 of one weight, mean of 6")

# %% [markdown]
# One comparison per number rescues much of what early layers lose. In `conv3` it does little: the limit is
# the largest number in any cell, and a unit that holds it in all cells still shouts like the one stuck at 50.
# And `fc` has nothing behind it that could be cut.
#
# ### Exercise: a claim from a report (criticize, 8 minutes)
#
# > *"We flipped 1,000 random bits, one at a time, in the weights of our network for a car's camera. The
# > accuracy on the test set fell by 1% on average. The network is therefore robust against memory
# > errors, and the car needs no memory with error correction."*
#
# What does the average hide, and what would you ask for? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
Most of the 32 bits do nothing, so the mean over random bits is small whatever the worst does: bit 30, one
in 32, can take all the accuracy, and half of its hits are saved by a ReLU. I would ask for a
table by bit and layer, with the worst case beside the mean, and for how the answers fail: NaN, one class
for everything, or one class that is never found. A fault in the last layer can remove one answer, say
pedestrians, and hardly move the accuracy, so I want the errors by class and slice. Bits in activations,
several flips at once and flips that stay for hours were not tested. The risk also needs the rate of flips
per hour and the number of cars. A limit on the activations and error correction for the high
exponent bits alone would be cheap.
### END SOLUTION
"""

# %%
check("faults.report", criticism)

# %% [markdown]
# ## 4. What a fault does to an explanation
#
# Three faults that leave most answers as they are. The first kills, by the exponent of a negative weight,
# the unit of `conv3` that does most of the work. The second is the stuck cell from the top of this lesson.
# The third is the flip in `fc` from section 3.

# %%
unit = int((pooled["gap"].flatten(1).mean(0) * net.fc.weight.detach().std(0)).argmax())
row = net.conv3.weight[unit].detach().flatten()  # (288,): 32 x 3 x 3 weights
lowest = unit * 288 + int(torch.where(row > -1, row, 0.0).argmin())  # below -1 it becomes NaN
FAULTS = {
    "exponent flip, conv3": lambda: flip_bits(net, "conv3", bit=30, at=[lowest]),
    "stuck cell, relu3": lambda: stuck_at(net, "relu3", value=125.0, at=[CELL]),
    "exponent flip, fc": lambda: flip_bits(net, "fc", bit=30, at=[place]),
}


# %%
def look():
    """All answers, and for 200 digits Grad-CAM of what the sound network answered, (200, 49)."""
    return answers(x), grad_cam(net, some, given, **here).flatten(1)


def alike(a, b):
    """Correlation of the maps, row by row; 0 for an empty map."""
    a, b = (heat - heat.mean(1, keepdim=True) for heat in (a, b))
    return torch.nan_to_num((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)), nan=0.0)


sound_maps = look()[1]
seen_by = {}
for name, fault in FAULTS.items():
    with fault():
        seen_by[name] = look()

# %%
rows = []
for name, (said, maps) in seen_by.items():
    same, share = said[:200] == given, (said == y).float().mean()
    corner = (maps[same].argmax(1) == LOWER_LEFT).float().mean()
    r = alike(sound_maps, maps)[same]
    rows.append(
        (name, *(f"{v:.2f}" for v in (share, same.float().mean(), r.mean(), r.min(), corner)))
    )
columns = ["fault", "right", "same answer", "map alike", "least alike", "hottest in the corner"]
plots.table(rows, columns, title="Maps where the answer stayed the same")

# %%
said, maps = seen_by["exponent flip, conv3"]
i = int(torch.where(said[:200] == given, alike(sound_maps, maps), 1.0).argmin())
plots.compare(
    [sound_maps[i].view(7, 7), maps[i].view(7, 7)],
    over=some[i],
    titles=["sound", "exponent flip, conv3"],
    title=f"Still a {given[i]}, though the hottest place is gone",
    label="Grad-CAM (logits)",
)

# %% [markdown]
# Read the table line by line. The killed unit costs some accuracy. Where the answer stays, most maps stay
# much the same; the picture shows the one that changed most. The stuck cell costs nothing that a test set
# could show, and yet draws the hottest cell of every sixth map or so into an empty corner: **the accuracy
# hides it, the explanation does not**. The flip in `fc` is the opposite: wherever the answer stayed, the map
# is as it was, since Grad-CAM asks only how the answer given came about. Which instrument shows that one?
# You have used it already; the last table of this lesson tells.
#
# ## 5. Spoiled inputs
#
# Now the network is sound and the world is not: noise in the dark, a wet lens, a bad cable. `corrupt` has
# seven such kinds at five severities, after the usual benchmark (Hendrycks, Dietterich 2019). At
# severity 3:

# %%
plots.images(
    [x[i], *(corrupt(x[i : i + 1], kind, 3)[0] for kind in faults.CORRUPTIONS)],
    titles=["clean", *(kind.replace("_", " ") for kind in faults.CORRUPTIONS)],
    title="You read all of them",
)

# %% [markdown]
# Two of the seven by hand, and by other libraries. Contrast draws all pixels towards the mean, blur is a
# weighted mean of neighbors:

# %%
one = x[:1]
by_hand = (one.mean() + 0.2 * (one - one.mean())).clamp(0, 1)
torch.testing.assert_close(corrupt(one, "contrast", 3), by_hand)
torch.testing.assert_close(by_hand, adjust_contrast(one, 0.2))  # torchvision
sigma = 0.03 * 28
theirs = gaussian(one[0, 0].numpy(), sigma=sigma, mode="nearest", truncate=4)  # scikit-image
np.testing.assert_allclose(corrupt(one, "gaussian_blur", 3)[0, 0], theirs, atol=2e-3)

# %% [markdown]
# ### Predict, then run (2 minutes)
#
# Which kind costs most accuracy at severity **2**? Write its name as in `faults.CORRUPTIONS`.

# %% tags=["exercise"]
### BEGIN SOLUTION
worst_kind = "impulse_noise"
### END SOLUTION

# %%
predict("faults.kind", worst_kind)

# %%
part, of = x[:200], y[:200]
curves = {
    kind: [accuracy(part, of), *(accuracy(corrupt(part, kind, s), of) for s in range(1, 6))]
    for kind in faults.CORRUPTIONS
}
reveal("faults.kind", min(curves, key=lambda kind: curves[kind][2]))
plots.curve(
    range(6),
    {kind.replace("_", " "): curve for kind, curve in curves.items()},
    title="Up to severity 4, a gray background costs most",
    xlabel="severity (0 = clean)",
    ylabel="share right",
)

# %% [markdown]
# Brightness and contrast make the background gray, which is nothing to you. The network has never seen
# that: all its training digits stand on 0. Once you know the reason, the cure is one line, without
# training: stretch every picture to 0..1.


# %%
def stretched(x):
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return (x - low) / (high - low)


for kind in ("brightness", "contrast", "gaussian_noise"):
    spoiled = corrupt(part, kind, 3)
    print(f"{kind:15} {accuracy(spoiled, of):.2f} -> {accuracy(stretched(spoiled), of):.2f}")

# %% [markdown]
# It does nothing for noise; that would take training with noisy digits.
#
# ## 6. A guard beside the running model
#
# In use there are no labels, so nobody sees the accuracy fall. What can be seen without labels? How far
# an input is from all known ones, how many units leave the range they had, how sure the answer is, and how
# long it took. A monitor notes these on good rows, and compares each new batch with them.
#
# Two samples of numbers are compared by the **Kolmogorov-Smirnov** distance: draw both cumulative shares
# and take the largest gap.
#
# $$D = \sup_v \big|F_\text{now}(v) - F_\text{reference}(v)\big|$$
#
# $F(v)$ is the share of the sample at or below $v$. With numbers for paper: now $1, 2$;
# reference $2, 3, 4, 5$. At $v = 2$, all of now and a quarter of the reference lie at or below: the gap
# is $\frac34$, the largest.
#
# ### Exercise: the distance (code, 8 minutes)
#
# Write `ks_distance(now, reference)`. The gap can only be largest at one of the numbers themselves.


# %% tags=["exercise"]
def ks_distance(now, reference):
    """Largest gap between the cumulative shares of two samples, (n,) and (m,)."""
    ### BEGIN SOLUTION
    values = np.concatenate([now, reference])
    shares = [
        np.searchsorted(np.sort(of), values, side="right") / len(of) for of in (now, reference)
    ]
    return np.abs(shares[0] - shares[1]).max()
    ### END SOLUTION


# %%
check("faults.ks", ks_distance)

# %% [markdown]
# Now on the network. Good rows are 500 digits: the first half gives the known inputs and the ranges, the
# second half the three distributions to compare with. A batch is 25 digits. The alarm limit for a promise
# of 2% false alarms a batch is divided by the three tests: any of them may raise.

# %%
SIZE, PROMISE = 25, 0.02


def guard_of(seed, **options):
    """Return a monitor that has seen 500 digits, and the other 500 with their labels."""
    order = torch.tensor(np.random.default_rng(seed).permutation(len(x)))
    reference, stream = x[order[:500]], x[order[500:]]
    options = {"layers": RELUS, "false_alarms": PROMISE, "slack": 50.0, **options}
    return Monitor(net, **options).fit(reference, batch_size=SIZE), reference, stream


guard, reference, stream = guard_of(seed=0)
print("alarms:", guard.observe(stream[:SIZE]))

# %% [markdown]
# No alarm. Its p-value of the confidence is what you get by hand with scipy:


# %%
def confidence(x):
    with torch.no_grad():
        return net(x).double().softmax(1).amax(1).numpy()


by_hand = ks_2samp(confidence(stream[:SIZE]), confidence(reference[250:])).pvalue
assert np.isclose(by_hand, guard.history.p_confidence.iloc[-1], rtol=1e-6)
print(f"p of the confidence: {by_hand:.2f}")

# %% [markdown]
# ### Does it keep its promise?
#
# Five monitors with five references; each sees 20 batches in which nothing is wrong. Count the alarms:

# %%
guards = [guard_of(seed) for seed in range(5)]
calm = [bool(guard.observe(batch)) for guard, _, stream in guards for batch in stream.split(SIZE)]
most = int(binom.ppf(0.975, len(calm), PROMISE))
print(f"{sum(calm)} false alarms in {len(calm)} batches; up to {most} would fit the promised 2%")
assert sum(calm) <= most

# %% [markdown]
# Read that as what it is: the five streams are drawn from the same 1,000 digits, so they are no five
# independent tries, and the three tests share the promise so cautiously that fewer alarms than 2% are usual.
#
# ### Does it raise?
#
# Now plant a drift: from one batch to the next, all digits are corrupted at severity 3. After how many
# batches does each of the five raise? A dash: not within six. Beside it, what the drift costs:


# %%
def first_alarm(guard, batches):
    """Return the number of the first batch with an alarm, or a dash."""
    return next((str(n) for n, batch in enumerate(batches, 1) if guard.observe(batch)), "-")


def delays(kind, severity, guards=guards, within=6):
    found = []
    for guard, _, stream in guards:
        spoiled = corrupt(stream[: within * SIZE], kind, severity)
        found.append(first_alarm(guard, spoiled.split(SIZE)))
    return found


# %%
raised = {kind: delays(kind, 3) for kind in faults.CORRUPTIONS}
rows = [(kind, f"{curves[kind][3]:.2f}", " ".join(raised[kind])) for kind in raised]
costly = [kind for kind in raised if curves[kind][3] < 0.9]
assert all(delay in {"1", "2"} for kind in costly for delay in raised[kind])
plots.table(rows, ["drift", "share right", "first alarm in batch"], title="Five monitors each")

# %% [markdown]
# Where the drift leaves fewer than 9 in 10 right, every monitor raises within two batches. Shot noise costs
# next to nothing, and is seen late, by some not at all. Watch one guard while a lens slowly goes out of
# focus, after ten good batches:

# %%
guard, _, stream = guards[0]
start = len(guard.history)
for n, batch in enumerate(stream.split(SIZE)):
    guard.observe(corrupt(batch, "gaussian_blur", (n - 8) // 2) if n >= 10 else batch)
p = guard.history.iloc[start:][["p_input", "p_activation", "p_confidence"]]
plots.curve(
    range(1, len(p) + 1),
    {**{name[2:]: p[name].clip(lower=1e-12) for name in p}, "limit": [PROMISE / 3] * len(p)},
    title="From batch 11 the lens goes out of focus: all three signals fall",
    xlabel="batch",
    ylabel="p-value",
    log=True,
)

# %% [markdown]
# The distance of the inputs crosses the limit first, at severity 2, which has cost little accuracy yet.
#
# The fourth signal is time. Its limit is no test but a multiple, `slack`, of the slowest reference batch,
# because other programs slow the machine down as well. Let a layer take a nap:


# %%
def nap(output):
    sleep(1.0)
    return output


guard, _, stream = guard_of(seed=0, slack=3.0)
with edited(net, "fc", nap):
    alarms = guard.observe(stream[:SIZE])
print("latency alarm:", "latency" in alarms)

# %%
quiz("faults.q_rate")

# %% [markdown]
# ### When it lies: alarms without harm, harm without alarm
#
# Two tries. First only ones, clean, as the network knows them. Then the faults of section 4. How many of
# the five guards raise on one batch?


# %%
def raising(batch_of):
    """Return how many of the five guards raise, and by which signals."""
    alarms = [guard.observe(batch_of(stream)) for guard, _, stream in guards]
    names = sorted({name for alarm in alarms for name in alarm})
    return f"{sum(map(bool, alarms))} of 5", ", ".join(names) or "-"


ones = x[y == 1][:SIZE]
n, by = raising(lambda _: ones)
print(f"only ones, {accuracy(ones, y[y == 1][:SIZE]):.0%} right: {n} guards raise, by {by}")


# %%
def weakest(said):
    """Return the weakest slice, or a dash."""
    found = slices((said != y).int().numpy(), table, k=1)
    return f"{found.index[0]}: {found.error.iloc[0]:.2f} wrong" if len(found) else "-"


rows = []
for name, fault in FAULTS.items():
    said, maps = seen_by[name]
    share = (said == y).float().mean()
    r = alike(sound_maps, maps)[said[:200] == given].mean()
    with fault():
        n, by = raising(lambda stream: stream[:SIZE])
    rows.append((name, f"{share:.3f}", weakest(said), f"{r:.2f}", f"{n} ({by})"))
columns = ["fault", "right", "weakest slice", "map alike", "guards that raise"]
plots.table(rows, columns, title="Four instruments, and each is blind to something")

# %% [markdown]
# *Only ones* is a perfect day for the network, and the guards raise: an alarm says *this is not what I
# was fitted on*, not *the answers are wrong*. (For the same reason fit it on shuffled rows.) The stuck
# cell, which accuracy and slices hid, is seen in the activations. But the flip in `fc`, which removed a whole
# answer, passes: inputs are as ever, activations are as ever, and the answers are as sure as ever. Only
# labels show it.
#
# No instrument sees all. And none of them would see a change of what the labels *mean*: where a 1 is
# from now on to be read as a 7, all four signals stay as they are.

# %%
progress()

# %% [markdown]
# **You can now**
# - find the group of rows on which a model is weak, and tell it from chance
# - flip one bit of one weight by hand, and say beforehand whether it matters
# - measure which bits, layers and spoiled inputs a network bears
# - say what a fault does to an explanation while the accuracy hides it
# - build a monitor with a stated rate of false alarms, and say what it cannot see
#
# ## Takeaways
#
# - A mean hides: over rows (slices), over bits (one in 32 kills), over draws (the sign of a weight
#   decides). Ask for the worst beside it.
# - Size is what breaks a network: a flooded unit ruins it, a silent one is borne. A limit on the
#   activations is a cheap guard.
# - A monitor without labels promises a rate of false alarms, not safety: it raises where things look
#   different, and keeps quiet where they only *are* different.
#
# ## Myth refuted
#
# *"The accuracy on the test set has not moved, so the network is intact."* The stuck cell of section 4
# moves no accuracy, and draws one map in six into an empty corner; the monitor sees it at once.
#
# *"Networks are robust: random bit flips do nothing."* In the mean they do little, for 31 of a weight's
# 32 bits do next to nothing. Section 3: bit 30 of one positive weight takes nearly everything.
#
# ## Go further
#
# - Chung, Kraska, Polyzotis, Tae, Whang (2020), *Automated Data Slicing for Model Validation: A Big Data -
#   AI Integration Approach*: how slices are searched in large tables.
# - Li and others (2017), *Understanding Error Propagation in Deep Learning Neural Network (DNN)
#   Accelerators and Applications*: bits, layers and number formats on real accelerators.
# - Hoang, Hanif, Shafique (2020), *FT-ClipAct: Resilience Analysis of Deep Neural Networks and Improving
#   their Fault Tolerance using Clipped Activation*, and Chen, Li, Pattabiraman (2021), *A Low-cost Fault
#   Corrector for Deep Neural Networks through Range Restriction*: the cure of section 3.
# - Hendrycks, Dietterich (2019), *Benchmarking Neural Network Robustness to Common Corruptions and
#   Perturbations*: kinds and severities of section 5.
# - Rabanser, Günnemann, Lipton (2019), *Failing Loudly: An Empirical Study of Methods for Detecting Dataset
#   Shift*: what a test on a batch can and cannot detect.
