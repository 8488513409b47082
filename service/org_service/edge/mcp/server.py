"""MCP: four tools for agents, a thin layer over the HTTP API.

Each call of a tool is a request to the API with the caller's own token, so what an agent may do, and what it is told,
is what anybody with that token is told over HTTP or Kafka. At `/mcp` the API is called inside the process; `orgs mcp`
calls it over the network and speaks with its agent over standard input and output.

Arguments are checked only as far as a request can be made of them. Whether a name or an address is right, the worker
says, in its order; a schema that rejected them here would tell more to those who may know less. A rejection is the
result of a tool, never a protocol error: an agent reads the problem and acts on it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple, cast
from uuid import UUID, uuid4

import httpx2
import orjson
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from org_events.results import ProblemType
from org_service.edge.http.limits import WAIT_S, too_many
from org_service.edge.http.problems import TITLES, HttpProblem, Wrong
from org_service.edge.http.request_headers import COMMAND_ID, IDEMPOTENCY_KEY_CHARS_MAX
from org_service.edge.mcp.schemas import CLEARABLE, TOOLS
from org_service.settings import Settings
from org_service.telemetry.logs import get_logger
from org_service.telemetry.tracing import TRACE, TRACEPARENT, active, is_sampled

log = get_logger(__name__)

CALL: Final = "tools/call"
"""The method of a message that calls a tool."""
_NO_OBJECT: Final = "(not an object)"
"""Stands in for the name of an argument, where the arguments as a whole are something else than an object."""
_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}")
NAME: Final = "organizations"
VERSION: Final = "1.0.0"
"""Of the tools: what they take and give."""
_FORWARDED: Final = ("authorization", "x-request-id")
"""Headers of the agent's request that are passed on to the API."""
_CONNECT_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 130.0
"""Longer than the API ever waits for an outcome (`edge.outcome_timeout_s`): it answers first, with 202."""
_RENEWAL: Final = "Put a fresh token into ORGS_TOKEN and restart `orgs mcp`."
_INSTRUCTIONS: Final = (
    "Organizations of a SaaS platform, as the user of your token may see and change them.\n\n"
    "Find an organization with list_organizations and read it with get_organization. Each "
    "result gives the user's role in it\nand denied_actions: do not propose or attempt a "
    "denied action (Organization:update is needed for update_organization,\n"
    "Organization:delete for delete_organization). To change exactly the version you read, "
    "pass it as expected_version.\nFields that you leave out, or send as null, stay "
    "unchanged; to clear a field, list it in clear. An error has a stable\ntype, a detail "
    "that says what to do, and errors by field."
)

_BY_NAME: Final[Mapping[str, Tool]] = {tool.name: tool for tool in TOOLS}

Arguments = dict[str, Any]


class _ApiAnswer(NamedTuple):
    """What the API said."""

    status: int
    content: Any
    command_id: str | None = None
    """Of a change."""


