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
# # The same in Keras: one network, two frameworks
#
# **Question:** You have a network in Keras and a paper in PyTorch. Which differences change the map, and how do you notice?
#
# **You will be able to**
# - take gradients with TensorFlow's tape, and mend the five mistakes that make it fail or lie
# - compute Grad-CAM, saliency, guided backprop and integrated gradients in Keras by hand
# - carry weights from one framework to the other, and prove that the two networks are the same
# - name four differences between the frameworks that move a heat map without an error
#
# **You need:** [[saliency]], [[integrated_gradients]]
# and [[cam]]; TensorFlow, which exists for Python 3.11 to 3.13
#
# **Time:** [[time]]; the cells run in under a minute · **Difficulty:** 3 of 5

# %%
from time import process_time

import numpy as np
import skimage.data
import timm
import torch
from captum.attr import LayerGradCam
from torch import nn

from xailab import data, models, plots
from xailab.attribution import cam as cams
from xailab.attribution import cam_keras, paths, saliency
from xailab.core.stderr import muted
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate import localization, scoreboard

# %% [markdown]
# Keras and TensorFlow come last, on purpose. PyTorch loads a compiler (Triton) late, by itself, and both
# Triton and TensorFlow carry a copy of LLVM. If TensorFlow is there first, the process may end with
# nothing but *segmentation fault*. So import PyTorch's side, or `cam_keras`, before TensorFlow.

# %%
# isort: split
# After PyTorch's side: see above.
import keras
import tensorflow as tf

with muted():  # the first operation reports which graphics card TensorFlow did not find
    keras.utils.set_random_seed(0)
    tf.zeros(1)
print("Keras", keras.__version__, "on TensorFlow", tf.__version__)

# %% [markdown]
# Here is the network of the last lesson, three times: in PyTorch, in Keras, and once more in PyTorch by
# somebody who loaded the same weights into a *nearly* equal network.

# %%
TIGER_CAT = 282
net = models.pretrained("efficientnet_lite0")
twin = cam_keras.efficientnet_lite0()  # the same weights in Keras
careless = timm.create_model("efficientnet_lite0").eval()  # not tf_efficientnet_lite0
careless.load_state_dict(net.model.state_dict())  # fits, without a complaint
cat = net.preprocess(skimage.data.chelsea())  # (1, 3, 224, 224)
photo, cat_last = net.picture(cat)[0], cat.permute(0, 2, 3, 1).numpy()

# %%
with torch.no_grad():
    logits = [net.model(cat), twin(cat_last), careless(cat)]
print([net.classes[int(np.argmax(row))] for row in logits])

# %% [markdown]
# All three say *tiger cat*. Where do they see it? At the end you will be able to explain this figure:

# %% tags=["readme-keras"]
three = [
    cams.grad_cam(net.model, cat, TIGER_CAT, layer="bn2"),
    cam_keras.grad_cam(twin, cat_last, TIGER_CAT, layer="bn2")[..., 0],
    cams.grad_cam(careless, cat, TIGER_CAT, layer="bn2"),
]
names = ["PyTorch", "Keras", "PyTorch, ported carelessly"]
plots.compare(three, over=photo, titles=names, title="Same weights, three programs, two answers")

# %% [markdown]
# The first two cannot be told apart. The third has its warm spot in another place, and no error told
# anyone.
#
# ## 1. Channels last
#
# PyTorch stores a batch of photos as $(N, C, H, W)$, channels first. TensorFlow stores $(N, H, W, C)$,
# channels last. The numbers are the same, in another order:

# %%
print("PyTorch", tuple(cat.shape))
print("Keras  ", cat_last.shape)
assert cat[0, 2, 50, 60] == cat_last[0, 50, 60, 2]  # blue, row 50, column 60

# %% [markdown]
# Two small functions take you there and back. `permute` moves the axes together with the numbers.


# %%
def last(x):
    """(N, C, H, W) tensor -> (N, H, W, C) array."""
    return x.permute(0, 2, 3, 1).contiguous().numpy()


def first(x):
    """(N, H, W, C) array -> (N, C, H, W) tensor."""
    return torch.as_tensor(np.array(x)).permute(0, 3, 1, 2)  # a copy: TensorFlow's are read-only


# %% [markdown]
# `reshape` gives the same shape, and that is the trap: it leaves the numbers where they lie and only
# counts them off anew.

# %%
wrong = cat.reshape(1, 224, 224, 3)
plots.images(
    [photo, net.picture(first(wrong.numpy()))[0]],
    titles=["permute", "reshape"],
    title="The right shape is no proof of the right order",
)

# %%
assert np.array_equal(last(cat), cat_last)
print(net.classes[int(np.argmax(twin(wrong.numpy())))])

# %% [markdown]
# The call ran, and the network got nine small gray cats. Nothing but the answer tells you.
#
# ### Carry a network over by hand
#
# Weights change their order, too. A convolution of PyTorch stores $(C_\text{out}, C_\text{in}, h, w)$, one
# of Keras $(h, w, C_\text{in}, C_\text{out})$. A linear layer stores $(C_\text{out}, C_\text{in})$ there
# and the transpose here. That is enough to carry over the digit network of [[saliency]]:

# %%
L = keras.layers
stack = [
    keras.Input((28, 28, 1)),
    *(L.Conv2D(16, 3, padding="same", name="conv1"), L.ReLU(), L.MaxPooling2D()),
    *(L.Conv2D(32, 3, padding="same", name="conv2"), L.ReLU(), L.MaxPooling2D()),
    *(L.Conv2D(64, 3, padding="same", name="conv3"), L.ReLU(name="relu3")),
    *(L.GlobalAveragePooling2D(), L.Dense(10, name="fc")),
]
digit_twin = keras.Sequential(stack)


