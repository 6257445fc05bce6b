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
# # Distillation: can a smaller model take its place?
#
# **Question:** A network of 24,000 numbers reads digits: can one with a tenth of them, or a tree that you can read, take its place, and does it then give the same reasons?
#
# **You will be able to**
# - soften a network's answers with a temperature, and compute the distillation loss by hand
# - say when a teacher helps a small network, when it does not, and how sure you are
# - turn a network into a tree, a tree of gates and a linear model, and say what each costs
# - measure how far a student follows its teacher: in its answers, and in where it looks
#
# **You need:** [[backprop]] and [[saliency]]
#
# **Time:** [[time]]; the cells run in half a minute · **Difficulty:** 3 of 5

# %%
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import rankdata, spearmanr, ttest_1samp
from scipy.stats import t as student_t
from sklearn.metrics import accuracy_score
from sklearn.tree import DecisionTreeRegressor
from torch import nn

from xailab import data, models, plots
from xailab.attribution.occlusion import occlusion
from xailab.attribution.saliency import saliency
from xailab.behavior.concepts import knowledge_graph, write_graphml
from xailab.behavior.surrogates import rules_of
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.simplify import distill as simplify

# %% [markdown]
# The **teacher** is the digit network of the lessons before. The **student** has two small convolutions
# and one linear layer. You start with a student that is trained already:

# %%
teacher = models.digit_cnn()
students = models.digit_students()
student = students.taught[0]


def size(model):
    return sum(p.numel() for p in model.parameters())


share = size(student) / size(teacher)
print(f"teacher {size(teacher):,} numbers, student {size(student):,}: {share:.1%}")

# %%
digits = data.load("mnist5k")
images = torch.tensor(digits.images / 255, dtype=torch.float32)[:, None]  # (5000, 1, 28, 28)
labels = torch.tensor(digits.y).long()
learn = torch.tensor(digits.extra["train"])
X, y = images[learn], labels[learn]  # 4,000 to learn from
X_new, y_new = images[~learn], labels[~learn]  # 1,000 that no network learned from

# %% [markdown]
# How often are they right? And how often does the student say what the teacher says, right or wrong?
# The second number is called **fidelity**.


# %%
@torch.no_grad()
def answers(model, x=X_new):
    """Class numbers (N,) that a model gives."""
    return model(x).argmax(1)


said, told = answers(teacher), answers(student)
print(f"teacher right {accuracy_score(y_new, said):.3f}")
print(f"student right {accuracy_score(y_new, told):.3f}, fidelity {accuracy_score(said, told):.3f}")

# %% [markdown]
# A tenth of the numbers, nearly the same answers. Now ask both **why**: cover a window of 7 x 7 pixels,
# and see how far the score of their answer falls. This is the figure of this lesson. Look whether the
# right map has the spots of the left one:


# %%
def drops(model, x, target):
    """Occlusion maps (N, 1, 28, 28): how far the score falls where a window covers x."""
    return occlusion(model, x, target, window=7, stride=4, batch_size=500)


five = X_new[y_new == 5][:1]
plots.compare(
    [drops(model, five, 5) for model in (teacher, student)],
    over=five[0],
    titles=["teacher", "student"],
    shared=False,
    title="Both say 5; not for quite the same reasons",
    label="fall of the score of 5",
)

# %% [markdown]
# Both need the upper right end of the 5. For the student the lower left counts less, and the blue middle speaks
# louder against a 5. You will see how such a student is made, what it costs, and how its reasons compare
# with the teacher's.
#
# ## 1. What a label leaves out
#
# A label is one number: *this is a 3*. The teacher says more. Take the digit of which it is least sure
# though it is right:

# %%
with torch.no_grad():
    logits_new = teacher(X_new)  # (1000, 10)
chances = logits_new.softmax(1)
right = chances.argmax(1) == y_new
doubtful = int(torch.where(right, chances.amax(1), 1).argmin())
x, t = X_new[doubtful], logits_new[doubtful]  # t: ten logits
first, second = t.topk(2).indices.tolist()
plots.images([x], titles=[f"label: {y_new[doubtful]}"], title="A digit that could be two")

# %%
plots.bars(
    chances[doubtful],
    [str(k) for k in range(10)],
    title=f"The label says {first}; the teacher says {first}, or perhaps {second}",
    xlabel="probability",
)

# %% [markdown]
# Which wrong answers are *nearly* right, and which are absurd: no label tells you that. Most digits are
# clear, though, and there the teacher's probabilities look like a label:

# %%
clear = int(chances.amax(1).argmax())
print("label  ", y_new[clear].item())
print("teacher", [f"{p:.0e}" for p in chances[clear].tolist()])

