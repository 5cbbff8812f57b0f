"""A loopback HTTP server that stands in for huggingface.co, and for any other host of files."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Answers ``HEAD`` and ``GET /{org}/{repo}/resolve/main/{file}`` as the hub does; use it as a context manager.

    ``repos`` holds ``{"org/repo": {"file": content}}``, ``files`` ``{"/path": content}``; ``requests`` lists what was
    asked, as ``"GET /path"``.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos = {}
        self.files = {}
        self.requests = []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *args):
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer(send_body=False)

    def do_GET(self):
        self._answer(send_body=True)

    def _answer(self, send_body):
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        repo, resolve, filename = path[1:].partition("/resolve/main/")
        if resolve and repo not in self.server.repos:
            self._reply(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif resolve and filename not in self.server.repos[repo]:
            self._reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        elif resolve or path in self.server.files:
            content = self.server.repos[repo][filename] if resolve else self.server.files[path]
            # the hub's ETag of a large file is its SHA-256
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._reply(200, {"Content-Length": str(len(content)), "ETag": etag, "X-Repo-Commit": COMMIT})
            if send_body:
                self.wfile.write(content)
        else:
            self._reply(404, {})

    def _reply(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
