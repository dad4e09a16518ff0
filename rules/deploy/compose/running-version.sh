#!/bin/sh
# Prints the version that runs now: the label org.opencontainers.image.version of the service's
# container, or, while there is none, of the image that compose would start.
set -eu

cd "${COMPOSE_DIR:-.}"
service=${COMPOSE_SERVICE:-app}
image=${IMAGE:-pg-neo-graph-rl}
label='{{ index .Config.Labels "org.opencontainers.image.version" }}'

container=$(docker compose ps --quiet "$service" | head -n 1)
if [ -n "$container" ]; then
    docker inspect --format "$label" "$container"
else
    docker image inspect --format "$label" "$image:current"
fi