# %% [markdown]
# The knowledge is there, but from the seventh decimal on. A **temperature** $T$ brings it out. Divide the
# logits by $T$ before the softmax:
#
# $$p_k = \frac{e^{t_k / T}}{\sum_j e^{t_j / T}}$$
#
# $t_k$ is the teacher's logit of class $k$. Look at one column after the other: what was the second
# best answer for this digit?

# %%
heats = [1, 2, 4, 8, 100]
soft = torch.stack([(logits_new[clear] / T).softmax(0) for T in heats], dim=1)  # (10, 5)
plots.cells(
    pd.DataFrame(soft.numpy(), index=range(10), columns=heats),
    title="Heat brings out the second best answers",
    label="probability",
    xlabel="temperature T",
    ylabel="class",
)

# %% [markdown]
# At 1 the column is a label. At 4 you can read a ranking. At 100 all are alike and nothing is left to learn,
# or so it seems: hold that thought.
#
# ### The loss, with numbers
#
# The student has logits $s$, softened in the same way to $q$. It pays for the distance from $p$ to $q$ (the
# Kullback-Leibler divergence, KL), and, if you like, for missing the label $y$:
#
# $$L = \alpha\, T^2 \sum_k p_k \log \frac{p_k}{q_k} \;-\; (1 - \alpha) \log \mathrm{softmax}(s)_y$$
#
# $\alpha$ is the teacher's share. Two classes, $T = 2$: the teacher's logits are $2\ln 3$ and $0$, the
# student's are $0$ and $0$, the label is the second class. Do it on paper first.

# %%
# NBVAL_CHECK_OUTPUT
T, alpha = 2, 0.25
p = np.array([3, 1]) / 4  # exp(2 ln 3 / 2) = 3 against exp(0) = 1
q = np.array([1, 1]) / 2
distance = (p * np.log(p / q)).sum()
by_hand = alpha * T**2 * distance + (1 - alpha) * -np.log(0.5)
print(f"distance {distance:.4f}, T^2 times that {T**2 * distance:.4f}, loss {by_hand:.4f}")
s, t = torch.zeros(1, 2), torch.tensor([[2 * np.log(3), 0.0]])
ours = simplify.distillation_loss(s, t, torch.tensor([1]), temperature=2, alpha=0.25)
np.testing.assert_allclose(ours, by_hand, rtol=1e-6)

# %% [markdown]
# ### Exercise: the teacher's part (code, 6 minutes)
#
# Write the first part of the loss for a whole batch: softened, with $T^2$, the mean over the rows.
# `hint("distillation.soft_loss")` helps in up to three steps.


# %% tags=["exercise"]
def soft_loss(student_logits, teacher_logits, temperature):
    """T^2 KL(p || q) of logits (N, K), mean over the rows: one number."""
    ### BEGIN SOLUTION
    log_p = F.log_softmax(teacher_logits / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
    ### END SOLUTION


# %%
check("distillation.soft_loss", soft_loss)

# %% [markdown]
# In practice you take torch's `KLDivLoss`. Mind its `reduction`: the default also divides by the number
# of classes.

# %%
s, t = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(0))  # six rows each
ours = simplify.distillation_loss(s, t, torch.zeros(6).long(), temperature=4, alpha=1)
pair = (s / 4).log_softmax(1), (t / 4).softmax(1)
torch.testing.assert_close(ours, 16 * nn.KLDivLoss(reduction="batchmean")(*pair))
default = (16 * nn.KLDivLoss(reduction="none")(*pair).mean()).item()  # as reduction="mean"
print(
    f"ours {ours.item():.3f}, torch's default {default:.3f}: {ours.item() / default:.0f} times less"
)

# %% [markdown]
# ### Two limits
#
# What does a student learn from this loss? Follow its slope. On paper, the slope of the first part with
# respect to the student's logits is $\alpha T (q - p)$. Compare it with two simple rules:
#
# - *be as sure as the teacher*: $q - p$ at $T = 1$, cross-entropy with soft labels
# - *copy the logits*: $(s - t) / K$, for logits whose mean is 0


# %%
def slope(T):
    """Of the loss with respect to the student's logits, (6, 10)."""
    leaf = s.clone().requires_grad_()
    loss = simplify.distillation_loss(leaf, t, torch.zeros(6).long(), temperature=T, alpha=1)
    return torch.autograd.grad(loss, leaf)[0] * len(s)  # without the mean's 1/6


