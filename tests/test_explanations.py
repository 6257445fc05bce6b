"""The comparer: same model, same input, same target, or it refuses."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import xailab
from tests.snapshots import Snapshot
from tests.toys import inputs, linear, toy
from xailab import plots
from xailab.attribution.shapley import kernel_shap, tree_shap
from xailab.core import capture, frozen
from xailab.core.registry import METHODS
from xailab.core.subjects import subject
from xailab.models import digit_vit

NET = linear([[1.0, 2.0], [-3.0, 5.0]])
X = torch.tensor([[1.0, 1.0], [2.0, 0.0]])  # outputs [[3, 2], [2, -6]]


def explain(model=NET, x=X, target=1, methods=("saliency",), **options):
    return xailab.explain(model, x, target, methods=methods, **options)


def test_methods_are_listed_by_name():
    assert xailab.methods() == sorted(xailab.methods())
    assert {"saliency", "grad_cam", "smoothgrad"} <= set(xailab.methods())


def test_by_hand():
    found = explain(methods=["saliency", "input_x_gradient"])
    assert found["saliency"].tolist() == [[-3.0, 5.0], [-3.0, 5.0]]
    assert found["input_x_gradient"].tolist() == [[-3.0, 5.0], [-6.0, 0.0]]
    assert found.scores.tolist() == [2.0, -6.0]
    assert found.names == ["saliency", "input_x_gradient"]
    assert len(found) == 2
    assert [one.name for one in found] == found.names
    with pytest.raises(KeyError, match="no method 'grad_cam' here; there is saliency, input_x"):
        found["grad_cam"]


def test_the_usual_methods_where_there_are_maps_and_where_not():
    assert explain(methods=None).names == ["saliency", "input_x_gradient", "smoothgrad"]
    found = xailab.explain(toy(), inputs(), 1)
    assert found.names == ["saliency", "input_x_gradient", "smoothgrad", "grad_cam"]
    assert found["grad_cam"].shape == (3, 1, 8, 8)


def test_the_layer_is_the_last_one_with_maps_unless_named():
    model, x = toy(), inputs()
    wanted = xailab.attribution.cam.grad_cam
    for options in ({}, {"layer": None}, {"layer": "relu2"}):
        found = explain(model, x, methods=["grad_cam"], **options)
        assert torch.equal(found["grad_cam"], wanted(model, x, 1, layer="relu2"))
    early = explain(model, x, methods=["grad_cam"], layer="relu1")["grad_cam"]
    assert torch.equal(early, wanted(model, x, 1, layer="relu1"))
    assert not torch.equal(early, found["grad_cam"])


def test_options_go_to_those_who_know_them():
    taken = []

    def mine(model, x, target, *, seed=0, strength=1):
        taken.append((seed, strength))
        return x

    x = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    found = explain(x=x, methods=[mine, "saliency", "smoothgrad"], seed=3, n_samples=2)
    assert taken == [(3, 1)]
    assert [one.rows for one in found] == [0, 2, 4]


def test_an_option_that_nobody_takes_is_refused():
    with pytest.raises(TypeError, match=r"none of the methods takes 'n_sample'; .*n_samples"):
        explain(methods=["saliency", "smoothgrad"], n_sample=3)
    with pytest.raises(TypeError, match="'n_samples'"):  # smoothgrad would, but is not asked
        explain(n_samples=3)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"target": 2}, ValueError, r"0\.\.1, got 2"),
        ({"target": None}, ValueError, "2 outputs"),
        ({"target": "cat"}, TypeError, "str"),
        ({"x": X.double()}, TypeError, "float64"),
        ({"x": X * float("nan")}, ValueError, "NaN"),
        ({"x": torch.ones(1, 3)}, ValueError, "refuses x of shape"),
        ({"methods": []}, ValueError, "at least one method"),
        ({"methods": ["grad_cma"]}, ValueError, "there is grad_cam"),
        ({"methods": ["grad_cam"]}, ValueError, "say layer="),  # the net has no maps
        ({"methods": {"lost": lambda m, x, t: None}}, TypeError, "lost must return a Tensor"),
    ],
)
def test_what_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        explain(**arguments)


# --- what each method cost


@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("saliency", {}, 3),
        ("guided_backprop", {}, 3),
        ("grad_cam", {}, 3),
        ("smoothgrad", {"n_samples": 5}, 15),
    ],
)
def test_rows_that_went_forward_are_counted(name, options, rows):
    (one,) = explain(toy(), inputs(), 1, [name], **options)
    assert one.rows == rows


def test_equal_rows_are_counted_once():
    model, x = toy(), inputs()
    with frozen(model), capture(model, "relu2") as kept, torch.no_grad():
        model(x)
    unequal = sum(len(maps.unique(dim=0)) for maps in kept["relu2"])
    assert unequal < 15  # some of the five maps are all zero
    (one,) = explain(model, x, 1, ["score_cam"])
    assert one.rows == 3 + unequal  # as they are, and seen through each map


def test_rows_given_by_name_are_counted_and_those_of_functions_are_not():
    class Named(nn.Linear):
        def forward(self, input):
            return super().forward(input)

    def by_name(model, x, target):
        model(input=x)
        return x

    assert next(iter(explain(Named(2, 2), methods=[by_name]))).rows == 2
    assert next(iter(explain(lambda x: x * 2))).rows == 0


def test_time_is_measured(monkeypatch):
    ticks = iter([1.0, 3.5])
    monkeypatch.setattr("xailab.explanations.door.perf_counter", lambda: next(ticks))
    (one,) = explain()
    assert one.seconds == 2.5


# --- completeness


def test_the_gap_by_hand():
    """relu(x0 - 1) at 3: the score rises by 2, the left end of the path sees half of the slope."""
    bent = nn.Sequential(linear([[1.0, 0.0]], [-1.0]), nn.ReLU())
    x = torch.tensor([[3.0, 0.0]])
    with pytest.warns(UserWarning, match="misses"):
        (one,) = explain(bent, x, 0, ["integrated_gradients"], n_steps=2, rule="left")
    assert one.attribution.tolist() == [[1.5, 0.0]]
    assert one.gap.tolist() == [-0.5]


def test_only_methods_that_promise_a_sum_have_a_gap():
    names = ["saliency", "input_x_gradient", "deep_lift", "shapley_values", "feature_ablation"]
    found = explain(methods=names)
    gaps = found.table()["completeness gap"]
    assert gaps.isna().tolist() == [True, True, False, False, True]
    assert gaps[["deep_lift", "shapley_values"]].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert found.table().index.tolist() == found.names


def test_a_group_counts_once_in_a_sum():
    """Two groups of two numbers: every number carries its group's value."""
    x, mask = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[0, 0, 1, 1]])
    total = linear([[1.0, 1.0, 1.0, 1.0]])
    (one,) = explain(total, x, 0, ["shapley_values"], feature_mask=mask)
    assert one.attribution.tolist() == [[3.0, 3.0, 7.0, 7.0]]
    assert one.gap.tolist() == [0.0]


