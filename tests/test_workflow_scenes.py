"""What the workflow does with scenes to compare on and scenes to calibrate with, before any variant is measured."""

import pytest
from workflow_project import Project, rules

from vggt_quant.results.schema import ImagesResult, Status, read

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("project"), {"fp32": {"method": "cast", "dtype": "float32"}})


def test_scenes_are_never_compared_on_and_calibrated_with(project):
    words = ["--config", "results_dir=both", f"calibration={{folder: {project.scenes}}}", "--", "calibration"]
    process = project.snakemake(*words)
    assert process.returncode == 1
    assert rules(process) == {"model", "images", "calibration"}
    error = read(Status, project.run / "both" / "logs" / "calibration.status.json").error
    assert error.kind == "input" and "calibration scene court shares the photo" in error.message
    assert not (project.run / "both" / "calibration.json").exists()


def test_photos_survive_results_in_their_own_folder(project):
    """A scene in ETH3D's layout has a folder `images` of its own."""
    court = project.scenes / "court"
    photos = {path: path.read_bytes() for path in (court / "images").rglob("*.PNG")}
    process = project.snakemake("--config", f"results_dir={court}", f"images={{folder: {court}}}", "--", "images")
    assert process.returncode == 0, process.stderr
    assert {path: path.read_bytes() for path in photos} == photos
    assert [scene.paths for scene in read(ImagesResult, court / "images.json").scenes] == [sorted(map(str, photos))]


@pytest.mark.parametrize(("folder", "expected"), [("drawn", True), ("none", False)])
def test_scenes_to_calibrate_with_may_be_drawn_or_none(project, folder, expected):
    assert ("calibration" in project.would_run("--config", f"calibration={{folder: {folder}}}")) is expected
