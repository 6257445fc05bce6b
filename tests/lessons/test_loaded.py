"""What the lessons load is what the set-up fetches: after `make lab` none needs a network."""

from pathlib import Path

import pytest

from tests.lessons.loaded import loaded
from xailab import data

LESSONS = {path.stem: path for path in (Path(__file__).parents[2] / "lessons").glob("*.py")}


@pytest.mark.parametrize("entry", data.entries(), ids=lambda entry: entry.name)
def test_the_registry_names_the_lessons_that_load_a_set(entry):
    found = {
        name for name, path in LESSONS.items() if entry.name in loaded(path.read_text("utf-8"))
    }
    assert sorted(entry.lessons) == sorted(found)


def test_every_archive_that_a_lesson_loads_is_fetched_and_no_other():
    used = set().union(*(loaded(path.read_text("utf-8")) for path in LESSONS.values()))
    archives = {entry.name for entry in data.entries() if entry.source == "archive"}
    assert {entry.name for entry in data.entries() if entry.needed} == used & archives
    assert {"compas", "adult", "minilm"} <= used
    assert not [e.name for e in data.entries() if e.source == "torchvision" and e.name in used]


@pytest.mark.parametrize(
    ("source", "sets"),
    [
        ('from xailab import data\nx = data.load("compas")', {"compas"}),
        ("from xailab import data\nx = data.photos()", {"photos"}),
        ("from xailab import data\nx = data.mosaics()", {"photos"}),  # which are made of photos
        ("from xailab.models import minilm\nnet = minilm()", {"minilm"}),
        ("from xailab import models\nnet = models.sms_gru()", set()),  # shipped weights
        ("sets = ['compas']\nminilm = 3", set()),
        ("photos = load()\nphotos.mosaics()", set()),
    ],
)
def test_the_reading_follows_what_a_cell_calls(source, sets):
    assert loaded(source) & {"compas", "photos", "minilm"} == sets
