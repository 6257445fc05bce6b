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
# # Sequences and sound: which word, which note?
#
# **Question:** Which word made this message spam, and which moment of this sound made it a horn?
#
# **You will be able to**
# - compute one step of a GRU by hand, and explain a message through the vectors of its words
# - measure how a gradient fades over a long text, and say what deletion and integrated gradients add
# - turn sound into a spectrogram, and silence it by stretches of time and bands of frequency
# - play the part of a sound that a network listened to, and test whether it is enough
# - name three ways in which such maps mislead
#
# **You need:** [[integrated_gradients]] and
# [[cam]]
#
# **Time:** [[time]]; the cells run in under a minute · **Difficulty:** 3 of 5

# %%
import numpy as np
import torch
from captum.attr import LayerIntegratedGradients, Occlusion
from IPython.display import Audio
from torch import nn

from xailab import data, models, plots
from xailab.attribution.cam import grad_cam
from xailab.attribution.paths import integrated_gradients
from xailab.attribution.sequences import band_occlusion, token_attributions
from xailab.core import capture
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.data import tone
from xailab.evaluate import scoreboard
from xailab.evaluate.scoreboard import record, score

# %% [markdown]
# A pixel lies beside other pixels. A word comes *after* other words, and a note begins and ends. This
# lesson explains two networks that live in time: one reads text messages word by word, one listens to
# a second of sound. For the sound we know the answer, because we played the notes.
#
# Here is where you are going: one second of sound with four notes in it, and what the network listened
# to when it said *horn*. The white outline is the one note that decides. By the end of this lesson you
# will have heard it, and met a famous method that misses it.

# %%
clips = data.tones()
listener = scoreboard.tones_known_answer().model  # trained on clips.train by models.tone_cnn
heard = clips.test
x = torch.as_tensor(heard.spectrograms)[:, None]  # (200, 1, 64, 64): low frequencies first
y, truth = torch.as_tensor(heard.y), torch.as_tensor(heard.truth)

# %%
SIZE = {"seconds": 64 * tone.HOP / tone.RATE, "hertz": tone.RATE / 2}
HORN = 0  # the first test clip: a horn decides
ig_map = integrated_gradients(listener, x[:1], HORN)  # (1, 1, 64, 64)
plots.spectrograms(
    [x[0], ig_map],
    **SIZE,
    titles=["the sound", "integrated gradients"],
    shared=False,
    masks=[truth[0]] * 2,
    title="Of four notes, one speaks for the horn; others speak against it",
)

# %% [markdown]
# ## 1. A GRU reads one word at a time
#
# A recurrent network keeps a **state** $h$: what it remembers. For every word it mixes the state with
# the word's vector $x$ and gets a new state. A *gated recurrent unit* (GRU) has two gates, numbers
# from 0 to 1. The gate $z$ says how much of the old state stays, the gate $r$ how much of it may
# speak when a new candidate $n$ is made:
#
# $$r = \sigma(W_r x + U_r h) \qquad z = \sigma(W_z x + U_z h)$$
# $$n = \tanh(W_n x + r \odot U_n h) \qquad h' = (1 - z) \odot n + z \odot h$$
#
# $\sigma$ is the sigmoid, $\odot$ multiplies place by place, $h'$ is the new state. (Each $W$ and $U$
# also has a bias; it is 0 here.) Take one number for the word and one for the state, and do it on
# paper:


# %%
# NBVAL_CHECK_OUTPUT
def sigmoid(a):
    return 1 / (1 + np.exp(-a))


word, h = 1.0, 0.5
r = sigmoid(2 * word - 4 * h)  # W_r = 2, U_r = -4
z = sigmoid(1 * word + 0 * h)  # W_z = 1, U_z = 0
n = np.tanh(1 * word + r * (-2 * h))  # W_n = 1, U_n = -2
new = (1 - z) * n + z * h
print(f"r = {r:.3f}   z = {z:.3f}   n = {n:.3f}   new state = {new:.4f}")

# %% [markdown]
# `torch` stacks the weights of the two gates and the candidate, in the order r, z, n:

# %%
cell = nn.GRUCell(1, 1, bias=False)
cell.weight_ih.data = torch.tensor([[2.0], [1.0], [1.0]])
cell.weight_hh.data = torch.tensor([[-4.0], [0.0], [-2.0]])
theirs = cell(torch.tensor([[word]]), torch.tensor([[h]])).item()
np.testing.assert_allclose(new, theirs, rtol=1e-6)

# %% [markdown]
# ### Exercise: one step for a whole vector (code, 8 minutes)
#
# Write the step with matrices and biases. `W` and `U` hold the three parts one below the other, as
# torch stacks them, `b` and `c` are their biases: `W @ x + b` has $3H$ numbers, and `.chunk(3)` cuts
# them in three. Mind where $r$ goes: it multiplies all of $U_n h + c_n$, the bias too.
# `hint("sequences_and_sound.gru_step")` helps.


# %% tags=["exercise"]
def gru_step(x, h, W, U, b, c):
    """New state (H,); x (D,), h (H,), W (3H, D), U (3H, H), b and c (3H,)."""
    ### BEGIN SOLUTION
    from_word, from_state = (W @ x + b).chunk(3), (U @ h + c).chunk(3)
    r = torch.sigmoid(from_word[0] + from_state[0])
    z = torch.sigmoid(from_word[1] + from_state[1])
    n = torch.tanh(from_word[2] + r * from_state[2])
    return (1 - z) * n + z * h
    ### END SOLUTION


