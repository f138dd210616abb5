"""What plans want and no part measures: environment and network apart, pulls, sizes."""

from __future__ import annotations

import threading

import numpy as np
import tree

from tfdrl.acting.exploration import collect_policy
from tfdrl.architectures.a3c import A3c
from tfdrl.architectures.gorila import Gorila
from tfdrl.architectures.impala import Impala
from tfdrl.architectures.seed import Seed
from tfdrl.benchmarks.costs import Timed
from tfdrl.benchmarks.measuring import Variant, interleave
from tfdrl.benchmarks.processes import Job
from tfdrl.experience import frame_stacks
from tfdrl.replay import transition_table, unroll_tables
from tfdrl.rpc import environment_specs
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function
from tfdrl.topology import Address
from tfdrl.types import MID

_MOST_ROWS = 1024
_TIMEOUT_SECS = 60.0


def acting(job: Job) -> Timed:
    """Steps of one environment among an actor's, the policy's network by batch size, sizes."""
    config = job.config
    is_worker = isinstance(config, (A3c, Gorila))
    count = config.environments_per_worker if is_worker else config.environments_per_actor
    with config.environment(num_envs=count, training=True, seed=job.seed) as environment:
        dtype = getattr(config, "compute_dtype", "float32")
        agent = agent_factory.make_agent(config.agent, environment, dtype)
        steps = environment.reset()
        variants = {"environment.step": _stepping(environment, agent, steps, count)}
        for rows in _rows(config, count):
            variants[f"inference.{rows}"] = _network(agent, steps, rows, config.jit_compile)
        turns = interleave("acting", variants, job.rounds)
        return Timed(turns, _sizes(config, environment, agent))


def _rows(config, count: int) -> list[int]:
    """An actor's own; of SEED RL all that a batch may have, by fours."""
    if not isinstance(config, Seed):
        return [count]
    most, rows = min(config.max_rows, _MOST_ROWS), [1]
    while rows[-1] * 4 < most:
        rows.append(rows[-1] * 4)
    return sorted({*rows, most})


def _stepping(environment, agent, steps, count: int) -> Variant:
    act = act_function(collect_policy(agent, [0.0] * count, 0))
    state = collect_policy(agent, [0.0] * count, 0).get_initial_state(count)
    action = tree.map_structure(lambda x: x.numpy(), act(*steps, state).action)

    def work():
        environment.step(action)
        return count

    return Variant(work)


def _network(agent, steps, rows: int, jit_compile: bool) -> Variant:
    policy = collect_policy(agent, [0.0] * rows, 0)
    act, state = act_function(policy, jit_compile), policy.get_initial_state(rows)
    many = tree.map_structure(lambda x: np.repeat(x[:1], rows, axis=0), steps)
    many = many._replace(step_type=np.full_like(many.step_type, MID))

    def work():
        tree.map_structure(lambda x: x.numpy(), act(*many, state).action)
        return 1

    return Variant(work)


def _sizes(config, environment, agent) -> dict[str, float]:
    """In bytes, before any compression."""
    specs = environment_specs.environment_specs(environment)
    shown = sum(int(np.prod(spec.shape)) * spec.dtype.itemsize for spec in specs.observation)
    variables = agent.collect_policy.variables()
    sizes = {
        "observation.bytes": shown / environment.frame_stack,
        "parameters.bytes": sum(v.dtype.size * int(np.prod(v.shape)) for v in variables),
    }
    signature = _item(config, environment, agent)
    if signature is not None:
        sizes["item.bytes"] = unroll_tables.unroll_bytes(signature)
    return sizes


def _item(config, environment, agent):
    """The signature of what a replay or queue stores; None without one."""
    if isinstance(config, Impala):
        return unroll_tables.stored_signature(
            environment, agent.collect_policy, config.unroll_steps
        )
    if isinstance(config, Seed) and config.replay_ratio is not None:
        unroll = unroll_tables.unroll_signature(
            environment, agent.collect_policy, config.unroll_steps
        )
        return frame_stacks.thin_signature(unroll, environment.frame_stack)
    if isinstance(config, (A3c, Seed)) or getattr(config, "bundled", False):
        return None
    return transition_table.transition_signature(environment, config.n_step)


def pulling(job: Job) -> Timed:
    """Pulls of all parameters, over a connection of this machine: client and server together.

    Their CPU time is the asking role's; the learner's share of it is small, since what it answers
    is serialised once for everybody.
    """
    config = job.config
    with config.environment(num_envs=1, training=True, seed=job.seed) as environment:
        agent = agent_factory.make_agent(config.agent, environment)
    variables = list(agent.collect_policy.variables())
    values = [variable.numpy() for variable in variables]
    server = TrainingServer(Address("127.0.0.1", 0), job.digest)
    server.publish(1, values)
    identity = {"experiment": job.digest, "role": "actor", "task": 0, "run_id": 1}
    client = TrainingClient(server.address, **identity)
    client.join(_TIMEOUT_SECS, threading.Event())

    def pull():
        _, tensors = client.parameters(0)
        for variable, tensor in zip(variables, tensors):
            variable.assign(tensor)
        return 1

    turns = interleave("pulling", {"parameters.pull": Variant(pull)}, job.rounds)
    client.close()
    server.close()
    return Timed(turns)
