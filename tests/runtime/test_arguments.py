"""What is typed on a command line."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.arguments import address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("8080", ("127.0.0.1", 8080)),
        ("[::1]:9000", ("::1", 9000)),
        ("device.local:0", ("device.local", 0)),
    ],
)
def test_addresses(text, expected):
    assert address(text) == expected


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_an_error(text):
    try:
        host, port = address(text)
    except argparse.ArgumentTypeError:
        return
    assert host
    assert 0 <= port <= 65535