# %%
check("sequences_and_sound.gru_step", gru_step)

# %% [markdown]
# Now a real one. `sms_gru` tells spam from ordinary messages ("ham"): a vector of 32 numbers for each
# word, a state of 32 numbers, and one linear layer on the last state.

# %%
sms = data.load("sms")
messages = sms.take(~sms.extra["train"])  # 1,179 messages that it was not trained on
reader = models.sms_gru()
ids = reader.encode(messages.texts)  # (1179, T): numbers of words, 0 where a message has ended
with torch.no_grad():
    logits = reader(ids)  # (1179, 2): ham, spam
right = logits.argmax(1).numpy() == messages.y
print(f"{right.mean():.1%} right; {np.mean(messages.y == 0):.1%} are ham")

# %%
row = next(i for i, text in enumerate(messages.texts) if text.startswith("Win a £1000"))
SPAM, text = 1, messages.texts[row]
vectors = reader.embed(reader.encode([text])).detach()  # (1, T, 32)
print(text)
tuple(vectors.shape)

# %% [markdown]
# `states` gives the state after each word. Our own step, repeated with the network's weights, has to
# give the same. Then ask after every word: *what would the answer be if the message ended here?*

# %%
cell = nn.GRUCell(32, 32)
# torch calls the weights of a first layer "weight_ih_l0", those of one cell "weight_ih"
cell.load_state_dict({name[:-3]: value for name, value in reader.gru.state_dict().items()})
h = torch.zeros(1, 32)
for vector in vectors[0]:
    h = cell(vector[None], h)
torch.testing.assert_close(h, reader.states(vectors)[:, -1])

# %%
with torch.no_grad():
    so_far = reader.fc(reader.states(vectors))[0]  # (T + 1, 2): before word 1, after it, ...
words = token_attributions(reader, [text], SPAM, n_steps=1).tokens[0]
plots.curve(
    range(len(so_far)),
    {"spam": so_far[:, SPAM], "ham": so_far[:, 1 - SPAM]},
    title="At the fifth word, cash, the answer turns to spam",
    xlabel=f"words read: {' '.join(words)}",
    ylabel="logits",
)

# %% [markdown]
# ## 2. What did each word do?
#
# You cannot take a gradient with respect to a word: it is a number in a list. But you can with respect
# to its **vector**. Give each of its 32 numbers an attribution, and add up:
#
# $$w_j = \sum_d A_{jd}, \qquad
#   A_{jd} = e_{jd} \cdot \frac1m \sum_{k=1}^m \frac{\partial f}{\partial e_{jd}}(\alpha_k e)$$
#
# $e_{jd}$ is number $d$ of the vector of word $j$, $f$ the logit, and $\alpha_k$ runs through $m$
# points between 0 and 1. This is **integrated gradients** ([[integrated_gradients]]): all words fade in together, from nothing
# ($\alpha = 0$: every vector zero) to the message ($\alpha = 1$), and each gets what it added on the
# way.

# %%
STEPS = 200
alphas = (torch.arange(STEPS) + 0.5) / STEPS  # the middles of 200 short pieces
path = (alphas[:, None, None] * vectors).requires_grad_()  # (200, T, 32)
faded_in = reader.forward_embedded(path)[:, SPAM]  # (200,)
(slopes,) = torch.autograd.grad(faded_in.sum(), path)
weights = (slopes.mean(0) * vectors[0]).sum(1)  # (T,)

# %%
same = integrated_gradients(reader.forward_embedded, vectors, SPAM, n_steps=STEPS, rule="midpoint")
torch.testing.assert_close(weights, same[0].sum(1))
ig = token_attributions(reader, [text], SPAM)  # places its points better, at the same number
torch.testing.assert_close(ig.weights[0], weights, rtol=0, atol=0.01)

# %%
plots.tokens(ig.tokens[0], ig.weights[0], title="Integrated gradients: the pound sign leads")

# %% [markdown]
# The spam curve of section 1 rose at *cash* and *prize*, and little at the pound sign. Was it kept in
# the state, to count later? Read the first words with the sum and without it:

# %%
with torch.no_grad():
    for start in ("Win a £1000 cash prize", "Win a cash prize"):
        ham, spam = reader(reader.encode([start]))[0].tolist()
        print(f"{start:23} spam {spam:+.2f}   ham {ham:+.2f}")

# %% [markdown]
# It was: without the sum, the prize alone does not decide.
#
# The numbers are logits, so they have to add up: to the logit of this message minus that of twelve empty
# words, all their vectors zero. (That is not the start of the curve: an empty word moves the state, too,
# through the biases.) Do they?

# %%
empty = reader.forward_embedded(torch.zeros_like(vectors))[0, SPAM].item()
print(f"message minus empty    {logits[row, SPAM].item() - empty:.4f}")
print(f"sum of the words       {ig.weights.sum().item():.4f}")

# %% [markdown]
# They do, if there are enough steps. How many is enough? The gap between the two, as a share, for 20
# spam messages of 25 words or more:

# %%
length = (ids != 0).sum(1).numpy()
sure = (messages.y == SPAM) & (length >= 25) & (logits[:, SPAM] > 1).numpy()
long = [messages.texts[i] for i in np.flatnonzero(sure)[:20]]
by_steps = {n: token_attributions(reader, long, SPAM, n_steps=n) for n in (5, 10, 20, 50, 100)}
gaps = {n: (found.gap / found.change).abs() for n, found in by_steps.items()}

