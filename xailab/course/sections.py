"""The sections of a lesson: core or deeper, how long they take, how much the learner writes.

A section begins at a text cell with a heading `# ...` or `## ...`. One whose first cell is tagged
`deeper` may be skipped: nothing after it needs it.
"""

import math
import re
from dataclasses import dataclass, field

from nbformat import NotebookNode

from xailab.course import registry, stubs

WORDS_A_MINUTE = 180
SECONDS_A_LINE = 6  # of given code
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^##? .*$", re.MULTILINE)
_TASK = re.compile(r"^#+ .*?(?:\((?:.*, )?(\d+) minutes?\))?$", re.MULTILINE)  # any heading
_EXERCISE = re.compile(r"^\s*(?:check|predict)\(\s*['\"]([\w.]+)['\"]", re.MULTILINE)


@dataclass
class Section:
    """Cells from one heading to the next."""

    heading: str
    deeper: bool
    cells: list[NotebookNode] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        """Reading the text, reading the given code, and doing the exercises."""
        return minutes(self.cells)

    @property
    def code(self) -> list[str]:
        """The sources of its code cells."""
        return [cell.source for cell in self.cells if cell.cell_type == "code"]


def split(cells: list[NotebookNode]) -> list[Section]:
    """Return the sections of a lesson in order; the first may begin without a heading."""
    sections: list[Section] = []
    for cell in cells:
        heading = heading_of(cell)
        if heading or not sections:
            sections.append(Section(heading, is_deeper(cell)))
        sections[-1].cells.append(cell)
    return sections


def heading_of(cell: NotebookNode) -> str:
    """Return the first heading of level one or two in a text cell, or nothing."""
    found = cell.cell_type == "markdown" and _HEADING.search(_FENCE.sub("", cell.source))
    return found[0] if found else ""


def is_deeper(cell: NotebookNode) -> bool:
    """Return whether a cell is tagged as the heading of a deeper section."""
    return "deeper" in cell.metadata.get("tags", [])


def minutes(cells: list[NotebookNode]) -> float:
    """Return words / 180 + 6 seconds a given line of code + the exercises' own minutes.

    >>> from nbformat.v4 import new_code_cell, new_markdown_cell
    >>> minutes([new_markdown_cell("word " * 360), new_code_cell("x = 1\\n" * 20)])
    4.0
    """
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    exercises = sum(registry.minutes_of(id) for source in code for id in _EXERCISE.findall(source))
    return reading_minutes(cells) + exercises + _open_minutes(cells)


def reading_minutes(cells: list[NotebookNode]) -> float:
    """Return the minutes of the text and the given code alone."""
    words = sum(len(c.source.split()) for c in cells if c.cell_type == "markdown")
    lines = sum(given_lines(cell.source) for cell in cells if cell.cell_type == "code")
    return words / WORDS_A_MINUTE + lines * SECONDS_A_LINE / 60


def _open_minutes(cells: list[NotebookNode]) -> int:
    """Minutes in the headings of tasks that nothing checks: `### Your own photo (3 minutes)`."""
    done, task = 0, 0  # `task`: minutes of the last heading, until a check is seen
    for cell in cells:
        if cell.cell_type == "code":
            task = 0 if _EXERCISE.search(cell.source) else task
            continue
        for found in _TASK.findall(_FENCE.sub("", cell.source)):
            done, task = done + task, int(found or 0)
    return done + task


def given_lines(source: str) -> int:
    """Return how many lines of a code cell the learner is given.

    >>> given_lines("def f(x):\\n    ### BEGIN SOLUTION\\n    return x\\n    ### END SOLUTION\\n")
    1
    """
    return lines(stubs.unmarked(source)) - written_lines(source)


def written_lines(source: str) -> int:
    """Return how many lines of a code cell are answers, which the learner writes."""
    return sum(lines(answer) for answer in stubs.answers(source))


def lines(source: str) -> int:
    """Return the number of lines that are not blank."""
    return sum(1 for line in source.splitlines() if line.strip())


def total(sections: list[Section], *, deeper: bool) -> int:
    """Return the whole minutes of all core or of all deeper sections."""
    return math.ceil(sum(each.minutes for each in sections if each.deeper == deeper))
