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
# # Backpropagation: who is to blame?
#
# **Question:** A network gave a wrong answer: which of its numbers should change, which way, and by how much?
#
# **You will be able to**
# - compute the forward and the backward pass of a small network on paper, and check every number
# - catch a wrong gradient with finite differences, and say when finite differences are wrong themselves
# - follow reverse-mode automatic differentiation in a dozen lines, and add an operation to it
# - refute with numbers a loss and a delta that look right and are not
#
# **You need:** [[start_here]], derivatives, and NumPy's matrix product `@`
#
# **Time:** [[time]]; the cells run in under 30 seconds · **Difficulty:** 2 of 5

# %%
import timeit

import numpy as np
import torch

from xailab import data, plots
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.foundations.backprop import (
    MLP,
    Value,
    mean_squared_error,
    numerical_gradient,
    softmax_cross_entropy,
)
from xailab.widgets.backprop import backprop_stepper, step_picture

np.set_printoptions(formatter={"float_kind": lambda v: f"{v + 0:4.4g}"})  # + 0: no "-0"

# %% [markdown]
# This is the whole network of the first half of this lesson: two inputs, three hidden units, two
# classes. It has 17 numbers to learn. They are chosen so that you can follow with a pencil.

# %%
x = np.array([1.0, 2.0])  # one example, (2,)
y = 0  # its class

W1 = np.array([[1.0, -1.0], [0.5, 0.5], [2.0, -0.5]])  # (3, 2): one row per hidden unit
b1 = np.array([0.0, 0.5, 0.0])  # (3,)
W2 = np.array([[2.0, 1.0, -1.0], [1.0, -1.0, 1.0]])  # (2, 3): one row per class
b2 = np.array([0.0, 2.0])  # (2,)

# %% [markdown]
# And this is where you are going, the last of eleven steps. The number on an edge is a weight (blue
# and dashed if negative; biases are not drawn). In a node, the upper number came on the way
# forward, the lower one, a slope marked $\partial$ or $\delta$, on the way back. You will compute
# them all.

# %%
net = MLP([2, 3, 2])
for parameter, number in zip(net.parameters(), [W1, b1, W2, b2]):
    parameter[...] = number
step_picture(net, x, y)

# %% [markdown]
# ## 1. Forward: weighted sums, and a bend
#
# Hidden unit 0 has the weights 1 and -1 and the bias 0. It sees the inputs 1 and 2 and adds up
# $1 \cdot 1 + (-1) \cdot 2 + 0 = -1$. That is negative, so the **ReLU** after it answers 0: the
# unit is off. Units 1 and 2 add up to 2 and to 1, and pass that on.
#
# $$z_1 = W_1 x + b_1 \qquad a_1 = \max(0, z_1) \qquad z_2 = W_2 a_1 + b_2$$
#
# $z_1$ are the sums of the hidden units (books say *pre-activations*), $a_1$ their answers
# (*activations*), and $z_2$ the scores of the two classes, the **logits**.

# %%
z1 = W1 @ x + b1  # (3,)
print("z1 = W1 @ x + b1    =", z1)

# %%
a1 = np.maximum(0, z1)  # (3,)
print("a1 = max(0, z1)     =", a1)

# %%
z2 = W2 @ a1 + b2  # (2,)
print("z2 = W2 @ a1 + b2   =", z2)

# %% [markdown]
# Both classes have the logit 1. This network cannot decide.
#
# ## 2. How wrong is that? Softmax and cross-entropy
#
# Softmax turns the logits into shares $p_k$, one per class, that are positive and sum to 1. The
# loss $L$ is the cross-entropy, the surprise at the true class $y$: 0 if its share is 1,
# $\ln 2 = 0.6931$ if it is a half, without limit as it goes to 0. Here $z_k$ is the logit of class
# $k$, one of the two numbers in $z_2$.
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}} \qquad L = -\ln p_y$$


# %%
def softmax(z):
    e = np.exp(z - z.max())  # shares stay the same, and e^1000 never happens
    return e / e.sum()


p = softmax(z2)  # (2,)
print("p = softmax(z2)     =", p)

# %%
loss = -np.log(p[y])
print(f"loss = -ln p[{y}]      = {loss:.4f}")

# %% [markdown]
# ### A loss that looks right
#
# "Put a ReLU on the output, then take the negative log of the score." There is a log and it is
# negative, so it looks like cross-entropy. (*How to apply Cross Entropy on Rectified Linear Units?*
# has been asked on Stack Exchange.) Try a few scores for the true class, while the other has 0:

# %%
scores = np.array([-1.0, 0.5, 1.0, 3.0, 20.0])
with np.errstate(divide="ignore"):
    of_relu = 0 - np.log(np.maximum(0, scores))
of_softmax = [softmax_cross_entropy([[s, 0.0]], [0])[0] for s in scores]  # [0]: the loss
rows = [(f"{s:g}", f"{a:.3f}", f"{b:.3f}") for s, a, b in zip(scores, of_relu, of_softmax)]
plots.table(
    rows, ["score", "-ln(ReLU(score))", "softmax cross-entropy"], title="Only one is a loss"
)

# %% [markdown]
# Above 1 this loss is negative and has no lower end: the network is paid for making one number
# larger, whatever the other class gets. At -1 it is infinite. Then at least the slope should say
# "up, quickly":

# %%
score = torch.tensor(-1.0, requires_grad=True)
bad_loss = -torch.log(torch.relu(score))
bad_loss.backward()
print(f"at -1: loss {bad_loss.item()}, slope {score.grad.item()}")
print(f"slope of -log at 0 times slope of the ReLU, in NumPy: {-np.inf * 0}")

# %% [markdown]
# An infinite loss, and a slope of zero: the ReLU passes nothing back. The network learns nothing
# from exactly those examples on which it is most wrong. (Torch writes 0 where a ReLU was off; if
# you multiply it out, `nan` comes and spreads to the weights.) So a classifier's last layer gets
# **no** activation, and its loss is softmax and log in one.
#
# ## 3. Backward: who is to blame?
#
# Raise the logit of class 0 by a tiny $h$. How much does the loss change? Put softmax into the
# loss:
#
# $$L = -\ln p_y = -z_y + \ln \sum_j e^{z_j}$$
#
# The first part falls by $h$, since class 0 is the true one. In the second, the sum grows by
# $e^{z_0} h$, so its logarithm grows by $e^{z_0} h / \sum_j e^{z_j} = p_0 h$. Together:
# $(p_0 - 1)h = -0.5h$. For class 1 only the second part moves, by $p_1 h = 0.5h$. These slopes of
# the loss in the sums $z$ are the first **delta**:
#
# $$\delta_2 = \frac{\partial L}{\partial z_2} = p - \mathrm{onehot}(y)$$
#
# $\mathrm{onehot}(y)$ is 1 at the true class and 0 elsewhere, here (1, 0).

# %%
delta2 = p - np.eye(2)[y]  # (2,)
print("delta2 = p - onehot(y)        =", delta2)

# %% [markdown]
# Class 0 should have had a higher score, class 1 a lower one, equally much.
#
# A weight multiplies what comes in. If hidden unit 1 answers 2, then raising its weight by $h$
# raises the sum by $2h$. So the slope in a weight is *the delta above it times the answer below
# it*; a bias is a weight on the number 1.
#
# $$\frac{\partial L}{\partial W_2} = \delta_2\, a_1^\top \qquad \frac{\partial L}{\partial b_2} = \delta_2$$
#
# A column times a row: the entry [k, i] is the delta of class k times the answer of unit i.

# %%
dW2 = np.outer(delta2, a1)  # (2, 3), the shape of W2
db2 = delta2
print("dW2 = outer(delta2, a1)       =\n", dW2, sep="")

# %% [markdown]
# Look at the first column: zeros. Hidden unit 0 said nothing, so the weights on its answer did
# nothing, and nothing is their fault.
#
# ### One layer further down
#
# Hidden unit 1 speaks to class 0 with the weight 1 and to class 1 with the weight -1. It collects
# the blame along both edges: $1 \cdot (-0.5) + (-1) \cdot 0.5 = -1$. Its two weights stand in a
# *column* of `W2`, so all three units at once take the transpose:
#
# $$\text{signal} = W_2^\top \delta_2$$

# %%
signal = W2.T @ delta2  # (3,)
print("signal = W2.T @ delta2        =", signal)

# %% [markdown]
# That is the slope of the loss in the units' **answers** $a_1$. You need it in their **sums**
# $z_1$, and between the two stands the ReLU. Before you run on, think about unit 0. Its sum is -1
# and its signal is -0.5. What is the slope of the loss in its first weight, `W1[0, 0]`?

# %% tags=["exercise"]
### BEGIN SOLUTION
slope_of_unit_0 = 0
### END SOLUTION

# %%
predict("backprop.dead_unit", slope_of_unit_0)

