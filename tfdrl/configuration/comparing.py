"""What changed between two configurations, for people."""

from __future__ import annotations


def differences(old_text: str, new_text: str) -> list[str]:
    """Lines such as "apex.actors: 4 -> 8" for two `Configuration.text`, sorted by name."""
    old, new = settings(old_text), settings(new_text)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, "(not set)"), new.get(name, "(not set)")
        if before != after:
            lines.append(f"{name}: {before} -> {after}")
    return lines


def settings(text: str) -> dict[str, str]:
    """The settings of a `Configuration.text`: their values, as gin writes them, by name."""
    entries = {}
    for line in text.splitlines():
        name, equals, value = line.partition(" = ")
        if equals:
            entries[name] = value
        elif line.strip():
            entries[line.strip()] = "(set)"  # an import line
    return entries
