"""What every test module starts from, and the order of the modules."""

import os

import gin
import pytest

# Before TensorFlow: several processes of pytest share the cores, and more threads only take turns.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

#: Directories whose tests run whole programs: those with few long tests go first, so that no
#: process is left with one of them while the others have nothing to do.
_FIRST = ("faults", "runs", "architectures", "plugins", "launch")


@pytest.fixture(scope="module", autouse=True)
def no_bindings():
    """Forgets the gin bindings that another module's tests may have left."""
    gin.clear_config()


def pytest_collection_modifyitems(items):
    def rank(item):
        room = item.path.parent.name
        return _FIRST.index(room) if room in _FIRST else len(_FIRST)

    items.sort(key=rank)  # stable: within a directory as before
