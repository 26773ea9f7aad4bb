//! Devices: who asks to be paired, who is, what each may do, and the digests of their tokens.

mod codes;
mod former;
mod record;
mod rows;
#[cfg(test)]
mod tests;

use rusqlite::{Connection, params};

pub(crate) use record::{
    About, Asked, Device, Filed, FormerToken, Grant, JoinOffer, Minted, Pairing, Request, SetupCode,
};
use rows::{add, device, grant, latest_end, names, paired, request, requests, written};

use super::{Error, Store, approvals, nodes};
use crate::protocol::{Role, Scope};

/// How long a request to be paired waits for somebody, milliseconds.
const REQUEST_LIFE_MS: u64 = 300_000;
/// Requests that may wait at a time; each is of another device, or of another role of it.
const MAX_REQUESTS: u32 = 64;
/// How far the clock may be set back under requests and setup codes, milliseconds. What is further
/// ahead was made before it was set, who knows how long ago: it is over, also after a restart.
const SET_BACK_MS: u64 = 60_000;
/// How often a device's use is noted, milliseconds.
const SEEN_EVERY_MS: u64 = 60_000;

/// The family of devices in a [`Store`].
pub(crate) struct Devices<'a> {
    store: &'a Store,
}

impl<'a> Devices<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// The paired device of this id.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<Device>, Error> {
        let id = id.to_owned();
        self.store.run(move |db| device(db, &id)).await
    }

    /// Everybody, at `now`.
    pub(crate) async fn list(&self, now: u64) -> Result<Pairing, Error> {
        self.store
            .run(move |db| Ok(Pairing { pending: requests(db, now)?, paired: paired(db)? }))
            .await
    }

    /// The request of this id, if it waits at `now`.
    pub(crate) async fn request(&self, id: &str, now: u64) -> Result<Option<Request>, Error> {
        let id = id.to_owned();
        self.store.run(move |db| request(db, &id, now)).await
    }

    /// Files a request under `id`, or finds the one in which the device asked for that, or for more,
    /// in the same role; one for something else gives way.
    pub(crate) async fn ask(&self, id: String, asked: Asked, now: u64) -> Result<Filed, Error> {
        self.store.run(move |db| file(db, id, asked, now)).await
    }

    /// Pairs the device of a request with what it asked for; `minted` is its token unless it has one
    /// that holds all that. `None` without such a request.
    pub(crate) async fn approve(
        &self,
        id: &str,
        via: &'static str,
        minted: Minted,
        now: u64,
    ) -> Result<Option<Device>, Error> {
        let id = id.to_owned();
        self.store
            .run(move |db| {
                let Some(Request { asked, .. }) = request(db, &id, now)? else { return Ok(None) };
                admit(db, &asked, via, &minted, now)?;
                db.execute("DELETE FROM device_request WHERE id = ?1", [&id])?;
                device(db, &asked.device_id)
            })
            .await
    }

    /// Pairs a device without a request; what it was granted before stays granted.
    pub(crate) async fn pair(
        &self,
        asked: Asked,
        via: &'static str,
        minted: Minted,
        now: u64,
    ) -> Result<Option<Device>, Error> {
        self.store
            .run(move |db| {
                admit(db, &asked, via, &minted, now)?;
                device(db, &asked.device_id)
            })
            .await
    }

    /// Takes a request away; `None` without it.
    pub(crate) async fn reject(&self, id: &str, now: u64) -> Result<Option<Request>, Error> {
        let id = id.to_owned();
        self.store
            .run(move |db| {
                let found = request(db, &id, now)?;
                db.execute("DELETE FROM device_request WHERE id = ?1", [&id])?;
                Ok(found)
            })
            .await
    }

    /// Forgets a paired device with everything that it was granted; whether there was one. With the
    /// last one go the setup codes that nobody has used: who is rid of everybody lets nobody back in.
    pub(crate) async fn remove(&self, id: &str) -> Result<bool, Error> {
        let id = id.to_owned();
        self.store
            .run(move |db| {
                db.execute("DELETE FROM device_request WHERE device_id = ?1", [&id])?;
                // The answer to its code may be asked for again only while it is wanted here.
                db.execute("DELETE FROM setup_code WHERE device_id = ?1", [&id])?;
                // What it was allowed as a node must not wait here for its return.
                nodes::forget(db, &id)?;
                approvals::forget(db, &id)?;
                let is_gone = db.execute("DELETE FROM device WHERE id = ?1", [&id])? > 0;
                if is_gone {
                    db.execute(
                        "DELETE FROM setup_code WHERE device_id IS NULL
                         AND NOT EXISTS (SELECT 1 FROM device)",
                        [],
                    )?;
                }
                Ok(is_gone)
            })
            .await
    }

    /// Gives a paired device its owner's name for it; whether there was one.
    pub(crate) async fn rename(&self, id: &str, label: &str) -> Result<bool, Error> {
        let (id, label) = (id.to_owned(), label.to_owned());
        self.store
            .run(move |db| {
                Ok(db.execute("UPDATE device SET label = ?2 WHERE id = ?1", [&id, &label])? > 0)
            })
            .await
    }

    /// Replaces the token of a grant by one of `scopes`; the old one, and those that it followed, are
    /// worth nothing from then on.
    /// `None` if the grant is not what was `seen` of it: who may do this was decided by that.
    pub(crate) async fn rotate(
        &self,
        id: &str,
        seen: Grant,
        scopes: Vec<Scope>,
        minted: Minted,
        now: u64,
    ) -> Result<Option<Grant>, Error> {
        let (id, role) = (id.to_owned(), seen.role);
        self.store
            .run(move |db| {
                let found = grant(db, &id, role)?;
                if !found.is_some_and(|found| found.revoked_at.is_none() && found.gives(&seen)) {
                    return Ok(None);
                }
                db.execute(
                    "UPDATE device_grant SET scopes = ?3, serial = ?4, token_digest = ?5,
                     rotated_at = ?6 WHERE device_id = ?1 AND role = ?2",
                    params![id, role.name(), names(&scopes), minted.serial, minted.digest, now],
                )?;
                former::end(db, &id, role)?;
                // Whoever has its code besides it would be told the new token.
                db.execute("DELETE FROM setup_code WHERE device_id = ?1", [&id])?;
                grant(db, &id, role)
            })
            .await
    }

    /// Takes a token back, and the role with it; `None` without an approved role.
    pub(crate) async fn revoke(
        &self,
        id: &str,
        role: Role,
        now: u64,
    ) -> Result<Option<Grant>, Error> {
        let id = id.to_owned();
        self.store
            .run(move |db| {
                db.execute(
                    "UPDATE device_grant SET revoked_at = ?3
                     WHERE device_id = ?1 AND role = ?2 AND revoked_at IS NULL",
                    params![id, role.name(), now],
                )?;
                former::end(db, &id, role)?;
                db.execute("DELETE FROM setup_code WHERE device_id = ?1", [&id])?;
                match role {
                    Role::Node => nodes::forget(db, &id)?,
                    Role::Operator => approvals::forget(db, &id)?,
                }
                grant(db, &id, role)
            })
            .await
    }

    /// Notes that a device is here and what it says of itself; at most once a minute, and without
    /// waiting.
    pub(crate) fn saw(&self, device: &Device, role: Role, about: About, now: u64) {
        // Either way: the clock may have run ahead.
        let is_news = device.about != about
            || device.seen_at.is_none_or(|seen| now.abs_diff(seen) >= SEEN_EVERY_MS);
        if !is_news {
            return;
        }
        let id = device.id.clone();
        self.store.note(move |db| {
            db.execute(
                "UPDATE device SET seen_at = ?2, about = ?3 WHERE id = ?1",
                params![id, now, written(&about)?],
            )?;
            db.execute(
                "UPDATE device_grant SET used_at = ?3 WHERE device_id = ?1 AND role = ?2",
                params![id, role.name(), now],
            )?;
            Ok(())
        });
    }
}