# %% [markdown]
# A ReLU passes a change on unchanged where its sum is positive, and not at all where it is
# negative. So the signal is multiplied by the **slope** of the activation, 1 or 0. ($\odot$
# multiplies number by number.)
#
# $$\delta_1 = (W_2^\top \delta_2) \odot \mathrm{ReLU}'(z_1)
#   \qquad \mathrm{ReLU}'(z) = \begin{cases} 1 & z > 0 \\ 0 & \text{else} \end{cases}$$

# %%
delta1 = signal * (z1 > 0)  # (3,)
print("delta1 = signal * (z1 > 0)    =", delta1)

# %%
dW1 = np.outer(delta1, x)  # (3, 2), the shape of W1
db1 = delta1
print("dW1 = outer(delta1, x)        =\n", dW1, sep="")

# %%
reveal("backprop.dead_unit", round(dW1[0, 0]))

# %% [markdown]
# Move the weights of unit 0 a little: its sum stays negative, its answer stays 0, the loss does
# not notice. Such a unit learns nothing from this example. (If you guessed -0.5, the signal times
# the input 1, you let the blame through a closed gate; if 0.5, you multiplied by the sum as well.)
#
# The same rule, one more time, reaches the input itself:

# %%
dx = W1.T @ delta1  # (2,)
print("dx = W1.T @ delta1            =", dx)

# %% [markdown]
# Training leaves the input alone. But "which input number, moved a little, changes the result
# most?" is a way to explain a result; [[saliency]] starts from this line, with
# the score of a class in place of the loss.
#
# ### Walk through it again
#
# Here are all eleven steps on one slider. Press Tab until the slider has the focus, then use the
# arrow keys. Watch the blame come back: at step 8 it sits on all three hidden units, at step 9 on
# two. At steps 7 and 10 the edges show the slopes in the weights instead of the weights. (Where no
# kernel runs, you see step 9.)

# %%
backprop_stepper(net, x, y, stand_in=9)

# %%
quiz("backprop.q_relu")

# %% [markdown]
# ## 4. The gradient microscope
#
# How do you know that a gradient is right? A slope has a meaning: move the number a little, and
# see. Take `W2[0, 1]`. You computed the slope -1.


# %%
def loss_at(W1, b1, W2, b2):
    a1 = np.maximum(0, W1 @ x + b1)
    return -np.log(softmax(W2 @ a1 + b2)[y])


h = 0.001
moved = W2 + np.array([[0, h, 0], [0, 0, 0]])
change = loss_at(W1, b1, moved, b2) - loss_at(W1, b1, W2, b2)
print(f"by moving it: {change / h:.4f}, by hand: {dW2[0, 1]:.4f}")

# %% [markdown]
# Nearly. Moving both ways and taking half the difference, the **central difference**, is much
# closer, because the bend of the curve cancels:
#
# $$\frac{\partial L}{\partial w} \approx \frac{L(w + \epsilon) - L(w - \epsilon)}{2\epsilon}$$
#
# $w$ is any one of the 17 numbers and $\epsilon$ a small step. `numerical_gradient` does this for
# every number of an array and puts each one back. It moves them inside the array itself, so the
# function that it calls may ignore its argument (`_`) and read `W1`, `b1`, `W2` and `b2`.

# %%
weights = {"W1": W1, "b1": b1, "W2": W2, "b2": b2}
by_moving = {
    name: numerical_gradient(lambda _: loss_at(W1, b1, W2, b2), array)
    for name, array in weights.items()
}
by_moving["W2"]

# %% [markdown]
# The third witness is `torch.autograd`, which practitioners use. It gets the forward pass only:

# %%
tensors = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
hidden = torch.relu(tensors["W1"] @ torch.tensor(x) + tensors["b1"])
logits = (tensors["W2"] @ hidden + tensors["b2"])[None]  # (1, 2): torch wants a row per example
torch.nn.functional.cross_entropy(logits, torch.tensor([y])).backward()
by_torch = {name: tensor.grad.numpy() for name, tensor in tensors.items()}
by_torch["W2"]

# %% [markdown]
# Now line by line, all 17 numbers under the microscope:

# %%
by_hand = {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}
rows = []
for name, gradient in by_hand.items():
    for i in np.ndindex(gradient.shape):
        three = [g[name][i] + 0 for g in (by_hand, by_moving, by_torch)]
        error = max(three) - min(three)
        rows.append((f"{name}{list(i)}", *(f"{v:.6f}" for v in three), f"{error:.0e}"))
