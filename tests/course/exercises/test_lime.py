"""Checks of `lime`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import Ridge

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.attribution.lime import lime_fit, lime_weights
from xailab.core import predictor
from xailab.course.registry import exercises_of, find_exercise

LESSON = "lime"


def by_ridge(weigh=lime_weights, alpha=1.0, **options):
    """LIME by scikit-learn, with one step replaced."""

    def answer(samples, scores, width):
        ridge = Ridge(alpha=alpha, **options)
        return ridge.fit(samples, scores, sample_weight=weigh(samples, width)).coef_

    return answer


def distance(samples):
    return 1 - np.sqrt(samples.mean(1))


def penalized_intercept(samples, scores, width):
    columns = np.column_stack([np.ones(len(samples)), samples])
    weighted = columns.T * lime_weights(samples, width)
    return np.linalg.solve(weighted @ columns + np.eye(columns.shape[1]), weighted @ scores)[1:]


def with_intercept(samples, scores, width):
    fit = lime_fit(samples, scores, lime_weights(samples, width))
    return np.array([fit.intercept, *fit.coefficients])


def in_place(samples, scores, width):
    right = by_ridge()(samples, scores, width)
    samples -= samples.mean(0)
    return right


def test_core_takes_the_model_answer_and_other_ways():
    assert_accepted("lime.core", solution_of(LESSON, "lime_core"))
    assert_accepted("lime.core", by_ridge())
    assert_accepted("lime.core", lambda z, y, w: lime_fit(z, y, lime_weights(z, w)).coefficients)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (by_ridge(lambda z, w: lime_weights(z, w) ** 2), "weight squared"),
        (by_ridge(lambda z, w: None), "no weights"),
        (by_ridge(alpha=0.0), "penalty is missing"),
        (by_ridge(fit_intercept=False), "no intercept"),
        (penalized_intercept, "penalized too"),
        (by_ridge(lambda z, w: np.exp(-(distance(z) ** 2) / w / 2)), "width is not squared"),
        (by_ridge(lambda z, w: np.exp(-distance(z) / w**2 / 2)), "distance is not squared"),
        (by_ridge(lambda z, w: distance(z)), "weight is the distance"),
        (by_ridge(lambda z, w: lime_weights(z, 0.25)), "use kernel_width"),
        (by_ridge(lambda z, w: np.exp(-((1 - z.mean(1)) ** 2) / w**2 / 2)), "share of hidden"),
        (with_intercept, "leave the intercept out"),
        (in_place, "changed its arguments"),
        (lambda z, y, w: None, "None"),
    ],
)
def test_core_names_the_mistake(wrong, match):
    assert_rejected("lime.core", wrong, match)


def predict_by(gray, finish):
    """An answer to the debug exercise with one step replaced."""

    def answer(network, pictures):
        with torch.no_grad():
            return finish(network(gray(pictures)))

    return answer


def one_channel(pictures):
    return torch.tensor(pictures).float()[..., :1].permute(0, 3, 1, 2)


def shares(logits):
    return torch.softmax(logits, 1).numpy()


def test_debug_takes_the_model_answer_and_another_way():
    assert_accepted("lime.debug", solution_of(LESSON, "predict_rgb"))
    assert_accepted("lime.debug", predict_by(one_channel, shares))
    assert_accepted(
        "lime.debug", lambda net, p: softmax(predictor(net)(p[..., 0][:, None]), axis=1)
    )


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (predict_by(one_channel, lambda y: y.numpy()), "these are logits"),
        (predict_by(one_channel, lambda y: y.softmax(1)), "a tensor came back"),
        (predict_by(one_channel, lambda y: y.softmax(0).numpy()), "over the pictures"),
        (predict_by(one_channel, lambda y: y.log_softmax(1).numpy()), "log-probabilities"),
        (predict_by(one_channel, lambda y: y.sigmoid().numpy()), "sigmoid"),
        (predict_by(lambda p: p, shares), "got an array"),
        (predict_by(lambda p: torch.tensor(p).float(), shares), r"got \(3, 4, 6, 3\)"),
        (predict_by(lambda p: one_channel(p).expand(-1, 3, -1, -1), shares), r"got \(3, 3, 4, 6\)"),
        (predict_by(lambda p: one_channel(p).double(), shares), "float64"),
        (predict_by(one_channel, lambda y: y.softmax(1).numpy()[:, 1]), "shape"),
        (predict_by(lambda p: one_channel(p) * 3, shares), "added up"),
        (predict_by(lambda p: one_channel(p) / 255, shares), "divide them by 255"),
    ],
)
def test_debug_names_the_mistake(wrong, match):
    assert_rejected("lime.debug", wrong, match)


def test_debug_needs_no_grad_as_a_real_network_does():
    with pytest.raises(RuntimeError, match="requires grad"):
        find_exercise("lime.debug").check(lambda net, p: net(one_channel(p)).softmax(1).numpy())


def test_guesses_are_numbers_in_range():
    for guess in (-1, 0.3, 1):
        assert_accepted("lime.seeds", guess)
    assert_rejected("lime.seeds", 30, "-1")
    assert_rejected("lime.seeds", "much", "number")


def test_every_exercise_of_the_lesson_is_here():
    assert {exercise.id for exercise in exercises_of("lime")} == {
        "lime.core",
        "lime.debug",
        "lime.report",
        "lime.seeds",
    }
    assert all(find_exercise(e.id).hints for e in exercises_of("lime"))
