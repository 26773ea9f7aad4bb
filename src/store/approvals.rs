//! Requests for approval of a program: what was shown, what was decided, and whether it was used.
//!
//! How long each is kept, and how many, its caller says: the store has what the caller has.

use rusqlite::{Connection, Row, params, types::Type};
use serde_json::Value;

use super::{Error, Store};
use crate::protocol::Decision;

/// The family of approvals in a [`Store`].
pub(crate) struct Approvals<'a> {
    store: &'a Store,
}

/// A request for approval, with what came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeptApproval {
    /// Its id.
    pub(crate) id: String,
    /// The node that may run it; `None` for what no node runs.
    pub(crate) node: Option<String>,
    /// The device that asked, if one did.
    pub(crate) device: Option<String>,
    /// The connection on which it was asked.
    pub(crate) connection: String,
    /// What was shown to those who decide; it holds what exactly may run.
    pub(crate) request: Value,
    /// SHA-256 of the environment that it may run with.
    pub(crate) environment: [u8; 32],
    /// Milliseconds since 1970.
    pub(crate) created_at_ms: u64,
    /// Milliseconds since 1970.
    pub(crate) expires_at_ms: u64,
    /// What was decided, and when, milliseconds since 1970.
    pub(crate) decided: Option<(Decision, u64)>,
    /// When its one run began, milliseconds since 1970.
    pub(crate) used_at_ms: Option<u64>,
}

impl<'a> Approvals<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Every request, the oldest first. On a clock that was set back behind what is known of them,
    /// all their times go back as far: each has left what it had then, and lives no longer.
    pub(crate) async fn all(&self, now_ms: u64) -> Result<Vec<KeptApproval>, Error> {
        self.store
            .run(move |db| {
                let latest: u64 = db.query_row(
                    "SELECT max(0, coalesce(max(max(
                         created_at, coalesce(decided_at, 0), coalesce(used_at, 0)
                     )), 0)) FROM approval",
                    [],
                    |row| row.get(0),
                )?;
                if let Some(behind) = latest.checked_sub(now_ms).filter(|behind| *behind > 0) {
                    set_back(db, behind)?;
                }
                let mut statement = db.prepare(
                    "SELECT id, node_id, device_id, connection, request, environment, created_at,
                     expires_at, decision, decided_at, used_at FROM approval
                     ORDER BY created_at, id",
                )?;
                let rows = statement.query_map([], kept)?;
                rows.collect()
            })
            .await
    }

    /// Keeps a request, in place of one of the same id, and forgets those of the ids `gone`.
    pub(crate) async fn keep(&self, it: KeptApproval, gone: Vec<String>) -> Result<(), Error> {
        self.store
            .run(move |db| {
                forget_all(db, &gone)?;
                db.execute(
                    "INSERT OR REPLACE INTO approval VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,
                     ?10, ?11)",
                    params![
                        it.id,
                        it.node,
                        it.device,
                        it.connection,
                        it.request.to_string(),
                        it.environment,
                        it.created_at_ms,
                        it.expires_at_ms,
                        it.decided.map(|(decision, _)| decision.name()),
                        it.decided.map(|(_, at)| at),
                        it.used_at_ms,
                    ],
                )
                .map(drop)
            })
            .await
    }

    /// Forgets those of these ids.
    pub(crate) async fn forget(&self, gone: Vec<String>) -> Result<(), Error> {
        self.store.run(move |db| forget_all(db, &gone)).await
    }

    /// Keeps what was decided; false, and nothing changes, without such a request that is undecided.
    pub(crate) async fn decide(
        &self,
        id: &str,
        decision: Decision,
        now_ms: u64,
    ) -> Result<bool, Error> {
        let id = id.to_owned();
        let decide = "UPDATE approval SET decision = ?2, decided_at = ?3
                      WHERE id = ?1 AND decision IS NULL";
        self.store
            .run(move |db| Ok(db.execute(decide, params![id, decision.name(), now_ms])? > 0))
            .await
    }

    /// Notes that the one run of what is allowed begins; false if it began before, or if there is no
    /// such request any more.
    pub(crate) async fn use_up(&self, id: &str, now_ms: u64) -> Result<bool, Error> {
        let id = id.to_owned();
        let [once, always] = [Decision::AllowOnce, Decision::AllowAlways].map(Decision::name);
        let use_up = "UPDATE approval SET used_at = ?2
                      WHERE id = ?1 AND used_at IS NULL AND decision IN (?3, ?4)";
        self.store
            .run(move |db| Ok(db.execute(use_up, params![id, now_ms, once, always])? > 0))
            .await
    }
}

