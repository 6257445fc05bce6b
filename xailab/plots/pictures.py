"""A figure that carries its own text alternative into the notebook.

Live it is sharp; where it is committed (`XAILAB_PICTURES=small`, as in the build) it is small.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

from matplotlib import style
from matplotlib.figure import Figure
from PIL import Image

from xailab.plots.saving import save_as
from xailab.plots.words import shortened

BYTES = 60_000  # a lesson with twenty pictures must still open fast on a code host
_DPI = (96, 84, 72)
_COLORS = (256, 160, 96)
_SCREEN = 96  # CSS pixels an inch
_MOST_SCREEN = 144  # maps are shown larger than other pictures, up to this
_FINER = 2  # pixels of the file for each CSS pixel: a whole number, or speckles would blur

INK = "#222222"
MUTED = "#666666"
POSITIVE = "#b2182b"  # the ends of the RdBu map: signs look the same in maps, bars and networks
NEGATIVE = "#2166ac"
# Okabe and Ito (2008), without the yellow that vanishes on white.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#222222")

_STYLE = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10.5,
    "font.size": 10,
    "pdf.fonttype": 42,  # letters stay letters, which can be searched and read out
    "svg.fonttype": "none",
    "svg.hashsalt": "xailab",  # the same picture gives the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the course's style, whatever the session's rcParams; they come back afterwards."""
    with style.context(["default", _STYLE]):
        yield


def new_figure(width: float, height: float, title: str | None) -> Figure:
    """Return a figure (inches) outside pyplot with its finding written at the top left.

    Raises:
        ValueError: the title is empty: a picture must say what it shows.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    if title is None:
        return figure
    if not title.strip():
        raise ValueError("title is empty: say in it what the picture shows")
    lines = fill(title, max(20, int(width * 11)))  # about 11 bold letters to the inch
    figure.suptitle(lines, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


class Sharp(NamedTuple):
    """A picture for a screen.

    Attributes:
        png: the file, two pixels for each CSS pixel.
        width: in CSS pixels, at which it is to be shown.
    """

    png: bytes
    width: int


def small() -> bool:
    """Tell whether pictures are to be small: `XAILAB_PICTURES=small`, as in the build."""
    return os.environ.get("XAILAB_PICTURES") == "small"


@dataclass(frozen=True, repr=False)
class Picture:
    """A drawn figure and the sentence that says the same in words.

    As the last expression of a notebook cell it shows the figure and, under it, the sentence.
    Front ends ignore an `alt` of an output (JupyterLab 4.6, MyST-NB), so the sentence is both
    stored there, for pages built from the notebook, and printed, for every reader.

    Args:
        figure: what to draw.
        alt: the sentence; not empty. Of a longer one the first clauses stay, 60 words in all.
        photo: spend the colors of a small file on shades, not on rare colors.
    """

    figure: Figure
    alt: str
    photo: bool = False

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("alt is empty: a picture needs its sentence, see plots.describe")
        object.__setattr__(self, "alt", shortened(self.alt))
        _sharpen_pyplot()
        if "matplotlib.pyplot" in sys.modules:  # pyplot would draw its open figures once more
            sys.modules["matplotlib.pyplot"].close(self.figure)

    def __repr__(self) -> str:
        return f"<Picture: {self.alt}>"

    def png(self) -> bytes:
        """Return the picture as PNG, under 60 kB if colors and dots per inch can make it so."""
        smallest = b""
        for dpi in _DPI:
            for data in _encodings(self.figure, dpi, self.photo):
                if len(data) <= BYTES:
                    return data
                smallest = min(smallest or data, data, key=len)
        return smallest

    def sharp(self) -> Sharp:
        """Return the picture for a screen: 192 dots an inch, more where a map has more pixels.

        A map is shown so large that each of its pixels gets one of the screen, as far as 144 CSS
        pixels an inch allow.
        """
        dpi = _screen_dpi(self.figure)
        png = _rendered(self.figure, "png", dpi=_FINER * dpi, metadata={"Software": None})
        return Sharp(png, round(Image.open(io.BytesIO(png)).width / _FINER))

    def save(self, path: str | Path) -> Path:
        """Write the picture to a `.png`, `.svg` or `.pdf` file, whole or not at all.

        Raises:
            ValueError: another suffix.
        """
        return save_as(path, {".png": self._file, ".svg": self._svg, ".pdf": self._pdf})

    def mimebundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the data and the metadata of one notebook output that shows the picture."""
        from base64 import b64encode

        png, size = (self.png(), {}) if small() else self._sized()
        data = {"image/png": b64encode(png).decode(), "text/plain": repr(self)}
        return data, {"image/png": {"alt": self.alt, **size}}

    def _sized(self) -> tuple[bytes, dict[str, int]]:
        png, width = self.sharp()
        return png, {"width": width}

    def _file(self) -> bytes:
        return self.png() if small() else self.sharp().png

    def _svg(self) -> bytes:
        return _rendered(self.figure, "svg", metadata={"Date": None, "Title": self.alt})

    def _pdf(self) -> bytes:
        return _rendered(self.figure, "pdf", metadata={"CreationDate": None, "Title": self.alt})

    def _ipython_display_(self) -> None:
        from IPython.display import display

        data, metadata = self.mimebundle()
        display(data, metadata=metadata, raw=True)
        say(self.alt)


