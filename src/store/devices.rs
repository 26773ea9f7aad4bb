//! Devices: who asks to be paired, who is, what each may do, and the digests of their tokens.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::{Error, Store};
use crate::protocol::{Role, Scope};

/// How long a request to be paired waits for somebody, milliseconds.
const REQUEST_LIFE_MS: u64 = 300_000;
/// Requests that may wait at a time; each is of another device, or of another role of it.
const MAX_REQUESTS: u32 = 64;
/// How often a device's use is noted, milliseconds.
const SEEN_EVERY_MS: u64 = 60_000;

/// What a device said of itself when it was last let in or asked to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct About {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// `linux`, `darwin`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    /// `Mac`, `iPhone`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    /// `cli`, `openclaw-ios`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    /// `cli`, `ui`, `node`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_mode: Option<String>,
    /// Where it came from, if not from this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote_ip: Option<String>,
}

/// What a device asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// SHA-256 of its key, hexadecimal.
    pub(crate) device_id: String,
    /// Its key, base64url.
    pub(crate) public_key: String,
    /// What it says of itself.
    pub(crate) about: About,
    /// As what it wants to come in.
    pub(crate) role: Role,
    /// What it wants to do.
    pub(crate) scopes: Vec<Scope>,
}

impl Asked {
    /// Whether who may do this may do what `other` asks for as well, in whichever order.
    fn covers(&self, other: &Self) -> bool {
        (&self.public_key, self.role) == (&other.public_key, other.role)
            && other.scopes.iter().all(|scope| scope.is_within(&self.scopes))
    }
}

/// A device that waits for somebody's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// What the approver names.
    pub(crate) id: String,
    /// What it asks for; key, role and scopes never change under one id.
    pub(crate) asked: Asked,
    /// Whether the device is paired already and asks for more.
    pub(crate) is_repair: bool,
    /// When it asked, milliseconds since 1970.
    pub(crate) at: u64,
    /// Until when somebody may decide.
    pub(crate) expires_at: u64,
}

/// A request as it now lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filed {
    /// A new one; those it replaces are gone.
    New(Request, Vec<Request>),
    /// The device had asked for that before, or for more.
    Known(Request),
    /// Too many wait.
    Full,
}

/// A paired device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// SHA-256 of its key, hexadecimal.
    pub(crate) id: String,
    /// Its key, base64url.
    pub(crate) public_key: String,
    /// What it said of itself.
    pub(crate) about: About,
    /// What its owner calls it.
    pub(crate) label: Option<String>,
    /// `owner`, `silent`, `bootstrap`.
    pub(crate) approved_via: String,
    /// When it was first paired, milliseconds since 1970.
    pub(crate) created_at: u64,
    /// When it was last approved.
    pub(crate) approved_at: u64,
    /// When it was last here, to the minute.
    pub(crate) seen_at: Option<u64>,
    /// What it may be, a role each.
    pub(crate) grants: Vec<Grant>,
}

impl Device {
    /// What it may do as `role`.
    pub(crate) fn grant(&self, role: Role) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.role == role)
    }
}

/// What a paired device may do in one role, and its token for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The role.
    pub(crate) role: Role,
    /// What somebody approved; no token ever holds more.
    pub(crate) approved: Vec<Scope>,
    /// What the token holds.
    pub(crate) scopes: Vec<Scope>,
    /// From which the token was made; another one with every rotation.
    pub(crate) serial: String,
    /// SHA-256 of the token.
    pub(crate) token_digest: Vec<u8>,
    /// When the first token was issued, milliseconds since 1970.
    pub(crate) issued_at: u64,
    /// When it was last replaced.
    pub(crate) rotated_at: Option<u64>,
    /// When it was taken back; the role is then not granted.
    pub(crate) revoked_at: Option<u64>,
    /// When it was last used, to the minute.
    pub(crate) used_at: Option<u64>,
}

impl Grant {
    /// Whether it gives what the other one gives, by the same token.
    fn gives(&self, other: &Self) -> bool {
        (&self.approved, &self.scopes, &self.serial)
            == (&other.approved, &other.scopes, &other.serial)
    }
}

/// A new token, without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Minted {
    /// From which it was made.
    pub(crate) serial: String,
    /// SHA-256 of it.
    pub(crate) digest: Vec<u8>,
}