/// Forgets what a device asked for.
pub(super) fn forget(db: &Connection, device: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM approval WHERE device_id = ?1", [device]).map(drop)
}

fn forget_all(db: &Connection, gone: &[String]) -> rusqlite::Result<()> {
    let mut forget = db.prepare_cached("DELETE FROM approval WHERE id = ?1")?;
    gone.iter().try_for_each(|id| forget.execute([id]).map(drop))
}

fn set_back(db: &Connection, by_ms: u64) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE approval SET created_at = max(0, created_at - ?1),
         expires_at = max(0, expires_at - ?1), decided_at = max(0, decided_at - ?1),
         used_at = max(0, used_at - ?1)",
        [by_ms],
    )
    .map(drop)
}

fn kept(row: &Row<'_>) -> rusqlite::Result<KeptApproval> {
    let decision = row.get::<_, Option<String>>(8)?.map(|name| {
        Decision::of(&name).ok_or_else(|| unreadable(8, format!("{name} is no decision")))
    });
    let at: Option<u64> = row.get(9)?;
    let request: String = row.get(4)?;
    Ok(KeptApproval {
        id: row.get(0)?,
        node: row.get(1)?,
        device: row.get(2)?,
        connection: row.get(3)?,
        request: serde_json::from_str(&request).map_err(|error| unreadable(4, error))?,
        environment: row.get(5)?,
        created_at_ms: row.get(6)?,
        expires_at_ms: row.get(7)?,
        decided: decision.transpose()?.zip(at),
        used_at_ms: row.get(10)?,
    })
}

