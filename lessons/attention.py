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
# # Attention: is where it looks why it answers?
#
# **Question:** A transformer can show you which words it looks at: are these the words that decide?
#
# **You will be able to**
# - compute a transformer block by hand, from scores to residual
# - read the heads of a real language model, and measure what they look at
# - follow attention through layers (rollout), weigh it by gradients, and switch heads off
# - refute "the attention weights are the explanation" with one text and two patterns
#
# **You need:** [[saliency]] and [[integrated_gradients]]
#
# **Time:** [[time]]; the cells run in under a minute · **Difficulty:** 4 of 5

# %%
from time import perf_counter

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from scipy.optimize import linprog
from torch import nn

from xailab import data, models, plots, widgets
from xailab.attribution import attention
from xailab.attribution.paths import integrated_gradients
from xailab.attribution.saliency import input_x_gradient
from xailab.attribution.sequences import token_attributions
from xailab.core.layers import capture, edited
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate import localization
from xailab.evaluate.scoreboard import COLUMNS, record
from xailab.models.texts import pieces as split
from xailab.models.transformers import Attention

_ = torch.manual_seed(0)

# %% [markdown]
# A small transformer reads text messages and says *spam* or *ham*. Here is one it is sure about. The
# number above a word is how much the network looks at it, in the last layer:

# %%
spam_net = models.sms_transformer()
messages = data.load("sms")
messages = messages.take(~messages.extra["train"])  # held out: 1,179 of them
row = next(i for i, text in enumerate(messages.texts) if text.startswith("IMPORTANT INFORMATION 4"))
text = messages.texts[row]
ids = spam_net.encode([text])  # (1, 35)
words = split(text)  # 35: words, numbers and marks
maps = attention.attention_maps(spam_net, ids)  # two layers, (1, 4, 36, 36) each
looks = maps[-1][0, :, 0].mean(0)  # (36,): the class token's row, mean over four heads
plots.tokens(
    words, looks[1:], title=f"Where it looks: the logit of spam is {spam_net(ids)[0, 1].item():.3f}"
)

# %% [markdown]
# So it answers *spam* because of these words? At the end of this lesson you will change these numbers
# till more than half of the attention lies on other words, and the network will give the same two
# logits, to the last digit shown. First you have to know what the numbers do.
#
# ## 1. One head on three words, by hand
#
# Take three words and write each as two numbers. We make them up: the first number says *this word
# negates*, the second *this word praises*.

# %%
# NBVAL_CHECK_OUTPUT
three = ["not", "very", "good"]
x = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 2.0]])  # (T=3, width=2)
for word, vector in zip(three, x):
    print(f"{word:5}", vector.tolist())

# %% [markdown]
# Each word asks a question (**query**), holds up a label (**key**), and has something to hand over
# (**value**). All three are the word's vector times a matrix. Training finds the matrices; here they
# say: *praise looks for negation, and negation hands over "minus three praises"*.

# %%
W_query = torch.eye(2)
W_key = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # swaps the two numbers
W_value = torch.tensor([[0.0, -3.0], [0.0, 0.0]])
q, k, v = x @ W_query, x @ W_key, x @ W_value  # (3, 2) each

# %% [markdown]
# A question fits a label if their product is large. Divide by the root of the vectors' length
# $d = 2$, so that longer vectors do not make everything sharper. The softmax turns each row into
# weights that sum to 1:
#
# $$A = \mathrm{softmax}\big(QK^\top / \sqrt d\big)$$
#
# Row $i$ of $A$ says how word $i$ looks at the others.

# %%
scores = q @ k.T / 2**0.5  # (3, 3)
A = scores.softmax(dim=1)  # (3, 3), each row sums to 1
plots.heatmap(
    A, title="The last row (good) looks mainly at the first column (not)", label="attention"
)

# %% [markdown]
# Then each word gets the mix of the values it looks at, **added** to what it was (the *residual*
# step). See what becomes of *good*:

# %%
# NBVAL_CHECK_OUTPUT
after = x + A @ v  # (3, 2)
for word, before, now in zip(three, x, after):
    print(f"{word:5}", [f"{n:.2f}" for n in before], "->", [f"{n:.2f}" for n in now])

# %% [markdown]
# *good* has lost its praise: .673 of its attention went to *not*, and took away $.673 \cdot 3 = 2.02$.
# Two things decided that: the **weight** .673 and the **value** behind it. The picture above shows the
# weights alone. Keep this in mind.
#
# ### Exercise: attention for any batch (code, 10 minutes)
#
# Write it for a whole batch. Texts have different lengths, so some positions are padding: `mask` is
# `False` there, and nobody may look at them. `hint("attention.scaled")` helps in three steps.


# %% tags=["exercise"]
def scaled_attention(q, k, v, mask):
    """Mix (N, T, d) and weights (N, T, T) of q, k, v (N, T, d); mask (N, T) is False on padding."""
    ### BEGIN SOLUTION
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask[:, None, :], -torch.inf).softmax(dim=2)
    return weights @ v, weights
    ### END SOLUTION


# %%
check("attention.scaled", scaled_attention)

# %% [markdown]
# ### The same from the package, and from torch
#
# `xailab`'s networks are made of `Attention`; PyTorch has `nn.MultiheadAttention`. Give both your
# three matrices (a `Linear` keeps them transposed). Both have a fourth one at the end, which mixes the
# heads; with one head it can stay out of the way.


