//! A real ssh-agent for tests.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Child, Stdio},
};

use super::*;

/// A private ssh-agent; ends with the test.
pub(super) struct OwnAgent(Child, PathBuf);

impl Drop for OwnAgent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl OwnAgent {
    pub(super) fn start(folder: &Path) -> Option<Self> {
        use std::io::BufRead;
        let program = installed("ssh-agent")?;
        installed("ssh-add")?;
        let socket = folder.join("agent");
        let mut process = Command::new(program)
            .args(["-D", "-a"])
            .arg(&socket)
            // Without that program nobody confirms anything.
            .env("SSH_ASKPASS", folder.join("confirm"))
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It prints its variables once the socket is there.
        let mut line = String::new();
        std::io::BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("SSH_AUTH_SOCK"), "{line}");
        Some(Self(process, socket))
    }

    pub(super) fn add(&self, key: &Path) {
        let mut command = Command::new("ssh-add");
        let done = command.arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.1).status().unwrap();
        assert!(done.success());
    }

    pub(super) fn options(&self, lab: &Lab) -> SshOptions {
        lab.with("IdentityAgent", &self.1.display().to_string())
    }

    pub(super) fn socket(&self) -> &Path {
        &self.1
    }

    /// Runs `ssh-add` with `words`; a passphrase that it asks for is `secret`.
    pub(super) fn ssh_add(&self, words: &[&str]) -> std::process::Output {
        let answer = self.1.with_file_name("askpass");
        fs::write(&answer, "#!/bin/sh\necho secret\n").unwrap();
        fs::set_permissions(&answer, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = Command::new("ssh-add");
        command.args(words).env("SSH_AUTH_SOCK", &self.1);
        command
            .env("SSH_ASKPASS", &answer)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("DISPLAY", ":0");
        command.output().unwrap()
    }

    /// Has a person refuse every use of a key, each time with a line in this file.
    pub(super) fn refuse_into(&self, file: &Path) {
        let program = self.1.with_file_name("confirm");
        fs::write(&program, format!("#!/bin/sh\necho no >>'{}'\nexit 1\n", file.display()))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    }

    /// How many keys it lists.
    pub(super) fn count(&self) -> usize {
        let listed = String::from_utf8(self.ssh_add(&["-L"]).stdout).unwrap();
        listed.lines().filter(|line| line.contains("AAAA")).count()
    }
}