class _ToolError(Exception):
    """The call ends in a problem."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["type"])
        self.problem = problem


def _problem(kind: HttpProblem | ProblemType, detail: str, *errors: Wrong) -> dict[str, Any]:
    status, title = TITLES[kind]
    listed = [error._asdict() for error in errors]
    return {"type": str(kind), "title": title, "status": status, "detail": detail, "errors": listed}


def _bad_request(detail: str, *errors: Wrong) -> dict[str, Any]:
    return _problem(HttpProblem.BAD_REQUEST, detail, *errors)


def _invalid(*errors: Wrong) -> dict[str, Any]:
    return _problem(ProblemType.INVALID_FIELDS, "The arguments are invalid; see errors.", *errors)


class Tools:
    """The tools, on an HTTP API.

    Args:
        api: A client with the API's address; where agents don't bring their own token, with that.
        renewal: How to come by another token where this one is rejected; said to the agent.
    """

    def __init__(self, api: httpx2.AsyncClient, renewal: str = "") -> None:
        self._api = api
        self._renewal = renewal
        self._tools: Mapping[str, Callable[[dict[str, str], Arguments], Awaitable[Any]]] = {
            "list_organizations": self._list_organizations,
            "get_organization": self._get_organization,
            "update_organization": self._update_organization,
            "delete_organization": self._delete_organization,
        }

    async def list_tools(self, _: object, __: PaginatedRequestParams | None) -> ListToolsResult:
        """What there is; the same for everybody."""
        return ListToolsResult(tools=list(TOOLS))

    async def call(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        """Call a tool. What the API rejects, and what can't be asked of it, is a result with `is_error`."""
        try:
            request = context.request
            wait_s = 0 if request is None else request.scope[WAIT_S]
            if wait_s:
                return _error_result(too_many(wait_s).problem)
            arguments = _check_arguments(params.name, params.arguments or {})
            headers = {} if request is None else {n: request.headers[n] for n in _FORWARDED if n in request.headers}
            traceparent = None if request is None else request.scope[TRACE]
            result = await self._call(params.name, headers, arguments, traceparent)
        except _ToolError as rejected:
            return _error_result(rejected.problem)
        return CallToolResult(content=[_text(orjson.dumps(result).decode())], structured_content=result)

    async def _call(self, name: str, headers: dict[str, str], arguments: Arguments, traceparent: str | None) -> Any:
        """Call a tool, inside the trace of the agent's request."""
        tracing = active()
        if tracing is None or not is_sampled(traceparent):
            carried = {} if traceparent is None else {"traceparent": traceparent}
            return await self._tools[name](headers | carried, arguments)
        with tracing.within(f"execute_tool {name}", traceparent, {"gen_ai.tool.name": name}, sends=False):
            return await self._tools[name](headers | {"traceparent": TRACEPARENT.get() or ""}, arguments)

    async def _list_organizations(self, headers: dict[str, str], arguments: Arguments) -> Any:
        query = {name: str(value) for name, value in arguments.items()}
        return (await self._ask("GET", "/v1/orgs", headers, params=query)).content

    async def _get_organization(self, headers: dict[str, str], arguments: Arguments) -> Any:
        return (await self._ask("GET", _take_path(arguments), headers)).content

    async def _update_organization(self, headers: dict[str, str], arguments: Arguments) -> Any:
        path = _take_path(arguments)
        key, keyed = _take_key(headers, arguments)
        fields = _apply_clear(arguments)
        answer = await self._ask("PATCH", path, keyed, json=fields)
        pending = answer.status == 202
        return {
            **_make_result(answer, key),
            "changed": None if pending else await self._changed(answer, headers),
            "organization": None if pending else answer.content,
            **await self._rights(path, headers),
        }

    async def _delete_organization(self, headers: dict[str, str], arguments: Arguments) -> Any:
        path = _take_path(arguments)
        key, keyed = _take_key(headers, arguments)
        return _make_result(await self._ask("DELETE", path, keyed, json=arguments), key)

    async def _changed(self, answer: _ApiAnswer, headers: dict[str, str]) -> Any:
        """The fields that a change changed; None where that can't be learned now."""
        try:
            return (await self._ask("GET", f"/v1/commands/{answer.command_id}", headers)).content.get("changed")
        except _ToolError:
            return None

    async def _rights(self, path: str, headers: dict[str, str]) -> dict[str, Any]:
        """What the user is in an organization that they changed; nothing where it went out of sight a moment later."""
        try:
            seen = (await self._ask("GET", path, headers)).content
        except _ToolError:
            seen = {}
        return {name: seen.get(name) for name in ("role", "access", "denied_actions")}

    async def _ask(self, method: str, path: str, headers: dict[str, str], **request: Any) -> _ApiAnswer:
        """Ask the API.

        Raises:
            _ToolError: It rejected, or gave no answer that can be read; then the outcome of a change isn't known.
        """
        try:
            asked = self._api.build_request(method, path, headers=headers, **request)
        except ValueError as error:  # half a surrogate pair, NaN: JSON takes it, HTTP doesn't
            raise _ToolError(_bad_request("The arguments contain a string that is not valid Unicode.")) from error
        try:
            response = await self._api.send(asked)
        except httpx2.TransportError as error:
            log.warning("the API does not respond", why=type(error).__name__)
            detail = "The organizations API cannot be reached. Call again with the same arguments and idempotency_key."
            raise _ToolError(_problem(HttpProblem.UNAVAILABLE, detail)) from error
        if response.status_code == 204:
            return _ApiAnswer(204, None)
        try:
            content = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            content = None
        if not isinstance(content, dict) or (response.is_error and "type" not in content):
            detail = f"The server at the API's address is not the organizations API (status {response.status_code})."
            raise _ToolError(_problem(HttpProblem.INTERNAL, detail))
        problem = cast("dict[str, Any]", content)
        if response.status_code == 401 and self._renewal:
            problem["detail"] = f"{problem.get('detail') or ''} {self._renewal}".strip()
        if response.is_error:
            raise _ToolError(problem)
        return _ApiAnswer(response.status_code, content, response.headers.get(COMMAND_ID))


def _check_arguments(name: str, arguments: Arguments) -> Arguments:
    """The arguments that are given, if the tool is there and knows them; null is the same as leaving one out.

    Raises:
        _ToolError: It isn't, or doesn't.
    """
    tool = _BY_NAME.get(name)
    if tool is None:
        raise _ToolError(_bad_request(f"Unknown tool. Available tools: {', '.join(_BY_NAME)}."))
    if _NO_OBJECT in arguments:
        message = "Must be an object" + (
            ", not a string with its JSON" if isinstance(arguments[_NO_OBJECT], str) else ""
        )
        raise _ToolError(_invalid(Wrong("arguments", "dict_type", message)))
    known: dict[str, Any] = tool.input_schema["properties"]
    needed: list[str] = tool.input_schema.get("required", [])
    wrong = [
        Wrong(each, "unknown", f"Unknown; available: {', '.join(known)}") for each in arguments if each not in known
    ]
    wrong += [Wrong(each, "missing", "Required") for each in needed if arguments.get(each) is None]
    if wrong:
        raise _ToolError(_bad_request("The arguments are invalid; see errors.", *wrong))
    return {each: value for each, value in arguments.items() if value is not None}


