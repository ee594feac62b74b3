#!/usr/bin/env bash
# What a pod runs: lets its owner in, runs the comparison (or resumes it), stops the pod if asked, sleeps.
#
#   order     ssh, /pre_start.sh, volume, log, /post_start.sh, lease on the run, workflow, auto-stop, sleep
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
    wants_run=${wants_run,,}
    run_name=${VGGT_RUN_NAME:-default}
    python=${VGGT_PYTHON:-python3}
    # Another pod at work on the same run: wait for its end, or refuse.
    when_busy=${VGGT_WHEN_BUSY:-wait}
    when_busy=${when_busy,,}
    heartbeat_seconds=${VGGT_HEARTBEAT_SECONDS:-10}
    # Hooks, waiting and run together; what hangs would be paid for without end.
    max_hours=${VGGT_MAX_HOURS:-24}
    # After the run: no, stop or terminate. After a failed one, too, unless told otherwise: an idle GPU costs as much as
    # a busy one, and all that explains the failure is on the volume.
    auto_stop=${VGGT_AUTO_STOP:-no}
    auto_stop=${auto_stop,,}
    auto_stop_on_failure=${VGGT_AUTO_STOP_ON_FAILURE:-yes}
    auto_stop_on_failure=${auto_stop_on_failure,,}
    auto_stop_retry_seconds=${VGGT_AUTO_STOP_RETRY_SECONDS:-300}
    # Where no log outlasts the pod, `docker logs` is all that tells why it ended.
    no_log_seconds=${VGGT_NO_LOG_SECONDS:-600}
    runpod_url=${VGGT_RUNPOD_URL:-https://api.runpod.io/v2}
    # From SIGTERM to the SIGKILL of what is still at work. RunPod itself kills after about five seconds, and the lease
    # and the log want some of them.
    stop_seconds=${VGGT_STOP_SECONDS:-3}
    pre_start=${VGGT_PRE_START:-/pre_start.sh}
    post_start=${VGGT_POST_START:-/post_start.sh}
    login_profile=${VGGT_LOGIN_PROFILE:-/etc/profile.d/vggt-quant.sh}
    # The last thing it does; tests end it here.
    last_command=${VGGT_LAST_COMMAND:-sleep infinity}
}

# The times that are needed even by a pod that refuses its run fall back to their defaults.
check_settings() {
    local count='^[1-9][0-9]*$' above_0='^([0-9]*[1-9][0-9]*(\.[0-9]*)?|[0-9]*\.[0-9]*[1-9][0-9]*)$'
    expect VGGT_RUN_NAME "$run_name" '^[[:alnum:]_][[:alnum:]._-]*$' "letters, digits, dots, dashes and underscores"
    expect VGGT_RUN "$wants_run" '^(yes|no)$' "yes or no"
    expect VGGT_WHEN_BUSY "$when_busy" '^(wait|refuse)$' "wait or refuse"
    expect VGGT_AUTO_STOP_ON_FAILURE "$auto_stop_on_failure" '^(yes|no)$' "yes or no"
    expect VGGT_HEARTBEAT_SECONDS "$heartbeat_seconds" "$count" "whole seconds from 1"
    expect VGGT_STOP_SECONDS "$stop_seconds" "$count" "whole seconds from 1" || stop_seconds=3
    expect VGGT_MAX_HOURS "$max_hours" "$above_0" "hours above 0" || max_hours=24
    # A pause that `sleep` does not understand is none, and RunPod would be asked thousands of times.
    expect VGGT_AUTO_STOP_RETRY_SECONDS "$auto_stop_retry_seconds" "$above_0" "seconds above 0" ||
        auto_stop_retry_seconds=300
    expect VGGT_NO_LOG_SECONDS "$no_log_seconds" "$above_0" "seconds above 0" || no_log_seconds=600
}

expect() {
    [[ $2 =~ $3 ]] || complain 2 "$1 is '$2'; it takes $4. Nothing was run."
}

problem=""     # why nothing can run
problem_code=0 # and the exit code for that

# Note what is in the way of the run, once: what comes later mostly follows from it.
complain() {
    if [[ -z $problem ]]; then
        problem_code=$1 problem=$2
    fi
    return 1
}

main() {
    read_settings
    check_settings
    trap on_stop_signal TERM INT
    trap on_lost_lease USR1
    trap on_time_up USR2
    trap 'finish 1' EXIT # reached only through a mistake in this script
    say "Pod ${RUNPOD_POD_ID:-$HOSTNAME}, run $run_name."
    choose_auto_stop
    start_clock
    set_environment
    # First of all, so that people can look at whatever goes wrong.
    allow_ssh
    run_hook "$pre_start"
    prepare_volume
    open_log
    if [[ $problem ]]; then
        say "$problem"
        [[ $wants_run == no ]] || finish "$problem_code"
    fi
    run_hook "$post_start"
    if [[ $wants_run == no ]]; then
        say "VGGT_RUN=no: nothing is run."
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
    stop_clock
    if [[ $1 == 0 || $auto_stop_on_failure != no ]]; then
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
    stop_clock
    [[ -z $lease ]] || say "Told to stop: ending the run; the next start goes on from here."
    stop_child
    release_lease
    leave 143
}

# VGGT_MAX_HOURS are over; ends as a failed run does, with the exit code that `timeout` has for it.
# shellcheck disable=SC2329 # `trap` calls it
on_time_up() {
    stop_clock
    say "VGGT_MAX_HOURS=$max_hours is over: ending what is at work; the next start goes on from here."
    stop_child
    release_lease
    finish 124
}

main
