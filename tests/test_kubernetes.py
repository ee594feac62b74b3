"""What a Kubernetes cluster is asked for: the manifest of a job as a stand-in for its API server received it."""

import base64
import re
from types import SimpleNamespace

import cluster_tools
import pytest
from kubernetes_server import kubernetes_server
from workflow_project import Project, said

pytestmark = pytest.mark.workflow

IMAGE = "registry.example/vggt-quant:0.1.0"
VARIANTS = {"bf16": {"method": "cast", "dtype": "bfloat16"}}


def plain(command):
    """The command with its words decoded and without quotes: Snakemake sends some of them in base64."""
    decoded = re.sub(r"base64//([\w+/=]+)", lambda match: base64.b64decode(match[1]).decode(), command)
    return decoded.replace("'", "")


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """The job quantize_bf16 of a run on Kubernetes whose model is already on S3, and the secret of the run.

    `device: cuda` on a machine without a GPU, as laptops and login nodes are.
    """
    if reason := cluster_tools.missing(
        "snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_s3", "moto", "flask_cors"
    ):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("kubernetes")
    project = Project(folder, VARIANTS, device="cuda", cache_dir="/cache")
    with cluster_tools.s3_server() as environment, kubernetes_server() as server:
        cluster_tools.put(environment, "volume", "runs/first/results/model.json", "{}")
        process = cluster_tools.snakemake(
            project,
            *cluster_tools.profile(project, "kubernetes"),
            *("--default-storage-prefix", "s3://volume/runs/first", "--container-image", IMAGE),
            *("--kubernetes-persistent-volumes", "vggt-cache:/cache", "--seconds-between-status-checks", "1"),
            *("--", "quantize_bf16"),
            **environment,
            CUDA_VISIBLE_DEVICES="",
            KUBECONFIG=server.kubeconfig(folder / "kubeconfig"),
        )
    assert len(server.jobs) == 1, said(process)
    pod = server.jobs[0]["spec"]["template"]["spec"]
    return SimpleNamespace(pod=pod, container=pod["containers"][0], secrets=server.secrets, process=process)


def test_the_gpu_is_among_the_limits(sent):
    """Kubernetes gives out GPUs by limits only."""
    resources = sent.container["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert resources["requests"]["nvidia.com/gpu"] == "1"
    assert resources["limits"]["memory"] == "24000M"
    assert any(toleration["key"] == "nvidia.com/gpu" for toleration in sent.pod["tolerations"])


def test_the_job_runs_in_the_image_with_the_volume_of_the_cache(sent):
    assert sent.container["image"] == IMAGE
    assert {"name": "vggt-cache", "mountPath": "/cache"} in sent.container["volumeMounts"]
    assert {"name": "vggt-cache", "persistentVolumeClaim": {"claimName": "vggt-cache"}} in sent.pod["volumes"]


def test_the_command_runs_that_rule_with_results_on_s3(sent):
    assert sent.container["command"] == ["/bin/sh"]
    command = plain(sent.container["args"][1])
    assert "python -m snakemake --deploy-sources s3://volume/runs/first/" in command
    assert "--target-jobs quantize_bf16:" in command
    assert "--default-storage-provider s3" in command
    assert "--default-storage-prefix s3://volume/runs/first" in command


def test_the_keys_of_the_storage_travel_as_a_secret_only(sent):
    (secret,) = sent.secrets
    assert base64.b64decode(secret["data"]["snakemake_storage_s3_secret_key"]).decode() == "testing"
    names = {entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in sent.container["env"]}
    assert names["SNAKEMAKE_STORAGE_S3_SECRET_KEY"] == "snakemake_storage_s3_secret_key"
    assert "testing" not in sent.container["args"][1]


def test_a_job_that_failed_on_the_cluster_fails_the_run(sent):
    assert sent.process.returncode == 1
    assert "quantize_bf16" in said(sent.process)
