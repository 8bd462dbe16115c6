"""No password and no token in anything that is said."""

import contextlib
import logging
import re
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runtime.credentials import (
    hide_credentials,
    with_escaped_credentials,
    without_credentials,
)
from runtime.errors import SourceError
from runtime.output import print_error
from runtime.sources.network import open_url


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("rtsp://u:p@cam/1?token=x", "rtsp://…@cam/1?…"),
        ("rtsp://admin:p/w@cam/1", "rtsp://…@cam/1"),
        ("rtsp://admin:pa#ss@cam/1", "rtsp://…@cam/1"),
        ("rtsp://admin:[pa?ss@cam/1", "rtsp://…@cam/1"),
        ("rtmp://admin:secret@cam", "rtmp://…@cam"),
        ("a plain name", "a plain name"),
        ("rtsp://u:p@x@cam:554/1", "rtsp://…@cam:554/1"),
        ("http://cam/1.mp4", "http://cam/1.mp4"),
    ],
)
def test_credentials_are_taken_out_of_urls(url, clean):
    assert without_credentials(url) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("source 'rtsp:/u:pw@cam' does not exist", "source 'rtsp:/…@cam' does not exist"),
        ("'u:pw@cam/1' does not exist", "'…@cam/1' does not exist"),
        ("see http://cam/1?token=x and rtsp://a:b@c/2", "see http://cam/1?… and rtsp://…@c/2"),
        ("drive@2x.mp4 at 12:30 is no video", "drive@2x.mp4 at 12:30 is no video"),
        ("rtsp://…@cam/1: lost (refused)", "rtsp://…@cam/1: lost (refused)"),
        ("page: http://127.0.0.1:8080/", "page: http://127.0.0.1:8080/"),
        ("rtsp://cam/user=admin&password=x&channel=1", "rtsp://cam/user=…&password=…&channel=1"),
        ("'rtsp//admin:pw@a/1', 'rtsp;//admin:pw@a'", "'…@a/1', '…@a'"),
        ("admin:p@pw@cam", "…@cam"),
        ("12:30:01 INFO  x@2x.png: 3:4", "12:30:01 INFO  x@2x.png: 3:4"),
    ],
)
def test_messages_lose_their_secrets_and_nothing_else(text, clean):
    assert hide_credentials(text) == clean
    assert hide_credentials(clean) == clean


SECRETS = st.text("abcXYZ019_-.!$&()*+,;=/?#%@:", min_size=6, max_size=20).map(lambda s: f"Q{s}Q")


@given(SECRETS, st.sampled_from(["rtsp://", "http://", "https://", "rtsp:/", "RTSP://"]))
def test_no_part_of_any_password_is_left(secret, scheme):
    said = hide_credentials(f"source '{scheme}admin:{secret}@camera/1' does not exist")
    assert said.endswith("…@camera/1' does not exist")
    assert "Q" not in said


@pytest.mark.parametrize(
    "source", ["rtsp:/admin:hunter2@cam", "admin:hunter2@cam", "x://a:hunter2@c"]
)
@pytest.mark.parametrize(
    "program",
    [
        ["runtime.stream"],
        ["benchmarks.stream"],
        ["sfda_edge.cli.main", "adapt", "--images"],
        ["runtime.stream", "streetsynth"],
        ["runtime.stream", "streetsynth", "--frames"],
        ["sfda_edge.cli.main", "stream", "streetsynth", "--serve", "8080"],
    ],
)
def test_a_slip_of_typing_shows_no_password(program, source, tmp_path):
    module, *arguments = program
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, source],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "hunter2" not in done.stdout + done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_log_lines_and_errors_go_through_it(capsys):
    print_error("rtsp://a:hunter2@cam failed")
    assert capsys.readouterr().err == "error: rtsp://…@cam failed\n"
    from runtime.output import _JsonFormatter, _PrintableFormatter

    record = logging.LogRecord("x", 20, "", 0, "open %s", ("rtsp://a:hunter2@cam",), None)
    for formatter in (_PrintableFormatter("%(message)s"), _JsonFormatter()):
        assert "hunter2" not in formatter.format(record)


@pytest.mark.parametrize(
    "text",
    [
        "gst:rtspsrc location=rtsp://cam/1 user-id=admin user-pw=hunter2 ! decodebin",
        'gst:rtspsrc location=rtsp://cam/1 user-pw="hunter2 long" ! decodebin',
        "gst:souphttpsrc proxy-id=me proxy-pw=hunter2 location=http://cam",
        "gst:rtspsrc location=rtsp://me:hunter2@cam/1 ! fakesink",
        "gst:x api-key = hunter2",
        'gst:souphttpsrc extra-headers="h,Authorization=(string)\\"Basic hunter2\\"" ! jpegdec',
        "Authorization: Bearer hunter2",
        "Proxy-Authorization: hunter2",
    ],
)
def test_a_pipelines_own_words_for_a_password_are_hidden(text):
    assert "hunter2" not in hide_credentials(text)
    assert "hunter2" not in without_credentials(text)
    assert text.split()[0] in hide_credentials(text)


@pytest.mark.parametrize("url", ["http://admin:p@hunter2/x@127.0.0.1:1/v", "rtsp://a:b@hunter2/@h"])
def test_ffmpeg_in_opencv_says_nothing_of_a_password(url):
    """It logs the host that it looks for, which is a part of such a password."""
    code = f"""
from runtime.sources.network import open_url_with_opencv
try:
    open_url_with_opencv({url!r})
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "does not open" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


@given(st.text("aB1/?#:%!$", min_size=1, max_size=12), st.sampled_from(["cam", "10.0.0.1:554"]))
def test_a_password_of_any_characters_leaves_the_host_where_it_is(password, host):
    assume(not re.match(r"[0-9]*[/?#]", password))  # such as a port
    assume("%" not in password)
    parts = urlsplit(with_escaped_credentials(f"rtsp://admin:{password}@{host}/stream?x=1"))
    assert parts.netloc.rpartition("@")[2] == host
    assert (parts.username, unquote(parts.password)) == ("admin", password)
    assert (parts.path, parts.query) == ("/stream", "x=1")


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://cam/1",
        "rtsp://cam:554/stream@1",
        "rtsp://a:b@cam/stream@1",
        "http://a:b@cam:80/x?user=a@b",
        "http://cam/mail@x",
        "camera0",
        "rtsp://[fe80::1]:554/a@b",
    ],
)
def test_other_addresses_stay_as_they_are(url):
    assert with_escaped_credentials(url) == url


@pytest.mark.parametrize("opens", ["PyAV", "OpenCV"])
def test_a_url_is_opened_with_its_password_escaped(opens, monkeypatch):
    given = []
    refused = SimpleNamespace(isOpened=lambda: False)
    monkeypatch.setattr("runtime.sources.network.has_av", lambda: opens == "PyAV")
    monkeypatch.setattr("runtime.sources.network.AvSource", lambda name, url, *_: given.append(url))
    monkeypatch.setattr("cv2.VideoCapture", lambda url, *_: given.append(url) or refused)
    with contextlib.suppress(SourceError):
        open_url("rtsp://admin:a/b@cam/1")
    assert given == ["rtsp://admin:a%2Fb@cam/1"]
