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
# # Training: teach a network, and check what it learned
#
# **Question:** How do you train a network, and which of its numbers may you believe?
#
# **You will be able to**
# - work out the shapes in a convolutional network, and mend the errors that wrong ones give
# - write the training loop by hand, and hand it over to Lightning without changing a digit
# - stop early, save a checkpoint, and resume a training exactly where it stopped
# - read curves and histograms from a TensorBoard log
# - find the mistakes, the leak and the lost class that one accuracy hides
#
# **You need:** [[backprop]] and [[gradient_flow]]
#
# **Time:** [[time]]; the cells run in under a minute · **Difficulty:** 3 of 5

# %%
import math
import tempfile
from collections import OrderedDict
from pathlib import Path

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from sklearn.metrics import classification_report, confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from xailab import data, models, plots
from xailab.core.stderr import muted
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.models import training

# %% [markdown]
# Here are 5,000 handwritten digits. The network may learn from 4,000 of them. The other 1,000 it never
# sees: they are **held out**, to find out what it has learned.

# %%
digits = data.load("mnist5k")
x = torch.as_tensor(digits.images)[:, None] / 255  # (5000, 1, 28, 28), from 0 to 1
y = torch.as_tensor(digits.y)  # (5000,)
may_learn = torch.as_tensor(digits.extra["train"])  # (5000,), True for 4,000 of them
train = x[may_learn], y[may_learn]
valid = x[~may_learn], y[~may_learn]

# %% [markdown]
# The network is small: two convolutions, each with a ReLU and a pooling, then one linear layer.


# %%
def small_cnn(seed=0):
    torch.manual_seed(seed)
    first = OrderedDict(conv1=nn.Conv2d(1, 8, 5), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2))
    second = OrderedDict(conv2=nn.Conv2d(8, 16, 5), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2))
    head = OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(16 * 4 * 4, 10))
    net = nn.Sequential(first | second | head)
    return net.to(memory_format=torch.channels_last)  # same numbers, a third less time on a CPU


# %% [markdown]
# Train it with one line. By the end of the lesson you will have written that line yourself, and you
# will have found reasons to distrust it.

# %%
model = small_cnn()
history = training.fit(model, train, valid, epochs=3)
for epoch, share in enumerate(history.valid_accuracy):
    print(f"epoch {epoch}: {share:.1%} of the held-out digits right")

# %% [markdown]
# Three epochs, so each digit was seen three times, and more than 95% are right. Which are wrong? Here are
# the ten mistakes that the network was surest of:

# %% tags=["readme-mistakes"]
with torch.no_grad():
    chances = model(valid[0]).softmax(dim=1)  # (1000, 10), each row sums to 1
answer = chances.argmax(dim=1)  # (1000,)
wrong = (answer != valid[1]).nonzero()[:, 0]
surest = wrong[chances[wrong, answer[wrong]].argsort(descending=True)][:10]
plots.images(
    [valid[0][i] for i in surest],
    titles=[f"{answer[i]}? it is a {valid[1][i]}" for i in surest],
    title="The ten mistakes it was surest of",
)

# %% [markdown]
# Some of these you would get wrong yourself. In others the digit is plain, and the network is sure of
# something else. Accuracy tells you neither.
#
# ## 1. Shapes: what fits onto what
#
# Most first attempts at such a network die of a wrong number in `nn.Linear`. You can compute that
# number before you run anything.
#
# A window 5 wide on a row of 28 pixels has its left edge on pixel 0, 1, ... up to 23: that makes **24**
# positions. The pooling has a window 2 wide and jumps by 2, so of 24 positions 12 are left. In general,
#
# $$n_\text{out} = \left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1$$
#
# $n$ is the width that comes in, $k$ the width of the window, $s$ the jump (stride), $p$ the pixels of
# zeros added at each end (padding). $\lfloor\cdot\rfloor$ rounds down: a window that does not fit any
# more is left out.

# %%
# NBVAL_CHECK_OUTPUT
width = 28
for name, k, s in [("conv1", 5, 1), ("pool1", 2, 2), ("conv2", 5, 1), ("pool2", 2, 2)]:
    width = (width + 0 - k) // s + 1
    print(f"{name}: {width} x {width}")

# %% [markdown]
# Now let a digit walk through the layers, and see whether the network agrees:

# %%
h = x[:1]
for name, layer in model.named_children():
    h = layer(h)
    weights = sum(p.numel() for p in layer.parameters())
    print(f"{name:8} {tuple(h.shape)!s:16} {weights:5,} parameters")

