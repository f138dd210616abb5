"""Gymnasium environments as batched time steps. No TensorFlow below this package."""

from tfdrl.environments import toys
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.environments.registry import atari_environment, gym_environment

__all__ = ["BatchedEnvironment", "atari_environment", "gym_environment"]

toys.register()
