#!/usr/bin/env bash
# What real programs need of a classic container: each in a fresh one of the sample `basic`, whose bounds the kernel enforces
# (UBC_ENFORCE), then under load. Prints what was held and refused, applies the command that each refusal suggests, and tries
# again until nothing is refused. The tables in docs/beancounters.md are made with it.
#
#   examples/programs.sh [apache2] [caddy] [mariadb] [tomcat10] [filters] [walk]     all of them unless named
#
# filters: how real programs meet numiptent. walk: what it costs to count rules, for each `nft -f`.
# It needs a template with all of them, and a kernel that takes LSM programs. In the reference machine, where both are:
#
#   target/debug/reference run --debian 13 --package=tests --template debian-12-programs examples/programs.sh
#
#   VZ_BIN=path     the vzctl that is used [default: this checkout's release build]
#   TEMPLATE=path   where the template's cache is [default: what the tests have made]
#   NODE=/somewhere where its own node is made [default: /var/lib/vz-programs]
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
NODE=${NODE:-${VZ_TEST_DIR:-/var/lib}/vz-programs}
TEMPLATE=${TEMPLATE:-${VZ_TEST_DIR:+$VZ_TEST_DIR/vz-test-templates}}
TEMPLATE=${TEMPLATE:-$here/target/templates}
VZ_BIN=${VZ_BIN:-$here/target/release/vzctl}
NAME=vzpg
OF=debian-12-programs
NET=10.99.8
MOST=8 # rounds: each may be refused something else

