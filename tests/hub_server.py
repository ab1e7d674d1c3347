"""A live Hub on the loopback, as much of its HTTP as the real client uses; it keeps everything in memory.

Large files (by suffix) are redirected to another host name, as the Hub redirects to its storage. `log` holds every
request; `tampered`, `cuts` and `stop()` make it fail. Files of authors lie under /authors/NAME.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

LARGE = (".safetensors", ".pth", ".bin", ".parquet", ".onnx")
DATE = "2026-01-31T12:00:00.000Z"
NAME = r"([^/]+/[^/]+)"
KIND = r"/api/(models|datasets)"


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Repo:
    """A repo and its commits: the files of each, by path."""

    id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""

    def commit(self, files: dict[str, bytes]) -> str:
        self.head = hashlib.sha1(f"{self.id} {len(self.commits)}".encode()).hexdigest()
        self.commits[self.head] = files
        return self.head

    def at(self, revision: str) -> str | None:
        return self.head if revision == "main" else revision if revision in self.commits else None


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None


class Hub:
    """The server and what it holds. Its address stays the same when it is stopped and started again."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}  # by "models/user/name" or "datasets/user/name"
        self.storage: dict[str, bytes] = {}  # large files by sha256
        self.authors: dict[str, bytes] = {}
        self.log: list[Request] = []
        self.tampered: set[str] = (
            set()
        )  # sha256 of what is sent with one byte flipped, or names of authors' files
        self.cuts: list[int] = []  # bytes after which the next answers of files break off
        self.shift = 0  # bytes by which the next part of a file begins elsewhere than asked
        self.delay = 0.0  # seconds before an author's file is sent
        self.statuses: dict[str, int] = {}  # what is answered instead of an author's file
        self.token: str | None = None  # what private and gated repos, and all uploads, ask for
        self.chunked: dict[str, str] = {}  # large files that are in chunked storage too: its hash, by sha256
        self.chunks = ""  # address of that storage
        self.stall_at: int | None = None  # bytes of an author's file after which nothing comes any more
        self.connections: list[socket.socket] = []
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        handler = type("Bound", (Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in self.connections:  # kept alive, each in a thread of its own
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def put(self, repo: str, files: dict[str, bytes], kind: str = "models", **settings: Any) -> str:
        """Add a commit that holds exactly these files; its name."""
        found = self.repos.setdefault(f"{kind}/{repo}", Repo(repo, **settings))
        self.storage |= {sha256(data): data for path, data in files.items() if path.endswith(LARGE)}
        return found.commit(dict(files))

    def requests(self, part: str, method: str | None = None) -> list[Request]:
        return [each for each in self.log if part in each.path and method in (None, each.method)]


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()
    try:
        yield hub
    finally:
        hub.stop()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(address.path)
        self.query = dict(urllib.parse.parse_qsl(address.query))
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        authorization = self.headers.get("Authorization")
        self.hub.log.append(Request(self.command, path, self.headers.get("Range"), authorization))
        for methods, pattern, answer in ROUTES:
            if self.command in methods.split() and (match := re.fullmatch(pattern, path)):
                answer(self, *match.groups())
                return
        self.send(501, {"error": f"not built: {self.command} {path}"})

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def send(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def fail(self, status: int, code: str, says: str, **headers: str) -> None:
        self.send(status, {"error": says}, X_Error_Code=code, X_Error_Message=says, **headers)

    def send_bytes(self, data: bytes, key: str, **headers: str) -> None:
        """A file or the part of it that was asked for; damaged or cut short where the test wants that."""
        if key in self.hub.tampered:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start, status = 0, 200
        match = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if match and self.headers.get("If-Range") in (None, headers.get("ETag")):
            start, end = int(match[1]) + self.hub.shift, int(match[2] or len(data) - 1)
            self.hub.shift = 0
            if start >= len(data):
                return self.send(416, Content_Range=f"bytes */{len(data)}")
            headers["Content_Range"] = f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}"
            data, status = data[start : end + 1], 206
        stall, self.hub.stall_at = self.hub.stall_at, None
        if self.command == "HEAD" or (stall is None and not self.hub.cuts):
            return self.send(status, data, **headers)
        cut = self.hub.cuts.pop(0) if stall is None else stall
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data[:cut])
        self.wfile.flush()
        if stall is not None:
            self.rfile.read(1)  # until the client is gone
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    @property
    def allowed(self) -> bool:
        return self.hub.token is not None and self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def repo(self, kind: str, name: str) -> Repo | None:
        """The repo, or None where it was refused."""
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None or (repo.private and not self.allowed):
            self.fail(401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def granted(self, repo: Repo) -> bool:
        if repo.gated and not self.allowed:
            self.fail(403, "GatedRepo", f"Access to model {repo.id} is restricted")
            return False
        return True


# What the client asks for


def create(self: Handler) -> None:
    if not self.allowed:
        return self.fail(401, "", "Invalid username or password.")
    asked = json.loads(self.content)
    name = f"{asked.get('organization') or 'local'}/{asked['name']}"
    key = f"{asked.get('type') or 'model'}s/{name}"
    if new := key not in self.hub.repos:
        self.hub.repos[key] = Repo(
            name, private=bool(asked.get("private")) or asked.get("visibility") == "private"
        )
        self.hub.repos[key].commit({".gitattributes": b""})
    self.send(
        200 if new else 409, {"url": f"{self.hub.url}/{name}", "error": "You already created this repo"}
    )


def card_of(files: dict[str, bytes]) -> dict[str, Any]:
    text = files.get("README.md", b"").decode()
    return yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}


def described(repo: Repo, commit: str) -> dict[str, Any]:
    files, card = repo.commits[commit], card_of(repo.commits[commit])
    siblings = []
    for path, data in files.items():
        large = {"lfs": {"sha256": sha256(data), "size": len(data), "pointerSize": 134}}
        siblings.append({"rfilename": path, "size": len(data), **(large if path.endswith(LARGE) else {})})
    tags = [card.get("library_name", ""), *card.get("tags", []), f"license:{card.get('license')}"]
    return {
        "id": repo.id, "modelId": repo.id, "author": repo.id.split("/")[0], "sha": commit, "private": repo.private,
        "gated": "auto" if repo.gated else False, "disabled": False, "lastModified": DATE, "createdAt": DATE,
        "downloads": 7, "likes": 0, "tags": tags, "pipeline_tag": card.get("pipeline_tag"), "siblings": siblings,
        "cardData": card,
    }  # fmt: skip


def listing(self: Handler, kind: str) -> None:
    found = [described(repo, repo.head) for key, repo in self.hub.repos.items() if key.startswith(f"{kind}/")]
    wanted = [
        each
        for each in found
        if self.query.get("author") in (None, each["author"])
        and self.query.get("filter") in (None, *each["tags"])
    ]
    self.send(200, wanted)


def info(self: Handler, kind: str, name: str, revision: str | None) -> None:
    if (repo := self.repo(kind, name)) is None:
        return
    if (commit := repo.at(revision or "main")) is None:
        return self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    self.send(200, described(repo, commit))


def preupload(self: Handler, kind: str, name: str, revision: str) -> None:
    files = []
    for path in (each["path"] for each in json.loads(self.content)["files"]):
        mode = "lfs" if path.endswith(LARGE) else "regular"
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False})
    self.send(200, {"files": files})


