#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# In a guest with a web server on port 8080: traffic on lo, of several senders at
# once; ends when all of it has arrived.
#
# usage: traffic.sh [FLOWS]
#
# Four probers make FLOWS (700) flows each.

. /flows.sh

flows=${1:-700}

# prober ADDRESS PORT: a datagram to each port from there on, and the answers
prober() { traceroute -n -w 1 -q "$flows" -p "$2" "$1" >/dev/null 2>&1; }

# downloader ADDRESS: until the probers are done
downloader() {
	until [ -e /tmp/probed ]; do
		wget -q -O /dev/null "http://$1:8080/big"
	done
}

# In fragments: lo is made to take no more than 1500 bytes
pinger() { ping -c 20 -i 0.05 -s 4000 "$1" >/dev/null; }

settle() {
	now=$(lo_counts)
	until [ "$now" = "${last-}" ]; do
		last=$now
		sleep 1
		now=$(lo_counts)
	done
}

rm -f /tmp/probed
ip link set lo mtu 1500
for address in 127.0.0.1 '[::1]'; do
	downloader "$address" &
done
for address in 127.0.0.1 ::1; do
	pinger $address &
done
probers=
for to in 127.0.0.1:1024 127.0.0.2:1024 127.0.0.1:8192; do
	prober ${to%:*} ${to#*:} &
	probers="$probers $!"
done
prober ::1 1024 &
# shellcheck disable=SC2086 # several words
wait $probers $!
: >/tmp/probed
wait
settle