# %%
ours, theirs = Attention(2, heads=1), nn.MultiheadAttention(2, 1, bias=False, batch_first=True)
with torch.no_grad():
    for part, W in [
        ("query", W_query),
        ("key", W_key),
        ("value", W_value),
        ("output", torch.eye(2)),
    ]:
        getattr(ours, part).weight.copy_(W.T)
        getattr(ours, part).bias.zero_()
    theirs.in_proj_weight.copy_(torch.cat([W_query.T, W_key.T, W_value.T]))
    theirs.out_proj.weight.copy_(torch.eye(2))

# %%
with torch.no_grad():
    everything = torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(ours(x[None], everything)[0], A @ v)
    mixed, weights = theirs(x[None], x[None], x[None])
torch.testing.assert_close(mixed[0], A @ v)
torch.testing.assert_close(weights[0], A)

# %% [markdown]
# ### A whole block
#
# A block of the spam network does this with four heads. Each has three matrices of its own, which make
# 8 numbers of the 32 of a word. Then a small network thinks about each word for itself. Before both
# steps a *layer norm* brings the numbers to a common scale. What the block reads is 35 words and, in
# front, a **class token**: a vector for no word, whose only task is to gather the answer.

# %%
encoder = spam_net.encoder
with torch.no_grad():
    x = torch.cat([encoder.token, spam_net.embed(ids)], dim=1)  # (1, 36, 32)
    x = x + encoder.positions[:, : x.shape[1]]  # otherwise it would read a bag of words
x.shape


# %%
def one_block(x, block):
    """Attention in four heads, then the small network; both are added to x (T, 32)."""
    part, seen = block.attention, block.norm1(x)
    heads = []
    for h in range(4):
        cut = slice(8 * h, 8 * h + 8)  # the matrices of all heads lie side by side
        q, k, v = (f(seen)[:, cut] for f in (part.query, part.key, part.value))  # (T, 8) each
        heads.append((q @ k.T / 8**0.5).softmax(dim=1) @ v)
    x = x + part.output(torch.cat(heads, dim=1))
    return x + block.mlp(block.norm2(x))


# %%
with torch.no_grad():
    by_hand = one_block(one_block(x[0], encoder.blocks[0]), encoder.blocks[1])
    logits = spam_net.fc(encoder.norm(by_hand[0]))  # only the class token is read
torch.testing.assert_close(logits, spam_net(ids)[0].detach(), rtol=1e-4, atol=1e-4)
print("logits of ham and spam:", logits.numpy().round(3))

# %% [markdown]
# That is a transformer, whole. (The tolerance is there because sums in another order round
# differently.)
#
# ## 2. The heads of a model that reads English
#
# MiniLM has 6 layers of 12 heads and 22 million weights, and was trained on more than a billion pairs
# of sentences. It does not read words but **pieces** of words: rare words are cut up, and `##` means
# *goes on*. It puts `[CLS]` in front and `[SEP]` at the end.

# %%
net = models.minilm()
sentence = "The plot is tepid, but the actors are a delight."
pieces = net.tokens(sentence)
print(pieces)

# %% [markdown]
# All 72 attention maps of this sentence, from one forward pass. Here are three. Read a row: this piece
# looks at those columns. The first looks one piece back, the second one ahead or at `[CLS]`, the third
# nearly always at `[CLS]`.

# %%
maps = attention.attention_maps(net.model, net.encode([sentence]))  # 6 x (1, 12, T, T)
print(len(maps), tuple(maps[0].shape))

# %%
plots.compare(
    [maps[layer][0, h] for layer, h in [(0, 2), (1, 8), (2, 9)]],
    titles=["layer 0, head 2", "layer 1, head 8", "layer 2, head 9"],
    title="Three heads, three habits",
    label="attention",
)

# %% [markdown]
# The library hands these weights out if it is asked for them, and `attention_maps` asks. Check them
# once: the first layer's, computed from its own queries and keys.

# %%
inputs = net.encode([sentence])
first = net.model.encoder.layer[0].attention.self
with torch.no_grad():
    seen = net.model.embeddings(inputs["input_ids"])[0]  # (T, 384): piece + position, normed
    q, k = (f(seen).unflatten(1, (12, 32)).transpose(0, 1) for f in (first.query, first.key))
    by_hand = (q @ k.mT / 32**0.5).softmax(dim=2)  # (12, T, T)
    theirs = net.model(**inputs, output_attentions=True).attentions[0][0]
torch.testing.assert_close(by_hand, theirs, rtol=1e-4, atol=1e-5)
torch.testing.assert_close(maps[0][0], theirs)

# %% [markdown]
# One sentence may be an accident. Take 60 sentences from film reviews, and measure for each head
# which share of a word's attention goes to fixed places: the word itself, the piece before, the piece
# after, `[CLS]`, `[SEP]`.

# %%
movies = data.load("movies")
held_out = np.random.default_rng(0).permutation(np.flatnonzero(~movies.extra["train"]))
reviews = movies.take(held_out[:200])
places = ["itself", "one before", "one after", "[CLS]", "[SEP]"]


def shares_of(maps):
    """Share of the words' attention that goes to each place: (places, layers, heads)."""
    A = torch.cat(maps)[:, :, 1:-1]  # (layers, heads, words, T): rows of words only
    i = torch.arange(A.shape[2])
    columns = [i + 1, i, i + 2, i * 0, i * 0 + A.shape[3] - 1]
    return torch.stack([A[:, :, i, column].mean(2) for column in columns])