copying = ((s - s.mean(1, keepdim=True)) - (t - t.mean(1, keepdim=True))) / 10
sure = s.softmax(1) - t.softmax(1)
rows = []
for T in (1, 2, 4, 20, 100):
    gaps = [(slope(T) - rule).norm() / rule.norm() for rule in (sure, copying)]
    rows.append((T, *(f"{gap.item():.3f}" for gap in gaps)))
names = ["T", "distance to 'be as sure'", "distance to 'copy the logits'"]
plots.table(rows, names, title="One loss, two limits")

# %% [markdown]
# At $T = 1$ the first rule holds exactly, at $T = 100$ nearly the second. So nothing is lost in the heat: $T^2$
# brings the small differences back.

# %%
quiz("distillation.q_hot")

# %% [markdown]
# ## 2. A student that never saw a 3
#
# Is there really knowledge in these second best answers? Here is a hard test (it is Hinton's, 2015).
# Take **all 3s away** from the 4,000 digits. One student learns from the labels of what is left. Another
# learns from the teacher's answers to the very same digits, at $T = 4$, and gets no label at all.

# %%
no_3 = y != 3
options = {"temperature": 4, "epochs": 3, "learning_rate": 1e-2}
test, rivals = (X_new, y_new), {}
for name, alpha in (("labels", 0), ("teacher", 1)):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # both begin alike
        rivals[name] = models.SmallDigitCNN()
    simplify.distill(rivals[name], teacher, (X[no_3], y[no_3]), test, alpha=alpha, **options)

# %%
for name, model in rivals.items():
    hits = answers(model)[y_new == 3] == 3
    print(f"taught by {name:8} {hits.float().mean():.0%} of the 100 new 3s recognized")

# %% [markdown]
# The first student cannot know what a 3 is. The second was never shown one either, but its teacher knows them,
# and told it of many 5s and 8s how much they look like a 3. That is where a teacher's knowledge sits: in
# how it is wrong.
#
# ## 3. When does a teacher help?
#
# You will read that students of a teacher do better than students of labels. Test it. Nine students,
# all of 2,174 numbers, were trained with `distill` for you: three ways, three beginnings each. All of
# them took the same number of steps, and all saw their digits moved by up to two pixels.
#
# | way | digits | what they were told |
# |---|---|---|
# | few labels | 200 | labels |
# | all labels | 4,000 | labels |
# | taught | 4,000 | the teacher's answers, $T = 2$, $\alpha = 1$: no label at all |
#
# ### Predict, then run (2 minutes)
#
# On new digits, how many **percentage points** will the taught students be better than those with all
# 4,000 labels? A number from -10 to 10; less than 0 if you think they will be worse.

# %% tags=["exercise"]
### BEGIN SOLUTION
points = 1.0
### END SOLUTION

# %%
predict("distillation.points", points)

# %%
WAYS = {
    "few labels": students.few_labels,
    "all labels": students.all_labels,
    "taught": students.taught,
}
right = pd.DataFrame(
    {
        way: [100 * accuracy_score(y_new, answers(one)) for one in three]
        for way, three in WAYS.items()
    }
)
reveal("distillation.points", round((right["taught"] - right["all labels"]).mean(), 1))
right.round(1)

# %%
with torch.no_grad():
    logits = teacher(X)  # (4000, 10): what the taught students were told, but for the moves
wrong = (logits.argmax(1) != y).sum().item()
print(f"right in the mean: {right.mean().round(1).to_dict()}")
print(f"the teacher: {100 * accuracy_score(y_new, said):.1f}; of the 4,000 it misses {wrong}")

# %% [markdown]
# With all the labels there was nothing to gain: their students are as good as the teacher, and what it adds is
# its mistakes. That is no law. Hinton (2015) trained a small network without moved copies: 146 mistakes on
# 10,000 digits from labels alone, 74 with a teacher's answers beside them. But labels are what costs. Against
# the students with 200 labels the taught ones win, and needed none: a teacher answers as many questions as
# you have pictures.
#
# How sure is that, with three students each? The three differ by chance. Take the differences, pair by
# pair (each pair had the same first weights), their mean $m$ and standard deviation $d$. With $n$ pairs,
# the 95 % confidence interval is
#
# $$m \pm t_{n-1} \frac{d}{\sqrt{n}}$$
#
# $t_{n-1}$ is the .975 quantile of Student's $t$ distribution with $n - 1$ degrees of freedom (no
# relative of ours); for three pairs it is 4.30.
#
# ### Exercise: the interval (code, 5 minutes)
#
# `a` and `b` hold one number a pair; write it for any $n$. `hint("distillation.interval")` helps.


