"""Tones: clips of sound in which one note decides, so that we know where and when to listen."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from xailab.data.dataset import Dataset

RATE = 8000  # samples a second
HOP = 128  # samples of a frame of the spectrogram: 16 ms
FRAMES, ROWS = 64, 64  # a row is 62.5 Hz high
ROW_HZ = RATE / 2 / ROWS
SLOT = 16  # frames of a quarter of the clip, and rows of an instrument's band
FLOOR_DB = 60.0  # what is this far below full scale is silence
_WINDOW = 2 * HOP
_LOUDEST = 2.0  # of float samples: a little above full scale happens, integers do not
_NOISE = 0.005  # of the room, root mean square; full scale is 1


@dataclass(frozen=True)
class Instrument:
    """How one instrument sounds.

    Attributes:
        name: what to call it.
        pitch: its one note, in Hz.
        partials: frequency (as a multiple of the pitch) and share of each pure tone in it.
        attack: seconds until it is loud.
        decay: seconds in which it falls to 1/e; it is damped at its end.
        tremolo: how often a second its loudness swings; 0 for a steady one.
        key: the quarter of the clip, 0 to 3, in which its note decides.
    """

    name: str
    pitch: float
    partials: tuple[tuple[float, float], ...]
    attack: float
    decay: float
    tremolo: float
    key: int


INSTRUMENTS = (
    Instrument("horn", 220.0, ((1, 0.5), (2, 0.3), (3, 0.2)), 0.05, 9.0, 0.0, 2),
    Instrument("flute", 1174.7, ((1, 1.0),), 0.03, 9.0, 6.0, 0),
    Instrument("bell", 2093.0, ((1, 0.6), (1.2, 0.4)), 0.005, 0.15, 0.0, 3),
    Instrument("whistle", 3520.0, ((1, 1.0),), 0.01, 9.0, 25.0, 1),
)
CLASSES = [f"{each.name} in quarter {each.key + 1}" for each in INSTRUMENTS]


@dataclass(frozen=True, eq=False)
class Tones:
    """Clips of a second, their spectrograms, and the one place in each that decides.

    Four instruments play one note each, and each owns a quarter of the frequencies: horn (row 0
    to 15), flute, bell, whistle (row 48 to 63). Class k means: instrument k plays in *its*
    quarter of the clip. The horn's is the third, the flute's the first, the bell's the fourth, the
    whistle's the second, and in every clip exactly one of the four does so. In the other quarters
    all of them play at random, which says nothing: the horn in the first quarter is no evidence
    for anything. To know the class one has to hear the right band at the right time.

    Attributes:
        waveforms: (N, 8192) float32 in [-1, 1], 8,000 samples a second, to be listened to.
        spectrograms: (N, 64, 64) float32 in [0, 1]: row f is 62.5 f to 62.5 (f + 1) Hz, column t
            is 16 t to 16 (t + 1) ms; 1 is full scale, 0 is 60 dB below it or less.
        y: (N,) int64, the class, 0 to 3.
        truth: (N, 64, 64) bool, the rectangle of the note that decides: its partials' rows, its
            columns.
        notes: (N, 4, 4) bool, which instrument (second axis) plays in which quarter (third).
        split: (N,) "train" or "test"; the last third is for testing.
    """

    waveforms: np.ndarray
    spectrograms: np.ndarray
    y: np.ndarray
    truth: np.ndarray
    notes: np.ndarray
    split: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Tones({len(self)} clips; classes: {', '.join(CLASSES)})"

    @property
    def classes(self) -> list[str]:
        """What each class means, in words."""
        return list(CLASSES)

    def take(self, rows: np.ndarray) -> "Tones":
        """Return some of the clips: `rows` are numbers or a boolean mask (N,)."""
        chosen = np.arange(len(self))[np.atleast_1d(rows)]
        return Tones(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})

    @property
    def train(self) -> "Tones":
        """Two thirds of the clips, to learn from."""
        return self.take(self.split == "train")

    @property
    def test(self) -> "Tones":
        """The other third."""
        return self.take(self.split == "test")


def tones(seed: int = 0, *, n: int = 600) -> Tones:
    """Make the clips; the same seed gives the same sounds.

    Every class has n / 4 of them. Loudness, tuning (within 3 %), onset and length of every note
    are drawn anew, and there is a little noise in the room.

    Args:
        seed: decides everything that is drawn.
        n: how many clips, at least 12 and a multiple of 12 (four classes, thirds).

    Raises:
        TypeError: n or seed is not an integer.
        ValueError: n is no such number, a negative seed.

    >>> clips = tones(n=12)
    >>> clips.spectrograms.shape, clips.waveforms.shape, clips.classes[clips.y[0]]
    ((12, 64, 64), (12, 8192), 'horn in quarter 3')
    """
    from xailab.core.checks import as_integer  # imported here: it brings torch

    n, seed = as_integer("n", n), as_integer("seed", seed)
    if n < 12 or n % 12:
        raise ValueError(f"n is a number of clips, a multiple of 12, got {n!r}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    generator = np.random.default_rng(seed)
    y = np.arange(n) % len(INSTRUMENTS)
    notes = _who_plays(y, generator)
    waveforms, truth = _played(y, notes, generator)
    return Tones(
        waveforms=waveforms,
        spectrograms=spectrogram(waveforms),
        y=y,
        truth=truth,
        notes=notes,
        split=np.where(np.arange(n) < n * 2 // 3, "train", "test"),
    )


def spectrogram(waveforms: np.ndarray) -> np.ndarray:
    """Return how loud each band is in each frame: (N, 8192) samples -> (N, 64, 64) in [0, 1].

    The short-time Fourier transform with a Hann window of 32 ms around each 16 ms; bands of two
    bins, in decibels below full scale (a pure tone of amplitude 1): 1 + dB / 60, not below 0.

    Args:
        waveforms: (N, 8192) samples, one channel: floats with full scale 1; or what a WAV file
            holds, int8, int16 or int32 with full scale $2^{7}$, $2^{15}$ or $2^{31}$, or uint8
            around 128 with full scale 128.

    Raises:
        TypeError: numbers of another kind.
        ValueError: another shape than (N, 8192), no sound, NaN or infinity, or samples whose size
            does not fit their dtype: floats beyond 2, int32 that all lie within 16 bits.

    >>> t = np.arange(8192) / RATE
    >>> tone = spectrogram(np.sin(2 * np.pi * 1000 * t)[None])[0, :, 30]
    >>> int(tone.argmax()), round(float(tone.max()), 1)  # 1000 Hz is where row 16 begins
    (16, 1.0)
    """
    power = np.abs(_transform(waveforms)) ** 2
    bands = power[:, : 2 * ROWS].reshape(len(power), ROWS, 2, FRAMES).sum(2)
    full = (_hann().sum() / 2) ** 2  # what a tone of amplitude 1 gives in its bin
    decibels = 10 * np.log10(np.maximum(bands / full, 1e-12))
    return np.clip(1 + decibels / FLOOR_DB, 0, 1).astype(np.float32)


def resound(waveforms: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return what is left of sounds when only parts of their spectrograms are kept.

    Every number of the short-time Fourier transform is multiplied by `keep`, and the frames are
    added up again. With `keep` a truth mask, one hears the note that decides.

    Args:
        waveforms: (N, 8192) samples, as in `spectrogram`.
        keep: (N, 64, 64) or (64, 64), 1 or True to keep, 0 or False to silence, or between.

    Returns:
        (N, 8192) float32 with full scale 1; the waveforms themselves where everything is kept.

    Raises:
        TypeError, ValueError: as in `spectrogram`; a `keep` of another shape, or with other
            numbers than 0 to 1.

    >>> clips = tones(n=12)
    >>> whole = resound(clips.waveforms, np.ones((64, 64)))
    >>> bool(np.abs(whole - clips.waveforms).max() < 1e-5)
    True
    """
    found = _transform(waveforms)
    kept = _numbers("keep", keep, "biuf").astype(float)
    if kept.shape not in ((ROWS, FRAMES), (len(found), ROWS, FRAMES)):
        raise ValueError(f"keep must be (N, {ROWS}, {FRAMES}), got {kept.shape}")
    if not ((kept >= 0) & (kept <= 1)).all():
        raise ValueError("keep must hold numbers from 0 to 1; it holds others, or NaN")
    weights = np.repeat(kept, 2, axis=-2)
    weights = np.concatenate([weights, weights[..., -1:, :]], axis=-2)  # the bin at 4,000 Hz
    frames = np.fft.irfft(found * weights, axis=1)  # (N, window, FRAMES)
    sound, share = _added(frames), _added(np.tile(_hann()[None, :, None], FRAMES))
    return (sound / share).astype(np.float32)