# %% [markdown]
# Sixteen small pictures of 4 x 4 cells make 256 numbers, and that is what `fc` has to take. The
# parameters can be counted as well: `conv1` has 8 windows of 5 x 5 weights and a bias each, $8 \cdot 26 =
# 208$; each of the 16 windows of `conv2` looks at 8 pictures, $16 \cdot (8 \cdot 25 + 1) = 3216$.
#
# What if you had thought that 7 x 7 cells were left?

# %%
# NBVAL_CHECK_OUTPUT
stages = list(small_cnn().children())[:-1]  # all but the linear layer
hopeful = nn.Sequential(*stages, nn.Linear(16 * 7 * 7, 10))
try:
    hopeful(x[:64])
except RuntimeError as error:
    print(error)

# %% [markdown]
# Read it from the left. `mat1` is what arrives: 64 rows (the digits) of **256** numbers. `mat2` is the
# layer: it expects **784**. The number that arrives is the one you need. Nothing is wrong with the
# convolutions, though the error looks as if the network were broken.
#
# ### Exercise: the formula as a function (code, 5 minutes)
#
# Write the formula for one side of a picture. `hint("training.output_size")` helps in up to three steps.


# %% tags=["exercise"]
def output_size(n, k, s=1, p=0):
    """Positions of a window k wide on n pixels: stride s, padding p at each end."""
    ### BEGIN SOLUTION
    return (n + 2 * p - k) // s + 1
    ### END SOLUTION


# %%
check("training.output_size", output_size)

# %% [markdown]
# `xailab` has it too. Compare it with what torch does, on shapes you have never seen:

# %%
for n, k, s, p in [(224, 11, 4, 2), (55, 3, 2, 0), (32, 11, 4, 2), (7, 3, 2, 1)]:
    layer = nn.Conv2d(1, 1, k, stride=s, padding=p)
    side = models.conv_output_size(n, k, stride=s, padding=p)
    assert layer(torch.zeros(1, 1, n, n)).shape[-1] == side
    print(f"{n} pixels, window {k}, stride {s}, padding {p}: {side}")

# %% [markdown]
# The first two lines are the beginning of AlexNet on the 224 pixels it was made for. The third is the
# same layer on a picture of 32 pixels: 7 are left, and four layers later, nothing. We come back to it.
#
# ## 2. The loop by hand
#
# What does an untrained network say?

# %%
net = small_cnn()
pictures, truth = train[0][:64], train[1][:64]
loss = F.cross_entropy(net(pictures), truth)
print(f"loss {loss.item():.2f}; ln 10 = {math.log(10):.2f}")

# %% [markdown]
# The loss is the mean of $-\ln p$, with $p$ the chance given to the right digit. Who knows nothing
# gives each of ten digits $\frac1{10}$, and has a loss of $\ln 10$. Look for this number before the
# first step of every training: if it is far away, the last layer or the labels are wrong.

# %%
quiz("training.q_first_loss")

# %% [markdown]
# You have the loss. Three more lines make one step of learning. Adam is a form of gradient descent that
# gives every weight its own step size.

# %%
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
optimizer.zero_grad()  # forget the last step's gradients
loss.backward()  # gradients of all weights: lesson backprop
optimizer.step()  # move every weight a little, against its gradient
print(f"{loss.item():.3f} -> {F.cross_entropy(net(pictures), truth).item():.3f}")

# %% [markdown]
# The loss on these 64 digits went down. Everything else is repetition: 64 others, and again, until all
# 4,000 had their turn (an **epoch**), in an order that is shuffled anew each time. The order is drawn
# from the number of the epoch. Why that is wise, section 4 shows.


