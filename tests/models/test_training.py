"""The loop on paper, Lightning beside it, a resume, and the log as TensorBoard reads it."""

import math
import subprocess
import sys

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from xailab import data
from xailab.data import public
from xailab.models import training


@pytest.fixture(autouse=True)
def no_bars(monkeypatch):
    monkeypatch.setenv("XAILAB_QUIET", "1")


def blobs(n, seed):
    """Three clouds of points in the plane, and to which each point belongs."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    centers = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]])
    return centers[y] + 0.5 * torch.randn(n, 2, generator=generator), y


TRAIN, VALID = blobs(90, 0), blobs(30, 1)


def net(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# ---- by hand


def test_one_step_on_paper():
    """Logits 0 and 0, class 1: the loss is ln 2, and Adam's first step is the rate, by sign.

    The slope of the loss is (p - 1) x = -x / 2 for the right class and x / 2 for the other.
    """
    model = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(model.weight)
    pair = torch.tensor([[3.0]]), torch.tensor([1])
    history = training.fit(model, pair, pair, epochs=1, learning_rate=0.1)
    assert history.train_loss == pytest.approx([math.log(2)])
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[-0.1], [0.1]]))
    # now the logits are -0.3 and 0.3
    assert history.valid_loss == pytest.approx([math.log(1 + math.exp(-0.6))])
    assert history.valid_accuracy == [1.0]


def slow_fit(model, train, epochs, rate, size):
    """Adam once more, from Kingma and Ba's algorithm 1, one parameter tensor at a time."""
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters()]
    t, losses = 0, []
    for epoch in range(epochs):
        total = 0.0
        for rows in training.order(len(train[0]), seed=0, epoch=epoch).split(size):
            t += 1
            loss = -model(train[0][rows]).log_softmax(1)[range(len(rows)), train[1][rows]].mean()
            slopes = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for p, g, (m, v) in zip(model.parameters(), slopes, state, strict=True):
                    m.mul_(0.9).add_(0.1 * g)
                    v.mul_(0.999).add_(0.001 * g**2)
                    p -= rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
            total += loss.item() * len(rows)
        losses.append(total / len(train[0]))
    return losses


def test_the_loop_is_adam_as_published():
    ours, theirs = net(), net()
    history = training.fit(ours, TRAIN, VALID, epochs=3, learning_rate=0.05, batch_size=40)
    assert history.train_loss == pytest.approx(slow_fit(theirs, TRAIN, 3, 0.05, 40), rel=1e-5)
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-4, atol=1e-5)


def test_the_validation_rows_are_measured_and_never_learnt_from():
    one, other = net(), net()
    training.fit(one, TRAIN, VALID, epochs=2)
    shuffled = VALID[0], VALID[1].flip(0)
    training.fit(other, TRAIN, shuffled, epochs=2)
    assert torch.equal(flat(one), flat(other))


def test_the_seed_decides_and_torchs_own_state_stays():
    before = torch.random.get_rng_state()
    runs = [net(dropout=0.5) for _ in range(3)]
    torch.random.set_rng_state(before)
    histories = [
        training.fit(model, TRAIN, VALID, epochs=2, seed=seed)
        for model, seed in zip(runs, (0, 0, 1), strict=True)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert histories[0] == histories[1] != histories[2]
    assert not any(module.training for module in runs[0].modules())


def test_dropout_drops_in_every_epoch_of_training():
    """It is off while held-out rows are measured, and on again after that."""
    with_, without = net(dropout=0.9), net()
    losses = [
        training.fit(model, TRAIN, VALID, epochs=2, learning_rate=1e-9).train_loss
        for model in (with_, without)
    ]
    # at this rate the weights stand still: only what is dropped changes the loss
    assert losses[1][0] == pytest.approx(losses[1][1], rel=1e-5)
    assert abs(losses[0][0] - losses[1][0]) > 1e-3
    assert abs(losses[0][1] - losses[0][0]) > 1e-3


def test_orders_are_permutations_and_differ_with_seed_and_epoch():
    drawn = [training.order(20, seed=s, epoch=e).tolist() for s in (0, 1) for e in (0, 1)]
    assert all(sorted(order) == list(range(20)) for order in drawn)
    assert len({tuple(order) for order in drawn}) == 4


def test_evaluate_on_paper_and_without_a_trace():
    """Two rows with logits (0, ln 3): loss -ln .75 and -ln .25, one of two right."""
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.9)).train()
    x = torch.tensor([[0.0, math.log(3)]] * 2)
    score = training.evaluate(model, (x, torch.tensor([1, 0])))
    assert score.loss == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    assert score.accuracy == 0.5
    assert model.training
    assert model[1].training


