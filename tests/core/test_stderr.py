import os

import pytest

from xailab.core.stderr import muted


def test_nothing_that_is_written_inside_arrives_and_all_that_is_outside_does(capfd):
    os.write(2, b"before ")
    with muted():
        os.write(2, b"from C")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_an_error_passes_and_the_stream_is_back(capfd):
    with pytest.raises(KeyboardInterrupt), muted():
        raise KeyboardInterrupt
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_no_descriptor_is_left_open():
    before = os.dup(2)
    os.close(before)
    for _ in range(3):
        with muted():
            pass
    after = os.dup(2)
    os.close(after)
    assert after == before
