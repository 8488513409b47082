"""Paths and queries as they were sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org_service.edge.http.problems import ProblemError
from org_service.edge.http.target import clean_query, decode_path


@pytest.mark.parametrize(
    ("raw_path", "path"),
    [
        (b"/v1/orgs%2Fa", "/v1/orgs%2Fa"),
        (b"/v1/orgs/a%2fhistory", "/v1/orgs/a%2Fhistory"),
        (b"/v1/orgs/a%252Fb", "/v1/orgs/a%2Fb"),
        (b"/v1/%6Frgs/%C3%A9", "/v1/orgs/\u00e9"),
    ],
)
def test_an_encoded_slash_is_not_a_slash(raw_path: bytes, path: str) -> None:
    assert decode_path(raw_path) == path


@pytest.mark.parametrize(
    ("raw", "query"),
    [
        (b"", b""),
        (b"search=&access=&order_by=&limit=&cursor=", b""),
        (b"search=a&access=&limit=2", b"search=a&limit=2"),
        (b"search=%00", b"search=%00"),
        (b"search=+&x", b"search=+"),
        (b"&&search=%C3%A9", b"search=%C3%A9"),
    ],
)
def test_an_empty_parameter_counts_as_absent(raw: bytes, query: bytes) -> None:
    assert clean_query(raw) == query


@pytest.mark.parametrize(
    ("raw", "name"),
    [(b"search=%ff", "search"), (b"search=a%C3", "search"), (b"search=\xe9", "search"), (b"%ff=a", "\ufffd")],
)
def test_a_parameter_that_is_not_utf_8_is_rejected_by_name(raw: bytes, name: str) -> None:
    with pytest.raises(ProblemError) as rejected:
        clean_query(b"limit=2&" + raw)
    assert rejected.value.status == 400
    assert [(each["path"], each["code"]) for each in rejected.value.problem["errors"]] == [(name, "not_utf8")]


@given(st.binary(max_size=50))
def test_any_query_is_read_or_rejected_with_400(raw: bytes) -> None:
    statuses: set[int] = set()
    try:
        clean_query(raw)
    except ProblemError as rejection:
        statuses.add(rejection.status)
    assert statuses <= {400}
