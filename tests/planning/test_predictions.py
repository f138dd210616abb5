"""Plans of each architecture against what one works out by hand."""

import dataclasses

import pytest

from tfdrl.architectures.a3c import A3c
from tfdrl.architectures.apex import Apex
from tfdrl.architectures.gorila import Gorila
from tfdrl.architectures.impala import Impala
from tfdrl.architectures.r2d2 import R2d2
from tfdrl.architectures.seed import Seed
from tfdrl.planning import costs, machines, prediction, settings_of_gin, sweep
from tfdrl.planning.site import Stragglers

_NOTHING = {"environment": None, "agent": None}
#: 10 ms of sleep and 1 ms of inference for a step.
_ACTING = ("environment.step=10ms/0ms", "inference=1ms/0ms")
_STEP_SECS = 0.011


def _subject(config, *stated, stragglers=Stragglers(), events=100_000):  # noqa: B008
    found = costs.read(None, stated)
    return prediction.Subject(config.program(), config, 1, found, stragglers, events)


def _predict(config, *stated, there="1 x all: 64 cores", **more):
    subject = _subject(config, *stated, **more)
    return prediction.predict(subject, machines.parse(there, subject.program))


@dataclasses.dataclass(frozen=True)
class _Servers:
    """Stands for @parameter_server()."""

    max_gradient_age: int = None


def test_impala_is_limited_by_its_actors():
    config = Impala(**_NOTHING, unroll_steps=5, batch_size=2, actors=4, environments_per_actor=3)
    # An actor's three environments step one after the other, and are inferred together.
    found = _predict(config, *_ACTING, "training.step=1ms/0ms")
    assert found.frames_per_second == pytest.approx(4 * 3 / 0.031, rel=0.01)
    assert found.learner_steps_per_second == pytest.approx(found.frames_per_second / 10, rel=0.02)
    assert found.bottleneck == "actor" and found.use["actor"] == pytest.approx(1.0, abs=0.01)


def test_impala_is_limited_by_its_learner_and_lags_by_the_queue():
    config = Impala(**_NOTHING, unroll_steps=5, batch_size=2, actors=8)
    found = _predict(config, *_ACTING, "training.step=100ms/0ms")
    assert found.learner_steps_per_second == pytest.approx(10.0, rel=0.01)
    assert found.frames_per_second == pytest.approx(10 * 2 * 5, rel=0.02)
    assert found.bottleneck == "learner"
    # 8 actors' unrolls, 2 queued and 2 that are made into a batch: 12 of 2 for each step.
    assert 4 <= found.lag_steps <= 7


def test_learners_in_step_have_as_many_batches():
    config = Impala(**_NOTHING, unroll_steps=5, batch_size=2, actors=8, learners=2)
    found = _predict(config, *_ACTING, "training.step=100ms/0ms")
    assert found.learner_steps_per_second == pytest.approx(10.0, rel=0.01)
    assert found.frames_per_second == pytest.approx(10 * 2 * 2 * 5, rel=0.02)


def test_parameters_fill_a_link():
    config = Impala(**_NOTHING, unroll_steps=1, batch_size=8, actors=8)
    there = "1 x learner: 8 cores; 2 x actor: 4 cores; network 80 Mbit/s"
    sizes = ("parameters.bytes=1MB", "item.bytes=1B")
    found = _predict(config, *_ACTING, "training.step=0ms", *sizes, there=there)
    # Each of 8 pulls 1 MB before its next step, and 10 MB/s go through.
    assert found.learner_steps_per_second == pytest.approx(10 / 8, rel=0.05)
    assert found.bottleneck == "network from the learner's machine"


def test_seed_takes_turns_of_environments_and_inference():
    config = Seed(**_NOTHING, actors=1, environments_per_actor=4, batch_size=4, unroll_steps=5)
    found = _predict(config, *_ACTING, "training.step=0ms")
    assert found.frames_per_second == pytest.approx(4 / 0.041, rel=0.01)
    # With two actors one steps while the other infers, in batches of half of the environments.
    two = _predict(dataclasses.replace(config, actors=2), *_ACTING, "training.step=0ms")
    assert two.frames_per_second == pytest.approx(8 / 0.041, rel=0.02)


def test_seeds_batches_are_padded_and_leave_after_the_time_limit():
    config = Seed(
        **_NOTHING,
        actors=3,
        environments_per_actor=1,
        batch_size=1,
        unroll_steps=5,
        inference_batch_size=3,
        inference_time_limit_ms=20.0,
    )
    stated = ("environment.step=10ms/0ms", "inference.2=1ms/0ms", "inference.3=2ms/0ms")
    together = _predict(config, *stated, "training.step=0ms")
    slow = _predict(config, *stated, "training.step=0ms", stragglers=Stragglers(1, 1e6))
    # All three wait for each other; without the third each batch waits for the limit.
    assert together.frames_per_second == pytest.approx(3 / 0.012, rel=0.02)
    assert slow.frames_per_second == pytest.approx(2 / 0.031, rel=0.02)


