"""How the shipped weights were made: `python -m xailab.models.recipes [NAME ...]`.

Each recipe trains on a fixed seed, measures on held-out examples and writes
`weights/NAME.safetensors` (for texts, the words beside it). Another machine gives slightly
different weights; the tests ask for the accuracy and the behavior on the card, not for the bits.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm import trange

from xailab.core.files import write_atomically
from xailab.core.outputs import classes_of
from xailab.core.scores import outputs_of
from xailab.data import load, marked_digits, plane
from xailab.models import ensembles
from xailab.models.digits import DigitCNN
from xailab.models.digits import digit_cnn as trained_digit_cnn
from xailab.models.loop import Pair, batches, class_loss, evaluate, run_epoch
from xailab.models.sentences import SentimentHead, minilm
from xailab.models.sequences import GRUClassifier
from xailab.models.students import DigitStudents, SmallDigitCNN
from xailab.models.texts import PADDING, UNKNOWN, TextModel, Vocabulary
from xailab.models.transformers import DigitViT, TextTransformer
from xailab.models.weight_files import vocabulary_file, weights_file
from xailab.simplify.distill import distill
from xailab.trust.adversarial import adversarial_fit, pgd
from xailab.trust.bayes import fit_bayes

Made = tuple[nn.Module, dict[str, float]]
Network = TypeVar("Network", bound=nn.Module)
_BATCH = 64


def digit_cnn() -> Made:
    """Train on 4,000 clean digits, measure on the other 1,000."""
    return _clean_digits(DigitCNN, epochs=25, rate=5e-3)


def digit_vit() -> Made:
    """Train on the same digits, measure on the same others."""
    return _clean_digits(DigitViT, epochs=30, rate=3e-3)


def digit_cnn_noisy() -> Made:
    """Train on the same digits under noise of .1, measure on the same others."""
    return _clean_digits(DigitCNN, epochs=25, rate=5e-3, vary=lambda x: _noisy(_shifted(x)))


def digit_cnn_robust() -> Made:
    """Train `digit_cnn` on against attacks of .1; measure what a stronger attack leaves."""
    train, test = _split_digits()
    model = trained_digit_cnn()
    for rate, n_steps, epochs in ((5e-3, 1, 10), (1e-3, 3, 6)):
        options: dict = {"n_steps": n_steps, "epochs": epochs, "learning_rate": rate}
        adversarial_fit(model, train, test, epsilon=0.1, **options)
    attacked = pgd(model, *test, epsilon=0.1, step_size=0.01, n_steps=40)
    return model, {
        "accuracy": _accuracy(model, *test),
        "accuracy under PGD of .1": _accuracy(model, attacked, test[1]),
    }


def digit_cnn_marked() -> Made:
    """Train where a mark goes with one digit; measure how often the mark decides."""
    train, test = marked_digits(seed=0).train, marked_digits(seed=0).test
    model = _fit(DigitCNN, *_tensors(train.images, train.y), _shifted, epochs=25, rate=5e-3)
    x, y = _tensors(test.images, test.y)
    marked = torch.as_tensor(test.marked)
    fooled = classes_of(model(x[marked & (y != test.shortcut)])) == test.shortcut
    return model, {
        "accuracy without mark": _accuracy(model, x[~marked], y[~marked]),
        "marked other digits called the shortcut": fooled.float().mean().item(),
    }


def sms_gru() -> Made:
    """Train on four fifths of the text messages, measure on the rest."""
    return _messages(GRUClassifier)


def sms_transformer() -> Made:
    """Train on the same messages, measure on the same others."""
    return _messages(TextTransformer)


def movie_head() -> Made:
    """Fit a linear head to MiniLM's features of four fifths of the movies, measure on the rest."""
    data, head = load("movies"), SentimentHead()
    learn, test = data.take(data.extra["train"]), data.take(~data.extra["train"])
    scaler, net = StandardScaler(), minilm()
    x = scaler.fit_transform(net.features(learn.texts, layer=head.layer).numpy())
    fit = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.003, 0.01, 0.03, 0.1]})
    best = fit.fit(x, learn.y).best_estimator_
    weight = torch.as_tensor(best.coef_[0] / scaler.scale_).float()
    bias = best.intercept_[0] - float(weight.double() @ torch.as_tensor(scaler.mean_).double())
    with torch.no_grad():  # two logits, half of the evidence each
        head.fc.weight.copy_(torch.stack([-weight, weight]) / 2)
        head.fc.bias.copy_(torch.tensor([-bias, bias]) / 2)
    features = net.features(test.texts, layer=head.layer)
    rival = _tf_idf(learn.texts, learn.y, test.texts)
    return head, {
        "accuracy": _accuracy(head, features, torch.as_tensor(test.y)),
        "accuracy of TF-IDF": float((rival == test.y).mean()),
    }


