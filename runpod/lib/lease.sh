# One pod at a time works on a run, though several share the volume. Sourced by start.sh.
# shellcheck shell=bash
#
# Network volumes need not know locks, and the clocks of two machines differ. What every file system has: `rename` puts a
# finished folder in place or fails, and a file's time changes when it is touched. So:
#
#   .snakemake/leases/RUN/N/owner       who took lease N: pod, host, process
#   .snakemake/leases/RUN/N/heartbeat   touched while the owner is at work; removed when it lets go
#
# The newest lease counts. To take the run is to create the next number, which one of many takers can. It is allowed when
# the newest has no heartbeat file, or its owner was a process of this machine that has ended, or its heartbeat has not
# changed for three of its beats by the watcher's own clock. Old numbers go only when a newer one is there, so the count
# never falls, and a taker who was slow finds itself outrun.

lease=""        # number of ours, while we hold it
lease_keeper="" # the process that renews it
lease_lost=""
owner_lives=""  # seen for sure: a process of this machine, or a heartbeat that changed
seen_beat=""
seen_at=0

# Take the lease of this run, when its turn comes.
acquire_lease() {
    local newest told_at=""
    leases=$workspace/.snakemake/leases/$run_name
    machine=${RUNPOD_POD_ID:-$(</proc/sys/kernel/random/boot_id) $(readlink /proc/self/ns/pid)}
    mkdir -p -- "$leases" || return
    while true; do
        newest=$(newest_lease)
        if is_free "$newest"; then
            take_lease "$((newest + 1))" && return
            [[ $? == 1 ]] || return 1
        elif [[ $when_busy == refuse && $owner_lives ]]; then
            say "$(describe_owner "$newest") is at work on run $run_name; choose another VGGT_RUN_NAME, or wait."
            return 1
        elif [[ $when_busy == wait ]] && { [[ -z $told_at ]] || ((SECONDS - told_at >= 600)); }; then
            say "$(describe_owner "$newest") is at work on run $run_name; waiting for its end."
            told_at=$SECONDS
        fi
        pause 1
    done
}

newest_lease() {
    local path newest=0
    for path in "$leases"/*/; do
        path=${path%/} path=${path##*/}
        if [[ $path =~ ^[0-9]+$ ]] && ((path > newest)); then newest=$path; fi
    done
    echo "$newest"
}

is_free() {
    [[ $1 != 0 && -e $leases/$1/heartbeat ]] || return 0
    if [[ $(owner "$1" machine) == "$machine" ]]; then
        owner_lives=yes
        # The process number alone will not do: in each container the first process is number 1.
        [[ $(owner "$1" process) != "$(owner "$1" pid) $(born "$(owner "$1" pid)")" ]]
    else
        is_silent "$1"
    fi
}

# Nothing has touched the heartbeat for three beats, as seen from here; so never at first sight.
is_silent() {
    local beat every
    every=$(owner "$1" heartbeat_seconds)
    # Opening the file makes a network file system ask its server.
    beat="$1 $({ : <"$leases/$1/heartbeat"; } 2>/dev/null; stat -c %y -- "$leases/$1/heartbeat" 2>/dev/null)"
    if [[ $beat != "$seen_beat" ]]; then
        owner_lives=${seen_beat:+yes}
        seen_beat=$beat seen_at=$SECONDS
    fi
    ((SECONDS - seen_at > 3 * ${every:-$heartbeat_seconds}))
}

# Become the owner of this number: 0 done, 1 somebody else was faster, 2 the volume cannot be written to.
take_lease() {
    local draft process
    process="$$ $(born $$)"
    draft=$leases/.draft_${machine//[^[:alnum:]]/_}_$$
    if ! { mkdir -p -- "$draft" && describe_us "$process" >"$draft/owner" && touch -- "$draft/heartbeat"; }; then
        say "Cannot write to $leases (see above): nothing was run."
        return 2
    fi
    # The answer to a rename can get lost on its way from a file server, so the owner decides and not mv's exit code.
    mv -T -- "$draft" "$leases/$1" 2>/dev/null || rm -rf -- "$draft"
    [[ $(owner "$1" machine) == "$machine" && $(owner "$1" process) == "$process" ]] || return 1
    if (($(newest_lease) > $1)); then
        rm -rf -- "${leases:?}/$1"
        return 1
    fi
    lease=$1
    keep_lease $$ >/dev/null 2>&1 &
    lease_keeper=$!
    clear_old_leases
    return 0
}

describe_us() {
    printf '%s=%s\n' pod "${RUNPOD_POD_ID:-}" host "$HOSTNAME" pid "$$" process "$1" machine "$machine" \
        heartbeat_seconds "$heartbeat_seconds" since "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
}

owner() {
    sed -n "s/^$2=//p" -- "$leases/$1/owner" 2>/dev/null
}

describe_owner() {
    local pod
    pod=$(owner "$1" pod)
    echo "${pod:+Pod $pod, }process $(owner "$1" pid) on $(owner "$1" host) (since $(owner "$1" since))"
}

# When a process started, in ticks since the machine's start: field 22, counted behind the name, which may hold blanks.
born() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return
    read -ra stat <<<"${stat##*) }"
    echo "${stat[19]}"
}

clear_old_leases() {
    local path
    for path in "$leases"/*/; do
        path=${path%/} path=${path##*/}
        if [[ $path =~ ^[0-9]+$ ]] && ((path < lease)); then
            if [[ -e $leases/$path/heartbeat ]]; then say "$(describe_owner "$path") has gone: taking over its run."; fi
            rm -rf -- "${leases:?}/$path"
        fi
    done
}

# Touch the heartbeat as long as process $1 lives. Touching needs no space, so a full volume does not end a lease.
keep_lease() {
    while sleep "$heartbeat_seconds" && kill -0 "$1" 2>/dev/null; do
        if (($(newest_lease) > lease)); then
            kill -USR1 "$1"
            return
        fi
        touch -c -- "$leases/$lease/heartbeat"
    done
}

# We were silent for too long (a frozen machine, a volume that hung), and another pod has taken the run.
on_lost_lease() {
    lease_lost=yes
    say "Another pod has taken over run $run_name, since this one gave no sign of life: ending the run here."
    stop_child
}

release_lease() {
    [[ $lease ]] || return 0
    kill "$lease_keeper" 2>/dev/null
    rm -f -- "$leases/$lease/heartbeat"
    lease=""
}
