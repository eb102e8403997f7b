"""``reportgen.toml``: what it may hold, how mistakes are told, and that page and schema agree with the options."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from reportgen.cli import main
from reportgen.configuration import configuration_schema, read_toml
from reportgen.errors import UsageError
from reportgen.job import Job, table_of
from reportgen.rules import RULES
from reportgen.techniques import check_limits, chosen, registry

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "configuration.md"


def job_of(folder: Path, text: str, name: str = "reportgen.toml") -> Job:
    (folder / name).write_text(text, encoding="utf-8")
    return Job.from_options(read_toml(folder / name, folder))


def example() -> str:
    found = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(found) == 2
    return str(found[0])


def test_the_page_lists_every_option_as_it_is() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "configuration.py"))
    page = PAGE.read_text("utf-8")
    assert page == script["renewed"](page), "run scripts/configuration.py"
    for name in Job.model_fields:
        assert f"| `{table_of(name) or name.replace('_', '-')}`" in page


def test_the_example_of_the_page_is_accepted(tmp_path: Path) -> None:
    job = job_of(tmp_path, example())
    assert (job.input_size, job.target, job.cache_size) == ("224", ("predicted", "true"), 50_000_000_000)
    assert job.labels == tmp_path / "names.txt"
    assert job.findings == {"duplicates.near": 10}
    assert {one.name: one for one in chosen(job)}["max_activation"].options()["steps"] == 64


MISTAKES = [
    ('preset = "quick"\n\nlayer = ["a"]\n', 3, "there is no option 'layer'", "did you mean 'layers'?"),
    ("quux = 1\n", 1, "there is no option 'quux'", "reportgen --help lists the options"),
    ('# a word\npreset = "quik"\n', 2, "--preset 'quik': Input should be 'quick', 'standard' or 'full'", "--help"),
    (
        'title = """\nexhibits = 3\n"""\nexhibits = "many"\n',
        4,
        "--exhibits 'many': Input should be a valid integer",
        "",
    ),
    ("exhibits = 0\n", 1, "--exhibits 0: Input should be greater than or equal to 1", ""),
    ("bgr = 7\n", 1, "--bgr 7: Input should be a valid boolean", ""),
    ("std = [0.2, 0.0, 0.2]\n", 1, "must be greater than zero", ""),
    ("cache-size = [1]\n", 1, "--cache-size", ""),
    ("[technique.filters]\nlayers = []\n", 1, "no option 'technique'", "did you mean 'techniques'?"),
    ("seed = 1\n[techniques.filter]\nlayers = []\n", 3, "no technique 'filter'", "did you mean 'filters'?"),
    (
        "[techniques.max_activation]\nsize = 64\nstep = 64\n",
        3,
        "technique 'max_activation' has no option 'step'",
        "did you mean 'steps'?",
    ),
    ('[techniques]\nmax_activation.steps = "few"\n', 2, "max_activation.steps 'few'", "reportgen techniques -v"),
    ("[findings]\nduplicates.exakt = 3\n", 2, "'duplicates.exakt' is no rule", "did you mean 'duplicates.exact'?"),
    ('[[waivers]]\nrule = "a"\nreason = "b"\n\n[[waivers]]\nrule = "c"\n', 5, "[[waivers]]", ""),
    ('[[waivers]]\nrule = "a"\nreason = "b"\nuntil = "soon"\n', 4, "until 'soon'", "--help"),
    ('[waivers]\nrule = "a"\nreason = "b"\n', 1, "[[waivers]]", "write it as [[waivers]]"),
    ('"presett" = "quick"\n', 1, "there is no option 'presett'", "did you mean 'preset'?"),
    ("preset = quick\n", None, "is not TOML: Invalid value (at line 1", "docs/configuration.md"),
]


@pytest.mark.parametrize(("text", "number", "words", "remedy"), MISTAKES)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_mistakes_are_told_with_their_line(
    tmp_path: Path, text: str, number: int | None, words: str, remedy: str, shared: bool
) -> None:
    name, above = "reportgen.toml", ""
    if shared and number is not None:
        name, above = "pyproject.toml", '[project]\nname = "x"\n[tool.reportgen]\n'
        text = re.sub(r"(?m)^(\[+)(?=[a-z])", r"\1tool.reportgen.", text)
    with pytest.raises(UsageError) as refused:
        job_of(tmp_path, above + text, name)
    if number is None:
        assert refused.value.thing.startswith(name)
    else:
        assert refused.value.thing.startswith(f"{name}, line {number + above.count(chr(10))}: ")
    assert words in refused.value.thing
    assert remedy in refused.value.remedy
    assert len(str(refused.value).splitlines()) <= 2


def test_whose_table_it_is(tmp_path: Path) -> None:
    assert read_toml(None, tmp_path) == {}
    assert job_of(tmp_path, '[project]\nname = "x"\n', "pyproject.toml") == Job()
    assert job_of(tmp_path, "[tool.reportgen]\nseed = 3\n", "pyproject.toml").seed == 3
    assert Job.from_options(read_toml(tmp_path / "pyproject.toml", tmp_path)).seed == 3
    assert job_of(tmp_path, "\ufeffseed = 4\n").seed == 4, "its own file goes before the shared one"
    with pytest.raises(UsageError, match=r"pyproject\.toml, line 1: \[tool\.reportgen\] is no table"):
        read_toml(_written(tmp_path / "other" / "pyproject.toml", "tool.reportgen = 3\n"), tmp_path)


def _written(file: Path, text: str) -> Path:
    file.parent.mkdir()
    file.write_text(text)
    return file


def test_values_as_toml_and_python_write_them(tmp_path: Path) -> None:
    job = job_of(
        tmp_path,
        "date = 2026-11-26\ninput_size = [240, 320]\ntarget = [3, 'true']\nchannels = [0, 10]\nmean = 0.5\n"
        "labels = ['tench, Tinca tinca', 'hen']\npythonpath = 'code'\n",
    )
    assert (job.date, job.input_size, job.target, job.channels) == ("2026-11-26", "240x320", ("3", "true"), "0,10")
    assert (job.mean, job.labels, job.pythonpath) == ((0.5,), ("tench, Tinca tinca", "hen"), (tmp_path / "code",))
    assert Job.from_options({"input_size": 224, "target": 3}).target == ("3",)


def test_the_schema_is_that_of_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--config"]) == 0
    schema: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert schema == json.loads(json.dumps(configuration_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    table = tomllib.loads(example())
    for waiver in table["waivers"]:
        waiver["until"] = waiver["until"].isoformat()
    validator.validate(table)
    assert set(schema["properties"]) == {name.replace("_", "-") for name in Job.model_fields}
    assert set(schema["properties"]["techniques"]["properties"]) == set(registry())


def built(job: Job) -> None:
    check_limits(job, RULES)
    chosen(job)


@pytest.mark.parametrize(
    "text",
    [
        "input_size = '240x320'\nmean = 0.5\nlayers = 'layer3,layer4'\nlabels = ['cat', 'dog']\n",
        "input-size = [240, 320]\nstd = [0.2, 0.3, 0.2]\ntarget = [3, 'true']\nchannels = [0, 10]\n",
        "date = '2026-11-26'\ncache-size = 5\npythonpath = 'code'\narch-arg = {depth = 3}\n",
        "[techniques.max_activation]\nmethods = 'robust'\nsteps = 4\n",
        "techniques.max_activation.methods = ['robust']\nfindings.duplicates.near = 3\n",
    ],
)
def test_the_schema_takes_what_the_tool_takes(tmp_path: Path, text: str) -> None:
    jsonschema.Draft202012Validator(configuration_schema()).validate(tomllib.loads(text))
    built(job_of(tmp_path, text))


@pytest.mark.parametrize(
    "table",
    [
        {"presett": "quick"},
        {"preset": "fast"},
        {"exhibits": 0},
        {"strict": 7},
        {"techniques": {"max_activation": {"step": 3}}},
        {"techniques": {"filter": {}}},
        {"findings": {"duplicates": "many"}},
        {"waivers": [{"rule": "a"}]},
        {"waivers": {"rule": "a", "reason": "b"}},
    ],
)
def test_the_schema_refuses_what_the_tool_refuses(table: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(configuration_schema()).is_valid(table)
    with pytest.raises(UsageError):
        built(Job.from_options(table))
