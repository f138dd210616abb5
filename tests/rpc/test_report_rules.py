"""What counts is what the program's own processes can report."""

import contextlib
import math
import types

import numpy as np
import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.rpc import run_messages, status_reply
from tfdrl.rpc.report_rules import ReportRules
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_messages import Evaluation
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address, Program, actor_role, chief_role, evaluator_role

_ROLES = (
    chief_role("learner", "page"),
    actor_role("page", 3, ("learner",)),
    evaluator_role("page", "learner", 0),
)
_ARCHITECTURE = types.SimpleNamespace(program=lambda: Program("small", _ROLES))
_EXPERIMENT = Experiment(_ARCHITECTURE, evaluation_episodes=10)
_RULES = ReportRules.of(_EXPERIMENT, (-5.0, 20.0))
_TRUE = Evaluation(3, 400, 19.5, 20.0, 0.5, 12.0, 20.0, episodes=10, seconds=2.5)


def test_where_nobody_exports_anybody_evaluates():
    program = Program("small", _ROLES[:2])
    experiment = Experiment(types.SimpleNamespace(program=lambda: program))
    assert ReportRules.of(experiment).evaluators is None
    assert _RULES.evaluators == {"evaluator"}


@pytest.fixture
def server():
    server = TrainingServer(Address("127.0.0.1", 0), "digest", rules=_RULES)
    server.publish(3, [np.zeros(2, np.float32)])
    server.publish(5, [np.ones(2, np.float32)])
    yield server
    server.close()


@contextlib.contextmanager
def client_of(server, role, task, run_id=1):
    client = TrainingClient(
        server.address, experiment="digest", role=role, task=task, run_id=run_id
    )
    yield client
    client.close()


def test_the_evaluator_s_evaluation_counts(server):
    with client_of(server, "evaluator", 0) as client:
        client.report(evaluation=_TRUE)
        assert client.status().evaluation == _TRUE
    assert server.take_evaluations() == [_TRUE]


_REFUSED = {
    "an actor": ("actor", 0, {}, "an evaluation by actor; here evaluates: evaluator"),
    "an evaluator too many": ("evaluator", 1, {}, "evaluator 1 is no process of this program"),
    "nobody": ("stranger", 0, {}, "which has: 1 learner, 3 actor, 1 evaluator"),
    "one episode": ("evaluator", 0, {"episodes": 1}, "episodes is 1; .* is 10"),
    "infinite": ("evaluator", 0, {"max": math.inf}, "evaluation.max is inf"),
    "a mean beyond its bounds": ("evaluator", 0, {"mean": 1e9}, "not between min and max"),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_a_forged_evaluation_is_refused(server, name):
    role, task, changes, text = _REFUSED[name]
    with client_of(server, role, task) as client, pytest.raises(ConfigurationError, match=text):
        client.report(frames=9, evaluation=_TRUE._replace(**changes))
    assert server.take_evaluations() == [] and server.frames() == 0


_DOUBTED = {
    "a version that nobody published": ({"version": 4}, "has not published version 4"),
    "a version to come": ({"version": 1 << 40}, "has not published"),
    "more than can be": ({"mean": 1e9, "median": 1e9, "max": 1e9}, "between -5 and 20"),
    "less than can be": ({"min": -6.0}, "returns from -6 to 20"),
}


@pytest.mark.parametrize("name", _DOUBTED)
def test_an_evaluation_that_cannot_be_true_does_not_count_and_nobody_ends(server, name, caplog):
    changes, text = _DOUBTED[name]
    with client_of(server, "evaluator", 0) as client:
        client.report(metrics={"a": 1.0}, evaluation=_TRUE._replace(**changes))
        assert client.status().evaluation is None
    assert server.take_evaluations() == []
    assert text in caplog.text and server.role_metrics()["evaluator", 0][1] == {"a": 1.0}


def test_a_role_that_the_program_has_not_neither_joins_nor_reports(server):
    with client_of(server, "actor", 3) as client:
        for call in (lambda: client.join(5.0), lambda: client.report(frames=1)):
            with pytest.raises(ConfigurationError, match="actor 3 is no process of this program"):
                call()
        assert client.status().roles == []
    assert server.everybody_left()


def test_a_status_stays_small_whatever_is_reported(server, monkeypatch):
    monkeypatch.setattr(status_reply, "MAX_ROLE_METRICS", 2 * run_messages.MAX_METRICS)
    most = {
        f"{i:0{run_messages.MAX_METRIC_CHARACTERS}}": 1.0 for i in range(run_messages.MAX_METRICS)
    }
    for task in range(3):
        with client_of(server, "actor", task) as client:
            client.report(metrics=most)
    with client_of(server, "actor", 0) as client:
        roles = client.status().roles
    assert [len(role.metrics) for role in roles] == [len(most), len(most), 0]


def test_what_a_checkpoint_says_is_believed_only_if_it_can_be(caplog):
    assert _RULES.believed(_TRUE, 20.0) == (_TRUE, 20.0)
    assert _RULES.believed(None, None) == (None, None)
    forged = _TRUE._replace(mean=1e9, median=1e9, max=1e9)
    assert _RULES.believed(forged, 1e9) == (None, None)
    assert _RULES.believed(_TRUE, 1e9) == (_TRUE, None)
    assert _RULES.believed(_TRUE._replace(mean=math.nan), 3.0) == (None, 3.0)
    assert caplog.text.count("THE CHECKPOINT HAS") == 4
    assert ReportRules().believed(forged, 1e9) == (forged, 1e9)
