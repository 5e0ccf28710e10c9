#!/usr/bin/env bash
# The life of the package on a machine that systemd runs; scripts/deb-test.sh runs it as root inside one.
set -Eeuo pipefail
package=$1
export DEBIAN_FRONTEND=noninteractive

step() { printf '%s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; journalctl --unit gossd --no-pager --lines 40 >&2; exit 1; }
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

is() { [ "$2" = "$3" ] || fail "$1 is '$2' and not '$3'"; }
soon() { # WHAT COMMAND...: waits until the command succeeds
  local what=$1 end=$((SECONDS + 20))
  shift
  until "$@" >/dev/null 2>&1; do ((SECONDS < end)) || fail "never: $what"; sleep 0.1; done
}
get() { curl --fail --silent --show-error --max-time 5 "$@" 'http://127.0.0.1:8000/sd?name=x'; }
property() { systemctl show --property "$1" --value "${2:-gossd}"; }
status() { awk -v name="$1:" '$1 == name { print $2 }' "/proc/$(property MainPID)/status"; }
no_process() { if grep --silent --files-with-matches '^gossd$' /proc/[0-9]*/comm; then fail 'it still runs'; fi; }
files() { find / -xdev \( -path /proc -o -path /sys -o -path /var/log -o -path '/etc/*-' -o -path /var/lib/dpkg/\*-old \) \
  -prune -o -print | sort; }

# Calls without end, each on a connection of its own, until `calls_end`; how many failed, of how many, and the longest.
calls_begin() {
  rm -f /tmp/calls /tmp/calls-end
  (while [ ! -e /tmp/calls-end ]; do
    curl --silent --output /dev/null --max-time 10 --write-out '%{http_code} %{time_total}\n' \
      'http://127.0.0.1:8000/sd?name=x' >>/tmp/calls || true
  done) &
  calls=$!
  soon 'calls are made' eval '[ "$(wc -l </tmp/calls)" -ge 5 ]'
}
calls_end() { # WHAT [ALLOWED]: no more may have failed, none if nothing is said
  soon 'calls are made afterwards' eval '[ "$(grep --count "^200 " /tmp/calls)" -ge 20 ]'
  touch /tmp/calls-end
  wait "$calls"
  step "  $1: $(grep --count --invert-match '^200 ' /tmp/calls || true) of $(wc -l </tmp/calls) calls failed, the longest took $(
    sort --numeric-sort --key 2 /tmp/calls | tail --lines 1 | cut --delimiter ' ' --fields 2) s"
  [ "$(grep --count --invert-match '^200 ' /tmp/calls || true)" -le "${2:-0}" ] || fail "calls failed: $1"
}

files >/tmp/before

step 'installed, it is started by systemd and serves at once, as it is'
dpkg --install "$package" >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
is 'the answer' "$(get)" '{"services":[]}'
is 'the state' "$(property ActiveState) $(property UnitFileState)" 'active enabled'
is 'what systemd is told' "$(property StatusText)" 'serving 0 records, 0 of them registered here'
is 'the watchdog' "$(property WatchdogUSec)" 30s
is 'what listens for other hosts' "$(awk '$4 == "0A" && $2 !~ /^0100007F:/' /proc/net/tcp)" ''

step 'it is a user of its own that may do nothing else'
is 'the user' "$(status Uid)" "$(id -u gossd)"
is 'the capabilities' "$(status CapEff) $(status CapPrm) $(status CapBnd)" "$(printf '%016d %016d %016d' 0 0 0)"
is 'no new privileges, system calls filtered' "$(status NoNewPrivs) $(status Seccomp)" '1 2'
is 'its core files, and who may look into its memory' "$(awk '/^Max core file size/ { print $5, $6 }' \
  "/proc/$(property MainPID)/limits") $(stat --format %U "/proc/$(property MainPID)/environ")" '0 0 root'
is 'its folders' "$(stat --format '%U:%G %a' /var/lib/gossd /run/gossd | paste --serial)" $'gossd:gossd 700\tgossd:gossd 750'
[ -n "$(find /var/lib/gossd -type f -size +0)" ] || fail 'no journal'

