"""Which gradients a learner of Gorila keeps to itself because of their loss."""

from __future__ import annotations

import math

from tfdrl.errors import ConfigurationError


class OutlierFilter:
    """Refuses losses far above those before them (Nair 2015, section 5 'Stability').

    A loss is an outlier if |loss| > mean + num_std std, of the |loss| that were accepted so far
    (population std). One-sided: a small loss harms nobody. The paper does not publish the
    constants, nor what follows a lasting change of scale, after which every loss would be an
    outlier for ever: here the filter gives in after some rejections in a row and begins anew.

    Args:
      num_std: standard deviations above the mean; None accepts every loss.
      warmup: accepted losses before the first can be refused.
      max_rejections_in_a_row: the next outlier is accepted, and the statistics begin with it.

    Attributes:
      rejected: how many losses were refused.

    Raises:
      ConfigurationError: a setting that cannot work.
    """

    def __init__(
        self,
        num_std: float | None = 4.0,
        warmup: int = 20,
        max_rejections_in_a_row: int = 10,
    ):
        if num_std is not None and not 0.0 < num_std < math.inf:
            raise ConfigurationError(
                f"gorila.outlier_num_std = {num_std} must be positive and finite, or None to "
                "accept every gradient"
            )
        if warmup < 2:
            raise ConfigurationError(
                f"gorila.outlier_warmup = {warmup} must be at least 2 losses: fewer have no "
                "standard deviation"
            )
        if max_rejections_in_a_row < 1:
            raise ConfigurationError(
                f"gorila.outlier_max_rejections_in_a_row = {max_rejections_in_a_row} must be at "
                "least 1; to accept every gradient set gorila.outlier_num_std = None"
            )
        self._num_std, self._warmup = num_std, warmup
        self._max_rejections_in_a_row = max_rejections_in_a_row
        self.rejected = 0
        self._begin_anew()

    def accepts(self, loss: float) -> bool:
        """Whether the gradient of this loss may be sent; an accepted loss enters the statistics.

        Raises:
          ValueError: the loss is not finite, which is not for this filter to judge.
        """
        if not math.isfinite(loss):
            raise ValueError(f"loss = {loss}: steps that are not finite are the caller's to skip")
        magnitude = abs(float(loss))
        if self._is_outlier(magnitude):
            if self._rejected_in_a_row < self._max_rejections_in_a_row:
                self.rejected += 1
                self._rejected_in_a_row += 1
                return False
            self._begin_anew()
        self._rejected_in_a_row = 0
        self._add(magnitude)
        return True

    def _begin_anew(self) -> None:
        self._rejected_in_a_row = 0
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def _is_outlier(self, magnitude: float) -> bool:
        if self._num_std is None or self._count < self._warmup:
            return False
        return magnitude > self._mean + self._num_std * math.sqrt(self._squares / self._count)

    def _add(self, magnitude: float) -> None:
        # Welford: `_squares` is the sum of squared distances from the mean of all so far.
        self._count += 1
        distance = magnitude - self._mean
        self._mean += distance / self._count
        self._squares += distance * (magnitude - self._mean)
