"""HTTP clients without TLS: to load the certificates of the world's authorities, which nobody here asks for, takes a
client 25 ms of a processor, and there are hundreds of clients.
"""

from functools import partial
from typing import Final

import httpx2

client: Final = partial(httpx2.Client, verify=False)
async_client: Final = partial(httpx2.AsyncClient, verify=False)
get: Final = partial(httpx2.get, verify=False)
