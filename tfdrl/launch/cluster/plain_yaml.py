"""YAML as people write it: texts of several lines as they are, keys in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml


def text(documents: Sequence[Any], compact: bool = False) -> str:
    """The documents, with a line of three hyphens between them.

    Args:
      documents: of dictionaries, lists and scalars.
      compact: writes lists of texts in brackets, not a line for each.
    """
    dumper, width = (_CompactDumper, 100) if compact else (_Dumper, 1000)
    return yaml.dump_all(documents, Dumper=dumper, sort_keys=False, width=width)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and nothing by reference."""

    def ignore_aliases(self, data):
        return True


class _CompactDumper(_Dumper):
    """Writes lists of texts in brackets."""


def _represent_text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    style = "|" if "\n" in data else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


def _represent_list(dumper: yaml.SafeDumper, data: list) -> yaml.SequenceNode:
    is_flat = all(isinstance(item, str) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=is_flat)


_Dumper.add_representer(str, _represent_text)
_CompactDumper.add_representer(list, _represent_list)
