"""Command-line programs: thin absl mains, installed as tfdrl-train, tfdrl-learner and so on."""
