import pytest

from xailab.data.installed import inside


def test_package_that_is_not_installed():
    with pytest.raises(ImportError, match="run `pip install no-such-thing`"):
        inside("no_such_thing", "a.csv", package="no-such-thing")


def test_file_that_the_package_does_not_have():
    with pytest.raises(FileNotFoundError, match=r"mlxtend as installed has no data/x\.csv"):
        inside("mlxtend", "data/x.csv", package="mlxtend")
