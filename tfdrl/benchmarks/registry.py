"""Which architectures the benchmark can measure."""

from __future__ import annotations

from tfdrl.benchmarks import apex, impala
from tfdrl.benchmarks.subject import Subject
from tfdrl.errors import ConfigurationError

_SUBJECTS = (apex.SUBJECT, impala.SUBJECT)


def subject_of(config) -> Subject:
    """What to measure of an architecture's settings.

    Raises:
      ConfigurationError: nobody has said what its parts are.
    """
    for subject in _SUBJECTS:
        if isinstance(config, subject.config):
            return subject
    names = ", ".join(subject.name for subject in _SUBJECTS)
    raise ConfigurationError(
        f"the benchmark measures {names} and SEED RL, not {type(config).__name__}; give a gin file "
        "with experiment.architecture = @apex(), @impala() or @seed(), such as apex/cartpole.gin"
    )
