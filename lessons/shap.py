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
# # SHAP: who earned which part of the score?
#
# **Question:** A network predicts how far a patient's disease will go: how many points of that
# prediction belong to the weight, how many to the blood pressure?
#
# **You will be able to**
# - share out a score by Shapley's definition, with a pencil and in code
# - estimate Shapley values by orders and by regression, and say how far off you are
# - explain a tree and a network, and tell the exact methods from the approximate ones
# - say what "without this feature" means in an explanation, and change the answer by changing it
# - show a case in which SHAP describes patients who cannot exist
#
# **You need:** [[backprop]] and [[integrated_gradients]]
#
# **Time:** [[time]]; the cells run in half a minute · **Difficulty:** 4 of 5

# %%
import os
from copy import deepcopy
from functools import cache
from itertools import combinations, permutations
from math import comb, factorial
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.tree import DecisionTreeRegressor, export_text
from torch import nn

from xailab import data, plots, widgets
from xailab.attribution import shapley
from xailab.attribution.paths import expected_gradients, integrated_gradients
from xailab.attribution.relevance import deep_lift, deep_shap
from xailab.attribution.saliency import input_x_gradient
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.scoreboard import marked_digits_known_answer, record, score

# %% [markdown]
# The data are real: 442 diabetes patients, ten measurements each, and a number that says how far the
# disease had gone one year later (25 to 346 points). Five of the measurements will do for now. `train`
# and `test` are row numbers.

# %%
table = data.load("diabetes")
order = np.random.default_rng(0).permutation(len(table))
train, test = order[:342], order[342:]
Z = (table.X - table.X[train].mean(0)) / table.X[train].std(0)  # (442, 10), standardized
FIVE = [table.names.index(name) for name in ["bmi", "bp", "s1", "s2", "s5"]]
NAMES = ["bmi", "blood pressure", "cholesterol", "LDL", "triglycerides"]
Z.shape

# %% [markdown]
# `cholesterol` is the total, LDL is a part of it, and `triglycerides` is a logarithm. A small network
# learns to predict the points:


# %%
def trained(x, y, width=16, steps=80):
    """A network for columns x (N, F) and numbers y (N,), which answers in the units of y."""
    torch.manual_seed(0)
    layers = [nn.Linear(x.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(width, 1)).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-3)
    goal = torch.tensor((y - y.mean()) / y.std())[:, None]
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(net(torch.tensor(x)), goal).backward()
        optimizer.step()
    with torch.no_grad():  # back from standardized answers to points
        net[4].weight *= y.std()
        net[4].bias.mul_(y.std()).add_(y.mean())
    return net


# %%
def asks(net):
    """The network as a function of arrays: (M, F) -> (M,)."""

    def answers(rows):
        with torch.no_grad():
            return net(torch.tensor(rows))[:, 0].numpy()

    return answers


# %%
net = trained(Z[train][:, FIVE], table.y[train])
f = asks(net)
error = np.abs(f(Z[test][:, FIVE]) - table.y[test]).mean()
guess = np.abs(table.y[train].mean() - table.y[test]).mean()
print(f"mean error on patients it has not seen: {error:.0f} points; always the mean: {guess:.0f}")

# %% [markdown]
# Not a good doctor, but it has learned something. Take one patient it has not seen. This is the picture
# that you will build in this lesson, and learn to doubt:

# %% tags=["readme-shap"]
PATIENT = 276
assert PATIENT in test
x = Z[PATIENT, FIVE]  # (5,)
background = Z[train[:100]][:, FIVE]  # (100, 5): 100 patients to compare with
values = table.X[PATIENT, FIVE]
labels = [f"{name} {value:.3g}" for name, value in zip(NAMES, values)]
base = f(background).mean()
shares = shapley.kernel_shap(f, x, background)
plots.waterfall(
    shares,
    labels,
    base=base,
    title=f"From {base:.0f} points, the mean of 100 patients, to {f(x[None])[0]:.0f}",
    xlabel="points of predicted progression",
)

# %% [markdown]
# Read it from the top, beginning at the mean: each step is a share, and all shares together make exactly
# the difference between this patient and the mean of the others. Where do such numbers come from?
#
# ## 1. Three players on paper
#
# Ana writes, Ben draws, Cleo sells. On the market they sell comics. Here is what each team of them
# takes in on a Sunday, in euros:

# %%
takings = {"": 0, "A": 20, "B": 10, "C": 0, "AB": 60, "AC": 40, "BC": 10, "ABC": 90}
TEAMS = {frozenset("ABC".index(p) for p in team): euros for team, euros in takings.items()}


def comic(team):
    """Takings of a team, a frozenset of 0 (Ana), 1 (Ben), 2 (Cleo)."""
    return TEAMS[frozenset(team)]


comic({0, 1, 2})

# %% [markdown]
# They earned 90 together. What is a fair share for each? Cleo alone earns nothing, so nothing? But
# without her, Ana and Ben earn 30 less.
#
# Shapley's idea (1953): let them arrive **one after another**, and give each what the takings rise by
# when they arrive. Ana first: 20. Then Ben: from 20 to 60, so 40. Then Cleo: 30. That is unfair to
# whoever comes early, so do it in **every** order, and take the mean. Three players, six orders:


# %%
def arrivals(order, worth):
    """What each player adds on arrival, by player."""
    added, team = np.zeros(len(order)), frozenset()
    for player in order:
        added[player] = worth(team | {player}) - worth(team)
        team |= {player}
    return added


orders = list(permutations(range(3)))
added = np.array([arrivals(order, comic) for order in orders])  # (6, 3)

# %%
names = ["Ana", "Ben", "Cleo"]
rows = [(", ".join(names[p] for p in order), *row) for order, row in zip(orders, added)]
rows.append(("mean", *added.mean(0).round(2)))
plots.table(rows, ["order", *names], title="Each order adds up to 90, and so do the means")