# %%
def carry_over(torch_net, keras_net):
    """Copy the weights of the digit network, in Keras's order of axes."""
    for name in ("conv1", "conv2", "conv3", "fc"):
        layer = getattr(torch_net, name)
        order = (2, 3, 1, 0) if layer.weight.ndim == 4 else (1, 0)
        weight = layer.weight.detach().permute(order).numpy()
        keras_net.get_layer(name).set_weights([weight, layer.bias.detach().numpy()])


digit_net = models.digit_cnn()
carry_over(digit_net, digit_twin)

# %% [markdown]
# Are they the same network? Do not trust the copying: compare the logits, here on 50 digits.

# %%
digits = data.load("mnist5k").take(range(0, 5000, 100))  # five of each digit
x = torch.as_tensor(digits.images[:, None] / 255, dtype=torch.float32)  # (50, 1, 28, 28)
with torch.no_grad():
    want = digit_net(x).numpy()
np.testing.assert_allclose(digit_twin(last(x)), want, atol=1e-4)
print(f"largest difference of {want.size} logits: {np.abs(digit_twin(last(x)) - want).max():.0e}")

# %% [markdown]
# Not exactly 0: the two libraries add in another order, and floats round. Four digits behind the point
# are all that you may ask for.
#
# `cam_keras.efficientnet_lite0()` does the same for the large network, layer by layer. Its numbers are the
# weights, 4.65 million, and what each batch norm stores, a mean and a variance for each channel.

# %%
in_torch, in_keras = (row.numpy() for row in logits[:2])
np.testing.assert_allclose(in_keras, in_torch, atol=1e-4)
print(f"{twin.count_params():,} numbers, logit of tiger cat {in_keras[0, TIGER_CAT]:.3f} in both")

# %% [markdown]
# ## 2. The tape
#
# PyTorch writes down what is done to a tensor that has `requires_grad`. TensorFlow writes it down between
# two lines of your program: a **tape** runs while the `with` block is open. What is the slope of
# $x^2$ at 3?

# %%
# NBVAL_CHECK_OUTPUT
x = tf.constant(3.0)
with tf.GradientTape() as tape:
    y = x**2
print(tape.gradient(y, x))

# %% [markdown]
# `None`, and no error. The tape follows weights (`tf.Variable`) by itself. A constant, such as a photo, it
# follows only if you say so:

# %%
# NBVAL_CHECK_OUTPUT
with tf.GradientTape() as tape:
    tape.watch(x)
    y = x**2
print(tape.gradient(y, x).numpy())

# %%
quiz("cam_keras.q_watch")

# %% [markdown]
# The saliency of the cat is this recipe and nothing else: watch the photo, compute the logit, ask.
#
# $$S = \frac{\partial s_c}{\partial x}$$
#
# $s_c$ is the logit of class $c$, $x$ the photo, $S$ one slope for each number in it.

# %%
rows = tf.constant(cat_last)
with tf.GradientTape() as tape:
    tape.watch(rows)
    score = twin(rows, training=False)[0, TIGER_CAT]
slopes = tape.gradient(score, rows)  # (1, 224, 224, 3)
np.testing.assert_allclose(slopes, cam_keras.saliency(twin, cat_last, TIGER_CAT), atol=1e-6)

# %%
in_torch = saliency.saliency(net.model, cat, TIGER_CAT)
plots.compare(
    [in_torch[0].abs(), first(slopes)[0].abs()],
    titles=["PyTorch", "Keras"],
    title="The same slopes, from autograd and from the tape",
    label="|slope|, colors summed",
)


# %% [markdown]
# One number for *the same* is the correlation of the two arrays: 1 if they differ at most in their unit
# and their zero.


# %%
def alike(a, b):
    """Correlation of two maps of one shape."""
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


print(f"{alike(in_torch, first(slopes)):.6f}")
assert alike(in_torch, first(slopes)) > 0.999

# %% [markdown]
# ## 3. Grad-CAM: a second door into the same network
#
# Grad-CAM needs the last maps as well as the logits. In PyTorch you listen at a layer (`capture`). In
# Keras a network made of connected layers is a graph, and you may build a second model on the same
# graph, with one input and two outputs. It has no weights of its own: it is a second door.

# %%
maps_and_logits = keras.Model(twin.inputs[0], [twin.get_layer("bn2").output, twin.outputs[0]])
A, logits = maps_and_logits(cat_last, training=False)
print("maps  ", A.shape)
print("logits", logits.shape)

# %% [markdown]
# 1,280 maps of 7 x 7 cells, as before, but the channels stand last. Now Grad-CAM ([[cam]]), where the
# sums have to run over other axes:
#
# $$\alpha_k = \frac{1}{49}\sum_{ij} \frac{\partial s_c}{\partial A_{ijk}} \qquad
#   L_{ij} = \mathrm{ReLU}\Big(\sum_k \alpha_k A_{ijk}\Big)$$
#
# $A_{ijk}$ is map $k$ at row $i$ and column $j$, $\alpha_k$ its weight, $L$ the heat map. The tape needs no
# `watch` here: the maps were computed with weights, and weights are followed.

# %%
with tf.GradientTape() as tape:
    A, logits = maps_and_logits(cat_last, training=False)
    score = logits[0, TIGER_CAT]
slopes = tape.gradient(score, A)  # (1, 7, 7, 1280)

# %%
alpha = tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)  # (1, 1, 1, 1280)
heat = tf.nn.relu(tf.reduce_sum(alpha * A, axis=-1, keepdims=True))  # (1, 7, 7, 1)
print(heat[0, :, :, 0].numpy().round(2))