# %%
def one_epoch(net, optimizer, epoch):
    """Visit every training digit once; return the mean loss on the way."""
    total = 0.0
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(epoch))
    for rows in order.split(64):
        loss = F.cross_entropy(net(train[0][rows]), train[1][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    return total / 4000


# %% [markdown]
# After each epoch, measure on the held-out digits. Measuring must not teach: no gradient, no step.


# %%
@torch.no_grad()
def measure(net):
    logits = net(valid[0])  # (1000, 10)
    loss = F.cross_entropy(logits, valid[1]).item()
    return loss, (logits.argmax(dim=1) == valid[1]).float().mean().item()


net = small_cnn()
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
by_hand = [(one_epoch(net, optimizer, epoch), *measure(net)) for epoch in range(3)]
for epoch, numbers in enumerate(by_hand):
    print("epoch {}: loss {:.3f}, held out {:.3f}, {:.1%} right".format(epoch, *numbers))

# %% [markdown]
# You have seen these percentages: they are those of the first cell. `training.fit` is this loop, and
# each of its numbers is yours:

# %%
np.testing.assert_allclose(by_hand, list(zip(*history)), rtol=1e-4)

# %%
plots.curve(
    range(3),
    {"training": history.train_loss, "held out": history.valid_loss},
    title="Both losses fall, most of all at the start",
    xlabel="epoch",
    ylabel="loss (cross-entropy)",
)

# %% [markdown]
# Do not wonder that the training loss begins above the other. It is a mean over the epoch, the first
# steps of an untrained network included; the held-out loss is measured at its end.
#
# ### Exercise: what if you forget one line? (predict, 2 minutes)
#
# Leave out `optimizer.zero_grad()`. Then each gradient is added to all those before it, and every step
# follows the sum. Which share of the held-out digits is right after one epoch? With the line it is
# above 0.9.

# %% tags=["exercise"]
### BEGIN SOLUTION
forgot_guess = 0.6
### END SOLUTION

# %%
predict("training.forgot", forgot_guess)

# %%
forgetful = small_cnn()
optimizer = torch.optim.Adam(forgetful.parameters(), lr=5e-3)
optimizer.zero_grad = lambda: None  # the line is there, but does nothing
one_epoch(forgetful, optimizer, epoch=0)
reveal("training.forgot", round(measure(forgetful)[1], 2))

# %% [markdown]
# No error, no warning; it only learns badly. In [[cam]] you will meet a library that leaves
# gradients behind in your network: this is why that matters.
#
# ### Exercise: debug this (code, 15 minutes)
#
# Five pieces of code, each with a bug. Run them, and **read what the error says** before you touch
# anything.

# %%
broken = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 10)),
    "cnn": lambda: nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128 * 28 * 28, 10)),
    ),
    "alexnet": lambda: nn.Sequential(  # shortened; made for pictures of 224 pixels
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 2)),
        *(nn.Flatten(), nn.Linear(192 * 6 * 6, 10)),
    ),
}


# %%
def backward_pass(net, pictures, truth):
    """Leave the gradient of the mean loss in every weight; return the losses (N,)."""
    losses = F.cross_entropy(net(pictures), truth, reduction="none")  # (N,)
    losses.backward()
    return losses


broken["backward"] = backward_pass
broken["loss"] = lambda logits, truth: F.binary_cross_entropy_with_logits(logits, truth.float())

# %%
small, color = torch.zeros(8, 1, 28, 28), torch.zeros(8, 3, 32, 32)
eight = torch.arange(8)
trials = {
    "mlp": lambda: broken["mlp"]()(small),
    "cnn": lambda: broken["cnn"]()(small),
    "alexnet": lambda: broken["alexnet"]()(color),
    "backward": lambda: broken["backward"](small_cnn(), small, eight),
    "loss": lambda: broken["loss"](torch.zeros(8, 10), eight),
}

# %%
# NBVAL_CHECK_OUTPUT
for name, trial in trials.items():
    try:
        trial()
    except (RuntimeError, ValueError) as error:
        print(f"{name:8} {error}")

# %% [markdown]
# Each message holds the number that you need, or the word. Write all five anew, without the bug:
#
# - `mlp` and `cnn` take digits `(N, 1, 28, 28)`, `alexnet` takes color pictures `(N, 3, 32, 32)`; each gives ten
#   logits a row. Keep the two convolutions of `cnn`; of `alexnet`, change what you need to.
# - `backward` leaves the gradient of the **mean** loss in the weights.
# - `loss` is the loss for one right class out of ten.
#
# The check tells which piece still has its bug. Try `check("training.debug", broken)` too.


# %% tags=["exercise"]
### BEGIN SOLUTION
def mended_backward(net, pictures, truth):
    losses = F.cross_entropy(net(pictures), truth, reduction="none")
    losses.mean().backward()
    return losses


mended = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)),
    "cnn": lambda: nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128 * 7 * 7, 10)),
    ),
    "alexnet": lambda: models.alexnet(size=32),
    "backward": mended_backward,
    "loss": F.cross_entropy,
}
### END SOLUTION

# %%
check("training.debug", mended)

# %% [markdown]
# ## 3. The same with Lightning
#
# Your loop is right, and it will grow: a progress bar, a log, checkpoints, a graphics card, two of
# them. [Lightning](https://lightning.ai) has all this, tested by many. You hand it the parts of the loop
# that are yours: what a step computes, what is measured, which optimizer. No `for`, no `backward`.


# %%
class DigitReader(lightning.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, _):
        pictures, truth = batch
        loss = F.cross_entropy(self.model(pictures), truth)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)


# %% [markdown]
# `training.loaders` feeds it the digits in our order of epochs, and `training.trainer` is Lightning's
# `Trainer` with its remarks about hardware switched off. Everything it writes goes to a folder which the
# last cell of the lesson deletes.

