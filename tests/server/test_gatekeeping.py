"""Who is let in: hosts, origins, tokens, methods; what an answer carries; and that no name leads out of what is served."""

from __future__ import annotations

import contextlib
import socket

import pytest
from served import TOKEN, Served, document_of, serving, shelf_of_one

import tokentape
from tokentape import Line, ScriptedSource
from tokentape.server.folder import Shelf
from tokentape.server.gatekeeping import SECURITY_HEADERS, Gate


@pytest.fixture(scope="module")
def tape_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tapes") / "cat.tape"
    source = ScriptedSource([Line(5, [" mat"]), Line(1, ["</script><script>alert(1)</script>"])])
    tokentape.record(source, "The cat", path=path, probe="timing").close()
    return path


@pytest.fixture(scope="module")
def served(tape_path):
    with serving(shelf_of_one(tape_path)) as found:
        yield found


def raw(served: Served, request: bytes) -> bytes:
    """What the server says to bytes that no client would send; it closes the connection where they ask for it, or are none."""
    with socket.create_connection(("127.0.0.1", served.gate.port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # it does not read to the end what it refuses
            while chunk := connection.recv(65536):
                answer += chunk
    return answer


def test_the_printed_address_leads_to_the_page_and_leaves_no_token_in_it(served):
    with served.client(entered=False) as client:
        first = client.get("/", params={"token": TOKEN})
        assert first.status_code == 303
        assert first.headers["location"] == "/"
        cookie = first.headers["set-cookie"].lower()
        assert all(
            word in cookie for word in ("httponly", "samesite=strict", "path=/", f"tokentape-{served.gate.port}=")
        )
        page = client.get("/")
    assert page.status_code == 200
    assert TOKEN not in page.text
    assert document_of(page.text)["tape"]["name"] == "cat.tape"


def test_a_link_that_was_followed_elsewhere_leads_on_from_a_page_of_ours(served):
    """A browser would not send a strict cookie on a redirect of such a navigation."""
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    with served.client(entered=False) as client:
        answer = client.get(
            "/tape?name=%22%3E%3Cscript%3E", params={"token": TOKEN, "name": '"><script>'}, headers=link
        )
        assert answer.status_code == 200 and "samesite=strict" in answer.headers["set-cookie"].lower()
        assert 'content="0;url=/tape?name=%22%3E%3Cscript%3E"' in answer.text and TOKEN not in answer.text


def test_a_ticket_lets_in_once(served):
    ticket = served.gate.ticket()
    with served.client(entered=False) as client:
        assert client.get("/", params={"ticket": ticket[:-1]}).status_code == 403
        assert client.get("/", params={"ticket": ticket}).status_code == 303
        assert client.get("/").status_code == 200
    with served.client(entered=False) as client:
        assert client.get("/", params={"ticket": ticket}).status_code == 403
        assert client.get("/", params={"ticket": ""}).status_code == 403


def test_what_follows_the_token_in_an_address_stays(served):
    with served.client(entered=False) as client:
        answer = client.get(f"/tape?name=a%26b&token={TOKEN}")
    assert answer.headers["location"] == "/tape?name=a%26b"


@pytest.mark.parametrize(
    "path", ["//elsewhere.example", "/\\elsewhere.example", "/%2f%2felsewhere.example", "/%5celsewhere.example"]
)
def test_the_token_leads_nowhere_else(served, path):
    answer = raw(
        served,
        f"GET {path}?token={TOKEN} HTTP/1.1\r\nHost: 127.0.0.1:{served.gate.port}\r\nConnection: close\r\n\r\n".encode(),
    )
    location = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"location:")).split(b": ")[1]
    assert location.startswith(b"/") and location[1:2] not in (b"/", b"\\")


@pytest.mark.parametrize("path", ["/", "/tape", "/events", "/static/view.js", "/compare", "/folder/events", "/nothing"])
@pytest.mark.parametrize("given", [None, "", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é"])
def test_nothing_without_the_token(served, path, given):
    with served.client(entered=False) as client:
        answer = client.get(path, params=None if given is None else {"token": given})
        assert answer.status_code == 403
        assert "cat" not in answer.text and "set-cookie" not in answer.headers
        headers = {} if given is None else {"cookie": f"{served.gate.cookie}={given}".encode()}
        assert client.get(path, headers=headers).status_code == 403


def test_the_cookie_of_another_port_does_not_count(served):
    with served.client(entered=False) as client:
        assert client.get("/", headers={"cookie": f"tokentape-1={TOKEN}"}).status_code == 403
        assert client.get("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/", headers={"authorization": f"Basic {TOKEN}"}).status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1.evil.example:{port}",
        "evil.example:{port}",
        "192.168.0.1:{port}",
        "localhost",
        "0.0.0.0:{port}",
        "",
        "[::1]",
        "user@127.0.0.1:{port}",
        "127.1:{port}",
    ],
)
def test_a_name_that_is_not_ours_is_refused_token_or_not(served, host):
    with served.client() as client:
        answer = client.get("/", headers={"host": host.format(port=served.gate.port)})
    assert answer.status_code in (400, 403)  # 400: no host at all
    assert "cat" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