# %% [markdown]
# Check a row with a pencil before you go on. The last line holds the three **Shapley values**. Cleo
# gets a share although she earns nothing alone: she is worth something to the others.
#
# ### The definition, without orders
#
# Six orders are few, but ten players have 3,628,800. You need not walk them all: what Cleo adds depends
# on **who** came before her, not on their order. So sum over the teams $S$ that she may meet, and
# weigh each by the part of all orders in which exactly $S$ came before her:
#
# $$\phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n - |S| - 1)!}{n!}
#   \big(v(S \cup i) - v(S)\big)$$
#
# $\phi_i$ is the share of player $i$, $N$ are all $n$ players, $v(S)$ is what team $S$ is worth, $|S|$ its
# size. (Those before $i$ can come in $|S|!$ orders, those after in $(n - |S| - 1)!$.) For Cleo ($n = 3$):
# nobody before her in $2$ of $6$ orders, only Ana in $1$, only Ben in $1$, both in $2$:

# %%
cleo = 2 / 6 * (0 - 0) + 1 / 6 * (40 - 20) + 1 / 6 * (10 - 10) + 2 / 6 * (90 - 60)
print(f"Cleo by teams {cleo:.4f}, by orders {added.mean(0)[2]:.4f}")

# %% [markdown]
# ### Exercise: Shapley values from the definition (code, 15 minutes)
#
# Write the formula for any game. `worth` takes a frozenset of players $0..n-1$ and may be worth
# something for nobody at all. `hint("shap.shares")` helps in up to three steps.


# %% tags=["exercise"]
def my_shares(worth, n):
    """Shapley values of the n players, as a list or an array."""
    ### BEGIN SOLUTION
    shares = np.zeros(n)
    for player in range(n):
        others = [other for other in range(n) if other != player]
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for team in map(frozenset, combinations(others, size)):
                shares[player] += weight * (worth(team | {player}) - worth(team))
    return shares
    ### END SOLUTION


# %%
check("shap.shares", my_shares)

# %% [markdown]
# The package has the formula as `shapley_of_game`:

# %%
np.testing.assert_allclose(shapley.shapley_of_game(comic, 3), added.mean(0))

# %% [markdown]
# ## 2. Why this and not another share?
#
# Here are two other ways to pay. *Alone*: what each earns without the others. *Last*: what the team
# loses when one stays at home. The second has a name when players are pixels: occlusion ([[lime]]).

# %%
everyone = frozenset(range(3))
alone = [comic({p}) for p in range(3)]
last = [comic(everyone) - comic(everyone - {p}) for p in range(3)]
for name, pay in {"alone": alone, "last": last, "Shapley": added.mean(0)}.items():
    print(f"{name:8}", np.round(pay, 1), "sum", round(float(sum(pay)), 1))

# %% [markdown]
# One leaves 60 euros in the box, the other pays out 70 more than there are. Shapley proved more:
# **only** his shares keep all four of these promises.
#
# | promise | in words |
# |---|---|
# | efficiency | the shares add up to $v(N) - v(\emptyset)$ |
# | symmetry | two players who add the same to every team get the same |
# | dummy | who adds nothing to any team gets nothing |
# | additivity | the shares of two games together are the sums of the shares |
#
# A proof is in the paper. Here you can at least watch it keep them, on a game of five players with
# random worths; player 3 is a dummy, and 0 and 1 are twins:


# %%
def random_game(seed):
    worths = np.random.default_rng(seed).normal(size=(3, 2, 2))  # how many of 0 and 1; 2; 4
    return lambda team: worths[len(team & {0, 1}), int(2 in team), int(4 in team)]


a, b = random_game(1), random_game(2)
of_a, of_b = shapley.shapley_of_game(a, 5), shapley.shapley_of_game(b, 5)
print("shares of a:", of_a.round(3))

# %%
np.testing.assert_allclose(of_a.sum(), a(frozenset(range(5))) - a(frozenset()))  # efficiency
np.testing.assert_allclose(of_a[0], of_a[1])  # symmetry
np.testing.assert_allclose(of_a[3], 0, atol=1e-12)  # dummy
both = shapley.shapley_of_game(lambda team: a(team) + b(team), 5)
np.testing.assert_allclose(both, of_a + of_b)  # additivity

# %% [markdown]
# ## 3. Features as players
#
# Now the players are the five measurements, and the takings are the network's prediction. But what is
# the prediction of a team, say of `bmi` and `LDL` alone? A network wants all five numbers. SHAP fills
# the gaps with **other patients**: take `bmi` and `LDL` from our patient, the rest from a patient of
# the background, ask the network; do it for each patient of the background, and take the mean:
#
# $$v(S) = \frac{1}{B} \sum_{b} f(x_S, b_{\bar S})$$
#
# $f$ is the network, $x$ our patient, $b$ runs over the $B$ rows of the background, and
# $(x_S, b_{\bar S})$ has the features in $S$ from $x$ and the others from $b$.

# %%
team = [0, 3]  # bmi and LDL
rows = background.copy()  # (100, 5)
rows[:, team] = x[team]
print(f"nobody known  {f(background).mean():.1f}")
print(f"bmi and LDL   {f(rows).mean():.1f}")
print(f"all known     {f(x[None])[0]:.1f}")


# %%
@cache
def worth(team):
    """What the network says of our patient when only the features in `team` are known."""
    rows = background.copy()
    rows[:, list(team)] = x[list(team)]
    return f(rows).mean()


exact = shapley.shapley_of_game(worth, 5)
for name, share in zip(NAMES, exact):
    print(f"{name:15} {share:+.1f}")

# %% [markdown]
# The same game with all $2^5 = 32$ teams runs inside `kernel_shap` (why it is called that: section 6):

# %%
np.testing.assert_allclose(shapley.kernel_shap(f, x, background), exact, rtol=0, atol=1e-8)

# %% [markdown]
# And the library that made these values popular. `shap` compiles parts of itself when they first run,
# which takes longer than all our 32 teams; a switch turns that off. `Independent` says how gaps are
# filled: from the background, as above.

# %%
os.environ["NUMBA_DISABLE_JIT"] = "1"  # before shap is imported
import shap

filler = shap.maskers.Independent(background, max_samples=len(background))
theirs = shap.ExactExplainer(f, filler)(x[None], silent=True)
np.testing.assert_allclose(theirs.values[0], exact, rtol=0, atol=1e-8)
np.testing.assert_allclose(theirs.base_values[0], base)

# %% [markdown]
# The picture at the top is one way to draw the shares: from the base to the prediction in steps.
# Another, made popular by the same library, sets what raises the prediction against what lowers it:

# %%
plots.force(
    exact,
    labels,
    base=base,
    title="Four features push up, cholesterol alone pulls down",
    xlabel="points of predicted progression",
)

# %% [markdown]
# Now play. The five boxes are the features of our patient. Tab moves from one to the next, space
# switches it in or out: left you see what each added **in the order in which you switched them in**.
# The slider runs through the 120 orders, and right you see the means over those so far beside the exact
# values. Try: what do the triglycerides add as the first, and what after cholesterol?

# %%
widgets.coalition_explorer(f, x, background, labels, xlabel="points")

# %% [markdown]
# ## 4. It is not the slope
#
# One can read: *"the SHAP value is the partial derivative of the model with respect
# to the feature."* Test it on a function that you can do on paper:
# $f(x_1, x_2) = x_1 \cdot x_2$ at the point $(0, 3)$. The derivative with respect to $x_1$ is $x_2 = 3$.
#
# ### Predict, then run (3 minutes)
#
# Compare with the single background row $(1, 1)$. What is the Shapley value of $x_1$? There are
# two orders: write down both steps of $x_1$, and take their mean.

# %% tags=["exercise"]
### BEGIN SOLUTION
share_of_x1 = -2
### END SOLUTION

# %%
predict("shap.product", share_of_x1)


# %%
# NBVAL_CHECK_OUTPUT
def product(x):
    return x[:, 0] * x[:, 1]


point = torch.tensor([[0.0, 3.0]], requires_grad=True)
(slopes,) = torch.autograd.grad(product(point).sum(), point)
ones = shapley.shapley_values(product, point.detach(), None, baseline=1.0)  # None: one output
zeros = shapley.shapley_values(product, point.detach(), None, baseline=0.0)
print("slopes            ", slopes[0].tolist())
print("Shapley from (1,1)", ones[0].tolist())
print("Shapley from (0,0)", zeros[0].tolist())

# %%
reveal("shap.product", ones[0, 0].item())

# %% [markdown]
# The slope of $x_1$ is $+3$, its Shapley value $-2$: not even the sign is the same. The slope asks what
# a *tiny step* from here would do. The Shapley value asks what came from **being here and not there**:
# from 1 down to 0, $x_1$ wiped out the product. And with another *there*, it is 0.
#
# A function of one variable, a step from 0 to 1 at $x = 2$, makes it plainer still. At $x = 3$ the
# slope is 0, but all of the score came from $x$:


# %%
# NBVAL_CHECK_OUTPUT
def step(x):
    return torch.where(x[:, 0] > 2, 1.0, 0.0) + 0 * x[:, 0]  # 0 * x: so that it has a slope


point = torch.tensor([[3.0]], requires_grad=True)
(slope,) = torch.autograd.grad(step(point).sum(), point)
print("slope  ", slope.item())
print("Shapley", shapley.shapley_values(step, point.detach(), None, baseline=0.0).item())

# %% [markdown]
# Where does the false sentence come from? From linear models: there
# $\phi_i = w_i\,(x_i - \bar b_i)$, the slope **times** the way from the background's mean. Without that
# factor, and without the straight line, nothing of it is left.

# %%
quiz("shap.q_slope")

# %% [markdown]
# ## 5. Too many orders: draw some
#
# Five features have 32 teams. Thirty have a billion. But a mean over all orders can be
# **estimated** by a mean over a few random ones, and every estimate should carry its error bar. Twenty
# orders:

# %%
generator = np.random.default_rng(0)
drawn = [generator.permutation(5) for _ in range(20)]
added = np.array([arrivals(order, worth) for order in drawn])  # (20, 5)
error = added.std(0, ddof=1) / np.sqrt(len(added))
plots.bars(
    added.mean(0),
    [f"{name}, exact {share:.1f}" for name, share in zip(NAMES, exact)],
    errors=error,
    title="Twenty random orders come near the exact values",
    xlabel="points (error bar: one standard error)",
)

# %% [markdown]
# How good are the error bars themselves? Here we know the exact values, so count in standard errors how
# far off each estimate is; beyond 2 should be rare. And all 120 orders tell how long the bars should be:

# %%
of_all = np.array([arrivals(order, worth) for order in permutations(range(5))])  # (120, 5)
should = of_all.std(0) / np.sqrt(len(added))
for name, off, one, true in zip(NAMES, added.mean(0) - exact, error, should):
    print(f"{name:15} {off / one:+.1f} standard errors of {one:.1f}, which should be {true:.1f}")

# %% [markdown]
# One of five is far outside: bad luck twice. Its mean is off, and its error bar, from the same twenty
# orders, is too short. An error bar is an estimate too.
#
# Each order adds up to the whole, so the estimate does too, however few orders you draw. A cheap trick
# makes it better: walk each order **forwards and backwards**. Who came early now also comes late:

# %%
back = np.array([arrivals(order[::-1], worth) for order in drawn])
pairs = (added + back) / 2  # (20, 5)
error_of_pairs = pairs.std(0, ddof=1) / np.sqrt(len(pairs))
for name, one, two in zip(NAMES, error, error_of_pairs):
    print(f"{name:15} standard error {one:.2f}, both ways {two:.2f}")

# %% [markdown]
# Twice the work, but the errors shrink by far more than twice the work would buy. The reason: what one
# pair of features does together is counted once in each direction, and so exactly right. Only what
# three or more do together is left to chance. The package does the same:

# %%
ours = shapley.permutation_shap(f, x, background, n_permutations=20, seed=0)
np.testing.assert_allclose(ours, pairs.mean(0), rtol=0, atol=1e-8)

# %% [markdown]
# ## 6. KernelSHAP: the same values by regression
#
# Another way to the same numbers. Suppose each feature had a fixed price $\phi_i$, and a team were
# worth the sum of its prices. Fit the prices to the 32 worths by least squares. No prices fit all
# teams, so it matters how much each team **weighs**. Lundberg and Lee (2017) showed: with these
# weights, the best prices are the Shapley values,
#
# $$w(S) = \frac{n - 1}{\binom{n}{|S|}\,|S|\,(n - |S|)}$$
#
# $n$ is the number of features and $|S|$ the size of the team. For nobody and for everybody, the weight
# would be infinite: these two must fit exactly.
#
# ### Exercise: the weight of one team (code, 4 minutes)


