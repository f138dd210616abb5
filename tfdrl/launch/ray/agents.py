"""Starts the roles of a run by Ray actors, one each, on the nodes where they belong."""

from __future__ import annotations

import concurrent.futures
import itertools
import pathlib
import signal
import time
from collections.abc import Callable, Collection
from typing import Any

from tfdrl.errors import EXIT_FAILED
from tfdrl.launch import step
from tfdrl.launch.launcher import ProcessSpec
from tfdrl.launch.moves import Moves
from tfdrl.launch.ray.agent import Agent, Surroundings
from tfdrl.launch.ray.cluster import Cluster, words_of
from tfdrl.launch.ray.reservation import Reservation
from tfdrl.topology import Role

_KILL_SECS = 10.0
#: Of an actor: Ray waits for its cores for ever.
_START_SECS = 300.0
#: Ray knows that an actor is lost some time before it knows it of the actor's node.
_SETTLE_SECS = 30.0
#: An actor whose node is lost kills what it has started, says so, and ends.
_LAST_WORDS_SECS = 2.0


class AgentProcess:
    """A process that a Ray actor has started: a `tfdrl.launch.launcher.Process`.

    Args:
      agent: the actor.
      kill_agent: ends an actor.
      is_node_gone: whether nothing runs on the actor's node any more; None: nobody can tell now.
      role: name of the role that the process has.
      log: file of its output.
    """

    def __init__(
        self,
        agent: Any,
        kill_agent: Callable[[Any], None],
        is_node_gone: Callable[[], bool | None],
        role: str,
        log: pathlib.Path,
    ):
        self._agent, self._kill_agent = agent, kill_agent
        self._is_node_gone = is_node_gone
        self._lost_secs: float | None = None
        self._role, self._log = role, log
        self._killed_secs: float | None = None
        self._is_told = False
        self._ended_secs: float | None = None
        self._asked_again: concurrent.futures.Future | None = None
        self._is_there: concurrent.futures.Future = agent.__ray_ready__.remote().future()
        self._exit: concurrent.futures.Future = agent.wait.remote().future()
        self._begin_secs = time.monotonic()

    def poll(self) -> int | None:
        """The role's exit code, or that of a failure if its actor has gone."""
        if self._exit.done():
            return self._over() if self._is_its_own_end() or self._has_settled() else None
        if self._is_there.done() or time.monotonic() - self._begin_secs < _START_SECS:
            return None
        self._say(
            f"Ray has not started it within {_START_SECS:g} s: its cores, GPUs or memory are "
            "taken; see `ray status`"
        )
        self._kill_agent(self._agent)
        return EXIT_FAILED

    def stop(self) -> None:
        """The role gets SIGTERM."""
        self._is_told = True
        self._agent.say.remote(step.STOP)

    def kill(self) -> None:
        """The role and all that it has started get SIGKILL."""
        self._is_told = True
        self._agent.say.remote(step.KILL)
        self._killed_secs = self._killed_secs or time.monotonic()

    def wait(self) -> int:
        """Waits for the end of the role; an actor that takes too long is ended by Ray."""
        # Of many that were killed together, the last may take no longer than the first.
        begin_secs = self._killed_secs or time.monotonic()
        done, _ = concurrent.futures.wait(
            [self._exit], max(begin_secs + _KILL_SECS - time.monotonic(), 0.1)
        )
        if done:
            return self._over()
        self._kill_agent(self._agent)
        return -signal.SIGKILL

    def _is_its_own_end(self) -> bool:
        """Whether the actor has told of the end, and not as the last thing before its own."""
        if self._exit.exception() is not None:
            return False
        if self._exit.result() != -signal.SIGKILL or self._is_told:
            return True
        now_secs = time.monotonic()
        self._ended_secs = self._ended_secs or now_secs
        if self._asked_again is None and now_secs - self._ended_secs >= _LAST_WORDS_SECS:
            self._asked_again = self._agent.__ray_ready__.remote().future()
        asked = self._asked_again
        return asked is not None and asked.done() and asked.exception() is None

    def _has_settled(self) -> bool:
        is_gone, now_secs = self._is_node_gone(), time.monotonic()
        if is_gone is None:
            self._lost_secs = None
            return False
        self._lost_secs = self._lost_secs or now_secs
        return is_gone or now_secs - self._lost_secs > _SETTLE_SECS

    def _over(self) -> int:
        error = self._exit.exception()
        if error is None:
            code = self._exit.result()
        else:
            code = EXIT_FAILED
            self._say(words_of(error))
        self._kill_agent(self._agent)  # its cores are free for the next one
        return code

    def _say(self, words: str) -> None:
        """The last words of a role are looked for in its log."""
        with self._log.open("a") as log:
            log.write(f"tfdrl {self._role}: {words}\n")


class Agents:
    """A `tfdrl.launch.launcher.Starter`.

    Args:
      cluster: where they run.
      reservation: of what they want there.
      directory: in which they start, as `Surroundings` has it.
      moves: of those whose node is gone.
    """

    doing = ""

    def __init__(
        self,
        cluster: Cluster,
        reservation: Reservation,
        directory: str,
        moves: Moves,
    ):
        self._cluster, self._reservation = cluster, reservation
        self._directory, self._moves = directory, moves
        self._numbers = itertools.count()

    @property
    def lost(self) -> str:
        """The head, without which Ray ends all other nodes within a minute."""
        return self._cluster.lost

    def is_ready(self, role: Role) -> bool:
        """As long as the head answers: Ray would wait for it without a limit."""
        return self._cluster.answers()

    def start(self, spec: ProcessSpec) -> AgentProcess:
        """As `Starter.start`."""
        node = self._moves.node(spec)
        name = f"{spec.name.replace(' ', '-')}-{next(self._numbers)}"
        options = self._reservation.options(spec.role.name, node, has_moved=node != spec.node)
        actor = self._cluster.remote(Agent, max_concurrency=2, **options)
        log = pathlib.Path(spec.log.name)
        surroundings = Surroundings(self._directory, spec.environment)
        agent = actor.remote(name, list(spec.command), log, surroundings)
        return AgentProcess(
            agent, self._cluster.kill, lambda: self._is_gone(node), spec.role.name, log
        )

    def is_ending(self) -> bool:
        """Whoever ends all of a job on Ray tells the launcher."""
        return False

    def gone(self, nodes: Collection[str]) -> set[str]:
        """Those of the nodes that nothing runs on any more."""
        return self._moves.gone(nodes)

    def _is_gone(self, node: str) -> bool | None:
        if self.lost:
            return True  # soon, and nobody starts anything there again
        return node in self.gone([node]) if self._cluster.answers() else None

    def close(self) -> None:
        """What was reserved is free again."""
        self._reservation.close()
