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
# - compute the forward and the backward pass of a small network, in code of your own
# - check a gradient with finite differences, and catch a wrong one
# - take a step downhill, and say how far a gradient can be trusted
# - build the backward sweep of an automatic differentiation engine, and train with it
#
# **You need:** [[start_here]], derivatives, and NumPy's matrix product `@`
#
# **Time:** [[time]] · **Difficulty:** 2 of 5

# %%
import numpy as np
import torch

from xailab import plots
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.foundations.backprop import MLP, Value, numerical_gradient, softmax_cross_entropy
from xailab.widgets.backprop import backprop_stepper, descent_picture, step_picture

np.set_printoptions(formatter={"float_kind": lambda v: f"{v + 0:4.4g}"})  # + 0: no "-0"

# %% [markdown]
# Here is a whole network: two inputs, three hidden units, two classes. It has 17 **parameters**, the
# numbers that training changes, and they are chosen so that you can follow with a pencil.

# %%
x = np.array([1.0, 2.0])  # one example, (2,)
y = 0  # its class

W1 = np.array([[1.0, -1.0], [0.5, 0.5], [2.0, -0.5]])  # (3, 2): one row per hidden unit
b1 = np.array([0.0, 0.5, 0.0])  # (3,)
W2 = np.array([[2.0, 1.0, -1.0], [1.0, -1.0, 1.0]])  # (2, 3): one row per class
b2 = np.array([0.0, 2.0])  # (2,)

# %% [markdown]
# This is where you are going. The number on an edge is a weight (blue and dashed if negative). In each node, the upper
# number belongs to the way forward, and the lower one, marked $\partial$ or $\delta$, to the way back. You will compute
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
# $1 \cdot 1 + (-1) \cdot 2 + 0 = -1$. That is negative, so the **ReLU** after it outputs 0: the unit is
# off. Units 1 and 2 arrive at 2 and 1, and pass that on unchanged.
#
# $$z_1 = W_1 x + b_1 \qquad a_1 = \max(0, z_1) \qquad z_2 = W_2 a_1 + b_2$$
#
# $z_1$ are the weighted sums of the hidden units (their **pre-activations**), $a_1$ their outputs (their
# **activations**), and $z_2$ the scores of the two classes, the **logits**.
#
# ### Exercise: the forward pass (code, 2 minutes)
#
# Three formulas, three lines. `W @ v` is a matrix times a vector. Stuck? `hint("backprop.forward")` helps, in
# up to three steps.


# %% tags=["exercise"]
def forward(x, W1, b1, W2, b2):
    """(z1, a1, z2) of one example x."""
    ### BEGIN SOLUTION
    z1 = W1 @ x + b1
    a1 = np.maximum(0, z1)
    z2 = W2 @ a1 + b2
    return z1, a1, z2
    ### END SOLUTION


# %%
check("backprop.forward", forward)

# %% [markdown]
# `net` holds the same parameters. Its three layers compute the same three lines, for a batch of one:

# %%
stages = [x[None]]  # (1, 2)
for layer in net.layers:
    stages.append(layer.forward(stages[-1]))
z1, a1, z2 = (stage[0] for stage in stages[1:])
print("z1", z1, " a1", a1, " z2", z2)

# %% [markdown]
# Both classes have the logit 1. This network cannot decide.
#
# ## 2. How wrong is that?
#
# **Softmax** turns logits into probabilities: positive, and 1 in total. The **loss** says how wrong they are.
# Here it is the **cross-entropy**, the negative logarithm of the probability of the true class $y$. It is 0 if
# that probability is 1, $\ln 2 = 0.693$ if it is one half, and it grows without limit as it goes to 0.
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}} \qquad L = -\ln p_y$$


# %%
def softmax(z):
    e = np.exp(z - z.max())  # the same probabilities, and e^1000 never happens
    return e / e.sum()


p = softmax(z2)  # (2,)
loss = -np.log(p[y])
print("p", p, f" loss {loss:.4f}")

# %% [markdown]
# ## 3. Backward: who is to blame?
#
# Raise the logit of class 0 by a tiny $h$. How much does the loss change? Put softmax into the loss:
#
# $$L = -\ln p_y = -z_y + \ln \sum_j e^{z_j}$$
#
# The first part falls by $h$, since class 0 is the true one. In the second, the sum grows by $e^{z_0} h$, so its
# logarithm grows by $e^{z_0} h / \sum_j e^{z_j} = p_0 h$. Together: $(p_0 - 1)h = -0.5h$. For class 1 only the second
# part moves, by $p_1 h = 0.5h$.
#
# "How much does $L$ change, per unit of this number?" is the **partial derivative** of $L$ with respect to that
# number, $\partial L / \partial z_0 = -0.5$. All of them in one array are the **gradient**. The gradient with
# respect to the weighted sums of a layer is called its **delta**:
#
# $$\delta_2 = \frac{\partial L}{\partial z_2} = p - \mathrm{onehot}(y)$$
#
# $\mathrm{onehot}(y)$ is 1 at the true class and 0 elsewhere, here (1, 0).

