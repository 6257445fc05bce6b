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
# - prune, quantize and factorize a network by hand, and check each against a library
# - say which of them saves bytes, which saves time, and measure both
# - measure whether the explanations of a compressed network are still those of the original
# - test the claim that a smaller network is easier to explain, where the answer is known
#
# **You need:** [[saliency]] and [[cam]]
#
# **Time:** [[time]]; the cells run in half a minute · **Difficulty:** 3 of 5

# %%
from copy import deepcopy
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.utils.flop_counter import FlopCounterMode

from xailab import data, models, plots
from xailab.attribution.cam import grad_cam
from xailab.attribution.saliency import input_x_gradient, saliency
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.localization import pointing_game, relevance_mass_accuracy
from xailab.models.training import evaluate, fit
from xailab.simplify import compress
from xailab.simplify.compress import size_on_disk, sparsity
from xailab.simplify.distill import explanation_agreement

# %% [markdown]
# Here is the network of this lesson. It reads handwritten digits, and it is small already:


# %%
def tensors(images, y):
    return torch.as_tensor(np.asarray(images, dtype=np.float32))[:, None], torch.as_tensor(y)


digits = data.load("mnist5k")
learn = digits.extra["train"]  # 4,000 to learn from, 1,000 to measure on
train = tensors(digits.images[learn] / 255, digits.y[learn])
test = tensors(digits.images[~learn] / 255, digits.y[~learn])
few = test[0][::10], test[1][::10]  # 100 of them, ten of each digit, in order


@cache  # each network is asked once
def answers(model):
    with torch.no_grad():
        return model(test[0]).argmax(1)  # (1000,)


def right(model):
    """Share of right answers to the test digits."""
    return (answers(model) == test[1]).double().mean().item()


# %%
net = models.digit_cnn()
print("numbers", sum(p.numel() for p in net.parameters()))
print("bytes on disk", size_on_disk(net))
print(f"right answers {right(net):.1%}")


# %% [markdown]
# Throw four of five weights away and train the rest for one more round; or round every weight to 8 bits:
# you will do this step by step. All three networks still see a 7 here. The maps say where a brighter
# pixel would speak for the 7 (red) or against it (blue). Look at which map has stayed as it was:


# %%
def trained_on(model, part=train):
    """Train for one round; weights that are zero stay zero. `few` is only measured."""
    with compress.keep_zeros(model):
        fit(model, part, few, epochs=1, learning_rate=2e-3)
    return model


tuned = trained_on(compress.prune(net, 0.8))
seven, SEVEN = test[0][test[1] == 7][:1], 7
copies = {"original": net, "80% pruned, trained on": tuned, "int8": compress.quantize(net)}
plots.compare(
    [saliency(each, seven, SEVEN) for each in copies.values()],
    titles=[f"{name}: says {each(seven).argmax().item()}" for name, each in copies.items()],
    shared=False,
    title="Three networks, one answer: is it the same reason?",
)

# %% [markdown]
# ## 1. Pruning: the smallest weights go
#
# Sort all weights of the network by size, signs aside. A weight near zero adds next to nothing, so the
# small ones seem to be those you can do without. How much do they hold, all together? Add up their
# squares:

# %%
layers = [net.conv1, net.conv2, net.conv3, net.fc]
sizes = torch.cat([layer.weight.detach().abs().flatten() for layer in layers]).sort().values
held = sizes.square().cumsum(0) / sizes.square().sum()  # of the i smallest
shares = np.arange(0, 1.01, 0.1)
plots.curve(
    100 * shares,
    {"their squares": [held[round(s * (len(sizes) - 1))].item() for s in shares]},
    title=f"The smaller half of the weights holds {held[len(sizes) // 2].item():.0%} of the squares",
    xlabel="% of the weights, the smallest first",
    ylabel="share of all squares",
)

# %% [markdown]
# So take a threshold $\tau$ and set every smaller weight to zero:
#
# $$w_i \leftarrow 0 \quad\text{where}\quad |w_i| \le \tau$$
#
# $w_i$ runs through the weights of all layers; $\tau$ is the size below which the share lies that you
# want to lose. Biases stay. Half of the weights, by hand:

# %%
count = round(0.5 * len(sizes))  # as many go
tau = sizes[count - 1]
by_hand = deepcopy(net)
with torch.no_grad():
    for layer in (by_hand.conv1, by_hand.conv2, by_hand.conv3, by_hand.fc):
        layer.weight[layer.weight.abs() <= tau] = 0
print(f"threshold {tau.item():.3f}, zeros {sparsity(by_hand):.1%}")

# %% [markdown]
# The package does the same, and so does torch. torch keeps a mask beside each weight, so its copy is
# larger than the original:

# %%
half = compress.prune(net, 0.5)
theirs = deepcopy(net)
pairs = [(getattr(theirs, name), "weight") for name in ("conv1", "conv2", "conv3", "fc")]
torch_prune.global_unstructured(pairs, torch_prune.L1Unstructured, amount=0.5)
for name in ("conv1", "conv2", "conv3", "fc"):
    torch.testing.assert_close(getattr(by_hand, name).weight, getattr(half, name).weight)
    torch.testing.assert_close(getattr(theirs, name).weight, getattr(half, name).weight)
print(f"bytes: original {size_on_disk(net)}, with torch's masks {size_on_disk(theirs)}")

# %% [markdown]
# ### Exercise: one threshold for all (code, 8 minutes)
#
# Write it for a list of weight tensors. One threshold serves all of them: a layer whose weights are
# large loses fewer. What you are given stays as it is. `hint("compression.prune")` helps in up to three
# steps.


# %% tags=["exercise"]
def my_prune(weights, amount):
    """Copies of the tensors, this share of all their numbers zero: the smallest in size."""
    ### BEGIN SOLUTION
    sizes = torch.cat([weight.abs().flatten() for weight in weights]).sort().values
    count = round(amount * len(sizes))
    if count == 0:
        return [weight.clone() for weight in weights]
    return [weight * (weight.abs() > sizes[count - 1]) for weight in weights]
    ### END SOLUTION


# %%
check("compression.prune", my_prune)

# %% [markdown]
# How far can you go?

