//! What `doctor --fix` does: nothing that takes something away from anybody.

use std::{fs, os::unix::fs::PermissionsExt};

use super::finding::{Finding, Mend};
use crate::{
    config::file,
    problem::{Class, Problem},
    secret::Secret,
};

/// Mends what can be mended, a weak token only where `renews`; what failed is a problem of its own.
pub(super) fn mend(finding: &mut Finding, renews: bool) -> Result<(), Problem> {
    let Some(mend) = &finding.mend else { return Ok(()) };
    let failed = |path: &std::path::Path, error: std::io::Error| {
        Problem::new(Class::Config, format!("cannot mend {}: {error}", path.display()))
            .fix(finding.fix.clone())
    };
    let done = match mend {
        Mend::Narrow { path, mode } => {
            // A link is not followed: what it leads to was not looked at.
            let is_link = fs::symlink_metadata(path).map_err(|error| failed(path, error))?;
            if is_link.is_symlink() {
                return Ok(());
            }
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))
                .map_err(|error| failed(path, error))?;
            format!("mode is {mode:04o} now")
        }
        Mend::Unlock(path) => {
            let lock = fs::OpenOptions::new().write(true).open(path);
            let emptied = lock.and_then(|lock| {
                // One that is just being taken is no longer stale.
                if lock.try_lock().is_ok() { lock.set_len(0) } else { Ok(()) }
            });
            emptied.map_err(|error| failed(path, error))?;
            "emptied".to_owned()
        }
        Mend::Renew(_) if !renews => return Ok(()),
        Mend::Renew(path) => {
            let token = Secret::random()
                .ok_or_else(|| Problem::new(Class::Internal, "no random numbers for a token"))?;
            file::write(path, token.expose().as_bytes())?;
            "a new token was made; openclaw gateway auth-token --show prints it".to_owned()
        }
    };
    finding.mended = Some(done);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Severity, *};

    #[test]
    fn narrows_modes_and_makes_a_new_token_only_when_asked() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("gateway-token");
        fs::write(&path, "weak").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let of = |mend| Finding::new("x", Severity::Error, "what").mend(mend);
        let mut narrow = of(Mend::Narrow { path: path.clone(), mode: 0o600 });
        mend(&mut narrow, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(narrow.mended.is_some());
        let mut renew = of(Mend::Renew(path.clone()));
        mend(&mut renew, false).unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), renew.mended.as_deref()),
            ("weak".into(), None)
        );
        mend(&mut renew, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().len(), 43);
        let mut unlock = of(Mend::Unlock(path.clone()));
        mend(&mut unlock, false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
