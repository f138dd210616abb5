"""What one sender can do to a coordinator of a system that runs, A3C's or Gorila's: nothing.

The services are those of learners, whose attacks tests/rpc has one by one.
"""

import math

import hostile_http2
import pytest
from paths import DATA
from whole_programs import WholeProgram

from tfdrl.errors import TfdrlError
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.topology import Address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
_ATTACK_SECS = 3.0


@pytest.fixture(scope="module", params=["a3c_catch", "gorila_global_catch"])
def system(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    system = WholeProgram(directory, DATA / f"{request.param}.gin")
    try:
        system.wait_for_progress(120)
        yield system
    finally:
        system.kill()


def _refused(system, role, task=0, run_id=1, call="report", **report):
    """Sends a report, or joins; returns why it was refused."""
    sender = {"experiment": system.status().experiment, "role": role, "task": task}
    address = Address.parse(system.addresses["learner"])
    client = TrainingClient(address, **sender, run_id=run_id)
    try:
        with pytest.raises(TfdrlError) as raised:
            getattr(client, call)(**report)
        return str(raised.value)
    finally:
        client.close()


def test_reports_that_cannot_be_true_are_refused(system):
    before = system.wait_for(lambda now: now.evaluation is not None, 120, "an evaluation")
    one = next(role.name for role in system.program.roles if role.name in ("worker", "actor"))
    forged = before.evaluation._replace(mean=1e9, median=1e9, max=1e9)
    assert "counts up from 0 to" in _refused(system, one, frames=2**63 - 1)
    assert "no process makes more than" in _refused(system, one, frames=2**45)
    assert f"an evaluation by {one}" in _refused(system, one, evaluation=forged)
    assert "not between min and max" in _refused(
        system, "evaluator", evaluation=forged._replace(max=0.0)
    )
    assert "is no process of this program" in _refused(system, one, task=999, frames=1)
    assert "is no process of this program" in _refused(
        system, "stranger", call="join", timeout_secs=5.0
    )
    assert "metric" in _refused(system, one, metrics={f"{i:0128}": math.pi for i in range(10_000)})
    after = system.wait_for_progress(60)
    assert after.frames < before.frames + 10_000_000 and after.evaluation.mean <= 1.0


def test_resets_pings_and_half_open_calls_hold_up_nobody(system):
    host, _, port = system.addresses["learner"].partition(":")

    def connect():
        return hostile_http2.Connection(host, int(port))

    coordinator = system.running[system.program.chief, 0]
    before_mb = _resident_mb(coordinator.pid)
    for attack in ("rapid_resets", "pings", "half_open_calls"):
        getattr(hostile_http2, attack)(connect, _ATTACK_SECS)
        system.wait_for_progress(60)
    assert _resident_mb(coordinator.pid) < before_mb + 200
    assert coordinator.returncode is None


def _resident_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def test_nobody_has_ended_of_it(system):
    assert [key for key, role in system.running.items() if role.returncode is not None] == []
    runs = {(role.role, role.task): role.run_id for role in system.status().roles}
    before = {(role.role, role.task): role.run_id for role in system.statuses[-1].roles}
    assert runs == before