def test_the_gap_to_a_background_is_to_its_mean():
    background = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    for name in ("deep_shap", "kernel_shap", "permutation_shap"):
        (one,) = explain(methods=[name], target=[0, 1], background=background)
        assert one.gap.tolist() == pytest.approx([0, 0], abs=1e-5)


# --- nothing may change under way


def changes_weights(model, x, target):
    with torch.no_grad():
        model.weight += 1
    return x


def changes_a_hidden_buffer(model, x, target):
    model.hidden += 1
    return x


def changes_x(model, x, target):
    x += 1
    return x.clone()


@pytest.mark.parametrize("method", [changes_weights, changes_a_hidden_buffer, changes_x])
def test_a_method_that_changes_something_is_refused(method):
    model = linear([[1.0, 2.0], [-3.0, 5.0]])
    model.register_buffer("hidden", torch.zeros(1), persistent=False)
    with pytest.raises(RuntimeError, match=f"{method.__name__} changed the model or the input"):
        explain(model, X.clone(), 1, ["saliency", method])


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_nothing_is_left_behind(error):
    def fails(model, x, target):
        raise error

    model, x = toy(), inputs()
    before = Snapshot(model, x)
    if error is None:
        found = explain(model, x, 1, ["saliency", "guided_backprop", "grad_cam", "smoothgrad"])
        found.plot()
        found.describe()
    else:
        with pytest.raises(error):
            explain(model, x, 1, ["saliency", fails])
    before.check()


def test_x_may_change_afterwards():
    x = X.clone()
    found = explain(x=x)
    x += 1
    assert torch.equal(found.x, X)


