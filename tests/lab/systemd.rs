//! The supervisor under a real systemd: units, readiness, watchdog, reload, logout.

use crate::{
    machine::Machine,
    support::{Peer, present},
};

/// The unit of `ann` among those of the machine.
const UNIT: &str = "openclaw-remote-ann.service";

#[test]
fn a_unit_of_the_user_comes_up_reloads_and_leaves_nothing() {
    if !present(&[Peer::Machine]) {
        return;
    }
    let machine = Machine::boot();
    machine.connect();
    let files =
        "(find / -xdev -name '*openclaw-remote*'; find ~/.config ~/.local -type f) 2>/dev/null";
    let install = machine.ann("openclaw remote install").succeeds();
    install.says("openclaw-remote.service: active, vps: live").says("enable-linger ann");
    // Each login sees the service of the one before if it had not ended with it; this one is one.
    let story = "
        openclaw remote install >/dev/null
        systemctl --user show -p MainPID openclaw-remote >before
        openclaw remote install --json | grep '\"active\": \"active\"'
        systemctl --user show -p MainPID openclaw-remote | cmp - before && echo the same process
        openclaw health
        openclaw remote connect vps --batch && echo connected through the service
        systemctl --user reload openclaw-remote
        timeout 30 sh -c 'until systemctl --user show -p ActiveState openclaw-remote |
            grep -x ActiveState=active; do sleep 0.1; done'
        sed -i s/WatchdogSec=60/WatchdogSec=61/ .config/systemd/user/openclaw-remote.service
        openclaw remote uninstall; echo code $?
        openclaw remote install; echo code $?
        sed -i s/WatchdogSec=61/WatchdogSec=60/ .config/systemd/user/openclaw-remote.service
        openclaw remote uninstall; echo code $?
        openclaw remote uninstall";
    machine
        .ann(story)
        .succeeds()
        .says("the same process")
        .says("remote `vps`")
        .says("connected through the service")
        .says("ActiveState=active")
        .says("was changed since it was installed, and is not touched")
        .says("code 2\n")
        .says("stopped and removed\ncode 0\n")
        .says("was not installed");
    assert_eq!(machine.ann(files).text, "");
    let alive = machine.ann("systemctl --user list-units --all --no-legend 'openclaw*'");
    assert_eq!(alive.text, "");
}

#[test]
fn a_unit_of_the_machine_is_ready_when_live_and_restarted_when_stuck() {
    if !present(&[Peer::Machine]) {
        return;
    }
    let machine = Machine::boot();
    machine.connect();
    machine.ann("openclaw remote disconnect vps; openclaw remote connect --batch vps").succeeds();
    machine.root("systemctl stop ssh").succeeds();
    // Not live yet: the unit starts for as long as it takes, and nothing waits for it.
    machine
        .root("openclaw remote install --system --user ann --timeout 2")
        .exits(3)
        .says("is not live yet: vps: waiting");
    machine.unit(UNIT, "ActiveState", "activating");
    machine.unit("multi-user.target", "ActiveState", "active");
    machine.root("systemctl start ssh").succeeds();
    machine.unit(UNIT, "ActiveState", "active");
    machine.unit(UNIT, "StatusText", "vps: live");
    machine.root("runuser -u ann openclaw health").succeeds();
    // The watchdog kills a supervisor that stands still, and systemd starts it again.
    let watchdog = format!("/run/systemd/system/{UNIT}.d/watchdog.conf");
    machine
        .root(&format!(
            "mkdir -p $(dirname {watchdog}) && printf '[Service]\\nWatchdogSec=3\\n' >{watchdog} &&
             systemctl daemon-reload && systemctl restart {UNIT} && systemctl kill -s STOP {UNIT}"
        ))
        .succeeds();
    machine.unit(UNIT, "NRestarts", "1");
    machine.unit(UNIT, "StatusText", "vps: live");
    machine
        .root(&format!("journalctl -q --no-pager -u {UNIT} -o cat"))
        .says("Watchdog timeout (limit 3s)!");
    // A person is needed, or the file is broken: no loop.
    let remotes = "/home/ann/.openclaw/rs/remotes.json";
    machine
        .root(&format!("cp -p {remotes} /root; echo {{ >{remotes}; systemctl restart {UNIT}"))
        .exits(1);
    machine.unit(UNIT, "ActiveState", "failed");
    machine.unit(UNIT, "ExecMainStatus", "78");
    machine.unit(UNIT, "NRestarts", "0");
    machine
        .root(&format!(
            "cp -p /root/remotes.json {remotes}; openclaw remote install --system --user ann"
        ))
        .succeeds()
        .says("whether or not anybody is logged in");
    machine.root("openclaw remote uninstall --system --user ann").succeeds();
    assert_eq!(machine.root("find / -xdev -name '*openclaw-remote*'").text, "");
}