/// Makes or widens a device's record. A key that is not the paired one starts from nothing.
fn admit(
    db: &Connection,
    asked: &Asked,
    via: &str,
    minted: &Minted,
    now: u64,
) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM device WHERE id = ?1 AND public_key <> ?2",
        [&asked.device_id, &asked.public_key],
    )?;
    db.execute(
        "INSERT INTO device (id, public_key, about, approved_via, created_at, approved_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (id) DO UPDATE
         SET about = ?3, approved_via = ?4, approved_at = ?5",
        params![asked.device_id, asked.public_key, written(&asked.about)?, via, now],
    )?;
    let (mut approved, mut scopes) = (asked.scopes.clone(), asked.scopes.clone());
    let before = grant(db, &asked.device_id, asked.role)?;
    // What was taken back is no part of what is approved now.
    if let Some(before) = before.filter(|before| before.revoked_at.is_none()) {
        add(&mut approved, &before.approved);
        add(&mut scopes, &before.scopes);
        let is_more = |now: &[Scope], then: &[Scope]| now.iter().any(|scope| !then.contains(scope));
        // A token never comes to hold more than it was issued with: whoever has it without the
        // device's key gains nothing by what is approved later.
        if is_more(&approved, &before.approved) || is_more(&scopes, &before.scopes) {
            former::keep(db, &asked.device_id, &before)?;
            db.execute(
                "UPDATE device_grant SET approved = ?3, scopes = ?4, serial = ?5,
                 token_digest = ?6, rotated_at = ?7 WHERE device_id = ?1 AND role = ?2",
                params![
                    asked.device_id,
                    asked.role.name(),
                    names(&approved),
                    names(&scopes),
                    minted.serial,
                    minted.digest,
                    now
                ],
            )?;
        }
        return Ok(());
    }
    db.execute(
        "INSERT OR REPLACE INTO device_grant
         (device_id, role, approved, scopes, serial, token_digest, issued_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            asked.device_id,
            asked.role.name(),
            names(&approved),
            names(&scopes),
            minted.serial,
            minted.digest,
            now
        ],
    )?;
    Ok(())
}