# %%
habits = torch.stack(
    [shares_of(attention.attention_maps(net.model, net.encode([t]))) for t in reviews.texts[:60]]
).mean(0)  # (5, 6, 12)
lengths = [len(net.tokens(t)) for t in reviews.texts[:60]]
print(f"a head that knows nothing gives each place 1/{np.mean(lengths):.0f} of its attention")

# %% [markdown]
# ### Predict, then run (2 minutes)
#
# In the third layer: which share of their attention do words give to `[CLS]`, a mark that only says *here
# begins a text*, on average over the 12 heads? Write a number from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = 0.1
### END SOLUTION

# %%
predict("attention.cls", guess)

# %%
reveal("attention.cls", round(habits[3, 2].mean().item(), 2))

# %%
plots.compare(
    list(habits),
    titles=places,
    title="Rows are layers, columns heads: what each looks at",
    label="share of attention",
)

# %% [markdown]
# A few heads have one simple habit: look for the single bright cells. And a large part of all attention
# goes to a mark without meaning. Does so much come from there?
#
# What a head hands over is weight **times value** (section 1). So take the length of weight times value,
# for `[CLS]` and for all places together, in each layer:

# %%
values = [f"encoder.layer.{i}.attention.self.value" for i in range(6)]
by_weight, by_size = np.zeros((2, 6, 60))
for n, t in enumerate(reviews.texts[:60]):
    with capture(net.model, values) as kept:
        A = torch.cat(attention.attention_maps(net.model, net.encode([t])))[:, :, 1:-1]
    V = torch.cat([kept[name] for name in values]).unflatten(2, (12, 32)).norm(dim=3).mT
    size = A * V[:, :, None]  # (6, 12, words, T): lengths of what is handed over
    by_weight[:, n] = A[..., 0].mean((1, 2))
    by_size[:, n] = (size.sum((1, 2)) / size.sum((1, 2, 3))[:, None])[:, 0]

# %%
plots.curve(
    range(6),
    {"share of the weights": by_weight.mean(1), "share of weight x value": by_size.mean(1)},
    title="[CLS] gets much attention and hands over little",
    xlabel="layer",
    ylabel="share of [CLS]",
)

# %% [markdown]
# So `[CLS]` is where a head can look when it has nothing to do: its weights have to sum to 1, and there
# they do little harm. In BERT the idle place is `[SEP]` (Clark and others, 2019). The weights alone
# cannot tell you that it is idle.

# %%
quiz("attention.q_value")

# %% [markdown]
# Now look around yourself. Tab walks from slider to slider, the arrow keys move it. Look for a head
# that goes from `delight` to what delights, and count how many you have to see before one fits.

# %%
widgets.head_browser(maps, pieces, layer=1, head=8, token=4)

# %% [markdown]
# ## 3. A verdict on top: is the sentence positive?
#
# Nobody taught MiniLM what is good or bad. But take the mean of its vectors after five layers, put one
# linear layer on top, and train **only that**: 8,444 sentences, each rated by people.
# `models.movie_head` is this layer. Here is how often it is right on 200 sentences that it never saw:

# %%
head = models.movie_head()
features = net.features(reviews.texts, layer=head.layer)  # (200, 384)
with torch.no_grad():
    accuracy = (head(features).argmax(1).numpy() == reviews.y).mean()
assert accuracy >= 0.78
most = max(reviews.y.mean(), 1 - reviews.y.mean())
print(f"right on {accuracy:.1%} of the held-out sentences; saying one thing always: {most:.1%}")

# %% [markdown]
# (`print(models.card("movie_head"))` tells what counting words gets, and why layer 5.) Which pieces make
# the verdict on our sentence? Three ways to ask.
#
# **Attention.** Every piece counts alike in the mean, so ask how much attention a piece *receives* in
# the fifth layer (number 4), the last that counts, on average over heads and rows.

# %%
received = maps[4][0].mean(0).mean(0)  # (T,): mean over heads, then over who looks
plots.tokens(pieces, received, title="Attention received in the last layer that counts")

# %% [markdown]
# **Integrated gradients** ([[integrated_gradients]]). Pieces have no gradient, but their vectors do. The network takes
# vectors in place of pieces as `inputs_embeds`; the baseline is the vector of `[PAD]` for all that is
# a word.


# %%
def logit_of(vectors):
    """Logits (N, 2) of piece vectors (N, T, 384)."""
    hidden = net.model(inputs_embeds=vectors, output_hidden_states=True).hidden_states
    return head(hidden[head.layer].mean(dim=1))


ids = net.encode([sentence])["input_ids"]
nothing = ids.clone()
nothing[:, 1:-1] = net.tokenizer.token_to_id("[PAD]")  # [CLS] and [SEP] stay
table = net.model.embeddings.word_embeddings
vectors, empty = table(ids).detach(), table(nothing).detach()  # (1, T, 384)
by_path = integrated_gradients(logit_of, vectors, 1, baseline=empty, n_steps=50)
by_path = by_path.sum(2)[0]  # (T,)

# %%
change = (logit_of(vectors) - logit_of(empty))[0, 1].item()
print(f"the shares sum to {by_path.sum().item():.3f}; the logit changed by {change:.3f}")
plots.tokens(pieces, by_path, title="Integrated gradients, in logits")

# %% [markdown]
# captum does the same at the embedding layer:


# %%
def logit_of_ids(ids):
    hidden = net.model(input_ids=ids, output_hidden_states=True).hidden_states
    return head(hidden[head.layer].mean(dim=1))


