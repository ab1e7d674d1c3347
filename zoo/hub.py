"""The Hugging Face Hub: the only file that imports huggingface_hub, and only when something is asked of it.

HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME and the rest mean what they mean to its client. What is in the client's
cache at a pinned commit is read without a request; a server that is down is told at once instead of after the client's
retries; no message holds a token.
"""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urlsplit

from zoo.endpoint import OFFLINE, endpoint, is_offline, without_secrets
from zoo.errors import DataError, HubError, Unreachable
from zoo.progress import Bar

# Seconds to connect, to read, to write and to wait for a connection, as httpx takes them: a machine without network is
# told before its user wonders, and a slow one has time to answer.
TIMEOUT: Any = (2.5, 10.0, 10.0, 10.0)

_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")
Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class RepoFiles:
    """What a repo holds at one commit: the sha256 of each file by its path, None where the Hub keeps no such hash."""

    repo: str
    commit: str
    files: dict[str, str | None]


@dataclass(frozen=True)
class Fetched:
    """A file of a repo in the client's cache."""

    path: Path
    commit: str
    sha256: str | None  # as the Hub states it; small files have none


# What lies in a repo


def repo_files(repo: str, revision: str | None = None, kind: Kind = "model") -> RepoFiles:
    """The files of a repo at the commit that `revision` is now, by one request. Raises HubError or Unreachable.

    >>> repo_files("uoft-cs/cifar10", kind="dataset").files.keys()
    dict_keys(['README.md', 'plain_text/test-00000-of-00001.parquet', …])
    """
    with _told(repo, revision, kind):
        api = _api()
        asked = api.model_info if kind == "model" else api.dataset_info
        info = asked(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
    files = {each.rfilename: each.lfs.sha256 if each.lfs else None for each in info.siblings or ()}
    return RepoFiles(repo, str(info.sha), files)


def fetch(repo: str, file: str, revision: str | None = None, largest: int | None = None) -> Fetched:
    """A file of a model repo: from the cache where `revision` is a commit, else asked for, with a bar while it comes.

    A server that is down is made up for by what the cache holds of that revision. largest: bytes above which it is left
    where it is. Raises HubError or Unreachable.
    """
    if revision and _COMMIT.fullmatch(revision) and (kept := cached(repo, file, revision)):
        return kept
    import huggingface_hub

    try:
        with _told(repo, revision, file=file):
            url = huggingface_hub.hf_hub_url(repo, file, revision=revision, endpoint=endpoint())
            found = huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT, endpoint=endpoint())
            if found.commit_hash is None:
                raise HubError(
                    without_secrets(f"{endpoint()} answers, but not as a Hub; is HF_ENDPOINT right?")
                )
            if largest is not None and (found.size or 0) > largest:
                raise HubError(
                    f"{repo}'s {file} has {found.size:,} bytes, and no more than {largest:,} are read"
                )
            # By its name, so that the cache knows what a branch was when nobody can be asked.
            path = huggingface_hub.hf_hub_download(
                repo, file, revision=revision, endpoint=endpoint(), tqdm_class=Bar.titled(f"{repo} {file}")
            )
    except Unreachable:
        if (kept := cached(repo, file, revision)) is None:
            raise
        return kept
    fetched = _fetched(Path(path), file)
    if fetched.commit == found.commit_hash:  # else the branch has moved on meanwhile
        fetched = dataclasses.replace(fetched, sha256=_digest(found.etag))
    return fetched


def cached(repo: str, file: str, revision: str | None = None) -> Fetched | None:
    """A file of a model repo as the client's cache has it, without asking anybody. HubError for no name of a repo."""
    import huggingface_hub

    try:
        found = huggingface_hub.try_to_load_from_cache(repo, file, revision=revision)
    except ValueError as error:
        raise HubError(str(error)) from None
    if not isinstance(found, str):
        return None
    return _fetched(Path(found), file)


def _fetched(path: Path, file: str) -> Fetched:
    """What a path in the client's cache tells: it names the bytes by their hash, and links to them from a commit."""
    snapshot = path.parents[len(Path(file).parts) - 1]
    return Fetched(path, snapshot.name, _digest(path.resolve().name))


@contextmanager
def answer(url: str, headers: dict[str, str]) -> Iterator[Any]:
    """The response to a GET at an author's own address, by the client's session; its body is read inside.

    No token goes along. Raises HubError for a dead link, Unreachable where nobody answers or the answer breaks off.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if is_offline():
        raise Unreachable(OFFLINE)
    asked = {"Accept-Encoding": "identity", **headers}  # compressed, a part could not be continued
    try:
        session = huggingface_hub.get_session()
        with session.stream("GET", url, headers=asked, timeout=TIMEOUT, follow_redirects=True) as response:
            status = response.status_code
            if status in (401, 403, 404, 410):
                raise HubError(f"answers {status}: the link is dead, or has expired")
            if status >= 400 and status != 416:
                raise Unreachable(f"answers {status}; try again later")
            yield response
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # httpx's, of whichever version the client has
        raise Unreachable(_unreached(error, urlsplit(url).netloc)) from None


def forget(fetched: Fetched) -> None:
    """Remove a damaged file from the client's cache, so that it is fetched anew."""
    fetched.path.resolve().unlink(missing_ok=True)
    fetched.path.unlink(missing_ok=True)


# What a user of the Hub has, and gives


def front_matter(user: str, tag: str) -> list[tuple[str, dict[str, Any]]]:
    """The repos of a user's that carry a tag, each with its card's front matter. Raises HubError or Unreachable."""
    with _told(user):
        import huggingface_hub

        huggingface_hub.get_session().head(
            endpoint(), timeout=TIMEOUT
        )  # lists are asked for with the client's patient retries
        found = list(_api().list_models(author=user, filter=tag, full=True, cardData=True))
    return [(each.id, each.card_data.to_dict() if each.card_data else {}) for each in found]


