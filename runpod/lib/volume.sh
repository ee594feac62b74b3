# The volume's folders, and the environment that points there. Sourced by start.sh.
# shellcheck shell=bash

# Create the folders that are missing; note in one sentence why the volume cannot be used.
prepare_volume() {
    local reason
    if [[ ! -d $workspace ]]; then
        complain 1 "There is no folder $workspace: attach a volume with this mount path, or name another by VGGT_WORKSPACE."
    elif ! reason=$(LC_ALL=C && export LC_ALL && make_folders 2>&1 && probe_volume 2>&1); then
        complain 1 "$workspace $(explain "$reason")"
    elif ! is_mounted; then
        warn_of_loss
    fi
}

explain() {
    case $1 in
        *"Read-only"*) echo "is read-only: attach the volume so that this pod may write to it." ;;
        *"No space"* | *"quota"*) echo "is full: delete what you no longer need, or enlarge the volume." ;;
        *) echo "cannot be written to (${1##*: }): check the volume and its permissions." ;;
    esac
}

# Only what is mounted outlasts the container, and nothing in memory does.
is_mounted() {
    [[ $(stat -c %m -- "$workspace" 2>/dev/null) != / && ! $(file_system) =~ ^(tmpfs|ramfs)$ ]]
}

file_system() {
    stat -f -c %T -- "$workspace" 2>/dev/null
}

warn_of_loss() {
    if [[ $auto_stop == no ]]; then
        say "$workspace is no mounted volume ($(file_system)): what is written there is lost with the container."
    else
        complain 1 "$workspace is no mounted volume ($(file_system)), so VGGT_AUTO_STOP=$auto_stop would delete the \
results: attach the volume with this mount path, or name its path by VGGT_WORKSPACE. Nothing was run."
    fi
}

make_folders() {
    mkdir -p -- "$workspace"/{hf,checkpoints,results,logs,.snakemake/leases}
}

# Write for real: a quota or a full network volume shows only then.
probe_volume() {
    local probe=$workspace/.probe.$$ code
    dd if=/dev/zero of="$probe" bs=1M count=1 conv=fsync status=none
    code=$?
    rm -f -- "$probe"
    return "$code"
}

set_environment() {
    local compiled=${TMPDIR:-/tmp}/vggt-quant-compiled
    export VGGT_WORKSPACE=$workspace
    # Weights are downloaded once per volume.
    export HF_HOME=${HF_HOME:-$workspace/hf}
    # Compiled kernels stay on the container's disk: thousands of small files, slow on a network volume, and of use to
    # the same kind of GPU with the same software only.
    export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$compiled/inductor}
    export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$compiled/triton}
    export PYTHONUNBUFFERED=1
    # A network volume shows new files late; this workflow profile waits for them.
    export VGGT_QUANT_PROFILE=${VGGT_QUANT_PROFILE:-runpod}
}
