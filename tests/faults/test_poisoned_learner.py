"""A bundle of Gorila whose emulator gives absurd rewards, and what becomes of the network.

Nothing of it is infinite, so that nothing is refused: its own filter withholds ten gradients in a
row and then takes them for a new scale. Who notices is the coordinator, by the mean |loss| of all,
if `parameter_server.rollback_loss_factor` is set.
"""

import os

import pytest
from parameter_roles import ParameterRoles
from paths import DATA

_START_SECS, _LEARN_SECS = 150.0, 300.0
_FACTOR = 10.0
#: As good as before: of an evaluation, whose best is 1.
_GOOD = 0.9
#: Updates after it was noticed until somebody ends the worker that poisons.
_POISONED_UPDATES = 600


class Bundles(ParameterRoles):
    """Gorila on Catch; each worker has a file of faults of its own."""

    def __init__(self, directory, factor, seed):
        run = directory / "run"
        run.mkdir()
        bindings = (
            "experiment.solved_return = None",
            "experiment.max_minutes = None",
            f"experiment.seed = {seed}",
            "gym_environment.id = 'faulty_environments:FaultyCatch-v0'",
            "gorila.evaluation_period_secs = 0.5",
            f"parameter_server.rollback_loss_factor = {factor}",
            "parameter_server.snapshots = 20",  # 4,000 updates
            "parameter_server.max_rollbacks = 20",
        )
        flags = [f"--gin_bindings={binding}" for binding in bindings]
        super().__init__(run, directory, DATA / "gorila_catch.gin", *flags)
        for task in (0, 1):
            self.begin("parameter_server", task)
            worker = self.begin("worker", task, env={"TFDRL_TEST_FAULTS": self.faults_of(task)})
            os.setpriority(os.PRIO_PROCESS, worker.pid, 5)
        self.begin("coordinator")
        self.begin("evaluator")

    def faults_of(self, task):
        return str(self.root_dir.parent / f"faults-{task}")

    def wait_for_good(self, version):
        """The first good evaluation of a version after this one."""
        return self.wait_for(
            lambda now: (
                now.evaluation and now.evaluation.version > version and now.evaluation.mean >= _GOOD
            ),
            *(_LEARN_SECS, f"a return of {_GOOD} after version {version}"),
        )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("factor", [_FACTOR, None], ids=["rollback", "none"])
def test_a_rollback_takes_back_what_a_poisoned_learner_did(factor, seed, tmp_path):
    system = Bundles(tmp_path, factor, seed)
    try:
        good = system.wait_for_good(0)
        usual, rollbacks = good.metrics["learner/loss"], good.metrics["parameter_server/rollbacks"]
        assert not rollbacks
        with open(system.faults_of(1), "w") as file:
            file.write("absurd")
        noticed = system.wait_for(
            lambda now: (
                now.metrics["parameter_server/rollbacks"]
                if factor
                else now.metrics["learner/loss"] > _FACTOR * usual
            ),
            *(60.0, "the rollback" if factor else "a loss that explodes"),
        )
        ended = system.wait_for(
            lambda now: now.learner_step >= noticed.learner_step + _POISONED_UPDATES,
            *(120.0, f"{_POISONED_UPDATES} more updates"),
        )
        system.running["worker", 1].kill()  # nobody else would
        again = system.wait_for_good(ended.version)
        rollbacks = again.metrics["parameter_server/rollbacks"]
        bad = [
            now.evaluation.mean
            for now in system.statuses
            if now.evaluation
            and noticed.version < now.evaluation.version < again.evaluation.version
        ]
        print(
            f"\n{'rollback' if factor else 'none'}, seed {seed}: |loss| {usual:.3g}, then "
            f"{noticed.metrics['learner/loss']:.3g}; {rollbacks:g} rollbacks; worst return "
            f"{min(bad, default=again.evaluation.mean):.2f}; {_GOOD} again "
            f"{again.evaluation.frames - ended.frames:,} frames and "
            f"{again.evaluation.version - ended.version:,} updates after its end"
        )
        assert rollbacks >= 2 if factor else not rollbacks
    finally:
        system.kill()
