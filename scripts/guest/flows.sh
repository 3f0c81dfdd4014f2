# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# Sourced by guests with chm loaded: does chm_flows count each packet of lo?

debugfs=/sys/kernel/debug

lo_counts() { (cd /sys/class/net/lo/statistics && cat rx_packets rx_bytes); }

total() {
	sed -n 's/^total: packets \([0-9]*\) bytes \([0-9]*\)$/\1 \2/p' \
		$debugfs/chm_flows/totals
}

# flows_exact PACKETS BYTES: the totals, and what lo has had since it had these
flows_exact() {
	# shellcheck disable=SC2046 # six words
	set -- "$@" $(lo_counts) $(total)
	echo "lo: measured: $(($3 - $1)) packets, $(($4 - $2)) bytes; chm_flows: $5, $6"
	[ "$5" = $(($3 - $1)) ] && [ "$6" = $(($4 - $2)) ]
}

flows_expire() { echo 1 >$debugfs/chm_flows/expire; }

flows_grew() {
	[ "$(sed -n 's/^grows: //p' $debugfs/chm/chm_flows/stats)" -ge 5 ]
}

# test_flows FLOWS: packets of new flows and of old ones, while the map grows and
# flows expire; four times so many
test_flows() {
	flows=$1
	mkdir /www
	dd if=/dev/zero of=/www/big bs=1M count=4 2>/dev/null
	ip link set lo up
	httpd -p 8080 -h /www
	# shellcheck disable=SC2046 # two words
	set -- $(lo_counts)
	check flows_insmod insmod chm_flows.ko
	check flows_traffic sh traffic.sh "$flows"
	check flows_exact flows_exact "$@"
	check flows_grew flows_grew
	flows_expire
	sh traffic.sh $((flows / 3))
	check flows_expire flows_expire
	check flows_expired flows_exact "$@"
	check flows_rmmod rmmod chm_flows
	killall httpd
	rm -r /www
}