# %%
folder = tempfile.TemporaryDirectory(prefix="xailab-training-")
log = Path(folder.name) / "digits"
reader = DigitReader(small_cnn())
trainer = training.trainer(log / "bare", epochs=1)
trainer.fit(reader, training.loaders(train, valid)[0])
print(f"by hand   {by_hand[0][0]:.6f}")
print(f"Lightning {trainer.callback_metrics['train/loss'].item():.6f}")

# %% [markdown]
# You saw a progress bar run by (the stored solution has none), and the loss is yours. The same
# start, the same order, the same optimizer: the same numbers.
#
# `training.Classifier` is this class with a `validation_step` that measures the held-out digits.
# Two **callbacks** join it: they are called at fixed places of the loop, and the loop knows nothing of them.
# One saves a checkpoint after each epoch. The other, from `xailab`, logs histograms of what layers hand
# over and of the gradients.

# %%
save = ModelCheckpoint(Path(folder.name) / "saved", "{epoch}", save_top_k=-1)
watch = training.Histograms(["relu1", "relu2", "fc"], rows=valid[0][:100])
module = training.Classifier(small_cnn())
trainer = training.trainer(log, epochs=2, callbacks=[save, watch])
trainer.fit(module, *training.loaders(train, valid))
sorted(path.name for path in (Path(folder.name) / "saved").iterdir())

# %% [markdown]
# ## 4. Stop, save, resume
#
# Two epochs are done, and now the power goes out. The network in memory is lost; the file
# `epoch=1.ckpt` is left. What does it hold?

# %%
checkpoint = torch.load(Path(folder.name) / "saved" / "epoch=1.ckpt", weights_only=False)
for key in ("epoch", "global_step", "state_dict", "optimizer_states"):
    content = checkpoint[key]
    print(f"{key:18}", content if isinstance(content, int) else f"{len(content)} entries")

# %% [markdown]
# Besides the weights it holds the memory of Adam (means of past gradients and of their squares) and the
# number of the epoch. Start with a **new** network, whose weights are different ones, and ask Lightning
# for three epochs in all:

# %%
module = training.Classifier(small_cnn(seed=99))
trainer = training.trainer(log, epochs=3, callbacks=[save, watch])
last = Path(folder.name) / "saved" / "epoch=1.ckpt"
trainer.fit(module, *training.loaders(train, valid), ckpt_path=last)

# %%
resumed = training.read_scalars(log)["valid/loss"].values
rows = [(e, f"{by_hand[e][1]:.6f}", f"{resumed[e]:.6f}") for e in range(3)]
names = ["epoch", "by hand, never stopped", "Lightning, stopped after epoch 1"]
plots.table(rows, names, title="A resumed training goes on where it was")

# %%
np.testing.assert_allclose(resumed, [numbers[1] for numbers in by_hand], rtol=1e-4)

# %% [markdown]
# It goes on as if nothing had happened. That took three things. The checkpoint brought back the
# weights and Adam's memory. The third is the order: epoch 2 has to see the digits in the order of epoch
# 2. An order drawn from a generator that has been running since the start would begin anew, with the
# order of epoch 0, and nobody would tell you.
#
# How much does it matter? Take the weights alone and train on, with a fresh Adam and the order of epoch
# 0:

# %%
only_weights = small_cnn()
state = checkpoint["state_dict"]
only_weights.load_state_dict({name.removeprefix("model."): w for name, w in state.items()})
careless = training.fit(only_weights, train, valid, epochs=1)
print(f"at the break  {resumed[1]:.4f}")
print(f"resumed       {resumed[2]:.4f}")
print(f"weights only  {careless.valid_loss[0]:.4f}")

# %% [markdown]
# Not a disaster, but another training, and here a whole epoch for nothing. If you want to repeat a
# result, save all three.
#
# ### Early stopping
#
# How many epochs are right? Here is a harder case, with only 300 digits to learn from. The training loss
# will fall for as long as you wait, since a network can learn 300 digits by heart. The held-out loss will
# not.
#
# ### Exercise: when is it best? (predict, 2 minutes)
#
# In which epoch (0 to 59) will the held-out loss be lowest? An epoch has five steps here, not 63.

# %% tags=["exercise"]
### BEGIN SOLUTION
stop_guess = 20
### END SOLUTION

# %%
predict("training.stop", stop_guess)

# %% [markdown]
# `EarlyStopping` watches the held-out loss and stops after three epochs without a new best (its
# **patience**). `ModelCheckpoint` with a `monitor` keeps the best network, since the last one is not it.

