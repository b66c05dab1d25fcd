"""Files of users are read as they are meant, or refused with file, line and cell: no user is lost or takes another's place."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from sb3_rmdp.service.reading import read_scores, read_users, read_weights

ROWS = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
PLAIN = "0.1,0.9\n0.2,0.8\n0.3,0.7\n"


def written(folder: Path, content: str | bytes, name: str = "users.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.rstrip(),
        PLAIN + "\n \n",
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", " "),
        PLAIN.replace(",", "   ").replace("\n", "  \n"),
        PLAIN.replace(",", " , "),
        PLAIN.replace(",", "; ").replace(".", ","),
        PLAIN.replace(",", "\t").replace(".", ","),
        '"0.1","0.9"\n"0.2", "0.8"\n0.3,0.7\n',
        "slow,fast\n" + PLAIN,
        "speed in m/s,_x\n" + PLAIN,
        "# slow,fast\n" + PLAIN,
        '"a;b",x.1\n' + PLAIN,
        "Größe,tile1\n" + PLAIN,
        "0.1e0,+9E-1\n.2,0.80\n0.3,0.7\n",
        "slow;fast\n" + PLAIN.replace(",", ";").replace(".", ","),
    ],
)
def test_every_row_is_a_user(content: str | bytes, tmp_path: Path) -> None:
    assert read_weights(written(tmp_path, content)).tolist() == ROWS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0.1,0.9 # anna\n0.2,0.8\n", "line 1, cell 2 is '0.9 # anna', which is no number: remove the comment"),
        ("# 0.1,0.9\n0.2,0.8\n", "line 1, cell 1 is '# 0.1'.*remove the comment"),
        ("#1,2\n3,4", "line 1, cell 1 is '#1'.*remove the comment"),
        ("#1\n3", "line 1, cell 1 is '#1', neither a number nor a name"),
        ("0.1,0.9\n# 0.2,0.8\n", "line 2, cell 1 is '# 0.2'"),
        ("1,\n3,4", "line 1, cell 2 is empty: fill it in"),
        (",1\n3,4", "line 1, cell 1 is empty"),
        ("a,\n3,4", "line 1, cell 2 is empty, neither a number nor a name"),
        ("1,2\n,\n", "line 2, cell 1 is empty"),
        ("1,2,\n3,4,\n", "line 1, cell 3 is empty"),
        ("1,O.5\n3,4", "line 1, cell 2 is 'O.5', which is no number: correct it"),
        ("O.1,O.5\n3,4", "line 1, cell 1 is 'O.1', neither a number nor a name"),
        ("O.1\n0.2\n", "line 1, cell 1 is 'O.1', neither a number nor a name"),
        ("NA,NA\n3,4", "line 1, cell 1 is 'NA', neither"),
        ("nan,2\n3,4", "line 1, cell 1 is 'nan': give a finite number"),
        ("1,2\n3,-inf", "line 2, cell 2 is '-inf': give a finite number"),
        ("1,2\n3,1e999", "line 2, cell 2 is '1e999': give a finite"),
        ("1_000,2\n3,4", "line 1, cell 1 is '1_000'"),
        ("1,2\n3,\u0664", "line 2, cell 2 is '\u0664'"),
        ("1,2\n3,\u22124", "line 2, cell 2 is"),
        ("1,2\n3,0x10", "line 2, cell 2 is '0x10'"),
        ("1,2\n\n5,6", "line 2 is empty: remove it, or fill it in"),
        ("1,2\r\n \r\n5,6", "line 2 is empty"),
        ("\n1,2\n", "line 1 is empty: remove it"),
        ("", "it is empty"),
        ("\ufeff", "it is empty"),
        ("a,b\n", "no row below them"),
        ("a,a\n1,2\n", "line 1, cell 2 is 'a', as cell 1: give columns different names"),
        ("1,2\n3\n", "line 2 has 1 cells, and the first line 2"),
        ("1,2\n3,4,5\n", "line 2 has 3 cells"),
        ("My users\n1,2\n", "line 2 has 1 cells"),
        ("0,1,2\n0.1,0.2,0.3\n", "line 1 is 0, 1, 2: if these are names"),
        ("1,5;2.5\n", "line 1, cell 2 is '2.5' and line 1, cell 1 is '1,5': write all decimal points alike"),
        ("1,250;2,500\n", "'1,250', a decimal comma or one of thousands"),
        ("1.234,5;1\n", "line 1, cell 1 is '1.234,5'"),
        ('"0.1,0.9\n0.2,0.8\n', "line 1 cannot be read, unexpected end of data"),
        (PLAIN.encode("latin-1") + b"0.4,0.6 \xe9\n", "line 4 is no text in UTF-8; save it as UTF-8"),
        (PLAIN.encode("utf-16-le"), "as UTF-16 does without its mark"),
        (b"PK\x03\x04 and so on", "a zip file, as .xlsx"),
        (b"\x93NUMPY and so on", "a file of numpy"),
        (b"\x00" * 100, "it begins with zeros"),
        (f"1,{'2' * 90}x\n", "cell 2 is '2{40}\\.\\.\\.'"),
    ],
)
def test_what_is_no_number_is_told_with_its_cell(content: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"users.csv is no table of weights, one row per user.*: .*{said}"):
        read_weights(written(tmp_path, content))


def test_decimal_commas_of_thousandths_are_known_by_the_others(tmp_path: Path) -> None:
    assert read_weights(written(tmp_path, "1,250;0,5\n")).tolist() == [[1.25, 0.5]]
    assert read_weights(written(tmp_path, "0,125;0,875\n")).tolist() == [[0.125, 0.875]]


def test_a_single_user_may_care_for_the_second_of_two(tmp_path: Path) -> None:
    assert read_weights(written(tmp_path, "0,1\n")).tolist() == [[0, 1]]


def test_numbers_are_those_that_were_written(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(200, 7)) * 10.0 ** np.arange(-3, 4)
    np.savetxt(tmp_path / "users.csv", weights, delimiter=",")
    assert np.array_equal(read_weights(tmp_path / "users.csv"), weights)
    np.savetxt(tmp_path / "users.txt", weights, header="a b c d e f g", comments="")
    assert np.array_equal(read_weights(tmp_path / "users.txt"), weights)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is a folder; give a file"):
        read_weights(tmp_path)
    with pytest.raises(ValueError, match="it is a device"):
        read_weights(Path("/dev/zero"))
    with pytest.raises(FileNotFoundError, match=r"missing.csv"):
        read_weights(tmp_path / "missing.csv")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(PLAIN))
    writer.start()
    assert read_weights(tmp_path / "pipe").tolist() == ROWS
    writer.join()


def test_arrays_of_numpy(tmp_path: Path) -> None:
    path = tmp_path / "users.npy"
    for array in (np.array(ROWS), np.array(ROWS, np.float32), np.array([1, 0]), np.array([[True, False]])):
        np.save(path, array)
        found = read_weights(path)
        assert np.array_equal(found, array) and found.dtype == array.dtype and not isinstance(found, np.memmap)


def header(shape: str) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (3, 2)})
    return file.getvalue().replace(b"(3, 2)", shape.encode())


@pytest.mark.parametrize(
    "content",
    [
        header("(10**12)") + b"\0" * 48,
        header("(1000000000000, 2)") + b"\0" * 48,
        header("(3, 2") + b"\0" * 48,
        header("((((((") + b"\0" * 48,
        header("(3, 2)") + b"\0" * 40,
        b"\x93NUMPY",
        b"",
        b"0.1,0.9\n",
    ],
)
def test_damaged_arrays_are_refused_before_they_take_memory(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"users.npy is no table of weights"):
        read_weights(written(tmp_path, content, "users.npy"))


OTHERS = [np.array([{}], object), np.array(["a"]), np.array([1j]), np.zeros(2, "f8,f8")]


@pytest.mark.parametrize("array", [*OTHERS, np.zeros((2, 2, 2)), np.float64(1), np.zeros((0, 3))])
def test_other_arrays_are_refused(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "users.npy", array)
    with pytest.raises(ValueError, match=r"users.npy is no table of weights"):
        read_weights(tmp_path / "users.npy")
    np.savez(tmp_path / "users.npz", array)
    (tmp_path / "users.npz").rename(tmp_path / "archive.npy")
    with pytest.raises(ValueError, match=r"archive.npy is no table of weights"):
        read_weights(tmp_path / "archive.npy")


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "users.npy", np.array([[1.0, 2.0], [3.0, np.nan]]))
    with pytest.raises(ValueError, match=r"users.npy.*weight 1 of user 1 is nan"):
        read_weights(tmp_path / "users.npy")


SCORES = "representative,episode,score\n0,1,3.5\n2,3,4\n"


@pytest.mark.parametrize(
    "content",
    [
        SCORES,
        SCORES.encode("utf-8-sig"),
        SCORES.encode("utf-16"),
        SCORES.replace("\n", "\r\n"),
        SCORES.replace(",", ";"),
        SCORES.replace(",", ";").replace(".", ","),
        SCORES.replace(",", "\t"),
        '"score", "who", "episode", "representative"\n3.5,anna,1,0\n4,bob,3,2\n\n',
    ],
)
def test_scores(content: str | bytes, tmp_path: Path) -> None:
    scores = read_scores(written(tmp_path, content, "scores.csv"))
    assert np.asarray(scores.scores).tolist() == [3.5, 4.0] and np.asarray(scores.episodes).tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0,1,3.5\n", "it has no column representative"),
        ("representative,episode,score,score\n0,1,2,3\n", "it has twice the column score"),
        ("representative,episode,score\n0,1\n", "line 2 has 2 cells"),
        ("representative,episode,score\n\n0,1,2\n", "line 2 is empty"),
        ("representative,episode,score\n0,1.0,2\n", "line 2: '1.0' numbers nothing"),
        ("representative,episode,score\n0,-1,2\n", "line 2: '-1' numbers nothing"),
        ("representative,episode,score\n0,1_0,2\n", "line 2: '1_0' numbers nothing"),
        ("representative,episode,score\n0,1,\n", "line 2, cell 3 is empty"),
        ("representative,episode,score\n0,1,nan\n", "line 2, cell 3 is 'nan'"),
        ("representative,episode,score\n0,1,2\n0,2,1\n0,1,3\n", "line 4 scores episode 1 of representative 0 again"),
        ("representative,episode,score\n", "at least one"),
        ("", "it is empty"),
    ],
)
def test_wrong_scores_are_told_with_their_line(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"scores.csv is no table of scores: .*{said}"):
        read_scores(written(tmp_path, content, "scores.csv"))


def test_users_come_with_one_thing(tmp_path: Path) -> None:
    assert np.asarray(read_users(written(tmp_path, PLAIN), None, None)).tolist() == ROWS
    with pytest.raises(ValueError, match="exactly one of"):
        read_users(tmp_path / "users.csv", "a:b", None)
