#!/usr/bin/env bash
# What a pod runs: lets its owner in, runs the comparison (or resumes it), stops the pod if asked, sleeps.
#
#   order     ssh, /pre_start.sh, volume, log, /post_start.sh, lease on the run, workflow, auto-stop, sleep
#   volume    hf/ weights    checkpoints/ the workflow's cache    results/RUN/ one run, Snakemake's records included
#             logs/ one file per start    .snakemake/leases/ who is at work on which run
#   settings  environment variables: lib/variables.txt names them all, `read_settings` below reads most
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
    # What runs: VGGT_COMMAND, else `vggt-quant compare` by VGGT_MODEL, VGGT_IMAGES, VGGT_MAX_IMAGES, VGGT_VARIANTS and
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
    # A pod that runs nothing is there for people, and ends by itself only if hours are given for it.
    has_clock=yes
    [[ $wants_run != no || (${VGGT_MAX_HOURS:+given} && $auto_stop != no) ]] || has_clock=no
}

# Refuse what lib/variables.txt does not allow. A bad value gives way to its default: a pod that refuses its run needs its
# times all the same, and a pause that `sleep` does not understand is none, so RunPod would be asked thousands of times.
check_settings() {
    local name pattern words known=" "
    while read -r name pattern words; do
        known+="$name "
        if [[ $pattern && ${!name:-} && ! ${!name,,} =~ ^($pattern)$ ]]; then
            complain 2 "$name is '${!name}'; it takes $words. Nothing was run."
            unset "$name"
        fi
    done < <(grep '^VGGT_' "$here/lib/variables.txt")
    for name in "${!VGGT_@}"; do
        [[ $known == *" $name "* ]] ||
            complain 2 "$name is no setting of a pod; correct its name (runpod/README.md lists them). Nothing was run."
    done
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
    check_settings
    read_settings
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
        say "VGGT_RUN=no: nothing is run, and this pod costs money until you end it$(or_its_hours)."
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

or_its_hours() {
    [[ $has_clock == no ]] || echo ", $max_hours hours at most (VGGT_MAX_HOURS)"
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
    # RunPod's word is not the end of the pod: one that still lives asks again.
    if [[ $stop_agreed ]]; then
        while run_child timeout "$auto_stop_retry_seconds" "${words[@]}"; (($? == 124)); do
            say "This pod still lives $auto_stop_retry_seconds s after RunPod agreed to $auto_stop it."
            ask_until_agreed
        done
    else
        run_child "${words[@]}"
    fi
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

# VGGT_MAX_HOURS are over; ends as a failed run does, with the exit code that `timeout` has for it. Where nothing was to
# be run, nothing has failed.
# shellcheck disable=SC2329 # `trap` calls it
on_time_up() {
    stop_clock
    say "VGGT_MAX_HOURS=$max_hours is over: ending what is at work; the next start goes on from here."
    stop_child
    release_lease
    [[ $wants_run != no ]] || finish 0
    finish 124
}

main