# %%
some = training.order(4000, seed=0, epoch=0)[:300]
few = train[0][some], train[1][some]
stop = EarlyStopping("valid/loss", patience=3)
best = ModelCheckpoint(Path(folder.name) / "best", monitor="valid/loss")
trainer = training.trainer(log / "few", epochs=60, callbacks=[stop, best])
trainer.fit(training.Classifier(small_cnn()), *training.loaders(few, valid))

# %%
curves = training.read_scalars(log / "few")
losses = curves["valid/loss"].values
reveal("training.stop", int(np.argmin(losses)))
print(f"{len(losses)} epochs were run, of the 60 allowed")

# %%
plots.curve(
    range(len(losses)),
    {"training": curves["train/loss"].values, "held out": losses},
    title="The training loss goes on falling, the held-out loss does not",
    xlabel="epoch",
    ylabel="loss (cross-entropy)",
)

# %% [markdown]
# From the lowest point on, what it still learns is about those 300 digits and not about digits.
#
# A warning: the held-out digits have now **chosen** an epoch, so the best loss is the best of many tries,
# and a little too good. A careful report measures on a third set that chose nothing.
#
# ## 5. TensorBoard: look inside while it learns
#
# All this time Lightning has been writing a log. It is a file of **events**, each a tag, a step and a
# value:

# %%
scalars, histograms = training.read_scalars(log), training.read_histograms(log)
for tag, (steps, values) in scalars.items():
    print(f"{tag:15} {len(values)} values, the last one {values[-1]:.4f} at step {steps[-1]}")
print(*histograms, sep="\n")

# %% [markdown]
# `read_scalars` stands on TensorBoard's own reader. Ask that one for a curve, and you get the same:

# %%
accumulator = EventAccumulator(str(log)).Reload()
theirs = [event.value for event in accumulator.Scalars("valid/loss")]
assert theirs == scalars["valid/loss"].values

# %% [markdown]
# The log was written by two trainings, before and after the break, yet it is one curve: steps are
# counted on.
#
# Now the histograms. What does the last layer hand over, epoch by epoch? Each row below shows 1,000
# logits: ten for each of the same 100 digits.

# %%
plots.ridge(
    histograms["activations/fc"],
    title="Most logits lie below 0, a small hill far above it",
    xlabel="logit",
    step="epoch",
)

# %% [markdown]
# Both hills stand after epoch 0 and move little afterward. Nine of ten logits belong to wrong digits. Is
# the small hill that of the right ones?

# %%
with torch.no_grad():
    logits = module.model(valid[0][:100])  # (100, 10)
right = logits[torch.arange(100), valid[1][:100]]  # (100,)
print(f"of the right digit: {(right > 0).float().mean():.0%} above 0, median {right.median():.1f}")

# %% [markdown]
# And the gradients of the second convolution, in the last step of each epoch?

# %%
plots.ridge(
    histograms["gradients/conv2.weight"],
    title="The gradients of one layer, epoch by epoch",
    xlabel="gradient of a weight",
    step="epoch",
)

# %% [markdown]
# A thin spike at 0 says that the gradients of this batch are small, not that the layer has stopped
# learning: Adam's steps hardly depend on the size of the gradient, so whether a layer still moves has to be
# asked of its weights. In the first epoch, in the layers far from the loss, a spike would be the vanishing
# gradient of [[gradient_flow]]. One batch is one sample, so do not read much into a single row.
#
# You can watch the same in a browser **while** a training runs. Open a terminal, activate the course's
# environment, and start TensorBoard on the log folder:

# %%
print(f"tensorboard --logdir {log}")

# %% [markdown]
# Open the address that it prints (`http://localhost:6006`). Of the three runs on the left, `.` is the
# one above. The tab **Scalars** has `train/loss`,
# `valid/loss` and `valid/accuracy`, the tab **Histograms** `activations` and `gradients`, one card a layer,
# the oldest at the back. Two settings on the left of *Scalars* mislead here: **Smoothing** at 0.6 draws a line
# that is not your data, and **Ignore outliers** may cut off the first epoch. Set one to 0, the other off. End
# TensorBoard with Ctrl-C, and do all this before you run the last cell, which deletes the folder.
#
# ## 6. Where is it wrong?
#
# Back to the network of the first cell, and its answers to the 1,000 held-out digits. Count, for each
# true digit, what it was taken for. That is the **confusion matrix**:

# %%
counts = np.zeros((10, 10), dtype=int)
for truly, said in zip(valid[1].tolist(), answer.tolist()):
    counts[truly, said] += 1
assert (counts == confusion_matrix(valid[1], answer)).all()  # scikit-learn's

# %%
worst = np.unravel_index((counts - np.diag(np.diag(counts))).argmax(), counts.shape)
plots.confusion(
    counts,
    range(10),
    title=f"The most frequent mistake: a {worst[0]} taken for a {worst[1]}",
)

