"""The Hugging Face Hub for tests: a server on this machine that takes a library's uploads of models and data sets and serves its
downloads. Fresh processes import it too, before the libraries that read where the Hub is; so only the standard library is needed
here."""

import base64
import hashlib
import json
import os
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

TOKEN = "hf_of_the_tests"


def use_hub(address, token=TOKEN):
    """Has the Hugging Face libraries talk to a [`HubServer`]; to be called before any of them is imported."""
    os.environ |= {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    if token is None:
        os.environ.pop("HF_TOKEN", None)
    else:
        os.environ["HF_TOKEN"] = token


@dataclass
class Repository:
    """Commits are `(id, {path: SHA-256})`, the last one at the end; branches and tags name a commit's id."""

    private: bool = False
    commits: list = field(default_factory=list)
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)

    def find(self, revision):
        """The commit of a branch, a tag or an id; None if there is none."""
        wanted = self.branches.get(revision) or self.tags.get(revision) or revision
        return next((commit for commit in self.commits if commit[0] == wanted), None)

    def commit(self, files, branch="main"):
        """Makes a commit on a branch of all files that it is to have; returns its id."""
        content = json.dumps([len(self.commits), files])
        self.branches[branch] = hashlib.sha1(content.encode()).hexdigest()
        self.commits.append((self.branches[branch], files))
        return self.branches[branch]


@dataclass
class _Fault:
    request: str
    status: int | None
    action: object
    after: int


