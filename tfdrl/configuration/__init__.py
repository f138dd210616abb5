"""Gin files, checked before anything is imported and loaded as far as a role may.

The same gin file serves a role with TensorFlow and one without. gin wants a module imported
before it knows its names, so `check` reads the names from the source text instead: a typo is an
error in every role, at once. `load` then imports what the role may have and binds it.

Imports the standard library and gin only.
"""

from tfdrl.configuration.catalogue import Catalogue, catalogue
from tfdrl.configuration.checking import Configuration, check
from tfdrl.configuration.comparing import differences, settings
from tfdrl.configuration.files import (
    find_gin_file,
    gin_file_names,
    gin_programs,
    is_measured,
    read_utf8,
)
from tfdrl.configuration.loading import Unavailable, load
from tfdrl.configuration.registrations import Configurable
from tfdrl.configuration.sharing import unheeded
from tfdrl.configuration.values import meaning

__all__ = [
    "Catalogue",
    "Configurable",
    "Configuration",
    "Unavailable",
    "catalogue",
    "check",
    "differences",
    "find_gin_file",
    "gin_file_names",
    "gin_programs",
    "is_measured",
    "load",
    "meaning",
    "read_utf8",
    "settings",
    "unheeded",
]
