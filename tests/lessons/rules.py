"""What every lesson keeps to: one small function a rule, which yields complaints."""

import ast
import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles

import nbformat
from nbformat import NotebookNode

from xailab.course.lesson import Lesson
from xailab.course.registry import Exercise, Question, exercises_of, lesson_of, questions_of

Rule = Callable[["Built"], Iterator[str]]
RULES: dict[str, Rule] = {}


@dataclass(frozen=True)
class Built:
    """A lesson with its two notebooks and its exercises, as the rules see it."""

    lesson: Lesson
    learner: NotebookNode
    solution: NotebookNode
    exercises: tuple[Exercise, ...]
    questions: tuple[Question, ...]
    exercises_belong_to: str
    lessons: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "Built":
        root, topic = path.parents[1], path.stem.partition("_")[2]
        return cls(
            lesson=Lesson.read(path),
            learner=nbformat.read(root / "notebooks" / f"{path.stem}.ipynb", 4),
            solution=nbformat.read(root / "solutions" / f"{path.stem}.ipynb", 4),
            exercises=tuple(exercises_of(topic)),
            questions=tuple(questions_of(topic)),
            exercises_belong_to=lesson_of(topic),
            lessons=frozenset(other.stem for other in path.parent.glob("*.py")),
        )

    @cached_property
    def code(self) -> list[str]:
        return [c.source for c in self.solution.cells if c.cell_type == "code" and c.source]

    @cached_property
    def text(self) -> str:
        return "\n\n".join(c.source for c in self.solution.cells if c.cell_type == "markdown")

    @cached_property
    def outputs(self) -> list[NotebookNode]:
        return [output for cell in self.solution.cells for output in cell.get("outputs", [])]

    def bullets(self, heading: str) -> list[str]:
        """The list under `**heading**` or `## heading`; a bullet may run over several lines."""
        pattern = rf"^(?:\*\*|#+ )(?:\d+\. )?{heading}:?(?:\*\*)?:?\s*\n((?:(?![#*]{{2}}).*\n?)*)"
        found = re.search(pattern, self.text, re.MULTILINE)
        items = re.split(r"^[-*] |^\d+\. ", found[1], flags=re.MULTILINE)[1:] if found else []
        return [" ".join(item.split("\n\n")[0].split()) for item in items]

    def calls(self, name: str) -> list[str]:
        """The first arguments of `name("...")`, in the order in which the lesson calls it."""
        return re.findall(rf"^\s*{name}\(\s*['\"]([\w.]+)['\"]", "\n".join(self.code), re.MULTILINE)


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


@rule
def opens_with_its_facts(it: Built) -> Iterator[str]:
    if not it.solution.cells[0].source.startswith("# "):
        yield "the first cell is no title"
    for name in ("title", "question", "reading_minutes"):
        try:
            getattr(it.lesson, name)
        except ValueError as error:
            yield str(error)
    for name in ("You need", "Difficulty"):
        if f"**{name}" not in it.lesson.front:
            yield f"the opening lacks **{name}:**"


@rule
def closes_with_what_it_promised(it: Built) -> Iterator[str]:
    promised, kept = it.bullets("You will be able to"), it.bullets("You can now")
    if not 3 <= len(promised) <= 5:
        yield f"{len(promised)} bullets under 'You will be able to', not 3 to 5"
    if promised != kept:
        yield f"'You can now' has {kept}, 'You will be able to' has {promised}"


@rule
def has_takeaways_a_myth_and_further_reading(it: Built) -> Iterator[str]:
    if (count := len(it.bullets("Takeaways"))) != 3:
        yield f"{count} takeaways, not 3"
    if not re.search(r"^#+ (?:\d+\. )?Myth refuted", it.text, re.MULTILINE):
        yield "no section 'Myth refuted'"
    papers = it.bullets("Go further")
    if not papers or not all(re.search(r"\b(19|20)\d\d\b", paper) for paper in papers):
        yield f"'Go further' needs bullets with a year each: {papers}"


@rule
def numbers_its_sections(it: Built) -> Iterator[str]:
    numbers = [int(n) for n in re.findall(r"^## (\d+)\. ", it.text, re.MULTILINE)]
    if len(numbers) < 3 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield f"sections are numbered {numbers}"


@rule
def speaks_plainly(it: Built) -> Iterator[str]:
    for word in re.findall(r"\b(simply|obviously|trivially)\b", it.text, re.IGNORECASE):
        yield f"says {word!r}"


@rule
def starts_with_imports(it: Built) -> Iterator[str]:
    first = ast.parse(re.sub(r"^[%!].*$", "", it.code[0], flags=re.M)).body
    if not isinstance(first[0], ast.Import | ast.ImportFrom):
        yield "the first code cell does not start with imports"
    if (lines := _lines(it.code[0])) > 20:
        yield f"the first code cell has {lines} lines, more than 20"
    if not re.search(r"^(import|from) xailab\b", "\n".join(it.code), re.MULTILINE):
        yield "xailab is not imported"