# %%
delta2 = p - np.eye(2)[y]  # (2,)
delta2

# %% [markdown]
# Class 0 should have had a higher score, class 1 a lower one. Now go down, in three rules.
#
# **1. A weight** multiplies what comes in. Hidden unit 1 outputs 2, so raising one of its weights to the next
# layer by $h$ raises the sum there by $2h$. Its derivative is *the delta above times the activation below*. A
# bias is a weight on the constant 1.
#
# $$\frac{\partial L}{\partial W_2} = \delta_2\, a_1^\top \qquad \frac{\partial L}{\partial b_2} = \delta_2$$
#
# A column times a row: entry $[k, i]$ is the delta of class $k$ times the activation of unit $i$. NumPy calls it
# `np.outer(delta2, a1)`.
#
# **2. A unit** collects blame along all of its edges. Hidden unit 1 is connected to class 0 with the weight 1
# and to class 1 with -1, so it gets $1 \cdot (-0.5) + (-1) \cdot 0.5 = -1$. Its weights stand in a *column* of
# $W_2$; all three units at once therefore take the transpose:
#
# $$\frac{\partial L}{\partial a_1} = W_2^\top \delta_2$$
#
# **3. The ReLU** stands between $a_1$ and $z_1$. It passes a change on where the sum is positive, and blocks it
# where the sum is negative. So multiply by its derivative, 1 or 0 ($\odot$ multiplies number by number):
#
# $$\delta_1 = (W_2^\top \delta_2) \odot \mathrm{ReLU}'(z_1)
#   \qquad \mathrm{ReLU}'(z) = \begin{cases} 1 & z > 0 \\ 0 & \text{else} \end{cases}$$
#
# And below that, rule 1 again. Multiplying derivatives along a path in this way is the **chain rule**.
#
# ### Predict, then run (1 minute)
#
# Hidden unit 0 has the sum -1 and collects the blame $2 \cdot (-0.5) + 1 \cdot 0.5 = -0.5$. Its first weight,
# `W1[0, 0]`, multiplies the input 1. What is the derivative of the loss with respect to that weight?

# %% tags=["exercise"]
### BEGIN SOLUTION
slope_of_unit_0 = 0
### END SOLUTION

# %%
predict("backprop.dead_unit", slope_of_unit_0)

# %% [markdown]
# ### Exercise: the backward pass (code, 5 minutes)
#
# Write the three rules, from the top down. You get everything that the forward pass computed, and $\delta_2$.
# Each gradient has the shape of the array that it belongs to.


# %% tags=["exercise"]
def backward(x, z1, a1, delta2, W2):
    """(dW1, db1, dW2, db2), the gradients of the loss for one example x."""
    ### BEGIN SOLUTION
    dW2, db2 = np.outer(delta2, a1), delta2
    delta1 = (W2.T @ delta2) * (z1 > 0)
    dW1, db1 = np.outer(delta1, x), delta1
    return dW1, db1, dW2, db2
    ### END SOLUTION


# %%
check("backprop.backward", backward)

# %% [markdown]
# `xailab` has the same backward pass. `net.backward` takes $\delta_2$, keeps the gradients of all parameters, and
# returns one more: the gradient with respect to the **input**.

# %%
dx = net.backward(delta2[None])[0]  # (2,)
dW1, db1, dW2, db2 = net.gradients()
print("dW1\n", dW1, "\ndb1 ", db1, "\ndW2\n", dW2, "\ndb2 ", db2, "\ndx  ", dx, sep="")

# %%
reveal("backprop.dead_unit", round(dW1[0, 0]))

# %% [markdown]
# Look at the zeros in `dW1`: move the weights of unit 0 a little, and its sum stays negative, its output stays 0,
# and the loss does not notice. Such a unit learns nothing from this example.
#
# Training has no use for `dx`. But "which input, changed a little, changes the result most?" is a way to *explain*
# a result, and [[saliency]] starts from this line.
#
# Here is the whole way on one slider. Watch the blame come back: at step 8 it sits on three hidden units, at step 9 on
# two.

# %%
backprop_stepper(net, x, y, stand_in=9)

# %%
quiz("backprop.q_relu")

