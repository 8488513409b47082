"""An OpenID provider for tests: it signs in whomever the test names, without asking, and is strict about the rest."""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.support.edge import People
from tests.support.issuer import ISSUER

CLIENT_ID = "orgs-console"
CLIENT_SECRET = "between us"


class Provider:
    """What the provider does, and what a test makes it do."""

    def __init__(self, people: People) -> None:
        self.people = people
        self.user = "root"
        self.url = ""
        self.claims: dict[str, Any] = {}
        """More claims of the next id tokens; None takes one away."""
        self.codes: dict[str, Mapping[str, str]] = {}
        self.described: dict[str, Any] = {}
        """What it says of itself that is not so."""
        self.held: list[str] | None = None
        """Where browsers would have gone back to, while none is let go."""
        self.refusals: list[str] = []
        """Why a code was not exchanged."""

    @property
    def discovery_url(self) -> str:
        return f"{self.url}/.well-known/openid-configuration"

    def describe(self) -> dict[str, Any]:
        endpoints = {"authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token"}
        return {"issuer": ISSUER, **endpoints, **self.described}

    def authorize(self, asked: Mapping[str, str]) -> str:
        """Where the browser goes from here."""
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        code = secrets.token_urlsafe(8)
        self.codes[code] = dict(asked)
        back = f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
        if self.held is None:
            return back
        self.held.append(back)
        return f"{self.url}/held"

    def exchange(self, form: Mapping[str, str], authorization: str) -> dict[str, Any] | None:
        """The answer to a code; None where something about it is wrong."""
        asked = self.codes.pop(form["code"], None)
        login = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if asked is None:
            return self._refuse("no such code")
        if authorization != f"Basic {login}":
            return self._refuse("another client")
        if not _is_verified(asked, form) or form["redirect_uri"] != asked["redirect_uri"]:
            return self._refuse("another browser")
        claims: dict[str, Any] = {"aud": CLIENT_ID, "nonce": asked.get("nonce"), **self.claims}
        return {"id_token": self.people.token(self.user, **claims), "token_type": "Bearer", "access_token": "unused"}

    def _refuse(self, why: str) -> None:
        self.refusals.append(why)


def _is_verified(asked: Mapping[str, str], form: Mapping[str, str]) -> bool:
    """RFC 7636, section 4.6; who asked without a challenge is not asked for a verifier, as at most issuers."""
    if "code_challenge" not in asked:
        return True
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]


@contextmanager
def providing(people: People) -> Iterator[Provider]:
    """A provider that listens."""
    provider = Provider(people)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            target = urlsplit(self.path)
            if target.path == "/authorize":
                self.send_response(302)
                self.send_header("location", provider.authorize(dict(parse_qsl(target.query))))
                self.send_header("content-length", "0")
                self.end_headers()
            else:
                self._answer(provider.describe())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            self._answer(provider.exchange(dict(parse_qsl(body)), self.headers.get("authorization", "")))

        def _answer(self, document: dict[str, Any] | None) -> None:
            content = json.dumps(document or {"error": "invalid_grant"}).encode()
            self.send_response(400 if document is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
