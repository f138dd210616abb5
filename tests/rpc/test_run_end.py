"""A role that nobody stops ends after its chief, and not because the chief is away for a while."""

import threading
import time

import pytest

from tfdrl.rpc.run_end import stops
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address, Context


@pytest.fixture
def serve():
    """Starts the chief's service; at its former address when it comes again."""
    servers = []

    def serve():
        address = servers[-1].address if servers else Address("127.0.0.1", 0)
        servers.append(TrainingServer(address, "digest"))
        return servers[-1]

    yield serve
    for server in servers:
        server.close(0.0)


@pytest.fixture
def context(tmp_path):
    return Context("replay", 0, 1, tmp_path, experiment="digest")


def _wait(condition, limit_secs=15.0):
    deadline = time.monotonic() + limit_secs
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_ends_once_the_chief_has_left(serve, context):
    chief = serve()
    with stops(context, chief.address):
        _wait(chief.role_metrics)
        chief.finish("solved")
        _wait(chief.everybody_left)  # the chief need not wait in vain
        assert not context.stop.is_set()  # the chief may still want something of it
        chief.close(0.0)
        assert context.stop.wait(10.0)
    assert not context.told.is_set()  # it was no signal: a Job of it is complete


def test_a_chief_that_comes_back_has_ended_nothing(serve, context):
    chief = serve()
    with stops(context, chief.address):
        for _ in range(2):
            _wait(chief.role_metrics)
            chief.close(0.0)  # as one that is killed
            chief = serve()
        _wait(chief.role_metrics)
        assert not context.stop.is_set()
        chief.finish("solved")
        _wait(chief.everybody_left)
        chief.close(0.0)
        assert context.stop.wait(10.0)


def test_the_chief_of_another_experiment_ends_nobody(serve, context, caplog):
    context.experiment = "another"
    with stops(context, serve().address):
        _wait(lambda: "nobody will tell this role" in caplog.text)
    assert not context.stop.is_set()


def test_without_a_chief_nobody_is_asked(context):
    before = threading.active_count()
    with stops(context, None):
        assert threading.active_count() == before
