"""The scoreboard: a table computed by hand, a file that survives, a known answer that is one."""

import os

import pandas as pd
import pytest
import torch
from torch import nn

from xailab.evaluate import scoreboard
from xailab.evaluate.scoreboard import COLUMNS, KnownAnswer, record, score, standings


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XAILAB_SCOREBOARD", str(tmp_path / "scoreboard.csv"))
    monkeypatch.setenv("XAILAB_QUIET", "1")
    return tmp_path


def tiny():
    """Seven rows of 2 x 2; the answer is the upper left pixel, or the whole upper row."""
    truth = torch.zeros(7, 2, 2, dtype=torch.bool)
    truth[:, 0, 0] = True
    truth[1, 0, 1] = True
    x = torch.tensor([[4.0, 0.0], [2.0, 2.0]]).expand(7, 1, 2, 2).clone()
    x[1] = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 2))
    return KnownAnswer("tiny", net, x, torch.tensor([0, 1, 0, 0, 0, 0, 0]), truth, "0")


@pytest.fixture
def sets(monkeypatch):
    monkeypatch.setattr(scoreboard, "SETS", {"tiny": tiny})


def picture(model, x, target):
    return x


def test_a_table_by_hand(sets):
    table = score([picture], ["tiny"], limit=2)
    assert list(table.columns) == COLUMNS
    line = table.iloc[0]
    assert (line["method"], line["dataset"], line["rows"]) == ("picture", "tiny", 2)
    # row 0: peak 4 inside, 4 of 8, top 1 inside; row 1: peak inside, 4 of 4, top 2 inside
    assert line["pointing"] == 1
    assert line["mass"] == pytest.approx((0.5 + 1) / 2)
    assert line["rank"] == 1
    assert line["chance"] == pytest.approx((0.25 + 0.5) / 2)
    assert line["ms_per_row"] > 0


def test_all_rows_once_in_order_a_few_at_a_time(sets):
    seen = []

    def spy(model, x, target):
        seen.append((x, target))
        return x

    assert score([spy], ["tiny"])["rows"].item() == 7
    assert max(len(x) for x, _ in seen) == scoreboard._CHUNK < 7
    assert torch.equal(torch.cat([x for x, _ in seen]), tiny().x)
    assert torch.equal(torch.cat([target for _, target in seen]), tiny().target)


def test_a_constant_map_scores_chance(sets):
    line = score({"flat": lambda model, x, target: torch.ones_like(x)}, "tiny").iloc[0]
    assert line["pointing"] == line["mass"] == line["rank"] == pytest.approx(line["chance"])


def test_channels_are_summed_and_maps_without_channels_taken(sets):
    with_channels = {"two": lambda model, x, target: torch.cat([2 * x, -x], 1)}
    without = {"none": lambda model, x, target: x[:, 0]}
    arrays = {"array": lambda model, x, target: x.numpy()}
    wanted = score([picture], ["tiny"])[["pointing", "mass", "rank"]]
    for methods in (with_channels, without, arrays):
        got = score(methods, ["tiny"])[["pointing", "mass", "rank"]]
        pd.testing.assert_frame_equal(got, wanted)


def test_the_layer_and_the_options_reach_those_who_know_them(sets):
    taken = []

    def spy(model, x, target, *, layer, strength=1):
        taken.append((layer, strength))
        return x

    score([spy, picture], ["tiny"], strength=3, limit=1)
    score([spy], ["tiny"], layer="1", limit=1)
    assert taken == [("0", 3), ("1", 1)]


def test_time_is_per_row(sets, monkeypatch):
    ticks = iter([10.0, 10.5])
    monkeypatch.setattr(scoreboard, "perf_counter", lambda: next(ticks))
    assert score([picture], ["tiny"], limit=5)["ms_per_row"].item() == 100


def test_every_method_on_every_set(sets, monkeypatch):
    monkeypatch.setattr(scoreboard, "SETS", {"tiny": tiny, "twin": tiny})
    table = score([picture, "saliency"], ["tiny", "twin"], limit=1)
    assert table["method"].tolist() == ["picture", "saliency"] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"methods": ["salience"]}, ValueError, "there is saliency"),
        ({"methods": []}, ValueError, "at least one"),
        ({"datasets": ["tini"]}, ValueError, "no known-answer set 'tini'; there is tiny"),
        ({"datasets": ["mosaics"]}, ValueError, "there is tiny"),
        ({"limit": 0}, ValueError, "limit must be at least 1"),
        ({"limit": 2.5}, TypeError, "limit"),
        ({"n_sample": 3}, TypeError, "none of the methods takes 'n_sample'"),
        ({"methods": {"lost": lambda m, x, t: None}}, TypeError, "lost must return a Tensor"),
        ({"methods": {"one": lambda m, x, t: x[:1]}}, ValueError, "one must give one map per row"),
        ({"methods": {"nan": lambda m, x, t: x / 0}}, ValueError, "NaN"),
    ],
)
def test_what_is_refused(sets, arguments, error, words):
    with pytest.raises(error, match=words):
        score(**{"methods": [picture], "datasets": ["tiny"], **arguments})


# --- the running board


def line(method, dataset="tiny", mass=0.5):
    return pd.DataFrame([[method, dataset, 1.0, mass, 0.25, 0.1, 7, 1.5]], columns=COLUMNS)


def test_an_empty_board():
    assert standings().empty
    assert list(standings().columns) == COLUMNS


def test_what_is_recorded_stands(own_home):
    table = pd.concat([line("a"), line("b", mass=1 / 3)], ignore_index=True)
    pd.testing.assert_frame_equal(record(table), table)
    pd.testing.assert_frame_equal(standings(), table)
    assert [path.name for path in own_home.iterdir()] == ["scoreboard.csv"]


