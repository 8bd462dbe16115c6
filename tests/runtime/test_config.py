"""Settings in a file are those of the command line; what is wrong is named."""

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import stream, stream_run
from runtime.backends.shared import SharedModel
from runtime.config import OF_PROCESS, read_config
from runtime.errors import ConfigError
from runtime.sinks.labels import LabelImagesSink
from runtime.sinks.video import VideoSink
from runtime.sources.base import ImageSource
from runtime.sources.watchdog import State
from runtime.stream_arguments import add_arguments, build_parser
from runtime.toml_file import tomllib


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "stream.toml"
        path.write_text(text)
        return path

    return write


def test_a_file_says_the_same_as_the_command_line(config):
    path = config("""
        backend = "onnxruntime"
        threads = 2
        serve = true
        on-loss = "blank"
        stale-after = 2.5
        [[source]]
        from = "camera0"
        size = "640x480"
        deadline-ms = 50
        save = "out.mp4"
        [[source]]
        name = "rear"
        from = "rtsp://user:secret@camera/1"
        on-loss = "stop"
        show = false
    """)
    front, rear = read_config(path, add_arguments)
    words = "camera0 --backend onnxruntime --threads 2 --serve --on-loss blank --stale-after 2.5"
    words += " --size 640x480 --deadline-ms 50 --save out.mp4"
    expected = build_parser().parse_args(words.split())
    assert {**vars(front), "name": None} == {**vars(expected), "name": None}
    assert (front.name, rear.name) == ("camera0", "rear")
    assert (rear.on_loss, rear.size, rear.show) == ("stop", None, False)
    assert rear.source == "rtsp://user:secret@camera/1"


SOURCE = '[[source]]\nfrom = "camera0"\n'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", r"lists no source: add \[\[source\]\] with from"),
        ("[source]\nfrom = 'camera0'", "lists no source"),
        ("[[source]]\nname = 'a'", "needs a source, such as from"),
        (SOURCE + "name = 3", "name is 3, a text is needed"),
        ("colour = 3\n" + SOURCE, r"stream\.toml: unknown key 'colour'"),
        ("size = '640'\n" + SOURCE, r"stream\.toml: size: expected WIDTHxHEIGHT"),
        ("config = 'a'\n" + SOURCE, "unknown key 'config'"),
        ("help = true\n" + SOURCE, "unknown key 'help'"),
        ("on_loss = 'hold'\n" + SOURCE, "unknown key 'on_loss'"),
        (SOURCE + "serve = true", "source 'camera0': all sources share serve"),
        (SOURCE + "size = '640'", "stream.toml, source 'camera0': size: expected WIDTHxHEIGHT"),
        (SOURCE + "save = true", "save is true, a value is needed"),
        (SOURCE + "show = 1", "show is 1; write true or false"),
        (SOURCE + "save = ['a', 'b']", "one value is needed"),
        (SOURCE + "buffer = 'oldest'", "buffer: invalid choice: 'oldest'"),
        (SOURCE + SOURCE, "two sources are called 'camera0'; give each a name"),
        ("= 3", "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(config, text, found):
    with pytest.raises(ConfigError, match=found):
        read_config(config(text), add_arguments)


def test_a_name_or_an_error_shows_no_password(config):
    (only,) = read_config(config('[[source]]\nfrom = "rtsp://me:hunter2@cam/1"'), add_arguments)
    assert "hunter2" not in only.name
    text = '[[source]]\nfrom = "rtsp://me:hunter2@cam/1"\nsize = "small"'
    with pytest.raises(ConfigError) as raised:
        read_config(config(text), add_arguments)
    assert "hunter2" not in str(raised.value)


def test_every_setting_of_the_process_is_a_flag():
    known = build_parser()._option_string_actions
    assert all(f"--{name}" in known for name in OF_PROCESS)


VALUES = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers())
)


def as_toml(value):
    return json.dumps(value) if isinstance(value, bool | str | list) else repr(value)


