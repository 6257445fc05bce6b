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
# # Start here: why did it say cat?
#
# **Question:** Why does a network call this photo a cat, and how do you know that the explanation is true?
#
# **You will be able to**
# - explain a photo's prediction in two cells, and read the map without reading too much into it
# - tell a confident-looking map from a true one, and score a map where the answer is known
# - place a method on the map of the field: local or global, and one of four kinds
# - choose a method for a case of your own
#
# **You need:** nothing but a little Python
#
# **Time:** [[time]]; the cells run in seconds · **Difficulty:** 1 of 5
#
# Run a cell with Shift + Enter. The first one takes the longest, up to half a minute: it loads a
# network that was trained on over a million photos to tell 1,000 things apart, and shows it a cat.

# %%
import skimage.data

import xailab
from xailab import data, doctor, models, plots, widgets
from xailab.course import check, hint, predict, progress, quiz, reveal
from xailab.evaluate.scoreboard import score

net = models.pretrained("efficientnet_lite0")
x = net.preprocess(skimage.data.chelsea())  # (1, 3, 224, 224)
photo = net.picture(x)[0]  # what the network sees: (224, 224, 3)
top = net.top(x, k=2)  # (class number, name, probability)
words = ", ".join(f"{name} {p:.2f}" for _, name, p in top)
plots.images([photo], titles=[words], title="The network sees a cat")

# %% [markdown]
# A tiger cat, it says, with a probability of 0.39, or perhaps an Egyptian cat. **Why?** Ask one of the
# methods of this course:

# %% tags=["readme-cat"]
tiger_cat = top[0][0]
why = xailab.explain(net.model, x, tiger_cat, methods=["grad_cam"])
why.plot(over=photo, title="Bright: what speaks for tiger cat")

# %% [markdown]
# That is your first explanation of a neural network. The rest of this notebook is about what you
# may believe of it.

# %% [markdown]
# ## 1. How to read the map
#
# The network sees 224 x 224 pixels, but its last layers see only 7 x 7 cells, and how much of which
# pattern was found in each. Grad-CAM asks of each cell: **how much did what was found here raise the
# score of tiger cat?** (The score is the network's number for a class; out of all scores it makes the
# probabilities.) The answer is 49 numbers. The smooth cloud above is these numbers, stretched:

# %%
cells = xailab.explain(net.model, x, tiger_cat, methods=["grad_cam"], upsample=False)["grad_cam"]
plots.heatmap(cells, photo, title="All that Grad-CAM knows: 49 numbers", label="evidence")

# %% [markdown]
# Look at the cheek below the eye on the left, and at the row along the nose: there the network found
# most evidence. In this network the 49 numbers even add up to the score ([[cam]] says when they do):

# %%
print(f"the cells together: {cells.sum():.2f}, the score: {net.model(x)[0, tiger_cat]:.2f}")

# %% [markdown]
# Three things to keep in mind:
#
# - The map says **where**, not what. Fur? Whiskers? It cannot tell. And the where is rough: each cell
#   also looks beyond its borders.
# - It speaks about **one class**. For another class you have to ask again.
# - It speaks about **the network**, not about the cat.
#
# Below every picture stands a line "In words". It says the same for those who cannot see the picture,
# and it holds the numbers for those who can. Its *mass* is the sum of a map's values: the less of the
# picture holds half of the mass, the sharper is the map.

# %% [markdown]
# Try yourself. Open an answer to see what it would mean.

# %%
quiz("start_here.q_bright")

# %% [markdown]
# ## 2. Is the explanation itself right?
#
# This question runs through the whole course. A first doubt: what does the network do with a photo
# whose subject is **none** of its 1,000 classes? For the space shuttle behind her there is a class,
# for an astronaut there is none:

# %%
astronaut = net.preprocess(skimage.data.astronaut())
suit = net.picture(astronaut)[0]
fitting = sum("astronaut" in name for name in net.classes)
words = f"classes with this name: {fitting} of {len(net.classes)}"
plots.images([suit], titles=[words], title="An astronaut")

