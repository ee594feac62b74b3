"""Definitions: what they take, and the sentence for each mistake."""

import math
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from vggt_quant.results.validation import Definition, build, expected, near


class Inner(Definition):
    engine: Literal["fast", "plain"] = "fast"
    size: Annotated[int, Meta(ge=1)] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.engine == "plain" and self.size:
            raise ValueError("size goes with engine: fast only.")


class Outer(Definition):
    name: Annotated[str, Meta(min_length=1)]
    inner: Inner = Inner()
    many: dict[str, Inner] = {}
    rows: list[Inner] = []
    seconds: float = 0.0
    default: bool | Literal["cpu", "cuda"] = True
    pair: tuple[int, int] = (1, 2)


class Ok(Struct, tag_field="outcome", tag="ok", forbid_unknown_fields=True):
    size: int


class Failed(Struct, tag_field="outcome", tag="failed", forbid_unknown_fields=True):
    error: str


class File(Definition):
    result: Ok | Failed
    worst: Ok | Failed | None = None


def test_data_that_fits_becomes_the_definition():
    data = {"name": "a", "inner": {"size": 3}, "many": {"x": {}}, "rows": [{"engine": "plain"}], "seconds": 3}
    made = build(Outer, data)
    assert made == Outer(name="a", inner=Inner(size=3), many={"x": Inner()}, rows=[Inner(engine="plain")], seconds=3.0)
    assert isinstance(made.seconds, float)
    assert build(File, {"result": {"outcome": "failed", "error": "x"}}).result == Failed("x")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": ""}, "name should be text that is not empty, but is ''."),
        ({"name": None}, "name should be text that is not empty, but is null."),
        ({"inner": 3}, "inner should be a mapping, but is 3."),
        ({"inner": {"engine": "fats"}},
         "inner.engine should be one of fast, plain, but is 'fats' (did you mean 'fast'?)."),
        ({"inner": {"size": 0}}, "inner.size should be a whole number from 1 or null, but is 0."),
        ({"inner": {"size": "3"}}, "inner.size should be a whole number from 1 or null, but is '3'."),
        ({"inner": {"size": True}}, "inner.size should be a whole number from 1 or null, but is true."),
        ({"inner": {"size": 2.0}}, "inner.size should be a whole number from 1 or null, but is 2.0."),
        ({"inner": {"sise": 2}}, "inner: there is no key 'sise' (did you mean 'size'?); the keys are engine, size."),
        ({"inner": {"engine": "plain", "size": 2}}, "inner: size goes with engine: fast only."),
        ({"many": {"x": {}, "y": {"size": 0}}}, "many.y.size should be a whole number from 1 or null, but is 0."),
        ({"many": {1: {}}}, "many.1 should be text, but is 1."),
        ({"rows": [{}, {"engine": 1}]}, "rows[1].engine should be one of fast, plain, but is 1."),
        ({"default": "gpu"}, "default should be one of true, false, cpu, cuda, but is 'gpu'."),
        ({"pair": [1]}, "pair should be a list of 2, each a whole number, but is [1]."),
        ({"pair": [1, "x"]}, "pair[1] should be a whole number, but is 'x'."),
        ({"seconds": math.nan}, "seconds should be a finite number or null, but is nan."),
        ({"rows": [{"engine": -math.inf}]}, "rows[0].engine should be a finite number or null, but is -inf."),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_named_with_place_value_and_what_is_expected(changes, sentence):
    with pytest.raises(ValueError) as caught:
        build(Outer, {"name": "a", **changes}, "mine.yaml")
    assert str(caught.value) == f"mine.yaml: {sentence}"


def test_a_missing_key_is_named_with_what_it_should_be():
    with pytest.raises(ValueError, match=r"^mine.yaml: the key 'name' is missing; it should be text that is not empty"):
        build(Outer, {}, "mine.yaml")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"result": {"outcome": "ok", "size": "x"}}, "result.size should be a whole number, but is 'x'."),
        ({"result": {"outcome": "failed", "sise": 1}}, "result: there is no key 'sise'; the keys are outcome, error."),
        ({"result": {"outcome": "ok", "size": 1}, "worst": {"outcome": "ok"}}, "worst: the key 'size' is missing; "),
    ],
)
def test_the_mistake_is_looked_for_in_the_outcome_that_the_data_names(data, sentence):
    with pytest.raises(ValueError) as caught:
        build(File, data)
    assert str(caught.value).startswith(sentence)


def test_an_outcome_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="^result.outcome should be one of ok, failed, but is 'fine'"):
        build(File, {"result": {"outcome": "fine"}})


def test_python_code_that_makes_a_definition_is_checked_as_a_file_is():
    with pytest.raises(ValueError, match="^Inner.engine should be one of fast, plain, but is 'slow'"):
        Inner(engine="slow")
    with pytest.raises(ValueError, match="^Outer.seconds should be a finite number"):
        Outer(name="a", seconds=math.inf)


def test_python_code_may_give_plain_data_for_a_part():
    assert Outer(name="a", inner={"size": 3}, seconds=2).inner == Inner(size=3)
    assert isinstance(Outer(name="a", seconds=2).seconds, float)


def test_numbers_written_as_text_are_taken_where_they_come_from_a_command_line():
    assert build(Inner, {"size": "3"}, strict=False) == Inner(size=3)
    with pytest.raises(ValueError, match="size should be a whole number from 1 or null, but is 'none'"):
        build(Inner, {"size": "none"}, strict=False)


def test_a_name_that_is_like_a_known_one_is_suggested():
    assert near("groupsize", ["group_size", "format"]) == " (did you mean 'group_size'?)"
    assert near("zebra", ["group_size"]) == "" and near(3, ["group_size"]) == ""


def test_types_are_told_in_words():
    assert expected(Annotated[float, Meta(gt=1)]) == "a number above 1"
    assert expected(Annotated[str, Meta(pattern="^a$", description="the letter a")] | None) == "the letter a or null"
