#!/usr/bin/env bash
# Set up: bash scripts/setup.sh [demo|test|lint], or for all three where none is named.
# Makes .venv, installs the package editable with the extras of these names, and looks for the system libraries that they need.
# What was done is stamped in .venv, and done again only after pyproject.toml, the version or this script has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

case $*:$# in
    :0) purposes=(demo test lint) ;;
    demo:1 | test:1 | lint:1) purposes=("$1") ;;
    *) printf 'usage: bash scripts/setup.sh [demo|test|lint]\n' >&2; exit 2 ;;
esac
extras=$(IFS=,; printf '%s' "${purposes[*]}")
here=.venv/bin/python

say() { printf 'setup: %s\n' "$*" >&2; }
# what is wrong, and below it what to do
stop() { say "$1"; [ $# = 1 ] || printf '  %s\n' "$2" >&2; exit 1; }

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_updated=
apt_install() {
    say "installing $*"
    # other package managers of a fresh machine may hold the lock for a while
    local quietly=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5)
    if [ -z "$apt_updated" ]; then
        "${quietly[@]}" update >&2 || say "apt-get update failed; trying with the lists that are here"
        apt_updated=yes
    fi
    "${quietly[@]}" install --no-install-recommends "$@" >&2 </dev/null
}

how_to_install() {
    if [ "$(uname)" = Darwin ]; then
        printf 'brew install pango poppler'
    else
        printf 'install %s (Debian and Ubuntu; elsewhere they are parts of pango, poppler, chromium)' "$*"
    fi
}

stamped() {
    local purpose source
    for purpose in "${purposes[@]}"; do
        [ -e ".venv/.$purpose" ] || return
        for source in pyproject.toml reportgen/__init__.py scripts/setup.sh; do
            [ ! "$source" -nt ".venv/.$purpose" ] || return
        done
    done
}

# --- Python -----------------------------------------------------------------------------------------------------------

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local name
    if [ -n "${PYTHON:-}" ] && ! suits "$PYTHON"; then say "PYTHON=$PYTHON is not 3.11 or later; looking for another"; fi
    for name in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if suits "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    return 1
}

works() { suits "$here" && "$here" -m pip --version >/dev/null 2>&1; }

make_venv() {
    local python
    python=$(find_python) || stop "no Python 3.11 or later found" "install one, or name it: export PYTHON=/path/to/python3"
    # Debian ships these two in a package of their own
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        local package
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        can_apt || stop "$python cannot make virtual environments" "install $package"
        apt_install "$package" || stop "$package could not be installed" "install it, or name another Python: export PYTHON=/path/to/python3"
    fi
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
    works || stop "the new .venv does not work" "name another Python: export PYTHON=/path/to/python3"
}

install_package() {
    local attempt
    say "installing reportgen[$extras] (the first time takes minutes and gigabytes: torch)"
    # what was downloaded is kept, so that a second attempt goes on where a broken connection ended the first
    for attempt in 1 2; do
        if "$here" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]" </dev/null; then
            return
        fi
        [ "$attempt" = 2 ] || { say "pip failed; once more"; sleep 5; }
    done
    stop "pip could not install reportgen[$extras]" "the lines above say why"
}

# --- system libraries -------------------------------------------------------------------------------------------------

pango_packages=(libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0)

# 14400 is 1.44: WeasyPrint imports with an older one, and fails later. Without HarfBuzz's subsetter it only warns.
has_pango() {
    "$here" - "$@" >/dev/null 2>&1 <<'PYTHON'
import sys
from weasyprint.text import ffi
sys.exit(ffi.pango.pango_version() < 14400 or ("subset" in sys.argv and getattr(ffi, "harfbuzz_subset", True) is None))
PYTHON
}

has_chromium() {
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        # Ubuntu's chromium-browser is a stub that only names a snap
        "$name" --version >/dev/null 2>&1 && return
    done
    [ -d "/Applications/Google Chrome.app" ]
}

need_pango() {
    has_pango subset && return
    if can_apt; then apt_install "${pango_packages[@]}" || true; fi
    has_pango || stop "WeasyPrint needs Pango 1.44 or later to write PDF" "$(how_to_install "${pango_packages[@]}")"
}

# tests that need these two skip themselves where they are missing; those in a browser fail if CI is set
want_test_programs() {
    local missing=()
    command -v pdftoppm >/dev/null || missing+=(poppler-utils)
    has_chromium || missing+=(chromium)
    [ ${#missing[@]} -gt 0 ] || return 0
    if can_apt; then apt_install "${missing[@]}" && return; fi
    say "not found, and some tests will be skipped: ${missing[*]}"
    printf '  %s\n' "$(how_to_install "${missing[@]}")" >&2
}

# ----------------------------------------------------------------------------------------------------------------------

# a .venv whose Python is gone is made anew, whatever its stamps say
if stamped && suits "$here"; then exit; fi
works || make_venv
install_package
for purpose in "${purposes[@]}"; do
    case $purpose in
        demo) need_pango ;;
        test) need_pango; want_test_programs ;;
    esac
    touch ".venv/.$purpose"
done
