"""Files are there whole or not at all, whatever kills the process; errors name the file; nothing is left behind."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch as th

from sb3_rmdp.common import locks
from sb3_rmdp.common.files import save_whole as old_name
from sb3_rmdp.common.report import save_text
from sb3_rmdp.common.whole_files import TEMPORARY, check_target, remove_abandoned, save_whole
from tests.kills import full_disk, kills

OLD, NEW = b"old " * 5000, b"new " * 5000
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def save(path: Path, content: bytes = NEW) -> Path:
    return save_whole(path, lambda file: file.write(content))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_kill_leaves_the_old_file_or_the_new_one_and_the_next_save_tidies_up(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    save(path, OLD)
    seen, left = set(), 0
    for _ in kills(lambda: save(path), tmp_path):
        seen.add(path.read_bytes())
        left += len(names(tmp_path)) - 1
    assert seen == {OLD, NEW} and left > 0
    assert path.read_bytes() == NEW and names(tmp_path) == ["model.zip"]


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_kill_in_a_new_folder_leaves_no_file_or_the_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "model.zip"
    for _ in kills(lambda: save(path), tmp_path):
        assert not path.exists() or path.read_bytes() == NEW
    assert path.read_bytes() == NEW and names(path.parent) == ["model.zip"]


def test_a_file_that_is_being_written_is_not_tidied_up(tmp_path: Path) -> None:
    def write(file: io.BufferedIOBase) -> None:
        file.write(b"half")
        (temporary,) = names(tmp_path)
        assert TEMPORARY.fullmatch(temporary)
        remove_abandoned(tmp_path)
        save(tmp_path / "other.zip")
        assert names(tmp_path) == [temporary, "other.zip"]
        file.write(b" and half")

    save_whole(tmp_path / "model.zip", write)
    assert (tmp_path / "model.zip").read_bytes() == b"half and half" and names(tmp_path) == ["model.zip", "other.zip"]


def test_what_others_call_almost_alike_stays(tmp_path: Path) -> None:
    others = [".sb3_rmdp-notes.tmp", ".sb3_rmdp-0123456789abcdef.tmp.bak", "sb3_rmdp-0123456789abcdef.tmp"]
    for name in (*others, ".sb3_rmdp-0123456789abcdef.tmp"):
        (tmp_path / name).write_text("")
    remove_abandoned(tmp_path)
    assert names(tmp_path) == sorted(others)


def test_without_locks_only_old_temporaries_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    new, old = tmp_path / ".sb3_rmdp-0123456789abcdef.tmp", tmp_path / ".sb3_rmdp-fedcba9876543210.tmp"
    new.write_text(""), old.write_text("")
    two_days_ago = old.stat().st_mtime - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    save(tmp_path / "model.zip")
    assert names(tmp_path) == [new.name, "model.zip"]


def test_a_temporary_that_goes_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may take it for abandoned between its making and its lock."""
    flock, gone = locks.fcntl.flock, list[Path]()

    def slow(descriptor: int, operation: int) -> None:
        if not gone:
            gone.extend(tmp_path.iterdir())
            gone[0].unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", slow)
    save(tmp_path / "model.zip")
    assert gone and names(tmp_path) == ["model.zip"] and (tmp_path / "model.zip").read_bytes() == NEW


def test_threads_that_save_one_file_never_show_half_of_it(tmp_path: Path) -> None:
    path, errors, running = tmp_path / "shared.zip", [], [1, 1]

    def writer(content: bytes) -> None:
        try:
            for _ in range(60):
                save(path, content)
        except OSError as error:
            errors.append(error)
        running.pop()

    save(path, OLD)
    threads = [threading.Thread(target=writer, args=(content,)) for content in (OLD, NEW)]
    for thread in threads:
        thread.start()
    while running:
        assert path.read_bytes() in (OLD, NEW)
    for thread in threads:
        thread.join()
    assert not errors and names(tmp_path) == ["shared.zip"]


def test_files_are_on_the_disk_before_they_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else f"{os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def note_name(*paths: Path) -> None:
        done.append("name")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_name)
    save(tmp_path / "model.zip")
    assert done == [f"{len(NEW)} bytes", "name", "folder"]
    done.clear()
    save(tmp_path / "new" / "model.zip")
    assert done == ["folder", f"{len(NEW)} bytes", "name", "folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_modes_are_those_of_any_new_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save(tmp_path / "model.zip")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.zip").stat().st_mode) == mode


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = save(tmp_path / "model.zip", OLD)
    path.chmod(0o640)
    save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and path.read_bytes() == NEW


def test_links_stay_and_the_files_that_they_lead_to_are_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "elsewhere" / "model_7.zip", tmp_path / "latest.zip"
    save(real, OLD)
    link.symlink_to(Path("elsewhere") / "model_7.zip")
    save(link)
    assert link.is_symlink() and real.read_bytes() == NEW and names(real.parent) == ["model_7.zip"]
    real.unlink()
    save(link)
    assert link.is_symlink() and real.read_bytes() == NEW


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "away.zip").symlink_to(tmp_path / "unmounted" / "model.zip")
    with pytest.raises(OSError, match=r"make the folder that its link leads to: '.*away.zip'"):
        save(tmp_path / "away.zip")
    (tmp_path / "round.zip").symlink_to("round.zip")
    with pytest.raises(OSError, match=r"links.*: '.*round.zip'"):
        save(tmp_path / "round.zip")
    assert names(tmp_path) == ["away.zip", "round.zip"]


