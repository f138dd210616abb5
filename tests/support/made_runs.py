"""Directories of runs, as `tfdrl-train` leaves them, with numbers that a test chooses."""

import csv
import json

from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from tfdrl.launch import run_facts
from tfdrl.topology import (
    Program,
    Role,
    actor_role,
    chief_role,
    evaluator_role,
    parameter_server_role,
    replay_role,
)

BEGIN_SECS = 1_000_000.0


def impala(actors=2):
    """The program of IMPALA."""
    page = "tfdrl.architectures.impala"
    return Program(
        "impala",
        (
            replay_role(page),
            chief_role("learner", page, talks_to=("replay",)),
            actor_role(page, actors, ("replay", "learner")),
            evaluator_role(page, "learner", 0),
        ),
    )


def a3c(workers=2):
    """The program of A3C."""
    page, told = "tfdrl.architectures.a3c", ("parameter_server", "coordinator")
    return Program(
        "a3c",
        (
            parameter_server_role(page, 1),
            chief_role("coordinator", page, talks_to=("parameter_server",)),
            Role("worker", f"{page}:worker", workers, told),
            evaluator_role(page, "coordinator", 0),
        ),
        "coordinator",
    )


def dqn():
    """The program of DQN."""
    return Program("dqn", (chief_role("learner", "tfdrl.architectures.dqn"),))


def make(
    directory,
    program,
    *,
    environment="CartPole-v1",
    seed=1,
    returns=(20.0, 200.0, 480.0),
    frames=30_000,
    secs=30.0,
    scalars=None,
    usage=None,
    target=475.0,
    result=True,
):
    """Makes a run's directory; returns it.

    Args:
      directory: new.
      program: of the run.
      environment: Gymnasium id.
      seed: of the run.
      returns: of its evaluations, equally many frames apart, the last at the end.
      frames, secs: of the training.
      scalars: {"actor-0": {"actor/waiting_share": 0.3}}: constant over the training.
      usage: {"actor-0": (cores, MB, {"replay": (sent, received, messages) per second})}.
      target: solved_return.
      result: whether the learner has written its result.
    """
    directory.mkdir(parents=True)
    name = program.name
    lines = [
        f"{name}.environment = @gym_environment",
        f"experiment.architecture = @{name}()",
        f"experiment.seed = {seed}",
        f"gym_environment.id = {environment!r}",
    ]
    (directory / "config.gin").write_text("\n".join(lines) + "\n")
    command = ["tfdrl-train", f"--gin_file={name}/cartpole.gin"]
    versions, machine = {"tfdrl": "0.1.0"}, {"processor": "one of <two> & more"}
    facts = run_facts.RunFacts(
        program, target, {"max_minutes": 10.0}, seed, command, versions, machine, 2, BEGIN_SECS
    )
    run_facts.write(directory, facts)
    if returns:
        _write_evaluations(directory / "evaluations.csv", returns, frames, secs)
    if result:
        ended = {"reason": "solved", "learner_steps": 300, "frames": frames, "training_secs": secs}
        (directory / "result.json").write_text(json.dumps(ended))
    of_chief = {f"{program.chief}-0": {"environment/frames": None}}
    for process, values in {**of_chief, **(scalars or {})}.items():
        values = {**of_chief.get(process, {}), **values}
        rows = list(_events(values, frames, secs))
        write_events(directory / "tensorboard" / process, rows)
    for process, used in (usage or {}).items():
        _write_usage(directory / "usage" / f"{process}.jsonl", *used, secs)
    return directory


def _write_evaluations(path, returns, frames, secs):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        heads = "seconds frames learner_steps mean standard_error minimum maximum episodes"
        writer.writerow(heads.split())
        for number, mean in enumerate(returns, start=1):
            part = number / len(returns)
            writer.writerow([secs * part, int(frames * part), 100 * number, mean, 2.0, 0, 500, 100])


def _events(values, frames, secs):
    """(seconds, step, tag, value) at eleven times; of frames, the count."""
    for i in range(11):
        for tag, value in values.items():
            value = frames * (i + 1) / 11 if value is None else value
            value = value * i * secs / 10 if tag in _COUNTERS else value
            yield BEGIN_SECS + i * secs / 10, 1 + 30 * i, tag, value


#: Given per second.
_COUNTERS = ("actor/unrolls", "actor/parameter_pulls", "gradients/accepted", "gradients/stale")


def write_events(directory, rows):
    """A file of TensorBoard's, of (seconds, step, tag, value)."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "events.out.tfevents.1").open("ab") as file:
        writer = RecordWriter(file)
        for secs, step, tag, value in rows:
            event = event_pb2.Event(wall_time=secs, step=step)
            event.summary.value.add(tag=tag).simple_value = value
            writer.write(event.SerializeToString())


def _write_usage(path, cores, memory_mb, flows, secs):
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        for i in range(11):
            passed = i * secs / 10
            row = {
                "pid": 1,
                "secs": BEGIN_SECS + passed,
                "cpu_secs": 3.0 + cores * passed,
                "memory_mb": memory_mb,
                "flows": {role: [int(passed * x) for x in rates] for role, rates in flows.items()},
            }
            file.write(json.dumps(row) + "\n")