# %% [markdown]
# You have seen these 49 numbers in [[cam]]. The same from `xailab`, then across the frameworks from
# `xailab` in PyTorch, and from captum, PyTorch's own library:

# %%
options = {"layer": "bn2", "upsample": False}
np.testing.assert_allclose(heat, cam_keras.grad_cam(twin, cat_last, TIGER_CAT, **options))
in_torch = cams.grad_cam(net.model, cat, TIGER_CAT, **options)
captums = LayerGradCam(net.model, net.model.bn2).attribute(cat, TIGER_CAT, relu_attributions=True)
captums = captums.detach()  # lets go of the graph, some 50 MB
np.testing.assert_allclose(heat, last(in_torch), atol=1e-5)
np.testing.assert_allclose(heat, last(captums), atol=1e-5)

# %% [markdown]
# ### Exercise: Grad-CAM for any Keras model (code, 12 minutes)
#
# Put it into one function: second door, tape, mean, weighted sum, ReLU. `x` is a batch, and each row
# needs a map of its own. The check uses a tiny network whose slopes differ from cell to cell, with a
# batch norm in front. `hint("cam_keras.grad_cam")` helps in up to three steps.


# %% tags=["exercise"]
def my_grad_cam(model, x, target, layer):
    """Grad-CAM of each row of x (N, H, W, C) for one class: (N, h, w, 1)."""
    ### BEGIN SOLUTION
    both = keras.Model(model.inputs[0], [model.get_layer(layer).output, model.outputs[0]])
    with tf.GradientTape() as tape:
        maps, logits = both(x, training=False)
        score = logits[:, target]  # rows do not mix: the slopes of their sum are each row's own
    slopes = tape.gradient(score, maps)
    alpha = tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(alpha * maps, axis=-1, keepdims=True))
    ### END SOLUTION


# %%
check("cam_keras.grad_cam", my_grad_cam)

# %% [markdown]
# ### What it costs
#
# In processor time, which counts the work and not the waiting:


# %%
def milliseconds(function):
    times = []
    for _ in range(2):
        began = process_time()
        function()
        times.append(process_time() - began)
    return f"{1000 * min(times):.0f}"


rivals = {
    "xailab, PyTorch": lambda: cams.grad_cam(net.model, cat, TIGER_CAT, layer="bn2"),
    "captum, PyTorch": lambda: LayerGradCam(net.model, net.model.bn2).attribute(cat, TIGER_CAT),
    "xailab, Keras": lambda: cam_keras.grad_cam(twin, cat_last, TIGER_CAT, layer="bn2"),
    "Keras, the logits alone": lambda: twin(cat_last, training=False),
}
rows = [(name, milliseconds(function)) for name, function in rivals.items()]
plots.table(rows, ["program", "milliseconds of work"], title="Grad-CAM of one photo, best of two")

# %% [markdown]
# Two things make Keras slow here. The tape goes back through all layers that it has seen, also those before
# the maps, whose slopes nobody asked for (PyTorch stops at the maps). So let it see less: cut the
# network in two at the maps, and start the tape behind the cut. And Keras calls each layer from
# Python. `tf.function` lets Python run once, keeps the **graph** of what happened, and runs the
# graph from then on.

# %%
bn2 = twin.get_layer("bn2").output
front, head = keras.Model(twin.inputs[0], bn2), keras.Model(bn2, twin.outputs[0])


@tf.function
def swift(x, target):
    """Logits and Grad-CAM, (1, 7, 7, 1), of one photo."""
    A = front(x, training=False)  # nobody writes this down
    with tf.GradientTape() as tape:
        tape.watch(A)  # now it is an input, so it has to be watched
        logits = head(A, training=False)
        score = logits[0, target]
    alpha = tf.reduce_mean(tape.gradient(score, A), axis=(1, 2), keepdims=True)
    return logits, tf.nn.relu(tf.reduce_sum(alpha * A, axis=-1, keepdims=True))


# %%
asked = tf.constant(TIGER_CAT)  # a plain number would make a new graph for each class
began = process_time()
np.testing.assert_allclose(swift(cat_last, asked)[1], heat, atol=1e-5)
print(f"the first call, which makes the graph: {1000 * (process_time() - began):.0f} ms")
print("each call after it:", milliseconds(lambda: swift(cat_last, asked)), "ms")

# %% [markdown]
# The cut works only where *every* way to the logits leads through it, so not in the middle of a block with a
# skip connection. And the graph has to earn its first call back, so it is for many photos.

# %% [markdown]
# ### Ten photos
#
# One cat could be luck. Ten photos that the network knows, each asked for its own class:

# %%
shots = data.photos(well_classified=True).take(range(10))
tensors = [net.preprocess(image) for image in shots.images]  # each (1, 3, 224, 224)
in_torch = cams.grad_cam(net.model, torch.cat(tensors), shots.y, layer="bn2", upsample=False)
pairs = []
for x, target, heat in zip(tensors, shots.y.tolist(), in_torch):
    _, in_keras = swift(last(x), tf.constant(target))
    pairs.append((heat[0].numpy(), in_keras[0, ..., 0].numpy()))

# %%
rows = [
    (name, f"{alike(*pair):.6f}", f"{np.abs(pair[0] - pair[1]).max():.0e}")
    for name, pair in zip(shots.names, pairs)
]
plots.table(
    rows, ["photo", "correlation", "largest difference"], title="Grad-CAM, PyTorch and Keras"
)

# %%
assert min(alike(*pair) for pair in pairs) > 0.999
plots.compare(
    [*pairs[0], *pairs[3]],
    over=[net.picture(tensors[i])[0] for i in (0, 0, 3, 3)],
    titles=[f"{shots.names[i]}, {name}" for i in (0, 3) for name in ("PyTorch", "Keras")],
    title="Two photos, each in both frameworks",
    label="Grad-CAM (logits)",
)