def test_seeds_inference_and_training_share_a_device():
    config = Seed(**_NOTHING, actors=8, environments_per_actor=1, batch_size=1, unroll_steps=1)
    config = dataclasses.replace(config, inference_batch_size=8, inference_time_limit_ms=1e3)
    there = "1 x learner: 8 cores, H200; 1 x actor: 8 cores"
    stated = ("environment.step=0ms", "inference=1ms", "training.step=1ms")
    found = _predict(config, *stated, there=there)
    # Eight steps take an inference and eight learner steps, of the same device.
    assert found.frames_per_second == pytest.approx(8 / 0.009, rel=0.1)
    assert found.use["H200 of the learner's machine"] == pytest.approx(1.0, abs=0.02)


def test_an_interpreter_answers_one_message_after_the_other():
    config = Seed(**_NOTHING, actors=50, environments_per_actor=1, inference_batch_size=1)
    stated = (*_ACTING, "training.step=0ms", "message.serve=1ms/0ms")
    found = _predict(config, *stated)
    assert found.frames_per_second == pytest.approx(1000.0, rel=0.02)
    assert found.bottleneck == "the learner's interpreter"


@pytest.mark.parametrize(("actors", "training_ms"), [(2, 1.0), (20, 50.0)])
def test_a_replay_ratio_holds_whoever_is_faster(actors, training_ms):
    config = Apex(
        **_NOTHING,
        actors=actors,
        batch_size=16,
        replay_ratio=4.0,
        replay_ratio_tolerance_items=100,
        actor_buffer_transitions=10,
    )
    found = _predict(config, *_ACTING, f"training.step={training_ms}ms/0ms")
    sampled = 16 * found.learner_steps_per_second
    assert sampled == pytest.approx(4.0 * found.frames_per_second, rel=0.05)
    limits = actors / _STEP_SECS, 16 * 1000 / training_ms / 4.0
    assert found.frames_per_second == pytest.approx(min(limits), rel=0.05)
    assert found.bottleneck == ("actor" if actors == 2 else "learner")


def test_without_a_ratio_nobody_waits():
    config = Apex(**_NOTHING, actors=3, batch_size=16, actor_buffer_transitions=10)
    found = _predict(config, *_ACTING, "training.step=20ms/0ms", "item.bytes=1KB")
    assert found.frames_per_second == pytest.approx(3 / _STEP_SECS, rel=0.02)
    assert found.learner_steps_per_second == pytest.approx(50.0, rel=0.02)
    assert found.replay_bytes == 2e9  # two million items, as in the paper


def test_actors_parameters_are_a_pull_old():
    # Pulled every 100 steps, and what was asked for at the pull before is taken.
    config = Apex(**_NOTHING, actors=1, actor_buffer_transitions=10, publish_period_steps=1)
    config = dataclasses.replace(config, parameter_pull_period_frames=100)
    found = _predict(config, *_ACTING, "training.step=11ms/0ms")
    assert found.lag_steps == pytest.approx(100 + 50, rel=0.1)


def test_r2d2_writes_sequences():
    config = R2d2(**_NOTHING, actors=4, batch_size=2, sequence_steps=20, replay_ratio=1.0)
    found = _predict(config, *_ACTING, "training.step=1ms/0ms")
    assert found.frames_per_second == pytest.approx(4 / _STEP_SECS, rel=0.02)
    assert found.learner_steps_per_second == pytest.approx(4 / _STEP_SECS / 20 / 2, rel=0.1)


def _a3c(**more):
    return A3c(**_NOTHING, parameter_server=_Servers(), t_max=5, **more)


def test_a3cs_shards_serve_one_gradient_after_the_other():
    stated = (*_ACTING, "gradient.step=5ms/0ms", "gradient.apply=4ms/0ms")
    alone = _predict(_a3c(workers=1), *stated)
    assert alone.learner_steps_per_second == pytest.approx(1 / (0.055 + 0.009), rel=0.01)
    assert alone.lag_steps == 0
    full = _predict(_a3c(workers=40), *stated)
    assert full.learner_steps_per_second == pytest.approx(1 / 0.004, rel=0.02)
    assert full.bottleneck == "parameter servers" and full.lag_steps == pytest.approx(39, abs=1)
    two = _predict(_a3c(workers=40, parameter_servers=2), *stated)
    assert two.learner_steps_per_second == pytest.approx(2 / 0.004, rel=0.02)


def test_synchronous_workers_wait_for_the_slowest():
    stated = (*_ACTING, "gradient.step=0ms")
    more = {"workers": 4, "slowed_workers": 1, "slowdown": 3.0}
    asynchronous = _predict(_a3c(**more), *stated)
    together = _predict(_a3c(**more, synchronous=True), *stated)
    assert asynchronous.frames_per_second == pytest.approx((3 + 1 / 3) / _STEP_SECS, rel=0.02)
    # Who waited for the others begins its wait from its own work alone: 3 times 55 ms.
    assert together.frames_per_second == pytest.approx(4 / 3 / _STEP_SECS, rel=0.02)
    assert together.learner_steps_per_second == pytest.approx(1 / (3 * 0.055), rel=0.02)


