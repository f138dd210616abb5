"""One running IMPALA system and what befalls it: its processes are killed, stopped and starved.

The tests are one story, told in order: each takes the system as the one before left it.
"""

import collections
import shutil
import signal
import time

import numpy as np
import pytest
import reverb
from running_roles import IMPALA, WatchedRoles, can_make_pid_namespaces, checkpoint_contents, wait
from tf_agents.trajectories import StepType

from tfdrl.replay.server import complete_checkpoints
from tfdrl.replay.unroll_tables import QUEUE, REPLAY

_CAPACITY, _ENVIRONMENTS = 400, 4  # of the replay, and of an actor: as the gin file says
_START_SECS = 150.0  # of a role, on a machine that has much else to do
_FULL = "is full: the learner has not taken the unrolls before"


class System(WatchedRoles):
    """The processes that should be running, and every status that the learner ever gave."""

    def __init__(self, root_dir, logs):
        super().__init__(root_dir, logs, IMPALA)
        self.can_be_pid_1 = can_make_pid_namespaces()
        self.replay = self.learner = self.evaluator = None
        self.actors = {}

    def start_replay(self):
        again = self.replay is not None
        self.replay = self.start("replay", as_pid_1=self.can_be_pid_1 and again)

    def start_learner(self, as_pid_1=False):
        self.learner = self.start("learner", as_pid_1=self.can_be_pid_1 and as_pid_1)

    def start_actor(self, task):
        pid_1 = self.can_be_pid_1 and task in self.actors
        self.actors[task] = self.start("actor", f"--task={task}", as_pid_1=pid_1)

    def signal_actors(self, number):
        for actor in self.actors.values():
            actor.signal(number)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    directory = tmp_path_factory.mktemp("impala")
    (directory / "run").mkdir()
    system = System(directory / "run", directory)
    try:
        system.start_replay()
        system.start_learner()
        system.start_actor(0)
        system.start_actor(1)
        system.wait_for(lambda status: len(_actors(status)) == 2, _START_SECS, "two actors")
        system.wait_for_progress(60)
        yield system
    finally:
        system.kill()


def _actors(status, within_secs=3.0):
    """The actors that reported lately, by task."""
    roles = [role for role in status.roles if role.role == "actor" and role.metrics]
    return {role.task: role for role in roles if role.seconds_since_report < within_secs}


def _unrolls(status):
    """How many each actor says that it wrote, by task."""
    actors = _actors(status, within_secs=1e9)
    return {task: role.metrics["actor/unrolls"] for task, role in actors.items()}


def _wait_for_unrolls(system, tasks, limit_secs, number=40):
    """Waits until each of these actors has written that many more."""
    start = _unrolls(system.wait_for(lambda now: _unrolls(now).keys() >= tasks, 30, "reports"))
    return system.wait_for(
        lambda now: all(_unrolls(now).get(task, 0) >= start[task] + number for task in tasks),
        *(limit_secs, f"unrolls of actors {tasks} after {start}"),
    )


def _require_growth(history, of_actors):
    """What is counted never goes back: the learner's counters and these metrics of each run."""
    series = collections.defaultdict(list)
    for status in history:
        series["frames"].append(status.frames)
        series["version"].append(status.version)
        series["steps"].append(status.learner_step)
        for role in status.roles:
            for name in of_actors:
                if name in role.metrics:
                    series[name, role.task, role.run_id].append(role.metrics[name])
    for name, values in series.items():
        assert values == sorted(values), name


def test_others_go_on_without_a_killed_or_a_stopped_actor(system):
    stopped, run_id = system.actors[1], _actors(system.status())[1].run_id
    stopped.signal(signal.SIGSTOP)
    _wait_for_unrolls(system, {0}, 20)
    system.wait_for_progress(20)
    stopped.signal(signal.SIGCONT)
    after = _wait_for_unrolls(system, {0, 1}, 20)
    assert _actors(after)[1].run_id == run_id
    system.actors[0].kill()
    _wait_for_unrolls(system, {1}, 20)
    system.wait_for_progress(20)


