"""Costs for plans: what turns say of them, and that a plan can be made of what is measured."""

import contextlib
import json
import types

import benchmark_runs
import paths
import pytest

from binaries import plan
from tfdrl import configuration
from tfdrl.benchmarks import cost_parts, costs
from tfdrl.benchmarks.measuring import Rounds, Turn
from tfdrl.benchmarks.processes import Job
from tfdrl.experiment import Experiment
from tfdrl.planning import costs as plan_costs
from tfdrl.planning.costs import Cost

#: Beside environment and network.
_REPLAYED = ("acting.step", "insert.item", "insert.item.server", "sample.item", "training.step")
_GRADIENTS = ("gradient.step", "gradient.push", "gradient.apply")
_MEASURED = {
    "impala": (*_REPLAYED, "parameters.pull"),
    "apex": (*_REPLAYED, "parameters.pull", "priorities.update"),
    "seed": ("training.step",),
    "a3c": _GRADIENTS,
    "gorila": _GRADIENTS,
}
_IMPALA = str(paths.DATA / "impala_catch.gin")


def test_a_cost_leaves_out_what_the_server_does_meanwhile():
    turns = [Turn(10, 4.0, 1.0, 2.0)] * 3  # ten units in four seconds
    assert costs.one(turns) == Cost(pytest.approx(0.4), pytest.approx(0.1))
    assert costs.one(turns, units=3, server=True) == Cost(pytest.approx(0.6), pytest.approx(0.3))
    busy = [Turn(10, 4.0, 3.0, 3.5)] * 3  # both are at work at the same time
    assert costs.one(busy, server=True) == Cost(pytest.approx(0.3), pytest.approx(0.3))


def test_a_cost_leaves_out_what_others_do_meanwhile():
    turns = [Turn(10, 4.0, 1.0, 0.5, 2.0)] * 3
    assert costs.one(turns) == Cost(pytest.approx(0.2), pytest.approx(0.1))
    # The server may have had the core that its client was ready for.
    assert costs.one(turns, server=True) == Cost(pytest.approx(0.2), pytest.approx(0.1))
    waited = [Turn(10, 4.0, 1.0, 2.5, 2.0)] * 3
    assert costs.one(waited, server=True) == Cost(pytest.approx(0.15), pytest.approx(0.1))
    parallel = [Turn(10, 4.0, 6.0, 0.0, 1.0)] * 3
    assert costs.one(parallel) == Cost(pytest.approx(0.4), pytest.approx(0.6))


def test_a_push_is_not_less_its_servers_time_twice(monkeypatch):
    """Worker and server share a core: all of the server's time is in the worker's delay."""
    turns = {"cycle": [Turn(10, 4.0, 1.0, 1.0, 2.0)] * 3, "local": [Turn(10, 1.0, 1.0)] * 3}
    found = types.SimpleNamespace(turns=turns, communication_share=0.5)
    worker = types.SimpleNamespace(hear=lambda limit_secs: found)
    monkeypatch.setattr(costs, "_servers_and_worker", lambda _: contextlib.nullcontext(worker))
    bench = types.SimpleNamespace(settings=types.SimpleNamespace(rounds=Rounds(1, 0.1)))
    times = costs._gradients(bench)
    assert times["gradient.push"].secs == pytest.approx(0.1)
    assert times["gradient.apply"].secs == pytest.approx(0.1)


def test_what_is_left_of_a_cost_is_at_least_nothing():
    assert costs.less(Cost(3.0, 1.0), Cost(1.0, 2.0)) == Cost(2.0, 0.0)


def test_acting_pulls_and_sizes_are_measured(tmp_path):
    configuration.load([_IMPALA], [], tensorflow=True)
    experiment = Experiment.from_gin()
    config = experiment.architecture
    job = Job(config, experiment.seed, "digest", tmp_path, Rounds(1, 0.05))
    found = cost_parts.acting(job)
    names = {"environment.step", f"inference.{config.environments_per_actor}"}
    assert set(found.turns) == names and set(found.sizes) == set(plan_costs.SIZES)
    units = {name: turns[0].units for name, turns in found.turns.items()}
    assert units["environment.step"] % config.environments_per_actor == 0
    pulled = cost_parts.pulling(job).turns["parameters.pull"][0]
    assert pulled.units > 1 and pulled.cpu_secs > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["impala", "apex", "seed", "a3c", "gorila"])
def test_a_plan_is_made_of_what_is_measured(name, tmp_path, capsys):
    gin, path = f"--gin_file={paths.DATA / name}_catch.gin", tmp_path / "costs.json"
    quick = ("--rounds=1", "--round_secs=0.1")
    # Its workers write to its stderr, which has to be a file.
    done = benchmark_runs.run(gin, f"--costs={path}", *quick, timeout_secs=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    about, times = found["about"], found["times"]
    assert about["architecture"] == name and about["versions"]["tensorflow"]
    assert set(_MEASURED[name]) <= set(times) and all(t["secs"] >= 0 for t in times.values())
    given = (gin, f"--costs={path}", "--events=20000", "--machines=1 x all: 2 cores")
    assert plan.main(["tfdrl-plan", *given]) == 0
    assert "frames/s" in capsys.readouterr().out
