"""The picture: every variant keeps its place, every number its label, and nothing leaves the paper."""

import pytest
import sample_results
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from msgspec.structs import replace
from PIL import Image

from vggt_quant.report import figures
from vggt_quant.report.collect import collect
from vggt_quant.results.metric import panels
from vggt_quant.results.report_schema import ComparisonReport

EMPTY = ComparisonReport(
    partial=True,
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
DEVIATION, TRUTH = panels(sample_results.METRICS["deviation"]), panels(sample_results.METRICS["truth"])


def plot_depth_error(axes, report):
    ((title, shown),) = DEVIATION.items()
    figures.plot_deviation(axes, report, title=title, shown=shown)


def plot_pose_truth(axes, report):
    figures.plot_truth(axes, report, title="Cameras vs ground truth", shown=TRUTH["Cameras vs ground truth"])


def plot_depth_truth(axes, report):
    figures.plot_truth(axes, report, title="Depth vs ground truth", shown=TRUTH["Depth vs ground truth"])


PANELS = (figures.plot_size, figures.plot_time, figures.plot_compression, plot_depth_error)


@pytest.fixture(name="report")
def _report(tmp_path) -> ComparisonReport:
    return collect(*sample_results.write_run(tmp_path))


@pytest.fixture(name="known")
def _known(tmp_path) -> ComparisonReport:
    """A report on scenes with ground truth."""
    return collect(*sample_results.write_known_run(tmp_path))


def draw(panel, report) -> tuple:
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    panel(axes, report)
    figure.canvas.draw()
    return axes, [text.get_text() for text in axes.texts]


def with_row(report, variant, **changes):
    rows = [replace(row, **changes) if row.variant == variant else row for row in report.variants]
    return replace(report, variants=rows)


def test_the_picture_is_a_large_png_written_whole(report, tmp_path):
    path = tmp_path / "out" / "comparison_plots.png"
    figures.comparison_plots(report, path)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width >= 2000
        assert len(image.convert("L").getcolors(256)) > 50  # not a blank page
    assert [p.name for p in path.parent.iterdir()] == ["comparison_plots.png"]


def test_panels_on_the_truth_are_there_where_it_is_known_and_weights_have_learnt(report, known, tmp_path):
    titles = {axes.get_title(loc="left") for axes in figures.comparison_figure(known).axes}
    assert titles >= {"Cameras vs ground truth", "Depth vs ground truth"} and len(titles) == 6
    assert len(figures.comparison_figure(report).axes) == 4
    random = collect(*sample_results.write_known_run(tmp_path / "random", model=sample_results.RANDOM_MODEL))
    assert len(figures.comparison_figure(random).axes) == 4


def test_cameras_have_two_figures_a_variant_with_their_intervals(known):
    axes, texts = draw(plot_pose_truth, known)
    assert [label.get_text() for label in axes.get_yticklabels()] == sample_results.VARIANTS
    assert {"78.5", "74.7", "78.5 ~", "39.5 ~", "failed", "unsupported"} <= set(texts)
    whiskers = [w.lines[2][0].get_segments()[0][:, 0] for w in axes.containers if hasattr(w, "lines")]
    assert len(whiskers) == 2 * 7
    bf16 = next(row for row in known.variants if row.variant == "bf16").truth["pose_auc_30"]
    assert any(tuple(span) == pytest.approx((100 * bf16.low, 100 * bf16.high)) for span in whiskers)
    assert "over 6 scenes" in axes.get_xlabel() and "~ not significantly different from fp32" in axes.get_xlabel()


def test_depth_against_the_truth_starts_at_zero_and_shows_its_intervals(known):
    axes, texts = draw(plot_depth_truth, known)
    assert {"6.6 %", "6.6 % ~", "10.4 %", "failed", "unsupported"} <= set(texts)
    assert axes.get_xlim()[0] == 0
    assert sum(hasattr(container, "lines") for container in axes.containers) == 7


def test_one_scene_is_drawn_without_intervals(tmp_path):
    report = collect(*sample_results.write_known_run(tmp_path, 1))
    for panel in (plot_pose_truth, plot_depth_truth):
        axes, texts = draw(panel, report)
        assert not any(hasattr(container, "lines") for container in axes.containers)
        assert axes.get_xlabel().endswith("one scene") and not any("~" in text for text in texts)


@pytest.mark.parametrize("panel", PANELS)
def test_every_variant_has_a_place_and_the_unfinished_say_why(report, panel):
    axes, texts = draw(panel, report)
    assert [label.get_text() for label in axes.get_yticklabels()] == sample_results.VARIANTS
    assert texts.count("failed") == 1 and texts.count("unsupported") == 1
    assert len(texts) == len(sample_results.VARIANTS)
    assert axes.yaxis_inverted(), "the first variant is on top"


@pytest.mark.parametrize(
    ("panel", "expected"),
    [
        (figures.plot_size, {"5.03 GB", "2.51 GB", "0.853 GB"}),
        (figures.plot_time, {"401 ms", "96.4 ms", "88.2 ms", "14210 ms on cpu, another device →"}),
        (figures.plot_compression, {"1.00x", "2.00x", "5.89x"}),
        (plot_depth_error, {"reference", "0.0013", "0.0187"}),
    ],
)
def test_bars_carry_their_values(report, panel, expected):
    assert expected <= set(draw(panel, report)[1])


def test_small_models_are_measured_in_megabytes(report):
    rows = [replace(row, quantize=sample_results.quantize(row.variant, 12_300_000)) for row in report.variants]
    axes, texts = draw(figures.plot_size, replace(report, variants=rows))
    assert "12.3 MB" in texts and axes.get_xlabel().startswith("MB")


def test_whiskers_span_the_middle_half_of_the_runs_on_the_same_device_only(report):
    axes, _ = draw(figures.plot_time, report)
    spans = [segment[:, 0] for whisker in axes.containers if hasattr(whisker, "lines") for segment in
             whisker.lines[2][0].get_segments()]  # fmt: skip
    assert len(spans) == len(sample_results.FINISHED), "none for the row that was measured on the CPU"
    low, high = spans[0]
    assert (low, high) == pytest.approx((401.3 - 0.95, 401.3 + 0.95))


def test_a_slower_device_does_not_squash_the_others(report):
    axes, _ = draw(figures.plot_time, report)
    assert axes.get_xlim()[1] < 2 * 401.3


def test_errors_that_span_decades_get_a_logarithmic_axis_and_others_do_not(report):
    assert draw(plot_depth_error, report)[0].get_xscale() == "log"
    few = replace(report, variants=[row for row in report.variants if row.variant.startswith(("fp32", "int4"))])
    axes, texts = draw(plot_depth_error, few)
    assert axes.get_xscale() == "linear" and "reference" in texts


def test_random_weights_are_said_in_the_title_and_under_the_axis(tmp_path):
    report = collect(*sample_results.write_run(tmp_path, sample_results.RANDOM_MODEL))
    axes, _ = draw(plot_depth_error, report)
    assert "random weights" in axes.get_title(loc="left") and "not the quality" in axes.get_xlabel()


def test_a_variant_without_a_depth_error_keeps_an_empty_slot(report):
    broken = sample_results.accuracy("bf16", [sample_results.scene(None, None, None)])
    assert "no number" in draw(plot_depth_error, with_row(report, "bf16", accuracy=broken))[1]


@pytest.mark.parametrize("variant", ["fp32", "bf16"])
def test_an_error_of_zero_is_said_in_words(report, variant):
    exact = sample_results.accuracy(variant, [sample_results.scene(0.0, 0.0, None)])
    texts = draw(plot_depth_error, with_row(report, variant, accuracy=exact))[1]
    assert ("0 (identical)" in texts) == (variant == "bf16")


@pytest.mark.parametrize("slowdown", [0.2, 0.9, 1.1, 400.0])
def test_no_text_leaves_the_paper_or_covers_another(known, slowdown):
    """At every length of the marked bar: short, nearly as long as the panel, cut."""
    report = known
    slow = sample_results.speed("pytorch_dynamic_int8", 401.3 * slowdown, 3.0, device="cpu")
    label = replace(sample_results.RANDOM_MODEL, label="random weights (seed 12345), 24 blocks of 1024")
    report = replace(with_row(report, "pytorch_dynamic_int8", speed=slow), model=label)
    figure = figures.comparison_figure(report)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    paper = figure.bbox
    boxes = []
    for axes in figure.axes:
        texts = [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, *axes.get_yticklabels()]
        boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
    boxes.append(("title", figure._suptitle.get_window_extent(renderer)))
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= paper.x1 and box.y0 >= 0 and box.y1 <= paper.y1, f"{text} leaves the paper"
    for i, (text, box) in enumerate(boxes):
        for other_text, other in boxes[:i]:
            assert not box.overlaps(other), f"{text} covers {other_text}"


def test_a_report_without_any_finished_variant_is_drawn(report, tmp_path):
    rows = [row for row in report.variants if row.outcome != "ok"]
    figures.comparison_plots(replace(report, variants=rows), tmp_path / "plots.png")
    assert draw(figures.plot_time, replace(report, variants=rows))[1] == ["unsupported", "failed"]


def test_an_empty_report_is_drawn(tmp_path):
    figures.comparison_plots(EMPTY, tmp_path / "plots.png")
    assert draw(figures.plot_size, EMPTY)[1] == ["no variants"]


def test_names_that_the_font_lacks_or_that_look_like_formulas_are_drawn_as_they_are(report, tmp_path):
    model = replace(sample_results.MODEL, label="照片 $x_1$ {model}")
    rows = [replace(row, variant=f"${row.variant}_^") for row in report.variants]
    figures.comparison_plots(replace(report, model=model, variants=rows), tmp_path / "plots.png")
    axes, _ = draw(figures.plot_size, replace(report, variants=rows))
    assert axes.get_yticklabels()[0].get_text() == "$fp32_^"
