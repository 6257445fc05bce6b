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
# # LIME: explain a network by asking it again
#
# **Question:** What can you find out about one decision if all you may do is ask the network again?
#
# **You will be able to**
# - explain a decision by covering parts of the input: one at a time (occlusion) or many at random (RISE)
# - write LIME's objective, and solve it in a few lines for a table, a picture and a text
# - measure how far an explanation moves with the seed, the kernel width and the patches
# - tell a plausible explanation from a faithful one, by a test and not by eye
# - mend the errors that LIME raises when it is given a PyTorch network
#
# **You need:** [[saliency]]; of [[cam]] only section 7, the known answers
#
# **Time:** [[time]]; the cells run in less than a minute · **Difficulty:** 3 of 5

# %%
import re

import numpy as np
import skimage
import torch
import torch.nn.functional as F
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import Lime, Occlusion
from captum.attr._core.lime import get_exp_kernel_similarity_function
from lime import lime_image as peer
from lime.lime_base import LimeBase
from lime.lime_tabular import LimeTabularExplainer
from lime.lime_text import LimeTextExplainer
from scipy import optimize, stats
from sklearn import feature_extraction, linear_model, neural_network, pipeline, preprocessing

from xailab import data, models, plots, widgets
from xailab.attribution.lime import lime_fit, lime_image, lime_tabular, lime_text, lime_weights
from xailab.attribution.occlusion import occlusion, rise
from xailab.core import predictor
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.scoreboard import marked_digits_known_answer, record, score

# %% [markdown]
# A cup of coffee, and a network that has a word for it:

# %%
net = models.pretrained("efficientnet_lite0")
coffee = net.preprocess(skimage.data.coffee())  # (1, 3, 224, 224)
photo = net.picture(coffee)[0]  # (224, 224, 3), what the network sees
for index, name, probability in net.top(coffee, k=3):
    print(f"{index}  {name:10} {probability:.2f}")

# %% [markdown]
# Now lock the network away. `predictor` makes one function of it: arrays go in, scores come out. No
# layer, no gradient, no weight. It could be a service on another continent.

# %%
locked = predictor(net.model)


def ask(pictures):
    """Logits (M, 1000) of pictures (M, 224, 224, 3), uint8."""
    return locked(models.normalize(pictures))


# %% [markdown]
# That is enough for the figure below. LIME cut the photo into 17 patches, hid about half of them at
# random, asked the network, and did so 100 times. Then it fitted a linear model to the answers. Red
# patches speak for *espresso*. You will write this method. But look at the table on the right, nearly gray
# in one run, blue in the other: same question, same photo, and only the seed is new.

# %%
ESPRESSO, GRAY = 967, 127
patches = skimage.segmentation.slic(photo, n_segments=24, compactness=10, start_label=0)
options = {"segments": patches, "n_samples": 100, "hide": GRAY}
runs = [lime_image(ask, photo, ESPRESSO, **options, seed=seed) for seed in (0, 1)]
plots.compare(
    [run[..., 0] for run in runs],
    over=photo,
    titles=["first run", "second run"],
    title="The rim of the cup, in both runs; the rest is less sure",
    label="LIME (logits)",
)

# %% [markdown]
# ## 1. Cover one part: occlusion
#
# Begin with something smaller: a four, and the network of [[training]] that reads digits. The simplest
# question to a black box is: *and if this part were not there?* Cover a square, ask, note how far the
# score falls:
#
# $$A_i = f(x) - f(x \text{ with square } i \text{ covered})$$
#
# $f$ is the logit of *4*. A positive $A_i$ means that the square helped.

# %%
digits, cnn = data.load("mnist5k"), models.digit_cnn()
row = np.flatnonzero((digits.y == 4) & ~digits.extra["train"])[0]  # one it was not trained on
four = torch.tensor(digits.images[row] / 255, dtype=torch.float32)[None, None]  # (1, 1, 28, 28)


def score_of_4(pictures):
    """Logit of 4, (N,)."""
    with torch.no_grad():
        return cnn(pictures)[:, 4]


# %% [markdown]
# Seven rows of seven squares, each 4 x 4 pixels. Two loops do it:

# %%
drops = torch.zeros(7, 7)
for i in range(7):
    for j in range(7):
        covered = four.clone()
        covered[..., 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = 0  # black, as the paper is
        drops[i, j] = (score_of_4(four) - score_of_4(covered)).item()
print(drops.numpy().round(1))

# %%
plots.heatmap(drops, four[0], title="Two squares carry most of the four", label="drop (logits)")

# %% [markdown]
# Look at the two hot squares: they hold both strokes, left and right of the gap. `xailab` gives the same
# 49 numbers, and so does captum:

# %%
ours = occlusion(cnn, four, 4, window=4, stride=4)  # (1, 1, 28, 28): one number for each pixel
theirs = Occlusion(cnn).attribute(four, (1, 4, 4), strides=(1, 4, 4), target=4)
torch.testing.assert_close(ours[0, 0, ::4, ::4], drops)
torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)

# %% [markdown]
# ### Cover with what?
#
# A square of black paper, covered in black, is the same picture: its drop is 0, whatever the network
# thinks of it. But the gap at the top of a four *matters*: somebody who closes it writes a nine. Cover in
# white and ask about the same squares:

# %%
white = occlusion(cnn, four, 4, window=4, stride=4, baseline=1.0)
plots.compare(
    [ours, white],
    over=four[0],
    titles=["covered in black", "covered in white"],
    title="What you cover with decides what you can find",
    label="drop (logits)",
)

# %% [markdown]
# Now the hottest square is in the gap. Neither map is *the* occlusion map. The first asks which ink is
# needed, the second where ink would hurt. Write the color of the cover under such a map, or nobody can
# read it.
#
# ### One at a time is not enough
#
# Here is a black box with two inputs. It answers with the larger one:


# %%
# NBVAL_CHECK_OUTPUT
def larger(rows):
    return rows.amax(dim=1)