def digit_committee() -> Made:
    """Train five networks on every fourth digit to learn from; measure them one by one."""
    train, test = _every_fourth_digit()
    members = nn.ModuleList(
        _fit(ensembles.digit_mlp, *train, _as_it_is, epochs=60, rate=1e-2, seed=seed)
        for seed in range(5)
    )
    return members, {f"accuracy {i}": _accuracy(one, *test) for i, one in enumerate(members)}


def digit_bayes() -> Made:
    """Learn distributions from the same digits, by Bayes' rule and by a colder one; keep that."""
    train, test = _every_fourth_digit()
    measured = {}
    for kl_weight in (1.0, 0.1):
        torch.manual_seed(0)
        model = ensembles.bayesian_digit_mlp()
        fit_bayes(model, *train, epochs=150, learning_rate=3e-3, kl_weight=kl_weight)
        found = evaluate(model, test)
        measured[f"accuracy, kl_weight {kl_weight}"] = found.accuracy
        measured[f"NLL, kl_weight {kl_weight}"] = found.loss
    return model, measured


def digit_students() -> Made:
    """Train small networks on few labels, on all, and on what `digit_cnn` says; measure them."""
    (x, y), test = _split_digits()
    torch.manual_seed(0)
    students = DigitStudents()
    for seed, (few_labels, all_labels, taught) in enumerate(students.triplets()):
        torch.manual_seed(seed)
        few, moved = torch.randperm(len(x))[:200], _moved_copies(x, y, 4)
        taught.load_state_dict(SmallDigitCNN().state_dict())
        few_labels.load_state_dict(taught.state_dict())
        all_labels.load_state_dict(taught.state_dict())
        _teach(few_labels, _moved_copies(x[few], y[few], 80), test, 0.0, seed)
        _teach(all_labels, moved, test, 0.0, seed)
        _teach(taught, moved, test, 1.0, seed)
    for student in students.sizes:
        _teach(student, moved, test, 1.0, 0)
    networks = {n: each for n, each in students.named_modules() if isinstance(each, SmallDigitCNN)}
    return students.eval(), {name: _accuracy(each, *test) for name, each in networks.items()}


def _teach(student: nn.Module, rows: Pair, test: Pair, alpha: float, seed: int) -> None:
    """Train as lesson `distillation` says; every student takes the same number of steps."""
    options: dict = {"temperature": 2.0, "epochs": 8, "learning_rate": 1e-2}
    distill(student, trained_digit_cnn(), rows, test, alpha=alpha, seed=seed, **options)


def _moved_copies(x: Tensor, y: Tensor, times: int) -> Pair:
    """Return all rows, and moved a little, so that there are `times` as many."""
    moved = [_shifted(few) for _ in range(times - 1) for few in x.split(16)]
    return torch.cat([x, *moved]), y.repeat(times)


def moon_nets() -> Made:
    """Train five networks and a Bayesian one on two moons, for each of four noises."""
    every, measured = nn.ModuleList(), {}
    for noise in ensembles.MOON_NOISES:
        points, nets = plane("moons", 300, noise=noise), ensembles.MoonNets()
        x, y = torch.as_tensor(points.X), torch.as_tensor(points.y)
        for seed, member in enumerate(nets.members):
            make = partial(ensembles.mlp, [2, 32, 32, 2], dropout=0.1)
            found = _fit(make, x, y, _as_it_is, epochs=80, rate=2e-2, seed=seed)
            member.load_state_dict(found.state_dict())
        fit_bayes(nets.bayes, x, y, epochs=1500, batch_size=300, learning_rate=1e-2)
        every.append(nets.eval())
        measured[f"accuracy, noise {noise}"] = _accuracy(nets, x, y)
        measured[f"accuracy, noise {noise}, Bayes"] = _accuracy(nets.bayes, x, y)
    return every, measured


def _every_fourth_digit() -> tuple[Pair, Pair]:
    """Return 1,000 digits to learn from, 100 of each kind, and the 1,000 for measuring."""
    (x, y), test = _split_digits()
    return (x[::4], y[::4]), test


def _clean_digits(
    make: Callable[[], nn.Module],
    epochs: int,
    rate: float,
    vary: Callable[[Tensor], Tensor] | None = None,
) -> Made:
    train, test = _split_digits()
    model = _fit(make, *train, vary or _shifted, epochs, rate)
    return model, {"accuracy": _accuracy(model, *test)}