# %% [markdown]
# ### Exercise: how sure will it be? (predict, 1 minute)
#
# The network must answer. Which probability does it give its best guess? Put a number from 0 to 1 in
# place of `...` before you run on. It stays on this computer, and a wrong guess costs nothing. For a
# hint, type `hint("start_here.astronaut")` in a new cell.

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = 0.5
### END SOLUTION

# %%
predict("start_here.astronaut", guess)

# %%
best = net.top(astronaut, k=3)
reveal("start_here.astronaut", best[0][2])
plots.table(best, ["class", "name", "probability"], title="What it says to the astronaut")

# %% [markdown]
# It is not sure, and what it says is not true. Now ask *why* twice: why the best guess, and why
# tiger cat, a class that it does not believe in.

# %%
asked = [best[0][0], tiger_cat]
p = net.model(astronaut).softmax(1)[0, asked].tolist()
both = [xailab.explain(net.model, astronaut, c, methods=["grad_cam"])["grad_cam"] for c in asked]
names = [f"{net.classes[c]} (p = {share:.4f})" for c, share in zip(asked, p)]
plots.compare(
    both, over=suit, titles=names, shared=False, title="Bright, however small the probability"
)

# %% [markdown]
# The right map looks just as confident as the left one. Yet there is no cat, and the network says so
# itself. Each map is drawn on its own scale, from nothing to its own top, so every map has a bright
# spot. The tops stand in the words below: 0.657 on the left, 0.0573 on the right.
# **A bright map is no sign of a sure network.**

# %% [markdown]
# The left map raises a suspicion: the space helmet was taken for a football helmet. The map cannot
# prove it, but you can test it. Cover the helmet with gray, and ask again. To be fair, cover as much
# of the sleeve as well:

# %%
covered = astronaut.repeat(2, 1, 1, 1)  # (2, 3, 224, 224): the photo twice
covered[0, :, 144:, 112:] = 0  # 0 is gray to the network
covered[1, :, 144:, :112] = 0
p = net.model(covered).softmax(1)[:, asked[0]].tolist()
words = [f"football helmet: {share:.3f}" for share in p]
plots.images(net.picture(covered), titles=words, title="No space helmet, no football helmet")

# %% [markdown]
# The probability was 0.162. Without the helmet almost nothing is left of it, without the sleeve most
# of it is. Two methods that work in different ways now say the same, and that is worth more than one
# bright map.

# %% [markdown]
# ### Where the answer is known, you can keep score
#
# The face of the cat fills its photo, so a map that is bright *anywhere* looks right. Take a picture
# where a map can be wrong: four photos in one, here a cannon, geese, a stained-glass window and a
# bottle cap. Ask for one class, goose. The evidence should lie in its cell, because nothing else in
# the picture is a goose. Where it does not, the map is wrong, or the network is.

# %%
grids = data.mosaics(seed=0)
i = 3
mosaic, target = models.normalize(grids.images[i]), int(grids.target[i])
found = xailab.explain(net.model, mosaic, target, methods=["grad_cam"])["grad_cam"]
title = f"Asked for {grids.names[i]}, it finds the cell"
plots.heatmap(found, grids.images[i], title=title, label="evidence", mask=grids.truth[i])

# %% [markdown]
# The white frame is the truth. The end of the line under the picture gives the **share of the map
# inside it**, 74 %. A map that knows nothing would get 25 %, since the frame is a quarter of the
# picture. With a number you can compare methods. Here is Grad-CAM beside `saliency`, the slope of the
# score for every pixel ([[saliency]]), on five mosaics:

# %% tags=["readme-scores"]
table = score(["grad_cam", "saliency"], ["mosaics"], limit=5)
shares = table.pivot(index="method", columns="dataset", values="mass")
label = "share of the map in the right cell"
plots.scoreboard(shares, title="Grad-CAM finds the cell better", xlabel=label, chance=0.25)

# %% [markdown]
# On average both beat chance, and neither is perfect. Every method of this course that draws a map
# goes through tests like this one, and the scores grow into one **scoreboard**.

# %% [markdown]
# ### Exercise: a friend's argument (criticise, 4 minutes)
#
# A friend sees the map of the cat and says: *"The map is warm on the cat, so the model is right for the
# right reason."* Why does that not follow? And what would you try, to find out? Two or three sentences.
# Stuck? `hint("start_here.right_reason")` gives up to three hints.

