#!/usr/bin/env bash
# Installs what Python code of this project needs: Debian packages and the virtual environment.
# usage: setup.sh [python]    (python: the virtual environment only, which needs no root)
set -euo pipefail

steps=8 # the others are counted by steps.py
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/quiesce
logs=$cache/logs
current_cluster="use CLUSTER=current with the kubeconfig of a disposable cluster, for example kind"

# A package counts as installed if its program is on PATH, from any source; for those without one, dpkg decides.
declare -A program=(
    [git]=git [make]=make [curl]=curl [openssl]=openssl [iproute2]=ip [maven]=mvn [openjdk-17-jdk-headless]=javac
    [buildah]=buildah [mmdebstrap]=mmdebstrap [runc]=runc [iptables]=iptables [conntrack]=conntrack [socat]=socat
    [ethtool]=ethtool [procps]=sysctl [gcc]=gcc
)
without_program=(ca-certificates containernetworking-plugins libc6-dev)

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# step NUMBER TITLE COMMAND...: runs the command with its output in a log file, whose end is shown if it fails.
step() {
    local number=$1 title=$2 log=$logs/setup-$1.log started=$SECONDS
    shift 2
    printf '[%s/%s] %s ... ' "$number" "$steps" "$title"
    mkdir -p "$logs"
    if ! "$@" >"$log" 2>&1; then
        echo failed
        tail -n 25 "$log" | sed 's/^/  | /' >&2
        fail "The whole log: $log" "Check that this machine can reach its package registries, then run again."
    fi
    echo "$((SECONDS - started)) s"
}

cached() {
    echo "[$1/$steps] $2 ... cached"
}

missing_packages() {
    local package
    for package in "${!program[@]}"; do
        # Debian keeps some of them in directories that are only on root's PATH.
        PATH=$PATH:/usr/sbin:/sbin command -v "${program[$package]}" >/dev/null || echo "$package"
    done
    for package in "${without_program[@]}"; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    done
    python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update && apt-get install --yes --no-install-recommends "$@"
}

packages() {
    local title="Debian packages" missing
    [[ $(uname -s) == Linux ]] || fail "The local cluster needs Linux; $current_cluster."
    mapfile -t missing < <(missing_packages | sort)
    if ((${#missing[@]} == 0)); then
        cached 1 "$title"
    elif ! command -v apt-get >/dev/null; then
        fail "This machine lacks: ${missing[*]} (Debian's names). Install them, or $current_cluster."
    elif ((EUID != 0)); then
        fail "Missing Debian packages: ${missing[*]}. Run this as root, or $current_cluster."
    else
        step 1 "$title (${missing[*]})" install_packages "${missing[@]}"
    fi
    ((EUID == 0)) || fail "The local cluster needs root; $current_cluster."
}

make_environment() {
    python3 -m venv --clear .venv &&
        .venv/bin/pip install --quiet --require-hashes --requirement requirements-dev.lock &&
        .venv/bin/pip install --quiet --no-deps --no-build-isolation --editable . &&
        echo "$1" >.venv/stamp
}

environment() {
    local title="Python environment .venv" stamp
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 on PATH must be Python 3.11 or newer."
    stamp=$(sha256sum <requirements-dev.lock)
    if [[ -x .venv/bin/python && $(cat .venv/stamp 2>/dev/null) == "$stamp" ]]; then
        cached 2 "$title"
    else
        step 2 "$title (about 1 min)" make_environment "$stamp"
    fi
}

cd "$project"
if [[ ${1:-} != python && ${CLUSTER:-local} == local ]]; then
    packages
fi
environment