theirs = LayerIntegratedGradients(logit_of_ids, table).attribute(ids, nothing, 1, n_steps=50)
net.model.zero_grad()
torch.testing.assert_close(by_path, theirs.sum(2)[0].detach(), rtol=1e-3, atol=1e-4)

# %% [markdown]
# **Deletion.** Leave one word out and look at the logit: the plainest question, and no method is in
# between.

# %%
plain = sentence.replace(",", " ,").replace(".", " .").split()
without = [" ".join(plain[:i] + plain[i + 1 :]) for i in range(len(plain))]
with torch.no_grad():
    whole, rest = head(net.features([sentence, *without], layer=head.layer))[:, 1].split(
        [1, len(plain)]
    )
plots.tokens(plain, whole - rest, title="How far the logit falls without the word")

# %% [markdown]
# Integrated gradients and deletion agree on *delight*. They differ on *tepid*: on the path its two pieces
# cancel. The attention received knows neither *for* nor *against*; more than half of it lies on `[CLS]`, and
# *plot* gets more than *delight*. But this is one sentence, and section 8 counts.
#
# ## 4. Through the layers: rollout
#
# After the first layer, a position holds a mix. When the second layer looks at position 2, what it sees
# there came partly from other words. **Attention rollout** (Abnar and Zuidema, 2020) follows the
# mixing back. It assumes that half of each position stays (the residual) and half comes from where it
# looks.
#
# $$R^{(l)} = \big(\tfrac12 A^{(l)} + \tfrac12 I\big)\, R^{(l-1)}, \qquad R^{(0)} = I$$
#
# $A^{(l)}$ is layer $l$'s attention, mean over heads; row $i$ of $R^{(l)}$ says how much of each
# **input** is in position $i$. By hand, for two layers and three positions. In the first, 0 and 1 look
# at position 2; in the second, 0 looks at 1:

# %%
# NBVAL_CHECK_OUTPUT
first = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
second = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
half = torch.eye(3) / 2
rolled = (second / 2 + half) @ (first / 2 + half)
print(rolled.numpy())

# %% [markdown]
# Row 0: the last layer looks at position 1 only (and keeps half of 0). But half of what stands at 1
# came from 2, and half of what stood at 0 as well. So 2 has the largest share, $\frac12$, though the
# second layer never looks at it.

# %%
torch.testing.assert_close(attention.attention_rollout([first[None], second[None]])[0], rolled)

# %% [markdown]
# ### Exercise: rollout for any depth (code, 7 minutes)


# %% tags=["exercise"]
def my_rollout(maps):
    """Shares (T, T) of the inputs in each position; maps: a list of attention (T, T), first layer first."""
    ### BEGIN SOLUTION
    eye = torch.eye(len(maps[0]))
    rolled = eye
    for A in maps:
        rolled = (0.5 * A + 0.5 * eye) @ rolled
    return rolled
    ### END SOLUTION


# %%
check("attention.rollout", my_rollout)

# %% [markdown]
# On the spam message of the beginning, for the class token:

# %%
ids = spam_net.encode([text])
maps = attention.attention_maps(spam_net, ids)
rolled = attention.attention_rollout(maps)[0, 0]  # (36,): the class token's row
print(f"the class token's share in itself: {rolled[0].item():.2f}")
plots.tokens(words, rolled[1:], title="Rollout: how much of each word is in the class token")

# %% [markdown]
# The rest is spread out over the words. The numbers are all positive, and nobody asked for *spam*: the
# map for *ham* is the same one.
#
# ## 5. Attention times gradient
#
# To ask about a class, weigh each attention weight by what the logit would lose without it (to first
# order):
#
# $$A \odot \frac{\partial f_c}{\partial A}$$
#
# A weight on a worthless value has a slope near 0, and vanishes. captum computes the same at the softmax:

# %%
weighed = attention.gradient_attention(spam_net, ids, 1)  # two layers, (1, 4, 36, 36)
softmax = encoder.blocks[1].attention.softmax
theirs = LayerGradientXActivation(spam_net, softmax).attribute(ids, 1)
spam_net.zero_grad()
torch.testing.assert_close(weighed[1], theirs.detach(), rtol=1e-4, atol=1e-6)
plots.tokens(words, weighed[1][0, :, 0, 1:].sum(0), title="Attention x gradient for spam")

# %% [markdown]
# Now there are two signs. Compare with the figure at the top: `0796` and the first slash get over twice the
# attention of most words, and have next to no weight here.
#
# ## 6. Which head matters?
#
# The surest way to find out what a part does is to take it away. `head_ablation` sets one head's weights
# to 0, so that it hands over nothing, and measures how far the logit of spam falls. Over 100 spam messages:

# %%
spam = messages.take(np.flatnonzero(messages.y == 1)[:100])
drops = attention.head_ablation(spam_net, spam_net.encode(spam.texts), 1)  # (100, 2, 4)
names = [f"layer {i}, head {h}" for i in range(2) for h in range(4)]
plots.bars(
    drops.mean(0).flatten(),
    names,
    title="One head matters most",
    xlabel="fall of the logit of spam without it",
)

# %% [markdown]
# A mean over spam is not yet what the network can do. Switch heads off one after the other, the least
# useful first, and count right answers on 400 held-out messages:


# %%
few = messages.take(range(400))
few_ids = spam_net.encode(few.texts)