plots.table(
    rows,
    ["number", "by hand", "by moving it", "torch", "largest difference"],
    title="Three ways, one gradient",
)

# %%
for name, gradient in by_hand.items():
    assert np.abs(gradient - by_moving[name]).max() < 1e-6
    assert np.abs(gradient - by_torch[name]).max() < 1e-10
print("17 of 17 agree: with moving to 1e-6, with torch to 1e-10")

# %% [markdown]
# ### Two formulas that the microscope catches
#
# The delta of a hidden layer is easily misremembered as "$W^\top \delta$ times the activation", or
# as $W^\top \delta$ alone. Compare all three with the slopes that moving `b1` gave (the slope in a
# bias *is* the delta):

# %%
candidates = {
    "times the slope, z1 > 0": signal * (z1 > 0),
    "the signal alone": signal,
    "times the activation a1": signal * a1,
}
for name, delta in candidates.items():
    error = np.abs(delta - by_moving["b1"]).max()
    print(f"{name:<25} {delta} off by {error:.1f}")

# %% [markdown]
# Without the slope, unit 0 is blamed though it was off. With the activation, unit 1 is blamed twice
# as much as it should be, because it happened to answer 2. Unit 2 comes out right in all three: it
# happened to answer 1. One lucky number proves nothing, so check them all.
#
# ### When the microscope lies
#
# **A step too large or too small.** A long step leaves the straight part of the curve. A tiny one
# drowns: a loss is known to about 16 digits, so after a step of $10^{-15}$ the difference is made
# of rounding. Here is the error of the slope of `W2[0, 1]` for steps from 0.1 down to $10^{-15}$.
# (With `b2` = [0, 1], because at two equal logits the long steps happen to be right.)

# %%
uneven = np.array([0.0, 1.0])  # logits 1 and 0
exact = (softmax(np.array([1.0, 0.0]))[0] - 1) * a1[1]
exponents = np.arange(-15, 0)
errors_of_steps = [
    abs(numerical_gradient(lambda _: loss_at(W1, b1, W2, uneven), W2, 10.0**e)[0, 1] - exact)
    for e in exponents
]

# %%
plots.curve(
    exponents,
    {"error": errors_of_steps},
    title="A long step sees the bend, a tiny one only rounding",
    xlabel="power of ten of the step",
    ylabel="error of the slope",
    log=True,
)

# %% [markdown]
# The bottom of the valley lies near $10^{-5}$. `numerical_gradient` takes $10^{-6}$ unless you say
# otherwise: the error is still below $10^{-9}$, and a shorter step is less likely to cross a kink
# (see below). It refuses float32, whose 7 digits would have been used up long before.
#
# **A kink.** At exactly 0 a ReLU has no slope. Moving both ways gives the mean of both sides, and
# torch gives 0. The two disagree and neither has a bug:

# %%
zero = torch.zeros(1, requires_grad=True)
torch.relu(zero).backward()
print("by moving it:", numerical_gradient(lambda v: np.maximum(0, v).sum(), np.zeros(1)))
print("torch:       ", zero.grad.numpy())

# %% [markdown]
# ## 5. One step downhill
#
# The gradient says which way the loss grows. **Gradient descent** moves each number $w$ the other
# way, in proportion to its slope; the factor $\eta$ (eta) is the **learning rate**.
#
# $$w \leftarrow w - \eta \frac{\partial L}{\partial w}$$

# %%
eta = 0.1
after = loss_at(W1 - eta * dW1, b1 - eta * db1, W2 - eta * dW2, b2 - eta * db2)
print(f"loss before {loss:.4f}, after one step {after:.4f}")
assert after < loss

# %% [markdown]
# The share of class 0 went from a half to $e^{-0.0458} = 0.955$, in one step, on one example.
#
# ### Another loss, the same way back
#
# Say the two outputs are not classes but two quantities that should have been $t = (3, 0)$. Then
# the loss is the mean squared error, and only the **first** delta changes:
#
# $$L = \frac{1}{2}\sum_k (z_k - t_k)^2 \qquad
#   \delta_2 = \frac{\partial L}{\partial z_2} = \frac{2}{2}(z_2 - t)$$
#
# The 2 below is the number of outputs, the 2 above comes from the square.

# %%
t = np.array([3.0, 0.0])
squared_loss = np.mean((z2 - t) ** 2)
delta2_mse = 2 / 2 * (z2 - t)
print("loss   = mean((z2 - t)**2)    =", squared_loss)
print("delta2 = 2/2 * (z2 - t)       =", delta2_mse)