def test_a_plain_function_is_a_model():
    found = explain(lambda x: (x**2) @ torch.tensor([[1.0, 0.0], [0.0, 3.0]]), methods=None)
    assert found.names == ["saliency", "input_x_gradient", "smoothgrad"]
    assert found["saliency"].tolist() == [[0.0, 6.0], [0.0, 0.0]]


def test_arrays_and_graphs_of_own_methods_are_taken():
    def array(model, x, target):
        return x.numpy() * 2

    def graph(model, x, target):
        return x.clone().requires_grad_() * 2

    found = explain(methods=[array, graph])
    assert torch.equal(found["array"], X * 2)
    assert not found["graph"].requires_grad


# --- joining


def test_two_that_explain_the_same_can_be_joined():
    both = explain() + explain(methods=["input_x_gradient"])
    assert both.names == ["saliency", "input_x_gradient"]
    assert both["input_x_gradient"].tolist() == [[-3.0, 5.0], [-6.0, 0.0]]
    assert (both + explain(methods=["smoothgrad"])).names[-1] == "smoothgrad"


@pytest.mark.parametrize("target", [torch.tensor([1, 1]), np.int64(1), [1, 1]])
def test_the_same_target_in_another_form_can_be_joined(target):
    assert len(explain() + explain(target=target, methods=["input_x_gradient"])) == 2


def test_a_single_output_has_two_names():
    net = linear([[1.0, 2.0]])
    assert len(explain(net, target=None) + explain(net, target=0, methods=["smoothgrad"])) == 2


def other(model):
    return explain(model=model, methods=["input_x_gradient"])


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (lambda: explain(), "both hold saliency"),
        (lambda: other(linear([[1.0, 2.0], [-3.0, 5.0]])), "different models"),  # equal weights
        (lambda: explain(x=X + 1, methods=["smoothgrad"]), "different inputs"),
        (lambda: explain(x=X[:1], methods=["smoothgrad"]), "different inputs"),
        (lambda: explain(target=0, methods=["smoothgrad"]), "different targets: 1 and 0"),
        (lambda: explain(target=[1, 0], methods=["smoothgrad"]), "different targets"),
    ],
)
def test_unlike_ones_are_not_joined(second, words):
    with pytest.raises(ValueError, match=words):
        explain() + second()


