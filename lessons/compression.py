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
# # Compression: is the small network the same network?
#
# **Question:** A network is made four times smaller and decides nearly as before: is what you know about it still true?
#
# **You will be able to**
# - prune and quantize a network by hand
# - measure whether the explanations of a compressed network are still those of the original
# - say what a rank correlation is worth, by comparing it with that of strangers
# - test the claim that a smaller network is easier to explain, where the answer is known
#
# **You need:** [[saliency]] and [[cam]]
#
# **Time:** [[time]] · **Difficulty:** 3 of 5

# %%
from copy import deepcopy

import numpy as np
import torch
from scipy.stats import spearmanr

from xailab import data, models, plots
from xailab.attribution.saliency import input_x_gradient, saliency
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.localization import pointing_game
from xailab.models.training import fit
from xailab.simplify import compress
from xailab.simplify.compress import size_on_disk
from xailab.simplify.distill import explanation_agreement

# %% [markdown]
# The network of this lesson reads handwritten digits. It is small already: 24,000 numbers.


# %%
def tensors(images, y):
    return torch.as_tensor(np.asarray(images, dtype=np.float32))[:, None], torch.as_tensor(y)


digits = data.load("mnist5k")
learn = digits.extra["train"]  # 4,000 to learn from, 1,000 to measure on
train = tensors(digits.images[learn] / 255, digits.y[learn])
test = tensors(digits.images[~learn] / 255, digits.y[~learn])
few = test[0][::10], test[1][::10]  # 100 of them, ten of each digit, in order


def right(model):
    with torch.no_grad():
        return (model(test[0]).argmax(1) == test[1]).double().mean().item()


net = models.digit_cnn()
print(f"{size_on_disk(net)} bytes on disk, {right(net):.1%} right")

# %% [markdown]
# **Pruning** sets weights to zero; **fine-tuning** trains what is left a little longer; **quantization**
# rounds weights to fewer bits. Here is where it ends: three networks that all see a 7. Red pixels speak for
# the 7 when they get brighter, blue ones against it. Which map has stayed as it was?


# %%
def fine_tuned(model, part=train):
    """Train for one round; weights that are zero stay zero. `few` is only measured."""
    with compress.keep_zeros(model):
        fit(model, part, few, epochs=1, learning_rate=2e-3)
    return model


tuned = fine_tuned(compress.prune(net, 0.8))
seven, SEVEN = test[0][test[1] == 7][:1], 7
three = [net, tuned, compress.quantize(net)]
plots.compare(
    [saliency(each, seven, SEVEN) for each in three],
    titles=["original", "80% pruned, fine-tuned", "int8"],
    shared=False,
    title=f"Three networks say {[each(seven).argmax().item() for each in three]}: for one reason?",
)

# %% [markdown]
# ## 1. Magnitude pruning: the smallest weights go
#
# A weight near zero adds next to nothing. **Magnitude pruning** sorts all weights by size, signs aside, and
# sets the smallest to zero; the share of zeros is the **sparsity**:
#
# $$w_i \leftarrow 0 \quad\text{where}\quad |w_i| \le \tau$$
#
# $w_i$ runs through the weights of all layers; $\tau$ is the threshold below which the share lies that
# you want to lose.
#
# ### Exercise: the threshold (code, 3 minutes)
#
# One threshold serves all tensors. Of eight weights, a share of 3/8 loses the three smallest; the third of
# them is $\tau$. (`hint("compression.threshold")` helps.)


# %% tags=["exercise"]
def threshold(weights, amount):
    """The size up to which this share of all numbers in the tensors lies; 0 if none is to go."""
    ### BEGIN SOLUTION
    sizes = torch.cat([weight.abs().flatten() for weight in weights]).sort().values
    count = round(amount * len(sizes))
    return sizes[count - 1].item() if count else 0.0
    ### END SOLUTION


# %%
check("compression.threshold", threshold)

# %% [markdown]
# ### Exercise: prune (code, 2 minutes)
#
# Now the copies, with zeros.


