"""Result files: they survive a round trip, refuse every wrong field by name, and match the exported schema."""

import dataclasses
import json
import math
import os
import types
import typing
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import sample_results
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vggt_quant.report.collect import write_schema
from vggt_quant.results.files import write_bytes
from vggt_quant.results.schema import RESULT_TYPES, ComparisonReport, SpeedResult, Status, finite, read, write
from vggt_quant.results.typed_json import build, json_schema

SCHEMA = Path(__file__).parents[1] / "workflow" / "schemas" / "comparison_report.schema.json"
JSON_VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
SCALARS = {str: st.text(max_size=5), int: st.integers(), bool: st.booleans(), type(None): st.none()}
SCALARS[float] = st.floats(allow_nan=False, allow_infinity=False)


def strategy_of(annotation: Any) -> st.SearchStrategy:
    """Any value that the annotation allows."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        return st.builds(annotation, **{name: strategy_of(hint) for name, hint in hints.items()})
    if annotation is Any:
        return JSON_VALUES
    if origin in (types.UnionType, typing.Union):
        return st.one_of([strategy_of(argument) for argument in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(strategy_of(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), strategy_of(arguments[1]), max_size=2)
    return SCALARS[annotation]


def status_data(**changes: Any) -> dict[str, Any]:
    return {
        **sample_results.as_json(sample_results.status("speed", "bf16", sample_results.error("speed", "x"))),
        **changes,
    }


@pytest.mark.parametrize("cls", RESULT_TYPES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_result_survives_a_round_trip(cls, data):
    result = data.draw(strategy_of(cls))
    as_json = json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))
    assert build(cls, as_json) == result
    jsonschema.validate(as_json, json_schema(cls))


def test_a_written_file_reads_back_and_is_for_people_too(tmp_path):
    speed = sample_results.speed("bf16", 96.4, 0.8)
    write(speed, tmp_path / "deep" / "bf16.json")
    assert read(SpeedResult, tmp_path / "deep" / "bf16.json") == speed
    text = (tmp_path / "deep" / "bf16.json").read_text()
    assert text.count("\n") > 20 and text.endswith("}\n")


def test_whole_numbers_are_read_as_floats_where_floats_are_due():
    status = build(Status, status_data(seconds=3))
    assert status.seconds == 3.0 and isinstance(status.seconds, float)


def test_fields_with_a_default_may_be_absent():
    data = sample_results.as_json(sample_results.speed("bf16", 96.4, 0.8))
    del data["latency_ms_iqr"], data["kernels"]
    speed = build(SpeedResult, data)
    assert speed.latency_ms_iqr is None and speed.kernels == {}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"stage": 3}, "stage should be str"),
        ({"seconds": "3"}, "seconds should be float"),
        ({"seconds": True}, "seconds should be float"),
        ({"seconds": None}, "seconds should be float"),
        ({"seconds": math.nan}, "seconds should be a finite number"),
        ({"seconds": math.inf}, "seconds should be a finite number"),
        ({"variant": 1}, "variant should be str"),
        ({"outcome": "fine"}, "outcome should be one of ['ok', 'unsupported', 'failed']"),
        ({"outcome": ["ok"]}, "outcome should be one of"),
        ({"command": "ls"}, "command should be a list"),
        ({"command": ["ls", 3]}, "command[1] should be str"),
        ({"error": "bad"}, "error should be an object"),
        ({"error": {"stage": "speed"}}, "error should be all fields of Error"),
        ({"surprise": 1}, "Status should be only the fields of Status, but is ['surprise']"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_field_is_named(changes, where):
    with pytest.raises(ValueError) as caught:
        build(Status, status_data(**changes))
    assert str(caught.value).startswith(where)


def test_a_wrong_field_deep_inside_is_named_with_its_path():
    data = sample_results.as_json(sample_results.accuracy("bf16", [sample_results.scene(0.1, 0.2, 30.0)]))
    data["scenes"][0]["outputs"]["depth"]["mae"] = "small"
    with pytest.raises(ValueError, match=r"^scenes\[0\]\.outputs\.depth\.mae should be float, but is 'small'"):
        build(type(sample_results.accuracy("bf16", [])), data)


def test_a_missing_field_is_named():
    data = status_data()
    del data["seconds"]
    with pytest.raises(ValueError, match=r"all fields of Status, but is \"nothing for \['seconds'\]\""):
        build(Status, data)


@pytest.mark.parametrize("data", [[], "text", None, 3])
def test_a_file_that_is_no_object_is_refused(data):
    with pytest.raises(ValueError, match="Status should be an object"):
        build(Status, data)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"stage": 1}', '{"seconds": NaN}', "\udcff"])
def test_a_damaged_file_is_refused_with_its_name_and_the_cure(tmp_path, text):
    path = tmp_path / "speed.status.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"speed\.status\.json is not a Status: .*; delete it and run again\."):
        read(Status, path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_does_not_know_are_never_written(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        write(sample_results.speed("bf16", 96.4, value), tmp_path / "bf16.json")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        write_bytes(b"new", path)  # a file cannot replace a folder
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_written_file_can_be_read_by_others(tmp_path):
    write_bytes(b"x", tmp_path / "x")
    assert os.stat(tmp_path / "x").st_mode & 0o777 == 0o644


def test_finite_turns_what_json_cannot_say_into_none():
    assert [finite(value) for value in (1.5, math.nan, math.inf, -math.inf)] == [1.5, None, None, None]


def test_the_exported_schema_is_in_step_with_the_dataclasses(tmp_path):
    write_schema(tmp_path / "schema.json")
    write_call = f"from vggt_quant.report.collect import write_schema; write_schema('workflow/schemas/{SCHEMA.name}')"
    assert SCHEMA.read_text() == (tmp_path / "schema.json").read_text(), f'run: python -c "{write_call}"'


def test_the_schema_itself_is_valid():
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))
    assert set(json_schema(ComparisonReport)["$defs"]) >= {"MethodRow", "TensorError", "Provenance", "Error"}


@pytest.mark.parametrize(
    "changes", [{"partial": "yes"}, {"methods": None}, {"surprise": 1}, {"errors": [{"stage": 1}]}], ids=str
)
def test_the_schema_refuses_what_the_reader_refuses(changes):
    report = ComparisonReport(
        partial=False,
        model=None,
        images=None,
        calibration=None,
        reference=None,
        methods=[],
        recommendation="",
        errors=[],
    )
    data = {**sample_results.as_json(report), **changes}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json.loads(SCHEMA.read_text()))
    with pytest.raises(ValueError):
        build(ComparisonReport, data)
