"""What every test module starts from."""

import gin
import pytest


@pytest.fixture(scope="module", autouse=True)
def no_bindings():
    """Forgets the gin bindings that another module's tests may have left."""
    gin.clear_config()
