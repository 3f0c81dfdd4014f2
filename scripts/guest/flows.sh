# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# Sourced by guests with chm loaded: does chm_flows count each packet of lo?

debugfs=/sys/kernel/debug

lo_counts() { (cd /sys/class/net/lo/statistics && cat rx_packets rx_bytes); }

# lo_since PACKETS BYTES: what lo has had since it had these
lo_since() {
	# shellcheck disable=SC2046 # four words
	set -- "$@" $(lo_counts)
	echo "packets $(($3 - $1)) bytes $(($4 - $2))"
}

# totals_of NAME: "packets N bytes N"
totals_of() { sed -n "s/^$1: //p" $debugfs/chm_flows/totals; }

# flows_exact PACKETS BYTES: is all counted that came since lo had these?
flows_exact() {
	lo=$(lo_since "$@")
	total=$(totals_of total)
	echo "lo: measured: $lo; chm_flows: $total"
	[ "$total" = "$lo" ]
}

flows_expire() { echo 1 >$debugfs/chm_flows/expire; }

# The timer goes through all flows, time after time.
flows_timer() {
	echo 0 >/sys/module/chm_flows/parameters/expire_seconds && flows_expire
}

flows_gone() {
	for _ in $(seq 100); do
		! grep -qx 'entries: 0' $debugfs/chm/chm_flows/stats || return 0
		usleep 100000
	done
	return 1
}

# At least: while counts settle, for a grace period, no other growth begins.
flows_grew() {
	grows=$(sed -n 's/^grows: //p' $debugfs/chm/chm_flows/stats)
	echo "chm_flows: grew $grows times"
	[ "$grows" -ge 3 ]
}

# test_flows FLOWS: packets of new flows and of old ones, while the map grows, and
# then while flows expire all the time; four times so many
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
	check flows_timer flows_timer
	sh traffic.sh $((flows / 3))
	check flows_expired flows_exact "$@"
	check flows_gone flows_gone
	check flows_rmmod rmmod chm_flows
	killall httpd
	rm -r /www
}