def accuracy_without(heads):
    """Share of right answers with some heads, (layer, head), at zero."""
    weights = torch.ones(2, 4)
    for layer, number in heads:
        weights[layer, number] = 0
    first, second = (f"encoder.blocks.{i}.attention.softmax" for i in range(2))
    with (
        edited(spam_net, first, lambda A: A * weights[0][:, None, None]),
        edited(spam_net, second, lambda A: A * weights[1][:, None, None]),
        torch.no_grad(),
    ):
        return (spam_net(few_ids).argmax(1).numpy() == few.y).mean()


# %%
order = drops.mean(0).flatten().argsort().tolist()
kept = [accuracy_without([divmod(i, 4) for i in order[:n]]) for n in range(9)]
plots.curve(
    range(9),
    {"right answers": kept, "always ham": np.full(9, 1 - few.y.mean())},
    title="One head of eight does most of it",
    xlabel="heads switched off, least useful first",
    ylabel="share of right answers",
)

# %% [markdown]
# Without any head the class token sees no word, and the network says the same about every message. But one
# head alone does most of the work, and the first two are hardly missed. So a picture of *one* head may
# show a part that the answer does not need. (Michel, Levy and Neubig, 2019, found the same in large models.)
#
# ## 7. A transformer that looks at pictures
#
# Cut a digit into 7 x 7 patches, treat each as a word: a **vision transformer**. Ours was trained on
# 4,000 MNIST digits.

# %%
vit = models.digit_vit()
digits = data.load("mnist5k")
digits = digits.take(~digits.extra["train"])
pixels = torch.tensor(digits.images / 255.0, dtype=torch.float32)[:, None]  # (1000, 1, 28, 28)
with torch.no_grad():
    accuracy = (vit(pixels).argmax(1).numpy() == digits.y).mean()
assert accuracy >= 0.93
print(f"right on {accuracy:.1%} of 1,000 held-out digits")


# %%
def per_patch(heat):
    """Sum (N, 1, 28, 28) over the 49 patches: (N, 49)."""
    return F.avg_pool2d(heat, 4).flatten(1) * 16


four = pixels[digits.y == 4][:1]  # (1, 1, 28, 28)
rolled = attention.attention_rollout(attention.attention_maps(vit, four))[0, 0, 1:]
weighed = attention.gradient_attention(vit, four, 4)[-1][0, :, 0, 1:].sum(0)
path = per_patch(integrated_gradients(vit, four, 4, n_steps=100))
slope = per_patch(input_x_gradient(vit, four, 4))

# %%
plots.compare(
    [each.reshape(7, 7) for each in (rolled, weighed, path, slope)],
    over=four[0],
    titles=["rollout", "attention x gradient", "integrated gradients", "input x gradient"],
    shared=False,
    title="One digit, four answers",
)

# %% [markdown]
# Rollout has no sign; the others also mark patches that speak against 4. Now ask for another class. What
# will rollout show?

# %%
quiz("attention.q_class")

# %% [markdown]
# Which map finds the patches that matter? Ask the network: blacken the five patches that a map ranks
# highest, on 50 digits, and see how far the logit falls. Random patches are the yardstick.


# %%
def fall(x, target, ranks, n=5):
    """Mean fall of the logit when the n patches ranked highest are black; ranks (N, 49)."""
    keep = torch.ones_like(ranks).scatter(1, ranks.topk(n).indices, 0.0)
    black = x * F.interpolate(keep.reshape(-1, 1, 7, 7), scale_factor=4)
    with torch.no_grad():
        return (vit(x) - vit(black)).gather(1, target[:, None]).mean().item()


# %%
x, target = pixels[:50], torch.tensor(digits.y[:50])
ink = per_patch(x)  # how bright a patch is
rolled = attention.attention_rollout(attention.attention_maps(vit, x))[:, 0, 1:]
weighed = attention.gradient_attention(vit, x, target)[-1][:, :, 0, 1:].sum(1)
path = integrated_gradients(vit, x, target, n_steps=30)
ranks = {
    "random": torch.rand(50, 49),
    "ink": ink,
    "last attention": attention.attention_maps(vit, x)[-1][:, :, 0, 1:].mean(1),
    "rollout": rolled,
    "attention x gradient": weighed,
    "integrated gradients": per_patch(path),
}
falls = [fall(x, target, each) for each in ranks.values()]
plots.bars(falls, list(ranks), title="What five black patches cost", xlabel="fall of the logit")

# %% [markdown]
# Beat *ink* before you believe: a map that only says *something is written here* already costs the
# network a lot. Attention and rollout do better than that, integrated gradients best; attention x
# gradient does not.
#
# ## 8. Two patterns, one output
#
# Back to the beginning. A head hands over weights times values. If two words have the **same value**,
# it makes no difference which of them is looked at:

# %%
# NBVAL_CHECK_OUTPUT
values = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 3.0]])  # words 0 and 1 hand over the same
looks_left = torch.tensor([0.9, 0.0, 0.1])
looks_right = torch.tensor([0.0, 0.9, 0.1])
print([round(n, 3) for n in (looks_left @ values).tolist()])
print([round(n, 3) for n in (looks_right @ values).tolist()])

# %% [markdown]
# Who says *"it answers so because it looks at word 0"* has to say the same of word 1. And the values need
# not be equal: two more words than a value has numbers are enough.
#
# ### Exercise: the other pattern (code, 5 minutes)
#
# Five words hand over one number each: **1, 5, 2, 3, 4**. The head looks at the first two, with weights
# `[.5, .5, 0, 0, 0]`. Find weights that hand over the same and do not look at the first two at all.