def commit(self: Handler, kind: str, name: str, revision: str) -> None:
    if (repo := self.repo(kind, name)) is None:
        return
    files = dict(repo.commits[repo.head])
    for line in self.content.splitlines():
        operation, value = (json.loads(line)[key] for key in ("key", "value"))
        if operation == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation == "lfsFile":
            files[value["path"]] = self.hub.storage[value["oid"]]
        elif operation == "deletedFile":
            files.pop(value["path"])
    oid = repo.commit(files)
    self.send(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})


def entry(path: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 134}}
    base = {"type": "file", "oid": git_blob(data), "size": len(data), "path": path}
    return {**base, **(large if path.endswith(LARGE) else {})}


def tree(self: Handler, kind: str, name: str, revision: str, folder: str | None) -> None:
    if (repo := self.repo(kind, name)) is None:
        return
    if (at := repo.at(revision)) is None:
        return self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    prefix = f"{folder}/" if folder else ""
    inside = {path: data for path, data in repo.commits[at].items() if path.startswith(prefix)}
    deep = self.query.get("recursive", "").lower() in ("1", "true")
    entries = [entry(path, data) for path, data in inside.items() if deep or "/" not in path[len(prefix) :]]
    folders = {prefix + path[len(prefix) :].split("/")[0] for path in inside if "/" in path[len(prefix) :]}
    entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": each} for each in sorted(folders)]
    self.send(200, entries)


