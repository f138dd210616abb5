"""Eager tensors of TensorFlow 2.15 that leave nothing behind on Python 3.11.

There `object.__new__` gives each new object of a class with a `__dict__` a place for its
attributes, which the class's deallocator must free. TensorFlow's own, in C++, was written before
and does not (https://github.com/tensorflow/tensorflow/issues/62551): each tensor that Python ever
saw cost 16 to 48 bytes for good, and one with an attribute some 340: a learner some MB a minute.
"""

from __future__ import annotations

import ctypes
import logging
import platform
import sys

#: Of CPython's typeslots.h, and where its PyTypeObject of 64 bits has that slot.
_TP_NEW = 65
_OFFSET_OF_TP_NEW = 312


def make_without_place_for_attributes() -> None:
    """Eager tensors of this process have no dictionary of attributes from here on.

    One whose attributes are set after all gets it then, and leaves it behind. Nothing happens on a
    Python that is not 3.11, or is not as expected.
    """
    if sys.version_info[:2] != (3, 11) or platform.python_implementation() != "CPython":
        return
    try:
        from tensorflow.python.framework.ops import EagerTensor

        _make_as_extension_types_do(EagerTensor)
        _leave_zeros_unmarked(EagerTensor)
    except Exception as error:  # parts of TensorFlow and Python that may change; it costs memory
        logging.warning("eager tensors go on to leave memory behind: %s", error)


def _make_as_extension_types_do(eager_tensor: type) -> None:
    """By `PyType_GenericNew`."""
    python = ctypes.pythonapi
    slot_of = python.PyType_GetSlot
    slot_of.argtypes, slot_of.restype = [ctypes.py_object, ctypes.c_int], ctypes.c_void_p
    made_by = slot_of(eager_tensor, _TP_NEW)
    slot = ctypes.c_void_p.from_address(id(eager_tensor) + _OFFSET_OF_TP_NEW)
    if made_by == slot_of(object, _TP_NEW) == slot.value:
        slot.value = ctypes.cast(python.PyType_GenericNew, ctypes.c_void_p).value


def _leave_zeros_unmarked(eager_tensor: type) -> None:
    """The one attribute that TensorFlow itself sets, on what tf.zeros and tf.zeros_like return.

    By the mark a gradient of a gradient of a cross-entropy leaves out terms that are zero anyhow.
    """
    eager_tensor._is_zeros_tensor = property(lambda tensor: False, lambda tensor, mark: None)
