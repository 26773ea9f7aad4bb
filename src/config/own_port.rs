//! Which port a gateway of this machine has when nobody says: OpenClaw's rule, so that its programs
//! find ours and ours theirs.

/// A gateway's port when nothing else is said, in the default profile.
pub(crate) const DEFAULT_PORT: u16 = 18_789;
/// The ports of named profiles begin here.
const NAMED: u32 = 20_000;
/// How many there are.
const SPAN: u32 = 40_000;

/// The port of a profile's gateway. A named one is hashed (FNV-1a, 32 bits) into 20000 to 59999; it
/// never meets 18789 and the companion ports above it.
pub(crate) fn profile_port(profile: Option<&str>) -> u16 {
    let Some(name) = profile else { return DEFAULT_PORT };
    let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    let hash = name.bytes().fold(2_166_136_261, step);
    u16::try_from(NAMED + hash % SPAN).unwrap_or(DEFAULT_PORT)
}

/// The port in `OPENCLAW_GATEWAY_PORT`: a number, or `HOST:PORT` as container tools write it.
pub(crate) fn port_variable(text: &str) -> Option<u16> {
    let text = text.trim();
    let digits = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?.1,
        None => match text.split_once(':') {
            Some((host, port)) if !host.is_empty() && !port.contains(':') => port,
            Some(_) => return None,
            None => text,
        },
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| is_number && *port != 0)
}

/// [`profile_port`] of the profile whose file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsualPort(pub(super) u16);

impl Default for UsualPort {
    fn default() -> Self {
        Self(DEFAULT_PORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_profile_has_a_port_of_its_own_as_openclaw_computes_it() {
        assert_eq!(profile_port(None), 18_789);
        // Computed by `resolveGatewayPort` of OpenClaw 2026.9.6.
        for (name, port) in [("work", 41984), ("rescue", 23532), ("dev", 38556), ("Work", 28704)] {
            assert_eq!(profile_port(Some(name)), port, "{name}");
        }
    }

    #[test]
    fn the_variable_may_name_a_host_as_well() {
        for text in ["9", " 9 ", "127.0.0.1:9", "[::1]:9", "localhost:9"] {
            assert_eq!(port_variable(text), Some(9), "{text}");
        }
        for text in ["", "0", "many", "65536", "+9", ":9", "a:b:9", "[::1]9", "::1", "9:"] {
            assert_eq!(port_variable(text), None, "{text}");
        }
    }
}
