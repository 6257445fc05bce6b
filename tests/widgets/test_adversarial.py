"""The epsilon slider shows the package's own attacks, redraws quickly and attacks only once."""

from time import perf_counter

import pytest
import torch
from torch import Tensor, nn

from tests.toys import linear
from xailab import widgets
from xailab.attribution.saliency import saliency
from xailab.trust.adversarial import fgsm, pgd
from xailab.widgets.adversarial import Attacked, epsilon_slider, explorer, likeness

X = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([2, 0])


def network(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(3, 16, generator=generator).tolist()
    return nn.Sequential(nn.Flatten(), linear(weights)).eval()


NETS = {"plain": network(1), "<robust>": network(2)}


@pytest.fixture
def attacked() -> Attacked:
    return Attacked(NETS, X, Y, epsilons=[0.0, 0.1, 0.3])


def test_the_rows_are_those_of_the_attacks(attacked: Attacked) -> None:
    steps = {"epsilon": 0.3, "step_size": 0.075, "n_steps": 10}
    for name, model in NETS.items():
        for kind, want in (
            ("FGSM", fgsm(model, X, Y, epsilon=0.3)),
            ("PGD", pgd(model, X, Y, **steps)),
        ):
            found = attacked._found[name, kind, 2]
            torch.testing.assert_close(found.rows, want)
            torch.testing.assert_close(found.probabilities, model(want).softmax(1))
            named = model(want).argmax(1)
            torch.testing.assert_close(found.maps, saliency(model, want, named))
        assert torch.equal(attacked._found[name, "PGD", 0].rows, X)


def test_the_words_say_what_became_of_the_answer() -> None:
    """One pixel decides between two classes: .6 becomes .4, and class 1 becomes class 0."""
    model = nn.Sequential(nn.Flatten(), linear([[0.0], [20.0]]))
    shifted = lambda x: model(x - 0.5)  # noqa: E731
    both = Attacked({"net": shifted}, torch.full((1, 1, 1, 1), 0.6), torch.tensor([1]))
    alt = both.picture(0, "net", "FGSM", both.epsilons.index(0.2)).alt
    # the score of class 1 is 20 (x - .5): 2 before, -2 after, and 1 / (1 + exp(-2)) = .88
    assert alt.startswith("net, FGSM, epsilon 0.20: 1 (0.88) becomes 0 (0.88) (a picture of 1).")
    stays = both.picture(0, "net", "PGD", 0).alt
    assert stays.startswith("net, PGD, epsilon 0.00: stays 1 (0.88)")


def test_likeness_by_hand() -> None:
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert likeness(a, 2 * a + 7) == pytest.approx(1)
    assert likeness(a, -a) == pytest.approx(-1)
    assert likeness(a, torch.ones(2, 2)) == 0


def test_the_controls_redraw_without_attacking_again() -> None:
    calls = []

    def counted(model: nn.Module, x: Tensor, y: Tensor, *, epsilon: float) -> Tensor:
        calls.append(epsilon)
        return fgsm(model, x, y, epsilon=epsilon)

    attacks = {"FGSM": counted, "again": counted}
    box = explorer(Attacked(NETS, X, Y, epsilons=[0.0, 0.1, 0.3], attacks=attacks))
    picture, network_, attack, radius, image, words = box.children
    asked, first = len(calls), bytes(image.value)
    assert asked == 2 * 2 * 3
    assert first.startswith(b"\x89PNG")
    assert "plain, FGSM, epsilon 0.10" in words.value
    radius.value = 2
    assert "epsilon 0.30" in words.value
    assert bytes(image.value) != first
    network_.value = "<robust>"
    assert "&lt;robust&gt;, FGSM" in words.value
    attack.value = "again"
    assert "again, epsilon 0.30" in words.value
    picture.value = 1
    assert "(a picture of 0)" in words.value
    picture.value, network_.value, attack.value, radius.value = 0, "plain", "FGSM", 1
    assert bytes(image.value) == first
    assert len(calls) == asked


def test_a_slider_answers_at_once(attacked: Attacked) -> None:
    attacked.picture(0, "plain", "PGD", 2).png()  # fonts are loaded once
    began = perf_counter()
    attacked.picture(1, "plain", "PGD", 2).png()
    assert perf_counter() - began < 1.5  # below .3 s on a quiet machine


def test_controls_are_labeled(attacked: Attacked) -> None:
    controls = explorer(attacked).children[:4]
    assert [c.description for c in controls] == ["Picture", "Network", "Attack", "Epsilon"]
    assert controls[0].options == (("2 (1)", 0), ("0 (2)", 1))
    assert controls[3].options == (("0.00", 0), ("0.10", 1), ("0.30", 2))


def test_outside_a_notebook_the_sentence_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    epsilon_slider(NETS, X, Y, epsilons=[0.0, 0.1])
    assert capsys.readouterr().out.startswith("In words: plain, FGSM, epsilon 0.10: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": {}}, "models is empty"),
        ({"attacks": {}}, "attacks is empty"),
        ({"epsilons": []}, "epsilons is empty"),
        ({"epsilons": [0.1, -0.1]}, "epsilon must be at least 0 and finite, got -0.1"),
        ({"x": torch.zeros(2, 3, 4, 4)}, r"gray pictures \(N, 1, H, W\), got \(2, 3, 4, 4\)"),
        ({"x": X + 1}, r"x lies in .*clip=\(0, 1\)"),
        ({"y": torch.tensor([1, 2, 0])}, "3"),
    ],
)
def test_bad_input_is_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Attacked(**{"models": NETS, "x": X, "y": Y, "epsilons": [0.1], **changes})


def test_the_function_is_not_hidden_by_its_module() -> None:
    assert widgets.epsilon_slider is epsilon_slider