# %% tags=["exercise"]
def interval(a, b):
    """95 % confidence interval (low, high) of the mean of the paired differences a - b."""
    ### BEGIN SOLUTION
    d = np.asarray(a) - np.asarray(b)
    half = student_t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    return d.mean() - half, d.mean() + half
    ### END SOLUTION


# %%
check("distillation.interval", interval)

# %% [markdown]
# scipy has it too:

# %%
gaps = {f"taught - {way}": right["taught"] - right[way] for way in ("few labels", "all labels")}
gaps["taught - teacher"] = right["taught"] - 100 * accuracy_score(y_new, said)
spans = [ttest_1samp(gap, 0).confidence_interval(0.95) for gap in gaps.values()]
means = [gap.mean() for gap in gaps.values()]
plots.intervals(
    {"three seeds": (means, [s.low for s in spans], [s.high for s in spans])},
    list(gaps),
    title="The teacher is worth more than 200 labels, not more than 4,000",
    xlabel="percentage points on 1,000 new digits",
    line=0,
)

# %%
assert means[2] > -1.5  # within 1.5 points of the teacher
assert spans[0].low > 0  # and better than labels alone
print(f"{share:.1%} of the teacher's numbers, {-means[2]:.2f} points behind it")
print(
    f"{means[0]:.1f} points before 200 labels, 95 % interval {spans[0].low:.1f} to {spans[0].high:.1f}"
)

# %% [markdown]
# The interval is about three students, on one set of 1,000 digits and 200 labels drawn three times. And you have
# to know how the 200 came about: **they are a second try**. The first was 500 labels. Those students got
# 95.0 %, the taught ones led by 1.3 points, interval -1.3 to 3.9: no answer (`models.card("digit_students")`).
# Then 200 was taken. A count that is picked after a look at the result flatters it. So keep the direction (the fewer labels, the more a teacher
# is worth), not the 4 points. And do not forget its price: somebody labeled 4,000 digits for it.

# %%
quiz("distillation.q_labels")

# %% [markdown]
# ## 4. A tree that you can read
#
# The student is small, but you still cannot read it. A tree you can. Grow one that predicts the
# teacher's probabilities: at each node, take the pixel and the threshold that leave the smallest squared
# error (CART, with ten numbers a row to predict in place of one class). Here are five, from 2 to 10 levels
# deep; the check takes every eighth digit, to be quick.

# %%
flat, flat_new = X.flatten(1).numpy(), X_new.flatten(1).numpy()  # (4000, 784), (1000, 784)
p = logits.double().softmax(1).numpy()  # (4000, 10): what the tree has to say
depths = [2, 4, 6, 8, 10]
trees = {d: DecisionTreeRegressor(max_depth=d, random_state=0).fit(flat, p) for d in depths}
eighth = DecisionTreeRegressor(max_depth=4, random_state=0).fit(flat[::8], p[::8])
same = simplify.distill_tree(teacher, X[::8], max_depth=4)  # asks the teacher itself
np.testing.assert_allclose(eighth.predict(flat_new), same.predict(flat_new), atol=1e-5)

# %%
names = [f"({i},{j})" for i in range(28) for j in range(28)]  # row and column of a pixel
rules = rules_of(trees[4], names)  # the 4 of 16 that fire most often:
for rule in rules[:4]:
    hits = rule.fires(flat_new)
    follows = (said.numpy()[hits] == rule.conclusion).mean()
    print(f"{rule}\n    {hits.sum()} of 1,000 new digits; the teacher agrees on {follows:.0%}")

# %% [markdown]
# Read `(5,15) > 0.001961` as *ink in row 5, column 15*, and `<=` as *none*; a threshold of 0.5 tells strong ink
# from weak. You can check such a rule with a ruler, and see how rough it is. Draw the pixels of the first one:
# red has to have ink, blue has to be empty.

# %%
rule = rules[0]
asked = np.zeros(784)
for pixel, (low, _) in rule.bounds.items():
    asked[pixel] = 1 if low > 0 else -1
fired = X[rule.fires(flat)].mean(0)  # the mean picture of all digits of this rule
plots.heatmap(
    asked.reshape(28, 28),
    fired,
    title=f"A rule for {rule.conclusion}: {len(rule.bounds)} pixels, over the digits it catches",
    label="must have ink (+1), must be empty (-1)",
)

# %% [markdown]
# How far does a tree follow? Measure the fidelity of all five: on the digits they were grown on, and on new ones.


# %%
def fidelity(model_answers):
    return accuracy_score(said, model_answers)


def says(tree, rows):
    return tree.predict(rows).argmax(1)