def test_targets_of_equal_scores_are_still_different():
    twins = linear([[1.0, 2.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="different targets: 0 and 1"):
        explain(twins, target=0) + explain(twins, target=1, methods=["smoothgrad"])


def test_a_model_that_was_trained_in_between_is_another():
    model = linear([[1.0, 2.0], [-3.0, 5.0]])
    first = explain(model)
    with torch.no_grad():
        model.weight += 1
    with pytest.raises(ValueError, match="different models"):
        first + explain(model, methods=["smoothgrad"])


# --- words and pictures


@pytest.mark.parametrize("target", [1, np.int64(1), torch.tensor(1), torch.tensor([0, 1]), [0, 1]])
def test_the_headline_names_target_and_score(target):
    assert (
        explain(target=target)
        .describe(row=1)
        .startswith("Evidence for output 1, which scores -6.00\n")
    )


def test_the_headline_of_a_single_output():
    words = explain(linear([[1.0, 2.0]]), target=None).describe()
    assert words.startswith("Evidence for the output, which scores 3.00")


def test_words_about_a_table():
    words = explain(methods=["saliency", "input_x_gradient"]).describe(row=1)
    lines = words.splitlines()
    assert len(lines) == 3
    assert "the largest is x[1] (5), the smallest x[0] (-3)" in lines[1]
    assert "the largest is x[1] (0), the smallest x[0] (-6)" in lines[2]
    assert "2 rows" in lines[1]


def test_words_about_images():
    model, x = toy(), inputs()
    found = explain(model, x, 1, ["saliency", "grad_cam"])
    lines = found.describe(row=2).splitlines()
    assert lines[0].startswith("Evidence for output 1")
    values = found["saliency"][2].sum(0)
    assert f"from {values.min():.3g} to {values.max():.3g}" in lines[1]
    assert "8 x 8" in lines[2]


def test_a_picture_of_a_table():
    picture = explain(methods=["saliency", "input_x_gradient"]).plot(row=1, title="Two of them")
    assert isinstance(picture, plots.Picture)
    assert "Two of them" in picture.alt
    assert "4 bars" in picture.alt
    assert f"the largest is {METHODS['saliency'].title}: x[1] (5)" in picture.alt


def test_a_picture_of_images():
    model, x = toy(), inputs()
    found = explain(model, x, 1, ["saliency", "grad_cam"])
    photo = np.zeros((8, 8, 3), dtype=np.uint8)
    for picture in (found.plot(), found.plot(over=photo, row=2)):
        assert isinstance(picture, plots.Picture)
        assert "output 1" in picture.alt
        assert picture.png().startswith(b"\x89PNG")
        assert len([axes for axes in picture.figure.axes if axes.images]) >= 2


# --- any model, any rows


def table_of_people():
    draw = np.random.default_rng(0)
    table = pd.DataFrame(draw.normal(size=(40, 3)), columns=["age", "income", "debt"])
    return table, (table.income - table.debt > 0).astype(int).to_numpy()


def test_a_forest_on_a_table_by_the_names_of_its_columns():
    table, y = table_of_people()
    forest = RandomForestClassifier(5, random_state=0).fit(table, y)
    found = xailab.explain(forest, table[:2], 1, background=table[:10])
    assert found.names == ["tree_shap", "kernel_shap", "lime_tabular", "feature_ablation"]
    want = kernel_shap(
        lambda rows: forest.predict_proba(pd.DataFrame(rows, columns=table.columns))[:, 1],
        table[:2].to_numpy(),
        table[:10].to_numpy(),
    )
    assert np.allclose(found["kernel_shap"], want)
    assert np.allclose(found["tree_shap"], want)
    assert found.table()["units"].unique().tolist() == ["probability"]
    assert found.table()["completeness gap"]["tree_shap"] < 1e-12
    assert "age" in found.describe()
    assert found.to_frame().index[:3].tolist() == [(0, "age"), (0, "income"), (0, "debt")]
    assert found.to_frame()["kernel_shap"].to_numpy() == pytest.approx(want.ravel())
    assert "feature ablation: debt" in found.plot().alt


def test_columns_in_another_order_are_refused_by_the_estimator():
    table, y = table_of_people()
    forest = RandomForestClassifier(5, random_state=0).fit(table, y)
    with pytest.raises(ValueError, match="order"):
        xailab.explain(forest, table[["debt", "age", "income"]][:1], 1, background=table)


def test_a_tree_is_read():
    table, y = table_of_people()
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(table.to_numpy(), y)
    rows = table[:7].to_numpy()
    found = xailab.explain(tree, table[:2], 1, methods=["tree_shap", "path_attribution"])
    assert np.allclose(found["tree_shap"], tree_shap(tree, rows[:2], target=1))
    assert (found.table()["completeness gap"] < 1e-12).all()
    found = xailab.explain(tree, table[:2], [1, 0], background=table[2:7])
    for row, target in enumerate([1, 0]):
        want = tree_shap(tree, rows[row], target=target, background=rows[2:])
        assert np.allclose(found["tree_shap"][row], want)


def test_boosting_is_explained_in_the_units_that_its_trees_add_up_in():
    table, y = table_of_people()
    boosting = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(table, y)
    found = xailab.explain(boosting, table[:1], 1, background=table[:5])
    units = found.table()["units"]
    assert units[["tree_shap", "kernel_shap"]].tolist() == ["log-odds", "probability"]
    change = boosting.decision_function(table[:1]) - boosting.decision_function(table[:5]).mean()
    assert found["tree_shap"].sum(1).numpy() == pytest.approx(change)
    assert "in log-odds): " in found.describe()
    assert "tree SHAP (log-odds): debt" in found.plot().alt


def test_a_function_of_arrays_that_are_channels_last():
    """The sum over a picture: each pixel that a window hides takes its own value away."""
    photo = np.random.default_rng(0).random((1, 6, 4, 3))
    found = xailab.explain(
        lambda rows: rows.sum((1, 2, 3)), photo, methods=["occlusion"], window=1, stride=1
    )
    assert found["occlusion"].shape == (1, 6, 4, 3)
    every = np.broadcast_to(photo.sum(3, keepdims=True), photo.shape)
    assert np.allclose(found["occlusion"], every)  # channels are covered together
    with pytest.raises(ValueError, match="channel_axis"):
        xailab.explain(lambda rows: rows.sum((1, 2, 3)), np.zeros((1, 3, 4, 3)))


def test_a_text_by_a_function_of_texts():
    good = lambda texts: np.array([float("good" in text) for text in texts])  # noqa: E731
    found = xailab.explain(good, ["a good film", "good"])
    assert found.names == ["lime_text"]
    frame = found.to_frame()["lime_text"]
    assert frame[(0, "good")] == pytest.approx(1, abs=0.05)
    assert frame[(1, "good")] == pytest.approx(1, abs=0.05)
    assert "good" in found.describe(1)


def test_what_fits_no_method_says_what_would():
    net = linear([[1.0, 2.0], [-3.0, 5.0]])
    table, y = table_of_people()
    forest = RandomForestClassifier(5, random_state=0).fit(table.to_numpy(), y)
    for model, x, name, words in (
        (net, X, "deep_shap", "background="),
        (net, X, "rise", "explains a picture"),
        (net, X, "tree_shap", "kernel_shap"),
        (forest, table[:1], "saliency", "occlusion, LIME or SHAP"),
        (forest, table[:1], "token_attributions", "explains a text"),
    ):
        with pytest.raises(ValueError, match=words):
            xailab.explain(model, x, 1, methods=[name])
    with pytest.raises(TypeError, match="column 'job' of x holds"):
        xailab.explain(forest, pd.DataFrame({"job": ["nurse"]}), 1)
    with pytest.raises(TypeError, match=r"nn\.Module, a Keras model"):
        xailab.explain("model", X, 1)


def test_a_subject_made_by_hand():
    of = subject(NET, X, names=["a", "b"])
    found = xailab.explain(of, target=1, methods=["saliency"])
    assert found["saliency"].tolist() == [[-3.0, 5.0], [-3.0, 5.0]]
    assert "a (-3)" in found.describe()
    with pytest.raises(TypeError, match="holds its rows already"):
        xailab.explain(of, X, 1)
    with pytest.raises(ValueError, match="3 names for 2 columns"):
        subject(NET, X, names=["a", "b", "c"])


def test_the_layer_is_said_everywhere():
    found = xailab.explain(toy(), inputs(), 1)
    assert found.table()["layer"].dropna().to_dict() == {"grad_cam": "relu2"}
    assert "Grad-CAM at relu2" in found.describe()
    assert "Grad-CAM at relu2" in found.plot().alt


def test_a_transformers_tokens_are_laid_out():
    vit, x = digit_vit(), torch.rand(1, 1, 28, 28)
    found = xailab.explain(vit, x, 3)
    assert found.table()["layer"].dropna().to_dict() == {
        "grad_cam": "encoder.blocks.2.norm1, 7 x 7 tokens"
    }


def test_a_network_without_maps_says_what_was_left_out():
    found = xailab.explain(NET, X, 1)
    assert "grad_cam" not in found.names
    with pytest.raises(KeyError, match=r"left out: .*layer="):
        found["grad_cam"]


def test_what_is_saved_can_be_read(tmp_path):
    found = xailab.explain(toy(), inputs(), 1, methods=["saliency", "grad_cam"])
    numbers = np.load(found.save(tmp_path / "why.npz"))
    assert np.array_equal(numbers["saliency"], found["saliency"].numpy())
    frame = pd.read_csv(found.save(tmp_path / "why.csv"))
    place = frame[(frame.row == 2) & (frame.feature == "1,4,5")]
    assert place.saliency.item() == pytest.approx(found["saliency"][2, 1, 4, 5].item())
    assert place.grad_cam.item() == pytest.approx(found["grad_cam"][2, 0, 4, 5].item())
    for kind, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        assert found.save(tmp_path / f"why{kind}").read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf, \.csv or \.npz"):
        found.save(tmp_path / "why.jpg")
    with pytest.raises(ValueError, match=r"row must lie in 0\.\.2, got 3"):
        found.plot(row=3)


def test_a_target_may_be_a_function():
    def contrast(outputs):
        return outputs[:, 1] - outputs[:, 0]

    found = xailab.explain(NET, X, contrast, methods=["saliency", "occlusion"], window=1)
    assert found["saliency"].tolist() == [[-4.0, 3.0], [-4.0, 3.0]]
    assert found["occlusion"].tolist() == [[-4.0, 3.0], [-8.0, 0.0]]
    assert found.describe().startswith("Evidence for the target contrast, which scores -1.00")
    with pytest.raises(ValueError, match=r"one number a row, got \(2, 2\)"):
        xailab.explain(NET, X, lambda outputs: outputs, methods=["saliency"])
