"""A Ray cluster whose head is lost."""

import pytest
import ray_cluster
from cluster_runs import ProcessRun, tiny_flags

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ray_cluster.missing()), reason=ray_cluster.missing() or "there"),
]


def test_all_stop_in_order_before_ray_ends_them_without_its_head(tmp_path):
    with ray_cluster.node_with_a_head() as (environment, kill_head):
        run = ProcessRun("ray", tmp_path, *tiny_flags(tmp_path), environment=environment)
        try:
            run.wait_until_up()
            kill_head()
            assert run.end(90.0) == 1
        finally:
            run.kill()
    assert "is gone; stopping the other roles" in run.output
    assert run.stopped()[-1] == "replay-0" and len(run.stopped()) == 3