step 'what comes with it can be read'
gossd healthcheck >/tmp/health || fail 'root asks the service without being told where it is'
gzip --test /usr/share/man/man1/gossd{,-run,-leave}.1.gz
bash -n /usr/share/bash-completion/completions/gossd
dpkg --verify gossd | grep . && fail 'not as packed'
# The links of its pages, by those who read them here; scripts/tree.sh has looked at where they lead.
[ -d /usr/share/doc/gossd/examples/systemd ] && [ -s /usr/share/doc/gossd/docs/openapi.json ] || fail 'no examples'
# All but scripts and blocks: every relative link of a page leads to a file or folder.
find /usr/share/doc/gossd -name '*.md' | sort >/tmp/pages
links=0
while read -r page; do
  while read -r link; do
    [ -e "${page%/*}/$link" ] || fail "$page: $link leads nowhere"
    links=$((links + 1))
  done < <(awk '/^ *```/ { code = !code; next } !code' "$page" | { grep -oP '\]\(\K[^)#]+' || true; } | { grep -v '^https\?:' || true; })
done </tmp/pages
[ "$(wc -l </tmp/pages)" -ge 20 ] && [ "$links" -ge 100 ] || fail "only $links links in $(wc -l </tmp/pages) pages"

step 'it reads its files again when it is reloaded, and goes on'
echo secret-1 >/etc/gossd/tokens
chgrp gossd /etc/gossd/tokens && chmod 640 /etc/gossd/tokens
echo 'token-file = "/etc/gossd/tokens"' >>/etc/gossd/gossd.toml
systemctl restart gossd
if get 2>/tmp/refused; then fail 'no token, and an answer'; fi
grep --quiet 401 /tmp/refused
is 'the answer' "$(get --header 'Authorization: Bearer secret-1')" '{"services":[]}'
process=$(property MainPID)
systemctl reload gossd
is 'the state and process' "$(property ActiveState) $(property MainPID)" "active $process"
soon 'the tokens are read again' eval 'journalctl --unit gossd | grep "read again.*tokens" >/dev/null'
echo secret-2 >/etc/gossd/tokens
systemctl reload gossd
soon 'the new token is taken' get --header 'Authorization: Bearer secret-2'

step 'tokens that every user can read are not read again, and it says how to close them'
echo secret-3 >/etc/gossd/tokens
chmod 644 /etc/gossd/tokens
systemctl reload gossd
soon 'it says how' eval 'journalctl --unit gossd | grep "mode 0644.*chmod 600 /etc/gossd/tokens" >/dev/null'
get --header 'Authorization: Bearer secret-2' >/dev/null
chmod 640 /etc/gossd/tokens
soon 'they are read' get --header 'Authorization: Bearer secret-3'

step 'it resolves names, although few system calls and address families are left to it'
echo '127.0.0.7 peer.example.test' >>/etc/hosts
sed --in-place 's/^token-file.*/advertise-host = "peer.example.test"/' /etc/gossd/gossd.toml
systemctl restart gossd
soon 'the address of its name is told to peers' \
  eval 'journalctl --unit gossd | grep "ready.*advertised=127.0.0.7:8002" >/dev/null'
sed --in-place 's/^advertise-host.*/# edited/' /etc/gossd/gossd.toml
systemctl restart gossd

step 'a record outlives a restart, kill -9, and the watchdog'
# Its own port, so that something answers there.
curl --fail --silent --max-time 5 --data '{"id":"1","name":"x","node":"n","network":"tcp","address":"127.0.0.1:8000"}' \
  http://127.0.0.1:8000/sd