# %%
amounts = [0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
pruned = {amount: compress.prune(net, amount) for amount in amounts}
accuracy = [right(each) for each in pruned.values()]
plots.curve(
    [100 * amount for amount in amounts],
    {"pruned": accuracy, "guessing": [0.1] * len(amounts)},
    title="Half of the weights are hardly missed, four fifths are",
    xlabel="% of the weights that are zero",
    ylabel="right answers",
)

# %% [markdown]
# ### Predict, then run (2 minutes)
#
# Save the network with 80% zeros to disk. How many bytes does its file have, as a share of the
# original's? Write a number from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
share_of_bytes = 0.2
### END SOLUTION

# %%
predict("compression.bytes", share_of_bytes)

# %%
reveal("compression.bytes", round(size_on_disk(pruned[0.8]) / size_on_disk(net), 2))

# %% [markdown]
# A zero is a number like any other: four bytes. Only when somebody *writes it down in another way*
# does it get short. Zipping is one such way. And time?

# %%
batch = few[0]  # (100, 1, 28, 28)
rows = [("original", net), ("50% zeros", pruned[0.5]), ("95% zeros", pruned[0.95])]
took = compress.latencies(dict(rows), batch, n_repeats=7)
rows = [
    (name, size_on_disk(m), size_on_disk(m, compressed=True), round(took[name].median, 1))
    for name, m in rows
]
plots.table(rows, ["", "bytes", "zipped", "ms for 100 digits"], title="What zeros save")

# %% [markdown]
# Zeros save bytes once the file is zipped. In time they save next to nothing: the arrays have the
# shapes they had, so the processor multiplies as often, now also by zero. (Kernels that skip zeros
# exist; torch's ordinary layers are not among them.) Before you believe any difference in
# the last column, run the cell again and see how much it moves. The networks take turns, pass by pass,
# and the median counts, since other programs run on your machine.

# %%
quiz("compression.q_zeros")

# %% [markdown]
# ## 2. Train on, and hold the zeros
#
# At 80% the network is ruined, but the weights that are left can learn to do without the others. Train
# it as usual, and one step is enough to see what goes wrong:

# %%
naive = compress.prune(net, 0.8).train()
optimizer = torch.optim.Adam(naive.parameters(), 1e-3)
F.cross_entropy(naive(train[0][:64]), train[1][:64]).backward()
optimizer.step()
print(f"zeros before {sparsity(pruned[0.8]):.0%}, after one step {sparsity(naive):.0%}")

# %% [markdown]
# The zeros come back, since a zero weight has a gradient too. So hold that gradient at zero; this is what
# `keep_zeros` did when `trained_on` made the network of the first figure. Beside it a **control**: the
# original, trained on in the same way, with no zeros.

# %%
control = trained_on(deepcopy(net))
print(f"zeros {sparsity(tuned):.0%}")
four = {"original": net, "80% pruned": pruned[0.8], "trained on": tuned, "control": control}
for name, each in four.items():
    print(f"{name:10} {right(each):.1%} right")

# %% [markdown]
# One round over the training digits, and four fifths of the weights are hardly missed any more. Compare
# with the control: such a round shakes the original as well. Remember this for section 7: the *answers*
# are back.
#
# ## 3. Whole channels: zeros that can leave
#
# A zero here and there leaves every array as large as it was. But if a whole channel is zero, you can cut
# it out. The first layer has 16 channels of 9 weights each. How long is each of these 16 vectors?

# %%
norms = net.conv1.weight.detach().flatten(1).norm(dim=1)  # (16,)
plots.bars(
    norms.sort().values,
    [f"channel {k}" for k in norms.argsort().tolist()],
    title="The shortest channels would go first",
    xlabel="length of the channel's weights",
)

# %% [markdown]
# Zero the shorter half of the channels in every layer but the last, weights and bias. (torch's
# `ln_structured` leaves the bias: the channel would go on saying a constant.) Then cut: what a layer
# no longer says, the next one need not hear. By hand for the last two layers:

# %%
zeroed = compress.prune(net, 0.5, structured=True)
alive = zeroed.conv3.weight.detach().flatten(1).any(dim=1)  # (64,)
small = deepcopy(zeroed)
small.conv3.weight = nn.Parameter(zeroed.conv3.weight[alive])  # (32, 32, 3, 3)
small.conv3.bias = nn.Parameter(zeroed.conv3.bias[alive])
small.fc.weight = nn.Parameter(zeroed.fc.weight[:, alive])  # (10, 32)
torch.testing.assert_close(small(batch), zeroed(batch))

# %% [markdown]
# Same answers, fewer numbers. `remove_channels` does it for all layers:

# %%
cut = compress.remove_channels(zeroed)
torch.testing.assert_close(cut(batch), zeroed(batch))
for name, each in {"original": net, "zeroed": zeroed, "cut": cut}.items():
    shape = tuple(each.conv3.weight.shape)
    print(f"{name:8} conv3 {shape}, {size_on_disk(each)} bytes")

# %% [markdown]
# Half the channels in and half the channels out make a quarter of the weights. What became of the
# answers?

# %%
narrow = trained_on(deepcopy(cut))
for name, each in {"original": net, "cut": cut, "trained on": narrow}.items():
    print(f"{name:10} {right(each):.1%} right")

# %% [markdown]
# With three quarters of the *single* weights gone, about two of three answers were still right (the curve of
# section 1, between 70% and 80%). Whole channels cost more, since large weights go with them. But this
# network is really smaller. The table in section 6 shows whether it is faster too.
#
# ## 4. Fewer bits: quantization
#
# A weight is stored in 32 bits. Does it need them? Take one weight and round it to one of 255 levels.
# The channel's largest weight gets level 127, and everything else is counted in steps of that size:
#
# $$\Delta = \frac{\max_i |w_i|}{127} \qquad q = \mathrm{round}(w / \Delta) \qquad w \approx \Delta\, q$$
#
# $\Delta$ is the step, one for each output channel; $q$ is the level, a whole number from -127 to 127,
# which fits in 8 bits.

# %%
channel = net.fc.weight[7].detach()  # (64,): the weights for the digit 7
step = channel.abs().max() / 127
w = channel[3]
q = (w / step).round()
print(f"step    {step:.5f}")
print(f"weight  {w:.5f}")
print(f"level   {w / step:.2f} -> {q:.0f}")
print(f"back    {q * step:.5f}, off by {abs(q * step - w) / step:.2f} steps")

# %% [markdown]
# You are never off by more than half a step. Now all channels of the layer at once; the package and
# torch do the same:

# %%
weight = net.fc.weight.detach()  # (10, 64)
steps = weight.abs().amax(dim=1, keepdim=True) / 127  # (10, 1)
rounded = (weight / steps).round() * steps
assert ((rounded - weight).abs() <= 0.501 * steps).all()
torch.testing.assert_close(compress.quantize(net).fc.weight, rounded)
zero_points = torch.zeros(10, dtype=torch.int32)
torchs = torch.fake_quantize_per_channel_affine(weight, steps[:, 0], zero_points, 0, -127, 127)
torch.testing.assert_close(torchs, rounded)

# %% [markdown]
# ### Exercise: eight bits (code, 8 minutes)
#
# Write the rounding for any weight, of a linear layer (C, D) or a convolution (C, D, h, w): the levels as
# `torch.int8`, and one step for each of the C output channels. A channel of zeros needs a step too.


# %% tags=["exercise"]
def to_int8(weight):
    """Levels (int8, shape of weight) and steps (C,), all above 0."""
    ### BEGIN SOLUTION
    largest = weight.flatten(1).abs().amax(dim=1)
    steps = torch.where(largest > 0, largest, 1) / 127
    levels = weight / steps.reshape(-1, *[1] * (weight.ndim - 1))
    return levels.round().to(torch.int8), steps
    ### END SOLUTION


# %%
check("compression.int8", to_int8)

# %% [markdown]
# And with fewer bits? With $b$ bits the largest weight gets the level $2^{b-1} - 1$:

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

# %% [markdown]
# ### The numbers that pass through
#
# A chip that multiplies integers needs whole numbers on both sides: the activations have to be rounded
# too. Their size is known only when the network runs, so each row gets its step on the fly: *dynamic*
# quantization.

# %%
int8 = coarse[8]
dynamic = compress.quantize(net, activations=True)
for name, each in {"original": net, "int8": int8, "int8, dynamic": dynamic}.items():
    print(f"{name:14} {right(each):.1%} right, {size_on_disk(each)} bytes")

# %% [markdown]
# A quarter of the bytes for each weight, and nearly the same answers. But a step has to reach to the
# largest number of its row. Here is where it lies: a layer that adds two numbers. One outlier, and the
# other number is gone.

# %%
# NBVAL_CHECK_OUTPUT
add = nn.Linear(2, 1, bias=False)
add.weight.data = torch.ones(1, 2)
adds = compress.quantize(add, activations=True)
for pair in ([1.27, 0.302], [127.0, 0.302]):
    print(pair, "->", round(adds(torch.tensor([pair])).item(), 3))

# %% [markdown]
# In large language models, such outliers are the reason why plain int8 fails (Dettmers and others, 2022).
#
# One thing more: round *last*. A network of integers cannot be pruned or trained on any more:

# %%
try:
    compress.prune(int8, 0.5)
except ValueError as error:
    print(error)

# %% [markdown]
# ## 5. Low rank: two thin layers for a thick one
#
# A third kind of waste: channels that repeat each other. Write the 64 channels of `conv3` as the rows of
# one matrix, and ask how many directions they really use. The singular values $\sigma_i$ say how much
# each direction holds:
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
    {"so many directions": energy},
    title=f"{r} of 64 directions hold 90% of the squares",
    xlabel="directions kept",
    ylabel="share of all squares",
)

