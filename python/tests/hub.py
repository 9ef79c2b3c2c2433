"""A server that answers as Hugging Face's hub does: its API, its redirect to a store of files, and some faults."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMITS = {"main": "a" * 40, "v1": "b" * 40, "refs/convert/parquet": "c" * 40}
PAGE = 2
"""Entries in an answer."""


class Hub:
    """A data set ``owner/name``, whose revisions have files by path; with a token, it is a private one."""

    def __init__(self, revisions, token=None):
        self.revisions = {COMMITS[name]: files for name, files in revisions.items()}
        self.token = token
        self.asked = []
        """The path of each request, and whether it had a token."""
        self.next_page_at = None
        """The host that is named for pages after the first; by default this server."""
        self.faults = []
        """The statuses of the next answers."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                hub.answer(self)

            def do_HEAD(self):
                hub.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        url = urlsplit(request.path)
        path, query = unquote(url.path), parse_qs(url.query)
        token = request.headers.get("Authorization")
        self.asked.append((request.command, path, token))
        if self.faults:
            return send(request, self.faults.pop(0), b"")
        if found := re.fullmatch(r"/cdn/(\w+)/(.+)", path):
            # Another host: it would refuse a token that it does not know, as S3 does.
            if token is not None:
                return send(request, 400, b"two ways to authenticate")
            return send_file(request, self.revisions[found[1]][found[2]])
        if self.token is not None and token != f"Bearer {self.token}":
            return send(request, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if found := re.fullmatch(r"/api/datasets/owner/name/revision/(.+)", path):
            commit = COMMITS.get(found[1], found[1])
            if commit not in self.revisions:
                return send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return send(request, 200, json.dumps({"sha": commit, "id": "owner/name"}).encode())
        if found := re.fullmatch(r"/api/datasets/owner/name/tree/([^/]+(?:/convert/parquet)?)/?(.*)", path):
            return self.tree(request, COMMITS.get(found[1], found[1]), found[2], query)
        if found := re.fullmatch(r"/datasets/owner/name/resolve/([^/]+)/(.+)", path):
            commit = COMMITS.get(found[1], found[1])
            if found[2] not in self.revisions.get(commit, {}):
                return send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
            content = self.revisions[commit][found[2]]
            headers = {
                "Location": f"http://localhost:{self.port}/cdn/{commit}/{found[2]}",
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
            }
            return send(request, 302, b"", headers)
        return send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def tree(self, request, commit, folder, query):
        files = self.revisions.get(commit)
        inside = {} if files is None else {p: c for p, c in files.items() if not folder or p.startswith(f"{folder}/")}
        if not inside:
            return send(request, 404, b"{}", {"X-Error-Code": "EntryNotFound"})
        start = len(folder) + 1 if folder else 0
        folders = {path[: start + path[start:].index("/")] for path in inside if "/" in path[start:]}
        is_recursive = query.get("recursive", [""])[0].lower() in ("true", "1")
        entries = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
        for path, content in sorted(inside.items()):
            if is_recursive or "/" not in path[start:]:
                oid = hashlib.sha1(content).hexdigest()
                entries.append({"type": "file", "path": path, "size": len(content), "oid": oid})
        first = int(query.get("cursor", ["0"])[0])
        headers = {}
        if first + PAGE < len(entries):
            recursive = str(is_recursive).lower()
            next_page = f"{request.path.split('?')[0]}?recursive={recursive}&cursor={first + PAGE}"
            headers["Link"] = f'<{self.next_page_at or self.endpoint}{next_page}>; rel="next"'
        return send(request, 200, json.dumps(entries[first : first + PAGE]).encode(), headers)


def send_file(request, content):
    if (asked := request.headers.get("Range")) is None:
        return send(request, 200, content, {"Accept-Ranges": "bytes"})
    first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", asked).groups()
    start = int(first) if first else len(content) - int(last)
    end = min(int(last) + 1, len(content)) if first and last else len(content)
    return send(request, 206, content[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


def send(request, status, body, headers=None):
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