@rule
def has_small_cells(it: Built) -> Iterator[str]:
    sizes = [_lines(source) for source in it.code]
    if (middle := median(sizes)) > 8:
        yield f"half of the code cells have more than {middle} lines; at most 8"
    if len(sizes) > 1 and (large := quantiles(sizes, n=10, method="inclusive")[-1]) >= 20:
        yield f"a tenth of the code cells has more than {large} lines; under 20"


def _lines(source: str) -> int:
    return sum(1 for line in source.splitlines() if line.strip())


@rule
def has_exercises_of_each_kind(it: Built) -> Iterator[str]:
    kinds = {entry.kind for entry in it.exercises}
    if len(it.exercises) < 3 or kinds != {"code", "predict", "criticize"}:
        yield f"{len(it.exercises)} exercises of the kinds {sorted(kinds)}"
    if it.exercises_belong_to != it.lesson.name:
        yield f"its exercises have LESSON = {it.exercises_belong_to!r}"


@rule
def uses_each_exercise(it: Built) -> Iterator[str]:
    guesses = {entry.id for entry in it.exercises if entry.kind == "predict"}
    others = {entry.id for entry in it.exercises} - guesses
    questions = {entry.id for entry in it.questions}
    for call, registered in (("check", others), ("predict", guesses), ("quiz", questions)):
        used = it.calls(call)
        if sorted(used) != sorted(registered):
            yield f"{call} is called for {sorted(used)}, registered are {sorted(registered)}"
    if it.calls("reveal") != it.calls("predict"):
        yield f"predict is called for {it.calls('predict')}, reveal for {it.calls('reveal')}"


@rule
def marks_its_exercises(it: Built) -> Iterator[str]:
    for cell in it.lesson.cells:
        answered = "### BEGIN SOLUTION" in cell.source
        if answered != ("exercise" in cell.metadata.get("tags", [])):
            yield f'{it.lesson.where(cell.source)}: answer and tags=["exercise"] go together'


@rule
def describes_every_picture(it: Built) -> Iterator[str]:
    pictures = [output for output in it.outputs if "image/png" in output.get("data", {})]
    if not pictures:
        yield "no picture"
    for picture in pictures:
        alt = picture.metadata.get("image/png", {}).get("alt", "")
        if len(alt.split()) < 4:
            yield f"a picture has the text alternative {alt!r}"
    for alt, target in re.findall(r"!\[(.*?)\]\((.*?)\)", it.text):
        if not alt.strip():
            yield f"the picture {target} has no text alternative"


@rule
def keeps_pictures_small(it: Built) -> Iterator[str]:
    for output in it.outputs:
        size = len(base64.b64decode(output.get("data", {}).get("image/png", "")))
        if size >= 60_000:
            yield f"a picture has {size} bytes; under 60,000"


@rule
def uses_no_rainbow(it: Built) -> Iterator[str]:
    names = r"jet|rainbow|gist_rainbow|hsv|nipy_spectral|gist_ncar|turbo"
    for name in re.findall(rf"(?:['\"]|cm\.|colormaps\.)({names})\b", "\n".join(it.code)):
        yield f"uses the color map {name}"


@rule
def links_to_lessons_that_exist(it: Built) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)#]+)\.ipynb(?:#[^)]*)?\)", it.text):
        if target.removeprefix("./") not in it.lessons:
            yield f"links to {target}.ipynb, which is no lesson"


@rule
def runs_without_errors_and_warnings(it: Built) -> Iterator[str]:
    for output in it.outputs:
        if output.output_type == "error":
            yield f"a cell ends in {output.ename}"
        if output.get("name") == "stderr":
            yield f"a cell writes to stderr: {output.text[:200]}"


@rule
def shows_a_picture_for_every_widget(it: Built) -> Iterator[str]:
    names = r"\w*(Box|Slider|Dropdown|Select|Tab|Buttons?|Accordion|Checkbox|interactive|Output)\("
    for output in it.outputs:
        data = output.get("data", {})
        if re.match(names, data.get("text/plain", "")) and "image/png" not in data:
            yield f"a widget has no static picture: {data['text/plain'][:80]}"


@rule
def names_no_folder_of_this_machine(it: Built) -> Iterator[str]:
    for output in it.outputs:
        texts = [output.get("text", ""), *map(str, output.get("data", {}).values())]
        for folder in re.findall(r"(?<![\w/.])/(?:root|home|Users|tmp)/\S*", " ".join(texts)):
            yield f"an output names {folder}"


@rule
def keeps_its_budget(it: Built) -> Iterator[str]:
    facts = it.solution.metadata.xailab
    if facts.seconds > 60:
        yield f"runs {facts.seconds} s; at most 60"
    if facts.peak_mb > 2048:
        yield f"needs {facts.peak_mb} MB; at most 2048"


@rule
def leaves_the_learners_copy_clean(it: Built) -> Iterator[str]:
    for cell in it.learner.cells:
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count):
            yield f"the learner's copy has an output: {cell.source[:80]}"
