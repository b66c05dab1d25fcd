"""
Signatures of manifests: ed25519, keys in PEM files as openssl makes them.

A hash tells that nothing was changed since it was noted; a signature tells who has made it. ``cryptography`` is imported where
it is needed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Name of the file of the signature, 64 bytes
SIGNATURE = "manifest.sig"

#: Bytes of a signature, and of a file that may hold a key
SIGNATURE_BYTES, LARGEST_KEY = 64, 100_000


def read_private_key(path: str | Path) -> Ed25519PrivateKey:
    """
    :param path: PEM file of an ed25519 key, not encrypted
    :return: the key, which signs
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it holds something else
    :raises ImportError: if cryptography is not installed
    """
    content = _read(path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"PUBLIC KEY" in content:
        raise ValueError(f"{path} holds a public key: sign with the private one, and give this one to those who verify")
    try:
        key: Any = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise ValueError(f"{path} is encrypted: decrypt it first, openssl pkey -in {path} -out key.pem") from error
    except Exception as error:  # keys of other kinds raise errors of their own
        raise ValueError(f"{path} holds no private key in PEM: openssl genpkey -algorithm ed25519 -out key.pem") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds a key of another kind than ed25519: openssl genpkey -algorithm ed25519 -out key.pem")
    return key


def read_public_key(path: str | Path) -> Ed25519PublicKey:
    """
    :param path: PEM file of an ed25519 public key
    :return: the key, which verifies
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it holds something else
    :raises ImportError: if cryptography is not installed
    """
    content = _read(path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in content:
        raise ValueError(
            f"{path} holds a private key: verify with the public one, openssl pkey -in {path} -pubout -out public.pem"
        )
    try:
        key: Any = load_pem_public_key(content)
    except Exception as error:  # keys of other kinds raise errors of their own
        raise ValueError(f"{path} holds no public key in PEM: openssl pkey -in key.pem -pubout -out public.pem") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} holds a public key of another kind than ed25519: give that of the key that has signed")
    return key


def digits(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """
    :param key: a key, of which only the public part is looked at
    :return: its 32 bytes in hexadecimal digits
    """
    public: Any = key.public_key() if hasattr(key, "public_key") else key
    return public.public_bytes_raw().hex()


def check_signature(folder: Path, manifest: bytes, signed_by: str | None, public_key: str | Path | None) -> None:
    """
    :param folder: of an export
    :param manifest: content of its manifest
    :param signed_by: the key that the manifest names; ``None`` if it is not signed
    :param public_key: file of the key that it must be signed with; ``None`` if any will do, or none
    :raises ValueError: if the signature is missing, of another key, or of another manifest
    :raises FileNotFoundError: if there is no such key
    :raises ImportError: if cryptography is needed and not installed
    """
    key = None if public_key is None else read_public_key(public_key)
    path = folder / SIGNATURE
    if signed_by is None:
        if key is not None:
            raise ValueError(f"{folder} is not signed: have it exported with --sign, or leave the public key out")
        return
    if not path.is_file() or path.is_symlink():
        raise ValueError(f"{path} is missing, although the manifest says that it is signed")
    if key is not None and digits(key) != signed_by:
        raise ValueError(f"{folder} is signed with another key: that of {public_key} is {digits(key)}, it names {signed_by}")
    check_cryptography(f"{folder} is signed, and to check that")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = path.read_bytes() if path.stat().st_size == SIGNATURE_BYTES else b""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed_by)).verify(signature, manifest)
    except (InvalidSignature, ValueError) as error:
        raise ValueError(f"{path} is no signature of the manifest: one of the two was changed after it was signed") from error


def check_cryptography(why: str) -> None:
    """
    :param why: beginning of the message
    :raises ImportError: if cryptography is not installed
    """
    if importlib.util.find_spec("cryptography") is None:
        raise ImportError(f'{why} needs cryptography, not installed here: pip install "sb3_rmdp[export]"')


def _read(path: str | Path) -> bytes:
    check_cryptography("an ed25519 key")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no key file {path}")
    if path.stat().st_size > LARGEST_KEY:
        raise ValueError(f"{path} holds no key in PEM: it is too large")
    return path.read_bytes()