# %% [markdown]
# A row is a true digit, a column an answer. The mistakes are colored; the right answers would
# outshine them. Go along a row: which of these digits were **found**? Go down a column: which of the answers can
# you **trust**? Two numbers for each class say it, and they are not the same.
#
# - **recall**: of the true eights, the share that was found;
# - **precision**: of the answers *eight*, the share that was right.
#
# ### Exercise: both of them (code, 6 minutes)
#
# Compute them from the matrix, for all classes at once.


# %% tags=["exercise"]
def recall_and_precision(counts):
    """Two arrays (K,) from counts (K, K): row = truth, column = answer."""
    ### BEGIN SOLUTION
    right = np.diag(counts)
    return right / counts.sum(axis=1), right / counts.sum(axis=0)
    ### END SOLUTION


# %%
check("training.recall", recall_and_precision)

# %% [markdown]
# The report that practitioners print has both, for every class:

# %%
report = classification_report(valid[1], answer, output_dict=True)
columns = ["precision", "recall"]
rows = [(d, *(f"{report[str(d)][c]:.2f}" for c in columns)) for d in range(10)]
plots.table(rows, ["digit", *columns], title="One accuracy, and ten digits that are not alike")

# %%
weakest = min(range(10), key=lambda d: report[str(d)]["recall"])
print(f"the digit found least often: {weakest} ({report[str(weakest)]['recall']:.0%})")
print(f"accuracy: {report['accuracy']:.1%}")

# %% [markdown]
# Now go back to the ten pictures at the top, and say for each whether the digit or the network is to
# blame. Reading mistakes is dull and tells more than the next percent.
#
# ## 7. The same data in Keras
#
# The other large library is Keras, here on TensorFlow. A network with one hidden layer (a multilayer
# perceptron, **MLP**), trained on the same digits. Keras brings its own loop, as `fit`.

# %%
try:
    with muted():  # TensorFlow tells on import what graphics card it did not find
        import keras

        keras.utils.set_random_seed(0)
        keras.ops.zeros(1)  # the first operation starts TensorFlow up
except ImportError:  # there is no TensorFlow for Python 3.14
    keras = None
    print("TensorFlow is not installed: the next cells do nothing, and the lesson goes on.")

# %%
if keras:
    layers = [
        keras.Input((1, 28, 28)),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10),
    ]
    mlp_keras = keras.Sequential(layers)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    mlp_keras.compile(keras.optimizers.Adam(3e-3), entropy, metrics=["accuracy"])

# %%
if keras:
    held_out = tuple(part.numpy() for part in valid)
    past = mlp_keras.fit(
        *(part.numpy() for part in train),
        validation_data=held_out,
        epochs=4,
        batch_size=64,
        verbose=0,
    )
    print("held out, epoch by epoch:", np.round(past.history["val_accuracy"], 3))

# %% [markdown]
# Worse than our network, with an epoch more. Is PyTorch better than Keras? That would compare two things at once. Put the
# same MLP beside it in PyTorch:


# %%
def small_mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


mlp = small_mlp()
beside = training.fit(mlp, train, valid, epochs=4, learning_rate=3e-3)
rows = [("PyTorch", "CNN", 5994, f"{history.valid_accuracy[-1]:.3f}")]
rows += [("PyTorch", "MLP", 101770, f"{beside.valid_accuracy[-1]:.3f}")]
if keras:
    score = past.history["val_accuracy"][-1]
    rows += [("Keras", "MLP", mlp_keras.count_params(), f"{score:.3f}")]

# %%
assert sum(p.numel() for p in model.parameters()) == 5994
assert sum(p.numel() for p in mlp.parameters()) == 101770
names = ["library", "network", "parameters", "held out"]
plots.table(rows, names, title="The network makes the difference, not the library")

# %% [markdown]
# The two MLPs are alike; the CNN is better than both with a seventeenth of the parameters. And the
# libraries compute the same: give the PyTorch network the weights of the Keras one, and it gives the
# same logits. (Keras stores a weight matrix the other way around.)

# %%
if keras:
    W1, b1, W2, b2 = mlp_keras.get_weights()
    with torch.no_grad():
        for layer, W, b in ((mlp[1], W1, b1), (mlp[3], W2, b2)):
            layer.weight.copy_(torch.as_tensor(W.T))
            layer.bias.copy_(torch.as_tensor(b))
        ours = mlp(valid[0]).numpy()
    np.testing.assert_allclose(ours, mlp_keras(held_out[0]).numpy(), atol=1e-3)

