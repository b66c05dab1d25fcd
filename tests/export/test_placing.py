"""Whatever ends an export, there is the earlier one or the new one, and the next start finds nothing left over."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_rmdp.export import export, placing, verify
from sb3_rmdp.export.placing import leftovers, repair, whole_folder
from tests.export.models import CASES

#: Replaces a folder by another one, and is killed at one of its operations on files
KILLED = """
import os, signal, sys
from pathlib import Path
from sb3_rmdp.export import placing

target, when, exchanges = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "exchange"
if not exchanges:
    placing._exchange = lambda first, second: False
seen = 0

def hook(event, arguments):
    global seen
    if event in OPERATIONS and str(target.parent) in str(arguments):
        seen += 1
        if seen == when:
            os.kill(os.getpid(), signal.SIGKILL)

OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.scandir", "os.listdir")
sys.addaudithook(hook)
placing.repair(target)
with placing.whole_folder(target, lambda: None) as folder:
    for name in ("a", "b"):
        (folder / name).write_text("new")
print(seen)
"""


def contents(folder: Path) -> set[str]:
    """
    :param folder: any folder
    :return: what is in its files
    """
    return {path.read_text() for path in folder.iterdir()}


def write(target: Path, text: str) -> None:
    """
    :param target: gets two files
    :param text: in each
    """
    repair(target)
    with whole_folder(target, lambda: None) as folder:
        for name in ("a", "b"):
            (folder / name).write_text(text)


def run_killed(target: Path, when: int, way: str) -> subprocess.CompletedProcess[str]:
    """A process that is killed at its operation number ``when``."""
    # The module alone, without the package, which takes seconds to import
    code = KILLED.replace("from sb3_rmdp.export import placing", LOAD)
    return subprocess.run([sys.executable, "-c", code, str(target), str(when), way], capture_output=True, text=True)


LOAD = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("placing", {placing.__file__!r})
placing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(placing)
"""


@pytest.mark.parametrize("way", ["exchange", "rename"])
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no exchange, and other events")
def test_kills_at_every_operation_lose_nothing(way: str, tmp_path: Path) -> None:
    whole = run_killed(tmp_path / "whole" / "svc", 0, way)
    write(tmp_path / "count" / "svc", "old")
    count = int(run_killed(tmp_path / "count" / "svc", 0, way).stdout)
    assert whole.returncode == 0 and count > 10
    found = set()
    for when in range(1, count + 1, 2 if way == "exchange" else 3):
        target = tmp_path / f"{way}{when}" / "svc"
        write(target, "old")
        assert run_killed(target, when, way).returncode == -9
        if way == "exchange":
            # At every moment, even before anything is repaired
            assert contents(target) in ({"old"}, {"new"})
        repair(target)
        found |= contents(target)
        assert contents(target) in ({"old"}, {"new"}) and [path.name for path in target.parent.iterdir()] == ["svc"]
        write(target, "newer")
        assert contents(target) == {"newer"} and [path.name for path in target.parent.iterdir()] == ["svc"]
    assert found == {"old", "new"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no exchange")
def test_folders_change_places_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "of_a").touch()
    assert placing._exchange(tmp_path / "a", tmp_path / "b") and (tmp_path / "b" / "of_a").exists()
    with pytest.raises(OSError, match=r"No such file.*none") as raised:
        placing._exchange(tmp_path / "a", tmp_path / "none")
    assert raised.value.errno == errno.ENOENT


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    target = tmp_path / "svc"
    # Of processes that were killed, under names that earlier versions made too
    for name in (".svc.1.tmp", ".svc.42.old", ".svc.0123456789abcdef.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("old")
    (tmp_path / ".svc.notes").mkdir()
    (tmp_path / ".svc.a.b.tmp").mkdir()  # of a folder svc.a
    (tmp_path / ".svc.7.tmp").write_text("a file")
    with whole_folder(target, lambda: None) as living:
        repair(target)
        assert living.is_dir() and contents(target) == {"old"}  # there was no other
        (living / "file").write_text("new")
    assert contents(target) == {"new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".svc.7.tmp", ".svc.a.b.tmp", ".svc.notes", "svc"]
    assert leftovers(target) == []


def test_a_temporary_name_that_is_taken_stops_nobody(tmp_path: Path) -> None:
    model = CASES["raw"]()
    stale = tmp_path / f".svc.{os.getpid()}.tmp"
    stale.mkdir()
    export(model, tmp_path / "svc", onnx=False)
    assert [path.name for path in tmp_path.iterdir()] == ["svc"] and verify(tmp_path / "svc")


def test_where_two_names_cannot_change_places_the_old_one_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "_exchange", lambda first, second: False)
    target = tmp_path / "svc"
    write(target, "old")
    write(target, "new")
    assert contents(target) == {"new"} and [path.name for path in tmp_path.iterdir()] == ["svc"]
    target.rename(tmp_path / ".svc.0011223344556677.old")
    with pytest.raises(FileNotFoundError, match=r"no folder .*svc; an earlier export .* is .*\.svc\.0011223344556677\.old"):
        verify(target)
    write(target, "newest")
    assert contents(target) == {"newest"} and [path.name for path in tmp_path.iterdir()] == ["svc"]


def test_errors_and_refusals_leave_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "svc"
    write(target, "old")

    def refuse() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), whole_folder(target, refuse) as folder:
        (folder / "a").write_text("new")
    with pytest.raises(KeyboardInterrupt), whole_folder(target, lambda: None):
        raise KeyboardInterrupt
    assert contents(target) == {"old"} and [path.name for path in tmp_path.iterdir()] == ["svc"]


def test_the_mode_of_the_folder_and_long_names_are_kept(tmp_path: Path) -> None:
    target = tmp_path / ("s" * 255)
    write(target, "old")
    target.chmod(0o750)
    write(target, "new")
    assert target.stat().st_mode & 0o777 == 0o750 and contents(target) == {"new"} and len(list(tmp_path.iterdir())) == 1


def test_inputs_are_not_replaced_with_the_folder_that_they_lie_in(tmp_path: Path) -> None:
    model = CASES["raw"]()
    (tmp_path / "svc").mkdir()
    model.save(tmp_path / "svc" / "representative_0.zip")
    (tmp_path / "link").symlink_to(tmp_path / "svc")
    for name in (tmp_path / "svc" / "representative_0.zip", tmp_path / "link" / "representative_0"):
        with pytest.raises(ValueError, match=r"the model, lies in .*svc, which the export replaces"):
            export(name, tmp_path / "svc", onnx=False, force=True)
    assert (tmp_path / "svc" / "representative_0.zip").is_file()