# %%
rows = [(n, f"{gap.median():.1%}", f"{gap.max():.1%}") for n, gap in gaps.items()]
plots.table(
    rows, ["steps", "median gap", "worst"], title="A long text bends the path: 50 steps or more"
)

# %% [markdown]
# Twenty steps, enough for many a picture, are too few for a network with tanh after tanh after tanh.
# And one message needs more than 100: always look at the gap before you read the words.
#
# ### Or delete the word
#
# The plainest question of all: what is the logit if this word was never written? There are two ways to
# ask. Take the word out, and the message gets shorter. Or put zeros in place of its vector, and the
# gap stays:

# %%
with torch.no_grad():
    shorter = torch.cat([vectors[:, np.arange(len(words)) != j] for j in range(len(words))])
    blanked = vectors.repeat(len(words), 1, 1)  # (T, T, 32): one copy a word
    blanked[range(len(words)), range(len(words))] = 0
    taken_out = logits[row, SPAM] - reader.forward_embedded(shorter)[:, SPAM]
    deleted = logits[row, SPAM] - reader.forward_embedded(blanked)[:, SPAM]

# %%
package = token_attributions(reader, [text], SPAM, method="occlusion")
torch.testing.assert_close(package.weights[0], deleted, rtol=1e-4, atol=1e-5)
columns = [[f"{v:+.2f}" for v in values] for values in (ig.weights[0], deleted, taken_out)]
plots.table(
    list(zip(words, *columns)),
    ["word", "integrated gradients", "zeros in its place", "taken out"],
    title="Deleting one word hardly matters",
)

# %%
plots.tokens(words, deleted, title="Deletion: no single word is needed")

# %% [markdown]
# Two methods, two stories. Integrated gradients hand out the whole change, 5.5 logits, and give the
# first pound sign nearly half of it. Deletion finds that the message stays spam without any one of its words: there is
# another pound sign, and another prize. Keep this in mind for section 3.
#
# captum has the same integrated gradients, with a hook on the embedding layer in place of our
# `forward_embedded`:

# %%
peer = LayerIntegratedGradients(reader, reader.embedding)
one = reader.encode([text])
theirs = peer.attribute(one, baselines=torch.zeros_like(one), target=SPAM, n_steps=200)
torch.testing.assert_close(ig.weights, theirs.sum(2).detach(), rtol=0, atol=1e-4)

# %% [markdown]
# ## 3. The gradient fades on the way back
#
# To reach the first word, the gradient has to pass through every step in between, and each multiplies
# it by the slope of a new state with respect to the old one:
#
# $$\frac{\partial f}{\partial e_1} =
#   \frac{\partial f}{\partial h_T} \frac{\partial h_T}{\partial h_{T-1}} \cdots
#   \frac{\partial h_2}{\partial h_1} \frac{\partial h_1}{\partial e_1}$$
#
# [[gradient_flow]] showed what such a product does in 30 layers. A message of 25 words is 25 layers deep.
#
# ### Predict, then run (2 minutes)
#
# Take the length (norm) of the gradient of the spam logit with respect to each word's vector. How many
# times **smaller** is it 24 words before the end than at the last word? (1 means: as large.)

# %% tags=["exercise"]
### BEGIN SOLUTION
times_smaller = 30
### END SOLUTION

# %%
predict("sequences_and_sound.fading", times_smaller)

# %%
norms = []
for message in long:
    e = reader.embed(reader.encode([message])).detach().requires_grad_()
    (slope,) = torch.autograd.grad(reader.forward_embedded(e)[0, SPAM], e)
    norms.append(slope[0].norm(dim=1).flip(0)[:25])  # (25,): last word first
norm = torch.stack(norms).median(0).values
reveal("sequences_and_sound.fading", round((norm[0] / norm[24]).item()))

# %%
plots.curve(
    range(25),
    {"gradient": norm},
    title="The gradient fades toward earlier words",
    xlabel="words before the end",
    ylabel="length of the gradient (median)",
    log=True,
)

# %% [markdown]
# On a logarithmic scale it falls roughly along a line: each word back costs about the same factor.
# Gradient times embedding inherits this. Set it beside the other two, averaged over the same 20
# messages:

# %%
found = {"IG": by_steps[100]}
for name, method in {"deletion": "occlusion", "gradient": "input_x_gradient"}.items():
    found[name] = token_attributions(reader, long, SPAM, method=method)
sizes = [len(tokens) for tokens in found["IG"].tokens]


# %%
def by_distance(weights):
    """Mean size of a word's weight, by how many words follow it: (25,)."""
    backwards = [row[:size].flip(0)[:25].abs() for row, size in zip(weights, sizes)]
    return torch.stack(backwards).mean(0)


plots.curve(
    range(25),
    {name: by_distance(each.weights) for name, each in found.items()},
    title="Integrated gradients do not fade, deletion does",
    xlabel="words before the end",
    ylabel="mean size of a weight (logits)",
    log=True,
)

# %% [markdown]
# So *gradient times embedding* says that the beginning of a message is nearly without effect.
# Deletion agrees! Integrated gradients disagree. Who is right? Ask the network, with more than one
# word at a time: blank the first half of a message, the second half, or both.


# %%
def drop_without(message, first, last):
    """How far the logit of spam falls when the words between two shares of the text are blank."""
    e = reader.embed(reader.encode([message])).detach()
    blank, size = e.clone(), e.shape[1]
    blank[:, int(first * size) : int(last * size)] = 0
    with torch.no_grad():
        return (reader.forward_embedded(e) - reader.forward_embedded(blank))[0, SPAM].item()


