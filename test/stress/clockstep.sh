#!/bin/sh
# Sets the clock of this machine by an hour and back under a running agent: for
# a virtual machine, never for a machine that others use.
#
#	clockstep.sh HUATUO STRESS.TEST
#
# HUATUO is the built agent, STRESS.TEST the result of `go test -c ./test/stress`.
set -eu
[ $# = 2 ] || { echo "usage: $0 HUATUO STRESS.TEST" >&2; exit 2; }
STRESS_SET_CLOCK=1 STRESS_BINARY=$1 exec "$2" -test.run '^TestClockStep$' -test.v -test.timeout 5m
