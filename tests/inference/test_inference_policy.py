"""The learner as player of all environments: what it keeps of each, the unrolls it makes."""

import asyncio
import itertools
import time

import grpc
import numpy as np
import oracles
import pytest
import tensorflow as tf
import tree
from tf_agents.trajectories import time_step

from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.environments.registry import atari_environment, gym_environment
from tfdrl.experience.frame_stacks import restack
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.experience.unroll_queue import UnrollQueue
from tfdrl.inference.environments import CentralInference
from tfdrl.inference.policy import Acted, BatchedPolicy
from tfdrl.inference.state_table import Place
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.rpc import environment_specs, inference_pb2
from tfdrl.rpc.grpc_server import RefusedError
from tfdrl.rpc.inference_messages import StepsEncoder, StepsValidator, parse_request
from tfdrl.rpc.inference_server import TrainingIsOver
from tfdrl.rpc.tensors import MessageError
from tfdrl.runtime import agent_factory
from tfdrl.types import FIRST, MID, ArraySpec, TimeSteps

_T = 5
_MESSAGE = inference_pb2.Steps()


def catch(num_envs, seed=1, **kwargs):
    return gym_environment(num_envs, True, seed, id="tfdrl/Catch-v0", kwargs={"rows": 5, **kwargs})


def recurrent_agent(environment):
    def network(input_spec, action_spec):
        return MlpActorCriticNetwork(input_spec, action_spec, layer_units=(8,), lstm_units=6)

    def factory(*specs, **arguments):
        optimizer = tf.keras.optimizers.Adam(1e-3)
        settings = {"network": network, "optimizer": optimizer, "last_action_and_reward": True}
        return VTraceAgent(*specs, **settings, **arguments)

    agent_factory.set_seed(3)
    return agent_factory.make_agent(factory, environment)


class Table:
    """A player of `environments` numbers and what it made: unrolls, reports."""

    def __init__(self, agent, environment, environments=8, policy=None, is_open=True, **settings):
        self.specs = environment_specs.environment_specs(environment)
        self.unrolls, self.reports, self.version = [], [], 0
        self.agent = agent
        inference = BatchedPolicy(
            policy or agent.collect_policy,
            self.specs,
            **{
                **{"environments": environments, "max_rows": environments},
                **{"rows_wanted": lambda: 1, "time_limit_secs": 0.05},
                **settings,
            },
        )
        self.inference = inference
        self.player = CentralInference(
            inference,
            self.specs,
            **{"environments": environments, "max_block": environments, "unroll_steps": _T},
            put=self._put,
        )
        if is_open:
            self.player.open(self.reports.append, self._version)

    def _version(self):
        if self.version is None:
            raise ZeroDivisionError
        return self.version

    def _put(self, collected):
        """Each block as a batch of its own."""
        queue = UnrollQueue(100)
        assert queue.put(collected) is None
        self.unrolls.append(queue.take(collected.rows, 0.0))

    def hello(self, first=0, rows=2, run_id=1):
        message = inference_pb2.Hello(first_environment=first, environments=rows)
        message.sender.run_id = run_id
        message.sender.role = "actor"
        return message

    def join(self, **place):
        return self.player.join(self.hello(**place))


@pytest.fixture(scope="module")
def agent():
    with catch(1) as environment:
        return recurrent_agent(environment)


@pytest.fixture
def table(agent):
    with catch(1) as environment:
        table = Table(agent, environment)
    yield table
    table.player.close(None)


def ask(block, *step):
    """The player's actions for a step."""
    return asyncio.run(block.act(*step))


def play(block, environment, count, steps=None):
    """`count` steps by the player's actions; all the steps that the environment showed."""
    return asyncio.run(play_on(block, environment, count, steps))


async def play_on(block, environment, count, steps=None):
    """As `play`, beside others."""
    shown = [environment.reset() if steps is None else steps]
    for index in range(block.next_index, block.next_index + count):
        leaves = environment_specs.flatten(environment.observation_spec, shown[-1].observation)
        (action,) = await block.act(index, shown[-1]._replace(observation=leaves), _MESSAGE)
        shown.append(environment.step(action))
    return shown


def test_unrolls_are_the_stream_of_steps_with_the_state_before_their_first(table):
    block = table.join(rows=3)
    with catch(3) as environment:
        shown = play(block, environment, 3 * _T + 1)
    assert len(table.unrolls) == 3
    for number, unrolls in enumerate(table.unrolls):
        for t in range(_T + 1):
            found = tree.map_structure(lambda leaf: leaf[:, t], unrolls.steps)  # noqa: B023
            for left, right in zip(tree.flatten(found), tree.flatten(shown[number * _T + t])):
                np.testing.assert_array_equal(left, right)
    initial = tree.flatten(table.agent.collect_policy.get_initial_state(3))
    for found, zeros in zip(tree.flatten(table.unrolls[0].policy_state), initial):
        np.testing.assert_array_equal(found, zeros)
    assert np.abs(tree.flatten(table.unrolls[1].policy_state)[0]).max() > 0.01


