"""Loaders of the tables: features, answers, column names."""

import io
import json
from collections.abc import Callable

import numpy as np
import pandas as pd

from xailab.data.archives import read_members
from xailab.data.dataset import Dataset
from xailab.data.installed import inside

_GERMAN = [
    "status",
    "duration",
    "credit_history",
    "purpose",
    "credit_amount",
    "savings",
    "present_employment",
    "installment_rate",
    "status_sex",
    "other_debtors",
    "present_residence_since",
    "property",
    "age",
    "installment_plans",
    "housing",
    "number_of_existing_credits",
    "job",
    "number_of_people_liable_for",
    "telephone",
    "foreign_worker",
    "credit",
]
_ADULT = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
]
# What the study needs. Names, birth dates, case numbers and the dates of arrests and jail stays
# are not listed, so they are never read into memory as columns.
_COMPAS = [
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
_COMPAS_SCORE = ["decile_score", "score_text"]


def _sklearn(name: str, target: str) -> Dataset:
    """Load one of scikit-learn's numeric tables with class labels."""
    from sklearn import datasets

    raw = getattr(datasets, f"load_{name}")()
    return Dataset(
        name=name,
        X=raw.data.astype(np.float64),
        y=raw.target.astype(np.int64),
        names=[str(column) for column in raw.feature_names],
        classes=[str(label) for label in raw.target_names],
        target=target,
    )


def breast_cancer() -> Dataset:
    """Load 569 tumors described by 30 measurements of cell nuclei; y: 0 malignant, 1 benign."""
    return _sklearn("breast_cancer", "0 malignant, 1 benign")


def wine() -> Dataset:
    """Load 178 wines described by 13 chemical measurements; y: the grower."""
    return _sklearn("wine", "the grower, 0 to 2")


def iris() -> Dataset:
    """Load 150 irises described by 4 lengths in cm; y: the species."""
    return _sklearn("iris", "the species, 0 to 2")


def diabetes() -> Dataset:
    """Load 442 patients in raw units (years, kg/m^2, mmHg, ...); y: progression after a year."""
    from sklearn.datasets import load_diabetes

    raw = load_diabetes(scaled=False)  # readable units; scikit-learn's default has none
    return Dataset(
        name="diabetes",
        X=raw.data.astype(np.float64),
        y=raw.target.astype(np.float64),
        names=list(raw.feature_names),
        target="disease progression one year later, no unit, 25 to 346",
    )


def arrests() -> Dataset:
    """Load 5,226 arrests for possession of marijuana in Toronto; y: 1 if released."""
    frame = pd.read_csv(inside("sklego", "data/arrests.zip", package="scikit-lego"))
    y = (frame.pop("released") == "Yes").to_numpy(np.int64)
    return _table("arrests", frame, y, ["held", "released"], "1 if released with a summons")


def hearts() -> Dataset:
    """Load 303 patients of the Cleveland heart study; y: 1 if the disease is recorded."""
    frame = pd.read_csv(inside("sklego", "data/hearts.zip", package="scikit-lego"))
    y = frame.pop("target").to_numpy(np.int64)
    return _table("hearts", frame, y, ["no disease", "disease"], "1 if the disease is recorded")


def german() -> Dataset:
    """Load 1,000 German credits with readable values; y: 1 if the credit was good."""
    files = {path.rsplit("/", 1)[1]: content for path, content in read_members("german").items()}
    frame = pd.read_csv(io.BytesIO(files["german.data"]), sep=" ", names=_GERMAN, header=None)
    y = (frame.pop("credit") == 1).to_numpy(np.int64)
    for column, meaning in json.loads(files["values_maps.json"]).items():
        if column in frame:
            clean = {k: v.strip() if isinstance(v, str) else v for k, v in meaning.items()}
            frame[column] = frame[column].map(clean)
    return _table("german", frame, y, ["bad", "good"], "1 if the credit was good, 0 if bad")


def adult() -> Dataset:
    """Load 48,842 people of the 1994 US census; y: 1 if they earn more than 50,000 dollars.

    `.extra["train"]` marks the 32,561 rows of the official training part. The sampling weight
    `fnlwgt` is no trait of the person and is dropped; "?" is NaN.
    """
    files = read_members("adult")
    parts = [_adult_part(files[path]) for path in sorted(files)]  # adult.data, then adult.test
    frame = pd.concat(parts, ignore_index=True)
    y = frame.pop("income").str.startswith(">").to_numpy(np.int64)
    train = {"train": np.arange(len(frame)) < len(parts[0])}
    target = "1 if income is above 50,000 dollars"
    return _table("adult", frame, y, ["<=50K", ">50K"], target, train)


def _adult_part(content: bytes) -> pd.DataFrame:
    frame = pd.read_csv(
        io.BytesIO(content),
        names=_ADULT,
        skipinitialspace=True,
        na_values="?",
        comment="|",  # the test part begins with a remark
    )
    return frame.drop(columns="fnlwgt")


def compas() -> Dataset:
    """Load 7,214 defendants scored by COMPAS, without anything that names them.

    y: 1 if charged again within two years. COMPAS's own verdict is under audit, not a feature:
    `.extra["decile_score"]` (1 to 10) and `.extra["score_text"]` ("Low", "Medium", "High").
    """
    (content,) = read_members("compas").values()
    columns = [*_COMPAS, *_COMPAS_SCORE, "two_year_recid"]
    frame = pd.read_csv(io.BytesIO(content), usecols=columns)[columns]
    y = frame.pop("two_year_recid").to_numpy(np.int64)
    score = {column: frame.pop(column).to_numpy() for column in _COMPAS_SCORE}
    target = "1 if charged again within two years"
    return _table("compas", frame, y, ["not charged", "charged again"], target, score)


def _table(
    name: str,
    frame: pd.DataFrame,
    y: np.ndarray,
    classes: list[str],
    target: str,
    extra: dict[str, np.ndarray] | None = None,
) -> Dataset:
    names = list(frame.columns)
    return Dataset(
        name=name, X=frame, y=y, names=names, classes=classes, target=target, extra=extra or {}
    )


LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader
    for loader in (breast_cancer, wine, iris, diabetes, arrests, hearts, german, adult, compas)
}
