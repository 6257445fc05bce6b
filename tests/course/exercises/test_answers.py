from pathlib import Path

import pytest

from tests.course.exercises.answers import assert_accepted, assert_rejected, planted, solution_of
from xailab.course import Mistake, exercises, registry

EXERCISES = Path(exercises.__file__).parent
TOPICS = sorted(path.stem for path in EXERCISES.glob("[a-z]*.py"))
SOURCE = '''# %%
import math

# %%
SCALE = 2
x = 1 / 0

# %%
def helper(y):
    return SCALE * y

# %% tags=["exercise"]
def answer(x):
    """Doc."""
    ### BEGIN SOLUTION
    return helper(math.floor(x))
    ### END SOLUTION

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = 0.3
### END SOLUTION

# %%
answer = None
raise RuntimeError
'''


@pytest.fixture
def lessons(tmp_path):
    (tmp_path / "x.py").write_text(SOURCE)
    (tmp_path / "course.toml").write_text("parts = []")
    return tmp_path


def test_an_answer_comes_with_what_it_needs_and_nothing_else(lessons):
    assert solution_of("x", "answer", lessons=lessons)(3.5) == 6
    assert solution_of("x", "guess", lessons=lessons) == 0.3


def test_only_answers_are_found(lessons):
    with pytest.raises(LookupError, match=r"no answer in lessons/x.py defines 'helper'"):
        solution_of("x", "helper", lessons=lessons)


def test_acceptance_and_rejection_can_fail(demo):
    assert_accepted("demo.share", 0.5)
    assert_rejected("demo.share", 2, "from 0 to 1")
    with pytest.raises(Mistake, match="from 0 to 1"):
        assert_accepted("demo.share", 2)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        assert_rejected("demo.share", 0.5, "from 0 to 1")
    with pytest.raises(AssertionError, match="Regex pattern did not match"):
        assert_rejected("demo.share", 2, "another message")


@pytest.mark.parametrize("topic", TOPICS)
def test_every_exercise_is_tested(topic):
    tests = (Path(__file__).parent / f"test_{topic}.py").read_text(encoding="utf-8")
    checked = [entry for entry in registry.exercises_of(topic) if entry.kind != "criticize"]
    missing = [entry.id for entry in checked if f'"{entry.id}"' not in tests]
    assert missing == []


@pytest.mark.parametrize("topic", TOPICS)
def test_each_check_takes_two_right_answers_and_names_three_mistakes(topic):
    found = planted((Path(__file__).parent / f"test_{topic}.py").read_text(encoding="utf-8"))
    ids = [entry.id for entry in registry.exercises_of(topic) if entry.kind == "code"]
    assert [id for id in ids if found["accepted"][id] < 2] == []
    assert [id for id in ids if found["rejected"][id] < 3] == []


def test_planted_answers_are_counted():
    found = planted("""
ID = "a.b"
WRONG = [(f, "x"), (g, "y")]
def test_right():
    assert_accepted("a.b", f)
    assert_accepted(ID, g)
@pytest.mark.parametrize(("wrong", "match"), WRONG)
@pytest.mark.parametrize("sign", (1, -1))
def test_wrong(wrong, sign, match):
    assert_rejected("a.b", wrong, match)
def test_other():
    assert_rejected("a.c", f, "x")
""")
    assert found == {"accepted": {"a.b": 2}, "rejected": {"a.b": 4, "a.c": 1}}
