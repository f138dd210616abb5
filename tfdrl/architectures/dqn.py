"""DQN (Mnih et al. 2013, 2015) in one process: act, store, sample, learn, in turn.

    environment <--> policy      replay, uniform
         |             ^          ^         |
         +---- steps --|----------+         v  every 4th step
                       +---- same variables: learner ----> evaluation

The baseline of everything else: no second process, and the same numbers on every run.
"""

from __future__ import annotations

import dataclasses

import gin

from tfdrl.architectures.settings import Settings, check_compute_dtype
from tfdrl.errors import ConfigurationError, require_at_least_one
from tfdrl.experiment import Experiment
from tfdrl.topology import REPLAY_FLUSH_SECS, Context, Program, chief_role


@gin.configurable("dqn")
@dataclasses.dataclass(frozen=True)
class Dqn(Settings):
    """Settings of DQN; the defaults are those of Mnih 2015. "Steps" are agent decisions.

    Attributes, with those of `Settings`:
      gamma: discount of one step, the same as the agent's.
      n_step: steps of a full window; 1 in the paper.
      environments: stepped together in the one process; 1 in the paper.
      replay_capacity_steps: steps that the replay holds.
      min_replay_steps: steps before learning starts.
      frame_stack: k > 1 where observations are stacks of k frames, to store each frame once; None:
        as the environment says.
      batch_size: transitions of one learner step.
      update_period_steps: agent steps for each learner step; 4 is 16 Atari frames.
      epsilon_start, epsilon_end, epsilon_decay_steps: linear schedule over agent steps, from the
        first learner step on: the replay is filled at random.
      evaluation_period_steps: agent steps between evaluations.
      checkpoint_period_steps: agent steps between checkpoints. At a checkpoint the running
        episodes are cut off like at a time limit and new environments are made, so that a run
        which continues from it goes on exactly as the uninterrupted one.
      max_bad_steps: non-finite losses in a row before the run ends with exit code 3.
      threads: TensorFlow threads; 0: TensorFlow chooses.
      compute_dtype: "bfloat16": torsos calculate in it, for GPU, TPU and processors with its
        instructions; else "float32".
    """

    gamma: float = 0.99
    n_step: int = 1
    environments: int = 1
    replay_capacity_steps: int = 1_000_000
    min_replay_steps: int = 50_000
    frame_stack: int | None = None
    batch_size: int = 32
    update_period_steps: int = 4
    epsilon_start: float = 1.0
    epsilon_end: float = 0.1
    epsilon_decay_steps: int = 1_000_000
    evaluation_period_steps: int = 250_000
    checkpoint_period_steps: int = 250_000
    max_bad_steps: int = 1
    threads: int = 0
    compute_dtype: str = "float32"

    def __post_init__(self):
        least_one = (
            "n_step environments replay_capacity_steps min_replay_steps batch_size "
            "update_period_steps evaluation_period_steps max_bad_steps evaluation_environments "
            "checkpoint_period_steps"
        )
        if self.frame_stack is not None:
            least_one += " frame_stack"
        require_at_least_one(self, "dqn", least_one)
        check_compute_dtype("dqn", self.compute_dtype)
        least = self.environments * (self.n_step + 1)
        if not least <= self.min_replay_steps <= self.replay_capacity_steps:
            raise ConfigurationError(
                f"dqn.min_replay_steps = {self.min_replay_steps} must be between {least} (one "
                f"window of each environment) and replay_capacity_steps = "
                f"{self.replay_capacity_steps}: otherwise learning would never start"
            )

    def program(self) -> Program:
        """One process."""
        more = {"threads": self.threads, "flush_secs": REPLAY_FLUSH_SECS}
        return Program("dqn", (chief_role("learner", __name__, **more),)).on_gpus(self.gpu_roles)


def learner(experiment: Experiment, context: Context) -> None:
    """Algorithm 1 of Mnih 2015; the loss, and the copies to the target network, are the agent's."""
    import tensorflow as tf

    from tfdrl.acting.exploration import AnnealedEpsilon, collect_policy
    from tfdrl.experience.uniform_replay import UniformReplay
    from tfdrl.learning.one_process import OneProcess
    from tfdrl.learning.trainer import Trainer
    from tfdrl.learning.update_pace import UpdatePace
    from tfdrl.runtime import agent_factory
    from tfdrl.runtime.compiled import stateless_act_function

    config, seed = experiment.architecture, experiment.seed
    num_envs, start = config.environments, config.epsilon_start
    agent_factory.set_seed(seed)
    with config.environment(num_envs=1, training=True, seed=0) as environment:
        agent = agent_factory.make_agent(config.agent, environment, config.compute_dtype)
        specs, returns = agent_factory.specs_text(environment), environment.return_range
        frame_stack = config.frame_stack or environment.frame_stack
    agent_factory.check_gamma(agent, config.gamma, "dqn.gamma")
    policy = collect_policy(agent, [start] * num_envs, seed)
    epsilon = AnnealedEpsilon(
        policy, num_envs, start, config.epsilon_end, config.epsilon_decay_steps
    )
    act = stateless_act_function(policy)
    replay = UniformReplay(
        config.replay_capacity_steps,
        num_envs,
        config.n_step,
        config.gamma,
        frame_stack,
        seed,
    )
    pace = UpdatePace(config.min_replay_steps, config.update_period_steps)
    trainer = Trainer(agent, tf.distribute.get_strategy(), config.max_bad_steps, config.jit_compile)
    with OneProcess(
        experiment,
        context,
        agent,
        specs,
        returns,
        policy,
        replay,
        pace,
        config.environment,
        num_envs=num_envs,
        evaluation_environments=config.evaluation_environments,
        evaluation_period_steps=config.evaluation_period_steps,
        checkpoint_period_steps=config.checkpoint_period_steps,
    ) as run:
        environments = run.environments
        while run.session.goes_on():
            epsilon.update(environments.steps - config.min_replay_steps)
            time_step = environments.time_step
            action = act(time_step)
            replay.add(time_step, action, environments.step(action))
            for _ in range(pace.due(environments.steps)):
                run.count_update(trainer.train_transitions(replay.sample(config.batch_size)))
            run.evaluate_and_checkpoint_if_due()