# %% [markdown]
# ## 8. When it lies
#
# Four ways in which a good number says nothing.
#
# ### Accuracy on what it has learned from
#
# Take the 300 digits of section 4, throw away their labels, and roll a ten-sided die for each: this
# 3 is a *seven*, that 3 is a *one*. There is **nothing to learn**. Train the MLP on them.
#
# ### Exercise: what can it learn from dice? (predict, 2 minutes)
#
# Which accuracy will it reach on those same 300 digits, with their dice as labels?

# %% tags=["exercise"]
### BEGIN SOLUTION
dice_guess = 0.3
### END SOLUTION

# %%
predict("training.dice", dice_guess)

# %%
dice = torch.randint(0, 10, (300,), generator=torch.Generator().manual_seed(0))
rolled = few[0], dice
gambler = small_mlp()
training.fit(gambler, rolled, valid, epochs=30, learning_rate=3e-3)
reveal("training.dice", round(training.evaluate(gambler, rolled).accuracy, 2))
print(f"on held-out digits: {training.evaluate(gambler, valid).accuracy:.2f}")

# %% [markdown]
# It learns the dice by heart, and on other digits it guesses: one of ten. Accuracy on the training data
# measures memory. Never report it alone.
#
# ### A leak
#
# So hold some out. A colleague does: he makes four copies of each picture, each a little darker (more
# data is better), shuffles all 1,200, and holds out 300 of them. The labels are still dice, so the
# honest accuracy is 10%.

# %%
copies = torch.cat([few[0] * light for light in (1.0, 0.9, 0.8, 0.7)])  # (1200, 1, 28, 28)
labels, picture = dice.repeat(4), torch.arange(300).repeat(4)
shuffled = torch.randperm(1200, generator=torch.Generator().manual_seed(0))
by_copy = torch.zeros(1200, dtype=torch.bool)
by_copy[shuffled[:300]] = True  # held out: any 300 of the 1,200 copies
by_picture = picture >= 225  # held out: all copies of the last 75 pictures


# %%
def held_out_accuracy(held):
    net = small_mlp()
    parts = (copies[~held], labels[~held]), (copies[held], labels[held])
    return training.fit(net, *parts, epochs=20, learning_rate=3e-3).valid_accuracy[-1]


shares = [held_out_accuracy(by_copy), held_out_accuracy(by_picture)]
splits = ["copy, then hold out", "hold out, then copy"]
plots.bars(
    shares,
    splits,
    title="A leak makes dice predictable",
    xlabel="accuracy on held-out pictures (chance: .1)",
)

# %% [markdown]
# Nearly everything he held out has a twin among the digits he trained on. The network looks it up.
# **Split first**, by what is really independent: by picture, by patient, by driver, by day. Then do
# everything else. Are there twins in our own digits? Ask for pictures that are in both parts:

# %%
learned = {picture.numpy().tobytes() for picture in train[0]}
print(sum(picture.numpy().tobytes() in learned for picture in valid[0]), "exact twins")

# %%
quiz("training.q_leak")

# %% [markdown]
# ### A fine curve, and a class that is lost
#
# In practice, one class is often rare. Keep eight nines for training and two for holding out, and all the
# other digits:


# %%
def thin_out(pair, keep):
    """Drop all nines but the first few."""
    nines = (pair[1] == 9).nonzero()[:, 0]
    kept = torch.ones(len(pair[1]), dtype=torch.bool)
    kept[nines[keep:]] = False
    return pair[0][kept], pair[1][kept]


rare = small_cnn()
past = training.fit(rare, thin_out(train, 8), thin_out(valid, 2), epochs=3)

# %%
plots.curve(
    range(3),
    {"training": past.train_loss, "held out": past.valid_loss},
    title=f"A textbook curve, and {past.valid_accuracy[-1]:.0%} are right",
    xlabel="epoch",
    ylabel="loss (cross-entropy)",
)

# %% [markdown]
# Would you ship it? We have put 98 nines aside. Show it all 100:

# %%
nines = valid[0][valid[1] == 9]
with torch.no_grad():
    said = rare(nines).argmax(dim=1)
print(f"nines found: {(said == 9).sum()} of {len(nines)}; called 4: {(said == 4).sum()}")

# %% [markdown]
# The loss is a mean over rows, and two rows in 902 do not move it. Ask for the recall of every class,
# on enough rows of each, before you look at any curve.
#
# ### One number out of many
#
# Is our network better than a rival with half a percent more? Train it again, with other starting
# weights and another order:

# %%
again = [
    training.fit(small_cnn(seed), train, valid, epochs=3, seed=seed).valid_accuracy[-1]
    for seed in (1, 2)
]
accuracies = np.array([history.valid_accuracy[-1], *again])
print("three seeds:", accuracies.round(3), f"spread {np.ptp(accuracies):.1%}")

