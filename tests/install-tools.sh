#!/bin/sh
# System packages that the full tests need. As root on Debian or Ubuntu they are installed; elsewhere the tests that
# need them are skipped and say why (in CI a missing tool is a failure).
set -eu
command -v chromium >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
else
    echo "not root on Debian: chromium is not installed here, browser tests will be skipped" >&2
fi
