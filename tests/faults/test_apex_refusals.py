"""A running Ape-X system, processes that do not belong to it, and rewards that spoil it."""

import signal

import numpy as np
import pytest
import tensorflow as tf
from running_roles import APEX, Roles, can_make_pid_namespaces, free_port, wait


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """Replay, learner and one actor; uniform sampling, so that a bad item is a rare one."""
    directory = tmp_path_factory.mktemp("refusals")
    (directory / "run").mkdir()
    bindings = ("replay_table.sampler = 'uniform'", "apex.max_bad_steps = 10")
    flags = [f"--gin_bindings={binding}" for binding in bindings]
    system = Roles(directory / "run", directory, APEX, *flags)
    try:
        system.replay = system.start("replay", as_pid_1=can_make_pid_namespaces())
        system.learner = system.start("learner")
        system.actor = system.start("actor")
        system.wait_for(lambda status: status.learner_step > 10, 60, "the first steps")
        yield system
    finally:
        system.kill()


_NOBODY = f"127.0.0.1:{free_port()}"
_SHORT = "--gin_bindings=apex.timeout_secs = 2.0"
_SEVEN_STATES = {"TFDRL_TEST_STATES": "7"}


def _wrong_roles(system):
    """By name: role, flags, how else it is started, its exit code, words of its explanation."""
    other = system.root_dir.parent / "other"
    replay, learner = system.addresses["replay"], system.addresses["learner"]
    free = [f"127.0.0.1:{free_port()}" for _ in range(7)]
    deadlock = "--gin_bindings=replay_table.error_buffer = 1.0"
    return {
        "second learner": (
            *("learner", [], {"listen": free[0]}, 2),
            [f"in use by another learner: process {system.learner.pid} on", str(system.root_dir)],
        ),
        "replay's port in use": (
            *("replay", [], {"root_dir": other / "a", "listen": replay}, 2),
            ["the replay server cannot listen", f"port {replay[-5:]} is in use"],
        ),
        "learner of a ratio beside its table's own limiter": (
            *("learner", ["--gin_bindings=apex.replay_ratio = 8.0"]),
            *({"root_dir": other / "g", "listen": free[6]}, 2),
            ["apex.replay_ratio = 8, but the table 'transitions' has a rate limiter of its own"],
        ),
        "actor of another environment": (
            *("actor", [], {"env": _SEVEN_STATES}, 2),
            ["specs mismatch", "float32[7]", "float32[5]"],
        ),
        "actor of another experiment": (
            *("actor", ["--gin_bindings=apex.n_step = 5"], {}, 2),
            ["experiment mismatch: yours is", "the learner's is", "same gin file"],
        ),
        "actor without learner": (
            *("actor", [_SHORT], {"learner": _NOBODY}, 1),
            [f"the learner at {_NOBODY} did not come up within 2 s"],
        ),
        "learner without replay": (
            *("learner", [_SHORT]),
            *({"root_dir": other / "b", "replay": _NOBODY, "listen": free[1]}, 1),
            [f"the learner: the replay server at {_NOBODY} did not answer for"],
        ),
        "learner with the process id of its replay": (
            *("learner", [], {"root_dir": other / "c", "listen": free[2], "as_pid_1": True}, 2),
            ["has the same process id as this process, 1, in another container"],
        ),
        "learner of another environment": (
            *("learner", []),
            *({"root_dir": other / "d", "listen": free[3], "env": _SEVEN_STATES}, 2),
            [f"the replay server at {replay} holds items of", "float32[2, 5]", "float32[2, 7]"],
        ),
        "learner's port in use": (
            *("learner", [], {"root_dir": other / "e"}, 2),
            [f"cannot listen on {learner}", f"port {learner[-5:]} is in use"],
        ),
        "second replay": (
            *("replay", [], {"listen": free[4]}, 2),
            ["in use by another replay server: process"],
        ),
        "limiter that deadlocks": (
            *("replay", [deadlock], {"root_dir": other / "f", "listen": free[5]}, 2),
            ["replay_table.error_buffer = 1.0", "block each other for ever", "at least"],
        ),
    }


@pytest.mark.parametrize(
    "part", [slice(0, 8), pytest.param(slice(8, None), marks=pytest.mark.slow)], ids=["a", "b"]
)
def test_processes_that_do_not_belong_to_the_run_are_refused_with_the_reason(system, part):
    """They start all at once, to save time; each must say which flag or setting is wrong."""
    wrong, started = dict(list(_wrong_roles(system).items())[part]), {}
    if not can_make_pid_namespaces():
        wrong.pop("learner with the process id of its replay", None)
    for name, (role, flags, told, _, _) in wrong.items():
        told.get("root_dir", system.root_dir).mkdir(parents=True, exist_ok=True)
        started[name] = system.start(role, *flags, log=name.replace(" ", "-"), **told)
    for name, (_, _, _, code, words) in wrong.items():
        process = started[name]
        assert process.exit_code(90) == code, f"{name}\n{process.log}"
        for word in words:
            assert word in process.log, f"{name}\n{process.log}"
        assert "Traceback" not in process.log, process.log
    system.wait_for_progress(20)
    for process in (system.replay, system.learner, system.actor):
        assert process.returncode is None


def test_one_bad_reward_costs_steps_and_no_parameter(system):
    system.faults.write_text("overflow once")
    status = system.wait_for(
        lambda status: status.metrics["learner/bad_steps"] > 0, 15, "a bad learner step"
    )
    assert not system.faults.exists()
    system.wait_for_progress(15, steps=200)
    _, tensors = system.client(status.experiment).parameters(-1)
    assert all(np.isfinite(tensor).all() for tensor in tensors)


def test_actor_ends_in_time_although_everybody_else_is_gone(system):
    system.learner.kill()
    system.replay.kill()
    wait(lambda: "learner does not answer" in system.actor.log, 10, "the actor's warning")
    system.actor.signal(signal.SIGTERM)
    assert system.actor.exit_code(10) == 0


@pytest.mark.slow
def test_rewards_that_are_not_numbers_are_the_environment_s_fault(system):
    _restart_those_that_ended(system)
    system.wait_for_progress(60)
    system.faults.write_text("nan")
    assert system.actor.exit_code(20) == 1
    system.faults.unlink()
    assert "the environment FaultyChain-v0 returned nan in the reward" in system.actor.log
    assert "Traceback" not in system.actor.log and system.learner.returncode is None


@pytest.mark.slow
def test_losses_that_stay_not_finite_end_the_run_and_keep_a_good_checkpoint(system):
    _restart_those_that_ended(system)
    system.wait_for_progress(60)
    system.faults.write_text("overflow")
    wait(lambda: system.learner.returncode is not None, 20, lambda: system.last_lines())
    assert system.learner.exit_code(1) == 3
    assert "training diverged: the loss was not finite for 10 learner steps" in system.learner.log
    assert system.actor.exit_code(10) == 0  # it was told that the run is over
    checkpoints = list((system.root_dir / "checkpoints").glob("checkpoint-*.index"))
    assert checkpoints
    for path in checkpoints:
        reader = tf.train.load_checkpoint(str(path.with_suffix("")))
        for name, dtype in reader.get_variable_to_dtype_map().items():
            if dtype.is_floating:
                assert np.isfinite(reader.get_tensor(name)).all(), name


def _restart_those_that_ended(system):
    """After the test before."""
    for role in ("replay", "learner", "actor"):
        if getattr(system, role).returncode is not None:
            setattr(system, role, system.start(role))
