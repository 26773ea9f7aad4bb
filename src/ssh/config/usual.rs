//! The lists of algorithms that OpenSSH 9 has when nobody says otherwise: what `ssh -G` shows. Pure.
//!
//! What we offer in their place is decided in `ssh/algorithms.rs`.

use crate::ssh::algorithms::{self, Keyword};

const CIPHERS: &str = "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,\
    aes128-gcm@openssh.com,aes256-gcm@openssh.com";
const MACS: &str = "umac-64-etm@openssh.com,umac-128-etm@openssh.com,\
    hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha1-etm@openssh.com,\
    umac-64@openssh.com,umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1";
const KEX: &str = "sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,\
    curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,\
    diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,\
    diffie-hellman-group18-sha512,diffie-hellman-group14-sha256";
const KEYS: &str = "ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com,\
    ecdsa-sha2-nistp384-cert-v01@openssh.com,ecdsa-sha2-nistp521-cert-v01@openssh.com,\
    sk-ssh-ed25519-cert-v01@openssh.com,sk-ecdsa-sha2-nistp256-cert-v01@openssh.com,\
    rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,ssh-ed25519,\
    ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,\
    sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256";
const AUTHORITIES: &str = "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,\
    ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,\
    rsa-sha2-512,rsa-sha2-256";

/// The list that holds without a word of the user.
pub(super) fn list(keyword: Keyword) -> &'static str {
    match keyword {
        Keyword::Kex => KEX,
        Keyword::Ciphers => CIPHERS,
        Keyword::Macs => MACS,
        Keyword::HostKey | Keyword::PublicKey => KEYS,
        Keyword::CaSignature => AUTHORITIES,
    }
}

/// What `text` makes of it.
pub(super) fn expanded(keyword: Keyword, text: &str) -> String {
    let usual: Vec<&str> = list(keyword).split(',').collect();
    algorithms::expand(keyword, text, &usual).join(",")
}
