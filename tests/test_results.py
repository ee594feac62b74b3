"""Result files: they survive a round trip, refuse every wrong field by name, and match the exported schema."""

import json
import math
import os
import types
import typing
from pathlib import Path
from typing import Any, Literal

import jsonschema
import msgspec
import pytest
import sample_results
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from vggt_quant.results.documentation import file_schema
from vggt_quant.results.files import write_bytes
from vggt_quant.results.record import Record, finite
from vggt_quant.results.report_schema import ComparisonReport
from vggt_quant.results.schema import (
    AccuracyResult,
    Failed,
    ImagesResult,
    ModelResult,
    QuantizeResult,
    ReferenceResult,
    SpeedResult,
    Status,
    Unsupported,
    as_text,
    read,
    read_outcome,
    write,
)
from vggt_quant.results.speed_schema import SpeedTable, SweepResult
from vggt_quant.results.validation import build

FILES = (ModelResult, ImagesResult, ReferenceResult, Status, ComparisonReport, SpeedTable)
OUTCOMES = (QuantizeResult, AccuracyResult, SpeedResult, SweepResult, Unsupported, Failed)
SCHEMA = Path(__file__).parents[1] / "workflow" / "schemas" / "comparison_report.schema.json"
JSON_VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
SCALARS = {str: st.text(max_size=5), int: st.integers(), bool: st.booleans(), type(None): st.none()}
SCALARS[float] = st.floats(allow_nan=False, allow_infinity=False)


