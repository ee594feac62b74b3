#!/usr/bin/env bash
# What a pod runs: prepares the volume, runs the comparison (or resumes it), stops the pod if asked, sleeps.
#
#   order     /pre_start.sh, volume, ssh, /post_start.sh, lease on the run, workflow, auto-stop, sleep
#   volume    hf/ weights    checkpoints/ the workflow's cache    results/RUN/ one run, Snakemake's records included
#             logs/ one file per start    .snakemake/leases/ who is at work on which run
#   settings  environment variables, all read in `read_settings` below
#
# A container whose command ends is started again, for ever, and paid for. So there is no `set -e`, each step says what
# went wrong, and the script ends only on SIGTERM. No secret is written anywhere: not to files, logs or command lines.
set -uo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/process.sh
source "$here/lib/process.sh"
# shellcheck source=lib/volume.sh
source "$here/lib/volume.sh"
# shellcheck source=lib/access.sh
source "$here/lib/access.sh"
# shellcheck source=lib/lease.sh
source "$here/lib/lease.sh"
# shellcheck source=lib/workflow.sh
source "$here/lib/workflow.sh"
# shellcheck source=lib/pod.sh
source "$here/lib/pod.sh"

read_settings() {
    workspace=${VGGT_WORKSPACE:-/workspace}
    # What runs: VGGT_COMMAND, else `vggt-quant compare` by VGGT_MODEL, VGGT_IMAGES, VGGT_MAX_IMAGES, VGGT_METHODS and
    # VGGT_RUN_ARGS (see lib/workflow.sh); with VGGT_RUN=no nothing.
    wants_run=${VGGT_RUN:-yes}
    run_name=${VGGT_RUN_NAME:-default}
    python=${VGGT_PYTHON:-python3}
    # Another pod at work on the same run: wait for its end, or refuse.
    when_busy=${VGGT_WHEN_BUSY:-wait}
    heartbeat_seconds=${VGGT_HEARTBEAT_SECONDS:-10}
    # After the run: no, stop or terminate. After a failed one, too, unless told otherwise: an idle GPU costs as much as
    # a busy one, and all that explains the failure is on the volume.
    auto_stop=${VGGT_AUTO_STOP:-no}
    auto_stop=${auto_stop,,}
    auto_stop_on_failure=${VGGT_AUTO_STOP_ON_FAILURE:-yes}
    auto_stop_retry_seconds=${VGGT_AUTO_STOP_RETRY_SECONDS:-300}
    runpod_url=${VGGT_RUNPOD_URL:-https://api.runpod.io/v2}
    # From SIGTERM to the SIGKILL of what is still at work; RunPod itself kills after about five seconds.
    stop_seconds=${VGGT_STOP_SECONDS:-4}
    pre_start=${VGGT_PRE_START:-/pre_start.sh}
    post_start=${VGGT_POST_START:-/post_start.sh}
    login_profile=${VGGT_LOGIN_PROFILE:-/etc/profile.d/vggt-quant.sh}
    # The last thing it does; tests end it here.
    last_command=${VGGT_LAST_COMMAND:-sleep infinity}
}

check_settings() {
    [[ $run_name =~ ^[[:alnum:]_][[:alnum:]._-]*$ ]] ||
        refuse VGGT_RUN_NAME "$run_name" "letters, digits, dots, dashes and underscores" || return
    [[ $wants_run =~ ^(yes|no)$ ]] || refuse VGGT_RUN "$wants_run" "yes or no" || return
    [[ $when_busy =~ ^(wait|refuse)$ ]] || refuse VGGT_WHEN_BUSY "$when_busy" "wait or refuse" || return
    [[ $heartbeat_seconds =~ ^[1-9][0-9]*$ ]] ||
        refuse VGGT_HEARTBEAT_SECONDS "$heartbeat_seconds" "whole seconds from 1" || return
    if ! [[ $stop_seconds =~ ^[1-9][0-9]*$ ]]; then
        refuse VGGT_STOP_SECONDS "$stop_seconds" "whole seconds from 1"
        stop_seconds=4
        return 1
    fi
    # A pause that `sleep` does not understand is none, and RunPod would be asked thousands of times.
    if ! [[ $auto_stop_retry_seconds =~ ^[0-9]+(\.[0-9]+)?$ && $auto_stop_retry_seconds =~ [1-9] ]]; then
        refuse VGGT_AUTO_STOP_RETRY_SECONDS "$auto_stop_retry_seconds" "seconds above 0"
        auto_stop_retry_seconds=300
        return 1
    fi
    [[ $auto_stop =~ ^(no|stop|terminate)$ ]] ||
        refuse VGGT_AUTO_STOP "$auto_stop" "no, stop or terminate" || return
    [[ $auto_stop_on_failure =~ ^(yes|no)$ ]] ||
        refuse VGGT_AUTO_STOP_ON_FAILURE "$auto_stop_on_failure" "yes or no"
}

refuse() {
    say "$1 is '$2'; it takes $3. Nothing was run."
    return 1
}

main() {
    read_settings
    trap on_stop_signal TERM INT
    trap on_lost_lease USR1
    trap 'finish 1' EXIT # reached only through a mistake in this script
    run_hook "$pre_start"
    if ! prepare_volume; then
        check_auto_stop
        finish 1
    fi
    set_environment
    allow_ssh
    run_hook "$post_start"
    open_log
    check_settings || finish 2
    check_auto_stop
    if [[ $wants_run == no ]]; then
        say "VGGT_RUN=no: the volume is ready, nothing is run."
        rest 0
    fi
    run_once_at_a_time
    finish "$?"
}

# The run, while this pod holds the lease on it.
run_once_at_a_time() {
    local code
    acquire_lease || return
    run_workflow
    code=$?
    release_lease
    return "$code"
}

# Stop the pod if that is wanted after a run with this exit code; sleep.
finish() {
    if [[ $1 == 0 || $auto_stop_on_failure == yes ]]; then
        stop_pod
    elif [[ $auto_stop != no ]]; then
        say "The pod goes on (VGGT_AUTO_STOP_ON_FAILURE=no) and costs money until you stop it."
    fi
    rest "$1"
}

# Sleep until the pod is stopped; a container that ends is started again.
rest() {
    trap - EXIT
    release_lease
    local words
    read -ra words <<<"$last_command"
    run_child "${words[@]}"
    leave "$1"
}

# RunPod stops the container, or somebody pressed Ctrl-C.
# shellcheck disable=SC2329 # `trap` calls it
on_stop_signal() {
    trap '' TERM INT USR1
    trap - EXIT
    [[ -z $lease ]] || say "Told to stop: ending the run; the next start goes on from here."
    stop_child
    release_lease
    leave 143
}

main
