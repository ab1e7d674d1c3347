"""The smallest model of each family that has all of its parts."""

from __future__ import annotations

from typing import Any

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"arguments": VIT},
    "beit": {"architecture": "beit_base_patch16_224", "arguments": VIT},
    "eva": {
        "architecture": "vit_small_patch16_dinov3_qkvb",
        "arguments": {"depth": 2, "embed_dim": 48, "num_heads": 3},
    },
    "xcit": {
        "architecture": "xcit_nano_12_p16_224",
        "arguments": {"depth": 2, "embed_dim": 48, "num_heads": 3},
    },
    "resnet": {
        "architecture": "resnet50",
        "arguments": {"layers": [1, 1, 1, 1]},
        "pooling": "avg",
    },
    "swin": {
        "architecture": "swin_tiny_patch4_window7_224",
        "arguments": {
            "img_size": 64,
            "depths": [1, 2, 1, 1],
            "embed_dim": 8,
            "num_heads": [1, 2, 2, 4],
            "window_size": 4,
        },
        "pooling": "avg",
    },
    "dvae": {
        "architecture": "ssl_zoo_dvae_small",
        "arguments": {"vocabulary": 16, "hidden": 8},
        "pooling": "avg",
    },
    "pvt": {
        "architecture": "ssl_zoo_pvt_small",
        "arguments": {
            "img_size": 64,
            "embed_dims": [8, 16, 32, 64],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 2, 4],
            "mlp_ratios": [2, 2, 2, 2],
        },
    },
}