# %% tags=["exercise"]
### BEGIN SOLUTION
twin = [0.0, 0.0, 0.0, 1.0, 0.0]
### END SOLUTION

# %%
check("attention.twin", twin)

# %% [markdown]
# Does it work in a network that was really trained? In the last layer of the spam network only the class
# token's rows are read: 4 heads with 36 weights each. What they cause is 32 numbers, the
# vector that the attention adds to the class token:
#
# $$\sum_{h,j} A_{hj}\, W_h v_{hj} \qquad (32 \text{ numbers})$$
#
# $v_{hj}$ is what head $h$ finds at word $j$, $W_h$ its part of the last linear map.

# %%
part = encoder.blocks[1].attention
with capture(spam_net, ["encoder.blocks.1.attention.value"]) as kept, torch.no_grad():
    logits = spam_net(ids)
v = kept["encoder.blocks.1.attention.value"][0].unflatten(1, (4, 8))  # (T, heads, 8)
W = part.output.weight.detach().unflatten(1, (4, 8))  # (32, heads, 8)
caused = torch.einsum("ohd,thd->oht", W, v).flatten(1).double().numpy()  # (32, 4 T)
trained = maps[1][0, :, 0].double().numpy()  # (4, T), the rows as trained
caused.shape

# %% [markdown]
# We look for other weights, 0 or positive, that sum to 1 in each head and cause **the same 32
# numbers**: 36 equations for 144 unknowns. Among all that fit, take those that look least where the
# trained ones look. (A linear program; `linprog` solves it.)
#
# ### Predict, then run (2 minutes)
#
# Which share of the attention, on average over heads, can lie on *other* words without any change in the
# answer? Write a number from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = 0.3
### END SOLUTION

# %%
predict("attention.moved", guess)

# %%
T = trained.shape[1]
equations = np.vstack([caused, np.kron(np.eye(4), np.ones(T))])  # (32 + 4, 4 T)
wanted = np.append(caused @ trained.ravel(), np.ones(4))
found = linprog(np.tile(trained.mean(0), 4), A_eq=equations, b_eq=wanted, bounds=(0, 1))
other = found.x.reshape(4, T)
moved = abs(trained.mean(0) - other.mean(0)).sum() / 2
assert moved > 0.5
reveal("attention.moved", round(moved, 2))

# %% [markdown]
# Put these weights into the network, and ask it again:


# %%
def with_others(A):
    """The last layer's weights with the class token's rows replaced."""
    A = A.clone()
    A[0, :, 0] = torch.tensor(other)
    return A


with edited(spam_net, "encoder.blocks.1.attention.softmax", with_others), torch.no_grad():
    again = spam_net(ids)
torch.testing.assert_close(again, logits, rtol=0, atol=1e-4)
print("as trained:   ", [f"{n:.3f}" for n in logits[0].tolist()])
print("other pattern:", [f"{n:.3f}" for n in again[0].tolist()])

# %%
plots.tokens(words, other.mean(0)[1:], title=f"The same logits: {moved:.0%} of the attention moved")

# %% [markdown]
# Compare with the figure at the top. The two pieces it looked at most have lost nearly all of it, and the
# answer is the same. Two pictures, one answer: nothing in them tells you which to believe.
#
# So ask the network as it was trained. Leave each word out, and see how far the logit of spam falls:


# %%
def without(ids, gone):
    """Ids (1, T) without some positions."""
    return ids[:, [i for i in range(ids.shape[1]) if i not in gone]]


def spam_logit(ids):
    with torch.no_grad():
        return spam_net(ids)[:, 1]


def fall_alone(ids):
    """How far the logit of spam falls without each word, (T,)."""
    shorter = torch.cat([without(ids, [i]) for i in range(ids.shape[1])])  # (T, T - 1)
    return spam_logit(ids) - spam_logit(shorter)


# %%
plots.tokens(words, fall_alone(ids), title="How far the logit of spam falls without the word")


# %% [markdown]
# One word counts, `http`, and no other comes near. The trained weights had it on top; but you know that from
# the deletion, not from the weights. A fair objection to our other pattern: the network would never have
# chosen it. True. It shows what weights **cannot prove**, not that they are always wrong. So measure how
# often they are right.
#
# ### Delete what it looked at
#
# For 30 spam messages, delete the three words that a map ranks highest. *Deletion, one by one* ranks words by
# their fall as above.


# %%
def rankings(ids):
    """Name -> one number a word, by six methods."""
    maps = attention.attention_maps(spam_net, ids)
    weighed = attention.gradient_attention(spam_net, ids, 1)
    return {
        "random": torch.rand(ids.shape[1]),
        "attention, last layer": maps[-1][0, :, 0, 1:].mean(0),
        "rollout": attention.attention_rollout(maps)[0, 0, 1:],
        "attention x gradient": weighed[-1][0, :, 0, 1:].sum(0),
        "integrated gradients": token_attributions(spam_net, ids, 1, n_steps=50).weights[0],
        "deletion, one by one": fall_alone(ids),
    }


# %%
falls = {}
for message in spam.texts[:30]:
    each = spam_net.encode([message])
    for name, ranks in rankings(each).items():
        rest = without(each, ranks.topk(min(3, each.shape[1] - 1)).indices.tolist())
        falls.setdefault(name, []).append((spam_logit(each) - spam_logit(rest)).item())
