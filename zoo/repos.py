"""Model folders in other people's repos on the Hub: found, listed and read; nothing in them is executed or imported."""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from zoo import card_yaml, hub
from zoo.cards import README, ModelCard, parse_card, read_card
from zoo.errors import CardError, HubError, UnknownModel, WeightsError
from zoo.registry import WEIGHTS

log = logging.getLogger(__name__)

LARGEST_CARD = 4 << 20  # bytes: what a stranger's README may cost before anything is known of it
TAG = "ssl-zoo"  # what `zoo.push` marks its repos with

_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True)
class Repo:
    """A repo with a card of the zoo's at one commit, and its folder in the client's cache."""

    name: str
    commit: str
    card: ModelCard
    folder: Path

    def fetch(self) -> None:
        """Bring the weights and config.json beside the card, each checked. Raises WeightsError."""
        from zoo.trust import verify_once  # torch

        for file in ("config.json", *WEIGHTS[: 2 if self.card.decoder else 1]):
            try:
                fetched = hub.fetch(self.name, file, self.commit)
            except HubError as error:
                raise WeightsError(f"{self.card.name} cannot be fetched whole: {error}") from None
            try:
                if digest := self.card.sha256.get(file) or fetched.sha256:
                    verify_once(fetched.path, digest)
            except WeightsError:
                hub.forget(fetched)
                raise


def is_name(name: str) -> bool:
    """Whether it is spelt user/repo or user/repo@revision, and no path of that name exists."""
    return _NAME.fullmatch(name) is not None and not Path(name).exists()


def find_repo(name: str) -> Repo:
    """The card of user/repo[@revision]; its weights are not fetched yet.

    Raises UnknownModel where there is no such repo, CardError where it is none of the zoo's.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UnknownModel(f"{name!r} is no repo; write user/repo, or user/repo@revision")
    repo = match["repo"]
    try:
        fetched = hub.fetch(repo, README, match["revision"], LARGEST_CARD)
    except HubError as error:
        raise UnknownModel(str(error)) from None
    try:
        card = read_card(fetched.path)
    except CardError as error:
        says = str(error).replace(str(fetched.path), README)
        raise CardError(
            f"{repo} is no folder of the zoo's: {says}\n"
            "where its weights fit a model of `zoo list`, pass its file as weights=FILE"
        ) from None
    return Repo(repo, fetched.commit, dataclasses.replace(card, name=name), fetched.path.parent)


def list_repos(user: str) -> list[ModelCard]:
    """The cards of a user's repos that hold a model of the zoo's, by user/repo. Raises HubError.

    >>> [card.name for card in list_repos("me")]
    ['me/dino_cells']
    """
    cards = []
    for repo, front in hub.front_matter(user, TAG):
        try:
            cards.append(parse_card(f"---\n{card_yaml.dump(front)}---\n", repo))
        except CardError as error:
            log.warning("skipped: %s: %s", repo, error)
    return sorted(cards, key=lambda card: card.name)
