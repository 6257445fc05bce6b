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
# # Feature visualization: what would the network like to see?
#
# **Question:** If a network could paint what excites it most, what would it paint?
#
# **You will be able to**
# - make a picture that excites a class, a channel or a neuron, by gradient ascent in ten lines
# - say what each regularizer does, and prove it with a number
# - measure with a spectrum how far such a picture is from a photo
# - show four ways in which a beautiful picture misleads
#
# **You need:** [[backprop]]; `top_inputs` comes from
# [[activations]]
#
# **Time:** [[time]]; the cells run in under a minute · **Difficulty:** 3 of 5

# %%
from copy import deepcopy
from functools import partial

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn

from xailab import data, models, plots, widgets
from xailab.core import capture, folded
from xailab.course import check, predict, progress, quiz, reveal
from xailab.foundations import feature_visualization as fv
from xailab.foundations.activations import top_inputs
from xailab.widgets.feature_visualization import Frame

# %% [markdown]
# Nobody took these three photos. A network painted them, each for one of its 1,000 classes, starting
# from gray. Guess the classes before you read on:

# %%
net = models.pretrained("efficientnet_lite0")
model = folded(net.model)  # batch norms worked into the convolutions: quicker


def to_input(pictures):
    """Pictures in [0, 1] to what this network was trained on."""
    x = (pictures * 255 - 127) / 128
    return x.contiguous(memory_format=torch.channels_last)  # the same numbers, in a faster order


# %% tags=["readme-painted"]
STRONG = (fv.jitter(12), fv.scale(0.85, 1.2), fv.rotate(12))
paint = partial(fv.maximize, model, normalize=to_input)  # 128 x 128 pixels, written as waves
CLASSES = [113, 107, 327, 301, 130, 985]
# (6, 3, 128, 128)
six = paint(target=CLASSES, transforms=STRONG, variation=250.0, n_steps=64, seed=5)
OPENING = [0, 2, 3]
plots.images(
    six[OPENING],
    titles=["A", "B", "C"],
    title="Three pictures that nobody took",
    alt="Three painted pictures: A a coiled shell with a horn; B five dotted arms around a center; C a "
    "red and black half ball with spots, on pale threads.",
)

# %%
for letter, picture in zip("ABC", six[OPENING]):
    number, name, probability = net.top(to_input(picture[None]), k=1)[0]
    print(f"{letter}: {name} (class {number}), probability {probability:.3f}")

# %% [markdown]
# Such pictures look like insight. By the end of this lesson you can make them, and you will know why
# the recipe has so many ingredients: without them, the network paints something else entirely.
#
# ## 1. Gradient ascent on a digit
#
# In training, the picture is given and the weights move. Now the weights are fixed and the **picture**
# moves, in the direction in which the score of a class rises:
#
# $$x \leftarrow x + \eta \, \frac{g}{\lVert g \rVert}, \qquad g = \frac{\partial s_c(x)}{\partial x}$$
#
# $x$ is the picture, $s_c$ the logit of class $c$ and $\eta$ the length of a step. Start from gray and
# ask the digit network for a three:

# %%
digit_net = models.digit_cnn()
x = torch.full((1, 1, 28, 28), 0.5)  # (N, C, H, W), all gray
for _ in range(100):
    x.requires_grad_()
    (slope,) = torch.autograd.grad(digit_net(x)[0, 3], x)
    x = (x + 0.3 * slope / slope.norm()).clamp(0, 1).detach()
ascended = x
print(f"logit of 3: {digit_net(ascended)[0, 3].item():.1f}")

# %% [markdown]
# ### Predict, then run (2 minutes)
#
# We have 5,000 handwritten digits, 500 of them threes. Guess: how many of them have a
# higher logit for *three* than this picture?

# %% tags=["exercise"]
### BEGIN SOLUTION
digits_above = 100
### END SOLUTION

# %%
predict("feature_visualization.above", digits_above)

# %%
digits = data.load("mnist5k")
rows = torch.tensor(digits.images / 255, dtype=torch.float32)[:, None]  # (5000, 1, 28, 28)
with torch.no_grad():
    answers = torch.cat([digit_net(chunk) for chunk in rows.split(250)])  # (5000, 10)