# %% [markdown]
# ## 4. The gradient check
#
# How do you know that a gradient is right? A derivative has a meaning: move the number a little, and see what
# the loss does. The **central difference** moves it both ways:
#
# $$\frac{\partial L}{\partial w} \approx \frac{L(w + \epsilon) - L(w - \epsilon)}{2\epsilon}$$
#
# $w$ is any one of the 17 parameters, $\epsilon$ a small step.
#
# ### Exercise: move one number (code, 3 minutes)
#
# `loss()` takes no argument: it reads `array` when you call it. So change `array[i]` in place, ask for the loss,
# and put the old number back before you return.


# %% tags=["exercise"]
def by_moving(loss, array, i, eps=1e-6):
    """Central difference of loss() with respect to array[i], which is put back."""
    ### BEGIN SOLUTION
    old = array[i]
    array[i] = old + eps
    above = loss()
    array[i] = old - eps
    below = loss()
    array[i] = old
    return (above - below) / (2 * eps)
    ### END SOLUTION


# %%
check("backprop.by_moving", by_moving)


# %%
def loss_at(W1, b1, W2, b2):
    hidden = np.maximum(0, W1 @ x + b1)
    return -np.log(softmax(W2 @ hidden + b2)[y])


print("moved", by_moving(lambda: loss_at(W1, b1, W2, b2), W2, (0, 1)), " by hand", dW2[0, 1])

# %% [markdown]
# `numerical_gradient` does this for every number of an array. A third witness is `torch.autograd`, which practitioners
# use: it gets the forward pass only.

# %%
parameters = {"W1": W1, "b1": b1, "W2": W2, "b2": b2}
moved = [
    numerical_gradient(lambda _: loss_at(W1, b1, W2, b2), array) for array in parameters.values()
]
tensors = [torch.tensor(array, requires_grad=True) for array in parameters.values()]
logits = tensors[2] @ torch.relu(tensors[0] @ torch.tensor(x) + tensors[1]) + tensors[3]
by_torch = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, torch.tensor(y)), tensors)

for ours, ours_moved, theirs in zip([dW1, db1, dW2, db2], moved, by_torch):
    assert np.abs(ours - ours_moved).max() < 1e-6
    assert np.abs(ours - theirs.numpy()).max() < 1e-10
print("17 of 17 agree: with moving to 1e-6, with torch to 1e-10")

# %% [markdown]
# Now use it. The delta of a hidden layer is easily misremembered as $W^\top \delta$ alone, or as $W^\top \delta$
# times the **activation**. Compare all three with what moving `b1` gave (the gradient of a bias *is* the delta):

# %%
blame = W2.T @ delta2
candidates = {"derivative, z1 > 0": z1 > 0, "nothing": 1.0, "activation a1": a1}
for name, factor in candidates.items():
    error = np.abs(blame * factor - moved[1]).max()
    print(f"blame times {name:<20} {blame * factor}  off by {error:.1f}")

# %% [markdown]
# With nothing, unit 0 is blamed though it was off. With the activation, unit 1 gets twice its blame. Unit 2 comes
# out right in all three, because it happened to output 1. One lucky number proves nothing: check them all.
#
# ## 5. One step downhill
#
# The gradient points to where the loss grows. **Gradient descent** moves each parameter $w$ the other way, in
# proportion to its derivative; the factor $\eta$ (eta) is the **learning rate**.
#
# $$w \leftarrow w - \eta \frac{\partial L}{\partial w}$$

# %%
eta, gradients = 0.1, [dW1, db1, dW2, db2]
after = [w - eta * g for w, g in zip(parameters.values(), gradients)]
for name, new in zip(parameters, after):
    print(f"{name} = {parameters[name].tolist()}\n  -> {new.round(4).tolist()}")
print(f"loss {loss:.4f} -> {loss_at(*after):.4f}")

# %% [markdown]
# The probability of class 0 went from one half to $e^{-0.0458} = 0.955$, in one step, on one example.
#
# Seventeen directions cannot be drawn, but two can: let only `W2[0, 1]` and `W1[1, 1]` move. Over their plane the loss
# is a landscape, the **loss surface**. Five steps on it:


# %%
def loss_on_plane(place):
    one, two = W1.copy(), W2.copy()
    two[0, 1], one[1, 1] = place
    return loss_at(one, b1, two, b2)


path = [np.array([W2[0, 1], W1[1, 1]])]
for _ in range(5):
    path.append(path[-1] - 0.2 * numerical_gradient(loss_on_plane, path[-1]))

descent_picture(
    loss_on_plane,
    path,
    across=(-0.5, 2.5),
    up=(-0.5, 2.0),
    title="Downhill: each step is shorter than the last",
    names=("W2[0, 1]", "W1[1, 1]"),
)

