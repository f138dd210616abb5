"""An `nvidia-smi` for machines without a GPU: it prints what the driver's own would."""

import pathlib

#: index, uuid, name, memory.free and memory.total in MB.
LINE = "{index}, GPU-{index}a1b2, {name}, {free}, 143771"


def install(directory: pathlib.Path, *free_mb: int, name: str = "NVIDIA H200") -> pathlib.Path:
    """Writes it to `directory`, with so much free memory for each GPU; returns the directory."""
    directory.mkdir(exist_ok=True)
    lines = [LINE.format(index=i, name=name, free=free) for i, free in enumerate(free_mb)]
    program = directory / "nvidia-smi"
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(0o755)
    return directory