# %% [markdown]
# Same network, same data. And even one network would get another score on another 1,000 digits. For a
# share $a$ of $n$ rows, the standard error is $\sqrt{a(1-a)/n}$:

# %%
a = accuracies.mean()
print(f"{a:.1%} +- {math.sqrt(a * (1 - a) / 1000):.1%}")

# %% [markdown]
# Half a percent is within what chance does. Report several seeds and the error, or use more rows.
#
# ### Exercise: a report (criticize, 8 minutes)
#
# > *"We collected 2,000 X-rays of 150 patients, made five augmented copies of each, and split the images at
# > random into 80% training and 20% test. After 100 epochs our network reaches 99.6% accuracy; we report the
# > epoch with the best test accuracy. The loss curve falls smoothly, which shows that the network has learned
# > the disease. 6% of the images show it. The best rival has 99.3%."*
#
# What is wrong, and what would you ask for? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
The split comes after the copying, and images of one patient are in both parts: the test set is full of
twins, so 99.6% may be memory. Split by patient first, then augment the training part alone. The epoch was
chosen on the test set, so its accuracy is the best of 100 tries; choose it on a validation set and touch
the test set once. Only 6% of the images show the disease, so always saying "healthy" gives 94%: I would ask
for the recall and the precision of the disease, with the confusion matrix. A smooth loss curve is a mean
over rows and can hide a lost class. The lead of 0.3% is one run; several seeds and a standard error over
patients would tell whether it is chance.
### END SOLUTION
"""

# %%
check("training.report", criticism)

# %% [markdown]
# ## 9. The full size
#
# 5,000 digits and 6,000 weights fit into a lesson. With internet and patience you can do it at full
# size: all 70,000 digits of MNIST, or the 60,000 color pictures of CIFAR-10, with networks that have a
# name, in the shape that 32 x 32 pixels need:

# %%
for name, network in (("AlexNet", models.alexnet()), ("ResNet-20", models.resnet(depth=20))):
    size = sum(p.numel() for p in network.parameters())
    print(f"{name:10} {size:9,} parameters, logits {tuple(network(color).shape)}")

# %% [markdown]
# In a terminal, with the folder of the course as working directory:
#
# ```
# python -m xailab.models.training --full cifar10 --model resnet --epochs 10
# python -m xailab.models.training --help
# ```
#
# It downloads the set once, logs to `runs/`, saves a checkpoint after each epoch, and goes on from one with
# `--resume`. It is the `Classifier` and the `trainer` of this lesson, nothing else.
#
# Clean up what the lesson wrote, and see your points:

# %%
folder.cleanup()
progress()

# %% [markdown]
# **You can now**
# - work out the shapes in a convolutional network, and mend the errors that wrong ones give
# - write the training loop by hand, and hand it over to Lightning without changing a digit
# - stop early, save a checkpoint, and resume a training exactly where it stopped
# - read curves and histograms from a TensorBoard log
# - find the mistakes, the leak and the lost class that one accuracy hides
#
# ## Takeaways
#
# - A training is four lines in a loop: loss, forget, backward, step. Lightning gives the same numbers
#   and takes care of the rest.
# - A shape error names what arrived and what was expected. The first loss should be $\ln K$.
# - Accuracy is a mean over rows that somebody chose. Ask which rows, whether they have twins among those it
#   learned from, and how each class fares.
#
# ## Myth refuted
#
# *"The loss falls smoothly and the accuracy is high, so the network has learned the task."* A network learned
# 300 rolls of dice perfectly, predicted held-out ones through a leak, and kept a textbook curve while it
# lost nearly all nines.
#
# ## Go further
#
# - Kingma and Ba (2015), *Adam: A Method for Stochastic Optimization*.
# - LeCun, Bottou, Bengio, Haffner (1998), *Gradient-Based Learning Applied to Document Recognition*: our
#   network's ancestor, and MNIST.
# - Dumoulin and Visin (2016), *A guide to convolution arithmetic for deep learning*: every shape,
#   drawn.
# - Zhang, Bengio, Hardt, Recht, Vinyals (2017), *Understanding deep learning requires rethinking
#   generalization*: networks that learn random labels.
# - Kaufman, Rosset, Perlich (2011), *Leakage in Data Mining: Formulation, Detection, and Avoidance*.
# - Krizhevsky, Sutskever, Hinton (2012), *ImageNet Classification with Deep Convolutional Neural Networks*,
#   and He, Zhang, Ren, Sun (2016), *Deep Residual Learning for Image Recognition*: the two networks of
#   section 9.