def test_learner_rests_while_all_actors_are_dead_and_goes_on_with_them(system):
    runs = {role.run_id for role in system.status().roles if role.role == "actor"}
    for actor in system.actors.values():
        actor.kill()
    logged = len(system.learner.log)
    wait(
        lambda: "the learner waits for samples: the queue is empty" in system.learner.log[logged:],
        *(20, "the learner's word that it waits"),
    )
    time.sleep(2.0)  # the last steps, and the status that tells of them
    step, cpu_secs = system.status().learner_step, system.learner.cpu_secs()
    start_secs = time.monotonic()
    time.sleep(3.0)
    share = (system.learner.cpu_secs() - cpu_secs) / (time.monotonic() - start_secs)
    assert system.status().learner_step == step
    assert share < 0.10

    dead_secs = time.time()
    system.start_actor(0)
    system.wait_for(
        lambda now: now.learner_step > step + 10, _START_SECS, "steps with the new actor"
    )
    _require_a_new_run(_replayed(system), dead_secs)
    system.start_actor(1)
    status = system.wait_for(lambda now: len(_actors(now)) == 2, _START_SECS, "two actors")
    assert runs.isdisjoint(role.run_id for role in _actors(status).values())


def _replayed(system):
    """The unrolls in the replay, all of them but by a great accident, by time of completion."""
    client = reverb.Client(system.addresses["replay"])
    drawn = client.sample(
        *(REPLAY, 16 * _CAPACITY), emit_timesteps=False, unpack_as_table_signature=True
    )
    found = {sample.info.key: sample.data for sample in drawn}
    groups = collections.defaultdict(list)
    for unroll in found.values():
        groups[float(unroll.time_secs[0])].append(unroll)
    return groups


def _require_a_new_run(groups, start_secs):
    """All unrolls are of one run each; those after `start_secs` of a run that begins there."""
    assert len(groups) > 30
    for unrolls in groups.values():
        for unroll in unrolls:
            _require_one_walk(unroll.steps, unroll.action[0])
    # Of the newest, which came while the replay was sampled, some may not have been met.
    new = [groups[secs] for secs in sorted(groups) if secs > start_secs][:6]
    assert [len(unrolls) for unrolls in new] == 6 * [_ENVIRONMENTS]
    for unroll in new[0]:
        assert unroll.steps.step_type[0, 0] == StepType.FIRST
        assert not any(np.any(leaf) for leaf in _leaves(unroll.policy_state))
    assert any(np.any(leaf) for leaf in _leaves(new[1][0].policy_state))
    for before, after in zip(new[:-1], new[1:]):
        assert _ends(before, -1) == _ends(after, 0)


def _leaves(nest):
    if isinstance(nest, (list, tuple)):
        return [leaf for part in nest for leaf in _leaves(part)]
    return [nest]


def _states(steps):
    return steps.observation[0].argmax(axis=-1)


def _ends(unrolls, index):
    """Where the walks of some unrolls are at an index, in any order of the environments."""
    return sorted((int(_states(u.steps)[index]), int(u.steps.step_type[0, index])) for u in unrolls)


def _require_one_walk(steps, actions):
    """Each step follows from the one before by the rules of the corridor."""
    states, step_types = _states(steps), steps.step_type[0]
    for t, action in enumerate(actions):
        if step_types[t] == StepType.LAST:
            assert (states[t + 1], step_types[t + 1]) == (0, StepType.FIRST)
        else:
            assert states[t + 1] == max(0, states[t] + (1 if action == 1 else -1))
            assert step_types[t + 1] != StepType.FIRST
            assert (states[t + 1] < 4) or step_types[t + 1] == StepType.LAST


def _counts(system):
    """Size, inserts and samples of both tables."""
    tables = [system.table(name) for name in (QUEUE, REPLAY)]
    return [
        (t.current_size, t.rate_limiter_info.insert_stats.completed)
        + (t.rate_limiter_info.sample_stats.completed,)
        for t in tables
    ]


def _stop_learner(system):
    """SIGSTOP; waits until every actor says that it waits in a write."""
    logged = {actor: len(actor.log) for actor in system.actors.values()}
    system.learner.signal(signal.SIGSTOP)
    for actor, length in logged.items():
        wait(
            lambda actor=actor, length=length: _FULL in actor.log[length:],
            *(30, lambda: f"an actor's word that it waits\n{system.last_lines()}"),
        )


