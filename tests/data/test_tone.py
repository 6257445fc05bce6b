"""One note decides, its place is known, and nothing else in the clip tells the class."""

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from xailab.data import load, resound, spectrogram, tones
from xailab.data.tone import INSTRUMENTS, RATE

CLIPS = tones(seed=0)
KEYS = [each.key for each in INSTRUMENTS]


def sine(hertz, amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(8192) / RATE)


def test_shapes_and_types():
    assert CLIPS.waveforms.shape == (600, 8192)
    assert CLIPS.spectrograms.shape == CLIPS.truth.shape == (600, 64, 64)
    assert CLIPS.waveforms.dtype == CLIPS.spectrograms.dtype == np.float32
    assert (CLIPS.y.dtype, CLIPS.truth.dtype, CLIPS.notes.dtype) == (np.int64, bool, bool)
    assert CLIPS.spectrograms.min() == 0
    assert 0.5 < CLIPS.spectrograms.max() < 1
    assert np.abs(CLIPS.waveforms).max() < 1, "nothing is clipped"


def test_same_seed_same_sound_other_seed_other_sound():
    again, other = tones(seed=0), tones(seed=1)
    assert (again.waveforms == CLIPS.waveforms).all()
    assert (again.spectrograms == CLIPS.spectrograms).all()
    assert (other.notes != CLIPS.notes).any()


def test_classes_and_parts():
    assert np.bincount(CLIPS.train.y).tolist() == [100] * 4
    assert np.bincount(CLIPS.test.y).tolist() == [50] * 4
    assert len(set(KEYS)) == len(CLIPS.classes) == 4


def test_exactly_one_instrument_plays_in_its_quarter_and_it_is_the_class():
    keys = CLIPS.notes[:, range(4), KEYS]
    assert (keys.sum(1) == 1).all()
    assert (keys.argmax(1) == CLIPS.y).all()


def test_the_other_notes_tell_nothing():
    """A tree on the twelve other places is right by chance, on all sixteen always."""
    keys = np.zeros((4, 4), dtype=bool)
    keys[range(4), KEYS] = True
    train, test = CLIPS.train, CLIPS.test
    right = {}
    for name, places in (("others", ~keys), ("all", np.ones((4, 4), dtype=bool))):
        tree = DecisionTreeClassifier(max_depth=6, random_state=0)
        tree.fit(train.notes[:, places], train.y)
        right[name] = tree.score(test.notes[:, places], test.y)
    assert right["others"] < 0.35
    assert right["all"] == 1


@pytest.mark.parametrize(
    ("hertz", "row"), [(31.25, 0), (156.25, 2), (1000, 16), (1031.25, 16), (3906.25, 62)]
)
def test_rows_by_hand(hertz, row):
    """Row f holds the bins 2 f and 2 f + 1, of 31.25 Hz each."""
    frame = spectrogram(sine(hertz)[None])[0, :, 20]
    assert frame.argmax() == row


def test_loudness_by_hand():
    """A tone in the middle of a bin: window weights 1, 1/2, 1/2 on three bins.

    Row 16 has bin 32, where the tone is, and its neighbor 33: power 1 + 1/4. A tenth of the
    amplitude is 20 dB less, a third of the scale; a thousandth is below the floor.
    """
    loud, soft, silent = spectrogram(np.stack([sine(1000), sine(1000, 0.1), sine(1000, 1e-4)]))
    assert soft[16, 20] == pytest.approx(1 + (10 * np.log10(1.25) - 20) / 60, abs=1e-5)
    assert loud[16, 20] == 1, "above full scale is full scale"
    assert silent.max() == 0


def test_frames_by_hand():
    """A click in sample 1000 = 7 * 128 + 104 lies in the windows of frames 7 and 8 alone."""
    click = np.zeros((1, 8192))
    click[0, 1000] = 1
    assert np.flatnonzero(spectrogram(click)[0].max(0)).tolist() == [7, 8]


def test_the_truth_holds_the_note_and_no_other():
    """Take the note away (what the truth mask sounds like): its place falls silent."""
    rest = CLIPS.waveforms - resound(CLIPS.waveforms, CLIPS.truth)
    inside = CLIPS.spectrograms[CLIPS.truth].mean()
    assert spectrogram(rest)[CLIPS.truth].mean() < 0.25 * inside
    for k, instrument in enumerate(INSTRUMENTS):
        rows, frames = np.nonzero(CLIPS.truth[CLIPS.y == k].any(0))
        assert rows.min() >= 16 * k - 1
        assert rows.max() <= 16 * k + 15
        assert frames.min() // 16 == frames.max() // 16 == instrument.key


def test_the_loudest_place_of_the_band_and_quarter_is_inside():
    for clip, k, truth in zip(CLIPS.spectrograms, CLIPS.y, CLIPS.truth, strict=True):
        quarter = slice(16 * KEYS[k], 16 * KEYS[k] + 16)
        cell = clip[16 * k : 16 * k + 16, quarter]
        place = np.unravel_index(cell.argmax(), cell.shape)
        assert truth[16 * k : 16 * k + 16, quarter][place]
        assert cell[~truth[16 * k : 16 * k + 16, quarter]].max() < 0.6 * cell.max()


def test_the_rectangle_is_small():
    share = CLIPS.truth.mean((1, 2))
    assert 0.008 < share.min() < share.max() < 0.04


