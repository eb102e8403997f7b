"""Flags, TOML and the API are views of one model."""

from __future__ import annotations

from pathlib import Path

import pytest

from reportgen.cli import audit_parser, command_of, main
from reportgen.configuration import read_toml
from reportgen.errors import UsageError
from reportgen.job import Job, flag_of, table_of
from reportgen.techniques import chosen


def from_flags(*words: str) -> Job:
    flags = vars(audit_parser().parse_args(["m.pt", "images", *words]))
    return Job.from_options({name: value for name, value in flags.items() if name in Job.model_fields})


def test_every_field_has_a_flag_that_is_read() -> None:
    options = {action.dest for action in audit_parser()._actions}
    assert {name for name in Job.model_fields if table_of(name) is None} <= options
    assert {name for name in Job.model_fields if table_of(name)} == {"findings", "waivers"}
    assert not {"findings", "waivers"} & options


def test_flags_toml_and_api_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "reportgen.toml").write_text(
        'preset = "quick"\nmean = [0.1, 0.2, 0.3]\nlayers = ["layer3", "layer4"]\ncache-size = "2GB"\n'
        'input-size = "128x96"\nbgr = true\n[techniques.class_activation]\nmethods = ["cam", "grad_cam"]\n'
    )
    toml = Job.from_options(read_toml(None, tmp_path))
    flags = from_flags(
        *[
            "--preset",
            "quick",
            "--mean",
            "0.1,0.2,0.3",
            "--layers",
            "layer3,layer4",
            "--cache-size",
            "2GB",
            "--input-size",
            "128x96",
            "--bgr",
        ],
        "--set",
        "class_activation.methods=cam,grad_cam",
    )
    api = Job.from_options(
        {
            "preset": "quick",
            "mean": (0.1, 0.2, 0.3),
            "layers": ["layer3", "layer4"],
            "cache_size": 2_000_000_000,
            "input_size": "128x96",
            "bgr": True,
            "techniques": {"class_activation": {"methods": ("cam", "grad_cam")}},
        }
    )
    assert list(chosen(toml)) == list(chosen(flags)) == list(chosen(api))
    exclude = {"techniques"}
    assert toml.model_dump(exclude=exclude) == flags.model_dump(exclude=exclude) == api.model_dump(exclude=exclude)