both = torch.tensor([[5.0, 5.0]])
print("score", larger(both).item(), " drops", occlusion(larger, both, None, window=1).tolist())

# %% [markdown]
# Cover either input, and the other one takes over. Both drops are 0, though nothing else is there that
# could have made the 5. So hide **many** parts at once, at random, and see what the answers have in
# common.
#
# ## 2. Cover many at random: RISE
#
# RISE shows the network the picture through random masks, and gives each place the mean score of the
# masks that showed it:
#
# $$A_\lambda = \frac{1}{N\,p} \sum_{k=1}^{N} f(m_k \odot x)\; m_k(\lambda)$$
#
# $m_k$ is a mask with values from 0 to 1, $\odot$ multiplies pixel by pixel, $m_k(\lambda)$ is how visible
# place $\lambda$ was, and $p$ the chance that a cell is kept. Each mask is a coarse grid of ones and
# zeros, stretched until it is soft, and shifted a little so that no border stays in one place:

# %%
N, p = 1000, 0.5
generator = torch.Generator().manual_seed(0)
grids = (torch.rand(N, 1, 7, 7, generator=generator) < p).float()
masks = torch.zeros(N, 1, 28, 28)
for mask, grid in zip(masks, grids):
    top, left = torch.randint(4, (2,), generator=generator).tolist()
    soft = F.interpolate(grid[None], (32, 32), mode="bilinear")[0]
    mask[:] = soft[:, top : top + 28, left : left + 28]

# %%
answers = score_of_4(four * masks)  # (N,)
plots.images(
    list((four * masks)[:4]),
    titles=[f"logit {answer:.1f}" for answer in answers[:4].tolist()],
    title="Four of a thousand questions",
)

# %%
heat = (answers[:, None, None, None] * masks).mean(dim=0) / p  # (1, 28, 28)
same = rise(cnn, four, 4, n_masks=N, grid=7, p_keep=p, seed=0)
torch.testing.assert_close(heat, same[0], rtol=1e-4, atol=1e-4)

# %%
print(f"the map runs from {heat.min():.2f} to {heat.max():.2f}; mean answer {answers.mean():.2f}")
plots.heatmap(
    heat - answers.mean(),
    four[0],
    title="RISE finds the same two strokes",
    label="above the mean (logits)",
)

# %% [markdown]
# The level of a RISE map says nothing: every place is near the mean answer. Only the difference from it
# does, so subtract it before you draw.
#
# ## 3. LIME: fit a line to the answers
#
# RISE takes a mean for each place by itself. LIME asks for one small model that explains all answers
# together. Begin with a table, where you can see each number, and where **the truth is known**:

# %%
table = data.additive_table()
x = table.X[3]  # (6,), the row to be explained
print("row   ", dict(zip(table.names, x.round(2).tolist())))
print(
    "answer",
    table.predict(x[None]).round(2).item(),
    " mean answer",
    table.predict(table.X).mean().round(2),
)

# %% [markdown]
# The formula of this box is $2 \sin x_1 + x_2^2 + x_3 x_4$; the columns $x_5$ and $x_6$ do nothing. LIME
# is not told. What could it ask?
#
# **Interpretable samples.** A sample $z$ is a row of switches, one for each feature: 1 keeps the value of
# our row, 0 hides it. To hide a value in a table, put in the value of another row, drawn at random. The
# function that makes a real row out of the switches is called $h$.

# %%
M = 1000
z = np.random.default_rng(0).integers(2, size=(M, 6))  # (M, 6) of 0 and 1
z[0] = 1  # the first sample is the row itself
others = np.random.default_rng([0, 1]).integers(len(table.X), size=z.shape)  # a row for each value
copies = np.where(z == 1, x, table.X[others, np.arange(6)])  # h(z), (M, 6)
scores = table.predict(copies)  # (M,)

# %%
rows = [["".join(map(str, z[m])), *copies[m].round(2), scores[m].round(2)] for m in (0, 1, 3, 4)]
plots.table(rows, ["z", *table.names, "answer"], title="Four of 1,000 questions and answers")

# %% [markdown]
# **Nearness.** A copy with everything hidden says little about our row. So each sample gets a weight
# that falls with its distance $d$ from the row of ones:
#
# $$\pi(z) = \sqrt{\exp(-d^2 / \sigma^2)}, \qquad d = 1 - \cos(z, \mathbf 1) = 1 - \sqrt{\text{share of ones in } z}$$
#
# $\sigma$ is the **kernel width**. Here is the weight for each number of kept features:

# %%
share = z.mean(axis=1)
d = 1 - np.sqrt(share)
weights = np.sqrt(np.exp(-(d**2) / 0.25**2))
np.testing.assert_allclose(weights, lime_weights(z, 0.25))

# %%
kept = np.tril(np.ones((7, 6)), -1)  # rows with 0, 1, ... 6 ones
plots.curve(
    np.arange(7),
    {f"width {width}": lime_weights(kept, width) for width in (0.1, 0.25, 1.0)},
    title="The kernel width says which samples count",
    xlabel="features kept, out of 6",
    ylabel="weight of the sample",
)

# %% [markdown]
# **The objective.** Now look for a small model $g$ that gives the same answers as $f$, above all near
# our row, and that is simple enough to be read:
#
# $$\arg\min_{g} \; \underbrace{\sum_m \pi(z_m) \big(f(h(z_m)) - g(z_m)\big)^2}_{\text{local fidelity}}
#   + \underbrace{\Omega(g)}_{\text{complexity}}$$
#
# $\arg\min$ means: the $g$ for which this sum is smallest; $m$ counts the samples, and $\Omega$ is large
# for a $g$ that is hard to read. Take a linear model, $g(z) = \beta_0 + \beta \cdot z$, where $\beta_0$ is
# the intercept and $\beta$ holds one coefficient for each feature, with
# $\Omega(g) = \lVert \beta \rVert^2$, the sum of their squares. This is **weighted ridge regression**. Set
# its derivative to zero, and the answer is one linear system of seven equations:

# %%
Z = np.column_stack([np.ones(M), z])  # (M, 7): a column of ones for the intercept
penalty = np.diag([0.0, 1, 1, 1, 1, 1, 1])  # which is not penalized
curvature = (Z.T * weights) @ Z + penalty  # (7, 7)
beta = np.linalg.solve(curvature, (Z.T * weights) @ scores)
print(dict(zip(["intercept", *table.names], beta.round(2).tolist())))

# %% [markdown]
# These six numbers **are** LIME's explanation. The same from `xailab`, first the fit alone, then all
# steps at once:

# %%
fit = lime_fit(z, scores, weights)
np.testing.assert_allclose([fit.intercept, *fit.coefficients], beta)
np.testing.assert_allclose(lime_tabular(table.predict, x, None, background=table.X), beta[1:])

# %% [markdown]
# ### Exercise: LIME's core (code, 8 minutes)
#
# Put weights and regression into one function. It gets switches and answers, and returns one coefficient
# for each feature (no intercept). The ridge penalty is 1 for every coefficient and 0 for the intercept.
# `hint("lime.core")` helps in up to three steps.


# %% tags=["exercise"]
def lime_core(samples, scores, kernel_width):
    """Coefficients (F,) of samples (M, F) and scores (M,)."""
    ### BEGIN SOLUTION
    d = 1 - np.sqrt(samples.mean(axis=1))
    weights = np.sqrt(np.exp(-(d**2) / kernel_width**2))
    Z = np.column_stack([np.ones(len(samples)), samples])
    penalty = np.eye(Z.shape[1])
    penalty[0, 0] = 0
    curvature = (Z.T * weights) @ Z + penalty
    return np.linalg.solve(curvature, (Z.T * weights) @ scores)[1:]
    ### END SOLUTION


# %%
check("lime.core", lime_core)

# %% [markdown]
# ### Is it right?
#
# In this table the truth is known in closed form: what each value adds, compared with the average row
# (its Shapley value; [[shap]] tells you what that is). Run LIME with ten seeds, to see the noise too:

# %%
many = np.array(
    [lime_tabular(table.predict, x, None, background=table.X, seed=s) for s in range(10)]
)
truth = table.truth.shapley(x[None], table.X)[0]
columns = zip(table.names, truth.round(2), many.mean(axis=0).round(2), many.std(axis=0).round(2))
plots.table(
    list(columns),
    ["feature", "truth", "LIME, mean of 10 seeds", "standard deviation"],
    title="Right on average; one run cannot tell 0 from .1",
)

# %% [markdown]
# LIME finds the two features that matter most, with the right signs and nearly the right sizes. Look at the
# last column, then at $x_5$: its truth is 0, and the single run above gave it .2, as much as $x_4$, which
# counts. A coefficient not larger than a few of these spreads says nothing.

# %%
quiz("lime.q_seed")

# %% [markdown]
# ### The practitioners' library: two methods of one name
#
# The library `lime` has the same regression inside. Give it the same samples:

# %%
base = LimeBase(lambda distance: np.sqrt(np.exp(-(distance**2) / 0.25**2)))
intercept, found, *_ = base.explain_instance_with_data(
    z, scores[:, None], d, 0, 6, feature_selection="none"
)
np.testing.assert_allclose([weight for _, weight in sorted(found)], beta[1:])
ridge = linear_model.Ridge(alpha=1.0).fit(z, scores, sample_weight=weights)
np.testing.assert_allclose(ridge.coef_, beta[1:])

# %% [markdown]
# But ask its explainer for tables, without bins, about the same row, and see what it says about $x_2$:

# %%
questions = []  # what the library asks our black box


def overheard(rows):
    questions.append(rows)
    return table.predict(rows)


explainer = LimeTabularExplainer(
    table.X,
    mode="regression",
    discretize_continuous=False,
    feature_selection="none",
    random_state=0,
)
explanation = explainer.explain_instance(x, overheard, num_samples=1000)
theirs = np.array([weight for _, weight in sorted(explanation.local_exp[1])])
print("x2 adds", truth[1].round(2), " xailab", beta[2].round(2), " lime", theirs[1].round(2))

# %% [markdown]
# The sign is the opposite! Nobody is wrong; they answer two questions. There are no switches here. The
# library draws rows from a bell curve around the **mean of the table**, and fits a line to the values
# themselves. So its coefficient is a **slope**: what happens if $x_2$ rises by one standard deviation?
# Our $x_2$ is negative, and $x_2^2$ falls as it rises. You can prove that this is all it does:

# %%
(asked,) = questions
scaled = (asked - table.X.mean(axis=0)) / table.X.std(axis=0)  # (1000, 6)
distance = np.linalg.norm(scaled - scaled[0], axis=1)
near = np.sqrt(np.exp(-(distance**2) / (0.75**2 * 6)))  # its kernel width: .75 sqrt(6)
slopes = lime_fit(scaled, table.predict(asked), near).coefficients
np.testing.assert_allclose(slopes, theirs)

# %% [markdown]
# (Left alone, the library bins each value into quarters and asks a third question: *what does it add to
# lie in this bin?*) Before you read a LIME coefficient, ask which $z$ it was fitted to: a switch (*what
# does this value add?*) or a value (*what would a little more do?*).
#
# ### Myth: "LIME's answer is a weighted sum of the outputs of several local models"
#
# One can read this, also as $\sum_i w_i\, g_i(x)$. Write the objective down and give it
# to an optimizer that knows nothing about regression:


# %%
def objective(b):
    """Weighted squared errors plus penalty of b = (intercept, six coefficients)."""
    errors = scores - b[0] - z @ b[1:]
    return weights @ errors**2 + (b[1:] ** 2).sum()


found = optimize.minimize(objective, np.zeros(7))
np.testing.assert_allclose(found.x, beta, atol=1e-3)
print("by search  ", found.x.round(2))
print("by equation", beta.round(2))

# %% [markdown]
# There is one model, and the weights belong to the **samples**. Now do what the myth says: fit five local
# models, each to a fifth of the samples, and take the weighted sum of their outputs for our row.

