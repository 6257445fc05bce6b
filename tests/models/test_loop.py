"""The loop on paper, what it refuses, and one logit beside two."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xailab.models import loop
from xailab.models.loop import adam, batches, check_rows, class_loss, evaluate, order, train
from xailab.models.training import fit

X = torch.randn(65, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long() + (X[:, 0] > 1).long()
HOLE = X.clone()
HOLE[7, 2] = torch.nan
HOLE[9, 0] = torch.inf


def net(out=3, norm=False):
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(4) if norm else nn.Identity(), nn.Linear(4, out))


def fitted(model, x=X, y=Y, **options):
    return fit(model, (x, y), (x, y), epochs=2, **options)


# ---- steps


def test_every_step_is_one_of_the_optimizer_in_the_published_order():
    """Gradient descent on (w - x)^2, by hand: w -= rate * 2 * mean(w - x) for each batch."""
    weight, x, w = nn.Linear(1, 1, bias=False), torch.tensor([1.0, 2.0, 4.0, 8.0]), 0.5
    nn.init.constant_(weight.weight, w)

    def loss_of(rows):
        return (weight.weight[0, 0] - x[rows]).square().mean()

    sgd, epochs = torch.optim.SGD(weight.parameters(), 0.1), []
    losses = train(
        weight, 4, loss_of, optimizer=sgd, epochs=2, batch_size=2, seed=3, after_epoch=epochs.append
    )
    for epoch in range(2):
        total = 0.0
        for rows in order(4, seed=3, epoch=epoch).split(2):
            total += 2 * (w - x[rows]).square().mean().item()
            w -= 0.1 * 2 * (w - x[rows]).mean().item()
        assert losses[epoch] == pytest.approx(total / 4)
    assert weight.weight.item() == pytest.approx(w)
    assert epochs == [0, 1]


def test_a_schedule_steps_after_every_batch():
    model, x = nn.Linear(1, 1, bias=False), torch.ones(4, 1)
    sgd = torch.optim.SGD(model.parameters(), 1.0)
    halved = torch.optim.lr_scheduler.ExponentialLR(sgd, 0.5)
    start = model.weight.item()
    mean = loop.run_epoch(
        model, lambda rows: model(x[rows]).mean(), torch.arange(4).split(2), optimizer=sgd,
        schedule=halved,
    )  # fmt: skip
    assert model.weight.item() == pytest.approx(start - 1 - 0.5)  # the slope is 1
    assert mean == pytest.approx((start + start - 1) / 2)
    assert sgd.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [(65, 64, [65]), (5, 2, [2, 3]), (6, 2, [2, 2, 2]), (3, 1, [1, 1, 1]), (1, 4, [1])],
)
def test_no_batch_of_one_row_is_left_over(n, size, sizes):
    parts = batches(torch.arange(n), size)
    assert [len(part) for part in parts] == sizes
    assert torch.cat(parts).tolist() == list(range(n))


def test_a_batch_norm_learns_from_65_rows_in_batches_of_64_as_from_one_batch():
    ours, theirs = net(norm=True), net(norm=True).train()
    loss = fitted(ours).train_loss[0]
    rows = order(65, seed=0, epoch=0)
    assert loss == pytest.approx(F.cross_entropy(theirs(X[rows]), Y[rows]).item())


def test_the_model_ends_in_evaluation_mode_also_after_an_error():
    model = net().train()
    with pytest.raises(KeyError):
        train(model, 4, lambda rows: {}["no"], optimizer=adam(model, 0.1), epochs=1)
    assert not any(module.training for module in model.modules())


def test_the_random_state_stays():
    state, model = torch.get_rng_state(), net()

    def draw(rows):
        return (model(X[rows]) * torch.rand(())).mean()

    train(model, 65, draw, optimizer=adam(model, 0.1), epochs=1, seed=4)
    assert torch.equal(torch.get_rng_state(), state)


# ---- one logit


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_trains_like_two_of_which_one_stays_zero(flat):
    """Cross-entropy of (0, z) is the binary one; 65 rows in batches of 16."""
    y, one = (X[:, 0] > 0).long(), net(1)
    model = nn.Sequential(one, nn.Flatten(0)) if flat else one
    beside = net(1)
    history = fitted(model, y=y, batch_size=16, learning_rate=0.05)
    optimizer = torch.optim.Adam(beside.parameters(), 0.05)
    for epoch in range(2):
        for rows in batches(order(65, seed=0, epoch=epoch), 16):
            optimizer.zero_grad()
            target = y[rows].float()
            F.binary_cross_entropy_with_logits(beside(X[rows])[:, 0], target).backward()
            optimizer.step()
    torch.testing.assert_close(one[1].weight, beside[1].weight)
    z = beside(X)[:, 0]
    assert history.valid_loss[-1] == pytest.approx(
        F.binary_cross_entropy_with_logits(z, y.float()).item()
    )
    assert history.valid_accuracy[-1] == pytest.approx(((z > 0).long() == y).float().mean().item())


def test_one_logit_has_two_classes():
    assert class_loss(torch.tensor([[math.log(3)]]), torch.tensor([0])).item() == pytest.approx(
        math.log(4)
    )
    with pytest.raises(ValueError, match=r"data: y must lie in 0\.\.1, it holds the class 2"):
        evaluate(net(1), (X, Y))


# ---- what a model may return, what labels may come in


Output = dataclasses.make_dataclass("Output", ["loss", "logits"])


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = net(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


@pytest.mark.parametrize(
    "wrap", [lambda z: (z,), lambda z: {"logits": z, "hidden": z}, lambda z: Output(None, z)]
)
def test_logits_are_found_in_what_a_model_returns(wrap):
    model, plain = Wrapped(wrap), net()
    assert evaluate(model, (X, Y)) == evaluate(plain, (X, Y))
    assert fitted(model) == fitted(plain)


def test_several_tensors_are_refused():
    with pytest.raises(TypeError, match="must return one tensor"):
        evaluate(Wrapped(lambda z: (z, z)), (X, Y))


@pytest.mark.parametrize(
    "as_given",
    [torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.int, torch.Tensor.float,
     lambda y: y.numpy().astype(np.uint8), lambda y: tuple(y.tolist())],
)  # fmt: skip
def test_labels_of_every_kind_are_labels(as_given):
    assert fitted(net(), y=as_given(Y)) == fitted(net())
    assert evaluate(net(), (X, as_given(Y))) == evaluate(net(), (X, Y))
    _, y = check_rows(net(), X, as_given(Y))
    assert y.dtype == torch.int64
    assert torch.equal(y, Y)


@pytest.mark.parametrize("train_it", [True, False])
@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (HOLE, Y, ValueError, r"x holds NaN or infinity in 2 of 65 rows, the first is row 7"),
        (X.double(), Y, TypeError, "float64.*float32"),
        (X.long(), Y, TypeError, "int64.*float32"),
        (X.numpy(), Y, TypeError, "x must be a torch.Tensor"),
        (X.to_sparse(), Y, TypeError, "plain dense tensor"),
        (X[:, :3], Y, ValueError, "the model"),
        (X[:0], Y[:0], ValueError, "at least one row"),
        (torch.tensor(1.0), Y, ValueError, "at least one row"),
        (X, Y[:5], ValueError, r"y must be \(65,\) class numbers"),
        (X, F.one_hot(Y), ValueError, r"y.argmax\(1\)"),
        (X, Y + 1, ValueError, r"y must lie in 0\.\.2, it holds the class 3"),
        (X, Y - 1, ValueError, r"y must lie in 0\.\.2, it holds the class -1"),
        (X, Y + 0.5, ValueError, "fractions"),
        (X, ["a"] * 65, TypeError, "class numbers"),
    ],
)
def test_rows_and_labels_that_do_not_fit_are_refused_by_name(train_it, x, y, error, words):
    with pytest.raises(error, match=f"(?s){words}") as told:
        fit(net(), (X, Y), (x, y), epochs=1) if train_it else evaluate(net(), (x, y))
    given = "valid" if train_it else "data"
    assert str(told.value).startswith((given, "x is", "the model refuses"))


def test_a_pair_is_a_pair():
    for given in (X[:2], X, (X, Y, Y), None):
        with pytest.raises(TypeError, match=r"data must be a pair \(inputs, class numbers\)"):
            evaluate(net(), given)


def test_a_number_beyond_the_table_of_words_is_refused_before_the_training():
    words = torch.randint(5, (40, 3))
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
    y = torch.arange(40) % 2
    assert fitted(model, words, y).train_loss[0] > 0
    words[33, 1] = 5
    with pytest.raises(ValueError, match="train: the model cannot be run on x"):
        fitted(model, words, y)


def test_the_models_own_error_comes_through():
    def fails(x):
        raise RuntimeError("no license")

    with pytest.raises(RuntimeError, match=r"^no license$"):
        evaluate(fails, (X, Y))


def test_rows_that_influence_each_other_are_refused():
    with pytest.raises(ValueError, match="influence each other"):
        evaluate(lambda x: x[:, :3] - x[:, :3].mean(0) * 2, (X, Y))


def test_answers_that_are_no_numbers_are_no_accuracy():
    with pytest.raises(FloatingPointError, match=r"NaN in 1 of 65 rows, the first is row 5"):
        evaluate(lambda x: torch.where(x == X[5], torch.nan, x)[:, :3], (X, Y))


# ---- what can be trained


def lazy():
    return nn.Sequential(nn.LazyLinear(3))


def made_in_inference_mode():
    with torch.inference_mode():
        return net()


def trial(model):
    """The check of rows runs the model; a lazy layer would get its weights there."""
    train(model, 65, lambda rows: model(X[rows]).mean(), optimizer=object(), epochs=1)


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (net().requires_grad_(False), ValueError, "all are frozen"),
        (nn.ReLU(), ValueError, "no weights to train"),
        (made_in_inference_mode(), ValueError, "made in inference_mode"),
        (lazy(), ValueError, "lazy layers"),
        (net().half(), TypeError, "not in torch.float16"),
        (net().bfloat16(), TypeError, "not in torch.bfloat16"),
        (lambda x: x, TypeError, "must be an nn.Module"),
    ],
)
def test_models_that_cannot_be_trained(model, error, words):
    with pytest.raises(error, match=words):
        trial(model)
    with pytest.raises(error, match=words):
        adam(model, 0.1)


def test_a_batch_norm_needs_two_rows():
    for options in ({"x": X[:1], "y": Y[:1]}, {"batch_size": 1}):
        with pytest.raises(ValueError, match=r"batch norm '0' cannot learn from a batch of one"):
            fitted(net(norm=True), **options)
    assert fitted(net(), X[:1], Y[:1]).train_loss[0] > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_does_not_matter(mode):
    model, beside = net(), net()
    with mode():
        inside = fitted(model, X.clone())
    assert inside == fitted(beside)
    assert torch.equal(model[1].weight, beside[1].weight)
    assert model[1].weight.requires_grad


def test_a_model_that_detaches_learns_nothing_and_says_so():
    for wrap in (torch.Tensor.detach, torch.no_grad()(lambda z: z * 1)):
        with pytest.raises(RuntimeError, match="no gradient reaches the weights"):
            fitted(Wrapped(wrap))


def test_a_loss_is_one_number():
    model = net()
    for loss in (lambda rows: model(X[rows]), lambda rows: 1.0):
        with pytest.raises(TypeError, match="the loss must be one number"):
            train(model, 65, loss, optimizer=adam(model, 0.1), epochs=1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"learning_rate": 0}, ValueError, "learning_rate must be above 0"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate must be above 0"),
        ({"learning_rate": "1"}, TypeError, "learning_rate must be a number"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
    ],
)
def test_settings_are_looked_at(options, error, words):
    with pytest.raises(error, match=words):
        fitted(net(), **options)


def test_integers_of_every_kind():
    same = {"batch_size": np.int64(16), "seed": torch.tensor(3)}
    assert fitted(net(), **same) == fitted(net(), batch_size=16, seed=3)


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)]
)
def test_evaluate_in_every_precision(dtype, rtol):
    exact, score = evaluate(net(), (X, Y)), evaluate(net().to(dtype), (X.to(dtype), Y))
    assert score.loss == pytest.approx(exact.loss, rel=rtol)


def test_float64_stays_float64():
    model = net().double()
    fitted(model, X.double())
    assert model[1].weight.dtype == torch.float64


def test_a_compiled_network_learns_as_the_one_inside():
    model, beside = net(), net()
    compiled = torch.compile(model, backend="eager")
    assert fitted(compiled) == fitted(beside)