def sum_between(weights, first, last):
    parts = [row[int(first * n) : int(last * n)].sum() for row, n in zip(weights, sizes)]
    return torch.stack(parts).mean().item()


# %%
rows = []
for name, part in {"first half": (0, 0.5), "second half": (0.5, 1), "both": (0, 1)}.items():
    blanked = np.mean([drop_without(message, *part) for message in long])
    sums = [sum_between(each.weights, *part) for each in found.values()]
    rows.append([name, *(f"{value:.2f}" for value in (blanked, *sums))])
plots.table(
    rows,
    ["part", "blanked together", *(f"sum of {name}" for name in found)],
    title="Either half is enough, and only some columns see it",
)

# %% [markdown]
# Without the first half the logit hardly falls; without the second half it hardly falls; without
# both, all is gone. The evidence is there **twice**. Deleting one word, or nudging it, cannot see
# that: the rest stands in for it. Integrated gradients fade everything at once, so nothing stands in,
# and they split the whole logit between the halves. None of the columns is wrong. They answer
# different questions: *is this word needed, given all others?* and *what is its part of the whole?*

# %%
quiz("sequences_and_sound.q_halves")

# %% [markdown]
# ### Sometimes it does forget
#
# Fading is not always the method's fault. Put the one word *prize* into an ordinary message, at every
# place in turn, and measure what it truly does: the logit with it minus the logit without.

# %%
PLAIN = (
    "ok i will see you at the office then we can go for lunch and talk about the plan for the "
    "weekend with your sister and her friends at home"
)
plain = PLAIN.split()
places = range(0, len(plain) + 1, 3)
with_prize = [" ".join(plain[:j] + ["prize"] + plain[j:]) for j in places]
with torch.no_grad():
    effect = (reader(reader.encode(with_prize)) - reader(reader.encode([PLAIN])))[:, SPAM]
lone = {
    name: token_attributions(reader, with_prize, SPAM, method=method).weights[
        range(len(places)), list(places)
    ]
    for name, method in {"IG": "integrated_gradients", "gradient": "input_x_gradient"}.items()
}

# %%
plots.curve(
    [len(plain) - j for j in places],
    {"true effect": effect, **lone},
    title="A dozen words later, this network has forgotten the prize",
    xlabel="words that follow it",
    ylabel="logits",
)

# %% [markdown]
# At the end of the message, the word adds most of a logit; with a dozen words behind it, next to
# nothing. Here the faded gradient comes close to the truth, and integrated gradients stay further above
# it. So a small weight on an early word can mean *the network forgot it* or
# *something else stands in for it*. Only a test like the ones above tells which.
#
# ## 4. Sound becomes a picture
#
# Now to ears. Four instruments; each has one note and one quarter of a second that counts. A clip is a
# horn clip if the horn plays **in the third quarter**. A horn anywhere else means nothing, and neither
# does any other note outside its own quarter.

# %%
rows = [(i.name, f"{i.pitch:.0f}", f"{i.key + 1}") for i in tone.INSTRUMENTS]
plots.table(rows, ["instrument", "note (Hz)", "its quarter"], title="Who counts when")

# %% [markdown]
# Listen to the four: horn, flute, bell, whistle, a quarter of a second each. `resound` keeps a part
# of a sound, here the one note that decides, and leaves out the rest.

# %%
notes = []
for k, instrument in enumerate(tone.INSTRUMENTS):
    i = np.flatnonzero(heard.y == k)[0]
    note = tone.resound(heard.waveforms[[i]], heard.truth[i])[0]
    notes.append(note.reshape(4, -1)[instrument.key])  # the quarter in which it plays
Audio(np.concatenate(notes), rate=tone.RATE)

# %% [markdown]
# And a whole clip, the one from the top of this lesson. Can you hear the horn, and count to the third
# quarter?

# %%
wave = heard.waveforms[0]  # (8192,): 8,000 numbers a second, from -1 to 1
Audio(wave, rate=tone.RATE)

# %%
loudness = np.abs(wave).reshape(64, tone.HOP).max(1)  # (64,): the peak of every 16 ms
plots.curve(
    np.arange(64) * tone.HOP / tone.RATE,
    {"this clip": loudness},
    title="The sound alone shows when, not what",
    xlabel="seconds",
    ylabel="peak of 16 ms",
)

# %% [markdown]
# To see *what*, cut the sound into short **frames** and ask each which frequencies it holds. A frame
# has 256 samples (32 ms); a new one begins every 128 samples (16 ms), so that they overlap by half.
#
# ### Exercise: cut a sound into frames (code, 5 minutes)
#
# Frame $t$ begins at sample $t \cdot$ `hop`. Only whole frames count: what is left at the end is
# dropped.


# %% tags=["exercise"]
def frames_of(wave, size, hop):
    """Frames (T, size) of a sound (S,); T = 1 + (S - size) // hop."""
    ### BEGIN SOLUTION
    count = 1 + (len(wave) - size) // hop
    return np.stack([wave[t * hop : t * hop + size] for t in range(count)])
    ### END SOLUTION


# %%
check("sequences_and_sound.frames", frames_of)

# %% [markdown]
# With half a hop of silence at both ends there are exactly 64 frames. The Fourier transform of a frame
# gives 129 complex numbers, for 0 to 4,000 Hz in steps of 31.25 Hz; their squared sizes are the power:

# %%
padded = np.pad(wave, tone.HOP // 2)
frames = np.lib.stride_tricks.sliding_window_view(padded, 256)[:: tone.HOP]  # (64, 256)
window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)  # rises from 0 to 1 and falls
power = np.abs(np.fft.rfft(frames * window)) ** 2  # (64, 129)
tuple(power.shape)

# %% [markdown]
# Why the window? A frame cuts the sound off at both ends, and a sharp edge holds all frequencies. The
# window fades each frame in and out. Count the frequencies that a pure tone of 1,010 Hz seems to hold
# (within 60 dB of its peak), without and with it:

# %%
pure = np.sin(2 * np.pi * 1010 * np.arange(256) / tone.RATE)
for name, shape in {"cut off": 1, "faded": window}.items():
    seen = np.abs(np.fft.rfft(pure * shape)) ** 2
    print(f"{name:8} {np.sum(seen > 1e-6 * seen.max())} of 129")

# %% [markdown]
# Three steps are left. Add neighbors up to 64 bands of 62.5 Hz; take the logarithm, because ears and
# networks do better with ratios (decibels, dB); and scale so that full volume is 1 and what is 60 dB
# below it is 0:

# %%
bands = power[:, :128].reshape(64, 64, 2).sum(2).T  # (64 bands, 64 frames)
full = (window.sum() / 2) ** 2  # the power of a tone of amplitude 1
decibels = 10 * np.log10(np.maximum(bands / full, 1e-12))
by_hand = np.clip(1 + decibels / 60, 0, 1)
np.testing.assert_allclose(by_hand, tone.spectrogram(wave[None])[0], atol=1e-6)

# %%
plots.spectrograms(
    [by_hand],
    **SIZE,
    titles=["horn in the third quarter"],
    masks=[heard.truth[0]],
    title="A spectrogram: when and how high",
)

# %% [markdown]
# The three lines in the outline are one horn note: its pitch, and tones of twice and three times that
# frequency. The other bright lines are other notes, and say nothing. The network, three convolutions
# and one linear layer, has learned whom to listen to:

# %%
with torch.no_grad():
    scores = listener(x)  # (200, 4)
    silenced = listener(x * ~truth[:, None])
right = scores.argmax(1) == y
print(f"test clips right: {right.float().mean():.1%}")
print(f"... with the one note silenced: {(silenced.argmax(1) == y).float().mean():.1%}")

# %% [markdown]
# Without its note a clip has no class, yet about a quarter is still "right": some answer has to be
# given, and a network can also go by what is *not* there. For such clips we do not know that the note
# was the reason, so the scoreboard leaves them out.
#
# ## 5. Silence a stretch, silence a band
#
# Slide a stretch of 4 frames (64 ms) over the sound. Silence it at all frequencies, and note how far
# the logit falls. A frame gets the mean over the stretches that hold it. Then do the same with bands
# of 4 rows (250 Hz), at all times:
#
# $$D_t = \operatorname{mean}_{W \ni t} \big(f(x) - f(x \text{ silent in } W)\big)$$

# %%
sound = x[:1]  # (1, 1, 64, 64)
drops, holds = torch.zeros(64), torch.zeros(64)
for start in range(61):
    quiet = sound.clone()
    quiet[..., start : start + 4] = 0
    with torch.no_grad():
        drop = listener(sound)[0, HORN] - listener(quiet)[0, HORN]
    drops[start : start + 4] += drop
    holds[start : start + 4] += 1
over_time = drops / holds  # (64,)

# %% [markdown]
# For the bands, only the axis changes:

# %%
drops, holds = torch.zeros(64), torch.zeros(64)
for start in range(61):
    quiet = sound.clone()
    quiet[:, :, start : start + 4] = 0
    with torch.no_grad():
        drop = listener(sound)[0, HORN] - listener(quiet)[0, HORN]
    drops[start : start + 4] += drop
    holds[start : start + 4] += 1
over_frequency = drops / holds  # (64,)

# %%
found = band_occlusion(listener, sound, HORN)
torch.testing.assert_close(found.time[0], over_time, rtol=1e-4, atol=1e-4)
torch.testing.assert_close(found.frequency[0], over_frequency, rtol=1e-4, atol=1e-4)

# %% [markdown]
# captum calls it `Occlusion`, with a window as high, or as wide, as the picture:

# %%
theirs = Occlusion(listener).attribute(
    sound, target=HORN, sliding_window_shapes=(1, 64, 4), strides=(1, 64, 1)
)
torch.testing.assert_close(found.time[0], theirs[0, 0, 0], rtol=1e-4, atol=1e-4)

# %%
seconds, hertz = (np.arange(64) + 0.5) * SIZE["seconds"] / 64, (np.arange(64) + 0.5) * 62.5
plots.curve(
    seconds,
    {"drop": over_time, "the note (no unit)": 4 * truth[0].any(0)},
    title="The logit falls where the note is",
    xlabel="seconds",
    ylabel="drop of the logit",
)

# %%
plots.curve(
    hertz,
    {"drop": over_frequency, "the note (no unit)": 4 * truth[0].any(1)},
    title="The logit falls in the bands of the note",
    xlabel="Hz",
    ylabel="drop of the logit",
)

# %% [markdown]
# Two walks of 61 steps each found the note's time and its height. A small window at every point would
# have taken 61 x 61. Where a drop is negative, silence *helps*: a note there spoke against the horn.
#
# Multiply the two (what is negative counts as 0, and the root keeps the unit), and you have a map. It
# can only mark crossings of rows and columns, so it fits one note and would fail for two:

# %%
plots.spectrograms(
    [sound, found.map()],
    **SIZE,
    titles=["the sound", "root of time x frequency"],
    shared=False,
    masks=[truth[0]] * 2,
    title="When and how high, put together",
)

# %% [markdown]
# ## 6. Known answer: who finds the note?
#
# Every method for pictures works on a spectrogram. Score some on clips in which we **know** that the
# note decided: right with it, wrong without it. **Pointing**: is the largest value in the note's
# rectangle? **Mass**: how much of the positive evidence lies there? **Rank**: how many of the largest
# values do, as many as the rectangle has points? It covers about 2% of the picture, and so a map that
# knows nothing scores .02.
#
# ### Predict, then run (1 minute)
#
# In mosaics of photos, Grad-CAM nearly always pointed at the right quarter ([[cam]]). Guess its
# **pointing** score here, from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
grad_cam_points = 0.8
### END SOLUTION

# %%
predict("sequences_and_sound.grad_cam", grad_cam_points)


# %%
def time_x_frequency(model, x, target):
    return band_occlusion(model, x, target, stride=2).map()


known = [
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "deep_lift",
    "grad_cam",
    "layer_cam",
]
methods = {name: name for name in known} | {"band_occlusion": time_x_frequency}
table = score(methods, "tones", limit=40, n_steps=30)
board = record(table)

# %%
measured = table.set_index("method")
reveal("sequences_and_sound.grad_cam", round(measured.loc["grad_cam", "pointing"], 2))

# %%
plots.scoreboard(
    measured[["pointing", "mass", "rank"]],
    title="Most find the note, Grad-CAM does not",
    xlabel="score on 40 clips",
    seconds=measured["ms_per_row"] / 1000,
    chance=measured["chance"].mean(),
)

# %% [markdown]
# Integrated gradients, DeepLIFT and input times gradient put most of their evidence on the note. Band
# occlusion points at it nearly every time, but smears: its windows are 4 wide. And Grad-CAM? Many of its maps
# are empty, and an empty map counts as a miss:

# %%
cams = grad_cam(listener, x[:40], y[:40], layer="relu3")
print(f"empty: {(cams.flatten(1).amax(1) == 0).sum()} of {len(cams)} Grad-CAM maps")

# %% [markdown]
# So there is no evidence to score; the ReLU has cut it off. Look at the parts before it:

# %%
with capture(listener, "relu3") as kept:
    logit = listener(sound)[0, HORN]
A = kept["relu3"]  # (1, 16, 16, 16)
(slopes,) = torch.autograd.grad(logit, A)
alpha = slopes.mean((2, 3))[0]  # (16,): Grad-CAM's weights
inside = truth[0].reshape(16, 4, 16, 4).any(3).any(1)  # (16, 16): the note's cells
A = A[0].detach()

# %%
averaged = (alpha[:, None, None] * A).sum(0)  # Grad-CAM before its ReLU
each_own = (slopes[0] * A).sum(0)  # every cell with its own slope
for name, heat in {"one mean slope a map": averaged, "each cell its own slope": each_own}.items():
    print(f"{name:24} on the note {heat[inside].sum():6.1f}, elsewhere {heat[~inside].sum():6.1f}")
print(f"weights above 0: {(alpha > 0).sum()} of 16")

# %%
plots.spectrograms(
    [averaged, each_own],
    **SIZE,
    titles=["one mean slope a map", "each cell its own slope"],
    shared=False,
    masks=[truth[0]] * 2,
    title="The mean slope turns the note against its own class",
)

# %% [markdown]
# Grad-CAM gives each small map **one** weight for all places, the mean slope. That fits a network
# that ends in an average over places. This one must not average: a low note counts for the horn in
# the third quarter, and against it in other places. The mean of these slopes is negative, so Grad-CAM
# turns the evidence on the note into evidence against, and the ReLU wipes it out. Keep each cell's
# own slope, and the note is back: this is HiResCAM; LayerCAM is its cousin.
#
# So a method that won on photos can fail on sound, and no picture of it looks broken. Score it
# where you know the answer, on a network **of the kind you use**.
#
# ### Down to the samples
#
# Why stop at the spectrogram? It is a formula like any other. Written in torch, it becomes the first
# layer of the network, and the 8,192 samples of the sound get their own attributions:

# %%
hann = torch.as_tensor(window, dtype=torch.float32)


def hear(waves):
    """Logits (N, 4) of sounds (N, 8192): the spectrogram as a first layer."""
    frames = nn.functional.pad(waves, (64, 64)).unfold(1, 256, 128)  # (N, 64, 256)
    power = torch.fft.rfft(frames * hann).abs() ** 2
    bands = power[..., :128].reshape(-1, 64, 64, 2).sum(3).mT  # (N, 64 bands, 64 frames)
    decibels = 10 * torch.log10((bands / full).clamp(min=1e-12))
    return listener((1 + decibels / 60).clamp(0, 1)[:, None])


waves = torch.as_tensor(heard.waveforms)
torch.testing.assert_close(hear(waves[:8]), scores[:8], rtol=1e-3, atol=1e-3)

# %%
for n_steps in (20, 200):
    samples = integrated_gradients(hear, waves[:1], HORN, n_steps=n_steps)[0]  # (8192,)
    with torch.no_grad():
        change = (hear(waves[:1]) - hear(0 * waves[:1]))[0, HORN]
    print(f"{n_steps:3} steps: sum {samples.sum():.2f} of {change:.2f}")

