"""A model zoo and inference toolkit for self-supervised image encoders.

>>> import zoo
>>> encoder = zoo.load("dino_vitt16_imagenette", device="cpu")
>>> encoder("model_cards/photos/cat_chelsea.jpg").pooled.shape
torch.Size([1, 192])
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.cards import ModelCard as ModelCard
    from zoo.encoder import Encoder as Encoder
    from zoo.errors import ZooError as ZooError
    from zoo.evaluate.comparison import compare as compare
    from zoo.extraction import extract as extract
    from zoo.extraction import read_features as read_features
    from zoo.features import Features as Features
    from zoo.loading import load as load
    from zoo.pulling import pull as pull
    from zoo.pushing import push as push
    from zoo.reconstruction import Reconstruction as Reconstruction
    from zoo.registry import card as card
    from zoo.registry import list_models as list_models
    from zoo.registry import register as register
    from zoo.verifying import verify as verify

__version__ = "0.1.0"

# In a checkout `training/`, `export/` and `app/` lie beside `zoo/`; in the wheel they lie inside it. Either way they
# are imported as zoo.training, zoo.export and zoo.app, so that no class ever exists twice.
_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "training" / "__init__.py").is_file() and not (_ROOT / "zoo" / "training").exists():
    __path__.append(str(_ROOT))

# Public name -> the module that holds it. Imported when first used: `import zoo` must not import torch.
_PUBLIC = {
    "ModelCard": "zoo.cards",
    "Encoder": "zoo.encoder",
    "Features": "zoo.features",
    "Reconstruction": "zoo.reconstruction",
    "ZooError": "zoo.errors",
    "compare": "zoo.evaluate.comparison",
    "extract": "zoo.extraction",
    "read_features": "zoo.extraction",
    "load": "zoo.loading",
    "pull": "zoo.pulling",
    "push": "zoo.pushing",
    "verify": "zoo.verifying",
    "card": "zoo.registry",
    "list_models": "zoo.registry",
    "register": "zoo.registry",
}
_ROOMS = ("training", "export", "app")

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"zoo.{name}")
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *_ROOMS])