/// Everybody who asks or is paired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pairing {
    /// Requests, the youngest first.
    pub(crate) pending: Vec<Request>,
    /// Devices, by when they were approved, the youngest first.
    pub(crate) paired: Vec<Device>,
}

/// A setup code that was issued; its token is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetupCode {
    /// What its issuer asks about it with.
    pub(crate) id: String,
    /// `node`, `limited`, `full`: what it makes of the device that redeems it.
    pub(crate) access: String,
    /// Milliseconds since 1970.
    pub(crate) expires_at: u64,
    /// The device that redeemed it.
    pub(crate) device_id: Option<String>,
    /// When it was redeemed.
    pub(crate) redeemed_at: Option<u64>,
}

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

    /// Pairs the device of a request with what it asked for; `minted` is its token if it has none.
    /// `None` without such a request.
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

    /// Forgets a paired device with everything that it was granted; whether there was one.
    pub(crate) async fn remove(&self, id: &str) -> Result<bool, Error> {
        let id = id.to_owned();
        self.store
            .run(move |db| {
                db.execute("DELETE FROM device_request WHERE device_id = ?1", [&id])?;
                // The answer to its code may be asked for again only while it is wanted here.
                db.execute("DELETE FROM setup_code WHERE device_id = ?1", [&id])?;
                // What it was allowed as a node must not wait here for its return.
                db.execute("DELETE FROM node WHERE device_id = ?1", [&id])?;
                Ok(db.execute("DELETE FROM device WHERE id = ?1", [&id])? > 0)
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

    /// Replaces the token of a grant by one of `scopes`; the old one is worth nothing from then on.
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
                db.execute("DELETE FROM setup_code WHERE device_id = ?1", [&id])?;
                if role == Role::Node {
                    db.execute("DELETE FROM node WHERE device_id = ?1", [&id])?;
                }
                grant(db, &id, role)
            })
            .await
    }

    /// Notes that a device is here and what it says of itself; at most once a minute, and without
    /// waiting.
    pub(crate) fn saw(&self, device: &Device, role: Role, about: About, now: u64) {
        let is_news = device.about != about
            || device.seen_at.is_none_or(|seen| now.saturating_sub(seen) >= SEEN_EVERY_MS);
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

    /// Keeps a setup code whose token has this digest; what has expired goes.
    pub(crate) async fn keep_code(
        &self,
        code: SetupCode,
        digest: Vec<u8>,
        now: u64,
    ) -> Result<(), Error> {
        self.store
            .run(move |db| {
                // A code that was redeemed can be asked about for a day.
                db.execute("DELETE FROM setup_code WHERE expires_at + 86400000 <= ?1", [now])?;
                db.execute(
                    "INSERT INTO setup_code (id, token_digest, access, created_at, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![code.id, digest, code.access, now, code.expires_at],
                )?;
                Ok(())
            })
            .await
    }

    /// The setup code whose token has this digest, if it is good at `now` for `device`: not
    /// expired, and redeemed by nobody else. Its first device may ask again: an answer can be lost.
    pub(crate) async fn code(
        &self,
        digest: Vec<u8>,
        device: &str,
        now: u64,
    ) -> Result<Option<SetupCode>, Error> {
        let device = device.to_owned();
        self.store
            .run(move |db| {
                db.query_row(
                    "SELECT id, access, expires_at, device_id, redeemed_at FROM setup_code
                     WHERE token_digest = ?1 AND expires_at > ?2
                     AND (device_id IS NULL OR device_id = ?3)",
                    params![digest, now, device],
                    read_code,
                )
                .optional()
            })
            .await
    }

    /// Redeems a setup code for a device and pairs it, both or neither; `None` if somebody was
    /// quicker.
    pub(crate) async fn redeem(
        &self,
        code: &str,
        asked: Asked,
        minted: Minted,
        now: u64,
    ) -> Result<Option<Device>, Error> {
        let code = code.to_owned();
        self.store
            .run(move |db| {
                let redeemed = db.execute(
                    "UPDATE setup_code SET device_id = ?2, redeemed_at = ?3
                     WHERE id = ?1 AND (device_id IS NULL OR device_id = ?2) AND expires_at > ?3",
                    params![code, asked.device_id, now],
                )?;
                if redeemed == 0 {
                    return Ok(None);
                }
                admit(db, &asked, "bootstrap", &minted, now)?;
                device(db, &asked.device_id)
            })
            .await
    }

    /// The setup code of this id.
    pub(crate) async fn code_of(&self, id: &str) -> Result<Option<SetupCode>, Error> {
        let id = id.to_owned();
        self.store
            .run(move |db| {
                db.query_row(
                    "SELECT id, access, expires_at, device_id, redeemed_at FROM setup_code
                     WHERE id = ?1",
                    [id],
                    read_code,
                )
                .optional()
            })
            .await
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
        // The token that the device has goes on, with more in it.
        add(&mut approved, &before.approved);
        add(&mut scopes, &before.scopes);
        db.execute(
            "UPDATE device_grant SET approved = ?3, scopes = ?4
             WHERE device_id = ?1 AND role = ?2",
            params![asked.device_id, asked.role.name(), names(&approved), names(&scopes)],
        )?;
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
    db.execute("DELETE FROM device_request WHERE expires_at <= ?1", [now])?;
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
        let mut request = Request { expires_at, ..known.clone() };
        request.is_repair |= is_repair;
        // Who asks for less does not stand for what somebody else asked beyond that.
        if asked.covers(&known.asked) {
            request.asked.about = asked.about;
        }
        db.execute(
            "UPDATE device_request SET about = ?2, is_repair = ?3, expires_at = ?4 WHERE id = ?1",
            params![known.id, written(&request.asked.about)?, request.is_repair, expires_at],
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

const REQUEST: &str = "SELECT id, device_id, public_key, about, role, scopes, is_repair, at,
    expires_at FROM device_request WHERE expires_at > ?1";

fn requests(db: &Connection, now: u64) -> rusqlite::Result<Vec<Request>> {
    let mut statement = db.prepare_cached(&format!("{REQUEST} ORDER BY at DESC, id"))?;
    statement.query_map([now], read_request)?.collect()
}

fn request(db: &Connection, id: &str, now: u64) -> rusqlite::Result<Option<Request>> {
    let mut statement = db.prepare_cached(&format!("{REQUEST} AND id = ?2"))?;
    statement.query_row(params![now, id], read_request).optional()
}

fn read_request(row: &Row<'_>) -> rusqlite::Result<Request> {
    Ok(Request {
        id: row.get(0)?,
        asked: Asked {
            device_id: row.get(1)?,
            public_key: row.get(2)?,
            about: read_about(row, 3)?,
            role: read_role(row, 4)?,
            scopes: read_scopes(row, 5)?,
        },
        is_repair: row.get(6)?,
        at: row.get(7)?,
        expires_at: row.get(8)?,
    })
}

const DEVICE: &str = "SELECT id, public_key, about, label, approved_via, created_at, approved_at,
    seen_at FROM device";

fn paired(db: &Connection) -> rusqlite::Result<Vec<Device>> {
    let mut statement = db.prepare_cached(&format!("{DEVICE} ORDER BY approved_at DESC, id"))?;
    let found: Vec<Device> = statement.query_map([], read_device)?.collect::<Result<_, _>>()?;
    found.into_iter().map(|device| with_grants(db, device)).collect()
}

fn device(db: &Connection, id: &str) -> rusqlite::Result<Option<Device>> {
    let mut statement = db.prepare_cached(&format!("{DEVICE} WHERE id = ?1"))?;
    let found = statement.query_row([id], read_device).optional()?;
    found.map(|device| with_grants(db, device)).transpose()
}

fn read_device(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        id: row.get(0)?,
        public_key: row.get(1)?,
        about: read_about(row, 2)?,
        label: row.get(3)?,
        approved_via: row.get(4)?,
        created_at: row.get(5)?,
        approved_at: row.get(6)?,
        seen_at: row.get(7)?,
        grants: Vec::new(),
    })
}

fn with_grants(db: &Connection, device: Device) -> rusqlite::Result<Device> {
    let mut statement =
        db.prepare_cached(&format!("{GRANT} WHERE device_id = ?1 ORDER BY role"))?;
    let grants = statement.query_map([&device.id], read_grant)?.collect::<Result<_, _>>()?;
    Ok(Device { grants, ..device })
}

const GRANT: &str = "SELECT role, approved, scopes, serial, token_digest, issued_at, rotated_at,
    revoked_at, used_at FROM device_grant";

fn grant(db: &Connection, id: &str, role: Role) -> rusqlite::Result<Option<Grant>> {
    let mut statement =
        db.prepare_cached(&format!("{GRANT} WHERE device_id = ?1 AND role = ?2"))?;
    statement.query_row([id, role.name()], read_grant).optional()
}

fn read_grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        role: read_role(row, 0)?,
        approved: read_scopes(row, 1)?,
        scopes: read_scopes(row, 2)?,
        serial: row.get(3)?,
        token_digest: row.get(4)?,
        issued_at: row.get(5)?,
        rotated_at: row.get(6)?,
        revoked_at: row.get(7)?,
        used_at: row.get(8)?,
    })
}