def paths_info(self: Handler, kind: str, name: str, revision: str) -> None:
    if (repo := self.repo(kind, name)) is None:
        return
    if (at := repo.at(revision)) is None:
        return self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    form = self.content[:1] != b"{"
    asked = (
        urllib.parse.parse_qs(self.content.decode())["paths"] if form else json.loads(self.content)["paths"]
    )
    files = repo.commits[at]
    self.send(200, [entry(path, files[path]) for path in asked if path in files])


def lfs_batch(self: Handler, name: str) -> None:
    objects = []
    for each in json.loads(self.content)["objects"]:
        new = each["oid"] not in self.hub.storage
        actions = {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}} if new else {}
        objects.append({**each, **actions})
    self.send(200, {"transfer": "basic", "objects": objects})


def store(self: Handler, digest: str) -> None:
    if sha256(self.content) != digest:
        return self.fail(400, "BadDigest", "sha256 mismatch")
    self.hub.storage[digest] = self.content
    self.send(200)


def stored(self: Handler, digest: str) -> None:
    self.send_bytes(self.hub.storage[digest], digest, ETag=f'"{digest}"')


def resolve(self: Handler, kind: str | None, name: str, revision: str, path: str) -> None:
    repo = self.repo("datasets" if kind else "models", name)
    if repo is None or not self.granted(repo):
        return
    if (at := repo.at(revision)) is None:
        return self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    if (data := repo.commits[at].get(path)) is None:
        return self.fail(404, "EntryNotFound", "Entry not found", X_Repo_Commit=at)
    if not path.endswith(LARGE):
        return self.send_bytes(data, path, X_Repo_Commit=at, ETag=f'"{git_blob(data)}"')
    digest = sha256(data)
    elsewhere = self.hub.url.replace("127.0.0.1", "localhost")  # the client strips the token there
    headers = {"X_Repo_Commit": at, "X_Linked_Size": str(len(data)), "X_Linked_ETag": f'"{digest}"'}
    if digest in self.hub.chunked:
        token = f"{self.hub.url}/api/models/{name}/xet-read-token/{at}"
        headers |= {"X_Xet_Hash": self.hub.chunked[digest], "X_Xet_Refresh_Route": token}
    self.send(302, Location=f"{elsewhere}/lfs/{digest}", **headers)


def chunk_token(self: Handler, kind: str, name: str, revision: str) -> None:
    token = {"accessToken": "chunks", "exp": 4_000_000_000, "casUrl": self.hub.chunks}
    headers = {
        "X_Xet_Cas_Url": self.hub.chunks,
        "X_Xet_Access_Token": "chunks",
        "X_Xet_Token_Expiration": "4000000000",
    }
    self.send(200, token, **headers)


def authored(self: Handler, name: str) -> None:
    if name in self.hub.statuses or name not in self.hub.authors:
        return self.send(self.hub.statuses.get(name, 404), b"AccessDenied")
    time.sleep(self.hub.delay)
    data = self.hub.authors[name]
    kind = {"Content_Type": "text/html; charset=utf-8"} if name.endswith(".html") else {}
    self.send_bytes(data, name, ETag=f'"{sha256(data)[:16]}"', **kind)


ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", r"/api/repos/create", create),
    ("POST", r"/api/validate-yaml", lambda self: self.send(200, {"errors": [], "warnings": []})),
    ("GET", r"/api/whoami-v2", lambda self: self.send(200, {"type": "user", "name": "local", "orgs": []})),
    ("GET", KIND, listing),
    ("GET", rf"{KIND}/{NAME}(?:/revision/([^/]+))?", info),
    ("POST", rf"{KIND}/{NAME}/preupload/([^/]+)", preupload),
    ("POST", rf"{KIND}/{NAME}/commit/([^/]+)", commit),
    ("GET", rf"{KIND}/{NAME}/tree/([^/]+)(?:/(.+))?", tree),
    ("POST", rf"{KIND}/{NAME}/paths-info/([^/]+)", paths_info),
    ("GET", rf"{KIND}/{NAME}/xet-(?:read|write)-token/([^/]+)", chunk_token),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", store),
    ("GET HEAD", r"/lfs/([0-9a-f]{64})", stored),
    ("GET HEAD", rf"/(datasets/)?{NAME}/resolve/([^/]+)/(.+)", resolve),
    ("GET HEAD", r"/authors/(.+)", authored),
]
