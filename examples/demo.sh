#!/usr/bin/env bash
# A container's whole life, in one go: `make demo`.
#
# Everything happens on a node of its own below $NODE, with its own configuration, cgroup, network interfaces and user numbers, so an
# installed vz and its containers are not touched. At the end the container and its network are gone; the template cache stays in
# $NODE/template, so that the next run is quick. `--clean` removes that too, `--keep` leaves the container running.
#
#   TEMPLATE=busybox examples/demo.sh     no network is needed: made from the host's static busybox
#   VZ_BIN=path                           the vzctl to show [default: this checkout's release build]
#   NODE=/somewhere                       where [default: /var/lib/vz-demo]
#   NET=10.99.7                           the demo's addresses: $NET.101 and $NET.102
set -eu

TEMPLATE=${TEMPLATE:-debian-12-x86_64}
NODE=${NODE:-/var/lib/vz-demo}
NET=${NET:-10.99.7}
NAME=vzdm # the demo's cgroup, its nft table, and what its interfaces begin with: vzdm101
here=$(cd "$(dirname "$0")/.." && pwd)
VZ_BIN=${VZ_BIN:-$here/target/release/vzctl}
keep= clean= started=

for word in "$@"; do
    case $word in
    --keep) keep=yes ;;
    --clean) clean=yes ;;
    *) sed -n '2,/^set -eu/{s/^# \{0,1\}//p}' "$0"; exit 20 ;;
    esac
done

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }
# Shows a command as a newcomer would type it, and runs it.
run() {
    local word line=
    for word in "$@"; do
        case $word in *[!A-Za-z0-9_./:=,@%+-]* | '') line="$line '$word'" ;; *) line="$line $word" ;; esac
    done
    printf '+%s\n' "$line"
    "$@"
}

[ "$(id -u)" = 0 ] || die 'containers are made by root'
[ -x "$VZ_BIN" ] || die "there is no $VZ_BIN: make build"

# Without a word, and whatever state things are in.
remove_container() {
    vzctl --quiet --wait-lock 60 stop 101 --fast >/dev/null 2>&1 || true
    vzctl --quiet umount 101 >/dev/null 2>&1 || true
    vzctl --quiet destroy 101 >/dev/null 2>&1 || true
    rm -f "$NODE"/etc/conf/101.*
}

forwarding=/proc/sys/net/ipv4/ip_forward
forwarded=$(cat $forwarding)

