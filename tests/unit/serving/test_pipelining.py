"""Requests of one connection that are sent without waiting for answers: each is run once, whole, and in its turn."""

import asyncio
import random
from typing import Any

from org_service.serving.exchange import CONNECTION
from tests.support.waiting import until
from tests.unit.serving.serving import Run, connected, on_both_loops, serving

INNER = b"DELETE /inner HTTP/1.1\r\nhost: x\r\n\r\n"


class Caller:
    """An application that knows everybody: it reads each request whole, and answers with its path."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.in_flight = self.in_flight_max = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope[CONNECTION].known = True
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.seen.append((scope["method"], scope["path"], body))
        await self.decide(scope)
        self.in_flight -= 1
        path = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(path))]})
        await send({"type": "http.response.body", "body": path})

    async def decide(self, scope: Any) -> None:
        """What there is to do before the answer."""


def post(path: str, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


@on_both_loops
def test_a_body_that_comes_as_the_answer_before_it_goes_out_is_never_read_as_a_request(run: Run) -> None:
    second = post("/2", INNER)

    class Meeting(Caller):
        async def decide(self, scope: Any) -> None:
            if scope["path"] == "/1":  # the rest comes in the turn of the loop in which this is answered
                asyncio.get_running_loop().call_soon(scope[CONNECTION].data_received, second[20:])

    async def main() -> None:
        app = Meeting()
        async with serving(app) as server, connected(server) as client:
            client.send(post("/1", b"{}") + second[:20])
            assert (await client.answer()).endswith(b"/1")
            assert (await client.answer()).endswith(b"/2")
            client.send(post("/3", b"[]"))
            assert (await client.answer()).endswith(b"/3")
        assert app.seen == [("POST", "/1", b"{}"), ("POST", "/2", INNER), ("POST", "/3", b"[]")]

    run(main())


@on_both_loops
def test_pipelined_posts_sent_in_pieces_are_run_whole_and_in_sequence(run: Run) -> None:
    rng = random.Random(7)
    sent = [(f"/{number}", INNER + b"x" * rng.randrange(3_000)) for number in range(150)]
    data = b"".join(post(*each) for each in sent)

    class Slow(Caller):
        async def decide(self, scope: Any) -> None:
            await asyncio.sleep(rng.choice((0, 0, 0.001)))

    async def main() -> None:
        for _ in range(2):
            app = Slow()
            async with serving(app) as server, connected(server) as client:
                at = 0
                while at < len(data):
                    size = rng.randrange(1, 4_000)
                    client.send(data[at : at + size])
                    at += size
                    await asyncio.sleep(rng.choice((0, 0, 0.0005)))
                await until(lambda app=app: len(app.seen) >= len(sent) or not len(server))
                for path, _ in sent:
                    assert (await client.answer()).endswith(path.encode())
            assert app.seen == [("POST", *each) for each in sent]
            assert app.in_flight_max == 1

    run(main())
