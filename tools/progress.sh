# Sourced. Long steps show one line that lives; where there is no terminal, plain lines.

# have TEXT: a step that was already done.
have() {
    echo "setup: $1: already there"
}

# step TEXT COMMAND...: runs COMMAND quietly, its output in a log that is shown if it fails.
step() {
    local text=$1 log started=$SECONDS result=0
    shift
    log=$(mktemp)
    # In the background, where `set -e` holds inside COMMAND too.
    "$@" >"$log" 2>&1 </dev/null &
    local pid=$!
    trap 'kill $pid 2>/dev/null; rm -f "$log"; exit 130' INT TERM
    if [ -t 1 ]; then
        while kill -0 $pid 2>/dev/null; do
            local room=$(($(tput cols 2>/dev/null || echo 80) - ${#text} - 12))
            local last
            last=$(tail -n 1 "$log" | tr -cd '[:print:]')
            printf '\r\033[K%s … %d s  %s' "$text" $((SECONDS - started)) "${last:0:$((room > 0 ? room : 0))}"
            sleep 0.5
        done
        printf '\r\033[K'
    else
        echo "$text …"
    fi
    wait $pid || result=$?
    trap - INT TERM
    if [ $result != 0 ]; then
        cat "$log" >&2
        echo "$text: failed ($result)" >&2
        rm -f "$log"
        return $result
    fi
    echo "$text: done in $((SECONDS - started)) s"
    rm -f "$log"
}
