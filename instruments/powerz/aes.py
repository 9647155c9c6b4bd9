"""The cipher of two requests: AES-128, block by block (ECB), as the meter wants it."""

from __future__ import annotations

from typing import Any

from joulemeter.errors import MissingExtraError

BLOCK = 16
KEY = 16


def encrypt(plain: bytes, key: bytes) -> bytes:
    """Whole blocks. Raises ValueError for anything else, MissingExtraError."""
    encryptor = _cipher(key).encryptor()
    secret: bytes = encryptor.update(plain) + encryptor.finalize()
    return secret


def decrypt(secret: bytes, key: bytes) -> bytes:
    """Whole blocks. Raises ValueError for anything else, MissingExtraError."""
    decryptor = _cipher(key).decryptor()
    plain: bytes = decryptor.update(secret) + decryptor.finalize()
    return plain


def _cipher(key: bytes) -> Any:
    if len(key) != KEY:
        raise ValueError(f"a key of {len(key)} bytes is not one of AES-128")
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError as error:
        raise MissingExtraError(
            "The POWER-Z streams only after an encrypted request, and the package cryptography is missing.",
            "joulemeter[usb]",
        ) from error
    return Cipher(algorithms.AES128(key), modes.ECB())  # noqa: S305 -- the meter's choice
