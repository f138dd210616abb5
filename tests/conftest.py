"""What every test module starts from, and the order of the modules."""

import functools
import os
import shutil
import tempfile

import gin
import pytest

# Before TensorFlow: several processes of pytest share the cores, and more threads only take turns.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

#: Directories whose tests run whole programs: those with few long tests go first, so that no
#: process is left with one of them while the others have nothing to do.
_FIRST = ("faults", "runs", "architectures", "plugins", "launch")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    """Temporary files of the tests, and of all that they start, are in pytest's own directory.

    AutoGraph's alone would be thousands in /tmp: a process that is killed leaves them.
    """
    directory = config._tmp_path_factory.getbasetemp() / "tmp"  # no fixture is there this early
    directory.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    config.add_cleanup(functools.partial(shutil.rmtree, directory, ignore_errors=True))


@pytest.fixture(scope="module", autouse=True)
def no_bindings():
    """Forgets the gin bindings that another module's tests may have left."""
    gin.clear_config()


def pytest_collection_modifyitems(items):
    def rank(item):
        room = item.path.parent.name
        return _FIRST.index(room) if room in _FIRST else len(_FIRST)

    items.sort(key=rank)  # stable: within a directory as before
