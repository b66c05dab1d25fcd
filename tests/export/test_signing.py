"""Signatures of exports: keys that openssl makes, and who is told what if something does not fit."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sb3_rmdp import cli
from sb3_rmdp.export import export, load_exported, verify
from sb3_rmdp.export.manifest import file_entry, to_text
from tests.export.models import CASES
from tests.test_cli import assert_bad_input


def write_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """
    :param folder: where to
    :param name: of the pair
    :return: files of the private and of the public key
    """
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}-public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and a public key."""
    return write_keys(tmp_path_factory.mktemp("keys"), "own")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Path:
    """An export that is signed, without ONNX."""
    folder = tmp_path_factory.mktemp("signed") / "export"
    export(CASES["raw"](), folder, onnx=False, private_key=keys[0])
    return folder


@pytest.fixture
def copy(signed: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with."""
    return Path(shutil.copytree(signed, tmp_path / "copy"))


def test_a_signed_export_verifies_with_its_key(signed: Path, keys: tuple[Path, Path]) -> None:
    manifest = verify(signed, public_key=keys[1])
    assert verify(signed) == manifest and len(manifest["signed_by"]) == 64
    assert load_exported(signed, "sb3", public_key=keys[1]).k == 2
    assert len((signed / "manifest.sig").read_bytes()) == 64


def test_openssl_verifies_what_is_signed_and_makes_keys(copy: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here")

    def run(*words: object) -> int:
        return subprocess.run([openssl, *map(str, words)], capture_output=True, check=False).returncode

    signature = ["pkeyutl", "-verify", "-rawin", "-in", copy / "manifest.json", "-sigfile", copy / "manifest.sig"]
    assert run(*signature, "-pubin", "-inkey", keys[1]) == 0
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    assert run("genpkey", "-algorithm", "ed25519", "-out", key) == 0
    assert run("pkey", "-in", key, "-pubout", "-out", public) == 0
    export(CASES["raw"](), copy, onnx=False, force=True, private_key=key)
    verify(copy, public_key=public)
    with pytest.raises(ValueError, match="is signed with another key"):
        verify(copy, public_key=keys[1])
    assert run(*signature, "-pubin", "-inkey", public) == 0 and run(*signature, "-pubin", "-inkey", keys[1]) != 0


def test_who_rewrites_the_manifest_cannot_sign_it(copy: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["torch"] = "0.1"
    path.write_text(to_text(manifest))
    for key in (None, keys[1]):
        with pytest.raises(ValueError, match=r"manifest\.sig is no signature of the manifest"):
            verify(copy, public_key=key)
    _, public = write_keys(tmp_path, "other")
    with pytest.raises(ValueError, match=f"is signed with another key: that of {public} is"):
        verify(copy, public_key=public)
    # Without a signature nobody is misled who asks for one
    del manifest["signed_by"]
    path.write_text(to_text(manifest))
    with pytest.raises(ValueError, match=r"manifest\.sig was added"):
        verify(copy)
    with pytest.raises(ValueError, match="copy is not signed: have it exported with --sign"):
        verify(copy, public_key=keys[1])
    with pytest.raises(ValueError, match="is not signed"):
        load_exported(copy, "sb3", public_key=keys[1])


@pytest.mark.parametrize("content", [b"", b"\0" * 64, None])
def test_signatures_that_are_none_are_refused(copy: Path, keys: tuple[Path, Path], content: bytes | None) -> None:
    path = copy / "manifest.sig"
    right = path.read_bytes()
    path.write_bytes(right + b"\n" if content is None else content)
    with pytest.raises(ValueError, match="is no signature of the manifest"):
        verify(copy)
    path.unlink()
    with pytest.raises(ValueError, match=r"manifest\.sig is missing, although the manifest says that it is signed"):
        verify(copy, public_key=keys[1])


def test_the_key_that_a_manifest_names_is_signed_as_well(copy: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """A signature by another key, and the right key's name beside it, is no signature."""
    private, _ = write_keys(tmp_path, "forger")
    wanted = json.loads((copy / "manifest.json").read_text())["signed_by"]
    export(CASES["raw"](), copy, onnx=False, force=True, private_key=private)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["signed_by"] = wanted
    (copy / "manifest.json").write_text(to_text(manifest))
    with pytest.raises(ValueError, match="is no signature of the manifest"):
        verify(copy, public_key=keys[1])


def test_files_that_are_signed_for_are_verified_as_ever(copy: Path, keys: tuple[Path, Path]) -> None:
    file = copy / "representative_0.zip"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"representative_0\.zip was changed"):
        verify(copy, public_key=keys[1])
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["representatives"][0]["files"]["sb3"] = file_entry(file.name, file.read_bytes())
    (copy / "manifest.json").write_text(to_text(manifest))
    with pytest.raises(ValueError, match="is no signature"):
        verify(copy)


def test_keys_that_are_none_are_named(keys: tuple[Path, Path], signed: Path, tmp_path: Path) -> None:
    private, public = keys
    other = generate_private_key(SECP256R1())
    files = {
        "text.pem": b"no key",
        "empty.pem": b"",
        "torn.pem": private.read_bytes()[:60],
        "other.pem": other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "other-public.pem": other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "locked.pem": Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        ),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name, message in {
        "text.pem": "text.pem holds no private key in PEM",
        "empty.pem": "holds no private key in PEM",
        "torn.pem": "holds no private key in PEM",
        "other.pem": "holds a key of another kind than ed25519",
        "other-public.pem": "holds a public key: sign with the private one",
        "locked.pem": "locked.pem is encrypted: decrypt it first",
    }.items():
        with pytest.raises(ValueError, match=message):
            export(CASES["raw"](), tmp_path / "export", onnx=False, private_key=tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"there is no key file .*none\.pem"):
        export(CASES["raw"](), tmp_path / "export", onnx=False, private_key=tmp_path / "none.pem")
    assert not (tmp_path / "export").exists()
    for name, message in {
        "text.pem": "text.pem holds no public key in PEM",
        "other-public.pem": "holds a public key of another kind than ed25519",
        "locked.pem": "holds a private key: verify with the public one",
    }.items():
        with pytest.raises(ValueError, match=message):
            verify(signed, public_key=tmp_path / name)
    assert public.is_file()


def test_without_cryptography_the_message_says_what_to_install(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cryptography" else find_spec(name))
    for call in (
        lambda: verify(signed),
        lambda: verify(signed, public_key=keys[1]),
        lambda: export(CASES["raw"](), tmp_path / "export", onnx=False, private_key=keys[0]),
    ):
        with pytest.raises(ImportError, match=r'needs cryptography, not installed here: pip install "sb3_rmdp\[export\]"'):
            call()


def test_the_commands_sign_and_verify(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    CASES["raw"]().save(tmp_path / "model.zip")

    def invoke(*arguments: object) -> object:
        return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])

    done = invoke("export", tmp_path / "model.zip", "-o", tmp_path / "service", "--no-onnx", "--sign", private)
    assert done.exit_code == 0 and "Signed with the key" in done.stdout  # type: ignore[attr-defined]
    done = invoke("verify", tmp_path / "service", "--public-key", public)
    assert done.exit_code == 0 and f"It is signed with {public}" in done.stdout  # type: ignore[attr-defined]
    assert "give --public-key" in invoke("verify", tmp_path / "service").stdout  # type: ignore[attr-defined]
    assert_bad_input(invoke("verify", tmp_path / "service", "--public-key", private), "holds a private key")  # type: ignore[arg-type]
