"""Runs the files of tests that failed beside others once more, alone: `make test` ends with it.

Not with TEST_FLAGS, which may have ended the first run early.

Many tests start processes and have time limits. On a machine that others use as well, one of
thousands may miss its limit, though nothing is broken. What fails alone, too, is; and so is a suite
with many failures, which is not tried again.
"""

import json
import pathlib
import subprocess
import sys

_LAST_FAILED = pathlib.Path(".pytest_cache/v/cache/lastfailed")
_MOST_TESTS = 5
_LIMIT_SECS = 1200
_FAILED = 1  # pytest's exit code; others are of an interrupted, a wrong or an empty run


def main(exit_code: int) -> int:
    """The exit code of the whole suite, of which `exit_code` was the first run's."""
    if exit_code != _FAILED or not _LAST_FAILED.exists():
        return exit_code
    tests = list(json.loads(_LAST_FAILED.read_text()))
    files = sorted({test.partition("::")[0] for test in tests})
    if len(tests) > _MOST_TESTS or not all(pathlib.Path(file).exists() for file in files):
        return exit_code
    print(f"\n{len(tests)} failed; their files once more, alone:", *files, sep="\n  ", flush=True)
    command = [sys.executable, "-m", "pytest", *files]
    again = subprocess.run(command, timeout=_LIMIT_SECS).returncode
    if again == 0:
        print("passed alone, failed beside others:", *tests, sep="\n  ", flush=True)
    return again


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
