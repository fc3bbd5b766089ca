#!/bin/sh
# What a service container of the lab runs: proof of its life in /lab/ticks, and http where PORT
# says so. The test pulls its levers by files in /lab (service.py). Nothing here forks per tick.

tick() {
    read -r now _ </proc/uptime
    echo "$1 $now" >>/lab/ticks
}

[ -e /lab/broken ] && exit 1

if [ -n "$IGNORES_TERM" ]; then trap '' TERM; else trap 'tick end; exit 0' TERM; fi
tick start

if [ -n "$PORT" ]; then
    mkdir -p /www
    echo "$NAME on $(hostname)" >/www/index.html
    httpd -p "$PORT" -h /www
fi

[ -p /tmp/never ] || mkfifo /tmp/never
exec 3<>/tmp/never
while :; do
    read -t 0.05 -r -u 3 _
    tick tick
    if [ -e /lab/exit ]; then
        read -r code </lab/exit
        rm /lab/exit
        tick end
        exit "$code"
    fi
    [ -e /lab/eat ] && rm /lab/eat && exec dd if=/dev/zero of=/dev/null bs=1G count=1
done
