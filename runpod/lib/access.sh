# The user's hooks and ssh key. Sourced by start.sh.
# shellcheck shell=bash

run_hook() {
    [[ -f $1 ]] || return 0
    say "Running $1."
    run_child bash "$1" || say "$1 failed with exit code $?; going on without it."
}

# Let the owner of PUBLIC_KEY in.
allow_ssh() {
    [[ ${PUBLIC_KEY:-} ]] || return 0
    if ! add_keys || ! write_login_profile; then
        say "Cannot write the ssh settings (see above); going on without ssh."
        return 0
    fi
    start_sshd
}

# One line per key; those that are there already stay as they are.
add_keys() {
    local file=$HOME/.ssh/authorized_keys key
    mkdir -p -- "$HOME/.ssh" && touch -- "$file" && chmod 700 -- "$HOME/.ssh" && chmod 600 -- "$file" || return
    [[ -z $(tail -c 1 -- "$file") ]] || echo >>"$file"
    while read -r key; do
        [[ -z $key ]] || grep -qxF -- "$key" "$file" || printf '%s\n' "$key" >>"$file" || return
    done <<<"$PUBLIC_KEY"
}

# A login by ssh does not get the container's environment. Only these names, since others may hold secrets.
write_login_profile() {
    local name
    for name in PATH VGGT_WORKSPACE VGGT_QUANT_PROFILE HF_HOME TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR \
        PYTHONUNBUFFERED; do
        printf 'export %s=%q\n' "$name" "${!name}"
    done >"$login_profile"
}

start_sshd() {
    local sshd
    # sshd wants to be called by its whole path.
    sshd=$(type -P sshd || type -P /usr/sbin/sshd)
    if [[ -z $sshd ]]; then
        say "sshd is not installed in this image: no ssh."
        return 0
    fi
    # No image holds host keys; each container makes its own.
    if mkdir -p /run/sshd && ssh-keygen -A >/dev/null && "$sshd"; then
        say "ssh is ready."
    else
        say "sshd did not start (see above; does it run already?)."
    fi
}
