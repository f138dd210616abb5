"""Makes policies/NAME/ of a run: what plays it, its learning curve, and its model card.

python tests/support/make_policies.py cartpole-impala=runs/impala catch_memory-r2d2=runs/r2d2
"""

import csv
import json
import math
import pathlib
import shlex
import shutil
import sys
import threading

from paths import CHECKOUT

from tfdrl.launch import run_directory, run_facts
from tfdrl.launch.tools import evaluate
from tfdrl.launch.trained_policies import CARD
from tfdrl.reports import page, run

#: Of a run's directory; the SavedModel's empty directory of assets is not kept in git.
_FILES = (run_directory.CONFIG, run_directory.VERSION, run_directory.EVALUATIONS)
EPISODES = 100
TASKS = {
    "CartPole-v1": (
        "balance a pole on a cart by pushing it left or right; reward 1 a step, 500 at most",
        "Episodes are cut after 500 steps; longer ones were not tried, nor\nanother pole, cart or "
        "force.",
    ),
    "tfdrl/CatchMemory-v0": (
        "catch a ball that is seen in the first row only, 9 steps later; reward 1 or -1 at the end",
        "A grid of another size is another task.",
    ),
}


def make(name: str, root_dir: pathlib.Path) -> pathlib.Path:
    """Writes policies/NAME/ anew; returns it."""
    target = CHECKOUT / "policies" / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root_dir / run_directory.POLICY, target / run_directory.POLICY)
    for file in _FILES:
        shutil.copy(root_dir / file, target / file)
    (target / CARD).write_text(_card(name, root_dir, target))
    return target


def _card(name: str, root_dir: pathlib.Path, target: pathlib.Path) -> str:
    ran, stored = run.read(root_dir), json.loads((root_dir / run_facts.FILE).read_text())
    chosen = json.loads((target / run_directory.POLICY / "evaluation.json").read_text())
    request = evaluate.Request(target, EPISODES, policy=str(target / run_directory.POLICY))
    played = evaluate.evaluate(request, threading.Event())
    task, architecture = run.task_of(ran.config), page.NAMES[ran.architecture]
    about, limits = TASKS[task]
    rows = {
        "task": f"`{task}`: {about}",
        "architecture": f"{architecture}; every setting is in `config.gin`",
        "command": f"`{_command(stored['command'])}`",
        "seed": stored["seed"],
        "trained on": f"{chosen['frames']:,} environment frames, {chosen['version']:,} learner "
        f"steps, {_secs(root_dir, chosen['version']):.0f} s of training",
        "machine": f"{stored['machine']['cores']} cores, {stored['machine']['processor']}",
        "evaluation": f"greedy, {played.episodes} episodes, from the seed "
        f"{stored['seed'] + evaluate.SEED_OFFSET}, by which nothing was trained or chosen: "
        f"mean {played.mean:.2f} ± {played.standard_error:.2f} (standard error), "
        f"median {played.median:g}, lowest {played.min:g}, highest {played.max:g}",
        "size": _size(target / run_directory.POLICY),
        "versions": ", ".join(f"{key} {value}" for key, value in stored["versions"].items()),
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return (
        f"# {architecture} on {task}: mean return {played.mean:.2f} over {EPISODES} episodes\n\n"
        f"| | |\n|---|---|\n{table}\n\n    tfdrl evaluate --policy={name}\n\n"
        "**Limits.** The best that the evaluations of one run found, not the mean of several\n"
        f"seeds. {limits}\n"
    )


def _size(policy: pathlib.Path) -> str:
    import tensorflow as tf

    variables = tf.train.list_variables(str(policy / "variables" / "variables"))
    shapes = [shape for path, shape in variables if path.startswith("model_variables")]
    parameters = sum(math.prod(shape) for shape in shapes)
    files = sum(path.stat().st_size for path in policy.rglob("*") if path.is_file())
    return f"{parameters:,} parameters, {files / 1000:,.0f} kB"


def _command(words: list[str]) -> str:
    """As it is typed; where a run's files go is the reader's own choice."""
    left_out = ("-m", "binaries.train")
    kept = [w for w in words[1:] if w not in left_out and not w.startswith("--root_dir")]
    return shlex.join(["tfdrl-train", *kept])


def _secs(root_dir: pathlib.Path, version: int) -> float:
    with (root_dir / run_directory.EVALUATIONS).open() as file:
        rows = [row for row in csv.DictReader(file) if int(float(row["learner_steps"])) == version]
    return float(rows[0]["seconds"])


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        name, _, directory = argument.partition("=")
        print(make(name, pathlib.Path(directory)))