# %%
delta1_mse = (W2.T @ delta2_mse) * (z1 > 0)
print("delta1 = W2.T @ delta2 * (z1 > 0) =", delta1_mse)
gradients = [np.outer(delta1_mse, x), delta1_mse, np.outer(delta2_mse, a1), delta2_mse]
print("dW1    = outer(delta1, x)     =\n", gradients[0], sep="")

# %% [markdown]
# The rest of the backward pass is the same code. `xailab` gives the same loss and the same first
# delta, and moving each weight confirms the 17 slopes:


# %%
def squared_loss_at(W1, b1, W2, b2):
    return np.mean((W2 @ np.maximum(0, W1 @ x + b1) + b2 - t) ** 2)


for gradient, array in zip(gradients, weights.values()):
    moved = numerical_gradient(lambda _: squared_loss_at(W1, b1, W2, b2), array)
    assert np.abs(gradient - moved).max() < 1e-6
assert mean_squared_error(z2, t)[0] == squared_loss
print("the loss is xailab's; all 17 slopes agree with moving the weights")

# %% [markdown]
# ### How far may you go?
#
# A step moves each number by $-\eta$ times its slope, and a small move changes the loss by the move
# times the slope: by $-\eta$ times the slope *squared*. The 17 squares add up to 138 (the squared
# length of the gradient). So the step *promises* to lower the loss by $138\,\eta$: with 0.01 from
# 2.5 to 1.12. What about 0.08? Will the loss be `"lower"` or `"higher"` than 2.5?

# %% tags=["exercise"]
### BEGIN SOLUTION
after_a_big_step = "higher"
### END SOLUTION

# %%
predict("backprop.big_step", after_a_big_step)

# %%
squared_length = sum((g**2).sum() for g in gradients)
etas = np.linspace(0, 0.08, 33)
actual = [
    squared_loss_at(*(w - eta * g for w, g in zip(weights.values(), gradients))) for eta in etas
]
print(
    f"squared length {squared_length:g}; loss at 0.01: {actual[4]:.3f}, at 0.08: {actual[-1]:.3f}"
)

# %%
reveal("backprop.big_step", "higher" if actual[-1] > squared_loss else "lower")

# %%
plots.curve(
    etas,
    {"actual loss": actual, "promised": squared_loss - squared_length * etas},
    title="The gradient keeps its promise for small steps only",
    xlabel="learning rate",
    ylabel="mean squared error",
)

# %% [markdown]
# Look at where the two lines part. The promise even goes below 0, where no squared error can be.
# A gradient is a statement about *here*. Keep that in mind when a gradient is offered to you as an
# explanation: it tells what a small change does, not what a large one would do.
#
# ## 6. Let the machine do it: autodiff on single numbers
#
# You never differentiated the whole network. You took it apart into steps whose slopes you know,
# and multiplied them on the way back. A program can keep that book. Each number remembers its
# **parents**, the numbers it was made of, and its **slope** in each of them. A sum has the slopes
# 1 and 1; a product has the slope of each factor in the other one.