#[test]
fn the_unit_of_one_remote_ends_with_its_code_when_a_person_is_needed() {
    if !present(&[Peer::Machine]) {
        return;
    }
    let machine = Machine::boot();
    machine.connect();
    machine.root("openclaw remote install --system --user ann vps").succeeds();
    machine.root("rm /home/far/.ssh/authorized_keys; systemctl restart ssh").succeeds();
    machine.root(&format!("systemctl kill -s KILL {UNIT}")).succeeds();
    machine.unit(UNIT, "ActiveState", "failed");
    machine.unit(UNIT, "ExecMainStatus", "4");
    machine.unit(UNIT, "NRestarts", "1");
    machine
        .root("openclaw remote install --system --user ann vps")
        .exits(4)
        .says("did not let far in")
        .says("journalctl -u openclaw-remote-ann.service");
}

#[test]
fn a_credential_of_systemd_lets_the_service_in() {
    if !present(&[Peer::Machine]) {
        return;
    }
    let machine = Machine::boot();
    machine.connect();
    machine.ann("openclaw remote disconnect vps && openclaw remote connect --batch vps").succeeds();
    machine
        .root(&format!(
            "rm /home/ann/.ssh/id_ed25519 && mkdir -p /etc/systemd/system/{UNIT}.d &&
             printf '[Service]\\nLoadCredential=openclaw-ssh-key:/root/key\\n' \
                 >/etc/systemd/system/{UNIT}.d/key.conf"
        ))
        .succeeds();
    machine.root("openclaw remote install --system --user ann").succeeds().says("vps: live");
    let secret = "grep -rl 'OPENSSH PRIVATE KEY' /home/ann/.openclaw /etc/systemd; true";
    assert_eq!(machine.root(secret).text, "");
    machine
        .root("openclaw remote uninstall --system --user ann")
        .succeeds()
        .says("is yours and was left");
}

#[test]
fn what_a_logout_does_is_as_it_was_said() {
    if !present(&[Peer::Machine]) {
        return;
    }
    let machine = Machine::boot();
    machine.connect();
    let running = "pgrep -u ann -f 'supervisor --foreground' >/dev/null && echo runs || echo ended";
    machine.ann("openclaw remote install").succeeds().says("ends with your last logout");
    machine.unit("user@1000.service", "ActiveState", "inactive");
    machine.root(running).says("ended");
    machine.root("loginctl enable-linger ann").succeeds();
    machine.ann("openclaw remote install").succeeds().says("you linger");
    machine.root("loginctl list-sessions --no-legend").succeeds();
    machine.root(running).says("runs");
    // Where a machine ends what a login started, the service lives on and the background does not.
    machine
        .root(
            "mkdir -p /etc/systemd/logind.conf.d &&
             printf '[Login]\\nKillUserProcesses=yes\\n' >/etc/systemd/logind.conf.d/kill.conf &&
             systemctl restart systemd-logind",
        )
        .succeeds();
    machine
        .ann("openclaw health; openclaw remote install --json")
        .says("\"killUserProcesses\": true");
    machine.root(running).says("runs");
    machine.ann("openclaw remote uninstall && openclaw health").succeeds();
    let background = "while pgrep -u ann -x openclaw >/dev/null; do sleep 0.1; done; echo gone";
    machine.root(background).says("gone");
}
