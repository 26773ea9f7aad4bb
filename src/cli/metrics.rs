//! `--metrics`: where the supervisor answers scrapes, as a person types it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Context;
use crate::{
    control::{self, Request},
    problem::{Class, Problem},
};

/// The address that `text` means: `ADDRESS:PORT`, a port alone for one on loopback; `None` for
/// `off`.
pub(super) fn address(text: &str) -> Result<Option<SocketAddr>, Problem> {
    let wrong = || {
        Problem::new(Class::Usage, format!("`{text}` is no address for the metrics"))
            .fix("--metrics 9464, --metrics ADDRESS:PORT, or --metrics off")
    };
    if text == "off" {
        return Ok(None);
    }
    let alone = text.strip_prefix(':').or(text.strip_prefix("localhost:")).unwrap_or(text);
    let address = match alone.parse::<u16>() {
        Ok(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        Err(_) => text.parse().map_err(|_| wrong())?,
    };
    if address.port() == 0 { Err(wrong()) } else { Ok(Some(address)) }
}

/// Has the supervisor answer scrapes there; the next one as well if `keep`.
pub(super) async fn set(
    context: &Context,
    address: Option<SocketAddr>,
    keep: bool,
) -> Result<(), Problem> {
    let mut connection = control::started(&context.paths.endpoint()).await?;
    connection.request(Request::Metrics { address, keep }).await?;
    connection.done().await?;
    match address {
        Some(address) if address.ip().is_loopback() => {
            context.output.note(format!("metrics: http://{address}/metrics"));
        }
        Some(address) => context.output.note(format!(
            "warning: other machines can read the metrics at http://{address}/metrics: names and \
             traffic of your remotes, without a login"
        )),
        None => context.output.note("metrics: off"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_on_loopback() {
        for text in ["9464", ":9464", "localhost:9464", "127.0.0.1:9464"] {
            let address = address(text).unwrap().unwrap();
            assert_eq!(address.to_string(), "127.0.0.1:9464", "{text}");
        }
        for text in ["[::1]:9464", "0.0.0.0:9464", "[::]:9464"] {
            assert_eq!(address(text).unwrap().unwrap().to_string(), text);
        }
        assert_eq!(address("off").unwrap(), None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "0", "99999", "example.com:9464", "127.1:9464", "*:9464", "::1:9464", "on"]
        {
            assert_eq!(address(text).unwrap_err().class, Class::Usage, "{text}");
        }
    }
}