def test_unrolls_have_no_wrappers_of_tensorflow(table):
    info = table.inference.info_nest([np.zeros(2)])
    assert type(info) is dict and type(table.agent.collect_policy.info_spec) is not dict


def test_on_policy_ratios_are_one(table):
    """State, last action and reward, logits and actions all belong to the steps beside them."""
    block = table.join(rows=4)
    with catch(4) as environment:
        play(block, environment, 4 * _T + 1)
    for unrolls in table.unrolls:
        batch = to_batch(unrolls)
        info = table.agent.loss(**train_arguments(table.agent, batch))
        assert float(info.extra.log_rho) < 1e-4
        assert float(info.extra.entropy) > 0.1


def test_two_actors_in_one_batch_get_what_each_alone_would(agent):
    """A greedy policy, so that nothing is random."""
    with catch(1) as environment:
        alone = Table(agent, environment, policy=agent.policy)
        together = Table(agent, environment, policy=agent.policy, rows_wanted=lambda: 5)

    async def run(table, place):
        with catch(place["rows"], seed=place["first"]) as environment:
            return await play_on(table.join(**place), environment, 12)

    async def run_both():
        return await asyncio.gather(*(run(together, place) for place in places))

    places = [{"first": 0, "rows": 2, "run_id": 1}, {"first": 2, "rows": 3, "run_id": 2}]
    for place, found in zip(places, asyncio.run(run_both())):
        for left, right in zip(asyncio.run(run(alone, place)), found):
            for a, b in zip(tree.flatten(left), tree.flatten(right)):
                np.testing.assert_array_equal(a, b)
    assert together.inference.statistics()["inference/batch_rows"] > 3.5
    alone.player.close(None)
    together.player.close(None)


def test_version_is_that_of_an_unrolls_first_action(table):
    block = table.join()
    with catch(2) as environment:
        shown = play(block, environment, 3)
        table.version = 7
        shown = play(block, environment, _T, shown[-1])
        table.version = 9
        play(block, environment, _T, shown[-1])
    assert [unrolls.version.tolist() for unrolls in table.unrolls] == [[0, 0], [7, 7]]


def test_new_run_forgets_the_old_one_whole(table):
    block = table.join(run_id=1)
    with catch(2) as environment:
        play(block, environment, _T - 1)
        block.leave()
        again = table.join(run_id=2)
        assert again.next_index == 0
        shown = play(again, environment, _T + 1)
    (unrolls,) = table.unrolls
    np.testing.assert_array_equal(unrolls.steps.observation[:, 0], shown[0].observation)
    assert not np.any(tree.flatten(unrolls.policy_state)[0])
    again.leave()
    with pytest.raises(RefusedError, match="run 1 was replaced by a newer one") as error:
        table.join(run_id=1)
    assert error.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_stream_that_was_cut_goes_on_where_it_was(table):
    block = table.join()
    with catch(2) as environment:
        shown = play(block, environment, 3)
        block.leave()
        block = table.join()
        assert block.next_index == 3
        # The answer to step 2 was lost: sent again, it is answered alike and counted once.
        leaves = [shown[2].observation]
        (again,) = ask(block, 2, shown[2]._replace(observation=leaves), _MESSAGE)
        play(block, environment, _T - 2, shown[3])
    (unrolls,) = table.unrolls
    np.testing.assert_array_equal(unrolls.action[:, 2], again)
    for t in range(4):
        np.testing.assert_array_equal(unrolls.steps.observation[:, t], shown[t].observation)


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ({"first": 7, "rows": 2}, None, "environments 7 to 8; this training has 8"),
        ({"rows": 0}, None, "0 environments; an actor plays 1 to 8"),
        ({"rows": 9}, None, "9 environments; an actor plays 1 to 8"),
        ({"first": 1, "run_id": 2}, "ALREADY_EXISTS", "environments 0 to 1 are being played"),
        ({"run_id": 1}, "ALREADY_EXISTS", "environments 0 to 1 are being played"),
    ],
)
def test_places_that_cannot_be_taken(table, place, code, words):
    table.join()
    with pytest.raises((MessageError, RefusedError), match=words) as error:
        table.join(**place)
    assert code is None or error.value.code.name == code


