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
        ("modl=nano-random", "config: there is no key 'modl' (did you mean 'model'?); the keys are model, images, "),
        ("device=gpu", "config: device should be one of auto, cpu, cuda, but is 'gpu'."),
        ("images=photos", "config: images should be a mapping, but is 'photos'."),
        ("images={max_images: none}", "config: images.max_images should be a whole number from 1 or null, but is"),
        ("images={max_scenes: 0}", "config: images.max_scenes should be a whole number from 1 or null, but is '0'."),
        ("calibration=others", "config: calibration should be a mapping, but is 'others'."),
        ("variants=[fp32,fp33]", "There is no variant 'fp33' (did you mean 'fp32'?); there are fp32."),
        ("methods=[fp33]", "There is no variant 'fp33' (did you mean 'fp32'?); there are fp32."),
        ("variants_file=nowhere.yaml", "Cannot read the variants in nowhere.yaml: No such file or directory."),
        ("variants_file=method.yaml", "method.yaml: variant careful: There is no method 'rond'; there are cast, "),
        ("variants_file=format.yaml", "format.yaml: variant careful: config: There is no format 'w3'; there are "),
        ("variants_file=setting.yaml", "setting.yaml: variant careful: config: there is no key 'groupsize' (did you"),
        ("variants_file=key.yaml", "key.yaml: variant careful: there is no key 'dtyp' (did you mean 'dtype'?)"),
        ("variants_file=case.yaml", "case.yaml: variants a1 and A1 differ in case only; give one of them another"),
        ("variants_file=cast.yaml", "cast.yaml: variant careful: the method cast has no settings, but config has"),
        ("methods=3", "config: methods should be a list of names such as [bf16, int4_group128], but is 3."),
        ("variants_file=missing.yaml", "missing.yaml: variant careful: the key 'method' is missing"),
        ("variants_file=empty.yaml", "empty.yaml should map names of variants to their settings, but holds nothing."),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_named_in_one_sentence(project, config, sentence):
    for name, text in (
        ("method", "careful: {method: rond}"),
        ("format", "careful: {method: round_to_nearest, config: {format: w3}}"),
        ("setting", "careful: {method: round_to_nearest, config: {format: w4a16, groupsize: 64}}"),
        ("key", "careful: {method: cast, dtyp: float32}"),
        ("case", "{a1: {method: cast}, A1: {method: cast}}"),
        ("cast", "careful: {method: cast, config: {format: fp8}}"),
        ("missing", "careful: {dtype: float32}"),
        ("empty", ""),
    ):
        (project.run / f"{name}.yaml").write_text(text)
    process = project.snakemake("--dry-run", "--config", config)
    assert process.returncode == 1
    *_, last = said(process).splitlines()
    assert last.startswith(sentence)
    assert "Error" not in said(process)


def test_methods_is_an_older_spelling_of_variants_that_says_so_once(project):
    process = project.snakemake("--dry-run", "--config", "methods=[fp32]")
    assert process.returncode == 0
    assert said(process).count("config: methods is an older spelling; write variants.") == 1


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
