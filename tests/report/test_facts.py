"""``report.json`` is what its schema says."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest

from reportgen.report.facts import Facts, Listed, json_bytes, json_parts, json_texts, schema
from reportgen.techniques import registry
from tests.report.small import TECHNIQUES, document


def whole() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(json_bytes(document().facts))
    return facts


def strict() -> jsonschema.Draft202012Validator:
    made = schema({name: {"type": "object"} for name in TECHNIQUES})
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def test_schema_validates_the_facts() -> None:
    strict().validate(whole())
    Facts.model_validate(whole())


def test_schema_of_all_techniques_is_one() -> None:
    made = schema({name: cls.results_schema for name, cls in registry().items()})
    jsonschema.Draft202012Validator.check_schema(made)
    json_bytes(made)


def test_schema_validates_a_refusal() -> None:
    facts = {
        "schema": 1,
        "generator": whole()["generator"],
        "refused": {"error": "ModelFileError", "thing": "x", "remedy": ""},
    }
    strict().validate(facts)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "one"),
        (("model", "safe"), "yes"),
        (("model", "unheard-of"), 1),
        (("techniques", "filters", "status"), "almost"),
        (("findings", 0, "severity"), "grave"),
        (("images", "skipped", 0), {"file": "x"}),
        (("predictions", 0, "top", 0, "probability"), 1.5),
        (("metrics", "accuracy", "interval"), [0.1]),
    ],
)
def test_schema_refuses_what_is_wrong(path: tuple[str | int, ...], value: object) -> None:
    facts = copy.deepcopy(whole())
    place: Any = facts
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not strict().is_valid(facts)


def test_results_are_held_to_the_schema_of_their_technique() -> None:
    wanted = {"type": "object", "required": ["maps"], "properties": {"maps": {"type": "integer"}}}
    validator = jsonschema.Draft202012Validator(schema({"filters": wanted}))
    facts = whole()
    assert not validator.is_valid(facts)
    facts["techniques"]["filters"]["results"] = {"maps": 3}
    assert validator.is_valid(facts)
    facts["techniques"]["filters"] |= {"status": "failed", "results": {}, "reason": "memory ran out"}
    assert validator.is_valid(facts)


def test_bytes() -> None:
    told = json_bytes({"a": [float("nan"), float("inf"), 0.5], "猫": (1,), "b": {"c": float("-inf")}})
    assert told.endswith(b"}\n")
    assert "猫".encode() in told
    assert b'\n  "a": [' in told
    assert json.loads(told) == {"a": [None, None, 0.5], "猫": [1], "b": {"c": None}}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_made_when_it_is_read_is_written_like_a_list(count: int) -> None:
    def entry(number: int) -> dict[str, Any]:
        return {"image": f'a\n"{number}"', "top": [{"p": float("nan")}, {}], "none": []}

    listed = Listed(range(count), entry)
    facts = {"before": {"x": [1, {"y": []}]}, "predictions": listed, "after": "é"}
    plain = {**facts, "predictions": [entry(number) for number in range(count)]}
    expected = json.dumps(plain, indent=2, ensure_ascii=False).replace("NaN", "null") + "\n"
    assert json_bytes(facts).decode() == json_bytes(plain).decode() == expected
    compact = "".join(json_texts(facts, indent=None, ascii_only=True))
    assert compact == json.dumps(plain, separators=(",", ":")).replace("NaN", "null")
    assert repr(listed[:2]) == repr(plain["predictions"][:2])
    assert len(list(json_parts(facts))) > count


def test_a_lone_surrogate_is_still_utf8() -> None:
    assert json.loads(json_bytes({"name": "a\udcff.png"}).decode("utf-8"))["name"] == "a\udcff.png"