# %% tags=["exercise"]
def my_weight(n, size):
    """Weight of one team of this size, from 1 to n - 1, among n features."""
    ### BEGIN SOLUTION
    return (n - 1) / (comb(n, size) * size * (n - size))
    ### END SOLUTION


# %%
check("shap.weight", my_weight)

# %% [markdown]
# All teams of one size together weigh $\binom{n}{|S|}$ times that. Look at twelve features:

# %%
together = shapley.shapley_kernel_weights(12)  # one number a size, 1 to 11
plots.bars(
    together / together.sum(),
    [f"{size} known ({comb(12, size)} teams)" for size in range(1, 12)],
    title="The smallest and the largest teams weigh most",
    xlabel="share of all weight",
)

# %% [markdown]
# A team of one says what a feature does alone, a team of all but one what is lost without it. Those in
# the middle mix up so many features that each tells little about any.
#
# Now the regression by hand, on the 30 teams between nobody and everybody. The two exact conditions are
# met by putting them in: the answers count from $v(\emptyset)$, and the last price is what the others
# leave of the whole.

# %%
masks = np.array([[(k >> i) & 1 for i in range(5)] for k in range(1, 31)], dtype=float)  # (30, 5)
answers = np.array([worth(frozenset(np.flatnonzero(mask))) for mask in masks]) - base
size = masks.sum(1)
weights = np.array([4 / (comb(5, int(k)) * k * (5 - k)) for k in size])
whole = worth(frozenset(range(5))) - base
print(masks.shape, "weights", sorted(set(weights.round(4).tolist())))

# %%
design = masks[:, :4] - masks[:, 4:]  # the last price is replaced by whole - sum of the others
goal = answers - masks[:, 4] * whole
W = np.diag(weights)
prices = np.linalg.solve(design.T @ W @ design, design.T @ W @ goal)  # (4,)
prices = np.append(prices, whole - prices.sum())
print("prices", prices.round(1).tolist())
np.testing.assert_allclose(prices, exact, rtol=0, atol=1e-8)

# %% [markdown]
# Equal to eight digits behind the point, and no order in sight. `shap` does the same:

# %%
kernel = shap.KernelExplainer(f, background)
theirs = kernel.shap_values(x[None], silent=True)[0]
np.testing.assert_allclose(theirs, exact, rtol=0, atol=1e-8)

# %% [markdown]
# ### How many teams do you need?
#
# With all teams the regression is exact. Its use is that you may draw some of them. Take a second
# network, on all ten columns: 1,022 teams between nobody and everybody. Draw 64 of them, then 128, and
# so on, each with 20 seeds, and compare with the exact values:

# %%
net10 = trained(Z[train], table.y[train])
f10, background10 = asks(net10), Z[train[:100]]
exact10 = shapley.kernel_shap(f10, Z[PATIENT], background10)  # all 1,024 teams


def miss(n, seed):
    """Root mean square error over the ten features, n teams drawn."""
    some = shapley.kernel_shap(f10, Z[PATIENT], background10, n_samples=n, seed=seed)
    return np.sqrt(np.mean((some - exact10) ** 2))


counts = 2 ** np.arange(6, 10)  # 64 to 512
errors = np.array([[miss(n, seed) for seed in range(20)] for n in counts])  # (4, 20)

# %%
mean = errors.mean(1)
slope = np.polyfit(np.log(counts[1:]), np.log(mean[1:]), 1)[0]
assert -0.65 < slope < -0.35
plots.curve(
    np.log2(counts),
    {
        "worst of 20 seeds": errors.max(1),
        "mean of 20 seeds": mean,
        "slope -1/2": mean[-1] * np.sqrt(counts[-1] / counts),
        "best of 20 seeds": errors.min(1),
    },
    log=True,
    title=f"Four times as many teams halve the error: slope {slope:.2f} from 128 on",
    xlabel="teams drawn: 2 to the power of",
    ylabel="error, points",
)

# %% [markdown]
# Both axes count in powers, so the straight line says: the error falls as $1/\sqrt{n}$, the pace of
# every mean of random draws. One more digit costs a hundred times the work. (At 64 it is worse than the
# line: few teams for ten prices.) And look at the distance from the best to the worst seed: one run
# with one seed tells you nothing about its own error.
#
# And the time? The same teams, the same rows, five patients:


# %%
def timed(function):
    began = perf_counter()
    answer = function()
    return answer, round(1000 * (perf_counter() - began))


five, other = Z[test[:5]], shap.KernelExplainer(f10, background10)
ours, fast = timed(lambda: shapley.kernel_shap(f10, five, background10))
theirs, slow = timed(lambda: other.shap_values(five, nsamples=1022, silent=True))
np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
rows = [("xailab", fast), ("shap", slow)]
plots.table(rows, ["library", "milliseconds"], title="KernelSHAP with all 1,024 teams")

# %% [markdown]
# ## 7. Trees: exact and fast
#
# A tree can fill the gaps without a background. A row whose feature is **unknown** goes both ways, in the
# proportions of the training rows. Four days; the bus is 20 minutes late when it rains **and** it is
# rush hour:

# %%
days = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # rain, rush hour
late = np.array([0, 0, 0, 20])
bus = DecisionTreeRegressor(random_state=2).fit(days, late)
print(export_text(bus, feature_names=["rain", "rush hour"]))

# %% [markdown]
# Take the day with rain in the rush hour: 20 minutes. Go down the tree with a pencil.
#
# - Nothing known: half of the rows go left (0), the other half go on, and half of those reach 20. So
#   $v(\emptyset) = 5$.
# - Rain known: right at the top, then both ways: $v(\text{rain}) = 10$.
# - Rush hour known: both ways at the top, then right, so
#   $v(\text{rush}) = \frac12 \cdot 0 + \frac12 \cdot 20 = 10$.
# - Both known: $20$.
#
# Two orders: rain adds 5 or 10, rush hour adds 10 or 5. Each gets $7.5$ of the 15 minutes above the
# mean.


