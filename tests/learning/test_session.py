"""A learner's session keeps what its roles told it, up to its end."""

import dataclasses
import functools
import json
import time

import pytest

from tfdrl.agents import optimizers
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.architectures.impala import Impala
from tfdrl.environments import gym_environment
from tfdrl.experiment import Experiment
from tfdrl.learning.session import LearnerSession
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.rpc import run_messages, training_pb2
from tfdrl.rpc.run_messages import Evaluation
from tfdrl.runtime import agent_factory
from tfdrl.topology import Address, Context


def make_agent(*specs, **more):
    network, optimizer = MlpActorCriticNetwork, optimizers.sgd()
    return VTraceAgent(*specs, network=network, optimizer=optimizer, **more)


ENVIRONMENT = functools.partial(gym_environment, id="tfdrl/Chain-v0")
EXPERIMENT = Experiment(Impala(environment=ENVIRONMENT, agent=make_agent))


@pytest.fixture(scope="module")
def agent():
    with ENVIRONMENT(1, False, 0) as environment:
        return agent_factory.make_agent(make_agent, environment)


@pytest.fixture
def begin(tmp_path, agent):
    def session(experiment=EXPERIMENT):
        context = Context("learner", 0, 1, tmp_path, Address("127.0.0.1", 0))
        return LearnerSession(experiment, context, agent, "", 1, 1e9)

    return session


def _tell(session, mean):
    """An evaluation, as the evaluator reports it."""
    evaluation = Evaluation(0, 0, mean, mean, 0.0, mean, mean, 100, 1.0)
    sender = training_pb2.Sender(role="evaluator", task=0, run_id=7)
    message = run_messages.evaluation_to_message(evaluation)
    session.service.record(training_pb2.ReportRequest(sender=sender, evaluation=message))


def test_an_evaluation_that_comes_while_the_roles_leave_counts(begin, tmp_path, monkeypatch):
    with begin() as session:
        _tell(session, 0.5)
        session.tick(dict)
        _tell(session, 0.75)
        leave = session._let_roles_leave
        monkeypatch.setattr(session, "_let_roles_leave", lambda: (_tell(session, 0.25), leave()))
        session.end("reached an end")
    result = _result(tmp_path)
    assert (result["evaluation"]["mean"], result["best_return"]) == (0.25, 0.75)
    assert len((tmp_path / "evaluations.csv").read_text().splitlines()) == 1 + 3
    with begin() as again:
        assert again.evaluation.mean == 0.25 and again._best == 0.75


def test_another_start_of_a_run_that_is_over_is_no_training(begin, tmp_path):
    experiment = dataclasses.replace(EXPERIMENT, solved_return=0.5)
    with begin(experiment) as session:
        time.sleep(0.05)
        _tell(session, 0.75)
        session.tick(dict)
        assert not session.goes_on()
    trained_secs = _result(tmp_path)["training_secs"]
    assert trained_secs > 0.05
    with begin(experiment) as again:
        assert not (tmp_path / "result.json").exists()  # if it is killed, it has no result
        time.sleep(0.05)
        assert not again.goes_on()
    assert _result(tmp_path)["training_secs"] == pytest.approx(trained_secs, abs=1.0)


def test_what_solved_a_run_is_its_last_evaluation(begin, tmp_path, monkeypatch):
    """Or another start would find it unsolved, and train on."""
    experiment = dataclasses.replace(EXPERIMENT, solved_return=0.5)
    with begin(experiment) as session:
        _tell(session, 0.5)
        session.tick(dict)
        leave = session._let_roles_leave
        monkeypatch.setattr(session, "_let_roles_leave", lambda: (_tell(session, 0.25), leave()))
        assert not session.goes_on()
    result = _result(tmp_path)
    assert result["evaluation"]["mean"] == 0.5
    assert result["reason"].startswith("solved: mean return 0.50 over")
    assert len((tmp_path / "evaluations.csv").read_text().splitlines()) == 1 + 2
    with begin(experiment) as again:
        assert not again.goes_on()


def _result(directory):
    return json.loads((directory / "result.json").read_text())