def say(sentence: str) -> None:
    """Show a picture's sentence under it, for every reader: "In words: ..."."""
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    line = f"In words: {sentence}"
    if get_ipython() is None:
        print(line)
        return
    # As a paragraph it breaks between words, which plain text in a notebook does not.
    style = "max-width: 60em; margin: 0; font-size: 90%; opacity: .8"
    paragraph = f'<p style="{style}">{escape(line)}</p>'
    display({"text/html": paragraph, "text/plain": line}, raw=True)


def picture(figure: Figure, alt: str) -> Picture:
    """Wrap any matplotlib figure, one from pyplot too, with its sentence.

    >>> picture(Figure(), "A white page.")
    <Picture: A white page.>
    """
    return Picture(figure, alt)


def _screen_dpi(figure: Figure) -> int:
    """Return CSS pixels an inch: 96, or as many as its finest map has pixels, at most 144."""
    with styled():
        figure.draw_without_rendering()  # the layout
    finest = 0.0
    for image in (image for ax in figure.axes for image in ax.images):
        box, shape = image.get_window_extent(), image.get_size()
        if getattr(image.get_array(), "ndim", 3) == 2 and box.width and box.height:
            finest = max(finest, shape[1] / box.width, shape[0] / box.height)
    return round(min(max(_SCREEN, ceil(finest * figure.dpi)), _MOST_SCREEN))


def _sharpen_pyplot() -> None:
    """Show the session's figures of pyplot as sharp as ours, unless it chose a format itself."""
    if "IPython" not in sys.modules or small():
        return
    shell = sys.modules["IPython"].get_ipython()
    if shell is None or "kernel" not in vars(type(shell)).get("__module__", "ipykernel"):
        return
    from matplotlib_inline.config import InlineBackend

    if "figure_formats" not in shell.config.InlineBackend:
        shell.config.InlineBackend.figure_formats = {"retina"}
        InlineBackend.instance(parent=shell).figure_formats = {"retina"}


def _encodings(figure: Figure, dpi: int, photo: bool) -> Iterator[bytes]:
    """Yield ever smaller PNGs at one resolution: all colors first, then palettes.

    If the smallest palette gives too large a file, the others are left out.
    """
    full = _rendered(figure, "png", dpi=dpi, metadata={"Software": None})
    yield full
    image = Image.open(io.BytesIO(full)).convert("RGB")
    # Maximum coverage keeps the few pixels of a color bar, which the median cut would sacrifice.
    cut = Image.Quantize.MEDIANCUT if photo else Image.Quantize.MAXCOVERAGE
    least = _palette_png(image, _COLORS[-1], cut)
    if len(least) <= BYTES:
        for colors in _COLORS[:-1]:
            yield _palette_png(image, colors, cut)
    yield least


def _rendered(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=kind, bbox_inches="tight", pad_inches=0.06, **options)
    figure.set_layout_engine("none")  # a second layout would move things by a pixel
    return buffer.getvalue()


def _palette_png(image: Image.Image, colors: int, cut: Image.Quantize) -> bytes:
    buffer = io.BytesIO()
    few: Image.Image | None = None
    if cut == Image.Quantize.MEDIANCUT:  # all the colors of a noisy photo take ten times as long
        sample = image.resize(
            (max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.NEAREST
        )
        few = sample.quantize(colors, cut)
        few.putpalette([255 if value > 250 else value for value in few.getpalette() or []])  # paper
    palette = image.quantize(colors, cut, palette=few, dither=Image.Dither.NONE)
    palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
