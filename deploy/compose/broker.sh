#!/bin/sh
# Starts the broker, with a rule for each device that has a password.
# Mosquitto 2.1 no longer takes a user with a slash, such as meter/METER-001, for %u in `pattern write telemetry/%u`.
set -eu

umask 077
cd "${1:-/mosquitto/data}"
touch passwords
{
    cat /mosquitto/config/acl
    # No user but a device gets one: + and # in a name would be the topics of others.
    awk -F : '$1 ~ /^(meter|vehicle)\/[A-Za-z0-9._-]+$/ { printf "user %s\ntopic write telemetry/%s\n", $1, $1 }' passwords
} > acl
exec mosquitto -c /mosquitto/config/mosquitto.conf
