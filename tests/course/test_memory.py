import subprocess
import sys

CODE = "from xailab.course.memory import peak_mb; import sys; {}; print(peak_mb())"


def peak(code):
    command = [sys.executable, "-c", CODE.format(code)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_the_peak_counts_memory_that_was_given_back():
    small, large = peak("pass"), peak("b = bytearray(b'x') * (200 * 2**20); del b")
    assert 5 < small < 100
    assert 180 < large - small < 230