def _apply_clear(arguments: Arguments) -> Arguments:
    """The fields of a change, with null for those that `clear` names.

    Raises:
        _ToolError: It names something else, or what is given a value too.
    """
    fields = dict(arguments)
    named = fields.pop("clear", [])
    if not isinstance(named, list):
        message = "Must be a list" + (", not a string with its JSON" if isinstance(named, str) else "")
        raise _ToolError(_invalid(Wrong("clear", "list_type", message)))
    wrong: list[Wrong] = []
    for index, each in enumerate(cast("list[Any]", named)):
        if each not in CLEARABLE:
            wrong.append(Wrong(f"clear.{index}", "not_clearable", f"Must be one of {', '.join(CLEARABLE)}"))
        elif each in arguments:
            wrong.append(Wrong(f"clear.{index}", "also_given", "Set it or clear it, not both"))
    if wrong:
        raise _ToolError(_invalid(*wrong))
    return fields | dict.fromkeys(cast("list[str]", named))


def _take_path(arguments: Arguments) -> str:
    """The organization's path; takes its id out of the arguments.

    Raises:
        _ToolError: It is no id: what it might make of the path is anybody's guess.
    """
    try:
        return f"/v1/orgs/{UUID(arguments.pop('org_id'))}"
    except (ValueError, AttributeError, TypeError) as error:
        wrong = Wrong("org_id", "not_a_uuid", "Must be an id from list_organizations")
        raise _ToolError(_bad_request("The arguments are invalid; see errors.", wrong)) from error


def _take_key(headers: dict[str, str], arguments: Arguments) -> tuple[str, dict[str, str]]:
    """The key of a change, taken out of the arguments or made up, and the headers with it.

    Raises:
        _ToolError: It can't be a header.
    """
    key = arguments.pop("idempotency_key", None)
    if key is None:
        key = str(uuid4())
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        wrong = Wrong(
            "idempotency_key", "not_a_key", f"Must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters"
        )
        raise _ToolError(_bad_request("The arguments are invalid; see errors.", wrong))
    return key, headers | {"idempotency-key": key}


def _make_result(answer: _ApiAnswer, key: str) -> dict[str, Any]:
    pending = answer.status == 202
    command_id = answer.content["command_id"] if pending else None
    return {"status": "pending" if pending else "done", "idempotency_key": key, "command_id": command_id}


def _describe_problem(problem: dict[str, Any]) -> str:
    """A problem for a reader of text: what is wrong, what to do, which field, and its stable type."""
    errors = [f"- {each['path']}: {each['message']} ({each['code']})" for each in problem.get("errors") or ()]
    first = f"{problem['title']} ({problem['status']}). {problem.get('detail') or ''}".rstrip()
    return "\n".join([first, *errors, f"type: {problem['type']}"])


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def _error_result(problem: dict[str, Any]) -> CallToolResult:
    """A rejection: as text for the agent, and as a problem beside the result for programs.

    Not as structured content: clients hold that against the tool's output schema, of errors too (the TypeScript SDK),
    and fail where the agent should have read why.
    """
    return CallToolResult(content=[_text(_describe_problem(problem))], is_error=True, _meta={"problem": problem})


async def _with_an_object(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Hand on a call whose arguments are not an object: the protocol's reader would reject it without saying why."""
    params = ctx.params
    if ctx.method == CALL and params is not None and not isinstance(params.get("arguments"), dict | None):
        ctx = replace(ctx, params={**params, "arguments": {_NO_OBJECT: params["arguments"]}})
    return await call_next(ctx)


def make_server(api: httpx2.AsyncClient, renewal: str = "") -> Server[Any]:
    """The MCP server on an HTTP API; it does nothing until it is run. Arguments as `Tools`."""
    tools = Tools(api, renewal)
    server: Server[Any] = Server(
        NAME,
        version=VERSION,
        title="Organizations",
        instructions=_INSTRUCTIONS,
        on_list_tools=tools.list_tools,
        on_call_tool=tools.call,
    )
    server.middleware.append(_with_an_object)
    return server


async def serve_stdio(settings: Settings) -> None:
    """Speak MCP over standard input and output until the input ends; the API is asked over the network.

    While it runs, what anything else prints goes to standard error, so that the output holds the protocol alone.

    Raises:
        httpx2.InvalidURL: The API's address is none. Nothing was read or written.
    """
    async with httpx2.AsyncClient(
        base_url=settings.api_url,
        headers={"authorization": f"Bearer {settings.token.get_secret_value()}"},
        timeout=httpx2.Timeout(_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
    ) as api:
        server = make_server(api, _RENEWAL)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
