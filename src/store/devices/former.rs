//! Tokens that gave way to one that holds more, until their device is known to have a later one.

use rusqlite::{Connection, params};

use super::{Devices, Grant, names, rows::grant};
use crate::{protocol::Role, store::Error};

impl Devices<'_> {
    /// Ends the tokens that the one of this digest followed: its device has shown that it has this
    /// one. A token that was ended or replaced itself meanwhile ends none that came after it.
    pub(crate) async fn shown(&self, id: &str, role: Role, digest: Vec<u8>) -> Result<(), Error> {
        let id = id.to_owned();
        self.store
            .run(move |db| {
                let grant = grant(db, &id, role)?;
                if grant.is_some_and(|grant| grant.token_digest == digest) {
                    return end(db, &id, role);
                }
                // Of a token that is not there any more the place is NULL, and nothing comes before it.
                db.execute(
                    "DELETE FROM device_former_token
                     WHERE device_id = ?1 AND role = ?2 AND place <
                     (SELECT place FROM device_former_token
                      WHERE device_id = ?1 AND role = ?2 AND token_digest = ?3)",
                    params![id, role.name(), digest],
                )?;
                Ok(())
            })
            .await
    }
}

/// Keeps the token of a grant, behind those that are kept, before another one takes its place.
pub(super) fn keep(db: &Connection, id: &str, grant: &Grant) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO device_former_token (device_id, role, place, scopes, token_digest)
         SELECT ?1, ?2, coalesce(max(place), 0) + 1, ?3, ?4 FROM device_former_token
         WHERE device_id = ?1 AND role = ?2",
        params![id, grant.role.name(), names(&grant.scopes), grant.token_digest],
    )?;
    Ok(())
}

/// Ends all of them that a grant has.
pub(super) fn end(db: &Connection, id: &str, role: Role) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM device_former_token WHERE device_id = ?1 AND role = ?2",
        [id, role.name()],
    )?;
    Ok(())
}
