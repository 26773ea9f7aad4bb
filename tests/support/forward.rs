//! `ssh -N -L` and its nanny, as people use them.

use super::{
    program::{Program, guarded},
    sshd::Sshd,
};

/// The keepalive that people are told to use.
pub(crate) const KEEPALIVE: [&str; 2] = ["ServerAliveInterval=15", "ServerAliveCountMax=3"];

/// Starts `ssh` or `autossh` with forwards from ports here to ports behind `sshd`.
pub(crate) fn ssh_forward(program: &str, sshd: &Sshd, forwards: &[(u16, u16)]) -> Program {
    ssh_forward_by(program, &[], sshd, sshd.port(), forwards)
}

/// The same with further `-o` options, over a port that leads to that of `sshd`.
pub(crate) fn ssh_forward_by(
    program: &str,
    options: &[&str],
    sshd: &Sshd,
    port: u16,
    forwards: &[(u16, u16)],
) -> Program {
    let mut command = guarded(program);
    if program == "autossh" {
        // As its manual recommends for servers: no gate, and ssh's own keepalive instead of ports.
        command.args(["-M", "0"]).env("AUTOSSH_GATETIME", "0");
        command.args(KEEPALIVE.iter().flat_map(|option| ["-o", option]));
    }
    command.args(["-F", "none", "-N", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"]);
    command.args(options.iter().flat_map(|option| ["-o", option]));
    command.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(sshd.key());
    command.arg("-o").arg(format!("UserKnownHostsFile={}", sshd.known_hosts().display()));
    for (near, far) in forwards {
        command.args(["-L", &format!("{near}:127.0.0.1:{far}")]);
    }
    command.args(["-p", &port.to_string(), &sshd.target()]);
    Program::start(program, command)
}