# %% tags=["exercise"]
argument = """
### BEGIN SOLUTION
The face fills the whole photo, so the map could not miss the cat: it would be warm on the cat
whatever the reason was. A cell that is warm also does not say what was found there, fur or a shadow.
I would ask about photos with other things beside the cat, or a mosaic where I know the right cell,
score the map there, and cover the warm cells to see whether the score really falls.
### END SOLUTION
"""

# %%
check("start_here.right_reason", argument)

# %% [markdown]
# ## 3. The map of the field
#
# A trained network is a **black box**: you can look at every number in it and still not know why it
# answers as it does. Two questions open it. *Why this answer?* is **local**: it is about one input.
# *What has it learned?* is **global**: it is about the model as a whole. You can show the answer to
# people, or use it to build something simpler.

# %%
labels = {
    "box": "black box\na trained network",
    "local": "local\nwhy this answer?",
    "global": "global\nwhat has it learned?",
    "show": "visualize\nshow the reasons",
    "distill": "distill\nteach a simpler model",
    "compress": "compress\nkeep what matters",
}
edges = [("box", "local"), ("box", "global"), ("local", "show"), ("global", "show")]
edges += [("global", "distill"), ("global", "compress")]
groups = {"local": "explain", "global": "explain"}
groups |= dict.fromkeys(["show", "distill", "compress"], "use the explanation")
plots.graph(edges, labels, groups=groups, title="Two questions open the box")

# %% [markdown]
# The methods differ in what they do to get an answer. This course sorts them into four kinds. You have
# met two of them: Grad-CAM follows slopes, and covering the helmet was a perturbation. You need not
# know the other names yet; the number says which lesson teaches each.

# %%
plots.table(widgets.method_kinds(), ["kind", "local", "global"], title="Four kinds of explanation")

# %%
quiz("start_here.q_scope")

# %% [markdown]
# ### From a question to a report: seven steps
#
# The lessons teach the methods one by one. The case studies at the end (planned) put them together,
# always in these seven steps. You have done a little of three: you looked at a model's answers (1),
# Grad-CAM used its activations and gradients (2), and you asked why about one photo (4).

# %%
labels = {
    1: "1. data and model",
    2: "2. activations\nand gradients",
    3: "3. importance\nand sensitivity",
    4: "4. local\nwhy this?",
    5: "5. global\nwhat was learned?",
    6: "6. distill and\ncompress",
    7: "7. use",
}
places = {1: (0, 0), 2: (1, 0), 3: (2, 0), 4: (3, 0), 5: (3, 1), 6: (2, 1), 7: (1, 1)}
edges = [(step, step + 1) for step in range(1, 7)]
plots.graph(edges, labels, positions=places, title="Seven steps from the data to the use")

# %% [markdown]
# ## 4. Which method for your case?
#
# It depends on what you have. Do you hold the network, or can you only ask it, as with a web service?
# What is there to explain, how much time do you have, and who wants to know? Choose with the mouse, or
# with Tab and the space bar.

# %%
widgets.method_chooser()

# %% [markdown]
# A lesson that is *planned* is not written yet. The same advice comes from a function. Here an
# outside auditor, who can only ask a bank's credit model, wants to know what it has learned:

# %%
advice = widgets.recommend(access="predictions", data="table", time="minutes", who="auditor")
rows = [(method.name, method.kind, method.reason) for method in advice]
plots.table(rows, ["method", "kind", "why"], title="For the auditor of a credit model")

# %% [markdown]
# ## 5. How these notebooks work
#
# | you see | what it does |
# |---|---|
# | `predict(...)`, `reveal(...)` | keeps your guess, then shows it beside what came |
# | `quiz(...)` | a question; open an answer to see what it would mean |
# | `check(...)` | tests your answer and names the mistake |
# | `hint("start_here.top_names")` | the next of up to three hints; type it in a new cell |
# | `progress()` | what you have done; it is stored on this computer alone |
#
# You can run every notebook from top to bottom with no exercise done. Answers stand in `solutions/`.
#
# ### Exercise: what does it say? (code, 5 minutes)
#
# A network gives one score per class, the **logits**; 9.25 was the logit of tiger cat. The larger, the
# more it believes in the class. Return the names of the `k` classes with the largest logits, the
# largest first. `logits` is a PyTorch tensor with one number per class, `names` a list of as many
# names. Break your function on purpose once, and see what `check` says.