told = p.argmax(1)
lines = {
    "4,000 digits it was grown on": [accuracy_score(told, says(trees[d], flat)) for d in depths],
    "1,000 new digits": [fidelity(says(trees[d], flat_new)) for d in depths],
}
plots.curve(
    depths,
    lines,
    title="A deep tree learns its 4,000 digits by heart",
    xlabel="depth of the tree",
    ylabel="fidelity",
)

# %% [markdown]
# So report fidelity **on new rows**, always. And does the tree follow when the digits move?
#
# ### Predict, then run (2 minutes)
#
# Move all new digits **one pixel** to the right. The teacher hardly notices. The tree of depth 10 agreed
# with it on about three quarters of the digits in place. Guess its fidelity on the moved ones, from
# 0 to 1.

# %% tags=["exercise"]
### BEGIN SOLUTION
moved_fidelity = 0.6
### END SOLUTION

# %%
predict("distillation.moved", moved_fidelity)


# %%
shifts = range(5)
still, by_tree, by_student = [], [], []
for columns in shifts:
    moved = F.pad(X_new, (columns, 0))[..., :28]  # (1000, 1, 28, 28): what leaves is lost
    now = answers(teacher, moved)
    still.append(accuracy_score(said, now))
    by_tree.append(accuracy_score(now, says(trees[10], moved.flatten(1).numpy())))
    by_student.append(accuracy_score(now, answers(student, moved)))
reveal("distillation.moved", round(by_tree[1], 2))

# %%
plots.curve(
    shifts,
    {
        "student follows teacher": by_student,
        "tree follows teacher": by_tree,
        "teacher says what it said": still,
    },
    title="Move the digits, and the tree loses its teacher",
    xlabel="digits moved to the right, pixels",
    ylabel="share of same answers",
)

# %% [markdown]
# Part of that fall may be schooling: teacher and student learned from moved digits, the tree from still ones. The
# rest is its form. The teacher's last step averages over all places; the tree asks fixed pixels. It copies
# some of the teacher's **answers**, by other means. Its rules are not the teacher's reasons.
#
# ## 5. A tree of soft gates
#
# What if each node could look at the whole picture? A **soft decision tree** has a gate at each node: a
# linear layer and a sigmoid. It sends the digit right with probability
#
# $$p_i(x) = \sigma(x \cdot w_i + b_i)$$
#
# and left with $1 - p_i$: $x$ are the 784 pixels, $w_i$ and $b_i$ the weights and the bias of gate $i$, $\sigma$ the
# sigmoid. A leaf is one fixed distribution over the classes, and the answer is the
# mean of all leaves, each weighted by the probability to arrive there. Train one of depth 5, with 31 gates
# and 32 leaves, on the teacher's probabilities:

# %%
soft_tree = simplify.SoftDecisionTree(784, 10, depth=5)
simplify.distill_soft_tree(
    soft_tree, teacher, (X, y), (X_new, y_new), epochs=8, learning_rate=3e-2, batch_size=128
)
print(f"fidelity {fidelity(answers(soft_tree)):.3f}")

# %% [markdown]
# Follow one digit by hand. At the root, multiply pixels and weights, add the bias:

# %%
shown = X_new[(y_new == 7) & (answers(soft_tree) == 7)][:1]  # a seven
w, b = soft_tree.weight.detach(), soft_tree.bias.detach()  # (31, 784), (31,)
evidence = shown.flatten() * w[0]  # (784,): what each pixel says at the root
right_root = torch.sigmoid(evidence.sum() + b[0])
print(f"{evidence.sum():.2f} + {b[0]:.2f} -> goes right with {right_root:.5f}")
torch.testing.assert_close(soft_tree.gates(shown)[0, 0].detach(), right_root)

# %% [markdown]
# A gate is linear, so its explanation is exact: pixel times weight, and they add up. `paths` gives the
# gates on the way to the likeliest leaf. Red pixels send the digit right, blue ones left, and the leaf answers:

# %%
path = soft_tree.paths(shown)[0].tolist()
gates = soft_tree.gates(shown)[0].tolist()
leaf = int(soft_tree.arrivals(shown)[0, -32:].argmax())
sure = soft_tree.leaf_logits[leaf].softmax(0)[7].item()
plots.compare(
    [(shown.flatten() * w[i]).reshape(28, 28) for i in path],
    titles=[f"gate {i}: right {gates[i]:.2f}" for i in path],
    title=f"The way of one 7 to leaf {leaf}, which says 7 with {sure:.2f}",
    label="pixel x weight",
)

# %% [markdown]
# One honest check is left. The answer is the mean of **all** leaves, the path shows **one**. How often is the
# path the whole story?

