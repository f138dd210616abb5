"""A worker that is twenty times slower: its gradients are rejected, the others learn on."""

import pytest
from local_runs import train

#: CartPole of two quick workers, and, beside them, one that is slow.
_SLOW = (
    *("a3c.workers = 3", "a3c.slowed_workers = 1", "parameter_server.max_gradient_age = 10"),
    *("experiment.solved_return = None", "experiment.max_minutes = 1.5"),
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stale_gradients_of_a_straggler_are_rejected_and_the_task_is_solved(tmp_path):
    ended = train("a3c/cartpole.gin", tmp_path / "run", *_SLOW, limit_secs=500.0)
    assert ended.result["best_return"] >= 475.0
    last = ended.statuses[-1]
    workers = {role.task: role.metrics for role in last.roles if role.role == "worker"}
    applied, rejected = (
        {task: metrics[f"worker/{name}"] for task, metrics in workers.items()}
        for name in ("gradients", "rejected_gradients")
    )
    print(f"\napplied {applied}, rejected {rejected}; server: {last.metrics['gradients/stale']}")
    # The slow one's are too old but for its first ones, when nobody learns yet.
    assert rejected[2] > 2 * applied[2]
    for task in (0, 1):
        assert rejected[task] < 0.01 * applied[task]
        assert applied[task] > 5 * (applied[2] + rejected[2])
    assert last.metrics["gradients/stale"] >= rejected[2] - 1  # the worker's report may be newer