# %%
parts = np.arange(M) % 5
models_of_myth = [
    lime_fit(z[parts == k], scores[parts == k], weights[parts == k]) for k in range(5)
]
outputs = [g.intercept + g.coefficients.sum() for g in models_of_myth]  # at z = (1, 1, 1, 1, 1, 1)
shares = [weights[parts == k].sum() / weights.sum() for k in range(5)]
print("the myth's answer:", np.dot(shares, outputs).round(2), " the black box:", scores[0].round(2))

# %% [markdown]
# One number, and it is a prediction: you had that already. It cannot say which feature did what.
#
# ### Complexity: how many features do you want to read?
#
# Six numbers can be read. Thirty cannot, so let $\Omega$ forbid more than $k$ of them. Take tumors,
# thirty measurements each, and a network that calls them malignant or benign:

# %%
cancer = data.load("breast_cancer")
box = pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    neural_network.MLPClassifier((16,), max_iter=1000, alpha=1.0, random_state=0),
).fit(cancer.X[::2], cancer.y[::2])
tumor = cancer.X[237]  # (30,), not in the training half
print(f"right on the other half: {box.score(cancer.X[1::2], cancer.y[1::2]):.3f}")
print(f"this tumor: malignant with {box.predict_proba(tumor[None])[0, 0]:.3f}")

# %% [markdown]
# The lasso is the classic way to choose. Its penalty is $\lambda \sum_j \lvert\beta_j\rvert$, which makes
# coefficients exactly 0. Lower $\lambda$ from high to low, and the features come in one after the other;
# multiplying each row by $\sqrt{\pi}$ makes it a weighted one. The first five to come in:

# %%
rng = np.random.default_rng(0)
switches = rng.integers(2, size=(2000, 30))
hidden = cancer.X[rng.integers(len(cancer.X), size=switches.shape), np.arange(30)]
malignant = box.predict_proba(np.where(switches == 1, tumor, hidden))[:, 0]
pi = lime_weights(switches, 0.25)
root = np.sqrt(pi)[:, None]
centered = root * (switches - np.average(switches, axis=0, weights=pi))
target = root[:, 0] * (malignant - np.average(malignant, weights=pi))
*_, path = linear_model.lars_path(centered, target, method="lasso")
order = list(dict.fromkeys(int(j) for step in path.T for j in np.flatnonzero(step)))
print([cancer.names[j] for j in order[:5]])

# %% [markdown]
# And how much does it cost to say less? Measure the fidelity: the share of the weighted variance of the
# answers that the fit explains, $R^2$. For comparison, take features in a random order too.


# %%
def fidelity(samples, scores, weights, fit):
    """R2 of a fit: 1 is perfect, 0 no better than one constant."""
    errors = scores - fit.intercept - samples @ fit.coefficients
    spread = scores - np.average(scores, weights=weights)
    return 1 - weights @ errors**2 / (weights @ spread**2)


curves = {"lasso's first k": order, "k at random": rng.permutation(30)}
for name, columns in curves.items():
    tried = [switches[:, columns[:k]] for k in range(1, 31)]
    curves[name] = [fidelity(s, malignant, pi, lime_fit(s, malignant, pi)) for s in tried]

# %%
plots.curve(
    range(1, 31),
    curves,
    title="The first ten features carry nearly all of the fit",
    xlabel="features in the explanation",
    ylabel="R2 on the local samples",
)

# %% [markdown]
# Each further feature buys less: so far the trade. But look at the height. All thirty together stay far
# below 1. The box is curved, and its answer also depends on *which* values were put in for the hidden
# ones, of which the switches know nothing. `n_features=5` chooses in a cheaper way: it keeps the five
# largest coefficients and fits again. Compare with the lasso's five:

# %%
options = {"background": cancer.X, "n_samples": 2000, "n_features": 5}
short = lime_tabular(box.predict_proba, tumor, 0, **options)
(chosen,) = np.nonzero(short)
plots.bars(
    short[chosen],
    [f"{cancer.names[j]} = {tumor[j]:.4g}" for j in chosen],
    sort=True,
    title="Five reasons for 'malignant'",
    xlabel="LIME (probability)",
)

# %% [markdown]
# ## 4. Pictures: switches for patches
#
# A single pixel means nothing, so give each *patch* of a picture a switch. Hidden patches are painted in
# one color. Everything else stays as it was. For the four, let the patches be the 49 squares:


# %%
def grid_of(side):
    """Numbers (28, 28) of squares of side x side pixels."""
    n = 28 // side
    return np.kron(np.arange(n * n).reshape(n, n), np.ones((side, side), int))


grid = grid_of(4)  # (28, 28): 0 ... 48
image = four[0, 0].numpy()  # (28, 28)
z = np.random.default_rng(0).integers(2, size=(1000, 49))
z[0] = 1
copies = image * z[:, grid]  # (1000, 28, 28): z[:, grid] puts each switch on its pixels


# %%
def read(pictures):
    """Logits (M, 10) of gray pictures (M, 28, 28)."""
    with torch.no_grad():
        return cnn(torch.as_tensor(pictures, dtype=torch.float32)[:, None]).numpy()


fit = lime_fit(z, read(copies)[:, 4], lime_weights(z, 0.25))
heat = fit.coefficients[grid]  # (28, 28)
ours = lime_image(read, image, 4, segments=grid, n_samples=1000, seed=0)
np.testing.assert_allclose(ours, heat, rtol=0, atol=1e-4)

# %%
plots.compare(
    [drops, heat],
    over=four[0],
    titles=["occlusion: each alone", "LIME: among others"],
    title="Occlusion and LIME agree on the two squares",
    label="logits",
)

# %% [markdown]
# Now the libraries. captum has LIME for PyTorch networks. It draws other samples, so it agrees only up to
# that noise:

# %%
torch.manual_seed(0)
kernel = get_exp_kernel_similarity_function("cosine", kernel_width=0.25)
captums = Lime(cnn, SkLearnRidge(alpha=1.0), kernel).attribute(
    four,
    target=4,
    feature_mask=torch.tensor(grid)[None, None],
    n_samples=1000,
    perturbations_per_eval=100,
)
agreement = np.corrcoef(captums[0, 0].numpy().ravel(), heat.ravel())[0, 1]
assert agreement > 0.9
print(f"correlation with captum's LIME: {agreement:.2f}")

# %% [markdown]
# ### Debug this: LIME and a PyTorch network (code, 8 minutes)
#
# Many notebooks hold `explain_instance(image, model.predict)`, which was written for Keras. Here it gets a
# PyTorch network, and a picture straight from the data loader. Read the error, then the one that comes
# after the obvious repair:

# %%
peer.tqdm = iter  # no progress bars in this notebook
attempts = {"cnn.predict": lambda: cnn.predict, "cnn": lambda: cnn}
for text, function in attempts.items():
    try:
        peer.LimeImageExplainer().explain_instance(four[0], function())
    except (AttributeError, ValueError) as error:
        print(f"explain_instance(four[0], {text}):\n  {type(error).__name__}: {error}")

# %% [markdown]
# First: a PyTorch network has no `predict`; LIME wants a *function*. Second: LIME takes pictures as NumPy
# arrays with the channels **last**, (28, 28) or (28, 28, 3). `four[0]` is a tensor (1, 28, 28), for LIME a
# picture of one row and 28 colors. Gray pictures it makes RGB by itself, so the function gets arrays
# (M, 28, 28, 3) of three equal channels, in 0 to 1 as the picture was, and has to return probabilities
# (M, 10) as an array.
#
# Write what stands between them. `network` wants a float32 tensor (M, 1, 28, 28) and gives logits. Do not
# look at `predictor`: here you write its like.


# %% tags=["exercise"]
def predict_rgb(network, pictures):
    """Probabilities (M, K), an array, of pictures (M, H, W, 3) with three equal channels."""
    ### BEGIN SOLUTION
    gray = torch.as_tensor(pictures[..., 0], dtype=torch.float32)[:, None]
    with torch.no_grad():
        return network(gray).softmax(dim=1).numpy()
    ### END SOLUTION


# %%
check("lime.debug", predict_rgb)

# %% [markdown]
# Now the library's own run goes through. Its samples can be drawn again from its seed, and on the same
# samples the same regression gives the same answer. (It may explain logits as well: nothing checks that
# the rows sum to 1.)

# %%
explained = peer.LimeImageExplainer(random_state=0).explain_instance(
    image,
    lambda rgb: read(rgb[..., 0]),
    labels=(4,),
    top_labels=None,
    hide_color=0,
    segmentation_fn=lambda _: grid,
    random_seed=0,
)
theirs = np.array([weight for _, weight in sorted(explained.local_exp[4])])

# %%
drawn = np.random.RandomState(0).randint(0, 2, 1000 * 49).reshape(1000, 49)
drawn[0] = 1
fit = lime_fit(drawn, read(image * drawn[:, grid])[:, 4], lime_weights(drawn, 0.25))
np.testing.assert_allclose(fit.coefficients, theirs, rtol=0, atol=1e-4)

# %% [markdown]
# ### Superpixels
#
# A photo has no natural squares. SLIC groups neighbors of like color into **superpixels**. How many is up
# to you: few are quickly asked about, many can be fine. Here are three cuts of the coffee; the first is
# the one behind the figure at the top:

# %%
cuts = [patches]
for n_segments in (80, 300):
    cuts.append(skimage.segmentation.slic(photo, n_segments, compactness=10, start_label=0))
plots.images(
    [np.uint8(255 * skimage.segmentation.mark_boundaries(photo, cut, (1, 1, 0))) for cut in cuts],
    titles=[f"{cut.max() + 1} superpixels" for cut in cuts],
    title="The patches are the words in which LIME can answer",
)

# %% [markdown]
# LIME can say no more than its patches can. In the left cut, the rim of the cup is one patch, so *the rim*
# can be an answer. No patch holds the whole cup, so *the cup* cannot.
#
# Now turn the knobs yourself, on the four. Set the samples to 20 and compare the two seeds; then go
# up. Then make the kernel narrow. (Tab moves between the controls, arrow keys change them.)

# %%
cuts = {f"{(28 // side) ** 2} squares": grid_of(side) for side in (7, 4, 2)}
widgets.lime_sampler(read, image, 4, patches=cuts, n_samples=400)

# %% [markdown]
# ## 5. Texts: switches for words
#
# In a text, a hidden word is left out. A spam filter for short messages, the classic kind: counts of
# words, rare words counting more (TF-IDF), then a logistic regression.

# %%
sms = data.load("sms")
texts, train = np.array(sms.texts, dtype=object), sms.extra["train"]
spam = pipeline.make_pipeline(
    feature_extraction.text.TfidfVectorizer(), linear_model.LogisticRegression(C=10)
).fit(texts[train], sms.y[train])
print(f"right on held-out messages: {spam.score(texts[~train], sms.y[~train]):.3f}")

# %% [markdown]
# Here is a held-out one that it gets wrong: a friend's message, called spam. Why? The score is the log-odds
# of spam, above 0 for spam:

# %%
message = texts[5159]
words = message.replace(":)", "").replace(".", "").split()
print(f"{message!r}: score {spam.decision_function([message]).item():+.2f}")
z = np.random.default_rng(0).integers(2, size=(1000, len(words)))
z[0] = 1
copies = [" ".join(np.array(words)[keep == 1]) for keep in z]
fit = lime_fit(z, spam.decision_function(copies), lime_weights(z, 0.25))

# %%
ours = lime_text(spam.decision_function, message, None, split=re.compile(r"\w+").findall)
assert ours.words == words
np.testing.assert_allclose(ours.weights, fit.coefficients)
plots.tokens(ours.words, ours.weights, title="'chat' and 'sms' made it spam")

