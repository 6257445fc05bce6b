import re

import pytest

from xailab.data import loaders, registry

HEADINGS = ["What", "Where from", "License", "Size", "Known problems", "How to load"]
NAMES = [entry.name for entry in registry.entries()]
# Without torchvision's sets: they need hosts that a test must not depend on (see test_public).
LOADABLE = [
    entry.name
    for entry in registry.entries()
    if entry.kind != "weights" and entry.source != "torchvision"
]


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_complete(name):
    entry = registry.entry(name)
    assert entry.kind in {"images", "table", "texts", "weights"}
    assert entry.source in {"archive", "dependency", "torchvision"}
    assert entry.title
    assert entry.licence
    if entry.source == "archive":
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert entry.file.endswith(".whl"), "an sdist would run a stranger's setup.py"
        assert entry.version in entry.file
        assert entry.member
        assert entry.size > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_has_a_card_with_all_headings(name):
    text = registry.card(name)
    assert text.startswith(f"# {name}\n")
    assert re.findall("^## (.*)$", text, re.MULTILINE) == HEADINGS
    sections = re.split("^## .*$", text, flags=re.MULTILINE)[1:]
    assert all(len(section.strip()) > 10 for section in sections)


def test_no_card_without_an_entry():
    cards = {path.stem for path in (registry.folder() / "cards").glob("*.md")}
    assert cards == set(NAMES)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "minilm", *LOADABLE])
def test_how_to_load_runs(name):
    code = re.search("```python\n(.*?)```", registry.card(name), re.DOTALL)[1]
    exec(code, {})


@pytest.mark.parametrize("name", LOADABLE)
def test_rows_and_classes_are_those_of_the_data(name):
    entry = registry.entry(name)
    data = loaders.load(name)
    assert len(data) == entry.rows
    assert len(data.classes) == entry.classes


def test_unknown_name_lists_near_ones():
    with pytest.raises(ValueError, match="no data set named 'phots'; did you mean photos"):
        registry.entry("phots")


def test_unknown_name_without_near_ones_lists_all():
    with pytest.raises(ValueError, match="known: efficientnet_lite0, photos"):
        registry.card("zzzzzz")


def test_registry_of_a_wheel_is_found(monkeypatch, tmp_path):
    module = tmp_path / "site-packages" / "xailab" / "data" / "registry.py"
    bundled = module.parent / "_datasets"
    bundled.mkdir(parents=True)
    monkeypatch.setattr(registry, "__file__", str(module))
    (tmp_path / "site-packages" / "datasets").mkdir()  # another package of that name
    with pytest.raises(FileNotFoundError, match="reinstall xailab"):
        registry.folder()
    (bundled / "registry.toml").write_text("")
    assert registry.folder() == bundled
