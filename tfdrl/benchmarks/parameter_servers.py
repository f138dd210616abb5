"""The parts of Gorila and A3C: what a gradient's way costs (a), and what workers add (b).

Part a: cycles of a worker (gradient, push, newest parameters) beside the same gradient with the
same update in the worker's own memory. Part b: the whole program with more and more workers.
"""

from __future__ import annotations

from typing import NamedTuple

from tfdrl.architectures.a3c import A3c
from tfdrl.benchmarks.harness import Bench, Found
from tfdrl.benchmarks.measuring import Turn, Variant, cost, interleave, ratio, say
from tfdrl.benchmarks.page import Figure
from tfdrl.benchmarks.processes import START_LIMIT_SECS, Job
from tfdrl.errors import ConfigurationError
from tfdrl.topology import Context

#: Workers of part b, and the least speed-up over one that is wanted.
_SPEED_UPS = {1: None, 2: 1.8, 4: None, 8: 6.0}


class Cycles(NamedTuple):
    """What `measure_cycles` measured.

    turns                by variant, "cycle" and "local"
    communication_share  of a cycle's time
    nbytes               of one copy of the parameters
    """

    turns: dict[str, list[Turn]]
    communication_share: float
    nbytes: int


def cycles(bench: Bench) -> Found:
    """Part a."""
    rounds = bench.settings.rounds
    roles = [role.name for role in bench.config.program().roles]
    role = "worker" if "worker" in roles else "learner"  # whose gradients are pushed
    with (
        bench.servers("parameter_server") as servers,
        bench.worker(role, f"{__name__}:measure_cycles", servers=servers) as worker,
    ):
        found = worker.hear(START_LIMIT_SECS + 4 * rounds.count * rounds.secs)
    cycle, local = cost(found.turns["cycle"]), cost(found.turns["local"])
    moved = 2e-6 * found.nbytes * cycle.units_per_second
    figures = [
        Figure("gradient, push, newest parameters", cycle.units_per_second, "cycles/s"),
        Figure("the same gradient and update locally", local.units_per_second, "cycles/s"),
        Figure("of the local speed", ratio(found.turns["cycle"], found.turns["local"]), "ratio"),
        Figure("time spent communicating", found.communication_share, "ratio"),
        Figure("parameters", found.nbytes / 1e6, "MB"),
        Figure("moved, up and down", moved, "MB/s"),
        Figure("worker: CPU for a cycle", 1e6 * cycle.cpu_secs, "us"),
        Figure("server: CPU for a cycle", 1e6 * cycle.server_cpu_secs, "us"),
    ]
    return Found(figures, found.turns)


def speed_ups(bench: Bench) -> Found:
    """Part b: runs the whole with each number of workers.

    Raises ConfigurationError for an architecture whose speed does not hang on one number.
    """
    if not getattr(bench.config, "bundled", True):
        raise ConfigurationError(
            "--parts=b: gorila.bundled = False has actors and learners, not workers; leave b out"
        )
    binding = f"{type(bench.config).__name__.lower()}.workers"
    per_second = {}
    for workers in _SPEED_UPS:
        say(_workers(workers))
        whole = bench.run(f"{binding} = {workers}")
        per_second[workers] = whole.frames_per_second / bench.frames_per_step
    figures = [Figure(_workers(n), rate, "environment steps/s") for n, rate in per_second.items()]
    for workers, aim in list(_SPEED_UPS.items())[1:]:
        speed_up = per_second[workers] / per_second[1]
        figures.append(Figure(f"{_workers(workers)} / 1 worker", speed_up, "times", aim))
    return Found(figures)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def measure_cycles(job: Job) -> Cycles:
    """A worker's cycles against running parameter servers."""
    from tfdrl.parameter_server.client import GlobalParameters

    config = job.config
    gradient, batch, variables = _gradient(config)
    context = Context("benchmark", 0, 1, job.directory, experiment=job.digest)
    parameters = GlobalParameters(
        tuple(server.address for server in job.servers),
        variables,
        config.parameter_server,
        context,
        config.timeout_secs,
    )
    gradient.split(parameters.indices)
    parameters.connect()
    update = _local_update(config.parameter_server, variables, parameters.indices)
    shares = []

    def prepare_cycle():
        parameters.refresh()
        parameters.communication.take_share()

    def cycle():
        parameters.push(gradient(batch), 1)
        return 1

    def prepare_local():
        shares.append(parameters.communication.take_share())

    def local():
        update(*gradient(batch).parts)
        return 1

    variants = {"cycle": Variant(cycle, prepare_cycle), "local": Variant(local, prepare_local)}
    turns = interleave("cycles", variants, job.rounds, job.server_pid)
    prepare_local()
    busy = [share for share in shares if share]
    parameters.close()
    return Cycles(turns, sum(busy) / max(len(busy), 1), parameters.nbytes)


def _local_update(settings, variables, indices):
    """The servers' update as a tf.function of the parts of a gradient, on variables of our own."""
    import tensorflow as tf

    from tfdrl.parameter_server import update_rules

    slots = [
        {k: tf.Variable(tf.fill(v.shape, x)) for k, x in initial.items()}
        for v, initial in ((v, update_rules.slot_initial_values(settings)) for v in variables)
    ]
    order = [i for mine in indices for i in mine]

    @tf.function
    def update(*parts):
        flat = tf.concat(parts, 0)
        sizes = [variables[i].shape.num_elements() for i in order]
        for i, part in zip(order, tf.split(flat, sizes)):
            update_rules.apply(
                settings,
                variables[i].handle,
                {name: slot.handle for name, slot in slots[i].items()},
                tf.reshape(part, variables[i].shape),
                tf.constant(settings.learning_rate),
                tf.constant(0, tf.int64),
            )

    return update


def _gradient(config):
    """The gradient of the architecture's workers, a batch of ones, and what it is of."""
    import tensorflow as tf

    from tfdrl.acting.exploration import collect_policy
    from tfdrl.parameter_server import rollout_learning, transition_learning
    from tfdrl.runtime import agent_factory

    num_envs = config.environments_per_worker if isinstance(config, A3c) else 1
    with config.environment(num_envs=num_envs, training=True, seed=1) as environment:
        agent = agent_factory.make_agent(config.agent, environment)
        if isinstance(config, A3c):
            policy = collect_policy(agent, [0.0] * num_envs, 0)
            gradient = rollout_learning.rollout_gradient(
                agent, policy, environment, config.t_max, config.jit_compile
            )
        else:
            stack = config.stored_stack(environment)
            gradient = transition_learning.transition_gradient(
                agent, environment, config.batch_size, config.n_step, stack, config.jit_compile
            )
    (example,) = gradient.example
    return gradient, tf.nest.map_structure(lambda leaf: leaf + 1, example), gradient.variables