def test_the_names_of_the_machine_are_ours(served, host):
    with served.client() as client:
        assert client.get("/", headers={"host": host.format(port=served.gate.port)}).status_code == 200


def test_two_hosts_or_none_are_refused(served):
    ours = f"Host: 127.0.0.1:{served.gate.port}\r\n"
    cookie = f"Cookie: {served.gate.cookie}={TOKEN}\r\nConnection: close\r\n\r\n"
    for request in (
        f"GET / HTTP/1.1\r\n{ours}Host: evil.example\r\n{cookie}",
        f"GET / HTTP/1.1\r\n{cookie}",
        f"GET / HTTP/1.0\r\n{cookie}",
    ):
        status = raw(served, request.encode()).split(b"\r\n")[0]
        assert status.split(b" ")[1] in (b"400", b"403"), request


def test_an_address_instead_of_a_path_is_judged_by_its_host(served):
    answer = raw(
        served,
        f"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n"
        f"Cookie: {served.gate.cookie}={TOKEN}\r\n\r\n".encode(),
    )
    assert answer.split(b" ")[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}", "http://localhost:{port}", ""],
)
def test_another_page_is_refused(served, origin):
    with served.client() as client:
        answer = client.get("/events", headers={"origin": origin.format(port=served.gate.port)})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_sends_for_another_site_is_refused_but_a_link_may_be_followed(served, site):
    with served.client() as client:
        assert client.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}).status_code == 403
        framed = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
        assert client.get("/", headers=framed).status_code == 403
        link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert client.get("/", headers=link).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/explain", "/events", "/tape"])
def test_nothing_can_be_changed(served, method, path):
    with served.client() as client:
        answer = client.request(method, path)
    assert answer.status_code in (403, 405)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_every_answer_carries_the_headers(served):
    with served.client() as client:
        answers = [
            client.get("/"),
            client.get("/static/view.js"),
            client.get("/nothing"),
            client.post("/"),
            client.get("/", headers={"host": "evil.example"}),
            client.get("/", params={"token": TOKEN}),
        ]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == dict(SECURITY_HEADERS)
        assert "server" not in answer.headers
    policy = SECURITY_HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy


def test_a_head_without_end_is_refused(served):
    answer = raw(served, b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n")
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"431")


def test_token_text_is_no_markup(served):
    with served.client() as client:
        text = client.get("/").text
    assert text.count("</script>") == 2  # that of the data and that of the page's own
    assert "alert(1)" in document_of(text)["tape"]["traces"][0]["symbols"]["text"][-1]


ESCAPES = [
    "..%2fsecret.tape",
    "../secret.tape",
    "%2e%2e/secret.tape",
    "/etc/passwd",
    "..\\secret.tape",
    "secret.tape\0",
    "out.tape",
    ".",
    "",
    "inner/deep.tape",
    "./cat.tape",
]


def test_no_name_leads_out_of_the_folder(tmp_path, tape_path):
    folder = tmp_path / "served"
    (folder / "inner").mkdir(parents=True)
    for place in (tmp_path / "secret.tape", folder / "cat.tape", folder / "inner" / "deep.tape"):
        place.write_bytes(tape_path.read_bytes())
    (folder / "out.tape").symlink_to(tmp_path / "secret.tape")
    (folder / "in.tape").symlink_to(folder / "cat.tape")
    with serving(Shelf(folder=folder)) as served, served.client() as client:
        assert [tape["name"] for tape in document_of(client.get("/").text)["folder"]["tapes"]] == [
            "cat.tape",
            "in.tape",
        ]
        assert client.get("/tape", params={"name": "in.tape"}).status_code == 200
        for name in ESCAPES:
            for path, key in (("/tape", "name"), ("/events", "tape")):
                assert client.get(path, params={key: name}).status_code == 404, name
                if "\0" not in name:
                    assert client.get(f"{path}?{key}={name}").status_code == 404, name
        for path in (
            "/static/..%2f..%2fcard.py",
            "/static/../card.py",
            "/static/view.js/../../card.py",
            "/../etc/passwd",
        ):
            assert (
                raw(
                    served,
                    f"GET {path} HTTP/1.1\r\nHost: localhost:{served.gate.port}\r\nConnection: close\r\n"
                    f"Cookie: {served.gate.cookie}={TOKEN}\r\n\r\n".encode(),
                ).split(b" ")[1]
                == b"404"
            )


def test_a_server_for_all_addresses_is_called_by_any_but_by_no_name(served):
    gate = Gate(token=TOKEN, port=80, names=frozenset({"box"}), any_address=True)
    for host in ("10.0.0.7", "10.0.0.7:80", "[fe80::1]", "[fe80::1]:80", "box", "box:80"):
        assert gate.knows_host(host), host
    for host in ("evil.example", "10.0.0.7:81", "10.0.0.7.evil.example", "[10.0.0.7]", "fe80::1", "[evil]", ""):
        assert not gate.knows_host(host), host


def test_a_gate_does_not_show_its_token():
    assert TOKEN not in repr(Gate(token=TOKEN, port=1))
