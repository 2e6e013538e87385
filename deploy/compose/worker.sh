#!/bin/sh
# A worker among several: takes the lowest number that no other worker holds, and with it a client id.
# The broker keeps messages under a client id, so ids must come back after a restart, whichever container they ran in.
# A number is the lock on a file in a folder that all workers share; the kernel frees it when the worker ends, however.
#
#   fleetwatt-worker [--leave] [FOLDER]
#
# With --leave: has what the broker holds for numbers without a worker stored, and ends their sessions there.
set -eu

leave=
if [ "${1:-}" = --leave ]; then
    leave=yes
    shift
fi
numbers=${1:-/var/lib/fleetwatt}

if [ "$leave" ]; then
    # The port of the metrics is that of the worker which runs in this container.
    export FLEETWATT_WORKER_METRICS_PORT=0
    for file in "$numbers"/worker-*; do
        export FLEETWATT_MQTT_CLIENT_ID="fleetwatt-${file##*-}"
        # The lock keeps others from this number meanwhile. One that a worker holds is passed over.
        flock --nonblock --conflict-exit-code 0 "$file" fleetwatt worker --leave
    done
    exit
fi

number=0
while :; do
    exec 9>"$numbers/worker-$number"
    if flock --nonblock 9; then
        export FLEETWATT_MQTT_CLIENT_ID="fleetwatt-$number"
        exec fleetwatt worker
    fi
    number=$((number + 1))
done
