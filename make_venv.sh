#!/bin/sh
# Makes a virtual environment with a Python that TensorFlow 2.15 has wheels for.
#
#   ./make_venv.sh .venv                        the first such Python on PATH, else one through uv
#   ./make_venv.sh .venv /path/to/python3.11    that one
#
# An environment that is there already is left as it is.
set -eu
venv=$1
wanted=${2:-}

# "3.11" of an interpreter that works; nothing of one that does not (pyenv's shims may not).
version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

is_in_range() {
  case $(version_of "$1") in 3.9 | 3.10 | 3.11) true ;; *) false ;; esac
}

# Debian and Ubuntu have this in a package of its own.
makes_environments() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null
}

refuse() {
  echo "tfdrl needs Python 3.9 to 3.11; $*" >&2
  exit 2
}

# An environment of another Python would stay as it is. Other directories are nobody's to clear.
clearing() {
  if [ -e "$venv/pyvenv.cfg" ]; then echo "$1"; fi
}

with_python() {
  echo "making $venv with $1 ($(version_of "$1"))"
  "$1" -m venv $(clearing --clear) "$venv"
  exit 0
}

with_uv() {
  echo "making $venv with Python 3.11 through uv"
  # One of uv's own, for the system's have just been looked at. They bring pip along.
  if [ -n "$(clearing yes)" ]; then export UV_VENV_CLEAR=1; fi  # older ones clear anyway
  "$1" venv --quiet --python-preference only-managed --python 3.11 "$venv"
  "$venv/bin/python" -m ensurepip --default-pip >/dev/null
  exit 0
}

# One that was left half made, or whose Python is gone, is made anew.
if is_in_range "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  exit 0
fi

if [ -n "$wanted" ]; then
  is_in_range "$wanted" || refuse "PYTHON=$wanted is $(version_of "$wanted" | grep . || echo 'not to be run')"
  with_python "$wanted"
fi

hint=
for python in python3.11 python3.10 python3.9 python3; do
  if is_in_range "$python"; then
    if makes_environments "$python"; then
      with_python "$python"
    fi
    hint=" ($python is, but without its package python$(version_of "$python")-venv)"
  fi
done

# Where uv's installer puts it, PATH may not lead until the next login.
for uv in uv "${HOME:-}/.local/bin/uv"; do
  if command -v "$uv" >/dev/null 2>&1; then
    with_uv "$uv"
  fi
done

found=$(version_of python3)
refuse "none is on PATH (python3 is ${found:-not there})$hint. uv brings one; these two commands get there:
  curl -LsSf https://astral.sh/uv/install.sh | sh
  make train"
