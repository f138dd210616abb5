"""tfdrl-benchmark on IMPALA: its arithmetic, its measurements, and what V-trace costs."""

import types

import benchmark_runs
import pytest

from tfdrl.benchmarks import limits, measuring, page, report, subjects
from tfdrl.benchmarks.harness import Measured
from tfdrl.benchmarks.measuring import Cost, Rounds, Turn, Variant
from tfdrl.benchmarks.system import System, Usage

_UNROLL_STEPS, _BATCH_SIZE, _FRESH = 5, 8, 6
_GIN = f"""
include 'environments/catch.gin'
experiment.architecture = @impala()
experiment.evaluation_episodes = 2
impala.environment = @gym_environment
impala.agent = @VTraceAgent
impala.unroll_steps = {_UNROLL_STEPS}
impala.batch_size = {_BATCH_SIZE}
impala.replay_share = 0.25
impala.replay_capacity_unrolls = 500
impala.actors = 1
impala.environments_per_actor = 2
impala.actor_max_frames_per_second = 400.0
impala.evaluation_environments = 2
impala.learner_threads = 1
VTraceAgent.network = @MlpActorCriticNetwork
VTraceAgent.optimizer = @adam()
VTraceAgent.last_action_and_reward = True
MlpActorCriticNetwork.layer_units = (8,)
MlpActorCriticNetwork.lstm_units = 4
adam.learning_rate = 1e-3
"""
_SHALLOW = """
experiment.architecture = @impala()
impala.environment = @gym_environment
impala.agent = @VTraceAgent
impala.unroll_steps = 100
impala.batch_size = 64
impala.learner_threads = 1
VTraceAgent.network = @ShallowActorCriticNetwork
VTraceAgent.optimizer = @adam()
gym_environment.id = 'tfdrl/RandomFrames-v0'
adam.learning_rate = 1e-3
"""


def _benchmark(directory, text, *arguments):
    """{(title, name, unit): value} and what was printed."""
    (directory / "task.gin").write_text(text)
    gin = f"--gin_file={directory}/task.gin"
    tables, done = benchmark_runs.sections(directory, gin, *arguments, timeout_secs=280)
    return benchmark_runs.by_name(tables), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_figures_are_there_positive_and_consistent(tmp_path):
    found, text = _benchmark(tmp_path, _GIN, "--rounds=1", "--round_secs=0.1", "--seconds=6")
    for part in ("Insertion into the queue", "Reading from the queue"):
        rates = [value for (title, _, unit), value in found.items() if title == part]
        assert len(rates) == 3 and min(rates) > 0
        assert rates[2] == pytest.approx(rates[1] / rates[0])  # one round

    training = "Training in memory"
    steps = found[training, "Trainer.train_once on one batch", "learner steps/s"]
    vtrace = found[training, "V-trace alone, of such a batch", "learner steps/s"]
    share = found[training, "V-trace's share of a learner step", "small ratio"]
    assert share == pytest.approx(steps / vtrace) and 0 < share < 0.5

    whole, limit = "Whole system", "Limit by the parts' CPU costs"
    rate = found[whole, "environment steps", "environment steps/s"]
    assert rate == pytest.approx(found[whole, "environment frames", "frames/s"])
    assert 10 < rate < 500  # it is held to 400, which one actor easily reaches
    learner_rate = found[whole, "learner steps", "learner steps/s"]
    assert learner_rate * _FRESH * _UNROLL_STEPS == pytest.approx(rate, rel=0.5)
    for name in ("learner waits for unrolls", "actors wait for the queue"):
        assert 0 <= found[whole, name, "share of time"] <= 1
    assert (whole, "policy lag", "learner steps") in found

    costs = {n: v for (_, n, unit), v in found.items() if unit == "CPU us/environment step"}
    assert len(costs) == 8
    for words, parts in (
        ("environment, inference, training", ("environment", "inference", "training")),
        ("all parts", tuple(name.partition(" (")[0] for name in costs)),
    ):
        cpu_us = sum(v for name, v in costs.items() if name.partition(" (")[0] in parts)
        assert found[limit, f"environment step: {words}", "CPU us"] == pytest.approx(cpu_us)
        allowed = found[limit, f"limit by {words}", "environment steps/s"]
        assert allowed == pytest.approx(found[limit, "cores", "cores"] * 1e6 / cpu_us)
        reached = found[limit, f"reached / limit by {words}", "ratio"]
        assert reached == pytest.approx(rate / allowed)
    assert "(aim: 75 %, " in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_vtrace_is_below_two_percent_of_the_shallow_networks_learner_step(
    tmp_path, record_property
):
    found, _ = _benchmark(tmp_path, _SHALLOW, "--parts=d", "--rounds=1", "--round_secs=0.5")
    share = found["Training in memory", "V-trace's share of a learner step", "small ratio"]
    record_property("share", share)
    assert 0 < share < 0.02