def test_steps_out_of_order_are_refused_and_change_nothing(table):
    block = table.join()
    with catch(2) as environment:
        shown = play(block, environment, 2)
        leaves = shown[-1]._replace(observation=[shown[-1].observation])
        for index, words in ((5, "2 comes next"), (0, "2 comes next")):
            with pytest.raises(MessageError, match=words):
                ask(block, index, leaves, _MESSAGE)
        wrong = leaves._replace(step_type=np.full(2, FIRST, np.int32))
        with pytest.raises(MessageError, match="a FIRST step follows a LAST one"):
            ask(block, 2, wrong, _MESSAGE)
        play(block, environment, _T, shown[-1])
    assert len(table.unrolls) == 1


def test_actors_are_refused_until_the_learner_is_ready(agent):
    with catch(1) as environment:
        table = Table(agent, environment, is_open=False)
    with pytest.raises(RefusedError, match="starting") as error:
        table.join()
    assert error.value.code is grpc.StatusCode.UNAVAILABLE
    table.player.close(None)


def test_after_the_end_every_step_is_answered_with_stop(table):
    block = table.join()
    with catch(2) as environment:
        shown = play(block, environment, 2)
        table.player.close("solved")
        with pytest.raises(TrainingIsOver, match="solved"):
            play(block, environment, 1, shown[-1])


def test_actors_wait_for_the_next_learner_when_this_one_is_told_to_stop(table):
    block = table.join()
    with catch(2) as environment:
        shown = play(block, environment, 2)
        table.player.close(None)
        with pytest.raises(RefusedError, match="wait for the next") as error:
            play(block, environment, 1, shown[-1])
    assert error.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_step_that_failed_half_done_ends_its_run(table):
    block = table.join()
    with catch(2) as environment:
        shown = play(block, environment, 2)
        table.version = None
        with pytest.raises(ZeroDivisionError):
            play(block, environment, 1, shown[-1])
        table.version = 0
        block.leave()
        again = table.join()
        assert again is not block and again.next_index == 0
        play(again, environment, _T + 1)
    assert len(table.unrolls) == 1


def test_reports_once_a_second_and_of_episodes_at_once(table):
    block, joined_secs = table.join(run_id=5), time.monotonic()
    with catch(2) as environment:
        shown = play(block, environment, 2)
        assert len(table.reports) <= time.monotonic() - joined_secs  # none, on a quiet machine
        before = len(table.reports)
        message = inference_pb2.Steps(frames=44)
        message.episodes.returns.extend([1.0, -1.0])
        message.episodes.length_frames.extend([4, 4])
        steps = shown[-1]._replace(observation=[shown[-1].observation])
        ask(block, 2, steps, message)
        (report,) = table.reports[before:]
        assert (report.sender.run_id, report.frames) == (5, 44)
        assert list(report.episodes.returns) == [1.0, -1.0]
        time.sleep(1.05)
        message = inference_pb2.Steps(frames=99)
        play_one = environment.step(np.zeros(2, np.int32))
        ask(block, 3, play_one._replace(observation=[play_one.observation]), message)
    assert table.reports[-1].frames == 99
    assert table.reports[-1].metrics["actor/episode_return"] == 0.0
    assert table.reports[-1].metrics["actor/frames_per_second"] > 0


def test_statistics_count_who_is_here(table):
    blocks = [table.join(first=0, run_id=1), table.join(first=4, rows=3, run_id=2)]
    found = table.player.statistics()
    assert (found["inference/actors"], found["inference/environments"]) == (2, 5)
    blocks[0].leave()
    found = table.player.statistics()
    assert (found["inference/actors"], found["inference/environments"]) == (1, 3)


def test_masks_come_over_the_wire_into_unrolls():
    """Doors raises at a forbidden action; the learner's logits are those that acted."""
    make = {"id": "tfdrl/Doors-v0", "kwargs": {"rooms": 3}, "action_mask": "action_mask"}
    with gym_environment(3, True, 1, **make) as environment:
        agent = recurrent_agent(environment)
        table = Table(agent, environment)
        block = table.join(rows=3)
        specs = environment_specs.environment_specs(environment)
        encoder, validator = StepsEncoder(specs, 3), StepsValidator(specs, 3)
        shown = [environment.reset()]
        for index in range(4 * _T + 1):
            sent = parse_request(encoder.encode(index, shown[-1], 0, None))
            (action,) = ask(block, index, validator.time_steps(sent), sent.message)
            shown.append(environment.step(action))
    assert len(table.unrolls) == 4
    for number, unrolls in enumerate(table.unrolls):
        for t in range(_T + 1):
            for part, expected in shown[number * _T + t].observation.items():
                np.testing.assert_array_equal(unrolls.steps.observation[part][:, t], expected)
        info = agent._loss(**train_arguments(agent, to_batch(unrolls)))
        assert np.isfinite(info.loss) and float(info.extra.log_rho) < 1e-4
        assert 0.3 < float(info.extra.entropy) <= np.log(2) + 1e-6  # of the two doors that are open
    table.player.close(None)


