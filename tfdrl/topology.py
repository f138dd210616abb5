"""Who runs and who talks to whom, as data. Standard library only."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple, Union

from tfdrl.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a role listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, flag: str = "address") -> Address:
        """Reads "host:port". Raises ConfigurationError that names `flag`."""
        host, colon, port = text.rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
            raise ConfigurationError(
                f"--{flag}={text!r} is not an address; write host:port, such as localhost:8000"
            )
        return cls(host.strip("[]"), int(port))

    @property
    def is_loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


#: `Role.flush_secs` of replays: one of a million items takes some minutes.
REPLAY_FLUSH_SECS = 300.0

#: What a role is given for one it talks to: an address, or one for each of its replicas.
Addresses = Union[Address, tuple[Address, ...]]


def each_of(addresses: Addresses) -> tuple[Address, ...]:
    """All of them, also where there is one."""
    return addresses if isinstance(addresses, tuple) else (addresses,)


def one_of(addresses: Addresses, task: int) -> Address:
    """The address for a task: tasks are spread over the replicas in turn."""
    return addresses[task % len(addresses)] if isinstance(addresses, tuple) else addresses


class Resources(NamedTuple):
    """What one process wants of the machine that it runs on.

    Attributes:
      cpus: cores of its own; with 0 it shares those of the others.
      gpus: for it alone.
      memory_mb: that it may take; 0: it is not counted.
      apart: no other replica of its role is on the same machine.
    """

    cpus: int = 1
    gpus: int = 0
    memory_mb: int = 0
    apart: bool = False


@dataclasses.dataclass(frozen=True)
class Role:
    """One kind of process of a program.

    Attributes:
      name: unique in its program; the word in flags, logs and TensorBoard.
      function: "module:name" of `function(config, context, **addresses)`; a string, so that
        a program can be looked at without importing what its roles import.
      replicas: how many processes; each has a task number 0..replicas-1.
      talks_to: names of the serving roles whose address it is given as a keyword argument.
      serves: whether it listens on an address of its own (`context.listen`).
      encrypts: whether what it serves can have TLS: tfdrl's own services; Reverb's cannot.
      essential: it is stopped last, and its death ends the run; other roles are restarted, with
        back-off.
      restarts: whether it is restarted like them although it is essential: it keeps what it
        holds on disk, and the others wait for it.
      needs_all: whether its replicas wait for each other (synchronous updates), so that none can
        be given up.
      flush_secs: it may take so much longer than others to end, and to begin: a large replay writes
        what it holds to disk, and reads it.
      exports: whether it writes the policy to its root_dir, which must outlive it.
      clusters: whether its replicas, if there are several, talk to each other by TensorFlow's
        collectives, each at a second address (`context.cluster`).
      needs_tensorflow: whether its process loads TensorFlow.
      devices: "GPU" for a process that sees the GPUs of its machine; one with "CPU" sees none, so
        that they are left to who trains.
      threads: TensorFlow threads of the process; 0 lets TensorFlow choose.
      niceness: 0 to 19; where cores are shared, processes with a lower one go first.
    """

    name: str
    function: str
    replicas: int = 1
    talks_to: tuple[str, ...] = ()
    serves: bool = False
    encrypts: bool = False
    essential: bool = False
    restarts: bool = False
    needs_all: bool = False
    flush_secs: float = 0.0
    exports: bool = False
    clusters: bool = False
    needs_tensorflow: bool = True
    devices: str = "CPU"
    threads: int = 1
    niceness: int = 0

    def resources(self, there_are_gpus: bool = False) -> Resources:
        """What it wants where nobody says otherwise: a core for each thread, and a GPU to see."""
        gpus = 1 if there_are_gpus and self.devices == "GPU" else 0
        return Resources(cpus=max(self.threads, 1), gpus=gpus)

    def load(self) -> Callable:
        """Imports and returns the role's function."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)


