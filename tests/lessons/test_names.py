import pytest

from tests.lessons.names import names_of


@pytest.mark.parametrize(
    ("code", "bound", "wanted"),
    [
        ("x = y", {"x"}, {"y"}),
        ("x = 1\nx", {"x"}, set()),
        ("x\nx = 1", {"x"}, {"x"}),
        ("x += 1", {"x"}, {"x"}),
        ("x[0] = 1", set(), {"x"}),
        ("x.y = 1", set(), {"x"}),
        ("a, (b, *c) = d", {"a", "b", "c"}, {"d"}),
        ("import numpy as np, os.path", {"np", "os"}, set()),
        ("from torch import nn", {"nn"}, set()),
        ("for i, z in pairs: z", {"i", "z"}, {"pairs"}),
        ("with opened() as f: f", {"f"}, {"opened"}),
        ("[i * k for i in row if i > j]", set(), {"row", "k", "j"}),
        ("{a: b for a, b in pairs for c in b}", set(), {"pairs"}),
        ("[(last := i) for i in row]", {"last"}, {"row"}),
        ("def f(x, y=k): return x + y + z", {"f"}, {"k", "z"}),
        ("def f():\n    t = 1\n    return [t for u in v]", {"f"}, {"v"}),
        ("def f(): return later\nlater = 1", {"f", "later"}, set()),
        ("f(later)\nlater = 1", {"later"}, {"f", "later"}),
        ("class A(Base):\n    k = 1\n    def m(self): return outside", {"A"}, {"Base", "outside"}),
        ("g = lambda x: x + c", {"g"}, {"c"}),
        ("@wrap\ndef f(): pass", {"f"}, {"wrap"}),
        ("%matplotlib inline\nx = 1", {"x"}, set()),
        ("try:\n    a\nexcept ValueError as e:\n    e", {"e"}, {"a", "ValueError"}),
        ("print(f'{v:.{n}f}')", set(), {"print", "v", "n"}),
        ("def f():\n    global count\n    count = 1", {"f"}, set()),
    ],
)
def test_names_are_read(code, bound, wanted):
    names = names_of([code])
    assert (set(names.bound), names.wanted) == (bound, wanted)


def test_cells_follow_each_other():
    assert names_of(["x = 1", "y = x"]).wanted == set()
    assert names_of(["y = x", "x = 1"]).wanted == {"x"}


def test_how_a_name_is_bound_is_known():
    bound = names_of(["import numpy as np\nfor i in (1, 2): x = i\nfrom a import b as c"]).bound
    assert bound == {"np": "import numpy", "i": "loop", "x": "other", "c": "import a.b"}
