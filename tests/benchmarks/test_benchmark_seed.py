"""tfdrl-benchmark on SEED: real servers and actors, figures that follow from each other."""

import json
import pathlib
import subprocess
import sys

import pytest

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_service_and_whole_are_measured(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "binaries.benchmark", f"--json={tmp_path}/figures.json"),
            *("--gin_file=seed/random_frames_vtrace.gin", "--rounds=1", "--round_secs=0.5"),
            *("--seconds=3", "--gin_bindings=seed.actors = 2", "--parts=a,e"),
            "--gin_bindings=seed.batch_size = 8",
            "--gin_bindings=VTraceAgent.network = @ShallowActorCriticNetwork",
        ],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=350,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    service, whole = json.loads((tmp_path / "figures.json").read_text())
    figures = {figure["name"]: figure["value"] for figure in service["figures"]}
    echo, null, network = (
        figures[name]
        for name in (
            *("bare grpcio stream, same messages", "service without a network", "service"),
        )
    )
    assert echo > null > 100 and network > 50
    assert figures["service without a network / bare grpcio"] == pytest.approx(null / echo)
    limit = figures["limit of the service by these costs"]
    assert figures["service / its limit"] == pytest.approx(network / limit)
    assert "2 actors of 4 environments" in service["title"]
    figures = {figure["name"]: figure["value"] for figure in whole["figures"]}
    assert figures["environment steps"] > 20 and figures["learner steps"] > 0
    assert figures["actor 0: memory (RSS)"] < 200 < figures["learner: memory (RSS)"]
    assert "Inference service" in done.stdout and "round 1 of 1" in done.stderr
