"""MCP: four tools for agents, a thin layer over the HTTP API.

Each call of a tool is a request to the API with the caller's own token, so what an agent may do, and what it is told,
is what anybody with that token is told over HTTP or Kafka. At `/mcp` the API is called inside the process; `orgs mcp`
calls it over the network and speaks with its agent over standard input and output.

Arguments are checked only as far as a request can be made of them. Whether a name or an address is right, the worker
says, in its order; a schema that refused them here would tell more to those who may know less. A refusal is the result
of a tool, never a protocol error: an agent reads the problem and acts on it.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, cast
from uuid import UUID, uuid4

import httpx2
import orjson
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.applications import Starlette
from starlette.routing import Route

from org_service.edge.mcp_schemas import (
    KEY_CHARS_MAX,
    Changed,
    DeleteArguments,
    Deleted,
    GetArguments,
    ListArguments,
    UpdateArguments,
    given,
    taken,
)
from org_service.edge.models import OrganizationList, SeenOrganization
from org_service.edge.problems import TITLES, HttpProblem, Wrong
from org_service.serving.exchange import Receive, Scope, Send
from org_service.settings import Edge, Settings
from org_service.telemetry import get_logger

log = get_logger(__name__)

PATH: Final = "/mcp"
_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{KEY_CHARS_MAX}}}")
NAME: Final = "organizations"
VERSION: Final = "1.0.0"
"""Of the tools: what they take and give."""
_FORWARDED: Final = ("authorization", "traceparent", "x-request-id")
"""Headers of the agent's request that go on to the API."""
_CONNECT_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 130.0
"""Longer than the API ever waits for an outcome (`edge.outcome_timeout_s`): it answers first, with 202."""
_INSTRUCTIONS: Final = """Organizations of a SaaS platform, as the user behind your token may see and change them.

Find an organization with list_organizations, look at it with get_organization. Each result says the user's role in it
and denied_actions: don't propose or try what is denied there (Organization:update is for update_organization,
Organization:delete for delete_organization). To change exactly what you looked at, pass its version as
expected_version. A refusal has a stable type, a detail that says what to do, and errors by field."""

_READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
TOOLS: Final = (
    Tool(
        name="list_organizations",
        title="List organizations",
        description="List the organizations that the user can see, one page at a time, with the user's role in each, "
        "why they see it (access) and what they are denied. Search by the beginning of the name or of the e-mail "
        "domain. If next isn't null there is more: call again with cursor set to it and all else the same. "
        "is_default marks the user's own default organization.",
        input_schema=taken(ListArguments),
        output_schema=given(OrganizationList),
        annotations=_READS,
    ),
    Tool(
        name="get_organization",
        title="Get an organization",
        description="Get one organization: name, e-mail domain, postal address, whether it is deactivated, its "
        "version, the user's role in it and what they are denied. One that the user can't see is not found.",
        input_schema=taken(GetArguments),
        output_schema=given(SeenOrganization),
        annotations=_READS,
    ),
    Tool(
        name="update_organization",
        title="Update an organization",
        description="Change the name, e-mail domain or postal address of an organization. A field left out stays as it "
        "is; null clears domain or primary_address; primary_address is replaced whole, so give all of its lines. Pass "
        "the version you saw as expected_version to be refused, rather than overwrite, if somebody changed it since. "
        "The result is the organization as it is now. If status is pending, the change is accepted but not decided "
        "yet: call again with the same arguments and the idempotency_key of the result, and nothing is done twice.",
        input_schema=taken(UpdateArguments),
        output_schema=given(Changed),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    ),
    Tool(
        name="delete_organization",
        title="Delete an organization",
        description="Delete an organization for everybody: nobody sees it any more, its name is free for others, and "
        "only staff can restore it. Ask the user before. Pass the version you saw as expected_version to be refused "
        "if somebody changed it since. Refused while it is a partner that serves other organizations.",
        input_schema=taken(DeleteArguments),
        output_schema=given(Deleted),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    ),
)
_BY_NAME: Final[Mapping[str, Tool]] = {tool.name: tool for tool in TOOLS}

Arguments = dict[str, Any]


class _Answer(NamedTuple):
    """What the API said."""

    status: int
    content: Any


