"""Answers in order, repeated rows once, chunks of the size that pays, memory flat."""

import gc
import weakref

import numpy as np
import pytest
import torch
import tqdm.std
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xailab.core import batched, batching


class Counted:
    """Sums rows, and keeps the size of every chunk."""

    def __init__(self):
        self.chunks = []

    def __call__(self, rows):
        self.chunks.append(len(rows))
        return rows.reshape(len(rows), -1).sum(1)


class Clock:
    """Time that goes on only when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(batching, "perf_counter", clock)
    return clock


class Timed(Counted):
    """Takes `seconds[m]` (else the last one given) for every row of a chunk of m."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def __call__(self, rows):
        self.clock.now += len(rows) * self.seconds.get(len(rows), list(self.seconds.values())[-1])
        return super().__call__(rows)


class Lazy:
    """Rows i, i, i that exist only once they are asked for."""

    def __init__(self, n):
        self.n, self.alive, self.most = n, 0, 0

    def __len__(self):
        return self.n

    def __getitem__(self, part):
        rows = torch.arange(self.n)[part].float()[:, None].expand(-1, 3).clone()
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(rows, self._gone)
        return rows

    def _gone(self):
        self.alive -= 1


# --- answers


@pytest.mark.parametrize("batch_size", [None, 1, 2, 7, 100])
def test_answers_come_in_order(batch_size):
    rows = torch.arange(21.0).reshape(7, 3)
    expected = [3, 12, 21, 30, 39, 48, 57]
    assert batched(Counted(), rows, batch_size=batch_size).tolist() == expected
    from_array = batched(Counted(), rows.numpy(), batch_size=batch_size)
    assert isinstance(from_array, np.ndarray)
    assert from_array.tolist() == expected


def test_lazy_rows_in_order():
    assert batched(Counted(), Lazy(5), batch_size=2).tolist() == [0, 3, 6, 9, 12]


def test_any_sequence_will_do():
    sizes = batched(lambda words: np.array([len(w) for w in words]), ["a", "bcd", "", "a"])
    assert sizes.tolist() == [1, 3, 0, 1]


def test_fixed_size_makes_the_chunks():
    function = Counted()
    batched(function, torch.rand(7, 2), batch_size=3)
    assert function.chunks == [3, 3, 1]


def test_answers_of_many_dimensions():
    rows = torch.rand(5, 2, 3)
    assert torch.equal(batched(lambda chunk: chunk * 2, rows, batch_size=2), rows * 2)


def test_gradients_pass():
    rows = torch.tensor([[1.0], [2.0], [1.0]], requires_grad=True)  # one of them repeated
    batched(lambda chunk: chunk[:, 0] ** 2, rows).sum().backward()
    assert rows.grad.flatten().tolist() == [2.0, 4.0, 2.0]  # and both twins get their own


# --- what is refused


@pytest.mark.parametrize("rows", [torch.zeros(0, 3), np.zeros((0, 3)), [], Lazy(0)])
def test_no_rows(rows):
    with pytest.raises(ValueError, match="no rows"):
        batched(Counted(), rows)


@pytest.mark.parametrize(
    ("answer", "came"),
    [(torch.zeros(3), "3"), (torch.zeros(1), "1"), (torch.tensor(1.0), "no"), (None, "no")],
)
def test_a_function_that_does_not_answer_row_by_row(answer, came):
    with pytest.raises(ValueError, match=f"2 rows went in, {came} answers came out"):
        batched(lambda rows: answer, torch.rand(4, 1), batch_size=2)


@pytest.mark.parametrize(
    ("batch_size", "error"),
    [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)],
)
def test_bad_batch_size(batch_size, error):
    with pytest.raises(error, match="batch_size"):
        batched(Counted(), torch.rand(4, 1), batch_size=batch_size)


# --- repeated rows


def as_tensor(array):
    return torch.from_numpy(array)


