"""A clock that a test sets back and forth, for the processes that it starts: clock_shim.c."""

import os
import pathlib
import platform
import shutil
import struct
import subprocess

import pytest

_SOURCE = pathlib.Path(__file__).with_name("clock_shim.c")


class SetClock:
    """The time of day of processes started with `environment`; skips where it cannot be made.

    Args:
      directory: for its files.
    """

    def __init__(self, directory: pathlib.Path):
        if (platform.system(), platform.machine(), platform.libc_ver()[0]) != (
            *("Linux", "x86_64", "glibc"),
        ):
            pytest.skip("the shim is for Linux on x86-64 with glibc")
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("there is no C compiler")
        self._file, library = directory / "clock", directory / "clock_shim.so"
        command = [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, _SOURCE]
        subprocess.run([*command, "-ldl"], check=True)
        self._file.write_bytes(bytes(8))
        self.environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "CLOCK_SHIM_FILE": str(self._file),
        }

    def set(self, offset_secs: float) -> None:
        """From now on it differs by so much from the machine's."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", int(1e6 * offset_secs)))
