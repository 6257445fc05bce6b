"""What lesson `faults` says of faults in the digit network that one method alone does not show."""

from tests.held_out import answers, digits
from xailab.attribution.cam import grad_cam
from xailab.models import digit_cnn
from xailab.trust.faults import Monitor, flip_bits, slices, stuck_at


def test_a_stuck_cell_hides_from_the_accuracy_and_not_from_grad_cam() -> None:
    model, (x, y) = digit_cnn(), digits()
    given = answers(model, x)
    with stuck_at(model, "relu3", value=125.0, at=[17 * 49 + 42]):
        broken = answers(model, x)
        maps = grad_cam(model, x[:200], given[:200], layer="relu3", upsample=False)
    lost = (given == y).double().mean() - (broken == y).double().mean()
    assert lost < 0.01
    same = broken[:200] == given[:200]
    assert (maps.flatten(1).argmax(1) == 42)[same].double().mean() > 0.1


def test_a_lost_class_hides_from_the_monitor_and_not_from_slices() -> None:
    model, (x, y) = digit_cnn(), digits()
    guard = Monitor(model, layers=["relu1", "relu2", "relu3"], slack=1e6)
    guard.fit(x[:500], batch_size=25)
    with flip_bits(model, "fc", bit=30, at=[8 * 64 + 30]):
        wrong = (answers(model, x) != y).numpy()
        alarms = [guard.observe(batch) for batch in x[500:700].split(25)]
    found = slices(wrong, {"digit": y.numpy().astype(str)}, k=1)
    assert found.index[0] == "`digit` == '8'"
    assert found.error.iloc[0] > 0.95
    assert wrong.mean() < 0.15
    assert sum(map(bool, alarms)) <= 1
