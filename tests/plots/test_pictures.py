"""A picture: shown once, small, with its sentence, and without traces in the session."""

import io
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import skimage.data
from matplotlib.figure import Figure
from PIL import Image

from xailab import plots
from xailab.plots.pictures import BYTES

CAT = skimage.data.chelsea()
SQUARE = CAT[:, 75:375]  # as square as the maps that lie on it


def rainy(shape, seed=0):
    """A map of pure noise: what compresses worst."""
    return np.random.default_rng(seed).normal(size=shape)


def big_pictures():
    """Photos and noise, alone and in fours."""
    noise = [rainy((224, 224), seed) for seed in range(4)]
    cloud = np.outer(np.hanning(224), np.hanning(224))
    yield plots.images([CAT], titles=["cat"])
    yield plots.images([CAT, CAT[::-1], CAT[:, ::-1], 255 - CAT], titles=list("abcd"))
    yield plots.heatmap(rainy((7, 7)), SQUARE, title="Seven by seven")
    yield plots.heatmap(noise[0], SQUARE, title="Noise on a photo")
    yield plots.compare(noise, over=SQUARE, titles=list("abcd"), title="Noise four times")
    yield plots.compare([cloud, *np.abs(noise[1:])], over=SQUARE, titles=list("abcd"))


@pytest.mark.parametrize("picture", list(big_pictures()), ids=lambda picture: picture.alt[:20])
def test_photos_stay_under_60_kb_and_legible(picture):
    data = picture.png()
    assert len(data) <= BYTES
    width, height = Image.open(io.BytesIO(data)).size
    inches = picture.figure.get_size_inches()[0]
    assert 300 <= width <= 900
    assert height <= 700
    assert width / inches > 65  # not shrunk below 72 dpi; the trimmed border takes a little


def test_a_palette_changes_colors_by_little():
    picture = plots.images([CAT], titles=["cat"])
    buffer = io.BytesIO()
    picture.figure.savefig(buffer, dpi=96, bbox_inches="tight", pad_inches=0.06)
    true = np.asarray(Image.open(buffer).convert("RGB"), dtype=float)
    shown = np.asarray(Image.open(io.BytesIO(picture.png())).convert("RGB"), dtype=float)
    assert shown.shape == true.shape
    assert np.abs(shown - true).mean() < 4  # of 255


def test_the_same_picture_gives_the_same_bytes():
    picture = plots.compare([[[1, -2]], [[0, 3]]], over=CAT, titles=["a", "b"], title="t")
    assert picture.png() == picture.png()
    again = plots.compare([[[1, -2]], [[0, 3]]], over=CAT, titles=["a", "b"], title="t")
    assert again.png() == picture.png()


def test_save_writes_a_pdf_page_of_the_pictures_size(tmp_path):
    picture = plots.heatmap([[1.0, -2.0]], title="Against wins")
    pdf = picture.save(tmp_path / "a.PDF").read_bytes()
    assert pdf.startswith(b"%PDF-")
    left, bottom, right, top = map(float, re.search(rb"/MediaBox \[ *([^]]+)\]", pdf)[1].split())
    image = Image.open(io.BytesIO(picture.png()))
    assert (right - left) / (top - bottom) == pytest.approx(image.width / image.height, rel=0.02)
    assert b"strongest value, negative, at row 1" in pdf  # the sentence is the document's title
    assert picture.save(tmp_path / "b.pdf").read_bytes() == pdf


def test_texts_are_saved_as_they_are_shown(tmp_path):
    text = plots.tokens(["not", "<b>"], [0.5, -0.25], title="Two words")
    page = text.save(tmp_path / "a.html").read_text()
    assert page.startswith('<!doctype html><html lang="en"><meta charset="utf-8">')
    assert "<title>Two words</title>" in page
    assert text._repr_html_() in page
    assert text.save(tmp_path / "a.txt").read_text() == "Two words\nnot(+0.5) <b>(-0.25)\n"
    with pytest.raises(ValueError, match=r"\.html or \.txt, got 'a\.png'"):
        text.save(tmp_path / "a.png")


def test_tables_are_saved_as_they_are_shown(tmp_path):
    table = plots.table([("a, b", 0.25)], ["method", "hits"], title="One row")
    assert table._repr_html_() in table.save(tmp_path / "a.html").read_text()
    assert table.save(tmp_path / "a.csv").read_text() == 'method,hits\n"a, b",0.25\n'
    assert table.save(tmp_path / "a.txt").read_text() == f"{table!r}\n"
    with pytest.raises(ValueError, match=r"\.html, \.csv or \.txt, got 'a\.xlsx'"):
        table.save(tmp_path / "a.xlsx")


def test_save_writes_png_and_svg(tmp_path):
    picture = plots.bars([1, -2], ["for", "against"], title="Against wins")
    png = picture.save(tmp_path / "a.png")
    assert Image.open(png).format == "PNG"
    svg = picture.save(tmp_path / "a.svg").read_text()
    assert "Against wins" in svg
    assert picture.save(tmp_path / "b.svg").read_text() == svg
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg", "b.svg"]


def test_save_refuses_other_suffixes(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.pdf, got 'a\.jpg'"):
        plots.picture(Figure(), "white").save(tmp_path / "a.jpg")


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def broken(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(KeyboardInterrupt):
        plots.picture(Figure(), "white").save(path)
    assert path.read_bytes() == b"old"


def test_the_session_keeps_its_settings():
    before, backend = dict(matplotlib.rcParams), matplotlib.rcParams._get("backend")
    plots.bars([1], ["a"], title="One").png()
    plots.heatmap([[1, -1]], title="Two").png()
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.rcParams._get("backend") == backend


def test_the_session_settings_do_not_leak_into_the_picture():
    plain = plots.bars([1, 2], ["a", "b"], title="Same").png()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 10}):
        assert plots.bars([1, 2], ["a", "b"], title="Same").png() == plain


def test_a_pyplot_figure_is_closed_when_wrapped():
    from matplotlib import pyplot

    figure = pyplot.figure()
    other = pyplot.figure()
    picture = plots.picture(figure, "an empty page")
    assert pyplot.get_fignums() == [other.number]
    pyplot.close(other)
    assert picture.png().startswith(b"\x89PNG")


def test_importing_plots_is_light_and_drawing_needs_neither_torch_nor_pyplot():
    code = (
        "import sys; from xailab import plots, widgets; heavy = ['torch', 'matplotlib', 'IPython'];"
        "assert not [m for m in heavy if m in sys.modules];"
        "plots.heatmap([[1, 2]], title='t').png();"
        "assert not [m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_empty_titles_and_sentences_are_refused():
    with pytest.raises(ValueError, match="title is empty"):
        plots.bars([1], ["a"], title=" ")
    with pytest.raises(ValueError, match="alt is empty"):
        plots.picture(Figure(), "")


def test_every_exported_name_exists_and_stays_a_function():
    assert callable(plots.picture)  # also after its file was imported
    assert callable(plots.table)
    assert all(getattr(plots, name) for name in plots.__all__)
    with pytest.raises(AttributeError, match="jet"):
        plots.jet  # noqa: B018
