"""What Hugging Face's front matter knows: its keys, its licence identifiers, and its index of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.cards import Result

# Keys that say nothing the zoo needs: kept and written back as they are.
# fmt: off
KEYS = frozenset({
    "annotations_creators", "base_model", "base_model_relation", "co2_eq_emissions", "eval_results",
    "extra_gated_button_content", "extra_gated_description", "extra_gated_eu_disallowed",
    "extra_gated_fields", "extra_gated_heading", "extra_gated_prompt", "inference", "language",
    "language_bcp47", "language_creators", "library_name", "license_link", "license_name", "mask_token",
    "metrics", "model-index", "model_name", "multilinguality", "new_version", "paperswithcode_id",
    "pipeline_tag", "pretty_name", "quantized_by", "size_categories", "source_datasets",
    "task_categories", "task_ids", "thumbnail", "version", "widget",
})
# fmt: on
DEFAULTS = {"library_name": "timm", "pipeline_tag": "image-feature-extraction"}

# Licence identifiers that allow commercial use; cc-by-… without nc does too.
# fmt: off
COMMERCIAL = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "cc0-1.0", "ecl-2.0", "epl-2.0", "eupl-1.2", "gpl", "gpl-2.0",
    "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "ms-pl", "ncsa", "odc-by",
    "ofl-1.1", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
})
# fmt: on

# What the owners of data sets allow. Whether it binds a model that saw the images is for a lawyer to say.
_IMAGENET = "images for non-commercial research and education only"
DATA_TERMS = {
    "imagenet-1k": _IMAGENET,
    "imagenet-22k": _IMAGENET,
    "imagenette160": f"github.com/fastai/imagenette as JPEGs of 160×160 pixels; a part of ImageNet, {_IMAGENET}",
    "lvd-142m": "Meta's, not public",
    "lvd-1689m": "Meta's, not public",
}

# The Hub's task of a protocol ("knn, untrained" is one too); other protocols measure features as such.
_TASKS = dict.fromkeys(
    ("knn", "linear", "linear_sgd", "lowshot", "finetune", "image-classification"), "image-classification"
)


def allows_commercial_use(licence: str) -> bool:
    """Whether a licence identifier is known to allow it; "other" and identifiers not known here are not."""
    licence = licence.lower()
    return licence in COMMERCIAL or (licence.startswith("cc-by-") and "nc" not in licence.split("-"))


def model_index(name: str, results: tuple[Result, ...]) -> list[dict[str, Any]]:
    """The `model-index` of the Hub: one entry for each result."""
    return [{"name": name, "results": [_entry(result) for result in results]}]


def _entry(result: Result) -> dict[str, Any]:
    dataset = {"name": result.dataset, "type": result.dataset.lower().replace(" ", "-")}
    metric = {"type": result.metric, "value": result.value, "name": f"{result.task} {result.metric}"}
    if result.split:
        dataset["split"] = result.split
    entry: dict[str, Any] = {
        "task": {"type": _TASKS.get(result.task.split(",")[0], DEFAULTS["pipeline_tag"])},
        "dataset": dataset,
        "metrics": [{**metric, "args": result.settings} if result.settings else metric],
    }
    if result.source.startswith(("https://", "http://")):
        entry["source"] = {"url": result.source}
    return entry