@pytest.mark.parametrize(
    "call",
    [
        lambda pair: training.fit(net(), pair, VALID, epochs=1),
        lambda pair: training.fit(net(), TRAIN, pair, epochs=1),
        lambda pair: training.evaluate(net(), pair),
        lambda pair: training.loaders(pair, VALID),
    ],
)
@pytest.mark.parametrize(
    "pair", [(TRAIN[0], TRAIN[1][:5]), (TRAIN[0][:0], TRAIN[1][:0]), (TRAIN[0], TRAIN[0])]
)
def test_rows_without_their_class_are_refused(call, pair):
    with pytest.raises(ValueError, match=r"one a row|at least one row"):
        call(pair)


def test_a_loss_that_is_no_number_stops_the_training():
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        training.fit(net(), TRAIN, VALID, epochs=3, learning_rate=1e30)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        training.fit(net(), TRAIN, VALID, epochs=0)


# ---- Lightning


def lightning_fit(folder, *, epochs, model=None, resume=None, callbacks=()):
    """Train with Lightning; return module and trainer."""
    module = training.Classifier(model or net(), learning_rate=0.05)
    worker = training.trainer(folder, epochs=epochs, callbacks=callbacks)
    worker.fit(module, *training.loaders(TRAIN, VALID, batch_size=40), ckpt_path=resume)
    return module, worker


def test_lightning_trains_as_the_loop_by_hand(tmp_path):
    by_hand = net()
    history = training.fit(by_hand, TRAIN, VALID, epochs=3, learning_rate=0.05, batch_size=40)
    module, _ = lightning_fit(tmp_path, epochs=3)
    torch.testing.assert_close(flat(module.model), flat(by_hand))
    log = training.read_scalars(tmp_path)
    assert log["train/loss"].values == pytest.approx(history.train_loss, rel=1e-5)
    assert log["valid/loss"].values == pytest.approx(history.valid_loss, rel=1e-5)
    assert log["valid/accuracy"].values == pytest.approx(history.valid_accuracy, rel=1e-5)
    assert log["train/loss"].steps == [2, 5, 8]  # three batches an epoch


@pytest.mark.parametrize("on_epoch_end", [True, False, None])
def test_a_resumed_training_goes_on_exactly(tmp_path, on_epoch_end):
    """Wherever in an epoch's end the checkpoint was written."""
    whole, _ = lightning_fit(tmp_path / "whole", epochs=4)
    save = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=on_epoch_end)
    lightning_fit(tmp_path / "parts", epochs=2, callbacks=[save])
    again, worker = lightning_fit(
        tmp_path / "parts", epochs=4, model=net(seed=9), resume=tmp_path / "epoch=1.ckpt"
    )
    assert (worker.current_epoch, worker.global_step) == (4, 12)
    assert torch.equal(flat(again.model), flat(whole.model))
    logs = [training.read_scalars(tmp_path / part)["train/loss"] for part in ("whole", "parts")]
    assert logs[0] == logs[1]


def test_weights_alone_do_not_resume(tmp_path):
    """What the checkpoint holds beyond the weights matters: Adam's memory and the epoch."""
    whole, _ = lightning_fit(tmp_path / "whole", epochs=4)
    half, _ = lightning_fit(tmp_path / "half", epochs=2)
    again, _ = lightning_fit(tmp_path / "again", epochs=2, model=half.model)
    assert not torch.allclose(flat(again.model), flat(whole.model), atol=1e-3)


def test_early_stopping_stops(tmp_path):
    """Nothing is ever better by 100: the first epoch sets the mark, two more lose patience."""
    stop = EarlyStopping("valid/loss", patience=2, min_delta=100.0)
    _, worker = lightning_fit(tmp_path, epochs=50, callbacks=[stop])
    assert worker.current_epoch == 3


def test_quiet_is_quiet(tmp_path, capfd, recwarn):
    lightning_fit(tmp_path, epochs=1)
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn if "lightning" in w.filename] == []


def test_the_learner_sees_a_bar(tmp_path, monkeypatch):
    monkeypatch.delenv("XAILAB_QUIET")
    assert training.trainer(tmp_path, epochs=1).progress_bar_callback is not None


# ---- the log


def test_tensorboards_own_reader_finds_what_was_written(tmp_path):
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    with SummaryWriter(tmp_path) as writer:
        for step in (0, 3):
            writer.add_scalar("loss", 1.5 * step, step)
            writer.add_histogram("weights", values + step, step, bins=64)
    theirs = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()
    ours = training.read_scalars(tmp_path)
    assert ours == {"loss": training.Scalars([0, 3], [0.0, 4.5])}
    assert [(e.step, e.value) for e in theirs.Scalars("loss")] == [(0, 0.0), (3, 4.5)]
    for event, found in zip(
        theirs.Histograms("weights"), training.read_histograms(tmp_path)["weights"], strict=True
    ):
        counts, edges = np.histogram(values + event.step, bins=64)
        assert found.step == event.step
        np.testing.assert_array_equal(found.counts, counts)
        np.testing.assert_allclose(found.edges, edges, atol=1e-6)  # float32
        assert event.histogram_value.num == found.counts.sum() == 500