# %% [markdown]
# So one layer with `r` channels, and one that mixes them back to 64, can stand in for it:

# %%
thin = compress.low_rank(net, energy=0.9)
print(thin.conv3)
product = (U[:, :r] * sigma[:r]) @ V[:r]  # (64, 288)
two = thin.conv3[1].weight.flatten(1) @ thin.conv3[0].weight.flatten(1)
torch.testing.assert_close(two, product, rtol=0, atol=1e-5)
numbers = sum(p.numel() for p in thin.parameters())
print(f"{numbers} numbers, {right(thin):.1%} right")

# %% [markdown]
# ## 6. What each way costs and saves: one table
#
# One more row: channels cut, trained on, and rounded last. And one more column, which no other program
# on your machine can disturb: how many multiplications a digit takes.

# %%
small_ones = {
    "original": net,
    "pruned 50%": pruned[0.5],
    "pruned 80%": pruned[0.8],
    "pruned 80%, trained on": tuned,
    "channels 50%, trained on": narrow,
    "int8": int8,
    "low rank 90%": thin,
    "channels 50% + int8": compress.quantize(narrow),
}
took = compress.latencies(small_ones, batch, n_repeats=7)


# %%
def row(name):
    model, t = small_ones[name], took[name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch[:1])
    millions = f"{counter.get_total_flops() / 2e6:.2f}"  # it counts additions as well
    share, zipped = f"{right(model):.1%}", size_on_disk(model, compressed=True)
    return name, share, size_on_disk(model), zipped, millions, f"{t.low:.1f} to {t.high:.1f}"


