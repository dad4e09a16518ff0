#!/bin/sh
# Gives the traffic back to the old environment, as the runbook says:
#
#   ./infrastructure/production/scripts/deploy-production.sh rollback
#   kubectl get namespace -l active=true
#
# That script goes back to whichever environment was active before, so that a second rollback would go
# forward again. Hence it is only run while the old version is not active, and this may be run twice.
set -eu

here=$(dirname "$0")
old=${ROLLGATE_BASELINE_VERSION:?the event names no old version}
script=${DEPLOY_SCRIPT:-./infrastructure/production/scripts/deploy-production.sh}

if [ "$("$here/running-version.sh")" = "$old" ]; then
    echo "$old is active already"
    exit 0
fi
(cd "${PROJECT_DIR:-.}" && "$script" rollback)

active=$("$here/running-version.sh")
if [ "$active" != "$old" ]; then
    echo "$active is active after the rollback, expected $old" >&2
    exit 1
fi
echo "$old is active"
