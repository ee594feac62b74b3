# Messages, and child processes that get our signals. Sourced by start.sh.
# shellcheck shell=bash

child=""   # process group of what is running, if anything
log=""     # the log file on the volume, once it is open
log_copier=""

say() {
    printf '[pod %(%H:%M:%S)T] %s\n' -1 "$*"
}

# Run a command in a process group of its own and return its exit code. Bash runs a trap only between commands, so
# whatever takes long goes through here.
run_child() {
    local code
    setsid -- "$@" </dev/null &
    child=$!
    while true; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    child=""
    return "$code"
}

# End it with all its descendants: SIGTERM, and SIGKILL for those that are still there after stop_seconds.
stop_child() {
    local group=$child tenths=$((stop_seconds * 10))
    [[ $group ]] || return 0
    kill -TERM -- "-$group" 2>/dev/null
    while kill -0 -- "-$group" 2>/dev/null && ((tenths-- > 0)); do sleep 0.1; done
    kill -KILL -- "-$group" 2>/dev/null
    return 0
}

pause() {
    run_child sleep "$1" >/dev/null 2>&1
}

# From here on everything goes to `docker logs` and into a file on the volume. A full disk costs the file, not the run.
open_log() {
    local name
    name=${run_name}_$(date -u +%Y%m%dT%H%M%SZ)_${RUNPOD_POD_ID:-$HOSTNAME}
    log=$workspace/logs/${name//[^[:alnum:]._-]/_}.log
    exec > >(
        trap '' TERM INT
        exec tee -a -- "$log"
    ) 2>&1
    log_copier=$!
}

# End with this exit code when the log is written; as process 1 of a container, our end is the end of all others.
leave() {
    local tenths=10
    exec >/dev/null 2>&1
    while [[ $log_copier ]] && kill -0 "$log_copier" 2>/dev/null && ((tenths-- > 0)); do sleep 0.1; done
    exit "$1"
}