def test_pipes_and_devices_are_written_to_and_stay(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.zip"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    save(check_target(pipe))
    reader.join()
    assert got == [NEW] and stat.S_ISFIFO(pipe.stat().st_mode) and names(tmp_path) == ["pipe.zip"]
    # A file that is open as well: whoever opened it goes on after what was written
    with (tmp_path / "out.json").open("wb") as file:
        save_text("{}", Path(f"/dev/fd/{file.fileno()}"), "")
    assert (tmp_path / "out.json").read_bytes() == b"{}"


@pytest.mark.parametrize("name", ["n" * 255, "n" * 251 + ".zip", "é" * 125 + ".zip"])
def test_names_may_be_as_long_as_names_can_be(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_whole(check_target(path), lambda file: file.write(NEW), suffix="")
    assert path.read_bytes() == NEW
    for do in (check_target, save):
        with pytest.raises(OSError, match="give a shorter name") as error:
            do(tmp_path / f"{name}{'n' * 5}.zip")
        assert error.value.errno == errno.ENAMETOOLONG and names(tmp_path) == [name]


def test_a_full_disk_is_named_with_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = save(tmp_path / "model.zip", OLD)

    def as_zip(file: io.BufferedIOBase) -> None:
        """Torch within a zip file, as in models: the error that comes out is none of the disk."""
        with zipfile.ZipFile(file, "w") as archive, archive.open("a.pth", "w", force_zip64=True) as member:
            th.save({"a": th.zeros(100_000)}, member)

    for write in (lambda file: file.write(NEW * 10), as_zip, lambda file: np.savez(file, a=np.zeros(100_000))):
        with full_disk(50_000), pytest.raises(
            OSError, match=r"give a place where files may be larger: '.*model.zip'"
        ) as error:
            save_whole(path, write)
        assert error.value.errno == errno.EFBIG and error.value.filename == str(path)
        assert names(tmp_path) == ["model.zip"] and path.read_bytes() == OLD


def test_no_space_says_what_to_do_and_errors_of_other_files_stay_as_they_are(tmp_path: Path) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(*arguments)

    with pytest.raises(OSError, match=r"No space left on device: free some, or give another place: '.*model.zip'"):
        save_whole(tmp_path / "model", lambda _: fail(errno.ENOSPC, "No space left on device"))
    with pytest.raises(FileNotFoundError) as error:
        save_whole(tmp_path / "model", lambda _: (tmp_path / "missing.csv").read_bytes())
    assert error.value.filename == str(tmp_path / "missing.csv")
    with pytest.raises(ValueError, match="not the disk"):
        save_whole(tmp_path / "model", lambda _: int("not the disk"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("do", [check_target, save])
def test_folders_and_files_in_the_way(tmp_path: Path, do: object) -> None:
    assert callable(do)
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(IsADirectoryError, match=r"give a file in it: '.*folder.zip'"):
        do(tmp_path / "folder.zip")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file.*give another place: '.*model.zip'"):
        do(tmp_path / "file" / "model.zip")
    (tmp_path / "nowhere").symlink_to(tmp_path / "unmounted")
    assert names(tmp_path) == ["file", "folder.zip", "nowhere"]


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_read_only_folders_and_files_are_named(tmp_path: Path) -> None:
    kept = save(tmp_path / "kept.zip", OLD)
    kept.chmod(0o444)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    for path in (kept, folder / "model.zip", folder / "new" / "model.zip"):
        for do in (check_target, save):
            with pytest.raises(PermissionError, match=r"may.* be written to.*zip'"):
                do(path)
    assert kept.read_bytes() == OLD and names(folder) == []


def test_what_may_not_be_written_is_told_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, whoever runs it."""
    path = save(tmp_path / "model.zip", OLD)
    monkeypatch.setattr(os, "access", lambda *_: False)
    for where in (path, tmp_path / "other.zip"):
        with pytest.raises(PermissionError, match=rf"may.* be written to.*'{where}'"):
            check_target(where)
    with pytest.raises(PermissionError, match=rf"'{path}'"):
        save(path)
    assert path.read_bytes() == OLD


def test_texts_may_hold_names_of_files_that_are_no_text(tmp_path: Path) -> None:
    """A Latin-1 name on a machine of UTF-8: Python keeps its bytes as lone surrogates, which UTF-8 does not have."""
    name = os.fsdecode(b"caf\xe9.zip")
    path = save_text(f"model {name}", tmp_path / name, ".md")
    assert path.read_text() == "model caf\\udce9.zip"


def test_the_old_name_leads_here() -> None:
    assert old_name is save_whole


def test_a_folder_is_locked_until_its_process_is_done(tmp_path: Path) -> None:
    with locks.locked_folder(tmp_path, "another test"):
        with pytest.raises(ValueError, match=f"another test is writing to {tmp_path}: wait"):
            with locks.locked_folder(tmp_path, "another test"):
                raise AssertionError
    assert names(tmp_path) == []
    (tmp_path / locks.LOCK).write_text("")  # of a process that was killed
    with locks.locked_folder(tmp_path, "another test"):
        pass
    assert names(tmp_path) == []
