"""`vggt-quant speed` for many variants, with real processes and the nano model: what it measures, how it goes on."""

import errno
import os
import signal
import subprocess
import time

import pytest
import sample_results
import torch
from processes import COMMAND, words_of, worker_of

from vggt_quant.cli import _speed_table as speed_table
from vggt_quant.cli import speed
from vggt_quant.cli.main import parser
from vggt_quant.data import random_photos
from vggt_quant.report import speed_folder
from vggt_quant.results import growth
from vggt_quant.results.schema import Failed, ModelResult, read, read_outcome, write
from vggt_quant.results.speed_schema import SpeedTable, SweepResult
from vggt_quant.runtime import locks

FLAGS = ["speed", "--model", "nano", "--random-weights", "--device", "cpu", "--image-size", "56x84"]
FLAGS += ["--num-images", "1,3", "--compare-at", "3", "--repeats", "6", "--variants", "int8_symmetric,tf32"]


def words(folder, *more):
    return [*FLAGS, "--output", str(folder), *more]


def run(folder, *more):
    """In this process, its jobs in theirs; returns the exit code and the table."""
    code = speed.run(parser().parse_args(words(folder, *more)))
    return code, read(SpeedTable, folder / "speed_table.json")


def rows(table):
    return {row.variant: row for row in table.rows}


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "sweeps").iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    code, table = run(folder)
    assert code == 0
    return folder, table


def test_every_variant_is_timed_at_every_size_beside_the_own_bf16(made):
    folder, table = made
    assert list(rows(table)) == ["bf16", "int8_symmetric", "tf32"]
    for name in ("bf16", "int8_symmetric"):
        sweep = rows(table)[name].sweep
        assert [size.num_images for size in sweep.sizes] == [1, 3]
        for size in sweep.sizes:
            assert len(size.latencies_ms) == 6
            assert min(size.latencies_ms) <= size.latency_ms_low <= size.latency_ms_median <= size.latency_ms_high
            assert sweep.weights_bytes < size.peak_memory_bytes
            assert size.kernels["dense"] and size.first_pass_seconds > 0
        assert [bool(size.outputs) for size in sweep.sizes] == [False, True]
        assert {one.output for one in sweep.sizes[1].outputs} >= {"depth", "depth_conf", "pose_enc", "world_points"}
        assert all(15 < one.sqnr_db < 90 for one in sweep.sizes[1].outputs)  # rounded, and the same photos
        assert sweep.image_size == [56, 84] and sweep.provenance.torch == torch.__version__
    assert rows(table)["int8_symmetric"].cells[0].speedup_vs_bf16 > 0
    assert (folder / "speed_table.png").is_file() and (folder / "speed_table.txt").is_file()


def test_what_the_device_lacks_is_a_row_with_its_reason(made):
    row = rows(made[1])["tf32"]
    assert (row.outcome, row.error.message) == ("unsupported", "TF32 runs on cuda only, not on cpu.")


def test_another_model_or_image_size_is_refused_and_loses_nothing(made, tmp_path):
    folder, _ = made
    before = times(folder)
    for more, said in (
        (["--image-size", "56x56"], "nano-random at 56x56"),
        (["--model", "nano-random:1"], "random:1 at"),
    ):
        with pytest.raises(ValueError, match=f"holds a table of nano-random at 56x84; .*{said}"):
            run(folder, *more)
    assert times(folder) == before


def test_one_command_at_a_time_works_in_a_folder(made):
    folder, _ = made
    with locks.sole_run(folder), pytest.raises(ValueError, match=f"is at work in {folder}: wait for its end"):
        run(folder)


def test_a_replaced_result_of_other_settings_is_kept(made, tmp_path):
    kept = read(SweepResult, made[0] / "sweeps" / "bf16.json")
    write(kept, tmp_path / "sweeps" / "bf16.json")
    speed_folder.keep_earlier(tmp_path, "bf16", kept.key)
    assert not (tmp_path / "earlier").exists()
    speed_folder.keep_earlier(tmp_path, "bf16", "another")
    (path,) = (tmp_path / "earlier").iterdir()
    assert read(SweepResult, path) == kept


