#!/bin/sh
# Brings the image `previous` back, as the runbook says:
#
#   docker-compose down
#   docker tag pg-neo-graph-rl:previous pg-neo-graph-rl:current
#   docker-compose up -d
#   curl -f http://localhost:8000/health
#
# May be run twice: each step leaves behind what it would have found done. Exit code 78 refuses for
# good; any other than 0 is tried again.
set -eu

cd "${COMPOSE_DIR:-.}"
image=${IMAGE:-pg-neo-graph-rl}
health=${HEALTH_URL:-http://localhost:8000/health}
old=${ROLLGATE_BASELINE_VERSION:?the event names no old version}
label='{{ index .Config.Labels "org.opencontainers.image.version" }}'

# The deployment keeps the image it replaces as `previous`. If that is not the version which was the
# baseline, nobody knows what would come back.
previous=$(docker image inspect --format "$label" "$image:previous") || previous=nothing
if [ "$previous" != "$old" ]; then
    echo "$image:previous is $previous, and $old is to come back" >&2
    exit 78
fi

docker compose down
docker tag "$image:previous" "$image:current"
docker compose up -d

tries=0
until curl --fail --silent --max-time 5 --output /dev/null "$health"; do
    tries=$((tries + 1))
    if [ "$tries" -ge 30 ]; then
        echo "$old is up, and $health does not say that it is well" >&2
        exit 1
    fi
    sleep 2
done
echo "$old is back"