fn unreadable(
    column: usize,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        protocol::Role,
        store::{About, Asked, Minted},
    };

    const NOW: u64 = 1_795_486_176_838;

    fn asked(id: &str) -> KeptApproval {
        KeptApproval {
            id: id.to_owned(),
            node: Some("node".to_owned()),
            device: Some("device".to_owned()),
            connection: "c".to_owned(),
            request: json!({"systemRunPlan": {"argv": ["/bin/id"]}, "ask": "on-miss"}),
            environment: [7; 32],
            created_at_ms: NOW,
            expires_at_ms: NOW + 60_000,
            decided: None,
            used_at_ms: None,
        }
    }

    fn ids(all: &[KeptApproval]) -> Vec<&str> {
        all.iter().map(|it| it.id.as_str()).collect()
    }

    #[tokio::test]
    async fn a_request_its_decision_and_its_one_use_are_there_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let nobody = KeptApproval { node: None, device: None, ..asked("b") };
        for it in [asked("a"), nobody.clone(), asked("old")] {
            store.approvals().keep(it, Vec::new()).await.unwrap();
        }
        store.approvals().keep(asked("c"), vec!["old".to_owned()]).await.unwrap();
        let decide = store.approvals().decide("a", Decision::AllowOnce, NOW + 1).await;
        assert_eq!(decide, Ok(true));
        drop(store);
        let store = Store::open(home.path()).unwrap();
        let decided = Some((Decision::AllowOnce, NOW + 1));
        let a = KeptApproval { decided, ..asked("a") };
        assert_eq!(store.approvals().all(NOW + 9).await.unwrap(), [a.clone(), nobody, asked("c")]);
        let again = store.approvals().decide("a", Decision::Deny, NOW + 2).await;
        assert_eq!(again, Ok(false), "the first decision stays");
        assert_eq!(store.approvals().use_up("a", NOW + 3).await, Ok(true));
        drop(store);
        let store = Store::open(home.path()).unwrap();
        let used = KeptApproval { used_at_ms: Some(NOW + 3), ..a };
        assert_eq!(store.approvals().all(NOW + 9).await.unwrap()[0], used);
        assert_eq!(store.approvals().use_up("a", NOW + 4).await, Ok(false), "one run");
    }

    #[tokio::test]
    async fn nothing_is_used_that_nobody_allowed() {
        let store = Store::in_memory();
        for id in ["waits", "denied"] {
            store.approvals().keep(asked(id), Vec::new()).await.unwrap();
        }
        store.approvals().decide("denied", Decision::Deny, NOW).await.unwrap();
        for id in ["waits", "denied", "never asked"] {
            assert_eq!(store.approvals().use_up(id, NOW).await, Ok(false), "{id}");
        }
        assert_eq!(store.approvals().decide("never asked", Decision::Deny, NOW).await, Ok(false));
    }

    #[tokio::test]
    async fn what_was_asked_goes_with_the_device_that_asked_and_with_the_node() {
        let store = Store::in_memory();
        let pair = async |device: &str, role| {
            let asked = Asked {
                device_id: device.to_owned(),
                public_key: "key".to_owned(),
                about: About::default(),
                role,
                scopes: Vec::new(),
            };
            let minted = Minted { serial: "s".to_owned(), digest: vec![1] };
            store.devices().pair(asked, "owner", minted, NOW).await.unwrap();
        };
        for device in ["removed", "revoked", "no operator", "node", "device"] {
            pair(device, Role::Operator).await;
            pair(device, Role::Node).await;
        }
        let of = |name: &str| Some(name.to_owned());
        for (id, device, node) in [
            ("1", of("removed"), of("box")),
            ("2", of("no operator"), of("box")),
            ("3", of("device"), of("removed")),
            ("4", of("device"), of("revoked")),
            ("5", of("device"), of("node")),
            ("6", of("revoked"), of("no operator")),
            ("7", None, None),
        ] {
            let it = KeptApproval { device, node, ..asked(id) };
            store.approvals().keep(it, Vec::new()).await.unwrap();
        }
        store.devices().remove("removed").await.unwrap();
        store.devices().revoke("revoked", Role::Node, NOW).await.unwrap();
        store.devices().revoke("no operator", Role::Operator, NOW).await.unwrap();
        store.nodes().remove("node").await.unwrap();
        assert_eq!(ids(&store.approvals().all(NOW + 9).await.unwrap()), ["6", "7"]);
        store.approvals().forget(vec!["6".to_owned(), "no such".to_owned()]).await.unwrap();
        assert_eq!(ids(&store.approvals().all(NOW + 9).await.unwrap()), ["7"]);
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_lets_nothing_live_longer() {
        let store = Store::in_memory();
        for id in ["a", "b"] {
            store.approvals().keep(asked(id), Vec::new()).await.unwrap();
        }
        store.approvals().decide("b", Decision::AllowOnce, NOW + 50_000).await.unwrap();
        store.approvals().use_up("b", NOW + 50_001).await.unwrap();
        let left = async |now| {
            let all = store.approvals().all(now).await.unwrap();
            let times = |it: &KeptApproval| (it.expires_at_ms - now, it.used_at_ms);
            all.iter().map(times).collect::<Vec<_>>()
        };
        assert_eq!(left(NOW + 50_001).await, [(9_999, None), (9_999, Some(NOW + 50_001))]);
        assert_eq!(left(NOW - 7).await, [(9_999, None), (9_999, Some(NOW - 7))]);
        assert_eq!(left(NOW).await, [(9_992, None), (9_992, Some(NOW - 7))], "and time goes on");
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_says_so() {
        let store = Store::in_memory();
        store.approvals().keep(asked("a"), Vec::new()).await.unwrap();
        let spoil = "UPDATE approval SET decision = 'perhaps', decided_at = 1";
        store.run(move |db| db.execute(spoil, [])).await.unwrap();
        let error = store.approvals().all(NOW + 9).await.unwrap_err();
        assert!(error.to_string().contains("perhaps"), "{error}");
    }
}
