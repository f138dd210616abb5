"""A3C (Mnih et al. 2016): workers that act and learn, one network that all of them update.

    parameter server 0..S-1: the global network and the shared RMSProp statistics
      |   ^                       |   ^                          |
      |   | gradient              |   | gradient                 | parameters
      v   |                       v   |                          v
    worker 0                    worker W-1                  coordinator ---> evaluator
    environments,      ...      environments,
    copy of the network,        copy of the network,
    rollout of t_max steps      rollout of t_max steps

No replay and no lock: a worker copies the network, acts for t_max steps, sends the gradient of
these steps, which is applied on arrival, and copies the network again. Its siblings are agents:
n-step and one-step Q-learning, and Sarsa. With `synchronous` all workers make each update together:
A2C. With `threads` everything but the evaluator is one process, the paper's own form.
"""

from __future__ import annotations

import dataclasses

import gin

from tfdrl.architectures.settings import ParameterServers
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.topology import (
    Address,
    Addresses,
    Context,
    Program,
    Role,
    chief_role,
    evaluator_role,
    parameter_server_role,
)


@gin.configurable("a3c")
@dataclasses.dataclass(frozen=True)
class A3c(ParameterServers):
    """Settings of A3C; the defaults are the paper's for Atari, on fewer workers.

    Attributes, with those of `ParameterServers`:
      agent: such as @NStepActorCriticAgent or @NStepQAgent.
      t_max: agent steps of each environment in a rollout. A rollout goes on through an episode's
        end, where its returns are cut, so that all gradients are of equally many steps. One
        of Sarsa acts once more, to know the last action, and the next begins with that step.
      synchronous: every update is the mean of one gradient of each worker (A2C).
      threads: workers and servers are threads of one process (section 4).
      epsilon_start, epsilon_decay_steps: of agents that act epsilon-greedily: epsilon falls
        linearly to a final value over so many global agent steps (section 5.1).
      epsilon_final, epsilon_probabilities: of which each worker draws its own.
      target_period_steps: global agent steps between copies to a target network, if there is one.
      evaluator_niceness: 0 to 19, where it shares cores with the workers.
    """

    t_max: int = 5
    synchronous: bool = False
    threads: bool = False
    epsilon_start: float = 1.0
    epsilon_final: tuple = (0.1, 0.01, 0.5)
    epsilon_probabilities: tuple = (0.4, 0.3, 0.3)
    epsilon_decay_steps: int = 4_000_000
    target_period_steps: int = 40_000
    evaluator_niceness: int = 0

    def __post_init__(self):
        self.check_counts("a3c", "t_max target_period_steps")
        if not 0 <= self.slowed_workers <= self.workers:
            raise ConfigurationError(
                f"a3c.slowed_workers = {self.slowed_workers} must be between 0 and a3c.workers = "
                f"{self.workers}"
            )
        final, probabilities = self.epsilon_final, self.epsilon_probabilities
        sums_to_1 = abs(sum(probabilities) - 1.0) <= 1e-8 and min(probabilities) >= 0.0
        if len(final) != len(probabilities) or not sums_to_1:
            raise ConfigurationError(
                f"a3c.epsilon_final = {final} with a3c.epsilon_probabilities = {probabilities}: "
                "each value needs a probability, and they must sum to 1"
            )
        age = getattr(self.parameter_server, "max_gradient_age", None)
        if self.synchronous and age is not None:
            raise ConfigurationError(
                f"a3c.synchronous with parameter_server.max_gradient_age = {age}: in synchronous "
                "updates every gradient has age 0; leave it at None"
            )
        if self.threads and self.parameter_servers > 1:
            raise ConfigurationError(
                f"a3c.threads with a3c.parameter_servers = {self.parameter_servers}: in one "
                "process there is one shared network; set parameter_servers = 1"
            )

    @property
    def barrier(self) -> int:
        """Workers that make an update together; 0: each by itself."""
        return self.workers if self.synchronous else 0

    def program(self) -> Program:
        """The processes and who talks to whom."""
        evaluator = evaluator_role(__name__, "coordinator", self.evaluator_niceness)
        if self.threads:
            everything = chief_role(
                "coordinator", __name__, function=f"{__name__}:threads", threads=0
            )
            threads = (("worker", self.workers),)
            program = Program("a3c", (everything, evaluator), "coordinator", threads)
            return program.on_gpus(self.gpu_roles)
        process, told = {"threads": self.worker_threads}, ("parameter_server", "coordinator")
        server = parameter_server_role(__name__, self.parameter_servers)
        coordinator = chief_role("coordinator", __name__, talks_to=("parameter_server",), **process)
        process["needs_all"] = self.synchronous
        worker = Role("worker", f"{__name__}:worker", self.workers, told, **process)
        program = Program("a3c", (server, coordinator, worker, evaluator), "coordinator")
        return program.on_gpus(self.gpu_roles)


