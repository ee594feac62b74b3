"""The words of the command line: today's, older ones that still do, near ones that are suggested."""

import json
import re

import pytest
from safetensors import safe_open

from vggt_quant.cli import main as cli
from vggt_quant.cli.main import parser


def parsed(*words):
    return parser().parse_args(words)


def refusal(capsys, *words):
    """The last line of what a command says that refuses its words."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as ended:  # argparse
        code = ended.code
    assert code == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "Traceback" not in shown.err
    return shown.err.splitlines()[-1]


def test_the_older_names_of_the_same_things_are_taken_in_silence(capsys):
    older = ["--model_name", "tiny", "--image_folder", "a", "--max_images", "5", "--output_dir=b", "--cache-dir", "c"]
    today = ["--model", "tiny", "--images", "a", "--max-images", "5", "--output=b", "--cache", "c"]
    first, second = vars(parsed("compare", *older)), vars(parsed("compare", *today))
    differing = {name for name in first if first[name] != second[name]}
    assert differing <= {"default_of", "is_step"}  # functions, made for each parser
    assert capsys.readouterr().err == ""


def test_methods_are_variants_and_that_is_said_once(capsys):
    assert parsed("compare", "--methods", "bf16, int8_symmetric", "fp32,bf16").variants == [
        *("bf16", "int8_symmetric", "fp32")
    ]
    assert capsys.readouterr().err == "vggt-quant: --methods is the older spelling of --variants.\n"
    assert parsed("report", "--variants", "bf16").variants == ["bf16"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [("compare",), ("quantize", "--variant", "bf16"), ("speed",)])
def test_a_yaml_file_given_to_variants_defines_them(command):
    assert str(parsed(*command, "--variants", "mine.yml").variants_file) == "mine.yml"
    assert str(parsed(*command, "--variants=mine.yaml").variants_file) == "mine.yaml"


def test_a_yaml_file_among_the_names_of_variants_defines_them():
    args = parsed("compare", "--variants", "fp32", "bf16", "mine.yaml", "--device", "cpu")
    assert (args.variants, str(args.variants_file), args.device) == (["fp32", "bf16"], "mine.yaml", "cpu")
    args = parsed("compare", "--methods", "mine.yml", "fp32")
    assert (args.variants, str(args.variants_file)) == (["fp32"], "mine.yml")


def test_the_keys_of_a_file_of_variants_are_still_printed(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("plain: {method: cast}")
    assert cli.main(["keys", "--variants", str(file), "--device", "cpu"]) == 0
    assert list(json.loads(capsys.readouterr().out)["quantize"]) == ["plain"]
    said = refusal(capsys, "keys", "--variants", file, "--config", file)
    assert said.endswith("--variants-file would have no effect with --config; write variants_file into the config.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compare", "--methods", "fp32", "--variants", "bf16"), "--methods and --variants are spellings of one flag;"),
        (("compare", "--model", "tiny", "--model_name=tiny"), "--model and --model_name are spellings of one flag;"),
        (("compare", "--images", "a", "--image-folder", "b"), "--images and --image-folder are spellings of one"),
        (("compare", "--max_images", "1", "--max-images", "2"), "--max_images and --max-images are spellings of one"),
        (("compare", "--variants", "a.yaml", "--variants-file", "b.yaml"), "--variants and --variants-file are spell"),
        (
            ("quantize", "--variant", "bf16", "--out", "q.safetensors", "--output", "r.safetensors"),
            "--out and --output are spellings of one flag; keep one of them (today's is --output)",
        ),
    ],
    ids=" ".join,
)
def test_two_spellings_of_one_flag_are_refused_since_one_would_be_dropped(words, said, capsys):
    assert said in refusal(capsys, *words)


def test_two_flags_that_have_had_one_name_go_together():
    words = ["quantize", "--variant", "bf16", "--out", "a.json", "--out", "b.safetensors"]
    assert (str(parsed(*words).result), str(parsed(*words).output)) == ("a.json", "b.safetensors")
    args = parsed("compare", "--variants", "mine.yaml", "--variants", "bf16")
    assert (args.variants, str(args.variants_file)) == (["bf16"], "mine.yaml")


def test_out_is_the_result_or_the_product_whichever_it_looks_like():
    quantize = ["quantize", "--variant", "bf16"]
    assert str(parsed(*quantize, "--out", "a.json").result) == "a.json"
    assert str(parsed(*quantize, "--out=a.safetensors").output) == "a.safetensors"
    assert str(parsed("compare", "--out", "folder").output) == "folder"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--output", "a.json"), "--output: 'a.json' should end with .safetensors, .*; --result takes the record"),
        (("--result", "a.safetensors"), "--result: 'a.safetensors' should end with .json, .*; --output takes the"),
        (("--out", "a.bin"), "argument --out: 'a.bin' should end with .json"),
    ],
)
def test_a_suffix_that_fits_neither_product_nor_record_is_refused(flags, said, capsys):
    assert re.search(said, refusal(capsys, "quantize", "--variant", "bf16", *flags))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compare", "--image-foldr", "x"), "unrecognized arguments: --image-foldr (did you mean '--images'?)"),
        (("compare", "--outptu", "x"), "unrecognized arguments: --outptu (did you mean '--output'?)"),
        (("compare", "--imag", "x"), "unrecognized arguments: --imag (did you mean '--images'?)"),  # no abbreviations
        (("fetch", "eth3d", "office", "--too", "x"), "unrecognized arguments: --too (did you mean '--to'?)"),
        (("quantize", "--vairant", "x"), "unrecognized arguments: --vairant (did you mean '--variant'?)"),
        (("--hepl",), "unrecognized arguments: --hepl (did you mean '--help'?)"),
        (("quantise",), "invalid choice: 'quantise' (did you mean 'quantize'?)"),
        (("compare", "--device", "cudaa"), "invalid choice: 'cudaa' (did you mean 'cuda'?)"),
        (("compare", "--variants", "int4_group46"), "no variant 'int4_group46' (did you mean 'int4_group64'?)"),
        (("compare", "--variants", ","), "',' names no variant"),
        (("compare", "--variants", "fp32,my.yaml"), "'my.yaml' is a file, not a name; give it as --variants-file my.y"),
    ],
    ids=" ".join,
)
def test_a_near_miss_is_answered_with_the_word_that_was_meant(words, said, capsys):
    assert said in refusal(capsys, *words)


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"vggt-quant \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_quantize_writes_the_checkpoint_where_it_is_told_and_nothing_else(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    words = ["quantize", "--model", "nano-random", "--variant", "int8_symmetric", "--device", "cpu"]
    assert "--output FILE.safetensors, or --cache FOLDER" in refusal(capsys, *words)
    assert cli.main([*words, "--output", "my.safetensors"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["my.safetensors"]
    assert capsys.readouterr().out == ""
    with safe_open("my.safetensors", framework="np") as file:
        assert "w8a16" in file.metadata()["vggt_quant"]
    kept = [*words, "--output", "copy.safetensors", "--cache", "kept", "--result", "q.json"]
    with caplog.at_level("INFO"):
        assert cli.main(kept) == 0
    result = json.loads((tmp_path / "q.json").read_text())
    assert result["checkpoint"] == str(tmp_path / "copy.safetensors")
    (cached,) = (tmp_path / "kept" / "checkpoints").iterdir()
    assert f"made {cached}, copied to copy.safetensors (" in caplog.text
    assert cached.read_bytes() == (tmp_path / "copy.safetensors").read_bytes()


def test_a_model_is_not_replaced_by_its_own_checkpoint(tmp_path, capsys):
    model = tmp_path / "model.safetensors"
    model.write_text("precious")
    said = refusal(capsys, "quantize", "--model", model, "--variant", "bf16", "--output", model)
    assert "is the model itself" in said and model.read_text() == "precious"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A checkpoint as the README's lines of Python write it."""
    import vggt_quant

    file = tmp_path_factory.mktemp("packed") / "mine.safetensors"
    vggt_quant.save(vggt_quant.quantize_model(vggt_quant.load("nano-random"), "int8_symmetric"), file)
    return file


