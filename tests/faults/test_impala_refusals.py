"""A running IMPALA system, processes that do not belong to it, and rewards that spoil it."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from paths import python_path
from running_roles import IMPALA, Roles, checkpoint_contents, free_port, wait

_SEVEN_STATES = {"TFDRL_TEST_STATES": "7"}
_START_SECS = 150.0  # of a role, on a machine that has much else to do
_SHORT = "impala.timeout_secs = 10.0"


def _bindings(*bindings):
    return [f"--gin_bindings={binding}" for binding in bindings]


#: By name: gin bindings, words of the explanation.
_WRONG_SETTINGS = {
    "impala's parameter": (["impala.unroll_length = 8"], ["did you mean unroll_steps"]),
    "agent's parameter": (["VTraceAgent.rho_bars = 1.0"], ["did you mean rho_bar"]),
    "agent's name": (["impala.agent = @VtraceAgent"], ["did you mean", "VTraceAgent"]),
    "type": (["impala.unroll_steps = 'eight'"], ["impala.unroll_steps", "'eight'"]),
    "everything replayed": (["impala.replay_share = 1.0"], ["replay_share = 1.0", "below 1"]),
    "almost everything": (["impala.replay_share = 0.99"], ["leaves no fresh unroll"]),
    "small queue": (
        ["impala.queue_capacity_unrolls = 3"],
        ["queue_capacity_unrolls = 3 can never hold the 4 fresh unrolls"],
    ),
    "learner without actor": (
        ["impala.actors = 1", "impala.learners = 2"],
        ["impala.actors = 1 with impala.learners = 2", "at least one actor for each learner"],
    ),
}


def test_impossible_settings_are_refused_before_anything_starts(tmp_path):
    """They start all at once, to save time."""
    started = {}
    for name, (bindings, _) in _WRONG_SETTINGS.items():
        run = [f"--gin_file={IMPALA}", f"--root_dir={tmp_path / name}", *_bindings(*bindings)]
        started[name] = subprocess.Popen(
            [sys.executable, "-m", "binaries.train", *run],
            env={**os.environ, "PYTHONPATH": python_path()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        for name, (_, words) in _WRONG_SETTINGS.items():
            output, _ = started[name].communicate(timeout=60)
            assert started[name].returncode == 2, f"{name}\n{output}"
            assert all(word in output for word in words), f"{name}\n{output}"
            assert "Traceback" not in output, output
            assert not (tmp_path / name).exists()
    finally:
        for process in started.values():
            process.kill()


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """Replay, learner and one actor, and a replay server of longer unrolls."""
    directory = tmp_path_factory.mktemp("refusals")
    for name in ("run", "longer"):
        (directory / name).mkdir()
    system = Roles(directory / "run", directory, IMPALA, *_bindings(_SHORT))
    system.longer = f"127.0.0.1:{free_port()}"
    try:
        system.replay = system.start("replay")
        system.learner = system.start("learner")
        system.actor = system.start("actor")
        system.wait_for(lambda status: status.learner_step > 10, _START_SECS, "the first steps")
        longer = _bindings("impala.unroll_steps = 16", "impala.replay_share = 0.0")
        longer += _bindings("impala.batch_size = 4")
        root_dir = directory / "longer"
        system.start("replay", *longer, root_dir=root_dir, listen=system.longer)
        yield system
    finally:
        system.kill()


def _wrong_roles(system):
    """By name: role, bindings, how else it is started, words of its explanation."""
    other = system.root_dir.parent / "other"
    replay = system.addresses["replay"]
    free = [f"127.0.0.1:{free_port()}" for _ in range(5)]
    return {
        "actor of another environment": (
            *("actor", [], {"env": _SEVEN_STATES}),
            ["specs mismatch", "float32[7]", "float32[5]"],
        ),
        "actor of other unrolls": (
            *("actor", ["impala.unroll_steps = 16"], {}),
            ["experiment mismatch: yours is", "the learner's is", "same gin file"],
        ),
        "actor at the queue of other unrolls": (
            *("actor", [], {"replay": system.longer}),
            [f"the replay server at {system.longer} holds items of", "[1, 17, 5]", "[1, 9, 5]"],
        ),
        "learner of other unrolls": (
            *("learner", ["impala.unroll_steps = 16"]),
            {"root_dir": other / "a", "listen": free[0]},
            [f"the replay server at {replay} holds items of", "[1, 17, 5]", "[1, 9, 5]"],
        ),
        "learner without such a device": (
            *("learner", ["strategy.kind = 'mirrored'", "strategy.devices = ('GPU:0',)"]),
            {"root_dir": other / "b", "listen": free[1]},
            ["strategy.devices asks for GPU:0", "this machine has only CPU:0"],
        ),
        "learner whose clips are the wrong way round": (
            *("learner", ["VTraceAgent.rho_bar = 0.5"]),
            {"root_dir": other / "c", "listen": free[2]},
            ["VTraceAgent.rho_bar = 0.5 is below c_bar = 1.0", "lower c_bar or raise rho_bar"],
        ),
        "actor of another agent": (
            *("actor", ["VTraceAgent.gamma = 0.9"], {}),
            ["experiment mismatch: yours is", "the learner's is", "same gin file"],
        ),
        "second learner": (
            *("learner", [], {"listen": free[3]}),
            [f"in use by another learner: process {system.learner.pid} on"],
        ),
        "replay whose clips are the wrong way round": (
            *("replay", ["VTraceAgent.c_bar = 2.0"], {"root_dir": other / "d", "listen": free[4]}),
            ["VTraceAgent.rho_bar = 1.0 is below c_bar = 2.0"],
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("part", [slice(0, 6), slice(6, None)], ids=["a", "b"])
def test_processes_that_do_not_belong_to_the_run_are_refused_with_the_reason(system, part):
    """They start all at once, to save time; each must say which flag or setting is wrong."""
    wrong, started = dict(list(_wrong_roles(system).items())[part]), {}
    for name, (role, bindings, told, _) in wrong.items():
        told.get("root_dir", system.root_dir).mkdir(parents=True, exist_ok=True)
        log = name.replace(" ", "-")
        started[name] = system.start(role, *_bindings(*bindings), log=log, **told)
    for name, (_, _, _, words) in wrong.items():
        process = started[name]
        assert process.exit_code(_START_SECS) == 2, f"{name}\n{process.log}"
        for word in words:
            assert word in process.log, f"{name}\n{process.log}"
        assert "Traceback" not in process.log, process.log
    system.wait_for_progress(20)
    for process in (system.replay, system.learner, system.actor):
        assert process.returncode is None


@pytest.mark.slow
def test_actor_that_is_blocked_gives_up_when_its_learner_does_not_come_back(system):
    wait(system.learner_checkpoints, 20, "a checkpoint")
    system.learner.kill()
    wait(lambda: "is full" in system.actor.log, 20, lambda: system.actor.log)
    assert system.actor.exit_code(30) == 1
    assert "no answer from the learner" in system.actor.log.splitlines()[-1]


@pytest.mark.slow
def test_losses_that_stay_not_finite_end_the_run_and_keep_a_good_checkpoint(system):
    system.learner = system.start("learner")
    system.actor = system.start("actor")
    system.wait_for_progress(_START_SECS)
    system.faults.write_text("overflow")
    assert system.learner.exit_code(20) == 3
    assert "training diverged: the loss was not finite for 1 learner steps" in system.learner.log
    assert system.actor.exit_code(10) == 0  # it was told that the run is over
    for path in system.learner_checkpoints():
        for name, value in checkpoint_contents(path).items():
            if np.issubdtype(np.asarray(value).dtype, np.floating):
                assert np.isfinite(value).all(), name


@pytest.mark.slow
def test_roles_that_wait_for_others_at_the_start_end_in_time(system):
    nobody = f"127.0.0.1:{free_port()}"
    (system.root_dir.parent / "alone").mkdir()
    alone = {"root_dir": system.root_dir.parent / "alone", "replay": nobody}
    learner = system.start("learner", *_bindings("impala.timeout_secs = 100.0"), **alone)
    wait(lambda: "waits for the replay server at" in learner.log, _START_SECS, lambda: learner.log)
    actor = system.start("actor", *_bindings("impala.timeout_secs = 100.0"), **alone)
    wait(lambda: "waits for the replay server at" in actor.log, _START_SECS, lambda: actor.log)
    for process in (actor, learner):
        start_secs = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.exit_code(10) == 0
        assert time.monotonic() - start_secs < 10