def upload(
    repo: str, files: Mapping[str, Path | bytes], says: str, *, private: bool, only: Iterable[str] = ()
) -> str:
    """Put files into a model repo by one commit, making the repo where there is none; its address.

    only: patterns of files that the repo must not keep from before where `files` lacks them. Raises HubError or
    Unreachable.
    """
    import huggingface_hub

    with _told(repo), _bars_on_terminals_only():
        api = _api()
        api.create_repo(repo, private=private, exist_ok=True)
        there = repo_files(repo).files.keys() - files.keys()
        stale = sorted(file for file in there if any(fnmatchcase(file, each) for each in only))
        changes = [
            *(huggingface_hub.CommitOperationAdd(path, content) for path, content in files.items()),
            *(huggingface_hub.CommitOperationDelete(path) for path in stale),
        ]
        api.create_commit(repo, changes, commit_message=says)
    return without_secrets(f"{endpoint()}/{repo}")


# Data sets


def dataset_files(repo: str, revision: str | None = None) -> RepoFiles:
    """The files of a data set's repo, and the commit to open them at. Raises HubError, or Unreachable within seconds.

    >>> dataset_files("uoft-cs/cifar10").commit
    '0b2714987fa478483af9968de7c934580d0bb9a2'
    """
    return repo_files(repo, revision, "dataset")


def open_dataset_file(repo: str, file: str, revision: str, block: int = 4 << 20) -> IO[bytes]:
    """A file of a data set's repo to read and seek in: from the client's cache, or `block` bytes at a time.

    revision: the commit that `dataset_files` gave. Raises Unreachable or HubError; DataError while reading.
    """
    import huggingface_hub

    kept = huggingface_hub.try_to_load_from_cache(repo, file, revision=revision, repo_type="dataset")
    if isinstance(kept, str):
        return open(kept, "rb")
    with _told(repo, revision, "dataset", file):
        files = huggingface_hub.HfFileSystem(endpoint=endpoint())
        remote = files.open(f"datasets/{repo}@{revision}/{file}", "rb", block_size=block)
    return io.BufferedReader(_Remote(remote, f"hf:{repo}/{file}"), block)


class _Remote(io.RawIOBase):
    """A file of the client's file system, whose errors become ours."""

    def __init__(self, remote: Any, name: str) -> None:
        self.remote, self.name = remote, name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self.remote.seek(offset, whence))

    def tell(self) -> int:
        return int(self.remote.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.remote.read(len(buffer))
        except Exception as error:  # httpx's errors have no base in common with the system's
            raise DataError(without_secrets(f"cannot read {self.name}: {error}")) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.remote.close()
        super().close()


# The client and its errors


def _api() -> Any:
    import huggingface_hub

    return huggingface_hub.HfApi(endpoint=endpoint(), library_name="ssl-zoo")


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Keep the bars that the client draws for uploads out of files and pipes."""
    from huggingface_hub import utils as _utils

    utils: Any = _utils  # which re-exports without saying so
    quiet = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()
    if quiet:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            utils.enable_progress_bars()


def _digest(etag: str | None) -> str | None:
    return etag if etag and _SHA256.fullmatch(etag) else None


@contextmanager
def _told(
    repo: str, revision: str | None = None, kind: Kind = "model", file: str | None = None
) -> Iterator[None]:
    """Turn whatever the client raises into one HubError or Unreachable that says what to do."""
    from huggingface_hub import errors

    if is_offline():
        raise Unreachable(OFFLINE)
    page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    at = f" at revision {revision!r}" if revision else ""
    try:
        yield
    except HubError:
        raise
    except errors.GatedRepoError:
        says = f"{repo} is gated: accept its licence at {page}, then `hf auth login` or set HF_TOKEN"
        raise HubError(without_secrets(says)) from None
    except errors.RevisionNotFoundError:
        raise HubError(without_secrets(f"{page} has no revision {revision!r}")) from None
    except errors.RepositoryNotFoundError:
        says = f"{page} does not exist, or is private; for a private one `hf auth login` or set HF_TOKEN"
        raise HubError(without_secrets(says)) from None
    except errors.LocalEntryNotFoundError as error:  # the client's word for a server that has gone meanwhile
        raise Unreachable(_unreached(error.__cause__ or error)) from None
    except (errors.EntryNotFoundError, FileNotFoundError):
        raise HubError(without_secrets(f"{page} has no {file}{at}")) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        refused = HubError if status < 500 and status not in (408, 429) else Unreachable
        hint = "; `hf auth login`, or set HF_TOKEN to one that may do this" if status in (401, 403) else ""
        raise refused(without_secrets(f"{page} answers {status}: {_said(error)}{hint}")) from None
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # httpx's, of whichever version the client has
        raise Unreachable(_unreached(error)) from None
    except (ConnectionError, TimeoutError) as error:
        raise Unreachable(_unreached(error)) from None
    except RuntimeError as error:  # how the client tells that one of several uploads failed
        raise HubError(without_secrets(f"{error} ({error.__cause__})")) from None
    except (OSError, ValueError) as error:
        raise HubError(without_secrets(str(error))) from None


def _unreached(error: BaseException, server: str | None = None) -> str:
    """One line on a request that nobody answered to its end."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return without_secrets(f"{server or endpoint()} cannot be reached ({first})")


def _said(error: Any) -> str:
    """The server's own words, in one line."""
    return " ".join(str(error.server_message or error).split()) or "no reason given"
