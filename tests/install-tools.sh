#!/bin/sh
# System packages that the full tests need. As root on Debian or Ubuntu they are installed; elsewhere the tests that
# need them are skipped and say why (in CI a missing tool is a failure).
set -eu
wanted=""
command -v chromium >/dev/null 2>&1 || wanted="$wanted chromium fonts-dejavu-core"
for program in slurmctld slurmd slurmdbd; do
    command -v $program >/dev/null 2>&1 || wanted="$wanted $program"
done
command -v sacct >/dev/null 2>&1 || wanted="$wanted slurm-client"
command -v munged >/dev/null 2>&1 || wanted="$wanted munge"
command -v mariadbd >/dev/null 2>&1 || wanted="$wanted mariadb-server"
[ -n "$wanted" ] || exit 0
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