def test_killed_queue_comes_back_from_its_checkpoint_and_everybody_goes_on(system):
    begin = len(system.statuses)
    _stop_learner(system)
    last = complete_checkpoints(system.root_dir / "replay")[-1].name
    wait(
        lambda: complete_checkpoints(system.root_dir / "replay")[-1].name > last,
        *(15, "a checkpoint of the full queue"),
    )
    before = _counts(system)
    assert before[0][0] == system.table(QUEUE).max_size
    system.signal_actors(signal.SIGSTOP)  # or they would deliver before the look at the queue
    system.replay.kill()
    system.start_replay()
    wait(lambda: system.table(QUEUE), _START_SECS, "the restarted queue")
    assert _counts(system) == before
    system.signal_actors(signal.SIGCONT)
    system.learner.signal(signal.SIGCONT)
    start = system.wait_for(lambda now: True, 10, "an answer of the learner")
    system.wait_for(
        lambda now: (
            now.learner_step > start.learner_step + 20
            and all(_unrolls(now).get(task, 0) > _unrolls(start)[task] + 20 for task in (0, 1))
        ),
        *(30, "steps of the learner and unrolls of both actors"),
    )
    _require_growth(system.statuses[begin:], ["actor/unrolls", "actor/parameter_version"])


def test_killed_learner_continues_exactly_from_its_checkpoint(system):
    system.evaluator = system.start("evaluator")
    before = system.wait_for_progress(20)
    assert len(system.learner_checkpoints()) >= 2
    system.learner.kill()
    newest = system.learner_checkpoints()[-1]
    shutil.copytree(newest.parent, system.root_dir.parent / "kept")
    expected = checkpoint_contents(system.root_dir.parent / "kept" / newest.name)
    assert any("_optimizer" in name for name in expected)

    system.replay.signal(signal.SIGSTOP)  # the learner starts and cannot learn
    system.start_learner(as_pid_1=True)
    status = system.wait_for(lambda now: now.version >= 0, _START_SECS, "the restarted learner")
    step = int(newest.name[11:])
    assert status.version == step >= before.learner_step - 1000
    version, tensors = system.client(status.experiment).parameters(-1)
    network = [
        v for name, v in expected.items() if "agent/_network/" in name and "SLOT" not in name
    ]
    assert version == step and _sorted(tensors) == _sorted(network)
    assert system.learner.terminate() == 0
    assert f"continuing from learner step {step}" in system.learner.log
    again = checkpoint_contents(system.learner_checkpoints()[-1])
    assert system.learner_checkpoints()[-1].name == newest.name
    assert again.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)

    system.replay.signal(signal.SIGCONT)
    middle = len(system.statuses)
    system.start_learner()
    system.wait_for(lambda now: now.learner_step > step, _START_SECS, "the learner's steps")
    after = _wait_for_unrolls(system, {0, 1}, 30)
    assert after.frames > before.frames
    for task, role in _actors(before).items():  # the same runs, which waited and counted on
        assert role.run_id == _actors(after)[task].run_id
        assert _unrolls(after)[task] > _unrolls(before)[task]
    _require_growth(system.statuses[middle:], ["actor/unrolls"])


def _is_of_the_network(name):
    return "agent/_network/" in name and "OPTIMIZER_SLOT" not in name


def _sorted(tensors):
    return sorted(np.asarray(tensor).tobytes() for tensor in tensors)


@pytest.mark.slow
def test_sigterm_ends_every_role_whatever_it_waits_for(system):
    if system.evaluator is None:
        system.evaluator = system.start("evaluator")
    wait(
        lambda: (system.root_dir / "evaluations.csv").exists(),
        *(_START_SECS, lambda: system.evaluator.log[-3000:]),
    )
    _wait_for_unrolls(system, {0, 1}, 20)
    # One actor in the middle of a pull that nobody answers, the other blocked by the full queue.
    system.learner.signal(signal.SIGSTOP)
    time.sleep(0.3)
    assert system.actors[0].terminate() == 0
    wait(lambda: _FULL in system.actors[1].log[-400:], 20, lambda: system.actors[1].log)
    assert system.actors[1].terminate() == 0
    assert system.evaluator.terminate() == 0
    logged = len(system.learner.log)
    system.learner.signal(signal.SIGCONT)
    wait(lambda: "the queue is empty" in system.learner.log[logged:], 20, "an empty queue")
    step = system.status().learner_step
    assert system.learner.terminate() == 0
    assert int(system.learner_checkpoints()[-1].name[11:]) >= step
    assert (system.root_dir / "result.json").exists()
    checkpoints = complete_checkpoints(system.root_dir / "replay")
    assert system.replay.terminate() == 0
    assert complete_checkpoints(system.root_dir / "replay")[-1] != checkpoints[-1]