# %% tags=["exercise"]
def my_prune(weights, amount):
    """Copies of the tensors, this share of all their numbers zero: the smallest in size."""
    ### BEGIN SOLUTION
    tau = threshold(weights, amount)
    return [weight * (weight.abs() > tau) for weight in weights]
    ### END SOLUTION


# %%
check("compression.prune", my_prune)

# %% [markdown]
# `compress.prune` does this for a whole network. How far can you go?

# %%
amounts = [0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
pruned = {amount: compress.prune(net, amount) for amount in amounts}
accuracy = {amount: right(each) for amount, each in pruned.items()}
print(", ".join(f"{amount:.0%} zeros: {share:.1%} right" for amount, share in accuracy.items()))

# %% [markdown]
# Half of the weights are hardly missed; without four fifths it fails.
#
# ### Predict, then run (1 minute)
#
# Save the network with 80% zeros to disk. How large is its file, as a share of the original's (0 to 1)?

# %% tags=["exercise"]
### BEGIN SOLUTION
share_of_bytes = 0.2
### END SOLUTION

# %%
predict("compression.bytes", share_of_bytes)

# %%
reveal("compression.bytes", round(size_on_disk(pruned[0.8]) / size_on_disk(net), 2))

# %% [markdown]
# A zero is a number like any other: four bytes, and it is multiplied like any other.
#
# ## 2. Quantization: fewer bits
#
# A weight is stored in 32 bits. Does it need them? **Post-training quantization** rounds it to one of
# 255 levels. In each output channel the largest weight gets level 127, and everything else is counted in
# steps of that size:
#
# $$\Delta = \frac{\max_i |w_i|}{127} \qquad q = \mathrm{round}(w / \Delta) \qquad w \approx \Delta\, q$$
#
# $\Delta$ is the step (the **scale**), one for each output channel; $q$ is the level, a whole number from
# -127 to 127, which fits in 8 bits. Channel (1.27, 0.308) has the step 0.01 and the levels 127 and 31.
#
# ### Exercise: the steps (code, 2 minutes)
#
# For any weight, of a linear layer (C, D) or of a convolution (C, D, h, w). A channel of zeros needs a
# step above 0 too: use 1/127.


# %% tags=["exercise"]
def steps_of(weight):
    """One step for each of the C output channels, (C,), all above 0."""
    ### BEGIN SOLUTION
    largest = weight.flatten(1).abs().amax(dim=1)
    return torch.where(largest > 0, largest, 1) / 127
    ### END SOLUTION


# %%
check("compression.steps", steps_of)

# %% [markdown]
# ### Exercise: eight bits (code, 3 minutes)
#
# Divide, round, and store as `torch.int8`. To divide, the steps need as many axes as the weight.


# %% tags=["exercise"]
def to_int8(weight):
    """Levels (int8, shape of weight) and steps (C,), all above 0."""
    ### BEGIN SOLUTION
    steps = steps_of(weight)
    levels = weight / steps.reshape(-1, *[1] * (weight.ndim - 1))
    return levels.round().to(torch.int8), steps
    ### END SOLUTION


# %%
check("compression.int8", to_int8)

# %% [markdown]
# `compress.quantize` does it for a network:

# %%
int8 = compress.quantize(net)
print(
    f"{size_on_disk(int8)} bytes, {right(int8):.1%} right (before: {size_on_disk(net)}, {right(net):.1%})"
)

# %% [markdown]
# Seven of ten bytes gone, and nearly the same answers.
#
# ## 3. Do the explanations survive?
#
# You explained the original. Somebody compresses it. Do you have to start again?
#
# Rank the pixels of each map, and correlate the ranks. This is **Spearman's rank
# correlation**:
#
# $$\rho = \mathrm{corr}\big(\mathrm{rank}(A), \mathrm{rank}(B)\big)$$
#
# $A$ and $B$ are the two networks' maps of one digit, for the same class. 1 means the same order of
# pixels, 0 no relation.
#
# ### Exercise: rank correlation (code, 4 minutes)
#
# For two maps with no equal numbers. `argsort` tells which pixel comes first, second, ...; the `argsort`
# of that tells each pixel its rank. `torch.corrcoef` of two stacked rows is a (2, 2) table.


# %% tags=["exercise"]
def rank_correlation(a, b):
    """Spearman's rho of two tensors of one shape, a number from -1 to 1."""
    ### BEGIN SOLUTION
    ranks = [each.flatten().argsort().argsort().double() for each in (a, b)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()
    ### END SOLUTION


# %%
check("compression.ranks", rank_correlation)

# %% [markdown]
# From here on `explanation_agreement` does it, for many digits at once and with equal numbers sharing
# their rank. But what is chance? Compare **strangers**: the maps of *another* digit of the same class, by the
# same network.

# %%
x, y = few  # 100 digits
reference = saliency(net, x, y)  # (100, 1, 28, 28)


def strangers(maps):
    following = maps.unflatten(0, (10, 10)).roll(1, dims=1).flatten(0, 1)  # ten of each class
    return explanation_agreement(maps, following).mean().item()


def agreement(model):
    return explanation_agreement(reference, saliency(model, x, y)).nanmean().item()


plots.curve(
    [100 * amount for amount in amounts],
    {
        "right answers": list(accuracy.values()),
        "agreement of the maps": [agreement(each) for each in pruned.values()],
        "agreement of strangers": [strangers(reference)] * len(amounts),
    },
    title="The maps drift before the answers do, and end as strangers",
    xlabel="sparsity (% of the weights that are zero)",
    ylabel="share right; rank correlation",
)

# %% [markdown]
# ### Predict, then run (1 minute)
#
# Fine-tuning brought the answers of the 80% network back. How large is the rank correlation of its
# maps with the original's? Before, it was about .5. The **control**, the original fine-tuned in the same
# way without any zeros, has .95.

# %% tags=["exercise"]
### BEGIN SOLUTION
tuned_agreement = 0.9
### END SOLUTION

# %%
predict("compression.maps", tuned_agreement)

# %%
reveal("compression.maps", round(agreement(tuned), 2))

# %%
compared = {
    "control": fine_tuned(deepcopy(net)),
    "pruned 80%": pruned[0.8],
    "pruned 80%, fine-tuned": tuned,
    "int8": int8,
}
plots.bars(
    [agreement(each) for each in compared.values()],
    [f"{name}: {right(each):.1%} right" for name, each in compared.items()],
    title="Rounded to int8, the maps stay; pruned and fine-tuned, they do not",
    xlabel="rank correlation with the original's maps",
)

# %% [markdown]
# The answers came back; the maps hardly did. So explain the network that you ship, not the one before.
#
# ## 4. When the measure lies
#
# A report says: *"the explanations of the compressed network agree with the original's at rank
# correlation .99"*. It used input x gradient. Try this with the network that is 80% zeros, not
# fine-tuned, and wrong in two of five answers:

# %%
strengths = [input_x_gradient(each, x, y).abs() for each in (net, pruned[0.8])]
every_pixel = explanation_agreement(*strengths).mean().item()
ink = x > 0
on_ink = [spearmanr(a[i], b[i]).statistic for a, b, i in zip(*strengths, ink, strict=True)]
print(f"all pixels {every_pixel:.2f}, only pixels with ink {np.mean(on_ink):.2f}")
print(f"pixels without ink: {1 - ink.float().mean().item():.0%}")

# %% [markdown]
# Without ink, the map is zero times a gradient: zero in *any* network. Four of five pixels tie in both maps,
# and they make the ranks agree. Ask what strangers would score, and leave out what cannot differ.

# %%
quiz("compression.q_chance")

# %% [markdown]
# ## 5. Easier to explain? Ask where the answer is known
#
# *"A smaller network is easier to explain."* Test it on a network that cheats. It learned from digits where
# each 8, and nothing else, carried a white mark. When it says 8 with the mark, and not without it, the mark
# **is** the reason.

# %%
marks = data.marked_digits()
cheat = models.digit_cnn_marked()
marked = marks.test.take(marks.test.marked)
with_mark = tensors(marked.images, marked.y)[0]  # (500, 1, 28, 28)
truth = torch.as_tensor(marked.truth)  # (500, 28, 28): the mark's 16 pixels
bare = with_mark * ~truth[:, None]
learn_marks = tensors(marks.train.images, marks.train.y)
halved = compress.remove_channels(compress.prune(cheat, 0.5, structured=True))
cheats = {
    "original": cheat,
    "control": fine_tuned(deepcopy(cheat), learn_marks),
    "pruned 80%, fine-tuned": fine_tuned(compress.prune(cheat, 0.8), learn_marks),
    "channels 50%, fine-tuned": fine_tuned(halved, learn_marks),
    "int8": compress.quantize(cheat),
    "low rank 90%": compress.low_rank(cheat, 0.9),
}

# %% [markdown]
# (The deeper sections explain *channels* and **low rank**.) For each network, take the digits where the mark
# is *its* reason, and play the pointing game: is the top of the map on the mark? The lines to both sides
# are two standard errors.


# %%
def hits(model):
    """Share of the digits whose map has its top on the mark, and where it may as well lie."""
    with torch.no_grad():
        because = (model(with_mark).argmax(1) == 8) & (model(bare).argmax(1) != 8)
    points = pointing_game(input_x_gradient(model, with_mark[because], 8), truth[because])
    share, off = points.mean().item(), 2 * points.std().item() / len(points) ** 0.5
    return share, max(0.0, share - off), min(1.0, share + off)


spans = [hits(model) for model in cheats.values()]
plots.intervals(
    {"input x gradient": tuple(zip(*spans, strict=True))},
    [f"{name}: {size_on_disk(model) / 1000:.0f} kB" for name, model in cheats.items()],
    title="Smaller is not more faithful as such",
    xlabel="share of maps with the top on the mark (chance .02)",
    line=spans[0][0],
)

# %% [markdown]
# Of the three smallest networks, each about a third of the original, one finds the mark as often as before
# (int8), one less often (low rank), one more often (half of the channels). So size is not what decides.
# (One task, one network of each kind: score your own.)
#
# ### Your turn (open, 3 minutes)
#
# Choose a sparsity and a digit, and draw both maps (`plots.compare(maps, titles=..., shared=False)`). From
# which sparsity on would you no longer show the original's map to anybody?

# %% tags=["exercise"]
### BEGIN SOLUTION
mine, number = compress.prune(net, 0.6), 300
own_digit, own_class = test[0][number : number + 1], test[1][number].item()
own_maps = [saliency(each, own_digit, own_class) for each in (net, mine)]
plots.compare(
    own_maps, titles=["original", "mine"], shared=False, title=f"Two maps of a {own_class}"
)
### END SOLUTION

# %% [markdown]
# ### Exercise: a claim from a report (criticize, 5 minutes)
#
# > *"We pruned 80% of the weights and fine-tuned; accuracy fell by only one point, so the model is
# > unchanged and five times smaller and faster. Our validated Grad-CAM explanations therefore carry over,
# > and being smaller, the new model is more interpretable."*
#
# What is wrong, and what would you ask to see? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
One point of accuracy says nothing about which answers changed or why: I would ask for accuracy by group
and for the inputs whose answer changed. The zeros save no bytes in a plain file and no time in dense
arithmetic, so I would ask for measured bytes and latency, with the machine and the batch size. The
explanations do not carry over: after fine-tuning the answers came back and the maps did not, so the rank
correlation with the original's maps is needed, beside the level that chance gives. Smaller is not more
interpretable by itself: I would ask for a test on data whose answer is known. The validation has to be
repeated on the network that is shipped.
### END SOLUTION
"""

# %%
check("compression.report", criticism)

# %% [markdown] tags=["deeper"]
# ## Deeper: the same from torch
#
# torch prunes too; it keeps a mask beside each weight, so its copy is larger than the original. And it
# rounds:

# %%
from torch.nn.utils import prune as torch_prune  # noqa: E402

layers = ("conv1", "conv2", "conv3", "fc")
theirs = deepcopy(net)
pairs = [(getattr(theirs, layer), "weight") for layer in layers]
torch_prune.global_unstructured(pairs, torch_prune.L1Unstructured, amount=0.5)
for layer in layers:
    torch.testing.assert_close(getattr(theirs, layer).weight, getattr(pruned[0.5], layer).weight)
print(f"bytes: original {size_on_disk(net)}, with torch's masks {size_on_disk(theirs)}")

# %%
weight = net.fc.weight.detach()  # (10, 64)
scales, zero_points = weight.abs().amax(dim=1) / 127, torch.zeros(10, dtype=torch.int32)
torchs = torch.fake_quantize_per_channel_affine(weight, scales, zero_points, 0, -127, 127)
torch.testing.assert_close(torchs, int8.fc.weight)

# %% [markdown] tags=["deeper"]
# ## Deeper: what zeros save, in bytes and in time
#
# Only when somebody *writes zeros down in another way* does a file get short. Zipping is one such way.
# And time? The networks take turns, pass by pass, and the median counts, since other programs run on
# your machine.

# %%
batch = few[0]  # (100, 1, 28, 28)
networks = {"original": net, "50% zeros": pruned[0.5], "95% zeros": pruned[0.95]}
took = compress.latencies(networks, batch, n_repeats=7)
plots.table(
    [
        (name, size_on_disk(m), size_on_disk(m, compressed=True), round(took[name].median, 1))
        for name, m in networks.items()
    ],
    ["", "bytes", "zipped", "ms for 100 digits"],
    title="What zeros save",
)

# %% [markdown]
# Zeros save bytes once the file is zipped. In time they save next to nothing: the arrays have the
# shapes they had, so the processor multiplies as often. (Kernels that skip zeros exist; torch's ordinary
# layers are not among them.)

# %%
quiz("compression.q_zeros")

# %% [markdown] tags=["deeper"]
# ## Deeper: fine-tune, and hold the zeros
#
# At 80% the network is ruined, but the weights that are left can learn to do without the others. One step of
# ordinary training shows what goes wrong:

# %%
import torch.nn.functional as F  # noqa: E402

naive = compress.prune(net, 0.8).train()
optimizer = torch.optim.Adam(naive.parameters(), 1e-3)
F.cross_entropy(naive(train[0][:64]), train[1][:64]).backward()
optimizer.step()
before, after = compress.sparsity(pruned[0.8]), compress.sparsity(naive)
print(f"zeros before {before:.0%}, after one step {after:.0%}")

# %% [markdown]
# The zeros come back, since a zero weight has a gradient too. So hold that gradient at zero; this is what
# `keep_zeros` did inside `fine_tuned`. Beside the result the control:

# %%
four = {"original": net, "80% pruned": pruned[0.8], **compared}
print(f"zeros after fine-tuning: {compress.sparsity(tuned):.0%}")
for label in ("original", "80% pruned", "pruned 80%, fine-tuned", "control"):
    print(f"{label:24} {right(four[label]):.1%} right")

# %% [markdown]
# With 1,000 digits, a difference of a point is chance. Compare with the control: such a round shakes the
# original as well.

# %% [markdown] tags=["deeper"]
# ## Deeper: structured pruning, zeros that can leave
#
# A zero here and there leaves every array as large as it was. But if a whole **channel** is zero, you can
# cut it out. Zero the shorter half of the channels in every layer but the last, weights and bias (torch's
# `ln_structured` leaves the bias: the channel would go on saying a constant). Then cut: what a layer no
# longer says, the next one need not hear. By hand for the last two layers:

# %%
from torch import nn  # noqa: E402

zeroed = compress.prune(net, 0.5, structured=True)
alive = zeroed.conv3.weight.detach().flatten(1).any(dim=1)  # (64,)
small = deepcopy(zeroed)
small.conv3.weight = nn.Parameter(zeroed.conv3.weight[alive])  # (32, 32, 3, 3)
small.conv3.bias = nn.Parameter(zeroed.conv3.bias[alive])
small.fc.weight = nn.Parameter(zeroed.fc.weight[:, alive])  # (10, 32)
torch.testing.assert_close(small(x), zeroed(x))

# %% [markdown]
# Same answers, fewer numbers. `remove_channels` does it for all layers:

# %%
cut = compress.remove_channels(zeroed)
torch.testing.assert_close(cut(x), zeroed(x))
narrow = fine_tuned(deepcopy(cut))
versions = {"original": net, "zeroed": zeroed, "cut": cut, "fine-tuned": narrow}
plots.table(
    [
        (name, str(tuple(m.conv3.weight.shape)), size_on_disk(m), f"{right(m):.1%}")
        for name, m in versions.items()
    ],
    ["", "conv3", "bytes", "right"],
    title="Half of the channels, a quarter of the weights",
)

# %% [markdown]
# With three quarters of the *single* weights gone, about two of three answers were still right (the curve
# of section 1). Whole channels cost more, since large weights go with them; fine-tuning brings the answers back.

# %% [markdown] tags=["deeper"]
# ## Deeper: how few bits, and in which layer?
#
# With $b$ bits the largest weight gets the level $2^{b-1} - 1$. First all layers at once; then one layer
# at a time with three bits, and the others left alone. This is **per-layer sensitivity**, by which
# practitioners give each layer its own number of bits:

# %%
bits = [2, 3, 4, 6, 8]
coarse = {b: compress.quantize(net, n_bits=b) for b in bits}
plots.curve(
    bits,
    {"right answers": [right(each) for each in coarse.values()]},
    title="Eight bits cost nothing here, two cost everything",
    xlabel="bits for a weight",
    ylabel="right answers",
)

# %%
alone = {}
for name in ("conv1", "conv2", "conv3", "fc"):
    copy = deepcopy(net)
    rounded = getattr(compress.quantize(net, n_bits=3), name).weight
    getattr(copy, name).weight.data = rounded.detach().clone()
    alone[name] = right(copy)
plots.bars(
    [right(net), *alone.values(), right(coarse[3])],
    ["none", *(f"{name} alone" for name in alone), "all"],
    title="Three bits: which layer pays?",
    xlabel="right answers",
)

# %% [markdown] tags=["deeper"]
# ## Deeper: rounding what passes through
#
# A chip that multiplies integers needs whole numbers on both sides: the activations have to be rounded
# too. Their size is known only when the network runs, so each row gets its step on the fly: **dynamic
# quantization**. But a step has to reach to the largest number of its row. Here is where it lies: a layer that
# adds two numbers. One **outlier**, and the other number is gone.

# %%
# NBVAL_CHECK_OUTPUT
add = torch.nn.Linear(2, 1, bias=False)
add.weight.data = torch.ones(1, 2)
adds = compress.quantize(add, activations=True)
for pair in ([1.27, 0.302], [127.0, 0.302]):
    print(pair, "->", round(adds(torch.tensor([pair])).item(), 3))

# %% [markdown]
# In large language models such outliers are the reason why plain int8 fails (Dettmers and others, 2022).
# And round *last*: a network of integers cannot be pruned or fine-tuned any more. (Who wants to train with
# rounding in mind rounds in the forward pass only: **quantization-aware training**.)

# %%
try:
    compress.prune(int8, 0.5)
except ValueError as error:
    print(error)

# %% [markdown] tags=["deeper"]
# ## Deeper: low rank, two thin layers for a thick one
#
# Channels may repeat each other. Write the 64 channels of `conv3` as the rows of one matrix, and ask how
# many directions they really use. The singular values $\sigma_i$ say how much each direction holds:
#
# $$W = \sum_i \sigma_i u_i v_i^\top \approx U_r \Sigma_r V_r^\top$$
#
# $u_i, v_i$ are the directions of outputs and inputs; $r$ of them are kept. No other matrix of rank $r$
# is nearer (Eckart and Young, 1936).

# %%
matrix = net.conv3.weight.detach().flatten(1)  # (64, 288)
U, sigma, V = torch.linalg.svd(matrix, full_matrices=False)
energy = sigma.square().cumsum(0) / sigma.square().sum()
r = int((energy < 0.9).sum()) + 1
plots.curve(
    range(1, 65),
    {"share of all squares": energy},
    title=f"{r} of 64 directions hold 90% of the squares",
    xlabel="directions kept",
    ylabel="share of all squares",
)

# %% [markdown]
# So one layer with `r` channels, and one that mixes them back to 64, can stand in for it:

# %%
thin = compress.low_rank(net, energy=0.9)
product = (U[:, :r] * sigma[:r]) @ V[:r]  # (64, 288)
two = thin.conv3[1].weight.flatten(1) @ thin.conv3[0].weight.flatten(1)
torch.testing.assert_close(two, product, rtol=0, atol=1e-5)
numbers = sum(p.numel() for p in thin.parameters())
print(f"{numbers} numbers, {right(thin):.1%} right")

# %% [markdown] tags=["deeper"]
# ## Deeper: what each way costs and saves, in one table
#
# With one column that no other program on your machine can disturb: how many multiplications a digit
# takes.

# %%
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

channels = fine_tuned(compress.remove_channels(compress.prune(net, 0.5, structured=True)))
ways = {
    "original": net,
    "pruned 80%, fine-tuned": tuned,
    "channels 50%, fine-tuned": channels,
    "int8": int8,
    "low rank 90%": compress.low_rank(net, 0.9),
    "channels 50% + int8": compress.quantize(channels),
}
passes = compress.latencies(ways, x, n_repeats=7)


def row(name):
    model, t = ways[name], passes[name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x[:1])
    millions = f"{counter.get_total_flops() / 2e6:.2f}"  # it counts additions as well
    share, zipped = f"{right(model):.1%}", size_on_disk(model, compressed=True)
    return name, share, size_on_disk(model), zipped, millions, f"{t.low:.1f} to {t.high:.1f}"


plots.table(
    [row(name) for name in ways],
    ["", "right", "bytes", "zipped", "million multiplications", "ms for 100 digits"],
    title="Fewer bytes and fewer multiplications are two things",
)

# %% [markdown]
# **Bytes**: zeros save none, int8 seven of ten. **Multiplications**: only cut channels and low rank do
# fewer. int8 does as many, in floats, and has to turn its levels back into floats before; it would win
# time on a chip, or with a library, that multiplies integers. **Time** (the middle half of all passes) is
# the only column that will differ on your machine. Look whether two spans overlap before you call one
# network faster.

# %% [markdown] tags=["deeper"]
# ## Deeper: Grad-CAM seems to hold out longer
#
# Section 3 asked saliency. Grad-CAM's 49 cells look steadier. But compare each method with its own
# strangers:

# %%
from xailab.attribution.cam import grad_cam  # noqa: E402


def cam(model):
    return grad_cam(model, x, y, layer="relu3", upsample=False)  # (N, 1, 7, 7)


cams = {amount: cam(each) for amount, each in pruned.items()}
plots.curve(
    [100 * amount for amount in amounts],
    {
        "Grad-CAM": [
            explanation_agreement(cams[0], each).nanmean().item() for each in cams.values()
        ],
        "Grad-CAM of strangers": [strangers(cams[0])] * len(amounts),
    },
    title="A high number, and chance is high as well",
    xlabel="sparsity (% of the weights that are zero)",
    ylabel="rank correlation",
)

# %% [markdown]
# Grad-CAM agrees at .6 for any two digits of a class, and at 80% zeros the same digit agrees no better
# than that.

# %% [markdown] tags=["deeper"]
# ## Deeper: the shortcut fades faster than the skill
#
# Do the pruned networks still cheat at all?

# %%
from xailab.models.training import evaluate  # noqa: E402

zeros = [0, 0.3, 0.5, 0.6, 0.7]
sparse = {amount: compress.prune(cheat, amount) for amount in zeros}
clean = marks.test.take(~marks.test.marked)
clean = tensors(clean.images, clean.y)


def fooled(model):
    with torch.no_grad():
        now, then = model(with_mark).argmax(1), model(bare).argmax(1)
    return ((now == 8) & (then != 8)).float().mean().item()


plots.curve(
    [100 * amount for amount in zeros],
    {
        "right, no mark": [evaluate(each, clean).accuracy for each in sparse.values()],
        "8 because of the mark": [fooled(each) for each in sparse.values()],
    },
    title="Pruning changes what the network relies on",
    xlabel="sparsity (% of the weights that are zero)",
    ylabel="share of the digits",
)

# %% [markdown]
# That is good luck here, and a warning: an audit of the original, for good or bad, says little about the
# copy. Now show the networks the mark alone, on black, in each of its four places:

# %%
lone = (with_mark * truth[:, None]).unique(dim=0)  # (4, 1, 28, 28)
for each_name, each_model in cheats.items():
    with torch.no_grad():
        eights = (each_model(lone).argmax(1) == 8).sum().item()
    print(f"{each_name:26} calls {eights} of {len(lone)} lone marks 8")

# %% [markdown]
# The original and the control need the mark *and* a digit. The two that were pruned and fine-tuned often
# need no digit at all: each is **another** network, with a reason of its own.

# %% [markdown] tags=["deeper"]
# ## Deeper: which answers change?
#
# One more thing that a mean hides: how many answers changed, how sure was the original of them, and which
# digit pays most?

# %%
with torch.no_grad():
    sure, said = net(test[0]).softmax(1).max(dim=1)  # (1000,) each


def answers(model):
    with torch.no_grad():
        return model(test[0]).argmax(1)


def changes(name, model):
    now = answers(model)
    moved = now != said
    lost = (said == test[1]).int() - (now == test[1]).int()
    points = lost.reshape(10, 100).sum(1)  # the test digits come in order, 100 of each
    medians = [f"{sure[rows].median().item():.2f}" for rows in (moved, ~moved)]
    worst = f"the {points.argmax().item()}: {points.max().item()} points"
    return name, f"{right(model):.1%}", int(moved.sum()), *medians, worst


smaller = {"pruned 50%": pruned[0.5], "low rank 90%": compress.low_rank(net, 0.9)}
asked = {name: compared[name] for name in ("control", "pruned 80%, fine-tuned")} | smaller
plots.table(
    [changes(name, model) for name, model in asked.items()],
    ["", "right", "changed", "sure of these", "sure of others", "lost most"],
    title="1,000 answers, before and after",
)

# %% [markdown]
# Plain fine-tuning changes as many answers as pruning does, and those that change are those of which the
# original was not sure. But look at the last column: low rank costs six points in the mean, and four times
# as many on one digit. Hooker and others (2019) pruned large networks and found that the loss falls on
# some classes, and on unusual images, far more than the mean says. If these are a group of people, a mean
# accuracy has hidden them ([[fairness]]).

# %% [markdown]
# ## You can now
# - prune and quantize a network by hand
# - measure whether the explanations of a compressed network are still those of the original
# - say what a rank correlation is worth, by comparing it with that of strangers
# - test the claim that a smaller network is easier to explain, where the answer is known

# %%
progress()

# %% [markdown]
# ## Takeaways
#
# - A zero is a number like any other: zeros save bytes only once they are zipped, int8 saves them at once.
# - The same answers are not the same reasons: pruned and fine-tuned, the network was about as often right
#   as the control, with other maps. Rounded to int8, it kept both. A correlation needs its strangers.
# - Explain, audit and score the network that you ship.
#
# ## Myth refuted
#
# *"A smaller model is easier to explain."* Section 5, where the reason was known: the maps of three small
# networks found it as often as before, less often, and more often. Size does not decide.
#
# ## Go further
#
# - Han, Pool, Tran, Dally (2015), *Learning both Weights and Connections for Efficient Neural Networks*.
# - Li, Kadav, Durdanovic, Samet, Graf (2017), *Pruning Filters for Efficient ConvNets*: whole channels.
# - Jacob and others (2018), *Quantization and Training of Neural Networks for Efficient
#   Integer-Arithmetic-Only Inference*: quantization-aware training.
# - Dettmers, Lewis, Belkada, Zettlemoyer (2022), *LLM.int8()*: outliers.
# - Hooker, Courville, Clark, Dauphin, Frome (2019), *What Do Compressed Deep Neural Networks Forget?*
