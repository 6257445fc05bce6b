import io

import numpy as np
import pandas as pd
import pytest

from xailab.data import load, tables
from xailab.data.archives import read_members

NUMERIC = ["breast_cancer", "wine", "iris", "diabetes"]
MIXED = ["arrests", "hearts", "german", "adult", "compas"]


@pytest.mark.parametrize("name", NUMERIC)
def test_numeric_tables_are_float64_arrays(name):
    data = load(name)
    assert isinstance(data.X, np.ndarray)
    assert data.X.dtype == np.float64
    assert data.X.shape == (len(data.y), len(data.names))
    assert np.isfinite(data.X).all()


@pytest.mark.parametrize("name", MIXED)
def test_mixed_tables_are_frames_without_the_answer(name):
    data = load(name)
    assert isinstance(data.X, pd.DataFrame)
    assert list(data.X.columns) == data.names
    assert data.y.dtype == np.int64
    assert set(data.y) == {0, 1}
    for column in data.X.select_dtypes("number"):
        assert abs(np.corrcoef(data.X[column].fillna(0), data.y)[0, 1]) < 0.9


def test_arrests_equal_what_scikit_lego_itself_loads():
    from sklego.datasets import load_arrests

    theirs = load_arrests(as_frame=True)
    data = load("arrests")
    pd.testing.assert_frame_equal(data.X, theirs[data.names])
    released = data.y[(data.X.colour == "Black").to_numpy()].mean()
    assert round(released, 2) == 0.74
    assert round(data.y[(data.X.colour == "White").to_numpy()].mean(), 2) == 0.86


def test_hearts_equal_what_scikit_lego_itself_loads():
    from sklego.datasets import load_hearts

    theirs = load_hearts(as_frame=True)
    data = load("hearts")
    pd.testing.assert_frame_equal(data.X, theirs[data.names])
    assert data.y.sum() == 83


def test_diabetes_is_in_raw_units():
    data = load("diabetes")
    assert 19 <= data.X[:, data.names.index("age")].min() < 25
    assert (data.y.min(), data.y.max()) == (25, 346)


def test_german_is_readable():
    data = load("german")
    first = data.X.iloc[0]
    assert (first.duration, first.credit_amount, first.age) == (6, 1169, 67)
    assert first.purpose == "radio/television"
    assert first.status == "... < 0 DM"
    assert not data.X.isna().any().any()  # a code without a translation would be NaN
    assert data.y.mean() == 0.7


def test_adult_has_the_official_split_and_no_sampling_weight():
    data = load("adult")
    assert data.extra["train"].sum() == 32561
    assert "fnlwgt" not in data.names
    assert data.X.iloc[0].tolist()[:3] == [39, "State-gov", "Bachelors"]
    test = data.take(~data.extra["train"])
    assert test.X.iloc[0].age == 25
    assert data.X.workclass.isna().sum() == 2799
    assert round(data.y.mean(), 4) == 0.2393


def test_compas_names_nobody():
    data = load("compas")
    assert data.names == [
        "sex",
        "age",
        "age_cat",
        "race",
        "juv_fel_count",
        "juv_misd_count",
        "juv_other_count",
        "priors_count",
        "c_charge_degree",
        "days_b_screening_arrest",
    ]
    assert set(data.extra) == {"decile_score", "score_text"}
    cells = {str(cell) for column in data.X for cell in data.X[column].unique()}
    assert not any("miguel" in cell.lower() or "-04-18" in cell for cell in cells)


def test_compas_never_reads_a_name_or_a_birth_date(monkeypatch):
    """The file has them, but no frame that the loader makes has such a column or cell."""
    (content,) = read_members("compas").values()
    personal = ["name", "first", "last", "dob", "c_case_number", "r_case_number", "c_jail_in"]
    private = pd.read_csv(io.BytesIO(content), usecols=personal)
    assert bool(private.dob.notna().all())
    frames, read_csv = [], pd.read_csv

    def watched(*arguments, **options):
        frames.append(read_csv(*arguments, **options))
        return frames[-1].copy()

    monkeypatch.setattr(tables.pd, "read_csv", watched)
    data = load("compas")
    (frame,) = frames
    assert set(frame.columns) == {*data.names, *data.extra, "two_year_recid"}
    assert not set(frame.columns) & set(personal)
    secrets = private[["name", "dob", "c_case_number"]].to_numpy().ravel()
    secrets = secrets[pd.notna(secrets)].astype(str)
    seen = np.isin(secrets, frame.to_numpy().astype(str)).sum()
    assert seen == 0  # a count: a failure shall not print a name either


def test_compas_keeps_the_score_beside_its_row():
    data = load("compas")
    first = data.take([0])
    assert (first.X.iloc[0].age, first.X.iloc[0].race) == (69, "Other")
    assert (first.extra["decile_score"][0], first.extra["score_text"][0]) == (1, "Low")
    assert round(data.y.mean(), 3) == 0.451