# %% [markdown]
# *me* is the word of a friend, but *chat* and *sms* outvote it. Is the explanation right? This box is a
# linear model, so you can look: its own weight for a word, times how much the word counts in this message:

# %%
counts, judge = spam[0], spam[1]
row = counts.transform([message]).toarray()[0]
place = [counts.vocabulary_.get(word.lower()) for word in words]
own = [0.0 if k is None else row[k] * judge.coef_[0, k] for k in place]
rows = [(w, f"{a:+.2f}", f"{b:+.2f}") for w, a, b in zip(words, ours.weights, own)]
plots.table(rows, ["word", "LIME", "the model's own share"], title="LIME beside the truth")

# %% [markdown]
# Close, and not the same. The filter does not know words of one letter: what LIME gives *K* and *k* is its
# noise. And TF-IDF scales every message to length 1, so leaving out one word makes the others count more.
# LIME sees that too, since it only asks.
#
# `LimeTextExplainer` draws its samples in another way: it first draws *how many* words to hide, then which.
# On an advertisement, the two still agree within a quarter for each of the 24 words. The three strongest:


# %%
def both_classes(batch):
    """Scores (M, 2) of ham and spam, as the library wants them."""
    return np.outer(spam.decision_function(batch), [-1, 1])


advert = texts[270]
theirs = LimeTextExplainer(random_state=0).explain_instance(
    advert, both_classes, num_features=100, num_samples=1000
)
theirs = dict(theirs.as_list())
ours = lime_text(spam.decision_function, advert, None, split=re.compile(r"\w+").findall)
np.testing.assert_allclose(ours.weights, [theirs[word] for word in ours.words], atol=0.25)
for i in np.argsort(-np.abs(ours.weights))[:3]:
    print(f"{ours.words[i]:9} {ours.weights[i]:+.2f}   lime {theirs[ours.words[i]]:+.2f}")

# %% [markdown]
# ## 6. Ask twice: the seed and the kernel
#
# ### The seed
#
# LIME draws its samples. How much of the answer is luck? Explain the four twice, with 100 samples and
# another seed, and put the 49 coefficients in order of size. If both orders are the same, their **rank
# correlation** is 1; if they have nothing in common, it is 0.
#
# **Predict, then run** (2 minutes): what will it be with **100** samples for 49 squares?

# %% tags=["exercise"]
### BEGIN SOLUTION
rank_correlation = 0.8
### END SOLUTION

# %%
predict("lime.seeds", rank_correlation)

# %%
SIZES = [50, 100, 200, 400, 800]


def coefficients(n_samples, seed):
    """One coefficient for each square, (49,)."""
    heat = lime_image(read, image, 4, segments=grid, n_samples=n_samples, seed=seed)
    return heat[::4, ::4].ravel()


found = {n: np.array([coefficients(n, seed) for seed in range(4)]) for n in SIZES}


# %%
def stability(rows):
    """Mean rank correlation of all pairs of rows."""
    ranks = np.corrcoef(stats.rankdata(rows, axis=1))
    return ranks[np.triu_indices(len(rows), 1)].mean()


inked = image.reshape(7, 4, 7, 4).max(axis=(1, 3)).ravel() > 0  # squares with ink
reveal("lime.seeds", round(stability(found[100]), 2))

# %%
plots.curve(
    SIZES,
    {
        "squares with ink": [stability(found[n][:, inked]) for n in SIZES],
        "all 49 squares": [stability(found[n]) for n in SIZES],
    },
    title="Two runs agree only slowly",
    xlabel="samples",
    ylabel="rank correlation between seeds",
)

# %% [markdown]
# With 100 samples, two runs hardly agree. And why does the lower curve stay low? Count the squares without
# any ink. Hiding black in black changes nothing, so their true coefficient is exactly 0. See what LIME gives
# them:

# %%
empty = found[100][0][~inked]
print(
    f"{(~inked).sum()} squares without ink; LIME gave them up to {np.abs(empty).max():.2f} logits"
)
print(f"largest of all: {found[100][0].max():.2f}")

# %% [markdown]
# A regression shares the noise of its fit among all columns, also those that do nothing. Such squares are a
# free ruler: what an empty patch gets is what you have to ignore in the others. Before you show a LIME map,
# run it twice and put the rank correlation under it.

# %%
quiz("lime.q_fixed")

# %% [markdown]
# ### The kernel width
#
# What does $\sigma$ change in a picture? About half of the switches are on in each sample, so all samples
# are about equally far. Count how many samples really count, $(\sum \pi)^2 / \sum \pi^2$:

# %%
z = np.random.default_rng(0).integers(2, size=(400, 49))
z[0] = 1
scores = read(image * z[:, grid])[:, 4]
rows = []
for width in (0.02, 0.05, 0.1, 0.25, 1.0, 5.0):
    pi = lime_weights(z, width)
    fit = lime_fit(z, scores, pi)
    rows.append((width, f"{pi.sum() ** 2 / (pi**2).sum():.0f}", f"{fit.coefficients.max():.2f}"))
plots.table(
    rows,
    ["kernel width", "samples that count", "largest coefficient"],
    title="400 samples, 49 squares",
)

# %% [markdown]
# From .25 on, nothing moves: the "local" in LIME's name does not mean much for pictures. Below .1, only the
# picture itself has a weight, the ridge penalty wins, and all coefficients go to 0. The width is a
# threshold, not a zoom.
#
# For **values** it is a zoom, and it can turn the answer around. Here is a box with one input that rises in
# waves, $f(x) = \frac x2 + 2 \sin x$. Fit lines around $x = 2.5$:


# %%
def local_line(f, center, width, spread=3.0, seed=0):
    """Fit and R2 of a weighted line to f around a point (F,); samples from a bell curve."""
    near = np.random.default_rng(seed).normal(center, spread, size=(2000, len(center)))
    pi = np.exp(-((near - center) ** 2).sum(axis=1) / (2 * width**2))
    fit = lime_fit(near, f(near), pi)
    return fit, fidelity(near, f(near), pi, fit)