# %%
hard = soft_tree.decide(X_new).argmax(1)  # the likeliest leaf alone
sure_of = soft_tree.arrivals(X_new)[:, -32:].amax(1).detach()
print(
    f"fidelity of all leaves {fidelity(answers(soft_tree)):.3f}, of the path alone {fidelity(hard):.3f}"
)
print(f"arrival at the likeliest leaf: median {sure_of.median():.2f}, lowest {sure_of.min():.2f}")

# %% [markdown]
# ## 6. One layer: the linear student
#
# The plainest student is one linear layer. Every class has one picture of weights, and pixel times
# weight is the whole explanation.

# %%
linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
nn.init.zeros_(linear[1].weight)  # so that pixels without ink stay at 0
simplify.distill(
    linear, teacher, (X, y), (X_new, y_new), temperature=2, alpha=1, epochs=6, batch_size=128
)
print(f"{size(linear):,} numbers, fidelity {fidelity(answers(linear)):.3f}")

# %%
asked = [0, 3, 8]
plots.compare(
    [linear[1].weight[k].detach().reshape(28, 28) for k in asked],
    titles=[f"speaks for {k}" for k in asked],
    title="All that the linear student knows about three classes",
    label="weight",
)

# %% [markdown]
# Blue speaks against: the hole of a 0 must be empty, and so must the rim, where these three hardly have ink. It
# is a complete explanation, of a model that disagrees with the teacher on one digit in ten.
#
# ## 7. Fidelity against size
#
# Put all students on one picture. Size is how many numbers you have to store: weights; for a tree, a
# pixel and a threshold a node and the class of each leaf.


# %%
def tree_size(tree):
    leaves = int(tree.get_n_leaves())
    return 2 * (leaves - 1) + leaves


convs = [*students.sizes[:2], student, *students.sizes[2:]]
board = {
    "small CNN": [(size(one), fidelity(answers(one))) for one in convs],
    "tree": [(tree_size(trees[d]), f) for d, f in zip(depths, lines["1,000 new digits"])],
    "soft tree": [(size(soft_tree), fidelity(answers(soft_tree)))],
    "linear": [(size(linear), fidelity(answers(linear)))],
}

# %%
figure, ax = plt.subplots(figsize=(6.4, 3.7), dpi=90, layout="constrained")
looks = ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"), ("#CC79A7", "^")
for (name, dots), (color, marker) in zip(board.items(), looks):
    ax.plot(*zip(*dots), color=color, marker=marker, label=name)
ax.spines[["top", "right"]].set_visible(False)
ax.axvline(size(teacher), color="gray", linestyle=":", label="size of the teacher")
ax.set(xscale="log", xlabel="numbers to store", ylabel="fidelity on 1,000 new digits")
ax.set_title("The form of a student counts more than its size", loc="left", weight="bold")
ax.legend()
words = "; ".join(
    f"{name}: " + ", ".join(f"{n:,} numbers {f:.2f}" for n, f in dots)
    for name, dots in board.items()
)
plots.picture(figure, f"Fidelity against size. {words}.")

# %% [markdown]
# At every size the convolutions win: the student that is built like its teacher follows best. What you can read
# follows less; what follows you cannot read. That is the price, and now you know it in numbers.
#
# ## 8. Does the student look where the teacher looks?
#
# The same answer can have other reasons. Take 60 digits, ask every network to explain the *teacher's*
# answer, and correlate the maps, pixel by pixel, by rank (Spearman). Two maps of one digit agree a
# little in any case, because the ink is there. So what is **chance**? The agreement with the student's map of
# *another* digit.

# %%
rows = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:60]
some, asked = X_new[rows], said[rows]
METHODS = {"saliency": saliency, "occlusion": drops}
maps = {
    (name, way, seed): explain(model, some, asked)  # (60, 1, 28, 28)
    for name, explain in METHODS.items()
    for way, three in {**WAYS, "teacher": [teacher]}.items()
    for seed, model in enumerate(three)
}

# %% [markdown]
# For one digit by hand: rank the 784 pixels of both maps, and correlate the ranks.

# %%
own, other = (maps["saliency", way, 0] for way in ("teacher", "taught"))
ranks = [rankdata(m[0]) for m in (own, other)]  # 1 to 784; equal pixels share a rank
by_hand = np.corrcoef([r.flatten() for r in ranks])[0, 1]
np.testing.assert_allclose(by_hand, spearmanr(own[0].flatten(), other[0].flatten()).statistic)
np.testing.assert_allclose(by_hand, simplify.explanation_agreement(own, other)[0], atol=1e-6)
print(f"the first digit: {by_hand:.2f}")


