"""The same training on a quiet machine and on a busy one: a replay ratio, and no clock."""

import pytest
import replay_ratio_runs


@pytest.mark.slow
@pytest.mark.timeout(6 * 900)
def test_results_do_not_depend_on_the_machines_speed(tmp_path):
    results = replay_ratio_runs.main(tmp_path, figure=None)
    assert len(results) == 6
    for result in results:
        assert result.reason.startswith("solved"), result
        expected = pytest.approx(replay_ratio_runs.FRAMES_PER_STEP, rel=0.1)
        assert result.frames_per_step == expected, result
    assert replay_ratio_runs.slowdown(results) <= 3.0
