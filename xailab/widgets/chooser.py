"""The method chooser: four answers about your case, and the methods that fit it.

Lesson `start_here` uses this file. `recommend` is the whole logic; the widget only asks and shows.
"""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xailab import plots
from xailab.core import curriculum
from xailab.core.curriculum import Entry
from xailab.widgets.show import show

if TYPE_CHECKING:
    from ipywidgets import VBox

ACCESS = {"gradients": "the network itself", "predictions": "only its answers"}
DATA = {"photo": "a photo", "table": "a row of a table", "text": "a text"}
TIME = {"seconds": "seconds", "minutes": "minutes"}
WHO = {
    "developer": "a developer: is this answer a bug?",
    "affected": "a person whom the answer concerns",
    "auditor": "an auditor: what has it learned?",
}
KINDS = {
    "gradient": "gradient: follow the slopes",
    "perturbation": "perturbation: change it and watch",
    "rule": "rule: put it in words",
    "example": "example: show a case",
}
_MOST = 3  # recommendations; who gets ten picks none


class Method(NamedTuple):
    """One method: which of the four kinds it is, where it is taught, and what it asks for.

    Attributes:
        name: as the field calls it.
        kind: "gradient", "perturbation", "rule" or "example".
        lesson: name of the lesson that teaches it.
        reason: why one would take it.
        access: "gradients" if it needs the network itself, else "predictions".
        data: keys of `DATA` that it explains.
        time: "minutes" if it evaluates hundreds of variants or the whole data set.
        who: keys of `WHO` that it answers.
    """

    name: str
    kind: str
    lesson: str
    reason: str
    access: str
    data: tuple[str, ...]
    time: str
    who: tuple[str, ...]

    @property
    def taught(self) -> Entry:
        """The lesson that teaches it, in the course's table."""
        return curriculum.lesson(self.lesson)


_ANY = tuple(DATA)
METHODS = (
    Method(
        "Grad-CAM",
        "gradient",
        "cam",
        "one backward pass marks the regions that raised the score",
        "gradients",
        ("photo",),
        "seconds",
        ("developer", "affected"),
    ),
    Method(
        "Integrated gradients",
        "gradient",
        "integrated_gradients",
        "one number per input, and the numbers add up to the change of the score",
        "gradients",
        _ANY,
        "seconds",
        ("developer",),
    ),
    Method(
        "Concept vectors (TCAV)",
        "gradient",
        "concepts",
        "tests whether a concept that you can name, such as stripes, moves the class",
        "gradients",
        ("photo", "text"),
        "minutes",
        ("auditor",),
    ),
    Method(
        "Feature visualization",
        "gradient",
        "feature_visualization",
        "draws the input that excites a class or a neuron most: what it looks for",
        "gradients",
        ("photo",),
        "seconds",
        ("auditor",),
    ),
    Method(
        "Shapley values (SHAP)",
        "perturbation",
        "shap",
        "shares the score out among the columns, by trying their coalitions",
        "predictions",
        ("table",),
        "minutes",
        ("developer", "affected"),
    ),
    Method(
        "LIME",
        "perturbation",
        "lime",
        "hides random parts and fits a small linear model to what the network then says",
        "predictions",
        ("photo", "text"),
        "minutes",
        ("developer",),
    ),
    Method(
        "Occlusion",
        "perturbation",
        "lime",
        "covers one part after the other and watches the score; anyone can follow it",
        "predictions",
        _ANY,
        "seconds",
        ("developer", "affected"),
    ),
    Method(
        "Groups of maps",
        "perturbation",
        "at_scale",
        "explains many photos one by one and groups the maps: habits show, such as a watermark",
        "predictions",
        ("photo",),
        "minutes",
        ("auditor",),
    ),
    Method(
        "Permutation importance",
        "perturbation",
        "effects",
        "shuffles one column of labeled cases and measures how much worse the model gets",
        "predictions",
        ("table",),
        "seconds",
        ("auditor",),
    ),
    Method(
        "Anchors",
        "rule",
        "surrogates",
        "an IF-THEN rule for this case, with how often it holds",
        "predictions",
        ("table", "text"),
        "minutes",
        ("affected",),
    ),
    Method(
        "Surrogate tree",
        "rule",
        "surrogates",
        "a small tree imitates the model; its fidelity says how far to believe it",
        "predictions",
        ("table", "text"),
        "seconds",
        ("auditor",),
    ),
    Method(
        "Counterfactual",
        "example",
        "counterfactuals",
        "says what would have to be different for another answer",
        "predictions",
        ("table",),
        "seconds",
        ("affected",),
    ),
    Method(
        "Nearest unlike neighbor",
        "example",
        "counterfactuals",
        "shows the most similar known case that got another answer",
        "predictions",
        _ANY,
        "seconds",
        ("developer", "affected"),
    ),
    Method(
        "Prototypes and criticisms",
        "example",
        "examples",
        "shows which of your cases are typical for a class, and which do not fit in",
        "predictions",
        _ANY,
        "seconds",
        ("auditor",),
    ),
)


