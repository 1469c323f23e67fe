# Sourced by the other scripts: everything a fresh machine needs, idempotent.
# Makes .venv from uv.lock; uv itself goes into .tools when the machine has none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if command -v uv >/dev/null 2>&1; then
  uv=uv
else
  uv=.tools/bin/uv
  if [ ! -x "$uv" ]; then
    echo "setting up: installing uv into .tools"
    python3 -m venv .tools
    .tools/bin/python -m pip install --quiet --disable-pip-version-check uv
  fi
fi
# the lock file and the project's metadata decide: unchanged, nothing is done
stamp=.venv/.locked
if [ ! -f "$stamp" ] || [ uv.lock -nt "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  echo "setting up: the locked dependencies into .venv (torch is large: some minutes)"
  # an environment of the caller's must not be filled or emptied
  # bytecode now, or the first command of everybody compiles torch's thousands of files
  env -u VIRTUAL_ENV "$uv" sync --frozen --quiet --extra train --compile-bytecode
  touch "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
