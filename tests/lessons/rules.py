"""What every lesson keeps to: one small function a rule, which yields complaints."""

import ast
import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from statistics import median, quantiles

import nbformat
from nbformat import NotebookNode

from tests.lessons.names import names_of
from xailab.course import stubs
from xailab.course.lesson import Lesson
from xailab.course.registry import Exercise, Question, exercises_of, lesson_of, questions_of
from xailab.course.runs import Run
from xailab.course.sections import Section, given_lines, reading_minutes, written_lines

Rule = Callable[["Built"], Iterator[str]]
RULES: dict[str, Rule] = {}


@dataclass(frozen=True)
class Built:
    """A lesson with its two notebooks and its exercises, as the rules see it."""

    lesson: Lesson
    learner: NotebookNode
    solution: NotebookNode
    run: Run | None
    exercises: tuple[Exercise, ...]
    questions: tuple[Question, ...]
    exercises_belong_to: str

    @classmethod
    def read(cls, path: Path) -> "Built":
        root, lesson = path.parents[1], Lesson.read(path)
        return cls(
            lesson=lesson,
            learner=nbformat.read(root / "notebooks" / f"{lesson.stem}.ipynb", 4),
            solution=nbformat.read(root / "solutions" / f"{lesson.stem}.ipynb", 4),
            run=Run.read(root, lesson.name),
            exercises=tuple(exercises_of(lesson.name)),
            questions=tuple(questions_of(lesson.name)),
            exercises_belong_to=lesson_of(lesson.name),
        )

    @property
    def core(self) -> list[Section]:
        return [section for section in self.lesson.sections if not section.deeper]

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
    for name in ("title", "question", "needs"):
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
    if it.exercises_belong_to != it.lesson.stem:
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
        if target.removeprefix("./") not in {entry.stem for entry in it.lesson.course.written}:
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
    if it.run is None:
        yield "it has not run: make notebooks"
        return
    if it.run.seconds > 60:
        yield f"runs {it.run.seconds} s; at most 60"
    if it.run.peak_mb > 2048:
        yield f"needs {it.run.peak_mb} MB; at most 2048"


@rule
def leaves_the_learners_copy_clean(it: Built) -> Iterator[str]:
    for cell in it.learner.cells:
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count):
            yield f"the learner's copy has an output: {cell.source[:80]}"


# ---- core and deeper: lessons of the new form ----------------------------------------------------


def new_form(function: Rule) -> Rule:
    """Enter a rule that holds for lessons with core and deeper sections."""

    def held(it: Built) -> Iterator[str]:
        if it.lesson.entry.form == "new":
            yield from function(it)

    held.__name__ = function.__name__
    return rule(held)


@new_form
def can_be_finished(it: Built) -> Iterator[str]:
    core, deeper = it.lesson.core_minutes, it.lesson.deeper_minutes
    if core > 45:
        yield f"the core takes {core} minutes; at most 45"
    if core + deeper > 100:
        yield f"core and deeper sections take {core + deeper} minutes; at most 100"


@new_form
def lets_the_learner_build(it: Built) -> Iterator[str]:
    code = [source for section in it.core for source in section.code]
    written, given = sum(map(written_lines, code)), sum(map(given_lines, code))
    if written < 0.15 * (written + given):
        yield f"the learner writes {written} of {written + given} lines of the core, under 15 %"
    waiting = 0
    for section in it.core:
        for source in section.code:
            waiting = 0 if stubs.answers(source) else waiting + 1
            if waiting == 9:
                yield f"nine given cells in a row, up to {it.lesson.where(source)}; at most eight"
    before = list(takewhile(lambda cell: "### BEGIN SOLUTION" not in cell.source, it.lesson.cells))
    if (wait := reading_minutes(before)) > 10:
        yield f"the first answer comes after {wait:.1f} minutes of reading; at most 10"


@new_form
def needs_nothing_from_deeper_sections(it: Built) -> Iterator[str]:
    names = [names_of(section.code) for section in it.lesson.sections]
    for section, its in zip(it.lesson.sections, names, strict=True):
        if not section.deeper:
            continue
        own = its.bound.keys() - {name for each in names if each is not its for name in each.bound}
        for other, theirs in zip(it.lesson.sections, names, strict=True):
            if theirs is not its and (used := own & theirs.wanted):
                yield f"{other.heading!r} uses {sorted(used)} of {section.heading!r}"


@new_form
def gives_a_name_one_meaning(it: Built) -> Iterator[str]:
    """Running a section again after a later one gives the same."""
    homes: dict[str, dict[str, str]] = {}  # name -> heading -> how it is bound there
    for section in it.lesson.sections:
        for name, how in names_of(section.code).bound.items():
            if how != "loop" and not name.startswith("_"):
                homes.setdefault(name, {})[section.heading] = how
    for name, places in homes.items():
        same_import = len(set(places.values())) == 1 and next(iter(places.values())) != "other"
        if len(places) > 1 and not same_import:
            yield f"{name!r} is bound in {' and in '.join(map(repr, places))}"


@new_form
def tags_deeper_sections(it: Built) -> Iterator[str]:
    seen = False
    for section in it.lesson.sections:
        named = section.heading.startswith("## Deeper: ")
        if named != section.deeper:
            yield f"{section.heading!r}: 'Deeper: ' and tags=[\"deeper\"] go together"
        if seen and re.match(r"## \d", section.heading):
            yield f"{section.heading!r} stands behind a deeper section"
        seen = seen or section.deeper


@new_form
def says_pictures_in_few_words(it: Built) -> Iterator[str]:
    for output in it.outputs:
        alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
        if (count := len(alt.split())) > 60:
            yield f"a picture is said in {count} words, at most 60: {alt[:60]} ..."


@new_form
def names_no_numbers_of_lessons(it: Built) -> Iterator[str]:
    for found in re.findall(r"\b[Ll]essons? \d+", it.lesson.source):
        yield f"says {found!r}: write [[name]]"


@new_form
def leaves_times_to_the_build(it: Built) -> Iterator[str]:
    """Minutes, seconds and memory of a lesson are measured: its opening types none of them."""
    if "**Time:** [[time]]" not in it.lesson.front:
        yield "the opening lacks **Time:** [[time]]"
    figures = r"\b\d[\d.,]* ?(?:s|sec|seconds?|min|minutes?|hours?|MB|GB)\b"
    for found in re.findall(figures, it.lesson.front):
        yield f"the opening says {found!r} by hand"
    spoken = rf"(?:lesson|notebook) (?:runs|takes|needs)\b[^.\n]*?{figures}"
    for found in re.findall(spoken, it.lesson.source):
        yield f"says {found!r} by hand"


@new_form
def names_planned_lessons_as_planned(it: Built) -> Iterator[str]:
    """A lesson that is still planned is named by a link alone, to which the build adds the word."""
    for entry in it.lesson.course.entries:
        said = re.search(rf"(?<!\[\[)\b{entry.stem}\b|lessons?/{entry.name}\b", it.lesson.source)
        if entry.planned and said:
            yield f"says {said[0]!r}: write [[{entry.name}]]"
    for found in re.findall(r"\[([^\]\n]*)\]\((?:\./)?\d\d_\w+\.ipynb", it.lesson.source):
        yield f"links to {found!r} by hand: write [[name]]"