@pytest.mark.parametrize("game", ["Pong", "Breakout"])
def test_frames_are_stacked_as_the_environment_would(game):
    """In Breakout a lost life ends episodes, and stacks go on."""

    def pixels(input_spec, action_spec):
        return MlpActorCriticNetwork(input_spec, action_spec, layer_units=(4,))

    with atari_environment(2, True, 1, id=game, life_loss=True) as environment:
        agent = agent_factory.make_agent(
            lambda *specs, **more: VTraceAgent(
                *specs, network=pixels, optimizer=tf.keras.optimizers.Adam(1e-3), **more
            ),
            environment,
        )
        table = Table(agent, environment)
        block = table.join()
        specs = environment_specs.environment_specs(environment)
        encoder, validator = StepsEncoder(specs, 2), StepsValidator(specs, 2)
        shown = [environment.reset()]
        for index in range(60 * _T + 1 if game == "Breakout" else 2 * _T + 1):
            sent = parse_request(encoder.encode(index, shown[-1], 0, None))
            (action,) = ask(block, index, validator.time_steps(sent), sent.message)
            shown.append(environment.step(action))
    kinds = np.array([steps.step_type for steps in shown])
    assert (kinds[1:] == FIRST).any() == (game == "Breakout")
    for number, unrolls in enumerate(table.unrolls):
        assert unrolls.steps.observation.frames.shape == (2, _T + 4, 84, 84)
        stacks = restack(unrolls.steps.observation).numpy()
        for t in range(_T + 1):
            expected = shown[number * _T + t].observation
            np.testing.assert_array_equal(stacks[:, t], expected)
    table.player.close(None)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_compiled_inference_gives_the_same_numbers(agent, jit_compile):
    """Distribution parameters and state; the samples have random numbers of their own."""
    with catch(3) as environment:
        table = Table(agent, environment, jit_compile=jit_compile)
        steps = environment.reset()
    inference = table.inference
    leaves = steps._replace(observation=[steps.observation])
    _, state, info = asyncio.run(inference.act(leaves, inference.begin(0, 3).rows[0]))
    expected = agent.collect_policy.action(
        time_step.TimeStep(*steps),
        agent.collect_policy.get_initial_state(3),
    )
    for found, wanted in zip(tree.flatten(info), tf.nest.flatten(expected.info)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(state[:2], tf.nest.flatten(expected.state)[:2]):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    table.player.close(None)


class Numbers:
    """BatchedPolicy that takes no notice of anything."""

    def begin(self, first, rows):
        return Place((None, None), [])

    def end(self, place):
        pass

    def state_nest(self, leaves):
        return ()

    def info_nest(self, leaves):
        return ()

    def look_again(self):
        pass

    async def act(self, steps, row):
        return Acted([np.zeros(len(steps.reward), np.int32)], [], [])


@pytest.mark.parametrize("case", oracles.cases("unrolls"))
def test_oracle_of_unrolls(case):
    """Interleaved environments and runs: the completed unrolls, in order."""
    part = oracles.load("unrolls", case)
    overlap = int(part["overlap"])
    number = ArraySpec((), np.dtype(np.int64))
    action = ArraySpec((), np.dtype(np.int32), 0, 1)
    specs = environment_specs.EnvironmentSpecs((number,), (action,), 1, number, action)
    player = CentralInference(
        *(Numbers(), specs),
        environments=int(part["num_envs"]),
        max_block=1,
        unroll_steps=overlap + int(part["unroll_length"]),
        overlap=overlap,
        put=lambda unrolls: found.append(unrolls),
    )
    player.open(lambda report: None, lambda: 0)
    found, rows, blocks, run_ids = [], [], {}, itertools.count()
    for env, run, value in zip(part["env_ids"], part["run_ids"], part["values"]):
        if env < 0:
            continue
        if env not in blocks or blocks[env].run_id != run:
            if env in blocks:
                blocks[env].leave()
            hello = inference_pb2.Hello(first_environment=env, environments=1)
            hello.sender.run_id = next(run_ids)
            blocks[env] = player.join(hello)
            blocks[env].run_id = run
        block = blocks[env]
        step_type = np.array([MID if block.next_index else FIRST], np.int32)
        ones = np.ones(1, np.float32)
        before = len(found)
        ask(block, block.next_index, TimeSteps(step_type, ones, ones, [value[None]]), _MESSAGE)
        if len(found) > before:
            rows.append([env, *found[-1].steps.observation[:, 0]])
    assert rows == part["unrolls"][:, 1:].tolist()