# %% [markdown]
# Each step leaves its contour line at a right angle, the steepest way down. The steps get shorter although the
# learning rate, here 0.2, stays the same: the surface gets flatter.
#
# ### When it lies: a gradient knows only *here*
#
# Each parameter moves by $-\eta$ times its derivative, and a small move changes the loss by the move times the
# derivative: by $-\eta$ times the derivative *squared*. The 17 squares add up to 15. So the step *promises* to
# lower the loss by $15\,\eta$. Does it keep the promise?

# %%
squared_length = sum((g**2).sum() for g in gradients)
etas = np.linspace(0, 0.1, 21)
actual = [loss_at(*(w - e * g for w, g in zip(parameters.values(), gradients))) for e in etas]
plots.curve(
    etas,
    {"actual": actual, "promised": loss - squared_length * etas},
    title="The gradient keeps its promise for small steps only",
    xlabel="learning rate",
    ylabel="loss after one step",
)

# %% [markdown]
# From a learning rate of 0.05 on, the promise is a loss below 0, which no cross-entropy can be. Remember this when a
# gradient is offered to you as an explanation: it tells what a *small* change does.
#
# ## 6. Let the machine do it
#
# You never differentiated the whole network. You took it apart into steps whose derivatives you know, and
# multiplied them on the way back. **Automatic differentiation** (autodiff) does this bookkeeping by program. Each
# number remembers its `parents`, the numbers it was computed from, and its derivative with respect to each of
# them, here called `slopes`:


# %%
class Number:
    def __init__(self, data, parents=(), slopes=()):
        self.data, self.parents, self.slopes, self.grad = data, parents, slopes, 0.0

    def __add__(self, other):
        return Number(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Number(self.data * other.data, (self, other), (other.data, self.data))


# %% [markdown]
# Take $f = a b + a$ at $a = 3$, $b = -2$. The number $a$ is used twice, so $f$ feels it along two paths, and the
# derivatives of the paths **add**: $b + 1 = -1$.
#
# That decides the order of the way back. A number may pass its blame on only when *all* of its own has arrived. An
# order in which parents always stand before what is made of them is a **topological order**; the way back walks it
# from the end.
#
# ### Exercise: the order (code, 4 minutes)
#
# Write a list of every number that `result` depends on, each once, parents first, `result` last. A function
# inside the function that calls itself does it: skip a number you have seen; else visit its parents, then append
# it. (Remember `id(number)` in a set: two numbers can be equal and not the same.)


# %% tags=["exercise"]
def ordered(result):
    """Every number that result depends on, each once, parents first."""
    ### BEGIN SOLUTION
    order, seen = [], set()

    def visit(number):
        if id(number) not in seen:
            seen.add(id(number))
            for parent in number.parents:
                visit(parent)
            order.append(number)

    visit(result)
    return order
    ### END SOLUTION


# %%
check("backprop.ordered", ordered)

# %% [markdown]
# ### Exercise: the sweep (code, 3 minutes)
#
# Now the way back. Set every `grad` to 0, and that of `result` to 1. Then go through the order from its end: each
# number adds its own `grad`, times the slope, to the `grad` of each parent. (`zip(number.parents, number.slopes)`
# gives them in pairs.)


# %% tags=["exercise"]
def my_backward(result):
    """Set grad of every number below result to the derivative of result by it."""
    ### BEGIN SOLUTION
    order = ordered(result)
    for number in order:
        number.grad = 0.0
    result.grad = 1.0
    for number in reversed(order):
        for parent, slope in zip(number.parents, number.slopes):
            parent.grad += slope * number.grad
    ### END SOLUTION


# %%
check("backprop.sweep", my_backward)

# %%
quiz("backprop.q_paths")

# %% [markdown]
# That is the engine inside PyTorch, minus speed. `xailab`'s `Value` is `Number` with more operations (ReLU among
# them) and with this sweep as its `backward`. Let eight hidden ReLU units, made of single `Value`s, learn a curve. You
# write the forward pass only:


# %%
def height(units, x):
    return sum((v * (w * x + b).relu() for w, b, v in units), Value(0.0))


def train(heights, backward=Value.backward, steps=300, eta=0.1, seed=0):
    """Fit heights at equal distances from -1 to 1; return the fit and the last loss."""
    rng, places = np.random.default_rng(seed), np.linspace(-1, 1, len(heights)).tolist()
    units = [[Value(start) for start in rng.normal(size=3)] for _ in range(8)]
    for _ in range(steps):
        errors = [(height(units, place) - h) ** 2 for place, h in zip(places, heights)]
        mean = sum(errors, Value(0.0)) * (1 / len(errors))
        backward(mean)
        for value in sum(units, []):
            value.data -= eta * value.grad
    return [height(units, place).data for place in places], mean.data


# %%
wave = [0, 0.6, 1, 0.6, 0, -0.6, -1, -0.6, 0]
fits = {seed: train(wave, seed=seed) for seed in (0, 1, 2)}
plots.curve(
    np.linspace(-1, 1, len(wave)),
    {"wave": wave} | {f"seed {seed}: loss {end:.3f}": fit for seed, (fit, end) in fits.items()},
    title="One training, three random seeds, three curves",
    xlabel="x",
    ylabel="height",
)

# %% [markdown]
# Same data, same code; only the **random seed**, from which the starting weights are drawn, differs. One of the three
# misses the hill on the left: downhill leads to *a* valley, so one run of a training is no measurement.
#
# ### Your own curve, your own engine (2 minutes)
#
# Write a list of heights (five to fifteen, from about -1 to 1): a spike, a staircase, a hill you know. Train on it with
# *your* sweep, `train(heights, backward=my_backward)`, and draw data and fit with `plots.curve` as above.

# %% tags=["exercise"]
### BEGIN SOLUTION
hill = [0, 0, 0.1, 0.7, 1, 0.7, 0.1, 0, 0]
fit, last_loss = train(hill, backward=my_backward, seed=1)
plots.curve(
    np.linspace(-1, 1, len(hill)),
    {"hill": hill, "fit": fit},
    title=f"My engine learns my hill: loss {last_loss:.3f}",
    xlabel="x",
    ylabel="height",
)
### END SOLUTION

# %%
progress()

# %% [markdown] tags=["deeper"]
# ## Deeper: a loss that looks right
#
# "Put a ReLU on the output, then take the negative log of the score." There is a log and it is negative, so it
# looks like cross-entropy. (*How to apply Cross Entropy on Rectified Linear Units?* has been asked on Stack
# Exchange.) Try a few scores for the true class, while the other class has 0:

# %%
scores = np.array([-1.0, 0.5, 1.0, 3.0, 20.0])
with np.errstate(divide="ignore"):
    of_relu = 0 - np.log(np.maximum(0, scores))
of_softmax = [softmax_cross_entropy([[s, 0.0]], [0])[0] for s in scores]  # [0]: the loss
plots.table(
    [(f"{s:g}", f"{a:.3f}", f"{b:.3f}") for s, a, b in zip(scores, of_relu, of_softmax)],
    ["score", "-ln(ReLU(score))", "softmax cross-entropy"],
    title="Only one is a loss",
)

# %% [markdown]
# Above 1 this loss is negative and has no lower end: the network is paid for making one number larger, whatever the
# other class gets. At -1 it is infinite. Then at least the derivative should say "up, quickly":

# %%
# NBVAL_CHECK_OUTPUT
score = torch.tensor(-1.0, requires_grad=True)
bad_loss = -torch.log(torch.relu(score))
bad_loss.backward()
print(f"at -1: loss {bad_loss.item()}, derivative {score.grad.item()}")
print(f"derivative of -log at 0 times that of the ReLU, in NumPy: {-np.inf * 0}")

# %% [markdown]
# An infinite loss, and a derivative of zero: the ReLU passes nothing back. The network learns nothing from exactly
# those examples on which it is most wrong. (Torch writes 0 where a ReLU was off; if you multiply it out, `nan` comes
# and spreads to the weights.) So a classifier's last layer gets **no** activation, and its loss is softmax and log in
# one.

# %% [markdown] tags=["deeper"]
# ## Deeper: when the gradient check is wrong itself
#
# **A step too large or too small.** A long step leaves the straight part of the curve. A tiny one drowns: a loss is
# known to about 16 digits, so after a step of $10^{-15}$ the difference is made of rounding. Here is the error of the
# derivative with respect to `W2[0, 1]`, for steps from $10^{-15}$ to 0.1. (With `b2` = [0, 1], because at two equal
# logits the long steps happen to be right.)

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
    title="A long step sees the curvature, a tiny one only rounding",
    xlabel="power of ten of the step",
    ylabel="error of the derivative",
    log=True,
)

# %% [markdown]
# The bottom of the valley lies near $10^{-5}$. `numerical_gradient` takes $10^{-6}$ unless you say otherwise: the
# error is still below $10^{-9}$, and a shorter step is less likely to cross a kink (see below). It refuses float32,
# whose 7 digits would be used up long before.
#
# **A kink.** At exactly 0 a ReLU has no derivative. Moving both ways gives the mean of both sides, and torch gives 0.
# The two disagree, and neither has a bug:

# %%
# NBVAL_CHECK_OUTPUT
zero = torch.zeros(1, requires_grad=True)
torch.relu(zero).backward()
print("by moving it:", numerical_gradient(lambda v: np.maximum(0, v).sum(), np.zeros(1)))
print("torch:       ", zero.grad.numpy())

