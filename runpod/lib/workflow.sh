# The run itself. Sourced by start.sh.
# shellcheck shell=bash

words=()

# Run what the environment asks for, in results/RUN on the volume; returns its exit code.
run_workflow() {
    local code
    run_dir=$workspace/results/$run_name
    export VGGT_RUN_DIR=$run_dir VGGT_GPUS
    VGGT_GPUS=$(count_gpus)
    choose_words || return 2
    if ! { mkdir -p -- "$run_dir" && cd -- "$run_dir"; }; then
        say "Cannot use $run_dir (see above): nothing was run."
        return 1
    fi
    # Another pod may have taken over while the above took its time; then the lock is that pod's.
    [[ -z $lease_lost ]] || return 1
    unlock
    [[ -z $lease_lost ]] || return 1
    # Photos may be named relative to the volume.
    [[ ${VGGT_COMMAND:-} ]] || cd -- "$workspace" || return
    say "Run $run_name starts; its log is $log."
    # The workflow has no use for the key to the pod, and what it does not know it cannot tell.
    run_child env -u RUNPOD_API_KEY -- "${words[@]}"
    code=$?
    cd /
    [[ -z $lease_lost ]] || return 1
    describe_end "$code"
    return "$code"
}

# The command line; `compare` itself counts the GPUs and takes the workflow profile in VGGT_QUANT_PROFILE.
choose_words() {
    local extra arguments=${VGGT_RUN_ARGS:-} variants=${VGGT_VARIANTS:-}
    if [[ ! $variants && ${VGGT_METHODS:-} ]]; then
        say "VGGT_METHODS is the older spelling of VGGT_VARIANTS."
        variants=$VGGT_METHODS
    fi
    if [[ ${VGGT_COMMAND:-} ]]; then
        words=(bash -c "$VGGT_COMMAND")
        return
    fi
    words=("$python" -P -m vggt_quant compare)
    words+=(${VGGT_MODEL:+--model "$VGGT_MODEL"} ${VGGT_IMAGES:+--images "$VGGT_IMAGES"})
    words+=(${VGGT_MAX_IMAGES:+--max-images "$VGGT_MAX_IMAGES"} ${variants:+--variants "${variants//[[:space:]]/,}"})
    words+=(--output "$run_dir" --cache "$workspace/checkpoints")
    # Where a GPU is paid for, none is a failure and no reason to take the processor. The flags below come later and win.
    [[ ! ${RUNPOD_GPU_COUNT:-} =~ [1-9] ]] || words+=(--device cuda)
    # xargs splits at blanks and honours quotes, though not across lines, and nothing is expanded or executed.
    mapfile -d "" -t extra < <(xargs -r printf '%s\0' <<<"${arguments//[$'\r\n']/ }")
    if ! wait "$!"; then
        say "VGGT_RUN_ARGS has a quote without its partner: $arguments"
        return 1
    fi
    words+=("${extra[@]}")
}

# For --resources gpu=N in a VGGT_COMMAND.
count_gpus() {
    "$python" -P -c "from vggt_quant.runtime.gpus import visible_gpus; print(max(1, len(visible_gpus())))" || echo 1
}

# Remove the lock of a run that was killed. Snakemake cannot know that its owner has gone; the holder of the lease does.
unlock() {
    compgen -G "$run_dir/.snakemake/locks/*" >/dev/null || return 0
    say "The last run was killed: unlocking it and going on from where it was."
    rm -f -- "$run_dir"/.snakemake/locks/*
}

describe_end() {
    local report=$run_dir/comparison_summary.txt
    if [[ $1 == 0 ]]; then
        say "The run is complete: $run_dir."
    elif [[ ${VGGT_COMMAND:-} ]]; then
        say "VGGT_COMMAND failed with exit code $1; its log is $log."
        return
    elif [[ $1 == 2 ]]; then
        say "Nothing was run: the line above says which setting to correct."
        return
    else
        say "The run failed with exit code $1; its log is $log. The next start repeats only what failed."
        report=$run_dir/partial/comparison_summary.txt
    fi
    [[ ! -f $report ]] || say "Report: $report"
}