@pytest.mark.parametrize("kind", [np.asarray, as_tensor])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint8", "int64", "bool"])
@pytest.mark.parametrize("width", [1, 3, 4, 7])
def test_repeated_rows_are_evaluated_once(kind, dtype, width):
    different = np.eye(3, width).astype(dtype)
    different[2, -1] = 1
    different[0, -1] = 0 if width > 1 else 1
    n = len(np.unique(different, axis=0))
    order = [2, 0, 0, 1, 2, 2, 0]
    function = Counted()
    answers = batched(function, kind(different[order]))
    assert sum(function.chunks) == n
    assert answers.tolist() == different[order].sum(1).tolist()


def test_bfloat16_is_merged_too():
    function = Counted()
    answers = batched(function, torch.tensor([[1.0], [2.0], [1.0]], dtype=torch.bfloat16))
    assert answers.tolist() == [1, 2, 1]
    assert sum(function.chunks) == 2


def test_rows_of_one_number_each():
    function = Counted()
    assert batched(function, torch.tensor([3.0, 1.0, 3.0])).tolist() == [3, 1, 3]
    assert sum(function.chunks) == 2


def test_rows_without_numbers():
    assert batched(Counted(), torch.zeros(3, 0)).tolist() == [0, 0, 0]
    assert batched(Counted(), np.zeros((3, 0))).tolist() == [0, 0, 0]


def test_signs_of_zero_are_kept_apart():
    answers = batched(lambda rows: 1 / rows[:, 0], torch.tensor([[0.0], [-0.0], [0.0]]))
    assert answers.tolist() == [float("inf"), float("-inf"), float("inf")]


def test_objects_are_left_alone():
    rows = np.array(["b", "a", "b"], dtype=object)
    assert batched(lambda words: np.array([len(w) for w in words]), rows).tolist() == [1, 1, 1]


def test_a_shared_signature_merges_nothing(monkeypatch):
    monkeypatch.setattr(batching, "_signatures", lambda cells: np.zeros(len(cells), np.uint64))
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    assert batched(Counted(), rows).tolist() == [3, 7, 3]


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(
        st.lists(st.sampled_from([0, 1, 2, 128, 255]), min_size=3, max_size=3),
        min_size=1,
        max_size=12,
    ),
    dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
    tensor=st.booleans(),
)
def test_merging_never_changes_an_answer(numbers, dtype, tensor):
    array = np.array(numbers).astype(dtype)
    function = Counted()
    weights = np.array([1, 1000, 1_000_000])  # tells all these rows apart

    def weighed(rows):
        function(rows)
        return np.asarray(rows).astype(np.int64) @ weights

    answers = batched(weighed, torch.from_numpy(array) if tensor else array)
    assert answers.tolist() == (array.astype(np.int64) @ weights).tolist()
    assert sum(function.chunks) == len({tuple(row) for row in numbers})


# --- sizes


def test_sizes_double_and_settle_on_the_fastest(clock):
    function = Timed(clock, {1: 1.0, 2: 0.8, 4: 0.5, 8: 0.49, 16: 0.6})  # 8: under 3 % better
    batched(function, torch.rand(60, 2))
    assert function.chunks == [1, 2, 4, 8, 16, 4, 4, 4, 4, 4, 4, 4, 1]


def test_one_bad_timing_does_not_settle(clock):
    function = Timed(clock, {1: 1.0, 2: 1.5, 4: 0.5, 8: 0.7, 16: 0.7})
    batched(function, torch.rand(40, 2))
    assert function.chunks == [1, 2, 4, 8, 16, 4, 4, 1]


def test_a_size_is_remembered_for_its_owner(clock):
    owner, rows = nn.ReLU(), torch.rand(40, 2)
    seconds = {1: 1.0, 2: 0.5, 4: 0.6}
    batched(Timed(clock, seconds), rows, owner=owner)
    again, other = Timed(clock, seconds), Timed(clock, seconds)
    batched(again, rows[:5], owner=owner)
    assert again.chunks == [2, 2, 1]
    batched(other, rows[:5], owner=nn.ReLU())
    assert other.chunks == [1, 2, 2]


