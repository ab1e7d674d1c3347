"""The parts of an extraction on a Ray cluster: Ray Data hands them out, and each worker holds the encoder once."""

from __future__ import annotations

import dataclasses
import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from zoo.embedding import Job, cut, embedded
from zoo.errors import Unsupported
from zoo.progress import track
from zoo.shards import Rows


def ray_parts(job: Job, ranges: Mapping[int, range]) -> Iterator[tuple[int, Iterable[Rows]]]:
    """The parts in the order in which the cluster finishes them; all of one part at a time.

    Runs on the cluster that is initialised, else on that of RAY_ADDRESS, else on this machine. Every node must see the
    images where this process does. Raises Unsupported without Ray.
    """
    if not ranges:
        return
    with _cluster() as ray:
        items = [{"part": number, "start": each.start, "stop": each.stop} for number, each in ranges.items()]
        on_gpu = job.encoder.device.type == "cuda"
        count = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1))
        found = ray.data.from_items(items, override_num_blocks=len(items)).map(
            _Worker,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=max(1, min(count, len(items)))),
            num_cpus=1,
            num_gpus=int(on_gpu),
        )
        for row in track(found.iter_rows(), "embedding", len(items)):
            yield row["part"], pickle.loads(row["rows"])


class _Worker:
    """Computes whole parts, with the encoder unpacked once."""

    def __init__(self, job: Job) -> None:
        # Ray gives a worker one processor, and torch one thread: so many are there for decoding too.
        self.job = dataclasses.replace(job, workers=1 if job.workers is None else job.workers)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        batches = cut(range(item["start"], item["stop"]), self.job.batch_size)
        # Bytes, as Arrow has no type for rows of several shapes.
        return {"part": item["part"], "rows": pickle.dumps(list(embedded(self.job, batches)))}


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected; left as it was found."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise Unsupported(
            "engine='ray' needs Ray: pip install 'ssl-zoo[ray]'; engine='local' needs nothing more"
        ) from None
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, log.level
    context.enable_progress_bars = False  # ours counts parts
    log.setLevel(logging.WARNING)
    try:
        yield ray
    finally:
        context.enable_progress_bars = before[0]
        log.setLevel(before[1])
        if started:
            ray.shutdown()
