"""Tables a screen reader can walk through."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from xailab.plots.saving import html_page, save_as


@dataclass(frozen=True)
class Table:
    """Rows under named columns with a caption; shown as HTML in a notebook, as text elsewhere."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str

    def save(self, path: str | Path) -> Path:
        """Write the table to a `.html`, `.csv` or `.txt` file, whole or not at all.

        Raises:
            ValueError: another suffix.
        """
        page = partial(html_page, self.title, self._repr_html_())
        return save_as(path, {".html": page, ".csv": self._csv, ".txt": lambda: f"{self!r}\n"})

    def _csv(self) -> str:
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([self.columns, *self.rows])
        return lines.getvalue()

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.columns)
        body = "".join(_html_row(row) for row in self.rows)
        return (
            f'<table><caption style="caption-side: top; text-align: left"><strong>'
            f"{escape(self.title)}</strong></caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def __repr__(self) -> str:
        grid = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.columns))]
        lines = ["  ".join(t.ljust(w) for t, w in zip(r, widths, strict=True)) for r in grid]
        return "\n".join([self.title, *(line.rstrip() for line in lines)])


def table(rows: Any, columns: Sequence[str] | None = None, *, title: str) -> Table:
    """Return rows as a table whose first column names the row.

    Args:
        rows: sequence of rows, or a pandas DataFrame (its index becomes the first column).
        columns: a name for each column; a DataFrame brings its own.
        title: what the table shows; read out as its caption.

    Raises:
        ValueError: no title, no rows, or a row as long as the columns are not.

    >>> table([("IG", 0.94), ("noise", 0.25)], ["method", "hits"], title="IG beats noise")
    IG beats noise
    method  hits
    IG      0.94
    noise   0.25
    """
    if hasattr(rows, "itertuples"):
        columns = columns or [str(rows.index.name or ""), *map(str, rows.columns)]
        rows = list(rows.itertuples(name=None))
    names = tuple(str(name) for name in columns or ())
    cells = tuple(tuple(_cell(value) for value in row) for row in rows)
    if not title.strip() or not cells:
        raise ValueError("table: expected a title and at least one row")
    if wrong := [row for row in cells if len(row) != len(names)]:
        raise ValueError(f"table: expected {len(names)} cells ({names}), got {wrong[0]}")
    return Table(names, cells, title)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _html_row(row: Sequence[str]) -> str:
    first, *rest = (escape(cell) for cell in row)
    cells = "".join(f"<td>{cell}</td>" for cell in rest)
    return f'<tr><th scope="row" style="text-align: left">{first}</th>{cells}</tr>'
