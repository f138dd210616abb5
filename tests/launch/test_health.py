"""tfdrl-health: of real servers, with and without TLS, and of processes that serve nothing."""

import os
import signal
import subprocess
import sys
import time

import certificates
import pytest

from tfdrl.errors import UnavailableError
from tfdrl.launch.tools import health
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

_ANYWHERE = Address("localhost", 0)


def _health(*flags):
    command = [sys.executable, "-m", "binaries.health", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    certificates.make_all(directory)
    return directory


@pytest.fixture
def role():
    """A process with the command line of a role that serves on a real server's port."""
    started = []

    def start(*arguments):
        command = [sys.executable, "-c", "import time; time.sleep(100)", *arguments]
        started.append(subprocess.Popen(command))
        time.sleep(0.1)  # until its command line is its own
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_service_that_serves():
    service = TrainingServer(_ANYWHERE, "experiment", "specs")
    service.set_status(7, {"learner/waiting_share": 0.25})
    try:
        done = _health(f"--address={service.address}")
    finally:
        service.close()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("serves: learner step 7, 0 frames, up 0:00:0")
    assert done.stdout.endswith(", waiting: learner 25 %\n")


def test_server_without_health_checks_that_answers():
    import reverb

    server = reverb.Server(tables=[reverb.Table.queue("queue", 1)], port=None)
    try:
        done = _health(f"--address=localhost:{server.port}")
    finally:
        server.stop()
    assert (done.returncode, done.stdout) == (0, "serves, without health checks\n"), done.stderr


def test_nobody_is_there():
    service = TrainingServer(_ANYWHERE, "experiment", "specs")
    address = service.address
    service.close()
    start_secs = time.monotonic()
    done = _health(f"--address={address}", "--timeout_secs=1.5")
    assert done.returncode == 1 and f"no answer from {address} within 1.5 s" in done.stderr
    assert time.monotonic() - start_secs < 10


def test_server_that_stands_still():
    code = """if True:
        import sys, time
        from tfdrl.rpc.run_server import TrainingServer
        from tfdrl.topology import Address
        print(TrainingServer(Address("localhost", 0), "experiment", "specs").address, flush=True)
        time.sleep(100)"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        address = Address.parse(process.stdout.readline().strip())
        assert health.check(address, Security(), 5.0).startswith("serves: ")
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(UnavailableError, match="no answer"):
            health.check(address, Security(), 1.0)
    finally:
        process.kill()
        process.wait()


def test_role_with_mutual_tls_is_asked_with_its_own_certificate(files, role):
    flags = certificates.flags(files, "learner")
    security = Security.from_files(*(flag.partition("=")[2] for flag in flags))
    service = TrainingServer(_ANYWHERE, "experiment", "specs", security=security)
    try:
        told = role("--role=learner", *flags, "--listen", f"0.0.0.0:{service.address.port}")
        assert health.check_role(told.pid, 5.0).startswith("learner serves: learner step 0")
        done = _health(f"--address={service.address}", "--timeout_secs=2")
        assert done.returncode == 1  # nobody else is answered
        stranger = certificates.flags(files, "stranger")[:3]
        done = _health(f"--address={service.address}", "--timeout_secs=2", *stranger)
        assert done.returncode == 1
        actor = certificates.flags(files, "actor")[:3]
        done = _health(f"--address={service.address}", *actor)
        without_token = (done.returncode, done.stdout)
        assert without_token == (0, "serves\n"), done.stderr
    finally:
        service.close()


def test_role_that_serves_nothing(role):
    process = role("--role=actor", "--task=3", "--learner=localhost:8000")
    assert health.check_role(process.pid, 1.0).startswith("actor 3 runs, up 0:00:0")
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    with pytest.raises(UnavailableError, match=r"does not run \(state T\)"):
        health.check_role(process.pid, 1.0)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(UnavailableError, match=r"does not run \(state Z\)"):
        health.check_role(process.pid, 1.0)
    process.wait()
    with pytest.raises(UnavailableError, match="there is no process"):
        health.check_role(process.pid, 1.0)


def test_it_needs_no_tensorflow():
    code = (
        "import sys, binaries.health, tfdrl.launch.tools.health; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