# %% tags=["exercise"]
def top_names(logits, names, k):
    """List of the k names with the largest logits, a tensor (K,), the largest first."""
    ### BEGIN SOLUTION
    places = logits.argsort(descending=True)[:k]
    return [names[i] for i in places]
    ### END SOLUTION


# %%
check("start_here.top_names", top_names)

# %% [markdown]
# The door to all methods is `xailab.explain`: the model, the input, the class, the methods. It gives
# every method the same conditions, draws with `.plot()`, and says it in words with `.describe()`.
# In brackets stand the time and how many inputs (*rows*) went through the network. Saliency has
# negative values too: there, a larger pixel would lower the score.

# %%
both = xailab.explain(net.model, x, tiger_cat, methods=["grad_cam", "saliency"])
print(both.describe())

# %% [markdown]
# Last, does your computer have what the lessons need? A line with [FAIL] also says how to mend it;
# `doctor.show()` lists everything that was checked.

# %%
checks = doctor.report()
doctor.show(each for each in checks if not each.ok)
print(f"[OK] {sum(each.ok for each in checks)} of {len(checks)}")

# %% [markdown]
# ## 6. A short history
#
# The methods of this notebook are young, the wish to explain a network is not: a readable tree was
# drawn from one in 1996.

# %%
history = [
    (1943, "A neuron as logic on paper (McCulloch, Pitts)"),
    (1986, "Backpropagation becomes known (Rumelhart and others)"),
    (1996, "A decision tree drawn from a network (Craven, Shavlik)"),
    (2006, "Deep belief nets (Hinton, Osindero, Teh)"),
    (2012, "AlexNet wins the ImageNet contest (Krizhevsky and others)"),
    (2013, "Saliency maps of photos (Simonyan and others)"),
    (2016, "LIME (Ribeiro, Singh, Guestrin)"),
    (2017, "SHAP (Lundberg, Lee)"),
    (2017, "Grad-CAM (Selvaraju and others)"),
]
plots.timeline(history, title="Of these five ways to explain, four came after AlexNet")

# %% [markdown]
# ## 7. Ways through the course
#
# [[track self_study]]
# [[track lab]]
# [[track workshop]]
# [[track day]]

# %%
progress()

# %% [markdown]
# **You can now**
# - explain a photo's prediction in two cells, and read the map without reading too much into it
# - tell a confident-looking map from a true one, and score a map where the answer is known
# - place a method on the map of the field: local or global, and one of four kinds
# - choose a method for a case of your own
#
# ## Takeaways
# - A map says where the network found evidence for one class; not what it found, and not whether the
#   answer is true.
# - Every map has a bright spot. Look at the probability and at the scale before you look at the colors.
# - An explanation is a claim. Test it where the answer is known, and take two of different kinds.
#
# ## Myth refuted
# - *"The map is bright, so the network is sure."* Section 2: asked for tiger cat, a photo of an astronaut gives a map with a bright spot, at a probability of 0.0002.
#
# ## Go further
# - Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra (2017), *Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization*: the method of the first picture.
# - Ribeiro, Singh, Guestrin (2016), *"Why Should I Trust You?": Explaining the Predictions of Any Classifier*: LIME, and a classifier, trained to fail, that tells wolves from huskies by the snow.
# - Lundberg, Lee (2017), *A Unified Approach to Interpreting Model Predictions*: SHAP.
# - The other dates: McCulloch, Pitts (1943), *A Logical Calculus of the Ideas Immanent in Nervous Activity*; Rumelhart, Hinton, Williams (1986), *Learning Representations by Back-propagating Errors*; Craven, Shavlik (1996), *Extracting Tree-Structured Representations of Trained Networks*; Hinton, Osindero, Teh (2006), *A Fast Learning Algorithm for Deep Belief Nets*; Krizhevsky, Sutskever, Hinton (2012), *ImageNet Classification with Deep Convolutional Neural Networks*; Simonyan, Vedaldi, Zisserman (2013), *Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps*.
