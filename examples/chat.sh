#!/usr/bin/env bash
# A chat between two shells, each its own agent:
#
#     examples/chat.sh alice bob        in one terminal
#     examples/chat.sh bob alice        in another
#
# What you type goes to the other, and waits there if they are not in yet. What they write is shown as it comes, and is
# acked once it was. Each line answers the last one that was heard (--re), so `agentctl trace` shows the thread. Ctrl-D
# or Ctrl-C ends it.
set -u
me=${1:?who are you?} other=${2:?whom do you talk to?}
export AGENTD_AGENT=$me
heard=$(mktemp)

listen() {
    # One message at a time: --json has its id, for the answer. A daemon that is restarted is waited for.
    while :; do
        line=$(agentctl recv --wait 1h --timeout 1h --json 2>/dev/null) || { sleep 0.2; continue; }
        printf '%s\n' "$line" | python3 -c '
import json, sys
message = json.load(sys.stdin)
print(message["id"], file=open(sys.argv[1], "w"))
print(message["sender"] + ": " + str(message["body"]), flush=True)' "$heard"
    done
}

set -m # a process group of its own: what listens there ends with it
listen &
listener=$!
set +m
trap 'kill -- "-$listener" 2>/dev/null; rm -f "$heard"' EXIT
trap 'exit 130' INT TERM

while IFS= read -r line; do
    [ -n "$line" ] || continue
    id=$(cat "$heard")
    agentctl send "$other" --text "$line" --allow-absent ${id:+--re "$id"} >/dev/null || exit
done