def test_what_is_kept_is_heard_and_the_rest_is_not():
    low, high = sine(500, 0.3), sine(3000, 0.3)
    keep = np.zeros((64, 64))
    keep[:32] = 1
    heard = resound((low + high)[None], keep)[0]
    middle = slice(512, -512)
    assert np.abs(heard - low)[middle].max() < 0.01
    whole = resound(CLIPS.waveforms[:5], np.ones((5, 64, 64)))
    np.testing.assert_allclose(whole, CLIPS.waveforms[:5], atol=1e-5)


def test_the_registry_gives_the_same():
    data = load("tones")
    assert (np.abs(data.images / 255 - CLIPS.spectrograms) <= 0.5 / 255 + 1e-6).all()
    assert (data.y == CLIPS.y).all()
    assert (data.extra["truth"] == CLIPS.truth).all()
    assert data.names[0] == data.classes[data.y[0]] == "horn in quarter 3"
    assert "the right explanation is known" in data.card


@pytest.mark.parametrize("n", [0, -12, 13, 100])
def test_bad_numbers(n):
    with pytest.raises(ValueError, match=f"multiple of 12, got {n}"):
        tones(n=n)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"n": 12.0}, TypeError, "n must be an integer, got float"),
        ({"n": "12"}, TypeError, "n must be an integer, got str"),
        ({"n": True}, TypeError, "n must be an integer, got bool"),
        ({"seed": 1.5}, TypeError, "seed must be an integer"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(given, error, words):
    with pytest.raises(error, match=words):
        tones(**given)


def test_integers_of_any_kind():
    assert (tones(np.int32(1), n=np.int64(12)).y == tones(1, n=12).y).all()


def test_one_clip_is_still_a_set_of_clips():
    assert CLIPS.take(3).waveforms.shape == (1, 8192)
    assert CLIPS.take([3, 3]).y.tolist() == [CLIPS.y[3]] * 2


@pytest.mark.parametrize(
    ("dtype", "full", "middle"),
    [("int8", 2**7, 0), ("int16", 2**15, 0), ("int32", 2**31, 0), ("uint8", 2**7, 2**7)],
)
def test_samples_of_a_wav_file_are_scaled_by_their_range(dtype, full, middle):
    """Half of full scale is half of full scale, as a float or as any integer."""
    numbers = np.round(sine(1000, 0.5)[None] * full)
    stored = (numbers + middle).astype(dtype)
    np.testing.assert_array_equal(spectrogram(stored), spectrogram(numbers / full))
    everything = np.ones((64, 64))
    np.testing.assert_allclose(resound(stored, everything), numbers / full, atol=1e-5)
    assert np.abs(resound(stored, everything)).max() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_of_every_precision(dtype):
    given = torch.tensor(sine(1000, 0.5)[None]).to(dtype)
    np.testing.assert_allclose(
        spectrogram(given)[:, 16], spectrogram(sine(1000, 0.5)[None])[:, 16], atol=0.01
    )


def test_silence_is_silence_in_every_dtype():
    for silent in (np.zeros((1, 8192), np.int32), np.full((1, 8192), 128, np.uint8)):
        assert spectrogram(silent).max() == 0


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        (np.where(np.arange(8192) == 5, np.nan, sine(1000))[None], ValueError, "NaN or infinite"),
        (np.full((1, 8192), np.inf), ValueError, "NaN or infinite"),
        (sine(1000)[None] * 2**15, ValueError, r"lie in -1..1, these reach 3.277e\+04"),
        ((sine(1000)[None] * 2**15 * 0.99).astype(np.int32), ValueError, "int32, .*16 bits"),
        (np.ones((1, 8192), np.int64), TypeError, "got int64"),
        (np.ones((1, 8192), np.uint16), TypeError, "got uint16"),
        (np.ones((1, 8192), bool), TypeError, "got bool"),
        (np.ones((1, 8192), complex), TypeError, "got complex128"),
        (np.full((1, 8192), "1"), TypeError, "numbers, got <U1"),
        (np.zeros((2, 8192, 2)), ValueError, r"got \(2, 8192, 2\): .*one channel"),
        (sine(1000), ValueError, r"got \(8192,\)"),
        (np.zeros((0, 8192)), ValueError, r"got \(0, 8192\)"),
        (np.zeros((2, 0)), ValueError, r"got \(2, 0\)"),
        ([[0.0], [0.0, 1.0]], ValueError, "rows of different lengths"),
    ],
)
def test_what_is_no_sound(samples, error, words):
    with pytest.raises(error, match=words):
        spectrogram(samples)
    with pytest.raises(error, match=words):
        resound(samples, np.ones((64, 64)))


@pytest.mark.parametrize(
    ("keep", "error"),
    [
        (np.full((64, 64), 255), ValueError),
        (np.full((64, 64), np.nan), ValueError),
        (-np.ones((64, 64)), ValueError),
        (np.ones((64, 64), complex), TypeError),
        (np.full((64, 64), "1"), TypeError),
    ],
)
def test_what_is_no_share_to_keep(keep, error):
    with pytest.raises(error, match="keep must"):
        resound(sine(1000)[None], keep)


def test_what_is_kept_by_half_sounds_half_as_loud():
    wave = sine(1000, 0.5)[None]
    np.testing.assert_allclose(resound(wave, np.full((64, 64), 0.5)), wave / 2, atol=1e-5)
    kept = resound(wave, torch.ones(64, 64, dtype=torch.bool))
    np.testing.assert_allclose(kept, wave, atol=1e-5)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"\(N, 8192\), got \(2, 100\)"):
        spectrogram(np.zeros((2, 100)))
    with pytest.raises(ValueError, match=r"keep must be .*got \(3, 64, 64\)"):
        resound(np.zeros((2, 8192)), np.ones((3, 64, 64)))
