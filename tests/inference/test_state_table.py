"""What inference keeps on its device: stacks as environments make them, steps that come again."""

import asyncio

import numpy as np
import pytest
import tensorflow as tf
from stacked_games import StackedGames, played
from test_inference_policy import _MESSAGE, _T, Table, catch, recurrent_agent

from tfdrl.experience.frame_stacks import SingleFrames
from tfdrl.inference.state_table import StateTable
from tfdrl.types import ArraySpec

_N = 5
_STATE = tf.TensorSpec([2], tf.float32), tf.TensorSpec([], tf.int32)


def table_of(shape, dtype=np.uint8, frame_stack=4, environments=_N):
    spec = ArraySpec(shape, np.dtype(dtype))
    return StateTable(_STATE, [spec], frame_stack, environments, "")


def state_of(number, rows=_N):
    return [np.full((rows, 2), number, np.float32), np.full(rows, number, np.int32)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("frame_stack", [2, 3, 4, 8])
def test_stacks_are_those_of_the_environments(frame_stack, dtype):
    games = StackedGames(_N, frame_stack, seed=1)
    singles, history = SingleFrames(games), played(games, 40)
    shape = history[0].observation.shape[1:]
    table = table_of(shape, dtype, frame_stack)
    push, place = tf.function(table.push), table.take(state_of(0), _N)
    for index, steps in enumerate(history):
        frames, depth = singles(steps).observation
        for _ in range(1 + index % 2):  # a step that comes again
            found = push(place.rows[index % 2], frames.astype(dtype), depth)
            np.testing.assert_array_equal(found, steps.observation.astype(dtype))
            assert found.dtype == dtype


def test_state_is_read_where_it_was_written_and_a_step_may_come_again():
    table = table_of((4, 4, 4))
    first, second = table.take(state_of(1, 2), 2), table.take(state_of(2, 3), 3)

    @tf.function
    def step(row):
        state = table.read(row)
        table.write(row, [leaf + tf.ones([], leaf.dtype) for leaf in state])
        return state

    rows = np.concatenate([first.rows[0], [table.unused_row] * 2])
    for _ in range(3):
        numbers, counts = step(rows)
        assert counts.numpy()[:2].tolist() == [1, 1] and (numbers.numpy()[:2] == 1).all()
    assert step(first.rows[1])[1].numpy().tolist() == [2, 2]
    assert step(first.rows[0])[1].numpy().tolist() == [3, 3]
    assert step(second.rows[0])[1].numpy().tolist() == [2, 2, 2]


def test_slots_that_were_free_for_longest_are_taken_first():
    table, seen = table_of((4, 4, 4), environments=3), []
    place = table.take(state_of(0, 3), 3)
    for number in range(1, 5):
        table.give_back(place)
        place = table.take(state_of(number, 3), 3)
        seen.append(place.rows[0].tolist())
        assert table.read(place.rows[0])[1].numpy().tolist() == [number] * 3
    assert seen == [[6, 8, 10], [0, 2, 4], [6, 8, 10], [0, 2, 4]]


@pytest.fixture(scope="module")
def agent():
    with catch(1) as environment:
        return recurrent_agent(environment)


@pytest.fixture(scope="module")
def history():
    """What two environments show, whatever is chosen."""
    with catch(2) as environment:
        shown = [environment.reset()]
        for _ in range(2 * _T):
            shown.append(environment.step(np.ones(2, np.int32)))
    return [steps._replace(observation=[steps.observation]) for steps in shown]


async def played_by(table, history, is_cut=lambda index: False):
    """The states after these steps; where a stream is cut the batch is computed all the same."""
    block, states = table.join(), []
    for index, steps in enumerate(history):
        if is_cut(index):
            task = asyncio.create_task(block.act(index, steps, _MESSAGE))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() and block.next_index == index
            await asyncio.sleep(0.2)
            block.leave()
            block = table.join()
        await block.act(index, steps, _MESSAGE)
        states.append(block._state)
    return states


def test_a_step_whose_stream_was_cut_in_a_batch_changes_nothing(agent, history):
    found = []
    for is_cut in (lambda index: False, lambda index: index in (0, 1, 4, 7)):
        with catch(1) as environment:
            # A third row is never there: a batch waits for the limit of time.
            settings = {"rows_wanted": lambda: 3, "time_limit_secs": 0.1}
            table = Table(agent, environment, policy=agent.policy, **settings)
        found.append(asyncio.run(played_by(table, history, is_cut)))
        table.player.close(None)
    for left, right in zip(*found):
        for a, b in zip(left, right):
            np.testing.assert_array_equal(a, b)
    assert np.abs(found[0][3][0] - found[0][4][0]).max() > 1e-3  # a step matters


def test_a_new_run_begins_anew_while_the_old_is_in_a_batch(agent, history):
    async def play():
        block = table.join(run_id=1)
        for index in range(3):
            await block.act(index, history[index], _MESSAGE)
        task = asyncio.create_task(block.act(3, history[3], _MESSAGE))
        await asyncio.sleep(0.01)
        task.cancel()
        block.leave()
        again = table.join(run_id=2)  # its first steps are in the same batch as the old run's
        await again.act(0, history[0], _MESSAGE)
        state = [leaf.copy() for leaf in again._state]
        await again.act(1, history[1], _MESSAGE)
        return state, again._state

    with catch(1) as environment:
        settings = {"policy": agent.policy, "time_limit_secs": 0.1}
        table = Table(agent, environment, rows_wanted=lambda: 4, **settings)
        fresh = Table(agent, environment, **settings)
    states = asyncio.run(play())
    table.player.close(None)
    block = fresh.join()
    for index, found in enumerate(states):
        asyncio.run(block.act(index, history[index], _MESSAGE))
        for a, b in zip(found, block._state):
            np.testing.assert_allclose(a, b, atol=1e-6)
    fresh.player.close(None)
