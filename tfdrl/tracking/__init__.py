"""Runs in experiment trackers: what a run leaves in its directory is followed, and sent there.

Nothing here imports TensorFlow: trackers want newer packages than it, and so an environment of
their own.
"""