def strategy_of(annotation: Any) -> st.SearchStrategy:
    """Any value that the annotation allows."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Record):
        fields = msgspec.structs.fields(annotation)
        return st.builds(annotation, **{field.name: strategy_of(field.type) for field in fields})
    if annotation is Any:
        return JSON_VALUES
    if origin in (types.UnionType, typing.Union):
        return st.one_of([strategy_of(argument) for argument in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(strategy_of(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(strategy_of(arguments[0]), strategy_of(arguments[1]), max_size=2)
    return SCALARS[annotation]


def status_data(**changes: Any) -> dict[str, Any]:
    data = sample_results.as_json(sample_results.status("speed", "bf16", sample_results.error("speed", "x")))
    del data["schema_version"]
    return {**data, **changes}


@pytest.mark.parametrize("cls", [*FILES, *OUTCOMES])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_result_survives_a_round_trip(tmp_path, cls, data):
    try:
        result = data.draw(strategy_of(cls))
    except ValueError as error:  # figures that no metric describes
        assert "no metric describes" in str(error)
        reject()
    path = tmp_path / "result.json"
    write(result, path)
    assert (read_outcome if cls in OUTCOMES else read)(cls, path) == result
    jsonschema.validate(json.loads(path.read_text()), file_schema(cls))


def test_a_written_file_reads_back_and_is_for_people_too(tmp_path):
    speed = sample_results.speed("bf16", 96.4, 0.8)
    write(speed, tmp_path / "deep" / "bf16.json")
    assert read(SpeedResult, tmp_path / "deep" / "bf16.json") == speed
    text = (tmp_path / "deep" / "bf16.json").read_text()
    assert text.count("\n") > 20 and text.endswith("}\n")


def test_whole_numbers_are_read_as_floats_where_floats_are_due():
    status = build(Status, status_data(seconds=3))
    assert status.seconds == 3.0 and isinstance(status.seconds, float)


def test_a_result_without_one_of_its_figures_is_refused():
    data = sample_results.as_json(sample_results.speed("bf16", 96.4, 0.8))
    del data["schema_version"], data["latency_ms_iqr"]
    with pytest.raises(ValueError, match="'latency_ms_iqr' is missing"):
        build(SpeedResult, data)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stage": 3}, "stage should be text, but is 3."),
        ({"seconds": "3"}, "seconds should be a number, but is '3'."),
        ({"seconds": True}, "seconds should be a number, but is true."),
        ({"seconds": None}, "seconds should be a number, but is null."),
        ({"seconds": math.nan}, "seconds should be a finite number or null, but is nan."),
        ({"seconds": math.inf}, "seconds should be a finite number or null, but is inf."),
        ({"variant": 1}, "variant should be text or null, but is 1."),
        ({"outcome": "fine"}, "outcome should be one of ok, unsupported, failed, but is 'fine'"),
        ({"outcome": ["ok"]}, "outcome should be one of"),
        ({"command": "ls"}, "command should be a list"),
        ({"command": ["ls", 3]}, "command[1] should be text, but is 3."),
        ({"error": "bad"}, "error should be a mapping or null, but is 'bad'."),
        ({"error": {"stage": "speed"}}, "error: the key 'kind' is missing"),
        ({"surprise": 1}, "there is no key 'surprise'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_field_is_named(changes, sentence):
    with pytest.raises(ValueError) as caught:
        build(Status, status_data(**changes))
    assert str(caught.value).startswith(sentence)


def test_a_wrong_field_deep_inside_is_named_with_its_path():
    data = sample_results.as_json(sample_results.accuracy("bf16", [sample_results.scene(0.1, 0.2, 30.0)]))
    data["scenes"][0]["outputs"]["depth"]["mae"] = "small"
    del data["schema_version"]
    with pytest.raises(
        ValueError, match=r"^scenes\[0\]\.outputs\.depth\.mae should be a number or null, but is 'small'"
    ):
        build(AccuracyResult, data)


def test_a_missing_field_is_named():
    data = status_data()
    del data["seconds"]
    with pytest.raises(ValueError, match="^the key 'seconds' is missing"):
        build(Status, data)


@pytest.mark.parametrize("data", [[], "text", None, 3])
def test_a_file_that_is_no_object_is_refused(data):
    with pytest.raises(ValueError, match="should be a mapping"):
        build(Status, data)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema_version": 3, "stage": 1}', "\udcff"])
def test_a_damaged_file_is_refused_with_its_name_and_the_cure(tmp_path, text):
    path = tmp_path / "speed.status.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"speed\.status\.json is not a valid Status: .*; delete it and run again\."):
        read(Status, path)


@pytest.mark.parametrize("text", ['{"stage": 1}', '{"schema_version": 2}'])
def test_a_file_of_an_older_version_says_so_and_is_to_be_measured_anew(tmp_path, text):
    (tmp_path / "bf16.json").write_text(text)
    with pytest.raises(ValueError, match="bf16.json is a result of an older version of vggt_quant; delete it and run"):
        read_outcome(SpeedResult, tmp_path / "bf16.json")


def test_every_file_begins_with_the_version_of_its_schema():
    for result in (sample_results.MODEL, sample_results.speed("bf16", 96.4, 0.8), sample_results.IMAGES):
        assert next(iter(json.loads(as_text(result)).items())) == ("schema_version", 3)


def test_what_became_of_a_variant_is_told_by_its_outcome(tmp_path):
    error = sample_results.error("speed", "no kernel", "unsupported", 0)
    for result in (sample_results.speed("fp8", 1.0, 0.1), Unsupported(variant="fp8", error=error)):
        write(result, tmp_path / "fp8.json")
        assert read_outcome(SpeedResult, tmp_path / "fp8.json") == result
        assert json.loads((tmp_path / "fp8.json").read_text())["outcome"] == result.outcome
    with pytest.raises(ValueError, match="not a valid SpeedResult: outcome should be ok, but is 'unsupported'"):
        read(SpeedResult, tmp_path / "fp8.json")


def test_figures_that_no_metric_describes_are_refused(tmp_path):
    result = sample_results.accuracy("bf16", [sample_results.scene(0.1, 0.2, 30.0)])
    data = json.loads(as_text(result))
    data["scenes"][0]["deviation"]["depth_abs"] = 0.1
    (tmp_path / "bf16.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"bf16.json is not a valid AccuracyResult: .*scene cake .*\['depth_abs'\]"):
        read(AccuracyResult, tmp_path / "bf16.json")


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


def test_the_exported_schema_is_in_step_with_the_records():
    assert json.loads(SCHEMA.read_text()) == file_schema(ComparisonReport), "run: make docs"


def test_the_schema_itself_is_valid():
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))
    assert set(file_schema(ComparisonReport)["$defs"]) >= {"VariantRow", "TensorError", "Provenance", "Error", "Metric"}


@pytest.mark.parametrize(
    "changes", [{"partial": "yes"}, {"variants": None}, {"surprise": 1}, {"errors": [{"stage": 1}]}], ids=str
)
def test_the_schema_refuses_what_the_reader_refuses(changes):
    report = ComparisonReport(
        partial=False,
        model=None,
        images=None,
        calibration=None,
        reference=None,
        metrics={},
        variants=[],
        recommendation="",
        errors=[],
        created="",
    )
    data = {**sample_results.as_json(report), **changes}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json.loads(SCHEMA.read_text()))
    del data["schema_version"]
    with pytest.raises(ValueError):
        build(ComparisonReport, data)
