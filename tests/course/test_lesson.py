from dataclasses import replace

import nbformat
import pytest

from xailab.core.curriculum import Curriculum
from xailab.course.lesson import FOOTER, Lesson

TABLE = """[[parts]]
title = "One: which?"
lessons = [
    { name = "first", title = "First", needs = [] },
    { name = "later", title = "Later", needs = [], planned = true },
    { name = "maps", title = "Maps", needs = ["first"] },
    { name = "last", title = "Last", needs = ["maps"] },
]

[[tracks]]
name = "lab"
title = "A lab"
steps = [
    { when = "Week 1", lessons = ["One"], graded = "maps" },
    { when = "Week 2", text = "talk" },
]
"""
SOURCE = '''# %% [markdown]
# # Maps: where?
#
# **Question:** Which part
# of it?
#
# **You need:** [[first]]
#
# **Time:** [[time]] · **Difficulty:** 1 of 5

# %%
import numpy as np

# %% tags=["exercise"] editable=true
def f(x):
    """Doc."""
    ### BEGIN SOLUTION
    return x
    ### END SOLUTION

# %%
1 + 1

# %%
1 + 1
'''
DEEPER = """
# %% [markdown] tags=["deeper"]
# ## More
#
# See [[last]], not `a[[i]]` nor x[[i]] nor [[1, 0]].

# %%
2 + 2

# %% [markdown]
# ## Close
"""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "course.toml"
    path.write_text(TABLE)
    return Curriculum.read(path)


@pytest.fixture(scope="module")
def lesson(course):
    return Lesson("maps", SOURCE, course)


def first_text(lesson):
    return lesson.learner().cells[0].source


def test_the_opening_tells_the_facts(lesson):
    assert (lesson.stem, lesson.title) == ("02_maps", "Maps: where?")
    assert lesson.question == "Which part of it?"
    assert lesson.needs == ["first"]


@pytest.mark.parametrize(
    ("line", "fact"),
    [("# # Maps", "title"), ("# **Question", "question"), ("# **You need", "needs")],
)
def test_a_missing_fact_is_told(lesson, line, fact):
    source = SOURCE.replace("Which part\n# of it?", "Which part?")
    lines = [text for text in source.splitlines() if not text.startswith(line)]
    with pytest.raises(ValueError, match=r"lessons/maps.py: its opening lacks"):
        getattr(replace(lesson, source="\n".join(lines)), fact)


def test_number_links_and_time_are_written_by_the_build(lesson):
    text = first_text(lesson)
    assert text.startswith("# 2. Maps: where?\n")
    assert "**You need:** [00 First](00_first.ipynb)\n" in text
    assert "**Time:** 1 minutes with the exercises · **Difficulty:**" in text


def test_a_planned_lesson_is_named_without_a_link(lesson):
    text = first_text(replace(lesson, source=SOURCE.replace("[[first]]", "[[later]]")))
    assert "**You need:** 01 Later (planned)\n" in text


def test_a_link_to_no_lesson_is_told_with_its_line_and_near_names(lesson):
    wrong = replace(lesson, source=SOURCE.replace("[[first]]", "[[frst]]"))
    with pytest.raises(ValueError, match=r"maps.py, line 2: no lesson 'frst'; did you mean first"):
        wrong.solution()


def test_a_track_becomes_a_list(lesson):
    text = first_text(replace(lesson, source=SOURCE.replace("[[time]]", "[[track lab]]")))
    assert "- **A lab.**\n  - Week 1: [00 First](00_first.ipynb), 01 Later (planned), " in text
    assert "[03 Last](03_last.ipynb); graded: 02 Maps.\n  - Week 2: talk." in text
    with pytest.raises(ValueError, match="no track 'lib'; there are lab"):
        first_text(replace(lesson, source=SOURCE.replace("[[time]]", "[[track lib]]")))


def test_every_notebook_ends_with_the_way_back_home_and_on(lesson):
    for notebook in (lesson.learner(), lesson.solution()):
        assert notebook.cells[-1].id == FOOTER
        assert notebook.cells[-1].source == (
            "---\n← [00 First](00_first.ipynb) · [03 Last](03_last.ipynb) →"
        )
    last = replace(lesson, name="last")
    assert last.footer == "---\n← [02 Maps](02_maps.ipynb) · home: [00 First](00_first.ipynb)"


def test_a_deeper_section_is_closed_in_jupyterlab_and_in_colab(lesson):
    """JupyterLab and Notebook 7 read the heading's cell, Colab a list in the notebook."""
    notebook = replace(lesson, source=SOURCE + DEEPER).learner()
    nbformat.validate(notebook)
    closed = [c for c in notebook.cells if c.metadata.get("jp-MarkdownHeadingCollapsed")]
    (head,) = closed
    assert head.metadata.id == head.id
    assert notebook.metadata["colab"]["collapsed_sections"] == [head.id]
    assert head.source == (
        "## More\n\n*Deeper, 1 min: may be skipped; nothing later needs it.*\n\n"
        "See [03 Last](03_last.ipynb), not `a[[i]]` nor x[[i]] nor [[1, 0]]."
    )
    assert "colab" not in lesson.learner().metadata


def test_the_time_of_deeper_sections_is_told_apart(lesson):
    both = replace(lesson, source=SOURCE + DEEPER)
    assert (both.core_minutes, both.deeper_minutes) == (1, 1)
    assert both.time == "1 minutes with the exercises, the deeper sections 1"


def test_ids_are_unique_and_do_not_move_when_a_cell_is_added(lesson):
    before = [cell.id for cell in lesson.cells]
    longer = replace(lesson, source=SOURCE.replace("import numpy", "# %%\n2\n\n# %%\nimport numpy"))
    after = [cell.id for cell in longer.cells]
    assert len(set(after)) == len(after) == len(before) + 2
    assert [id for id in after if id in before] == before


def test_both_notebooks_share_ids_and_keep_tags_only(lesson):
    learner, solution = lesson.learner(), lesson.solution()
    assert [cell.id for cell in learner.cells] == [cell.id for cell in solution.cells]
    assert [dict(cell.metadata) for cell in learner.cells[:3]] == [{}, {}, {"tags": ["exercise"]}]


def test_the_learner_has_the_stub_and_the_solution_the_answer(lesson):
    assert lesson.learner().cells[2].source == (
        'def f(x):\n    """Doc."""\n    # YOUR CODE HERE\n    ...'
    )
    assert lesson.solution().cells[2].source == 'def f(x):\n    """Doc."""\n    return x'


def test_line_ends_of_another_system_change_nothing(tmp_path, lesson):
    (tmp_path / "course.toml").write_text(TABLE)
    path = tmp_path / "maps.py"
    path.write_bytes(SOURCE.replace("\n", "\r\n").encode())
    assert Lesson.read(path) == lesson


def test_a_marker_without_partner_is_told_with_its_line(lesson):
    wrong = replace(lesson, source=SOURCE.replace("    ### END SOLUTION\n", ""))
    with pytest.raises(ValueError, match=r"lessons/maps.py, line 15: .*has no partner"):
        wrong.learner()


def test_an_answer_in_a_text_cell_is_refused(lesson):
    source = "# %% [markdown]\n# ### BEGIN SOLUTION\n# secret\n# ### END SOLUTION\n"
    with pytest.raises(ValueError, match="line 2: answers stand in code cells only"):
        replace(lesson, source=source).learner()