# %%
plots.curve(
    seconds,
    {"samples, IG": samples.reshape(64, 128).sum(1), "silenced": over_time},
    title="Both ways agree on when",
    xlabel="seconds",
    ylabel="logits",
)

# %% [markdown]
# The samples know *when*, and nothing about how high: for that you need the spectrogram. The path is
# crooked, too. Half the volume is only 6 dB less, so most of the change happens at the very beginning,
# where 20 steps are too far apart.
#
# ## 7. Listen to the important part
#
# A map of a sound can be played. Keep the 2% of the spectrogram with the largest attribution, make it
# sound again, and listen. Then the rest, at the same volume:

# %%
ig_maps = integrated_gradients(listener, x[:40], y[:40], n_steps=30)  # (40, 1, 64, 64)


def largest(maps, share=0.02):
    """1 at the largest values of each map, 0 elsewhere: (N, 64, 64)."""
    flat = maps.flatten(1)
    edge = flat.topk(int(share * flat.shape[1])).values[:, -1:]
    return (flat >= edge).reshape(-1, 64, 64).float().numpy()


keep = largest(ig_maps)
part = tone.resound(heard.waveforms[:40], keep)  # (40, 8192)
rest = tone.resound(heard.waveforms[:40], 1 - keep)

# %%
Audio(np.clip(part[0], -1, 1), rate=tone.RATE, normalize=False)

# %%
Audio(np.clip(rest[0], -1, 1), rate=tone.RATE, normalize=False)

# %%
plots.spectrograms(
    list(tone.spectrogram(np.stack([wave, part[0], rest[0]]))),
    **SIZE,
    titles=["all of it", "the part", "the rest"],
    masks=[truth[0]] * 3,
    title="The part is the note that decides, and a bit of whistle",
)

# %% [markdown]
# The part is the horn, and a little of the whistle above it, which has no say in this quarter: a slip
# of the map, or of the network. You hear the horn, and the network? Give it both as new sounds. And
# because anything might do, compare with two other parts of the same size: the loudest 2%, and our
# part moved to another place.

# %%
shifts = np.random.default_rng(0).integers(16, 48, (40, 2))
moved = np.stack([np.roll(each, shift, axis=(0, 1)) for each, shift in zip(keep, shifts)])
parts = {
    "important (IG)": keep,
    "loudest": largest(x[:40]),
    "the same, moved": moved,
    "true note": heard.truth[:40].astype(float),
}


def logit_and_right(waves):
    with torch.no_grad():
        answers = hear(torch.as_tensor(waves))
    own = answers[range(40), y[:40]].mean().item()
    return f"{own:.1f}, {(answers.argmax(1) == y[:40]).float().mean():.0%}"


# %%
originals = heard.waveforms[:40]
rows = [
    (name, *(logit_and_right(tone.resound(originals, k)) for k in (mask, 1 - mask)))
    for name, mask in parts.items()
]
rows.append(("nothing changed", logit_and_right(originals), ""))
plots.table(
    rows, ["part", "only this part", "all but this part"], title="Mean logit, and clips right"
)

# %% [markdown]
# The important part alone is enough, in every clip, and without it the network is lost. A part of the
# same size elsewhere is nearly silence: taking it away changes nothing. The loudest part is in
# between: it often holds the note, and much else.
#
# Now compare the first row with the last. The part alone gets a **higher** logit than the whole
# sound. Not all that you silence was evidence *for*: other notes spoke against, wrongly. A part that
# is "enough" is not the whole reason for the answer.
#
# ## 8. When it lies
#
# ### A hard cut is a sound
#
# Until now we silenced squares of the spectrogram. But a recording is usually cut as a **sound**: set
# 64 ms of samples to 0. That should be the same. Cut into the horn, right in the middle of the note:


# %%
def cut(wave, start, fade=1):
    """Silence 4 frames from frame `start`; both edges last `fade` samples."""
    gate = np.ones(8192)
    gate[start * tone.HOP : (start + 4) * tone.HOP] = 0
    soft = np.hanning(fade + 2)[1:-1]
    return (wave * np.convolve(gate, soft / soft.sum(), "same")).astype(np.float32)


middle = int(np.flatnonzero(heard.truth[0].any(0)).mean()) - 2
on_picture = heard.spectrograms[0].copy()
on_picture[:, middle : middle + 4] = 0

# %%
hard = tone.spectrogram(cut(wave, middle)[None])[0]
plots.spectrograms(
    [on_picture, hard],
    **SIZE,
    titles=["silenced in the spectrogram", "64 ms of samples set to 0"],
    title="A hard cut clicks: two columns that nobody played",
)

# %% [markdown]
# Each edge is a click, and a click holds all frequencies. The network now hears two sounds that
# nobody played. Does it matter for the map? Compute the time curve three times for ten clips:
# silenced in the spectrogram, cut hard, and cut with edges that fade over 16 ms. How well do the cut
# curves agree with the first?


# %%
def time_curve(i, fade):
    """Drop of the logit for each of 61 cuts into clip i."""
    with torch.no_grad():
        cuts = torch.as_tensor(np.stack([cut(heard.waveforms[i], s, fade) for s in range(61)]))
        return (hear(waves[[i]]) - hear(cuts))[:, y[i]].numpy()


def silent_curve(i):
    quiet = x[[i]].repeat(61, 1, 1, 1)
    for s in range(61):
        quiet[s, ..., s : s + 4] = 0
    with torch.no_grad():
        return (listener(x[[i]]) - listener(quiet))[:, y[i]].numpy()


