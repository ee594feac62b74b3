# Stop or terminate this pod through RunPod's interface. Sourced by start.sh.
# shellcheck shell=bash

stop_agreed="" # RunPod has said that it will end this pod
refusals=0     # how often it has said, one after the other, that it will not

# Settle what becomes of the pod, and say at the start what would go wrong at the end, when nobody looks.
choose_auto_stop() {
    [[ $has_clock == yes ]] || auto_stop=no
    [[ $auto_stop != no ]] || return 0
    if ! [[ $auto_stop =~ ^(stop|terminate)$ ]]; then
        # To pay for ever is the worse mistake, and a stopped pod keeps its volume.
        say "WARNING: VGGT_AUTO_STOP is '$auto_stop', but it takes no, stop or terminate: the pod will be stopped."
        auto_stop=stop
    fi
    if [[ $auto_stop == terminate && -z ${RUNPOD_VOLUME_ID:-} ]]; then
        say "No network volume is attached (RUNPOD_VOLUME_ID), and terminating deletes the pod's own: it will be stopped."
        auto_stop=stop
    fi
    can_stop_pod || say "VGGT_AUTO_STOP=$auto_stop will not work: $(why_not)."
}

can_stop_pod() {
    [[ -z $(why_not) ]]
}

why_not() {
    if [[ -z ${RUNPOD_POD_ID:-} ]]; then
        echo "RUNPOD_POD_ID is not set, so this is no pod of RunPod's"
    elif type -P runpodctl >/dev/null; then
        return 0
    elif [[ ${RUNPOD_API_KEY:-} ]]; then
        type -P curl >/dev/null || echo "there is neither curl nor runpodctl"
    else
        echo "there is neither RUNPOD_API_KEY nor runpodctl"
    fi
}

stop_pod() {
    [[ $auto_stop != no ]] && can_stop_pod || return 0
    if [[ -z $log ]] || ! is_mounted; then
        say "No log outlasts this pod: it waits $no_log_seconds s, so that you can read why it ends."
        pause "$no_log_seconds"
    fi
    ask_until_agreed
}

# A pod that cannot be stopped costs money all night.
ask_until_agreed() {
    local reason
    say "Asking RunPod to $auto_stop pod $RUNPOD_POD_ID."
    until reason=$(ask_runpod 2>&1); do
        say "RunPod did not $auto_stop this pod (${reason:-no reason given}), so it still costs money; next try in" \
            "$auto_stop_retry_seconds s."
        count_refusal "$reason"
        pause "$auto_stop_retry_seconds"
    done
    stop_agreed=yes refusals=0
    say "RunPod will $auto_stop this pod."
}

# What RunPod refused three times (4xx; 408 and 429 only ask for patience) it will refuse for ever. Then the pod is
# terminated, if nothing is lost by that: all that a stopped one keeps is on the network volume.
count_refusal() {
    if [[ ! $1 =~ error:\ 4[0-9][0-9] || $1 =~ error:\ 4(08|29) ]]; then
        refusals=0
    elif ((++refusals >= 3)) && [[ $auto_stop == stop && ${RUNPOD_VOLUME_ID:-} ]] && is_mounted; then
        say "RunPod does not stop this pod: it will be terminated, since the network volume keeps all results."
        auto_stop=terminate
    fi
}

# The pod's own key may be refused where runpodctl is not, so both are tried before the next pause.
ask_runpod() {
    if [[ ${RUNPOD_API_KEY:-} ]] && type -P curl >/dev/null && ask_by_http; then
        return 0
    fi
    type -P runpodctl >/dev/null && ask_by_runpodctl
}

# The key goes through a pipe, since `ps` shows command lines. The answer is thrown away: it holds the pod's environment.
ask_by_http() {
    printf 'Authorization: Bearer %s\n' "$RUNPOD_API_KEY" | curl --silent --show-error --fail --output /dev/null \
        --max-time 30 --retry 4 --retry-connrefused --header @- --header "Content-Type: application/json" \
        --data "{\"action\": \"$auto_stop\"}" "$runpod_url/pods/$RUNPOD_POD_ID/action"
}

# The second form is that of older versions.
ask_by_runpodctl() {
    local verb=stop old=stop
    if [[ $auto_stop == terminate ]]; then verb=delete old=remove; fi
    runpodctl pod "$verb" "$RUNPOD_POD_ID" >/dev/null 2>&1 || runpodctl "$old" pod "$RUNPOD_POD_ID" >/dev/null
}
