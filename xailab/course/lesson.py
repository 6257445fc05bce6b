"""One lesson: its source, the two notebooks made of it, and what its opening says about it."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from xailab.core.curriculum import Curriculum, Entry, Step
from xailab.course import sections, stubs
from xailab.course.sections import Section

_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}
FOOTER = "course-footer"  # id of the cell that the build adds at the end
# [[cam]], [[time]], [[track lab]]; not `a[[i]]`, which is code.
_LINK = re.compile(r"(?<![\w`])\[\[([a-z]\w*)(?: (\w+))?\]\]")


@dataclass(frozen=True)
class Lesson:
    """`lessons/NAME.py`, read; everything else follows from its text and the course's table."""

    name: str
    source: str
    course: Curriculum

    @classmethod
    def read(cls, path: Path, course: Curriculum | None = None) -> "Lesson":
        """Read a lesson, and the table beside it if none is given; line ends do not matter."""
        course = course or Curriculum.read(path.parent / "course.toml")
        return cls(path.stem, path.read_text(encoding="utf-8"), course)

    @property
    def entry(self) -> Entry:
        """Its line in the table."""
        return self.course.find(self.name)

    @property
    def stem(self) -> str:
        """The file name of its notebooks: `09_cam`."""
        return self.entry.stem

    @cached_property
    def cells(self) -> list[NotebookNode]:
        """The cells with their answers, each under an id that follows from its content alone."""
        cells = jupytext.reads(self.source, fmt="py:percent").cells
        seen: Counter[str] = Counter()
        for cell in cells:
            cell.id = self._id(cell, seen)
            cell.metadata = nbformat.from_dict(
                {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
            )
        return cells

    @staticmethod
    def _id(cell: NotebookNode, seen: Counter[str]) -> str:
        digest = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:8]
        seen[digest] += 1
        return digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"

    @cached_property
    def sections(self) -> list[Section]:
        """Its sections, core and deeper, in order."""
        return sections.split(self.cells)

    @property
    def core_minutes(self) -> int:
        """The time that the core takes, exercises included."""
        return sections.total(self.sections, deeper=False)

    @property
    def deeper_minutes(self) -> int:
        """The time that all deeper sections take together."""
        return sections.total(self.sections, deeper=True)

    def learner(self) -> NotebookNode:
        """Return the learner's copy: answers cut to stubs, no outputs.

        Raises:
            ValueError: an answer without its end or outside a code cell, a link to no lesson.
        """
        return self._notebook(stubs.cut)

    def solution(self) -> NotebookNode:
        """Return the whole lesson, not yet executed; errors as for `learner`."""
        return self._notebook(stubs.uncut)

    def _notebook(self, change: Callable[[str], str]) -> NotebookNode:
        notebook = nbformat.v4.new_notebook(metadata=nbformat.from_dict(_METADATA))
        for section in self.sections:
            copies = [nbformat.from_dict(cell) for cell in section.cells]
            for copy in copies:
                copy.source = self._changed(copy, change)
            if section.deeper:
                self._close(section, copies[0], notebook)
            notebook.cells += copies
        title = notebook.cells[0]
        title.source = re.sub("^# ", f"# {self.entry.number}. ", title.source)
        footer = nbformat.v4.new_markdown_cell(self.footer, id=FOOTER)
        notebook.cells.append(footer)
        return notebook

    def _changed(self, cell: NotebookNode, change: Callable[[str], str]) -> str:
        try:
            return change(cell.source) if cell.cell_type == "code" else self._told(cell.source)
        except ValueError as error:
            raise ValueError(f"{self.where(cell.source)}: {error}") from None

    def _told(self, text: str) -> str:
        """Return a text with the links, times and lists that follow from the table."""
        if "### BEGIN SOLUTION" in text:
            raise ValueError("answers stand in code cells only")
        return _LINK.sub(lambda match: self._resolved(match[1], match[2]), text)

    def _resolved(self, word: str, argument: str | None) -> str:
        if word == "track" and argument:
            return track(self.course, argument)
        return self.time if word == "time" else self.course.find(word).link

    @staticmethod
    def _close(section: Section, head: NotebookNode, notebook: NotebookNode) -> None:
        """Collapse a section: JupyterLab and Notebook read the cell, Colab also the notebook."""
        note = (
            f"*Deeper, {math.ceil(section.minutes)} min: may be skipped; nothing later needs it.*"
        )
        head.source = head.source.replace(section.heading, f"{section.heading}\n\n{note}", 1)
        head.metadata |= {"jp-MarkdownHeadingCollapsed": True, "id": head.id}
        colab = notebook.metadata.setdefault("colab", {})
        colab.setdefault("collapsed_sections", []).append(head.id)

    @property
    def time(self) -> str:
        """The time of its parts in words: `44 minutes with the exercises, deeper sections 58`."""
        more = f", the deeper sections {self.deeper_minutes}" if self.deeper_minutes else ""
        return f"{self.core_minutes} minutes with the exercises{more}"

    @property
    def footer(self) -> str:
        """Links to the lessons before and after it, and to the first."""
        before, after = self.course.neighbors(self.name)
        home = self.course.written[0]
        links = [
            before and f"← [{before.words}]({before.stem}.ipynb)",
            before and before != home and f"home: {home.link}",
            after and f"[{after.words}]({after.stem}.ipynb) →",
        ]
        return "---\n" + " · ".join(link for link in links if link)

    def where(self, source: str) -> str:
        """Return the place of a cell in the lesson: `lessons/cam.py, line 120`."""
        shown = source if source in self.source else source.partition("\n")[0]
        lines = self.source.partition(shown)[0].count("\n")
        return f"lessons/{self.name}.py, line {lines + 1}"

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
        """The first heading; the build puts the number before it."""
        return self._fact(r"^# (.+)$", "a title, `# ...`")

    @property
    def question(self) -> str:
        """The question of the lesson: `**Question:** ...`, to the end of its paragraph."""
        paragraph = self._fact(r"^\*\*Question:?\*\*:? *(.+(?:\n.+)*)$", "`**Question:** ...`")
        return " ".join(paragraph.split())

    @property
    def needs(self) -> list[str]:
        """The lessons that its opening names under `**You need:**`."""
        paragraph = self._fact(r"^\*\*You need:?\*\*:? *(.+(?:\n.+)*)$", "`**You need:** ...`")
        return [match[1] for match in _LINK.finditer(paragraph)]

    def _fact(self, pattern: str, what: str) -> str:
        if found := re.search(pattern, self.front, re.MULTILINE):
            return found[1].strip()
        raise ValueError(f"lessons/{self.name}.py: its opening lacks {what}")


def track(course: Curriculum, name: str) -> str:
    """Return a way through the course as a Markdown list; `ValueError` for another name."""
    if name not in course.tracks:
        raise ValueError(f"no track {name!r}; there are {', '.join(course.tracks)}")
    chosen = course.tracks[name]
    steps = [f"  - {step.when}: {_told_step(course, step)}." for step in chosen.steps]
    return "\n".join([f"- **{chosen.title}.**", *steps])


def _told_step(course: Curriculum, step: Step) -> str:
    links = [course.find(name).link for name in step.lessons]
    graded = [f"graded: {course.find(step.graded).words}"] if step.graded else []
    text = ", ".join(links) or step.text
    return "; ".join([text, *graded])