def test_all_steps_are_kept_not_a_sample(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for step in range(1200):
            writer.add_scalar("loss", step, step)
    assert len(training.read_scalars(tmp_path)["loss"].steps) == 1200


def test_a_first_bucket_that_is_not_empty_gets_its_left_end():
    value = type("Value", (), {"bucket_limit": [1.0, 2.0], "bucket": [3.0, 4.0], "min": -5.0})
    found = training._histogram(0, value)
    assert found.edges.tolist() == [-5.0, 1.0, 2.0]
    assert found.counts.tolist() == [3.0, 4.0]


def test_activations_and_gradients_are_logged_once_an_epoch(tmp_path):
    rows = VALID[0][:10]
    watch = training.Histograms(["1"], rows)
    module, _ = lightning_fit(tmp_path, epochs=2, callbacks=[watch])
    log = training.read_histograms(tmp_path)
    assert set(log) == {"activations/1", "gradients/0.weight", "gradients/3.weight"}
    assert [found.step for found in log["activations/1"]] == [0, 1]
    # the last one, computed once more from the weights at the end
    with torch.no_grad():
        values = F.relu(module.model[0](rows))
    counts, edges = np.histogram(values, bins=64)
    np.testing.assert_array_equal(log["activations/1"][-1].counts, counts)
    np.testing.assert_allclose(log["activations/1"][-1].edges, edges, rtol=1e-6)
    assert module.model.training is module.training


def test_the_gradients_logged_are_those_of_the_last_step(tmp_path):
    lightning_fit(tmp_path, epochs=1, callbacks=[training.Histograms([], VALID[0])])
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for rows in training.order(90, seed=0, epoch=0).split(40):
        optimizer.zero_grad()
        F.cross_entropy(model(TRAIN[0][rows]), TRAIN[1][rows]).backward()
        optimizer.step()
    counts, edges = np.histogram(model[0].weight.grad, bins=64)
    (found,) = training.read_histograms(tmp_path)["gradients/0.weight"]
    np.testing.assert_allclose(found.edges, edges, rtol=1e-4)
    assert np.abs(found.counts - counts).sum() <= 2  # a value on an edge may fall to either side


def test_a_folder_without_a_log_is_an_error(tmp_path):
    for read in (training.read_scalars, training.read_histograms):
        with pytest.raises(FileNotFoundError, match="no TensorBoard event file"):
            read(tmp_path)


@pytest.mark.parametrize("code", ["import xailab", "import xailab.models", "import xailab.cli"])
def test_nobody_waits_for_lightning(code):
    check = f"import sys; {code}; print({{'lightning', 'torch', 'tensorboard'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_logging_does_not_load_tensorflow(tmp_path):
    """TensorBoard would import it, where it is installed, to write a file."""
    code = f"""
import sys
from xailab.models import training
worker = training.trainer({str(tmp_path)!r}, epochs=1)
worker.logger.experiment.add_scalar("a", 1.0, 0)
worker.logger.finalize("success")
print(training.read_scalars({str(tmp_path)!r}), "tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'a': Scalars(steps=[0], values=[1.0])} False"


# ---- the command line


class FakeSet:
    """Like torchvision's MNIST and CIFAR10, with twelve pictures."""

    classes = tuple(f"class {i}" for i in range(10))
    side, channels = 28, ()

    def __init__(self, root, train, download):
        rng = np.random.default_rng(int(train))
        count = 8 if train else 4
        self.targets = list(range(count))
        shape = (count, self.side, self.side, *self.channels)
        self.data = rng.integers(0, 256, shape, dtype=np.uint8)


class FakeColorSet(FakeSet):
    side, channels = 32, (3,)


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path / "home"))
    sets = {"mnist": FakeSet, "cifar10": FakeColorSet}
    monkeypatch.setattr(public, "_torchvision", sets.__getitem__)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("model", ["alexnet", "resnet"])
def test_one_step_on_a_full_set(fakes, tmp_path, capsys, name, model):
    arguments = ["--full", name, "--model", model, "--max-steps", "1", "--folder", str(tmp_path)]
    assert training.main([*arguments, "--batch-size", "4"]) == 0
    printed = capsys.readouterr().out
    assert "accuracy on the 4 test pictures" in printed
    assert f"tensorboard --logdir {tmp_path / f'{name}-{model}'}" in printed
    assert "train/loss" in training.read_scalars(tmp_path / f"{name}-{model}")
    (checkpoint,) = (tmp_path / f"{name}-{model}").rglob("*.ckpt")
    assert torch.load(checkpoint, weights_only=False)["global_step"] == 1


