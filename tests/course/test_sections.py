import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from xailab.course import registry, sections


def text(source, *tags):
    return new_markdown_cell(source, metadata={"tags": list(tags)} if tags else {})


CHECK = 'check("demo.f", f)'
CELLS = [
    text("# Title"),
    new_code_cell("x = 1"),
    text("words\n\n## One"),
    text("### Inside one"),
    text("```\n# no heading\n```"),
    text("## Two", "deeper"),
    new_code_cell("y = 1"),
    text("## Close"),
]


def test_headings_of_two_levels_divide_a_lesson():
    found = sections.split(CELLS)
    assert [(s.heading, s.deeper, len(s.cells)) for s in found] == [
        ("# Title", False, 2),
        ("## One", False, 3),
        ("## Two", True, 2),
        ("## Close", False, 1),
    ]


def test_minutes_are_words_lines_and_exercises(monkeypatch):
    """270 words are 1.5 minutes, 5 given lines half a minute, the exercise 4."""
    monkeypatch.setattr(registry, "minutes_of", {"demo.f": 4}.__getitem__)
    answer = "def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION\n\n"
    source = f"{answer}a = 1\nb = 2\nc = 3"
    cells = [text("word " * 270), new_code_cell(source), new_code_cell('check("demo.f", f)')]
    assert sections.minutes(cells) == pytest.approx(1.5 + 0.5 + 4)


@pytest.mark.parametrize(
    ("cells", "minutes"),
    [
        ([text("### Your photo (4 minutes)"), new_code_cell("")], 4),
        ([text("### Your photo (open, 4 minutes)"), text("## Next")], 4),
        ([text("## 2. A\n\nwords\n\n### Mine (1 minute)"), text("### Yours (2 minutes)")], 3),
        ([text("### F (code, 4 minutes)"), new_code_cell("pass"), new_code_cell(CHECK)], 0),
        ([text("### F (code, 4 minutes)"), new_code_cell(CHECK), text("### Mine (3 minutes)")], 3),
        ([text("### Mine (3 minutes)"), text("### F"), new_code_cell(CHECK)], 3),
        ([text("### A heading")], 0),
    ],
)
def test_a_task_that_nothing_checks_says_its_minutes_itself(cells, minutes):
    assert sections._open_minutes(cells) == minutes


def test_core_and_deeper_are_summed_apart_and_rounded_up():
    found = sections.split(CELLS)
    assert sections.total(found, deeper=True) == 1
    long = [*CELLS, text("word " * 360)]
    assert sections.total(sections.split(long), deeper=False) == 3
    assert sections.total(sections.split(long), deeper=True) == 1


def test_the_learners_lines_are_the_answers():
    source = "def f(x):\n    ### BEGIN SOLUTION\n    y = x\n\n    return y\n    ### END SOLUTION"
    assert sections.written_lines(source) == 2
    assert sections.given_lines(source) == 1