class _Refused(Exception):
    """The call ends in a problem."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["type"])
        self.problem = problem


def _problem(kind: HttpProblem, detail: str, *errors: Wrong) -> dict[str, Any]:
    status, title = TITLES[kind]
    listed = [error._asdict() for error in errors]
    return {"type": str(kind), "title": title, "status": status, "detail": detail, "errors": listed}


def _bad_request(detail: str, *errors: Wrong) -> dict[str, Any]:
    return _problem(HttpProblem.BAD_REQUEST, detail, *errors)


class Tools:
    """The tools, on an HTTP API.

    Args:
        api: A client with the API's address; where agents don't bring their own token, with that.
    """

    def __init__(self, api: httpx2.AsyncClient) -> None:
        self._api = api

    async def list(self, _: object, __: PaginatedRequestParams | None) -> ListToolsResult:
        """What there is; the same for everybody."""
        return ListToolsResult(tools=list(TOOLS))

    async def call(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        """Call a tool. What the API refuses, and what can't be asked of it, is a result with `is_error`."""
        try:
            arguments = _checked(params.name, params.arguments or {})
            request = context.request
            headers = {} if request is None else {n: request.headers[n] for n in _FORWARDED if n in request.headers}
            result = await getattr(self, f"_{params.name}")(headers, arguments)
        except _Refused as refused:
            return _result(refused.problem, _in_words(refused.problem), is_error=True)
        return _result(result, orjson.dumps(result).decode(), is_error=False)

    async def _list_organizations(self, headers: dict[str, str], arguments: Arguments) -> Any:
        query = {name: str(value) for name, value in arguments.items() if value is not None}
        return (await self._ask("GET", "/v1/orgs", headers, params=query)).content

    async def _get_organization(self, headers: dict[str, str], arguments: Arguments) -> Any:
        return (await self._ask("GET", _path(arguments), headers)).content

    async def _update_organization(self, headers: dict[str, str], arguments: Arguments) -> Any:
        path, (key, keyed) = _path(arguments), _keyed(headers, arguments)
        answer = await self._ask("PATCH", path, keyed, json=arguments)
        organization = None if answer.status == 202 else answer.content
        return {**_done(answer, key), "organization": organization, **await self._rights(path, headers)}

    async def _delete_organization(self, headers: dict[str, str], arguments: Arguments) -> Any:
        path, (key, keyed) = _path(arguments), _keyed(headers, arguments)
        return _done(await self._ask("DELETE", path, keyed, json=arguments), key)

    async def _rights(self, path: str, headers: dict[str, str]) -> dict[str, Any]:
        """What the user is in an organization that they changed; nothing where it went out of sight a moment later."""
        try:
            seen = (await self._ask("GET", path, headers)).content
        except _Refused:
            seen = {}
        return {name: seen.get(name) for name in ("role", "access", "denied_actions")}

    async def _ask(self, method: str, path: str, headers: dict[str, str], **request: Any) -> _Answer:
        """Ask the API.

        Raises:
            _Refused: It refused, or gave no answer that can be read; then it isn't known what became of a change.
        """
        try:
            asked = self._api.build_request(method, path, headers=headers, **request)
        except ValueError as error:  # half a surrogate pair, NaN: JSON takes it, HTTP doesn't
            raise _Refused(_bad_request("The arguments can't be sent: they hold what is no text.")) from error
        try:
            response = await self._api.send(asked)
        except httpx2.TransportError as error:
            log.warning("the API doesn't answer", why=type(error).__name__)
            detail = "The organizations API can't be reached. Call again with the same arguments and idempotency_key."
            raise _Refused(_problem(HttpProblem.UNAVAILABLE, detail)) from error
        if response.status_code == 204:
            return _Answer(204, None)
        try:
            content = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            content = None
        if not isinstance(content, dict) or (response.is_error and "type" not in content):
            detail = f"What answers at the API's address is not the organizations API (status {response.status_code})."
            raise _Refused(_problem(HttpProblem.INTERNAL, detail))
        if response.is_error:
            raise _Refused(cast("dict[str, Any]", content))
        return _Answer(response.status_code, content)


def _checked(name: str, arguments: Arguments) -> Arguments:
    """The arguments, if the tool is there and knows them.

    Raises:
        _Refused: It isn't, or doesn't.
    """
    tool = _BY_NAME.get(name)
    if tool is None:
        raise _Refused(_bad_request(f"There is no such tool; there are {', '.join(_BY_NAME)}."))
    known: dict[str, Any] = tool.input_schema["properties"]
    needed: list[str] = tool.input_schema.get("required", [])
    wrong = [Wrong(each, "unknown", f"There is only {', '.join(known)}") for each in arguments if each not in known]
    wrong += [Wrong(each, "missing", "Must be given") for each in needed if each not in arguments]
    if wrong:
        raise _Refused(_bad_request("The arguments are wrong; see errors.", *wrong))
    return dict(arguments)


