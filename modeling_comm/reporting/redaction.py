"""Secrets stay out of what is written: run records, settings, model cards, dataset cards. The one place that knows how."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "..."
# Names of fields and flags whose values are secret, in the spelling of fields.
_SECRETS = ("token", "hub_token", "push_to_hub_token", "hf_token", "access_token", "api_key", "password", "secret")
_NAMES = "|".join(name.replace("_", "[-_]") for name in _SECRETS)
_WORD = r"""(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])+"""  # of a shell
_IN_TEXT = (
    # https://user:secret@host
    (re.compile(r"(?<=://)[^/?#\s'\"]*@"), f"{HIDDEN}@"),
    # https://host/file?token=secret, and the signatures of addresses that work for some hours
    (
        re.compile(r"([?&][^=&#\s]*(?:token|key|secret|password|credential|sig|signature)=)[^&#\s'\"]+", re.I),
        rf"\1{HIDDEN}",
    ),
    # {"token": "secret"}
    (re.compile(rf"""(["'](?:{_NAMES})["']\s*:\s*)(?:"[^"]*"|'[^']*')""", re.I), rf'\1"{HIDDEN}"'),
    # --token secret, in a text that holds a whole command or a program
    (re.compile(rf"""(--(?:{_NAMES})\b["']?[=,\s]+){_WORD}""", re.I), rf"\1{HIDDEN}"),
    # The Hub's own, wherever it occurs
    (re.compile(r"\bhf_[A-Za-z0-9]{20,}"), HIDDEN),
)


def redact(value: Any) -> Any:
    """
    A value as JSON has them, without secrets: values of fields such as `hub_token`, credentials in addresses, access tokens in
    texts.

    Args:
        value (`Any`): dicts, lists and texts are searched; anything else is returned as it is.

    Returns:
        the same value, with `"..."` for each secret. It can be redacted again without a change.
    """
    if isinstance(value, str):
        for pattern, replacement in _IN_TEXT:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _is_secret(key) and isinstance(item, str) and item else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


def redact_command(words: Sequence[str]) -> str:
    """
    A command as it can be typed again, but for its secrets.

    Args:
        words (`Sequence[str]`): as the process got them. A secret follows its flag as the next word or after `=`.
    """
    shown, is_value = [], False
    for word in words:
        flag, equals, _ = word.partition("=")
        if is_value:
            shown.append(HIDDEN)
            is_value = False
        elif flag.startswith("-") and _is_secret(flag.lstrip("-")):
            shown.append(f"{flag}={HIDDEN}" if equals else flag)
            is_value = not equals
        else:
            shown.append(redact(word))
    return shlex.join(shown)


def _is_secret(name):
    return isinstance(name, str) and name.lower().replace("-", "_") in _SECRETS
