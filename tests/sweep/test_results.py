"""The file of results: nothing is lost, nothing is counted twice, and nothing of others is touched."""

from __future__ import annotations

import csv
import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("yaml")

from sb3_rmdp.sweep import results as results_module
from sb3_rmdp.sweep.config import Run
from sb3_rmdp.sweep.estimate import duration, estimated_seconds
from sb3_rmdp.sweep.results import COLUMNS, SCHEMA, Results, read_results


def rows_of(run: str, n: int = 2, **cells: object) -> list[dict[str, object]]:
    """Rows of a run as they are appended."""
    usual = {**dict.fromkeys(COLUMNS, 1), "run": run, "env_kwargs": "{}", "versions": "{}"}
    return [{**usual, "transitions_per_policy": 10 * (i + 1), **cells} for i in range(n)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two runs."""
    path = tmp_path / "results.csv"
    with Results(path) as results:
        results.append(rows_of("a"))
        results.append(rows_of("b", n=3))
    return path


def runs_in(path: Path) -> list[str]:
    return [row["run"] for row in read_results(path)]


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.csv"
    assert read_results(path) == []
    numbers = dict(stochastic=0.1 + 0.2, stochastic_error=float("nan"), bound=None)
    with Results(path) as results:
        assert results.done == set()
        results.append(rows_of("a", env_kwargs='{"text":"a, \\"b\\""}', algorithm="two\nlines  and  spaces", **numbers))
        assert results.done == {"a"}
        # On the disk at once, whatever becomes of the process
        assert path.read_bytes().count(b"\n") == 3
    with path.open(newline="") as file:
        plain = list(csv.DictReader(file))
    assert plain == read_results(path) and tuple(plain[0]) == COLUMNS
    assert [row["transitions_per_policy"] for row in plain] == ["10", "20"]
    first = plain[0]
    assert (first["schema"], first["checkpoints"], first["bound"]) == (SCHEMA, "2", "")
    assert float(first["stochastic"]) == 0.1 + 0.2 and first["stochastic_error"] == "nan"
    assert (first["env_kwargs"], first["algorithm"]) == ('{"text":"a, \\"b\\""}', "two lines  and  spaces")


def test_more_is_appended_to_what_is_there(path: Path) -> None:
    before = path.read_bytes()
    with Results(path) as results:
        assert results.done == {"a", "b"}
        with pytest.raises(ValueError, match="has the run b already"):
            results.append(rows_of("b"))
        results.append(rows_of("c", n=1))
    assert path.read_bytes().startswith(before)
    assert runs_in(path) == ["a", "a", "b", "b", "b", "c"]


@pytest.mark.parametrize("algorithm", ["em", "\N{GREEK SMALL LETTER EPSILON}-\N{SNOWMAN}"])
def test_a_run_that_was_cut_off_does_not_count_and_goes(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "results.csv"
    with Results(path) as results:
        results.append(rows_of("a"))
        results.append(rows_of("b", n=3, algorithm=algorithm))
    whole = path.read_bytes()
    with_a = whole[: whole.index(b",1,b,") - 1]  # up to the first row of b
    assert with_a.endswith(b"\n") and with_a.count(b"\n") == 3
    ends = [at + end for at, byte in enumerate(whole[:-1]) if byte == ord("\n") for end in (0, 1)]
    within_letters = [at + 1 for at, byte in enumerate(whole) if byte >= 0x80]
    for length in sorted({*range(len(with_a), len(whole), 7), *within_letters, *(end for end in ends if end >= len(with_a))}):
        path.write_bytes(whole[:length])
        assert runs_in(path) == ["a", "a"]
        with Results(path) as results:
            assert results.done == {"a"}
            results.append(rows_of("b", n=3, algorithm=algorithm))
        assert path.read_bytes() == whole
    for length in (*range(0, whole.index(b"\n"), 50), *ends[:2]):
        path.write_bytes(whole[:length])
        assert read_results(path) == []
        with Results(path) as results:
            results.append(rows_of("a"))
        assert path.read_bytes() == with_a


def test_a_file_without_results_does_not_stay(tmp_path: Path) -> None:
    with Results(tmp_path / "results.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", None])
def test_what_the_sweep_has_not_made_stays(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "results.csv"
    if content is None:
        os.mkfifo(path)
        with pytest.raises(ValueError, match=r"results.csv is no file: name another by --out"):
            Results(path)
    else:
        path.write_bytes(content)
        with Results(path):
            pass
    assert path.exists()


def test_a_file_that_is_replaced_meanwhile_is_gone_on_with(path: Path) -> None:
    """As version control, or an editor that saves, does it: what is open then is nowhere any more."""
    with Results(path) as results:
        results.append(rows_of("c"))
        copy = path.with_name("copy.csv")
        copy.write_bytes(path.read_bytes())
        os.replace(copy, path)
        results.append(rows_of("d"))
        assert runs_in(path)[-4:] == ["c", "c", "d", "d"] and results.done == {"a", "b", "c", "d"}
        with pytest.raises(ValueError, match="another sweep"):
            Results(path)
        # Somebody has put there what is just being trained: it is not counted twice
        with Results(copy) as other:
            other.append(rows_of("x"))
        os.replace(copy, path)
        results.append(rows_of("x"))
        assert runs_in(path) == ["x", "x"] and results.done == {"x"}
        path.unlink()
        results.append(rows_of("e"))
        assert runs_in(path) == ["e", "e"] and results.done == {"e"}
        path.unlink()
        path.write_text("Dear diary,")
        with pytest.raises(OSError, match=r"was replaced: .*results.csv is no file of results"):
            results.append(rows_of("f"))
    assert path.read_text() == "Dear diary,"


def test_a_file_that_goes_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that ends without results removes its file, while the next one is about to lock it."""
    path = tmp_path / "results.csv"
    lock, gone = results_module._lock, []

    def slow(file: io.FileIO, path: Path) -> None:
        if not gone:
            gone.append(path)
            path.unlink()
        lock(file, path)

    monkeypatch.setattr(results_module, "_lock", slow)
    with Results(path) as results:
        results.append(rows_of("a"))
    assert gone and runs_in(path) == ["a", "a"]


def test_cells_may_be_long(tmp_path: Path) -> None:
    """As who serves whom is, with very many agents."""
    path = tmp_path / "results.csv"
    limit = csv.field_size_limit()
    representatives = " ".join(["0"] * 100_000)
    with Results(path) as results:
        results.append(rows_of("a", n=1, representatives=representatives))
    assert read_results(path)[0]["representatives"] == representatives and csv.field_size_limit() == limit


def test_a_full_disk_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    class Full:
        """Takes half of it, as a disk may."""

        def __init__(self, file: io.FileIO):
            self.file = file

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            return self.file.write(data[: len(data) // 2])

    with Results(path) as results:
        monkeypatch.setattr(results, "_file", Full(results._file))
        with pytest.raises(OSError) as error:
            results.append(rows_of("c"))
        assert error.value.errno == errno.ENOSPC and results.done == {"a", "b"}
        assert path.read_bytes() == before


def test_one_sweep_at_a_time(path: Path) -> None:
    before = path.read_bytes()
    with Results(path), pytest.raises(ValueError, match=r"another sweep is writing to .*results.csv: .* --out"):
        Results(path)
    with Results(path):
        pass
    assert path.read_bytes() == before


def test_a_killed_process_leaves_no_lock_and_all_that_it_has_appended(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    code = f"""
import time
from pathlib import Path
from sb3_rmdp.sweep.results import Results
from tests.sweep.test_results import rows_of
results = Results(Path({str(path)!r}))
results.append(rows_of("a"))
print("appended", flush=True)
time.sleep(60)
"""
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "appended\n"
    with pytest.raises(ValueError, match="another sweep"):
        Results(path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Results(path) as results:
        assert results.done == {"a"}


def damaged(text: str, what: str) -> str:
    """A file that is not, or no longer, one of this version."""
    header, *lines = text.splitlines(keepends=True)
    return {
        "schema": "".join([header, *(f"2{line[1:]}" for line in lines)]),
        "columns": text.replace("seconds", "hours"),
        "newer": "".join([header.replace("seconds", "seconds,joules"), *(f"2{line[1:]}" for line in lines)]),
        "foreign": "name,value\na,1\n",
        "prose": "Dear diary,",
        "cells": "".join([header, "1,2\n", *lines]),
        "blank": text + "\n",
        "k": text.replace(",b,1,{},1,", ",b,1,{},2.0,"),
        "seconds": text.replace("1,{}\n", '"1,5",{}\n'),
        "versions": text.replace("{}\n", "[]\n"),
        "twice": "".join([header, *lines, *lines[:2]]),
        "removed": "".join([header, *lines[1:]]),
    }[what]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("schema", "line 2: the results are of schema '2', this version writes '1': name another file by --out"),
        ("columns", "has other columns than this version writes"),
        ("newer", "line 2: the results are of schema '2'"),
        ("foreign", "is no file of results"),
        ("prose", "is no file of results"),
        ("cells", "line 2 has 2 cells for 23 columns"),
        ("blank", "line 7 is empty: remove it"),
        ("k", "line 4: k is '2.0', which cannot be read: fix it"),
        ("seconds", "line 2: seconds is '1,5', which cannot be read: fix it"),
        ("versions", "line 2: versions is '[]', which cannot be read: fix it"),
        ("twice", "line 2: run a has 4 rows in the place of 2: remove"),
        ("removed", "line 2: run a has 1 rows in the place of 2: remove"),
    ],
)
def test_other_files_are_refused_and_stay_as_they_are(path: Path, what: str, said: str) -> None:
    path.write_text(damaged(path.read_text(), what))
    before = path.read_bytes()
    for use in (read_results, Results):
        with pytest.raises(ValueError) as error:
            use(path)
        assert said in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_no_text_at_all(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(b"\xff\xfe\x00PK")
    with pytest.raises(ValueError, match="is no file of results"):
        read_results(path)


def test_lines_as_a_spreadsheet_writes_them(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert runs_in(path) == ["a", "a", "b", "b", "b"]


def test_cost_is_estimated_by_the_runs_that_are_most_alike(path: Path) -> None:
    def run(k: int = 2, n: int = 5, algorithm: str = "em", env_id: str = "Env-v0") -> Run:
        return Run(env_id, {"n_agents": n}, k, algorithm, {}, 0, (500, 1000), 1)

    def row(seconds: float, k: int = 2, n: int = 5, algorithm: str = "em", seed: int = 0) -> dict[str, str]:
        kwargs = f'{{"n_agents":{n}}}'
        cells = dict(run=f"{k}{n}{algorithm}{seed}", env="Env-v0", env_kwargs=kwargs, k=k, algorithm=algorithm)
        return {name: str(value) for name, value in {**cells, "seconds": seconds, "transitions_per_policy": 1000}.items()}

    rows = [row(4.0), row(6.0, seed=1), row(100.0, algorithm="random"), row(12.0, k=4, n=6)]
    runs = [run(), run(algorithm="random"), run(algorithm="fixed"), run(k=4), run(k=4, n=6), run(n=7), run(env_id="Other-v0")]
    everything = [2 * rate for rate in (2.0, 3.0, 50.0, 3.0)]
    expected = [5.0, 100.0, 110.0 / 3, 2 * 110.0 / 3, 12.0, sum(everything) / 4, None]
    assert estimated_seconds(runs, rows) == pytest.approx(expected)
    # Earlier checkpoints of a run are no runs
    assert estimated_seconds([run()], [{**row(1.0), "transitions_per_policy": "500"}, row(4.0)]) == [4.0]
    texts = [duration(seconds) for seconds in (0.4, 119.0, 121.0, 7199.0, 7200.0, 5.5 * 3600, 2.25 * 86400)]
    assert texts == ["0 s", "119 s", "2 min", "120 min", "2.0 h", "5.5 h", "2.2 days"]
