"""tfdrl: distributed deep reinforcement learning on TensorFlow and TF-Agents.

Importing this package loads neither TensorFlow nor any of its own submodules.
"""

__version__ = "0.2.0"
