//! Whether a port of this machine leads elsewhere: through a tunnel of ours to a remote's gateway.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::{
    config::{Paths, Remotes},
    control,
    problem::{Class, Problem},
};

/// How long the supervisor may take to say so.
const PATIENCE: Duration = Duration::from_secs(2);

/// Refuses a port that our supervisor holds for a remote: whoever means this machine's gateway would
/// send its secret there. If the supervisor does not say, what is saved counts. By `deadline`.
pub(super) async fn refuse_tunnel(
    paths: &Paths,
    port: u16,
    deadline: Instant,
) -> Result<(), Problem> {
    let endpoint = paths.endpoint();
    let deadline = deadline.min(Instant::now() + PATIENCE);
    let holder = match timeout_at(deadline, control::statuses(&endpoint, None)).await {
        Ok(Ok(statuses)) => holder(&statuses, port).map(str::to_owned),
        Ok(Err(_)) | Err(_) => claimant(paths, port)?,
    };
    holder.map_or(Ok(()), |remote| Err(leads_to(&remote, port)))
}

/// The remote for which the supervisor that says `statuses` listens on `port`.
fn holder(statuses: &[Value], port: u16) -> Option<&str> {
    let text = |value: &Value, pointer: &str| value.pointer(pointer)?.as_str().map(str::to_owned);
    let is_held = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_u64) == Some(port.into())
            && text(value, "/failure/class").as_deref() != Some("port_in_use")
    };
    let listens = |status: &Value| {
        let forwards = status.get("forwards").and_then(Value::as_array).into_iter().flatten();
        let mut local =
            forwards.filter(|forward| text(forward, "/kind").as_deref() == Some("local"));
        let is_gateway = text(status, "/kind").as_deref() == Some("gateway");
        is_gateway && is_held(status, "localPort") || local.any(|forward| is_held(forward, "port"))
    };
    let is_down = |status: &Value| text(status, "/phase").as_deref() == Some("down");
    let status = statuses.iter().find(|status| !is_down(status) && listens(status))?;
    status.get("name")?.as_str()
}

/// The saved remote that listens on this port while it is at work.
fn claimant(paths: &Paths, port: u16) -> Result<Option<String>, Problem> {
    let remotes = Remotes::load(paths)?.remotes;
    Ok(remotes.into_iter().find(|(_, remote)| remote.listens_on(port)).map(|(name, _)| name))
}

fn leads_to(remote: &str, port: u16) -> Problem {
    Problem::new(
        Class::GatewayDown,
        format!("no gateway runs on this machine: port {port} leads to the remote `{remote}`"),
    )
    .fix(format!(
        "--remote {remote}, or for a gateway here a port of its own: openclaw config set \
         gateway.port PORT"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_is_a_tunnels_while_the_supervisor_listens_on_it() {
        let status = |name: &str, more: Value| {
            let mut status = json!({
                "name": name, "kind": "gateway", "phase": "live", "localPort": 18_789, "failure": null,
                "forwards": [
                    {"kind": "local", "port": 18_790, "failure": null},
                    {"kind": "local", "port": 18_791, "failure": {"class": "port_in_use"}},
                    {"kind": "remote", "port": 18_792, "failure": null},
                ],
            });
            for (key, value) in more.as_object().unwrap() {
                status[key] = value.clone();
            }
            status
        };
        let vps = status("vps", json!({}));
        let held = |status: &Value, port| holder(std::slice::from_ref(status), port).is_some();
        assert_eq!(holder(std::slice::from_ref(&vps), 18_789), Some("vps"));
        assert!(held(&vps, 18_790));
        assert!(!held(&vps, 18_791) && !held(&vps, 18_792) && !held(&vps, 18_793));
        assert!(!held(&status("vps", json!({"phase": "down"})), 18_789));
        let taken = json!({"phase": "failed", "failure": {"class": "port_in_use"}});
        assert!(!held(&status("vps", taken), 18_789), "another program has it");
        assert!(!held(&status("jump", json!({"kind": "exposed"})), 18_789));
        let waiting = json!({"phase": "waiting", "failure": {"class": "unreachable"}});
        assert!(held(&status("vps", waiting), 18_789));
    }

    #[tokio::test]
    async fn without_a_supervisor_a_port_is_this_machines_own() {
        let (_home, paths) = Paths::temporary();
        let deadline = Instant::now() + PATIENCE;
        refuse_tunnel(&paths, 18_789, deadline).await.unwrap();
    }
}