def parameter_server(experiment: Experiment, context: Context) -> None:
    """Holds a shard of the global network and applies gradients as they come."""
    from tfdrl.parameter_server.role import serve

    config = experiment.architecture
    serve(
        lambda: make_learner(experiment),
        config.parameter_server,
        context,
        config.barrier,
    )


def coordinator(experiment: Experiment, context: Context, parameter_server: Addresses) -> None:
    """Counts for the run, publishes the global network, says when the run is over."""
    from tfdrl.parameter_server.coordinator import run

    config, learner = experiment.architecture, make_learner(experiment)
    run(experiment, context, learner, parameter_server, barrier=config.barrier, **config.periods())


def worker(
    experiment: Experiment, context: Context, parameter_server: Addresses, coordinator: Address
) -> None:
    """Copies the network, acts for t_max steps, sends their gradient, and again (algorithm S3)."""
    from tfdrl import contracts
    from tfdrl.acting.artificial_stragglers import Straggling
    from tfdrl.acting.exploration import AnnealedEpsilon
    from tfdrl.acting.loop import ActorLoop
    from tfdrl.experience.frame_stacks import with_single_frames
    from tfdrl.experience.unroll_assembler import UnrollAssembler
    from tfdrl.ops.exploration import drawn_epsilon
    from tfdrl.parameter_server.joining import joined
    from tfdrl.parameter_server.target_network import TargetNetwork

    config, num_envs = experiment.architecture, experiment.architecture.environments_per_worker
    start, seed, task = config.epsilon_start, experiment.seed, context.task
    final = drawn_epsilon(task, seed, config.epsilon_final, config.epsilon_probabilities)
    with joined(
        parameter_server,
        coordinator,
        context,
        seed + 1009 * (task + 1),
        environment=config.environment,
        agent=config.agent,
        gradient=_gradient(config),
        num_envs=num_envs,
        epsilon=start,
        settings=config.parameter_server,
        timeout_secs=config.timeout_secs,
        barrier=config.barrier,
    ) as (environment, agent, policy, gradient, parameters, connection):
        epsilon = AnnealedEpsilon(policy, num_envs, start, final, config.epsilon_decay_steps)
        target = TargetNetwork(agent, config.target_period_steps)
        straggling = Straggling(config.slowed_workers, config.slowdown, context)
        shared = contracts.lookahead_steps(agent)
        rollout = UnrollAssembler(num_envs, config.t_max + shared, shared, environment.frame_stack)
        loop = ActorLoop(environment, policy, connection, context)
        rollout.begin(loop.state)
        epsilon.update(parameters.steps)
        target.update(parameters.steps, parameters.epoch)
        pushed_steps = 0
        for step in with_single_frames(environment, loop.steps()):
            steps = rollout.add(*step, parameters.version)
            if steps is not None:
                straggling.wait()
                parameters.push(gradient(steps), loop.steps_made - pushed_steps)
                pushed_steps = loop.steps_made
                epsilon.update(parameters.steps)
                target.update(parameters.steps, parameters.epoch)
                rollout.begin(loop.state)
            loop.tick(parameters.communication, parameters.counters)


def threads(experiment: Experiment, context: Context) -> None:
    """Everything but the evaluator, as threads that share this process's network."""
    from tfdrl.parameter_server import worker_threads

    config = experiment.architecture
    worker_threads.run(
        experiment,
        context,
        lambda: make_learner(experiment),
        config.parameter_server,
        coordinator=coordinator,
        worker=worker,
        workers=config.workers,
        barrier=config.barrier,
    )


def evaluator(experiment: Experiment, context: Context, coordinator: Address) -> None:
    """Plays the greedy policy and reports returns."""
    from tfdrl.evaluation.role import evaluate_until_stopped

    values = experiment.architecture.evaluation(experiment)
    evaluate_until_stopped(coordinator, context, **values)


def make_learner(experiment: Experiment):
    """The `coordinator.Learner` with the run's initial values."""
    from tfdrl.parameter_server import coordinator

    config = experiment.architecture
    gradient = _gradient(config)
    return coordinator.make_learner(config.environment, config.agent, gradient, experiment.seed)


def _gradient(config: A3c):
    """`gradient(agent, policy, environment)` of rollouts of t_max steps."""
    from tfdrl.parameter_server.rollout_learning import rollout_gradient

    return lambda agent, policy, environment: rollout_gradient(
        agent, policy, environment, config.t_max, config.jit_compile
    )
