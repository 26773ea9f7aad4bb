//! Rows of the database, read as what is kept of devices, and written.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{About, Asked, Device, FormerToken, Grant, REQUEST_LIFE_MS, Request, SET_BACK_MS};
use crate::protocol::{Role, Scope};

const REQUEST: &str = "SELECT id, device_id, public_key, about, role, scopes, is_repair, at,
    expires_at FROM device_request WHERE expires_at > ?1 AND expires_at <= ?2";

/// The latest end of a request that was filed or kept up until `now`.
pub(super) fn latest_end(now: u64) -> u64 {
    now + REQUEST_LIFE_MS + SET_BACK_MS
}

pub(super) fn requests(db: &Connection, now: u64) -> rusqlite::Result<Vec<Request>> {
    let mut statement = db.prepare_cached(&format!("{REQUEST} ORDER BY at DESC, id"))?;
    statement.query_map([now, latest_end(now)], read_request)?.collect()
}

pub(super) fn request(db: &Connection, id: &str, now: u64) -> rusqlite::Result<Option<Request>> {
    let mut statement = db.prepare_cached(&format!("{REQUEST} AND id = ?3"))?;
    statement.query_row(params![now, latest_end(now), id], read_request).optional()
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

pub(super) fn paired(db: &Connection) -> rusqlite::Result<Vec<Device>> {
    let mut statement = db.prepare_cached(&format!("{DEVICE} ORDER BY approved_at DESC, id"))?;
    let found: Vec<Device> = statement.query_map([], read_device)?.collect::<Result<_, _>>()?;
    found.into_iter().map(|device| with_grants(db, device)).collect()
}

pub(super) fn device(db: &Connection, id: &str) -> rusqlite::Result<Option<Device>> {
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
    let found: Vec<Grant> =
        statement.query_map([&device.id], read_grant)?.collect::<Result<_, _>>()?;
    let grants = found.into_iter().map(|grant| with_former(db, &device.id, grant));
    Ok(Device { grants: grants.collect::<Result<_, _>>()?, ..device })
}

const GRANT: &str = "SELECT role, approved, scopes, serial, token_digest, issued_at, rotated_at,
    revoked_at, used_at FROM device_grant";

pub(super) fn grant(db: &Connection, id: &str, role: Role) -> rusqlite::Result<Option<Grant>> {
    let mut statement =
        db.prepare_cached(&format!("{GRANT} WHERE device_id = ?1 AND role = ?2"))?;
    let found = statement.query_row([id, role.name()], read_grant).optional()?;
    found.map(|grant| with_former(db, id, grant)).transpose()
}

fn with_former(db: &Connection, id: &str, grant: Grant) -> rusqlite::Result<Grant> {
    let mut statement = db.prepare_cached(
        "SELECT scopes, token_digest FROM device_former_token
         WHERE device_id = ?1 AND role = ?2 ORDER BY place",
    )?;
    let read =
        |row: &Row<'_>| Ok(FormerToken { scopes: read_scopes(row, 0)?, digest: row.get(1)? });
    let former = statement.query_map([id, grant.role.name()], read)?.collect::<Result<_, _>>()?;
    Ok(Grant { former, ..grant })
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
        former: Vec::new(),
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

pub(super) fn written(about: &About) -> rusqlite::Result<String> {
    serde_json::to_string(about)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(super) fn names(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(" ")
}

pub(super) fn add(to: &mut Vec<Scope>, more: &[Scope]) {
    for scope in more {
        if !to.contains(scope) {
            to.push(*scope);
        }
    }
}

fn strange(index: usize, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, what.into())
}