# %% [markdown]
# ## 4. Guided backprop: write your own backward pass
#
# Guided backprop changes what a ReLU passes back ([[saliency]]): of the signal $R$ from above, only what is
# positive, and only where the ReLU's input $a$ was positive.
#
# $$\text{gradient: } R \cdot [a > 0] \qquad \text{guided: } \max(R, 0) \cdot [a > 0]$$
#
# PyTorch hangs a hook on the module. TensorFlow asks you for a function that returns two things: the value,
# and a function that computes the backward pass.


# %%
@tf.custom_gradient
def guided_relu(a):
    def backward(R):
        return tf.nn.relu(R) * tf.cast(a > 0, R.dtype)

    return tf.nn.relu(a), backward


# %% [markdown]
# Try it on a network for paper. Two inputs, three ReLUs, one output:
#
# $$f = 2\,\mathrm{ReLU}(x_1 + x_2) - 3\,\mathrm{ReLU}(x_2 - x_1) + 4\,\mathrm{ReLU}(x_1 - x_2)$$
#
# At $x = (1, 2)$ the three ReLUs get $3, 1, -1$, and the signals from above are $2, -3, 4$.
#
# - gradient: the third is off, $(2, -3, 0)$ passes. Slope of $x_1$: $2 \cdot 1 - 3 \cdot (-1) = 5$; of
#   $x_2$: $2 - 3 = -1$.
# - guided: the second is negative as well, $(2, 0, 0)$ passes. Both inputs get $2$.

# %%
W1 = tf.constant([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]])  # (2, 3)
W2 = tf.constant([[2.0], [-3.0], [4.0]])  # (3, 1)


