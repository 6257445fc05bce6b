from dataclasses import replace

import pytest

from xailab.course.lesson import Lesson

SOURCE = '''# %% [markdown]
# # 08. Maps: where?
#
# **Question:** Which part
# of it?
#
# **Time:** 40 minutes

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
LESSON = Lesson("08_maps", SOURCE)


def test_the_opening_tells_the_facts():
    assert (LESSON.number, LESSON.title) == ("08", "Maps: where?")
    assert LESSON.question == "Which part of it?"
    assert LESSON.reading_minutes == 40


@pytest.mark.parametrize(
    ("line", "fact"),
    [("# # 08", "title"), ("# **Question", "question"), ("# **Time", "reading_minutes")],
)
def test_a_missing_fact_is_told(line, fact):
    source = SOURCE.replace("Which part\n# of it?", "Which part?")
    lines = [text for text in source.splitlines() if not text.startswith(line)]
    with pytest.raises(ValueError, match=r"lessons/08_maps.py: its opening lacks"):
        getattr(Lesson("08_maps", "\n".join(lines)), fact)


def test_ids_are_unique_and_do_not_move_when_a_cell_is_added():
    before = [cell.id for cell in LESSON.cells]
    longer = replace(LESSON, source=SOURCE.replace("import numpy", "# %%\n2\n\n# %%\nimport numpy"))
    after = [cell.id for cell in longer.cells]
    assert len(set(after)) == len(after) == len(before) + 2
    assert [id for id in after if id in before] == before


def test_both_notebooks_share_ids_and_keep_tags_only():
    learner, solution = LESSON.learner(), LESSON.solution()
    assert [cell.id for cell in learner.cells] == [cell.id for cell in solution.cells]
    assert [dict(cell.metadata) for cell in learner.cells[:3]] == [{}, {}, {"tags": ["exercise"]}]


def test_the_learner_has_the_stub_and_the_solution_the_answer():
    assert LESSON.learner().cells[2].source == (
        'def f(x):\n    """Doc."""\n    # YOUR CODE HERE\n    ...'
    )
    assert LESSON.solution().cells[2].source == 'def f(x):\n    """Doc."""\n    return x'


def test_the_hash_is_that_of_the_source():
    same, other = Lesson("x", SOURCE), Lesson("x", SOURCE + "\n")
    assert LESSON.sha256 == same.sha256 != other.sha256
    assert LESSON.learner().metadata.xailab == {"source_sha256": LESSON.sha256}


def test_line_ends_of_another_system_change_nothing(tmp_path):
    path = tmp_path / "08_maps.py"
    path.write_bytes(SOURCE.replace("\n", "\r\n").encode())
    assert Lesson.read(path) == LESSON


def test_a_marker_without_partner_is_told_with_its_line():
    lesson = replace(LESSON, source=SOURCE.replace("    ### END SOLUTION\n", ""))
    with pytest.raises(ValueError, match=r"lessons/08_maps.py, line 13: .*has no partner"):
        lesson.learner()


def test_an_answer_in_a_text_cell_is_refused():
    source = "# %% [markdown]\n# ### BEGIN SOLUTION\n# secret\n# ### END SOLUTION\n"
    with pytest.raises(ValueError, match="line 2: answers stand in code cells only"):
        Lesson("08_maps", source).learner()
