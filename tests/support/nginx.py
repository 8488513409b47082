"""A real nginx in front of the edge, where one is installed (`make smuggle`)."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.waiting import wait_for

_CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream edge {{ server 127.0.0.1:{edge}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://edge; proxy_http_version 1.1; proxy_set_header Host $http_host; {connection}
    }}
  }}
}}
"""
_STOCK = 'proxy_set_header Connection "";'
_FOR_WEBSOCKET = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def nginx(folder: Path, edge_port: int, *, for_websocket: bool) -> Iterator[int]:
    """Serve on a free port, which is given.

    Args:
        folder: For its files.
        edge_port: Where the edge is.
        for_websocket: Whether `Upgrade` is handed on, as its manual says to do it for WebSocket.
    """
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    assert program is not None, "nginx is not installed"
    port = _free_port()
    text = _CONFIGURATION.format(
        folder=folder, edge=edge_port, port=port, connection=_FOR_WEBSOCKET if for_websocket else _STOCK,
        user="user root root;" if Path("/root").owner() == "root" and Path.home() == Path("/root") else "",
    )  # fmt: skip
    (folder / "nginx.conf").write_text(text)
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:

        def accepts() -> bool:
            assert process.poll() is None, (folder / "error.log").read_text()
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return True
            return False

        wait_for(accepts, "nginx that accepts connections")
        yield port
    finally:
        process.terminate()
        process.wait()