# %% [markdown] tags=["deeper"]
# ## Deeper: another loss, and a step too far
#
# Say the two outputs are not classes but two quantities that should have been $t = (3, 0)$. Then the loss is the
# **mean squared error**, and only the *first* delta changes:
#
# $$L = \frac{1}{2}\sum_k (z_k - t_k)^2 \qquad
#   \delta_2 = \frac{\partial L}{\partial z_2} = \frac{2}{2}(z_2 - t)$$
#
# The 2 below is the number of outputs, the 2 above comes from the square. The rest of the way back is the same code:

# %%
from xailab.foundations.backprop import mean_squared_error

t = np.array([3.0, 0.0])
squared_loss, delta_mse = mean_squared_error(net.forward(x[None]), t[None])
net.backward(delta_mse)
gradients_mse = [g.copy() for g in net.gradients()]
print("loss", squared_loss, " delta2", delta_mse[0], " delta1", gradients_mse[1])


# %%
def squared_loss_at(W1, b1, W2, b2):
    return np.mean((W2 @ np.maximum(0, W1 @ x + b1) + b2 - t) ** 2)


arrays = [W1, b1, W2, b2]
for gradient, array in zip(gradients_mse, arrays):
    by_steps = numerical_gradient(lambda _: squared_loss_at(*arrays), array)
    assert np.abs(gradient - by_steps).max() < 1e-6
print("all 17 agree with moving the parameters")

# %% [markdown]
# The 17 squares add up to 138 this time, so a learning rate of 0.01 promises to lower the loss from 2.5 to 1.12. What
# about 0.08? Will the loss be `"lower"` or `"higher"` than 2.5?

# %% tags=["exercise"]
### BEGIN SOLUTION
after_a_big_step = "higher"
### END SOLUTION

# %%
predict("backprop.big_step", after_a_big_step)

# %%
rates = np.linspace(0, 0.08, 33)
reached = [squared_loss_at(*(w - e * g for w, g in zip(arrays, gradients_mse))) for e in rates]
length_mse = sum((g**2).sum() for g in gradients_mse)
print(f"squares {length_mse:g}; loss at 0.01: {reached[4]:.3f}, at 0.08: {reached[-1]:.3f}")

# %%
reveal("backprop.big_step", "higher" if reached[-1] > squared_loss else "lower")

# %%
plots.curve(
    rates,
    {"actual": reached, "promised": squared_loss - length_mse * rates},
    title="Too long a step climbs the other side of the valley",
    xlabel="learning rate",
    ylabel="mean squared error",
)

# %% [markdown] tags=["deeper"]
# ## Deeper: two paths, and why one sweep is enough
#
# A unit with a shortcut around its ReLU, and the target 3. The sum $z$ is used twice:

# %%
w, v, bias, target = Value(0.5, "w"), Value(2.0, "x"), Value(1.0, "b"), Value(3.0, "t")
z = w * v + bias
z.name = "z"
squared = (z.relu() + z - target) ** 2
squared.backward()
w.grad, v.grad, bias.grad

# %%
nodes = squared.walk()  # every number on the way, operands first: the package's `ordered`
labels = {id(n): f"{n.name} {n.op}".strip() + f"\n{n.data:g}\n∂ {n.grad:g}" for n in nodes}
edges = [
    (id(parent), id(n), f"×{slope:g}") for n in nodes for parent, slope in zip(n.parents, n.slopes)
]
spots = [(0, 0), (0, 2), (1, 1), (1, 2), (2, 1), (3, 0), (4, 1), (4, 2), (5, 1), (6, 1)]
plots.graph(
    edges,
    labels,
    title="Two paths lead from z to the error: 2 + 2 = 4",
    positions={id(n): spot for n, spot in zip(nodes, spots)},
    highlight=[id(z)],
    alt="An expression graph from left to right. w times x plus b gives z = 2. From z, one arrow "
    "goes through a ReLU and one past it; both meet in a sum of 4, minus 3 is 1, squared is 1. "
    "Backward: 2 along each of the two paths, so 4 at z; then 8 at w, 2 at x, 4 at b.",
)

# %% [markdown]
# In each box: the operation, its value, and under it the derivative of the error (∂). On each arrow: the derivative of
# one step. To get from a box to the one before it, multiply; where two arrows leave one box, add. Follow it from the
# right to $w$: $1 \cdot 2 \cdot 1 \cdot (1 + 1) \cdot 1 \cdot 2 = 8$.


# %% [markdown]
# ### Exercise: a ReLU for `Number` (code, 2 minutes)
#
# `Number` has sums and products only, and they give no bend. Return a new `Number` with the value, the one parent and the one slope of
# a ReLU. (A tuple of one needs its comma: `(number,)`.)


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
# ### Why one sweep
#
# Could you walk every *path* instead? Double a number 16 times, and count the visits:


# %%
def by_paths(number, signal=1.0):
    """Walk every path on its own; return how many visits that takes."""
    number.grad += signal
    pairs = zip(number.parents, number.slopes)
    return 1 + sum(by_paths(parent, signal * slope) for parent, slope in pairs)


start = doubled = Value(1.0)
for _ in range(16):
    doubled = doubled + doubled
visits = by_paths(doubled)
print(f"every path: derivative {start.grad:g} after {visits:,} visits")
doubled.backward()
print(f"one sweep:  derivative {start.grad:g} after {len(doubled.walk())} visits")

# %% [markdown]
# One forward and one backward sweep give the derivatives with respect to *all* inputs. (This direction is called
# **reverse mode**.) Moving each parameter by itself takes two forward passes per parameter: with 17 nobody minds, with
# a million each step downhill would take two million forward passes.

# %% [markdown] tags=["deeper"]
# ## Deeper: layers, and whole batches
#
# In practice a step is a layer, and a number is a matrix with one row per example. Each layer keeps two promises:
# `forward` computes and remembers, `backward` takes the gradient with respect to its result and returns the one with
# respect to its input. Here are the three layers of `net`:

# %%
# NBVAL_CHECK_OUTPUT
signal = softmax_cross_entropy(net.forward(x[None]), [y])[1]  # (1, 2)
print(f"{'above':<22} {signal}")
for step in reversed(net.layers):
    signal = step.backward(signal)
    print(f"below {type(step).__name__:<16} {signal}")

# %% [markdown]
# You know these rows: `delta2`, the blame, `delta1` and `dx`.
#
# ### Exercise: two other activations (code, 3 minutes each)
#
# ReLU's backward multiplied by 1 or 0. Write it for two other activations. `z` is the sum that went in on the way
# forward, `signal` what comes from above; both have the same shape.
#
# $$\sigma(z) = \frac{1}{1 + e^{-z}} \qquad \sigma'(z) = \sigma(z)\,(1 - \sigma(z))
#   \qquad\qquad \tanh'(z) = 1 - \tanh^2(z)$$


# %% tags=["exercise"]
def sigmoid_backward(signal, z):
    """Derivative of the loss by z, given the one by sigmoid(z)."""
    ### BEGIN SOLUTION
    s = 1 / (1 + np.exp(-z))
    return signal * s * (1 - s)
    ### END SOLUTION


# %%
check("backprop.sigmoid", sigmoid_backward)


# %% tags=["exercise"]
def tanh_backward(signal, z):
    """Derivative of the loss by z, given the one by tanh(z)."""
    ### BEGIN SOLUTION
    return signal * (1 - np.tanh(z) ** 2)
    ### END SOLUTION


# %%
check("backprop.tanh", tanh_backward)

# %% [markdown]
# ### Exercise: a two-layer network on a batch (code, 12 minutes)
#
# Now all of it, for N examples at once, with D inputs, H hidden units and K classes. `X` is (N, D), one row per
# example, so the sums become `X @ W1.T + b1`, (N, H). Two things change: a weight collects from every row, which is one
# matrix product of deltas and activations, and the loss is the **mean** over the rows, so the first delta is divided by
# N. `softmax_cross_entropy(logits, y)` returns the loss and that first delta.


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
# And the package against torch, on a larger network and 128 rows:

# %%
draws = np.random.default_rng(0)
X, classes = draws.normal(size=(128, 20)), draws.integers(0, 10, 128)
large = MLP([20, 64, 64, 10], activation="tanh", seed=0)
large.backward(softmax_cross_entropy(large.forward(X), classes)[1])

a, leaves = torch.tensor(X), [torch.tensor(p, requires_grad=True) for p in large.parameters()]
for i in (0, 2, 4):
    a = torch.nn.functional.linear(a if i == 0 else a.tanh(), *leaves[i : i + 2])
torch.nn.functional.cross_entropy(a, torch.tensor(classes)).backward()
gaps = [np.abs(ours - leaf.grad.numpy()).max() for ours, leaf in zip(large.gradients(), leaves)]
assert max(gaps) < 1e-10
print(f"largest difference {max(gaps):.0e}")

# %% [markdown] tags=["deeper"]
# ## Deeper: does it learn something real?
#
# 1,797 handwritten digits of 8 x 8 pixels. A network with 64 inputs, 32 hidden units and 10 classes takes the step of
# section 5 on 32 digits at a time (**stochastic gradient descent**) and is tested on 400 digits that it never sees. Three
# random seeds, each with its own starting weights, its own order and its own 400:


# %%
from xailab import data

digits = data.load("digits")
flat = digits.images.reshape(-1, 64) / 16  # (1797, 64), from 0 to 1


def train_step(net, x, y, learning_rate):
    loss, delta = softmax_cross_entropy(net.forward(x), y)
    net.backward(delta)
    for parameter, gradient in zip(net.parameters(), net.gradients()):
        parameter -= learning_rate * gradient
    return loss


# %%
def learn_digits(seed, epochs=25):
    """Return network, rows of the test, and both losses after each epoch."""
    rng, reader, losses = np.random.default_rng(seed), MLP([64, 32, 10], seed=seed), []
    rows = rng.permutation(len(flat))
    seen, test = rows[:-400], rows[-400:]
    for _ in range(epochs):
        batches = np.array_split(rng.permutation(seen), 44)
        now = np.mean([train_step(reader, flat[b], digits.y[b], 0.3) for b in batches])
        losses.append((now, softmax_cross_entropy(reader.forward(flat[test]), digits.y[test])[0]))
    return reader, test, np.array(losses)


# %%
runs = [learn_digits(seed) for seed in (0, 1, 2)]
told = [reader.forward(flat[test]).argmax(axis=1) for reader, test, _ in runs]
correct = [(guess == digits.y[test]).mean() for guess, (_, test, _) in zip(told, runs)]
plots.curve(
    np.arange(1, 26),
    {"training": runs[0][2][:, 0], "test": runs[0][2][:, 1]},
    title="Backward passes by hand learn to read: "
    + ", ".join(f"{share:.1%}" for share in correct)
    + " right",
    xlabel="epoch (each digit seen once; curves of the first seed)",
    ylabel="cross-entropy",
)

# %% [markdown]
# The test loss ends above the training loss: part of what the network learned holds only for the digits it has seen.
# (The training loss starts higher because it is averaged over the epoch, while the network is still changing.) And
# where is it wrong?

# %%
mistaken = [(i, g) for i, g in zip(runs[0][1], told[0]) if g != digits.y[i]][:5]
plots.images(
    [flat[i].reshape(8, 8) for i, _ in mistaken],
    titles=[f"a {digits.y[i]}, read as {g}" for i, g in mistaken],
    title="Five digits that the first network misreads",
)

# %% [markdown] tags=["deeper"]
# ## Deeper: a training step with three bugs
#
# ### Exercise: review this code (criticize, 5 minutes)
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
# Three things are wrong, besides the biases that never learn; the output and its loss count as one. Name them, say what
# each does, and how you would have found out.

# %% tags=["exercise"]
review = """
### BEGIN SOLUTION
1. The output goes through a ReLU and then a log. A negative score gives an infinite loss, a score
   above 1 a negative one, and delta2 = out - onehot(y) is not the gradient of this loss. The last
   layer needs no activation; use softmax and cross-entropy, whose gradient is p - onehot(y).
2. delta1 multiplies by the activation a1. It must be the derivative of the ReLU, the mask z1 > 0.
3. W2 is changed before delta1 uses it: the blame goes down through the new weights instead of
   those that made the mistake. Compute all gradients first, then change the weights.
Finite differences on each weight find 1 and 2 at once, and 3 if the whole step is checked.
### END SOLUTION
"""

# %%
check("backprop.review", review)

# %% [markdown]
# ## You can now
#
# - compute the forward and the backward pass of a small network, in code of your own
# - check a gradient with finite differences, and catch a wrong one
# - take a step downhill, and say how far a gradient can be trusted
# - build the backward sweep of an automatic differentiation engine, and train with it
#
# ## Takeaways
#
# - Backward is forward in reverse: at each step, multiply what comes from above by the local derivative; where
#   paths meet, add.
# - A gradient says what a *small* change does, here. It is checked by making small changes.
# - A layer needs its input and the derivative of its activation; the loss decides the first delta only.
#
# ## Myth refuted
#
# *"The delta of a hidden layer is $W^\top\delta$ times the activation"*, or $W^\top\delta$ alone. One can read both.
# Section 4: finite differences disagree with both; the factor is the **derivative** of the activation. (*"Put a ReLU on
# the classifier's output and take its log"* is refuted in the section on a loss that looks right.)
#
# ## Go further
#
# - Rumelhart, Hinton, Williams (1986), *Learning representations by back-propagating errors*, Nature 323: four pages,
#   still readable.
# - Baydin, Pearlmutter, Radul, Siskind (2018), *Automatic Differentiation in Machine Learning: a Survey*, JMLR 18: forward
#   and reverse mode, and what they are not.
# - Karpathy, *micrograd* (2020): an engine like yours in under a hundred lines, with a video lecture.
