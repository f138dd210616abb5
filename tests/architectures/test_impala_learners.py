"""Several synchronous learners: the update of one on the joined batch, and a run of processes."""

import contextlib

import impala_learner
import numpy as np
import preloaded
import pytest
import tensorflow as tf
from local_runs import check_solved, train
from paths import DATA, SUPPORT

from tfdrl.launch.local import addresses


def two_processes(directory, *arguments):
    """[(losses, variables)] of two learners that train together."""
    ports = addresses.free_ports()
    cluster = ",".join(f"127.0.0.1:{next(ports)}" for _ in range(2))
    script = str(SUPPORT / "impala_learner.py")
    logs = [directory / f"log-{task}" for task in range(2)]
    processes = [
        preloaded.Process("called", [script, str(task), cluster, str(directory), *arguments], log)
        for task, log in enumerate(logs)
    ]
    codes = [process.wait(timeout=150) for process in processes]
    assert codes == [0, 0], "\n".join(log.read_text() for log in logs)
    found = []
    for task in range(2):
        with np.load(directory / f"learner-{task}.npz") as arrays:
            names = sorted((n for n in arrays if n != "losses"), key=lambda n: int(n[4:]))
            found.append((arrays["losses"], [arrays[name] for name in names]))
    return found


def one_process(reduction, is_normalized):
    """(losses, variables) of one learner on the joined batches."""
    agent = impala_learner.make_agent(1, reduction, is_normalized)
    batches = []
    for step in range(impala_learner.STEPS):
        parts = [impala_learner.unrolls(step, task) for task in range(2)]
        batches.append(tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *parts))
    strategy = tf.distribute.get_strategy()
    losses = impala_learner.train(agent, strategy, batches, contextlib.nullcontext)
    return losses, impala_learner.variables(agent)


@pytest.mark.parametrize(
    ("reduction", "is_normalized"),
    [
        ("sum", True),
        pytest.param("sum", False, marks=pytest.mark.slow),
        pytest.param("mean", False, marks=pytest.mark.slow),
    ],
)
def test_two_learners_make_the_update_of_one_on_the_joined_batch(
    tmp_path, reduction, is_normalized
):
    """And both have the running statistics of one who saw what both have seen."""
    losses, variables = one_process(reduction, is_normalized)
    first, second = two_processes(tmp_path, reduction, str(is_normalized))
    assert len([v for v in variables if v.dtype == np.float64]) == 2 * is_normalized
    for theirs, values in (first, second):
        np.testing.assert_allclose(theirs, losses, rtol=1e-4)
        assert len(values) == len(variables) > 10
        for value, ours in zip(values, variables):
            np.testing.assert_allclose(value, ours, rtol=1e-3, atol=1e-5)
    for left, right in zip(first[1], second[1]):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_a_run_with_two_learners(tmp_path):
    """Each has its queue and its actor; all report to the chief, which ends the run for all."""
    ended = train(
        *(DATA / "impala_catch.gin", tmp_path / "run"),
        *("impala.learners = 2", "strategy.kind = 'multi_worker'", "impala.batch_size = 4"),
    )
    check_solved(ended)
    result = ended.result
    actors = {role.task for role in ended.statuses[-1].roles if role.role == "actor"}
    assert actors == {0, 1}
    # 2 learners, 2 fresh unrolls of 16 steps each: both queues are consumed alike.
    # An episode is nine steps; the tenth row is a reset, which is no frame.
    learnt_frames = 0.9 * result["learner_steps"] * 2 * 2 * 16
    assert 0.7 * result["frames"] < learnt_frames <= result["frames"] + 2 * 1500
    assert list((tmp_path / "run" / "tensorboard" / "learner-1").glob("events.*"))