def test_gorilas_bundles_learn_every_so_many_steps():
    config = Gorila(**_NOTHING, parameter_server=_Servers(), workers=3, update_period_steps=4)
    found = _predict(config, *_ACTING, "gradient.step=6ms/0ms")
    assert found.learner_steps_per_second == pytest.approx(3 / (4 * _STEP_SECS + 0.006), rel=0.02)
    assert found.frames_per_second == pytest.approx(4 * found.learner_steps_per_second, rel=0.02)


def test_unbundled_gorila_has_actors_and_learners_apart():
    config = Gorila(**_NOTHING, parameter_server=_Servers(), bundled=False, actors=3, learners=2)
    found = _predict(config, *_ACTING, "gradient.step=10ms/0ms")
    assert found.frames_per_second == pytest.approx(3 / _STEP_SECS, rel=0.02)
    assert found.learner_steps_per_second == pytest.approx(2 / 0.010, rel=0.02)


def test_machines_decide_how_many_act_and_what_another_would_bring():
    config = Impala(**_NOTHING, unroll_steps=5, batch_size=2, actors=1)
    subject = _subject(config, "environment.step=10ms", "inference=1ms", "training.step=0ms")
    text = "1 x learner: 4 cores, $2/h; 3 x actor: 8 cores, $1/h"
    there = machines.parse(text, subject.program)
    found = prediction.predict(subject, there)
    assert found.replicas["actor"] == 24
    assert found.frames_per_second == pytest.approx(24 / _STEP_SECS, rel=0.02)
    more = prediction.next_machines(subject, there, found)
    assert more == {"actor": pytest.approx(1 / 3, rel=0.05)}
    an_hour = found.frames_per_second * 3600
    assert found.dollars_per_billion_frames == pytest.approx(5.0 / an_hour * 1e9)


def test_cores_are_shared_where_there_are_too_few():
    config = Impala(**_NOTHING, unroll_steps=5, batch_size=2, actors=8)
    stated = ("environment.step=10ms", "inference=1ms", "training.step=0ms")
    found = _predict(config, *stated, there="1 x all: 2 cores")
    assert found.frames_per_second == pytest.approx(2 / _STEP_SECS, rel=0.02)
    assert found.bottleneck == "cores of the machine"


@pytest.mark.parametrize(("actors", "turns"), [(1, 20), (64, 20), (100, 13), (320, 4), (4160, 4)])
def test_of_many_who_act_alike_fewer_turns_are_measured(actors, turns):
    assert prediction.turns_of_each(actors) == turns


def test_what_is_measured_has_those_turns():
    config = Impala(**_NOTHING, unroll_steps=5, batch_size=2, actors=200)
    found = _predict(config, *_ACTING, "training.step=0.1ms/0ms", there="200 x all: 1 core")
    steps = found.frames_per_second * found.simulated_secs
    # Seven turns of each, of five steps; looked at every 2,000 events, some four of a step.
    assert found.is_settled and 7 * 5 * 200 <= steps < 7 * 5 * 200 + 2_000


def test_times_that_vary_have_their_mean():
    config = Impala(**_NOTHING, unroll_steps=5, batch_size=2, actors=4)
    stated = ("environment.step=10ms/0ms~1.5", "inference=1ms/0ms", "training.step=0ms")
    found = _predict(config, *stated)
    assert found.frames_per_second == pytest.approx(4 / _STEP_SECS, rel=0.1)
    assert found.frames_per_second != pytest.approx(4 / _STEP_SECS, rel=1e-6)


def test_a_sweep_grows_until_the_learner_is_full():
    config = Impala(**_NOTHING, unroll_steps=5, batch_size=2)
    subject = _subject(config, *_ACTING, "training.step=20ms/0ms")
    asked = sweep.parse("actors=1..16", subject)
    assert asked.role == "actor" and asked.counts[0] == 1 and asked.counts[-1] == 16
    there = machines.parse("1 x all: 64 cores", subject.program)
    rates = {n: found.frames_per_second for n, found in sweep.run(asked, subject, there)}
    assert rates[2] == pytest.approx(2 / _STEP_SECS, rel=0.02)
    assert rates[16] == pytest.approx(500.0, rel=0.02)


def test_costs_between_two_sizes_are_on_a_line():
    found = costs.read(None, ["inference.64=0.7ms", "inference.256=0.9ms"])
    secs = [found.need("inference", rows).secs for rows in (1, 64, 160, 256, 448)]
    assert secs == pytest.approx([0.0007, 0.0007, 0.0008, 0.0009, 0.0011])


def test_table_sizes_are_the_tables_own():
    from tfdrl.replay import transition_table as own

    for name, defaults in (("Apex", own.APEX), ("R2d2", own.R2D2), ("Gorila", own.GORILA)):
        mine = settings_of_gin.DEFAULTS[name]
        assert mine == (defaults.max_size, defaults.min_size)