held=$(get)
grep --quiet 127.0.0.1:8000 <<<"$held"
calls_begin
systemctl restart gossd
is 'the answer' "$(get)" "$held"
calls_end 'systemctl restart'
calls_begin
kill -KILL "$(property MainPID)"
soon 'systemd starts it again' eval '[ "$(property NRestarts)" = 1 ]'
soon 'it serves again' get
is 'restarts, and the answer' "$(property NRestarts) $(get)" "1 $held"
# The one that it was answering is lost with it.
calls_end 'kill -9' 1
mkdir -p /run/systemd/system/gossd.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/gossd.service.d/soon.conf
systemctl daemon-reload && systemctl restart gossd
process=$(property MainPID)
sleep 5
is 'the process after two watchdog times and a half' "$(property MainPID)" "$process"
kill -STOP "$process"
soon 'the watchdog ends it' [ ! -d "/proc/$process" ]
soon 'it serves again' get
is 'the answer' "$(get)" "$held"
rm -r /run/systemd/system/gossd.service.d
systemctl daemon-reload && systemctl restart gossd

step 'with wrong settings it is started once and not again, until they are right'
echo 'joyn = 1' >>/etc/gossd/gossd.toml
systemctl restart gossd && fail 'it starts with a setting that is none'
sleep 1
is 'the state, result and starts' "$(property ActiveState) $(property Result) $(property NRestarts)" 'failed exit-code 0'
is 'the exit code' "$(property ExecMainStatus)" 2
sed --in-place '/^joyn/d' /etc/gossd/gossd.toml
systemctl restart gossd
is 'the answer' "$(get)" "$held"

step 'a second one beside it has settings, folders and sockets of its own'
printf '%s\n' 'name = "second"' 'plugin = "127.0.0.1:8010"' 'gossip = "127.0.0.1:8012"' 'admin = "127.0.0.1:8011"' >/etc/gossd/b.toml
systemctl enable --quiet --now gossd@b
is 'the answers' "$(curl --fail --silent --max-time 5 'http://127.0.0.1:8010/sd?name=x') $(get)" "{\"services\":[]} $held"
is 'its folders' "$(stat --format '%U:%G %a' /var/lib/gossd/b /run/gossd-b | paste --serial)" $'gossd:gossd 700\tgossd:gossd 750'
gossd healthcheck --name second >/tmp/health || fail 'root does not find it by its name'
systemctl stop gossd
gossd healthcheck --name second >/tmp/health || fail 'it does not outlive the other one'
systemctl start gossd

step 'told to leave, it stays away'
gossd leave --name "$(hostname)" >/tmp/left
soon 'it ends' eval '[ "$(property ActiveState)" = inactive ]'
sleep 1
is 'the state' "$(property ActiveState) $(property Result)" 'inactive success'
systemctl start gossd

step 'an upgrade restarts it and keeps the edited configuration'
process=$(property MainPID)
second=$(property MainPID gossd@b)
calls_begin
dpkg --install "$package" >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
[ "$(property MainPID)" != "$process" ] || fail 'it was not restarted'
[ "$(property MainPID gossd@b)" != "$second" ] || fail 'the second one was not restarted'
is 'the state of the second one' "$(property ActiveState gossd@b)" active
calls_end 'an upgrade'
is 'the state' "$(property ActiveState) $(property UnitFileState)" 'active enabled'
is 'the answer' "$(get)" "$held"
grep --quiet '^# edited$' /etc/gossd/gossd.toml || fail 'the edited configuration is lost'

step 'one that was disabled stays disabled when it is upgraded'
systemctl disable --quiet gossd
dpkg --install "$package" >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
is 'the state' "$(property UnitFileState)" disabled
systemctl enable --quiet gossd

step 'removed, it is stopped; its configuration and journal stay'
dpkg --remove gossd >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
no_process
is 'the unit' "$(property LoadState)" not-found
[ -f /etc/gossd/gossd.toml ] && [ -d /var/lib/gossd ] && [ ! -e /run/gossd ]

step 'installed again, it is as it was'
dpkg --install "$package" >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
is 'the answer' "$(get)" "$held"
grep --quiet '^# edited$' /etc/gossd/gossd.toml

step 'purged, nothing of it is left: no file, no user, no process'
[ -f /etc/gossd/tokens ]
dpkg --purge gossd >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
no_process
if getent passwd gossd || getent group gossd; then fail 'its user is still there'; fi
[ ! -e /run/gossd ]
files | comm -13 /tmp/before - >/tmp/more
is 'what is left' "$(cat /tmp/more)" ''
step 'all of it works'