@pytest.mark.parametrize("other", [torch.rand(5, 3), torch.rand(5, 2, dtype=torch.float64)])
def test_another_shape_or_dtype_is_measured_anew(clock, other):
    owner, seconds = nn.ReLU(), {1: 1.0, 2: 0.5, 4: 0.6}
    batched(Timed(clock, seconds), torch.rand(40, 2), owner=owner)
    function = Timed(clock, seconds)
    batched(function, other, owner=owner)
    assert function.chunks == [1, 2, 2]


def test_measuring_goes_on_where_the_last_call_had_too_few_rows(clock):
    owner, chunks = nn.ReLU(), []
    for _ in range(4):
        function = Timed(clock, {1: 1.0, 2: 0.9, 4: 0.8, 6: 0.7, 12: 0.6, 24: 0.5})
        batched(function, torch.rand(13, 2), owner=owner)
        chunks.append(function.chunks)
    assert chunks == [[1, 2, 4, 6], [12, 1], [13], [13]]  # 13 is hardly more than 12: no news


def test_a_fixed_size_is_not_measured(clock):
    owner = nn.ReLU()
    batched(Timed(clock, {1: 1.0}), torch.rand(8, 2), owner=owner, batch_size=4)
    function = Timed(clock, {1: 1.0, 2: 2.0})
    batched(function, torch.rand(3, 2), owner=owner)
    assert function.chunks == [1, 2]


def test_what_is_known_is_forgotten_with_the_owner(clock):
    owner = nn.ReLU()
    batched(Timed(clock, {1: 1.0}), torch.rand(8, 2), owner=owner)
    assert owner in batching._best_sizes
    gc.collect()  # owners that other tests left
    before, gone = len(batching._best_sizes), weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None, "the memory of sizes keeps the model alive"
    assert len(batching._best_sizes) == before - 1


@pytest.mark.parametrize("owner", [[], 3, "model"])
def test_an_owner_that_cannot_be_remembered_works_too(clock, owner):
    assert batched(Timed(clock, {1: 1.0}), torch.ones(3, 2), owner=owner).tolist() == [2, 2, 2]


def test_a_chunk_never_outgrows_its_bytes(clock, monkeypatch):
    monkeypatch.setattr(batching, "_CHUNK_BYTES", 100)  # 12 rows of 8 bytes
    function = Timed(clock, {1: 1.0, 2: 0.5, 4: 0.25, 8: 0.125, 16: 0.06})  # more is ever faster
    batched(function, torch.rand(30, 2))
    assert function.chunks == [1, 2, 4, 8, 8, 7]


def test_a_row_larger_than_the_limit_goes_alone(clock, monkeypatch):
    monkeypatch.setattr(batching, "_CHUNK_BYTES", 4)
    function = Timed(clock, {1: 1.0, 2: 0.1})
    batched(function, torch.rand(3, 2))
    assert function.chunks == [1, 1, 1]


# --- memory


def test_only_one_chunk_of_lazy_rows_is_alive():
    rows = Lazy(50)
    batched(Counted(), rows)
    assert rows.most == 1
    assert rows.alive == 0


# --- progress


def slow(monkeypatch, seconds, capsys, **options):
    """Evaluate 40 rows that take so long each; return what was written to the terminal."""
    clock = Clock()
    monkeypatch.setattr(tqdm.std, "time", clock)

    def work(rows):
        clock.now += seconds * len(rows)
        return rows[:, 0]

    batched(work, torch.rand(40, 1), batch_size=1, **options)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_a_bar_appears_after_two_seconds(monkeypatch, capsys):
    monkeypatch.delenv("XAILAB_QUIET", raising=False)
    shown = slow(monkeypatch, 0.1, capsys)
    assert "20/40" in shown
    assert "rows" in shown
    assert "10/40" not in shown  # one second


