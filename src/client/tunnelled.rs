//! Whether a port of this machine leads elsewhere: through a tunnel of ours to a remote's gateway.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::{
    config::{Paths, Remotes},
    control,
    problem::{Class, Problem},
};

/// How long the supervisor may take to say so.
const PATIENCE: Duration = Duration::from_secs(2);

/// Refuses a port on which our supervisor listens for a remote: whoever means this machine's gateway
/// would send its secret there. If the supervisor does not say, what is saved counts. By `deadline`.
pub(super) async fn refuse_tunnel(
    paths: &Paths,
    port: u16,
    deadline: Instant,
) -> Result<(), Problem> {
    let deadline = deadline.min(Instant::now() + PATIENCE);
    let holder = match timeout_at(deadline, control::holder(&paths.endpoint(), port)).await {
        Ok(Ok(holder)) => holder,
        Ok(Err(_)) | Err(_) => listener(paths, port)?,
    };
    holder.map_or(Ok(()), |remote| Err(leads_to(&remote, port)))
}

/// The saved remote that listens on this port while it is at work.
fn listener(paths: &Paths, port: u16) -> Result<Option<String>, Problem> {
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
    use tokio::net::UnixListener;

    use super::*;
    use crate::config::Remote;

    async fn outcome(paths: &Paths) -> Result<(), Problem> {
        refuse_tunnel(paths, 18_789, Instant::now() + PATIENCE).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_saved_counts_only_where_a_supervisor_does_not_say() {
        let (_home, paths) = Paths::temporary();
        Remotes::update(&paths, |remotes| {
            let remote = Remote { local_port: 18_789, wanted: true, ..Remote::new("me@vps") };
            remotes.remotes.insert("vps".to_owned(), remote);
            Ok(())
        })
        .unwrap();
        outcome(&paths).await.unwrap();
        let _silent = UnixListener::bind(&paths.socket).unwrap();
        let problem = outcome(&paths).await.unwrap_err();
        assert_eq!(problem.class, Class::GatewayDown);
        assert!(problem.message.contains("leads to the remote `vps`"), "{problem}");
    }
}
