//! Removes large files a little at a time.
//!
//! Removing a file of 64 MiB keeps ext4's journal busy for as long as its blocks take to free (measured: 1.5 ms a MiB
//! where the disk is told of it), and every sync in the meantime waits, so every append does. fjall removes its journals
//! and tables at once; so each gets a second name in a folder of ours before, fjall's removal takes only the first
//! name, and what is then left is shortened here step by step.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

const FOLDER: &str = "removed";
const STEP_BYTES: u64 = 1 << 20;
/// Between two steps, for the syncs in between.
const PAUSE: Duration = Duration::from_millis(5);
/// With more than this to do, the disk's room matters more than an even pace.
const BACKLOG_BYTES: u64 = 512 << 20;

/// Files on their way out.
pub(super) struct Sweeper {
    folder: PathBuf,
    journals: PathBuf,
    /// Files that have a second name, and whether fjall still has the first.
    waiting: Vec<PathBuf>,
    /// Files that have only ours, with what is left of them.
    shrinking: Vec<(File, PathBuf, u64)>,
}

impl Sweeper {
    /// A sweeper for the log in `dir`; what an earlier life left is removed at once.
    pub(super) fn new(dir: &Path) -> Self {
        let folder = dir.join(FOLDER);
        // Not there, most often; and what cannot be removed only takes room.
        let _ = fs::remove_dir_all(&folder);
        Self { folder, journals: dir.to_owned(), waiting: Vec::new(), shrinking: Vec::new() }
    }

    /// Gives every journal a second name. A file system that has no such thing just removes them at once.
    pub(super) fn name_journals(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.journals)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jnl") {
                self.name(&path, "journal")?;
            }
        }
        Ok(())
    }

    /// Gives a file that is about to be removed a second name; `kind` keeps names of different folders apart.
    pub(super) fn name(&mut self, path: &Path, kind: &str) -> io::Result<()> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
        let ours = self.folder.join(format!("{kind}-{name}"));
        if self.waiting.contains(&ours) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        match fs::hard_link(path, &ours) {
            Ok(()) => self.waiting.push(ours),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes on what fjall has removed by now.
    pub(super) fn look(&mut self) {
        let shrinking = &mut self.shrinking;
        self.waiting.retain(|path| match fs::metadata(path) {
            Ok(metadata) if metadata.nlink() > 1 => true,
            Ok(metadata) => match OpenOptions::new().write(true).open(path) {
                Ok(file) => {
                    shrinking.push((file, path.clone(), metadata.len()));
                    false
                }
                Err(_) => true,
            },
            Err(_) => false,
        });
    }

    /// When to take the next step, if there is one to take.
    pub(super) fn pause(&self) -> Option<Duration> {
        let left: u64 = self.shrinking.iter().map(|(.., left)| *left).sum();
        (left > 0 || !self.shrinking.is_empty()).then_some(if left > BACKLOG_BYTES { Duration::ZERO } else { PAUSE })
    }

    /// Takes one step.
    pub(super) fn step(&mut self) {
        let Some((file, path, left)) = self.shrinking.first_mut() else { return };
        *left = left.saturating_sub(STEP_BYTES);
        // What cannot be shortened can perhaps be removed.
        if *left == 0 || file.set_len(*left).is_err() {
            if let Err(error) = fs::remove_file(&*path) {
                tracing::warn!(path = %path.display(), %error, "an old file of the log cannot be removed");
            }
            self.shrinking.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_when_its_first_name_is_gone_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("0.jnl");
        fs::write(&journal, vec![1; 3 << 20]).unwrap();
        fs::write(dir.path().join("version"), "3").unwrap();
        let mut sweeper = Sweeper::new(dir.path());
        let ours = dir.path().join(FOLDER).join("journal-0.jnl");
        for _ in 0..2 {
            sweeper.name_journals().unwrap();
            sweeper.look();
            assert_eq!(sweeper.pause(), None);
        }
        assert_eq!(fs::metadata(&journal).unwrap().len(), 3 << 20);
        fs::remove_file(&journal).unwrap();
        sweeper.look();
        for left in [2, 1] {
            assert!(sweeper.pause().is_some());
            sweeper.step();
            assert_eq!(fs::metadata(&ours).unwrap().len(), left << 20);
        }
        sweeper.step();
        assert!(!ours.exists());
        assert_eq!(sweeper.pause(), None);
        assert!(dir.path().join("version").exists());
    }

    #[test]
    fn what_an_earlier_life_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("7.jnl");
        fs::write(&journal, "journal").unwrap();
        Sweeper::new(dir.path()).name_journals().unwrap();
        drop(Sweeper::new(dir.path()));
        assert!(!dir.path().join(FOLDER).exists());
        assert_eq!(fs::read(&journal).unwrap(), b"journal");
    }
}
