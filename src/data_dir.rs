//! The data folder of the embedded backends: `log/` and `store/` under one lock.
//!
//! One process owns a data folder for as long as it holds a [`DataDir`]: the lock is the operating system's, on a file
//! in the folder, so it ends with the process however that ends. Other files in the folder are left alone. Every error
//! is one line that names the folder and the remedy; what lies inside `log/` and `store/` is those rooms' own.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

const LOCK_FILE: &str = "tallymark.lock";

/// A data folder that this process owns.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // Closing it ends the lock.
    _lock: File,
}

/// Why a folder cannot be this process's data folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("the data folder `{}` is in use by another process{}; stop that one, or choose another folder with --log and --store", path.display(), holder(*pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other process, as it said itself.
        pid: Option<u32>,
    },
    /// There is something else at that path.
    #[error("the data folder `{}` is not a directory; choose another folder with --log and --store", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be made or written.
    #[error("the data folder `{}` cannot be written ({source}); make it writable for this user, or choose another folder with --log and --store", path.display())]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

impl DataDir {
    /// Makes the folder if need be, and takes its lock.
    ///
    /// # Errors
    /// It is another process's, is no directory, or cannot be written.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        if path.exists() && !path.is_dir() {
            return Err(Error::NotADirectory { path });
        }
        match Self::lock(&path) {
            Ok(Some(lock)) => Ok(Self { path, _lock: lock }),
            Ok(None) => Err(Error::InUse { pid: read_pid(&path), path }),
            Err(source) if source.kind() == io::ErrorKind::NotADirectory => Err(Error::NotADirectory { path }),
            Err(source) => Err(Error::NotWritable { path, source }),
        }
    }

    fn lock(path: &Path) -> io::Result<Option<File>> {
        fs::create_dir_all(path)?;
        // Not truncated: until the lock is taken, what is in it is the other process's.
        let file = path.join(LOCK_FILE);
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(file)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Who holds it is said for people; a full disk must not keep the program from starting to drain.
        let said = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = said {
            tracing::warn!(path = %path.display(), %error, "the lock file does not say who holds it");
        }
        Ok(Some(file))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log's folder in it.
    pub fn log(&self) -> PathBuf {
        log_in(&self.path)
    }

    /// The store's folder in it.
    pub fn store(&self) -> PathBuf {
        store_in(&self.path)
    }
}

/// Where a data folder keeps its log.
pub fn log_in(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// Where a data folder keeps its store.
pub fn store_in(folder: &Path) -> PathBuf {
    folder.join("store")
}

fn read_pid(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path.join(LOCK_FILE)).ok()?.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time_and_keeps_what_else_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let owner = DataDir::open(&path).unwrap();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.contains(&path.display().to_string()), "{refused}");
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        assert!(refused.contains("--log") && !refused.contains('\n'), "{refused}");
        drop(owner);
        let owner = DataDir::open(&path).unwrap();
        assert_eq!(owner.log(), path.join("log"));
        assert_eq!(fs::read_to_string(path.join("notes.txt")).unwrap(), "mine");
    }

    #[test]
    fn a_file_is_no_folder() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let refused = DataDir::open(path).unwrap_err();
            assert!(matches!(refused, Error::NotADirectory { .. }), "{refused}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"");
    }
}
