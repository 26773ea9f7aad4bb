//! The gateway under a real systemd: units, readiness, a broken file, secrets, neighbours.

use crate::{
    machine::Machine,
    support::{Peer, present},
};

#[test]
fn a_gateway_of_the_user_is_installed_controlled_and_leaves_nothing() {
    if !present(&[Peer::Machine]) {
        return;
    }
    let machine = Machine::boot();
    let files =
        "(find / -xdev -name '*openclaw-rs-gateway*'; find ~/.config ~/.local -type f) 2>/dev/null";
    let profile = "export OPENCLAW_PROFILE=work";
    machine
        .ann(&format!("{profile}; openclaw gateway install"))
        .succeeds()
        .says("openclaw-rs-gateway-work.service: active, ready on ws://127.0.0.1:41984")
        .says("enable-linger ann");
    let story = format!(
        "{profile}; openclaw gateway install >/dev/null
        openclaw gateway status --json --local-gateway >status; echo code $?
        grep -o '\"status\": \"running\"' status
        grep -o 'openclaw-rs-gateway-work.service' status | head -1
        openclaw health --local-gateway >/dev/null && echo answers
        openclaw gateway start
        openclaw gateway stop
        openclaw gateway stop
        openclaw gateway start --json | grep -o '\"result\": \"started\"'
        systemctl --user show -p MainPID openclaw-rs-gateway-work >before
        openclaw gateway restart
        systemctl --user show -p MainPID openclaw-rs-gateway-work | cmp -s - before || echo another process
        grep -c . ~/.openclaw-work/rs/logs/gateway-*.log >/dev/null && echo logged
        openclaw gateway uninstall; echo code $?
        openclaw gateway uninstall
        openclaw gateway start; echo code $?"
    );
    machine
        .ann(&story)
        .succeeds()
        .says("code 0")
        .says("\"status\": \"running\"")
        .says("answers")
        .says("openclaw-rs-gateway-work.service runs already: ready on ws://127.0.0.1:41984")
        .says("openclaw-rs-gateway-work.service stopped")
        .says("openclaw-rs-gateway-work.service was not running")
        .says("\"result\": \"started\"")
        .says("openclaw-rs-gateway-work.service restarted: ready on")
        .says("another process")
        .says("logged")
        .says("stopped and removed\ncode 0\n")
        .says("was not installed")
        .says("openclaw --profile work gateway install")
        .says("code 2\n");
    assert_eq!(machine.ann(files).text, "");
    assert!(machine.held().is_none_or(|held| held >= 3), "{:?} frames", machine.held());
}

#[test]
fn a_gateway_of_the_machine_gets_its_secret_and_does_not_loop_on_a_broken_file() {
    if !present(&[Peer::Machine]) {
        return;
    }
    let machine = Machine::boot();
    let unit = "openclaw-rs-gateway-ann.service";
    machine.root("umask 077; echo handed-over-token >/root/token").succeeds();
    machine
        .root("openclaw gateway install --system --user ann --port 18889 --token-file /root/token")
        .succeeds()
        .says("openclaw-rs-gateway-ann.service: active, ready on ws://127.0.0.1:18889")
        .says("whether or not anybody is logged in");
    machine.unit(unit, "ActiveState", "active");
    let call = "openclaw gateway call health --url ws://127.0.0.1:18889 --token";
    machine.root(&format!("{call} handed-over-token")).succeeds();
    machine.root(&format!("{call} another")).exits(8);
    let secret = "grep -rl handed-over-token /home/ann /etc/systemd /run/systemd/system; true";
    assert_eq!(machine.root(secret).text, "");
    machine
        .root("stat -c '%U %a' /home/ann/.openclaw/rs /home/ann/.openclaw/rs/logs")
        .succeeds()
        .says("ann 700\nann 700");
    // Killed it comes back; stuck it is killed and comes back.
    machine.root(&format!("systemctl kill -s KILL {unit}")).succeeds();
    machine.unit(unit, "NRestarts", "1");
    machine.unit(unit, "ActiveState", "active");
    let config = "/home/ann/.openclaw/openclaw.json";
    machine
        .root(&format!("echo '{{gateway: {{port: []}}}}' >{config}; systemctl restart {unit}"))
        .exits(1);
    machine.unit(unit, "ActiveState", "failed");
    machine.unit(unit, "ExecMainStatus", "78");
    machine
        .root("openclaw gateway restart --system --user ann")
        .exits(2)
        .says("gateway.port")
        .says("journalctl -u openclaw-rs-gateway-ann.service");
    machine
        .root(&format!("rm {config}; openclaw gateway restart --system --user ann"))
        .succeeds()
        .says("restarted: ready on ws://127.0.0.1:18889");
    machine.root("systemd-analyze security --no-pager openclaw-rs-gateway-ann.service | tail -1");
    machine.root("openclaw gateway uninstall --system --user ann").succeeds();
    assert_eq!(machine.root("find / -xdev -name '*openclaw-rs-gateway*'").text, "");
}

#[test]
fn a_unit_of_somebody_else_and_a_gateway_in_the_way_are_named_and_left_alone() {
    if !present(&[Peer::Machine]) {
        return;
    }
    let machine = Machine::boot();
    let story = "
        mkdir -p .config/systemd/user
        printf '[Unit]\nDescription=mine\n' >.config/systemd/user/openclaw-rs-gateway.service
        openclaw gateway install; echo code $?
        openclaw gateway start; echo code $?
        openclaw gateway uninstall; echo code $?
        grep -c mine .config/systemd/user/openclaw-rs-gateway.service
        rm .config/systemd/user/openclaw-rs-gateway.service
        printf '[Service]\nExecStart=/bin/sleep 1d\n' >.config/systemd/user/openclaw-gateway.service
        openclaw gateway status --json --no-probe | grep -o '\"label\": \"openclaw-gateway.service\"'
        systemd-run --user -q --unit openclaw-gateway-theirs openclaw gateway run --port 18989
        until openclaw health --port 18989 >/dev/null 2>&1; do :; done
        openclaw gateway install; echo code $?
        systemctl --user is-active openclaw-gateway-theirs
        OPENCLAW_STATE_DIR=~/other openclaw gateway install --port 18989; echo code $?
        OPENCLAW_STATE_DIR=~/other openclaw gateway install --port 18999; echo code $?
        systemctl --user is-active openclaw-gateway-theirs openclaw-rs-gateway";
    machine
        .ann(story)
        .succeeds()
        .says("was not written by us, and is not touched")
        .says("code 2\n1\n")
        .says("\"label\": \"openclaw-gateway.service\"")
        .says("of this profile runs already: openclaw-gateway-theirs.service, pid ")
        .says("systemctl --user disable --now openclaw-gateway-theirs.service")
        .says("port 18989 is taken by openclaw (openclaw-gateway-theirs.service, pid ")
        .says("code 6\n")
        .says("openclaw-rs-gateway.service: active, ready on ws://127.0.0.1:18999")
        .says("code 0\nactive\nactive\n");
}
