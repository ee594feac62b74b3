"""What the workflow says to a wrong configuration: one sentence, before anything runs."""

import pytest
from workflow_project import Project, described, said

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("project"), {"fp32": {"method": "cast", "dtype": "float32"}})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("modl=nano-random", "('modl' was unexpected); the keys are model, images, calibration, device, "),
        ("device=gpu", "config.device: 'gpu' is not one of ['auto', 'cpu', 'cuda']."),
        ("images=photos", "config.images: 'photos' is not of type 'object'."),
        ("images={max_images: none}", "config.images.max_images: 'none' does not match"),
        ("images={max_scenes: 0}", "config.images.max_scenes: '0' does not match"),
        ("calibration=others", "config.calibration: 'others' is not of type 'object'."),
        ("methods=[fp32,int5]", "There is no variant int5; "),
        ("variants_file=nowhere.yaml", "Cannot read the variants in nowhere.yaml: "),
        ("variants_file=method.yaml", "Variant careful: there is no method 'rond'; there are cast, "),
        ("variants_file=format.yaml", "Variant careful: there is no format 'w3'; there are "),
        ("variants_file=key.yaml", "('dtyp' was unexpected); the keys are method, config, dtype, "),
        ("variants_file=missing.yaml", "missing.yaml.careful: 'method' is a required property."),
        ("variants_file=empty.yaml", "empty.yaml should map names of variants to their settings, but holds None."),
    ],
)
def test_a_wrong_configuration_is_named_in_a_sentence(project, config, sentence):
    for name, text in (
        ("method", "careful: {method: rond}"),
        ("format", "careful: {method: round_to_nearest, config: {format: w3}}"),
        ("key", "careful: {method: cast, dtyp: float32}"),
        ("missing", "careful: {dtype: float32}"),
        ("empty", ""),
    ):
        (project.run / f"{name}.yaml").write_text(text)
    process = project.snakemake("--dry-run", "--config", config)
    assert process.returncode == 1
    assert sentence in said(process)
    assert "Traceback" not in said(process)


def test_a_number_inside_braces_can_be_given_on_the_command_line(project):
    assert "images" in project.would_run("--config", "images={max_images: 1}")


def test_a_gpu_that_this_machine_lacks_is_refused_before_anything_runs(project):
    process = project.snakemake("--dry-run", "--config", "device=cuda", CUDA_VISIBLE_DEVICES="")
    assert process.returncode == 1
    assert "device is cuda, but nvidia-smi finds no GPU here; use --device cpu." in said(process)


def test_a_gpu_is_believed_in_where_other_machines_may_run_the_jobs(project):
    """With --jobs Snakemake may hand them to a cluster, and the machine where it starts needs no GPU."""
    process = project.snakemake("--dry-run", "--jobs", "2", "--config", "device=cuda", CUDA_VISIBLE_DEVICES="")
    assert process.returncode == 0, said(process)
    assert "gpu=1" in described(process)["quantize_fp32"]
    assert "gpu" not in described(process)["images"]