def slope_with(relu):
    x = tf.constant([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        f = relu(x @ W1) @ W2
    return tape.gradient(f, x).numpy().tolist()


# %%
# NBVAL_CHECK_OUTPUT
print("gradient", slope_with(tf.nn.relu))
print("guided  ", slope_with(guided_relu))

# %% [markdown]
# As on paper. A whole network needs all of its ReLUs replaced. `clone_model` copies a model layer by layer
# and lets you put another layer in place of one. The copy has fresh weights, so copy those as well.


# %%
class GuidedReLU(keras.layers.Layer):
    def call(self, a):
        return guided_relu(a)


def replaced(layer):
    if isinstance(layer, keras.layers.ReLU):
        return GuidedReLU()
    return layer.__class__.from_config(layer.get_config())


# %%
guided_twin = keras.models.clone_model(digit_twin, clone_function=replaced)
guided_twin.set_weights(digit_twin.get_weights())
five = digits.images[digits.y == 5][:1, ..., None] / np.float32(255)  # (1, 28, 28, 1)
by_hand = cam_keras.saliency(guided_twin, five, 5)  # the gradient of the copy

# %%
in_keras = cam_keras.guided_backprop(digit_twin, five, 5)
in_torch = saliency.guided_backprop(digit_net, first(five), 5)
np.testing.assert_allclose(by_hand, in_keras, atol=1e-6)
np.testing.assert_allclose(by_hand, last(in_torch), atol=1e-5)
plots.compare(
    [cam_keras.saliency(digit_twin, five, 5)[..., 0], by_hand[..., 0]],
    titles=["gradient", "guided backprop"],
    shared=False,
    title="A five: the guided copy drops most of the blue",
)

# %% [markdown]
# ### Exercise: a ReLU that stops at 6 (code, 8 minutes)
#
# EfficientNet-Lite has another unit: **ReLU6**, $\min(\max(a, 0), 6)$. Write its guided version, as a pair:
# the value, and the function `backward`. (No decorator: the check puts `tf.custom_gradient` around it.)
# Think about what passes where $a > 6$.


# %% tags=["exercise"]
def guided_relu6(a):
    """Pair (value, backward) of a ReLU6 with the guided backward pass."""
    ### BEGIN SOLUTION

    def backward(R):
        return tf.nn.relu(R) * tf.cast((a > 0) & (a < 6), R.dtype)

    return tf.nn.relu6(a), backward
    ### END SOLUTION


# %%
check("cam_keras.guided_relu6", guided_relu6)

# %% [markdown]
# On the photo, with the ReLU6 of `xailab`, and beside PyTorch:

# %%
in_keras = first(cam_keras.guided_backprop(twin, cat_last, TIGER_CAT))
in_torch = saliency.guided_backprop(net.model, cat, TIGER_CAT)
assert alike(in_keras, in_torch) > 0.999
plots.compare(
    [in_torch[0].abs(), in_keras[0].abs()],
    titles=["PyTorch, a hook", "Keras, custom_gradient"],
    title=f"Guided backprop, correlation {alike(in_keras, in_torch):.4f}",
    label="|signal|, colors summed",
)

# %% [markdown]
# Remember from [[saliency]] what such a map is worth: it redraws edges, also those of a network with ruined
# weights. That two frameworks agree on it does not make it better.
#
# ## 5. Integrated gradients
#
# The mean slope on the straight way from a black picture to the five, times the way gone ([[integrated_gradients]]):
#
# $$A = (x - b) \odot \frac{1}{n} \sum_{k=1}^{n}
#       \frac{\partial s_c}{\partial x}\big(b + \alpha_k (x - b)\big), \qquad \alpha_k = \frac{k - 1/2}{n}$$
#
# $b$ is the baseline (0 here), $\alpha_k$ the middle of step $k$. All $n$ points go through the network as
# one batch.

# %%
n_steps = 32
alphas = (np.arange(n_steps) + 0.5) / n_steps  # .0156 to .984
path = tf.constant(alphas[:, None, None, None] * five, tf.float32)  # (32, 28, 28, 1)
with tf.GradientTape() as tape:
    tape.watch(path)
    scores = digit_twin(path, training=False)[:, 5]  # (32,)
slopes = tape.gradient(scores, path)  # (32, 28, 28, 1)
by_hand = five * tf.reduce_mean(slopes, axis=0)

# %%
options = {"n_steps": n_steps, "rule": "midpoint"}
in_keras = cam_keras.integrated_gradients(digit_twin, five, 5, **options)
in_torch = paths.integrated_gradients(digit_net, first(five), 5, **options)
np.testing.assert_allclose(by_hand, in_keras, atol=1e-5)
np.testing.assert_allclose(by_hand, last(in_torch), atol=1e-5)

# %% [markdown]
# The map has to add up to what the logit gained on the way. It does, up to the width of the steps:

# %%
empty, full = digit_twin(np.zeros_like(five))[0, 5], digit_twin(five)[0, 5]
print(f"the logit gained {float(full - empty):.3f}, the map adds up to {in_keras.sum():.3f}")
plots.compare(
    [in_torch[0], in_keras[..., 0]],
    titles=["PyTorch", "Keras"],
    title="Integrated gradients of a five, in both frameworks",
)

# %% [markdown]
# ## 6. What differs, and what it does to the map
#
# Back to the careless port. Its layers have the same names and shapes and the same weights. Two settings
# differ, and neither is stored with the weights. Take them one at a time.
#
# ### Padding
#
# A window of three moves over the row $1, 2, 3, 4$ in steps of two and adds up what it sees. It fits twice
# if one zero is added. Keras's `"same"` puts it **behind** the row; PyTorch's `padding=1` puts one on
# **each** side:
#
# | | windows | sums |
# |---|---|---|
# | Keras `padding="same"` | 1 2 3, 3 4 **0** | 6, 7 |
# | PyTorch `padding=1` | **0** 1 2, 2 3 4 | 3, 9 |

# %%
row, ones = np.array([1.0, 2, 3, 4], np.float32), np.ones(3, np.float32)
in_keras = keras.ops.conv(row[None, :, None], ones[:, None, None], strides=2, padding="same")
in_torch = nn.functional.conv1d(
    torch.tensor(row)[None], torch.tensor(ones)[None, None], stride=2, padding=1
)
print("Keras  ", in_keras.numpy().ravel())
print("PyTorch", in_torch.numpy().ravel())
assert in_keras.numpy().ravel().tolist() == [6, 7]
assert in_torch.ravel().tolist() == [3, 9]

# %% [markdown]
# With steps of one, as in the digit network, both pad alike, and you would never notice. Our large network
# halves its maps five times. Each time, the careless port reads one cell further up and left. One cell is 1
# pixel in the first of these layers, then 2, 4, 8, 16:

# %%
print("pixels off in the last maps:", sum(2**i for i in range(5)), "of the 32 that a cell is wide")

# %% [markdown]
# So every activation should sit nearly one cell too far **down and right**.
#
# ### Epsilon
#
# A batch norm divides by $\sqrt{\sigma^2 + \epsilon}$. Keras's $\epsilon$ is $10^{-3}$, PyTorch's $10^{-5}$.
# For a channel with a small variance $\sigma^2$ that is a different factor:

# %%
norms = [module for module in net.model.modules() if isinstance(module, nn.BatchNorm2d)]
variance = torch.cat([norm.running_var for norm in norms])
print("default epsilon: Keras", L.BatchNormalization().epsilon, "PyTorch", nn.BatchNorm2d(1).eps)
print(f"channels with a variance below .001: {(variance < 1e-3).sum()} of {len(variance):,}")

# %% [markdown]
# ### Predict, then run (2 minutes)
#
# Give the careless port the right $\epsilon$, so that only the padding is wrong. On the ten photos, its Grad-CAM
# and the right one correlate on average by how much? Write a number from -1 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
padding_correlation = 0.9
### END SOLUTION

# %%
predict("cam_keras.padding", padding_correlation)


# %%
def port(name, epsilon):
    """The trained weights in timm's network `name`, with another epsilon in its batch norms."""
    copy = timm.create_model(name).eval()
    copy.load_state_dict(net.model.state_dict())
    for module in copy.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = epsilon
    return copy


ports = {
    "as trained": ("tf_efficientnet_lite0", 1e-3),  # tf_: pads as TensorFlow does
    "epsilon of PyTorch": ("tf_efficientnet_lite0", 1e-5),
    "padding of PyTorch": ("efficientnet_lite0", 1e-3),
    "both (careless)": ("efficientnet_lite0", 1e-5),
}

# %% [markdown]
# For each port: how many of the ten photos it still gets right, and its maps. Between the maps and the
# logits stand only a mean and one linear layer, so Grad-CAM is CAM ([[cam]]), and one pass gives both.


# %%
def right_and_maps(model, inputs):
    """How many photos are right, and their Grad-CAM, (10, 7, 7)."""
    heats, right = [], 0
    for x, target in zip(inputs, shots.y.tolist()):
        A = model.forward_features(x)  # (1, 1280, 7, 7)
        right += int(model.forward_head(A).argmax()) == target
        heats.append(torch.einsum("k,kij->ij", model.classifier.weight[target], A[0]).relu() / 49)
    return right, torch.stack(heats).numpy()


with torch.no_grad():
    found = {name: right_and_maps(port(*how), tensors) for name, how in ports.items()}
reference = found["as trained"][1]
np.testing.assert_allclose(reference, [pair[0] for pair in pairs], atol=1e-5)

# %%
ours = found["padding of PyTorch"][1]
padding_found = np.mean([alike(a, b) for a, b in zip(ours, reference)])
reveal("cam_keras.padding", round(padding_found, 2))


# %%
def center(heats):
    """Mean row and column of the heat of each map: (10, 2)."""
    rows, columns = np.indices((7, 7))
    shares = heats / heats.sum(axis=(1, 2), keepdims=True)
    return np.stack([(shares * rows).sum((1, 2)), (shares * columns).sum((1, 2))], axis=1)


table = []
for name, (right, heats) in found.items():
    similar = np.mean([alike(a, b) for a, b in zip(heats, reference)])
    down, to_the_right = (center(heats) - center(reference)).mean(0)
    table.append((name, right, f"{similar:.2f}", f"{down:z.2f}", f"{to_the_right:z.2f}"))
columns = ["port", "right of 10", "correlation", "cells down", "cells to the right"]
plots.table(table, columns, title="Wrong padding moves the map, not the answer")

# %% [markdown]
# Read the third line. The port still names nearly every photo, so a test of accuracy lets it
# pass. Its heat slipped down and to the right, by most of the cell that you computed; what stood at the edge
# had nowhere to go. Epsilon does little here, because few variances are that small.
#
# To mend it in Keras, pad by hand (`ZeroPadding2D`) and convolve with `padding="valid"`; in PyTorch, with
# `nn.functional.pad`, one-sided. To notice it, compare logits, as in section 1: they must agree to rounding.

# %% [markdown]
# ### Preprocessing
#
# This network was trained on $(p - 127)/128$, where $p$ is a color from 0 to 255. Other networks want something
# else. `keras.applications` has three recipes under one name, and many of its newer models want plain
# 0 to 255, because the scaling is their first layer. What if you pick the wrong one?

# %%
prepare = keras.applications.imagenet_utils.preprocess_input
pictures = [net.picture(x).astype(np.float32) for x in tensors]  # each (1, 224, 224, 3), 0..255
recipes = {  # a copy each: Keras's function changes the array that it is given
    mode: [prepare(p.copy(), mode=mode) for p in pictures] for mode in ("tf", "torch", "caffe")
}
recipes["0 to 255"] = pictures

# %%
table = []
for name, inputs in recipes.items():
    with torch.no_grad():
        right, heats = right_and_maps(net.model, [first(p) for p in inputs])
    similar = np.mean([alike(a, b) for a, b in zip(heats, reference)])
    table.append((name, right, f"{similar:.2f}"))
plots.table(
    table, ["recipe", "right of 10", "correlation"], title="The wrong recipe gives a map, too"
)

# %% [markdown]
# `"tf"` is $p/127.5 - 1$, as good as ours. `"torch"` uses the mean and deviation of ImageNet's colors; it
# costs little here, and so stays unnoticed. `"caffe"` swaps red and blue and divides by nothing, so the
# network gets numbers a hundred times too large; with 0 to 255 as well. Each line has its maps, and each
# map looks like a map.
#
# ### Logits or probabilities
#
# Most networks in `keras.applications` end in a softmax, and the tape gladly explains a probability. Is that
# the same map? By the chain rule, with $M_j$ the map of logit $j$ before the ReLU:
#
# $$M_{p_c} = p_c \Big( M_c - \sum_j p_j M_j \Big)$$
#
# With two classes this is $p\,(1 - p)\,(M_1 - M_2)$. The map of the **rival** is taken off, and the surer the
# network, the smaller the rest:

# %%
# NBVAL_CHECK_OUTPUT
for p in (0.5, 0.9, 0.99, 0.999):
    print(f"p = {p}: p (1 - p) = {p * (1 - p):.4f}")

# %% [markdown]
# Put a softmax behind the twin, and ask both about the cat. Its maps `A` are there (section 3), so the half
# behind the cut is enough:


# %%
def from_the_cut(half):
    """Grad-CAM of the cat, (1, 7, 7, 1), of a network from the maps on."""
    with tf.GradientTape() as tape:
        tape.watch(A)
        score = half(A)[0, TIGER_CAT]
    alpha = tf.reduce_mean(tape.gradient(score, A), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(alpha * A, axis=-1, keepdims=True)).numpy()


of_logit, of_probability = map(from_the_cut, [head, keras.Sequential([head, L.Softmax()])])
print(
    f"hottest cell: {of_logit.max():.3f} of the logit, {of_probability.max():.3f} of the probability"
)

# %%
plots.compare(
    [of_logit[..., 0], of_probability[..., 0]],
    over=photo,
    titles=["logit", "probability"],
    shared=False,
    title=f"Correlation {alike(of_logit, of_probability):.2f}: two questions, two answers",
)

# %% [markdown]
# The logit asks: *what speaks for tiger cat?* The probability asks: *what speaks for tiger cat **rather than**
# Egyptian cat, tabby and the rest?* Whatever all cats share is taken off. Check the formula, with the 998
# classes in it:

# %%
with torch.no_grad():
    p = net.model(cat).softmax(1)[0]  # (1000,)
maps = A[0].numpy()  # (7, 7, 1280)
M = maps @ net.model.classifier.weight.detach().numpy().T / 49  # (7, 7, 1000): CAM of every class
by_formula = p[TIGER_CAT].item() * (M[..., TIGER_CAT] - M @ p.numpy())
np.testing.assert_allclose(of_probability[0, ..., 0], by_formula.clip(0), atol=1e-5)

# %% [markdown]
# Now a network that is sure. Ask about the 50 digits, and compare the hottest cells of the two maps:

# %%
sure = keras.Model(digit_twin.inputs[0], L.Softmax()(digit_twin.outputs[0]))
x = digits.images[..., None] / np.float32(255)  # (50, 28, 28, 1)
said = np.argmax(digit_twin(x), axis=1)
logit_top, probability_top = (
    cam_keras.grad_cam(model, x, said, layer="relu3").max((1, 2, 3)) for model in (digit_twin, sure)
)
ratio = probability_top / logit_top
print(
    f"hottest cell of the probability / of the logit: from {ratio.min():.0e} to {ratio.max():.0e}"
)
print(f"below one percent: {(ratio < 0.01).sum()} of {len(ratio)} digits")

# %% [markdown]
# The surer the network, the emptier the map; a program that adds a small number before it divides by the
# top may show nothing at all. **Take logits.** If your model ends in a softmax, take it off a copy. In a last layer
# `Dense(..., activation="softmax")` it is an attribute:

# %%
# NBVAL_CHECK_OUTPUT
ends = keras.Sequential([keras.Input((2,)), L.Dense(2, activation="softmax")])
ends.set_weights([np.eye(2), np.zeros(2)])
print("probabilities", ends(np.zeros((1, 2))).numpy().tolist())
ends.layers[-1].activation = None
print("logits       ", ends(np.zeros((1, 2))).numpy().tolist())

# %% [markdown]
# And if you want *rather than*, ask for it: explain the logit minus the logit of the rival.

# %%
quiz("cam_keras.q_softmax")

# %% [markdown]
# ## 7. Exercise: debug this (code, 15 minutes)
#
# Five pieces of code from real notebooks. Each should work for any Keras model whose layers are
# connected, and each has one bug. A small network with a batch norm to try them on, and the usual way to
# reuse a pretrained body, as **one layer** of a new model:

# %%
body = keras.Sequential(
    [
        keras.Input((8, 8, 3)),
        L.BatchNormalization(),
        L.Conv2D(4, 3, activation="relu", name="maps"),
    ],
    name="body",
)
wrapped = keras.Sequential(
    [keras.Input((8, 8, 3)), body, L.GlobalAveragePooling2D(name="pool"), L.Dense(3, name="logits")]
)
some = np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32)


# %%
def unwatched(model, x, target):
    rows = tf.constant(x)
    with tf.GradientTape() as tape:
        score = model(rows, training=False)[:, target]
    return tape.gradient(score, rows)


def outside(model, x, target):
    rows = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(rows)
    score = model(rows, training=False)[:, target]
    return tape.gradient(score, rows)


# %%
def predicted(model, x, target):
    rows = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        score = model.predict(rows, verbose=0)[:, target]
    return tape.gradient(score, rows)


def trained(model, x, target):
    rows = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        score = model(rows, training=True)[:, target]
    return tape.gradient(score, rows)


# %%
def nested(model):
    """A model that gives the maps of layer "maps" inside the body, and the logits."""
    maps = model.get_layer("body").get_layer("maps").output
    return keras.Model(model.inputs[0], [maps, model.outputs[0]])


broken = {
    "unwatched": unwatched,
    "outside": outside,
    "predicted": predicted,
    "trained": trained,
    "nested": nested,
}

# %%
# NBVAL_CHECK_OUTPUT
for name, piece in broken.items():
    try:
        result = piece(wrapped) if name == "nested" else piece(wrapped, some, 0)
        print(f"{name:10} returns", None if result is None else tuple(result.shape))
    except (ValueError, AttributeError) as error:
        print(f"{name:10} {type(error).__name__}: {error}")

# %% [markdown]
# Two give `None`. One says that an array has no `_id`: the tape was handed a NumPy array, which has no
# history. One says that an output *is not connected to the inputs* (older versions: *Graph disconnected*):
# `body` is a model with a door of its own, and the maps inside it hang on **that** door. And one
# returns a gradient without a word.
#
# Write all five anew, under the same names. The first four give the slopes of the logit of `target`, as an array
# like `x`, and leave the model as it was. `nested` gives a model with two outputs; the layers
# after the body are `model.layers[1:]`. Put them into a dictionary like `broken`, and call it `mended`. Try
# `check("cam_keras.debug", broken)` too.


# %% tags=["exercise"]
### BEGIN SOLUTION
def slopes_of(model, x, target):
    rows = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        score = model(rows, training=False)[:, target]
    return tape.gradient(score, rows)


def mended_nested(model):
    inside = model.get_layer("body")
    x = inside.outputs[0]
    for layer in model.layers[1:]:  # what comes after the body, applied again
        x = layer(x)
    return keras.Model(inside.inputs[0], [inside.get_layer("maps").output, x])


mended = dict.fromkeys(broken, slopes_of) | {"nested": mended_nested}
### END SOLUTION

# %%
check("cam_keras.debug", mended)

# %% [markdown]
# ## 8. Known answer
#
# Two frameworks agree. Are they right? Carry over the digit network that **cheats**: it calls a digit 8
# because of a white mark, and we know where the mark is ([[cam]]).

# %%
marks = scoreboard.marked_digits_known_answer()
cheat = keras.models.clone_model(digit_twin)  # same layers, fresh weights
carry_over(marks.model, cheat)
x, truth = marks.x[:60], marks.truth[:60]
print(len(x), "digits that are called 8 because of the mark alone")

# %%
both = {
    "Grad-CAM": (cams.grad_cam, cam_keras.grad_cam, {"layer": "relu3"}),
    "saliency": (saliency.saliency, cam_keras.saliency, {}),
    "guided backprop": (saliency.guided_backprop, cam_keras.guided_backprop, {}),
}
heats = {
    name: (in_torch(marks.model, x, 8, **options), first(in_keras(cheat, last(x), 8, **options)))
    for name, (in_torch, in_keras, options) in both.items()
}

# %%
table = []
for name, pair in heats.items():
    mass = [localization.relevance_mass_accuracy(heat, truth).mean().item() for heat in pair]
    np.testing.assert_allclose(*mass, atol=1e-3)
    table.append((name, *(f"{share:.3f}" for share in mass), f"{alike(*pair):.6f}"))
columns = ["method", "PyTorch", "Keras", "correlation"]
chance = truth.float().mean().item()
plots.table(table, columns, title=f"Share of the heat on the mark; chance is {chance:.3f}")

# %% [markdown]
# The scores are equal, and they have to be: it is the same network and the same formula. This is no new evidence
# for any method, so the scoreboard gets no new line. It is a test of the port.

# %% [markdown]
# ## 9. When it lies
#
# ### Two frameworks, one mistake
#
# Look at the table again. The maps of Grad-CAM agree to the last digit shown, and hardly more of their
# heat lies on the mark than chance puts there. Here is one of them:

# %%
pair = heats["Grad-CAM"]
share = localization.relevance_mass_accuracy(pair[0][:1], truth[:1]).item()
plots.compare(
    [pair[0][0], pair[1][0]],
    over=x[0],
    titles=["PyTorch", "Keras"],
    title=f"They agree, with {share:.0%} of their heat on the mark",
    label="Grad-CAM (logits)",
    mask=truth[0],
)

# %% [markdown]
# Agreement of two programs shows that both compute the same thing. Whether that thing explains the network
# is another question.
#
# ### An explanation that changes the network
#
# The bug `trained` returned a gradient without an error. What did it do? With `training=True` a batch norm
# uses the mean and the variance of **this batch** instead of the stored ones, and then moves the stored ones
# toward them. Ask the twin ten times with the flag set, as a loop over ten photos would:

# %%
before = twin.get_weights()
compiled = tf.function(twin)
wrongly = [int(np.argmax(compiled(last(x), training=True))) for x in tensors]
changed = sum(not np.array_equal(a, b) for a, b in zip(before, twin.get_weights()))
print(f"right with training=True: {np.sum(wrongly == shots.y)} of 10")
print(f"arrays of weights changed: {changed} of {len(before)}")

# %% [markdown]
# None of the answers was right while the flag was set, and the network is another one now, though nobody
# trained it. Ask again, without the flag:

# %%
answers = [int(np.argmax(swift(last(x), asked)[0])) for x in tensors]
_, after = swift(cat_last, asked)  # of the cat
twin.set_weights(before)
print(f"right afterward: {np.sum(answers == shots.y)} of 10")
print(f"correlation of the cat's map with the one before: {alike(of_logit, after):.3f}")

# %% [markdown]
# The accuracy has not moved, so it warns no one. The map has, a little: each call replaces one hundredth of
# what is stored.

# %%
# NBVAL_CHECK_OUTPUT
keep = L.BatchNormalization().momentum
for calls in (10, 50, 500):
    print(f"after {calls:3} calls, {1 - keep**calls:.0%} of the stored means are replaced")

# %% [markdown]
# Fifty calls: that is one integrated gradients, written as a loop. Write `training=False` in every call, and
# test once that the weights before and after are equal: the tests of `xailab` ask that of each method.
#
# ### Exercise: a claim from a paper's appendix (criticize, 8 minutes)
#
# > *"To make sure that our explanations are correct, we implemented Grad-CAM in both TensorFlow and PyTorch. The
# > maps are virtually identical (r = .9999 on 500 images), although the frameworks are independent. This
# > validates the heat maps: the model looks at the tumor."*
#
# What does the agreement show, what does it not show, and what would you ask for? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
The agreement shows that the weights were carried over well and that both programs compute the same formula:
it tests the code. The two maps are not independent evidence, because the network and the method are the same,
so a mistake of the method occurs twice; on the marked digits, two maps that agreed to six digits both missed
the mark. Even two wrong programs could agree, for example if both explain the probability or share one wrong
preprocessing. I would ask for a test against a known answer: masks of the tumors, drawn by radiologists, with the
share of the heat inside beside the share that chance gives, or a planted mark. I would also ask for other methods
on the same images, for what happens when the tumor is covered, and for the maps of a network with random weights.
### END SOLUTION
"""

# %%
check("cam_keras.agreement", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - take gradients with TensorFlow's tape, and mend the five mistakes that make it fail or lie
# - compute Grad-CAM, saliency, guided backprop and integrated gradients in Keras by hand
# - carry weights from one framework to the other, and prove that the two networks are the same
# - name four differences between the frameworks that move a heat map without an error
#
# ## Takeaways
#
# - The method is the formula, not the framework: the same network gives the same map, to rounding. Compare
#   logits first, then maps.
# - Padding, epsilon, preprocessing, softmax: none is stored with the weights, and none raises an error.
# - Agreement tests the program. Only a known answer tests the explanation.
#
# ## Myth refuted
#
# *"The weights are the network: load them, and the explanation is the same."* The careless port loaded every
# number without a complaint and still named nearly all photos. Its maps slipped by most of a cell (section 6),
# because the way a layer pads is not a weight.
#
# ## Go further
#
# - Selvaraju and others (2017), *Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based
#   Localization*: the weights are defined with the score before the softmax.
# - Springenberg, Dosovitskiy, Brox, Riedmiller (2014), *Striving for Simplicity: The All Convolutional Net*:
#   guided backprop.
# - Sundararajan, Taly, Yan (2017), *Axiomatic Attribution for Deep Networks*: integrated gradients.
# - Ioffe, Szegedy (2015), *Batch Normalization: Accelerating Deep Network Training by Reducing Internal
#   Covariate Shift*: what `training=True` does, and where $\epsilon$ stands.
# - Tan, Le (2019), *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*: the family of our
#   network.
