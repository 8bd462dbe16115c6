"""FFmpeg decides by content what a file is: lists limit what it may open."""

import shutil

import pytest

from runtime.errors import SourceError
from runtime.packaged import CLIP
from runtime.sources.grammar import open_source

PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile {secret}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
    "m3u of a URL": "#EXTM3U\nhttp://127.0.0.1:9/x.mp4\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "text": "frame after frame of text\n" * 500,
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".m3u8"])
def test_a_file_cannot_make_us_read_another(kind, suffix, tmp_path):
    secret = shutil.copy(CLIP, tmp_path / "secret.mp4")
    (tmp_path / f"clip{suffix}").write_text(PLAYLISTS[kind].format(secret=secret))
    with pytest.raises(SourceError, match="is not a video that OpenCV can read"):
        open_source(str(tmp_path / f"clip{suffix}"))


def test_an_ordinary_file_still_plays(tmp_path):
    with open_source(str(shutil.copy(CLIP, tmp_path / "clip.mp4"))) as source:
        assert source.read().image.shape[2] == 3


def test_a_fifo_is_no_source(tmp_path):
    import os

    os.mkfifo(tmp_path / "clip.mp4")
    with pytest.raises(SourceError, match="does not exist"):
        open_source(str(tmp_path / "clip.mp4"))


def test_a_name_that_opencv_cannot_open_is_rejected(tmp_path):
    name = tmp_path / b"clip\xff.mp4".decode("utf-8", "surrogateescape")
    shutil.copy(CLIP, name)
    with pytest.raises(SourceError, match="OpenCV cannot open this name"):
        open_source(str(name))
