"""Secrets and personal data, by their shapes. What is found is told without telling it again."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Shape:
    check: str
    """secret or personal-data"""
    what: str
    hint: str
    """A text that every match holds, looked for first: searching for it is many times faster. Empty: there is none."""
    pattern: re.Pattern[str]
    outline: bytes
    """What the outline of every match holds (`outlined`). Empty: anything."""


def _shape(check: str, what: str, hint: str, pattern: str, outline: bytes = b"") -> Shape:
    return Shape(check, what, hint, re.compile(pattern), outline)


SHAPES: Final = (
    _shape("secret", "a private key", "-----BEGIN", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    _shape("secret", "an AWS access key", "AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
    _shape("secret", "an AWS access key", "ASIA", r"\bASIA[0-9A-Z]{16}\b"),
    *(_shape("secret", "a GitHub token", f"gh{kind}_", rf"\bgh{kind}_[A-Za-z0-9]{{36,}}\b") for kind in "pousr"),
    _shape("secret", "a GitHub token", "github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{40,}\b"),
    _shape("secret", "a Hugging Face token", "hf_", r"\bhf_[A-Za-z0-9]{30,}\b"),
    _shape("secret", "an API key", "sk-", r"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,}"),
    _shape("secret", "a Slack token", "xox", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    _shape("secret", "a Google API key", "AIza", r"\bAIza[A-Za-z0-9_-]{35}\b"),
    _shape("secret", "a JSON web token", "eyJ", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    _shape("secret", "a password in a URL", "://", r"\b[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s:@]{3,}@[\w.-]+"),
    _shape(
        "personal-data",
        "an e-mail address",
        "@",
        r"(?<![\w.+:/-])[A-Za-z0-9][\w.+-]*@(?!example\.)[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b",
    ),
    _shape(
        "personal-data",
        "a telephone number",
        "+",
        r"(?<![\w+])\+[1-9]\d{0,2}[ .-]?(?:\(?\d{2,4}\)?[ .-]?){2,4}\d{2,4}\b",
        outline=b"+0",
    ),
    _shape(
        "personal-data",
        "a US social security number",
        "-",
        r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b",
        outline=b"000-00-0000",
    ),
)
CARD: Final = re.compile(r"(?<![\d.-])(?:\d[ -]?){13,18}\d(?![\d.-])")
CARD_OUTLINE: Final = b"0" * 14
"""Once spaces and hyphens are gone."""
IBAN_OUTLINE: Final = b"AA00"
IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")


OUTLINE: Final = bytes.maketrans(
    string.digits.encode() + string.ascii_uppercase.encode(), b"0" * len(string.digits) + b"A" * 26
)


def outlined(text: str) -> bytes:
    """Every digit as 0, every capital as A: one look then tells whether a slow pattern can match at all."""
    return text.encode("utf-8", "replace").translate(OUTLINE)


def possible(text: str, outline: bytes) -> bool:
    """False where nothing can be found in ``text``, nor in any part of it. Far faster than `found`."""
    return (
        any(shape.hint in text and shape.outline in outline for shape in SHAPES)
        or CARD_OUTLINE in outline.translate(None, b" -")
        or IBAN_OUTLINE in outline
    )


def found(text: str) -> Iterator[tuple[str, str, str]]:
    """(check, what it is, the match with its middle left out), at most one of a shape."""
    outline = outlined(text)
    for shape in SHAPES:
        if shape.hint in text and shape.outline in outline:
            match = shape.pattern.search(text)
            if match:
                yield shape.check, shape.what, masked(match[0])
    if CARD_OUTLINE in outline.translate(None, b" -"):  # cards of the large networks begin with 3 to 6
        number = next((m[0] for m in CARD.finditer(text) if m[0][0] in "3456" and _luhn(m[0])), None)
        if number:
            yield "personal-data", "a card number", masked(number)
    if IBAN_OUTLINE in outline:
        account = next((m[0] for m in IBAN.finditer(text) if _mod_97(m[0])), None)
        if account:
            yield "personal-data", "an account number (IBAN)", masked(account)


def hidden(text: str) -> str:
    """The text with all that can be found in it masked, for what is shown of it."""
    if not possible(text, outlined(text)):
        return text
    for shape in SHAPES:
        text = shape.pattern.sub(lambda m: masked(m[0]), text)
    text = CARD.sub(lambda m: masked(m[0]) if _luhn(m[0]) else m[0], text)
    return IBAN.sub(lambda m: masked(m[0]) if _mod_97(m[0]) else m[0], text)


def masked(secret: str) -> str:
    """Enough to find it by, not enough to use it."""
    head = min(4, len(secret) // 4)
    return f"{secret[:head]}…({len(secret)} characters)"


def _luhn(number: str) -> bool:
    digits = [int(c) for c in number if c.isdigit()]
    doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _mod_97(account: str) -> bool:
    """ISO 13616's check digits."""
    plain = account.replace(" ", "")
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1
