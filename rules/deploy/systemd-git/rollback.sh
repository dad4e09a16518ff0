#!/bin/sh
# Brings the old commit back, as the runbook says:
#
#   git reset --hard <previous_commit_hash>
#   npm install --production
#   sudo systemctl restart deia-bot-controller
#   curl http://localhost:8000/health
#
# May be run twice: each step leaves behind what it would have found done. Exit code 78 refuses for
# good; any other than 0 is tried again.
set -eu

app=${APP_DIR:-$HOME/app}
unit=${UNIT:-deia-bot-controller}
health=${HEALTH_URL:-http://localhost:8000/health}
old=${ROLLGATE_BASELINE_VERSION:?the event names no old version}

cd "$app"
if ! commit=$(git rev-parse --verify --quiet "$old^{commit}"); then
    echo "there is no commit $old in $app" >&2
    exit 78
fi
git reset --hard "$commit"
if [ -f package.json ]; then
    npm install --production
fi
sudo systemctl restart "$unit"

tries=0
until curl --fail --silent --max-time 5 --output /dev/null "$health"; do
    tries=$((tries + 1))
    if [ "$tries" -ge 30 ]; then
        echo "$old is started, and $health does not say that it is well" >&2
        exit 1
    fi
    sleep 2
done
echo "$old is back"