say() { printf '\n== %s\n' "$*"; }
die() { printf 'programs: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die 'containers are made by root'
grep -qw bpf /sys/kernel/security/lsm || die 'the kernel of this host takes no LSM programs: see docs/beancounters.md'

# An emulated machine may need minutes for a step; whoever watches is to see that it is at work.
while sleep 60; do echo "  ($(cut -d' ' -f1 /proc/uptime) s up)"; done &
beat=$!

clean_up() {
    status=$?
    trap - EXIT
    kill $beat || true
    for ctid in 101 102 103; do
        [ ! -e "$NODE/etc/conf/$ctid.conf" ] || remove $ctid
    done
    nft delete table inet $NAME 2>/dev/null || true
    # A kernel that takes LSM programs may have v1 controllers all the same.
    for dir in /sys/fs/cgroup/$NAME /sys/fs/cgroup/*/$NAME; do
        if [ -d "$dir" ]; then rmdir "$dir"/monitors "$dir" || true; fi
    done
    rm -rf "${NODE:?}"
    exit $status
}
remove() {
    vzctl --quiet stop "$1" --fast
    vzctl --quiet destroy "$1"
}

mkdir -p "$NODE"/{bin,etc/names,lock,dump,run}
trap clean_up EXIT
for name in vzctl vzlist vzubc; do ln -sf "$VZ_BIN" "$NODE/bin/$name"; done
cp -r "$here"/vzctl/etc/conf "$here"/vzctl/etc/dists "$NODE/etc/"
cat >"$NODE/etc/vz.conf" <<CONF
TEMPLATE=$TEMPLATE
VE_ROOT=$NODE/root/\$VEID
VE_PRIVATE=$NODE/private/\$VEID
LOCKDIR=$NODE/lock
DUMPDIR=$NODE/dump
LOGFILE=$NODE/log
VZ_RUNDIR=$NODE/run
VZ_CGROUP=$NAME
VZ_IFPREFIX=$NAME
IPV6=no
CONFIGFILE=basic
LOCAL_UID=1900000000
LOCAL_GID=1900000000
CONF
export PATH="$NODE/bin:$PATH" VZ_CONFDIR="$NODE/etc"

make() { # CTID [OPTION]...: makes and starts one
    local ctid=$1
    shift
    echo "container $ctid, $(cut -d' ' -f1 /proc/uptime) s up"
    vzctl --quiet create "$ctid" --ostemplate $OF --ipadd "$NET.$ctid" "$@"
    # They are started in turn, not at boot: two of them want one port. Nobody but the template has written there yet.
    vzctl --quiet mount "$ctid"
    systemctl --quiet --root="$NODE/root/$ctid" disable apache2 caddy mariadb tomcat10
    vzctl --quiet umount "$ctid"
    vzctl --quiet start "$ctid" --wait --wait-timeout 300 || echo "it did not come up: $?"
}
inside() { timeout 300 env VZ_CONFDIR="$VZ_CONFDIR" vzctl exec2 "$@"; }
# As user_beancounters has it: what is held to at least a fifth of its barrier, or was refused.
rows() { # CTID [all]
    awk -v all="${2:-}" 'all || $6 > 0 || ($4 > 0 && $3 * 5 >= $4) {
        bound = $4 > 9e18 ? "unlimited" : $4
        printf "  %-12s held %10d  maxheld %10d  barrier %10s  failcnt %6d  %4.0f %%\n", $1, $2, $3, bound, $6, 100 * $3 / ($4 ? $4 : 1)
    }' "$NODE/run/proc/bc/$1/resources"
}
suggested() { vzubc --events "$1" | sed -n 's/^ *would pass: //p' | awk '{ last[$4] = $0 } END { for (name in last) print last[name] }'; }
refused() { awk '{ sum += $NF } END { print sum }' "$NODE/run/proc/bc/$1/resources"; }

# A program: what starts it, what tells that it is there, its load. Where the load comes from: 101 itself, or 102.
starts() { echo "systemctl restart $1"; }
there() {
    case $1 in
    apache2 | caddy) echo "102 curl -sSfo /dev/null http://$NET.101/" ;;
    tomcat10) echo "102 curl -sSfo /dev/null http://$NET.101:8080/" ;;
    mariadb) echo "101 mariadb -e 'select 1'" ;;
    esac
}
load() {
    case $1 in
    apache2 | caddy) echo "102 ab -q -r -s 60 -n 300 -c 60 http://$NET.101/ | grep -E 'Complete|Failed|Non-2xx'" ;;
    tomcat10) echo "102 ab -q -r -s 120 -n 100 -c 30 http://$NET.101:8080/ | grep -E 'Complete|Failed|Non-2xx'" ;;
    mariadb) echo "101 mariadb-slap --auto-generate-sql --concurrency=30 --number-of-queries=150 | grep -E 'Average|clients'" ;;
    esac
}
at() { # 'CTID COMMAND': runs it there
    inside "${1%% *}" "${1#* }"
}

program() {
    local round before
    say "$1"
    make 101
    echo "booted:"
    rows 101
    for ((round = 1; round <= MOST; round++)); do
        before=$(refused 101)
        echo "-- round $round"
        if inside 101 "$(starts "$1")"; then
            for ((i = 0; i < 40; i++)); do at "$(there "$1")" >/dev/null 2>&1 && break || sleep 1; done
            at "$(load "$1")" || echo "the load failed: $?"
        else
            echo "it did not start: $?"
        fi
        rows 101
        [ "$(refused 101)" != "$before" ] || break
        suggested 101 | while read -r line; do
            echo "+ $line"
            $line >/dev/null
        done
    done
    echo "refused nothing any more after round $round; all of it:"
    rows 101 all
    remove 101
}

# A ruleset of so many rules, for each program that loads one.
ruleset() {
    local i rule
    case $1 in
    nft)
        echo 'table inet t; flush table inet t; table inet t { chain c {'
        for ((i = 0; i < $2; i++)); do echo "tcp dport $((i + 1)) accept"; done
        printf '}\n}\n'
        return
        ;;
    ip*) rule='-A FORWARD -p tcp --dport %d -j ACCEPT\n' ;;
    arp*) rule='-A INPUT -s 10.1.2.%d -j ACCEPT\n' ;;
    eb*) rule='-A FORWARD -p IPv4 --ip-source 10.1.2.%d -j ACCEPT\n' ;;
    esac
    printf '*filter\n'
    case $1 in arp*) printf ':INPUT ACCEPT\n:OUTPUT ACCEPT\n' ;; *) printf ':INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n' ;; esac
    for ((i = 0; i < $2; i++)); do printf -- "$rule" $((i % 250 + 1)); done
    case $1 in ip*) echo COMMIT ;; esac
}
numiptent() { awk '$1 == "numiptent" { print "held " $2 ", maxheld " $3 ", failcnt " $6 }' "$NODE/run/proc/bc/101/resources"; }
filters() {
    local tool load number
    say "packet filters: numiptent 128"
    modprobe -a iptable_filter ip6table_filter ebtable_filter 2>&1 || true
    make 101
    echo "at first: $(numiptent)"
    for tool in nft iptables-nft-restore ip6tables-nft-restore arptables-nft-restore ebtables-nft-restore \
        iptables-legacy-restore ip6tables-legacy-restore ebtables-legacy-restore; do
        if [ $tool = nft ]; then load='nft -f -'; else load=$tool; fi
        for number in 100 200 0; do
            printf '%s of %d rules: ' "$tool" $number
            if said=$(ruleset $tool $number | inside 101 "$load" 2>&1); then printf 'ok'; else printf 'failed'; fi
            printf ' (%s) %s\n' "$(numiptent)" "$(printf %s "$said" | tr '\n' ' ' | cut -c1-160)"
        done
    done
    inside 101 'nft flush ruleset'
    vzctl --quiet set 101 --numiptent 20:20
    for tool in iptables-nft ip6tables-nft; do
        echo "$tool -A, one by one to 20: $(inside 101 "i=0; while $tool -A OUTPUT -p tcp --dport 9 -j ACCEPT; do i=\$((i+1)); [ \$i -lt 40 ] || break; done 2>&1; echo \$i added" | tr '\n' ' ') $(numiptent)"
        inside 101 'nft flush ruleset'
    done
    vzubc --events 101
    remove 101
}

# The time of `nft -f` with one rule more, beside so many: in 101, which is enforced, and in 103, which is not; in turn.
walk() {
    local number ctid
    say "one rule more, ms (median of 11, second..tenth)"
    sed -i /UBC_ENFORCE/d "$NODE/etc/vz.conf"
    make 103
    echo 'UBC_ENFORCE=yes' >>"$NODE/etc/vz.conf"
    make 101
    vzctl --quiet set 101 --numiptent 20000:20000
    for number in 1 100 1000 10000; do
        # In pieces: a batch is one message, and 1,000 rules are too long for a container's socket (EMSGSIZE).
        for ctid in 103 101; do
            inside $ctid 'nft add table inet t; nft flush table inet t; nft add chain inet t c
                i=0; while [ $i -lt '$number' ]; do echo "add rule inet t c tcp dport $((i + 1)) accept"; i=$((i + 1)); done | split -l 250 - /rules
                for piece in /rules*; do nft -f $piece; done; rm /rules*; echo "add rule inet t c tcp dport 1 accept" > /one'
        done
        for ctid in 103 101 103 101; do
            printf '%6d rules, %s: ' $number "$([ $ctid = 101 ] && echo enforced || echo 'not enforced')"
            inside $ctid 'i=0; while [ $i -lt 11 ]; do a=$(date +%s%N); nft -f /one; b=$(date +%s%N); echo $(((b - a) / 1000)); i=$((i + 1)); done' |
                sort -n | awk '{ v[NR] = $1 / 1000 } END { printf "%.1f (%.1f..%.1f)\n", v[6], v[2], v[10] }'
        done
    done
    echo "enforced holds: $(numiptent)"
    remove 101
    remove 103
}

echo 'UBC_ENFORCE=yes' >>"$NODE/etc/vz.conf"
made=
for what in "${@:-}"; do
    for one in ${what:-apache2 caddy filters walk mariadb tomcat10}; do
        case $one in
        filters | walk) $one ;;
        apache2 | caddy | mariadb | tomcat10)
            # Who makes the load is bounded by nothing.
            [ -n "$made" ] || make 102 --config vswap-512m
            made=yes
            program "$one"
            ;;
        *) die "no such program: $one" ;;
        esac
    done
done
