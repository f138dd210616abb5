"""What strangers do to a replay is noticed; what the run does is not taken for it."""

import logging
import threading

import numpy as np
import pytest
import reverb

from tfdrl.errors import NOTICE
from tfdrl.launch.local.addresses import free_ports
from tfdrl.replay import role
from tfdrl.replay.server import ReplayServer
from tfdrl.replay.unknown_changes import TableWatch
from tfdrl.topology import Address, Context


def _tables():
    return [_table("uniform", reverb.selectors.Uniform(), 0), _table("queue", _fifo(), 1)]


def _fifo():
    return reverb.selectors.Fifo()


def _table(name, sampler, max_times_sampled):
    limiter = reverb.rate_limiters.MinSize(1)
    return reverb.Table(name, sampler, _fifo(), 30, limiter, max_times_sampled=max_times_sampled)


def _insert(client, count):
    for _ in range(count):
        for name in ("uniform", "queue"):
            client.insert([np.zeros(3, np.float32)], {name: 1.0})


@pytest.fixture
def address():
    return Address("127.0.0.1", next(free_ports()))


@pytest.fixture
def server(address, tmp_path):
    server = ReplayServer(_tables, address, tmp_path / "replay")
    yield server
    server.stop()


def test_what_the_run_does_is_no_news(server, address):
    watch, client = TableWatch(), reverb.Client(str(address))
    assert watch.look(server.info()) == []
    for _ in range(3):
        _insert(client, 20)  # the tables hold 30: older items go
        assert len(list(client.sample("queue", 10))) == 10
        assert len(list(client.sample("uniform", 10))) == 10
        server.checkpoint()
        assert watch.look(server.info()) == [] == server.unknown_checkpoints()


@pytest.mark.parametrize("name", ["uniform", "queue"])
def test_a_reset(server, address, name):
    watch, client = TableWatch(), reverb.Client(str(address))
    _insert(client, 20)
    watch.look(server.info())
    client.reset(name)
    _insert(client, 2)
    (words,) = watch.look(server.info())
    assert words == f"somebody has RESET the replay table '{name}': 20 items are now 2"
    assert watch.look(server.info()) == []


def test_items_that_somebody_deletes(server, address):
    watch, client = TableWatch(), reverb.Client(str(address))
    _insert(client, 20)
    watch.look(server.info())
    keys = [sample[0].info.key for sample in client.sample("uniform", 5)]
    client.mutate_priorities("uniform", deletes=list(set(keys)))
    (words,) = watch.look(server.info())
    assert words.startswith("somebody has DELETED items of the replay table 'uniform': 20 are now")


def test_the_role_says_it_in_its_log(address, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(role, "_PERIOD_SECS", 0.1)
    context = Context("replay", 0, 1, tmp_path, listen=address)
    serving = threading.Thread(target=role.serve, args=(_tables, context, 0.0), daemon=True)
    with caplog.at_level(logging.ERROR):
        serving.start()
        client = reverb.Client(str(address))
        _insert(client, 5)
        path = client.checkpoint()
        for condition in (f"CHECKPOINT {path} written", "RESET the replay table 'queue'"):
            for _ in range(200):
                if condition in caplog.text:
                    break
                client.reset("queue")
                _insert(client, 5)
                threading.Event().wait(0.15)
            assert f"{NOTICE}somebody has" in caplog.text and condition in caplog.text
        context.stop.set()
        serving.join(30)
    assert not serving.is_alive()
    assert caplog.text.count("CHECKPOINT") == 1  # the last one is the role's own
