import pytest

from xailab.course.stubs import answers, cut, has_open_stub, is_empty, uncut

METHOD = '''class Tanh:
    """Doc."""

    def forward(self, x):
        """Doc."""
        ### BEGIN SOLUTION
        self.out = np.tanh(x)

        return self.out
        ### END SOLUTION

    def name(self):
        return "tanh"'''
TEXT = '''answer = """
### BEGIN SOLUTION
It is flat.
### END SOLUTION
"""'''


def test_a_method_keeps_its_indentation():
    assert cut(METHOD) == METHOD.replace(
        "### BEGIN SOLUTION\n        self.out = np.tanh(x)\n\n        return self.out\n"
        "        ### END SOLUTION",
        "# YOUR CODE HERE\n        ...",
    )


def test_a_text_answer_becomes_a_text_stub():
    assert cut(TEXT) == 'answer = """\n(your answer here)\n"""'


def test_names_at_the_top_level_stay_defined():
    source = "x = 1\n### BEGIN SOLUTION\na, b = 1, 2\nc = d = a + b\n### END SOLUTION\ny = 2"
    assert cut(source) == ("x = 1\n# YOUR CODE HERE\na = ...\nb = ...\nc = ...\nd = ...\ny = 2")


def test_an_expression_at_the_top_level_becomes_an_ellipsis():
    source = "### BEGIN SOLUTION\nprint(table['a'])\n### END SOLUTION"
    assert cut(source) == "# YOUR CODE HERE\n..."


def test_assigning_to_an_element_defines_no_name():
    source = "### BEGIN SOLUTION\ntable[0] = 1\n### END SOLUTION"
    assert cut(source) == "# YOUR CODE HERE\n..."


def test_two_answers_in_one_cell_are_both_cut():
    assert cut(METHOD + "\n\n" + TEXT).count("BEGIN SOLUTION") == 0
    assert answers(METHOD + "\n\n" + TEXT)[1] == "It is flat.\n"


def test_a_cell_without_answers_is_left_alone():
    assert cut("%timeit f(x)\n!ls 'unbalanced") == "%timeit f(x)\n!ls 'unbalanced"


def test_uncut_removes_only_the_markers():
    assert uncut(TEXT) == 'answer = """\nIt is flat.\n"""'
    assert "self.out = np.tanh(x)\n\n        return self.out\n" in uncut(METHOD)


@pytest.mark.parametrize("marker", ["BEGIN", "END"])
@pytest.mark.parametrize("change", [cut, uncut])
def test_a_marker_without_partner_is_an_error(marker, change):
    with pytest.raises(ValueError, match=f"### {marker} SOLUTION' has no partner"):
        change(f"x = 1\n### {marker} SOLUTION\ny = 2")


class Half:
    def forward(self): ...

    def backward(self):
        return 1


class Whole:
    def forward(self):
        return 1


def returns_zero():
    return 0


def documented(x):
    """Only words."""
    pass


def left_open(x):
    # YOUR CODE HERE
    ...
    return x


def filled(x):
    # YOUR CODE HERE
    return x


@pytest.mark.parametrize("answer", [None, ..., "", "(your answer here)", documented, Half])
def test_empty_answers_are_seen(answer):
    assert is_empty(answer)


@pytest.mark.parametrize(
    "answer", [0, "flat", returns_zero, lambda: 3, left_open, filled, Whole, [None]]
)
def test_answers_are_not_taken_for_empty(answer):
    assert not is_empty(answer)


def test_a_stub_left_inside_code_is_seen():
    assert has_open_stub(left_open)
    assert not has_open_stub(filled)
    assert not has_open_stub(3)


def test_marks_for_the_tests_stay_in_the_solution_only():
    source = "# NBVAL_CHECK_OUTPUT\nx = 1  # NBVAL_CHECK_OUTPUT is said here too\nx"
    assert cut(source) == source.partition("\n")[2]
    assert uncut(source) == source
