"""Gorila (Nair et al. 2015): actors and learners in numbers, one network on parameter servers.

    parameter server 0..S-1: the Q-network, a shard each; AdaGrad on arrival
       |  ^                                        |
       |  | gradients                              | parameters
       v  |                                        v
    learner 0..L-1 <--- samples --- replay      coordinator ---> evaluator
    target network                    ^
                                      | transitions
    parameters ---> actor 0..N-1 -----+

Bundled, an actor, its own replay and a learner are one worker and share one copy of the network;
workers meet at the parameter servers only. Unbundled, actors, learners and the servers of one
global replay are counted independently. A gradient that is too old or whose loss is an outlier is
not applied; nobody waits for anybody, so that a lost worker needs no recovery. With a
`replay_ratio` the unbundled actors and learners do wait, for the slower of the two kinds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

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
    actor_role,
    chief_role,
    evaluator_role,
    parameter_server_role,
    replay_role,
)


@gin.configurable("gorila")
@dataclasses.dataclass(frozen=True)
class Gorila(ParameterServers):
    """Settings of Gorila; the defaults are the paper's for Atari, on fewer machines.

    "Updates" are those of the parameter servers, by whichever learner; "steps" are agent steps.

    Attributes, with those of `ParameterServers`:
      parameter_server: an update counts as one step of its `anneal_steps`.
      parameter_servers: 31 in the paper.
      bundled: one worker acts and learns, with a replay of its own (the paper's experiments);
        then `workers` counts the bundles, and otherwise nothing.
      actors, learners, replays: processes, if not bundled.
      table: of each replay server, if not bundled; @replay_table has the settings.
      gamma: discount of one step, the same as the agent's.
      n_step: steps of a full window; 1 in the paper.
      replay_capacity_steps: steps that a bundle's replay holds.
      min_replay_steps: steps before a bundle learns.
      frame_stack: k > 1 where observations are stacks of k frames, to store each frame once; None:
        as the environment says.
      batch_size: transitions of one gradient.
      update_period_steps: a bundle's steps for each of its gradients.
      target_period_updates: N, updates between two copies to the target networks.
      epsilon_start, epsilon_end, epsilon_decay_updates: linear over updates.
      outlier_num_std: a gradient is withheld if its |loss| is above the mean by more than so
        many standard deviations (section 5); None: none is.
      outlier_warmup: losses before the first can be withheld.
      outlier_max_rejections_in_a_row: then the scale has changed, and the statistics begin anew.
      actor_buffer_transitions: that an actor collects before it sends them.
      replay_ratio: times that each transition of the global replay is sampled, on average, by all
        learners: who is ahead of it waits. None: nobody waits, as in the paper.
      replay_ratio_tolerance_items: transitions that either may be ahead; None: the min_size of all
        replays.
      actor_max_frames_per_second: slows an actor down; None for full speed.
      actor_niceness: of actors and evaluator, 0 to 19, where they share cores with learners.
      parameter_pull_period_frames: frames of an actor between two pulls.
      prefetch_batches: that a learner samples ahead of training, of each replay; exact, with what
        is on its way.
      replay_checkpoint_period_secs: of replay servers; 0: only at the end.
    """

    bundled: bool = True
    actors: int = 4
    learners: int = 2
    replays: int = 1
    table: Callable | None = None
    gamma: float = 0.99
    n_step: int = 1
    replay_capacity_steps: int = 1_000_000
    min_replay_steps: int = 50_000
    frame_stack: int | None = None
    batch_size: int = 32
    update_period_steps: int = 4
    target_period_updates: int = 60_000
    epsilon_start: float = 1.0
    epsilon_end: float = 0.1
    epsilon_decay_updates: int = 1_000_000
    outlier_num_std: float | None = 4.0
    outlier_warmup: int = 20
    outlier_max_rejections_in_a_row: int = 10
    actor_buffer_transitions: int = 50
    replay_ratio: float | None = None
    replay_ratio_tolerance_items: int | None = None
    actor_max_frames_per_second: float | None = None
    actor_niceness: int = 0
    parameter_pull_period_frames: int = 400
    prefetch_batches: int = 4
    replay_checkpoint_period_secs: float = 600.0

    def __post_init__(self):
        from tfdrl.replay.replay_ratio import check_settings

        least_one = (
            "actors learners replays n_step replay_capacity_steps min_replay_steps "
            "batch_size update_period_steps target_period_updates actor_buffer_transitions "
            "parameter_pull_period_frames prefetch_batches"
        )
        self.check_counts("gorila", least_one + " frame_stack" * (self.frame_stack is not None))
        if not 0.0 <= self.gamma <= 1.0:
            raise ConfigurationError(f"gorila.gamma = {self.gamma} must be between 0 and 1")
        if not 0 <= self.slowed_workers <= self.gradient_workers:
            raise ConfigurationError(
                f"gorila.slowed_workers = {self.slowed_workers} must be between 0 and the "
                f"{self.gradient_workers} that compute gradients"
            )
        self.outlier_filter()
        check_settings(self, "gorila")
        if self.bundled and self.replay_ratio is not None:
            raise ConfigurationError(
                f"gorila.replay_ratio = {self.replay_ratio} is for a global replay (gorila.bundled "
                "= False); a bundle learns once for every update_period_steps of its own steps"
            )
        least = self.environments_per_worker * (self.n_step + 1)
        if self.bundled and not least <= self.min_replay_steps <= self.replay_capacity_steps:
            raise ConfigurationError(
                f"gorila.min_replay_steps = {self.min_replay_steps} must be between {least} (one "
                f"window of each environment) and replay_capacity_steps = "
                f"{self.replay_capacity_steps}: otherwise learning would never start"
            )
        if not self.bundled and self.actors < self.replays:
            raise ConfigurationError(
                f"gorila.actors = {self.actors} with gorila.replays = {self.replays}: a replay "
                "without an actor stays empty; use at least one actor for each"
            )

    def outlier_filter(self):
        """A new `OutlierFilter`. Raises ConfigurationError if its settings cannot be."""
        from tfdrl.parameter_server.outlier_filter import OutlierFilter

        return OutlierFilter(
            self.outlier_num_std, self.outlier_warmup, self.outlier_max_rejections_in_a_row
        )

    def stored_stack(self, environment: Any) -> int:
        """Frames of an observation of which a bundle's replay stores one; 1: it stores all."""
        return environment.frame_stack if self.frame_stack is None else self.frame_stack

    @property
    def gradient_workers(self) -> int:
        """How many processes compute gradients."""
        return self.workers if self.bundled else self.learners

    def program(self) -> Program:
        """The processes and who talks to whom."""
        process, told = {"threads": self.worker_threads}, ("parameter_server", "coordinator")
        server = parameter_server_role(__name__, self.parameter_servers)
        coordinator = chief_role("coordinator", __name__, talks_to=("parameter_server",), **process)
        evaluator = evaluator_role(__name__, "coordinator", self.actor_niceness)
        if self.bundled:
            worker = Role("worker", f"{__name__}:worker", self.workers, told, **process)
            roles = (server, coordinator, worker, evaluator)
            return Program("gorila", roles, "coordinator").on_gpus(self.gpu_roles)
        unbundled = "tfdrl.architectures.gorila_unbundled"
        told = ("replay", *told)
        learner = Role(
            "learner", f"{unbundled}:learner", self.learners, told, devices="GPU", **process
        )
        actor = actor_role(unbundled, self.actors, told, niceness=self.actor_niceness, **process)
        replay = replay_role(unbundled, replicas=self.replays)
        roles = (replay, server, coordinator, learner, actor, evaluator)
        return Program("gorila", roles, "coordinator").on_gpus(self.gpu_roles)


def parameter_server(experiment: Experiment, context: Context) -> None:
    """Holds a shard of the Q-network and applies gradients as they come."""
    from tfdrl.parameter_server.role import serve

    settings = experiment.architecture.parameter_server
    serve(lambda: make_learner(experiment), settings, context)


def coordinator(experiment: Experiment, context: Context, parameter_server: Addresses) -> None:
    """Counts for the run, publishes the Q-network, says when the run is over."""
    from tfdrl.parameter_server.coordinator import run

    config, learner = experiment.architecture, make_learner(experiment)
    ratio, periods = config.replay_ratio, config.periods()
    run(experiment, context, learner, parameter_server, replay_ratio=ratio, **periods)


def worker(
    experiment: Experiment, context: Context, parameter_server: Addresses, coordinator: Address
) -> None:
    """A bundle: acts, stores, samples, computes gradients, all with one copy of the network."""
    from tfdrl.acting.artificial_stragglers import Straggling
    from tfdrl.acting.exploration import AnnealedEpsilon
    from tfdrl.acting.loop import ActorLoop
    from tfdrl.experience.uniform_replay import UniformReplay
    from tfdrl.learning.update_pace import UpdatePace
    from tfdrl.parameter_server.target_network import TargetNetwork
    from tfdrl.parameter_server.transition_learning import GradientLearner

    config = experiment.architecture
    # Without "+ 1": the first bundle alone is DQN of the same seed, number for number.
    seed = experiment.seed + 1009 * context.task
    with joined_worker(config, context, seed, parameter_server, coordinator) as joined:
        environment, agent, policy, gradient, parameters, connection = joined
        replay = UniformReplay(
            config.replay_capacity_steps,
            environment.num_envs,
            config.n_step,
            config.gamma,
            config.stored_stack(environment),
            seed,
        )
        target = TargetNetwork(agent, config.target_period_updates)
        learner = GradientLearner(gradient, parameters, target, config.outlier_filter())
        epsilon = AnnealedEpsilon(
            policy,
            environment.num_envs,
            config.epsilon_start,
            config.epsilon_end,
            config.epsilon_decay_updates,
        )
        pace = UpdatePace(config.min_replay_steps, config.update_period_steps)
        straggling = Straggling(config.slowed_workers, config.slowdown, context)
        loop = ActorLoop(
            environment, policy, connection, context, config.actor_max_frames_per_second
        )
        epsilon.update(parameters.version)
        for time_step, action, next_time_step, _ in loop.steps():
            replay.add(time_step, action, next_time_step)
            for _ in range(pace.due(loop.steps_made)):
                straggling.wait()
                learner.learn(replay.sample(config.batch_size))
            epsilon.update(parameters.version)
            loop.tick(parameters.communication, parameters.counters)


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


def joined_worker(config: Gorila, context: Context, seed: int, parameter_server, coordinator):
    """A worker or an actor that has joined the run."""
    from tfdrl.parameter_server.joining import joined

    return joined(
        parameter_server,
        coordinator,
        context,
        seed,
        environment=config.environment,
        agent=config.agent,
        gradient=_gradient(config),
        num_envs=config.environments_per_worker,
        epsilon=config.epsilon_start,
        settings=config.parameter_server,
        timeout_secs=config.timeout_secs,
    )


def _gradient(config: Gorila):
    """`gradient(agent, policy, environment)` of transitions."""
    from tfdrl.parameter_server.transition_learning import transition_gradient
    from tfdrl.runtime.agent_factory import check_gamma

    def gradient(agent, _, environment):
        check_gamma(agent, config.gamma, "gorila.gamma")
        stack = config.stored_stack(environment)
        sizes = config.batch_size, config.n_step, stack
        return transition_gradient(agent, environment, *sizes, config.jit_compile)

    return gradient
