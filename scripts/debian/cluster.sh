# shellcheck shell=bash disable=SC2154  # scripts/deb-test.sh has its variables
# A new user's first hour with three machines; scripts/deb-test.sh sources this file. Installs gossd, connects the machines,
# breaks one thing after the other, and finds the cause with gossd's own output alone.

TUNNEL=4d21094e-b74c-4916-86c1-d9fa36ea677b

step() { printf '%s\n' "$*"; }
says() { # WHAT COMMAND...: the output of a command has to contain this soon
  local what=$1 end=$((SECONDS + 20)) said
  shift
  until said=$("$@" 2>&1 || true) && grep --quiet --fixed-strings -- "$what" <<<"$said"; do
    ((SECONDS < end)) || fail "\`$*\` never says '$what', but: $said"
    sleep 0.2
  done
}
ends() { # CODE COMMAND...: a command has to end with this code
  local code=0
  "${@:2}" >/dev/null 2>&1 || code=$?
  [ "$code" = "$1" ] || fail "\`${*:2}\` ends with $code and not with $1"
}
log() { on "$1" journalctl --unit gossd --no-pager --output cat; }
configure() { # HOST KEY: as in "Several hosts" of docs/operate.md, in the service's own file
  on "$1" sh -c 'install -g gossd -m 0640 /dev/null /etc/gossd/key && echo "$1" >/etc/gossd/key
    { echo "key-file = \"/etc/gossd/key\""
      echo "advertise-host = \"$(hostname -I | tr -d " ")\""
      echo "join = [\"a:8002\", \"b:8002\"]"; } >/etc/gossd/gossd.toml
    systemctl restart gossd' sh "$2"
}
alive() { # HOST COUNT: how many other agents it sees alive
  local heard
  heard=$(on "$1" gossd members | awk '$2 == "alive"' | wc -l)
  [ "$heard" = "$2" ] && echo enough
}

step 'three machines: installed, with two of them in --join, they know each other'
for host in a b c; do on "$host" dpkg --install /root/gossd.deb >/dev/null 2>&1 || fail "it is not installed on $host"; done
key=$(on a gossd keygen)
for host in a b c; do configure "$host" "$key"; done
for host in a b c; do says enough alive "$host" 2; done
for host in a b c; do says '  ready' on "$host" gossd status; done
# The address is its own plugin port, so that something answers there.
on a curl --fail --silent --max-time 5 http://127.0.0.1:8000/sd \
  --data '{"id":"1","name":"'$TUNNEL'","node":"n","network":"tcp","address":":8000"}'
says "$(on a hostname -I | tr -d ' '):8000" on c gossd get $TUNNEL

step 'visitors get 503: whether the tunnel is registered, and why gost gets which address'
ends 3 on c gossd explain 00000000-0000-0000-0000-000000000000
says 'the only one; a is alive' on c gossd explain $TUNNEL

step 'one machine is lost: the others name it, and its records come last'
on c sh -c 'timeout 10 gossd watch >/tmp/watched 2>&1 &'
docker pause "$run-a" >/dev/null
says suspect on c gossd members
says 'a has not been heard for' on c gossd explain $TUNNEL
says 'peer-suspect   a' on c cat /tmp/watched
docker unpause "$run-a" >/dev/null
says 'the only one; a is alive' on c gossd explain $TUNNEL

step 'one has another key: its log and those of the others say so, and its status shows the effect'
configure c "$(on c gossd keygen)"
says 'its key is not in our --key-file' on a journalctl --unit gossd --priority warning --no-pager
says 'its key is not in our --key-file' log c
says 'no peer of --join' on c gossd status
[ "$(on c gossd keys list | awk '$2 == "yes" { print $1 }')" != "$(on a gossd keys list | awk '$2 == "yes" { print $1 }')" ] ||
  fail 'both seal with the same key'
configure c "$key"
says enough alive c 2

step 'one does not start: gossd check shows why before, its log after'
on c sh -c 'echo "joyn = 1" >>/etc/gossd/gossd.toml'
ends 2 on c gossd check --config /etc/gossd/gossd.toml
says 'joyn' on c gossd check --config /etc/gossd/gossd.toml
on c systemctl restart gossd >/dev/null 2>&1 || true
says 'joyn' log c
says 'no agent answers at 127.0.0.1:8001' on c gossd status
on c sed --in-place '/joyn/d' /etc/gossd/gossd.toml
on c systemctl restart gossd
says enough alive c 2

step 'a second one beside it: gossd check shows who has the ports'
ends 1 on c gossd check --config /etc/gossd/gossd.toml --name d
says '127.0.0.1:8000 is taken' on c gossd check --config /etc/gossd/gossd.toml --name d

step 'one leaves for good: its records are hidden at once, and it stays away'
on a gossd leave >/dev/null
ends 3 on c gossd get $TUNNEL
ends 1 on a gossd status
step 'a new user finds out'
