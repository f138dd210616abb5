"""A process that measures a worker's cycles against a running parameter server."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl.benchmarks.measuring import Rounds, Variant, interleave
from tfdrl.errors import EXIT_OK
from tfdrl.launch import command_line, process
from tfdrl.topology import Address, Context


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_string("parameter_server", "", "Addresses.", flag_values=values)
    flags.DEFINE_integer("server_pid", 0, "Process of the first of them.", flag_values=values)
    flags.DEFINE_integer("rounds", 5, "Turns of each variant.", flag_values=values)
    flags.DEFINE_float("round_secs", 1.0, "Seconds of one turn.", flag_values=values)
    flags.DEFINE_string("out", "", "File for what was measured.", flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first), measures and writes; returns the exit code."""
    values = _flags()
    command_line.parse(values, argv, "Measures a worker's cycles.")
    process.silence()
    process.limit_threads(1)
    from tfdrl import configuration
    from tfdrl.experiment import Experiment

    loaded = configuration.load(values.gin_file, values.gin_bindings, tensorflow=True)
    experiment = Experiment.from_gin()
    addresses = tuple(Address.parse(text) for text in values.parameter_server.split(","))
    context = Context("benchmark", 0, 1, pathlib.Path(values.out).parent, experiment=loaded.digest)
    found = _measure(
        experiment,
        addresses,
        context,
        Rounds(values.rounds, values.round_secs),
        values.server_pid,
    )
    pathlib.Path(values.out).write_text(json.dumps(found))
    return EXIT_OK


def _measure(experiment, addresses, context, rounds, server_pid) -> dict:
    import tensorflow as tf

    from tfdrl.parameter_server import update_rules
    from tfdrl.parameter_server.client import GlobalParameters

    config = experiment.architecture
    gradient, batch, variables = _gradient(experiment)
    parameters = GlobalParameters(
        addresses, variables, config.parameter_server, context, config.timeout_secs
    )
    gradient.split(parameters.indices)
    parameters.connect()
    settings = config.parameter_server
    slots = [
        {k: tf.Variable(tf.fill(v.shape, x)) for k, x in initial.items()}
        for v, initial in ((v, update_rules.slot_initial_values(settings)) for v in variables)
    ]
    order = [i for mine in parameters.indices for i in mine]

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

    turns = interleave(
        "cycles",
        {"cycle": Variant(cycle, prepare_cycle), "local": Variant(local, prepare_local)},
        rounds,
        server_pid,
    )
    prepare_local()
    busy = [share for share in shares if share]
    parameters.close()
    return {
        "turns": turns,
        "communication_share": sum(busy) / max(len(busy), 1),
        "nbytes": parameters.nbytes,
    }


def _gradient(experiment):
    """The gradient of the architecture's workers, a batch of ones, and what it is of."""
    import tensorflow as tf

    from tfdrl.acting.exploration import collect_policy
    from tfdrl.architectures.a3c import A3c
    from tfdrl.parameter_server import rollout_learning, transition_learning
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    num_envs = config.environments_per_worker if isinstance(config, A3c) else 1
    with config.environment(num_envs=num_envs, training=True, seed=1) as environment:
        agent = agent_factory.make_agent(config.agent, environment)
        if isinstance(config, A3c):
            policy = collect_policy(agent, [0.0] * num_envs, 0)
            gradient = rollout_learning.rollout_gradient(agent, policy, environment, config.t_max)
        else:
            gradient = transition_learning.transition_gradient(
                agent, environment, config.batch_size
            )
    (example,) = gradient.example
    return gradient, tf.nest.map_structure(lambda leaf: leaf + 1, example), gradient.variables


if __name__ == "__main__":
    # TensorFlow's sessions are still closing in threads, which must not outlive the interpreter.
    process.leave(command_line.run("tfdrl benchmark", main, sys.argv))