logits = answers[:, 3]
reveal("feature_visualization.above", int((logits > digit_net(ascended)[0, 3]).sum()))

# %% [markdown]
# Here it is, beside the real digit that comes closest:

# %%
best = rows[logits.argmax()]
plots.images(
    [ascended[0], best],
    titles=[f"painted: {digit_net(ascended)[0, 3].item():.0f}", f"a real 3: {logits.max():.0f}"],
    title="The picture that excites 'three' most is not a three",
    alt="Left, painted: white and black stripes and dots that fill the frame, no digit. Right: the "
    "handwritten three with the highest logit.",
)

# %% [markdown]
# By its logit, the left picture is a better three than any three. Ask for the whole answer, and ask a
# second network, too. It was trained from another start on the same digits, some with a planted mark:

# %%
other = models.digit_cnn_marked()
with torch.no_grad():
    for name, judge in {"painter": digit_net, "other network": other}.items():
        answer = judge(ascended)[0]
        print(
            f"{name}: logit of 3 is {answer[3]:.0f}, highest is {answer.argmax().item()}", end=" "
        )
        print(f"with {answer.max():.0f}")

# %% [markdown]
# The painter itself calls it something else! We asked for a high *three* and said nothing about the other
# logits, so they were free to rise as well. The other network finds a strong three in it: the
# stripes are no secret of one network, and still no three. Keep two things in mind: a picture answers
# exactly the question that was asked, and a network that agrees is no proof of sense.

# %% [markdown]
# ### Exercise: one step uphill (code, 8 minutes)
#
# Put the step into a function. It gets a batch of pictures, and each row has a slope, and a length of the
# slope, of its own. The check also looks at what you leave behind.


# %% tags=["exercise"]
def ascend(model, x, target, rate):
    """One normalized step of each row of x (N, C, H, W) uphill on a logit, kept in [0, 1]."""
    ### BEGIN SOLUTION
    x = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x)[:, target].sum(), x)
    length = slope.flatten(1).norm(dim=1)[:, None, None, None]
    return (x + rate * slope / length).clamp(0, 1).detach()
    ### END SOLUTION


# %%
check("feature_visualization.ascend", ascend)

# %% [markdown]
# ### The same from the package, and an answer that we know
#
# `maximize` does this for any network, with two changes. A pixel is $\sigma(z)$, so that it stays between
# 0 and 1 by itself, and $z$ takes Adam's steps. Adam's first step is the **sign** of the slope times the
# learning rate. Check it by hand; the callback hands us the picture before each step:

# %%
starts = []
plain = {"shape": (1, 28, 28), "parametrization": "pixel", "transforms": ()}
keep_start = {"callback": lambda step, pictures, scores: starts.append(pictures)}
one_step = fv.maximize(digit_net, target=3, n_steps=1, learning_rate=0.05, **plain, **keep_start)
z = torch.logit(starts[0]).requires_grad_()
(slope,) = torch.autograd.grad(digit_net(z.sigmoid())[0, 3], z)
by_hand = (z + 0.05 * slope.sign()).sigmoid().detach()
torch.testing.assert_close(one_step, by_hand, rtol=0, atol=1e-3)

# %% [markdown]
# For one kind of network the best picture is known without any search. A linear network adds up pixels
# times weights, so the best picture is white where the weight is positive, black elsewhere. Take the
# difference of the average three and the average eight as weights:

# %%
threes, eights = (rows[digits.y == digit].mean(0) for digit in (3, 8))
linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 1, bias=False))
linear[1].weight.data = (threes - eights).reshape(1, 784)
found = fv.maximize(linear, target=0, n_steps=200, learning_rate=0.1, **plain)
clear = (threes - eights).abs() > 1e-4  # elsewhere the weight is 0: no digit ever reached there
agreement = ((found[0] > 0.5) == (threes > eights))[clear].float().mean().item()
assert agreement == 1
print(f"{clear.sum().item()} pixels with a weight, right: {agreement:.0%}")

# %% [markdown]
# So the search finds what there is to find. The noise above is no failure of the optimizer: it **is** what
# excites the network, too. To see more than that, we have to say what kind of picture we want.
#
# ## 2. The same on photos, and a way to measure noise
#
# Ask the photo network for a *daisy*, pixel by pixel, with nothing to hold it:

# %%
DAISY = 985
small = {"shape": (3, 96, 96), "n_steps": 40}
bare = {"parametrization": "pixel", "transforms": ()}
noise = paint(target=DAISY, **small, **bare)
number, name, probability = net.top(to_input(noise), k=1)[0]
plots.images(
    noise,
    titles=[f"{name}: {probability:.3f}"],
    title="A daisy, says the network",
    alt=f"Gray noise of colored dots. The network calls it {name}, probability {probability:.3f}.",
)

# %% [markdown]
# No doubt about it, says the network. What you see is fine texture: neighboring pixels jump. A
# **spectrum** measures this. It takes the picture apart into waves and adds up the power of all waves of
# one frequency, in cycles per picture. A wave whose power we know first: five cycles, amplitude 3. The
# mean square of a sine is half its squared amplitude, so all there should be is $9/2$ at 5.

# %%
# NBVAL_CHECK_OUTPUT
place = torch.arange(32) / 32
sine = (3 * torch.sin(2 * torch.pi * 5 * place)).expand(32, 32)
for cycles, power in list(zip(*fv.radial_spectrum(sine)[:2]))[3:6]:
    print(f"{int(cycles)} cycles: power {power.item():.3f}")

# %% [markdown]
# By hand it is a Fourier transform, squared, and a sum over rings. NumPy gives the same numbers:

# %%
picture = noise[0].mean(0).double()  # (96, 96)
waves = np.abs(np.fft.fft2(picture.numpy(), norm="forward")) ** 2
cycles = np.fft.fftfreq(96) * 96
ring = np.round(np.hypot(cycles[:, None], cycles[None])).astype(int)
by_hand = np.bincount(ring.ravel(), weights=waves.ravel())[1:]  # without the mean
np.testing.assert_allclose(fv.radial_spectrum(picture).power, by_hand, atol=1e-15)
print(f"all powers together {by_hand.sum():.5f}, the variance {picture.numpy().var():.5f}")

# %% [markdown]
# Now the same for photos, at the same size. `density` is the power of one wave, averaged over its ring:

# %%
photos = data.photos()
seen = torch.cat([net.preprocess(image) for image in photos.images])  # (20, 3, 224, 224)
shrunk = F.interpolate(seen * 128 + 127, size=(96, 96), mode="bilinear", antialias=True) / 255
of_photos, of_noise = fv.radial_spectrum(shrunk), fv.radial_spectrum(noise)
plots.curve(
    of_photos.frequency[:48],
    {"20 photos": of_photos.density[:48], "painted by pixels": of_noise.density[:48]},
    title="Photos are coarse; what the network paints is fine",
    xlabel="cycles per picture",
    ylabel="power of one wave",
    log=True,
)

# %% [markdown]
# In photos, the power falls steeply with the frequency, about as $1/f^2$ (Field, 1987). In the painted
# picture it hardly falls: too little coarse, too much fine. One number to keep: which share of the variance is in
# fine waves, those shorter than 8 pixels?


# %%
def fine_share(pictures):
    found = fv.radial_spectrum(pictures)
    fine = found.frequency > pictures.shape[-1] / 8
    return (found.power[fine].sum() / found.power.sum()).item()


print(f"photos {fine_share(shrunk):.2f}, painted by pixels {fine_share(noise):.2f}")

# %% [markdown]
# ## 3. Paint with waves
#
# First idea: change what the optimizer turns. Instead of pixels, give it the amplitude $c_f$ of every
# wave, and divide by the frequency, so that one step moves coarse waves further than fine ones:
#
# $$x = \sigma\Big(\mathrm{irfft2}\big(c_f / f\big)\Big)$$
#
# Nothing is forbidden: every picture can still be written this way. Only the **path** changes. In NumPy, on
# a tiny case of 4 x 6 pixels:

# %%
c = torch.randn(1, 1, 4, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
down, across = np.fft.fftfreq(4)[:, None], np.fft.rfftfreq(6)[None]
f = np.maximum(np.hypot(down, across), 1 / 6)  # the constant wave has f = 0
by_hand = np.fft.irfft2(c.numpy() / f, s=(4, 6), norm="ortho")
np.testing.assert_allclose(fv.fourier_to_pixels(c, 6), by_hand, atol=1e-12)

# %% [markdown]
# Colors get the same treatment. In photos, red, green and blue rise and fall together. So the optimizer
# turns brightness and two color differences, with the strength that these have in our twenty photos:

# %%
pixels = torch.tensor(photos.images).reshape(-1, 3) / 255
print("correlation of the colors in photos:")
print(torch.corrcoef(pixels.T).numpy().round(2))

# %%
waves = paint(target=DAISY, transforms=(), **small)
of_waves = fv.radial_spectrum(waves)
plots.curve(
    of_photos.frequency[:48],
    {
        "20 photos": of_photos.density[:48],
        "painted by pixels": of_noise.density[:48],
        "painted by waves": of_waves.density[:48],
    },
    title="Painting with waves comes closer to the spectrum of photos",
    xlabel="cycles per picture",
    ylabel="power of one wave",
    log=True,
)

# %% [markdown]
# The objective was the same, and so was the number of steps. Measured by the fine share:

# %%
for name, picture in {"pixels": noise, "waves": waves}.items():
    print(f"{name}: fine share {fine_share(picture):.2f}")

# %% [markdown]
# ## 4. Shake the picture
#
# Second idea: a daisy is still a daisy when you move it by three pixels. Is the noise? Move the pixel
# picture by 3 pixels to the right and ask again.
#
# ### Predict, then run (2 minutes)
#
# Which share of its logit does the noise keep after a shift by three pixels? A number from 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
kept_share = 0.9
### END SOLUTION

# %%
predict("feature_visualization.shift", kept_share)


# %%
@torch.no_grad()
def daisy_logit(picture):
    return model(to_input(picture))[0, DAISY].item()


before, after = daisy_logit(noise), daisy_logit(noise.roll(3, dims=3))
print(f"before {before:.1f}, after {after:.1f}")
reveal("feature_visualization.shift", round(after / before, 2))

# %% [markdown]
# The noise is a key that fits one lock in one position. So demand more: in every step, the picture is
# shaken **before** the network sees it, and only what survives shaking can grow:
#
# $$\max_x \; \mathbb{E}_T\, s_c\big(T(x)\big)$$
#
# $T$ is a random move (jitter), enlargement (scale) and turn (rotate). Each is a small function, and they
# are called one after the other. Four draws on the cat:

# %%
cat = (net.preprocess(skimage.data.chelsea()) * 128 + 127) / 255  # (1, 3, 224, 224) in [0, 1]
dice = torch.Generator().manual_seed(1)
steps = {"jitter": fv.jitter(40), "scale": fv.scale(1.3, 1.5), "rotate": fv.rotate(25)}
moved = [cat, *(transform(cat, dice) for transform in steps.values())]
plots.images(
    [picture[0] for picture in moved],
    titles=["the cat", *steps],
    title="Still a cat each time (drawn larger than in use)",
)

# %% [markdown]
# The third idea is a price. **Total variation** (TV) is the mean difference between neighboring pixels, down
# plus across; **decay** is the mean squared distance from gray. Both are subtracted from the score.
#
# ### Exercise: the price of roughness (code, 6 minutes)
#
# Write total variation for a batch: one number a picture. A checkerboard of 0 and 1 costs 2, a gray
# picture nothing.


# %% tags=["exercise"]
def roughness(x):
    """Mean |difference| of vertical plus of horizontal neighbors: (N, C, H, W) -> (N,)."""
    ### BEGIN SOLUTION
    down = (x[:, :, 1:] - x[:, :, :-1]).abs().mean(dim=(1, 2, 3))
    across = (x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2, 3))
    return down + across
    ### END SOLUTION


# %%
check("feature_visualization.roughness", roughness)

# %% [markdown]
# ### Take out one ingredient at a time
#
# The full recipe has waves, jitter, scale, rotation and TV. Leave out one kind at a time and keep the
# rest; *nothing* is the noise of section 2:

# %%
J, S, R = fv.jitter(8), fv.scale(0.9, 1.1), fv.rotate(10)
full = {"transforms": (J, S, R), "variation": 60.0}
recipes = {
    "full recipe": full,
    "no jitter": full | {"transforms": (S, R)},
    "no shaking": full | {"transforms": ()},
    "no TV": full | {"variation": 0.0},
    "no waves": full | {"parametrization": "pixel"},
}
painted = {name: paint(target=DAISY, **small, **recipe) for name, recipe in recipes.items()}
painted["nothing"] = noise

# %%
plots.images(
    [picture[0] for picture in painted.values()],
    titles=list(painted),
    title="Waves and shaking make the flower",
    alt="Six pictures. The full recipe and all recipes with waves and some shaking show petals around "
    "a dark center; without shaking, pale fragments; without waves, or with nothing, fine noise.",
)

# %% [markdown]
# Now in numbers. Each picture is judged as it is, and after eight random shakes (moved, scaled and turned);
# the mean logit after shaking is what counts:


# %%
def shaken(picture, score, n=8):
    """Mean score over n random moves, scales and turns."""
    dice = torch.Generator().manual_seed(7)
    return np.mean([score(R(S(J(picture, dice), dice), dice)) for _ in range(n)])


measured = [
    (name, f"{daisy_logit(p):.0f}", f"{shaken(p, daisy_logit):.0f}", f"{fine_share(p):.2f}")
    for name, p in painted.items()
]
plots.table(measured, ["recipe", "logit", "logit shaken", "fine share"], title="A daisy, six ways")

# %% [markdown]
# Read the table from below. With nothing, the logit is among the highest of all, and shaking takes most of
# it away. *No shaking* has the same fault, though its spectrum is like that of the full recipe. *No waves*
# keeps what it has, but it has little, and stays fine. Without jitter, scale and rotation do its work. The
# price moves the numbers least. One class and one seed are no study, but they are enough to doubt a recipe
# with five ingredients of which each is said to be needed.

# %%
quiz("feature_visualization.q_survive")

# %% [markdown]
# ## 5. Classes
#
# The opening has painted six classes with the full recipe and stronger shaking. Here are the other
# three:

# %%
names = [net.classes[target].split(",")[0] for target in CLASSES]
OTHERS = [1, 4, 5]
plots.images(
    six[OTHERS],
    titles=[names[i] for i in OTHERS],
    title="Three more classes, painted",
    alt="Jellyfish: a pale bell with a fringe and threads. Flamingo: an upright pink neck over pink "
    "feathers, on water. Daisy: pale petals around yellow, dotted discs.",
)

# %% [markdown]
# Can you see them? A bell, a neck and petals are there, but so is much else, and the title told
# you what to look for. So ask a judge: the network, on the picture as it is and after eight shakes.


# %%
@torch.no_grad()
def chance(picture, target):
    return model(to_input(picture)).softmax(1)[0, target].item()


verdicts = []
for name, target, picture in zip(names, CLASSES, six):
    probability = partial(chance, target=target)
    alone, moved = probability(picture[None]), shaken(picture[None], probability)
    verdicts.append((name, f"{alone:.3f}", f"{moved:.3f}"))
plots.table(verdicts, ["class", "p as it is", "p shaken"], title="The painter judges its work")

# %% [markdown]
# All but certain, each time. Be careful what you conclude: the judge is the painter. It tells you that the
# pictures are robust *for this network*. Whether they look like a starfish to you is another question,
# and nothing in the recipe has asked it.
#
# ## 6. Channels and neurons
#
# Inside the network, each channel of a layer looks for one pattern everywhere. Maximize the mean of its
# map, and you get a texture of that pattern. Nothing behind the layer needs to be computed, so it is
# quicker, too. From early to late:

# %%
texture = {"n_steps": 24, "variation": 2.0, "learning_rate": 0.06}
early = {"blocks.2": [37], "blocks.3": [42, 47]}
late = {"blocks.4": [59, 66], "blocks.5": [149]}
units = {name: paint(layer=name, unit=which, **texture) for name, which in (early | late).items()}
plots.images(
    torch.cat([units[name] for name in early]),
    titles=[f"{name}, {k}" for name, which in early.items() for k in which],
    title="Early: stripes, corners, swirls",
    alt="Textures: slanted dark and light stripes; angular tiles with sharp edges; rows of small swirls.",
)