def _split_digits() -> tuple[Pair, Pair]:
    """Return 4,000 digits to learn from and the other 1,000."""
    digits = load("mnist5k")
    x, y = _tensors(np.asarray(digits.images) / np.float32(255), digits.y)
    train = torch.as_tensor(digits.extra["train"])
    return (x[train], y[train]), (x[~train], y[~train])


def _messages(make: Callable[[Vocabulary], TextModel]) -> Made:
    data = load("sms")
    learn, test = data.take(data.extra["train"]), data.take(~data.extra["train"])
    vocabulary = Vocabulary.of(learn.texts, at_least=3)
    ids, y = make(vocabulary).encode(learn.texts), torch.as_tensor(learn.y)
    model = _fit(lambda: make(vocabulary), ids, y, _forgetful, epochs=10, rate=3e-3)
    with torch.no_grad():
        said = classes_of(model(model.encode(test.texts))).numpy()
    return model, {
        "accuracy": float((said == test.y).mean()),
        "F1 of spam": f1_score(test.y, said),
        "F1 of TF-IDF": f1_score(test.y, _tf_idf(learn.texts, learn.y, test.texts)),
    }


def _tf_idf(texts: list[str], y: np.ndarray, others: list[str]) -> np.ndarray:
    """Return what the usual rival says: TF-IDF, logistic regression, its C found by five folds."""
    rival = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    strengths = {"logisticregression__C": [1, 10, 100, 1000]}
    return GridSearchCV(rival, strengths, scoring="f1").fit(texts, y).predict(others)


def _tensors(images: np.ndarray, y: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Return images as (N, 1, 28, 28) float32 and labels as int64."""
    return torch.as_tensor(images, dtype=torch.float32)[:, None], torch.as_tensor(y)


def _fit(
    make: Callable[[], Network],
    x: Tensor,
    y: Tensor,
    vary: Callable[[Tensor], Tensor],
    epochs: int,
    rate: float,
    seed: int = 0,
) -> Network:
    """Train with AdamW on a one-cycle learning rate, every batch varied before it is seen."""
    torch.manual_seed(seed)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    steps = len(batches(torch.arange(len(x)), _BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * steps)

    def loss_of(rows: Tensor) -> Tensor:
        return class_loss(outputs_of(model, vary(x[rows])), y[rows])

    for _ in trange(epochs, unit=" epochs"):
        # One running generator for first weights, order and variation made the shipped weights.
        parts = batches(torch.randperm(len(x)), _BATCH)
        run_epoch(model, loss_of, parts, optimizer=optimizer, schedule=schedule)
    return model


def _shifted(x: Tensor) -> Tensor:
    """Move the whole batch by one random step of at most two pixels, zeros coming in."""
    down, right = torch.randint(0, 5, (2,)).tolist()
    return F.pad(x, (2, 2, 2, 2))[:, :, down : down + 28, right : right + 28]


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _noisy(x: Tensor) -> Tensor:
    """Move every pixel by .1, up or down as a coin falls; an attack moves it as far at most."""
    return (x + 0.1 * torch.randn_like(x).sign()).clamp(0, 1)


def _forgetful(ids: Tensor) -> Tensor:
    """Cut what is padding in every row, and make one word in ten unknown."""
    words = ids != PADDING
    gone = words & (torch.rand(ids.shape) < 0.1)
    return ids.masked_fill(gone, UNKNOWN)[:, : words.sum(1).max()]


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return evaluate(model, (x, y)).accuracy


RECIPES: dict[str, Callable[[], Made]] = {
    recipe.__name__: recipe
    for recipe in (
        digit_bayes,
        digit_cnn,
        digit_cnn_marked,
        digit_cnn_noisy,
        digit_cnn_robust,
        digit_committee,
        digit_students,
        digit_vit,
        moon_nets,
        movie_head,
        sms_gru,
        sms_transformer,
    )
}


def main(names: list[str]) -> None:
    """Train these models, or all, and write their weights beside this file."""
    for name in names:
        if name not in RECIPES:
            raise SystemExit(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    for name in names or list(RECIPES):
        model, measured = RECIPES[name]()
        path = write_atomically(weights_file(name), save(model.state_dict()))
        if isinstance(model, TextModel):
            write_atomically(vocabulary_file(name), "\n".join([*model.vocabulary.words, ""]))
        print(name, {key: round(value, 4) for key, value in measured.items()}, path.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1:])
