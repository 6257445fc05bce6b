"""How a score is shared out: in steps for one row, as dots for many, over the words of a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from xailab.plots.arrays import Floats, to_array
from xailab.plots.pictures import INK, MUTED, NEGATIVE, POSITIVE, Picture, new_figure, styled
from xailab.plots.saving import html_page, save_as
from xailab.plots.words import lead, number

_LINE = 0.5  # height of a label in a force picture, its arrows being 1 high


def waterfall(
    values: Any,
    names: Sequence[str],
    *,
    base: float,
    title: str,
    alt: str | None = None,
    most: int = 9,
    xlabel: str = "",
) -> Picture:
    """Draw how shares lead from a base to the score: one step a feature, the largest on top.

    Args:
        values: (F,) shares; base + their sum is the score.
        names: F names.
        base: the score with nothing known.
        title: the finding.
        alt: the text alternative; without it ends and largest steps are named.
        most: how many features get a step of their own; the others make one together.
        xlabel: what is measured, with its unit.

    Raises:
        ValueError: NaN, no value, `most` < 1, or the counts of values and names differ.
    """
    steps, labels = _checked("waterfall", values, names, most)
    ends = base + np.cumsum(steps)
    with styled():
        figure = new_figure(6.4, 1.1 + 0.32 * len(steps), title)
        _draw_steps(figure.subplots(), steps, ends - steps, labels, xlabel)
    return Picture(figure, alt or lead(title) + _steps_in_words(steps, labels, base, ends[-1]))


def _checked(who: str, values: Any, names: Sequence[str], most: int) -> tuple[Floats, list[str]]:
    """Return the steps to draw, the largest first, and what to call them."""
    shares = to_array(values)
    if shares.ndim != 1 or len(names) != len(shares) or not len(shares) or most < 1:
        raise ValueError(
            f"{who}: expected as many names as values and most >= 1, got values "
            f"{shares.shape}, {len(names)} names, {most=}"
        )
    return _largest(shares, [str(name) for name in names], most)


def _largest(shares: Floats, names: list[str], most: int) -> tuple[Floats, list[str]]:
    """Return the largest shares in order, and all others as one."""
    order = np.argsort(-np.abs(shares), kind="stable")
    rest = order[most:]
    if len(rest) < 2:
        return shares[order], [names[i] for i in order]
    top = order[:most]
    together = [*(names[i] for i in top), f"{len(rest)} others"]
    return np.append(shares[top], shares[rest].sum()), together


def _draw_steps(ax: Any, steps: Floats, starts: Floats, names: list[str], xlabel: str) -> None:
    rows = np.arange(len(steps))
    colors = [POSITIVE if step >= 0 else NEGATIVE for step in steps]
    ax.barh(rows, steps, left=starts, color=colors, height=0.7)
    for row, (start, step) in enumerate(zip(starts, steps, strict=True)):
        side = 1 if step >= 0 else -1
        ax.annotate(
            f"{step:+.3g}",
            (start + step, row),
            xytext=(4 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=9,
        )
        if row + 1 < len(steps):  # the next step begins where this one ends
            ax.plot([start + step] * 2, [row, row + 1], color=MUTED, linewidth=0.8, zorder=0)
    ax.set_yticks(rows, names)
    ax.invert_yaxis()
    ax.use_sticky_edges = False
    ax.margins(x=0.18)  # room for the numbers, on both sides
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(xlabel)


def _steps_in_words(steps: Floats, names: list[str], base: float, end: float) -> str:
    said = ", ".join(f"{name} {step:+.3g}" for name, step in zip(names, steps, strict=True))
    return f"From {number(base)} to {number(end)}: {said}."


def force(
    values: Any,
    names: Sequence[str],
    *,
    base: float,
    title: str,
    alt: str | None = None,
    most: int = 9,
    xlabel: str = "",
) -> Picture:
    """Draw the shares of one row as arrows that meet at the score: what raises it from the left.

    All arrows of one direction together are as long as their sum, so the picture shows how much
    pulls each way. The largest lie next to the score.

    Args:
        values: (F,) shares; base + their sum is the score.
        names: F names.
        base: the score with nothing known.
        title: the finding.
        alt: the text alternative; without it ends and the pushes of both directions are named.
        most: how many features get an arrow of their own; the others make one together.
        xlabel: what is measured, with its unit.

    Raises:
        ValueError: NaN, no value, `most` < 1, or the counts of values and names differ.
    """
    steps, labels = _checked("force", values, names, most)
    end = base + steps.sum()
    sides = [[(steps[i], labels[i]) for i in np.flatnonzero(steps * s > 0)] for s in (1, -1)]
    lines = max(map(len, sides))
    with styled():
        figure = new_figure(7.2, 1.7 + 0.22 * lines, title)
        ax = figure.subplots()
        for side in sides:
            _draw_pushes(ax, side, end, slant=0.015 * np.abs(steps).sum())
        _draw_ends(ax, base, end, lines)
        ax.set_xlabel(xlabel)
    return Picture(figure, alt or lead(title) + _pushes_in_words(sides, base, end))


def _draw_pushes(ax: Any, pushes: list[tuple[float, str]], end: float, slant: float) -> None:
    """Draw the arrows of one direction from the score outwards, each with its label below.

    The outermost label stands highest and all run outwards, so no line crosses a label. Tips are
    slanted alike, so short arrows fit into each other.
    """
    for i, (step, label) in enumerate(pushes):
        start = end - step
        back = slant if step > 0 else -slant
        upper = [(start - back, 0.5), (end - back, 0.5), (end, 0)]
        lower = [(end - back, -0.5), (start - back, -0.5), (start, 0)]
        color = POSITIVE if step > 0 else NEGATIVE
        ax.fill(*zip(*upper, *lower, strict=True), color=color, edgecolor="white", linewidth=0.8)
        below = -0.75 - _LINE * (len(pushes) - 1 - i)
        ax.plot([end - step / 2] * 2, [0, below], color=color, linewidth=0.8, zorder=0)
        ax.annotate(
            f"{label} {step:+.3g}",
            (end - step / 2, below),
            xytext=(-3 if step > 0 else 3, 0),
            textcoords="offset points",
            ha="right" if step > 0 else "left",
            va="center",
            fontsize=9,
            color=color,
        )
        end = start


def _draw_ends(ax: Any, base: float, end: float, lines: int) -> None:
    """Mark where the score begins and where it ends, on two heights: they may lie close."""
    for place, height, word, style in ((base, 0.9, "base", ":"), (end, 1.5, "score", "-")):
        ax.plot([place] * 2, [-0.6, height], color=INK, linewidth=1.2, linestyle=style)
        ax.text(place, height, f"{word} {number(place)}", ha="center", va="bottom", fontsize=9)
    ax.set_ylim(-0.9 - _LINE * max(0, lines - 1), 2.1)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.05)


def _pushes_in_words(sides: list[list[tuple[float, str]]], base: float, end: float) -> str:
    said = [
        f"pushed {way} by " + ", ".join(f"{label} {step:+.3g}" for step, label in side)
        for way, side in zip(("up", "down"), sides, strict=True)
        if side
    ]
    return f"From {number(base)} to {number(end)}: {'; '.join(said) or 'nothing pushes'}."


def arrivals(
    steps: Any,
    joined: Sequence[str],
    means: Any,
    exact: Any,
    names: Sequence[str],
    *,
    base: float,
    orders: int,
    title: str,
    alt: str | None = None,
    xlabel: str = "",
) -> Picture:
    """Draw what features added in the order in which they came, beside the means over orders.

    Args:
        steps: (K,) what each added when it came, K from 0 to F.
        joined: the K names, in that order.
        means: (F,) mean of what each added over several orders.
        exact: (F,) the mean over all orders, drawn as diamonds.
        names: F names.
        base: the score with nothing known.
        orders: how many orders the means are over.
        title: the finding.
        alt: the text alternative; without it steps, means and exact values are named.
        xlabel: what is measured, with its unit.

    Raises:
        ValueError: NaN, or counts that differ.
    """
    added = to_array(steps) if len(steps) else np.zeros(0)  # nobody may be in
    mean, right = to_array(means), to_array(exact)
    if added.shape != (len(joined),) or not mean.shape == right.shape == (len(names),):
        raise ValueError(
            f"arrivals: expected a step for each of {len(joined)} joined and two numbers for each "
            f"of {len(names)} names, got {added.shape}, {mean.shape}, {right.shape}"
        )
    with styled():
        figure = new_figure(8.4, 1.5 + 0.34 * len(names), title)
        left, side = figure.subplots(1, 2)
        places = [f"{i + 1}. {name}" for i, name in enumerate(joined)]
        _draw_steps(left, added, base + np.cumsum(added) - added, places, xlabel)
        left.margins(x=0.3)  # half as wide as a waterfall, and the numbers are as long
        left.set_ylim(len(names) - 0.4, -0.6)  # the same height, however many are in
        left.axvline(base, color=MUTED, linewidth=0.8, linestyle=":")
        left.set_title("added in this order")
        _draw_means(side, mean, right, names, xlabel)
        side.set_title(f"mean over {orders} order{'s' * (orders != 1)}, diamond: exact")
    said = _arrivals_in_words(added, joined, base)
    pairs = zip(names, mean, right, strict=True)
    near = ", ".join(f"{name} {m:+.3g} (exact {e:+.3g})" for name, m, e in pairs)
    return Picture(figure, alt or f"{lead(title)}{said} Mean over {orders} of the orders: {near}.")


def _draw_means(ax: Any, means: Floats, exact: Floats, names: Sequence[str], xlabel: str) -> None:
    rows = np.arange(len(names))
    colors = [POSITIVE if mean >= 0 else NEGATIVE for mean in means]
    ax.barh(rows, means, color=colors, height=0.6, alpha=0.75)
    ax.plot(exact, rows, linestyle="", marker="D", color=INK, markersize=6)
    ax.set_yticks(rows, [str(name) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(xlabel)


def _arrivals_in_words(steps: Floats, joined: Sequence[str], base: float) -> str:
    if not len(joined):
        return f"Nobody is in: {number(base)}."
    said = ", then ".join(f"{name} {step:+.3g}" for name, step in zip(joined, steps, strict=True))
    return f"From {number(base)}: {said}; together {number(base + steps.sum())}."


def beeswarm(
    values: Any,
    data: Any,
    names: Sequence[str],
    *,
    title: str,
    alt: str | None = None,
    most: int = 10,
    xlabel: str = "",
) -> Picture:
    """Draw one dot for each row and feature: where it lies is its share, its color its value.

    Args:
        values: (N, F) shares.
        data: (N, F), the features' own values; dark is low, bright is high.
        names: F names.
        title: the finding.
        alt: the text alternative; without it mean sizes and directions are named.
        most: how many features are drawn, those with the largest mean absolute share.
        xlabel: what is measured, with its unit.

    Raises:
        ValueError: NaN, no row, or shapes that do not fit.
    """
    shares, own = to_array(values), to_array(data)
    if shares.ndim != 2 or shares.shape != own.shape or shares.shape[1] != len(names):
        raise ValueError(
            f"beeswarm: expected (N, F) shares and data and F names, got {shares.shape}, "
            f"{own.shape}, {len(names)} names"
        )
    sizes = np.abs(shares).mean(0)
    top = np.argsort(-sizes, kind="stable")[:most]
    with styled():
        figure = new_figure(6.4, 1.2 + 0.42 * len(top), title)
        ax = figure.subplots()
        for row, i in enumerate(top):
            dots = ax.scatter(
                shares[:, i],
                row + _heights(shares[:, i]),
                c=_ranks(own[:, i]),
                cmap="cividis",
                vmin=0,  # one meaning of the colors for all features, that of the bar
                vmax=1,
                s=12,
            )
        ax.set_yticks(range(len(top)), [str(names[i]) for i in top])
        ax.invert_yaxis()
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel(xlabel)
        bar = figure.colorbar(dots, ax=ax, ticks=[0, 1], pad=0.02, aspect=30)
        bar.ax.set_yticklabels(["low", "high"])
        bar.set_label("value of the feature", labelpad=-12)
    said = "; ".join(_dots_in_words(str(names[i]), shares[:, i], own[:, i]) for i in top)
    return Picture(figure, alt or lead(title) + f"{len(shares)} rows. {said}.")


def _heights(values: Floats) -> Floats:
    """Return how far each dot stands off its line: crowded ones fan out to both sides."""
    bins = np.digitize(values, np.linspace(values.min(), values.max(), 40))
    heights = np.zeros(len(values))
    for place in np.unique(bins):
        (crowd,) = np.nonzero(bins == place)
        order = np.arange(len(crowd))
        heights[crowd] = (order + 1) // 2 * np.where(order % 2, 1, -1)
    return 0.38 * heights / max(1.0, np.abs(heights).max())


def _ranks(values: Floats) -> Floats:
    """Return ranks from 0, the lowest, to 1, the highest: outliers must not eat up the colors."""
    ranks = np.searchsorted(np.sort(values), values)
    return ranks / max(1, ranks.max())


def _dots_in_words(name: str, shares: Floats, own: Floats) -> str:
    size = f"{name}: mean size {number(np.abs(shares).mean())}"
    if np.ptp(own) == 0 or np.ptp(shares) == 0:
        return size
    along = np.corrcoef(_ranks(own), shares)[0, 1]
    if abs(along) < 0.3:
        return f"{size}, no clear direction"
    return f"{size}, high values {'raise' if along > 0 else 'lower'} the score"


@dataclass(frozen=True)
class Tokens:
    """A text with a number on every word; shown as HTML in a notebook, as text elsewhere.

    Attributes:
        words: of the text, in order.
        weights: one number each.
        title: the finding.
        beside: which of the words are none of the text: tokens that a tokenizer put there.
    """

    words: tuple[str, ...]
    weights: tuple[float, ...]
    title: str
    beside: tuple[bool, ...] = ()

    def save(self, path: str | Path) -> Path:
        """Write the text to a `.html` or `.txt` file, whole or not at all.

        Raises:
            ValueError: another suffix.
        """
        page = partial(html_page, self.title, self._repr_html_())
        return save_as(path, {".html": page, ".txt": lambda: f"{self!r}\n"})

    def _repr_html_(self) -> str:
        top = max(map(abs, self.weights)) or 1.0
        beside = self.beside or (False,) * len(self.words)
        each = zip(self.words, self.weights, beside, strict=True)
        marks = " ".join(_marked(word, weight, top, token) for word, weight, token in each)
        return (
            f"<p><strong>{escape(self.title)}</strong></p><p style='line-height:2.8'>{marks}</p>"
            f"<p style='font-size:75%'>{_key(top, any(beside))}</p>"
        )

    def __repr__(self) -> str:
        pairs = zip(self.words, self.weights, strict=True)
        return f"{self.title}\n" + " ".join(f"{word}({weight:+.2g})" for word, weight in pairs)


def tokens(words: Sequence[str], weights: Any, *, title: str) -> Tokens:
    """Show a text with the weight of every word above it, and its sign in the underline.

    The number stands above the word, so that nothing depends on color: what speaks for the score
    is red and underlined once, what speaks against it blue and dotted. A line below tells which
    number has the deepest color. Tokens that a tokenizer put beside the text are gray and framed.

    Args:
        words: the words or tokens, in order; those with an attribute `beside` that is true, as
            `xailab.models.texts.SpecialToken` has it, are no words of the text.
        weights: one number each, in units of the score.
        title: the finding.

    Raises:
        ValueError: NaN, no word, no title, or the counts differ.

    >>> tokens(["not", "bad"], [0.5, -0.25], title="Two words")
    Two words
    not(+0.5) bad(-0.25)
    """
    numbers = to_array(weights)
    if not title.strip() or not len(words) or numbers.shape != (len(words),):
        raise ValueError(
            f"tokens: expected a title and a number per word, got {len(words)} words, weights "
            f"{numbers.shape}"
        )
    beside = tuple(bool(getattr(word, "beside", False)) for word in words)
    return Tokens(tuple(map(str, words)), tuple(map(float, numbers)), title, beside)


def _marked(word: str, weight: float, top: float, token: bool) -> str:
    """Return one word with its number above; the deeper its color, the larger the number."""
    strength = 0.5 * abs(weight) / top
    color, line = ((178, 24, 43), "solid") if weight > 0 else ((33, 102, 172), "dotted")
    style = f"background:rgba({color[0]},{color[1]},{color[2]},{strength:.2f})"
    if weight:
        style += f";border-bottom:2px {line} rgb{color}"
    if token:
        style += ";color:#666;outline:1px dashed #999;font-size:80%"
    above = "font-size:65%;padding:0 .3em"  # the room keeps numbers above short words apart
    return f'<ruby style="{style}">{escape(word)}<rt style="{above}">{weight:+.2g}</rt></ruby>'


def _key(top: float, tokens: bool) -> str:
    """Say what the colors mean, and how large the deepest is."""
    said = f"red, underlined: for it; blue, dotted: against; deepest color: ±{number(top)}"
    return said + ("; gray, framed: tokens beside the text" if tokens else "")
