"""What the workflow says to a wrong configuration: one sentence, before anything runs."""

import pytest
from workflow_project import Project, said

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
