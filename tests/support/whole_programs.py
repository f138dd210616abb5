"""All roles of a gin file as real processes, as a cluster would start them."""

from __future__ import annotations

import contextlib

import gin
from running_roles import WatchedRoles, free_port

from tfdrl import configuration
from tfdrl.experiment import Experiment
from tfdrl.replay.unroll_tables import QUEUE

#: Of a role that a signal stops.
EXIT_CODE = 143
_BINDINGS = ["experiment.solved_return = None", "experiment.max_minutes = None"]


class WholeProgram(WatchedRoles):
    """All roles of a program, started; `statuses` are its chief's."""

    def __init__(self, directory, gin_file, *bindings):
        bindings = [*_BINDINGS, *bindings]
        flags = [f"--gin_bindings={binding}" for binding in bindings]
        root_dir = directory / "run"
        root_dir.mkdir()
        super().__init__(root_dir, directory, gin_file, *flags)
        configuration.load([str(gin_file)], bindings, tensorflow=False)
        self.program = Experiment.from_gin().architecture.program()
        gin.clear_config()
        self.light = [role.name for role in self.program.roles if not role.needs_tensorflow]
        self.listeners = {
            role.name: [f"127.0.0.1:{free_port()}" for _ in range(role.replicas)]
            for role in self.program.roles
            if role.serves
        }
        self.clusters = {
            role.name: [f"127.0.0.1:{free_port()}" for _ in range(role.replicas)]
            for role in self.program.roles
            if role.clusters and role.replicas > 1
        }
        self.addresses["learner"] = self.listeners[self.program.chief][0]  # whom `status` asks
        self.addresses["replay"] = self.listeners.get("replay", [None])[0]
        self.running = {}
        for role in self.program.roles:
            for task in range(role.replicas):
                self.begin(role.name, task)

    def begin(self, name, task=0):
        role = self.program.role(name)
        addresses = dict.fromkeys(("learner", "replay", "listen"))
        addresses.update({other: ",".join(self.listeners[other]) for other in role.talks_to})
        if role.serves:
            addresses["listen"] = self.listeners[name][task]
        flags = [f"--task={task}", f"--stopped_exit_code={EXIT_CODE}"]
        if name in self.clusters:
            flags.append(f"--cluster={','.join(self.clusters[name])}")
        self.running[name, task] = self.start(name, *flags, **addresses)

    def has(self, name):
        """Whether the program has such a role."""
        return any(role.name == name for role in self.program.roles)

    def replay_table(self):
        """Reverb's TableInfo of the first replay server's queue, or only table; None: no answer."""
        import reverb

        client = reverb.Client(self.addresses["replay"])
        with contextlib.suppress(reverb.errors.DeadlineExceededError, RuntimeError):
            tables = client.server_info(timeout=2)
            return tables.get(QUEUE) or next(iter(tables.values()))

    def preempt(self, name, task=0):
        """SIGTERM, and the same role again."""
        process = self.running[name, task]
        assert process.terminate(10.0) == EXIT_CODE, process.log
        assert "Traceback" not in process.log
        self.begin(name, task)
