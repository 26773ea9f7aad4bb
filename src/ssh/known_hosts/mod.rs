//! The known_hosts files: reading their lines, deciding what they say about a host key, writing.
//!
//! The format is that of sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

mod decide;
mod line;
mod write;

pub(crate) use decide::{
    Entry, Known, OnFile, Verdict, Voucher, authorities, decide, is_anywhere, keys_on_file,
    on_file, revocation,
};
pub(crate) use line::{Name, Source, fingerprint, key_type, line, read};
pub(crate) use write::{Change, change, record};

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
