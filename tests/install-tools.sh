#!/bin/sh
# What the tests need beside Python packages. As root on Debian or Ubuntu it is installed; elsewhere the tests that need
# it are skipped and say why (in CI a missing tool is a failure).
#   tests/install-tools.sh              Chromium
#   tests/install-tools.sh clusters     Slurm, OpenMPI and Horovod as well
set -eu
wanted=""
need() { command -v "$1" >/dev/null 2>&1 || wanted="$wanted $2"; }

need chromium "chromium fonts-dejavu-core"
if [ "${1:-}" = clusters ]; then
    for program in slurmctld slurmd slurmdbd cmake g++ make; do need $program $program; done
    need sacct slurm-client
    need munged munge
    need mariadbd mariadb-server
    need mpicc "openmpi-bin libopenmpi-dev"
fi
if [ -n "$wanted" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        export DEBIAN_FRONTEND=noninteractive
        # The tests start the daemons themselves, and stop them.
        guard=/usr/sbin/policy-rc.d
        if [ ! -e $guard ]; then
            printf '#!/bin/sh\nexit 101\n' >$guard
            chmod +x $guard
            trap 'rm -f $guard' EXIT
        fi
        apt-get update -qq
        # shellcheck disable=SC2086
        apt-get install -y -qq --no-install-recommends $wanted >/dev/null
    else
        echo "not root on Debian: not installed here, so some tests will be skipped:$wanted" >&2
    fi
fi
if [ "${1:-}" = clusters ]; then
    # Minutes the first time, seconds from then on; a machine that cannot build it still runs the other tests.
    bin=$(cd "$(dirname "$0")/../.venv/bin" && pwd)
    "$bin/python" -c 'import horovod.torch' 2>/dev/null \
        || "$(dirname "$0")/../envs/build-horovod.sh" "$bin/python" \
        || echo "Horovod was not built: its tests will be skipped (in CI they fail)" >&2
fi