def recommend(*, access: str, data: str, time: str, who: str) -> list[Method]:
    """Return up to three methods that fit a case, each of another kind, the fittest first.

    Methods that need what you do not have are left out. Of those left, a method that uses more of
    what you have (the gradients, the minutes) comes first: it usually sees more. One whose lesson
    is still planned comes after those that you can learn today. Every kind is named once, because
    two methods of one kind tend to agree also where both are wrong.

    Args:
        access: "gradients" (you hold the network) or "predictions" (you can only ask it).
        data: "photo", "table" or "text".
        time: "seconds" or "minutes".
        who: "developer", "affected" or "auditor".

    Raises:
        ValueError: an answer that is none of these.

    >>> found = recommend(access="predictions", data="table", time="seconds", who="auditor")
    >>> [method.name for method in found]
    ['Permutation importance', 'Surrogate tree', 'Prototypes and criticisms']
    """
    _check(access=access, data=data, time=time, who=who)
    fitting = [
        method
        for method in METHODS
        if method.access in ("predictions", access)
        and method.time in ("seconds", time)
        and data in method.data
        and who in method.who
    ]
    unused = {m: (m.access != access) + (m.time != time) for m in fitting}
    fitting.sort(key=lambda method: (method.taught.planned, unused[method]))
    first_of_kind = {method.kind: method for method in reversed(fitting)}
    return [method for method in fitting if first_of_kind[method.kind] is method][:_MOST]


def _check(**answers: str) -> None:
    allowed = {"access": ACCESS, "data": DATA, "time": TIME, "who": WHO}
    for name, answer in answers.items():
        if answer not in allowed[name]:
            raise ValueError(f"{name} is one of {', '.join(allowed[name])}; got {answer!r}")


def method_chooser() -> None:
    """Show four questions about your case and the methods that fit it.

    Tab walks through the answers, the space bar takes one. Where widgets do not run, a picture of
    the first position stands in.
    """
    show(chooser_widget(), chooser_picture())


def chooser_widget() -> "VBox":
    """Return the chooser as a widget: four rows of buttons, and the recommendations below.

    CSS classes: `xailab-chooser` on the whole, `xailab-chooser-access` and so on for each row,
    `xailab-chooser-result` on the recommendations.
    """
    from ipywidgets import Output, VBox

    menus = {
        "access": _menu("You have", "access", ACCESS),
        "data": _menu("To explain", "data", DATA),
        "time": _menu("Time", "time", TIME),
        "who": _menu("Who asks", "who", WHO),
    }
    # Only in an output does JupyterLab follow a link from where the notebook lies, in the lab; an
    # HTML widget's link starts at the address of the page, which is another one in a workspace.
    result = Output()
    result.add_class("xailab-chooser-result")

    def update(_: Any = None) -> None:
        found = recommend(**{name: menu.value for name, menu in menus.items()})
        html = {"text/html": _html(found), "text/plain": ""}
        result.outputs = ({"output_type": "display_data", "data": html, "metadata": {}},)

    for menu in menus.values():
        menu.observe(update, "value")
    update()
    box = VBox([*menus.values(), result])
    box.add_class("xailab-chooser")
    return box


def _menu(description: str, name: str, options: dict[str, str]) -> Any:
    from ipywidgets import Layout, ToggleButtons

    menu = ToggleButtons(  # JupyterLab keeps the arrow keys from a dropdown
        options=[(words, key) for key, words in options.items()],
        description=description,
        style={"button_width": "auto"},
        layout=Layout(width="auto"),
    )
    menu.add_class(f"xailab-chooser-{name}")
    return menu


def _html(found: list[Method]) -> str:
    rows = "".join(
        f"<li><strong>{escape(method.name)}</strong> ({method.kind}): {escape(method.reason)}. "
        f"{_lesson_html(method.taught)}</li>"
        for method in found
    )
    advice = (
        "Take two of different kinds. Where they disagree, look closer."
        if len(found) > 1
        else "One alone cannot be cross-checked: more access or more time gives a second kind."
    )
    return f"<ol style='line-height:1.5;margin:.4em 0'>{rows}</ol><p>{advice}</p>"


def _lesson_html(lesson: Entry) -> str:
    """Link the lesson if its notebook lies beside this one; else name it."""
    words = f"Lesson {escape(lesson.words)}"
    if not Path(f"{lesson.stem}.ipynb").is_file():
        return f"{words}."
    return f'<a href="{lesson.stem}.ipynb" style="text-decoration: underline">{words}</a>.'


def method_kinds() -> list[tuple[str, str, str]]:
    """Return the map of the methods: kind, for one answer, for the whole model.

    Two methods at most in each place, each with the number of the lesson that teaches it.

    >>> [row[0] for row in method_kinds()][0]
    'gradient: follow the slopes'
    """
    return [
        (words, _named(kind, everything=False), _named(kind, everything=True))
        for kind, words in KINDS.items()
    ]


def _named(kind: str, *, everything: bool) -> str:
    of_kind = [m for m in METHODS if m.kind == kind and ("auditor" in m.who) == everything]
    of_kind.sort(key=lambda method: method.taught.planned)
    return ", ".join(f"{m.name} {_number(m)}" for m in of_kind[:2])


def _number(method: Method) -> str:
    return f"{method.taught.number:02}{' (planned)' if method.taught.planned else ''}"


def chooser_picture(
    *,
    access: str = "gradients",
    data: str = "photo",
    time: str = "seconds",
    who: str = "developer",
) -> plots.Picture:
    """Draw one case and its recommendations; arguments and errors as for `recommend`."""
    found = recommend(access=access, data=data, time=time, who=who)
    asker = WHO[who].partition(":")[0]
    case = f"{ACCESS[access]}\n{DATA[data]}\n{TIME[time]}\n{asker}"
    labels = {"case": case} | {m.name: f"{m.name}\nlesson {_number(m)}" for m in found}
    places = {m.name: (1.0, 0.65 * row) for row, m in enumerate(found)}
    said = "; ".join(f"{m.name} ({m.kind}, lesson {_number(m)}): {m.reason}" for m in found)
    return plots.graph(
        [("case", method.name, method.kind) for method in found],
        labels,
        positions={"case": (0.0, 0.325 * (len(found) - 1)), **places},
        highlight=["case"],
        title=f"For this case, begin with {found[0].name}",
        alt=f"The method chooser. For {', '.join(case.splitlines())}, it names {said}.",
    )
