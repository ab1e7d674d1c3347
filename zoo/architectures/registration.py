"""How an architecture of ours becomes one that timm builds by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

default_cfgs: dict[str, Any] = {}  # where timm looks for the configuration of a function it registers


def register(
    kind: type[nn.Module], variants: Mapping[str, Mapping[str, Any]], configuration: Mapping[str, Any]
) -> None:
    """Register `kind` with timm under each name, with the variant's arguments as its defaults."""
    default_cfgs.update(generate_default_cfgs({name: dict(configuration) for name in variants}))
    for name, arguments in variants.items():
        register_model(_entry(kind, name, arguments))


def _entry(kind: type[nn.Module], name: str, defaults: Mapping[str, Any]) -> Callable[..., nn.Module]:
    """The function timm registers under its own name."""

    def build(pretrained: bool = False, **arguments: Any) -> nn.Module:
        said = {**defaults, **arguments}
        module: nn.Module = build_model_with_cfg(kind, name, pretrained, **said)
        return module

    build.__name__ = name
    return build
