#!/bin/bash
# Slurm and munge from Debian or Ubuntu, where they are not installed; nothing is started. For `make test-slurm`.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
if command -v slurmctld slurmd munged sbatch >/dev/null; then exit 0; fi
as_root=$([ "$(id -u)" -eq 0 ] || echo sudo)
$as_root apt-get update -qq
# Their packages start services of their own, which we do not want.
printf '#!/bin/sh\nexit 101\n' | $as_root tee /usr/sbin/policy-rc.d >/dev/null
$as_root chmod +x /usr/sbin/policy-rc.d
trap '$as_root rm -f /usr/sbin/policy-rc.d' EXIT
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
