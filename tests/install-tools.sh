#!/bin/sh
# What the full tests need beside Python packages: Chromium, OpenMPI, Horovod. As root on Debian or Ubuntu it is
# installed; elsewhere the tests that need it are skipped and say why (in CI a missing tool is a failure).
set -eu
packages=
command -v chromium >/dev/null 2>&1 || packages="chromium fonts-dejavu-core"
command -v mpicc >/dev/null 2>&1 || packages="$packages openmpi-bin libopenmpi-dev"
for tool in cmake g++ make; do command -v "$tool" >/dev/null 2>&1 || packages="$packages $tool"; done
if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        # shellcheck disable=SC2086
        apt-get install -y -qq --no-install-recommends $packages >/dev/null
    else
        echo "not root on Debian: not installed here, their tests will be skipped: $packages" >&2
    fi
fi
# Minutes the first time, seconds from then on; a machine that cannot build it still runs the other tests.
python=$(dirname "$0")/../.venv/bin/python
if ! "$python" -c 'import horovod.torch' 2>/dev/null; then
    "$(dirname "$0")/../envs/build-horovod.sh" "$(cd "$(dirname "$python")" && pwd)/python" \
        || echo "Horovod was not built: its tests will be skipped (in CI they fail)" >&2
fi
