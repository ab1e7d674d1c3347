"""Architectures timm does not have, registered with it as `ssl_zoo_…`, and the one call that builds any of timm's.

After `import zoo.families`, timm.create_model and timm's "local-dir:…" and "hf-hub:…" know them like its own.
"""

from __future__ import annotations

from typing import Any, TypeVar

import timm
from torch import nn

from zoo.architectures import dvae, pvt, resnet, ummae_swin  # noqa: F401  importing a file registers what it holds
from zoo.errors import CardError, Unsupported, did_you_mean

M = TypeVar("M", bound=nn.Module)

# What timm raises for arguments it does not check: a patch of 0 pixels, a norm it has not, too short a list.
_WRONG_ARGUMENTS = (
    TypeError, ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError, AttributeError
)  # fmt: skip


def create(
    architecture: str, arguments: dict[str, Any], kind: type[M] | tuple[type[M], ...], called: str
) -> M:
    """An untrained module of timm's, without a classifier and of that kind; called: it, with its article.

    CardError for what timm does not know or cannot build, Unsupported for another kind.

    >>> create("resnet50", {"global_pool": "avg"}, ResNet, "a ResNet").num_features
    2048
    """
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        raise CardError(f"timm {timm.__version__} has no architecture {architecture!r}{hint}")
    try:
        module = timm.create_model(architecture, **{"num_classes": 0, **arguments})
    except _WRONG_ARGUMENTS as error:
        raise CardError(
            f"timm cannot build {architecture} with {arguments}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, kind):
        raise Unsupported(f"{architecture} is a {type(module).__name__}, not {called}; choose another family")
    return module
