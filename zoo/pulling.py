"""Models that are elsewhere: the weights a card points at, from the first source that gives them."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from zoo import hub, registry
from zoo.cards import ModelCard, Source, read_card
from zoo.downloads import download
from zoo.endpoint import address, endpoint, is_offline, without_secrets
from zoo.errors import HubError, UnknownModel, Unreachable, Unsupported, WeightsError, ZooError
from zoo.files import locked
from zoo.registry import has_weights, home, most_alike
from zoo.repos import Repo, find_repo, is_name

log = logging.getLogger(__name__)

# What a pulled model's card says otherwise than the card it was pulled by.
_WRITTEN_BY_PULLING = ("path", "body", "sources", "sha256", "decoder")
_told: set[str] = set()  # models whose changed card was told


@dataclass(frozen=True)
class Found:
    """A model by its card, and where it lies: a folder, a NAME.md file, or somebody's repo."""

    card: ModelCard
    place: Path
    repo: Repo | None = None

    def fetched(self) -> Found:
        """The model as a folder with its weights, which are fetched where they are not here yet."""
        if self.repo is not None:
            self.repo.fetch()
        elif not has_weights(self.place):
            folder = _pull(self.card)
            return Found(read_card(folder), folder)  # its card knows the converted files
        return self


def pull(name: str | Path) -> Path:
    """The folder of a model on this machine; weights that lie elsewhere are fetched, checked and converted, once.

    Raises what `zoo.load` raises for the name, and WeightsError with every source that failed, and why.

    >>> zoo.pull("dino_vits16").name
    'dino_vits16'
    """
    return find(name).fetched().place


def find(name: str | Path) -> Found:
    """A model by folder, name, alias or user/repo[@revision]; of a repo nothing but the card is fetched yet."""
    try:
        place = registry.find(name)
    except UnknownModel as unknown:
        if not is_name(str(name)):
            raise
        try:
            repo = find_repo(str(name))
        except UnknownModel as error:
            raise UnknownModel(f"{unknown}; and as a repo: {error}") from None
        return Found(repo.card, repo.folder, repo)
    card = read_card(place)
    _tell_changes(card, place)
    return Found(card, place)


def _tell_changes(card: ModelCard, place: Path) -> None:
    """Warn, once, where the zoo's own card has been corrected since this model was pulled."""
    own = registry.MODEL_CARDS / f"{card.name}.md"
    if place.parent != home() or card.name in _told or not own.is_file():
        return
    now = read_card(own)
    facts = [each.name for each in dataclasses.fields(card) if each.name not in _WRITTEN_BY_PULLING]
    if changed := [each for each in facts if getattr(now, each) != getattr(card, each)]:
        _told.add(card.name)
        says = "%s: its card has changed since it was pulled (%s); `zoo remove %s`, and the next load pulls it anew"
        log.warning(says, card.name, ", ".join(changed), card.name)


def _pull(card: ModelCard) -> Path:
    """Fetch a card's weights from the first source that gives them, into the local zoo."""
    if not card.sources:
        reason = card.unavailable or "its card names no source; pass them as weights=FILE"
        raise WeightsError(f"{card.name}'s weights are not on this machine: {reason}\n{_ways_out(card)}")
    target = home() / card.name
    with locked(target):
        if target.exists():  # another process was faster, or it is another model
            return _taken(card, target)
        failed: list[tuple[Source, ZooError]] = []
        for source in card.sources:
            try:
                if source.repo and any(other.repo and isinstance(why, Unreachable) for other, why in failed):
                    raise Unreachable("likewise")
                folder = _from_source(card, source, target)
            except (HubError, WeightsError) as error:
                failed.append((source, error))
                continue
            for other, why in failed:
                log.warning("%s: %s: %s; the next source was taken", card.name, _place(other), why)
            return folder
    reasons = indent("\n".join(f"{_place(source)}: {error}" for source, error in failed), "  ")
    raise WeightsError(
        f"{card.name}'s weights are not on this machine, and no source gives them:\n{reasons}\n{_ways_out(card)}"
    )


def _taken(card: ModelCard, target: Path) -> Path:
    """The folder that has the card's name already, where it was made from the same sources."""
    here = read_card(target)
    mine, theirs = ([each.architecture, *map(_place, each.sources)] for each in (card, here))
    if mine != theirs:
        says = f"the local zoo has another {card.name!r}, in {target}; `zoo remove {card.name}` makes room"
        raise Unsupported(says)
    return target


def _from_source(card: ModelCard, source: Source, target: Path) -> Path:
    """Fetch one source, check it, and write it as a model folder: whole, or not at all."""
    fetched = hub.fetch(source.repo, source.file or "", source.revision) if source.repo else None
    path = fetched.path if fetched else download(source.url or "")
    from zoo import trust  # torch: only where something came

    try:
        digest = trust.check_published(path, source, fetched.sha256 if fetched else None)
    except WeightsError:
        hub.forget(fetched) if fetched else path.unlink()
        raise
    # Only the holder of the lock has this folder, so that what a killed process left is nobody's.
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _convert(card, source, path, digest, unfinished)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    trust.pin(source, digest)
    if not fetched:
        path.unlink()
    log.info("%s: pulled from %s into %s", card.name, _place(source), target)
    return target


def _convert(card: ModelCard, source: Source, path: Path, digest: str, folder: Path) -> None:
    """A published file as a model folder; floating-point numbers stay as wide as they are."""
    import torch

    from zoo.folders import write_folder
    from zoo.loading import build
    from zoo.published import read_published
    from zoo.weights import load_into, without_storage

    published = read_published(path, card, source.layout)
    log.info("%s: %s", card.name, published.report)
    with without_storage():
        encoder, decoder = build(card)
    load_into(encoder, published.encoder, where=str(path))
    if published.decoder is None:
        if card.decoder is not None:
            log.warning(
                "%s: %s holds no decoder, so it cannot reconstruct; `zoo remove %s` and pull again tries the others",
                *(card.name, _place(source), card.name),
            )
        decoder = None
    elif decoder is not None:
        load_into(decoder, published.decoder, where=str(path))
    sources = tuple(
        dataclasses.replace(each, sha256=digest) if each == source else each for each in card.sources
    )
    local = dataclasses.replace(card, sources=sources, decoder=card.decoder if decoder is not None else None)
    widths = {tensor.dtype for tensor in published.encoder.values() if tensor.is_floating_point()}
    dtype = widths.pop() if len(widths) == 1 else torch.float32
    write_folder(folder, local, encoder, decoder, card.body, dtype)


def _place(source: Source) -> str:
    """A source as a person would fetch it."""
    if source.repo:
        return without_secrets(address(source.repo, source.file or "", source.revision))
    return source.url or ""


def _ways_out(card: ModelCard) -> str:
    """What a user without the weights can do."""
    ways = []
    if card.sources:
        ways.append(f"fetch {_place(card.sources[0])} where you can, and pass weights=FILE")
    here = [each for each in registry.list_cards() if each.path and has_weights(each.path.parent)]
    if near := most_alike(card, here):
        shared = "the same method" if near.method == card.method else "the nearest there is"
        ways.append(f"take zoo.load({near.name!r}), which is on this machine ({shared}: {near.method})")
    if is_offline():
        ways.append("unset HF_HUB_OFFLINE")
    elif any(source.repo for source in card.sources):
        ways.append(f"set HF_ENDPOINT to a Hub that this machine reaches (now {without_secrets(endpoint())})")
    ways.append('take weights="random", the untrained architecture')
    return "ways out:\n" + "\n".join(f"  {way}" for way in ways)