def _cost(cpu_secs, server_cpu_secs=0.0):
    return Cost(1.0, cpu_secs, server_cpu_secs)


_COSTS = {
    "a": {"environment": _cost(0.001), "inference": _cost(0.003), "actor": _cost(0.0035)},
    "b": {"raw": _cost(9.0), "writer": _cost(0.02, 0.01)},
    "c": {"raw": _cost(9.0), "learner": _cost(0.003, 0.006)},
    "d": {"train": _cost(0.03), "vtrace": _cost(9.0)},
}


def test_costs_are_those_of_one_environment_step():
    # A learner step: 8 unrolls of 5 steps are read, 6 of them fresh, which are 30 new steps.
    parts = limits.unroll_part_costs(_COSTS, _UNROLL_STEPS, _BATCH_SIZE, _FRESH)
    assert [part.cpu_secs for part in parts] == pytest.approx(
        [0.001, 0.002, 0.0005, 0.004, 0.002, 0.001, 0.0008, 0.0016]
    )
    assert limits.limit(parts, 2, 100.0) == pytest.approx((0.0129, 0.0, 100.0 / (2 / 0.0129)))
    computation = [part for part in parts if part.part in limits.COMPUTATION]
    assert limits.limit(computation, 2, 100.0) == pytest.approx((0.004, 0.0, 100.0 / 500.0))


def _measured(system):
    turns = {
        part: {
            name: [Turn(1, 1.0 / found.units_per_second, found.cpu_secs, found.server_cpu_secs)]
            for name, found in variants.items()
        }
        for part, variants in _COSTS.items()
    }
    config = types.SimpleNamespace(
        unroll_steps=_UNROLL_STEPS, batch_size=_BATCH_SIZE, fresh_unrolls=_FRESH
    )
    parts = subjects.IMPALA.parts
    found = {letter: parts[letter].found(of_part) for letter, of_part in turns.items()}
    return Measured(subjects.IMPALA, config, 4, 2, found, system)


def test_reached_counts_environment_steps_not_frames():
    system = System(60.0, 1600.0, 13.3, {}, {"actor": Usage(1.0, 0.0, 1.9)}, 0.0)
    text = page.as_text(report.sections(_measured(system)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "environment steps 400 environment steps/s" in lines
    assert "limit by environment, inference, training 500 environment steps/s" in lines
    words = "reached / limit by environment, inference, training"
    assert f"{words} 80 % (aim: 75 %, reached)" in lines
    assert "CPU of the parts / CPU that the run used 272 %" in lines  # 400 x 0.0129 / 1.9


def test_limits_need_no_whole_system():
    text = page.as_text(report.sections(_measured(None)))
    assert "limit by all parts" in text and "reached" not in text


def test_a_share_below_a_percent_has_decimals():
    section = page.Section("Title", [page.Figure("x", 0.0034, "small ratio")])
    assert page.as_text([section]).endswith("0.34 %")


def test_a_turn_ends_with_the_units_there_are():
    turns = measuring.interleave("test", {"a": Variant(lambda: 3, most_units=7)}, Rounds(2, 60.0))
    assert [turn.units for turn in turns["a"]] == [9, 9]


@pytest.mark.parametrize(
    ("learners", "text", "bindings"),
    [
        (1, "strategy.kind = 'mirrored'", []),
        (2, "", ["impala.learners = 1", "impala.strategy = None"]),
        (
            2,
            "strategy.kind = 'multi_worker'",
            ["impala.learners = 1", "impala.strategy = None", "strategy.kind = 'default'"],
        ),
    ],
)
def test_parts_are_those_of_one_learner(learners, text, bindings):
    config = types.SimpleNamespace(learners=learners)
    assert subjects.IMPALA.bindings(config, text)[1:] == bindings


def test_repeated_vtrace_is_computed_each_time():
    from tfdrl.benchmarks import impala

    variants = {
        f"{steps}": impala.vtrace_variant(types.SimpleNamespace(unroll_steps=steps, batch_size=16))
        for steps in (10, 200)
    }
    turns = measuring.interleave("test", variants, Rounds(5, 0.0))
    short, long = (measuring.cost(turns[name]).cpu_secs for name in ("10", "200"))
    assert long > 3 * short
