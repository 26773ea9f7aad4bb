//! Where a gateway may be spoken to in plain text: one rule for those who dial and those who tell.

use std::net::IpAddr;

/// What ends names that only a private network resolves, as OpenClaw documents them: those of
/// multicast DNS (RFC 6762) and of Tailscale.
const PRIVATE_SUFFIXES: [&str; 2] = [".local", ".ts.net"];

/// Whether plain text may go to an address: loopback, private, link-local or carrier-grade NAT
/// (RFC 1122, 1918, 3927, 4193, 4291, 6598).
pub(crate) fn may_go_to(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let carrier = first == 100 && second & 0b1100_0000 == 64;
            address.is_loopback() || address.is_private() || address.is_link_local() || carrier
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

/// Whether a name is one of a private network. Whoever dials looks again at what it leads to.
pub(crate) fn may_go_to_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    PRIVATE_SUFFIXES
        .iter()
        .any(|suffix| name.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_addresses_and_names_of_private_networks_and_nothing_that_looks_like_them() {
        let near = |text: &str| may_go_to(text.parse().unwrap());
        for text in ["127.9.9.9", "10.0.0.1", "169.254.1.1", "100.64.0.1", "::1", "fd00::1"] {
            assert!(near(text), "{text}");
        }
        for text in ["8.8.8.8", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert!(!near(text), "{text}");
        }
        assert!(near("::ffff:192.168.0.1") && !near("::ffff:8.8.8.8"));
        for name in ["box.local", "box.local.", "box.tail1.ts.net"] {
            assert!(may_go_to_name(name), "{name}");
        }
        for name in [".local", "box.local.evil.example", "evilts.net", "localhost.evil", "127.1"] {
            assert!(!may_go_to_name(name), "{name}");
        }
    }
}
