# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# Sourced by guests with chm loaded: does chm_peers keep its peers as long as they
# are used, and no longer?

debugfs=/sys/kernel/debug
peers=$debugfs/chm_peers

peers_order() { echo "$1" >$peers/control; }

# peers_left N: no more than N are allocated, as soon as grace periods are over
peers_left() {
	for _ in $(seq 100); do
		nr=$(cat $peers/nr)
		[ "$nr" != "$1" ] || return 0
		usleep 100000
	done
	echo "$nr peers are left, not $1"
	return 1
}

# A module that was built with another CHM_ABI is refused, and the log tells why.  To
# the log directly, so that the lines keep their order.
peers_older() {
	says='EXPECT symbol chm_abi_:'
	echo "$says begin" >/dev/kmsg
	! insmod chm_peers_older.ko
	older_rc=$?
	echo "$says end" >/dev/kmsg
	[ $older_rc = 0 ] && dmesg | grep -q 'chm_peers: Unknown symbol chm_abi_'
}

peers_control() {
	peers_order 'add bob' && ! peers_order 'add bob' &&
		[ "$(cat $peers/dump)" = 'bob users 1 added' ] &&
		peers_order 'del bob' && ! peers_order 'del bob' &&
		[ -z "$(cat $peers/dump)" ]
}

# No address of the kernel is shown, only what %p makes of it.
peers_hashed() {
	peers_order 'add bob' || return
	grep -qxE '[0-9a-f]{16} [0-9a-f]{16}' $debugfs/chm/chm_peers/entries
	hashed_rc=$?
	peers_order 'del bob' && return $hashed_rc
}

# users_are N: of alice
users_are() { [ "$(grep '^alice ' $peers/dump)" = "alice users $1" ]; }

# A peer is there as long as one file uses it.
peers_join() {
	exec 4>$peers/join 5>$peers/join
	echo alice >&4 && echo alice >&5 && users_are 2 || return
	exec 4>&-
	users_are 1 && echo carol >&5 && ! users_are 1 || return
	exec 5>&-
	[ -z "$(cat $peers/dump)" ]
}

# peers_seen TIMES: a peer in use is in the map, whatever others do to one of its name
peers_seen() {
	exec 6>$peers/join
	for i in $(seq "$1"); do
		echo "race$((i % 2))" >&6 || return
		seen=$(grep -c "^race$((i % 2)) " $peers/dump)
		[ "$seen" = 1 ] || { echo "race$((i % 2)) is there $seen times"; return 1; }
	done
	exec 6>&-
}

# peers_race TIMES: four processes make and unmake the same two peers, and one looks
peers_race() {
	pids=
	for _ in 1 2 3 4; do
		for i in $(seq "$1"); do
			echo "race$((i % 2))" || exit
		done >$peers/join &
		pids="$pids $!"
	done
	peers_seen $(($1 / 10)) || return
	for pid in $pids; do
		wait "$pid" || return
	done
	[ -z "$(cat $peers/dump)" ]
}

peers_grows() { sed -n 's/^grows: //p' $debugfs/chm/chm_peers/stats; }

# for_peers VERB FIRST STEP LAST
for_peers() {
	for i in $(seq "$2" "$3" "$4"); do
		peers_order "$1 peer$i" || return
	done
}

# peers_dump N: between two pieces of a dump half of N peers go and twice N come
peers_dump() {
	for_peers add 1 1 "$1" || return
	grows=$(peers_grows)
	exec 3<$peers/dump
	dd bs=512 count=1 <&3 2>/dev/null >/tmp/dump
	for_peers del 1 2 "$1" && for_peers add $(($1 + 1)) 1 $(($1 * 3)) || return
	cat <&3 >>/tmp/dump
	exec 3<&-
	[ "$(peers_grows)" -gt "$grows" ] || { echo "the map did not grow"; return 1; }
	awk -v n="$1" '
		{ twice += seen[$1]++ > 0 }
		END {
			for (i = 2; i <= n; i += 2)
				missed += !(("peer" i) in seen)
			print NR " peers, " twice + 0 " twice, " missed + 0 " missed"
			exit NR < n / 2 || twice + missed > 0
		}' /tmp/dump
}

# test_peers PEERS TIMES
test_peers() {
	check peers_older peers_older
	check peers_insmod insmod chm_peers.ko
	[ -e $peers ] || return
	check peers_control peers_control
	check peers_hashed peers_hashed
	check peers_join peers_join
	check peers_race peers_race "$2"
	check peers_freed peers_left 0
	check peers_dump peers_dump "$1"
	check peers_kept peers_left $(($1 * 3 - ($1 + 1) / 2))
	# It warns of peers that are left when the map is destroyed.
	check peers_rmmod rmmod chm_peers
}
