"""Each rule lets a good lesson pass and catches the bad ones planted for it."""

import base64
import re
import tomllib
from dataclasses import replace

import nbformat
import pytest
from nbformat import v4

from tests.lessons.rules import RULES, Built
from xailab.core.curriculum import Curriculum
from xailab.course.lesson import Lesson
from xailab.course.registry import Exercise, Question
from xailab.course.runs import Run

GOOD = '''# %% [markdown]
# # Demo: why?
#
# **Question:** Why?
#
# **You will be able to**
# - explain a map
#   in words
# - compute it
# - doubt it
#
# **You need:** [[saliency]]
#
# **Time:** [[time]] · **Difficulty:** 1 of 5

# %%
import numpy as np

from xailab.course import check, predict, quiz, reveal

# %% [markdown]
# ## 1. Idea
#
# ![the map we end with](map.png)

# %% tags=["exercise"]
def softmax(x):
    """Doc."""
    ### BEGIN SOLUTION
    return x
    ### END SOLUTION

# %%
check("demo.softmax", softmax)

# %% [markdown]
# ## 2. Guess

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = 0.3
### END SOLUTION

# %%
predict("demo.share", guess)

# %%
reveal("demo.share", 0.2)

# %% [markdown]
# ## 3. When it lies

# %%
check("demo.why", "It is flat there.")

# %%
quiz("demo.q")

# %% [markdown]
# **You can now**
# - explain a map in words
# - compute it
# - doubt it
#
# ## Takeaways
# - One.
# - Two.
# - Three.
#
# ## Myth refuted
# It is not so.
#
# ## Go further
# - A. Author (2017). A paper.
'''
KINDS = {"demo.softmax": "code", "demo.share": "predict", "demo.why": "criticize"}
POINTS = dict.fromkeys(("a", "b", "c", "d"), "It is so.")
FREE = {"model": "It is flat.", "rubric": POINTS}
EXERCISES = tuple(
    Exercise(id, kind, 1, 1, 1, (), print, **(FREE if kind == "criticize" else {}))
    for id, kind in KINDS.items()
)
TABLE = """[[parts]]
title = "All"
lessons = [
    { name = "saliency", title = "Saliency", needs = [] },
    { name = "demo", title = "Demo", needs = ["saliency"]FORM },
    { name = "later", title = "Later", needs = [], planned = true },
]
"""
QUESTIONS = (Question("demo.q", "Which?", {"a": "No.", "b": "Yes."}, "b"),)
LARGE = base64.b64encode(b"x" * 60_000).decode()
PNG = base64.b64encode(b"x" * 1000).decode()
ALT = {"image/png": {"alt": "the map is warm at the ear"}}


def picture(png=PNG, metadata=ALT):
    return v4.new_output("display_data", {"image/png": png}, metadata=metadata)


def course(form):
    return Curriculum._checked(tomllib.loads(TABLE.replace("FORM", form)))


def built(source=GOOD, outputs=(), form="", **changes):
    lesson = Lesson("demo", source, course(form))
    solution = lesson.solution()
    solution.cells[1].outputs = [picture(), *outputs]
    facts = {"exercises": EXERCISES, "questions": QUESTIONS, "exercises_belong_to": "01_demo"}
    facts["run"] = Run(seconds=3.0, peak_mb=300)
    return Built(lesson, lesson.learner(), solution, **(facts | changes))


def edited(old, new):
    assert old in GOOD
    return built(GOOD.replace(old, new))


def measured(**facts):
    return built(run=Run(**{"seconds": 3.0, "peak_mb": 300, **facts}))


def with_deeper(code, later="", close="", heading="## Deeper: more", tags=' tags=["deeper"]'):
    """A lesson with a deeper section, and with code after it."""
    text = f"# %% [markdown]{tags}\n# {heading}\n\n# %%\n{code}\n\n{later}"
    closed = (
        f"# %% [markdown]\n# ## Last\n\n# %%\n{close}\n\n# %% [markdown]\n# **You can now**"
        if close
        else CLOSE
    )
    return edited(CLOSE, f"{text}\n{closed}")


def said(words):
    return picture(metadata={"image/png": {"alt": "word " * words}})


def drawn(*outputs):
    it = built()
    it.solution.cells[1].outputs = list(outputs)
    return it


def with_learner_output():
    it = built()
    it.learner.cells[1].outputs = [picture()]
    return it


def text(words, kind="text/plain"):
    return v4.new_output("display_data", {kind: words})


