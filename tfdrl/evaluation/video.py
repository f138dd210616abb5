"""Writes pictures to an mp4 file as they come, so that a long game fits in memory."""

from __future__ import annotations

import pathlib

import numpy as np

from tfdrl.errors import ConfigurationError


class Video:
    """An mp4 file (H.264); it exists in full after `close`.

    Args:
      path: ends in .mp4; its directory is made if need be.
      pictures_per_second: speed of the recording.

    Raises:
      ConfigurationError: the library is missing, or the file cannot be written.
    """

    def __init__(self, path: str | pathlib.Path, pictures_per_second: float):
        self.path = pathlib.Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ConfigurationError(f"--video={path}: the file's name must end in .mp4")
        try:
            import imageio.v2 as imageio
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError) as error:
            raise ConfigurationError(
                f'--video needs imageio with ffmpeg ({error}): pip install "tfdrl[video]"'
            ) from error
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise ConfigurationError(
                f"--video={path} cannot be written: {error.strerror}"
            ) from None
        self.pictures = 0
        # Players want even widths and heights: anything odd is scaled by a pixel.
        self._writer = imageio.get_writer(
            str(self.path), format="FFMPEG", fps=pictures_per_second, macro_block_size=2
        )

    def add(self, picture: np.ndarray) -> None:
        """Appends <uint8>[height, width, 3]."""
        self._writer.append_data(picture)
        self.pictures += 1

    def close(self) -> None:
        self._writer.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *unused) -> None:
        self.close()
