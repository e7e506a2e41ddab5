"""Takes out of a text what may be a secret. The last thing that happens to what leaves a site.

Whatever is collected was chosen because it holds no secrets; this is for what got there all the
same. It knows the shapes of secrets, and the very values of this site's own.
"""

import base64
import re
from collections.abc import Iterable
from typing import Final

REDACTED: Final = "[redacted]"
# A value that is shorter could be part of any word.
_VALUE_MIN: Final = 8

_SHAPES: Final = tuple(
    re.compile(pattern, flags)
    for pattern, flags in (
        # Keys of clients, join tokens; keys of Stripe, OpenAI, GitHub, Hugging Face, AWS, Slack.
        (r"\bcls[kt]_(?:live|test)_[A-Za-z0-9_-]{6,}", 0),
        (r"\bclnt_[A-Za-z0-9]+\.[A-Za-z0-9_.-]+", 0),
        (r"\b(?:sk|rk|pk|whsec)_(?:live_|test_)?[A-Za-z0-9]{12,}", 0),
        (r"\bsk-[A-Za-z0-9_-]{16,}", 0),
        (r"\b(?:ghp|gho|ghs|github_pat|hf|xox[abprs])[_-][A-Za-z0-9_-]{16,}", 0),
        (r"\bA(?:KIA|SIA)[A-Z0-9]{16}\b", 0),
        (r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", 0),
        (r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?-----END [A-Z0-9 ]*PRIVATE KEY-----", re.DOTALL),
        (r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)", 0),
        (r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}", 0),
        (
            r"(?i)(?<=[\"'\s_.-])(?:password|passwd|passphrase|secret|api_?key|token|authorization)"
            # The quotes are escaped where JSON holds JSON.
            r"[\\\"']{0,4}\s*[=:]\s*[\\\"']{0,4}(?!null|none|\[redacted\])[^\s\\\"',;}\]]{6,}",
            0,
        ),
    )
)


class Redactor:
    """`values` are secrets as they are kept; they are found raw, as hex and as base64."""

    def __init__(self, values: Iterable[bytes] = ()) -> None:
        self._values = tuple(
            sorted({text for value in values for text in _writings(value)}, key=len, reverse=True)
        )
        self.count = 0  # so many were taken out

    def clean(self, text: str) -> str:
        for value in self._values:
            if value in text:
                self.count += text.count(value)
                text = text.replace(value, REDACTED)
        for shape in _SHAPES:
            text, number = shape.subn(REDACTED, text)
            self.count += number
        return text


def _writings(value: bytes) -> Iterable[str]:
    if len(value) < _VALUE_MIN:
        return
    yield value.hex()
    yield value.hex().upper()
    for encoded in (base64.b64encode(value), base64.urlsafe_b64encode(value)):
        yield encoded.decode()
        yield encoded.decode().rstrip("=")
    try:
        text = value.decode().strip()
    except UnicodeDecodeError:
        return
    if len(text) >= _VALUE_MIN:
        yield text