ERROR = v4.new_output("error", ename="KeyError", evalue="", traceback=[])
WARNING = v4.new_output("stream", name="stderr", text="UserWarning")
LONG = "\n".join(f"x{i} = {i}" for i in range(25))
NINE = "\n\n".join("# %%\n" + "\n".join(f"y{i} = {i}" for i in range(9)) for _ in range(20))
CLOSE = "# %% [markdown]\n# **You can now**"
ANOTHER = '# %% [markdown] tags=["deeper"]\n# ## Deeper: other\n\n# %%\n{}\n'
BAD = {
    "opens_with_its_facts": [
        (edited("# # Demo: why?", "# Demo"), "no title"),
        (edited("# **Question:** Why?", "#"), "lacks `\\*\\*Question"),
        (edited("**You need:**", "See"), "lacks \\*\\*You need"),
        (edited("**Difficulty:**", "Hard"), "lacks \\*\\*Difficulty"),
    ],
    "closes_with_what_it_promised": [
        (edited("# - doubt it\n#\n# **You need", "#\n# **You need"), "2 bullets"),
        (edited("# - doubt it\n#\n# ## Take", "# - praise it\n#\n# ## Take"), "'You can now' has"),
    ],
    "has_takeaways_a_myth_and_further_reading": [
        (edited("# - Three.\n", ""), "2 takeaways"),
        (edited("## Myth refuted", "## Myth"), "Myth refuted"),
        (edited("(2017)", "(in press)"), "a year each"),
        (edited("## Go further", "## More"), "a year each"),
    ],
    "numbers_its_sections": [
        (edited("## 2. Guess", "## 4. Guess"), r"\[1, 4, 3\]"),
        (edited("## 3. When", "## When"), r"\[1, 2\]"),
    ],
    "speaks_plainly": [
        (edited("It is not so.", "Simply wrong."), "says 'Simply'"),
    ],
    "starts_with_imports": [
        (edited("import numpy as np", "x = 1"), "does not start with imports"),
        (edited("import numpy as np", "import numpy as np\n" + LONG), "has 27 lines"),
        (edited("from xailab.course import", "from other import"), "xailab is not"),
    ],
    "has_small_cells": [
        (built(f"{GOOD}\n{NINE}"), "half of the code cells"),
        (built(f"{GOOD}\n# %%\n{LONG}\n\n# %%\n{LONG}"), "a tenth of the code"),
    ],
    "has_exercises_of_each_kind": [
        (built(exercises=EXERCISES[:2]), "2 exercises"),
        (built(exercises=(EXERCISES[0],) * 3), r"3 exercises .* \['code'\]"),
        (built(exercises_belong_to="02_x"), "LESSON = '02_x'"),
    ],
    "uses_each_exercise": [
        (edited('check("demo.why"', 'print("demo.why"'), "check is called for"),
        (edited('check("demo.why"', 'check("demo.new"'), "check is called for"),
        (edited('predict("demo.share"', 'print("demo.share"'), "predict is called"),
        (edited('reveal("demo.share"', 'print("demo.share"'), r"reveal for \[\]"),
        (edited('quiz("demo.q")', "pass"), "quiz is called for"),
    ],
    "marks_its_exercises": [
        (edited('# %% tags=["exercise"]\ndef', "# %%\ndef"), "line 27: answer and"),
        (edited("# %%\nquiz", '# %% tags=["exercise"]\nquiz'), "answer and tags"),
    ],
    "describes_every_picture": [
        (drawn(), "no picture"),
        (drawn(picture(metadata={})), "alternative ''"),
        (drawn(picture(), picture(metadata={})), "alternative ''"),
        (edited("![the map we end with]", "![]"), "map.png has no"),
    ],
    "keeps_pictures_small": [
        (drawn(picture(LARGE)), "60000 bytes"),
    ],
    "uses_no_rainbow": [
        (edited('quiz("demo.q")', 'quiz("demo.q")\nplot(cmap="jet")'), "map jet"),
        (edited('quiz("demo.q")', 'quiz("demo.q")\nplot(plt.cm.hsv)'), "map hsv"),
    ],
    "links_to_lessons_that_exist": [
        (edited("[[saliency]]", "[[saliency]] [x](07_x.ipynb#top)"), "07_x.ipynb"),
    ],
    "runs_without_errors_and_warnings": [
        (built(outputs=[ERROR]), "ends in KeyError"),
        (built(outputs=[WARNING]), "stderr: UserWarning"),
    ],
    "shows_a_picture_for_every_widget": [
        (built(outputs=[text("VBox(children=(IntSlider(value=0),))")]), "a widget has no"),
    ],
    "names_no_folder_of_this_machine": [
        (built(outputs=[text("saved to /home/ann/x.png")]), "/home/ann/x.png"),
        (built(outputs=[v4.new_output("stream", text="/tmp/x/y")]), "/tmp/x/y"),
    ],
    "keeps_its_budget": [
        (measured(seconds=61.0), "runs 61.0 s"),
        (measured(peak_mb=2049), "needs 2049 MB"),
        (built(run=None), "has not run"),
    ],
    "leaves_the_learners_copy_clean": [
        (with_learner_output(), "has an output"),
    ],
    "can_be_finished": [
        (
            edited("# ## 1. Idea", "# ## 1. Idea\n#\n# " + "word " * 8100),
            "the core takes 47 minutes",
        ),
        (with_deeper("x0 = 1\n" * 1000), "core and deeper sections take 103 minutes"),
    ],
    "lets_the_learner_build": [
        (edited("# %%\nquiz", f"# %%\n{LONG}\n\n# %%\nquiz"), "2 of 36 lines"),
        (edited(CLOSE, "# %%\nprint()\n\n" * 7 + CLOSE), "nine given cells in a row"),
        (
            edited("# ## 1. Idea", "# ## 1. Idea\n#\n# " + "word " * 1900),
            "after 1[01].. minutes of reading",
        ),
    ],
    "needs_nothing_from_deeper_sections": [
        (with_deeper("extra = 1", close="print(extra)"), r"uses \['extra'\] of '## Deeper: more'"),
        (with_deeper("import math", later=ANOTHER.format("math.pi")), r"uses \['math'\]"),
        (with_deeper("extra = 1", close="def f():\n    return extra"), r"uses \['extra'\]"),
    ],
    "gives_a_name_one_meaning": [
        (with_deeper("guess = 1"), "'guess' is bound in '## 2. Guess' and in '## Deeper: more'"),
        (with_deeper("import pandas as np"), "'np' is bound in"),
    ],
    "tags_deeper_sections": [
        (with_deeper("pass", tags=""), "go together"),
        (with_deeper("pass", heading="## More"), "go together"),
        (
            with_deeper(
                "pass",
                later=ANOTHER.format("0")
                .replace("## Deeper: other", "## 4. X")
                .replace(' tags=["deeper"]', ""),
            ),
            "'## 4. X' stands behind a deeper section",
        ),
    ],
    "says_pictures_in_few_words": [
        (built(outputs=[said(61)]), "said in 61 words"),
    ],
    "names_no_numbers_of_lessons": [
        (edited("It is not so.", "As lesson 7 shows."), "says 'lesson 7'"),
    ],
    "leaves_times_to_the_build": [
        (edited("[[time]]", "40 minutes"), "lacks .* says '40 minutes' by hand"),
        (edited("**Time:** [[time]]", "**Time:** [[time]], 8 s, 900 MB"), "'8 s' .* '900 MB'"),
        (edited("It is not so.", "This lesson runs in 20 s."), "runs in 20 s' by hand"),
    ],
    "names_planned_lessons_as_planned": [
        (edited("It is not so.", "See 02_later."), r"write \[\[later\]\]"),
        (edited("It is not so.", "See lessons/later."), r"write \[\[later\]\]"),
        (edited("It is not so.", "See [it](00_saliency.ipynb)."), "links to 'it' by hand"),
    ],
}


