# Messages, and child processes that get our signals. Sourced by start.sh.
# shellcheck shell=bash

child=""   # process group of what is running, if anything
log=""     # the log file on the volume, once it is open
log_copier=""
unlogged="" # what was said before
clock=""    # process group of what ends the run after VGGT_MAX_HOURS

say() {
    local line
    printf -v line '[pod %(%H:%M:%S)T] %s\n' -1 "$*"
    [[ $log ]] || unlogged+=$line
    printf %s "$line"
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
    local group=$child end=$(($(microseconds) + stop_seconds * 1000000))
    [[ $group ]] || return 0
    kill -TERM -- "-$group" 2>/dev/null
    while kill -0 -- "-$group" 2>/dev/null && (($(microseconds) < end)); do sleep 0.1; done
    kill -KILL -- "-$group" 2>/dev/null
    return 0
}

microseconds() {
    echo "${EPOCHREALTIME//[!0-9]/}"
}

# Nothing is redirected here: what a trap says meanwhile would go there, too.
pause() {
    run_child sleep "$1"
}

# Send us SIGUSR2 when the run has had its time.
start_clock() {
    [[ $has_clock == yes ]] || return 0
    setsid -- sh -c "sleep ${max_hours}h; kill -USR2 $$" </dev/null >/dev/null 2>&1 &
    clock=$!
}

stop_clock() {
    trap '' USR2
    [[ -z $clock ]] || kill -- "-$clock" 2>/dev/null
    clock=""
}

# From here on everything goes to `docker logs` and into a file on the volume; what was said before is there, too.
open_log() {
    local name file
    name=${run_name}_$(date -u +%Y%m%dT%H%M%SZ)_${RUNPOD_POD_ID:-$HOSTNAME}
    file=$workspace/logs/${name//[^[:alnum:]._-]/_}.log
    # A full disk takes a file's name but not what is in it.
    if ! { printf %s "$unlogged" >"$file" && sync -- "$file"; } 2>/dev/null; then
        rm -f -- "$file" 2>/dev/null
        complain 1 "Cannot write the log $file: check the volume and its permissions."
        return
    fi
    log=$file
    exec > >(
        trap '' TERM INT
        exec tee -a -- "$log"
    ) 2>&1
    log_copier=$!
}

# End with this exit code when the log is written; as process 1 of a container, our end is the end of all others.
leave() {
    local tenths=5
    exec >/dev/null 2>&1
    while [[ $log_copier ]] && kill -0 "$log_copier" 2>/dev/null && ((tenths-- > 0)); do sleep 0.1; done
    exit "$1"
}
