"""A real Slurm of one node on this machine while a block runs: controller, node daemon, munge, one fake GPU."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

ETC = Path("/etc/slurm")
MUNGE = Path("/run/munge")
TOOLS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged")

# The plugin drops SLURM_CONF, so the file must be /etc/slurm/slurm.conf. /dev/null stands for a GPU: jobs that ask for
# one get it one after the other and see CUDA_VISIBLE_DEVICES=0.
CONFIG = """\
ClusterName=mini
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.log
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 Gres=gpu:1 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
GPUS = "AutoDetect=off\nName=gpu File=/dev/null\n"


def missing():
    """Why no Slurm can be started here, or None."""
    if os.getuid() != 0:
        return "starting Slurm needs root"
    if absent := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"{', '.join(absent)} not installed; see tests/install_cluster_tools.sh"
    if (ETC / "slurm.conf").exists():
        return "this machine has a Slurm of its own"
    return None


class SlurmNode:
    """The running node."""

    def __init__(self, folder):
        self.folder = folder

    def jobs(self):
        """What the controller knows of all jobs: rule -> its fields, the last job of a rule counts."""
        shown = subprocess.run(["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True)
        fields = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown.stdout.splitlines() if line]
        return {job["Comment"].removeprefix("rule_"): job for job in fields if "Comment" in job}

    def completed(self):
        """The job completion log, a line for each job that ended."""
        log = self.folder / "jobcomp.log"
        return log.read_text().splitlines() if log.exists() else []


@contextlib.contextmanager
def slurm_node(folder):
    """Start munge if it does not run, controller and node; afterwards stop them and remove their configuration."""
    host = os.uname().nodename.partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    with contextlib.ExitStack() as ends:
        for name, text in (
            ("slurm.conf", CONFIG.format(host=host, folder=folder, cpus=os.cpu_count())),
            ("gres.conf", GPUS),
        ):
            _write_new(ETC / name, text, ends)
        _start_munge(ends)
        ends.callback(_stop, folder / "slurmctld.pid", folder / "slurmd.pid")
        subprocess.run(["slurmctld"], check=True)
        subprocess.run(["slurmd"], check=True)
        _wait_until_idle()
        yield SlurmNode(folder)
        subprocess.run(["scancel", "--user", "root"], check=False)


def _write_new(path, text, ends):
    with open(path, "x") as file:
        file.write(text)
    ends.callback(path.unlink)


def _start_munge(ends):
    if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
        return
    existed = MUNGE.exists()
    MUNGE.mkdir(mode=0o755, exist_ok=True)
    shutil.chown(MUNGE, "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], check=True)
    if not existed:
        ends.callback(shutil.rmtree, MUNGE, ignore_errors=True)
    ends.callback(_stop, MUNGE / "munged.pid")


def _wait_until_idle(seconds=30):
    for _ in range(seconds * 4):
        state = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True).stdout.strip()
        if state == "idle":
            return
        time.sleep(0.25)
    raise AssertionError(f"the Slurm node did not become idle within {seconds} s but is {state!r}")


def _stop(*pid_files):
    """End the processes that wrote these files, and wait until they have gone."""
    numbers = [int(file.read_text()) for file in pid_files if file.exists()]
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, 15)
    for _ in range(100):
        if not any(Path(f"/proc/{number}").exists() for number in numbers):
            return
        time.sleep(0.1)