# %%
def tree_worth(known, row, tree, node=0):
    """Mean answer of a tree when only the features in `known` may be asked."""
    nodes = tree.tree_
    left, right = nodes.children_left[node], nodes.children_right[node]
    if left < 0:  # a leaf
        return nodes.value[node, 0, 0]
    if nodes.feature[node] in known:
        down = left if row[nodes.feature[node]] <= nodes.threshold[node] else right
        return tree_worth(known, row, tree, down)
    part = nodes.n_node_samples[left] / nodes.n_node_samples[node]
    ways = [tree_worth(known, row, tree, way) for way in (left, right)]
    return part * ways[0] + (1 - part) * ways[1]


# %%
# NBVAL_CHECK_OUTPUT
rainy = np.array([1.0, 1.0])
by_hand = shapley.shapley_of_game(lambda known: tree_worth(known, rainy, bus), 2)
print("by hand  ", by_hand.tolist())
print("tree_shap", shapley.tree_shap(bus, rainy).tolist())

# %% [markdown]
# `tree_shap` gets there without teams: it looks at each leaf alone, and so explains trees of hundreds
# of features. Older programs do something simpler: follow the row down, and book each change of the
# mean on the feature that was asked (Saabas 2014). It adds up as well. Follow it: from 5 to 10 at the
# first question, from 10 to 20 at the second:

# %%
# NBVAL_CHECK_OUTPUT
twin = DecisionTreeRegressor(random_state=0).fit(days, late)
for tree in (bus, twin):
    first = ["rain", "rush hour"][tree.tree_.feature[0]]
    paths = shapley.path_attribution(tree, rainy).tolist()
    print(f"asks {first:9} first: path {paths}, SHAP {shapley.tree_shap(tree, rainy).tolist()}")

# %% [markdown]
# The two trees are the same function. Only the order of their questions differs, and that was a coin
# toss during training. The path values swap, the Shapley values do not. On a tree for our patients:

# %%
tree = DecisionTreeRegressor(max_depth=4, random_state=0).fit(
    table.X[train][:, FIVE], table.y[train]
)
rows = table.X[test][:, FIVE]
fair, paths = shapley.tree_shap(tree, rows), shapley.path_attribution(tree, rows)
np.testing.assert_allclose(fair.sum(1), paths.sum(1))  # both add up
flipped = (np.sign(fair.round(6)) * np.sign(paths.round(6)) < 0).any(1)
print(f"largest difference: {np.abs(fair - paths).max():.0f} points")
print(f"patients with a feature whose sign differs: {flipped.mean():.0%}")

# %%
theirs = shap.TreeExplainer(tree).shap_values(rows)
np.testing.assert_allclose(fair, theirs, rtol=0, atol=1e-6)

# %% [markdown]
# Exact, but for a game of its own: to go both ways is not to fill in from a background. Play the game of
# section 3 with the same tree, its training rows as the background:

# %%
filled = shapley.kernel_shap(tree.predict, rows, table.X[train][:, FIVE])
apart = np.abs(fair - filled)
print(f"the two games differ by {apart.mean():.1f} points in the mean, {apart.max():.0f} at most")
assert apart.max() > 10

# %% [markdown]
# `shap` plays the one if you give it a tree alone, the other if you give it a tree and rows. Say which.
#
# ## 8. Networks: fast and not exact
#
# For a network with thousands of inputs, even a sample of teams is too much. Two methods take a few
# backward passes instead. You know both from [[integrated_gradients]]; only the baseline is replaced by many rows of a
# background:
#
# - **Deep SHAP**: DeepLIFT from each background row, averaged.
# - **GradientSHAP**, or *expected gradients*: integrated gradients from each background row, averaged.
#
# By hand, for our patient. `deep_lift` from each of 100 background rows:

# %%
X1 = torch.tensor(x)[None]  # (1, 5)
B5 = torch.tensor(background)
by_hand = torch.stack([deep_lift(net, X1, None, baseline=b) for b in B5]).mean(0)
torch.testing.assert_close(by_hand, deep_shap(net, X1, None, background=B5))

# %% [markdown]
# And slopes at random points of random paths, times the way:

# %%
generator = torch.Generator().manual_seed(0)
starts = B5[torch.randint(100, (5000,), generator=generator)]
alpha = torch.rand(5000, 1, generator=generator)
points = (starts + alpha * (X1 - starts)).requires_grad_()
(slopes,) = torch.autograd.grad(net(points).sum(), points)
by_hand = ((X1 - starts) * slopes).mean(0)
same = expected_gradients(net, X1, None, background=B5, n_samples=5000)[0]
print(f"largest difference of two draws: {(by_hand - same).abs().max():.1f} points")
torch.testing.assert_close(by_hand, same, rtol=0, atol=4)

# %% [markdown]
# Both add up to the same whole, GradientSHAP but for its noise. Do they share it out alike?

# %%
X5 = torch.tensor(Z[test[:50]][:, FIVE])
exact5 = shapley.kernel_shap(f, X5.numpy(), background)  # (50, 5)
deep = deep_shap(net, X5, None, background=B5).numpy()
gradient = expected_gradients(net, X5, None, background=B5, n_samples=2000).numpy()
me = list(test).index(PATIENT)
found = {"exact": exact5, "Deep SHAP": deep, "GradientSHAP": gradient}
rows = [(name, *values[me].round(1), values[me].sum().round(1)) for name, values in found.items()]
plots.table(rows, ["method", *NAMES, "sum"], title="Near the exact values, and not equal to them")

# %%
size = np.abs(exact5).mean()
for name in ("Deep SHAP", "GradientSHAP"):
    off = np.abs(found[name] - exact5)
    print(f"{name:13} off by {off.mean() / size:.0%} of a mean share; worst {off.max():.0f} points")

# %% [markdown]
# Is that noise, which more samples would cure? Deep SHAP draws nothing. For GradientSHAP, see what more
# draws do, and measure the distance to two goals: the exact values, and the mean of integrated
# gradients from every row of the background.

