"""The Hugging Face Hub for tests: a server on this machine that takes a library's uploads of models and serves its downloads.
Fresh processes import it too, before the libraries that read where the Hub is; so only the standard library is needed here."""

import base64
import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_REPOSITORY = r"([^/]+/[^/]+)"
TOKEN = "hf_of_the_tests"


def use_hub(address):
    """Has the Hugging Face libraries talk to a [`HubServer`]; to be called before any of them is imported."""
    os.environ |= {"HF_ENDPOINT": address, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}


class HubServer:
    """
    Public model repositories, each with the one branch `main`. A context manager; `address` is for [`use_hub`]. Writing needs
    the token `TOKEN`; any other one is refused, for reading too.

    Args:
        folder: where the contents of files are kept, named by their SHA-256.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.repositories = {}  # name: list of commits, each `(id, {path: SHA-256})`
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self.folder.mkdir(parents=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def files(self, name):
        """`{path: content}` of a repository's last commit."""
        _, files = self.repositories[name][-1]
        return {path: (self.folder / digest).read_bytes() for path, digest in files.items()}

    def add_folder(self, name, folder):
        """A new repository with a folder's files."""
        self.repositories[name] = []
        self.add_commit(name, {file.name: self.store(file.read_bytes()) for file in Path(folder).iterdir()})

    def store(self, content):
        """Keeps a content; returns its SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / digest).write_bytes(content)
        return digest

    def add_commit(self, name, files):
        """A commit of files on top of the last one; returns its id."""
        files = (dict(self.repositories[name][-1][1]) if self.repositories[name] else {}) | files
        commit = hashlib.sha1(json.dumps([len(self.repositories[name]), files]).encode()).hexdigest()
        self.repositories[name].append((commit, files))
        return commit

    def find_commit(self, name, revision):
        """`(id, files)` of `main` or of a commit's id; None if there is none."""
        commits = self.repositories[name]
        if revision == "main":
            return commits[-1] if commits else None
        return next((commit for commit in commits if commit[0] == revision), None)


class _Refused(Exception):
    """The answer to a request that fails: status, and the headers by which the library tells errors apart."""

    def __init__(self, status, **headers):
        self.status, self.headers = status, headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, so every answer states its length

    def log_message(self, *arguments):
        pass

    def _handle(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        try:
            for method, pattern, answer in _ROUTES:
                # An upload goes to the place that the server named before, as if elsewhere: without a token.
                if self.command.replace("HEAD", "GET") == method and (found := re.fullmatch(pattern, path)):
                    self._check_token(writes=method == "POST")
                    return self._send(*answer(self, *found.groups(), body))
            raise _Refused(404)
        except _Refused as refused:
            return self._send({"error": f"{refused.status}"}, refused.headers, refused.status)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

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

    # Each answer takes the groups of its route and the request's body, and returns content and, if any, headers.

    def _commit(self, name, revision):
        if name not in self.hub.repositories:
            raise _Refused(404, X_Error_Code="RepoNotFound")
        commit = self.hub.find_commit(name, revision)
        if commit is None:
            raise _Refused(404, X_Error_Code="RevisionNotFound")
        return commit

    def create(self, body):
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.hub.repositories else 200
        self.hub.repositories.setdefault(name, [])
        return {"url": f"{self.hub.address}/{name}"}, {}, status

    def validate_card(self, body):
        return ({"errors": [], "warnings": []},)

    def preupload(self, name, revision, body):
        # The Hub decides by `.gitattributes` and size; small files come with the commit, others are uploaded beforehand.
        modes = {
            file["path"]: "lfs" if file["path"].endswith((".safetensors", ".bin", ".pt")) else "regular"
            for file in json.loads(body)["files"]
        }
        return (
            {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]},
        )

    def lfs_batch(self, name, body):
        wanted = json.loads(body)["objects"]
        for entry in wanted:
            if not (self.hub.folder / entry["oid"]).exists():
                entry["actions"] = {"upload": {"href": f"{self.hub.address}/uploads/{entry['oid']}"}}
        return ({"transfer": "basic", "objects": wanted},)

    def upload(self, digest, body):
        if self.hub.store(body) != digest:
            raise _Refused(400)
        return ({},)

    def commit(self, name, revision, body):
        files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                files[value["path"]] = value["oid"]
            elif key != "header":
                raise _Refused(501)
        commit = self.hub.add_commit(name, files)
        return ({"commitOid": commit, "commitUrl": f"{self.hub.address}/{name}/commit/{commit}"},)

    def info(self, name, revision, body):
        commit, files = self._commit(name, revision or "main")
        siblings = [{"rfilename": path} for path in files]
        return ({"id": name, "sha": commit, "private": False, "tags": [], "siblings": siblings},)

    def tree(self, name, revision, folder, body):
        _, files = self._commit(name, revision)
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in files if path.startswith(prefix)]
        if not inside:
            raise _Refused(404, X_Error_Code="EntryNotFound")
        size = {path: (self.hub.folder / files[path]).stat().st_size for path in inside}
        return ([{"type": "file", "path": path, "oid": files[path], "size": size[path]} for path in inside],)

    def resolve(self, name, revision, path, body):
        commit, files = self._commit(name, revision)
        if path not in files:
            raise _Refused(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        headers = {"ETag": f'"{files[path]}"', "X-Repo-Commit": commit}
        return (self.hub.folder / files[path]).read_bytes(), headers


_ROUTES = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate_card),
    ("POST", f"/api/models/{_REPOSITORY}/preupload/(main)", _Handler.preupload),
    ("POST", f"/{_REPOSITORY}.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/uploads/([0-9a-f]{64})", _Handler.upload),
    ("POST", f"/api/models/{_REPOSITORY}/commit/(main)", _Handler.commit),
    ("GET", f"/api/models/{_REPOSITORY}(?:/revision/([^/]+))?", _Handler.info),
    ("GET", f"/api/models/{_REPOSITORY}/tree/([^/]+)(?:/(.+))?", _Handler.tree),
    ("GET", f"/{_REPOSITORY}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
