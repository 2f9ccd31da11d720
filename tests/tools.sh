#!/bin/sh
# Puts Debian's prometheus and promtool into .tools/, without root, unless they are on PATH. They try what we ship for them.
# Where neither PATH nor apt has them, the tests that need them are skipped and say so.
cd "$(dirname "$0")/.." || exit 1
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then exit 0; fi
if [ -x .tools/prometheus ] && [ -x .tools/promtool ]; then exit 0; fi

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir -p .tools "$work/lists/partial" "$work/cache/archives/partial" "$work/bin"
here=$(pwd)

apt() {
    apt-get -qq -o APT::Sandbox::User=root -o Acquire::Retries=0 -o Acquire::http::Timeout=15 "$@" 2>>"$work/said"
}

# The machine's own package lists first; if they are missing or old, fresh ones of our own, used once.
fetch() {
    cd "$work" || return 1
    apt download prometheus && return
    own="-o Dir::State::Lists=$work/lists -o Dir::Cache=$work/cache"
    # shellcheck disable=SC2086
    apt $own update && apt $own download prometheus
}

if fetch && dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb |
    tar -x -C "$work/bin" --strip-components=3 ./usr/bin/promtool ./usr/bin/prometheus; then
    mv "$work"/bin/* "$here/.tools/"
else
    echo "prometheus is neither on PATH nor to be had by apt: the tests that need it will be skipped"
    tail -n 3 "$work/said"
fi
