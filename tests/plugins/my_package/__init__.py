"""A user's own package: an environment of each kind, a network of each kind, two agents."""