# %%
class Number:
    def __init__(self, data, parents=(), slopes=()):
        self.data, self.parents, self.slopes, self.grad = data, parents, slopes, 0.0

    def __add__(self, other):
        return Number(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Number(self.data * other.data, (self, other), (other.data, self.data))

    def backward(self, signal=1.0):
        self.grad += signal
        for parent, slope in zip(self.parents, self.slopes):
            parent.backward(signal * slope)


# %% [markdown]
# That is all of it. Try $f = a b + a$ at $a = 3$, $b = -2$. On paper: $\partial f / \partial a =
# b + 1 = -1$ and $\partial f / \partial b = a = 3$.

# %%
a, b = Number(3.0), Number(-2.0)
f = a * b + a
f.backward()
a.grad, b.grad

# %% [markdown]
# Look at `self.grad += signal`: the plus matters. $a$ is used twice, so the loss can feel it along
# two paths, and the slopes of the paths **add**.

# %% [markdown]
# ### Exercise: a ReLU for `Number` (code, 3 minutes)
#
# Sums and products alone give no bend. Return a new `Number` with the value, the one parent and the
# one slope of a ReLU. (A tuple of one needs its comma: `(number,)`.)


# %% tags=["exercise"]
def relu(number):
    """max(0, number) as a Number that knows its parent and its slope."""
    ### BEGIN SOLUTION
    slope = 1.0 if number.data > 0 else 0.0
    return Number(max(0.0, number.data), (number,), (slope,))
    ### END SOLUTION


# %%
check("backprop.relu", relu)

# %% [markdown]
# `xailab`'s `Value` is the same idea with more operations, ReLU among them. Here is a unit with a
# shortcut around its ReLU, and the target 3. The sum $z$ is used twice.

# %%
w, v, bias, target = Value(0.5, "w"), Value(2.0, "x"), Value(1.0, "b"), Value(3.0, "t")
z = w * v + bias
z.name = "z"
error = (z.relu() + z - target) ** 2
error.backward()
w.grad, v.grad, bias.grad

# %%
nodes = error.walk()  # every number on the way, operands first
names = [f"{n.name} {n.op}".strip() for n in nodes]
labels = {id(n): f"{name}\n{n.data:g}\n∂ {n.grad:g}" for n, name in zip(nodes, names)}
edges = [
    (id(parent), id(n), f"×{slope:g}") for n in nodes for parent, slope in zip(n.parents, n.slopes)
]
names

# %%
places = [(0, 0), (0, 2), (1, 1), (1, 2), (2, 1), (3, 0), (4, 1), (4, 2), (5, 1), (6, 1)]
plots.graph(
    edges,
    labels,
    title="Two paths lead from z to the error: 2 + 2 = 4",
    positions={id(n): place for n, place in zip(nodes, places)},
    highlight=[id(z)],
    alt="An expression graph from left to right. w = 0.5 times x = 2 plus b = 1 gives z = 2. From z, "
    "one arrow goes through a ReLU and one past it; both meet in a sum of 4, minus 3 is 1, squared "
    "is 1. Backward: 1 at the end, 2 at the difference and the sum, 2 along each of the two "
    "paths, so 4 at z; then 8 at w, 2 at x and 4 at b.",
)

# %% [markdown]
# In each box: the operation, its value, and under it the slope of the error (∂). On each arrow: the
# slope of one step. To get from a box to the one before it, multiply; where two arrows leave one
# box, add. Follow it from the right to $w$: $1 \cdot 2 \cdot 1 \cdot (1 + 1) \cdot 1 \cdot 2 = 8$.
#
# ### Why it goes backwards, in one sweep
#
# `Number` walks every *path*. Double a number 16 times and there are $2^{16}$ of them. `Value`
# sorts the numbers first, so that each is visited **once**, after everything it feeds into:


# %%
def seconds_for(kind, doublings=16):
    number = start = kind(1.0)
    for _ in range(doublings):
        number = number + number
    seconds = timeit.timeit(number.backward, number=1)
    return start.grad, seconds


for kind in (Number, Value):
    grad, seconds = seconds_for(kind)
    print(f"{kind.__name__:<7} slope {grad:g}, {1000 * seconds:.2f} ms")

# %% [markdown]
# Same slope, a fraction of the time. One forward and one backward sweep give the slopes in *all*
# inputs; moving each number by itself takes two forward passes per number. With 17 numbers nobody
# minds. With a million, every single step downhill would take two million forward passes.

# %%
quiz("backprop.q_paths")

# %% [markdown]
# ## 7. Layers, and whole batches
#
# In practice a step is a layer and a number is a matrix with one row per example. Each layer keeps
# two promises: `forward` computes and remembers, `backward` takes the slope of the loss in its
# result and returns the slope in its input. `net`, from the top of this lesson, is made of three
# such layers:

# %%
slope = softmax_cross_entropy(net.forward(x[None]), [y])[1]  # (1, 2)
print(f"{'above':<22} {slope}")
for layer in reversed(net.layers):
    slope = layer.backward(slope)
    print(f"below {type(layer).__name__:<16} {slope}")

# %% [markdown]
# You know these rows: `delta2`, `signal`, `delta1` and `dx`. And the gradients are yours:

# %%
for ours, theirs in zip([dW1, db1, dW2, db2], net.gradients()):
    assert np.allclose(ours, theirs, rtol=0, atol=1e-12)
print("xailab's MLP gives the four gradients that you computed")

# %% [markdown]
# ### Exercise: two other activations (code, 5 minutes each)
#
# ReLU's backward multiplied by 1 or 0. Write it for two other activations. `z` is the sum that went
# in on the way forward, `signal` what comes from above, as in section 3; both have the same shape.
#
# $$\sigma(z) = \frac{1}{1 + e^{-z}} \qquad \sigma'(z) = \sigma(z)\,(1 - \sigma(z))
#   \qquad\qquad \tanh'(z) = 1 - \tanh^2(z)$$
#
# Stuck? Run `hint("backprop.sigmoid")` in a new cell; there are three hints for each exercise.


# %% tags=["exercise"]
def sigmoid_backward(signal, z):
    """Slope of the loss in z, given its slope in sigmoid(z)."""
    ### BEGIN SOLUTION
    s = 1 / (1 + np.exp(-z))
    return signal * s * (1 - s)
    ### END SOLUTION


# %%
check("backprop.sigmoid", sigmoid_backward)


# %% tags=["exercise"]
def tanh_backward(signal, z):
    """Slope of the loss in z, given its slope in tanh(z)."""
    ### BEGIN SOLUTION
    return signal * (1 - np.tanh(z) ** 2)
    ### END SOLUTION


# %%
check("backprop.tanh", tanh_backward)

# %% [markdown]
# ### Exercise: a two-layer network on a batch (code, 15 minutes)
#
# Now all of it, for N examples at once, with D inputs, H hidden units and K classes. `X` is (N, D),
# one row per example, so the sums become `X @ W1.T + b1`, (N, H). Two things change: a weight
# collects from every row, which is one matrix product of deltas and answers, and the loss is the
# **mean** over the rows, so the first delta is divided by N. `softmax_cross_entropy(logits, y)`
# returns the loss and that first delta.


# %% tags=["exercise"]
def two_layer_gradients(X, y, W1, b1, W2, b2):
    """(dW1, db1, dW2, db2) of the mean softmax cross-entropy of a ReLU network."""
    ### BEGIN SOLUTION
    z1 = X @ W1.T + b1  # (N, H)
    a1 = np.maximum(0, z1)
    delta2 = softmax_cross_entropy(a1 @ W2.T + b2, y)[1]  # (N, K), already divided by N
    delta1 = (delta2 @ W2) * (z1 > 0)  # (N, H)
    return delta1.T @ X, delta1.sum(axis=0), delta2.T @ a1, delta2.sum(axis=0)
    ### END SOLUTION


# %%
check("backprop.two_layer", two_layer_gradients)

# %% [markdown]
# ## 8. The practitioners' library
#
# `torch.autograd` records the forward pass and walks back, as `Value` does, one tensor at a time. A
# larger network, 128 rows, float64: all gradients must agree to $10^{-10}$.

# %%
rng = np.random.default_rng(0)
X, labels = rng.normal(size=(128, 20)), rng.integers(0, 10, 128)
large = MLP([20, 64, 64, 10], activation="tanh", seed=0)


def numpy_pass():
    loss, delta = softmax_cross_entropy(large.forward(X), labels)
    large.backward(delta)
    return large.gradients()


# %%
parameters = [torch.tensor(p, requires_grad=True) for p in large.parameters()]


def torch_pass():
    a = torch.tensor(X)
    for i in (0, 2, 4):
        a = torch.nn.functional.linear(a if i == 0 else a.tanh(), *parameters[i : i + 2])
    loss = torch.nn.functional.cross_entropy(a, torch.tensor(labels))
    return torch.autograd.grad(loss, parameters)


# %%
differences = [np.abs(ours - g.numpy()).max() for ours, g in zip(numpy_pass(), torch_pass())]
assert max(differences) < 1e-10
print(f"largest difference {max(differences):.0e}")

# %%
for one_pass in (numpy_pass, torch_pass):
    fastest = min(timeit.repeat(one_pass, number=1, repeat=30))
    print(f"{one_pass.__name__}: {1000 * fastest:.2f} ms")

# %% [markdown]
# The same numbers, and on a network of this size about the same time: the work is in the matrix
# products. Torch earns its place by knowing the slopes of hundreds of operations, and by running
# on other hardware.
#
# ## 9. Does it learn something real?
#
# 1,797 handwritten digits of 8 x 8 pixels. A network with 64 inputs, 32 hidden units and 10
# classes, trained by the step of section 5 on 32 digits at a time (**stochastic** gradient
# descent), tested on 400 digits that it never sees.

# %%
digits = data.load("digits")
order = rng.permutation(len(digits))
pixels = digits.images[order].reshape(-1, 64) / 16  # (1797, 64), from 0 to 1
train_x, test_x = pixels[:-400], pixels[-400:]
train_y, test_y = digits.y[order][:-400], digits.y[order][-400:]


# %%
def train_step(net, x, y, learning_rate):
    loss, delta = softmax_cross_entropy(net.forward(x), y)
    net.backward(delta)
    for parameter, gradient in zip(net.parameters(), net.gradients()):
        parameter -= learning_rate * gradient
    return loss


# %%
reader = MLP([64, 32, 10])
train_loss, test_loss = [], []
for _ in range(25):
    batches = np.array_split(rng.permutation(len(train_x)), 44)
    losses = [train_step(reader, train_x[rows], train_y[rows], 0.3) for rows in batches]
    train_loss.append(np.mean(losses))
    test_loss.append(softmax_cross_entropy(reader.forward(test_x), test_y)[0])

# %%
guesses = reader.forward(test_x).argmax(axis=1)
right = (guesses == test_y).mean()
assert right > 0.93
plots.curve(
    np.arange(1, 26),
    {"training": train_loss, "test": test_loss},
    title=f"The hand-made backward pass learns to read: {right:.0%} right",
    xlabel="epoch (each digit seen once)",
    ylabel="cross-entropy",
)

# %% [markdown]
# The training loss ends near 0.04, the test loss near 0.10: part of what the network learned holds
# only for the digits it has seen. (The training loss starts higher because it is averaged over the
# epoch, while the network is still changing.) And where is it wrong?

# %%
wrong = np.flatnonzero(guesses != test_y)[:5]
plots.images(
    [test_x[i].reshape(8, 8) for i in wrong],
    titles=[f"a {test_y[i]}, read as {guesses[i]}" for i in wrong],
    title="Five digits that the network misreads",
)

# %% [markdown]
# ### Exercise: review this code (criticise, 5 minutes)
#
# This training step runs without an error message.
#
# ```python
# z1 = W1 @ x + b1
# a1 = np.maximum(0, z1)
# out = np.maximum(0, W2 @ a1 + b2)
# loss = -np.log(out[y])
# delta2 = out - onehot(y)
# W2 -= 0.1 * np.outer(delta2, a1)
# delta1 = (W2.T @ delta2) * a1
# W1 -= 0.1 * np.outer(delta1, x)
# ```
#
# Three things are wrong, besides the biases that never learn; the output and its loss count as one.
# Name them, say what each does, and how you would have found out.

# %% tags=["exercise"]
review = """
### BEGIN SOLUTION
1. The output goes through a ReLU and then a log. A negative score gives an infinite loss, a score
   above 1 a negative one, and delta2 = out - onehot(y) is not the gradient of this loss. The last
   layer needs no activation; use softmax and cross-entropy, whose gradient is p - onehot(y).
2. delta1 multiplies by the activation a1. It must be the slope of the ReLU, the mask z1 > 0.
3. W2 is changed before delta1 uses it: the blame goes down through the new weights instead of
   those that made the mistake. Compute all gradients first, then change the weights.
Finite differences on each weight find 1 and 2 at once, and 3 if the whole step is checked.
### END SOLUTION
"""

# %%
check("backprop.review", review)

# %%
progress()

# %% [markdown]
# **You can now**
# - compute the forward and the backward pass of a small network on paper, and check every number
# - catch a wrong gradient with finite differences, and say when finite differences are wrong themselves
# - follow reverse-mode automatic differentiation in a dozen lines, and add an operation to it
# - refute with numbers a loss and a delta that look right and are not
#
# ## Takeaways
# - Backward is forward in reverse: at each step, multiply what comes from above by the local slope; where paths meet, add.
# - A gradient says what a *small* change does, here. It is checked by making small changes.
# - A layer needs its input and the slope of its activation; the loss decides the first delta only.
#
# ## Myth refuted
# - *"Put a ReLU on the classifier's output and take its log."* Section 2: the loss turns infinite or negative, and its slope is 0 where it is infinite. Logits go into softmax cross-entropy as they are.
# - *"The delta of a hidden layer is $W^\top\delta$ times the activation"*, or $W^\top\delta$ alone. Section 4: finite differences disagree with both; the factor is the **derivative** of the activation.
#
# ## Go further
# - Rumelhart, Hinton, Williams (1986), *Learning representations by back-propagating errors*, Nature 323: four pages, still readable.
# - Baydin, Pearlmutter, Radul, Siskind (2018), *Automatic Differentiation in Machine Learning: a Survey*, JMLR 18: forward and reverse mode, and what they are not.
# - Karpathy, *micrograd* (2020): an engine like `Value` in under a hundred lines.
#
# Next: [[saliency]] explains a photo with the last line of the backward pass,
# `dx`, taken of a score.
