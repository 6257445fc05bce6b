"""One output that is a widget where widgets run and a picture everywhere else."""

import base64
from html.parser import HTMLParser

import ipywidgets
import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from xailab import plots, widgets
from xailab.widgets.show import frame

CODE = """
import ipywidgets
from xailab import plots, widgets
picture = plots.heatmap([[1, -2]], title="Left is for, right against")
widgets.show(ipywidgets.IntSlider(description="step"), picture)
"""
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def executed():
    """A notebook with a widget and a picture, run by a real kernel, widget state left out."""
    cells = [nbformat.v4.new_code_cell(code) for code in (CODE, "picture")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, store_widget_state=False).execute()
    return notebook


def test_a_widget_is_stored_with_its_picture_and_sentence(executed):
    bundle, words = executed.cells[0].outputs
    assert bundle.output_type == "display_data"
    assert set(bundle.data) == {VIEW, "image/png", "text/plain"}
    assert bundle.data[VIEW]["model_id"]
    assert base64.b64decode(bundle.data["image/png"]).startswith(b"\x89PNG")
    sentence = bundle.metadata["image/png"]["alt"]
    assert "peak" not in sentence  # the strongest value is the negative one
    assert "strongest value, negative, at row 1, column 2 of 1 x 2" in sentence
    assert words.data["text/plain"] == f"In words: {sentence}"


def test_a_picture_is_shown_once_with_its_sentence(executed):
    image, words = executed.cells[1].outputs
    assert set(image.data) == {"image/png", "text/plain"}
    assert words.data["text/plain"] == f"In words: {image.metadata['image/png']['alt']}"
    assert image.data["text/plain"].startswith("<Picture: Left is for, right against.")


class _Images(HTMLParser):
    """The attributes of every <img> of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.found.append(dict(attrs))


def test_a_page_without_widget_state_shows_the_picture(executed):
    html, _ = HTMLExporter().from_notebook_node(executed)
    page = _Images()
    page.feed(html)
    assert len(page.found) == 2  # in place of the widget, and the picture itself
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.found)
    assert html.count("In words: Left is for, right against.") == 2


def test_outside_a_notebook_the_sentence_is_printed(capsys):
    widgets.show(ipywidgets.IntSlider(), plots.bars([1], ["a"], title="One bar"))
    assert capsys.readouterr().out == "In words: One bar. One bar: a (1).\n"


def test_an_explorers_picture_is_not_stretched():
    layout = frame().layout
    assert (layout.align_self, layout.max_width, layout.width) == ("flex-start", "100%", None)