# %%
def agreement(name, way, move=0):
    """Mean rank correlation with the teacher's maps, for each of three students."""
    pairs = [(maps[name, "teacher", 0], maps[name, way, s].roll(move, 0)) for s in range(3)]
    return [simplify.explanation_agreement(*pair).nanmean().item() for pair in pairs]


found = {name: {way: agreement(name, way) for way in WAYS} for name in METHODS}
plots.scoreboard(
    pd.DataFrame(found).map(np.mean),
    title="Being taught brings the maps nearer to the teacher's",
    chance={name: np.mean(agreement(name, "taught", move=1)) for name in METHODS},
    xlabel="rank correlation with the teacher's maps",
)

# %% [markdown]
# Three things to read from the figure. Coarse maps (occlusion) agree well, but a good half of that is
# chance: ink is in the middle of every digit. Pixel by pixel (saliency) there is little in common, though
# more than by chance. And the teacher's answers bring the maps nearer to its own than labels do, though nobody
# showed the student a map.
#
# Is that gain of the taught students over *all labels* larger than what three beginnings vary by?

# %%
for name, per in found.items():
    gain = np.subtract(per["taught"], per["all labels"])
    low, high = ttest_1samp(gain, 0).confidence_interval()
    assert gain.mean() > 0
    print(f"{name:10} gain {gain.mean():.3f}, 95 % interval {low:.3f} to {high:.3f}")

# %% [markdown]
# An interval above 0 says yes, for these 60 digits: a small gain, but more than the beginnings vary. Nearly the
# same answers, reasons somewhat nearer, and still other spots, as in the figure at the start.
#
# ## 9. The student as a graph of knowledge
#
# A picture of what a student knows joins three kinds of things: the **classes**, the **units** that carry
# them, and the **rules** of the tree. Each link is measured: a unit *raises* a class if the score falls
# without it; a rule *concludes* a class in so many of its digits; a unit *goes with* a rule if they
# light up together (a correlation; below 0, one is on when the other is off).

# %%
graph = knowledge_graph(
    student,
    X_new,
    said,
    layer="relu2",
    rules=rules,
    class_names=[f"digit {k}" for k in range(10)],
    batch_size=500,
)
print(graph.number_of_nodes(), "things,", graph.number_of_edges(), "links; three of them:")
for start, end, link in list(graph.edges(data=True))[10:60:20]:
    print(f"  {start} {link['relation']} {end}: {link['weight']:.2f}")

# %% [markdown]
# The whole graph is for a program that can zoom. Export it as GraphML, which Gephi, Cytoscape and yEd open:

# %%
with TemporaryDirectory() as folder:
    path = write_graphml(graph, f"{folder}/student.graphml")
    back = nx.read_graphml(path)
    print(
        path.name, f"{path.stat().st_size / 1000:.0f} kB, {back.number_of_edges()} links read back"
    )

# %% [markdown]
# A fourth kind of link says where the student leaves its teacher: what the teacher calls this is *taken for*
# that. On paper, draw the neighborhood of the strongest of them:

# %%
links = [(a, b, link["relation"], link["weight"]) for a, b, link in graph.edges(data=True)]
_, *chosen = max((share, a, b) for a, b, relation, share in links if relation == "taken for")
kinds = dict(graph.nodes(data="kind"))
behind = [n for k in chosen for n in graph.predecessors(k) if kinds[n] != "class"]
near = [*dict.fromkeys(behind), *chosen]  # each once, in the order of the classes
arrows = [
    (a, b, f"{relation} {weight:.2f}")
    for a, b, relation, weight in links
    if {a, b} <= {*near} and (relation != "taken for" or a == chosen[0])
]
print(" and ".join(chosen))

# %%
of = {kind: [n for n in near if kinds[n] == kind] for kind in ("unit", "rule")}
places = {n: (0, y) for n, y in zip(of["unit"], (0.5, 1.5, 3.5))}
places |= {n: (1, 4 * i) for i, n in enumerate(of["rule"])}
places |= {n: (2, 1 + 2 * i) for i, n in enumerate(chosen)}
texts = {n: f"{n}\n{graph.nodes[n]['text'].replace(' AND ', chr(10))}" for n in of["rule"]}
plots.graph(
    arrows,
    texts,
    groups={n: kinds[n] for n in near},
    positions=places,
    title="What the student's 4 and 9 hang on",
)

# %% [markdown]
# Read one link of each kind. *Raises* is an intervention: switch the unit off, and the score falls by so
# much. Unit 3 raises both classes: a place to look, no proof, when a 4 is taken for a 9 (3 of 101). *Goes with* is
# an association only, and a weak one: the tree's rules and the student's units answer the same question by
# different means, as in section 4.

