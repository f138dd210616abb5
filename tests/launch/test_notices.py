"""What roles say to their user reaches the console, whole and once."""

from tfdrl.errors import NOTICE
from tfdrl.launch.notices import Notices


def _append(path, text):
    with path.open("a") as file:
        file.write(text)


def test_new_lines_are_taken_once(tmp_path):
    old, new = tmp_path / "replay-0.log", tmp_path / "learner-0.log"
    old.write_text(f"ERROR {NOTICE}of an earlier start\n")
    notices = Notices([("replay 0", old), ("learner 0", new)])
    assert notices.take() == []
    _append(old, f"INFO nothing\n2031-01-01 ERROR {NOTICE}the table was reset\nWARNING {NOTICE}ha")
    assert notices.take() == ["replay 0: the table was reset"]
    _append(old, "lf\n")
    new.write_text(f"{NOTICE}first\n{NOTICE}second\n")
    assert notices.take() == ["replay 0: half", "learner 0: first", "learner 0: second"]
    assert notices.take() == []


def test_a_log_that_goes_or_has_no_lines_disturbs_nobody(tmp_path):
    log = tmp_path / "replay-0.log"
    notices = Notices([("replay 0", log)])
    log.write_bytes(b"x" * (1 << 17))
    assert notices.take() == [] == notices.take()
    _append(log, f"\n{NOTICE}here\n")
    assert notices.take() == ["replay 0: here"]
    log.unlink()
    assert notices.take() == []