clean_up() {
    status=$?
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$keep" ] && [ $status = 0 ]; then exit 0; fi
    if [ -n "$started" ]; then
        remove_container
        nft delete table inet $NAME 2>/dev/null || true
        for dir in /sys/fs/cgroup/$NAME /sys/fs/cgroup/*/$NAME; do
            if [ -d "$dir" ]; then rmdir "$dir/monitors" "$dir" || true; fi
        done
        # Off again if it was, unless an installed vz has begun to need it.
        if [ "$forwarded" = 0 ] && [ -z "$(ls /run/vz 2>/dev/null)" ]; then echo 0 >$forwarding; fi
        rm -rf "${NODE:?}"/{bin,etc,lock,dump,run,private,root,log}
        if [ -n "$clean" ]; then rm -rf --one-file-system "$NODE"; fi
    fi
    if [ $status -gt 128 ]; then echo 'demo: interrupted; the container and its network are gone' >&2; fi
    exit $status
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

say "A node of its own in $NODE"
mkdir -p "$NODE" && chmod 700 "$NODE"
mkdir -p "$NODE"/{bin,etc/names,lock,dump,run}
for name in vzctl vzlist vzpkg; do ln -sf "$VZ_BIN" "$NODE/bin/$name"; done
cp -r "$here"/vzctl/etc/conf "$here"/vzctl/etc/dists "$NODE/etc/"
cat >"$NODE/etc/vz.conf" <<CONF
# The demo's node; an installed vz has /etc/vz/vz.conf.
TEMPLATE=$NODE/template
VE_ROOT=$NODE/root/\$VEID
VE_PRIVATE=$NODE/private/\$VEID
LOCKDIR=$NODE/lock
DUMPDIR=$NODE/dump
LOGFILE=$NODE/log
VZ_RUNDIR=$NODE/run
VZ_CGROUP=$NAME
VZ_IFPREFIX=$NAME
VZ_MASQUERADE=yes
NEIGHBOUR_DEVS=detect
IPV6=no
CONFIGFILE=vswap-512m
NAMESERVER=inherit
# Far from the numbers that an installed vz gives to its containers.
LOCAL_UID=1900000000
LOCAL_GID=1900000000
CONF
export PATH="$NODE/bin:$PATH" VZ_CONFDIR="$NODE/etc"
started=yes
remove_container # of a run that was killed
if ip -4 route get "$NET.101" 2>/dev/null | grep -Eq '^local|^(broadcast|multicast)'; then die "$NET.101 is an address of this host: NET=10.x.y"; fi

say "1. A template: what containers are made from"
if [ -n "$(ls "$NODE/template/cache/$TEMPLATE".tar* 2>/dev/null)" ]; then
    echo "The cache of $TEMPLATE is here from an earlier run."
else
    run vzpkg create cache "$TEMPLATE"
fi
run vzpkg list

say "2. A container"
run vzctl create 101 --ostemplate "$TEMPLATE" --hostname demo --ipadd "$NET.101" --diskspace 1G
run vzctl start 101 --wait
run vzlist -a

say "3. Inside"
run vzctl exec 101 hostname
if [ "$TEMPLATE" != busybox ]; then run vzctl exec 101 systemctl is-system-running; fi
run vzctl exec 101 ip addr show venet0
run vzctl exec 101 df -h /
run vzctl exec 101 ps ax
run ping -c 1 -W 2 "$NET.101"

# What the kernel enforces, seen from the host: cgroup v2's file if there is one, v1's if not.
limit() {
    local file
    for file in "/sys/fs/cgroup/$NAME/101/$1" "/sys/fs/cgroup/$2/$NAME/101/$3"; do
        if [ -f "$file" ]; then
            run cat "$file"
            seen=$(cat "$file")
            return
        fi
    done
    die "there is neither $1 nor $3 for container 101"
}
memory() { limit memory.max memory memory.limit_in_bytes; }
cpu() { limit cpu.max cpu,cpuacct cpu.cfs_quota_us; }
[ -d /sys/fs/cgroup/cpu ] && cpu() { limit cpu.max cpu cpu.cfs_quota_us; }
loop='i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'
took() { TIMEFORMAT="  %R seconds"; { time run vzctl exec 101 "$loop"; } 2>&1; }

say "4. Changed while it runs: memory"
memory
run vzctl set 101 --ram 256M --swap 128M --save
run vzctl exec 101 free -m
memory
[ "$seen" = $((256 << 20)) ] || die "the memory limit is $seen, not 256 MiB"

say "   CPU: the same work before, and with a quarter of one CPU"
took
run vzctl set 101 --cpulimit 25 --cpuunits 2000 --save
cpu
[ "${seen%% *}" -gt 0 ] || die "the CPU limit is $seen"
took

say "   address"
run vzctl set 101 --ipadd "$NET.102" --ipdel "$NET.101" --save
run vzctl exec 101 ip addr show venet0
run ping -c 1 -W 2 "$NET.102"
if ping -c 1 -W 1 "$NET.101" >/dev/null 2>&1; then die "$NET.101 still answers"; else echo "$NET.101 does not answer any more."; fi

say "   All of it is in its configuration (memory in pages of 4 KiB)"
run vzlist -o ctid,status,ip,physpages.l,cpulimit,cpuunits
run grep -E '^(PHYSPAGES|SWAPPAGES|CPU|IP_ADDRESS)' "$NODE/etc/conf/101.conf"

if [ -n "$keep" ]; then
    say "Container 101 keeps running. For this shell:"
    cat <<MORE
  export PATH=$NODE/bin:\$PATH VZ_CONFDIR=$NODE/etc
  vzctl enter 101
When you are done: vzctl stop 101 && vzctl destroy 101. The next run of the demo removes it too.
MORE
    exit 0
fi

say "5. The end"
run vzctl stop 101
run vzctl destroy 101
run vzlist -a || true

say "That was it. What to try next"
cat <<MORE
  examples/demo.sh --keep         the same, and container 101 stays for you: vzctl enter 101
  make install                    vzctl and its other names in /usr/sbin, configuration in /etc/vz
  vzctl check                     what this host can do for containers
  docs/getting-started.md         the first hour
MORE
[ -n "$clean" ] || echo "The template cache stays in $NODE/template; examples/demo.sh --clean removes it."
