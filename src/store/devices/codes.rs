//! Setup codes: issued, looked up by the digest of their token, and redeemed once.

use rusqlite::{OptionalExtension, Row, params};

use super::{
    Asked, Device, Devices, JoinOffer, Minted, SET_BACK_MS, SetupCode, admit, rows::device,
};
use crate::store::Error;

/// Codes that may wait to be fetched by a join URL at a time.
const MAX_OFFERS: u32 = 64;

const CODE: &str = "SELECT id, access, expires_at, device_id, redeemed_at, at FROM setup_code
                    LEFT JOIN setup_delivery ON setup_delivery.setup_id = id";

impl Devices<'_> {
    /// Keeps a setup code whose token has this digest, and `offer` by which it may be fetched; what
    /// has expired goes. False, and nothing is kept, if too many wait to be fetched.
    pub(crate) async fn keep_code(
        &self,
        code: SetupCode,
        digest: Vec<u8>,
        offer: Option<JoinOffer>,
        now: u64,
    ) -> Result<bool, Error> {
        self.store
            .run(move |db| {
                // A code that was redeemed can be asked about for a day.
                db.execute("DELETE FROM setup_code WHERE expires_at + 86400000 <= ?1", [now])?;
                db.execute(
                    "DELETE FROM join_offer WHERE setup_id IN
                     (SELECT id FROM setup_code WHERE expires_at <= ?1 OR created_at > ?2)",
                    [now, now + SET_BACK_MS],
                )?;
                let waiting: u32 =
                    db.query_row("SELECT count(*) FROM join_offer", [], |row| row.get(0))?;
                if offer.is_some() && waiting >= MAX_OFFERS {
                    return Ok(false);
                }
                db.execute(
                    "INSERT INTO setup_code (id, token_digest, access, created_at, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![code.id, digest, code.access, now, code.expires_at],
                )?;
                if let Some(JoinOffer { name_digest, url }) = offer {
                    db.execute(
                        "INSERT INTO join_offer (name_digest, setup_id, url) VALUES (?1, ?2, ?3)",
                        params![name_digest, code.id, url],
                    )?;
                }
                Ok(true)
            })
            .await
    }

    /// Forgets every setup code that nobody has redeemed, also what of them may be fetched; how many
    /// there were.
    pub(crate) async fn withdraw_codes(&self) -> Result<usize, Error> {
        self.store.run(|db| db.execute("DELETE FROM setup_code WHERE device_id IS NULL", [])).await
    }

    /// Takes what may be fetched by the name of this digest: the setup code, as long as nobody has
    /// used it, and the gateway's address in it. Nobody gets it again.
    pub(crate) async fn take_offer(
        &self,
        name_digest: Vec<u8>,
        now: u64,
    ) -> Result<Option<(SetupCode, String)>, Error> {
        self.store
            .run(move |db| {
                let found = db
                    .query_row(
                        "SELECT id, access, expires_at, device_id, redeemed_at, NULL, url
                         FROM setup_code JOIN join_offer ON setup_id = id
                         WHERE name_digest = ?1 AND expires_at > ?2 AND created_at <= ?3
                         AND device_id IS NULL",
                        params![name_digest, now, now + SET_BACK_MS],
                        |row| Ok((read_code(row)?, row.get(6)?)),
                    )
                    .optional()?;
                if found.is_some() {
                    db.execute("DELETE FROM join_offer WHERE name_digest = ?1", [name_digest])?;
                }
                Ok(found)
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
                    &format!(
                        "{CODE} WHERE token_digest = ?1 AND expires_at > ?2 AND created_at <= ?3
                         AND (device_id IS NULL OR device_id = ?4)"
                    ),
                    params![digest, now, now + SET_BACK_MS, device],
                    read_code,
                )
                .optional()
            })
            .await
    }

    /// Redeems a setup code for a device and pairs it in every role that `asked` names, all or
    /// nothing; `None` if somebody was quicker.
    pub(crate) async fn redeem(
        &self,
        code: &str,
        device_id: &str,
        asked: Vec<(Asked, Minted)>,
        now: u64,
    ) -> Result<Option<Device>, Error> {
        let (code, device_id) = (code.to_owned(), device_id.to_owned());
        self.store
            .run(move |db| {
                let redeemed = db.execute(
                    "UPDATE setup_code SET device_id = ?2, redeemed_at = ?3
                     WHERE id = ?1 AND (device_id IS NULL OR device_id = ?2) AND expires_at > ?3
                     AND created_at <= ?4",
                    params![code, device_id, now, now + SET_BACK_MS],
                )?;
                if redeemed == 0 {
                    return Ok(None);
                }
                for (asked, minted) in &asked {
                    admit(db, asked, "bootstrap", minted, now)?;
                }
                device(db, &device_id)
            })
            .await
    }

    /// Notes that the device of a setup code has read the answer; the code, if that is news.
    pub(crate) async fn delivered(
        &self,
        code: &str,
        device: &str,
        now: u64,
    ) -> Result<Option<SetupCode>, Error> {
        let (code, device) = (code.to_owned(), device.to_owned());
        self.store
            .run(move |db| {
                let noted = db.execute(
                    "INSERT INTO setup_delivery (setup_id, at)
                     SELECT id, ?3 FROM setup_code WHERE id = ?1 AND device_id = ?2
                     ON CONFLICT DO NOTHING",
                    params![code, device, now],
                )?;
                if noted == 0 {
                    return Ok(None);
                }
                db.query_row(&format!("{CODE} WHERE id = ?1"), [code], read_code).optional()
            })
            .await
    }

    /// The setup code of this id.
    pub(crate) async fn code_of(&self, id: &str) -> Result<Option<SetupCode>, Error> {
        let id = id.to_owned();
        self.store
            .run(move |db| {
                db.query_row(&format!("{CODE} WHERE id = ?1"), [id], read_code).optional()
            })
            .await
    }
}

fn read_code(row: &Row<'_>) -> rusqlite::Result<SetupCode> {
    Ok(SetupCode {
        id: row.get(0)?,
        access: row.get(1)?,
        expires_at: row.get(2)?,
        device_id: row.get(3)?,
        redeemed_at: row.get(4)?,
        delivered_at: row.get(5)?,
    })
}
