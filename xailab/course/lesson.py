"""One lesson: its source, the two notebooks made of it, and what its opening says about it."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from xailab.course import stubs

_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}


@dataclass(frozen=True)
class Lesson:
    """`lessons/NAME.py`, read; everything else follows from its text."""

    name: str
    source: str

    @classmethod
    def read(cls, path: Path) -> "Lesson":
        """Read a lesson; line ends do not matter."""
        return cls(path.stem, path.read_text(encoding="utf-8"))

    @cached_property
    def sha256(self) -> str:
        """Hash of the source: tells whether a notebook was made of this very text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @cached_property
    def cells(self) -> list[NotebookNode]:
        """The cells with their answers, each under an id that follows from its content alone."""
        cells = jupytext.reads(self.source, fmt="py:percent").cells
        seen: Counter[str] = Counter()
        for cell in cells:
            cell.id = self._id(cell, seen)
            cell.metadata = {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
        return cells

    @staticmethod
    def _id(cell: NotebookNode, seen: Counter[str]) -> str:
        digest = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:8]
        seen[digest] += 1
        return digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"

    def learner(self) -> NotebookNode:
        """Return the learner's copy: answers cut to stubs, no outputs.

        Raises:
            ValueError: an answer without its end, or one outside a code cell.
        """
        return self._notebook(stubs.cut)

    def solution(self) -> NotebookNode:
        """Return the whole lesson, not yet executed."""
        return self._notebook(stubs.uncut)

    def _notebook(self, change: Callable[[str], str]) -> NotebookNode:
        notebook = nbformat.v4.new_notebook(metadata=nbformat.from_dict(_METADATA))
        notebook.metadata.xailab = {"source_sha256": self.sha256}
        for cell in self.cells:
            copy = nbformat.from_dict(cell)
            copy.source = self._changed(copy, change)
            notebook.cells.append(copy)
        return notebook

    def _changed(self, cell: NotebookNode, change: Callable[[str], str]) -> str:
        if cell.cell_type == "code":
            try:
                return change(cell.source)
            except ValueError as error:
                raise ValueError(f"{self.where(cell.source)}: {error}") from None
        if "### BEGIN SOLUTION" in cell.source:
            raise ValueError(f"{self.where(cell.source)}: answers stand in code cells only")
        return cell.source

    def where(self, source: str) -> str:
        """Return the place of a cell in the lesson: `lessons/08_cam.py, line 120`."""
        shown = source if source in self.source else source.partition("\n")[0]
        lines = self.source.partition(shown)[0].count("\n")
        return f"lessons/{self.name}.py, line {lines + 1}"

    @property
    def number(self) -> str:
        """The two digits of the name."""
        return self.name.partition("_")[0]

    @cached_property
    def front(self) -> str:
        """The text before the first code cell."""
        text = []
        for cell in self.cells:
            if cell.cell_type == "code":
                break
            text.append(cell.source)
        return "\n\n".join(text)

    @property
    def title(self) -> str:
        """The first heading, without its number."""
        return self._fact(r"^# (?:\d+\W+)?(.+)$", "a title, `# ...`")

    @property
    def question(self) -> str:
        """The question of the lesson: `**Question:** ...`, to the end of its paragraph."""
        paragraph = self._fact(r"^\*\*Question:?\*\*:? *(.+(?:\n.+)*)$", "`**Question:** ...`")
        return " ".join(paragraph.split())

    @property
    def reading_minutes(self) -> int:
        """The time of reading and doing: `**Time:** 40 minutes`."""
        return int(self._fact(r"^\*\*Time:?\*\*.*?(\d+) min", "`**Time:** NN minutes`"))

    def _fact(self, pattern: str, what: str) -> str:
        if found := re.search(pattern, self.front, re.MULTILINE):
            return found[1].strip()
        raise ValueError(f"lessons/{self.name}.py: its opening lacks {what}")
