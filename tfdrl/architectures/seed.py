"""SEED RL (Espeholt et al. 2019): inference and training in one place, actors without a model.

    actor 0..N-1                              learner
      environments --- observations ---> batched inference <--+
           ^                |                  |              |
           +--- actions ----+--<---------------+              | the same
                (one gRPC stream each)         |              | variables
                                               v              |
                     recurrent states,   unrolls --> queue --> V-trace
                     frame stacks        (full: that actor waits)
                                                              |
                                      evaluator <-- parameters, now and then

No parameters travel to an actor: it imports no TensorFlow, and an update takes effect at the very
next action. So actions of one unroll come from several versions, and V-trace corrects them by the
behaviour logits recorded when they were chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import gin

from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.topology import Address, Context, Program, Role


@gin.configurable("seed")
@dataclasses.dataclass(frozen=True)
class Seed:
    """Settings of SEED RL with V-trace; the defaults are the release's, on fewer actors.

    Attributes:
      environment: environment factory, such as @gym_environment or @atari_environment.
      agent: agent factory `agent(time_step_spec, action_spec, train_step_counter=)`.
      strategy: `strategy()` -> tf.distribute.Strategy of training.
      unroll_steps: T, agent steps of an unroll; it goes on through episode ends.
      batch_size: B, unrolls of one learner step.
      actors: actor processes.
      environments_per_actor: that one actor steps together and sends in one message.
      queue_capacity_unrolls: complete unrolls that wait for the learner; when there are as many,
        an actor that completes one more waits. None: one batch.
      inference_batch_size: environments with which a batch leaves at once; 0: half of those that
        are being played (so that two groups take turns), and at least one actor's.
      inference_max_batch_size: environments in one batch at most; None: all.
      inference_time_limit_ms: how long the first block of a batch waits for others.
      inference_devices: such as ("GPU:0",) or ("TPU:0", "TPU:1"), in turn; ("",) takes
        TensorFlow's choice.
      jit_compile: whether XLA compiles inference.
      publish_period_steps: learner steps between publications of the parameters, for evaluators.
      learner_checkpoint_period_secs: between checkpoints.
      max_bad_steps: non-finite losses in a row before the run ends with exit code 3.
      evaluation_environments: environments that the evaluator steps together.
      evaluation_period_secs: from the start of one evaluation to the next, at least.
      timeout_secs: how long a role waits for one that does not answer.
      actor_niceness: of actors and evaluator, 0 to 19, where they share cores with the learner.
      learner_threads: TensorFlow threads of the learner; 0: TensorFlow chooses.
    """

    environment: Callable = gin.REQUIRED
    agent: Callable = gin.REQUIRED
    strategy: Callable | None = None
    unroll_steps: int = 20
    batch_size: int = 32
    actors: int = 4
    environments_per_actor: int = 8
    queue_capacity_unrolls: int | None = None
    inference_batch_size: int = 0
    inference_max_batch_size: int | None = None
    inference_time_limit_ms: float = 10.0
    inference_devices: tuple = ("",)
    jit_compile: bool = False
    publish_period_steps: int = 20
    learner_checkpoint_period_secs: float = 300.0
    max_bad_steps: int = 1
    evaluation_environments: int = 100
    evaluation_period_secs: float = 10.0
    timeout_secs: float = 120.0
    actor_niceness: int = 0
    learner_threads: int = 0

    def __post_init__(self):
        least_one = (
            "unroll_steps batch_size actors environments_per_actor publish_period_steps "
            "max_bad_steps evaluation_environments"
        )
        for name in least_one.split():
            if getattr(self, name) < 1:
                raise ConfigurationError(f"seed.{name} = {getattr(self, name)} must be 1 or more")
        capacity = self.queue_capacity_unrolls
        if capacity is not None and capacity < self.batch_size:
            raise ConfigurationError(
                f"seed.queue_capacity_unrolls = {capacity} can never hold a batch of "
                f"{self.batch_size} unrolls: the learner and the actors would wait for each "
                "other; raise it or leave it at None"
            )
        if self.max_rows < self.environments_per_actor:
            raise ConfigurationError(
                f"seed.inference_max_batch_size = {self.inference_max_batch_size} is below "
                f"environments_per_actor = {self.environments_per_actor}: an actor's message would "
                "fit into no batch"
            )
        if not self.inference_time_limit_ms > 0:
            raise ConfigurationError(
                f"seed.inference_time_limit_ms = {self.inference_time_limit_ms} must be positive"
            )
        if not self.inference_devices:
            raise ConfigurationError('seed.inference_devices is empty; ("",) is the default')

    @property
    def environments(self) -> int:
        """Over all actors."""
        return self.actors * self.environments_per_actor

    @property
    def max_rows(self) -> int:
        """The most environments in one inference batch."""
        return self.inference_max_batch_size or self.environments

    def program(self) -> Program:
        """The processes and who talks to whom."""
        here = f"{__name__}:"
        return Program(
            "seed",
            (
                Role(
                    "learner",
                    here + "learner",
                    serves=True,
                    essential=True,
                    threads=self.learner_threads,
                ),
                Role(
                    "actor",
                    here + "actor",
                    replicas=self.actors,
                    talks_to=("learner",),
                    needs_tensorflow=False,
                    niceness=self.actor_niceness,
                ),
                Role(
                    "evaluator",
                    here + "evaluator",
                    talks_to=("learner",),
                    niceness=self.actor_niceness,
                ),
            ),
        )


def learner(experiment: Experiment, context: Context) -> None:
    """Acts for all environments and trains on what they show, with the same variables."""
    from tfdrl.parts import construction, strategies, training, unroll_samples
    from tfdrl.parts.central_inference import CentralPlayer, Inference
    from tfdrl.parts.learner_session import LearnerSession
    from tfdrl.parts.metrics import Every, WaitingClock
    from tfdrl.parts.unroll_queue import UnrollQueue
    from tfdrl.rpc import inference_messages
    from tfdrl.rpc.inference_server import InferenceService

    config = experiment.architecture
    strategy = strategies.make_strategy(config.strategy, context, config.timeout_secs)
    training.check_batch(config.batch_size, strategy)
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        specs_text = construction.specs_text(environment)
        specs = inference_messages.environment_specs(environment)
        construction.set_seed(experiment.seed)
        with strategy.scope():
            agent = construction.make_agent(config.agent, environment)
    queue = UnrollQueue(config.queue_capacity_unrolls or config.batch_size)
    inference = Inference(
        agent.collect_policy,
        specs,
        rows_wanted=lambda: config.inference_batch_size or player.environments_here() // 2,
        max_rows=config.max_rows,
        time_limit_secs=config.inference_time_limit_ms / 1000,
        devices=config.inference_devices,
        jit_compile=config.jit_compile,
    )
    player = CentralPlayer(
        inference,
        specs,
        environments=config.environments,
        max_block=config.max_rows,
        unroll_steps=config.unroll_steps,
        put=queue.put,
    )
    session = LearnerSession(
        experiment,
        context,
        agent,
        specs_text,
        objects={},
        publish_period_steps=config.publish_period_steps,
        checkpoint_period_secs=config.learner_checkpoint_period_secs,
        more=InferenceService(player, context.experiment, specs).served_for(config.environments),
    )
    trainer = training.Trainer(agent, strategy, config.max_bad_steps)
    waiting, warning_is_due = WaitingClock(), Every(5.0)
    learning = unroll_samples.UnrollMetrics(queue.__len__, waiting, trainer, config.batch_size)
    with session:
        player.open(session.service.record, lambda: session.step)
        while session.goes_on():
            with waiting:
                unrolls = queue.take(config.batch_size, timeout_secs=0.5)
            if unrolls is not None:
                batch = unroll_samples.to_batch(unrolls)
                step = trainer.train_once(**unroll_samples.arguments(agent, batch))
                session.count(1)
                learning.add(*step, batch, session.step)
            elif warning_is_due():
                player.warn_of_waiting()
            session.tick(lambda: {**learning.take(), **player.statistics()})
        player.close(session.reason)
        queue.close()


def actor(experiment: Experiment, context: Context, learner: Address) -> None:
    """Steps environments by the learner's actions. This process never loads TensorFlow."""
    from tfdrl.parts.remote_acting import act_remotely

    act_remotely(experiment, context, learner)


def evaluator(experiment: Experiment, context: Context, learner: Address) -> None:
    """Plays the greedy policy and reports returns."""
    from tfdrl.parts.evaluating import evaluate_until_stopped

    evaluate_until_stopped(experiment, context, learner, experiment.architecture.timeout_secs)
