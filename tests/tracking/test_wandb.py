"""`tfdrl track` into W&B's offline files; TRACK_VENV names the environment of docs/tracking.md."""

import json
import os
import pathlib
import signal
import subprocess
import time
from collections import Counter

import made_runs
import pytest
import tracked_runs
from tracked_runs import BIN, LIMIT_SECS, start, track, wait_for

from tfdrl.launch.process import arguments_of, state_of
from tfdrl.runtime import locks
from tfdrl.tracking.points import EventFiles

pytestmark = tracked_runs.MARKS


@pytest.fixture
def run(tmp_path):
    return tracked_runs.make(tmp_path / "a")


# W&B keeps records in LevelDB's log format: blocks, and in them pieces of records.
_READ_WANDB = """
import glob, json, struct, sys
from wandb.proto import wandb_internal_pb2

def records(data, at=7, block=32768):
    record = b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole, or the last piece
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""

for path in sorted(glob.glob(sys.argv[1])):
    for record in records(open(path, "rb").read()):
        kind = record.WhichOneof("record_type")
        there = getattr(record, kind)
        if kind in ("history", "summary", "config"):
            items = there.item if kind == "history" else there.update
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            print(json.dumps([kind, row]))
        elif kind in ("run", "artifact"):
            print(json.dumps([kind, there.run_id if kind == "run" else there.name]))
"""


def _read_wandb(run):
    there = run / "tracking" / "wandb" / "offline-run-*" / "run-*.wandb"
    done = subprocess.run(
        [BIN / "python", "-c", _READ_WANDB, str(there)],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECS,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_wandb_has_every_point_once_in_its_offline_files(run):
    for _ in range(2):  # the second sends only what is new
        code, output = track(run, "--to=wandb", "--offline")
        assert code == 0, output
        more = [(made_runs.BEGIN_SECS + 99, 999, "loss", 0.25)]
        made_runs.write_events(run / "tensorboard" / "learner-0", more)
    records = _read_wandb(run)
    history = [row for kind, row in records if kind == "history"]
    values = Counter()
    for row in history:
        (process,) = {key.partition("/")[0] for key in row if not key.startswith("_")}
        own = {f"{process}/step", f"{process}/secs"}
        values.update(
            (key, row[f"{process}/step"], int(row[f"{process}/secs"] * 1000))
            for key in row
            if not key.startswith("_") and key not in own
        )
    wanted = {(p.name, p.step, int(p.secs * 1000)) for p in _all(run)[:-1]}
    assert set(values) == wanted and values.total() == 58
    steps = [row["_step"] for row in history]
    assert steps == sorted(set(steps))
    kinds = Counter(kind for kind, _ in records)
    assert kinds["artifact"] >= 1 and len({x for kind, x in records if kind == "run"}) == 1
    config = {k: v for kind, row in records if kind == "config" for k, v in row.items()}
    assert config["gym_environment.id"] == "'CartPole-v1'"
    summary = {k: v for kind, row in records if kind == "summary" for k, v in row.items()}
    assert summary["result/frames"] == 30_000 and summary["ended"] == "solved (exit code 0)"


@pytest.mark.parametrize("at_the_end", [True, False])
def test_wandbs_own_process_that_hangs_is_said_in_time(run, at_the_end):
    with locks.lock(run, "launcher"):
        sender = start(run, "--to=wandb", "--offline", "--timeout_secs=2")
        wait_for(lambda: _sent(run) == 57, "all points")
        (core,) = [pid for pid in _children(sender.pid) if "wandb-core" in arguments_of(pid)[0]]
        os.kill(core, signal.SIGSTOP)
        begun = time.monotonic()
        if not at_the_end:  # more than what fits between the two
            many = [(made_runs.BEGIN_SECS + 60 + i, 600 + i, "rate", 2.0) for i in range(20_000)]
            made_runs.write_events(run / "tensorboard" / "learner-0", many)
            wait_for(lambda: sender.poll() is not None, "its end")
    output, _ = sender.communicate(timeout=LIMIT_SECS)
    assert sender.returncode == 1 and time.monotonic() - begun < 60, output
    assert "W&B's own process has not answered for 12 s, and was ended" in output
    assert "Traceback" not in output
    assert state_of(core) in ("", "Z")


def _sent(run):
    return sum(json.loads(p.read_text())["points"] for p in (run / "tracking").glob("wandb-*.json"))


def _children(pid):
    paths = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in paths for child in path.read_text().split()]


def _all(run):
    return EventFiles(run / "tensorboard").take({})[0]