def test_pyproject_table_and_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.reportgen]\nlabels = "names.txt"\n')
    assert Job.from_options(read_toml(None, tmp_path)).labels == tmp_path / "names.txt"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"presett": "quick"}, "did you mean 'preset'"),
        ({"preset": "fast"}, "--preset 'fast'"),
        ({"exhibits": 0}, "--exhibits 0"),
        ({"std": "0,1,1"}, "greater than zero"),
        ({"mean": "nan"}, "finite"),
        ({"date": "yesterday"}, "--date 'yesterday'"),
        ({"date": "2026-02-30"}, "is no day of the calendar"),
        ({"date": "2026-1-1"}, "YYYY-MM-DD"),
        ({"title": "n" * 201}, "more than 200 characters"),
        ({"author": " "}, "holds no word"),
        ({"names": "digest"}, "--names 'digest'"),
        ({"colormap": "rainbow"}, "--colormap 'rainbow'"),
        ({"techniques": ["x=1"]}, "TECHNIQUE.FIELD=VALUE"),
        ({"cache_size": "much"}, "--cache-size 'much': is no size such as 500MB or 20GB"),
        ({"cache_size": "xGB"}, "--cache-size 'xGB': is no size such as 500MB or 20GB"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Job.from_options(options)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": "grad_cam"}, "there is no technique 'grad_cam'"),
        ({"only": "filters", "skip": "filters"}, "leave no technique"),
        ({"techniques": {"filters": {"colour": 1}}}, "has no option 'colour'"),
        (
            {"techniques": {"class_activation": {"methods": "cam,score_cam"}}},
            "activation: 'score_cam' is no method",
        ),
    ],
)
def test_mistakes_about_techniques(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(Job.from_options(options))
    assert words in str(caught.value)


def test_preset_gives_way_to_options_and_those_to_the_technique() -> None:
    quick = {technique.name: technique for technique in chosen(Job.from_options({"preset": "quick"}))}
    assert quick["feature_maps"].layers == ("last:2",)
    assert quick["feature_maps"].channels == "even:8"
    assert quick["filters"].layers == ("first",)
    own = {
        technique.name: technique
        for technique in chosen(
            Job.from_options(
                {"layers": "layer1", "techniques": {"feature_maps": {"layers": "layer2,layer3", "channels": "0,1"}}}
            )
        )
    }
    assert own["class_activation"].layers == ("layer1",)
    assert own["filters"].layers == ("layer1",)
    assert own["feature_maps"].layers == ("layer2", "layer3")
    assert own["feature_maps"].channels == "0,1"


def test_canonical_options_hold_no_folder() -> None:
    job = Job.from_options(
        {"labels": Path("/home/someone/names.txt"), "cache_dir": Path("/home/someone/c"), "preset": "quick"}
    )
    assert job.canonical() == {"labels": "names.txt", "preset": "quick"}
    assert "/home" not in command_of("/home/someone/m.pt", ["/home/someone/images/"], job)


def test_the_command_tells_that_own_code_is_needed_and_not_where_it_lies() -> None:
    given = {"arch": "own:Net", "pythonpath": (Path("/home/someone/code"), Path())}
    told = command_of("m.pt", ["images"], Job.from_options(given))
    assert told == "reportgen m.pt images --pythonpath DIR --pythonpath . --arch own:Net -o report.pdf"


def test_title_and_author_are_one_line() -> None:
    job = Job.from_options({"title": " a\n b\t", "author": "M\u202eüller"})
    assert (job.title, job.author) == ("a b", "M\\u202eüller")


def test_what_names_withhold_is_not_told_as_an_option() -> None:
    job = Job.from_options({"names": "hash", "exhibit": ["jane.png"], "figures": Path("f")})
    assert job.canonical() == {"exhibit": ["(withheld)"], "names": "hash"}
    told = command_of("/a/m.pt", ["/a/jane.png"], job)
    assert "jane" not in told
    assert told.startswith("reportgen m.pt IMAGES ")


def test_flag_names() -> None:
    assert flag_of("techniques") == "--set"
    assert flag_of("max_images") == "--max-images"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["m.pt"], 2, "the following arguments are required: IMAGES"),
        (["m.pt", "i", "--presett", "x"], 2, "unrecognized arguments"),
        (["m.pt", "i", "-o", "x.docx"], 2, "its suffix names no format"),
        (["nowhere.pt", "i", "-o", "x.html"], 1, "there is no model file 'nowhere.pt'"),
        (["m.pt", "i", "--config", "nowhere.toml"], 2, "cannot read nowhere.toml"),
        (["inspect", "nowhere.pt"], 1, "there is no model file"),
        (["cache", "melt"], 2, "invalid choice"),
    ],
)
def test_errors_are_two_lines_at_most(
    words: list[str],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPORTGEN_CACHE_DIR", str(tmp_path / "cache"))
    assert main(words) == code
    captured = capsys.readouterr()
    assert told in captured.err
    assert len(captured.err.splitlines()) <= 2
    assert captured.out == ""


@pytest.mark.parametrize(
    "line",
    ["trust-model = true", "trust_model = true", 'transform = "own:code"', 'pythonpath = "."', 'arch = "own:net"'],
)
def test_a_configuration_that_nobody_named_runs_no_code(line: str, tmp_path: Path) -> None:
    """Models come in folders of others; what lies beside them may be a configuration."""
    for name, words in (("reportgen.toml", line), ("pyproject.toml", f"[tool.reportgen]\n{line}")):
        (tmp_path / name).write_text(words)
        with pytest.raises(UsageError, match="asks to run code") as caught:
            read_toml(None, tmp_path)
        assert caught.value.remedy == f"if it is yours, add --config {name}"
        (tmp_path / name).unlink()
    (tmp_path / "reportgen.toml").write_text(line)
    assert len(read_toml(tmp_path / "reportgen.toml", tmp_path)) == 1


def test_a_configuration_may_name_an_architecture(tmp_path: Path) -> None:
    for arch in ("resnet50", "timm:resnet50", "torchvision:resnet50"):
        (tmp_path / "reportgen.toml").write_text(f'arch = "{arch}"\ntrust-model = false')
        assert read_toml(None, tmp_path)["arch"] == arch


@pytest.mark.parametrize(
    "words",
    ["a=" + "[" * 100_000, "a=" + "9" * 10_000, ".".join(["a"] * 50_000) + "=1", "#" * 300_000, "a = 1\na = 2"],
    ids=["a nest", "a number", "a key of many parts", "too long", "twice"],
)
def test_configurations_without_end_are_refused(words: str, tmp_path: Path) -> None:
    (tmp_path / "reportgen.toml").write_text(words)
    with pytest.raises(UsageError) as caught:
        read_toml(None, tmp_path)
    assert len(str(caught.value).splitlines()) == 2
