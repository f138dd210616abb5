"""Packaging. The checkout's binaries/ and gin/ are installed inside the tfdrl package.

A top-level package called "binaries" would litter site-packages, and one called "gin" would
hide the gin library, so a wheel carries them as tfdrl/binaries and tfdrl/gin_files, and trained
policies as tfdrl/policies. What people use beside Python goes to share/tfdrl of the environment.
pyproject.toml says what tfdrl is.
"""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (ROOT / "tfdrl" / "__init__.py").read_text(), re.MULTILINE
).group(1)

COMMANDS = (
    "train",
    "learner",
    "actor",
    "replay_server",
    "evaluator",
    "evaluate",
    "benchmark",
    "compare",
    "report",
    "seed_learner",
    "seed_actor",
    "parameter_server",
    "parameters",
    "coordinator",
    "worker",
    "manifests",
    "health",
    "plan",
    "watch",
    "runs",
    "settings",
    "track",
    "completion",
)

# pip looks for what tfdrl depends on before it compares python_requires, and would find fault with
# that, or build NumPy for minutes. So on a newer Python tfdrl depends on nothing.
IN_RANGE = 'python_version < "3.12"'

REQUIREMENTS = [
    "tensorflow>=2.15.0,<2.16",  # dm-reverb 0.14 does not load on 2.16
    "tf-agents>=0.19.0,<0.20",
    "dm-reverb>=0.14.0,<0.15",
    "tensorflow-probability>=0.23.0,<0.24",
    "keras>=2.15.0,<2.16",
    "numpy>=1.23.5,<2",
    "gymnasium>=1.1,<2",
    "gin-config>=0.5.0,<0.6",
    "absl-py>=1.0",
    "grpcio>=1.60,<2",
    "grpcio-health-checking>=1.60,<1.63",  # newer ones want protobuf 5
    "grpcio-reflection>=1.60,<1.63",
    "protobuf>=4.21.6,<5",
    "rich>=13",
    "dm-tree>=0.1.8",
    "matplotlib>=3.7",  # the learning curve of a run
    "PyYAML>=6,<7",  # Kubernetes manifests
    "tensorboard>=2.15,<2.16",  # events, for reports
    "setproctitle>=1.3,<2",  # forked roles
    "simpy>=4.1,<5",  # plans
]

ATARI = ["ale-py>=0.11,<0.13", "opencv-python-headless>=4.8,<4.12"]  # newer OpenCV wants numpy 2
MUJOCO = ["mujoco>=3.1,<3.4", "imageio>=2.28,<3"]  # newer ones have no wheel for 3.9
DOCS = ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.26,<2"]
VIDEO = ["imageio>=2.28,<3", "imageio-ffmpeg>=0.4.9,<1"]

# Newer ones want typing_extensions 4.6; TF-Agents 0.19 wants 4.5.0.
EXAMPLES = ["nbclient>=0.8", "ipykernel>=6,<7", "ipython>=8,<8.19", "optuna>=4,<5"]

#: Files of the checkout that an environment keeps in share/tfdrl.
SHARED = [
    "constraints.txt",
    "requirements-seed-actor.txt",
    "requirements-track.txt",
    "docker/make_certificates.sh",
]

setuptools.setup(
    version=VERSION,
    packages=[
        *setuptools.find_packages(include=["tfdrl", "tfdrl.*"]),
        "tfdrl.binaries",
        "tfdrl.gin_files",
        "tfdrl.policies",
    ],
    package_dir={
        "tfdrl.binaries": "binaries",
        "tfdrl.gin_files": "gin",
        "tfdrl.policies": "policies",
    },
    package_data={
        "": ["*.proto"],
        "tfdrl": ["py.typed", "__init__.pyi"],
        "tfdrl.configuration": ["names/*.json"],
        "tfdrl.gin_files": ["**/*.gin"],
        "tfdrl.policies": ["**/*"],
    },
    data_files=[("share/tfdrl", SHARED)],
    install_requires=[f"{requirement}; {IN_RANGE}" for requirement in REQUIREMENTS],
    extras_require={
        "atari": ATARI,
        "docs": DOCS,
        "examples": EXAMPLES,
        "mujoco": MUJOCO,
        "profile": ["py-spy>=0.3.14,<0.5"],  # who holds the interpreter's lock
        # For `ray job submit` the cluster wants ray[default]: docs/ray.md.
        "ray": ["ray>=2.60,<3; python_version >= '3.10'"],
        "video": VIDEO,
        "test": [
            "pytest>=8",
            "h2>=4.1",
            "pytest-timeout>=2.2",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "kubernetes-validate>=1.30,<2",  # Kubernetes' schemas
            "setuptools>=77",
            "wheel",
            *ATARI,
            *DOCS,
            *EXAMPLES,
            *MUJOCO,
            *VIDEO,
        ],
    },
    entry_points={
        "console_scripts": ["tfdrl = tfdrl.binaries.main:console"]
        + [
            f"tfdrl-{command.replace('_', '-')} = tfdrl.binaries.{command}:console"
            for command in COMMANDS
        ]
    },
)