plots.bars(
    [np.mean(each) for each in falls.values()],
    list(falls),
    title="What deleting three words costs the logit of spam",
    xlabel="fall of the logit of spam (mean of 30 messages)",
)

# %% [markdown]
# A surprise for those who expected attention to fail: on this network it ranks words about as well as
# integrated gradients do, and rollout even better. (It may beat deletion one by one, because words stand
# in for one another: of two links, either can go.) So *"attention is worthless"* would be as wrong as
# *"attention is the explanation"*. It is a guess that has to be tested, on the network at hand.
#
# ### Known answer: a word that we planted
#
# Here is the test where we know the truth. Each sentence has twelve neutral words. In two thirds of them
# one word is replaced by *red* or *blue*, anywhere. The class is *neither*, *red* or *blue*, so only this
# word can decide.

# %%
NEUTRAL = "the a on of and film we saw today with some actor story plot scene music long old"
vocabulary = models.Vocabulary(["<pad>", "<unk>", "red", "blue", *NEUTRAL.split()])


def planted(n, generator, lowest=0):
    """Ids (n, 12), classes (n,) 0..2, and where the deciding word stands (n,)."""
    ids = torch.randint(4, len(vocabulary), (n, 12), generator=generator)
    y = torch.randint(lowest, 3, (n,), generator=generator)
    place = torch.randint(0, 12, (n,), generator=generator)
    rows = torch.arange(n)[y > 0]
    ids[rows, place[rows]] = 1 + y[rows]
    return ids, y, place


# %%
def train(seed):
    """A transformer of two layers with two heads that has learned the task."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = models.TextTransformer(vocabulary, width=16, heads=2, max_length=12, n_classes=3)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(120):
        ids, y, _ = planted(64, generator)
        optimizer.zero_grad()
        F.cross_entropy(model(ids), y).backward()
        optimizer.step()
    return model.eval()


learned = [train(seed) for seed in range(3)]

# %% [markdown]
# Three networks that differ in their seed only. We ask all of them about the same 40 new sentences, and they
# get them right:

# %%
ids, y, place = planted(40, torch.Generator().manual_seed(9), lowest=1)
truth = F.one_hot(place, 12).bool()[:, None]  # (40, 1, 12)
with torch.no_grad():
    right = [(model(ids).argmax(1) == y).float().mean().item() for model in learned]
assert min(right) > 0.98
print("share of right answers:", right)


# %%
def last_attention(model, ids, y):
    return attention.attention_maps(model, ids)[-1][:, :, 0, 1:].mean(1)


def rollout(model, ids, y):
    return attention.attention_rollout(attention.attention_maps(model, ids))[:, 0, 1:]


def weighed_attention(model, ids, y):
    return attention.gradient_attention(model, ids, y)[-1][:, :, 0, 1:].sum(1)


# %%
def path(model, ids, y):
    return token_attributions(model, ids, y, n_steps=30).weights


def replaced(model, ids, y):
    """Occlusion: each word in turn becomes the mean of the neutral words."""
    neutral = model.embedding.weight[4:].mean(0).detach()
    return token_attributions(model, ids, y, method="occlusion", baseline=neutral).weights


# %% [markdown]
# How often is a map's highest word the planted one? Chance is 1 in 12.

# %%
METHODS = {
    "attention_last_layer": last_attention,
    "attention_rollout": rollout,
    "gradient_attention": weighed_attention,
    "integrated_gradients": path,
    "occlusion": replaced,
}
measures = localization.relevance_mass_accuracy, localization.relevance_rank_accuracy
hits, lines = {}, []
for name, method in METHODS.items():
    began = perf_counter()
    found = [method(model, ids, y)[:, None] for model in learned]  # (40, 1, 12) each
    ms = 1000 * (perf_counter() - began) / 120
    hits[name] = [localization.pointing_game(each, truth).mean().item() for each in found]
    mass, rank = (
        np.mean([measure(each, truth).mean().item() for each in found]) for measure in measures
    )
    lines.append([name, "planted_words", np.mean(hits[name]), mass, rank, 1 / 12, 120, ms])

# %%
rows = [(name, *(f"{each:.2f}" for each in three)) for name, three in hits.items()]
names = ["map", "network 0", "network 1", "network 2"]
plots.table(rows, names, title="How often the highest word is the planted one")

# %%
assert min(hits["occlusion"]) > 0.9
board = record(pd.DataFrame(lines, columns=COLUMNS))
board = board[board["dataset"] == "planted_words"].set_index("method").loc[list(METHODS)]
plots.scoreboard(
    board[["pointing", "mass"]], title="Deletion finds the word that decides", chance=1 / 12
)

# %% [markdown]
# Occlusion and integrated gradients find the word in every network, or nearly. Rollout does as well, with half
# of its weight on other words. How often the attention of the last layer finds it depends on the seed, though
# all three networks give the same right answers.
#
# And where it does find the word: does this look matter? Cut it. The class token may no longer look at
# the planted word, in one of the two layers; its other weights grow, so that they still sum to 1.


# %%
def cut_look(A):
    """Attention (N, heads, T, T) with the class token's look at the planted word at 0."""
    A = A.clone()
    A[torch.arange(len(A)), :, 0, place + 1] = 0
    return A / A.sum(dim=-1, keepdim=True)


def without_look(model, layer):
    """Share of right answers without this look, and by how much the logit falls (mean)."""
    with torch.no_grad():
        whole = model(ids)
        with edited(model, layer, cut_look):
            cut = model(ids)
    fall = (whole - cut).gather(1, y[:, None]).mean().item()
    return (cut.argmax(1) == y).float().mean().item(), fall