plots.table(
    [row(name) for name in small_ones],
    ["", "right", "bytes", "zipped", "million multiplications", "ms for 100 digits"],
    title="Fewer bytes and fewer multiplications are two things",
)

# %% [markdown]
# Read it column by column. **Right**: with 1,000 digits, a difference of a point is chance.
# **Bytes**: zeros save none, int8 seven of ten. **Zipped**: now zeros count. **Multiplications**: only
# cut channels and low rank do fewer. int8 does as many, in floats, and has to turn its levels back
# into floats before; it would win time on a chip, or with a library, that multiplies integers.
#
# **Time** (the middle half of all passes) is the only column that will be another one on your machine.
# Look whether two spans overlap before you call one network faster, and how much of its saving low rank
# brings to the clock: it multiplies less, but in more layers.
#
# ## 7. Do the explanations survive?
#
# You explained the original: you know where it looks. Somebody compresses it. Do you have to start
# again? Look at one digit first, at growing sparsity:

# %%
shown = [0, 0.5, 0.8, 0.95]
plots.compare(
    [saliency(pruned[amount], seven, SEVEN) for amount in shown],
    titles=[f"{amount:.0%} zeros" for amount in shown],
    shared=False,
    title="Weight by weight, the map comes apart",
)

# %% [markdown]
# Now count. Rank the 784 pixels of each map, and correlate the ranks:
#
# $$\rho_n = \mathrm{corr}\big(\mathrm{rank}(A_n), \mathrm{rank}(B_n)\big)$$
#
# $A_n$ and $B_n$ are the two networks' maps of digit $n$, for the same class: the true one. 1 means the
# same order of pixels. And what is chance? Compare strangers: the maps of **another** digit of the same
# class, by the same network.

# %%
x, y = few  # 100 digits
reference = saliency(net, x, y)  # (100, 1, 28, 28)
maps = saliency(pruned[0.5], x, y)
rho = explanation_agreement(reference, maps)  # (100,)
one = spearmanr(reference[0].flatten(), maps[0].flatten()).statistic
np.testing.assert_allclose(rho[0], one, atol=1e-6)
print(f"50% pruned: {rho.mean().item():.2f}")


# %%
def strangers(maps):
    """Mean rank correlation with the map of the next digit of the same class."""
    following = maps.unflatten(0, (10, 10)).roll(1, dims=1).flatten(0, 1)  # ten of each class
    return explanation_agreement(maps, following).mean().item()


def cam(model, x, y):
    return grad_cam(model, x, y, layer="relu3", upsample=False)  # (N, 1, 7, 7)


originals = {saliency: reference, cam: cam(net, x, y)}
print(f"strangers: saliency {strangers(reference):.2f}, Grad-CAM {strangers(originals[cam]):.2f}")


# %%
def agreement(method, model):
    """Mean rank correlation with the original's maps; constant maps rank nothing."""
    return explanation_agreement(originals[method], method(model, x, y)).nanmean().item()