class HubServer:
    """
    Repositories of models (`org/name`) and data sets (`datasets/org/name`). A context manager; `address` is for [`use_hub`].
    Writing, and reading what is private, needs the token `TOKEN`; any other one is refused, whatever it is for.

    Args:
        folder: where the contents of files are kept, named by their SHA-256.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.repositories = {}
        self._faults = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self.folder.mkdir(parents=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def create(self, name, private=False):
        """A new repository, with the one file that the Hub puts into it."""
        repository = self.repositories[name] = Repository(private)
        repository.commit({".gitattributes": self.store(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")})
        return repository

    def add_folder(self, name, folder):
        """A new repository with a folder's files."""
        repository = self.create(name)
        files = {file.name: self.store(file.read_bytes()) for file in Path(folder).iterdir()}
        repository.commit(repository.find("main")[1] | files)

    def files(self, name, revision="main"):
        """`{path: content}` of a repository, without the file that the Hub puts there."""
        _, files = self.repositories[name].find(revision)
        return {path: (self.folder / sha).read_bytes() for path, sha in files.items() if path != ".gitattributes"}

    def store(self, content):
        """Keeps a content; returns its SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / digest).write_bytes(content)
        return digest

    def fail(self, request, status=None, action=None, after=0):
        """
        Has one request go wrong.

        Args:
            request (`str`): regular expression, searched in `METHOD /path`.
            status (`int`, *optional*): the answer. Without one the connection ends when half of the request's body is read.
            action (callable, *optional*): is called before the connection ends.
            after (`int`): number of such requests that go well first.
        """
        self._faults.append(_Fault(request, status, action, after))

    def faults_left(self):
        """Number of requests that are still to go wrong."""
        return len(self._faults)

    def next_fault(self, request):
        """The fault of the next request, if there is one."""
        with self._lock:
            for fault in self._faults:
                if re.search(fault.request, request):
                    if not fault.after:
                        self._faults.remove(fault)
                        return fault
                    fault.after -= 1
        return None


class _Refused(Exception):
    """The answer to a request that fails: status, and the headers by which the library tells errors apart."""

    def __init__(self, status, **headers):
        self.status, self.headers = status, headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, so every answer states its length

    def log_message(self, *arguments):
        pass

    def _handle(self):
        path = self.path.partition("?")[0]
        length = int(self.headers.get("Content-Length", 0))
        fault = self.hub.next_fault(f"{self.command} {path}")
        if fault and fault.status is None:
            return self._break_off(length // 2, fault.action)
        body = self.rfile.read(length)
        try:
            if fault:
                raise _Refused(fault.status)
            for method, pattern, answer in _ROUTES:
                if self.command.replace("HEAD", "GET") == method and (found := re.fullmatch(pattern, path)):
                    # An upload goes to the place that the server named before, as if elsewhere: without a token.
                    self._check_token(writes=method == "POST" and answer is not _Handler.paths_info)
                    groups = (None if group is None else unquote(group) for group in found.groups())
                    return self._send(*answer(self, *groups, body))
            raise _Refused(404)
        except _Refused as refused:
            return self._send({"error": f"{refused.status}"}, refused.headers, refused.status)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _break_off(self, length, action):
        self.rfile.read(length)
        if action:
            action()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _check_token(self, writes):
        given = self.headers.get("Authorization")
        if given != f"Bearer {TOKEN}" and (given or writes):
            raise _Refused(401, X_Error_Message="Invalid credentials in Authorization header")

    def _send(self, content, headers=None, status=200):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _repository(self, name):
        repository = self.hub.repositories.get(name)
        if (repository is None or repository.private) and not self.headers.get("Authorization"):
            # A user who may not see it does not learn whether it exists. The code is needed because this is not https, where
            # the library would know by the address.
            raise _Refused(401, X_Error_Code="RepoNotFound")
        if repository is None:
            raise _Refused(404, X_Error_Code="RepoNotFound")
        return repository

    def _commit(self, name, revision):
        commit = self._repository(name).find(revision)
        if commit is None:
            raise _Refused(404, X_Error_Code="RevisionNotFound")
        return commit

    # Each answer takes the groups of its route and the request's body, and returns content and, if any, headers.

    def create(self, body):
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked.get("type") == "dataset":
            name = f"datasets/{name}"
        status = 409 if name in self.hub.repositories else 200
        if status == 200:
            self.hub.create(name, private=asked.get("private") is True or asked.get("visibility") == "private")
        return {"url": f"{self.hub.address}/{name}"}, {}, status

    def validate_card(self, body):
        return ({"errors": [], "warnings": []},)

    def preupload(self, name, revision, body):
        _, there = self._commit(name, revision)
        answers = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            # The Hub decides by `.gitattributes` and size; small files come with the commit, others are uploaded beforehand.
            large = path.endswith((".safetensors", ".parquet", ".bin", ".pt"))
            answers.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False})
            if path in there:  # what has not changed is then left out of the commit
                answers[-1]["oid"] = there[path] if large else self._git_id(there[path])
        return ({"files": answers},)

    def _git_id(self, digest):
        content = (self.hub.folder / digest).read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def lfs_batch(self, name, body):
        self._repository(name)
        wanted = json.loads(body)["objects"]
        for entry in wanted:
            if not (self.hub.folder / entry["oid"]).exists():
                entry["actions"] = {"upload": {"href": f"{self.hub.address}/uploads/{entry['oid']}"}}
        return ({"transfer": "basic", "objects": wanted},)

    def upload(self, digest, body):
        if self.hub.store(body) != digest:
            raise _Refused(400)
        return ({},)

    def commit(self, name, branch, body):
        repository = self._repository(name)
        if branch not in repository.branches:
            raise _Refused(404, X_Error_Code="RevisionNotFound")
        before, files = repository.find(branch)
        files = dict(files)
        for line in body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                if value.get("parentCommit") not in (None, before):
                    raise _Refused(412, X_Error_Message="A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                files[value["path"]] = value["oid"]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise _Refused(501)
        commit = repository.commit(files, branch)
        return ({"commitOid": commit, "commitUrl": f"{self.hub.address}/{name}/commit/{commit}"},)

    def add_branch(self, name, branch, body):
        start, _ = self._commit(name, json.loads(body).get("startingPoint", "main"))
        return self._add_name(self._repository(name).branches, branch, start)

    def add_tag(self, name, revision, body):
        commit, _ = self._commit(name, revision)
        return self._add_name(self._repository(name).tags, json.loads(body)["tag"], commit)

    @staticmethod
    def _add_name(names, name, commit):
        if name in names:
            raise _Refused(409)
        names[name] = commit
        return ({},)

    def info(self, name, revision, body):
        commit, files = self._commit(name, revision or "main")
        found = {"id": name.removeprefix("datasets/"), "sha": commit, "private": self._repository(name).private}
        return (found | {"tags": [], "siblings": [{"rfilename": path} for path in files]},)

    def tree(self, name, revision, folder, body):
        _, files = self._commit(name, revision)
        prefix = f"{folder}/" if folder else ""
        recursive = "recursive=true" in self.path.lower()
        found = {}
        for path, digest in sorted(files.items()):
            if path.startswith(prefix):
                child, inside, _ = path.removeprefix(prefix).partition("/")
                if inside:
                    found.setdefault(prefix + child, self._entry(prefix + child, None))
                if not inside or recursive:
                    found[path] = self._entry(path, digest)
        if not found:
            raise _Refused(404, X_Error_Code="EntryNotFound")
        return (list(found.values()),)

    def paths_info(self, name, revision, body):
        _, files = self._commit(name, revision)
        found = []
        for path in json.loads(body)["paths"]:
            if path in files:
                found.append(self._entry(path, files[path]))
            elif any(file.startswith(f"{path}/") for file in files):
                found.append(self._entry(path, None))
        return (found,)

    def _entry(self, path, digest):
        if digest is None:
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": path, "oid": digest, "size": (self.hub.folder / digest).stat().st_size}

    def resolve(self, name, revision, path, body):
        commit, files = self._commit(name, revision)
        if path not in files:
            raise _Refused(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        headers = {"ETag": f'"{files[path]}"', "X-Repo-Commit": commit}
        return (self.hub.folder / files[path]).read_bytes(), headers


_NAME = "((?:datasets/)?[^/]+/[^/]+)"
_API = f"/api/(?:models/|(?=datasets/)){_NAME}"
_ROUTES = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate_card),
    ("POST", f"{_API}/preupload/([^/]+)", _Handler.preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/uploads/([0-9a-f]{64})", _Handler.upload),
    ("POST", f"{_API}/commit/([^/]+)", _Handler.commit),
    ("POST", f"{_API}/branch/([^/]+)", _Handler.add_branch),
    ("POST", f"{_API}/tag/([^/]+)", _Handler.add_tag),
    ("GET", f"{_API}(?:/revision/([^/]+))?", _Handler.info),
    ("GET", f"{_API}/tree/([^/]+)(?:/(.+))?", _Handler.tree),
    ("POST", f"{_API}/paths-info/([^/]+)", _Handler.paths_info),
    ("GET", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
