"""Requests that some reader of HTTP/1.1 reads in another way than others, each with what the server does.

Kinds as in the public collections of request smuggling (CL.TE, TE.CL, TE.TE, CL.0, 0.CL, chunk extensions and line
ends, Host and target, Expect, trailers, Upgrade); the bytes are ours. Each case is the beginning of a connection; a
caller's request follows it at once, and what becomes of that one shows whether both agree where the first ended.
"""

from typing import Final, NamedTuple

POST: Final = b"POST /v1/first HTTP/1.1\r\nHost: x\r\n"
GET: Final = b"GET /v1/first HTTP/1.1\r\nHost: x\r\n"
TE: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"
TE_END: Final = b"0\r\n\r\n"


class Case(NamedTuple):
    """Bytes, and what becomes of them."""

    name: str
    sent: bytes
    status: int | None
    """Of the rejection; None: it is a request, and the one behind it is another."""
    source: str
    """Section of RFC 9112 where no other is named."""
    body: bytes = b""
    """What the application is given."""


def _rejected(source: str, status: int = 400, /, **cases: bytes) -> list[Case]:
    return [Case(name.replace("_", " "), sent, status, source) for name, sent in cases.items()]


CASES: Final = [
    # What is one request, and no more.
    Case("a plain request", GET + b"\r\n", None, "3"),
    Case("one empty line before it", b"\r\n" + GET + b"\r\n", None, "2.2"),
    Case("a length", POST + b"Content-Length: 5\r\n\r\nhello", None, "6.2", b"hello"),
    Case("a length of nought", POST + b"Content-Length: 0\r\n\r\n", None, "6.2"),
    Case("leading noughts", POST + b"Content-Length: 005\r\n\r\nhello", None, "6.2", b"hello"),
    Case("blanks around a value", POST + b"Content-Length:   5  \r\n\r\nhello", None, "5", b"hello"),
    Case("a body of GET", GET + b"Content-Length: 5\r\n\r\nhello", None, "6", b"hello"),
    Case("chunks", TE + b"3\r\nhel\r\n02\r\nlo\r\n0\r\n\r\n", None, "7.1", b"hello"),
    Case("a coding in capitals", POST + b"Transfer-Encoding: Chunked\r\n\r\n" + TE_END, None, "7"),
    Case("a chunk extension", TE + b"5;a=b\r\nhello\r\n0;c\r\n\r\n", None, "7.1.1", b"hello"),
    Case("a request in a chunk", TE + b"1a\r\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n" + TE_END, None, "7.1",
         b"GET /x HTTP/1.1\r\nHost: x\r\n"),
    Case("trailers", TE + b"0\r\nContent-Length: 50\r\nHost: y\r\nAuthorization: z\r\n\r\n", None, "7.1.2"),
    Case("the target as a URL", b"GET http://x/v1/first HTTP/1.1\r\nHost: x\r\n\r\n", None, "3.2.2"),
    Case("an underscore is another header", POST + b"Transfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r", None,
         "5.1", b"0\r"),
    Case("upgrade to h2c", POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
         b"Content-Length: 5\r\n\r\nhello", None, "RFC 9110, 7.8", b"hello"),
    Case("upgrade to a socket", POST + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n"
         b"hello", None, "RFC 9110, 7.8", b"hello"),
    Case("upgrade in chunks", POST + b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"
         b"5\r\nhello\r\n0\r\n\r\n", None, "RFC 9110, 7.8", b"hello"),
    Case("upgrade without a body", GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", None, "RFC 9110, 7.8"),
    # Two lengths.
    *_rejected(
        "6.3",
        length_and_chunks=POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        chunks_and_length=POST + b"Transfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n0\r\n\r\nX",
        two_lengths=POST + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
        the_same_length_twice=POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        a_list_of_lengths=POST + b"Content-Length: 5, 5\r\n\r\nhello",
        codings_in_two_lines=POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + TE_END,
    ),
    # Lengths that are none.
    *_rejected(
        "6.2",
        a_plus=POST + b"Content-Length: +5\r\n\r\nhello",
        a_minus=POST + b"Content-Length: -1\r\n\r\n",
        minus_nought=POST + b"Content-Length: -0\r\n\r\n",
        hexadecimal=POST + b"Content-Length: 0x5\r\n\r\nhello",
        octal=POST + b"Content-Length: 0o5\r\n\r\nhello",
        digits_and_underscore=POST + b"Content-Length: 1_0\r\n\r\nhelloworld",
        a_blank_inside=POST + b"Content-Length: 1 0\r\n\r\nhelloworld",
        no_digits=POST + b"Content-Length: \r\n\r\n",
        not_only_digits=POST + b"Content-Length: 5x\r\n\r\nhello",
        other_digits=POST + b"Content-Length: \xb2\r\n\r\nhe",
        more_than_a_machine_counts=POST + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    ),
    # Codings that aren't `chunked`.
    *_rejected(
        "6.1",
        501,
        gzip_then_chunks=POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + TE_END,
    ),
    *_rejected(
        "6.1 (400 or 501)",
        0,
        chunks_twice=POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + TE_END,
        not_the_last=POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + TE_END,
        xchunked=POST + b"Transfer-Encoding: xchunked\r\n\r\n" + TE_END,
        a_parameter=POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + TE_END,
        a_comma_before=POST + b"Transfer-Encoding: , chunked\r\n\r\n" + TE_END,
        a_comma_behind=POST + b"Transfer-Encoding: chunked,\r\n\r\n" + TE_END,
        identity=POST + b"Transfer-Encoding: identity\r\n\r\n",
        no_coding=POST + b"Transfer-Encoding: \r\n\r\n" + TE_END,
        in_quotes=POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + TE_END,
    ),
    *_rejected("6.1", old_client_with_chunks=b"POST /v1/first HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + TE_END),
    # Lines.
    *_rejected(
        "2.2",
        bare_lf=b"GET /v1/first HTTP/1.1\nHost: x\n\n",
        bare_lf_in_a_header=POST + b"X: y\nContent-Length: 5\r\n\r\nhello",
        bare_lf_at_the_end=GET + b"X: y\r\n\n",
        bare_cr=POST + b"X: y\rContent-Length: 5\r\n\r\nhello",
        bare_cr_before_the_colon=POST + b"Content-Length\r: 5\r\n\r\nhello",
        cr_cr_lf=GET + b"X: y\r\r\n\r\n",
        a_nul=POST + b"Transfer-Encoding: chunked\0\r\n\r\n" + TE_END,
        a_vertical_tab=POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + TE_END,
        a_form_feed=POST + b"Transfer-Encoding: \x0cchunked\r\n\r\n" + TE_END,
        a_delete=GET + b"X: \x7f\r\n\r\n",
        two_empty_lines=b"\r\n\r\n" + GET + b"\r\n",
        a_blank_before_the_first_header=b"GET /v1/first HTTP/1.1\r\n Host: x\r\n\r\n",
    ),
    *_rejected(
        "5.1",
        a_blank_before_the_colon=POST + b"Transfer-Encoding : chunked\r\n\r\n" + TE_END,
        a_tab_before_the_colon=POST + b"Content-Length\t: 5\r\n\r\nhello",
        no_colon=GET + b"Content-Length\r\n\r\n",
        no_name=GET + b": y\r\n\r\n",
        a_name_with_a_blank=GET + b"X Y: z\r\n\r\n",
        a_name_in_brackets=GET + b"X[]: z\r\n\r\n",
        a_name_with_an_umlaut=GET + b"X\xe4: z\r\n\r\n",
    ),
    *_rejected(
        "5.2",
        a_folded_coding=POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + TE_END,
        a_folded_header=GET + b"X: y\r\n\tContent-Length: 5\r\n\r\nhello",
    ),
    # Chunks.
    *_rejected(
        "7.1",
        a_chunk_with_a_plus=TE + b"+0\r\n\r\nX",
        a_chunk_with_a_minus=TE + b"-1\r\nhello\r\n0\r\n\r\n",
        a_chunk_with_0x=TE + b"0x5\r\nhello\r\n0\r\n\r\n",
        a_chunk_with_an_underscore=TE + b"1_0\r\nhello world!!!!!\r\n0\r\n\r\n",
        a_blank_before_the_size=TE + b" 5\r\nhello\r\n0\r\n\r\n",
        a_blank_behind_the_size=TE + b"5 \r\nhello\r\n0\r\n\r\n",
        no_size=TE + b"\r\nhello\r\n0\r\n\r\n",
        a_huge_chunk=TE + b"fffffffff\r\nhello\r\n0\r\n\r\n",
        a_chunk_that_wraps=TE + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        a_chunk_that_is_longer=TE + b"5\r\nhello!!\r\n0\r\n\r\n",
        a_chunk_without_its_end=TE + b"5\r\nhello0\r\n\r\n",
        lf_behind_the_size=TE + b"5\nhello\r\n0\r\n\r\n",
        lf_behind_the_data=TE + b"5\r\nhello\n0\r\n\r\n",
        lf_behind_the_end=TE + b"5\r\nhello\r\n0\r\n\n",
        cr_behind_the_size=TE + b"5\rhello\r\n0\r\n\r\n",
    ),
    *_rejected(
        "7.1.1",
        lf_in_an_extension=TE + b"5;a\nhello\r\n0\r\n\r\n",
        cr_in_an_extension=TE + b"5;a\rX\r\nhello\r\n0\r\n\r\n",
        nul_in_an_extension=TE + b"5;\0\r\nhello\r\n0\r\n\r\n",
        an_endless_extension=TE + b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n",
    ),
    *_rejected(
        "7.1.2",
        lf_in_a_trailer=TE + b"0\r\nX: y\nZ: z\r\n\r\n",
        a_folded_trailer=TE + b"0\r\nX: y\r\n z\r\n\r\n",
        a_request_for_a_trailer=TE + b"0\r\nGET /v1/second HTTP/1.1\r\n\r\n",
    ),
    *_rejected("7.1.2", 431, endless_trailers=TE + b"0\r\n" + b"X: 0123456789\r\n" * 400),
    # Host and target.
    *_rejected(
        "3.2",
        no_host=b"GET /v1/first HTTP/1.1\r\n\r\n",
        two_hosts=GET + b"Host: y\r\n\r\n",
        the_same_host_twice=GET + b"Host: x\r\n\r\n",
        two_hosts_in_one=b"GET /v1/first HTTP/1.1\r\nHost: x, y\r\n\r\n",
        a_host_with_a_path=b"GET /v1/first HTTP/1.1\r\nHost: x/y\r\n\r\n",
        a_host_with_a_user=b"GET /v1/first HTTP/1.1\r\nHost: a@x\r\n\r\n",
        another_host_in_the_url=b"GET http://y/v1/first HTTP/1.1\r\nHost: x\r\n\r\n",
        a_fragment=b"GET /v1/first#x HTTP/1.1\r\nHost: x\r\n\r\n",
        no_path=b"GET v1/first HTTP/1.1\r\nHost: x\r\n\r\n",
        a_tunnel=b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
        a_broken_escape=b"GET /v1/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        not_utf8=b"GET /v1/%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    # The request line.
    *_rejected(
        "3",
        two_blanks=b"GET  /v1/first HTTP/1.1\r\nHost: x\r\n\r\n",
        a_tab=b"GET\t/v1/first HTTP/1.1\r\nHost: x\r\n\r\n",
        a_blank_at_the_end=b"GET /v1/first HTTP/1.1 \r\nHost: x\r\n\r\n",
        a_blank_in_the_target=b"GET /v1/fi rst HTTP/1.1\r\nHost: x\r\n\r\n",
        small_letters=b"get /v1/first HTTP/1.1\r\nHost: x\r\n\r\n",
        no_version=b"GET /v1/first\r\nHost: x\r\n\r\n",
        another_protocol=b"GET /v1/first HTCPCP/1.1\r\nHost: x\r\n\r\n",
        a_version_with_a_nought=b"GET /v1/first HTTP/01.1\r\nHost: x\r\n\r\n",
        a_target_beyond_ascii=b"GET /v1/\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n",
        tls=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    ),
    *_rejected("2.3", 505, http2=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", http_1_2=b"GET / HTTP/1.2\r\nHost: x\r\n\r\n"),
    # Too much.
    *_rejected(
        "5.4",
        431,
        a_long_target=b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        many_headers=GET + b"X: y\r\n" * 200 + b"\r\n",
    ),
]  # fmt: skip