def _path(arguments: Arguments) -> str:
    """The organization's path; takes its id out of the arguments.

    Raises:
        _Refused: It is no id: what it might make of the path is anybody's guess.
    """
    try:
        return f"/v1/orgs/{UUID(arguments.pop('org_id'))}"
    except (ValueError, AttributeError, TypeError) as error:
        wrong = Wrong("org_id", "not_a_uuid", "Must be an id as list_organizations gives it")
        raise _Refused(_bad_request("The arguments are wrong; see errors.", wrong)) from error


def _keyed(headers: dict[str, str], arguments: Arguments) -> tuple[str, dict[str, str]]:
    """The key of a change, taken out of the arguments or made up, and the headers with it.

    Raises:
        _Refused: It can't be a header.
    """
    key = arguments.pop("idempotency_key", None)
    if key is None:
        key = str(uuid4())
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        wrong = Wrong("idempotency_key", "not_a_key", f"Must be 1 to {KEY_CHARS_MAX} visible ASCII characters")
        raise _Refused(_bad_request("The arguments are wrong; see errors.", wrong))
    return key, headers | {"idempotency-key": key}


def _done(answer: _Answer, key: str) -> dict[str, Any]:
    pending = answer.status == 202
    command_id = answer.content["command_id"] if pending else None
    return {"status": "pending" if pending else "done", "idempotency_key": key, "command_id": command_id}


def _in_words(problem: dict[str, Any]) -> str:
    """A problem for a reader of text: what is wrong, what to do, which field, and its stable type."""
    errors = [f"- {each['path']}: {each['message']} ({each['code']})" for each in problem.get("errors") or ()]
    first = f"{problem['title']} ({problem['status']}). {problem.get('detail') or ''}".rstrip()
    return "\n".join([first, *errors, f"type: {problem['type']}"])


def _result(structured: Any, words: str, *, is_error: bool) -> CallToolResult:
    content: list[Any] = [TextContent(type="text", text=words)]
    return CallToolResult(content=content, structured_content=structured, is_error=is_error)


def make_server(api: httpx2.AsyncClient) -> Server[Any]:
    """The MCP server on an HTTP API; it does nothing until it is run."""
    tools = Tools(api)
    return Server(
        NAME,
        version=VERSION,
        title="Organizations",
        instructions=_INSTRUCTIONS,
        on_list_tools=tools.list,
        on_call_tool=tools.call,
    )


class Mounted:
    """MCP over streamable HTTP, without sessions: any replica answers any request, with JSON."""

    def __init__(self, app: Starlette, edge: Edge) -> None:
        transport = httpx2.ASGITransport(app=app)
        self._api = httpx2.AsyncClient(transport=transport, base_url="http://orgs", timeout=None)
        self._sessions = StreamableHTTPSessionManager(
            make_server(self._api),
            json_response=True,
            stateless=True,
            security_settings=_security(edge),
            max_request_body_size=edge.body_bytes_max,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, which the gate let in."""
        await self._sessions.handle_request(scope, receive, send)

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Answer requests inside this block; once, and left by the task that entered it."""
        async with self._api, self._sessions.run():
            yield


def mount(app: Starlette, edge: Edge) -> Mounted:
    """Put MCP at `/mcp` of the application whose API it calls; `run` must be entered before the first request."""
    mounted = Mounted(app, edge)
    # POST alone: without sessions there is no stream to open with GET, nor one to DELETE.
    app.router.routes.append(Route(PATH, mounted, methods=["POST"]))
    return mounted


def _security(edge: Edge) -> TransportSecuritySettings:
    """Against web pages that make a browser ask on their behalf (DNS rebinding): known names and origins only.

    Who binds to more than loopback and says no `public_url` has names that nobody here knows: then any will do. A page
    doesn't get the token that every request needs in either case.
    """
    loopback = ["127.0.0.1", "localhost", "[::1]"]
    public = httpx2.URL(edge.public_url) if edge.public_url else None
    if public is None and edge.host not in (*loopback, "::1"):
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    hosts = [f"{name}:*" for name in loopback] + loopback
    origins = [f"http://{host}" for host in hosts] + list(edge.cors_origins)
    if public is not None:
        host = public.netloc.decode("ascii")
        hosts += [host]
        origins += [f"{public.scheme}://{host}"]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)


async def serve_stdio(settings: Settings) -> None:
    """Speak MCP over standard input and output until the input ends; the API is asked over the network.

    While it runs, what anything else prints goes to standard error, so that the output holds the protocol alone.
    """
    async with httpx2.AsyncClient(
        base_url=settings.api_url,
        headers={"authorization": f"Bearer {settings.token.get_secret_value()}"},
        timeout=httpx2.Timeout(_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
    ) as api:
        server = make_server(api)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
