"""Columns whose row labels disagree with their positions."""

import numpy as np
import pandas as pd
import pytest

from xailab.trust.alignment import check_alignment


def test_the_same_labels_in_another_order_are_refused() -> None:
    y, pred = pd.Series([1, 0], index=["a", "b"]), pd.Series([1, 0], index=["b", "a"])
    with pytest.raises(ValueError, match="pred has the row labels of y in another order"):
        check_alignment(y=y, pred=pred)
    with pytest.raises(ValueError, match="table has the row labels of y"):
        check_alignment(y=y, other=[1, 2], table=pred.to_frame())


def test_position_decides_where_labels_say_nothing() -> None:
    y = pd.Series([1, 0], index=["a", "b"])
    for other in (pd.Series([1, 0]), y, [0, 1], np.array([0, 1]), pd.Series([1], index=["b"])):
        check_alignment(y=y, other=other)
    check_alignment()