fn read_code(row: &Row<'_>) -> rusqlite::Result<SetupCode> {
    Ok(SetupCode {
        id: row.get(0)?,
        access: row.get(1)?,
        expires_at: row.get(2)?,
        device_id: row.get(3)?,
        redeemed_at: row.get(4)?,
    })
}

fn read_about(row: &Row<'_>, index: usize) -> rusqlite::Result<About> {
    // What a later version wrote there is for people only; without it the device is still paired.
    Ok(serde_json::from_str(&row.get::<_, String>(index)?).unwrap_or_default())
}

fn read_role(row: &Row<'_>, index: usize) -> rusqlite::Result<Role> {
    let name: String = row.get(index)?;
    Role::parse(&name).ok_or_else(|| strange(index, format!("no role is called {name}")))
}

/// A scope that this version does not know grants nothing.
fn read_scopes(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<Scope>> {
    Ok(row.get::<_, String>(index)?.split_whitespace().filter_map(Scope::parse).collect())
}

fn written(about: &About) -> rusqlite::Result<String> {
    serde_json::to_string(about)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn names(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(" ")
}

fn add(to: &mut Vec<Scope>, more: &[Scope]) {
    for scope in more {
        if !to.contains(scope) {
            to.push(*scope);
        }
    }
}

fn strange(index: usize, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_486_176_838;

    fn asked(device: &str, scopes: &[Scope]) -> Asked {
        Asked {
            device_id: device.to_owned(),
            public_key: format!("key of {device}"),
            about: About { client_id: Some("cli".to_owned()), ..About::default() },
            role: Role::Operator,
            scopes: scopes.to_vec(),
        }
    }

    fn minted(serial: &str) -> Minted {
        Minted { serial: serial.to_owned(), digest: serial.as_bytes().to_vec() }
    }

    async fn ask(store: &Store, id: &str, asked: Asked, now: u64) -> Filed {
        store.devices().ask(id.to_owned(), asked, now).await.unwrap()
    }

    #[tokio::test]
    async fn a_request_is_filed_once_and_replaced_when_it_asks_for_something_else() {
        let store = Store::in_memory();
        let first = ask(&store, "1", asked("a", &[Scope::Read]), NOW).await;
        assert!(
            matches!(&first, Filed::New(request, gone) if request.id == "1" && gone.is_empty())
        );
        let again = ask(&store, "2", asked("a", &[Scope::Read]), NOW + 1).await;
        assert!(matches!(again, Filed::Known(request) if request.id == "1"));
        let more = ask(&store, "3", asked("a", &[Scope::Admin]), NOW + 2).await;
        let Filed::New(request, gone) = more else { panic!("{more:?}") };
        assert_eq!((request.id.as_str(), gone.len()), ("3", 1));
        let pending = store.devices().list(NOW + 2).await.unwrap().pending;
        assert_eq!(pending, [request]);
    }

    #[tokio::test]
    async fn the_same_scopes_in_another_order_and_fewer_are_the_same_request() {
        let store = Store::in_memory();
        ask(&store, "1", asked("a", &[Scope::Read, Scope::Write]), NOW).await;
        let called = |name: &str, scopes| {
            let about = About { display_name: Some(name.to_owned()), ..About::default() };
            Asked { about, ..asked("a", scopes) }
        };
        for (scopes, name) in [
            // Write contains read, so all of these but the last are the same wish.
            (&[Scope::Write, Scope::Read][..], "other order"),
            (&[Scope::Write], "without what it contains"),
            (&[Scope::Talk, Scope::Write, Scope::Read], "with what it contains"),
            (&[Scope::Talk], "less"),
        ] {
            let filed = ask(&store, "2", called(name, scopes), NOW + 1).await;
            let Filed::Known(request) = filed else { panic!("{name}: {filed:?}") };
            assert_eq!((request.id.as_str(), request.expires_at), ("1", NOW + 1 + REQUEST_LIFE_MS));
            assert_eq!(request.asked.scopes, [Scope::Read, Scope::Write]);
            let shown = if name == "less" { "with what it contains" } else { name };
            assert_eq!(request.asked.about.display_name.as_deref(), Some(shown));
            assert_eq!(store.devices().list(NOW + 1).await.unwrap().pending, [request]);
        }
        let other_key = Asked { public_key: "another".to_owned(), ..asked("a", &[Scope::Read]) };
        assert!(matches!(ask(&store, "2", other_key, NOW + 1).await, Filed::New(..)));
    }

    #[tokio::test]
    async fn what_a_device_asks_as_a_node_and_as_an_operator_stands_side_by_side() {
        let store = Store::in_memory();
        let devices = store.devices();
        let node = || Asked { role: Role::Node, ..asked("a", &[]) };
        ask(&store, "n", node(), NOW).await;
        let operator = ask(&store, "o", asked("a", &[Scope::Read]), NOW + 1).await;
        assert!(matches!(operator, Filed::New(_, gone) if gone.is_empty()));
        let more = ask(&store, "p", asked("a", &[Scope::Write]), NOW + 2).await;
        assert!(matches!(more, Filed::New(_, gone) if gone.len() == 1 && gone[0].id == "o"));
        let device = devices.approve("p", "owner", minted("t"), NOW + 3).await.unwrap().unwrap();
        assert!(device.grant(Role::Operator).is_some() && device.grant(Role::Node).is_none());
        let again = ask(&store, "m", node(), NOW + 4).await;
        assert!(matches!(again, Filed::Known(request) if request.id == "n" && request.is_repair));
        let device = devices.approve("n", "owner", minted("t"), NOW + 5).await.unwrap().unwrap();
        assert!(device.grant(Role::Node).is_some());
        assert!(devices.list(NOW + 5).await.unwrap().pending.is_empty());
    }

    #[tokio::test]
    async fn requests_expire_and_their_number_is_bounded() {
        let store = Store::in_memory();
        for number in 0..MAX_REQUESTS {
            let number = number.to_string();
            ask(&store, &number, asked(&number, &[]), NOW).await;
        }
        assert_eq!(ask(&store, "x", asked("x", &[]), NOW).await, Filed::Full);
        let later = NOW + REQUEST_LIFE_MS;
        assert_eq!(store.devices().request("0", later).await.unwrap(), None);
        let late = store.devices().approve("0", "owner", minted("t"), later).await.unwrap();
        assert_eq!(late, None);
        assert!(matches!(ask(&store, "x", asked("x", &[]), later).await, Filed::New(..)));
    }

    #[tokio::test]
    async fn approval_grants_what_was_asked_and_an_upgrade_keeps_the_token() {
        let store = Store::in_memory();
        let devices = store.devices();
        ask(&store, "1", asked("a", &[Scope::Read]), NOW).await;
        let device = devices.approve("1", "owner", minted("t1"), NOW).await.unwrap().unwrap();
        let grant = device.grant(Role::Operator).unwrap();
        assert_eq!((grant.scopes.as_slice(), grant.serial.as_str()), (&[Scope::Read][..], "t1"));
        assert!(devices.list(NOW).await.unwrap().pending.is_empty());
        let Filed::New(request, _) = ask(&store, "2", asked("a", &[Scope::Write]), NOW).await
        else {
            panic!("not new")
        };
        assert!(request.is_repair);
        let device = devices.approve("2", "owner", minted("t2"), NOW + 1).await.unwrap().unwrap();
        let grant = device.grant(Role::Operator).unwrap();
        assert_eq!(grant.approved, [Scope::Write, Scope::Read]);
        assert_eq!(grant.serial, "t1");
    }

    #[tokio::test]
    async fn rotation_and_revocation_end_the_old_token() {
        let store = Store::in_memory();
        let devices = store.devices();
        devices
            .pair(asked("a", &[Scope::Read, Scope::Write]), "silent", minted("t1"), NOW)
            .await
            .unwrap();
        let seen = async || {
            let device = devices.find("a").await.unwrap().unwrap();
            device.grant(Role::Operator).unwrap().clone()
        };
        let first = seen().await;
        let narrowed = vec![Scope::Read];
        let grant = devices.rotate("a", first.clone(), narrowed, minted("t2"), NOW + 1).await;
        let grant = grant.unwrap().unwrap();
        assert_eq!((grant.serial.as_str(), grant.rotated_at), ("t2", Some(NOW + 1)));
        assert_eq!((grant.approved.len(), grant.scopes.as_slice()), (2, &[Scope::Read][..]));
        let grant = devices.revoke("a", Role::Operator, NOW + 2).await.unwrap().unwrap();
        assert_eq!(grant.revoked_at, Some(NOW + 2));
        for seen in [grant.clone(), Grant { role: Role::Node, ..grant }] {
            let rotated = devices.rotate("a", seen, Vec::new(), minted("t3"), NOW).await;
            assert_eq!(rotated.unwrap(), None);
        }
        // Approved again, it gets a new token, and of what it held before only what it asks for.
        let device = devices.pair(asked("a", &[Scope::Read]), "owner", minted("t4"), NOW + 3).await;
        let grant = device.unwrap().unwrap().grants[0].clone();
        assert_eq!((grant.serial.as_str(), grant.revoked_at), ("t4", None));
        assert_eq!((&*grant.approved, &*grant.scopes), (&[Scope::Read][..], &[Scope::Read][..]));
        // Whoever looked before that may not give what was approved then.
        let late = devices.rotate("a", first, vec![Scope::Write], minted("t5"), NOW + 4).await;
        assert_eq!(late.unwrap(), None);
        assert_eq!(seen().await, grant);
    }

    #[tokio::test]
    async fn another_key_under_the_same_id_inherits_nothing() {
        let store = Store::in_memory();
        let devices = store.devices();
        devices.pair(asked("a", &[Scope::Admin]), "owner", minted("t1"), NOW).await.unwrap();
        let other = Asked { public_key: "another".to_owned(), ..asked("a", &[Scope::Read]) };
        let device = devices.pair(other, "owner", minted("t2"), NOW).await.unwrap().unwrap();
        let grant = device.grant(Role::Operator).unwrap();
        assert_eq!((grant.approved.as_slice(), grant.serial.as_str()), (&[Scope::Read][..], "t2"));
    }

    #[tokio::test]
    async fn removal_takes_everything_and_names_stay_with_the_device() {
        let store = Store::in_memory();
        let devices = store.devices();
        devices.pair(asked("a", &[]), "owner", minted("t"), NOW).await.unwrap();
        assert!(devices.rename("a", "Kitchen").await.unwrap());
        devices.pair(asked("a", &[Scope::Read]), "owner", minted("t"), NOW).await.unwrap();
        assert_eq!(devices.find("a").await.unwrap().unwrap().label.as_deref(), Some("Kitchen"));
        assert!(devices.remove("a").await.unwrap() && !devices.remove("a").await.unwrap());
        assert_eq!(devices.list(NOW).await.unwrap(), Pairing::default());
        assert!(!devices.rename("a", "Kitchen").await.unwrap());
    }

    #[tokio::test]
    async fn a_setup_code_is_good_once_and_not_for_long() {
        let store = Store::in_memory();
        let devices = store.devices();
        let code = |id: &str| SetupCode {
            id: id.to_owned(),
            access: "node".to_owned(),
            expires_at: NOW + 10,
            device_id: None,
            redeemed_at: None,
        };
        devices.keep_code(code("1"), vec![1], NOW).await.unwrap();
        assert_eq!(devices.code(vec![1], "a", NOW).await.unwrap(), Some(code("1")));
        assert_eq!(devices.code(vec![2], "a", NOW).await.unwrap(), None);
        assert_eq!(devices.code(vec![1], "a", NOW + 10).await.unwrap(), None);
        let first = devices.redeem("1", asked("a", &[]), minted("t"), NOW + 1).await.unwrap();
        assert_eq!(first.unwrap().approved_via, "bootstrap");
        assert_eq!(devices.redeem("1", asked("b", &[]), minted("t"), NOW + 1).await.unwrap(), None);
        assert_eq!(devices.code(vec![1], "b", NOW + 1).await.unwrap(), None);
        let redeemed = devices.code_of("1").await.unwrap().unwrap();
        assert_eq!(redeemed.device_id.as_deref(), Some("a"));
    }
}
