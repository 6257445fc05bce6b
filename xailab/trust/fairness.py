"""Does the model treat groups of people alike: measuring it, and three ways of mending it.

Lesson `fairness` teaches these files: measures are in fairness_measures.py, ways of mending in
fairness_mending.py, and what both ask of labels and groups in groups.py.
"""

from xailab.trust.fairness_measures import (
    CostCurve,
    Interval,
    calibration_table,
    cost_curve,
    demographic_parity_difference,
    difference_table,
    equal_opportunity_difference,
    equalized_odds_difference,
    forced_fpr,
    group_table,
    wilson_interval,
)
from xailab.trust.fairness_mending import (
    Constraint,
    FairThresholds,
    Lottery,
    fair_thresholds,
    fairness_penalty,
    reweigh,
)
from xailab.trust.groups import Groups, Labels, Numbers

__all__ = [
    "Constraint",
    "CostCurve",
    "FairThresholds",
    "Groups",
    "Interval",
    "Labels",
    "Lottery",
    "Numbers",
    "calibration_table",
    "cost_curve",
    "demographic_parity_difference",
    "difference_table",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "fair_thresholds",
    "fairness_penalty",
    "forced_fpr",
    "group_table",
    "reweigh",
    "wilson_interval",
]