def as_dataset() -> Dataset:
    """Return the spectrograms as pictures, what `load("tones")` gives; the rest is in `extra`."""
    clips = tones()
    return Dataset(
        name="tones",
        images=np.round(255 * clips.spectrograms).astype(np.uint8),
        y=clips.y,
        names=[CLASSES[k] for k in clips.y],
        classes=clips.classes,
        target="the instrument that plays in its quarter",
        extra={
            "train": clips.split == "train",
            "truth": clips.truth,
            "waveforms": clips.waveforms,
        },
    )


def _who_plays(y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw who plays when, (N, 4, 4) bool: the key of the class, and any of what is no key."""
    keys = np.array([each.key for each in INSTRUMENTS])
    notes = generator.random((len(y), len(keys), 4)) < 0.4
    notes[:, np.arange(len(keys)), keys] = False
    notes[np.arange(len(y)), y, keys[y]] = True
    return notes


def _played(
    y: np.ndarray, notes: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Play the notes: waveforms (N, 8192), and the rectangle of each key (N, 64, 64)."""
    samples = FRAMES * HOP
    waveforms = generator.normal(0, _NOISE, (len(y), samples))
    truth = np.zeros((len(y), ROWS, FRAMES), dtype=bool)
    for clip, k, quarter in np.argwhere(notes):
        instrument = INSTRUMENTS[k]
        tuned = instrument.pitch * generator.uniform(0.97, 1.03)
        sound = generator.uniform(0.1, 0.2) * _note(instrument, tuned, generator)
        begin = quarter * SLOT * HOP + int(generator.integers(1, 3) * HOP)
        waveforms[clip, begin : begin + len(sound)] += sound
        if quarter == instrument.key:  # there is one such note in every clip, that of class y
            truth[clip] = _rectangle(instrument, tuned, begin, begin + len(sound))
    return waveforms.clip(-1, 1).astype(np.float32), truth


def _note(instrument: Instrument, pitch: float, generator: np.random.Generator) -> np.ndarray:
    """Return one note of amplitude up to 1, 10 to 12 frames long."""
    samples = int(generator.integers(10, 13)) * HOP
    t = np.arange(samples) / RATE
    sound = np.zeros(samples)
    for multiple, share in instrument.partials:
        phase = generator.uniform(0, 2 * np.pi)
        sound += share * np.sin(2 * np.pi * multiple * pitch * t + phase)
    sound *= 1 - 0.25 * (instrument.tremolo > 0) * (1 + np.sin(2 * np.pi * instrument.tremolo * t))
    rise, fall = t / instrument.attack, (t[-1] - t) / 0.02  # damped within 20 ms
    return sound * np.exp(-t / instrument.decay) * np.clip(np.minimum(rise, fall), 0, 1)


def _rectangle(instrument: Instrument, pitch: float, begin: int, end: int) -> np.ndarray:
    """Return the note's place, (64, 64) bool, with what the window spreads: one row and frame."""
    multiples = [multiple for multiple, _ in instrument.partials]
    low, high = min(multiples) * pitch // ROW_HZ, max(multiples) * pitch // ROW_HZ
    row, frame = np.arange(ROWS)[:, None], np.arange(FRAMES)[None]
    in_band = (row >= low - 1) & (row <= high + 1)
    return in_band & (frame >= begin // HOP - 1) & (frame <= end // HOP)


def _hann() -> np.ndarray:
    """Return the Hann window; windows half a window apart add up to 1."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)


def _transform(waveforms: np.ndarray) -> np.ndarray:
    """Return the short-time Fourier transform, (N, 129, 64) complex."""
    samples = _full_scale(_numbers("waveforms", waveforms, "iuf"))
    if samples.shape[1:] != (FRAMES * HOP,) or not len(samples):
        raise ValueError(
            f"waveforms must be (N, {FRAMES * HOP}), got {samples.shape}: sounds of one channel"
        )
    padded = np.pad(samples, ((0, 0), (HOP // 2, HOP // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW, axis=1)[:, ::HOP]
    return np.fft.rfft(windows * _hann(), axis=2).swapaxes(1, 2)


def _numbers(name: str, values: Any, kinds: str) -> np.ndarray:
    """Return a tensor, an array or a list as an array, if it holds numbers of these kinds."""
    if hasattr(values, "detach"):
        from xailab.core.outputs import as_array  # imported here: it brings torch

        values = as_array(values)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must have one shape, got rows of different lengths") from error
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} must hold numbers, got {array.dtype}")
    return array


def _full_scale(samples: np.ndarray) -> np.ndarray:
    """Return samples as floats with full scale 1, whatever kind of WAV file they came from."""
    if samples.dtype.kind == "f":
        loudest = np.abs(samples).max(initial=0)
        if not np.isfinite(loudest):
            raise ValueError("waveforms hold values that are NaN or infinite")
        if loudest > _LOUDEST:
            raise ValueError(
                f"float waveforms must lie in -1..1, these reach {loudest:.4g}: divide them by "
                "their full scale, 32768 for what were 16 bits"
            )
        return samples.astype(float)
    if samples.dtype == np.uint8:
        return (samples.astype(float) - 128) / 128
    if samples.dtype not in (np.int8, np.int16, np.int32):
        raise TypeError(
            f"waveforms must be floats in -1..1, or int16, int32, int8 or uint8 as in a WAV file, "
            f"got {samples.dtype}"
        )
    scaled = samples / -float(np.iinfo(samples.dtype).min)
    if samples.dtype == np.int32 and 0 < np.abs(scaled).max(initial=0) <= 2.0**-16:
        raise ValueError("waveforms are int32, but all lie within 16 bits: give them as int16")
    return scaled


def _added(frames: np.ndarray) -> np.ndarray:
    """Add frames (N, window, 64) up where they overlap, and cut the margins: (N, 8192)."""
    halves = frames.reshape(len(frames), 2, HOP, FRAMES)
    sound = np.zeros((len(frames), FRAMES + 1, HOP))
    sound[:, :-1] += halves[:, 0].swapaxes(1, 2)
    sound[:, 1:] += halves[:, 1].swapaxes(1, 2)
    return sound.reshape(len(frames), -1)[:, HOP // 2 : -HOP // 2]
