"""A role that is told to stop before it has loaded TensorFlow."""

import signal
import time

import pytest
from running_roles import APEX, Roles, can_make_pid_namespaces


@pytest.mark.parametrize("as_pid_1", [False, True])
def test_sigterm_while_it_starts_ends_the_role(tmp_path, as_pid_1):
    if as_pid_1 and not can_make_pid_namespaces():
        pytest.skip("process id namespaces are not permitted")
    roles = Roles(tmp_path, tmp_path, APEX)
    roles.afresh = ("replay",)  # what is forked has loaded it
    try:
        process = roles.start("replay", as_pid_1=as_pid_1)
        time.sleep(1.5)
        assert process.returncode is None
        process.signal(signal.SIGTERM)
        assert process.exit_code(10) == 0
    finally:
        roles.kill()
