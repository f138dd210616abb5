"""DQN in one process, killed in mid-step: what was interrupted ends as if it had not been."""

import numpy as np
import pytest
import tensorflow as tf
from running_roles import DQN, Roles

_STEPS = 1200
_BINDINGS = (f"experiment.max_learner_steps = {_STEPS}", "dqn.checkpoint_period_steps = 300")
_FLAGS = [f"--gin_bindings={text}" for text in _BINDINGS]


@pytest.fixture
def start_run(tmp_path):
    """Starts, or continues, a run of that name."""
    runs = {}

    def start(name):
        if name not in runs:
            (tmp_path / name / "run").mkdir(parents=True)
            runs[name] = Roles(tmp_path / name / "run", tmp_path / name, DQN, *_FLAGS)
        return runs[name], runs[name].start("learner", replay=None)

    yield start
    for run in runs.values():
        run.kill()


def _final_state(run):
    """Everything in the last checkpoint but the clocks, and the arrays of the last replay."""
    checkpoint = run.root_dir / "checkpoints" / f"checkpoint-{_STEPS}"
    reader = tf.train.load_checkpoint(str(checkpoint))
    names = [n for n in reader.get_variable_to_shape_map() if not n.startswith(("counters", "_CH"))]
    state = {name: reader.get_tensor(name) for name in names}
    newest = max((run.root_dir / "replay").glob("steps-*"), key=lambda path: int(path.name[6:]))
    for path in newest.glob("*.npy"):
        state[f"replay/{newest.name}/{path.name}"] = np.load(path, allow_pickle=False)
    return state


def test_killed_run_goes_on_bit_for_bit(start_run):
    whole, uninterrupted = start_run("whole")
    broken, process = start_run("broken")
    broken.wait_for(lambda status: status.learner_step > 320, 60, "320 steps")
    process.kill()
    saved = sorted(
        int(p.stem[11:]) for p in (broken.root_dir / "checkpoints").glob("checkpoint-*.index")
    )
    assert saved and saved[-1] < _STEPS, "killed too late to show anything"
    _, process = start_run("broken")
    assert uninterrupted.exit_code(60) == 0
    assert process.exit_code(60) == 0
    assert f"continuing from learner step {saved[-1]}" in process.log

    expected, found = _final_state(whole), _final_state(broken)
    assert expected.keys() == found.keys()
    for part in ("_q_network", "_target_q_network", "_optimizer", "generator", "replay/"):
        assert any(part in name for name in expected), part
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