def test_a_folder_that_cannot_be_written_to_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--output .*x is in .*file, which is a file, but should be a folder"):
        speed.run(parser().parse_args(words(tmp_path / "file" / "x")))
    full = pytest.raises(ValueError, match="full: No space left on device; see that --output")
    with full, locks.sole_run(tmp_path / "full"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_second_call_measures_nothing(made):
    folder, table = made
    before, begun = times(folder), time.perf_counter()
    code, again = run(folder)
    assert code == 0 and times(folder) == before
    assert time.perf_counter() - begun < 10  # no job was started
    assert again.rows == table.rows


def test_a_missing_result_is_measured_again_with_the_baseline_and_no_other(made):
    folder, table = made
    path = folder / "sweeps" / "int8_symmetric.json"
    other = dict(times(folder))
    path.unlink()
    time.sleep(1)  # a run is named by its second
    code, again = run(folder)
    assert code == 0
    assert {name for name, when in times(folder).items() if when != other[name]} == {"bf16.json", "int8_symmetric.json"}
    assert read_outcome(SweepResult, folder / "sweeps" / "tf32.json").started == rows(table)["bf16"].sweep.started
    assert rows(again)["bf16"].sweep.started == rows(again)["int8_symmetric"].sweep.started
    assert rows(again)["bf16"].sweep.started != rows(table)["bf16"].sweep.started


def test_other_settings_and_failures_are_measured_again_and_damage_is_no_result(made, tmp_path):
    folder, _ = made
    plan = speed_table.make_plan(parser().parse_args(words(folder)))
    path = folder / "sweeps" / "bf16.json"
    key, content = read(SweepResult, path).key, path.read_text()
    try:
        assert speed_table._is_done(plan, "bf16", key)
        assert not speed_table._is_done(plan, "bf16", "another")
        write(Failed(variant="bf16", error=sample_results.error("speed", "boom"), key=key), path)
        assert not speed_table._is_done(plan, "bf16", key)
        path.write_text(content[:100])
        assert not speed_table._is_done(plan, "bf16", key)
    finally:
        path.write_text(content)


@pytest.mark.parametrize(
    "more", [["--num-images", "1,2,3"], ["--repeats", "7"], ["--image-size", "56x56"], ["--memory-limit-mb", "9000"]]
)
def test_whatever_is_asked_for_is_in_the_key(made, more):
    folder, _ = made
    model = read(ModelResult, folder / "inputs" / "model.json")
    plans = [speed_table.make_plan(parser().parse_args(words(folder, *extra))) for extra in ([], more)]
    first, second = (speed_table._key(plan, model, plan.variants["bf16"]) for plan in plans)
    assert first != second


def job_of(parent, stage, variant):
    """The process of a job of the command, once it runs."""
    for _ in range(2400):
        child = worker_of(parent)
        if stage in (line := words_of(child)) and variant in line:
            return child
        time.sleep(0.025)
    raise AssertionError(f"{stage} of {variant} did not start")


def start(folder):
    return subprocess.Popen([*COMMAND, *words(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_command_or_a_job_that_is_ended_loses_nothing_and_the_next_call_goes_on(made):
    folder, _ = made
    for name in ("bf16", "int8_symmetric"):
        (folder / "sweeps" / f"{name}.json").unlink()
    with start(folder) as process:
        job_of(process, "speed", "int8_symmetric")
        process.terminate()
        said = process.communicate()[0]
    assert process.returncode == 128 + signal.SIGTERM
    assert "int8_symmetric: not measured yet" in said and "the same command goes on from here" in said
    assert read(SweepResult, folder / "sweeps" / "bf16.json").outcome == "ok"
    with start(folder) as process:
        os.kill(job_of(process, "speed", "int8_symmetric"), signal.SIGKILL)
        said = process.communicate()[0]
    assert process.returncode == 1
    assert "int8_symmetric failed: killed by signal 9 (SIGKILL)" in said
    code, table = run(folder)
    assert code == 0 and rows(table)["int8_symmetric"].outcome == "ok"


def test_a_size_that_does_not_fit_ends_the_sizes_and_fails_nothing(made, tmp_path):
    """The limit lets the nano model run one image, and not the attention of 300 images over each other."""
    write(random_photos.prepare(tmp_path, [400], 56, 84), tmp_path / "photos.json")
    result = sweep_of_bf16(made, tmp_path, "--num-images", "300,1,400", "--memory-limit-mb", "500")
    assert [size.outcome for size in result.sizes] == ["ok", "out_of_memory", "out_of_memory"]
    assert result.sizes[1].reason.startswith("out of memory at 300 images: RuntimeError: ")
    assert result.sizes[2].reason == result.sizes[1].reason
    assert result.outcome == "ok"


def test_the_number_of_images_that_just_fits_is_run_in_its_memory(made, tmp_path):
    write(random_photos.prepare(tmp_path, [3], 350, 518), tmp_path / "photos.json")
    result = sweep_of_bf16(made, tmp_path, "--num-images", "1,3", "--fill-memory", "1,100000")
    assert result.filled
    assert {size.tried_gib for size in result.filled} == {1}  # no machine has the other
    found = growth.capacity(1, [*result.sizes, *result.filled])
    run = {size.num_images: size.peak_memory_bytes <= growth.GIB for size in result.filled}
    assert max((number for number, fits in run.items() if fits), default=3) <= found.num_images
    assert all(found.num_images < number for number, fits in run.items() if not fits)


def sweep_of_bf16(made, tmp_path, *more):
    """Each size of the photos in `tmp_path` timed once, in a process with one thread."""
    folder, _ = made
    more += ("--packed", str(folder / "quantize" / "bf16.json"), "--images", str(tmp_path / "photos.json"))
    more += ("--repeats", "1", "--device", "cpu", "--result", str(tmp_path / "o.json"))
    process = subprocess.run([*COMMAND, "speed", *more], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.returncode == 0
    return read(SweepResult, tmp_path / "o.json")


def test_more_images_than_there_are_photos_are_refused(made, tmp_path):
    folder, _ = made
    more = ["--packed", str(folder / "quantize" / "bf16.json"), "--images", str(folder / "inputs" / "photos.json")]
    process = subprocess.run([*COMMAND, "speed", *more, "--num-images", "4"], capture_output=True, text=True)
    assert process.returncode == 2
    assert "There are 3 photos, so they cannot be timed 4 at a time." in process.stderr


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--model", "nano-random"], "Give --packed to time one checkpoint, or --model and --output"),
        (
            ["--model", "nano-random", "--output", "x", "--variants", "int5"],
            "no variant 'int5'",
        ),
        (
            ["--model", "nano-random", "--output", "x", "--image-size", "50x84"],
            "this model takes multiples of 14",
        ),
        (
            ["--model", "nano-random", "--output", "x", "--num-images", "100000000"],
            "100000000 of 350x518 are .* GB of images alone",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_a_sentence(tmp_path, monkeypatch, more, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        speed.run(parser().parse_args(["speed", "--device", "cpu", *more]))


TABLE = ["--model", "nano-random", "--output", "x"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([*TABLE, "--images", "y", "--result", "z.json"], "^--images, --result would have no effect with --output"),
        (["--redraw", "x", "--num-images", "1"], "^--num-images would have no effect with --redraw"),
        (["--packed", "x", "--variants", "bf16"], "^--variants would have no effect with --packed"),
        (["--packed", "x", "--repeats", "2"], "^--repeats would have no effect without --num-images"),
    ],
)
def test_a_flag_without_effect_is_refused(more, sentence):
    with pytest.raises(ValueError, match=sentence):
        speed.check(parser().parse_args(["speed", *more]))


def plan_of(*more):
    return speed_table.make_plan(parser().parse_args(["speed", "--device", "cpu", *TABLE, *more]))


def test_outputs_are_compared_where_they_are_asked_for():
    assert plan_of().compared == [1, 5]
    assert plan_of("--num-images", "2,5").compared == [5]
    assert plan_of("--compare-at", "none").compared == []
    with pytest.raises(ValueError, match="^--compare-at 3 is not among --num-images 1,2"):
        plan_of("--num-images", "1,2", "--compare-at", "3")


@pytest.mark.parametrize("model", ["vggt-1b", "facebook/VGGT-1B", "vggt-1b-random"])
def test_random_weights_come_in_the_sizes_of_a_model_however_it_is_called(model):
    assert plan_of("--random-weights", "--model", model).model == "vggt-1b-random"


def test_a_variant_that_cannot_be_is_named(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("../odd: {method: cast}")
    with pytest.raises(ValueError, match="name of a variant should be letters, .* but is '../odd'"):
        plan_of("--variants-file", str(file))
    file.write_text("broken: {method: round_to_nearest, config: {format: w3a3}}")
    with pytest.raises(ValueError, match="own.yaml: variant broken: .*w3a3"):
        run(tmp_path / "o", "--variants-file", str(file), "--variants", "broken")


def test_random_photos_are_smooth_and_the_first_are_always_the_same():
    three, two = random_photos.draw(3, 56, 84), random_photos.draw(2, 56, 84)
    assert torch.equal(three[:2], two) and not torch.equal(three[0], three[1])
    assert three.shape == (3, 3, 56, 84) and three.min() >= 0 and three.max() <= 1
    steps = three.diff(dim=-1).abs().mean()
    assert steps < 0.4 * three.std()  # noise has steps of 1.1 standard deviations