# %%
few, draws = X5[:5], [50, 200, 800, 3200, 12800]
paths = [integrated_gradients(net, row.expand_as(B5), None, baseline=B5) for row in few]
goal = torch.stack([path.mean(0) for path in paths])  # (5, 5): a mean over 100 paths each
found = [expected_gradients(net, few, None, background=B5, n_samples=n).numpy() for n in draws]
plots.curve(
    np.log10(draws),
    {
        "to the exact values": [np.abs(some - exact5[:5]).mean() for some in found],
        "to integrated gradients": [np.abs(some - goal.numpy()).mean() for some in found],
    },
    log=True,
    title="More draws find their goal, but it is not the Shapley value",
    xlabel="log10 of the draws",
    ylabel="mean distance, points",
)

# %% [markdown]
# The one distance settles, the other goes on falling. Integrated gradients let all features come
# **together**, a little at a time; Shapley lets them come one by one. Where a ReLU switches in between,
# the two differ for good. (On a linear network they agree.) The names in the library promise more than
# the methods keep.
#
# `shap` has both. Its Deep SHAP agrees to the last digit; its GradientSHAP draws at random, so it
# agrees up to its noise. It wants 32-bit numbers:

# %%
theirs = shap.DeepExplainer(net, B5).shap_values(X5)[..., 0]
np.testing.assert_allclose(theirs, deep, rtol=0, atol=1e-6)

# %%
explainer = shap.GradientExplainer(deepcopy(net).float(), B5.float())
theirs = explainer.shap_values(few.float(), nsamples=2000, rseed=0)[..., 0]
np.testing.assert_allclose(theirs, gradient[:5], rtol=0, atol=5)  # points; shares go up to 70
print(f"largest difference: {np.abs(theirs - gradient[:5]).max():.1f} points")

# %%
quiz("shap.q_draws")

# %% [markdown]
# ### Many patients at once
#
# One row is an anecdote. Explain a hundred, and draw each share as a dot: a **beeswarm**. This is the
# network on ten columns, with the exact values:

# %%
ten = ["age", "sex", "bmi", "blood pressure", "cholesterol", "LDL", "HDL"]
ten += ["chol. / HDL", "triglycerides", "glucose"]
many = shapley.kernel_shap(f10, Z[test], background10[:50])  # (100, 10)
plots.beeswarm(
    many,
    Z[test],
    ten,
    most=6,
    title="High triglycerides and a high bmi raise the prediction",
    xlabel="share of the prediction, points",
)

# %% [markdown]
# Read one line from left to right: dark dots are patients with a low value, bright ones with a high
# value. If bright lies right, high values raise the prediction. Look at *sex*: two values, and yet the
# dots of one color lie far apart. What one value adds depends on the other features.
#
# ## 9. Compared with whom?
#
# Our patient's bmi of 28.8 is a little above the mean, and its share in the picture at the top above 0.
#
# ### Predict, then run (2 minutes)
#
# Ask again, with another background: the fifth of the patients with the highest bmi. Same patient, same
# network. What is the share of the bmi now, in points? A guess from -100 to 100.

# %% tags=["exercise"]
### BEGIN SOLUTION
bmi_share = -20
### END SOLUTION

# %%
predict("shap.background", bmi_share)

# %%
heavy = Z[train][:, FIVE]
heavy = heavy[heavy[:, 0] > np.quantile(heavy[:, 0], 0.8)]
among_heavy = shapley.kernel_shap(f, x, heavy)
rows = [
    ("100 patients", round(base, 1), *exact.round(1)),
    (f"{len(heavy)} with the highest bmi", round(f(heavy).mean(), 1), *among_heavy.round(1)),
]
assert exact[0] > 0 > among_heavy[0]
plots.table(rows, ["background", "base", *NAMES], title="Same patient, two answers")

# %%
reveal("shap.background", round(among_heavy[0], 1))

# %% [markdown]
# Neither is wrong. *"Why more than the mean of 100 patients?"* is one question, *"why less than the mean
# of those with a high bmi?"* another. A share without its background is half a sentence. Write
# the background under every SHAP figure you publish.
#
# ### Set or seen: the other choice
#
# There is a second choice behind $v(S)$. So far we **set** the known features and drew the others as if
# they had nothing to do with them. This is called *interventional*. But cholesterol and LDL go
# together:

# %%
r = np.corrcoef(Z[train][:, FIVE[2]], Z[train][:, FIVE[3]])[0, 1]
print(f"correlation of cholesterol and LDL: {r:.2f}")

# %% [markdown]
# If you **see** a high LDL, you expect a high cholesterol too. *Conditional* SHAP fills the gaps with
# what you would expect: $v(S) = E[f(X) \mid X_S = x_S]$. What happens to a feature that the model does
# not use? Take a linear model on two columns that never looks at LDL,
# $f = -15 \cdot \text{cholesterol}$ (standardized, so the mean is 0). With LDL known, you expect a
# cholesterol of $r \cdot x_\text{LDL}$, with $r$ the correlation:

# %%
lipids = Z[train][:, FIVE[2:4]]  # (342, 2)
chol, ldl = x[2:4]
ignores_ldl = np.array([-15.0, 0.0])
v = {"": 0.0, "chol": -15 * chol, "ldl": -15 * r * ldl, "both": -15 * chol}
share_ldl = ((v["ldl"] - v[""]) + (v["both"] - v["chol"])) / 2
print(f"LDL, seen: {share_ldl:.2f} points, though its weight is 0")

# %%
seen = shapley.linear_shap(ignores_ldl, x[2:4], lipids, conditional=True)
given = shapley.linear_shap(ignores_ldl, x[2:4], lipids)
np.testing.assert_allclose(seen[1], share_ldl)
rows = [("set (interventional)", *given.round(2)), ("seen (conditional)", *seen.round(2))]
plots.table(rows, ["unknown features are", "cholesterol", "LDL"], title="The model never reads LDL")

# %% [markdown]
# The promise *who adds nothing gets nothing* is kept both times: in the second game, LDL does add
# something, namely knowledge about cholesterol. Set: *what does the model compute with?* Seen: *what
# does this value tell me about the answer?* Choose before you look, and say which one it was.

# %%
quiz("shap.q_ignored")

# %% [markdown]
# ## 10. Known answer
#
# Now a table where the shares are known in closed form, because we wrote the function:
# $y = 2 \sin x_1 + x_2^2 + x_3 x_4$ plus noise; $x_5$ and $x_6$ do nothing. First, explain the
# function itself:

# %%
known = data.additive_table(seed=0)
fit, rows = known.X[:800], known.X[800:830]
around = fit[:100]
truth = known.truth.shapley(rows, around)  # (30, 6), from the formula
ours = shapley.kernel_shap(known.predict, rows, around)
np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-8)

# %% [markdown]
# Exact. Then train a network on the noisy data, explain **it**, and compare with the truth about the
# function:

# %%
learned = trained(fit, known.y[:800], width=32, steps=400)
g, X6, B6 = asks(learned), torch.tensor(rows), torch.tensor(around)
ways = {
    "exact (64 teams)": shapley.kernel_shap(g, rows, around),
    "4 orders, both ways": shapley.permutation_shap(g, rows, around, n_permutations=4),
    "KernelSHAP, 20 teams": shapley.kernel_shap(g, rows, around, n_samples=20),
    "Deep SHAP": deep_shap(learned, X6, None, background=B6).numpy(),
    "GradientSHAP, 200 draws": expected_gradients(
        learned, X6, None, background=B6, n_samples=200
    ).numpy(),
    "input x gradient": input_x_gradient(learned, X6, None).numpy(),
}

# %%
misses = [np.sqrt(np.mean((found - truth) ** 2)) for found in ways.values()]
plots.bars(
    misses,
    list(ways),
    title="All forms of SHAP are near the truth, input x gradient is not",
    xlabel=f"error against the true shares (their size: {np.sqrt(np.mean(truth**2)):.2f})",
)

# %% [markdown]
# Even the exact one is not at 0. What is left is the network's own error: SHAP explains what the
# network has learned, not what is true. Next to that error, a few orders or teams cost hardly anything;
# the 200 draws of GradientSHAP do cost. Is the right feature first, and do the idle columns get nothing?

# %%
for name, found in ways.items():
    first = (np.abs(found).argmax(1) == np.abs(truth).argmax(1)).mean()
    idle = np.abs(found[:, 4:]).mean()
    print(f"{name:24} right feature first: {first:4.0%}; mean share of x5, x6: {idle:.3f}")

# %% [markdown]
# ### What only two can do
#
# A product is nobody's alone. `shapley_interactions` splits each share into what a feature adds by
# itself (the diagonal) and what it adds only together with another (half of it in each of two cells).
# The rows sum to the shares. For the first row of the table, where only $x_3$ and $x_4$ may meet:


# %%
@cache
def worth6(team):
    mixed = around.copy()
    mixed[:, list(team)] = rows[0, list(team)]
    return g(mixed).mean()


pairs = shapley.shapley_interactions(worth6, 6)  # (6, 6)
np.testing.assert_allclose(pairs.sum(1), ways["exact (64 teams)"][0], atol=1e-8)
lines = [(name, *(line.round(2) + 0.0)) for name, line in zip(known.names, pairs)]  # no -0
plots.table(
    lines, ["", *known.names], title="Outside the diagonal, the cell of x3 and x4 stands out"
)

# %%
half = known.truth.interaction(rows[:1], around)[0] / 2
print(f"x3 with x4: network {pairs[2, 3]:.3f}, true function {half:.3f}")
np.testing.assert_allclose(pairs[2, 3], half, atol=0.05)

# %% [markdown]
# ### The planted mark
#
# At last, pictures: digits on which a white square in the corner makes a cheating network say 8
# ([[cam]]). A picture has 784 pixels, so let blocks of 2 x 2 be the players. There are 196 of them, and
# $2^{196}$ teams. But *missing* means black here, and a block that is black already adds nothing to any
# team: a dummy, with share 0. Only the lit blocks play, in a few random orders:

# %%
marks = marked_digits_known_answer()
pixel = torch.arange(28)
block = (pixel // 2)[:, None] * 14 + (pixel // 2)[None]  # (28, 28): number of each pixel's block


def block_shares(model, row, target):
    """Shapley values of the lit 2 x 2 blocks of one picture (1, 28, 28), as a map."""
    lit = block[row[0] > 0].unique()
    mine = block[..., None] == lit  # (28, 28, players)

    def predict(known):
        here = (torch.tensor(known)[:, None, None] * mine).sum(-1)[:, None]
        with torch.no_grad():
            return model(row * here.float())[:, target].numpy()

    ones = np.ones(len(lit))
    shares = shapley.permutation_shap(predict, ones, 0 * ones[None], n_permutations=2)
    return (torch.tensor(shares) * mine).sum(-1)[None]


def shap_blocks(model, x, target):
    return torch.stack([block_shares(model, row, t) for row, t in zip(x, target)])


# %%
drawn = shap_blocks(marks.model, marks.x[:1], marks.target[:1])
plots.heatmap(
    drawn,
    marks.x[0],
    title="The largest shares lie under the mark",
    label="share of the logit of 8",
    mask=marks.truth[0],
)

# %% [markdown]
# Score it on the first eight of these digits, with the two fast methods. Their background is ten clean
# training digits. *Pointing* is how often the peak lies in the mark, *mass* the part of the positive
# shares that does:

# %%
clean = data.marked_digits(seed=0).train
clean = torch.tensor(clean.images[~clean.marked][:10])[:, None]  # (10, 1, 28, 28)
methods = {"shap_blocks": shap_blocks, "deep_shap": deep_shap}
methods["expected_gradients"] = expected_gradients
scores = score(methods, ["marked_digits"], limit=8, background=clean, n_samples=40)
board = record(scores)
scores[["method", "pointing", "mass", "chance", "rows"]].round(2)

# %% [markdown]
# All three nearly always point at the mark; the blocks spread more mass over the digit. Before you call
# the fast ones better: the game is another one. For the blocks, *missing* means black, and a stroke set
# to black changes the digit; for the other two it means the pixel of a clean digit. Nor do the blocks
# fit: a mark that is not aligned with them shares its blocks with the black around it.
#
# ## 11. When it lies
#
# ### Patients who cannot exist
#
# LDL is a **part** of the cholesterol, so it cannot be larger. In the data it never is. But SHAP builds
# its own patients: LDL from ours, cholesterol from another. Count:

# %%
every = np.array([[(k >> i) & 1 for i in range(5)] for k in range(32)], dtype=bool)  # all teams
spread, center = table.X[train].std(0)[FIVE], table.X[train].mean(0)[FIVE]


def impossible(rows):
    """Whether LDL exceeds the total cholesterol; rows (M, 5) standardized."""
    points = rows * spread + center
    return points[:, 3] > points[:, 2]


def asked(x):
    """All rows that the network is asked about to explain x, (3200, 5)."""
    return np.where(every[:, None], x, background).reshape(-1, 5)


real = impossible(Z[:, FIVE]).mean()
parts = np.array([impossible(asked(Z[row, FIVE])).mean() for row in test])
print(f"real patients: {real:.0%}; asked about: mean {parts.mean():.1%}, worst {parts.max():.0%}")

# %% [markdown]
# A small part, and the network has never seen anything like it. So what it says there was never checked
# by anyone. Watch what can hide there. This second model adds five points for each unit that LDL is
# above cholesterol:


# %%
def cheat(rows):
    points = rows * spread + center
    return f(rows) + 5 * np.maximum(0, points[:, 3] - points[:, 2])


apart = np.abs(cheat(Z[:, FIVE]) - f(Z[:, FIVE])).max()
print(f"largest difference of the two models on all {len(Z)} real patients: {apart}")

# %%
odd = test[parts.argmax()]
one = shapley.kernel_shap(f, Z[odd, FIVE], background)
two = shapley.kernel_shap(cheat, Z[odd, FIVE], background)
assert apart == 0
assert np.abs(one - two).max() > 20
rows = [("the network", *one.round(1)), ("its double", *two.round(1))]
plots.table(rows, ["model", *NAMES], title="They agree on every patient, their shares do not")

# %% [markdown]
# No patient will ever get another answer from these two models, and yet SHAP calls the one by far more
# driven by cholesterol and LDL than the other. The difference lies in rows that do not exist. Slack and
# others (2020) built a racist model which SHAP found harmless, by this very trick. Where features hang
# together, look at their **sum**, or let them play as one:

# %%
pair = {"network": one, "double": two}
for name, found in pair.items():
    print(f"{name:8} cholesterol and LDL together: {found[2] + found[3]:.1f} points")

# %% [markdown]
# ### The price
#
# Exact values ask about $2^n$ teams, each filled from $B$ rows, here 100. How long would that take for
# one row of your table? Measure the speed of our small network, and count:

# %%
probe = np.zeros((100_000, 5))
began = perf_counter()
f(probe)
rate = len(probe) / (perf_counter() - began)  # rows a second
units = {"years": 3.15e7, "hours": 3600, "seconds": 1, "milliseconds": 0.001}
lines = []
for n in (10, 20, 30, 50):
    seconds = 2**n * 100 / rate
    unit = next(unit for unit, length in units.items() if seconds > length)
    lines.append((n, f"{2**n:,}", f"{seconds / units[unit]:,.0f} {unit}"))
plots.table(lines, ["features", "teams", "time"], title="Each feature doubles the price")

# %% [markdown]
# Up to some 15 features, compute exactly. Above that, draw orders with error bars, use the tree's own
# method, or let features play in groups. For a model that can only be asked, nothing exact gets around
# the $2^n$ teams.
#
# ### Exercise: a claim from a report (criticize, 8 minutes)
#
# > *"The SHAP values prove that high cholesterol protects patient 276: its value of 280 lowers the
# > progression by more than 70 points. SHAP is the only fair attribution (Shapley's theorem), so no other
# > explanation is needed. We advise against lowering this patient's cholesterol."*
#
# What do the numbers in this lesson show, what do they not show, and what would you ask for? Four to
# six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
The share says what the model's prediction owes to this value, compared with a background of 100
patients: another background gives another number, even another sign, and the report does not name it. It
is about the model, not about the body: nothing here is causal, and a network with large errors may use
cholesterol in a way that has no cause behind it. Cholesterol and LDL are correlated at .9; the share of
LDL is large and positive and cancels half of that of cholesterol, and the rows in which only one of the
two is changed include patients who cannot exist. I would ask for the share of both together. The theorem
says that the shares are the only ones which keep four promises for a given game; it does not choose the
game. Advice on treatment needs a trial, not an attribution.
### END SOLUTION
"""

# %%
check("shap.report", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - share out a score by Shapley's definition, with a pencil and in code
# - estimate Shapley values by orders and by regression, and say how far off you are
# - explain a tree and a network, and tell the exact methods from the approximate ones
# - say what "without this feature" means in an explanation, and change the answer by changing it
# - show a case in which SHAP describes patients who cannot exist
#
# ## Takeaways
#
# - A Shapley value is what a feature adds on average over all orders of arrival. The values add up to the
#   score minus the base, and no other shares keep all four promises.
# - KernelSHAP with all teams and TreeSHAP compute these values, drawn orders and teams estimate them.
#   Deep SHAP and GradientSHAP compute something else that is near.
# - The theorem holds for a game. You choose the game: whom you compare with, whether you set or see,
#   which features play as one.
#
# ## Myth refuted
#
# *"The SHAP value is the partial derivative of the model."* For $x_1 x_2$ at $(0, 3)$ the derivative is
# $+3$ and the Shapley value from $(1, 1)$ is $-2$; on a step the derivative is 0 and the Shapley value
# is the whole step (section 4).
#
# ## Go further
#
# - Shapley (1953), *A value for n-person games*: eleven pages, with the proof.
# - Štrumbelj, Kononenko (2014), *Explaining prediction models and individual predictions with feature
#   contributions*: orders, drawn at random.
# - Lundberg, Lee (2017), *A Unified Approach to Interpreting Model Predictions*: the regression, and
#   Deep SHAP.
# - Lundberg and others (2020), *From local explanations to global understanding with explainable AI for
#   trees*.
# - Janzing, Minorics, Blöbaum (2020), *Feature relevance quantification in explainable AI: a causal
#   problem*, and Aas, Jullum, Løland (2021), *Explaining individual predictions when features are
#   dependent*: set or seen, argued from both sides.
# - Slack, Hilgard, Jia, Singh, Lakkaraju (2020), *Fooling LIME and SHAP: Adversarial Attacks on Post hoc
#   Explanation Methods*.
# - Erion, Janizek, Sturmfels, Lundberg, Lee (2021), *Improving performance of deep learning models with
#   axiomatic attribution priors and expected gradients*.
