# Prepares a booted machine: `ann`, who types, and `far`, on whose loopback a gateway runs.
set -eu
useradd -m -s /bin/sh ann
useradd -m -s /bin/sh far
ssh-keygen -q -t ed25519 -N '' -C lab -f /root/key
for user in ann far; do
    install -d -m 700 -o $user -g $user /home/$user/.ssh
    install -m 600 -o $user -g $user /root/key.pub /home/$user/.ssh/authorized_keys
done
install -m 600 -o ann -g ann /root/key /home/ann/.ssh/id_ed25519
for key in /etc/ssh/ssh_host_*_key.pub; do
    printf '127.0.0.1 %s\n' "$(cat "$key")"
done >/etc/ssh/ssh_known_hosts
systemd-run --quiet --unit gateway --uid far --setenv HOME=/home/far openclaw gateway run
tries=0
until test -s /home/far/.openclaw/rs/gateway-token; do
    sleep 0.1
    tries=$((tries + 1))
    test $tries -lt 200
done
install -m 600 -o ann -g ann /home/far/.openclaw/rs/gateway-token /home/ann/token