plots.curve(
    [100 * amount for amount in amounts],
    {
        "right answers": accuracy,
        "Grad-CAM": [agreement(cam, each) for each in pruned.values()],
        "saliency": [agreement(saliency, each) for each in pruned.values()],
        "Grad-CAM: strangers": [strangers(originals[cam])] * len(amounts),
        "saliency: strangers": [strangers(reference)] * len(amounts),
    },
    title="As the zeros grow, the maps become strangers",
    xlabel="% of the weights that are zero",
    ylabel="share right; rank correlation",
)

# %% [markdown]
# There is no sparsity up to which the maps are the same: those of single pixels drift from the start,
# while the share of right answers hardly moves yet. Grad-CAM *seems* to hold out longer. But compare
# each line with its own strangers. Grad-CAM's 49 cells agree at .6 for any two digits of a class, and at
# 80% zeros the same digit agrees no better than that. Saliency gets there at 90%.
#
# ### Predict, then run (2 minutes)
#
# Training on brought the answers of the 80% network back. How large is the rank correlation of its
# saliency maps with the original's? Before training, it was about .5; the control has .95.

# %% tags=["exercise"]
### BEGIN SOLUTION
tuned_agreement = 0.9
### END SOLUTION

# %%
predict("compression.maps", tuned_agreement)

# %%
reveal("compression.maps", round(agreement(saliency, tuned), 2))

# %% [markdown]
# The answers came back; the maps hardly did. All of the copies, and the control first:

# %%
compared = {"control": control, **small_ones}
del compared["original"]
plots.bars(
    [agreement(saliency, each) for each in compared.values()],
    list(compared),
    title="Rounded to int8, the maps stay; pruned and retrained, they do not",
    xlabel="rank correlation with the original's saliency maps",
)

# %% [markdown]
# Training on moves the maps of the control as well, but far less. The networks that were pruned and
# trained on have *found the answers again in another way*. int8 moves nothing that you would see.
# So: explain the network that you ship, not the one that you had before.
#
# ### When the measure lies
#
# A report says: *"the explanations of the compressed network agree with the original's at rank
# correlation .99"*. It used input x gradient. Try this with the network that is 80% zeros, not trained
# on, and wrong in two of five answers:

# %%
sizes = [input_x_gradient(each, x, y).abs() for each in (net, pruned[0.8])]
every_pixel = explanation_agreement(*sizes).mean().item()
ink = x > 0
on_ink = [spearmanr(a[i], b[i]).statistic for a, b, i in zip(*sizes, ink, strict=True)]
print(f"all pixels {every_pixel:.2f}, only pixels with ink {np.mean(on_ink):.2f}")
print(f"pixels without ink: {1 - ink.float().mean().item():.0%}")

# %% [markdown]
# Where there is no ink, the map is zero times a gradient: zero in *any* network. Four of five pixels tie
# in both maps, and they make the ranks agree. Always ask what a comparison of strangers would score, and
# leave out what cannot differ.

# %%
quiz("compression.q_chance")

# %% [markdown]
# ## 8. Easier to explain? Ask where the answer is known
#
# *"A smaller network is easier to explain."* It sounds right: fewer numbers, less to hide in. Test it on
# the network that cheats. It was trained on digits where each 8, and nothing else, carried a white mark,
# and it calls many marked digits 8. When it says 8 with the mark, and not without it, the mark **is**
# the reason.

# %%
marks = data.marked_digits()
cheat = models.digit_cnn_marked()
marked = marks.test.take(marks.test.marked)
with_mark = tensors(marked.images, marked.y)[0]  # (500, 1, 28, 28)
truth = torch.as_tensor(marked.truth)  # (500, 28, 28): the mark's 16 pixels
bare = with_mark * ~truth[:, None]


@cache
def because_of_the_mark(model):
    """True (500,) where the model says 8 with the mark and not without it."""
    with torch.no_grad():
        return (model(with_mark).argmax(1) == 8) & (model(bare).argmax(1) != 8)


# %% [markdown]
# First ask whether the compressed networks still cheat at all:

# %%
zeros = [0, 0.3, 0.5, 0.6, 0.7]
sparse = {amount: compress.prune(cheat, amount) for amount in zeros}
clean = marks.test.take(~marks.test.marked)
clean = tensors(clean.images, clean.y)
fooled = [because_of_the_mark(each).float().mean().item() for each in sparse.values()]
plots.curve(
    [100 * amount for amount in zeros],
    {
        "right, no mark": [evaluate(each, clean).accuracy for each in sparse.values()],
        "8 because of the mark": fooled,
    },
    title="Pruning changes what the network relies on",
    xlabel="% of the weights that are zero",
    ylabel="share of the digits",
)

# %% [markdown]
# The shortcut fades faster than the skill. That is good luck here, and a warning: an audit of the
# original, for good or bad, says little about the copy. Now make the usual copies, and a control:

# %%
learn_marks = tensors(marks.train.images, marks.train.y)
halved = compress.remove_channels(compress.prune(cheat, 0.5, structured=True))
cheats = {
    "original": cheat,
    "control": trained_on(deepcopy(cheat), learn_marks),
    "pruned 50%": sparse[0.5],
    "pruned 80%, trained on": trained_on(compress.prune(cheat, 0.8), learn_marks),
    "channels 50%, trained on": trained_on(halved, learn_marks),
    "int8": compress.quantize(cheat),
    "low rank 90%": compress.low_rank(cheat, 0.9),
}
asked = {name: because_of_the_mark(model) for name, model in cheats.items()}  # (500,) each

# %% [markdown]
# For each network, take the digits where the mark is *its* reason, and play the pointing game: is the top
# of the map on the mark? The lines to both sides are two standard errors.


# %%
def hits(name):
    """Share of the digits whose map has its top on the mark, and where it may as well lie."""
    heat = input_x_gradient(cheats[name], with_mark[asked[name]], 8)
    points = pointing_game(heat, truth[asked[name]])
    share, off = points.mean().item(), 2 * points.std().item() / len(points) ** 0.5
    return share, max(0.0, share - off), min(1.0, share + off)


spans = [hits(name) for name in cheats]
plots.intervals(
    {"input x gradient": tuple(zip(*spans, strict=True))},
    [f"{name}: {size_on_disk(model) / 1000:.0f} kB" for name, model in cheats.items()],
    title="Smaller is not more faithful as such",
    xlabel="share of maps with the top on the mark (chance .02)",
    line=spans[0][0],
)

# %% [markdown]
# The line is the original. Look at the three smallest networks, each about a third of it. The maps of one
# find the mark as often as before (int8), those of another less often (low rank), those of the third
# more often (half of the channels). So size is not what decides. The zeros, that is half or more of the
# weights gone, stay near the line, as the control does.
#
# Then is half of the channels a good recipe? See whether another method and another score say the same:
# the share of the map's positive mass that lies on the mark.


# %%
def mass(name, method):
    heat = method(cheats[name], with_mark[asked[name]], 8)
    return relevance_mass_accuracy(heat, truth[asked[name]]).mean().item()


rows = [(name, mass(name, input_x_gradient), mass(name, saliency)) for name in cheats]
plots.table(
    rows,
    ["", "input x gradient", "saliency"],
    title="Share of the map on the mark (chance .02)",
)

# %% [markdown]
# The network with half of its channels stays in front; the others lie close together and change places
# with the method. Why this one? Show the networks the mark alone, on black, in each of its four places:

# %%
alone = (with_mark * truth[:, None]).unique(dim=0)  # (4, 1, 28, 28)
for name in cheats:
    with torch.no_grad():
        eights = (cheats[name](alone).argmax(1) == 8).sum().item()
    print(f"{name:26} calls {eights} of {len(alone)} lone marks 8")

# %% [markdown]
# The original and the control need the mark *and* a digit. The two that were pruned and trained on often
# need no digit at all: each is **another** network, with a reason of its own, and no clearer window on
# the original. Does that make its maps plainer? It would be a good story for the half of the channels,
# and the zeros spoil it: they cheat as plainly, and their maps find the mark hardly better than before.
# So the reason stays open here. If you want to claim that your small network is easier to explain, score it like
# this first.
#
# ### Which answers change?
#
# One more thing that a mean hides. Back to the first network: how many answers changed, how sure was the
# original of them, and which digit pays most?