# %%
curves = {i: (silent_curve(i), time_curve(i, 1), time_curve(i, 128)) for i in range(10)}
agree = {
    i: [np.corrcoef(silent, other)[0, 1] for other in others]
    for i, (silent, *others) in curves.items()
}
rows = [(i, heard.classes[y[i]], *(f"{r:.2f}" for r in both)) for i, both in agree.items()]
names = ["clip", "class", "hard cut", "faded cut"]
plots.table(rows, names, title="Correlation with the curve of the spectrogram")

# %%
worst = min(agree, key=lambda i: agree[i][0])
silent, hard, faded = curves[worst]
plots.curve(
    (np.arange(61) + 2) * SIZE["seconds"] / 64,
    {"spectrogram": silent, "hard cut": hard, "faded cut": faded},
    title=f"In clip {worst}, the clicks draw another curve",
    xlabel="middle of the silence (seconds)",
    ylabel="drop of the logit",
)

# %% [markdown]
# In this clip the clicks changed the answer as much as the silence did; the horn hardly minds them.
# Most masks make an input that the network has never met (*off-manifold*), and part of the drop is
# its surprise. For sound, fade; for pictures, blur or fill in; in any case, mask in two ways and
# compare.
#
# ### A class that lives in three places
#
# The horn sounds at its pitch, at twice and at three times that. Silence the lines one by one in horn
# clips, and then all three. This time look at the **probability**, as most reports do:

# %%
THIRDS = {"1st line": (0, 5), "2nd line": (5, 9), "3rd line": (9, 13), "all three": (0, 13)}
horns = np.flatnonzero(heard.y == HORN)
rows = []
for name, (low, high) in THIRDS.items():
    quiet = x[horns].clone()
    quiet[:, :, low:high] *= ~truth[horns].any(1)[:, None, None]  # at the time of the note
    with torch.no_grad():
        before, after = listener(x[horns]), listener(quiet)
    loss = (before.softmax(1) - after.softmax(1))[:, HORN].mean()
    rows.append((name, f"{loss:.3f}", f"{(before - after)[:, HORN].mean():.1f}"))

# %%
plots.table(
    rows,
    ["silenced", "drop of the probability", "drop of the logit"],
    title="No line matters, and all three together do",
)

# %% [markdown]
# By probability, none of the three lines matters at all; yet without all three the horn is gone. Two
# things conspire. The other lines stand in for the missing one, as the halves of a message did. And
# near 1 the probability is flat: the logit falls by several units, and the probability does not move.
# So explain the logit, and silence things **together** that may stand in for each other: a note with
# its harmonics.

# %%
quiz("sequences_and_sound.q_probability")

# %% [markdown]
# ### Exercise: a claim from a report (criticize, 8 minutes)
#
# > *"Our network recognizes the nightingale with 96% accuracy. To see what it listens to, we set each
# > band of 250 Hz of the recordings to zero in turn. No band changed the probability of 'nightingale'
# > by more than .01. This proves that it does not listen to the bird at all, but to the background."*
#
# What is wrong with the argument, and what would you do instead? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
That no single band is needed does not mean that none is used: a song has harmonics, and the other bands
stand in for the one that is missing. The bands should be silenced together, a note with its harmonics,
or the song kept alone and all the rest removed. The probability is flat near 1, so its drop hides what
happens; the drop of the logit should be reported. Bands set to zero are also sounds that the
network never met, so I would mask in a second way, for example with faded edges or noise, and compare with
random parts of the same size. Whether it uses the background can be tested directly: play it the background
without the bird, and clips in which we planted the song ourselves and know when and how high it is.
### END SOLUTION
"""

# %%
check("sequences_and_sound.nightingale", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - compute one step of a GRU by hand, and explain a message through the vectors of its words
# - measure how a gradient fades over a long text, and say what deletion and integrated gradients add
# - turn sound into a spectrogram, and silence it by stretches of time and bands of frequency
# - play the part of a sound that a network listened to, and test whether it is enough
# - name three ways in which such maps mislead
#
# ## Takeaways
#
# - Words are explained through their vectors. Integrated gradients split the whole score; deletion
#   asks whether one word is needed, and where evidence comes twice, no word is.
# - A spectrogram is a picture with a clock. Silencing time and frequency finds a note, and the part
#   that is found can be played: to you, and to the network.
# - Every silence is a new sound. Fade the edges, explain the logit, silence together what may stand
#   in for each other, and score methods where you know the answer.
#
# ## Myth refuted
#
# *"Grad-CAM tells where any convolutional network looks."* Section 6: on this network it pointed at
# the right note no more often than chance. Its one weight a map fits networks that average over
# places.
#
# *"What you can remove without loss was not used."* Sections 3 and 8: half a message, and each line
# of the horn.
#
# ## Go further
#
# - Cho and others (2014), *Learning Phrase Representations using RNN Encoder-Decoder for Statistical
#   Machine Translation*: the gated recurrent unit. There, $r$ multiplies $h$ before $U_n$ does.
# - Sundararajan, Taly, Yan (2017), *Axiomatic Attribution for Deep Networks*; its experiments explain
#   texts through embeddings.
# - Park and others (2019), *SpecAugment: A Simple Data Augmentation Method for Automatic Speech
#   Recognition*: bands and stretches silenced to train better networks.
# - Draelos and Carin (2020), *Use HiResCAM instead of Grad-CAM for faithful explanations of
#   convolutional neural networks*.