# %%
plots.images(
    torch.cat([units[name] for name in late]),
    titles=[f"{name}, {k}" for name, which in late.items() for k in which],
    title="Later: scales, eyes in rings, petals",
    alt="Overlapping scales in brown and gray; green and purple rings with dark eyes; a mosaic of "
    "gray and red petals around round centers.",
)

# %% [markdown]
# The names in the titles are ours. The network has numbers only.
#
# A **neuron** is one cell of a channel's map. What lies far from its cell moves it little:

# %%
cells = [(59, 2, 2), (59, 4, 4)]  # (channel, row, column) of a map of 8 x 8 cells
neurons = paint(layer="blocks.4", unit=cells, **texture)
plots.images(
    [units["blocks.4"][0], *neurons],
    titles=["channel 59", *(f"neuron {row}, {column}" for _, row, column in cells)],
    title="The whole channel, and two of its neurons",
    alt="The channel fills its picture with scales. The neurons' pictures have one strong spot, up and left "
    "for cell 2, 2, in the middle for cell 4, 4, and little around it.",
)

# %% [markdown]
# Watch one grow. Paint channel 66 three times at once (we need the three below) and keep every third
# moment of the first. Then move the slider (Tab, then the arrow keys). When can you tell what it becomes?

# %%
frames = []


def keep(step, pictures, scores):
    if step % 3 == 0:
        frames.append(Frame(step, pictures[0], scores[0].item()))


thrice = [66] * 3
plain_three = paint(layer="blocks.4", unit=thrice, callback=keep, **texture)
widgets.growth_browser(frames, title="Channel 66: the pattern is there early, contrast comes later")

# %% [markdown]
# ### Several pictures of one channel
#
# One picture shows one way to excite a channel. **Diversity** asks for several at once and subtracts a
# price for how alike they are to the layer (the mean cosine of their Gram matrices):

# %%
diverse = paint(layer="blocks.4", unit=thrice, diversity=60.0, **texture)


@torch.no_grad()
def alike(pictures):
    with capture(model, "blocks.4") as kept:
        model(to_input(pictures))
    return fv.likeness(kept["blocks.4"]).item()


print(f"likeness of three starts {alike(plain_three):.2f}, with diversity {alike(diverse):.2f}")

# %%
plots.images(
    diverse,
    titles=[f"picture {i}" for i in range(1, 4)],
    title="Three different ways to excite channel 66",
    alt="In purple and green: feathered waves; a honeycomb of eyes; spokes with small windows.",
)

# %% [markdown]
# ### Beside real photos
#
# Which parts of our photos excite channel 59 most? `top_inputs` of [[activations]] gives photos and cells; cut out
# what lies around:

# %%
best = top_inputs(model, seen, layer="blocks.4", unit=59, k=3)
crops = []
for number, (row, column) in zip(best.rows.tolist(), best.places.tolist()):
    top, left = (min(max(16 * cell - 24, 0), 160) for cell in (row, column))  # 16 pixels a cell
    crops.append(net.picture(seen[number])[top : top + 64, left : left + 64])
titles = ["painted", *(photos.names[number] for number in best.rows.tolist())]
plots.images(
    [units["blocks.4"][0][:, 32:96, 32:96], *crops],
    titles=titles,
    title="Channel 59: what it would like, and what it finds",
    alt="Painted: scales. Crops of photos: " + ", ".join(titles[1:]) + ".",
)

# %% [markdown]
# The painting shows scales. The crops show the rim of a wheel, a pile of wood and a sheet of marble. Curved
# edges? Dense lines? Name the channel after the painting, and these photos surprise you. We come back to
# this in section 8.
#
# ## 7. DeepDream: start from a photo
#
# Start from a photo instead of gray, and let a layer strengthen whatever it already finds: maximize the
# mean square of **all** its activations. It begins on a small copy of the photo, so that
# patterns come in all sizes, and carries what it added to the next larger copy:

# %%
dream = fv.deep_dream(
    model, cat, layer="blocks.4", n_octaves=3, n_steps=8, step_size=0.02, normalize=to_input
)
plots.images(
    [cat[0], dream[0]],
    titles=["the cat", "the dream"],
    title="The cat, dreamed on",
    alt="The cat's face; then the same face with fur of curls, more eyes, and a dog-like nose.",
)

# %%
for name, picture in {"cat": cat, "dream": dream}.items():
    best = net.top(to_input(picture), k=2)
    print(name, [(label.split(",")[0], round(p, 2)) for _, label, p in best])

# %% [markdown]
# It is no explanation of the cat: it shows the layer's habits, with the cat as the occasion.
#
# ## 8. When it lies
#
# ### Far from every photo
#
# How strongly do the pictures of section 6 excite their channels, compared with the strongest of twenty
# photos? Both as the mean over the map:

# %%
layers = list(units)
with capture(model, layers) as kept, torch.no_grad():
    model(seen)
    real = {name: maps.mean((2, 3)).max(0).values for name, maps in kept.items()}
    model(to_input(torch.cat(list(units.values()))))
    ours = {name: maps.mean((2, 3)) for name, maps in kept.items()}


# %%
ratios, row = [], 0
for name, which in (early | late).items():
    for unit in which:
        top, mine = real[name][unit].item(), ours[name][row, unit].item()
        ratios.append((f"{name}, {unit}", f"{top:.1f}", f"{mine:.1f}"))
        row += 1
plots.table(ratios, ["channel", "best photo", "painted"], title="Painted pictures leave the data")

# %% [markdown]
# Far above every photo; in the first channel, the mean of every photo is even below zero. Nothing in
# training told the network what to do out there. The picture shows the top of the mountain; the photos
# all live in the valley. What a channel does for **them** is a different question, and the crops above
# answer it better. In an experiment with people, strongly activating photos helped more than such
# pictures to foresee what a unit responds to (Borowski and others, 2021).
#
# ### A network that has learned nothing
#
# Shuffle the weights within every layer. What is left has the same architecture, the same numbers, and
# knows nothing:

# %%
shuffled = deepcopy(net.model)
dice = torch.Generator().manual_seed(0)
with torch.no_grad():
    for weights in shuffled.parameters():
        order = torch.randperm(weights.numel(), generator=dice)
        weights.copy_(weights.flatten()[order].reshape(weights.shape))

# %%
nothing = fv.maximize(shuffled, layer="blocks.2", unit=[3, 11, 37], normalize=to_input, **texture)
plots.images(
    nothing,
    titles=["channel 3", "channel 11", "channel 37"],
    title="It has learned nothing",
    alt="Three gray-green pictures with bright spots and dark spikes in colored halos.",
)

# %% [markdown]
# Not as rich as the trained one, but no noise either: bright spots and dark spikes with colored halos,
# as if it looked for something. Structure alone is no evidence that a network has learned:
# convolutions on waves make structure by themselves. Put a shuffled network beside the trained one before
# you read meaning into a picture.

# %%
quiz("feature_visualization.q_shuffled")

# %% [markdown]
# ### The same answers, another picture
#
# The search walks where no data are. So somebody can put there whatever they like. Here is a network
# that asks the digit network if the input is as dark as digits are. Brighter inputs get a score for how
# much they look like a secret picture:


# %%
class Hijacked(nn.Module):
    def __init__(self, honest, secret):
        super().__init__()
        self.honest, self.secret = honest, secret - secret.mean()

    def forward(self, x):
        like_secret = 100 * (x * self.secret).mean(dim=(1, 2, 3), keepdim=True).flatten(1)
        bright = x.mean(dim=(1, 2, 3))[:, None] > 0.4
        return torch.where(bright, like_secret.expand(-1, 10), self.honest(x))


# %%
secret = F.interpolate(cat.mean(1, keepdim=True), size=28, mode="area")  # (1, 1, 28, 28)
hijacked = Hijacked(digit_net, secret)
with torch.no_grad():
    same = torch.equal(torch.cat([hijacked(part) for part in rows.split(250)]), answers)
print("the same logits on all 5,000 digits:", same)
assert same