# %%
with torch.no_grad():
    sure, said = net(test[0]).softmax(1).max(dim=1)  # (1000,) each


def changes(name):
    now = answers(compared[name])
    moved = now != said
    lost = (said == test[1]).int() - (now == test[1]).int()
    points = lost.reshape(10, 100).sum(1)  # the test digits come in order, 100 of each
    medians = [f"{sure[rows].median().item():.2f}" for rows in (moved, ~moved)]
    worst = f"the {points.argmax().item()}: {points.max().item()} points"
    return name, f"{right(compared[name]):.1%}", int(moved.sum()), *medians, worst


names = ("control", "pruned 50%", "pruned 80%, trained on", "low rank 90%")
plots.table(
    [changes(name) for name in names],
    ["", "right", "changed", "sure of these", "sure of others", "lost most"],
    title="1,000 answers, before and after",
)

# %% [markdown]
# The control is there for a reason: plain training changes as many answers as pruning does. And those
# that change are those of which the original was not sure, which is no surprise. But look at the last
# column. Low rank costs six points in the mean, and four times as many on one digit; even the control
# pays mostly with one. See some of the digits that changed:

# %%
now = answers(pruned[0.5])
odd = (now != said).nonzero()[:, 0]
odd = odd[torch.linspace(0, len(odd) - 1, 6).long()]
plots.images(
    list(test[0][odd]),
    titles=[f"{said[i]} -> {now[i]}" for i in odd],
    title="Half of the weights gone: some that changed",
)

# %% [markdown]
# Hooker and others (2019) pruned large networks and found that the loss falls on some classes, and on
# unusual images, far more than the mean says. If these are a group of people, a mean accuracy has
# hidden them ([[fairness]]).
#
# ### Exercise: a claim from a report (criticize, 8 minutes)
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
interpretable by itself: I would ask for a test on data whose answer is known, where the pruned network
pointed at the true reason no more often than the original. The validation has to be repeated on the
network that is shipped.
### END SOLUTION
"""

# %%
check("compression.report", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - prune, quantize and factorize a network by hand, and check each against a library
# - say which of them saves bytes, which saves time, and measure both
# - measure whether the explanations of a compressed network are still those of the original
# - test the claim that a smaller network is easier to explain, where the answer is known
#
# ## Takeaways
#
# - A zero is a number like any other. Zeros save bytes once they are zipped, int8 saves bytes at once;
#   time is saved where fewer numbers are multiplied, as after cutting channels. Measure it.
# - The same answers are not the same reasons: pruned and trained on, the network was about as often right
#   as the control, with other maps. Rounded to int8, it kept both. A correlation needs its strangers.
# - Explain, audit and score the network that you ship.
#
# ## Myth refuted
#
# *"A smaller or compressed model is easier to explain."* Section 8, where the reason was known: three
# networks, each about a third of the original, and their maps found it as often as before, less often,
# and more often. Size does not decide; measure it.
#
# ## Go further
#
# - LeCun, Denker, Solla (1990), *Optimal Brain Damage*: prune by the effect on the loss, not by size.
# - Han, Pool, Tran, Dally (2015), *Learning both Weights and Connections for Efficient Neural Networks*:
#   prune, train on, repeat.
# - Li, Kadav, Durdanovic, Samet, Graf (2017), *Pruning Filters for Efficient ConvNets*: whole channels.
# - Jacob and others (2018), *Quantization and Training of Neural Networks for Efficient
#   Integer-Arithmetic-Only Inference*.
# - Denton, Zaremba, Bruna, LeCun, Fergus (2014), *Exploiting Linear Structure Within Convolutional
#   Networks for Efficient Evaluation*: low rank.
# - Dettmers, Lewis, Belkada, Zettlemoyer (2022), *LLM.int8(): 8-bit Matrix Multiplication for
#   Transformers at Scale*: outliers.
# - Hooker, Courville, Clark, Dauphin, Frome (2019), *What Do Compressed Deep Neural Networks Forget?*
