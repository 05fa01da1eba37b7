# shellcheck shell=bash
# Sourced by demos with live connections: a stream of numbered packets between two machines, and what became of it.

STREAM=ovsfw/lab/stream.py
STREAMS=$PLACE.streams # goes with the lab
mkdir -p "$STREAMS"
declare -A SENDING

# serve MACHINE ADDRESS PORT: echoes, until `no_streams`
serve() {
    ovsfw lab exec --name "$LAB" "$1" python3 -I "$STREAM" serve "$2" "$3" > "$STREAMS/$1.serves" &
    SERVERS+=($!)
    until_true 120 "$1 serves" grep -q ready "$STREAMS/$1.serves"
}

# begin NAME SENDER SOURCE DESTINATION PORT: a TCP connection with a packet every 50 ms, until `finish NAME`.  More of them
# leave an emulated machine no time for anything else.
begin() {
    touch "$STREAMS/$1.goes-on"
    while [ -e "$STREAMS/$1.goes-on" ]; do sleep 0.5; done |
        ovsfw lab exec --name "$LAB" "$2" python3 -I "$STREAM" send tcp "$3" "$4" "$5" 0.05 > "$STREAMS/$1" &
    SENDING[$1]=$!
    until_true 120 "$1 is connected" grep -q ready "$STREAMS/$1"
}

# finish NAME: ends it.  Then MISSING is how many packets were not answered, TOLD says it in words.
finish() {
    local sent answered
    rm "$STREAMS/$1.goes-on"
    wait "${SENDING[$1]}" || die "the stream $1 has failed"
    read -r sent answered < <(sed -n 's/.*"sent": \([0-9]*\), "answered": \([0-9]*\).*/\1 \2/p' "$STREAMS/$1")
    MISSING=$((sent - answered))
    TOLD="$1: $sent packets, $answered answered"
}

# insist_cut NAME, insist_whole NAME: ends a stream that must have lost a second's packets at least, or none.
insist_cut() {
    finish "$1"
    [ "$MISSING" -ge 20 ] || die "$TOLD: it should have been cut"
    echo "  $TOLD: cut, in the middle of it"
}

insist_whole() {
    finish "$1"
    [ "$MISSING" = 0 ] || die "$TOLD: it should have lost nothing"
    echo "  $TOLD: nothing lost"
}

no_streams() {
    kill "${SERVERS[@]}"
    wait "${SERVERS[@]}" 2> /dev/null || true
    SERVERS=()
}

SERVERS=()