@given(
    st.dictionaries(
        st.sampled_from(
            [*sorted(OF_PROCESS), "save", "size", "fps", "show", "config", "buffer", "frames", "x"]
        ),
        VALUES,
        max_size=4,
    ),
    st.dictionaries(st.sampled_from(["from", "name", "save", "serve", "size"]), VALUES, max_size=3),
)
def test_whatever_stands_in_a_file_is_read_or_named(tmp_path_factory, common, table):
    path = tmp_path_factory.mktemp("any") / "stream.toml"
    lines = [f"{key} = {as_toml(value)}" for key, value in common.items()]
    lines += ["[[source]]", *(f"{key} = {as_toml(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        found = read_config(path, add_arguments)
    except ConfigError:
        return
    assert [args.source for args in found] == [tomllib.loads(path.read_text())["source"][0]["from"]]
    assert list(path.parent.iterdir()) == [path], "reading writes nothing"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_named(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "stream.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_config(path, add_arguments)


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def test_two_sources_share_a_model(in_empty_folder, config, capsys):
    path = config("""
        frames = 6
        trace = "trace.json"
        [[source]]
        name = "front"
        from = "streetsynth"
        labels = "front"
        [[source]]
        name = "rear"
        from = "streetsynth"
        jsonl = "rear.jsonl"
        frames = 9
    """)
    assert stream.main(["--config", str(path)]) == 0
    summary = capsys.readouterr().out
    assert "front\nframes: 6 read, 6 segmented" in summary
    assert "rear\nframes: 9 read, 9 segmented" in summary
    assert len(list((in_empty_folder / "front").glob("*.png"))) == 6
    lines = (in_empty_folder / "rear.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["rear"] * 9
    events = json.loads((in_empty_folder / "trace.json").read_text())
    counts = {
        name: sum(e.get("name") == "infer" and e["cat"] == name for e in events)
        for name in ("front", "rear")
    }
    assert counts == {"front": 6, "rear": 9}


def test_one_source_that_fails_does_not_end_the_other(in_empty_folder, config, capsys, logged):
    (in_empty_folder / "damaged").mkdir()
    (in_empty_folder / "damaged" / "0.png").write_bytes(b"no image")
    path = config("""
        [[source]]
        name = "bad"
        from = "damaged"
        [[source]]
        name = "good"
        from = "streetsynth"
        frames = 5
    """)
    assert stream.main(["--config", str(path)]) == 2
    said = capsys.readouterr()
    assert "good\nframes: 5 read, 5 segmented" in said.out
    assert "error: " in said.err
    assert "damaged/0.png: cannot identify image file" in said.err
    assert any(m.startswith("bad ended: damaged/0.png") for m in logged.messages)


AWAY = """
    reconnect = 0
    [[source]]
    name = "away"
    from = "camera57"
    [[source]]
    name = "beside"
    frames = 5
"""


def test_a_camera_that_is_away_at_the_start_does_not_hold_up_the_other(
    in_empty_folder, config, capsys, logged
):
    path = config(AWAY + 'from = "streetsynth"')
    assert stream.main(["--config", str(path)]) == 2
    said = capsys.readouterr()
    assert "beside\nframes: 5 read, 5 segmented" in said.out
    assert "error: away is lost: " in said.err
    assert any(m.startswith("away: lost (") for m in logged.messages)
    assert "beside: ended" in logged.messages


def test_with_no_source_there_nothing_runs(in_empty_folder, config, capsys, logged):
    path = config(AWAY + 'from = "camera58"\njsonl = "earlier.jsonl"')
    Path("earlier.jsonl").write_text("{}\n")
    assert stream.main(["--config", str(path)]) == 2
    assert "none of the 2 sources opens; the lines above say why" in capsys.readouterr().err
    assert sum(": lost (" in m for m in logged.messages) == 2
    assert Path("earlier.jsonl").read_text() == "{}\n"


def test_a_folder_that_is_not_there_is_no_camera_that_is_away(in_empty_folder, config, capsys):
    path = config('[[source]]\nfrom = "nowhere"\n[[source]]\nfrom = "streetsynth"')
    assert stream.main(["--config", str(path)]) == 2
    assert "source 'nowhere' does not exist" in capsys.readouterr().err


def test_a_source_that_ended_is_no_longer_reported(monkeypatch, logged):
    def run(name):
        line = SimpleNamespace(line=lambda: "fps 25.0")
        return SimpleNamespace(
            name=name,
            ended=False,
            pipeline=SimpleNamespace(report=lambda: line),
            source=SimpleNamespace(state=State.LOST if name == "long" else State.LIVE),
        )

    clock = iter(range(0, 100, 6))  # later than the next report each time
    monkeypatch.setattr(stream_run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    short, long = run("short"), run("long")
    report = stream_run._reporter([short, long])
    report()
    short.ended = True
    report()
    lost = "long: lost  fps 25.0"
    assert logged.messages == ["short: fps 25.0", lost, lost]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a SOURCE such as camera0, or give --config"),
        (["camera0", "--config", "{}"], "lists the sources; leave 'camera0' out"),
        (["--config", "{}", "--save", "a.mp4", "--show"], "write --show, --save into"),
        (["--config", "{}"], "show is for one source"),
        (["--config", "nowhere.toml"], "nowhere.toml does not exist"),
        (["streetsynth", "--cpus", "4000"], "--cpus 4000: this machine has"),
    ],
)
def test_words_that_do_not_go_together_are_rejected(config, capsys, words, message):
    path = config('show = true\n[[source]]\nfrom = "a"\n[[source]]\nfrom = "b"')
    assert stream.main([word.format(path) for word in words]) == 2
    assert message in capsys.readouterr().err


def test_two_sources_cannot_write_one_file(config, capsys):
    path = config("""
        save = "out.mp4"
        [[source]]
        from = "streetsynth"
        [[source]]
        name = "other"
        from = "streetsynth"
    """)
    assert stream.main(["--config", str(path)]) == 2
    assert "--save and --save need different files, out.mp4 comes twice" in capsys.readouterr().err


def test_one_file_by_two_names_is_one_file(in_empty_folder, config, capsys):
    (in_empty_folder / "real").mkdir()
    (in_empty_folder / "link").symlink_to(in_empty_folder / "real")
    source = '[[source]]\nname = "{0}"\nfrom = "streetsynth"\njsonl = "{1}"\n'
    for one, other in (("real/out", "link/out"), ("out", "real/../out"), ("./out", "out")):
        path = config(source.format("a", one) + source.format("b", other))
        assert stream.main(["--config", str(path)]) == 2
        assert f"{Path(other)} comes twice" in capsys.readouterr().err
    assert not list(in_empty_folder.rglob("out"))


def test_the_configuration_is_not_written_over(in_empty_folder, config, capsys):
    path = config("[[source]]\nfrom = 'streetsynth'\njsonl = 'linked'")
    (in_empty_folder / "linked").symlink_to(path)
    before = path.read_bytes()
    assert stream.main(["--config", str(path)]) == 2
    assert "--jsonl linked is the configuration" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_source_that_ended_lets_go_of_its_camera_and_files(in_empty_folder, config):
    """While the other goes on: the first's video can be played, and its source is closed."""
    closed, running = [], []

    class Recorded(VideoSink):
        def close(self):
            super().close()
            closed.append([thread.name for thread in threading.enumerate()])

    path = config("""
        [[source]]
        name = "short"
        from = "streetsynth"
        frames = 2
        save = "short.mkv"
        [[source]]
        name = "long"
        from = "streetsynth"
        frames = 60
        jsonl = "long.jsonl"
    """)
    released = ImageSource.close

    def close(self):
        running.append([thread.name for thread in threading.enumerate()])
        released(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.sinks.video.VideoSink", Recorded)
        patch.setattr(ImageSource, "close", close)
        assert stream.main(["--config", str(path)]) == 0
    assert "long" in closed[0], "the other stream still ran"
    assert "long" in running[0]


def test_the_log_format_of_the_file_is_used(in_empty_folder, config):
    path = config('log-format = "json"\n[[source]]\nfrom = "streetsynth"\nframes = 2')
    command = [sys.executable, "-m", "runtime.stream", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert all(json.loads(line)["level"] == "INFO" for line in done.stderr.splitlines())


def test_the_reports_of_a_pause_are_not_made_up_for(monkeypatch, logged):
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(stream_run, "time", SimpleNamespace(monotonic=lambda: now.s))
    line = SimpleNamespace(line=lambda: "fps 25.0")
    only = SimpleNamespace(
        name="a",
        ended=False,
        pipeline=SimpleNamespace(report=lambda: line),
        source=SimpleNamespace(state=State.LIVE),
    )
    report = stream_run._reporter([only])
    now.s = 3600  # the process was stopped
    for _ in range(100):
        now.s += 0.1
        report()
    assert len(logged.messages) <= 3


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (LabelImagesSink, "close", "RuntimeError: CUDA out of memory"),
        (SharedModel, "outputs", "fails: CUDA out of memory"),
        (LabelImagesSink, "write", "RuntimeError: CUDA out of memory"),
    ],
)
def test_an_unexpected_failure_of_one_source_is_no_success(
    in_empty_folder, config, capsys, monkeypatch, logged, owner, name, said
):
    right, calls = getattr(owner, name), []

    def fails_at_the_third(self, *arguments):
        calls.append(1)
        if len(calls) == (1 if name == "close" else 3):
            raise RuntimeError("CUDA out of memory")
        return right(self, *arguments)

    monkeypatch.setattr(owner, name, fails_at_the_third)
    text = 'frames = 3\n[[source]]\nname = "a"\nfrom = "streetsynth"\nlabels = "a"\n'
    path = config(text + '[[source]]\nname = "b"\nfrom = "streetsynth"\nlabels = "b"')
    assert stream.main(["--config", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_batch_that_will_not_be_is_said(config, logged):
    assert stream.main(["streetsynth", "--frames", "1", "--batch", "4"]) == 0
    assert any("--batch 4: it will be 1" in message for message in logged.messages)