def test_quick_work_shows_nothing(monkeypatch, capsys):
    monkeypatch.delenv("XAILAB_QUIET", raising=False)
    assert "/40" not in slow(monkeypatch, 0.01, capsys)


def test_quiet(monkeypatch, capsys):
    monkeypatch.setenv("XAILAB_QUIET", "1")
    assert slow(monkeypatch, 0.1, capsys) == ""


def test_no_progress_wanted(monkeypatch, capsys):
    monkeypatch.delenv("XAILAB_QUIET", raising=False)
    assert slow(monkeypatch, 0.1, capsys, progress=False) == ""


def test_the_bar_goes_when_the_function_fails(monkeypatch, capsys):
    monkeypatch.delenv("XAILAB_QUIET", raising=False)

    def fail(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batched(fail, torch.rand(4, 1))
    assert not tqdm.std.tqdm._instances


def test_chunks_that_work_backwards_stay_smaller(monkeypatch):
    monkeypatch.setattr(batching, "_CHUNK_BYTES", 8 * 16)
    monkeypatch.setattr(batching, "_GRAPH_BYTES", 2 * 16)
    rows, sizes = torch.rand(40, 4), {True: [], False: []}  # 16 bytes a row
    for gradients, seen in sizes.items():

        def faster_together(chunk, seen=seen):
            seen.append(len(chunk))
            return chunk.sum(1)

        monkeypatch.setattr(batching, "perf_counter", iter(range(0, 10**6)).__next__)
        batching.batched(faster_together, rows, gradients=gradients)
    assert max(sizes[True]) == 2
    assert max(sizes[False]) == 8


@pytest.mark.parametrize("n", [1, 6])
def test_rows_whose_last_side_has_no_stride(n: int) -> None:
    """numpy gives a new axis the stride 0, and torch keeps it."""
    rows = torch.as_tensor(np.arange(float(n))[:, None])
    assert rows.stride(1) == 0
    assert torch.equal(batched(lambda chunk: chunk.sum(1), rows), rows[:, 0])


# --- a busy machine


def per_row(sizes, seconds):
    """One timing of a chunk of the size that is wanted next."""
    rows = sizes.size
    sizes.learn(rows, rows * seconds[rows])
    return rows


def settled(seconds, limit=64):
    sizes = batching._Sizes(limit=limit)
    for _ in range(12):
        per_row(sizes, seconds)
    return sizes


def test_a_size_measured_on_a_busy_machine_is_measured_again():
    busy = settled({1: 5.0, 2: 5.0, 4: 2.0, 8: 5.0, 16: 5.0, 32: 5.0, 64: 5.0})
    assert busy.size == 4
    free = {1: 1.0, 2: 0.5, 4: 1.0, 8: 1.0, 16: 1.0, 32: 1.0, 64: 1.0}
    chunks = [per_row(busy, free) for _ in range(20)]
    assert chunks[:4] == [4, 1, 2, 4]  # twice as fast as it was measured: everything anew
    assert chunks[-1] == 2


def test_a_neighbor_that_was_slow_by_chance_is_tried_again():
    sizes = settled({1: 9.0, 2: 8.0, 4: 7.0, 8: 6.0, 16: 1.0, 32: 2.0, 64: 2.0})
    assert sizes.size == 16
    truth = {1: 1.0, 2: 0.8, 4: 0.1, 8: 0.5, 16: 1.0, 32: 2.0, 64: 2.0}
    assert [per_row(sizes, truth) for _ in range(30)][-1] == 4


def test_trying_neighbors_costs_little_where_nothing_is_to_be_won():
    seconds = {1: 2.0, 2: 1.5, 4: 1.0, 8: 1.2, 16: 1.4}
    sizes = settled(seconds)
    chunks = [per_row(sizes, seconds) for _ in range(400)]
    assert chunks.count(4) > 0.95 * len(chunks)
