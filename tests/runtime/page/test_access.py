"""Outside loopback nothing is answered without the token."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import SinkError

pytest.importorskip("starlette", reason="extra serve")
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from runtime.page import access
from runtime.page.access import access_for, is_loopback
from runtime.page.server import PageServer

TOKEN = "a-secret-of-the-test"
PATHS = ["/", "/page.js", "/status", "/facts", "/metrics", "/healthz", "/readyz", "/stream.mjpg"]


@pytest.fixture
def outside(stream, monkeypatch):
    """The page on an address that counts as one of other machines."""
    monkeypatch.setenv("SFDA_EDGE_TOKEN", TOKEN)
    monkeypatch.setattr(access, "is_loopback", lambda _host: False)
    stream.add()
    with PageServer([stream.view], stream.metrics, ("127.0.0.1", 0)) as server:
        yield int(server.url.rstrip("/").rpartition(":")[2])


def test_without_a_token_it_does_not_start(stream, monkeypatch):
    for value in (None, "", "short"):
        monkeypatch.delenv("SFDA_EDGE_TOKEN", raising=False)
        if value is not None:
            monkeypatch.setenv("SFDA_EDGE_TOKEN", value)
        with pytest.raises(SinkError, match=r"can be reached from other machines.*ssh tunnel"):
            PageServer([stream.view], stream.metrics, ("0.0.0.0", 0))


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_without_the_token(get, outside, path):
    assert get(outside, path).status == 403
    assert get(outside, path, Authorization=f"Bearer {TOKEN}x").status == 403
    assert get(outside, path, Authorization=TOKEN).status == 403
    assert get(outside, f"{path}?token={TOKEN[:-1]}").status == 403
    assert get(outside, path, Authorization=f"Bearer {TOKEN}").status == 200


def test_the_token_moves_from_the_address_to_a_cookie(get, outside):
    response = get(outside, f"/?token={TOKEN}")
    assert (response.status, response.headers["location"]) == (303, "/")
    response = get(outside, f"/stream.mjpg?source=rear&token={TOKEN}")
    assert response.headers["location"] == "/stream.mjpg?source=rear"
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert get(outside, "/", Cookie=cookie.partition(";")[0]).status == 200


def test_pages_of_two_ports_do_not_take_each_others_cookies(get, outside):
    """Browsers send the cookies of one port to all of a host."""
    cookie = get(outside, f"/?token={TOKEN}").headers["set-cookie"].partition(";")[0]
    assert f"_{outside}=" in cookie
    assert get(outside, "/", Cookie=f"{cookie}; sfda_edge_token_1=another").status == 200


def test_another_sites_page_gets_no_picture(get, stream):
    stream.add()
    with PageServer([stream.view], stream.metrics, ("127.0.0.1", 0)) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        for site in ("cross-site", "same-site"):
            fetched = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "image"}
            for path in PATHS:
                assert get(port, path, **fetched).status == 403
            followed = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "document"}
            assert get(port, "/", **followed).status == 200, "a link to the page"
        for site in ("same-origin", "none"):
            answer = get(port, "/page.js", **{"Sec-Fetch-Site": site})
            assert answer.status == 200
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_websocket_needs_it_too(outside):
    with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{outside}/live"):
        pass
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with connect(f"ws://127.0.0.1:{outside}/live", additional_headers=headers) as viewer:
        viewer.send("next")
        assert viewer.recv(timeout=5)


def test_the_token_is_in_no_log(get, outside, caplog):
    caplog.set_level("DEBUG")
    get(outside, f"/?token={TOKEN}")
    get(outside, "/", Authorization=f"Bearer {TOKEN}")
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")],
        *[(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "device.local", "")],
        *[(host, False) for host in ("localhost.evil", "127.0.0.1.evil", "evil.localhost")],
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host, inside):
    assert is_loopback(host) == inside


@settings(max_examples=30)
@given(st.sampled_from(["0.0.0.0", "::", "192.168.1.4", "device.local", "10.0.0.1"]))
def test_other_addresses_need_a_token(host):
    with pytest.raises(SinkError, match="SFDA_EDGE_TOKEN"):
        access_for(host)


@pytest.mark.parametrize(
    "token", ["zwölfBüchstabenlang", "пароль-длинный-очень", "sixteen\ncharacters"]
)
def test_a_token_that_headers_cannot_carry_is_refused(token, monkeypatch):
    monkeypatch.setenv(access.TOKEN_VARIABLE, token)
    with pytest.raises(SinkError, match="characters that headers cannot carry"):
        access_for("0.0.0.0")
