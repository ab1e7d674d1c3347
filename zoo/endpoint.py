"""Which Hub is asked, whether it may be, and what no message may hold."""

from __future__ import annotations

import os
import re

OFFLINE = "HF_HUB_OFFLINE is set"
HUGGING_FACE = "https://huggingface.co"

_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), "hf_…"),
    (re.compile(r"(?<=://)[^/@\s]+@"), ""),  # user:password@
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+"), r"\1?…"),  # a signed link
)


def endpoint() -> str:
    """Address of the Hub: HF_ENDPOINT as it is now, or Hugging Face's."""
    return (os.environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")


def address(repo: str, file: str, revision: str | None = None) -> str:
    """Where a person would fetch a file of a model repo."""
    return f"{endpoint()}/{repo}/resolve/{revision or 'main'}/{file}"


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE, or transformers' name for it, forbids every request."""
    switches = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(switch.upper() in ("1", "ON", "YES", "TRUE") for switch in switches)


def without_secrets(text: str) -> str:
    """`text` without tokens, passwords in addresses, and the queries of signed links."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN"):
        if token := os.environ.get(name, "").strip():
            text = text.replace(token, "…")
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text