def test_it_goes_on_from_a_checkpoint(fakes, tmp_path, capsys):
    arguments = ["--full", "mnist", "--folder", str(tmp_path), "--batch-size", "8"]
    assert training.main([*arguments, "--epochs", "1"]) == 0
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert training.main([*arguments, "--epochs", "2", "--resume", str(checkpoint)]) == 0
    assert training.read_scalars(tmp_path / "mnist-resnet")["valid/loss"].steps == [0, 1]


def test_bytes_become_numbers_around_zero():
    pixels = torch.tensor([[0, 255]], dtype=torch.uint8)
    assert training._FromBytes()(pixels).tolist() == [[-1.0, 1.0]]


def test_offline_it_says_so_without_a_traceback(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XAILAB_HOME", str(tmp_path))

    def no_route(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(public, "_torchvision", lambda name: no_route)
    assert training.main(["--full", "cifar10"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "could not download 'cifar10': no route to host" in said.err
    assert "needs the open internet" in said.err
    assert list(tmp_path.rglob("*.ckpt")) == []


def test_the_help_names_the_choices(capsys):
    with pytest.raises(SystemExit) as done:
        training.main(["--help"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    for word in ("mnist", "cifar10", "alexnet", "resnet", "--resume", "open internet"):
        assert word in said
    with pytest.raises(SystemExit) as done:
        training.main(["--full", "imagenet"])
    assert done.value.code == 2
    assert "invalid choice: 'imagenet'" in capsys.readouterr().err


# ---- the promise of the lesson


def test_a_small_network_reads_at_least_95_percent_of_held_out_digits():
    digits = data.load("mnist5k")
    x, y = torch.as_tensor(digits.images)[:, None] / 255, torch.as_tensor(digits.y)
    rows = torch.as_tensor(digits.extra["train"])
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 10)),
    )
    history = training.fit(model, (x[rows], y[rows]), (x[~rows], y[~rows]), epochs=4)
    assert history.valid_accuracy[-1] >= 0.95


# ---- what Lightning is given


def fit_with_lightning(folder, model, train, **options):
    worker = training.trainer(folder, epochs=1)
    worker.fit(
        training.Classifier(model, learning_rate=0.05), *training.loaders(train, train, **options)
    )
    return training.read_scalars(folder)


def test_one_logit_and_65_rows_with_lightning_as_by_hand(tmp_path):
    x, y = blobs(65, 0)
    pair, sides = (x, (y > 0).tolist()), {"batch_size": 64}

    def binary():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))

    log = fit_with_lightning(tmp_path, binary(), pair, **sides)
    history = training.fit(binary(), pair, pair, epochs=1, learning_rate=0.05, **sides)
    assert log["train/loss"].values == pytest.approx(history.train_loss, rel=1e-5)
    assert log["valid/loss"].values == pytest.approx(history.valid_loss, rel=1e-5)
    assert log["valid/accuracy"].values == pytest.approx(history.valid_accuracy, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "x", "y", "error", "words"),
    [
        (net(), TRAIN[0].double(), TRAIN[1], TypeError, "float64"),
        (net(), TRAIN[0], TRAIN[1] + 1, ValueError, "holds the class 3"),
        (net().requires_grad_(False), *TRAIN, ValueError, "all are frozen"),
    ],
)
def test_lightning_is_told_what_fit_is_told(tmp_path, model, x, y, error, words):
    with pytest.raises(error, match=words):
        fit_with_lightning(tmp_path, model, (x, y))


def test_nan_does_not_get_into_the_loaders():
    hole = TRAIN[0].clone()
    hole[4, 1] = math.nan
    with pytest.raises(ValueError, match=r"train: x holds NaN .* row 4"):
        training.loaders((hole, TRAIN[1]), VALID)


def test_all_but_lightnings_parts_work_without_the_extra():
    code = """
import sys
sys.modules["lightning"] = sys.modules["tensorboard"] = None  # as if they were not installed
import torch
from xailab.models import recipes, training
from xailab.simplify import distill
pair = torch.randn(6, 2), [0, 1, 0, 1, 0, 1]
print(len(training.fit(torch.nn.Linear(2, 2), pair, pair, epochs=2).train_loss))
try:
    training.Classifier
except ImportError:
    print("lightning is missing")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["2", "lightning is missing"]


def test_lightnings_classes_are_made_once_and_known_by_their_names():
    assert training.Classifier is training.Classifier
    assert issubclass(training.Classifier, lightning.LightningModule)
    assert issubclass(training.Histograms, lightning.Callback)
    assert training.Classifier.__name__ == "Classifier"
    with pytest.raises(AttributeError, match="no attribute 'Klassifier'"):
        training.Klassifier  # noqa: B018