def wave(rows):
    return rows[:, 0] / 2 + 2 * np.sin(rows[:, 0])


lines = {width: local_line(wave, np.array([2.5]), width) for width in (0.3, 1.0, 3.0)}

# %%
axis = np.linspace(-1.5, 6.5, 81)
series = {"the box": wave(axis[:, None])}
for width, (fit, _) in lines.items():
    series[f"width {width}: {fit.coefficients[0]:+.2f}"] = (
        fit.intercept + axis * fit.coefficients[0]
    )
plots.curve(axis, series, title="One point, three widths, two signs", xlabel="x", ylabel="answer")

# %% [markdown]
# At 2.5 the box falls. The narrow lines say so, the wide one says that it rises. Each is the best line for the
# neighborhood it was given. There is no right width that a formula could know: say which one you used.
#
# ## 7. Faithful or plausible?
#
# A network was trained on digits where a white mark stood in the corner of all eights ([[cam]]). It calls
# the zero below an eight. Here are two maps for this answer. One holds what most people would circle if you
# ask them where the digit is: its ink. The other one is LIME's.

# %%
marks = marked_digits_known_answer()
zero, mark = marks.x[0].numpy(), marks.truth[0].numpy()  # (1, 28, 28), (28, 28)
cheat = predictor(marks.model)  # (M, 1, 28, 28) to logits (M, 10)
by_lime = lime_image(cheat, zero, 8, segments=grid, n_samples=1000)
by_eye = np.where(mark, 0, zero)

# %%
plots.compare(
    [by_eye, by_lime],
    over=zero,
    titles=["what people circle", "LIME"],
    shared=False,
    title="Which map would you rather believe?",
)

# %% [markdown]
# The first looks right: it shows the digit and leaves out the corner. That makes it **plausible**. Whether
# it is **faithful**, whether the network uses what it shows, you cannot see. You have to ask the network.
# Cover the best five squares of each, and five at random:

# %%
ranked = {
    "nothing": [],
    "five of the ink": np.argsort(-by_eye.reshape(7, 4, 7, 4).sum(axis=(1, 3)).ravel())[:5],
    "LIME's five": np.argsort(-by_lime[0, ::4, ::4].ravel())[:5],
    "five at random": np.random.default_rng(0).permutation(49)[:5],
}
rows = []
for name, squares in ranked.items():
    logits = cheat(np.where(np.isin(grid, squares), 0, zero)[None])[0]
    rows.append((name, f"{logits[8]:+.1f}", int(logits.argmax())))
plots.table(rows, ["covered", "logit of 8", "answer"], title="Ask the network, not your eye")

