#!/usr/bin/env bash
# Makes .venv with avssl, its commands and its test tools. DEVICE=cpu takes no CUDA package, DEVICE=cuda does.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cpu}
python=${PYTHON:-python3}
stamp=.venv/.installed-$device
extras='.[test,check,torchcodec]'

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "avssl needs Python 3.11 or newer, but $python is $("$python" --version 2>&1); set PYTHON=/path/to/python3.11" >&2
  exit 2
}
if [ "$device" != cpu ] && [ "$device" != cuda ]; then
  echo "DEVICE is '$device'; it can be cpu or cuda" >&2
  exit 2
fi
# A CPU torch satisfies the CUDA user's version range and the other way round: start anew when the device changes.
if ls .venv/.installed-* >/dev/null 2>&1 && [ ! -e "$stamp" ]; then
  echo "== .venv was made for another device: making it anew for $device"
  rm -rf .venv
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv || {
  echo "could not make .venv; on Debian and Ubuntu install the package python3-venv" >&2
  exit 1
}
pip=(.venv/bin/python -m pip --disable-pip-version-check)

if [ "$device" = cpu ]; then
  constraint=(-c constraints/cpu.txt)
  # uv knows where PyTorch publishes its CPU builds; pip finds one where it is configured to look (a mirror, a wheel folder).
  if [ "$(uname -s)" = Linux ]; then
    torch_pins=$(grep '^torch==' constraints/cpu.txt)
    if ! "${pip[@]}" install --quiet "$torch_pins+cpu" 2>/dev/null; then
      echo "== fetching the CPU build of PyTorch"
      "${pip[@]}" install --quiet uv
      grep -v '^#' constraints/cpu.txt | xargs .venv/bin/uv pip install --python .venv --torch-backend cpu
    fi
  fi
else
  constraint=()
fi
echo "== installing avssl and what it needs ($device)"
"${pip[@]}" install --quiet -e "$extras" "${constraint[@]}"
touch "$stamp"
echo "== .venv is ready: .venv/bin/avssl-doctor says what works on this machine"