@pytest.mark.parametrize("name", RULES)
def test_a_good_lesson_passes(name):
    assert list(RULES[name](built())) == []
    own = "import numpy as np\nextra = np.zeros(3)\nfor i in extra: print(i)"
    assert list(RULES[name](with_deeper(own, later=ANOTHER.format("other = 2")))) == []


@pytest.mark.parametrize("bad", [case[0] for case in BAD["gives_a_name_one_meaning"]])
def test_lessons_of_the_old_form_are_not_held_to_the_new_rules(bad):
    old = replace(bad, lesson=replace(bad.lesson, course=course(', form = "old"')))
    assert list(RULES["gives_a_name_one_meaning"](old)) == []


@pytest.mark.parametrize(
    ("name", "bad", "match"),
    [pytest.param(name, *case, id=name) for name, cases in BAD.items() for case in cases],
)
def test_a_bad_lesson_is_caught(name, bad, match):
    complaints = " | ".join(RULES[name](bad))
    assert re.search(match, complaints), complaints


def test_every_rule_has_a_bad_lesson():
    assert set(BAD) == set(RULES)


def test_bullets_are_found_under_bold_lines_and_headings():
    assert built().bullets("You will be able to")[0] == "explain a map in words"
    assert built().bullets("Takeaways") == ["One.", "Two.", "Three."]
    numbered = replace(built(), solution=nbformat.from_dict(built().solution))
    numbered.solution.cells[-2].source = "## 9. Takeaways\n\n1. One.\n2. Two.\n\nText.\n"
    assert numbered.bullets("Takeaways") == ["One.", "Two."]


def test_a_small_widget_with_a_picture_passes():
    both = v4.new_output("display_data", {"text/plain": "VBox()", "image/png": PNG})
    assert list(RULES["shows_a_picture_for_every_widget"](drawn(both))) == []
