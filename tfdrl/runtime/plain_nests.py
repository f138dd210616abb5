"""Nests without the wrappers that a tf.Module, such as a TFPolicy, puts around its attributes."""

from __future__ import annotations

from collections.abc import Mapping

from tfdrl.types import Nest


def plain(nest: Nest) -> Nest:
    """The nest of dicts and tuples alone; lists become tuples.

    Reverb knows no wrappers; with typing_extensions 4.6 or newer, a tf.function of TensorFlow 2.15
    cannot take a wrapped dict either.
    """
    if isinstance(nest, Mapping):
        return {key: plain(value) for key, value in nest.items()}
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return nest.__class__(*map(plain, nest))
    if isinstance(nest, (list, tuple)):
        return tuple(map(plain, nest))
    return nest