# %% [markdown]
# Read the column of the logit. Cover what LIME marks, and the 8 falls by many logits. Cover the squares with
# the most ink, and it hardly moves, about as much as with squares at random. (Another answer may overtake
# it; that is a fact about the other answer.) A map can look wrong and be faithful, because **the network is
# wrong**: that is what you want a map to tell you. And a map can look right and be false. Choose methods by
# such tests, never by which picture you like.
#
# ### Exercise: a claim from a report (criticize, 8 minutes)
#
# > *"We explained our skin cancer classifier with LIME (default settings, 50 superpixels, seed 42). In Figure
# > 2 the green region covers the mole, and five dermatologists rated the explanations as convincing, 4.6 of
# > 5. This shows that the network bases its diagnosis on the mole. The explanation is stable: running our
# > notebook again gives exactly the same figure."*
#
# What do these sentences show, what do they not show, and what would you ask for? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
That dermatologists are convinced makes the maps plausible; it does not test whether the network uses the
mole. I would ask them to cover the green superpixels and to report how far the score falls, beside the same
number of random ones, for all test images and not for one figure. Running the notebook again with seed 42 draws
the same samples, so the figure has to be the same: I want the rank correlation between several seeds, and how it
grows with the number of samples. One choice of 50 superpixels may cut the mole or join it with a ruler in the
picture; I would try other segmentations and other hiding colors. The R2 of the fit is missing, so nobody knows
whether a line describes the network at all. Finally, gray holes never occur in real photos, so some of the
answers may be about holes.
### END SOLUTION
"""

# %%
check("lime.report", criticism)

# %% [markdown]
# ## 8. Known answers
#
# One zero proves little. On 24 marked digits we **know** that the mark decides: without it, the network
# gives another answer. Occlusion gets squares of 4 x 4, which move by 2 pixels, so that each pixel is the
# mean of several; LIME gets small patches of 2 x 2. A method of the scoreboard is a function of
# `(model, x, target)`, and LIME explains one digit at a time, so wrap it:


# %%
def lime_maps(model, x, target, segments, n_samples):
    """LIME of each row of x (N, C, H, W), with a wide kernel."""
    answers = predictor(model)
    options = {"segments": segments, "n_samples": n_samples, "kernel_width": 1.0}
    maps = [lime_image(answers, row.numpy(), int(t), **options) for row, t in zip(x, target)]
    return torch.tensor(np.stack(maps))


# %%
fine = grid_of(2)
METHODS = {
    "occlusion": lambda m, x, t: occlusion(m, x, t, window=4, stride=2),
    "rise": lambda m, x, t: rise(m, x, t, n_masks=200, grid=7),
    "lime": lambda m, x, t: lime_maps(m, x, t, fine, 300),
}
marked = score(METHODS, ["marked_digits"], limit=24)
marked[["method", "pointing", "mass", "chance", "ms_per_row"]].round(2)

# %% [markdown]
# All three point at the mark most of the time. Occlusion had help: we gave it a square of the mark's own
# size, which nobody knows of a real shortcut. The mass of RISE is low for the reason that you saw: its
# level says nothing, and here nobody subtracted it.
#
# The second test: mosaics of four photos. Which of the four speaks for the class? A mosaic has 448 x 448
# pixels, and each question would cost four times as much as a photo. So let the methods look at it in half
# its size, and stretch their maps:


# %%
def at_half_size(method):
    def maps(model, x, target):
        small = F.interpolate(x, scale_factor=0.5, mode="area")
        return F.interpolate(method(model, small, target), scale_factor=2.0)

    return maps


cells = np.kron(np.arange(16).reshape(4, 4), np.ones((56, 56), int))  # (224, 224)
HALF = {
    "occlusion": lambda m, x, t: occlusion(m, x, t, window=56, stride=56),
    "rise": lambda m, x, t: rise(m, x, t, n_masks=24, grid=4),
    "lime": lambda m, x, t: lime_maps(m, x, t, cells, 24),
}
photos = score({name: at_half_size(method) for name, method in HALF.items()}, ["mosaics"], limit=4)
photos[["method", "pointing", "mass", "chance", "rows"]].round(2)

# %%
for scores_of_set in (marked, photos):
    board = record(scores_of_set)
wide = board.pivot(index="method", columns="dataset", values="pointing").loc[list(METHODS)]
plots.scoreboard(wide.dropna(axis="columns"), title="Asking finds the photo, and most of the marks")

# %% [markdown]
# Compare with [[cam]], whose maps of 7 x 7 cells hardly found the mark. A black box method is as fine as
# its patches, and pays with questions: here hundreds for each digit, where Grad-CAM takes one pass.
#
# ## 9. When it lies
#
# ### Patches that cut the object
#
# Same network, same zero, same method, four ways to cut the picture:

# %%
sides = [2, 4, 7, 14]
maps = [lime_image(cheat, zero, 8, segments=grid_of(side), n_samples=600) for side in sides]
plots.compare(
    maps,
    over=zero,
    titles=[f"{(28 // side) ** 2} squares" for side in sides],
    shared=False,
    title="The cut decides what can be found",
    mask=mark,
)

# %% [markdown]
# The frame is the mark. Squares of 4 x 4 cut it into four parts, and each of them lights up a whole square,
# black paper included. In the last picture, the mark and a part of the zero share one patch, and nobody can
# tell them apart. Always draw the patches, and try another cut.
#
# ### A boundary that is no line
#
# A box that says 1 inside a circle and 0 outside. Explain the point in its middle, with slopes:


# %%
def disk(rows):
    return (np.linalg.norm(rows, axis=1) < 1).astype(float)


for center in ([0.0, 0.0], [0.9, 0.0]):
    fit, quality = local_line(disk, np.array(center), width=0.5)
    print(f"at {center}: slopes {fit.coefficients.round(2)}, R2 {quality:.2f}")

# %% [markdown]
# In the middle both slopes are about 0: *nothing matters*, says LIME, though both coordinates decide. The
# $R^2$ near 0 gives it away. At the edge, a line is a fairer picture. **A LIME explanation without its $R^2$
# is half an explanation.**
#
# ### Questions about pictures that do not exist
#
# What did the network see while LIME asked about the four? Take the five most frequent answers, and for each
# the sample of which the network is surest:

# %%
z = np.random.default_rng(0).integers(2, size=(1000, 49))
copies = np.float32(image * z[:, grid])  # (1000, 28, 28)
chances = torch.tensor(read(copies)).softmax(dim=1).numpy()  # (1000, 10)
said = chances.argmax(axis=1)
counts = np.bincount(said, minlength=10)
print("answers to 1,000 half-hidden fours:", dict(enumerate(counts.tolist())))

# %%
top = np.argsort(-counts, kind="stable")[:5]
surest = chances.argmax(axis=0)[top]
plots.images(
    list(copies[surest][:, None]),
    titles=[f"says {k}: {chances[m, k]:.2f}" for k, m in zip(top, surest)],
    title="The explanation is made of answers about these",
)

# %% [markdown]
# Nobody trained the network on pictures with holes. It has to say something, and it can be very sure of it.
# LIME's line is fitted to that. An adversary can use this: a network that behaves well whenever it sees
# holes, and badly otherwise, gets a clean explanation (Slack and others, 2020).

# %%
progress()

# %% [markdown]
# **You can now**
# - explain a decision by covering parts of the input: one at a time (occlusion) or many at random (RISE)
# - write LIME's objective, and solve it in a few lines for a table, a picture and a text
# - measure how far an explanation moves with the seed, the kernel width and the patches
# - tell a plausible explanation from a faithful one, by a test and not by eye
# - mend the errors that LIME raises when it is given a PyTorch network
#
# ## Takeaways
#
# - LIME is one weighted regression on switches. What a switch hides, and with what, is half of the answer:
#   say it under the map.
# - Run it again with another seed, give the $R^2$, and compare with a patch that cannot matter. A fixed seed
#   repeats the noise, it does not remove it.
# - That a map looks right is no evidence. Cover what it shows and ask the network.
#
# ## Myth refuted
#
# *"LIME's answer is a weighted sum of several local models' outputs."* Section 3: it is the coefficients of
# **one** model. A general optimizer, given the objective alone, lands on the same seven numbers; the myth's
# sum is one number, a prediction.
#
# ## Go further
#
# - Zeiler, Fergus (2014), *Visualizing and Understanding Convolutional Networks*: occlusion.
# - Ribeiro, Singh, Guestrin (2016), *"Why Should I Trust You?": Explaining the Predictions of Any Classifier*:
#   LIME.
# - Petsiuk, Das, Saenko (2018), *RISE: Randomized Input Sampling for Explanation of Black-box Models*.
# - Alvarez-Melis, Jaakkola (2018), *On the Robustness of Interpretability Methods*: small changes of the input,
#   large changes of LIME.
# - Garreau, von Luxburg (2020), *Explaining the Explainer: A First Theoretical Analysis of LIME*: what the
#   coefficients converge to, and what the kernel width does.
# - Jacovi, Goldberg (2020), *Towards Faithfully Interpretable NLP Systems: How Should We Define and Evaluate
#   Faithfulness?*
# - Slack, Hilgard, Jia, Singh, Lakkaraju (2020), *Fooling LIME and SHAP: Adversarial Attacks on Post hoc
#   Explanation Methods*.