def test_the_board_lies_at_home_where_nothing_else_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("XAILAB_SCOREBOARD")
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path))
    record(line("a"))
    assert (tmp_path / "scoreboard.csv").exists()


def test_a_newer_score_replaces_the_older_one():
    record(line("a", mass=0.1))
    record(line("a", "twin", mass=0.2))
    record(line("b", mass=0.3))
    record(line("a", mass=0.9))
    board = standings().set_index(["method", "dataset"])["mass"]
    assert board.to_dict() == {("a", "twin"): 0.2, ("b", "tiny"): 0.3, ("a", "tiny"): 0.9}


def test_a_real_table_can_be_recorded(sets):
    table = score([picture], ["tiny"])
    pd.testing.assert_frame_equal(record(table), standings())
    assert standings()["mass"].item() == table["mass"].item()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\x00\xff\xfe rubbish",
        b"method,dataset\na,b\n",
        b"a,b\n1,2,3\n4\n",
        (",".join(COLUMNS) + "\na,tiny,x,x,x,x,x,x\n").encode(),
        (",".join(COLUMNS) + "\na,tiny,1,0.5,0.2,0.1,7,fast\n").encode(),
        (",".join(COLUMNS) + "\na,tiny,1.0,0.5\n").encode(),  # cut off
        ",".join(COLUMNS).encode(),
    ],
)
def test_a_damaged_file_is_an_empty_board(own_home, content):
    (own_home / "scoreboard.csv").write_bytes(content)
    assert standings().empty
    assert list(standings().columns) == COLUMNS
    record(line("a"))
    assert standings()["method"].tolist() == ["a"]


def test_a_cut_while_writing_leaves_the_old_board(own_home, monkeypatch):
    record(line("a"))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            record(line("b"))
    assert standings()["method"].tolist() == ["a"]
    assert len(list(own_home.iterdir())) == 1


def test_another_table_is_refused():
    with pytest.raises(ValueError, match=r"has the columns.*got"):
        record(line("a").drop(columns="mass"))
    assert standings().empty


# --- the real sets


@pytest.fixture(scope="module")
def digits():
    return scoreboard.marked_digits_known_answer()


def test_the_mark_decides_about_every_row_of_marked_digits(digits):
    with torch.no_grad():
        shown = digits.model(digits.x).argmax(1)
        bare = digits.model(digits.x * ~digits.truth[:, None]).argmax(1)
    assert (shown == digits.target).all()
    assert (bare != digits.target).all()
    assert digits.truth.flatten(1).sum(1).unique().tolist() == [16]
    assert len(digits.x) == len(digits.target) == len(digits.truth) > 100


def test_an_oracle_scores_one_and_a_constant_scores_chance(digits, monkeypatch):
    monkeypatch.setattr(scoreboard, "SETS", {"marked_digits": lambda: digits})
    places = {x.numpy().tobytes(): mask for x, mask in zip(digits.x, digits.truth, strict=True)}

    def oracle(model, x, target):
        return torch.stack([places[one.numpy().tobytes()] for one in x])[:, None].float()

    def constant(model, x, target):
        return torch.ones_like(x)

    table = score([oracle, constant], ["marked_digits"], limit=12).set_index("method")
    for measure in ("pointing", "mass", "rank"):
        assert table.loc["oracle", measure] == 1
        assert table.loc["constant", measure] == pytest.approx(16 / 784)
    assert table["chance"].tolist() == pytest.approx([16 / 784] * 2)


def test_a_method_that_works_beats_chance_on_real_digits(digits, monkeypatch):
    monkeypatch.setattr(scoreboard, "SETS", {"marked_digits": lambda: digits})
    found = score(["input_x_gradient", "grad_cam"], ["marked_digits"], limit=20)
    found = found.set_index("method")
    assert found.loc["input_x_gradient", "mass"] > 5 * 16 / 784
    assert found.loc["grad_cam", "mass"] > 16 / 784  # its maps are 7 x 7: the mark is one cell


@pytest.fixture(scope="module")
def tones():
    return scoreboard.tones_known_answer()


def test_the_note_decides_about_every_clip_of_tones(tones):
    with torch.no_grad():
        heard = tones.model(tones.x).argmax(1)
        silenced = tones.model(tones.x * ~tones.truth[:, None]).argmax(1)
    assert (heard == tones.target).all()
    assert (silenced != tones.target).all()
    assert tones.x.shape == (len(tones.target), 1, 64, 64)
    assert tones.truth.shape == (len(tones.target), 64, 64)
    assert tones.target.bincount(minlength=4).min() > 10  # every class is still asked about
    assert len(tones.x) > 100


def test_tones_score_an_oracle_a_constant_and_a_method_that_works(tones):
    places = {x.numpy().tobytes(): mask for x, mask in zip(tones.x, tones.truth, strict=True)}

    def oracle(model, x, target):
        return torch.stack([places[one.numpy().tobytes()] for one in x])[:, None].float()

    def constant(model, x, target):
        return torch.ones_like(x)

    methods = [oracle, constant, "input_x_gradient", "layer_cam", "grad_cam"]
    table = score(methods, "tones", limit=12).set_index("method")
    chance = tones.truth[:12].double().mean().item()
    for measure in ("pointing", "mass", "rank"):
        assert table.loc["oracle", measure] == 1
        assert table.loc["constant", measure] == pytest.approx(chance)
    assert table["chance"].tolist() == pytest.approx([chance] * 5)
    assert (table.loc[["input_x_gradient", "layer_cam"], "mass"] > 5 * chance).all()
    # Lesson `sequences_and_sound`: one weight a map, all places alike.
    assert table.loc["grad_cam", "mass"] < chance


def test_the_network_for_tones_is_trained_once(tones):
    assert scoreboard.SETS["tones"]() is tones