fn file(db: &Connection, id: String, asked: Asked, now: u64) -> rusqlite::Result<Filed> {
    db.execute(
        "DELETE FROM device_request WHERE expires_at <= ?1 OR expires_at > ?2",
        [now, latest_end(now)],
    )?;
    let expires_at = now + REQUEST_LIFE_MS;
    let is_repair = device(db, &asked.device_id)?.is_some();
    // Programs that are operator and node at once ask twice, and each answer is for itself.
    let present: Vec<Request> = requests(db, now)?
        .into_iter()
        .filter(|request| {
            let before = &request.asked;
            (&before.device_id, before.role) == (&asked.device_id, asked.role)
        })
        .collect();
    if let Some(known) = present.iter().find(|request| request.asked.covers(&asked)) {
        let mut request = known.clone();
        request.is_repair |= is_repair;
        // Who asks for less does not stand for what somebody else asked beyond that, nor keeps it up.
        if asked.covers(&known.asked) {
            request.asked.about = asked.about;
            request.expires_at = expires_at;
        }
        db.execute(
            "UPDATE device_request SET about = ?2, is_repair = ?3, expires_at = ?4 WHERE id = ?1",
            params![
                known.id,
                written(&request.asked.about)?,
                request.is_repair,
                request.expires_at
            ],
        )?;
        return Ok(Filed::Known(request));
    }
    for gone in &present {
        db.execute("DELETE FROM device_request WHERE id = ?1", [&gone.id])?;
    }
    let waiting: u32 = db.query_row("SELECT count(*) FROM device_request", [], |row| row.get(0))?;
    if waiting >= MAX_REQUESTS {
        return Ok(Filed::Full);
    }
    db.execute(
        "INSERT INTO device_request VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            id,
            asked.device_id,
            asked.public_key,
            written(&asked.about)?,
            asked.role.name(),
            names(&asked.scopes),
            is_repair,
            now,
            expires_at
        ],
    )?;
    Ok(Filed::New(Request { id, asked, is_repair, at: now, expires_at }, present))
}