def test_a_saved_checkpoint_can_be_measured(packed, tmp_path):
    words = ["--packed", str(packed), "--images", "drawn", "--device", "cpu", "--result", str(tmp_path / "r.json")]
    assert cli.main(["speed", *words]) == 0
    timed = json.loads((tmp_path / "r.json").read_text())
    assert timed["variant"] == "int8_symmetric" and timed["latency_ms_median"] > 0
    assert cli.main(["accuracy", "--model", "nano-random", *words]) == 0
    measured = json.loads((tmp_path / "r.json").read_text())
    assert measured["variant"] == "int8_symmetric" and len(measured["scenes"]) == 16


def test_a_packed_checkpoint_is_no_original_model(packed, tmp_path, capsys):
    for words in (["compare", "--output", tmp_path / "out"], ["model"]):
        said = refusal(capsys, *words, "--model", packed)
        assert f"--model {packed} is a packed checkpoint" in said and "vggt-quant speed --packed" in said
    assert not (tmp_path / "out").exists()


def test_a_text_file_is_no_model(tmp_path, capsys):
    file = tmp_path / "garbage.safetensors"
    file.write_text("hello")
    for words in (["model"], ["compare", "--dry-run", "--output", tmp_path / "out"]):
        assert "is truncated or no safetensors file" in refusal(capsys, *words, "--model", file)
    assert not (tmp_path / "out").exists()
