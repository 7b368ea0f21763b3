//! What can go wrong below the embedded store, and what it means to whoever asked.
//!
//! A full disk passes: the writer tries again and the store opens itself again when there is room. Damage, a folder in
//! other hands and a disk that fails do not: somebody has to act, and the message says how. A failed sync is never
//! glossed over: after it nobody can say which acknowledged writes the disk has, so only a restart, which replays from
//! the checkpoint, goes on.

use std::{io, path::Path};

use crate::{retry::Kind, store::Error};

use super::values::Damaged;

/// A failure, before it is told.
#[derive(Debug)]
pub enum Fault {
    /// The engine said so.
    Engine(fjall::Error),
    /// The engine could not sync.
    Sync(fjall::Error),
    /// Bytes that this program did not write like that.
    Damaged(Damaged),
    /// A key that the engine cannot hold.
    TooLong(usize),
    /// The engine did not get its files written in time.
    Slow,
    /// The engine panicked.
    Panicked,
}

impl From<fjall::Error> for Fault {
    fn from(error: fjall::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Damaged> for Fault {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

/// What a failure calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// This request is wrong; the store is well.
    Refuse,
    /// Trying again is enough.
    Retry,
    /// The engine has stopped: open it again, when there is room.
    Reopen,
    /// Somebody has to act.
    Act,
}

/// What an error of the operating system means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Full,
    Passing,
    Failing,
}

fn disk(error: &io::Error) -> Disk {
    use io::ErrorKind as E;
    match error.kind() {
        E::StorageFull | E::QuotaExceeded | E::FileTooLarge => Disk::Full,
        E::Interrupted | E::WouldBlock | E::TimedOut | E::ResourceBusy | E::OutOfMemory => Disk::Passing,
        // ENFILE and EMFILE have no kind of their own.
        _ if matches!(error.raw_os_error(), Some(23 | 24)) => Disk::Passing,
        _ => Disk::Failing,
    }
}

fn io_of(error: &fjall::Error) -> Option<&io::Error> {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => Some(error),
        _ => None,
    }
}

impl Fault {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Sync(error) if io_of(error).is_some_and(|error| disk(error) != Disk::Full) => Remedy::Act,
            Self::Engine(error) | Self::Sync(error) => match (error, io_of(error).map(disk)) {
                (_, Some(Disk::Full | Disk::Passing)) | (fjall::Error::Poisoned, _) => Remedy::Reopen,
                _ => Remedy::Act,
            },
            Self::Damaged(_) => Remedy::Act,
            Self::TooLong(_) => Remedy::Refuse,
            Self::Slow => Remedy::Retry,
            Self::Panicked => Remedy::Reopen,
        }
    }

    /// The error for the port's caller.
    pub fn tell(self, dir: &Path) -> Error {
        let kind = match self.remedy() {
            Remedy::Refuse => Kind::Permanent,
            Remedy::Retry | Remedy::Reopen => Kind::Transient,
            Remedy::Act => Kind::Fatal,
        };
        let dir = dir.display();
        let message = match &self {
            Self::Sync(error) if kind == Kind::Fatal => format!(
                "the store in {dir} could not be synced ({}); check the disk, then restart: the lanes repeat what it may have lost",
                reason(error)
            ),
            Self::Engine(error) | Self::Sync(error) => match (error, io_of(error)) {
                (fjall::Error::Locked, _) => format!(
                    "the store in {dir} is in use by another process; stop that one or choose another folder with --store"
                ),
                (fjall::Error::Poisoned, _) => format!(
                    "the store in {dir} has stopped taking writes after a failed one; it opens itself again when the disk has room"
                ),
                (fjall::Error::InvalidVersion(_), _) => {
                    format!(
                        "the store in {dir} has files of another format; use the program that wrote them or an empty folder"
                    )
                }
                (_, Some(error)) => match disk(error) {
                    Disk::Full => {
                        format!("the disk of the store in {dir} is full; free some space, it goes on by itself")
                    }
                    Disk::Passing => format!("the store in {dir} could not use its files now ({error})"),
                    Disk::Failing => format!(
                        "the store in {dir} cannot use its files ({error}); check the disk and the folder's owner, then restart"
                    ),
                },
                _ => damage(&dir, &reason(error)),
            },
            Self::Damaged(Damaged(what)) => damage(&dir, what),
            Self::TooLong(length) => format!(
                "a row's key takes {length} bytes and the embedded store holds at most {}; use shorter names",
                super::keys::MAX_KEY_BYTES
            ),
            Self::Slow => format!("the disk of the store in {dir} does not keep up with the writes"),
            Self::Panicked => format!("the store in {dir} has stopped unexpectedly; it opens itself again"),
        };
        match self {
            Self::Engine(error) | Self::Sync(error) => Error::new(kind, message).with(error),
            _ => Error::new(kind, message),
        }
    }
}

fn damage(dir: &impl std::fmt::Display, what: &str) -> String {
    format!(
        "the store in {dir} is damaged ({what}); restore the folder from a copy, or move it away to begin anew from the log, and restart"
    )
}

fn reason(error: &fjall::Error) -> String {
    use fjall::Error as E;
    match error {
        E::Io(error) => error.to_string(),
        E::Storage(fjall::LsmError::Io(error)) => error.to_string(),
        E::Storage(fjall::LsmError::ChecksumMismatch { .. }) => "a block fails its checksum".into(),
        E::JournalRecovery(error) => format!("its journal does not read: {error}"),
        E::Storage(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fault: Fault) -> (Kind, String) {
        let error = fault.tell(Path::new("/data/store"));
        (error.kind, error.message)
    }

    #[test]
    fn a_full_disk_passes_and_a_failing_one_does_not() {
        let full = || fjall::Error::Io(io::ErrorKind::StorageFull.into());
        for fault in [Fault::Engine(full()), Fault::Sync(full())] {
            assert_eq!(fault.remedy(), Remedy::Reopen);
            let (kind, message) = told(fault);
            assert_eq!(kind, Kind::Transient);
            assert!(message.contains("/data/store") && message.contains("free some space"), "{message}");
        }
        let failing = || fjall::Error::Storage(fjall::LsmError::Io(io::Error::from_raw_os_error(5)));
        for fault in [Fault::Engine(failing()), Fault::Sync(failing())] {
            assert_eq!((fault.remedy(), told(fault).0), (Remedy::Act, Kind::Fatal));
        }
        let files = Fault::Engine(fjall::Error::Io(io::Error::from_raw_os_error(24)));
        assert_eq!((files.remedy(), told(files).0), (Remedy::Reopen, Kind::Transient));
    }

    #[test]
    fn damage_and_a_folder_in_use_name_their_remedy() {
        let (kind, message) = told(Fault::Engine(fjall::Error::Locked));
        assert!(kind == Kind::Fatal && message.contains("another process"), "{message}");
        for fault in [
            Fault::Engine(fjall::Error::Unrecoverable),
            Fault::Engine(fjall::Error::JournalRecovery(fjall::JournalRecoveryError::ChecksumMismatch)),
            Fault::Damaged(Damaged("a row is empty")),
        ] {
            let (kind, message) = told(fault);
            assert!(kind == Kind::Fatal && message.contains("damaged") && message.contains("restore"), "{message}");
        }
    }
}