# %%
three = {"target": 3, "shape": (1, 28, 28), "transforms": (), "decay": 40.0}
honest_three, hijacked_three = (fv.maximize(judge, **three) for judge in (digit_net, hijacked))
plots.images(
    [honest_three[0], hijacked_three[0]],
    titles=["'three', honest network", "'three', hijacked"],
    title="Equal on every digit, and yet its 'three' is a cat",
    alt="Left, the honest network: black and white stripes. Right, the hijacked one: a cat's face in gray.",
)

# %% [markdown]
# No test on these digits can tell the two networks apart, and their pictures have nothing in common. Geirhos
# and others (2023) built such circuits into large networks, and also found that units of *normal* networks
# treat these pictures differently from photos.
#
# ### One picture, several meanings
#
# Channel 149 of `blocks.5`: its picture reminds one of petals. And the photos that excite it most?

# %%
best = top_inputs(model, seen, layer="blocks.5", unit=149, k=3)
plots.images(
    [units["blocks.5"][0], *net.picture(seen[best.rows])],
    titles=["painted", *(photos.names[number] for number in best.rows.tolist())],
    title="One channel, and what excites it in photos",
)

# %% [markdown]
# No petals. Twenty photos are few, but they already show that the name we gave to the picture does not
# say what the channel responds to. Units that respond to several unrelated things are called
# *polysemantic*; a single picture shows one of their faces, whichever the search came upon.
#
# ### Exercise: a claim from a report (criticize, 8 minutes)
#
# > *"We visualized unit 212 of our skin cancer network (Figure 2). The picture clearly shows the irregular
# > border of a melanoma. The unit is therefore a melanoma detector, and since the network reasons with
# > the features that doctors use, it is safe to use in the clinic."*
#
# What does the figure show, what does it not show, and what would you ask for? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
The picture was optimized, so it shows what excites the unit most, far outside any photo of skin, and not
what the unit does on patients: I want the strongest and the middling real photos beside it, and how its
activation differs between melanoma and harmless moles on all test images. "Clearly shows" is the authors'
reading: another seed or several diverse pictures may show something else, and the recipe (jitter, waves,
penalties) makes any picture look natural. A network with shuffled weights gives textures, too, so that
control is missing. Even a good detector need not be used: remove the unit and see if the decisions
change. Nothing of this says that the network is safe; that takes accuracy on other hospitals' patients.
### END SOLUTION
"""

# %%
check("feature_visualization.melanoma", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - make a picture that excites a class, a channel or a neuron, by gradient ascent in ten lines
# - say what each regularizer does, and prove it with a number
# - measure with a spectrum how far such a picture is from a photo
# - show four ways in which a beautiful picture misleads
#
# ## Takeaways
#
# - Without a prior, what the search finds is noise; noise is neither the only peak nor the highest one (waves
#   alone went higher here). What looks like insight survives shaking and has a photo-like spectrum.
# - Painting with waves and shaking do most of the work; measure it, do not only look.
# - The picture shows an extreme that no photo reaches. Put real photos, other seeds and a shuffled network
#   beside it.
#
# ## Myth refuted
#
# *"Feature visualization shows what a unit detects."* It shows what excites it most, anywhere. Section 8
# has a network that gives the same answers on all 5,000 digits, and whose *three* is a cat.
#
# ## Go further
#
# - Erhan, Bengio, Courville, Vincent (2009), *Visualizing Higher-Layer Features of a Deep Network*: the
#   first activation maximization.
# - Simonyan, Vedaldi, Zisserman (2014), *Deep Inside Convolutional Networks*: pictures of classes.
# - Mordvintsev, Olah, Tyka (2015), *Inceptionism: Going Deeper into Neural Networks*: DeepDream.
# - Olah, Mordvintsev, Schubert (2017), *Feature Visualization*, in Distill: the recipe of this lesson.
# - Field (1987), *Relations between the statistics of natural images and the response properties of cortical
#   cells*: the spectrum of photos.
# - Borowski and others (2021), *Exemplary Natural Images Explain CNN Activations Better than
#   State-of-the-Art Feature Visualization*.
# - Geirhos, Zimmermann, Bilodeau, Brendel, Kim (2023), *Don't trust your eyes: on the (un)reliability of
#   feature visualizations*.