def replay_role(page: str, **more) -> Role:
    """A Reverb server, of `page`:replay: it keeps what it holds on disk.

    Args:
      page: module of the architecture; the functions of its roles have their names.
      more: fields of `Role`.
    """
    flush = {"flush_secs": REPLAY_FLUSH_SECS}
    return Role("replay", f"{page}:replay", serves=True, essential=True, **flush, **more)


def chief_role(name: str, page: str, **more) -> Role:
    """Who counts for the run and serves parameters, metrics and status: learner, coordinator.

    Whoever trains sees GPUs; a coordinator does not.
    """
    served = {"serves": True, "encrypts": True, "essential": True}
    devices = "CPU" if name == "coordinator" else "GPU"
    own = {"function": f"{page}:{name}", "devices": devices, **more}
    return Role(name, **own, **served)


def parameter_server_role(page: str, replicas: int) -> Role:
    """A TensorFlow server that holds shards: the others wait for it while it is restarted."""
    served = {"serves": True, "essential": True, "restarts": True}
    return Role("parameter_server", f"{page}:parameter_server", replicas, **served)


def actor_role(page: str, replicas: int, talks_to: tuple[str, ...], **more) -> Role:
    """Processes that act; one that dies is restarted, and the others go on."""
    return Role("actor", f"{page}:actor", replicas, talks_to, **more)


def evaluator_role(page: str, chief: str, niceness: int) -> Role:
    """Plays the greedy policy of each version, and exports the best one."""
    return Role("evaluator", f"{page}:evaluator", 1, (chief,), exports=True, niceness=niceness)


@dataclasses.dataclass(frozen=True)
class Program:
    """The roles of one architecture: the paper's figure as data, in the order of starting.

    Attributes:
      name: of the architecture.
      roles: each with its replicas.
      chief: the role that counts for the run and says when it is over.
      threads: name and number of those that report to the chief although they are no processes, but
        threads of its own.
    """

    name: str
    roles: tuple[Role, ...]
    chief: str = "learner"
    threads: tuple[tuple[str, int], ...] = ()

    def role(self, name: str) -> Role:
        """The role of that name. Raises ConfigurationError that lists the roles there are."""
        for role in self.roles:
            if role.name == name:
                return role
        names = ", ".join(role.name for role in self.roles)
        raise ConfigurationError(f"{self.name} has no role {name!r}; its roles are: {names}")

    def on_gpus(self, names: Iterable[str] | None) -> Program:
        """The same program in which these roles, and no others, see GPUs; None: as it says.

        Raises ConfigurationError that lists the roles there are.
        """
        if names is None:
            return self
        chosen = {self.role(name).name for name in names}
        roles = (
            dataclasses.replace(role, devices="GPU" if role.name in chosen else "CPU")
            for role in self.roles
        )
        return dataclasses.replace(self, roles=tuple(roles))


#: Replicas of a role that log as often as one does. An actor writes 16 MB of events a day.
MOST_LOGS = 50


@dataclasses.dataclass
class Context:
    """What a running role knows of its surroundings.

    Attributes:
      role: its name.
      task: its number among its replicas.
      replicas: how many of it there are.
      root_dir: where the run leaves its files.
      listen: the address it serves on, if it serves.
      cluster: addresses of all replicas' collectives, in the order of their tasks; empty unless
        the role clusters and has several replicas.
      stop: set when the role should finish (signal, or end of training).
      told: set, before `stop`, when that is because of a signal, to this process or to one that
        it cannot go on without: the run is not over.
      experiment: digest of the configuration; two roles of one run have the same.
      security: of this process's own services and channels (rpc.security.Security); None: none.
    """

    role: str
    task: int
    replicas: int
    root_dir: pathlib.Path
    listen: Address | None = None
    cluster: tuple[Address, ...] = ()
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    told: threading.Event = dataclasses.field(default_factory=threading.Event)
    experiment: str = ""
    security: object = None

    def log_period_secs(self, period_secs: float) -> float:
        """Between two entries of a log that each replica keeps, where one would make `period_secs`.

        Those of many replicas together grow no faster than those of `MOST_LOGS`.
        """
        return period_secs * max(1.0, self.replicas / MOST_LOGS)