# %%
rows = []
for number, model in enumerate(learned):
    slopes = attention.gradient_attention(model, ids, y)
    for i, layer in enumerate(attention.attention_layers(model)):
        looks = attention.attention_maps(model, ids)[i][:, :, 0, 1:].mean(1)
        finds = localization.pointing_game(looks[:, None], truth).mean().item()
        promised = slopes[i][:, :, 0].sum(1).gather(1, place[:, None] + 1).mean().item()
        rows.append((f"network {number}, layer {i}", finds, *without_look(model, layer), promised))
names = ["", "attention finds it", "right without this look", "fall of the logit", "A x gradient"]
plots.table(
    [(name, *(f"{each:.2f}" for each in numbers)) for name, *numbers in rows],
    names,
    title="Does the look that you see matter?",
)

# %%
idle = [name for name, finds, right, *_ in rows if finds > 0.5 and right == 1]
assert idle
print("finds the word, and is not needed:", idle)

# %% [markdown]
# In such a network the class token has read the word in layer 0 already, and without *that* look it is lost. So
# the last attention may point to the right word in most sentences, and still explain nothing: the answer does
# not need it.
#
# The last column says why attention x gradient did so badly. In a last layer that does not matter it is right
# to find nothing. But the looks that cost a logit of 3 or more have hardly any slope either: where a network is
# sure, it is flat.
#
# ## 9. When it lies
#
# - **Weights without values.** `[CLS]` in section 2: the brightest column, and little behind it.
# - **Positions are not words.** In the last layer a position holds a mix. The class token may have read the
#   deciding word long before.
# - **No class, no sign.** Attention and rollout show the same for every answer, and count evidence
#   against as evidence for.
# - **Many heads.** With 72 maps of one sentence, one will fit the story you have in mind. How many did you
#   look at in the browser before one fitted?
#
# The last one has a number. For each of the 72 heads: at which other word does `delight` look most?

# %%
maps = attention.attention_maps(net.model, net.encode([sentence]))
looks = torch.cat(maps)[:, :, pieces.index("delight")].flatten(0, 1)  # (72, T)
others = [i for i, each in enumerate(pieces) if each.strip("#").isalpha() and each != "delight"]
favorites = looks[:, others].argmax(1).bincount(minlength=len(others))
plots.bars(
    favorites,
    [f"{i} {pieces[i]}" for i in others],
    title="Of 72 heads, so many look from 'delight' mainly at ...",
    xlabel="heads",
)

# %% [markdown]
# Whatever you want to tell about *delight*, there is nearly always a head for it.
#
# ### Exercise: a claim from a report (criticize, 8 minutes)
#
# > *"To explain the model's verdict on this review, Figure 2 shows the attention of layer 5, head 7. The
# > model attends to 'tepid' and 'delight', the words that carry the sentiment. This shows that it bases
# > its decision on them, as a human reader would."*
#
# What does the figure show, what does a weight leave out, and which experiment would you ask for? Four to
# six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
The figure shows the weights of one head of 72, chosen by the authors; other heads look elsewhere, and a
head that can be switched off without harm proves nothing. A weight is half of a product: how much is
handed over depends on the value behind it. In layer 5 a position no longer holds the word that is
printed there but a mix made by earlier layers, and other patterns can give the same output. Attention
has no sign and no class, so it cannot say that "tepid" spoke against and "delight" for. I would ask for
the fall of the logit when these words are deleted, beside random words, over many reviews; for integrated
gradients on the embeddings; and for the same test on data where the deciding word is known.
### END SOLUTION
"""

# %%
check("attention.report", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - compute a transformer block by hand, from scores to residual
# - read the heads of a real language model, and measure what they look at
# - follow attention through layers (rollout), weigh it by gradients, and switch heads off
# - refute "the attention weights are the explanation" with one text and two patterns
#
# ## Takeaways
#
# - Attention decides where a position reads; what it gets is weight times value. A picture of the weights
#   shows half of it.
# - Rollout follows the mixing through layers but knows no class and no sign. Gradients give it a class;
#   taking a head or a word away tells what the answer depends on.
# - Attention may point to the words that decide, or not; the weights alone cannot tell you which. Delete
#   the words and see.
#
# ## Myth refuted
#
# *"Attention weights are the explanation."* Section 8: more than half of the attention of a trained network
# moved to other words, and both logits stayed. And where attention pointed to the one word that decides, the
# look could be cut, and the answer stayed right.
#
# ## Go further
#
# - Vaswani and others (2017), *Attention Is All You Need*.
# - Jain and Wallace (2019), *Attention is not Explanation*; Wiegreffe and Pinter (2019), *Attention is not
#   not Explanation*: the dispute, and the objection of section 8.
# - Kobayashi, Kuribayashi, Yokoi, Inui (2020), *Attention is Not Only a Weight: Analyzing Transformers with
#   Vector Norms*: weight times value, section 2.
# - Clark, Khandelwal, Levy, Manning (2019), *What Does BERT Look At?*: heads with habits, and `[SEP]`.
# - Abnar and Zuidema (2020), *Quantifying Attention Flow in Transformers*: rollout.
# - Barkan and others (2021), *Grad-SAM*: attention times gradient.
# - Michel, Levy, Neubig (2019), *Are Sixteen Heads Really Better than One?*
# - Dosovitskiy and others (2021), *An Image is Worth 16x16 Words*.
