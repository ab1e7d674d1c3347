"""An exported graph as ONNX Runtime opens it: which file, on which execution provider, with how many threads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort
import torch

from zoo.errors import Unsupported, WeightsError, did_you_mean

log = logging.getLogger(__name__)

# What people call ONNX Runtime's providers.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "mps": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_FATAL = 4  # of ONNX Runtime's severities: at a lower one it prints a page for a provider that is not there


def open_session(
    file: Path,
    providers: Sequence[str] | None = None,
    threads: int | None = None,
    content: bytes | None = None,
) -> ort.InferenceSession:
    """A session on the first of `providers` that really runs here; None: cuda where torch sees one, else cpu.

    threads: within one operator; None: as many as torch uses. content: a graph made of the file, to be opened instead.
    Raises Unsupported where none of the providers runs, WeightsError for a file that is no graph.
    """
    chosen = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    asked = [_full_name(name) for name in (chosen if providers is None else providers)]
    offered = [name for name in asked if name in ort.get_available_providers()]
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
    options.log_severity_level = _FATAL
    # Between two calls the threads sleep instead of taking the processor from those that decode the next pictures.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = ort.InferenceSession(content or str(file), options, providers=offered or [PROVIDERS["cpu"]])
    except Exception as error:  # its nine types of error have no other base
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{file} is no graph that ONNX Runtime opens: {reason}; export it again"
        ) from error
    _check_provider(file, asked, session.get_providers()[0])
    return session


def _full_name(name: str) -> str:
    """CUDAExecutionProvider for cuda; a full name as it is."""
    known = [*PROVIDERS, *ort.get_all_providers()]
    if name not in known:
        hint = did_you_mean(name, known)
        raise Unsupported(f"no execution provider {name!r}{hint}; there are {', '.join(PROVIDERS)}")
    return PROVIDERS.get(name, name)


def _check_provider(file: Path, asked: Sequence[str], running: str) -> None:
    """Say what runs: where what was asked for is not there, ONNX Runtime takes the processor and says nothing."""
    if running not in asked:
        raise Unsupported(
            f"{file.name} would run on {running}, as {' and '.join(asked)} cannot be used here: it needs a device, its "
            f"driver, and an onnxruntime built for it (this one: {', '.join(ort.get_available_providers())}); "
            "providers=('cpu',) works"
        )
    if running != asked[0]:
        log.warning("%s runs on %s: %s cannot be used here", file.name, running, asked[0])
    else:
        log.info("%s runs on %s", file.name, running)