# %% [markdown]
# ## When it lies
#
# Fidelity was measured on digits. Ask teacher and student about something else: digits mirrored top to bottom,
# black on white, and noise, strong and pale.

# %%
noise = torch.rand(250, 1, 28, 28, generator=torch.Generator().manual_seed(0))
fourth = X_new[::4]  # 250 digits
elsewhere = {
    "new digits": fourth,
    "top to bottom": fourth.flip(2),
    "black on white": 1 - fourth,
    "strong noise": noise,
    "pale noise": 0.3 * noise,
}
shares = []
for name, x in elsewhere.items():
    two = [answers(model, x) for model in (teacher, student)]
    shares.append(accuracy_score(*two))
    most = [one.mode().values.item() for one in two]
    if "noise" in name:
        print(f"{name}: most often, the teacher says {most[0]} and the student {most[1]}")

# %%
plots.bars(
    shares,
    list(elsewhere),
    title="Where nobody asked the teacher, anything can happen",
    xlabel="fidelity of the student",
)

# %% [markdown]
# Fidelity is a number about **rows**, never about a model alone. A student that follows on 97 of 100 digits
# tells you little about what the teacher does on the first picture that is none: it may follow fully, or
# never.
#
# ### Exercise: a claim from a report (criticize, 8 minutes)
#
# > *"Our neural network decides on credit. To make it transparent, we distilled it into a decision tree
# > with 12 rules, which agrees with the network on 96% of the applications it was grown on. The rules in
# > Table 2 are therefore the reasons for which the network rejects applicants, and we hand them to those
# > who are rejected."*
#
# What does the number show, what does it not show, and what would you ask for? Four to six sentences.

# %% tags=["exercise"]
criticism = """
### BEGIN SOLUTION
The 96 % were measured on the rows the tree was grown on; a tree can learn those by heart, so I would ask
for its fidelity on new applications, and for each group and for the rejected ones alone, since most
applications may be easy approvals. Fidelity compares answers, not reasons: another model can give the
same answer by other means, as our tree did, which asked fixed pixels. For the 4 in 100 on whom the two
differ, the rule handed out is plainly false. I would compare attributions of both models, beside what
chance gives, and check each single letter: does the network itself change its answer when the rule's
condition is changed? If the rules are good enough to explain, decide by the tree itself.
### END SOLUTION
"""

# %%
check("distillation.credit", criticism)

# %%
progress()

# %% [markdown]
# **You can now**
# - soften a network's answers with a temperature, and compute the distillation loss by hand
# - say when a teacher helps a small network, when it does not, and how sure you are
# - turn a network into a tree, a tree of gates and a linear model, and say what each costs
# - measure how far a student follows its teacher: in its answers, and in where it looks
#
# ## Takeaways
#
# - A teacher's knowledge sits in its wrong answers. Temperature brings it out, and a student learned 3s that
#   it had never seen.
# - Here a teacher did not beat the labels that we had. It beats those that you do not have: it answers any
#   number of questions.
# - Fidelity is about answers on certain rows. Reasons have to be compared for themselves, beside chance.
#
# ## Myth refuted
#
# *"Distillation is a weighted sum of teachers."* A weighted sum of networks is a **larger** network, and of
# one teacher it is that teacher again:

# %%
with torch.no_grad():
    s, t = (z - z.mean(1, keepdim=True) for z in (student(X_new), logits_new))
weight = ((s * t).sum() / t.square().sum()).item()  # the best weight, by least squares
outside = (s - weight * t).square().sum() / s.square().sum()
print(
    f"best weight {weight:.2f}: says what the teacher says in {fidelity((weight * t).argmax(1)):.0%}"
)
print(
    f"the student: {fidelity(answers(student)):.1%}, {outside.item():.0%} of it no multiple of the teacher"
)

# %% [markdown]
# Distillation is a **loss**: soft cross-entropy at $T = 1$, a copy of the logits as $T$ grows, and what comes
# out is another function, as good as the student's form and its questions allow.
#
# ## Go further
#
# - Hinton, Vinyals, Dean (2015), *Distilling the Knowledge in a Neural Network*: soft targets, temperature,
#   the missing 3.
# - Ba, Caruana (2014), *Do Deep Nets Really Need to be Deep?*: students that copy logits.
# - Frosst, Hinton (2017), *Distilling a Neural Network Into a Soft Decision Tree*.
# - Craven, Shavlik (1996), *Extracting Tree-Structured Representations of Trained Networks*: fidelity.
# - Stanton, Izmailov, Kirichenko, Alemi, Wilson (2021), *Does Knowledge Distillation Really Work?*: students
#   that do not follow, and do well anyway.
